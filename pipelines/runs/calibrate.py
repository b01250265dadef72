"""Calibration: the bounds that a recipe sets to `calibrated`, computed once on the train candidates of round 0, then frozen.

All calibrated bounds share one level. At level k of n, a minimum is the k-th smallest of n scores and a maximum the k-th largest
(k counts from 0), so each bound rejects the same number of rows except for ties. The n rows are those that pass every absolute
bound and have all scores. The chosen level is the strictest at which at least the target share of *all* candidates, including
errors, passes every bound. The number of passing rows falls as the level rises, so the level is unique and needs no search.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from limbeck.corpus.errors import LimbeckError
from limbeck.filters.contract import Bound
from limbeck.pipelines.runs.select import FilterBounds, ScoreTable, passing, scores_of

Side = Literal["minimum", "maximum"]
FrozenBounds = tuple[tuple[str, tuple[Bound, ...]], ...]


def calibrate(table: ScoreTable, filters: FilterBounds, pass_rate: float) -> dict[str, Any]:
    """Return the content of `calibration.json`: bounds at which the share `pass_rate` of candidates passes all bounds.

    A bound given as a false-acceptance rate is computed first, from the scores of mismatched pairs alone.

    `table` has the scores of the candidates to calibrate on, in any order. If the absolute bounds
    alone keep less than the target share, the calibrated bounds keep all of those rows, and `note` reports it. Raises
    LimbeckError if no candidate passes the absolute bounds.
    """
    assert 0 < pass_rate <= 1, pass_rate
    recipe_filters, filters = filters, _with_false_acceptance(table, filters)
    open_bounds = list(_open(filters))
    pool = passing(table, absolute(filters))
    scores = {}  # oriented so that higher is better: (filter, column, side) → [pool]
    for name, column, side in open_bounds:
        sign = 1.0 if side == "minimum" else -1.0
        scores[name, column, side] = sign * scores_of(table, name, column)
    pool &= np.logical_and.reduce([np.isfinite(values) for values in scores.values()], initial=True)
    if open_bounds and not pool.any():
        raise LimbeckError(
            f"0 of {table.num_rows} candidates pass the absolute bounds, so no bound can be calibrated; "
            + _strictest(table, filters)
        )
    limits: dict[tuple[str, str, Side], float] = {}
    level = None
    if open_bounds:
        wanted = min(_wanted(pass_rate, table.num_rows), int(pool.sum()))
        position = _strictest_level([values[pool] for values in scores.values()], wanted)
        level = position / int(pool.sum())
        for key, values in scores.items():
            sign = 1.0 if key[2] == "minimum" else -1.0
            limits[key] = sign * float(np.sort(values[pool])[position]) + 0.0  # + 0.0: no -0.0 in the file
    calibration = {
        "pass_rate_target": pass_rate,
        "pass_rate": None,
        "candidates": table.num_rows,
        "level": level,
        "bounds": _as_json(filters, limits),
        "note": _note(pass_rate, table.num_rows, int(pool.sum())),
    }
    passed = passing(table, freeze(recipe_filters, calibration))
    return {**calibration, "pass_rate": float(passed.mean()) if table.num_rows else 0.0}


def freeze(filters: FilterBounds, calibration: dict[str, Any]) -> FrozenBounds:
    """Return the recipe's bounds, with calibrated ones filled in from the content of `calibration.json`.

    Raises LimbeckError if a calibrated bound is missing there, because the recipe has changed.
    """
    return tuple((name, tuple(_frozen(name, bound, calibration["bounds"]) for bound in bounds)) for name, bounds in filters)


def _frozen(name: str, bound: Bound, limits: dict[str, Any]) -> Bound:
    if bound.calibrate is None:
        return bound
    limit = limits.get(name, {}).get(bound.column, {}).get(bound.calibrate)
    if limit is None:
        raise LimbeckError(
            f"calibration.json has no {bound.calibrate} for {name}.{bound.column}: start a new run for this recipe"
        )
    if bound.calibrate == "minimum":
        return replace(bound, minimum=limit, calibrate=None, false_acceptance=None)
    return replace(bound, maximum=limit, calibrate=None, false_acceptance=None)


def _with_false_acceptance(table: ScoreTable, filters: FilterBounds) -> FrozenBounds:
    """Compute the bounds that are given as a false-acceptance rate."""
    return tuple(
        (name, tuple(_at_rate(table, name, bound) if bound.false_acceptance is not None else bound for bound in bounds))
        for name, bounds in filters
    )


def _at_rate(table: ScoreTable, name: str, bound: Bound) -> Bound:
    """The loosest bound that at most the share `false_acceptance` of the scores in `<column>_null` passes."""
    assert bound.false_acceptance is not None
    sign = 1.0 if bound.calibrate == "minimum" else -1.0
    null = sign * scores_of(table, name, f"{bound.column}_null")
    null = np.sort(null[np.isfinite(null)])[::-1]
    if not len(null):
        raise LimbeckError(
            f"{name}.{bound.column} has false_acceptance {bound.false_acceptance:g}, but no mismatched pairs could be scored: "
            "that needs train documents of at least two near-duplicate groups; add documents, or set the bound to a number"
        )
    limit = sign * float(np.nextafter(null[math.floor(bound.false_acceptance * len(null))], np.inf))
    found = replace(bound, calibrate=None, false_acceptance=None)
    return replace(found, minimum=limit) if bound.calibrate == "minimum" else replace(found, maximum=limit)


def _strictest_level(scores: list[npt.NDArray[np.float64]], wanted: int) -> int:
    """The highest level at which at least `wanted` rows pass in every column. `scores`: one array per column.  # [pool]"""
    # a row passes level k in a column if its value is at least the k-th smallest, so if more than k values are no greater
    highest = np.minimum.reduce([np.searchsorted(np.sort(values), values, side="right") - 1 for values in scores])
    return int(np.sort(highest)[len(highest) - wanted])


def _wanted(pass_rate: float, candidates: int) -> int:
    return max(1, math.ceil(round(pass_rate * candidates, 9)))  # rounded, since 0.07 * 100 is slightly above 7


def _open(filters: FilterBounds) -> Iterator[tuple[str, str, Side]]:
    for name, bounds in filters:
        yield from ((name, bound.column, bound.calibrate) for bound in bounds if bound.calibrate is not None)


def absolute(filters: FilterBounds) -> FrozenBounds:
    """The bounds without their calibrated sides; a bounded score must still be a number."""
    return tuple((name, tuple(_without_open(bound) for bound in bounds)) for name, bounds in filters)


def _without_open(bound: Bound) -> Bound:
    if bound.calibrate == "minimum":
        return replace(bound, minimum=None, calibrate=None)
    return replace(bound, maximum=None, calibrate=None) if bound.calibrate == "maximum" else bound


def _as_json(filters: FilterBounds, limits: dict[tuple[str, str, Side], float]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Every bound as it will be applied: filter → column → {minimum, maximum}."""
    entries: dict[str, dict[str, dict[str, float | None]]] = {name: {} for name, _ in filters}
    for name, bounds in filters:
        for bound in bounds:
            entry = entries[name].setdefault(bound.column, {"minimum": None, "maximum": None})
            if bound.minimum is not None:
                entry["minimum"] = bound.minimum
            if bound.maximum is not None:
                entry["maximum"] = bound.maximum
    for (name, column, side), limit in limits.items():
        entries[name][column][side] = limit
    return entries


def _note(pass_rate: float, candidates: int, pool: int) -> str:
    if pool >= _wanted(pass_rate, candidates):
        return ""
    return (
        f"the absolute bounds alone keep {pool} of {candidates} candidates, less than the wanted share {pass_rate:g}, "
        "so the calibrated bounds keep all of these"
    )


def _strictest(table: ScoreTable, filters: FilterBounds) -> str:
    """Advice that names the absolute bound with the fewest passing rows."""
    counts = [
        (int(passing(table, [(name, [bound])]).sum()), f"{name}.{bound.column}")
        for name, bounds in absolute(filters)
        for bound in bounds
    ]
    count, name = min(counts)
    return f"the strictest bound, {name}, passes {count}: relax that bound or improve the prompt"
