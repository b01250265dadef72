"""Calibration: the limits that a recipe leaves open, found once on the train candidates of round 0 and then frozen.

The rule. All calibrated bounds share one level: at level k of n, a minimum is the k-th smallest of the n scores that it could
judge (a maximum the k-th largest; k counts from 0), so each rejects the same number of rows but for ties. The n rows are those
that every absolute bound lets through and that have all scores. The level chosen is the strictest at which still at least the
wanted share of *all* candidates, errors included, passes every bound together. The joint pass count falls as the level rises, so
that level is unique, and it is found without a search.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from limbeck.corpus.errors import LimbeckError
from limbeck.filters.contract import Bound
from limbeck.pipelines.runs.select import FilterBounds, passing, scores_of

Side = Literal["minimum", "maximum"]
FrozenBounds = tuple[tuple[str, tuple[Bound, ...]], ...]


def calibrate(table: pa.Table, filters: FilterBounds, pass_rate: float) -> dict[str, Any]:
    """Return what `calibration.json` holds: limits at which the share `pass_rate` of candidates passes all bounds together.

    A limit stated as a false-acceptance rate is found first, from the scores of mismatched pairs alone.

    `table` is a joined table (`runs.select.joined`) of the candidates to calibrate on, in any order. Where the absolute
    bounds alone keep less than the wanted share, the calibrated limits keep all that those let through, and `note` says so.
    Raises LimbeckError where they let nothing through, so that no limit can be found.
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
            f"none of the {table.num_rows} candidates passes the absolute bounds, so nothing can be calibrated; "
            + _strictest(table, filters)
        )
    limits: dict[tuple[str, str, Side], float] = {}
    level = None
    if open_bounds:
        wanted = min(_wanted(pass_rate, table.num_rows), int(pool.sum()))
        place = _strictest_level([values[pool] for values in scores.values()], wanted)
        level = place / int(pool.sum())
        for key, values in scores.items():
            sign = 1.0 if key[2] == "minimum" else -1.0
            limits[key] = sign * float(np.sort(values[pool])[place]) + 0.0  # + 0.0: no -0.0 in the file
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
    """Return the recipe's bounds with the open limits filled in from what `calibration.json` holds.

    Raises LimbeckError where a calibrated bound is not among them: the recipe has changed since.
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


def _with_false_acceptance(table: pa.Table, filters: FilterBounds) -> FrozenBounds:
    """The bounds with those found that are stated as a share of mismatched pairs."""
    return tuple(
        (name, tuple(_at_rate(table, name, bound) if bound.false_acceptance is not None else bound for bound in bounds))
        for name, bounds in filters
    )


def _at_rate(table: pa.Table, name: str, bound: Bound) -> Bound:
    """The loosest limit that at most the share `false_acceptance` of the scores in `<column>_null` passes."""
    assert bound.false_acceptance is not None
    sign = 1.0 if bound.calibrate == "minimum" else -1.0
    null = sign * scores_of(table, name, f"{bound.column}_null")
    null = np.sort(null[np.isfinite(null)])[::-1]
    if not len(null):
        raise LimbeckError(
            f"{name}.{bound.column} is to let {bound.false_acceptance:g} of mismatched pairs pass, but none could be scored: a "
            "part needs documents of at least two sources; state the limit as a number"
        )
    limit = sign * float(np.nextafter(null[math.floor(bound.false_acceptance * len(null))], np.inf))
    found = replace(bound, calibrate=None, false_acceptance=None)
    return replace(found, minimum=limit) if bound.calibrate == "minimum" else replace(found, maximum=limit)


def _strictest_level(scores: list[npt.NDArray[np.float64]], wanted: int) -> int:
    """The highest level at which at least `wanted` rows reach every column's limit. `scores`: one array a column.  # [pool]"""
    # a row passes level k in a column where its value is at least the k-th smallest: where more than k values are no greater
    highest = np.minimum.reduce([np.searchsorted(np.sort(values), values, side="right") - 1 for values in scores])
    return int(np.sort(highest)[len(highest) - wanted])


def _wanted(pass_rate: float, candidates: int) -> int:
    return max(1, math.ceil(round(pass_rate * candidates, 9)))  # rounded: 0.07 * 100 is a hair above 7


def _open(filters: FilterBounds) -> Iterator[tuple[str, str, Side]]:
    for name, bounds in filters:
        yield from ((name, bound.column, bound.calibrate) for bound in bounds if bound.calibrate is not None)


def absolute(filters: FilterBounds) -> FrozenBounds:
    """The bounds without the limits that are to be calibrated; what a bound is on must be a number all the same."""
    return tuple((name, tuple(_without_open(bound) for bound in bounds)) for name, bounds in filters)


def _without_open(bound: Bound) -> Bound:
    if bound.calibrate == "minimum":
        return replace(bound, minimum=None, calibrate=None)
    return replace(bound, maximum=None, calibrate=None) if bound.calibrate == "maximum" else bound


def _as_json(filters: FilterBounds, limits: dict[tuple[str, str, Side], float]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Every bound as it will be applied: filter → column → its limits."""
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


def _strictest(table: pa.Table, filters: FilterBounds) -> str:
    """Which absolute bound passes the fewest rows, as advice."""
    counts = [
        (int(passing(table, [(name, [bound])]).sum()), f"{name}.{bound.column}")
        for name, bounds in absolute(filters)
        for bound in bounds
    ]
    count, name = min(counts)
    return f"{name} alone lets {count} through: loosen it, or better the prompt"
