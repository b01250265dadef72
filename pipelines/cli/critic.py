"""The commands `limbeck critic ...`: make a critic's model where none can be had, and measure one."""

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
    help="Make and measure the models of critics.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_MADE = "nli-minilm"
_LOG_SECONDS = 10.0
AsJson = Annotated[bool, typer.Option("--json", help="print the figures as JSON")]


@app.callback()
def critic() -> None:
    """Make and measure the models of critics."""


@app.command("train-nli")
def train_nli(
    corpus: Annotated[
        list[Path] | None,
        typer.Option(help="text, JSON Lines or Parquet: a file, a folder or a glob [default: the installed packages]"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="the model folder [default: where embedded:nli-minilm is looked for]")] = None,
    text_column: Annotated[str, typer.Option(help="of JSON Lines and Parquet")] = "text",
    pairs: Annotated[int, typer.Option(min=100, help="how many pairs to make, where the corpus holds as many")] = 12_000,
    epochs: Annotated[int, typer.Option(min=1)] = 2,
    learning_rate: Annotated[float, typer.Option(min=1e-7, max=1e-2)] = 2e-4,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    encoder: Annotated[str, typer.Option(help="a BERT-like encoder: a folder, a Hugging Face id, or this one")] = (
        "embedded:all-minilm-l6-v2"
    ),
    as_json: AsJson = False,
) -> None:
    """Fine-tune a small sentence encoder into an NLI critic, on pairs made by rule from any texts; needs no network."""
    from limbeck.cluster.engines.models import made_root
    from limbeck.corpus.extras import require
    from limbeck.filters.nli_model.card import quality_table
    from limbeck.filters.nli_model.documents import read_documents
    from limbeck.filters.nli_model.training import NliTraining, check_out, train_nli

    require("limbeck critic train-nli", "local")
    folder = out or made_root() / _MADE
    check_out(folder)
    documents, origin = read_documents([str(path) for path in corpus or ()], text_column)
    training = NliTraining(encoder=encoder, pairs=pairs, epochs=epochs, learning_rate=learning_rate, seed=seed)
    with _progress() as report:
        figures = train_nli(documents, origin, training, folder, report)
    if as_json:
        typer.echo(json.dumps(figures | {"folder": str(folder)}))
        return
    typer.echo(quality_table(figures["test"], figures["baseline"]))
    typer.echo(
        f"\n{folder} is an NLI model; name it in a recipe under classifier: {{model: ...}}. What it is stands in its README.md"
    )


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
    """A bar on a terminal, a line every ten seconds elsewhere; both on standard error."""
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
