"""ROUGE-L novelty over a whole pool, against brute force with rouge_score and with rapidfuzz, in one run on two pools.

`made`: texts of Zipf words (16 on average), 45 % of them changed copies of earlier ones. `documentation`: distinct sentences of
the installed packages' descriptions and of /usr/share/doc, or of another `--folder`; if these are too few, also of Python's
docstrings.

Brute force compares each text with all texts accepted before it, as self-instruct does. Its time for the whole pool is
extrapolated from a sample: for rapidfuzz, blocks of new texts evenly spread over the pool, each against all earlier ones; for
rouge_score, random pairs of those that it would have to compare. The runs alternate. Limbeck's time includes splitting texts into
words, rapidfuzz's does not.

    python benchmarks/novelty.py [--texts 52000] [--runs 5] [--folder DIR] [--json]
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from novelty_pools import documentation, made
from rapidfuzz.distance import Indel, LCSseq
from rapidfuzz.process import cdist
from rouge_score.rouge_scorer import RougeScorer, _score_lcs

from limbeck.corpus.text.rouge.index import Judged, RougeIndex, rouge_l
from limbeck.corpus.text.rouge.words import Vocabulary, words

LIMIT = 0.7
BLOCK_TEXTS = 128
CORES = os.cpu_count() or 1


def main() -> None:
    """Measure, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=52_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=16, help=f"number of blocks of {BLOCK_TEXTS} new texts, rapidfuzz's sample")
    parser.add_argument("--pairs", type=int, default=5000, help="rouge_score's sample")
    parser.add_argument("--folder", default="/usr/share/doc", help="where to look for documentation")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    sentences, source = documentation(arguments.texts, arguments.folder)
    pools = {"made": (made(arguments.texts), "texts of the generator"), "documentation": (sentences, source)}
    figures = {name: measure(texts, arguments) | {"source": source} for name, (texts, source) in pools.items()}
    print(json.dumps(figures) if arguments.json else table(figures))


def measure(texts: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of one pool."""
    judged = RougeIndex().judge(texts, LIMIT)
    brute = Brute(texts, judged, arguments.blocks)
    scorer = brute.fastest_scorer()
    pairs = brute.drawn_pairs(arguments.pairs)
    cut = [(words(a), words(b)) for a, b in pairs]
    contestants: dict[str, tuple[Callable[[], object], float]] = {  # the work, and how many times as much the whole pool is
        "limbeck": (lambda: RougeIndex().judge(texts, LIMIT), 1.0),
        "limbeck, exact above 0.5": (lambda: RougeIndex(floor=0.5).judge(texts, LIMIT), 1.0),
        "rapidfuzz": (lambda: brute.compare(scorer), brute.pairs / brute.sampled_pairs),
        "rouge_score": (lambda: score_plainly(pairs), brute.pairs / len(pairs)),
        "rouge_score, words cut before": (lambda: score_words(cut), brute.pairs / len(pairs)),
        "ten nearest, all cores": (
            lambda: brute.index.nearest_before(brute.newcomers, brute.before, 10),
            brute.pairs / brute.sampled_pairs,
        ),
    }
    seconds = {name: [] for name in contestants}
    for _ in range(arguments.runs):
        for name, (run, times) in contestants.items():
            clock = time.perf_counter()
            run()
            seconds[name].append((time.perf_counter() - clock) * times)
    for name in ("rouge_score", "rouge_score, words cut before"):
        seconds[name] = [value / CORES for value in seconds[name]]  # as if it ran on every core without any loss
    return {
        "texts": len(texts),
        "words in the mean": round(float(np.mean([len(words(text)) for text in texts])), 1),
        "rejected": f"{1 - judged.accepted.mean():.1%}",
        "pairs that brute force compares": brute.pairs,
        "rapidfuzz's fastest scorer": scorer,
        **{f"{name} [s]": shown(values) for name, values in seconds.items()},
        **{
            f"{name}, times as long": shown(np.array(seconds[name]) / np.array(seconds["limbeck"]))
            for name in ("rapidfuzz", "rouge_score", "rouge_score, words cut before")
        },
        **one_by_one(brute),
        **checks(texts, judged, brute, pairs),
        **memory(texts),
    }


class Brute:
    """A sample of new texts, evenly spread over the pool, each block with all texts accepted before it."""

    def __init__(self, texts: list[str], judged: Judged, blocks: int) -> None:
        """Split and number the words in advance, outside brute force's time."""
        places = np.linspace(0, len(texts) - BLOCK_TEXTS, blocks).astype(int)
        self.sample = np.concatenate([np.arange(place, place + BLOCK_TEXTS) for place in places])
        self.newcomers = [texts[place] for place in self.sample]
        self.before = judged.before[self.sample]
        self.pairs = int(judged.before.sum())
        self.sampled_pairs = int(self.before.sum())
        self.accepted = [text for text, kept in zip(texts, judged.accepted, strict=True) if kept]
        self.index = RougeIndex(self.accepted)
        self._texts, self._judged = texts, judged
        vocabulary = Vocabulary()
        self.strings = vocabulary.encode(self.newcomers).strings()
        self.pool = vocabulary.encode(self.accepted).strings()
        self._lengths = np.array([len(text) for text in self.pool])

    def fastest_scorer(self) -> str:
        """The faster of two: F1 itself with a cut-off, or the length alone, with F1 computed from it as an array."""
        seconds = {}
        for scorer in ("Indel.normalized_similarity", "LCSseq.similarity"):
            clock = time.perf_counter()
            self.compare(scorer)
            seconds[scorer] = time.perf_counter() - clock
        return min(seconds, key=lambda scorer: seconds[scorer])

    def compare(self, scorer: str) -> np.ndarray:
        """The highest score of each new text, 0 below the bound, on all cores; block by block."""
        best = np.zeros(len(self.sample))
        for begin in range(0, len(self.sample), BLOCK_TEXTS):
            size = int(self.before[begin])
            own, pool = self.strings[begin : begin + BLOCK_TEXTS], self.pool[:size]
            if not pool:
                continue
            if scorer == "Indel.normalized_similarity":
                options = {"score_cutoff": LIMIT - 1e-6, "dtype": np.float32}
                scores = cdist(own, pool, scorer=Indel.normalized_similarity, workers=CORES, **options)
            else:
                common = cdist(own, pool, scorer=LCSseq.similarity, dtype=np.uint16, workers=CORES)
                scores = np.divide(2 * common, np.add.outer([len(text) for text in own], self._lengths[:size]), dtype=np.float32)
            best[begin : begin + BLOCK_TEXTS] = scores.max(axis=1)
        return best

    def drawn_pairs(self, count: int) -> list[tuple[str, str]]:
        """Pairs of a text and one accepted before it, drawn uniformly from all such pairs."""
        draw = np.random.default_rng(0)
        edges = np.cumsum(self._judged.before)
        drawn = draw.integers(0, edges[-1], count)
        rows = np.searchsorted(edges, drawn, "right")
        return [(self._texts[row], self.accepted[edges[row] - 1 - pair]) for row, pair in zip(rows, drawn, strict=True)]


def score_plainly(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """As self-instruct does it."""
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    return [scorer.score(a, b)["rougeL"].fmeasure for a, b in pairs]


def score_words(pairs: Sequence[tuple[list[str], list[str]]]) -> list[float]:
    """As Alpaca does it."""
    return [_score_lcs(a, b).fmeasure for a, b in pairs]


def one_by_one(brute: Brute) -> dict[str, str]:
    """The time to compare and add one text in a full pool."""
    index = RougeIndex(brute.accepted)
    seconds: dict[str, list[float]] = {"limbeck": [], "rapidfuzz": []}
    for text, string in zip(brute.newcomers[:200], brute.strings, strict=False):
        clock = time.perf_counter()
        index.judge([text], LIMIT)
        seconds["limbeck"].append((time.perf_counter() - clock) * 1e3)
        clock = time.perf_counter()
        options = {"score_cutoff": LIMIT - 1e-6, "dtype": np.float32, "workers": CORES}
        cdist([string], brute.pool, scorer=Indel.normalized_similarity, **options).max()
        seconds["rapidfuzz"].append((time.perf_counter() - clock) * 1e3)
    return {f"one text, full pool, {name} [ms]": shown(values) for name, values in seconds.items()}


def checks(texts: list[str], judged: Judged, brute: Brute, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Assert that the decisions and scores equal brute force's; returns how many were compared."""
    assert [rouge_l(a, b) for a, b in pairs] == score_plainly(pairs)
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    accepted: list[str] = []
    for text, kept in zip(texts[:300], judged.accepted, strict=False):
        best = max((scorer.score(text, other)["rougeL"].fmeasure for other in accepted), default=0.0)
        assert kept == (best <= LIMIT)
        if kept:
            accepted.append(text)
    scores, places = brute.index.nearest_before(brute.newcomers, brute.before, 1)
    for row, score, place in zip(brute.sample, scores[:, 0], places[:, 0], strict=True):
        assert judged.accepted[row] == (not score > LIMIT)
        assert judged.accepted[row] or (judged.rouge_l[row], judged.nearest[row]) == (score, place)
        assert place < 0 or rouge_l(texts[row], brute.accepted[place]) == score
    return {"checked": f"{len(brute.sample)} decisions and maxima, 300 decisions by rouge_score, {len(pairs)} scores: all equal"}


def memory(texts: list[str]) -> dict[str, str]:
    """The increase of a process's peak memory, for a quarter, half and all of the pool."""
    grown = {}
    for share in (4, 2, 1):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            grown[share] = process.submit(_grown_mib, texts[: len(texts) // share]).result()
    return {"peak memory of 1/4, 1/2, all [MiB]": ", ".join(f"{grown[share]:.0f}" for share in (4, 2, 1))}


def _grown_mib(texts: list[str]) -> float:
    RougeIndex().judge(texts[:10], LIMIT)
    begin = _peak_mib()
    RougeIndex().judge(texts, LIMIT)
    return _peak_mib() - begin


def _peak_mib() -> float:
    """This process's own peak (getrusage would report the parent's if that was higher)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def shown(values: Any) -> str:
    """Mean and range."""
    low, mean, high = (
        f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in (min(values), np.mean(values), max(values))
    )
    return f"{mean} ({low} to {high})"


def table(figures: dict[str, dict[str, Any]]) -> str:
    """One line per figure, one column per pool."""
    names = list(next(iter(figures.values())))
    lines = [f"{'':>44}  " + "  ".join(f"{pool:<44}" for pool in figures)]
    lines += [
        f"{name:>44}  " + "  ".join(f"{pool[name]!s:<44}" for pool in figures.values())
        for name in names
        if name not in ("checked", "source")
    ]
    lines += [f"{pool}: {row[key]}" for pool, row in figures.items() for key in ("source", "checked")]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
