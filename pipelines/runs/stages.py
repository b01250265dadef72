"""The data that determine each stage of a run, as recorded in lock.json, and how records of older versions are read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from limbeck.cluster.engines.models import fingerprint as model_fingerprint
from limbeck.corpus.config import Config, fill_defaults
from limbeck.corpus.kinds import kinds_in
from limbeck.filters.config import FilterConfig, SetFilterConfig
from limbeck.filters.contract import Bound
from limbeck.pipelines.recipe import Recipe, TargetConfig

Where = tuple[str, ...]
MIX = "mix"
"""The key of the recipe's section `mix` in the data of the students' stage."""

_BOUND_DEFAULTS = {field.name: field.default for field in fields(Bound) if field.default is not MISSING}


@dataclass(frozen=True)
class Stages:
    """Stages in order; `data` is the plain data that determines the output of each.

    `sections`: path in the data → recipe section written there. `semantics`: stage → semantics number of each kind in it.
    `packages`: name → version of the packages that provide those kinds, without Limbeck.
    """

    data: Mapping[str, Mapping[str, Any]]
    sections: Mapping[Where, Config]
    semantics: Mapping[str, Mapping[str, int]]
    packages: Mapping[str, str]

    def with_defaults(self, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """Recorded data as this version would record them: with defaults for newer keys, and without operational keys."""
        filled: dict[str, Any] = json.loads(json.dumps(recorded))
        for where, section in self.sections.items():
            there, here = _at(filled, where), _at(self.data, where)
            if isinstance(there, dict) and isinstance(here, Mapping):
                fill_defaults(there, here, section)
        for bounds in (_at(filled, ("decisions", "bounds")) or {}).values():
            bounds[:] = [{**_BOUND_DEFAULTS, **bound} for bound in bounds]
        return filled


def stages_of(
    recipe: Recipe, filters: Sequence[FilterConfig], set_filters: Sequence[SetFilterConfig], teacher_folder: Path
) -> Stages:
    """The stages of a run of a resolved recipe; `filters` and `set_filters` are the recipe's and those passed as objects."""
    from limbeck.pipelines.kinds import packages_of

    optional = {"later": recipe.later, "rows": recipe.rows, "task": recipe.task}  # keys of newer versions: absent if unset
    plain = {name: {name: section.determining()} if section else {} for name, section in optional.items()}
    teacher = {name: value for name, value in recipe.teacher.fingerprint().items() if name != "model"}
    data = {
        "sources": {**recipe.sources.determining(), "seed": recipe.seed, **_layout(recipe)},
        "candidates": {
            "generator": recipe.generator.determining(),
            "teacher": recipe.teacher.determining(),
            "model": model_fingerprint(teacher_folder),
            **teacher,
            "next_teacher": recipe.next_teacher,
            **plain["later"],
        },
        "scores": {filter_.name: {**filter_.scoring(), "lazy": filter_.lazy} for filter_ in filters},
        "decisions": {
            "bounds": {filter_.name: [vars(bound) for bound in filter_.bounds] for filter_ in filters},
            "calibration": recipe.calibration.determining(),
            "target": target_facts(recipe.target),
            "select": {filter_.name: filter_.deciding() for filter_ in set_filters},
            **plain["rows"],
        },
        "student": _student(recipe),
        "evaluation": {"rounds": recipe.rounds, **recipe.evaluation.determining(), **plain["task"]},
    }
    sections: dict[Where, Config | None] = {
        ("sources",): recipe.sources,
        ("candidates", "generator"): recipe.generator,
        ("candidates", "teacher"): recipe.teacher,
        ("candidates", "later"): recipe.later,
        **{("scores", filter_.name): filter_ for filter_ in filters},
        ("decisions", "calibration"): recipe.calibration,
        ("decisions", "target"): recipe.target,
        **{("decisions", "select", filter_.name): filter_ for filter_ in set_filters},
        ("decisions", "rows"): recipe.rows,
        **{(*("student",), *key.split(".")[1:]): student for key, student in recipe.student_sections.items()},
        ("student", MIX): recipe.mix,
        ("evaluation",): recipe.evaluation,
        ("evaluation", "task"): recipe.task,
    }
    known = {where: section for where, section in sections.items() if section is not None}
    semantics: dict[str, dict[str, int]] = {name: {} for name in data}
    for where, section in known.items():
        semantics[where[0]] |= {f"{kind.family} {kind.kind}": kind.semantics for kind in kinds_in(section)}
    return Stages(data, known, semantics, packages_of(known.values()))


def target_facts(target: TargetConfig | None) -> int | dict[str, Any] | None:
    """The target as stage data: a number if only `rows` is set."""
    if target is None:
        return None
    return target.rows if target.wave_sources is None else target.determining()


def _student(recipe: Recipe) -> dict[str, Any]:
    """One section, or one per round by its number, and what their datasets are mixed with."""
    mix = {} if recipe.mix is None else {MIX: recipe.mix.determining()}  # a key of newer versions: absent if unset
    if isinstance(recipe.student, tuple):
        return {**{str(number): student.determining() for number, student in enumerate(recipe.student)}, **mix}
    return {} if recipe.student is None else {**recipe.student.determining(), **mix}


def _layout(recipe: Recipe) -> dict[str, Any]:
    """Settings that determine part boundaries."""
    waves = recipe.target.wave_sources if recipe.target else None
    return {"rows_per_part": recipe.cluster.rows_per_part, **({"wave_sources": waves} if waves else {})}


def _at(data: Any, where: Where) -> Any:
    for key in where:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data
