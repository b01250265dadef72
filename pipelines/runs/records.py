"""The JSON records of a run folder that have a schema; one of another shape is an error that names the file and the way out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from limbeck.corpus.config import Config
from limbeck.corpus.earlier_runs import selected_again
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import DELETE_IT, DONE, read_json, read_object
from limbeck.pipelines.runs.card import PREFERENCES
from limbeck.pipelines.runs.folder import RunFolder, read_lock
from limbeck.pipelines.runs.funnel import source_counts
from limbeck.pipelines.runs.preference_pairs import Preferences
from limbeck.pipelines.runs.report_model import Bounds, RoundDecision, RoundReport, Rows, Sources
from limbeck.pipelines.runs.stopping import StopConfig, ended_words
from limbeck.students.evaluation.measures import EvaluationRow

Model = TypeVar("Model", bound=BaseModel)


class _OnTest(Config):
    """evaluation/test.json."""

    rounds: dict[str, list[EvaluationRow]]


class _Section(BaseModel):
    """A filter of a recorded recipe."""

    name: str


class SelectionRecord(BaseModel):
    """selection.json, what is read of it; `scores` is None if an older version wrote it."""

    filters: list[_Section]
    select: list[_Section]
    scores: dict[str, str] | None = None

    @property
    def names(self) -> list[str]:
        """Its filters, in order."""
        return [section.name for section in (*self.filters, *self.select)]


def validated(model: type[Model], value: Any, file: Path, way_out: str = DELETE_IT) -> Model:
    """The content of a file as a model; raises LimbeckError if it has another format."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(step) for step in fault["loc"])
        what = f"{where}: {fault['msg']}" if where else fault["msg"]
        raise LimbeckError(f"{file} does not have the format of this version ({what}); {way_out}") from error


def read_calibration(folder: RunFolder) -> dict[str, Any]:
    """The content of calibration.json; raises LimbeckError if it is missing or has another format."""
    found, _ = _calibration(folder.calibration)
    return found


def read_bounds(folder: RunFolder) -> Bounds | None:
    """calibration.json, or None until the bounds are calibrated."""
    return _calibration(folder.calibration)[1] if folder.calibration.exists() else None


def _calibration(file: Path) -> tuple[dict[str, Any], Bounds]:
    found = read_object(file)
    return found, validated(Bounds, found, file)


def read_selection(folder: Path) -> SelectionRecord:
    """What a selection records about itself; raises LimbeckError if that is missing, broken or has another format."""
    file, way_out = folder / "selection.json", selected_again(folder.name)
    if not file.exists():
        raise LimbeckError(f"{file} is missing; {way_out}")
    return validated(SelectionRecord, read_json(file, way_out), file, way_out)


def read_rows(folder: RunFolder, number: int) -> Rows | None:
    """rows.json of a round, or None until it is decided."""
    file = folder.rows(number)
    return validated(Rows, read_json(file), file) if file.exists() else None


def read_preferences(dataset: Path) -> Preferences | None:
    """preferences.json of a dataset, or None if its rows are not preferences, or not made yet."""
    file = dataset / PREFERENCES
    return validated(Preferences, read_json(file), file) if file.exists() else None


def read_evaluation(folder: RunFolder, number: int) -> RoundReport | None:
    """evaluation.json of a round, or None until it is evaluated."""
    file = folder.evaluated(number)
    return validated(RoundReport, read_json(file), file) if file.exists() else None


def read_decision(folder: RunFolder, number: int) -> RoundDecision | None:
    """stop.json of a round, or None until it is decided whether the run ends after it."""
    file = folder.stop(number)
    return validated(RoundDecision, read_json(file), file) if file.exists() else None


def read_rules(folder: RunFolder) -> StopConfig | None:
    """The rules of the recorded recipe that end a run early, or None if it has none."""
    found = (read_lock(folder).get("recipe") or {}).get("stop")
    return None if found is None else validated(StopConfig, found, folder.lock_file, "rerun the command with the run's recipe")


def ended_early(folder: RunFolder, decisions: Sequence[RoundDecision | None]) -> str | None:
    """Why a run with these decisions ends before the last round of its recipe; None if it does not."""
    planned, last = planned_rounds(folder), decisions[-1] if decisions else None
    if last is None or not last.stops or planned is None or len(decisions) >= planned:
        return None
    return ended_words(len(decisions) - 1, planned, last)


def planned_rounds(folder: RunFolder) -> int | None:
    """The recipe's rounds; None if it is not recorded."""
    found = (read_lock(folder).get("recipe") or {}).get("rounds")
    return found if isinstance(found, int) else None


def seen_test_after(folder: RunFolder) -> list[int]:
    """After how many rounds test was measured, before more were made."""
    return sorted(int(path.stem.rpartition("-")[2]) for path in folder.on_test.parent.glob("test-after-[0-9]*.json"))


def read_on_test(folder: RunFolder) -> dict[str, list[EvaluationRow]]:
    """Round → its models and controls on test; empty until they are evaluated."""
    file = folder.on_test
    return validated(_OnTest, read_json(file), file).rounds if file.exists() else {}


def read_sources(folder: RunFolder) -> Sources | None:
    """How many sources are used, or None until they are read."""
    counts = source_counts(folder)
    return None if counts is None else validated(Sources, counts, folder.sources("train").parent / DONE)
