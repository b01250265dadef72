"""Queries of an n-gram index: exact counts, next tokens, infini-gram probabilities, scores of texts, documents.

Every query takes token ids (a list, or anything with a buffer: numpy, torch) or, where a tokenizer is known, text. Batches take
flat ids and int64 offsets (one more than there are queries) and return arrays. Documents taken down are never counted or
returned. Costs are in memory accesses; `infinigram/csrc/` says what makes them.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from limbeck import _infinigram
from limbeck.infinigram import documents_view, trace, variants
from limbeck.infinigram.errors import BadIndex, BadQuery
from limbeck.infinigram.layout import Layout, locate, steadily
from limbeck.infinigram.manifest import WIDTH_BYTES
from limbeck.infinigram.results import (
    Document,
    Found,
    Integers,
    Matches,
    MatchesBatch,
    NextTokens,
    NextTokensBatch,
    Probabilities,
    Probability,
    Scores,
    TracedSpan,
    ratio,
)

_ENGINES = {"u8": _infinigram.EngineU8, "u16": _infinigram.EngineU16, "u32": _infinigram.EngineU32}
Ids = Any  # a list or tuple of ints, or anything with a buffer or __array__
Query = Any  # Ids, or text where the index knows its tokenizer
Path_ = str | os.PathLike[str]


class Index:
    """An open index; `Index.open` makes one. Its methods may be called from any number of threads."""

    def __init__(self, layout: Layout, dtype: str, version: int, eos: int, load: str, accelerate: bool) -> None:
        self.layout = layout
        self.dtype = dtype
        self.version = version
        self.eos = eos
        self.tokenizer: Any = None
        self.engine = _ENGINES[dtype](list(layout.shards), list(layout.removed), version == 5, eos, load == "ram", accelerate)

    @classmethod
    def open(
        cls,
        paths: Path_ | Sequence[Path_],
        *,
        dtype: Literal["u8", "u16", "u32"] | None = None,
        version: Literal[4, 5] | None = None,
        eos: int | None = None,
        tokenizer: Any = None,
        load: Literal["mmap", "ram"] = "mmap",
        accelerate: bool = True,
        official_order: bool = False,
    ) -> "Index":
        """Open an index folder, or several as one; raises BadIndex where its files are missing, cut off or contradict each other.

        What the manifest says need not be given; official folders have none, and are u16, version 4 and without eos unless
        said otherwise. `tokenizer` has `encode(text) -> list[int]` and `decode(ids) -> str`. "ram" reads the files into huge
        pages: a fifth faster, and safe against files that change. `accelerate` reads an eighth of a byte of keys and the first
        ranks of every token (0.1 s for 100M tokens in the page cache); without it nothing is read, for huge indexes on cold
        disks, and a query takes twice as long. Shards are ordered by number unless the official order is asked for.

        Opening looks at all of a shard of up to 65,536 tokens and at samples of a larger one, never at checksums: bytes changed
        in a text that still sorts are another text, and a changed entry of a large table may mislead a search, until `verify`.
        """
        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        folders = [Path(path) for path in given]
        if load not in ("mmap", "ram"):
            raise BadQuery(f"load is {load!r}; it is 'mmap' or 'ram'")

        def opening() -> Index:
            layout = locate(folders, official_order=official_order)
            return cls(layout, *_known(layout.manifest, dtype, version, eos), load, accelerate)

        index = steadily(folders, opening)
        index.tokenizer = tokenizer
        recorded = index.layout.manifest.get("tokenizer")
        if tokenizer is None and recorded:
            from limbeck.infinigram.tokenizers import open_tokenizer

            index.tokenizer = open_tokenizer(recorded, index.layout.shards[0].folder)
        return index

    # --- one query ---

    def ids(self, query: Query) -> Ids:
        """Token ids of a query; raises BadQuery for text where no tokenizer is known."""
        if type(query) is not str:
            return query
        if self.tokenizer is None:
            raise BadQuery("this index knows no tokenizer, so it takes token ids, not text; open it with tokenizer=...")
        return self.tokenizer.encode(query)

    def count(self, query: Query) -> int:
        """How often a query occurs; of nothing, how many tokens there are, separators included. O(log tokens)."""
        return self.engine.count(self.ids(query) if type(query) is str else query)

    def find(self, query: Query) -> Found:
        """Where a query occurs, as ranks of the suffix arrays. O(log tokens)."""
        count, ranges = self.engine.find(self.ids(query))
        return Found(count, tuple(ranges))

    def prob(self, prompt: Query, token: int) -> Probability:
        """How probable a token is after a prompt. O(log tokens)."""
        ids = self.ids(prompt) if type(prompt) is str else prompt
        prompts, continuations = self.engine.prob(ids, token)
        return Probability(prompts, continuations, continuations / prompts if prompts else math.nan, len(ids))

    def next_tokens(self, prompt: Query) -> NextTokens:
        """Every token that follows a prompt, with its exact count. O(distinct * log(occurrences / distinct))."""
        ids = self.ids(prompt)
        prompts, tokens, counts, _ = self.engine.next_tokens(ids)
        return NextTokens(prompts, tokens, counts, len(ids))

    def longest_suffix(self, prompt: Query) -> tuple[int, int]:
        """How many of a prompt's last tokens occur together, and how often. O(log(prompt) * log(tokens))."""
        tokens, count = self.engine.longest_suffix(self.ids(prompt))
        return tokens, count

    def infgram_prob(self, prompt: Query, token: int) -> Probability:
        """How probable a token is after the longest suffix of a prompt that occurs (Liu et al. 2024); as `longest_suffix`."""
        ids = self.ids(prompt) if type(prompt) is str else prompt
        suffix, prompts, continuations = self.engine.infgram_prob(ids, token)
        return Probability(prompts, continuations, continuations / prompts if prompts else math.nan, suffix)

    def infgram_next_tokens(self, prompt: Query) -> NextTokens:
        """Every token that follows the longest suffix of a prompt that occurs, with its exact count."""
        ids = self.ids(prompt)
        suffix, _ = self.longest_suffix(ids)
        prompts, tokens, counts, _ = self.engine.next_tokens(ids[len(ids) - suffix :])
        return NextTokens(prompts, tokens, counts, suffix)

    def variants(self, text: str, *, word_start: bool = False, any_case: bool = False) -> list[list[int]]:
        """Encodings of a text and, if asked, of it at the start of a word and in other cases; a clause for `search_cnf`."""
        self.ids(text)
        return variants.variants(self.tokenizer, text, word_start=word_start, any_case=any_case)

    def count_any(self, queries: Sequence[Query]) -> int:
        """At how many places at least one of several queries occurs. O(queries * log tokens)."""
        ids = variants.shortest([self.engine.ids(self.ids(query)).tolist() for query in queries])
        flat = [token for query in ids for token in query]
        return int(self.engine.count_batch(flat, np.cumsum([0, *map(len, ids)])).sum())

    # --- batches ---

    def count_batch(self, ids: Ids, offsets: Ids) -> Integers:
        """`count` of every query, [queries]."""
        return self.engine.count_batch(ids, offsets)

    def find_batch(self, ids: Ids, offsets: Ids) -> tuple[Integers, Integers]:
        """`find` of every query: counts [queries], and ranges [queries, shards, 2]."""
        return self.engine.find_batch(ids, offsets)

    def prob_batch(self, ids: Ids, offsets: Ids, tokens: Ids) -> Probabilities:
        """`prob` of every prompt and its token, [queries]."""
        counts = self.engine.prob_batch(ids, offsets, tokens)
        return Probabilities(counts[:, 0], counts[:, 1], ratio(counts[:, 1], counts[:, 0]), np.diff(offsets).astype(np.int64))

    def next_tokens_batch(self, ids: Ids, offsets: Ids) -> NextTokensBatch:
        """`next_tokens` of every prompt, as compressed rows."""
        return NextTokensBatch(*self.engine.next_tokens_batch(ids, offsets), np.diff(offsets).astype(np.int64))

    def longest_suffix_batch(self, ids: Ids, offsets: Ids) -> tuple[Integers, Integers]:
        """`longest_suffix` of every prompt: tokens and counts, [queries]."""
        suffixes, counts, _ = self.engine.infgram_prob_batch(ids, offsets, np.zeros(max(0, len(offsets) - 1), np.uint8))
        return suffixes, counts

    def infgram_prob_batch(self, ids: Ids, offsets: Ids, tokens: Ids) -> Probabilities:
        """`infgram_prob` of every prompt and its token, [queries]; for all positions of one text `score` is far quicker."""
        suffixes, prompts, continuations = self.engine.infgram_prob_batch(ids, offsets, tokens)
        return Probabilities(prompts, continuations, ratio(continuations, prompts), suffixes)

    def infgram_next_tokens_batch(self, ids: Ids, offsets: Ids) -> NextTokensBatch:
        """`infgram_next_tokens` of every prompt, as compressed rows."""
        suffixes, _ = self.longest_suffix_batch(ids, offsets)
        flat, ends = np.asarray(ids), np.asarray(offsets)[1:]
        pieces = [flat[end - size : end] for end, size in zip(ends, suffixes, strict=True)]
        cut = np.concatenate([[0], np.cumsum(suffixes)])
        joined = np.concatenate(pieces) if pieces else flat[:0]
        return NextTokensBatch(*self.engine.next_tokens_batch(joined, cut), suffixes)

    # --- whole texts ---

    def score(self, text: Query) -> Scores:
        """`infgram_prob` at every position of a text: one match and one count each instead of a search per length."""
        suffixes, prompts, continuations = self.engine.score(self.ids(text))
        return Scores(suffixes, prompts, continuations, ratio(continuations, prompts))

    def score_batch(self, ids: Ids, offsets: Ids) -> Scores:
        """`score` of every text, flat as the ids are."""
        suffixes, prompts, continuations = self.engine.score_batch(ids, offsets)
        return Scores(suffixes, prompts, continuations, ratio(continuations, prompts))

    def creativity(self, text: Query) -> Integers:
        """For every position the end of the longest piece from there that occurs, [tokens] (Lu et al. 2024)."""
        return self.engine.longest_matches(self.ids(text))

    def creativity_batch(self, ids: Ids, offsets: Ids) -> Integers:
        """`creativity` of every text, flat as the ids are; ends count from the text's own start."""
        return self.engine.longest_matches_batch(ids, offsets)

    def trace(self, text: Query, **options: Any) -> tuple[TracedSpan, ...]:
        """The rarest maximal spans of a text that occur here, with documents; options as `limbeck.infinigram.trace.trace`."""
        return trace.trace(self, self.ids(text), **options)

    # --- documents ---

    def search(self, query: Query, **options: Any) -> Matches:
        """Draw occurrences of a query; options as `limbeck.infinigram.documents_view.search`."""
        return documents_view.search(self, self.ids(query), **options)

    def search_batch(self, ids: Ids, offsets: Ids, **options: Any) -> MatchesBatch:
        """Draw occurrences of every query, as arrays; options as `limbeck.infinigram.documents_view.search_batch`."""
        return documents_view.search_batch(self, ids, offsets, **options)

    def search_cnf(self, clauses: Sequence[Sequence[Query]], **options: Any) -> Matches:
        """Draw places where all clauses (each one of several terms) occur together; as `documents_view.search_cnf`."""
        return documents_view.search_cnf(self, [[self.ids(term) for term in clause] for clause in clauses], **options)

    def count_cnf(self, clauses: Sequence[Sequence[Query]], **options: Any) -> tuple[int, bool]:
        """How many places `search_cnf` draws from, and whether that is an estimate."""
        found = self.search_cnf(clauses, limit=0, **options)
        return found.count, found.approximate

    def trace_batch(self, texts: Sequence[Query], **options: Any) -> list[tuple[TracedSpan, ...]]:
        """`trace` of each text."""
        return [self.trace(text, **options) for text in texts]

    def document(self, number: int, *, max_tokens: int | None = None) -> Document:
        """A document by its number over all shards, cut to its first `max_tokens`; raises BadQuery where it was taken down."""
        return documents_view.by_number(self, number, max_tokens)

    def document_at(self, shard: int, pointer: int, *, max_tokens: int = 1000, needle_tokens: int = 1) -> Document:
        """The document around a byte offset into a shard's text, in a window of `max_tokens`."""
        return documents_view.by_pointer(self, shard, pointer, max_tokens, needle_tokens)

    def document_by_rank(self, shard: int, rank: int, *, max_tokens: int = 1000, needle_tokens: int = 1) -> Document:
        """The document around the suffix of a rank, as `document_at`."""
        return documents_view.by_pointer(self, shard, documents_view.pointer(self, shard, rank), max_tokens, needle_tokens)

    def documents(self, numbers: Sequence[int], *, max_tokens: int | None = None) -> list[Document]:
        """`document` of each number."""
        return [self.document(number, max_tokens=max_tokens) for number in numbers]

    @property
    def tokens(self) -> int:
        """Tokens of all documents that are not taken down, separators included."""
        return int(self.engine.tokens)

    @property
    def document_count(self) -> int:
        """Documents that are not taken down."""
        return sum(self.engine.shard_documents) - sum(len(shard.removed) for shard in self.layout.shards)


def _known(manifest: dict[str, Any], dtype: str | None, version: int | None, eos: int | None) -> tuple[str, int, int]:
    """Dtype, version and eos as the caller or the manifest says; raises BadIndex where they differ or are none."""
    dtype_known = _settled("dtype", dtype, manifest, "u16")
    version_known = _settled("version", version, manifest, 4)
    if dtype_known not in _ENGINES:
        raise BadIndex(f"the token dtype is {dtype_known!r}; an index has u8, u16 or u32")
    if version_known not in (4, 5):
        raise BadIndex(f"version {version_known!r} is not 4 or 5; a version 6 folder opens as 4, or as 5 where it is reversed")
    eos_known = eos if eos is not None else manifest.get("eos")
    return dtype_known, version_known, (1 << 8 * WIDTH_BYTES[dtype_known]) - 1 if eos_known is None else eos_known


def _settled(name: str, given: Any, manifest: dict[str, Any], otherwise: Any) -> Any:
    """What the caller and the manifest say of the same thing; raises BadIndex where they differ."""
    recorded = manifest.get(name)
    if given is not None and recorded is not None and given != recorded:
        raise BadIndex(f"{name} is {given!r} but the manifest says {recorded!r}; leave it out")
    return next((value for value in (given, recorded) if value is not None), otherwise)
