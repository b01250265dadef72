"""Queries on an n-gram index: exact counts, next tokens, infini-gram probabilities, scores of texts, documents.

Every query takes token ids (a list, or anything with a buffer: numpy, torch) or, if a tokenizer is known, text. Batches take
flat ids and int64 offsets (queries + 1 entries) and return arrays. Removed documents are never counted or returned. Costs are in
memory accesses; `infinigram/csrc/` explains them.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from limbeck.infinigram import documents_view, trace, variants
from limbeck.infinigram.opened import Ids, OpenIndex, Query
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


class Index(OpenIndex):
    """An open index; created by `Index.open`. Thread-safe."""

    # --- one query ---

    def count(self, query: Query) -> int:
        """Occurrences of a query; for an empty query, all tokens including separators. O(log tokens)."""
        return self.engine.count(self.ids(query) if type(query) is str else query)

    def find(self, query: Query) -> Found:
        """Occurrences of a query, as ranks of the suffix arrays. O(log tokens)."""
        count, ranges = self.engine.find(self.ids(query))
        return Found(count, tuple(ranges))

    def prob(self, prompt: Query, token: int) -> Probability:
        """Probability of a token after a prompt. O(log tokens)."""
        ids = self.ids(prompt) if type(prompt) is str else prompt
        prompts, continuations = self.engine.prob(ids, token)
        return Probability(prompts, continuations, continuations / prompts if prompts else math.nan, len(ids))

    def next_tokens(self, prompt: Query) -> NextTokens:
        """Every token that follows a prompt, with its exact count. O(distinct * log(occurrences / distinct))."""
        ids = self.ids(prompt)
        prompts, tokens, counts, _ = self.engine.next_tokens(ids)
        return NextTokens(prompts, tokens, counts, len(ids))

    def longest_suffix(self, prompt: Query) -> tuple[int, int]:
        """Length of the longest suffix of a prompt that occurs, and its count. O(log(prompt) * log(tokens))."""
        tokens, count = self.engine.longest_suffix(self.ids(prompt))
        return tokens, count

    def infgram_prob(self, prompt: Query, token: int) -> Probability:
        """Probability of a token after the longest suffix of a prompt that occurs (Liu et al. 2024); as `longest_suffix`."""
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
        """Encodings of a text and, optionally, of its word-start and other-case variants; a clause for `search_cnf`."""
        self.ids(text)
        return variants.variants(self.tokenizer, text, word_start=word_start, any_case=any_case)

    def count_any(self, queries: Sequence[Query]) -> int:
        """Number of positions where at least one of several queries occurs. O(queries * log tokens)."""
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
        """`infgram_prob` of every prompt and its token, [queries]; for all positions of one text `score` is much faster."""
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
        """`infgram_prob` at every position of a text: one match and one count per position instead of a search per length."""
        suffixes, prompts, continuations = self.engine.score(self.ids(text))
        return Scores(suffixes, prompts, continuations, ratio(continuations, prompts))

    def score_batch(self, ids: Ids, offsets: Ids) -> Scores:
        """`score` of every text, flat like the ids."""
        suffixes, prompts, continuations = self.engine.score_batch(ids, offsets)
        return Scores(suffixes, prompts, continuations, ratio(continuations, prompts))

    def creativity(self, text: Query) -> Integers:
        """For every position, the end of the longest span from there that occurs, [tokens] (Lu et al. 2024)."""
        return self.engine.longest_matches(self.ids(text))

    def creativity_batch(self, ids: Ids, offsets: Ids) -> Integers:
        """`creativity` of every text, flat like the ids; ends are relative to the start of each text."""
        return self.engine.longest_matches_batch(ids, offsets)

    def trace(self, text: Query, **options: Any) -> tuple[TracedSpan, ...]:
        """The rarest maximal spans of a text that occur here, with documents; options as `limbeck.infinigram.trace.trace`."""
        return trace.trace(self, self.ids(text), **options)

    # --- documents ---

    def search(self, query: Query, **options: Any) -> Matches:
        """Sample occurrences of a query; options as `limbeck.infinigram.documents_view.search`."""
        return documents_view.search(self, self.ids(query), **options)

    def search_batch(self, ids: Ids, offsets: Ids, **options: Any) -> MatchesBatch:
        """Sample occurrences of every query, as arrays; options as `limbeck.infinigram.documents_view.search_batch`."""
        return documents_view.search_batch(self, ids, offsets, **options)

    def search_cnf(self, clauses: Sequence[Sequence[Query]], **options: Any) -> Matches:
        """Sample matches of all clauses (each an OR of terms) close together; options as `documents_view.search_cnf`."""
        return documents_view.search_cnf(self, [[self.ids(term) for term in clause] for clause in clauses], **options)

    def count_cnf(self, clauses: Sequence[Sequence[Query]], **options: Any) -> tuple[int, bool]:
        """Number of matches that `search_cnf` samples from, and whether that is an estimate."""
        found = self.search_cnf(clauses, limit=0, **options)
        return found.count, found.approximate

    def trace_batch(self, texts: Sequence[Query], **options: Any) -> list[tuple[TracedSpan, ...]]:
        """`trace` of each text."""
        return [self.trace(text, **options) for text in texts]

    def document(self, number: int, *, max_tokens: int | None = None) -> Document:
        """A document by its number over all shards, cut to its first `max_tokens`; raises BadQuery if it was removed."""
        return documents_view.by_number(self, number, max_tokens)

    def document_at(self, shard: int, pointer: int, *, max_tokens: int = 1000, needle_tokens: int = 1) -> Document:
        """The document around a byte offset into a shard's text, in a window of `max_tokens`."""
        return documents_view.by_pointer(self, shard, pointer, max_tokens, needle_tokens)

    def document_by_rank(self, shard: int, rank: int, *, max_tokens: int = 1000, needle_tokens: int = 1) -> Document:
        """The document around the suffix at a rank, like `document_at`."""
        return documents_view.by_pointer(self, shard, documents_view.pointer(self, shard, rank), max_tokens, needle_tokens)

    def documents(self, numbers: Sequence[int], *, max_tokens: int | None = None) -> list[Document]:
        """`document` of each number."""
        return [self.document(number, max_tokens=max_tokens) for number in numbers]
