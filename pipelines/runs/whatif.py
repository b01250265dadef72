"""What-if: decide a round again with other bounds, from its stored scores, without a model, in seconds.

The run is not changed. An applied selection is written to `rounds/NNN/selections/NAME/`.
"""

import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from limbeck.corpus.config import NAME
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import check_whole, done, part_names, publishing, read_table, write_json, write_table
from limbeck.corpus.scratch import Scratch
from limbeck.filters.config import FilterConfig
from limbeck.filters.contract import Bound
from limbeck.filters.own import RecordedFilter
from limbeck.generators.contract import GeneratorConfig
from limbeck.pipelines import recipe as recipes
from limbeck.pipelines.recipe import CalibrationConfig, Recipe
from limbeck.pipelines.runs.calibrate import calibrate, freeze
from limbeck.pipelines.runs.card import DatasetFacts
from limbeck.pipelines.runs.dataset import dataset_facts
from limbeck.pipelines.runs.folder import RunFolder, fingerprint, not_a_record, read_lock, recorded_cpu_dtype
from limbeck.pipelines.runs.funnel import funnel, kept_sources
from limbeck.pipelines.runs.inspect import decided_round
from limbeck.pipelines.runs.lost import lost_parts, refuse_lost
from limbeck.pipelines.runs.opening import existing
from limbeck.pipelines.runs.preference_pairs import Preferences
from limbeck.pipelines.runs.preferences import publish_dataset
from limbeck.pipelines.runs.records import read_calibration
from limbeck.pipelines.runs.report_model import Rows
from limbeck.pipelines.runs.scored import Scored, connect_parts, text
from limbeck.pipelines.runs.select import UNDECIDED, Numbers, write_decisions

MOST_SWEPT = 1000
Score = Callable[[RunFolder, int, FilterConfig, Path], None]
"""Computes a filter's scores of a round's candidates and publishes them, with their `_done.json`, in a folder."""


@dataclass(frozen=True)
class Sweep:
    """A bound and the values to try."""

    key: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Selection:
    """The decisions of a round by a recipe's bounds."""

    recipe: Recipe
    number: int
    """Of the round."""
    filters: tuple[FilterConfig, ...]
    """The recipe's, then those that were passed to the run as objects."""
    calibration: dict[str, Any]
    file: Path
    """The decisions."""
    choices: dict[str, pa.Table] = field(default_factory=dict)
    scratch: Scratch | None = None
    """Where `file` is, if it is a temporary one: both exist as long as this object."""

    @property
    def names(self) -> list[str]:
        """Every filter of the round, in the order in which they are applied."""
        return [filter_.name for filter_ in (*self.filters, *self.recipe.select_of(self.number))]

    @property
    def decisions(self) -> pa.Table:
        """The decisions, read into memory."""
        return read_table(self.file)

    @property
    def undecided(self) -> int:
        """Rows that cannot be decided, because a score that they need was never computed."""
        return funnel(self.file, self.names).rejected_by.get(UNDECIDED, 0)


@dataclass(frozen=True)
class Applied:
    """A stored selection: its folder, and the facts of its pairs if its rows are preferences."""

    folder: Path
    preferences: Preferences | None


class WhatIf:
    """A round of a run, to be decided with other bounds."""

    def __init__(self, run: Path, number: int | None = None, score: Score | None = None) -> None:
        """Open a decided round (None: the last); `score`, if given, computes missing scores."""
        self.folder = existing(run)
        self.number = decided_round(self.folder, number)
        self.recipe = recorded_recipe(self.folder)
        self._others = _passed_as_objects(self.folder, self.recipe)
        self._score = score
        recorded, filters = self.folder.decisions(self.number), (*self.recipe.filters, *self._others)
        check_whole(recorded)
        self.before = Selection(self.recipe, self.number, filters, read_calibration(self.folder), recorded)

    def decide(self, settings: Sequence[str]) -> Selection:
        """Decide the round with `--set` overrides of its recipe; raises LimbeckError if one needs missing scores."""
        data = self.recipe.model_dump(mode="json")
        for setting in settings:
            section = setting.partition(".")[0].partition("=")[0]
            if section == "rows":
                set_pairs(data, setting)
                continue
            if section not in ("filters", "select", "calibration"):
                raise LimbeckError(
                    f"--set {setting}: only filters, select, calibration and pairs (rows) can be changed for existing candidates"
                )
            recipes.apply_override(data, setting)
        recipe = recipes.validate(data, "--set").resolved()
        filters = (*recipe.filters, *self._others)
        scores = {filter_.name: self._scored(filter_) for filter_ in filters}
        calibration = self._calibration(recipe.calibration, filters, scores)
        bounds = freeze([(filter_.name, filter_.bounds) for filter_ in filters], calibration)
        choices: dict[str, pa.Table] = {}
        scratch, target = Scratch(self.folder.round(self.number) / "selections"), recipe.target
        file = scratch.path / "decisions.parquet"
        with self._connect(self.number, scores) as scored:
            rows = target.rows if target is not None else None
            write_decisions(scored, file, bounds, recipe.select_of(self.number), choices.__setitem__, rows)
        return Selection(recipe, self.number, filters, calibration, file, choices, scratch)

    def write_dataset(self, selection: Selection, folder: Path, rows: Rows) -> DatasetFacts:
        """Write the dataset of a selection; returns what its card says."""
        facts = dataset_facts(self.folder, selection.recipe, self.number, rows, selection.calibration)
        with self._connect(self.number, self.scores(selection)) as scored:
            return publish_dataset(folder, scored, selection.recipe, selection.file, facts)

    def scores(self, selection: Selection) -> dict[str, Path]:
        """The folders with the scores that a selection's bounds were applied to, by filter."""
        return {filter_.name: self._scored(filter_) for filter_ in selection.filters}

    def texts(self, ids: Sequence[str]) -> dict[str, dict[str, str]]:
        """Candidate → {output, document} for these candidates."""
        scores = {filter_.name: self.folder.scores(self.number, filter_.name) for filter_ in self.before.filters}
        with self._connect(self.number, scores) as scored:
            scored.connection.register("asked", pa.table({"candidate_id": pa.array(ids, pa.string())}))
            scored.connection.execute("create table chosen as select position from scored semi join asked using (candidate_id)")
            batches = list(scored.fetch("chosen", ["output"], {"document": "document"}))
        rows = pa.concat_tables(batches).to_pylist()
        return {row["candidate_id"]: {"output": row["output"], "document": row["document"]} for row in rows}

    def _scored(self, filter_: FilterConfig) -> Path:
        """The folder with a filter's scores of the round: the run's own, those of an earlier what-if, or computed now.

        Scores are reused if the filter measures the same; its bounds do not matter. Raises LimbeckError if there are none and
        the caller does not allow computing them.
        """
        known = {before.name: before for before in self.before.filters}
        before = known.get(filter_.name)
        if before is not None and before.serves(filter_):
            return self.folder.scores(self.number, filter_.name)
        folder = self.folder.selection(self.number, ".scores") / f"{filter_.name}-{fingerprint(filter_.scoring())[:12]}"
        if done(folder) is None or set(part_names(self.folder.candidates(self.number))) - set(part_names(folder)):
            if self._score is None:
                differs = "is not part of the run" if before is None else "differs from the run's in more than its bounds"
                raise LimbeckError(f"filter {filter_.name} {differs}, so its scores must be computed first: add --score")
            self._score(self.folder, self.number, filter_, folder)
        return folder

    def _calibration(
        self, config: CalibrationConfig, filters: Sequence[FilterConfig], scores: Mapping[str, Path]
    ) -> dict[str, Any]:
        """The run's frozen bounds if they cover every calibrated bound, else bounds calibrated again on round 0's candidates."""
        if config == self.recipe.calibration and _open(filters) <= _open(self.before.filters):
            return self.before.calibration
        if self.number and any("selections" in folder.parts for folder in scores.values()):
            raise LimbeckError(
                "a calibrated bound needs scores of round 0, and this changes what is scored; set the bound to a number"
            )
        refuse_lost(self.folder, lost_parts(self.folder, 0))
        with self._connect(0, {name: self.folder.scores(0, name) for name in scores} if self.number else scores) as scored:
            return calibrate(Numbers(scored), [(filter_.name, filter_.bounds) for filter_ in filters], config.pass_rate)

    def _connect(self, number: int, scores: Mapping[str, Path]) -> Scored:
        return connect_parts(self.folder.candidates(number), scores, self.folder.sources("train"))


def set_pairs(data: dict[str, Any], setting: str) -> None:
    """Set a key of `rows` (`--set rows.by=pmi.pmi`) in a recorded recipe, whose rows become preferences rendered as they were."""
    key, _, value = setting.partition("=")
    if key in ("rows", "rows.kind") and value != "preferences":
        raise LimbeckError(f"--set {setting}: of existing candidates, rows can only become pairs; set the keys of preferences")
    if (data["rows"] or {}).get("kind") != "preferences":
        data["rows"] = {"kind": "preferences", "render": data["rows"]}
    if key != "rows":
        recipes.apply_override(data, setting)


def recorded_recipe(folder: RunFolder) -> Recipe:
    """The resolved recipe of a run, with its `--set` options."""
    lock = read_lock(folder)
    if "recipe" not in lock:
        return recipes.load(folder.recipe_file).resolved(recorded_cpu_dtype(folder))
    data, known = dict(lock["recipe"]), GeneratorConfig.kinds
    try:
        if data["generator"]["kind"] not in known:  # a user-defined object, which only drawing needs: `rows` is recorded
            data["generator"] = {"kind": GeneratorConfig.default_kind}
        data["filters"] = [_with_bounds_of_then(section) for section in data["filters"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise not_a_record(folder) from error
    return recipes.validate(data, str(folder.lock_file))


def _with_bounds_of_then(section: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded filter without the bounds that its version did not have: their columns were not measured."""
    kind = FilterConfig.kinds.get(section["kind"])
    limits = kind.limit_fields() if kind is not None and issubclass(kind, FilterConfig) else []
    return {**section, **{key: None for key in limits if key not in section}}


def compare(whatif: WhatIf, after: Selection, examples: int) -> dict[str, Any]:
    """The changes: counts, and up to `examples` newly kept and newly rejected rows, with texts and reasons."""
    before = whatif.before
    (newly_kept, entered), (newly_rejected, left) = (_changed(before.file, after.file, kept, examples) for kept in (True, False))
    texts = whatif.texts([row["candidate_id"] for row in (*entered, *left)])
    return {
        "before": counts(before),
        "after": counts(after),
        "undecided": after.undecided,
        "newly_kept": newly_kept,
        "newly_rejected": newly_rejected,
        "examples_kept": [row | texts[row["candidate_id"]] for row in entered],
        "examples_rejected": [row | texts[row["candidate_id"]] for row in left],
    }


def _changed(before: Path, after: Path, kept: bool, examples: int) -> tuple[int, list[dict[str, Any]]]:
    """How many rows are kept, or rejected, after and were not before; and the first of them, with the reason of rejection."""
    old, new = (f"read_parquet({text(str(file))}, file_row_number = true)" for file in (before, after))
    why = "old" if kept else "new"
    changed = f"from {new} new join {old} old using (candidate_id) where new.kept = {kept} and old.kept != {kept}"
    query = f"select candidate_id, new.source_id, {why}.rejected_by, {why}.reason {changed} order by new.file_row_number limit ?"
    with duckdb.connect() as connection:
        count = int(connection.execute(f"select count(*) {changed}").fetchall()[0][0])
        rows = connection.execute(query, [examples]).fetchall()
    return count, [dict(zip(("candidate_id", "source_id", "rejected_by", "reason"), row, strict=True)) for row in rows]


def counts(selection: Selection) -> dict[str, Any]:
    """{candidates, kept, sources_kept, rejected_by}: `sources_kept` counts sources with at least one kept candidate."""
    rows, sources = funnel(selection.file, selection.names, zeros=False), kept_sources(selection.file)
    return {"candidates": rows.candidates, "kept": rows.kept, "sources_kept": sources, "rejected_by": rows.rejected_by}


def sweep(whatif: WhatIf, settings: Sequence[str], swept: Sweep) -> Iterator[dict[str, Any]]:
    """Yield {value, kept, sources_kept, undecided, share} for each value, with the other settings fixed."""
    for value in swept.values:
        found = whatif.decide([*settings, f"{swept.key}={value!r}"])
        said = counts(found)
        share = said["kept"] / max(1, said["candidates"])
        yield {
            "value": value,
            "kept": said["kept"],
            "sources_kept": said["sources_kept"],
            "undecided": found.undecided,
            "share": share,
        }


def parse_sweep(written: str) -> Sweep:
    """Parse a sweep such as `filters.pmi.min_faithfulness=0.1:0.6:0.05` (the last value included).

    Raises LimbeckError if it is malformed.
    """
    key, _, span = written.partition("=")
    try:
        low, high, step = (Decimal(number) for number in span.split(":"))
        if not all(math.isfinite(float(number)) for number in (low, high, step)) or low > high or step <= 0:
            raise ValueError
        count = int((high - low) // step) + 1
    except (ValueError, ArithmeticError):
        count = 0
    if not key or not 1 <= count <= MOST_SWEPT:
        raise LimbeckError(
            f"--sweep {written}: expected a bound, '=' and low:high:step with at most {MOST_SWEPT} values (three finite numbers, "
            "low <= high, step > 0), as in filters.pmi.min_faithfulness=0.1:0.6:0.05"
        )
    whole = low == low.to_integral_value() and step == step.to_integral_value()  # bounds that count take only integers
    return Sweep(key, tuple(int(low + index * step) if whole else float(low + index * step) for index in range(count)))


def apply(whatif: WhatIf, selection: Selection, name: str, settings: Sequence[str]) -> Applied:
    """Write a selection's decisions and dataset next to the run's own.

    Raises LimbeckError if rows are undecided, nothing is kept, no two candidates are a pair, or another selection has that name.
    """
    if selection.undecided:
        raise LimbeckError(
            f"cannot decide {selection.undecided} row{'' if selection.undecided == 1 else 's'}, since a needed score was "
            "skipped; nothing was written. Keep the bounds that skipped it, or score all: --set filters.NAME.lazy=false --score"
        )
    if not re.fullmatch(NAME, name):
        raise LimbeckError(f"--apply {name!r}: a selection's name begins with a-z or 0-9 and has only these, '_' and '-'")
    folder = whatif.folder.selection(whatif.number, name)
    rows = funnel(selection.file, selection.names)
    if not rows.kept:
        raise LimbeckError("no candidate passes these bounds, so there is no dataset to write")
    with publishing(folder, once="choose another name, or remove it") as temporary:
        temporary.mkdir()
        shutil.copyfile(selection.file, temporary / "decisions.parquet")
        for filter_name, table in selection.choices.items():
            write_table(temporary / "choices" / f"{filter_name}.parquet", table)
        facts = whatif.write_dataset(selection, temporary / "dataset", rows)
        recipe = selection.recipe.model_dump(mode="json")
        home = whatif.folder.round(whatif.number)
        scores = {name: path.relative_to(home).as_posix() for name, path in whatif.scores(selection).items()}
        chosen = {"settings": list(settings), "rows": rows.model_dump(), "filters": recipe["filters"], "select": recipe["select"]}
        write_json(temporary / "selection.json", {**chosen, "scores": scores})
    return Applied(folder, facts.preferences)


def _passed_as_objects(folder: RunFolder, recipe: Recipe) -> tuple[FilterConfig, ...]:
    """The filters that were passed to a run as objects, with their recorded bounds.

    Raises LimbeckError for a set-wise one: it would have to choose among other survivors, and it is not recorded.
    """
    stages, named = read_lock(folder)["stages"], {filter_.name for filter_ in (*recipe.filters, *recipe.select)}
    try:
        objects = {name: data for name, data in stages["scores"].items() if name not in named}
        bounds = {name: tuple(Bound(**bound) for bound in stages["decisions"]["bounds"][name]) for name in objects}
        unknown = [name for name in stages["decisions"]["select"] if name not in named]
    except (KeyError, TypeError, AttributeError) as error:
        raise not_a_record(folder) from error
    if unknown:
        raise LimbeckError(
            f"{folder.path} was made with the set-wise filter object {unknown[0]!r}, which its folder does not record, so it "
            "cannot be decided again; decide again in Python, or put a set-wise filter of the recipe in its place"
        )
    return tuple(RecordedFilter(name=name, recorded=bounds[name], data=data) for name, data in objects.items())


def _open(filters: Sequence[FilterConfig]) -> set[tuple[str, str, str, float | None]]:
    """The calibrated bounds of filters."""
    return {
        (filter_.name, bound.column, bound.calibrate, bound.false_acceptance)
        for filter_ in filters
        for bound in filter_.bounds
        if bound.calibrate is not None
    }
