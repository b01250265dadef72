"""Every query against a naive scan: token widths, versions, shards, documents taken down, ids at the borders."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers import ngram_oracle as naive
from limbeck.infinigram.errors import BadQuery
from limbeck.infinigram.index import Index

EOS = 7
SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@st.composite
def corpora(draw):
    dtype = draw(st.sampled_from(["u8", "u16", "u32"]))
    largest = naive.separator(dtype) - 1
    borders = (
        [0, 1, 2, 254, EOS, largest] + ([255, 256, 65534] if dtype != "u8" else []) + ([65535, 65536] if dtype == "u32" else [])
    )
    alphabet = draw(st.lists(st.sampled_from(borders), min_size=1, max_size=5, unique=True))
    documents = draw(st.lists(st.lists(st.sampled_from(alphabet), max_size=30), min_size=1, max_size=14))
    if draw(st.booleans()):
        documents = [document * 4 for document in documents]
    shards = draw(st.integers(1, min(12, len(documents))))
    dealt = naive.deal(documents, shards)
    every = [(shard, number) for shard, part in enumerate(dealt) for number in range(len(part))]
    removed = set(draw(st.lists(st.sampled_from(every), max_size=4))) if draw(st.booleans()) else set()
    version = draw(st.sampled_from([4, 5]))
    return dtype, version, documents, shards, removed, alphabet


def open_both(folder, corpus, keys=False, **options):
    dtype, version, documents, shards, removed, _ = corpus
    naive.write_index(folder, documents, dtype, version, shards)
    if keys:
        for shard in range(shards):
            naive.write_keys(folder, f".{shard}", dtype)
    kept = [list(part) for part in naive.deal(documents, shards)]
    if removed:
        naive.write_removed(folder, documents, shards, removed, dtype, version)
        for shard, number in removed:
            kept[shard][number] = None
    return Index.open(folder, dtype=dtype, version=version, eos=EOS, **options), naive.Oracle(dtype, version, kept)


def queries_of(data, corpus, most=6):
    dtype, _, documents, _, _, alphabet = corpus
    ids = st.sampled_from([*alphabet, naive.separator(dtype), 3])
    free = st.lists(ids, max_size=7)
    flat = [token for document in documents for token in [naive.separator(dtype), *document]]
    inside = st.tuples(st.integers(0, len(flat)), st.integers(0, 40)).map(lambda cut: flat[cut[0] : cut[0] + cut[1]])
    return data.draw(st.lists(st.one_of(free, inside), min_size=1, max_size=most))


def flatten(queries):
    return [token for query in queries for token in query], np.cumsum([0, *map(len, queries)])


@SETTINGS
@given(corpora(), st.data())
def test_counts_probabilities_and_next_tokens(corpus, data):
    queries = queries_of(data, corpus)
    tokens = [data.draw(st.sampled_from(corpus[5])) for _ in queries]
    with tempfile.TemporaryDirectory() as folder:
        index, oracle = open_both(
            Path(folder), corpus, keys=data.draw(st.booleans()), load=data.draw(st.sampled_from(["mmap", "ram"]))
        )
        counts = [oracle.count(query) for query in queries]
        assert [index.count(query) for query in queries] == counts
        ids, offsets = flatten(queries)
        assert index.count_batch(ids, offsets).tolist() == counts
        found, ranges = index.find_batch(ids, offsets)
        assert found.tolist() == counts == [index.find(query).count for query in queries]
        assert [[tuple(pair) for pair in row] for row in ranges.tolist()] == [list(index.find(query).ranges) for query in queries]
        batch = index.prob_batch(ids, offsets, tokens)
        deep = index.infgram_prob_batch(ids, offsets, tokens)
        rows = index.next_tokens_batch(ids, offsets)
        for q, (query, token) in enumerate(zip(queries, tokens, strict=True)):
            prob = index.prob(query, token)
            assert (prob.prompt_count, prob.continuation_count) == (counts[q], oracle.count([*query, token]))
            assert (batch.prompt_counts[q], batch.continuation_counts[q]) == (prob.prompt_count, prob.continuation_count)
            assert prob.probability == batch.probabilities[q] or counts[q] == 0
            size = oracle.longest_suffix(query)
            suffix = query[len(query) - size :]
            assert index.longest_suffix(query) == (size, oracle.count(suffix))
            deeper = index.infgram_prob(query, token)
            expected = (size, oracle.count(suffix), oracle.count([*suffix, token]))
            assert (deeper.suffix_tokens, deeper.prompt_count, deeper.continuation_count) == expected
            assert (deep.suffix_tokens[q], deep.prompt_counts[q], deep.continuation_counts[q]) == expected
            follow = index.next_tokens(query)
            assert dict(zip(follow.ids.tolist(), follow.counts.tolist(), strict=True)) == oracle.next_tokens(query, EOS)
            assert follow.ids.tolist() == sorted(follow.ids.tolist())
            assert follow.prompt_count == counts[q]
            row = slice(rows.offsets[q], rows.offsets[q + 1])
            assert (rows.ids[row].tolist(), rows.counts[row].tolist()) == (follow.ids.tolist(), follow.counts.tolist())
            backed_off = index.infgram_next_tokens(query)
            assert backed_off.suffix_tokens == size
            assert dict(zip(backed_off.ids.tolist(), backed_off.counts.tolist(), strict=True)) == oracle.next_tokens(suffix, EOS)


@SETTINGS
@given(corpora(), st.data())
def test_scores_and_creativity(corpus, data):
    texts = queries_of(data, corpus, most=3)
    with tempfile.TemporaryDirectory() as folder:
        index, oracle = open_both(Path(folder), corpus)
        ids, offsets = flatten(texts)
        batch, ends = index.score_batch(ids, offsets), index.creativity_batch(ids, offsets)
        for t, text in enumerate(texts):
            scores = index.score(text)
            rows = list(zip(scores.suffix_tokens, scores.prompt_counts, scores.continuation_counts, strict=True))
            assert rows == oracle.score(text)
            assert index.creativity(text).tolist() == oracle.creativity(text)
            part = slice(offsets[t], offsets[t + 1])
            assert batch.suffix_tokens[part].tolist() == scores.suffix_tokens.tolist()
            assert batch.continuation_counts[part].tolist() == scores.continuation_counts.tolist()
            assert ends[part].tolist() == index.creativity(text).tolist()


@SETTINGS
@given(corpora(), st.data())
def test_search_returns_the_occurrences(corpus, data):
    dtype, version, documents, shards, removed, alphabet = corpus
    query = data.draw(st.lists(st.sampled_from(alphabet), min_size=1, max_size=3))
    with tempfile.TemporaryDirectory() as folder:
        index, oracle = open_both(Path(folder), corpus)
        hits = oracle.hits(query)
        matches = index.search(query, limit=10_000, seed=3, max_tokens=9)
        assert matches.count == len(hits) == len(matches.documents)
        starts = set()
        for document in matches.documents:
            assert document.ids[document.needle : document.needle + min(len(query), 5)].tolist() == query[:5]
            assert document.metadata is not None
            starts.add((document.number, document.begin + document.needle))
        assert len(starts) == len(hits)
        pages = [index.search(query, limit=2, skip=skip, seed=3, max_tokens=9).documents for skip in range(0, len(hits), 2)]
        assert [d.number for page in pages for d in page] == [d.number for d in matches.documents]
        assert len(index.search(query, limit=30, replacement=True).documents) == (30 if hits else 0)
        distinct = index.search(query, limit=10_000, distinct_documents=True).documents
        assert sorted({d.number for d in matches.documents}) == sorted(d.number for d in distinct)
        numbers = [sum(len(part) for part in naive.deal(documents, shards)[:shard]) + number for shard, number in removed]
        everything = [document for part in naive.deal(documents, shards) for document in part]
        for number, document in enumerate(everything):
            if number in numbers:
                with pytest.raises(BadQuery, match="was removed"):
                    index.document(number)
            else:
                assert index.document(number).ids.tolist() == document
                assert index.document(number, max_tokens=2).ids.tolist() == document[:2]
        assert index.document_count == len(documents) - len(removed)


@SETTINGS
@given(corpora(), st.data())
def test_a_batch_draws_and_traces_what_each_query_does(corpus, data):
    queries = queries_of(data, corpus, most=5)
    limit, skip, seed = data.draw(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 3)))
    options = {"limit": limit, "skip": skip, "seed": seed, **data.draw(st.sampled_from([{}, {"distinct_documents": True}]))}
    with tempfile.TemporaryDirectory() as folder:
        index, _ = open_both(Path(folder), corpus)
        batch = index.search_batch(*flatten(queries), **options)
        assert batch.counts.tolist() == [index.count(query) for query in queries]
        assert batch.offsets.tolist()[0] == 0 and batch.offsets.tolist()[-1] == len(batch.hits)
        for q, query in enumerate(queries):
            rows = batch.hits[batch.offsets[q] : batch.offsets[q + 1]].tolist()
            needle = max(1, len(query))
            found = [index.document_at(shard, pointer, needle_tokens=needle) for shard, pointer, _, _ in rows]
            single = index.search(query, **options).documents
            assert [(one.number, one.begin + one.needle) for one in found] == [
                (one.number, one.begin + one.needle) for one in single
            ]
        for query, spans in zip(queries, index.trace_batch(queries, whole_words=False), strict=True):
            alone = index.trace(query, whole_words=False)
            assert [(s.begin, s.end, s.count) for s in spans] == [(s.begin, s.end, s.count) for s in alone]


@SETTINGS
@given(corpora(), st.data())
def test_cnf(corpus, data):
    term = st.lists(st.sampled_from(corpus[5]), min_size=1, max_size=2)
    clauses = data.draw(st.lists(st.lists(term, min_size=1, max_size=3), min_size=1, max_size=3))
    distance = data.draw(st.sampled_from([0, 1, 3, 100]))
    with tempfile.TemporaryDirectory() as folder:
        index, oracle = open_both(Path(folder), corpus)
        expected = oracle.cnf(clauses, distance)
        assert index.count_cnf(clauses, max_distance_tokens=distance) == (expected, False)
        found = index.search_cnf(clauses, limit=10_000, max_distance_tokens=distance)
        assert len(found.documents) == expected
        estimate, approximate = index.count_cnf(clauses, max_distance_tokens=distance, max_anchors=1)
        assert estimate == expected or approximate


@SETTINGS
@given(corpora(), st.data())
def test_spans_are_maximal(corpus, data):
    text = [token for query in queries_of(data, corpus, most=3) for token in query]
    most = data.draw(st.integers(1, 6))
    with tempfile.TemporaryDirectory() as folder:
        index, oracle = open_both(Path(folder), corpus)
        spans = index.trace(text, max_count=most, spans_per_token=None)
        expected, reached = [], 0
        for begin, end in enumerate(oracle.creativity(text)):
            if end > max(reached, begin):
                reached = end
                if oracle.count(text[begin:end]) <= most:
                    expected.append((begin, end, oracle.count(text[begin:end])))
        assert [(span.begin, span.end, span.count) for span in spans] == expected
        assert all(len(span.documents) == min(span.count, 10) for span in spans)


def test_the_laws_hold_over_a_longer_corpus(tmp_path):
    generator = np.random.default_rng(5)
    documents = [generator.zipf(1.5, size=generator.integers(0, 900)).clip(max=3000).tolist() for _ in range(60)]
    documents += [documents[3] + documents[4], documents[5] * 3]
    opened = [
        Index.open(
            naive.write_index(tmp_path / f"{version}-{shards}", documents, "u16", version, shards), version=version, eos=EOS
        )
        for version, shards in ((4, 1), (5, 1), (4, 12))
    ]
    text = documents[3][50:400] + documents[7][:300] + generator.integers(0, 3000, 200).tolist() + documents[5][-200:]
    prompts = [text[at : at + size] for size in (1, 2, 3, 5) for at in range(0, 600, 7)]
    forward = opened[0]
    scores = forward.score(text)
    for index in opened:
        assert np.array_equal(index.score(text).continuation_counts, scores.continuation_counts)
        assert np.array_equal(index.creativity(text), forward.creativity(text))
        rows = index.next_tokens_batch(*flatten(prompts))
        for q, prompt in enumerate(prompts):
            row = slice(rows.offsets[q], rows.offsets[q + 1])
            assert rows.counts[row].sum() == rows.prompt_counts[q] == forward.count(prompt)
            assert rows.ids[row].tolist() == forward.next_tokens(prompt).ids.tolist()
            assert rows.counts[row].tolist() == forward.next_tokens(prompt).counts.tolist()
    for at in range(0, len(text), 13):
        one = forward.infgram_prob(text[:at], text[at])
        assert (one.suffix_tokens, one.prompt_count, one.continuation_count) == (
            scores.suffix_tokens[at],
            scores.prompt_counts[at],
            scores.continuation_counts[at],
        )
