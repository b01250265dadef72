"""The command line. Each command imports the heavy libraries it needs, so that `limbeck --help` starts fast."""

import contextlib
import io
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import limbeck
from limbeck.corpus.errors import LimbeckError
from limbeck.pipelines.cli.critic import app as critic
from limbeck.pipelines.cli.ngram import app as ngram
from limbeck.pipelines.driver.interrupts import interruptible, noticed

if TYPE_CHECKING:
    from limbeck.pipelines.runs.preference_pairs import Preferences

STARTED = time.time()
_RESUMING = (("run",), ("ngram", "build"), ("ngram", "append"), ("ngram", "compact"), ("critic", "train-nli"))

app = typer.Typer(
    name="limbeck",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"limbeck {limbeck.__version__}")
        raise typer.Exit


app.add_typer(ngram)
app.add_typer(critic)

RecipeArgument = Annotated[
    Path, typer.Argument(help="a recipe file, or the name of a shipped recipe, such as quickstart", show_default=False)
]
RunArgument = Annotated[Path, typer.Argument(help="a run folder", show_default=False)]
Overrides = Annotated[list[str], typer.Option("--set", help="override one key: --set generator.samples=8 (repeatable)")]
Merged = Annotated[
    list[str],
    typer.Option("--with", help="an override file merged into the recipe, or a name such as toy (repeatable; before --set)"),
]
Selected = Annotated[
    str | None, typer.Option("--selection", help="read what `limbeck filter --apply NAME` stored, instead of the run's own")
]
Round = Annotated[str | None, typer.Option("--round", metavar="N|best", help="[default: the last round with decisions]")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON value instead of text")]


@app.command()
def run(
    recipe: RecipeArgument,
    out: Annotated[Path | None, typer.Option(help="the run folder [default: runs/<recipe's name>]")] = None,
    merged: Merged = [],  # noqa: B006 (typer only reads the default)
    overrides: Overrides = [],  # noqa: B006
    panel: Annotated[bool | None, typer.Option("--panel/--no-panel", help="live panel [default: on a terminal]")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe, or resume an interrupted run of it."""
    from limbeck.pipelines import recipe as recipes
    from limbeck.pipelines import recipe_files
    from limbeck.pipelines.console.panel import watching
    from limbeck.pipelines.run import run as run_recipe

    loaded = recipes.load(recipe, overrides, merged)
    file = recipe_files.find(recipe)
    given = recipe_files.as_given(file, [recipe_files.find_override(file, name) for name in merged], overrides)
    folder = out or Path("runs") / loaded.name
    with watching(panel=panel) as listener:
        finished = run_recipe(loaded, folder, listener=listener, recipe_text=given, started=STARTED)
    report = finished.path / "report.html"
    if as_json:
        typer.echo((finished.path / "report.json").read_text(encoding="utf-8"))
    else:
        typer.echo(_first_line(finished.path))
        typer.echo(f"report: {report}")


@app.command()
def preview(
    recipe: RecipeArgument,
    merged: Merged = [],  # noqa: B006
    overrides: Overrides = [],  # noqa: B006
    sources: Annotated[int, typer.Option("--sources", "-n", min=1, help="number of sources")] = 5,
    as_json: AsJson = False,
) -> None:
    """Run a few documents through everything except training. Print prompts, outputs, scores and decisions."""
    from limbeck.pipelines import recipe as recipes
    from limbeck.pipelines.driver.preview import preview as take
    from limbeck.pipelines.driver.preview import show

    found = take(recipes.load(recipe, overrides, merged), sources)
    _print_json(found) if as_json else show(found)
    if found["problem"]:
        raise LimbeckError(found["problem"])


@app.command()
def check(
    recipe: RecipeArgument,
    out: Annotated[Path | None, typer.Option(help="the run folder that would be used")] = None,
    merged: Merged = [],  # noqa: B006
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Validate a recipe without running it. Check models, context lengths, memory, disk and cluster; estimate tokens and time."""
    from limbeck.pipelines import recipe as recipes
    from limbeck.pipelines.console.check import show
    from limbeck.pipelines.driver.check import check as look

    loaded = recipes.load(recipe, overrides, merged)
    found = look(loaded, out or Path("runs") / loaded.name)
    _print_json(found) if as_json else show(found)
    if found["problems"]:
        raise typer.Exit(1)


@app.command()
def status(run: RunArgument, as_json: AsJson = False) -> None:
    """Show a run's state, its progress and what it kept."""
    from limbeck.pipelines.runs.status import show
    from limbeck.pipelines.runs.status import status as look

    found = look(run)
    _print_json(found) if as_json else show(found)


@app.command()
def stop(run: RunArgument, as_json: AsJson = False) -> None:
    """Stop a run; completed work is kept."""
    from limbeck.pipelines.runs.lock import lock_holder
    from limbeck.pipelines.runs.opening import begun
    from limbeck.pipelines.runs.status import stop as end

    was_running = lock_holder(begun(run)) is not None
    words = end(run)
    _print_json({"run": str(run), "was_running": was_running, "message": words}) if as_json else typer.echo(words)


@app.command()
def inspect(
    run: RunArgument,
    round_given: Round = None,
    rejected_by: Annotated[str | None, typer.Option(help="only candidates rejected by this filter")] = None,
    kept: Annotated[bool | None, typer.Option("--kept/--rejected", help="only kept, or only rejected, candidates")] = None,
    source: Annotated[str | None, typer.Option(help="only candidates of this source_id")] = None,
    sort: Annotated[str | None, typer.Option(help="sort by this column, such as saliency")] = None,
    ascending: Annotated[bool, typer.Option("--ascending", help="sort in ascending order")] = False,
    limit: Annotated[int, typer.Option(min=1)] = 20,
    made: Annotated[str | None, typer.Option("--steps", help="show every request that led to this candidate")] = None,
    selection: Selected = None,
    as_json: AsJson = False,
) -> None:
    """Print candidates with their scores and decisions. With --steps, print every request that led to one candidate."""
    round_number = _round(run, round_given)
    if made is not None:
        _without("--steps", **{"--rejected-by": rejected_by, "--kept/--rejected": kept, "--source": source, "--sort": sort})
        from limbeck.pipelines.runs import steps

        found = steps.steps(run, made, round_number)
        _print_json(found) if as_json else steps.show(found)
        return
    if kept:
        _without("--kept", **{"--rejected-by": rejected_by})
    from limbeck.pipelines.runs.inspect import candidates, show

    table = candidates(run, round_number, rejected_by, kept, source, sort, not ascending, limit, selection)
    if as_json:
        _print_json(table.to_pylist())
    else:
        show(table)


@app.command("filter")
def filter_run(
    run: RunArgument,
    overrides: Overrides = [],  # noqa: B006
    sweep: Annotated[str | None, typer.Option(help="try a bound over a range: filters.pmi.min_faithfulness=0.1:0.6:0.05")] = None,
    apply: Annotated[str | None, typer.Option(help="write the resulting dataset next to the run's own, under this name")] = None,
    score: Annotated[bool, typer.Option("--score", help="compute missing scores, loading models if needed")] = False,
    round_given: Round = None,
    examples: Annotated[int, typer.Option(min=0, help="number of newly kept, and of newly rejected, rows to show")] = 20,
    plot: Annotated[Path | None, typer.Option(help="write the curve of --sweep to this HTML file")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what other bounds would keep, from stored scores. Without --score, no model is loaded; the run is never changed."""
    from limbeck.pipelines.console.whatif import plot_sweep, show, show_sweep
    from limbeck.pipelines.driver.rescore import score_here
    from limbeck.pipelines.runs import whatif as what

    if sweep is not None:
        _without("--sweep", **{"--apply": apply})
    elif plot is not None:
        raise LimbeckError("--plot draws the curve of a sweep; add --sweep")
    trial = what.WhatIf(run, _round(run, round_given), score_here if score else None)
    if sweep is not None:
        swept = what.parse_sweep(sweep)
        points = list(what.sweep(trial, overrides, swept))
        if plot is not None:
            plot_sweep(swept.key, points, plot)
        _print_json({"key": swept.key, "points": points}) if as_json else show_sweep(swept.key, points)
        return
    selection = trial.decide(overrides)
    found = what.compare(trial, selection, examples)
    if apply is not None:
        applied = what.apply(trial, selection, apply, overrides)
        found["written"] = str(applied.folder)
        if applied.preferences is not None:
            found["preferences"] = applied.preferences.model_dump(mode="json")
    _print_json(found) if as_json else show(found)
    if apply is not None and not as_json:
        typer.echo(f"wrote {found['written']}")
        _say_pairs(applied.preferences)


@app.command()
def report(run: RunArgument, as_json: AsJson = False) -> None:
    """Rebuild report.html and report.json from the run folder."""
    from limbeck.pipelines.report.build import write_report

    paths = write_report(run)
    typer.echo(paths.json.read_text(encoding="utf-8") if as_json else f"{_first_line(run)}\nreport: {paths.html}")


@app.command()
def export(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="the output file or folder", show_default=False)],
    format: Annotated[str, typer.Option(help="messages, alpaca, huggingface or preferences")] = "messages",
    overrides: Annotated[
        list[str],
        typer.Option("--set", help="with --format preferences, how answers are paired: --set rows.by=pmi.pmi (repeatable)"),
    ] = [],  # noqa: B006
    round_given: Annotated[
        str | None, typer.Option("--round", metavar="N|best", help="[default: the last round with a dataset]")
    ] = None,
    selection: Selected = None,
    as_json: AsJson = False,
) -> None:
    """Export a round's dataset for other tools."""
    from limbeck.pipelines.runs.export import export as write

    number = _round(run, round_given)
    if format == "preferences":
        from limbeck.pipelines.runs.export_pairs import export_pairs

        pairs = export_pairs(run, number, out, overrides, selection)
        said = {"written": str(out), "format": format, "preferences": pairs.model_dump(mode="json")}
    elif overrides:
        raise LimbeckError(
            f"--set {overrides[0]} is for --format preferences; to change bounds, use `limbeck filter RUN --apply`"
        )
    else:
        pairs, said = None, {"written": str(write(run, number, format, out, selection)), "format": format}
    if as_json:
        _print_json(said)
        return
    typer.echo(f"wrote {said['written']}")
    _say_pairs(pairs)


@app.command("restore-vocabulary")
def restore_vocabulary(
    model: Annotated[Path, typer.Argument(help="the folder of a model with a trimmed vocabulary", show_default=False)],
    original: Annotated[str, typer.Option(help="the model from which it was trimmed", show_default=False)],
    out: Annotated[Path, typer.Option(help="the output folder", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Give a student with a trimmed vocabulary the full one back: removed tokens get the rows of the original model."""
    from limbeck.cluster.engines.models import resolve
    from limbeck.corpus.extras import require
    from limbeck.students.base.trimming import restore_vocabulary as restore

    require("restore-vocabulary", "local")
    if out.exists():
        raise LimbeckError(f"{out} exists; choose another --out")
    restore(resolve(str(model)), resolve(original), out)
    _print_json({"written": str(out)}) if as_json else typer.echo(f"wrote {out}")


@app.command()
def mix(
    mixture: Annotated[Path, typer.Argument(help="a YAML file that names datasets and their weights", show_default=False)],
    out: Annotated[Path, typer.Option(help="the dataset folder to write", show_default=False)],
    overrides: Overrides = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Mix datasets of runs and existing data into a new dataset with its card."""
    from limbeck.pipelines.runs.mixture.file import load
    from limbeck.pipelines.runs.mixture.file import mix as write

    facts = write(load(mixture, overrides), out)
    if as_json:
        _print_json({"written": str(out), **facts.model_dump(mode="json")})
        return
    for one in facts.components:
        typer.echo(f"{one.name}: {one.rows} rows ({one.share:.1%} asked), from {one.usable} usable ones of {one.given}")
    typer.echo(f"wrote {out} ({facts.rows} rows)")


@app.command("recipes")
def shipped_recipes(
    copy: Annotated[
        tuple[str, Path] | None, typer.Option(metavar="NAME FOLDER", help="copy a recipe and its overrides into a folder")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the shipped recipes, or copy one into a folder."""
    from limbeck.pipelines import recipe_files

    if copy is not None:
        written = [str(path) for path in recipe_files.copy(*copy)]
        _print_json(written) if as_json else typer.echo(f"wrote {', '.join(written)}")
        return
    found = recipe_files.shipped()
    if as_json:
        _print_json([{**vars(recipe), "path": str(recipe.path)} for recipe in found])
        return
    width = max(len(recipe.name) for recipe in found)
    for recipe in found:
        options = "".join(f" [--with {name}]" for name in recipe.overrides)
        typer.echo(f"{recipe.name:{width}}  {recipe.description}{options}")


@app.command()
def schema(
    report: Annotated[bool, typer.Option("--report", help="print the schema of report.json instead")] = False,
    kinds: Annotated[bool, typer.Option("--kinds", help="list every kind that a recipe can use, with its package")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the JSON Schema of a recipe. With --kinds, list the kinds of its sections."""
    if kinds:
        from limbeck.pipelines.console.kinds import show

        show(as_json)
        return
    if report:
        from limbeck.pipelines.runs.report_model import json_schema
    else:
        from limbeck.pipelines.recipe import json_schema
    _print_json(json_schema())


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="print the version and exit", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Distil a language model and raw text into filtered synthetic data and a better student, round after round."""


def main() -> None:
    """Run the command line. An error that the user can fix is one sentence on stderr and exit code 1 (3: the target
    was not reached); Ctrl-C is 130."""
    interruptible()
    # disable telemetry and library chatter
    for name, value in {
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that cannot show a character shows a question mark
            stream.reconfigure(errors="replace")
    code = _exit_code()
    noticed()
    for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C during the last lines changes nothing
        signal.signal(number, signal.SIG_IGN)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # the reader of a pipe has ended
            stream.flush()
    # all output is written and closed; a regular teardown would only wait for the libraries and print their warnings
    os._exit(code)


def _exit_code() -> int:
    try:
        code = int(app(standalone_mode=False) or 0)
        return _interrupted() if code == 130 else code  # typer turns Ctrl-C into this value
    except LimbeckError as error:
        print(f"limbeck: {error}", file=sys.stderr)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # a usage error from typer
            error.show()
            return int(error.exit_code)
        traceback.print_exc()  # a bug of ours, not a user error: show the traceback
        return 70


def _interrupted() -> int:
    saved = "; completed work is saved, rerun the same command to resume" if _resumes(sys.argv[1:]) else ""
    print(f"limbeck: interrupted{saved}", file=sys.stderr)
    return 130


def _resumes(arguments: list[str]) -> bool:
    """Whether the command that the arguments name resumes when it is repeated."""
    names = tuple(name for name in arguments if not name.startswith("-"))
    return any(names[: len(command)] == command for command in _RESUMING)


def _round(run: Path, given: str | None) -> int | None:
    """The round that `--round` names: a number, or `best`."""
    from limbeck.corpus.earlier_runs import best_round

    if given is None or (given.isascii() and given.isdigit()):
        return None if given is None else int(given)
    if given != "best":
        raise LimbeckError(f"--round {given}: expected a number from 0, or best (the round whose student is the best on dev)")
    return best_round(run)


def _say_pairs(pairs: "Preferences | None") -> None:
    """Print what the pairs are, and a warning if lengths tell their sides apart."""
    if pairs is not None:
        from limbeck.pipelines.runs.preference_pairs import summary, warning

        typer.echo(summary(pairs))
        if (words := warning(pairs)) is not None:
            typer.echo(f"warning: {words}")


def _without(option: str, **others: Any) -> None:
    """Raise LimbeckError if an option is given with another that it would make meaningless."""
    if given := [name for name, value in others.items() if value is not None]:
        raise LimbeckError(f"{option} and {given[0]} exclude each other; give one of them")


def _print_json(value: Any) -> None:
    """Print one JSON value; characters that the output's encoding lacks are escaped."""
    try:
        whole = bool(json.dumps(value, ensure_ascii=False, default=str).encode(sys.stdout.encoding or "utf-8"))
    except UnicodeEncodeError:
        whole = False
    typer.echo(json.dumps(value, indent=2, ensure_ascii=not whole, default=str))


def _first_line(run: Path) -> str:
    from limbeck.corpus.parts import read_object

    return str(read_object(run / "report.json").get("first_line", ""))


if __name__ == "__main__":
    main()
