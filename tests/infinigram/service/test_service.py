"""The n-gram service on loopback: every typed route against the engine."""

import numpy as np
import pytest

from helpers import ngram_served as tools
from helpers.ngram_served import ask


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    with tools.serving(tmp_path_factory.mktemp("served")) as served:
        yield served


def test_indexes_say_what_they_are(here):
    found = {one["name"]: one for one in here.client.get("/v1/indexes").json()}
    assert found["words"] == here.client.get("/v1/words").json()
    assert found["words"]["tokens"] == here.index.tokens and found["words"]["documents"] == len(tools.texts())
    assert (found["words"]["shards"], found["words"]["dtype"], found["words"]["word_start"]) == (2, "u16", " ")
    assert (found["bytes"]["dtype"], found["bytes"]["word_start"]) == ("u8", "")


@pytest.mark.parametrize("text", ["", " the", " the still boils", " nothing of the kind", " 蒸留器", " größe the"])
def test_count_is_the_engines_and_of_bytes_the_texts(here, text):
    assert ask(here, "count", {"text": text}) == {"count": here.index.count(text), "approximate": False}
    assert ask(here, "count", {"ids": here.index.tokenizer.encode(text)})["count"] == here.index.count(text)
    if text:
        occurrences = sum(whole.startswith(text, at) for whole in tools.texts() for at in range(len(whole)))
        assert ask(here, "count", {"text": text}, "bytes")["count"] == occurrences


def test_probabilities(here):
    for route, method in (("prob", here.index.prob), ("infgram_prob", here.index.infgram_prob)):
        for text in (" the still boils", " qqq the still boils", " qqq the"):
            ids = here.index.tokenizer.encode(text)
            found = method(ids[:-1], ids[-1])
            expected = {"prompt_count": found.prompt_count, "continuation_count": found.continuation_count}
            expected |= {"probability": found.probability if found.prompt_count else None, "suffix_tokens": found.suffix_tokens}
            assert ask(here, route, {"text": text}) == ask(here, route, {"ids": ids[:-1], "token": ids[-1]}) == expected
    assert here.client.post("/v1/words/prob", json={"ids": []}).status_code == 422


@pytest.mark.parametrize(("route", "text"), [("next", " the"), ("next", ""), ("infgram_next", " qqq the"), ("next", " qqq zzz")])
def test_pages_of_next_tokens_make_up_all(here, route, text):
    pages, cursor = [], None
    while True:
        page = ask(here, route, {"text": text, "limit": 7, **({"cursor": cursor} if cursor else {})})
        pages += page["tokens"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    method = here.index.next_tokens if route == "next" else here.index.infgram_next_tokens
    found = method(text)
    assert page["distinct"] == len(pages) == len(found.ids) and page["prompt_count"] == found.prompt_count
    assert {one["id"]: one["count"] for one in pages} == dict(zip(found.ids.tolist(), found.counts.tolist(), strict=True))
    assert [one["count"] for one in pages] == sorted(found.counts.tolist(), reverse=True)
    for one in pages:
        assert one["probability"] == pytest.approx(one["count"] / found.prompt_count)


def test_pages_of_a_search_show_every_occurrence_once(here):
    places, cursor, body = [], None, {"text": " the still", "limit": 3, "seed": 5, "max_tokens": 12}
    while True:
        page = ask(here, "search", {**body, **({"cursor": cursor} if cursor else {})})
        places += [(one["number"], one["begin"] + one["needle"]) for one in page["documents"]]
        for one in page["documents"]:
            assert "".join(text for text, _ in one["spans"]) == here.index.tokenizer.decode(one["ids"])
            assert [" the still", 0] in one["spans"]
            assert one["metadata"]["metadata"] == {"number": one["metadata"]["linenum"]}
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(places) == len(set(places)) == page["count"] == here.index.count(" the still") > 6
    numbers = [one["number"] for one in ask(here, "search", {**body, "limit": 50, "distinct_documents": True})["documents"]]
    assert sorted(numbers) == sorted({number for number, _ in places})


def test_clauses(here):
    clauses = [[" boils"], [" lamp", " vapour"]]
    found = ask(here, "search", {"clauses": clauses, "limit": 20, "max_tokens": 300})
    count, approximate = here.index.count_cnf(clauses, max_anchors=50_000)
    assert found["count"] == count == ask(here, "count", {"clauses": clauses})["count"] > 0
    assert found["approximate"] is approximate is False
    for one in found["documents"]:
        assert {label for _, label in one["spans"]} >= {0, 1}


def test_documents_by_number_and_place(here):
    found = ask(here, "documents", {"numbers": [0, 3], "places": [{"shard": 1, "rank": 5}], "max_tokens": 50})["documents"]
    assert [one["number"] for one in found[:2]] == [0, 3]
    expected = [here.index.document(0, max_tokens=50), here.index.document_by_rank(1, 5, max_tokens=50)]
    assert [found[0]["ids"], found[2]["ids"]] == [one.ids.tolist() for one in expected]
    pointed = ask(here, "documents", {"places": [{"shard": 0, "pointer": 2}]})["documents"][0]
    assert pointed["ids"] == here.index.document_at(0, 2).ids.tolist()


def test_scores_and_traces(here):
    text = " the still boils slowly while the vapour qqq A quicksilver lamp 蒸留器"
    found, expected = ask(here, "score", {"text": text}), here.index.score(text)
    assert found["suffix_tokens"] == expected.suffix_tokens.tolist() and "".join(found["tokens"]) == text
    assert np.allclose(np.array(found["probabilities"], float), expected.probabilities, equal_nan=True)
    traced = ask(here, "trace", {"text": text, "spans_per_token": None, "max_count": 3})
    spans = here.index.trace(text, spans_per_token=None, max_count=3)
    assert [(one["begin"], one["end"], one["count"]) for one in traced["spans"]] == [(s.begin, s.end, s.count) for s in spans]
    lamp = next(one for one in traced["spans"] if "quicksilver" in one["text"])
    assert any("quicksilver" in part and label == 0 for part, label in lamp["documents"][0]["document"]["spans"])


def test_batches_are_the_single_answers(here):
    queries = [here.index.tokenizer.encode(text) for text in (" the", " the still boils", " qqq the", " and")]
    flat, offsets = [token for query in queries for token in query], [0, *np.cumsum([len(query) for query in queries]).tolist()]
    assert ask(here, "batch/count", {"queries": queries})["counts"] == [here.index.count(query) for query in queries]
    assert ask(here, "batch/count", {"ids": flat, "offsets": offsets}) == ask(here, "batch/count", {"queries": queries})
    assert ask(here, "batch/count", {"texts": [" the", " and"]})["counts"] == [
        here.index.count(" the"),
        here.index.count(" and"),
    ]
    for route in ("prob", "infgram_prob"):
        found = ask(here, f"batch/{route}", {"queries": queries})
        single = [ask(here, route, {"ids": query}) for query in queries]
        assert found["probabilities"] == pytest.approx([one["probability"] for one in single])
        assert found["suffix_tokens"] == [one["suffix_tokens"] for one in single]
        explicit = {"queries": [query[:-1] for query in queries], "tokens": [query[-1] for query in queries]}
        assert ask(here, f"batch/{route}", explicit) == found
    for route in ("next", "infgram_next"):
        found = ask(here, f"batch/{route}", {"queries": queries})
        for at, query in enumerate(queries):
            begin, end = found["offsets"][at : at + 2]
            single = {one["id"]: one["count"] for one in ask(here, route, {"ids": query, "limit": 1000})["tokens"]}
            assert dict(zip(found["ids"][begin:end], found["counts"][begin:end], strict=True)) == single
    found = ask(here, "batch/score", {"queries": queries})
    assert found["offsets"] == offsets
    assert found["suffix_tokens"] == [one for query in queries for one in ask(here, "score", {"ids": query})["suffix_tokens"]]
