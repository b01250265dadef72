"""Export preference pairs of any decided round as JSON lines: those of its dataset, or pairs made now from its stored scores."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import publishing
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.recipe import Recipe
from limbeck.pipelines.runs.card import DATA
from limbeck.pipelines.runs.export import dataset_file_rows, finished_dataset
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.inspect import decided_files, decided_round
from limbeck.pipelines.runs.opening import existing
from limbeck.pipelines.runs.preference_pairs import Preferences, Tally
from limbeck.pipelines.runs.preferences import preference_rows, refuse_untested
from limbeck.pipelines.runs.records import read_preferences
from limbeck.pipelines.runs.rows import PreferenceRows
from limbeck.pipelines.runs.scored import connect_parts
from limbeck.pipelines.runs.self_test import stored
from limbeck.pipelines.runs.whatif import recorded_recipe, set_pairs

PAIR = ("prompt", "chosen", "rejected", "score_chosen", "score_rejected")
LABELLED = ("prompt", "completion", "label")


def export_pairs(
    run: Path, round: int | None, out: Path, settings: Sequence[str] = (), selection: str | None = None
) -> Preferences:
    """Write {prompt, chosen, rejected, score_chosen, score_rejected}, or {prompt, completion, label}, per line.

    Texts are strings or lists of {role, content}, as the run's rows are. Without `settings` the round's dataset, or a selection
    of it, must hold pairs; with them (`rows.by=pmi.pmi`), pairs are made of its candidates by its decisions. Returns what all
    pairs have in common. Raises LimbeckError if there are none, or if `out` exists.
    """
    folder = existing(run)
    if not settings:
        dataset = finished_dataset(folder.path, round, selection)
        found = read_preferences(dataset)
        if found is None:
            raise LimbeckError(
                f"{dataset} holds no preference pairs; say by which score its candidates are paired, as in --set rows.by=pmi.pmi"
            )
        _write(out, dataset_file_rows(dataset / DATA), found.form)
        return found
    number = decided_round(folder, round)
    recipe, rows = paired(folder, settings)
    refuse_untested(rows, recipe, stored(folder.self_test))
    decided, tally = decided_files(folder, number, selection), Tally(rows)
    with connect_parts(folder.candidates(number), decided.scores, folder.sources("train")) as scored:
        made = preference_rows(scored, recipe, rows, decided.decisions, tally)
        _write(out, (row for batch in made for row in batch.to_pylist()), rows.form, tally)
    return tally.facts()


def paired(folder: RunFolder, settings: Sequence[str]) -> tuple[Recipe, PreferenceRows]:
    """The recipe of a run with these keys of `rows`."""
    data = recorded_recipe(folder).model_dump(mode="json")
    for setting in settings:
        if setting.partition("=")[0].partition(".")[0] != "rows":
            raise LimbeckError(
                f"--set {setting}: an export can only set how answers are paired (rows.KEY); to change bounds, store a selection "
                "with `limbeck filter RUN --apply NAME` first"
            )
        set_pairs(data, setting)
    recipe = recipes.validate(data, "--set")
    assert recipe.preferences is not None
    return recipe, recipe.preferences


def _write(out: Path, rows: Iterable[dict[str, Any]], form: str, tally: Tally | None = None) -> None:
    """Publish the rows as JSON lines; with `tally`, raises LimbeckError after the last one if there is no pair."""
    with publishing(out, once="export to another path, or remove it first") as temporary:
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(_lines(rows, PAIR if form == "pairs" else LABELLED))
        if tally is not None:
            tally.facts()


def _lines(rows: Iterable[dict[str, Any]], names: Sequence[str]) -> Iterator[str]:
    for row in rows:
        yield json.dumps({name: row[name] for name in names}, ensure_ascii=False) + "\n"
