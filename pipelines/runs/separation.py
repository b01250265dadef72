"""Whether bounds separate outputs of their own document from the same outputs with another one (mismatched pairs).

Calibration always finds a bound, also in scores that say nothing. So the bounds that are meant to reject mismatched pairs are
checked on the candidates of round 0 that were also scored with another document (columns `<column>_null`): by the AUROC of own
against mismatched scores, and by the share of mismatched pairs that the bound lets pass.

Candidates of one source are not independent, so standard errors come from leaving out one source at a time (the jackknife), and
intervals use Student's t with one degree of freedom per source but one. They need no random draws.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from limbeck.corpus.config import Config
from limbeck.corpus.parts import part_names, read_part
from limbeck.corpus.seeds import derive_seed
from limbeck.filters.config import FilterConfig
from limbeck.filters.contract import Bound

Floats = npt.NDArray[np.float64]
Verdict = Literal["separates", "does not separate", "too few to tell"]

FEWEST_SOURCES = 6
"""With fewer sources an interval says nothing."""

MOST_SOURCES = 256
"""The sources whose candidates are compared, chosen by a hash of their ids: time and memory grow with the square."""

CHANCE, WEAK, USEFUL = 0.5, 0.6, 0.75
"""AUROC: a coin's; an interval that ends below `WEAK` is no better; one that reaches from chance to `USEFUL` says too little."""

ALIKE = 0.5
"""A bound does not separate if more than this many mismatched pairs pass for each of the others that passes."""


class Separation(Config):
    """How one bound separates candidates from mismatched pairs; `auroc_low` and `auroc_high` are its 95 % interval."""

    filter: str
    column: str
    side: Literal["minimum", "maximum"]
    limit: float
    calibrated: bool
    verdict: Verdict
    auroc: float
    auroc_low: float
    auroc_high: float
    passing: float  # share of the candidates that pass this bound alone
    passing_mismatched: float  # the same of the mismatched pairs: the false acceptance
    pairs: int  # mismatched pairs
    sources: int


def separations(
    candidates: Path,
    scores: Mapping[str, Path],
    filters: Sequence[FilterConfig],
    frozen: Mapping[str, Sequence[Bound]],
    parts: Sequence[str] | None = None,
) -> list[Separation]:
    """Check each bound that is meant to reject mismatched pairs and has scores of them; `scores`: filter → folder.

    `frozen` are the filters' bounds as they apply; `parts` (None: all) are the parts of the candidates that are looked at.
    """
    found = []
    for filter_ in filters:
        for bound in filter_.rejecting_mismatched:
            for side, limit in _limits(bound, frozen[filter_.name]):
                owners, own, mismatched = _scores(candidates, scores[filter_.name], bound.column, parts)
                if owners:
                    sign = 1.0 if side == "minimum" else -1.0
                    said = compare(owners, sign * own, sign * mismatched, sign * limit)
                    place = {"filter": filter_.name, "column": bound.column, "side": side, "limit": limit}
                    calibrated = bound.calibrate is not None
                    found.append(Separation.model_validate({**place, "calibrated": calibrated, **said}))
    return found


def compare(owners: Sequence[str], own: Floats, mismatched: Floats, limit: float) -> dict[str, float | int | str]:
    """The figures of one bound, which passes scores of at least `limit`, and the verdict.

    `owners`: the source of each candidate; `own` and `mismatched`: its finite scores, higher is better.  # [candidates]
    """
    names, at = np.unique(owners, return_inverse=True)
    sources = len(names)
    wins = _wins(at, own, mismatched, sources)
    counts = np.bincount(at, minlength=sources)
    passed, passed_mismatched = (np.bincount(at, values >= limit, minlength=sources) for values in (own, mismatched))

    def auroc(taken: Floats) -> Floats:  # one row per set of sources: [sets, sources] -> [sets]
        shares: Floats = ((taken @ wins) * taken).sum(axis=1) / (taken @ counts) ** 2
        return shares

    def excess(taken: Floats) -> Floats:
        shares: Floats = (taken @ (passed_mismatched - ALIKE * passed)) / (taken @ counts)
        return shares

    area, low, high = _interval(auroc, sources)
    _, excess_low, _ = _interval(excess, sources)
    return {
        "verdict": verdict(sources, (low, high), excess_low),
        "auroc": area,
        "auroc_low": max(0.0, low),
        "auroc_high": min(1.0, high),
        "passing": float(passed.sum() / counts.sum()),
        "passing_mismatched": float(passed_mismatched.sum() / counts.sum()),
        "pairs": int(counts.sum()),
        "sources": sources,
    }


def verdict(sources: int, auroc: tuple[float, float], excess_low: float) -> Verdict:
    """The verdict on a bound, from the interval of its AUROC and the lower limit of its excess of mismatched pairs."""
    low, high = auroc
    if sources < FEWEST_SOURCES:
        return "too few to tell"
    if excess_low > 0 or high < WEAK:
        return "does not separate"
    if low > CHANCE:
        return "separates"
    return "does not separate" if high < USEFUL else "too few to tell"


def warning(found: Sequence[Separation]) -> str | None:
    """One sentence about the bounds that do not separate: their figures and the way out. None if there are none."""
    bad = [one for one in found if one.verdict == "does not separate"]
    if not bad:
        return None
    bounds = " and ".join(f"{_named(one)} ({_figures(one)})" for one in bad)
    do = "does" if len(bad) == 1 else "do"
    names = dict.fromkeys(one.filter for one in bad)
    way_out = f"give {' and '.join(f'filters.{name}' for name in names)} a better model, or use another filter"
    if not all(one.calibrated for one in bad):
        way_out += ", or set a stricter bound"
    return (
        f"The bound{'s' * (len(bad) > 1)} {bounds} {do} not separate candidates from mismatched pairs (the same outputs with "
        f"another document), so passing says little about a candidate: {way_out}, in a new run."
    )


def unclear(found: Sequence[Separation]) -> str | None:
    """One sentence about the bounds that could not be judged; None if there are none."""
    few = [one for one in found if one.verdict == "too few to tell"]
    if not few:
        return None
    bounds = " and ".join(f"{_named(one)} ({_figures(one)})" for one in few)
    verb = "separates" if len(few) == 1 else "separate"
    return f"Too few to tell whether {bounds} {verb} candidates from mismatched pairs: use more documents."


def _named(one: Separation) -> str:
    sign = "≥" if one.side == "minimum" else "≤"
    return f"{one.filter}.{one.column} {sign} {one.limit:z.3g}{', calibrated,' if one.calibrated else ''}"


def _figures(one: Separation) -> str:
    counted = f"{one.pairs} pair{'s' * (one.pairs != 1)} of {one.sources} source{'s' * (one.sources != 1)}"
    if one.sources < FEWEST_SOURCES:
        return counted
    interval = f"AUROC {one.auroc:.2f}, 95 % interval {one.auroc_low:.2f} to {one.auroc_high:.2f}"
    shares = f"{100 * one.passing:.0f} % of them and {100 * one.passing_mismatched:.0f} % of mismatched pairs pass"
    return f"{interval}; {shares}; {counted}"


def _limits(asked: Bound, frozen: Sequence[Bound]) -> Iterator[tuple[Literal["minimum", "maximum"], float]]:
    """The limits, as they apply, of the sides that a bound has."""
    sides = {"minimum": asked.minimum is not None, "maximum": asked.maximum is not None}
    if asked.calibrate is not None:
        sides[asked.calibrate] = True
    for bound in (bound for bound in frozen if bound.column == asked.column):
        if sides["minimum"] and bound.minimum is not None:
            yield "minimum", bound.minimum
        if sides["maximum"] and bound.maximum is not None:
            yield "maximum", bound.maximum


def _scores(candidates: Path, scores: Path, column: str, parts: Sequence[str] | None) -> tuple[list[str], Floats, Floats]:
    """Source, score and null score of the candidates that have both, of up to `MOST_SOURCES` sources."""
    columns = ["source_id", column, f"{column}_null"]
    found: pa.Table | None = None
    for part in part_names(scores) if parts is None else parts:
        table = read_part(scores, part)
        if not {column, f"{column}_null"} <= set(table.column_names):
            continue
        ids = read_part(candidates, part)
        assert ids["candidate_id"].equals(table["candidate_id"]), f"{scores} {part} has other rows than its candidates"
        numbers = [table[name].cast(pa.float64()) for name in columns[1:]]  # null: NaN in numpy
        rows = pa.table([ids["source_id"], *numbers], names=columns)
        found = _lowest(rows if found is None else pa.concat_tables([found, rows]))
    if found is None:
        return [], np.empty(0), np.empty(0)
    own, mismatched = (found[name].to_numpy() for name in columns[1:])
    return found["source_id"].to_pylist(), own, mismatched


def _lowest(rows: pa.Table) -> pa.Table:
    """The rows of the sources with null scores, of at most `MOST_SOURCES` of these, whose ids hash lowest."""
    finite = np.logical_and.reduce([np.isfinite(rows[name].to_numpy()) for name in rows.column_names[1:]])
    rows = rows.filter(pa.array(finite))
    owners = rows["source_id"].to_pylist()
    chosen = set(sorted(set(owners), key=lambda id_: derive_seed("separation", id_))[:MOST_SOURCES])
    return rows.filter(pa.array([owner in chosen for owner in owners], pa.bool_()))


def _wins(at: npt.NDArray[np.int64], own: Floats, mismatched: Floats, sources: int) -> Floats:
    """How often a candidate of source i scores above a mismatched pair of source j, ties counting half.  # [sources, sources]"""
    wins = np.zeros((sources, sources))
    for row, score in enumerate(own):
        beaten = (score > mismatched) + 0.5 * (score == mismatched)
        wins[at[row]] += np.bincount(at, weights=beaten, minlength=sources)
    return wins


def _interval(statistic: Callable[[Floats], Floats], sources: int) -> tuple[float, float, float]:
    """A statistic of all sources, with its 95 % interval by the jackknife over sources; 0 to 1 with one source."""
    whole = float(statistic(np.ones((1, sources)))[0])
    if sources < 2:
        return whole, 0.0, 1.0
    without = statistic(1.0 - np.eye(sources))
    error = float(np.sqrt((sources - 1) / sources * ((without - without.mean()) ** 2).sum()))
    reach = student_t(sources - 1) * error
    return whole, whole - reach, whole + reach


def student_t(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, by its expansion in 1 / degrees (Fisher and Cornish, 1960).

    The error is below 0.3 % from 4 degrees of freedom on.
    """
    z = 1.959963984540054
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return float(sum(term / degrees**power for power, term in enumerate(terms)))
