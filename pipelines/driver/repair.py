"""Files that a run has lost: they are computed again when the run is started again."""

import shutil
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import count_rows, done, has_part, part_names, part_path
from limbeck.pipelines.driver.context import Context
from limbeck.pipelines.driver.evaluate import TEACHER, student_subject
from limbeck.pipelines.runs.card import DATA
from limbeck.pipelines.runs.lost import finished_rounds, lost_files


def reopen(context: Context) -> list[str]:
    """Prepare a run for computing what was removed from its folder; returns the missing files, relative to it.

    Of an unfinished run, these are files without which its decided rounds would be resumed with other bounds or parts.

    What is left of an incomplete dataset, and decisions that depend on a missing file, are removed to be made again. Raises
    LimbeckError if sources are missing: the input may have changed since they were read.
    """
    folder = context.folder
    _refuse_lost_sources(context)
    made = finished_rounds(folder)
    numbers = range(made or context.recipe.rounds)
    lost = chain.from_iterable(lost_files(folder, number) for number in numbers)
    missing = list(lost if made is None else _missing(context, len(numbers)))
    if folder.calibration in missing:
        folder.decisions(0).unlink(missing_ok=True)
    for number in numbers:
        of_round = [path for path in missing if path.is_relative_to(folder.round(number))]
        if context.recipe.target is not None and any(path.suffix == ".parquet" for path in of_round):
            folder.decisions(number).unlink(missing_ok=True)
        if folder.dataset(number) / DATA in of_round:  # the folder is published whole
            shutil.rmtree(folder.dataset(number), ignore_errors=True)
    return list(dict.fromkeys(str(path.relative_to(folder.path)) for path in missing))


def _refuse_lost_sources(context: Context) -> None:
    folder = context.folder
    counts = done(folder.sources("train").parent)
    if counts is None:  # they are still to be read
        return
    for split in ("train", "dev", "test"):
        if count_rows(folder.sources(split)) != counts.get(split, 0):
            raise LimbeckError(
                f"{folder.sources(split)} has lost parts, which cannot be made again: restore them, or start again with "
                "another --out"
            )


def _missing(context: Context, rounds: int) -> Iterator[Path]:
    folder, recipe = context.folder, context.recipe
    wanted = [folder.calibration]
    for number in range(rounds):
        places = [folder.candidates(number), *(folder.scores(number, name) for name in context.filter_names)]
        wanted += _parts(places, part_names(folder.sources("train")) if recipe.target is None else [])
        wanted += [folder.decisions(number), folder.round(number) / "rows.json", folder.dataset(number) / DATA]
        wanted += [folder.round(number) / "evaluation.json"]
        if recipe.student_of(number) is not None:
            wanted.append(folder.student(number))
    for split in ("dev", "test"):
        students = [student_subject(number) for number in range(rounds) if recipe.student_of(number) is not None]
        for subject in (TEACHER, *students):
            home = folder.evaluation(split, subject)
            places = [home / "candidates", *(home / "scores" / name for name in context.filter_names)]
            wanted += _parts(places, part_names(context.held_out(split)))
    if part_names(context.held_out("test")):
        wanted.append(folder.path / "evaluation" / "test.json")
    return (path for path in wanted if not _exists(path))


def _exists(path: Path) -> bool:
    """Whether a file exists, or the part that it once was is in a larger file."""
    return path.exists() or (path.name.startswith("part-") and has_part(path.parent, path.stem))


def _parts(places: list[Path], names: list[str]) -> list[Path]:
    """The parts that all of these folders should have: `names`, and those that one of them has."""
    every = {*names, *(name for place in places for name in part_names(place))}
    return [part_path(place, name) for place in places for name in sorted(every)]
