"""The commands `limbeck critic ...`: train an NLI model when none can be downloaded, and measure one."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    pairs: Annotated[int, typer.Option(min=100, help="training pairs to make, if the corpus has enough sentences")] = 8_000,
    written: Annotated[int, typer.Option("--written-pairs", min=0, help="training pairs from the written schemata")] = 12_000,
    epochs: Annotated[int, typer.Option(min=1)] = 2,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-7, max=1e-2, help="[default: 1e-4, for encoders wider than 512 5e-5]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    encoder: Annotated[str, typer.Option(help="a BERT-like encoder: a folder, a Hugging Face id, or this one")] = (
        "embedded:all-minilm-l6-v2"
    ),
    as_json: AsJson = False,
) -> None:
    """Train a small NLI model without a network. It is a sentence encoder, fine-tuned on pairs made by rule from any texts."""
    from limbeck.cluster.engines.models import made_root
    from limbeck.corpus.extras import require
    from limbeck.filters.nli_model.card import failure, held_out_sentence
    from limbeck.filters.nli_model.documents import read_documents
    from limbeck.filters.nli_model.evaluation import SETS
    from limbeck.filters.nli_model.training import NliTraining, check_out, train_nli

    require("limbeck critic train-nli", "local")
    folder = out or made_root() / _MADE
    check_out(folder)
    documents, origin = read_documents([str(path) for path in corpus or ()], text_column)
    training = NliTraining(encoder, pairs, written, epochs, learning_rate=learning_rate, seed=seed)
    with _progress() as report:
        figures = train_nli(documents, origin, training, folder, report)
    if words := failure(figures, folder):
        typer.echo(f"warning: {words}", err=True)
    if as_json:
        typer.echo(json.dumps(figures | {"folder": str(folder)}))
        return
    for name in SETS:
        typer.echo(_shown(name, figures[name], figures[f"{name}_baseline"]))
    typer.echo(held_out_sentence(figures))
    typer.echo(f"\nwrote the NLI model {folder}; use it in a recipe as classifier: {{model: ...}}. Its README.md describes it")


@app.command("measure-nli")
def measure_nli(
    model: Annotated[str, typer.Argument(help="a folder, a Hugging Face id or an embedded model", show_default=False)],
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16")] = "float32",
    as_json: AsJson = False,
) -> None:
    """Measure any NLI model on the two hand-written test sets, by label and phenomenon."""
    from limbeck.cluster.engines.scoring_models.classifier import ClassifierConfig
    from limbeck.filters.nli_model.evaluation import SETS, measure, test_pairs

    judge = ClassifierConfig.model_validate({"model": model, "dtype": dtype}).load().probabilities
    found = {name: measure(judge, test_pairs(name)).as_json() for name in SETS}
    if as_json:
        typer.echo(json.dumps(found | {"model": model}))
        return
    for name, quality in found.items():
        typer.echo(_shown(name, quality))


def _shown(name: str, quality: Mapping[str, Any], baseline: Mapping[str, Any] | None = None) -> str:
    """The table of a test set under its heading."""
    from limbeck.filters.nli_model.card import quality_table

    heading = {"independent": "pairs written without knowledge of the rules", "test": "pairs on the phenomena of the rules"}[name]
    return f"{quality['pairs']} {heading}; AUROC of entailment {quality['auroc']:.2f}\n\n{quality_table(quality, baseline)}\n"


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
