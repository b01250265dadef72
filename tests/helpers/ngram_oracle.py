"""A naive n-gram engine and a naive writer of index folders: slow, short and obviously correct."""

import json
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WIDTHS = {"u8": 1, "u16": 2, "u32": 4}
Documents = list[list[int]]


def separator(dtype: str) -> int:
    return (1 << 8 * WIDTHS[dtype]) - 1


def deal(documents: Documents, shards: int) -> list[Documents]:
    return [documents[shard::shards] for shard in range(shards)]


def shard_text(documents: Documents, dtype: str, version: int) -> list[int]:
    text = []
    for document in documents:
        text += [separator(dtype), *(document[::-1] if version == 5 else document)]
    return text


def write_shard(folder: Path, suffix: str, documents: Documents, dtype: str, version: int, metadata: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    width = WIDTHS[dtype]
    text = shard_text(documents, dtype, version)
    data = np.array(text, f"<u{width}").tobytes()
    offsets, lines, line_offsets = [], [], []
    at = line_at = 0
    for number, document in enumerate(documents):
        offsets.append(at)
        at += (len(document) + 1) * width
        line = json.dumps({"path": "a.jsonl", "linenum": number, "metadata": {"n": number}}) + "\n"
        line_offsets.append(line_at)
        line_at += len(line)
        lines.append(line)
    order = sorted(range(len(text)), key=lambda position: data[position * width :])
    entry = next(size for size in range(9) if 256**size >= len(data))
    table = b"".join((position * width).to_bytes(8, "little")[:entry] for position in order)
    (folder / f"tokenized{suffix}").write_bytes(data)
    (folder / f"table{suffix}").write_bytes(table)
    (folder / f"offset{suffix}").write_bytes(struct.pack(f"<{len(offsets)}Q", *offsets))
    if metadata:
        (folder / f"metadata{suffix}").write_text("".join(lines))
        (folder / f"metaoff{suffix}").write_bytes(struct.pack(f"<{len(offsets)}Q", *line_offsets))


def write_keys(folder: Path, suffix: str, dtype: str) -> None:
    """The sampled keys: the first eight bytes of every 64th suffix as a big-endian number, stored little-endian."""
    data = (folder / f"tokenized{suffix}").read_bytes()
    table = (folder / f"table{suffix}").read_bytes()
    tokens = len(data) // WIDTHS[dtype]
    entry = len(table) // tokens
    keys = []
    for rank in range(0, tokens, 64):
        at = int.from_bytes(table[rank * entry : (rank + 1) * entry], "little")
        keys.append(int.from_bytes(data[at : at + 8].ljust(8, b"\0"), "big"))
    (folder / f"keys64{suffix}.ig").write_bytes(struct.pack(f"<{len(keys)}Q", *keys))


def write_index(
    folder: Path, documents: Documents, dtype: str = "u16", version: int = 4, shards: int = 1, metadata: bool = True
) -> Path:
    for number, part in enumerate(deal(documents, shards)):
        write_shard(folder, f".{number}", part, dtype, version, metadata)
    return folder


def write_removed(
    folder: Path, documents: Documents, shards: int, numbers: set[tuple[int, int]], dtype: str, version: int
) -> None:
    """Remove documents (shard, number within it), as a build does."""
    pairs = sorted(numbers)
    (folder / "removed.ig").write_bytes(b"".join(struct.pack("<2Q", *pair) for pair in pairs))
    dealt = deal(documents, shards)
    write_shard(folder / "removed", ".0", [dealt[shard][number] for shard, number in pairs], dtype, version)


@dataclass
class Oracle:
    """Answers by scanning. `kept[shard]` are documents, None for removed ones."""

    dtype: str
    version: int
    kept: list[list[list[int] | None]]

    def hits(self, query: list[int]) -> list[tuple[int, int]]:
        """(shard, position in index order) of every occurrence that overlaps no removed document except with a last separator."""
        query = query[::-1] if self.version == 5 else query
        size = len(query)
        found = []
        for shard, documents in enumerate(self.kept):
            text, owner = [], []
            for document in documents:
                tokens = document if document is not None else [None] * 3
                text += [separator(self.dtype), *(tokens[::-1] if self.version == 5 else tokens)]
                owner += [document is not None] * (len(tokens) + 1)
            for at in range(len(text) - size + 1):
                if text[at : at + size] != query:
                    continue
                touched = owner[at : at + size]
                if size > 1 and query[-1] == separator(self.dtype):
                    touched = touched[:-1]
                if all(touched) and (size or owner[at : at + 1] == [True]):
                    found.append((shard, at))
        return found

    def count(self, query: list[int]) -> int:
        return len(self.hits(query))

    def next_tokens(self, prompt: list[int], eos: int) -> dict[int, int]:
        counts: Counter[int] = Counter()
        for shard, at in self.hits(prompt):
            text = []
            for document in self.kept[shard]:
                tokens = document if document is not None else [separator(self.dtype)] * 3
                text += [separator(self.dtype), *(tokens[::-1] if self.version == 5 else tokens)]
            place = at if not prompt else (at - 1 if self.version == 5 else at + len(prompt))
            token = text[place] if 0 <= place < len(text) else separator(self.dtype)
            counts[eos if token == separator(self.dtype) else token] += 1
        return dict(counts)

    def longest_suffix(self, prompt: list[int]) -> int:
        return max(size for size in range(len(prompt) + 1) if size == 0 or self.count(prompt[len(prompt) - size :]))

    def score(self, text: list[int]) -> list[tuple[int, int, int]]:
        rows = []
        for at, token in enumerate(text):
            size = self.longest_suffix(text[:at])
            suffix = text[at - size : at]
            rows.append((size, self.count(suffix), self.count([*suffix, token])))
        return rows

    def creativity(self, text: list[int]) -> list[int]:
        return [max(end for end in range(at, len(text) + 1) if end == at or self.count(text[at:end])) for at in range(len(text))]

    def cnf(self, clauses: list[list[list[int]]], distance: int) -> int:
        """The largest number of disjoint matches, by document."""
        documents = [document for documents in self.kept for document in documents if document is not None]
        return sum(disjoint_matches(document, clauses, distance) for document in documents)


def disjoint_matches(document: list[int], clauses: list[list[list[int]]], distance: int) -> int:
    """A match has one start per clause, with neighbours at most `distance` apart; the best choice by dynamic programming."""
    starting = [
        {c for c, clause in enumerate(clauses) if any(document[at : at + len(term)] == term for term in clause)}
        for at in range(len(document))
    ]
    best = [0] * (len(document) + 2)
    for left in reversed(range(len(document))):
        end = _first_end(starting, left, len(clauses), distance)
        best[left] = max(best[left + 1], 0 if end is None else 1 + best[end + 1])
    return best[0]


def _first_end(starting: list[set[int]], left: int, clauses: int, distance: int) -> int | None:
    """Where the first complete match that begins at `left` or later ends; every chain of starts is followed."""
    chains: set[tuple[frozenset[int], int]] = set()
    for at in range(left, len(starting)):
        for c in sorted(starting[at]) * clauses:
            longer = {(done | {c}, at) for done, last in chains if c not in done and at - last <= distance}
            chains |= {(frozenset({c}), at)} | longer
        if any(len(done) == clauses for done, _ in chains):
            return at
        chains = {(done, last) for done, last in chains if at - last <= distance}
    return None
