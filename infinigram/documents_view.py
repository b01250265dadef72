"""Documents and windows of them, in reading order: by number, pointer or rank, and sampled from the hits of a query."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from limbeck.infinigram.errors import BadIndex, BadQuery
from limbeck.infinigram.manifest import WIDTH_BYTES
from limbeck.infinigram.opened import OpenIndex
from limbeck.infinigram.results import Document, Integers, Matches, MatchesBatch

_LARGEST = (1 << 63) - 1


def search(
    index: OpenIndex,
    ids: Any,
    *,
    limit: int = 1,
    skip: int = 0,
    seed: int = 0,
    replacement: bool = False,
    distinct_documents: bool = False,
    max_tokens: int = 1000,
) -> Matches:
    """Sample `limit` occurrences of a query; the same seed gives the same sample.

    Without replacement the occurrences come in a seeded order, and `skip` pages through it. O(log tokens + limit + skip).
    """
    drawing = (check("limit", limit), check("skip", skip), check("seed", seed))
    check("max_tokens", max_tokens, 1)
    count, hits = index.engine.draw(ids, *drawing, bool(replacement), bool(distinct_documents))
    documents = tuple(window(index, hit, max_tokens, max(1, len(ids))) for hit in hits)
    return Matches(count, False, documents)


def search_batch(
    index: OpenIndex,
    ids: Any,
    offsets: Any,
    *,
    limit: int = 1,
    skip: int = 0,
    seed: int = 0,
    replacement: bool = False,
    distinct_documents: bool = False,
) -> MatchesBatch:
    """The result of `search` for every query, as arrays without document texts; pass a hit to `Index.document_at`."""
    drawing = (check("limit", limit), check("skip", skip), check("seed", seed))
    return MatchesBatch(*index.engine.draw_batch(ids, offsets, *drawing, bool(replacement), bool(distinct_documents)))


def search_cnf(
    index: OpenIndex,
    clauses: Sequence[Sequence[Any]],
    *,
    limit: int = 1,
    skip: int = 0,
    seed: int = 0,
    max_distance_tokens: int = 100,
    max_anchors: int | None = None,
    distinct_documents: bool = False,
    max_tokens: int = 1000,
) -> Matches:
    """Sample matches: one occurrence of each clause in one document, neighbours at most `max_distance_tokens` apart.

    The count is the largest number of disjoint matches; it depends on neither other documents nor the order of the clauses. It is
    exact, unless the rarest clause occurs more than `max_anchors` times: then it is estimated from a seeded sample of that many
    occurrences. At most 16 clauses. O(occurrences of the rarest clause, at most `max_anchors`, * clauses * distance) time, and
    memory for as many occurrences, 100 bytes each.
    """
    check("max_tokens", max_tokens, 1)
    check("limit", limit)
    check("skip", skip)
    limits = (check("max_distance_tokens", max_distance_tokens), check("max_anchors", max_anchors or 0), check("seed", seed))
    count, approximate, hits = index.engine.cnf(clauses, *limits, False)
    order = np.random.default_rng(seed).permutation(len(hits)) if limit else np.arange(0)
    if distinct_documents and len(order):
        _, first = np.unique(hits[order][:, [0, 2]], axis=0, return_index=True)
        order = order[np.sort(first)]
    documents = tuple(window(index, hits[at], max_tokens, 1) for at in order[skip : skip + limit])
    return Matches(count, approximate, documents)


def by_number(index: OpenIndex, number: int, max_tokens: int | None) -> Document:
    """A document's first `max_tokens` tokens; raises BadQuery if it does not exist or was removed."""
    left = check("the document's number", number)
    if max_tokens is not None:
        check("max_tokens", max_tokens, 1)
    for shard, documents in enumerate(index.engine.shard_documents):
        if left < documents:
            place = index.engine.place(shard, left)
            size = place[2] - place[1]
            return _document(index, shard, place, (0, size if max_tokens is None else min(size, max_tokens)), 0)
        left -= documents
    raise BadQuery(f"document {number} does not exist; the index has {sum(index.engine.shard_documents)}")


def by_pointer(index: OpenIndex, shard: int, pointer: int, max_tokens: int, needle_tokens: int) -> Document:
    """The window of a document around a byte offset into a shard's text, where a match of `needle_tokens` was found."""
    check("shard", shard)
    check("pointer", pointer)
    check("max_tokens", max_tokens, 1)
    check("needle_tokens", needle_tokens, 1)
    place = index.engine.place_at(shard, pointer)
    return window(index, np.array([shard, pointer, place[0], 0], np.int64), max_tokens, needle_tokens)


def pointer(index: OpenIndex, shard: int, rank: int) -> int:
    """The byte offset that a shard's suffix array holds at a rank."""
    return int(index.engine.pointer(check("shard", shard), check("rank", rank)))


def window(index: OpenIndex, hit: Integers, max_tokens: int, needle_tokens: int) -> Document:
    """Half of `max_tokens` before a hit, half from it on, clipped to the document; a separator counts as the document's start."""
    shard, pointer_bytes = int(hit[0]), int(hit[1])
    place = index.engine.place(shard, int(hit[2]))
    _, begin, end = place
    position = pointer_bytes // WIDTH_BYTES[index.dtype]
    needle = end - position - needle_tokens if index.version == 5 else position - begin
    needle = min(max(needle, 0), end - begin)
    span = (max(0, needle - max_tokens // 2), min(end - begin, needle + (max_tokens + 1) // 2))
    return _document(index, shard, place, span, needle - span[0])


def check(name: str, value: Any, least: int = 0) -> int:
    """`value` if it is an integer in the engine's range; raises BadQuery otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= int(value) <= _LARGEST:
        raise BadQuery(f"{name} must be an integer of at least {least}, not {value!r}")
    return int(value)


def _document(index: OpenIndex, shard: int, place: tuple[int, int, int], span: tuple[int, int], needle: int) -> Document:
    """The tokens [span) of a document, counted in reading order."""
    local, begin, end = place
    number = sum(index.engine.shard_documents[:shard]) + local
    if index.engine.is_removed(shard, local):
        raise BadQuery(f"document {number} was removed")
    if index.version == 5:
        ids = index.engine.text(shard, end - span[1], end - span[0])[::-1].astype(np.int64)
    else:
        ids = index.engine.text(shard, begin + span[0], begin + span[1]).astype(np.int64)
    text = None if index.tokenizer is None else index.tokenizer.decode(ids.tolist())
    return Document(number, shard, end - begin, span[0], needle, ids, _metadata(index, shard, local), text)


def _metadata(index: OpenIndex, shard: int, local: int) -> dict[str, Any] | None:
    line = index.engine.metadata(shard, local)
    if not line:
        return None
    try:
        metadata = json.loads(line)
    except ValueError as error:
        raise BadIndex(f"the metadata of document {local} of shard {shard} is not JSON ({error}); the file is damaged") from error
    return metadata if isinstance(metadata, dict) else {"metadata": metadata}
