"""Near-duplicate groups, and the split into train, dev and test that never divides a group."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from limbeck.corpus.config import MOST_ROWS, Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.near_duplicates.groups import Places
from limbeck.corpus.near_duplicates.minhash import Bands
from limbeck.corpus.near_duplicates.shingles import Texts
from limbeck.corpus.near_duplicates.texts import similar_texts
from limbeck.corpus.seeds import derive_seed

SPLITS = ("train", "dev", "test")
LEFT_OVER = len(SPLITS)
"""The place, behind the splits, of what no split asks for."""

NEAR_DUPLICATE_THRESHOLD = 0.2
"""The default: documents at least this similar (Jaccard similarity of word pairs) share a group."""

SHINGLE_WORDS = 2
_PERMUTATIONS = 256
_RECALL = 0.98


class Split(Config):
    """Size of each split: fractions of the usable documents (at most 1.0 in total), or counts (whole numbers)."""

    train: float | int = 0.8
    dev: float | int = 0.1
    test: float | int = 0.1

    def model_post_init(self, context: object, /) -> None:
        """Check that the three are all counts or all fractions, none negative, and that fractions sum to at most 1."""
        values = (self.train, self.dev, self.test)
        counts = [isinstance(value, int) for value in values if value != 0]  # 0 is both
        if min(values) < 0 or not counts:
            raise ValueError("the sizes of a split must be at least 0, and not all 0")
        if max(values) > MOST_ROWS:
            raise ValueError(f"the counts of a split must be at most {MOST_ROWS}: {values}")
        if any(counts) and not all(counts):
            raise ValueError(f"a split must be all counts (whole numbers) or all fractions (1.0, not 1): {values}")
        if not counts[0] and sum(values) > 1 + 1e-9:
            raise ValueError(f"the fractions of a split must sum to at most 1: {' + '.join(map(str, values))} = {sum(values):g}")


def near_duplicate_groups(documents: Mapping[str, str], threshold: float) -> dict[str, str]:
    """Map each source_id to its group: the smallest source_id of its connected component.

    Two documents are joined if the Jaccard similarity of their word pairs is at least `threshold`, by the implementation that the
    filter `duplicates` uses (method minhash). About linear in the number of documents.
    """
    ids = sorted(documents)
    texts = pa.chunked_array([pa.array([documents[source_id] for source_id in ids], pa.large_string())])
    labels = near_duplicate_labels(texts, threshold)
    return {source_id: ids[label] for source_id, label in zip(ids, labels.tolist(), strict=True)}


def near_duplicate_labels(texts: Texts, threshold: float, folder: Path | None = None) -> Places:
    """The group of each text as `near_duplicate_groups` makes them, labelled by its smallest place.  # [texts]

    With `folder` all but some hundred bytes per text are on disk there.
    """
    recall = min(_RECALL, Bands(_PERMUTATIONS, 1).chance(threshold))  # lower only for a threshold below 0.016
    scopes = np.zeros(len(texts), np.int64)
    labels, _ = similar_texts(
        texts, scopes, threshold, "word", SHINGLE_WORDS, permutations=_PERMUTATIONS, recall=recall, folder=folder
    )
    return labels


def assign_splits(groups: Mapping[str, str], split: Split, seed: int) -> dict[str, str | None]:
    """Map each source_id to train, dev, test, or None (left over: the split needs fewer); `groups` maps it to its group."""
    sizes = Counter(groups.values())
    keys = np.array([split_key(group, seed) for group in sizes], np.uint64)
    codes = split_groups(np.array(list(sizes.values()), np.int64), keys, split)
    chosen = {group: None if code == LEFT_OVER else SPLITS[code] for group, code in zip(sizes, codes.tolist(), strict=True)}
    return {source_id: chosen[group] for source_id, group in groups.items()}


def split_key(group: str, seed: int) -> int:
    """The place of a group in the order drawn by `seed`."""
    return derive_seed(seed, "split", group)


def split_groups(sizes: Places, keys: npt.NDArray[np.uint64], split: Split) -> npt.NDArray[np.int8]:
    """The split of each group as a place in `SPLITS`, or `LEFT_OVER`; a group is never divided.  # [groups]

    The largest go first, in the order of their `keys`, each to the split with the most room; sizes are met as closely as whole
    groups allow. Raises LimbeckError if a requested split would stay empty, or counts exceed the documents.
    """
    documents = int(sizes.sum())
    targets = [*_targets(split, documents).values()]
    wanted = [place for place, name in enumerate(SPLITS) if getattr(split, name)]
    if len(sizes) < len(wanted):
        raise LimbeckError(_too_few(documents, len(sizes), [SPLITS[place] for place in wanted]))
    room = [*targets, documents - sum(targets)]
    chosen = np.empty(len(sizes), np.int8)
    for left, group in zip(range(len(sizes), 0, -1), np.lexsort((keys, -sizes)), strict=True):
        empty = [place for place in wanted if room[place] == targets[place]]
        places = empty if left <= len(empty) else range(LEFT_OVER + 1)  # the last groups go to empty splits
        size = int(sizes[group])
        fitting = [place for place in places if room[place] >= size]
        best = max(fitting or places, key=lambda place: (place != LEFT_OVER, room[place]))  # ties go to the first: train
        chosen[group] = best
        room[best] -= size
    return chosen


def _too_few(documents: int, groups: int, wanted: Sequence[str]) -> str:
    usable = "1 usable document" if documents == 1 else f"{documents} usable documents"
    alike = f" in only {groups} near-duplicate group{'s' * (groups > 1)}" if groups < documents else ""
    way_out = "raise sources.near_duplicate_threshold, " if alike else ""
    return f"{usable}{alike}: too few for {', '.join(wanted)}; add documents, {way_out}or set a split to 0 in sources.split"


def _targets(split: Split, documents: int) -> dict[str, int]:
    """Target size of each split: counts unchanged, fractions by largest remainders, at least one each."""
    shares = {name: getattr(split, name) for name in SPLITS}
    if all(isinstance(share, int) or share == 0 for share in shares.values()):
        if sum(shares.values()) > documents:
            asked = " + ".join(f"{share} {name}" for name, share in shares.items())
            are = "1 is" if documents == 1 else f"{documents} are"
            message = f"sources.split needs {asked} documents, but only {are} usable; lower the counts, or give fractions"
            raise LimbeckError(message)
        return {name: int(share) for name, share in shares.items()}
    exact = {name: share * documents for name, share in shares.items()}
    targets = {name: math.floor(value + 1e-9) for name, value in exact.items()}
    remaining = round(sum(exact.values())) - sum(targets.values())
    for name in sorted(SPLITS, key=lambda name: targets[name] - exact[name])[: max(0, remaining)]:
        targets[name] += 1
    for name in SPLITS:
        largest = max(SPLITS, key=lambda name: targets[name])
        if exact[name] > 0 and targets[name] == 0 and targets[largest] > 1:
            targets[name], targets[largest] = 1, targets[largest] - 1
    return targets
