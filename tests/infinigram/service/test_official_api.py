"""The official web API at POST /: its answers against the official-compatible engine."""

import json

import pytest

from helpers import ngram_served as tools
from helpers.ngram_served import official


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    with tools.serving(tmp_path_factory.mktemp("served")) as served:
        yield served


def test_official_answers_are_the_compatible_engines(here):
    ids = here.index.tokenizer.encode(" the still boils")
    names = [here.index.tokenizer.backend.id_to_token(token) for token in ids]
    asked = [
        ("count", {}, here.official.count(ids)),
        ("prob", {}, here.official.prob(ids[:-1], ids[-1])),
        ("infgram_prob", {}, here.official.infgram_prob(ids[:-1], ids[-1])),
        ("ntd", {"max_support": 2}, here.official.ntd(ids, 2)),
        ("infgram_ntd", {}, here.official.infgram_ntd(ids)),
        ("find", {}, here.official.find(ids)),
        ("get_doc_by_rank", {"s": 1, "rank": 4, "max_disp_len": 10}, here.official.get_doc_by_rank(1, 4, 10)),
    ]
    for query_type, fields, expected in asked:
        found = official(here, query_type, query="the still boils", **fields)
        assert found["tokens"] == names and found["latency"] >= 0
        assert found["token_ids"] == expected.get("token_ids", ids)
        for token, entry in found.get("result_by_token_id", {}).items():
            assert entry.pop("token") == here.index.tokenizer.backend.id_to_token(int(token)).replace("Ġ", " ")
        assert found == {**found, **json.loads(json.dumps(expected))}, query_type
        by_ids = official(here, query_type, query_ids=ids, **fields)
        assert {**by_ids, "latency": 0} == {**official(here, query_type, query="the still boils", **fields), "latency": 0}
    assert official(here, "infgram_prob", query="qqq the still")["longest_suffix"] == " the"
    assert official(here, "infgram_ntd", query="qqq the still")["longest_suffix"] == " the still"


def test_official_clauses_and_documents(here):
    boils, lamp, vapour = (here.index.tokenizer.encode(text) for text in (" boils", " lamp", " vapour"))
    cnf = [[boils], [lamp, vapour]]
    query = "boils AND lamp OR vapour"
    assert official(here, "count", query=query)["count"] == here.official.count_cnf(cnf)["count"]
    found = official(here, "find_cnf", query=query)
    assert found["ptrs_by_shard"] == here.official.find_cnf(cnf)["ptrs_by_shard"] and found["token_ids"] == cnf
    shard = next(s for s, pointers in enumerate(found["ptrs_by_shard"]) if pointers)
    pointer = found["ptrs_by_shard"][shard][0]
    document = official(here, "get_doc_by_ptr", query=query, s=shard, ptr=pointer)
    assert document["doc_ix"] == here.official.get_doc_by_ptr(shard, pointer)["doc_ix"]
    assert {label for _, label in document["spans"]} >= {"0", "1"}
    for fields in ({"query": "the still"}, {"query": query}):
        shown = official(here, "search_docs", **fields, maxnum=3, max_disp_len=400)
        assert len(shown["documents"]) == len(shown["idxs"]) == 3 and f"{shown['cnt']} occurrences found" in shown["message"]
        assert all("0" in {label for _, label in one["spans"]} for one in shown["documents"])
    nothing = official(here, "search_docs", query="qqq zzz")
    assert (nothing["cnt"], nothing["documents"], nothing["message"]) == (0, [], "0 occurrences found")


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"query_type": "count"}, 400, "query_ids must be present"),
        ({"query_type": "count", "query": "x", "query_ids": [1]}, 400, "query_ids must be present"),
        ({"query": "x"}, 400, "query_type"),
        ({"query_type": "creativity", "query": "x"}, 400, "Invalid query_type"),
        ({"query_type": ["count"], "query": "x"}, 400, "Invalid query_type"),
        ({"query_type": "count", "query": "x", "index": "nope"}, 400, "Invalid index"),
        ({"query_type": "count", "query": "x", "index": {"a": 1}}, 400, "Invalid index"),
        ({"query_type": "count", "query": "x", "maxnum": 3}, 400, "no option"),
        ({"query_type": "get_doc_by_rank", "query": "x"}, 400, "s"),
        ({"query_type": "count", "query": 7}, 200, "string"),
        ({"query_type": "count", "query": "x" * 1001}, 200, "1000 characters"),
        ({"query_type": "count", "query_ids": [1] * 501}, 200, "500 tokens"),
        ({"query_type": "count", "query_ids": [-1]}, 200, "out-of-range"),
        ({"query_type": "count", "query_ids": [2**70]}, 200, "out-of-range"),
        ({"query_type": "count", "query_ids": [True]}, 200, "list of integers"),
        ({"query_type": "count", "query_ids": "1"}, 200, "list of integers"),
        ({"query_type": "count", "query": " AND ".join("abcde")}, 200, "4 disjunctive clauses"),
        ({"query_type": "count", "query": " OR ".join("abcde")}, 200, "4 terms"),
        ({"query_type": "prob", "query": ""}, 200, "non-empty"),
        ({"query_type": "prob", "query": "a AND b"}, 200, "list of integers"),
        ({"query_type": "find_cnf", "query": "a"}, 200, "triply-nested"),
        ({"query_type": "ntd", "query": "the", "max_support": 1001}, 200, "[1, 1000]"),
        ({"query_type": "search_docs", "query": "the", "maxnum": 11}, 200, "[1, 10]"),
        ({"query_type": "search_docs", "query": "the", "max_disp_len": True}, 200, "[1, 10000]"),
        ({"query_type": "get_doc_by_rank", "query": "x", "s": 9, "rank": 0}, 200, ""),
        ({"query_type": "get_doc_by_rank", "query": "x", "s": 0, "rank": 10**12}, 200, ""),
        ({"query_type": "get_doc_by_ptr", "query_ids": [[[1]]], "s": 0, "ptr": 1}, 200, ""),
    ],
)
def test_official_faults_come_under_error(here, fields, status, words):
    answer = here.client.post("/", json={"index": "words", **fields})
    assert answer.status_code == status, answer.text
    assert words in answer.json()["error"]


def test_official_extras(here):
    fields = {"query_type": "count", "query": "the", "source": "x", "timestamp": "y", "engine": "z"}
    assert here.client.post("/", json={"corpus": "words", **fields}).json()["count"] == here.index.count(" the")
    assert here.client.get("/", headers={"Accept": "application/json"}).json() == ["words", "bytes"]
    assert official(here, "count", query="")["count"] == here.index.tokens
    assert official(here, "count", query_ids=[65535])["count"] == len(tools.texts())
    assert official(here, "prob", query="qqq zzz")["prob"] in (0.0, -1.0)


def test_a_field_that_is_null_is_not_given(here):
    ids = here.index.tokenizer.encode(" the")
    assert official(here, "ntd", query="the", query_ids=None, max_support=None)["prompt_cnt"] == here.index.count(" the")
    nothing = dict.fromkeys(("maxnum", "max_disp_len", "max_clause_freq", "max_diff_tokens"))
    assert len(official(here, "search_docs", query=None, query_ids=ids, **nothing)["documents"]) == 1
    assert (
        official(here, "search_docs", query="the AND boils", **nothing)["cnt"]
        == official(here, "count", query="the AND boils")["count"]
    )
    fields = {"query_type": "get_doc_by_rank", "query": "x", "s": 0, "rank": None}
    missing = here.client.post("/", json={"index": "words", **fields})
    assert missing.status_code == 400 and "rank" in missing.json()["error"]
    assert (
        here.client.post("/", json={"corpus": None, "index": "words", "query_type": "count", "query": "the"}).status_code == 200
    )
    assert here.client.post("/", json={"index": "words", "query_type": None, "query": "the"}).status_code == 400


def test_separators_in_clauses_are_counted(here):
    separator, the = 65535, here.index.tokenizer.encode(" the")[0]
    assert official(here, "count", query_ids=[[[separator]]])["count"] == len(tools.texts())
    assert official(here, "count", query_ids=[[[separator, the]]])["count"] == here.index.count([separator, the])
    assert here.client.post("/v1/words/count", json={"clauses": [[[separator]]]}).status_code == 422
