"""The run folder: its paths, and the record of what produced it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck.cluster.engines.precision import Concrete
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import DONE, done, read_json, write_json, write_text
from limbeck.corpus.storage.commits import Commits
from limbeck.corpus.storage.local import LocalStore

if TYPE_CHECKING:
    from limbeck.pipelines.runs.stages import Stages


OF_A_DRIVER = ("run.lock", ".run.lock.tmp", ".run.flock", "workers", "logs", "commits")
"""What a driver leaves in a folder before it records its recipe."""

_LOST_RECORD = "it records what produced this run and cannot be made again: restore it, or start again with another --out"


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run. Stage folders of round 7 are in `rounds/007`."""

    path: Path

    def sources(self, split: str) -> Path:
        """Parts of one split; sources are read once for all rounds."""
        return self.path / "rounds" / "000" / "sources" / split

    def round(self, number: int) -> Path:
        """The folder of one round."""
        return self.path / "rounds" / f"{number:03d}"

    def candidates(self, number: int) -> Path:
        """Candidates of a round for the train sources."""
        return self.round(number) / "candidates"

    def steps(self, number: int) -> Path:
        """Every request of the scripts that made the candidates of a round."""
        return self.round(number) / "steps"

    def scores(self, number: int, filter_name: str) -> Path:
        """Scores of a round's candidates by one filter."""
        return self.round(number) / "scores" / filter_name

    def decisions(self, number: int) -> Path:
        """Decisions of a round, one row per candidate."""
        return self.round(number) / "decisions.parquet"

    def rows(self, number: int) -> Path:
        """The counts of a round's decisions."""
        return self.round(number) / "rows.json"

    def evaluated(self, number: int) -> Path:
        """The figures of a round, on dev."""
        return self.round(number) / "evaluation.json"

    def stop(self, number: int) -> Path:
        """The decision whether the run ends after a round."""
        return self.round(number) / "stop.json"

    def choices(self, number: int, filter_name: str) -> Path:
        """Evidence of a set-wise filter about the survivors of a round."""
        return self.round(number) / "choices" / f"{filter_name}.parquet"

    def dataset(self, number: int) -> Path:
        """The dataset of a round, with its card."""
        return self.round(number) / "dataset"

    def selection(self, number: int, name: str) -> Path:
        """What other bounds would keep of a round (`limbeck filter --apply`)."""
        return self.round(number) / "selections" / name

    def teacher_logprobs(self, number: int) -> Path:
        """What the teacher gives the student of a round at the labels of its dataset; one folder per teacher, rows and k."""
        return self.round(number) / "teacher_logprobs"

    def mixture(self, number: int) -> Path:
        """What the student of a round is trained on, if the recipe mixes its dataset with others."""
        return self.round(number) / "mixture"

    def student(self, number: int) -> Path:
        """The student of a round, a Hugging Face model folder."""
        return self.round(number) / "student"

    def training(self, number: int) -> Path:
        """The training metrics of a student."""
        return self.student(number) / "training.json"

    def evaluation(self, split: str, subject: str) -> Path:
        """Candidates and scores of one evaluated model or control on one held-out split."""
        return self.path / "evaluation" / split / subject

    @property
    def on_test(self) -> Path:
        """The figures of every round on test."""
        return self.path / "evaluation" / "test.json"

    def seen_on_test(self, rounds: int) -> Path:
        """The figures on test after this many rounds, if more were made after that."""
        return self.path / "evaluation" / f"test-after-{rounds:03d}.json"

    @property
    def calibration(self) -> Path:
        """The frozen bounds."""
        return self.path / "calibration.json"

    @property
    def self_test(self) -> Path:
        """How well the judging filters tell outputs from corrupted ones."""
        return self.path / "self_test.json"

    def probes(self, filter_name: str) -> Path:
        """The pairs on which a filter was tested (`pairs`), and its answers (`answers`)."""
        return self.round(0) / "probes" / filter_name

    @property
    def lock_file(self) -> Path:
        """The resolved recipe and what determines each stage."""
        return self.path / "lock.json"

    @property
    def recipe_file(self) -> Path:
        """The recipe as given."""
        return self.path / "recipe.yaml"

    @property
    def events(self) -> Path:
        """One JSON line per event."""
        return self.path / "events.jsonl"

    def commits(self, driver: str) -> Commits:
        """The log of owners and manifests, as written by a driver."""
        return Commits(LocalStore(self.path), driver)

    @property
    def run_lock(self) -> Path:
        """The driver that holds the run."""
        return self.path / "run.lock"

    @property
    def run_flock(self) -> Path:
        """The file with the kernel's lock (lock.py)."""
        return self.path / ".run.flock"

    @property
    def workers(self) -> Path:
        """Heartbeats of the processes that write here."""
        return self.path / "workers"


def read_lock(folder: RunFolder) -> dict[str, Any]:
    """lock.json; raises LimbeckError if it is damaged."""
    lock = read_json(folder.lock_file, _LOST_RECORD)
    if not isinstance(lock, dict) or not _is_record(lock):
        raise not_a_record(folder)
    return lock


def not_a_record(folder: RunFolder) -> LimbeckError:
    """The error for a lock.json of another shape."""
    return LimbeckError(f"{folder.lock_file} is not the record of a run; {_LOST_RECORD}")


def _is_record(lock: Mapping[str, Any]) -> bool:
    stages, others = lock.get("stages"), ("recipe", "versions", "semantics", "packages")
    sections = [stages, *stages.values()] if isinstance(stages, dict) else [stages]
    return all(isinstance(section, dict) for section in (*sections, *(lock.get(name, {}) for name in others)))


def recorded_cpu_dtype(folder: RunFolder) -> Concrete | None:
    """The number type that a run chose for models on CPUs, so that it resumes with it; None: no run is there yet."""
    if not folder.lock_file.exists():
        return None
    found: Concrete = read_lock(folder).get("cpu_dtype", "bfloat16")  # older versions always computed in bfloat16
    return found


def fingerprint(value: Any) -> str:
    """A short hash of plain data, independent of key order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def open_run(folder: RunFolder, stages: "Stages", facts: Mapping[str, Any], recipe_text: str) -> None:
    """Start a run folder, or resume one of the same recipe; raises LimbeckError as `refuse_other_run` does."""
    lock = {**_lock_of(stages), **json.loads(json.dumps(facts, default=str))}
    before, finished = refuse_other_run(folder, stages), done(folder.path / "evaluation")
    if before is not None and finished is not None:
        # nothing is computed any more: keep the record of what produced the results
        lock |= {key: before.get(key, {}) for key in ("semantics", "packages")}
        rounds = (before.get("recipe") or {}).get("rounds")
        if "rounds" not in finished and rounds is not None:  # an older version's: this recipe may have more rounds
            write_json(folder.path / "evaluation" / DONE, {**finished, "rounds": rounds}, replace=True)
    write_text(folder.recipe_file, recipe_text, replace=True)
    write_json(folder.lock_file, lock, replace=True)


def _lock_of(stages: "Stages") -> dict[str, Any]:
    """The stages as lock.json holds them."""
    lock = {"stages": stages.data, "semantics": stages.semantics, "packages": stages.packages}
    return dict(json.loads(json.dumps(lock, default=str)))


def refuse_other_run(folder: RunFolder, stages: "Stages") -> dict[str, Any] | None:
    """Raise LimbeckError if a run of these stages can neither start nor resume in a folder; returns its lock.json, if any.

    The data that determine a started stage must be the recorded ones; the error names the stage and the first different key. Only
    the number of rounds may be raised. An unfinished run is also refused if a kind's semantics or the version of its package has
    changed since it was started.
    """
    if not folder.lock_file.exists():
        for path in (folder.path, *folder.path.parents):
            if path.is_file():
                raise LimbeckError(f"{path} is a file; choose another --out")
        if folder.path.exists() and any(p.name not in OF_A_DRIVER for p in folder.path.iterdir()):
            raise LimbeckError(f"{folder.path} is not empty and is not a run folder (no lock.json); choose another --out")
        return None
    before = read_lock(folder)
    lock = _lock_of(stages)
    begun = [name for name in lock["stages"] if _begun(folder, name)]
    if done(folder.path / "evaluation") is None:
        _refuse_other_versions(folder, before, lock, begun)
    elif _measures_more(before, lock):
        begun = [name for name in begun if name not in ("scores", "decisions")]  # finished with what its version measured
    recorded = stages.with_defaults(before["stages"])
    _raise_rounds(recorded, lock["stages"], done(folder.path / "evaluation") or {})
    for name in begun:
        inputs = lock["stages"][name]
        if inputs != recorded.get(name):
            difference = _first_difference(recorded.get(name, {}), inputs)
            raise LimbeckError(
                f"{folder.path} belongs to another recipe: stage {name!r} differs ({difference}); use the recipe in "
                f"{folder.recipe_file}, or choose another --out for this one"
            )
    return before


def _raise_rounds(recorded: dict[str, Any], now: Mapping[str, Any], finished: Mapping[str, Any]) -> None:
    """Record more rounds, up to those of this recipe: earlier rounds do not depend on their number.

    `finished`: what a finished run says of itself. It may have ended before its planned rounds, so fewer of them are no
    difference either, down to those that it made.
    """
    evaluation, wanted = recorded.get("evaluation", {}), now["evaluation"]["rounds"]
    planned = evaluation.get("rounds")
    if not isinstance(planned, int) or wanted < finished.get("rounds", planned):
        return
    evaluation["rounds"] = wanted
    students = recorded.get("student", {})
    if any(key.isdigit() for key in students):  # one per round
        of_rounds = {key: students.get(key, value) for key, value in now["student"].items() if key.isdigit()}
        recorded["student"] = {**of_rounds, **{key: value for key, value in students.items() if not key.isdigit()}}


def _measures_more(before: Mapping[str, Any], lock: Mapping[str, Any]) -> bool:
    """Whether a filter has other semantics now than when the run was started."""
    recorded = before.get("semantics", {}).get("scores", {})
    return any(number != recorded.get(kind, 1) for kind, number in lock["semantics"]["scores"].items())


def refuse_other_versions(folder: RunFolder, stages: "Stages") -> None:
    """Raise LimbeckError if kinds of a run have other semantics now, or their packages other versions."""
    lock = _lock_of(stages)
    _refuse_other_versions(folder, read_lock(folder), lock, list(lock["stages"]))


def _refuse_other_versions(folder: RunFolder, before: Mapping[str, Any], lock: Mapping[str, Any], begun: Sequence[str]) -> None:
    """Raise LimbeckError if started stages used other semantics, or another version of a package, than the current ones."""
    for stage in begun:
        recorded = before.get("semantics", {}).get(stage, {})
        for kind, number in lock["semantics"][stage].items():
            if number != recorded.get(kind, 1):
                raise LimbeckError(
                    f"{folder.path} was started when {kind} had semantics {recorded.get(kind, 1)}, and this version has "
                    f"{number}, so results differ; finish the run with the version that started it, or choose another --out"
                )
    for package, version in before.get("packages", {}).items() if begun else ():
        now = lock["packages"].get(package, version)
        if now != version:
            raise LimbeckError(
                f"{folder.path} was started with {package} {version}, but {now} is installed; install {package}=={version}, "
                "or choose another --out"
            )


def _begun(folder: RunFolder, stage: str) -> bool:
    places = {
        "sources": "rounds/000/sources/*",
        "candidates": "rounds/*/candidates/*.parquet",
        "scores": "rounds/*/scores/*/*.parquet",
        "decisions": "calibration.json",
        "student": "rounds/*/student",
        "evaluation": "evaluation/test/*/*",
    }
    return any(folder.path.glob(places[stage]))


def _first_difference(old: Any, new: Any, where: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            if old.get(key) != new.get(key):
                return _first_difference(old.get(key), new.get(key), f"{where}.{key}" if where else key)
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (left, right) in enumerate(zip(old, new, strict=True)):
            if left != right:
                return _first_difference(left, right, f"{where}.{index}")
    return f"{where}: {json.dumps(old)} in the folder, {json.dumps(new)} in this recipe"
