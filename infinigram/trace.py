"""Trace a text to documents: its rarest maximal spans that occur in the index, with documents (OLMoTrace, Liu et al. 2025)."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from limbeck.infinigram import documents_view
from limbeck.infinigram.errors import BadQuery
from limbeck.infinigram.opened import OpenIndex
from limbeck.infinigram.results import Document, Floats, Integers, TracedDocument, TracedSpan

_K1, _B = 1.5, 0.75  # BM25 parameters of Robertson and Zaragoza (2009) and of OLMoTrace


def trace(
    index: OpenIndex,
    ids: Any,
    *,
    delimiters: Iterable[int] | None = None,
    whole_words: bool | None = None,
    min_tokens: int = 1,
    max_count: int = 10,
    spans_per_token: float | None = 0.05,
    max_documents: int = 10,
    context_tokens: int = 80,
) -> tuple[TracedSpan, ...]:
    """The maximal spans of a text that occur at most `max_count` times, in the order of the text.

    Spans end after the first delimiter (newline and full stop if a tokenizer is known) and, with `whole_words` (same default),
    begin and end at word boundaries. `spans_per_token` keeps ceil(spans_per_token * tokens) of them, the least probable by
    unigrams; None keeps all. Up to `max_documents` per span, in windows of `context_tokens`, are ordered by BM25 relevance to the
    text. Costs one search per token, plus the windows.
    """
    text = index.engine.ids(ids)
    marks = _newline_and_full_stop(index) if delimiters is None else sorted(set(delimiters))
    known = index.tokenizer is not None
    words = known if whole_words is None else whole_words
    if words and not known:
        raise BadQuery("whole words need a tokenizer; open the index with one, or trace with whole_words=False")
    limits = (
        documents_view.check("min_tokens", min_tokens),
        documents_view.check("max_count", max_count, 1),
        documents_view.check("max_documents", max_documents),
    )
    spans = index.engine.spans(text, marks, word_starts(index, text) if words else [], *limits)
    logs = unigram_log_probabilities(index, text)
    totals = [float(logs[begin:end].sum()) for begin, end, _, _ in spans]
    kept = list(range(len(spans)))
    if spans_per_token is not None:
        kept = sorted(sorted(kept, key=lambda i: (totals[i], spans[i][0]))[: math.ceil(spans_per_token * len(text))])
    windows = [_windows(index, spans[i], documents_view.check("context_tokens", context_tokens, 1)) for i in kept]
    relevance = iter(bm25(text, [document.ids for documents in windows for document in documents]))
    traced = []
    for i, documents in zip(kept, windows, strict=True):
        rated = [TracedDocument(document, float(next(relevance))) for document in documents]
        rated.sort(key=lambda one: -one.relevance)
        begin, end, count, _ = spans[i]
        traced.append(TracedSpan(begin, end, count, totals[i], tuple(rated)))
    return tuple(traced)


def unigram_log_probabilities(index: OpenIndex, text: Integers) -> Floats:
    """Natural logarithm of each token's share of the index, [tokens]; -10000 if it never occurs, as in the official engine."""
    distinct, where = np.unique(text, return_inverse=True)
    counts = index.engine.count_batch(distinct, np.arange(len(distinct) + 1)) if len(distinct) else np.zeros(0, np.int64)
    logs = np.full(len(distinct), -10000.0)
    np.log(counts / max(1, index.tokens), out=logs, where=counts > 0)
    return logs[where]


def bm25(query: Integers, documents: Sequence[Integers]) -> Floats:
    """Okapi BM25 of each document for a query; these documents are the collection, [documents]. O(tokens of the documents)."""
    if not documents:
        return np.zeros(0)
    wanted = set(query.tolist())
    counts = [Counter(token for token in document.tolist() if token in wanted) for document in documents]
    frequency = Counter(token for count in counts for token in count)
    mean = sum(len(document) for document in documents) / len(documents) or 1.0
    scores = np.zeros(len(documents))
    for at, (count, document) in enumerate(zip(counts, documents, strict=True)):
        norm = _K1 * (1 - _B + _B * len(document) / mean)
        for token, occurrences in count.items():
            rarity = math.log(1 + (len(documents) - frequency[token] + 0.5) / (frequency[token] + 0.5))
            scores[at] += rarity * occurrences * (_K1 + 1) / (occurrences + norm)
    return scores


def word_starts(index: OpenIndex, text: Integers) -> list[bool]:
    """Whether each token begins a word: it starts with no letter or digit, or the text before it does not end in one."""
    pieces = {token: index.tokenizer.decode([token]) for token in set(text.tolist())}
    starts = []
    before = ""
    for token in text.tolist():
        piece = pieces[token]
        starts.append(not piece[:1].isalnum() or not before[-1:].isalnum())
        before = piece
    return starts


def _newline_and_full_stop(index: OpenIndex) -> list[int]:
    """The tokens that are exactly these, if a tokenizer is known."""
    if index.tokenizer is None:
        return []
    return [ids[0] for mark in ("\n", ".") if len(ids := index.tokenizer.encode(mark)) == 1]


def _windows(index: OpenIndex, span: tuple[int, int, int, list[tuple[int, int]]], context_tokens: int) -> list[Document]:
    begin, end, _, places = span
    return [documents_view.by_pointer(index, shard, at, context_tokens + end - begin, end - begin) for shard, at in places]
