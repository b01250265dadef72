"""The commands `limbeck critic ...`: train an NLI model when none can be downloaded, and measure one."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from limbeck.filters.nli_model.training import Report, Step

app = typer.Typer(
    name="critic",
    help="Train and measure models for filters.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_MADE = "nli-minilm"
_LOG_SECONDS = 10.0
AsJson = Annotated[bool, typer.Option("--json", help="print the figures as JSON")]


@app.callback()
def critic() -> None:
    """Train and measure models for filters."""


@app.command("train-nli")
def train_nli(
    corpus: Annotated[
        list[Path] | None,
        typer.Option(help="text, JSON Lines or Parquet: a file, a folder or a glob [default: the installed packages]"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="the model folder [default: the location of embedded:nli-minilm]")] = None,
    text_column: Annotated[str, typer.Option(help="the text column of JSON Lines and Parquet")] = "text",
    pairs: Annotated[int, typer.Option(min=100, help="training pairs to make, if the corpus has enough sentences")] = 12_000,
    epochs: Annotated[int, typer.Option(min=1)] = 2,
    learning_rate: Annotated[float, typer.Option(min=1e-7, max=1e-2)] = 2e-4,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    encoder: Annotated[str, typer.Option(help="a BERT-like encoder: a folder, a Hugging Face id, or this one")] = (
        "embedded:all-minilm-l6-v2"
    ),
    as_json: AsJson = False,
) -> None:
    """Train a small NLI model without a network. It is a sentence encoder, fine-tuned on pairs made by rule from any texts."""
    from limbeck.cluster.engines.models import made_root
    from limbeck.corpus.extras import require
    from limbeck.filters.nli_model.card import failure, quality_table
    from limbeck.filters.nli_model.documents import read_documents
    from limbeck.filters.nli_model.training import NliTraining, check_out, train_nli

    require("limbeck critic train-nli", "local")
    folder = out or made_root() / _MADE
    check_out(folder)
    documents, origin = read_documents([str(path) for path in corpus or ()], text_column)
    training = NliTraining(encoder=encoder, pairs=pairs, epochs=epochs, learning_rate=learning_rate, seed=seed)
    with _progress() as report:
        figures = train_nli(documents, origin, training, folder, report)
    if words := failure(figures, folder):
        typer.echo(f"warning: {words}", err=True)
    if as_json:
        typer.echo(json.dumps(figures | {"folder": str(folder)}))
        return
    typer.echo(quality_table(figures["test"], figures["baseline"]))
    typer.echo(f"\nwrote the NLI model {folder}; use it in a recipe as classifier: {{model: ...}}. Its README.md describes it")


@app.command("measure-nli")
def measure_nli(
    model: Annotated[str, typer.Argument(help="a folder, a Hugging Face id or an embedded model", show_default=False)],
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "float32",
    as_json: AsJson = False,
) -> None:
    """Measure any NLI model on the hand-written test set, by label and phenomenon."""
    from limbeck.cluster.engines.scoring_models.classifier import ClassifierConfig
    from limbeck.filters.nli_model.card import quality_table
    from limbeck.filters.nli_model.evaluation import measure, test_pairs

    config = ClassifierConfig.model_validate({"model": model, "dtype": dtype})
    quality = measure(config.load().probabilities, test_pairs()).as_json()
    typer.echo(json.dumps(quality | {"model": model}) if as_json else quality_table(quality))


@contextmanager
def _progress() -> Iterator["Report"]:
    """A progress bar on a terminal, otherwise a line every ten seconds; both on stderr."""
    import sys

    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.completed:,.0f}/{task.total:,.0f} pairs, {task.fields[rate]:.0f}/s, loss {task.fields[loss]:.3f}")
    with Progress(BarColumn(), rate, TextColumn("ETA"), TimeRemainingColumn(), console=Console(stderr=True)) as shown:
        task = shown.add_task("training", total=None, rate=0.0, loss=0.0)

        def report(step: "Step") -> None:
            shown.update(task, completed=step.done, total=step.total, rate=step.pairs_per_second, loss=step.loss)

        yield report


def _lines() -> Callable[["Step"], None]:
    last = 0.0

    def report(step: "Step") -> None:
        import time

        nonlocal last
        if time.monotonic() - last < _LOG_SECONDS and step.done < step.total:
            return
        last = time.monotonic()
        left = (step.total - step.done) / max(step.pairs_per_second, 1e-9)
        line = f"{step.done:,}/{step.total:,} pairs, {step.pairs_per_second:.0f}/s, loss {step.loss:.3f}, {left:.0f} s left"
        typer.echo(line, err=True)

    return report
