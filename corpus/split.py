"""Near-duplicate groups, and the split into train, dev and test that never divides a group."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.seeds import derive_seed
from limbeck.corpus.text.words import plain_words

SPLITS = ("train", "dev", "test")
SHINGLE_WORDS = 2
_PERMUTATIONS = 256
_MISSED = 0.02


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
        if any(counts) and not all(counts):
            raise ValueError(f"a split must be all counts (whole numbers) or all fractions (1.0, not 1): {values}")
        if not counts[0] and sum(values) > 1 + 1e-9:
            raise ValueError(f"the fractions of a split must sum to at most 1: {' + '.join(map(str, values))} = {sum(values):g}")


def shingles(text: str) -> set[str]:
    """The word pairs of a text, in lower case; a text of one word is its own shingle."""
    words = plain_words(text)
    return {" ".join(words[i : i + SHINGLE_WORDS]) for i in range(max(1, len(words) - SHINGLE_WORDS + 1))}


def near_duplicate_groups(documents: Mapping[str, str], threshold: float) -> dict[str, str]:
    """Map each source_id to its group: the smallest source_id of its connected component.

    Two documents are joined if the Jaccard similarity of their shingles is at least `threshold`; candidate pairs come from
    MinHash LSH (Broder 1997; Indyk and Motwani 1998) and every one is checked exactly. About linear in the number of documents.
    """
    from datasketch import MinHash, MinHashLSH  # takes a second to import

    ids = sorted(documents)
    parent = {source_id: source_id for source_id in ids}

    def root(source_id: str) -> str:
        while parent[source_id] != source_id:
            parent[source_id] = parent[parent[source_id]]
            source_id = parent[source_id]
        return source_id

    sets = {source_id: shingles(documents[source_id]) for source_id in ids}
    index = MinHashLSH(num_perm=_PERMUTATIONS, params=_bands(threshold))
    encoded = [[shingle.encode() for shingle in sorted(sets[source_id])] for source_id in ids]
    for source_id, sketch in zip(ids, MinHash.generator(encoded, num_perm=_PERMUTATIONS), strict=True):
        for other in sorted(str(key) for key in index.query(sketch)):
            first, second = sorted((root(source_id), root(other)))
            if first != second and jaccard(sets[source_id], sets[other]) >= threshold:
                parent[second] = first
        index.insert(source_id, sketch)
    return {source_id: root(source_id) for source_id in ids}


def _bands(threshold: float) -> tuple[int, int]:
    """Bands, and permutations per band: the widest that miss a pair at the threshold in at most `_MISSED` of cases."""
    widths = [rows for rows in range(1, _PERMUTATIONS + 1) if (1 - threshold**rows) ** (_PERMUTATIONS // rows) <= _MISSED]
    rows = max(widths, default=1)
    return _PERMUTATIONS // rows, rows


def jaccard(first: set[str], second: set[str]) -> float:
    """The size of the intersection over the size of the union."""
    common = len(first & second)
    return common / (len(first) + len(second) - common)


def assign_splits(groups: Mapping[str, str], split: Split, seed: int) -> dict[str, str | None]:
    """Map each source_id to train, dev, test, or None (left over: the split needs fewer).

    `groups` maps source_id to group; a group is never divided. The largest go first, in an order drawn by `seed`, each to the
    split with the most room; sizes are met as closely as whole groups allow. Raises LimbeckError if a requested split would stay
    empty, or counts exceed the documents.
    """
    targets = _targets(split, len(groups))
    room: dict[str | None, int] = dict(targets) | {None: len(groups) - sum(targets.values())}
    sizes = Counter(groups.values())
    wanted = [name for name in SPLITS if getattr(split, name)]
    if len(sizes) < len(wanted):
        usable = "1 usable document" if len(groups) == 1 else f"{len(groups)} usable documents"
        alike = f" in only {len(sizes)} near-duplicate group{'s' * (len(sizes) > 1)}" if len(sizes) < len(groups) else ""
        way_out = "raise sources.near_duplicate_threshold, " if alike else ""
        raise LimbeckError(
            f"{usable}{alike}: too few for {', '.join(wanted)}; add documents, {way_out}or set a split to 0 in sources.split"
        )
    chosen: dict[str, str | None] = {}
    order = sorted(sizes, key=lambda group: (-sizes[group], derive_seed(seed, "split", group)))
    for left, group in zip(range(len(order), 0, -1), order, strict=True):
        empty = [name for name in wanted if room[name] == targets[name]]
        names: Sequence[str | None] = empty if left <= len(empty) else (*SPLITS, None)  # the last groups go to empty splits
        fitting = [name for name in names if room[name] >= sizes[group]]
        best = max(fitting or names, key=lambda name: (name is not None, room[name]))  # ties go to the first: train
        chosen[group] = best
        room[best] -= sizes[group]
    return {source_id: chosen[group] for source_id, group in groups.items()}


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
