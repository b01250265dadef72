"""Convert query results to the answers of the typed routes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from limbeck.infinigram.errors import BadQuery
from limbeck.infinigram.results import Document, NextTokens, Probabilities, Probability
from limbeck.infinigram.service import models
from limbeck.infinigram.service.limits import Limits
from limbeck.infinigram.service.served import Served

_MOST_ENTRIES = 1_000_000  # entries in the answer to a batch
_LAST_OFFSET = 100_000  # pages beyond this are refused: the cost of a page grows with its offset


def index(served: Served) -> models.IndexAnswer:
    """Description of an index."""
    found = served.index
    return models.IndexAnswer(
        name=served.name,
        tokens=found.tokens,
        documents=found.document_count,
        shards=len(found.layout.shards),
        dtype=found.dtype,
        version=found.version,
        tokenizer=found.tokenizer is not None,
        word_start=served.pieces.word_start,
    )


def prob(found: Probability) -> models.ProbAnswer:
    """A probability."""
    return models.ProbAnswer(
        prompt_count=found.prompt_count,
        continuation_count=found.continuation_count,
        probability=found.probability if found.prompt_count else None,
        suffix_tokens=found.suffix_tokens,
    )


def next_page(served: Served, found: NextTokens, query: models.NextQuery) -> models.NextAnswer:
    """The tokens of one page, the most frequent first; equally frequent ones by id."""
    begin = offset_of(query.cursor)
    order = np.argsort(-found.counts, kind="stable")[begin : begin + query.limit]
    ids, counts = found.ids[order].tolist(), found.counts[order].tolist()
    total = max(1, found.prompt_count)
    tokens = [
        models.NextToken(id=token, text=served.pieces.text(token), count=count, probability=count / total)
        for token, count in zip(ids, counts, strict=True)
    ]
    more = begin + query.limit < len(found.ids)
    return models.NextAnswer(
        prompt_count=found.prompt_count,
        suffix_tokens=found.suffix_tokens,
        distinct=len(found.ids),
        tokens=tokens,
        next_cursor=str(begin + query.limit) if more else None,
    )


def offset_of(cursor: str | None) -> int:
    """Offset of a page; raises BadQuery if the cursor is invalid."""
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 9):
        raise BadQuery(f"the cursor {cursor[:40]!r} is invalid; send next_cursor of the previous answer")
    if int(cursor) > _LAST_OFFSET:
        raise BadQuery(f"pages end at {_LAST_OFFSET:,}; use another seed for other occurrences")
    return int(cursor)


def clauses_of(served: Served, query: models.ClauseQuery, limits: Limits) -> list[list[list[int]]]:
    """The clauses of a query as ids; a text or ids are one clause of one term."""
    if query.clauses is None:
        return [[served.ids(query.text, query.ids, limits.query_tokens)]]
    most = limits.query_tokens
    clauses = [[served.encode(term, most) if isinstance(term, str) else term for term in clause] for clause in query.clauses]
    if sum(len(term) for clause in clauses for term in clause) > most:
        raise BadQuery(f"the clauses have more than {most:,} tokens in total; shorten them")
    return clauses


def count_clauses(served: Served, query: models.ClauseQuery, limits: Limits) -> models.CountAnswer:
    """Number of disjoint matches of all clauses close together."""
    clauses = clauses_of(served, query, limits)
    options = {"max_distance_tokens": query.max_distance_tokens, "max_anchors": query.max_anchors}
    count, approximate = served.index.count_cnf(clauses, **options)
    return models.CountAnswer(count=count, approximate=approximate)


def search(served: Served, query: models.SearchQuery, limits: Limits) -> models.SearchAnswer:
    """One page of documents."""
    clauses = clauses_of(served, query, limits)
    check_shown(query.limit * query.max_tokens, limits)
    begin = offset_of(query.cursor)
    options: dict[str, Any] = {"limit": query.limit, "skip": begin, "seed": query.seed, "max_tokens": query.max_tokens}
    options["distinct_documents"] = query.distinct_documents
    if query.clauses is None:
        found = served.index.search(clauses[0][0], **options)
    else:
        options |= {"max_distance_tokens": query.max_distance_tokens, "max_anchors": query.max_anchors}
        found = served.index.search_cnf(clauses, **options)
    full = len(found.documents) == query.limit and begin + query.limit < found.count
    return models.SearchAnswer(
        count=found.count,
        approximate=found.approximate,
        documents=[document(served, one, clauses) for one in found.documents],
        next_cursor=str(begin + query.limit) if full else None,
    )


def check_shown(tokens: int, limits: Limits) -> None:
    """Raise BadQuery if the documents of an answer could be too large in total."""
    if tokens > limits.shown_tokens:
        raise BadQuery(f"the documents could have {tokens:,} tokens; the maximum per answer is {limits.shown_tokens:,}")


def document(served: Served, found: Document, clauses: Sequence[Sequence[Sequence[int]]] = ()) -> models.DocumentAnswer:
    """A window of a document."""
    ids = found.ids.tolist()
    return models.DocumentAnswer(
        number=found.number,
        shard=found.shard,
        tokens=found.tokens,
        begin=found.begin,
        needle=found.needle,
        ids=ids,
        spans=served.spans(ids, clauses),
        metadata=found.metadata,
    )


def documents(served: Served, query: models.DocumentsQuery, limits: Limits) -> models.DocumentsAnswer:
    """Documents by number, then those around positions."""
    check_shown((len(query.numbers) + len(query.places)) * query.max_tokens, limits)
    found = served.index.documents(query.numbers, max_tokens=query.max_tokens)
    for place in query.places:
        if place.rank is not None:
            found.append(served.index.document_by_rank(place.shard, place.rank, max_tokens=query.max_tokens))
        else:
            assert place.pointer is not None
            found.append(served.index.document_at(place.shard, place.pointer, max_tokens=query.max_tokens))
    return models.DocumentsAnswer(documents=[document(served, one) for one in found])


def score(served: Served, ids: list[int]) -> models.ScoreAnswer:
    """The ∞-gram model's scores for every token of a text."""
    found = served.index.score(ids)
    return models.ScoreAnswer(
        ids=ids,
        tokens=served.pieces.texts(ids),
        suffix_tokens=found.suffix_tokens.tolist(),
        prompt_counts=found.prompt_counts.tolist(),
        continuation_counts=found.continuation_counts.tolist(),
        probabilities=_without_nan(found.probabilities),
    )


def trace(served: Served, query: models.TraceQuery, limits: Limits) -> models.TraceAnswer:
    """A text's spans that occur, with their documents."""
    ids = served.ids(query.text, query.ids, limits.text_tokens)
    kept = 1.0 if query.spans_per_token is None else query.spans_per_token
    check_shown(int(kept * len(ids)) * query.max_documents * query.context_tokens, limits)
    spans = served.index.trace(
        ids,
        min_tokens=query.min_tokens,
        max_count=query.max_count,
        spans_per_token=query.spans_per_token,
        max_documents=query.max_documents,
        context_tokens=query.context_tokens,
        whole_words=query.whole_words,
    )
    tokens = served.pieces.texts(ids)
    return models.TraceAnswer(
        ids=ids,
        tokens=tokens,
        spans=[
            models.SpanAnswer(
                begin=span.begin,
                end=span.end,
                text="".join(tokens[span.begin : span.end]),
                count=span.count,
                unigram_log_probability=span.unigram_log_probability,
                documents=[
                    models.TracedDocumentAnswer(
                        relevance=one.relevance, document=document(served, one.document, [[ids[span.begin : span.end]]])
                    )
                    for one in span.documents
                ],
            )
            for span in spans
        ],
    )


def flat(served: Served, query: models.BatchQuery, most: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch as flat ids and int64 offsets; raises BadQuery if it is too large or the offsets are invalid."""
    if query.ids is not None:
        ids, offsets = np.array(query.ids, np.int64), np.array(query.offsets, np.int64)
        if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != len(ids) or (np.diff(offsets) < 0).any():
            raise BadQuery(f"offsets must ascend from 0 to {len(ids)}, the number of ids, with one more entry than queries")
    else:
        rows = query.queries if query.queries is not None else [served.encode(text, most) for text in query.texts or ()]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        ids = np.fromiter((token for row in rows for token in row), np.int64, int(offsets[-1]))
    if len(ids) > most or len(offsets) > most + 1:
        raise BadQuery(f"queries in the batch: {len(offsets) - 1:,}, tokens: {len(ids):,}; the maximum of each is {most:,}")
    return ids, offsets


def count_batch(served: Served, query: models.BatchQuery, most: int) -> models.BatchCountAnswer:
    """Count of each query."""
    return models.BatchCountAnswer(counts=served.index.count_batch(*flat(served, query, most)).tolist())


def prob_batch(
    served: Served, ask: Callable[[Any, Any, Any], Probabilities], query: models.BatchProbQuery, most: int
) -> models.BatchProbAnswer:
    """The probability of each token after its prompt."""
    ids, offsets = flat(served, query, most)
    if query.tokens is not None:
        tokens = np.array(query.tokens, np.int64)
    else:
        if (np.diff(offsets) < 1).any():
            raise BadQuery("a query is empty; each needs at least the token to score")
        last = offsets[1:] - 1
        tokens = ids[last]
        ids, offsets = np.delete(ids, last), offsets - np.arange(len(offsets))
    found = ask(ids, offsets, tokens)
    return models.BatchProbAnswer(
        prompt_counts=found.prompt_counts.tolist(),
        continuation_counts=found.continuation_counts.tolist(),
        probabilities=_without_nan(found.probabilities),
        suffix_tokens=found.suffix_tokens.tolist(),
    )


def next_batch(served: Served, query: models.BatchQuery, most: int, *, infgram: bool) -> models.BatchNextAnswer:
    """The tokens that follow each prompt, or its longest suffix that occurs."""
    ids, offsets = flat(served, query, most)
    index = served.index
    occurrences = index.longest_suffix_batch(ids, offsets)[1] if infgram else index.count_batch(ids, offsets)
    if int(np.minimum(occurrences, served.vocabulary).sum()) > _MOST_ENTRIES:
        raise BadQuery(f"more than {_MOST_ENTRIES:,} tokens may follow these prompts; send smaller batches, or rarer prompts")
    found = (index.infgram_next_tokens_batch if infgram else index.next_tokens_batch)(ids, offsets)
    return models.BatchNextAnswer(
        prompt_counts=found.prompt_counts.tolist(),
        suffix_tokens=found.suffix_tokens.tolist(),
        offsets=found.offsets.tolist(),
        ids=found.ids.tolist(),
        counts=found.counts.tolist(),
    )


def score_batch(served: Served, query: models.BatchQuery, most: int) -> models.BatchScoreAnswer:
    """The ∞-gram model's scores for every token of a batch of texts."""
    ids, offsets = flat(served, query, most)
    found = served.index.score_batch(ids, offsets)
    return models.BatchScoreAnswer(
        offsets=offsets.tolist(),
        suffix_tokens=found.suffix_tokens.tolist(),
        prompt_counts=found.prompt_counts.tolist(),
        continuation_counts=found.continuation_counts.tolist(),
        probabilities=_without_nan(found.probabilities),
    )


def _without_nan(probabilities: np.ndarray) -> list[float | None]:
    return [None if value != value else value for value in probabilities.tolist()]
