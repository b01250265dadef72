"""The accuracy of an NLI model by label and phenomenon on two hand-written test sets, and that of a bag-of-words baseline.

`test_set.jsonl` shares its phenomena with the rules that make training pairs. `independent_set.jsonl` was written without knowing
these rules, so its figure is the one to quote. Neither is trained on, and nothing is tuned on them.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.filters.nli_model.pairs import LABELS
from limbeck.filters.nli_model.rules import NliPair

SETS = {"independent": "independent_set.jsonl", "test": "test_set.jsonl"}
"""Test set → its file beside this module."""

_BUCKETS = 4096  # of hashed words, for each of: in both, only in the premise, only in the hypothesis
_EPOCHS = 12
_NEGATION = {"not", "no", "never", "none", "neither", "nor", "nobody", "without", "cannot"}

Judge = Callable[[Sequence[tuple[str, str]]], npt.NDArray[np.float32]]
"""Pairs → probabilities [pairs, 3] of entailment, neutral and contradiction."""


@dataclass(frozen=True)
class Quality:
    """Accuracy over all pairs, by label, and by (label, phenomenon); `confusion[truth][answer]` counts pairs.

    `auroc`: the probability that an entailed pair gets more entailment than another one.
    """

    pairs: int
    accuracy: float
    auroc: float
    by_label: Mapping[str, float]
    by_phenomenon: Mapping[tuple[str, str], tuple[float, int]]  # accuracy, pairs
    confusion: npt.NDArray[np.int64]  # [3, 3]

    def as_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        rows = [
            {"label": label, "phenomenon": phenomenon, "accuracy": round(accuracy, 4), "pairs": pairs}
            for (label, phenomenon), (accuracy, pairs) in self.by_phenomenon.items()
        ]
        by_label = {label: round(accuracy, 4) for label, accuracy in self.by_label.items()}
        return {
            "pairs": self.pairs,
            "accuracy": round(self.accuracy, 4),
            "auroc": round(self.auroc, 4),
            "by_label": by_label,
            "by_phenomenon": rows,
            "confusion": self.confusion.tolist(),
        }


def test_pairs(name: str) -> list[NliPair]:
    """The hand-written pairs of a test set, in file order."""
    lines = Path(__file__).with_name(SETS[name]).read_text(encoding="utf-8").splitlines()
    return [NliPair(**json.loads(line)) for line in lines]


def measure(judge: Judge, pairs: Sequence[NliPair]) -> Quality:
    """Return the accuracy of the most probable label; a NaN row counts as wrong."""
    found = judge([(pair.premise, pair.hypothesis) for pair in pairs])
    answers = np.where(np.isnan(found).any(axis=1), -1, np.nan_to_num(found).argmax(axis=1))
    truth = np.array([LABELS.index(pair.label) for pair in pairs])
    right = answers == truth
    kinds: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for pair, hit in zip(pairs, right.tolist(), strict=True):
        kinds[pair.label, pair.phenomenon].append(hit)
    confusion = np.zeros((len(LABELS), len(LABELS)), dtype=np.int64)
    np.add.at(confusion, (truth[answers >= 0], answers[answers >= 0]), 1)
    return Quality(
        pairs=len(pairs),
        accuracy=float(right.mean()),
        auroc=_auroc(np.nan_to_num(found[:, 0], nan=0.0), truth == 0),
        by_label={label: float(right[truth == number].mean()) for number, label in enumerate(LABELS) if (truth == number).any()},
        by_phenomenon={kind: (sum(hits) / len(hits), len(hits)) for kind, hits in sorted(kinds.items())},
        confusion=confusion,
    )


def _auroc(scores: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_]) -> float:
    """The share of (positive, negative) couples in the right order, ties counted half; NaN without both kinds."""
    if positive.all() or not positive.any():
        return float("nan")
    higher, lower = scores[positive][:, None], scores[~positive][None]
    return float((higher > lower).mean() + 0.5 * (higher == lower).mean())


def bag_of_words(pairs: Sequence[NliPair], seed: int) -> Judge:
    """Fit a softmax regression on shared and unshared words, overlap and negation (plain torch; seconds)."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    bags, dense = _features([(pair.premise, pair.hypothesis) for pair in pairs])
    labels = torch.tensor([LABELS.index(pair.label) for pair in pairs])
    words = nn.EmbeddingBag(3 * _BUCKETS, len(LABELS), mode="sum")
    nn.init.zeros_(words.weight)
    rest = nn.Linear(dense.shape[1], len(LABELS))
    optimizer = torch.optim.Adam([*words.parameters(), *rest.parameters()], lr=5e-3, weight_decay=1e-5)

    def logits(bags: list[list[int]], dense: npt.NDArray[np.float32]) -> torch.Tensor:
        offsets = np.cumsum([0, *map(len, bags[:-1])])
        flat = torch.tensor([place for bag in bags for place in bag], dtype=torch.long)
        out: torch.Tensor = words(flat, torch.from_numpy(offsets)) + rest(torch.from_numpy(dense))
        return out

    for _ in range(_EPOCHS):
        for rows in torch.split(torch.randperm(len(pairs)), 64):
            batch = rows.tolist()
            loss = nn.functional.cross_entropy(logits([bags[row] for row in batch], dense[batch]), labels[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def judge(asked: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            found: npt.NDArray[np.float32] = torch.softmax(logits(*_features(asked)), -1).numpy()
        return found

    return judge


def _features(pairs: Iterable[tuple[str, str]]) -> tuple[list[list[int]], npt.NDArray[np.float32]]:
    """The hashed words of each pair, by where they occur, and five numeric features."""
    bags, dense = [], []
    for texts in pairs:
        premise, hypothesis = (re.findall(r"\w+|n['’]t", text.lower()) for text in texts)
        left, right = set(premise), set(hypothesis)
        parts = (left & right, left - right, right - left)
        bags.append([number * _BUCKETS + _hash(word) % _BUCKETS for number, part in enumerate(parts) for word in sorted(part)])
        denied = [float(bool(words & _NEGATION) or any("n't" in word for word in words)) for words in (left, right)]
        digits = [{word for word in words if word.isdigit()} for words in (left, right)]
        overlap = len(parts[0]) / max(1, len(right))
        lengths = len(hypothesis) / max(1, len(premise))
        dense.append([overlap, overlap == 1.0, min(lengths, 3.0), abs(denied[0] - denied[1]), bool(digits[1] - digits[0])])
    return bags, np.array(dense, dtype=np.float32)


def _hash(word: str) -> int:
    """A hash that is the same in every process, unlike Python's own."""
    return int.from_bytes(word.encode("utf-8", "replace")[:8].ljust(8, b"\0"), "little") * 0x9E3779B97F4A7C15 >> 20
