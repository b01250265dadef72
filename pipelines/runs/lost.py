"""Files that a run folder has lost: what must be there, judged by what else is there. Only names are compared, no rows are read.

A run that is going on or was stopped has fewer parts of scores than of candidates: only a round whose decisions were made must
have all of its parts. What is lost is computed again by `limbeck run` (driver/repair.py), except sources.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import COMPUTED_AGAIN, DONE, NOT_MADE_AGAIN, count_rows, done, part_names, part_path
from limbeck.pipelines.runs.card import DATA
from limbeck.pipelines.runs.folder import RunFolder, read_lock


def refuse_lost(folder: RunFolder, lost: Iterable[Path]) -> None:
    """Raise LimbeckError if a file is lost; it names the first one and the way out."""
    for path in lost:
        raise LimbeckError(missing_words(folder, path))


def missing_words(folder: RunFolder, path: Path) -> str:
    """That a file of the run is missing, and the way out."""
    made_again = not path.is_relative_to(folder.sources("train").parent)
    return f"{path} is missing; {COMPUTED_AGAIN if made_again else NOT_MADE_AGAIN}"


def is_finished(folder: RunFolder) -> bool:
    """Whether the last stage of the run was completed."""
    return (folder.path / "evaluation" / DONE).exists()


def round_numbers(folder: RunFolder) -> range:
    """The rounds that have begun; of a finished run, those that it made."""
    numbers = [int(path.name) for path in (folder.path / "rounds").glob("[0-9]*") if path.name.isdigit()]
    return range(max([*(number + 1 for number in numbers), finished_rounds(folder) or 0]))


def finished_rounds(folder: RunFolder) -> int | None:
    """How many rounds a finished run made; None: it is not finished, 0: not recorded. Older versions made those of the recipe."""
    if not is_finished(folder):
        return None
    found = (done(folder.path / "evaluation") or {}).get("rounds", (read_lock(folder).get("recipe") or {}).get("rounds"))
    return found if isinstance(found, int) else 0


def was_decided(folder: RunFolder, number: int) -> bool:
    """Whether a round's decisions were made, even if they are lost now."""
    made = (folder.decisions(number), folder.rows(number), folder.dataset(number), folder.evaluated(number))
    if any(path.exists() for path in made) or any(part_names(folder.candidates(number + 1))):
        return True
    return is_finished(folder) and number in round_numbers(folder)


def lost_files(folder: RunFolder, number: int) -> Iterator[Path]:
    """Everything that a round has lost."""
    return chain(lost_parts(folder, number), lost_records(folder, number), _lost_dataset(folder, number))


def lost_parts(folder: RunFolder, number: int) -> Iterator[Path]:
    """Parts of sources, candidates and scores that a decided round has lost."""
    if not was_decided(folder, number):
        return
    every = part_names(folder.sources("train"))
    places = [folder.candidates(number), *(folder.scores(number, name) for name in _filters(folder, number))]
    names = {place: set(part_names(place)) for place in places}
    drawn = sorted(set().union(*names.values()))
    yield from _lost_sources(folder, every, drawn)
    if _has_target(folder):  # parts are drawn in order until the target is reached
        every = every[: max(1, len(drawn))]
    wanted = sorted({*every, *drawn})
    yield from (part_path(place, name) for place in places for name in wanted if name not in names[place])


def lost_records(folder: RunFolder, number: int) -> Iterator[Path]:
    """Bounds, decisions and figures that a decided round has lost."""
    if not was_decided(folder, number):
        return
    wanted = [folder.calibration, folder.decisions(number)]
    if is_finished(folder):
        wanted.append(folder.evaluated(number))
        wanted += [folder.on_test] if _asks_on_test(folder) else []
    yield from (path for path in wanted if not path.exists())


def _asks_on_test(folder: RunFolder) -> bool:
    """Whether there is anything to ask on test: documents, or inputs that were drawn, of which all may have been rejected."""
    drawn = done(folder.evaluation("test", "inputs") / "sources")
    if drawn is not None:
        return bool(drawn.get("rows_out"))
    return bool((done(folder.sources("train").parent) or {}).get("test"))


def _lost_dataset(folder: RunFolder, number: int) -> Iterator[Path]:
    """The dataset and its counts, once it was published."""
    if folder.dataset(number).exists() or folder.evaluated(number).exists() or is_finished(folder):
        wanted = (folder.rows(number), folder.dataset(number) / DATA)
        yield from (path for path in wanted if not path.exists())


def _lost_sources(folder: RunFolder, every: list[str], drawn: list[str]) -> Iterator[Path]:
    """Source parts of which candidates exist; their rows are counted only if a name is missing."""
    home, known = folder.sources("train"), set(every)
    missing = [name for name in drawn if name not in known]
    if missing and count_rows(home) != (done(home.parent) or {}).get("train"):
        yield from (part_path(home, name) for name in missing)


def _filters(folder: RunFolder, number: int) -> list[str]:
    """The filters whose scores a round has: those that lock.json records, and those in the folder."""
    recorded = read_lock(folder)["stages"].get("scores", {})
    scores = folder.round(number) / "scores"
    return list(dict.fromkeys([*recorded, *sorted(path.name for path in scores.glob("*") if part_names(path))]))


def _has_target(folder: RunFolder) -> bool:
    decisions: dict[str, Any] = read_lock(folder)["stages"].get("decisions", {})
    return decisions.get("target") is not None
