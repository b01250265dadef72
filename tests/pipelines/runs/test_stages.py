"""The stages of a run in lock.json, read by a version that has more keys, other semantics or other packages."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.tiny_run import recipe
from limbeck.corpus.errors import LimbeckError
from limbeck.filters.contract import Bound
from limbeck.filters.models.pmi import PmiConfig
from limbeck.filters.own import own_filter, own_set_filter
from limbeck.filters.sets.duplicates import DuplicatesConfig
from limbeck.filters.text.heuristics import HeuristicsConfig
from limbeck.filters.text.length import LengthConfig
from limbeck.generators.summaries import SummariesConfig
from limbeck.pipelines.recipe import Recipe, validate
from limbeck.pipelines.runs.folder import RunFolder, open_run
from limbeck.pipelines.runs.lost import finished_rounds
from limbeck.pipelines.runs.stages import Stages, stages_of
from limbeck.students.sft import SftConfig


@pytest.fixture(autouse=True)
def unchanged_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kinds of the tiny recipe as if their results had never changed."""
    for kind in (DuplicatesConfig, HeuristicsConfig, LengthConfig, PmiConfig, SftConfig):
        monkeypatch.setattr(kind, "semantics", 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    recipe(folder)
    return folder


def tiny(home: Path, **changes: Any) -> Recipe:
    return validate(recipe(home, **changes), "here").resolved()


def stages(found: Recipe) -> Stages:
    return stages_of(found, found.filters, found.select, Path(found.teacher.model))


def begun(home: Path, run: Path, found: Recipe, finished: bool = False) -> RunFolder:
    """A run folder in which every stage has been started."""
    folder = RunFolder(run)
    open_run(folder, stages(found), {}, "")
    for path in ("sources/train/part-0.parquet", "candidates/part-0.parquet", "scores/pmi/part-0.parquet", "student/config.json"):
        (run / "rounds/000" / path).parent.mkdir(parents=True)
        (run / "rounds/000" / path).touch()
    (run / "calibration.json").touch()
    (run / "evaluation/test/teacher").mkdir(parents=True)
    (run / "evaluation/test/teacher/candidates").touch()
    if finished:
        (run / "evaluation/_done.json").write_text('{"fingerprint": "x"}')
    return folder


def edit(folder: RunFolder, change: Any) -> None:
    lock = json.loads(folder.lock_file.read_text())
    change(lock)
    folder.lock_file.write_text(json.dumps(lock))


def test_keys_that_the_version_of_the_run_did_not_have_refuse_nothing(home: Path, tmp_path: Path) -> None:
    found = tiny(home, select=[{"kind": "duplicates"}], student={"kind": "sft", "base": {"kind": "layers", "layers": 1}})
    folder = begun(home, tmp_path, found)

    def forget(lock: dict[str, Any]) -> None:
        data = lock["stages"]
        for section, key in [
            (data["sources"], "max_source_tokens"),
            (data["candidates"]["generator"], "stop"),
            (data["candidates"]["teacher"], "context_tokens"),
            (data["scores"]["pmi"], "lazy"),
            (data["scores"]["pmi"]["engine"], "trust_remote_code"),
            (data["decisions"]["calibration"], "parts"),
            (data["decisions"]["select"]["duplicates"], "recall"),
            (data["student"], "scheduler"),
            (data["student"]["base"]["healing"], "tokens"),
            (data["evaluation"], "dev_samples"),
            (data["decisions"]["bounds"]["length"][0], "false_acceptance"),
        ]:
            del section[key]
        del lock["semantics"], lock["packages"]

    edit(folder, forget)
    given = tiny(home, select=[{"kind": "duplicates"}], student={"kind": "sft", "base": {"kind": "layers", "layers": 1}})
    data = recipe(home)
    assert data["sources"]["max_source_tokens"] == 200  # not the default, so a missing key is a difference
    with pytest.raises(
        LimbeckError, match=r"stage 'sources' differs \(max_source_tokens: 512 in the folder, 200 in this recipe\)"
    ):
        open_run(folder, stages(given), {}, "")
    edit(folder, lambda lock: lock["stages"]["sources"].update(max_source_tokens=200))
    with pytest.raises(LimbeckError, match=r"stage 'evaluation' differs \(dev_samples: 2 in the folder, 1 in this recipe\)"):
        open_run(folder, stages(given), {}, "")
    edit(folder, lambda lock: lock["stages"]["evaluation"].update(dev_samples=1))
    open_run(folder, stages(given), {}, "")
    assert json.loads(folder.lock_file.read_text())["stages"] == json.loads(json.dumps(stages(given).data))


SERVED = {"kind": "endpoint", "base_url": "http://127.0.0.1:8000/v1", "budget": {"tokens": 3000}}
MOVED = {
    "kind": "endpoint", "base_url": "http://127.0.0.1:9/v1", "budget": {"money": 2.5, "price_per_million_output": 1.0},
    "api_key_env": "OTHER_KEY", "max_concurrency": 3, "latency_factor": 2.0, "timeout_seconds": 1.0, "patience_seconds": 1.0,
    "backoff_seconds": 1.0, "attempts": 1,
}  # fmt: skip
DRAWN = {"kind": "vllm", "dtype": "float32", "max_sequences": 8}
FITTED = {"kind": "vllm", "dtype": "float32", "gpu_memory_utilization": 0.5, "tensor_parallel_size": 2, "batch_tokens": 64}


@pytest.mark.parametrize(("before", "after"), [(SERVED, MOVED), (MOVED, SERVED), (DRAWN, FITTED)])
@pytest.mark.parametrize("version", ["this", "earlier"])
def test_keys_that_change_no_row_may_change_while_a_run_is_interrupted(
    home: Path, tmp_path: Path, before: dict[str, Any], after: dict[str, Any], version: str
) -> None:
    """For the teacher and for the engine of a filter, also if the folder is of a version that recorded these keys."""
    model = {"model": recipe(home)["teacher"]["model"]}

    def made(section: dict[str, Any]) -> Recipe:
        pmi = {"kind": "pmi", "engine": {**section, **model}}
        return tiny(home, teacher={**section, **model}, filters=[{"kind": "length", "min_output_tokens": 1}, pmi])

    folder, given = begun(home, tmp_path, made(before)), made(after)
    if version == "earlier":

        def record_everything(lock: dict[str, Any]) -> None:
            engine = made(before).teacher.model_dump(mode="json")
            assert engine.keys() > lock["stages"]["candidates"]["teacher"].keys()
            lock["stages"]["candidates"]["teacher"] = engine
            lock["stages"]["scores"]["pmi"]["engine"] = engine

        edit(folder, record_everything)
    open_run(folder, stages(given), {}, "")
    assert json.loads(folder.lock_file.read_text())["stages"] == json.loads(json.dumps(stages(given).data))
    other = given.model_copy(update={"teacher": given.teacher.model_copy(update={"context_tokens": 100})})
    with pytest.raises(LimbeckError, match="teacher.context_tokens: null in the folder, 100 in this recipe"):
        open_run(folder, stages(other), {}, "")


def test_how_often_a_student_is_saved_changes_nothing(home: Path, tmp_path: Path) -> None:
    student = recipe(home)["student"]
    folder = begun(home, tmp_path, tiny(home))
    edit(folder, lambda lock: lock["stages"]["student"].update(checkpoint_steps=1, keep_checkpoints=1))
    open_run(folder, stages(tiny(home, student={**student, "checkpoint_steps": 7, "keep_checkpoints": 2})), {}, "")


def test_a_difference_is_still_one(home: Path, tmp_path: Path) -> None:
    folder = begun(home, tmp_path, tiny(home))
    with pytest.raises(LimbeckError, match=r"stage 'student' differs \(epochs: 1 in the folder, 2 in this recipe\)"):
        open_run(folder, stages(tiny(home, student={**recipe(home)["student"], "epochs": 2})), {}, "")
    edit(folder, lambda lock: lock["stages"]["candidates"]["generator"].pop("samples"))
    with pytest.raises(LimbeckError, match=r"generator.samples: 4 in the folder, 3 in this recipe"):  # the default
        open_run(folder, stages(tiny(home)), {}, "")


@pytest.mark.parametrize(
    ("kind", "words"), [(SummariesConfig, "generator summaries had semantics 1"), (LengthConfig, "filter length had semantics 1")]
)
def test_other_semantics_refuse_an_unfinished_run_alone(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, words: str
) -> None:
    unfinished, finished = begun(home, tmp_path / "a", tiny(home)), begun(home, tmp_path / "b", tiny(home), finished=True)
    edit(unfinished, lambda lock: lock.pop("semantics"))  # older versions wrote none, which means 1
    monkeypatch.setattr(kind, "semantics", 2)
    with pytest.raises(LimbeckError, match=f"{words}, and this version has 2"):
        open_run(unfinished, stages(tiny(home)), {}, "")
    open_run(finished, stages(tiny(home)), {}, "")
    assert "2" not in str(json.loads(finished.lock_file.read_text())["semantics"])  # the old record is kept


def test_a_finished_run_of_other_semantics_and_fewer_bounds_is_opened(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version that measures more has one bound more; what the finished run applied stays recorded."""
    finished = begun(home, tmp_path, tiny(home), finished=True)
    edit(finished, lambda lock: lock["stages"]["decisions"]["bounds"]["heuristics"].pop())
    monkeypatch.setattr(HeuristicsConfig, "semantics", 2)
    open_run(finished, stages(tiny(home)), {}, "")
    with pytest.raises(LimbeckError, match=r"stage 'student' differs \(epochs: 1 in the folder, 2 in this recipe\)"):
        open_run(finished, stages(tiny(home, student={**recipe(home)["student"], "epochs": 2})), {}, "")


def test_nothing_is_refused_before_the_stage_has_begun(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)
    open_run(folder, stages(tiny(home)), {}, "")
    monkeypatch.setattr(LengthConfig, "semantics", 2)
    open_run(folder, stages(tiny(home)), {}, "")
    assert json.loads(folder.lock_file.read_text())["semantics"]["scores"]["filter length"] == 2


def test_a_student_per_round_is_recorded_by_round(home: Path, tmp_path: Path) -> None:
    both = [{"kind": "sft", "epochs": 1}, {"kind": "sft", "epochs": 2}]
    folder = begun(home, tmp_path, tiny(home, student=both))
    edit(folder, lambda lock: lock["stages"]["student"]["1"].pop("scheduler"))
    open_run(folder, stages(tiny(home, student=both)), {}, "")
    with pytest.raises(LimbeckError, match=r"stage 'student' differs \(1.epochs: 2 in the folder, 3 in this recipe\)"):
        open_run(folder, stages(tiny(home, student=[both[0], {"kind": "sft", "epochs": 3}])), {}, "")


class Mine:
    name = "mine"
    bounds = (Bound("x", maximum=1.0),)

    def score(self, candidates: Any) -> Any: ...


class Ours:
    def __init__(self) -> None:
        self.name, self.keep = "ours", 3

    def select(self, survivors: Any) -> Any: ...


def test_user_objects_are_recorded_as_ever(home: Path) -> None:
    found = tiny(home)
    data = stages_of(found, (own_filter(Mine()),), (own_set_filter(Ours()),), Path(found.teacher.model)).data
    where = f"{__name__}."
    assert data["scores"] == {"mine": {"class": f"{where}Mine", "lazy": False}}
    assert data["decisions"]["bounds"] == {"mine": [vars(Mine.bounds[0])]}
    assert data["decisions"]["select"] == {"ours": {"class": f"{where}Ours", "keep": "3", "name": "'ours'"}}


@pytest.mark.parametrize("finished", [False, True])
def test_the_number_of_rounds_may_be_raised(home: Path, tmp_path: Path, finished: bool) -> None:
    """Rounds that were made depend on it as little as on the rules that end a run; an older finished run records what it made."""
    each = [{"kind": "sft", "epochs": epochs} for epochs in (1, 2, 3)]
    folder = begun(home, tmp_path, tiny(home, student=each[:2]), finished)
    edit(folder, lambda lock: lock.update(recipe={"rounds": 2}))
    more = tiny(home, rounds=3, student=each, stop={"patience": 1})
    open_run(folder, stages(more), {"recipe": {"rounds": 3}}, "")
    assert json.loads(folder.lock_file.read_text())["stages"]["evaluation"]["rounds"] == 3
    assert finished_rounds(folder) == (2 if finished else None)
    other = tiny(home, rounds=3, student=[each[1], *each[1:]])
    with pytest.raises(LimbeckError, match=r"stage 'student' differs \(0.epochs: 1 in the folder, 2 in this recipe\)"):
        open_run(folder, stages(other), {}, "")
    with pytest.raises(LimbeckError, match="stage 'student' differs"):  # fewer than were made
        open_run(folder, stages(tiny(home, rounds=1, student=each[:1])), {}, "")
    if finished:  # what it made, once more
        open_run(folder, stages(tiny(home, student=each[:2])), {"recipe": {"rounds": 2}}, "")
        assert finished_rounds(folder) == 2
