"""The earlier runs that a run is made from: as its sources, as its teacher, and through them those before."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from limbeck.cluster.engines.models import fingerprint
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import part_names, read_some
from limbeck.pipelines.runs.folder import RunFolder, read_lock
from limbeck.pipelines.runs.mixture.facts import RunOfRows, mixture_file
from limbeck.pipelines.runs.mixture.reading import read_mixture
from limbeck.pipelines.runs.report_model import Origin

MOST_RUNS = 100
"""Of a longer chain of runs, the earliest are left out."""

_ROUND = re.compile(r"/rounds/(\d+)/")


def origins(folder: RunFolder) -> list[Origin]:
    """The runs that a run is made from, nearest first; a run that is not there any more ends its chain."""
    found, waiting, seen = list[Origin](), [folder.path], {folder.path}
    while waiting and len(seen) < MOST_RUNS:
        for origin in _of_one(RunFolder(waiting.pop(0))):
            found.append(origin)
            run = Path(origin.run).expanduser().resolve()
            if run not in seen and (run / "lock.json").exists():
                seen.add(run)
                waiting.append(run)
    return found


def _of_one(folder: RunFolder) -> Iterator[Origin]:
    try:
        lock = read_lock(folder)
    except LimbeckError:  # an earlier run's record is damaged: its own commands report it
        return
    recipe: dict[str, Any] = lock.get("recipe") or {}
    sources, teacher = recipe.get("sources"), recipe.get("teacher")
    if isinstance(sources, dict) and sources.get("kind") == "run":
        stated = sources.get("round")
        number = stated if isinstance(stated, int) else _round_of_sources(folder)
        selection = sources.get("selection")
        yield Origin(gives="sources", run=str(sources.get("run")), round=number, selection=selection, of=folder.path.name)
    for mixed in _mixed(folder, recipe.get("mix")):
        yield Origin(gives="mixture", run=mixed.run, round=mixed.round, selection=mixed.selection, of=folder.path.name)
    model = teacher.get("model") if isinstance(teacher, dict) else None
    student = _student(model) if isinstance(model, str) else None
    if student is not None:
        run, number = student.parents[2], int(student.parent.name)
        known = (lock.get("models") or {}).get(model)
        same = known is not None and fingerprint(student) == known  # `best` may be another round's by now
        yield Origin(gives="teacher", run=str(run), round=number if same else None, of=folder.path.name)


def _mixed(folder: RunFolder, mix: Any) -> Iterator[RunOfRows]:
    """The runs whose rows its students were trained on; before the first mixture is made, those that the recipe names."""
    if mixture_file(folder.mixture(0)).exists():
        with suppress(LimbeckError):
            yield from read_mixture(folder, 0).runs
        return
    components = mix.get("components") if isinstance(mix, dict) else None
    for component in components if isinstance(components, list) else ():
        if isinstance(component, dict) and component.get("kind") == "run":
            stated = component.get("round")
            number = stated if isinstance(stated, int) else None
            yield RunOfRows(run=str(component.get("run")), round=number, selection=component.get("selection"))


def _round_of_sources(folder: RunFolder) -> int | None:
    """The round that the first train source was read from, if it is there."""
    home = folder.sources("train")
    with suppress(LimbeckError):
        for table in read_some(home, part_names(home)[:1], pa.schema([("origin", pa.string())])):
            for origin in table["origin"].to_pylist()[:1]:
                found = _ROUND.search(origin or "")
                return int(found[1]) if found else None
    return None


def _student(model: str) -> Path | None:
    """The folder of a model, if it is the student of a run."""
    folder = Path(model).expanduser()
    if model.startswith("embedded:") or not folder.is_dir():
        return None
    folder = folder.resolve()
    in_a_run = len(folder.parents) > 2 and folder.name == "student" and folder.parents[1].name == "rounds"
    return folder if in_a_run and folder.parent.name.isdigit() and (folder.parents[2] / "lock.json").exists() else None
