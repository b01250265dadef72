"""The yields of a finished run of the generator `yield_ladder`: what share of each way's candidates do all filters keep?

No model is loaded. A candidate is a row that the filters scored; it is kept if no filter rejects it. Set-wise filters do not
count, since they choose among the ways. Kept pairs are distinct if their texts differ, in either order, by more than case, spaces
and punctuation. The tokens of a way are those of all its completions, used or not; a second rate includes the texts, which every
way needs once per source. Intervals are of a bootstrap over sources, and differences are between ways of the same sources.

    python -m benchmarks.yield_ladder RUN [--json]
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_parts, read_table
from limbeck.corpus.schemas import CANDIDATES, STEPS
from limbeck.corpus.text.copies import key
from limbeck.pipelines.runs.folder import RunFolder
from limbeck.pipelines.runs.lost import round_numbers
from limbeck.pipelines.runs.opening import existing
from limbeck.pipelines.runs.report_model import BEYOND_TARGET
from limbeck.pipelines.runs.select import GENERATOR
from limbeck.pipelines.runs.whatif import recorded_recipe

STUDENT = "student"
STEP_OF = {"plain": "plain", "constraints": "search", "pairs": "sentence", STUDENT: "rewrite"}
"""Way → the step whose completions its candidates are made of."""

TEXT = "text"
RESAMPLES = 2000
Floats = npt.NDArray[np.float64]
Ratio = tuple[Floats, Floats]
"""Numerators and denominators by source.  # [sources] each"""


@dataclass
class Way:
    """What one way made of each source of a round."""

    candidates: Counter[str] = field(default_factory=Counter)
    unqualified: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    pairs: dict[str, set[frozenset[tuple[str, str]]]] = field(default_factory=dict)
    inputs: dict[str, set[str]] = field(default_factory=dict)
    completions: int = 0
    tokens: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Round:
    """The ways of one round, its sources, and the tokens of their texts."""

    number: int
    sources: tuple[str, ...]
    texts: Counter[str]
    ways: dict[str, Way]

    def per(self, counted: Counter[str]) -> Floats:
        """A count of each source.  # [sources]"""
        return np.array([counted[source] for source in self.sources], float)


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        figures = summary(list(rounds_of(existing(arguments.run))))
    except LimbeckError as error:
        sys.exit(f"error: {error}")
    print(json.dumps(figures) if arguments.json else shown(figures))


def rounds_of(folder: RunFolder) -> Iterator[Round]:
    """Yield the decided rounds of a run; raises LimbeckError if a row of the first one has no way."""
    later = {BEYOND_TARGET, *(filter_.name for filter_ in recorded_recipe(folder).select)}
    for number in round_numbers(folder):
        if not folder.decisions(number).exists():
            return
        candidates = read_parts(folder.candidates(number), CANDIDATES).to_pylist()
        steps = read_parts(folder.steps(number), STEPS).to_pylist()
        decisions = {row["candidate_id"]: row for row in read_table(folder.decisions(number)).to_pylist()}
        passed = {id_ for id_, row in decisions.items() if row["kept"] or row["rejected_by"] in later}
        rejected = {id_ for id_, row in decisions.items() if row["rejected_by"] == GENERATOR}
        found = counted(number, candidates, steps, passed, rejected)
        if not found.ways:
            raise LimbeckError(
                f"{folder.path} has no ways to compare in round {number}; name a run of the generator yield_ladder"
            )
        yield found


def counted(
    number: int, candidates: Sequence[dict[str, Any]], steps: Sequence[dict[str, Any]], passed: set[str], rejected: set[str]
) -> Round:
    """Count each way of a round; in later rounds, rows without a way are the student's. A text without a sentence has no way."""
    ways: dict[str, Way] = {}
    for row in candidates:
        facts = json.loads(row["facts"] or "{}")
        name = facts.get("way", STUDENT if number and "temperature" in facts else None)
        if name is None:
            continue
        way, source = ways.setdefault(name, Way()), row["source_id"]
        if row["candidate_id"] in rejected:
            way.unqualified[source] += 1
            continue
        way.candidates[source] += 1
        way.inputs.setdefault(source, set()).add(row["input"])
        if row["candidate_id"] in passed:
            way.kept[source] += 1
            way.pairs.setdefault(source, set()).add(frozenset((key(row["input"]), key(row["output"]))))
    texts: Counter[str] = Counter()
    for step in steps:
        if step["step"] == TEXT:
            texts[step["source_id"]] += step["output_tokens"] or 0
        for name, way in ways.items():
            if step["step"] == STEP_OF[name]:
                way.completions += 1
                way.tokens[step["source_id"]] += step["output_tokens"] or 0
    return Round(number, tuple(sorted({row["source_id"] for row in candidates})), texts, ways)


def ratios(round_: Round, way: Way) -> dict[str, Ratio]:
    """Each yield of a way as numerators and denominators by source."""
    distinct = round_.per(Counter({source: len(pairs) for source, pairs in way.pairs.items()}))
    tokens, texts = round_.per(way.tokens), round_.per(round_.texts)
    return {
        "share": (round_.per(way.kept), round_.per(way.candidates)),
        "per_1000_tokens": (1000 * distinct, tokens),
        "per_1000_tokens_with_texts": (1000 * distinct, tokens + texts),
    }


def interval(*of: Ratio) -> list[float] | None:
    """A ratio of sums, or the first minus the second, and its bootstrap 95 % interval over sources; None if it has no value."""
    places = np.random.default_rng(0).integers(0, len(of[0][0]), (RESAMPLES, len(of[0][0])))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = [above.sum() / below.sum() for above, below in of]
        drawn = [above[places].sum(axis=1) / below[places].sum(axis=1) for above, below in of]
    values = np.concatenate([[value[0]], drawn[0]]) - (np.concatenate([[value[1]], drawn[1]]) if len(of) > 1 else 0)
    if not np.isfinite(values[0]):
        return None
    return [round(float(found), 4) for found in (values[0], *np.nanquantile(values[1:], (0.025, 0.975)))]


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """The figures of every way, and the differences to the first way (`plain`) on the same sources."""
    first = rounds[0]
    base_name, base = next(iter(first.ways.items()))
    base_ratios = ratios(first, base)
    ways, differences = [], []
    for round_ in rounds:
        for name, way in round_.ways.items():
            yields = ratios(round_, way)
            shared = sum(bool(way.inputs.get(source, set()) & base.inputs.get(source, set())) for source in round_.sources)
            ways.append(
                {
                    **{"way": name, "round": round_.number, "sources": len(round_.sources), "same_sentence": shared},
                    **{"completions": way.completions, "unqualified": way.unqualified.total()},
                    **{"candidates": way.candidates.total(), "kept": way.kept.total()},
                    **{"distinct": sum(map(len, way.pairs.values())), "sources_with_kept": len(way.pairs)},
                    **{"tokens": way.tokens.total(), "text_tokens": round_.texts.total()},
                    **{measure: interval(ratio) for measure, ratio in yields.items()},
                }
            )
            if way is not base and round_.sources == first.sources:
                found = {measure: interval(ratio, base_ratios[measure]) for measure, ratio in yields.items()}
                differences.append({"way": name, "round": round_.number, "minus": base_name, **found})
    return {"ways": ways, "differences": differences}


def shown(figures: dict[str, Any]) -> str:
    """The figures as tables."""
    lines = [
        "| way | round | completions | unqualified | candidates | kept | distinct | of sources | tokens | share kept (95 %) "
        "| distinct per 1,000 tokens (95 %) | texts included (95 %) | same sentence |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for way in figures["ways"]:
        counts = [f"{way[name]:,}" for name in ("completions", "unqualified", "candidates", "kept", "distinct")]
        lines.append(
            f"| {way['way']} | {way['round']} | {' | '.join(counts)} | {way['sources_with_kept']} of {way['sources']} "
            f"| {way['tokens']:,} | {_share(way['share'])} | {_rate(way['per_1000_tokens'])} "
            f"| {_rate(way['per_1000_tokens_with_texts'])} | {way['same_sentence']} |"
        )
    lines += ["", "| difference | share kept, points (95 %) | distinct per 1,000 tokens (95 %) | texts included (95 %) |"]
    lines += ["|---|---|---|---|"]
    for row in figures["differences"]:
        share = row["share"] and [100 * value for value in row["share"]]
        rates = (_rate(row[name], "+.2f") for name in ("per_1000_tokens", "per_1000_tokens_with_texts"))
        lines.append(f"| {row['way']} - {row['minus']} | {_rate(share, '+.1f')} | {' | '.join(rates)} |")
    return "\n".join(lines)


def _share(found: list[float] | None) -> str:
    return "–" if found is None else "{:.1%} ({:.1%} to {:.1%})".format(*found)


def _rate(found: list[float] | None, form: str = ".2f") -> str:
    if found is None:
        return "–"
    value, low, high = (format(number, form) for number in found)
    return f"{value} ({low} to {high})"


if __name__ == "__main__":
    main()
