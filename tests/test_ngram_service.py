"""The n-gram service on loopback: every route against the engine, every limit, and clients that misbehave."""

import asyncio
import json
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest

from infinigram.compat import InfiniGramEngine
from infinigram.index import Index
from infinigram.limits import Limits
from infinigram.served import IndexSpec
from infinigram.service import ServiceConfig, make_app
from tests import ngram_served as tools

KEY = "correct horse"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folders = tools.build_indexes(tmp_path_factory.mktemp("served"))
    specs = tuple(IndexSpec(name=name, paths=(str(path),)) for name, path in folders.items())
    with tools.running(make_app(ServiceConfig(specs))) as url, httpx.Client(base_url=url, timeout=30) as client:
        index = Index.open(folders["words"])
        official = InfiniGramEngine.of(index, index.tokenizer.vocabulary, compat=True)
        yield SimpleNamespace(url=url, client=client, specs=specs, index=index, official=official, folders=folders)


def ask(here, route, body, index="words"):
    answer = here.client.post(f"/v1/{index}/{route}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def official(here, query_type, status=200, **fields):
    answer = here.client.post("/", json={"index": "words", "query_type": query_type, **fields})
    assert answer.status_code == status, answer.text
    return answer.json()


# --- typed routes ---


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
    assert ask(here, "batch/count", {"texts": [" the", " and"]})["counts"] == [here.index.count(" the"), here.index.count(" and")]
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


# --- the official API ---


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


# --- limits and misbehaviour ---


@pytest.mark.parametrize(
    ("route", "body", "words"),
    [
        ("count", {}, "one of text, ids and clauses"),
        ("count", {"text": "a", "ids": [1]}, "one of"),
        ("count", {"txt": "a"}, "txt"),
        ("count", {"ids": [-1]}, "ids.0"),
        ("count", {"ids": [2**32]}, "ids.0"),
        ("count", {"ids": [70_000]}, "70000"),
        ("count", {"ids": [1.5]}, "ids.0"),
        ("count", {"ids": ["1"]}, "ids.0"),
        ("count", {"ids": [1] * 501}, "501 tokens"),
        ("count", {"text": "x" * 9000}, "9,000 characters"),
        ("count", {"clauses": []}, "clauses"),
        ("count", {"clauses": [[""]]}, "clauses"),
        ("count", {"clauses": [[[1] * 400], [[1] * 400]]}, "500 tokens"),
        ("next", {"text": "a", "limit": 0}, "limit"),
        ("next", {"text": "a", "cursor": "-1"}, "cursor"),
        ("search", {"text": "a", "cursor": "999999999"}, "pages end"),
        ("search", {"text": "a", "limit": 101}, "limit"),
        ("search", {"text": "a", "limit": 100, "max_tokens": 10_001}, "max_tokens"),
        ("documents", {"numbers": [10**9]}, "does not exist"),
        ("documents", {"places": [{"shard": 7, "rank": 0}]}, "shard 7"),
        ("documents", {"places": [{"shard": 0}]}, "rank or pointer"),
        (
            "documents",
            {"numbers": [1] * 100, "places": [{"shard": 0, "rank": 1}] * 100, "max_tokens": 10_000},
            "2,000,000 tokens",
        ),
        ("trace", {"ids": [1] * 20_001}, "20,001 tokens"),
        ("score", {"text": "a" * 400_000}, "400,000 characters"),
        ("batch/count", {"ids": [1, 2], "offsets": [0, 3]}, "offsets must rise"),
        ("batch/count", {"ids": [1, 2]}, "go together"),
        ("batch/count", {"queries": [[1] * 200_001]}, "at most 200,000"),
        ("batch/prob", {"queries": [[]]}, "empty"),
        ("batch/prob", {"queries": [[1]], "tokens": [1, 2]}, "continuation"),
    ],
)
def test_what_cannot_be_answered_is_said_in_a_sentence(here, route, body, words):
    answer = here.client.post(f"/v1/words/{route}", json=body)
    assert answer.status_code == 422, answer.text
    assert list(answer.json()) == ["error"] and words in answer.json()["error"] and len(answer.text) < 800


@pytest.mark.parametrize("path", ["/", "/v1/words/count"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"ids": ' + b"9" * 5000 + b"}",
        b'{"text": "\\ud800"}',
        b'"' * 9,
        b"\0" * 99,
    ],
)
def test_garbage_is_refused(here, path, body):
    answer = here.client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422) and answer.json()["error"]


def test_half_a_character_is_refused(here):
    for body in (b'{"index": "words", "query_type": "count", "query": "\\ud800"}',):
        assert "surrogate" in here.client.post("/", content=body).json()["error"]


def test_addresses_that_are_not_there(here):
    assert here.client.post("/v1/nope/count", json={"text": "a"}).status_code == 404
    assert "words" in here.client.post("/v1/nope/count", json={"text": "a"}).json()["error"]
    for path in ("/nope", "/static/../service.py", "/static/nope.js", "/v1/nope", "/docs"):
        answer = here.client.get(path)
        assert answer.status_code == 404 and answer.json()["error"]
    assert here.client.get("/v1/words/count").status_code == 405


def test_a_large_body_costs_nothing(here):
    started = time.process_time()
    for path in ("/", "/v1/words/count"):
        answer = here.client.post(path, content=b"x" * 10_000_000)
        assert answer.status_code == 413 and "1,048,576 bytes" in answer.json()["error"]
        streamed = here.client.post(path, content=(b"y" * 100_000 for _ in range(100)))
        assert streamed.status_code == 413
    assert time.process_time() - started < 20
    assert ask(here, "count", {"text": " the"})["count"]


def test_clients_that_hang_up_leave_nothing(here):
    host, port = here.url.removeprefix("http://").split(":")
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
    for data in (b"", b"GET", head, head + b"{", b"\0garbage\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"):
        for _ in range(20):
            with socket.create_connection((host, int(port)), timeout=10) as client:
                client.sendall(data)
    until = time.monotonic() + 10
    while time.monotonic() < until and in_flight(here) > 1:  # the question itself is one
        time.sleep(0.05)
    assert in_flight(here) == 1


def in_flight(here):
    return float(next(line for line in metrics(here) if line.startswith("limbeck_ngram_in_flight ")).split()[1])


def metrics(here):
    return here.client.get("/metrics").text.splitlines()


def test_metrics_count_by_route_and_index_and_know_no_other_names(here):
    before = "\n".join(metrics(here))
    here.client.post("/v1/invented-name/count", json={"text": "a"})
    here.client.post("/", json={"index": "invented-name", "query_type": "count", "query": ""})
    ask(here, "count", {"text": " the"})
    official(here, "count", query="the")
    after = "\n".join(metrics(here))
    assert "invented-name" not in after
    for route in ("count", "official count"):
        labels = f'limbeck_ngram_requests_total{{index="words",route="{route}",status="200"}}'
        values = [[float(line.split()[-1]) for line in text.splitlines() if line.startswith(labels)] for text in (before, after)]
        assert values[1][0] == (values[0][0] if values[0] else 0) + 1
    assert 'limbeck_ngram_seconds_bucket{index="words"' in after and 'limbeck_ngram_rejected_total{status="404"}' in after


def test_the_schema_names_every_route(here):
    schema = here.client.get("/openapi.json").json()
    routes = "count prob next infgram_prob infgram_next search score trace documents".split()
    routes += [f"batch/{name}" for name in "count prob next infgram_prob infgram_next score".split()]
    assert {f"/v1/{{index}}/{route}" for route in routes} | {"/", "/v1/indexes", "/healthz", "/metrics"} <= set(schema["paths"])
    assert "search_docs" in json.dumps(schema["paths"]["/"]["post"])
    assert schema["components"]["schemas"]["CountAnswer"]["properties"]["count"]["type"] == "integer"


def test_keys(here):
    with tools.running(make_app(ServiceConfig(here.specs, keys=("another", KEY)))) as url, httpx.Client(base_url=url) as client:
        body = {"index": "words", "query_type": "count", "query": "the"}
        for headers in ({}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}):
            for answer in (client.post("/", json=body, headers=headers), client.get("/metrics", headers=headers)):
                assert (
                    answer.status_code == 401
                    and answer.headers["WWW-Authenticate"] == "Bearer"
                    and "key" in answer.json()["error"]
                )
            assert client.get("/v1/indexes", headers=headers).status_code == 401
        for key in (KEY, "another"):
            headers = {"Authorization": f"Bearer {key}"}
            assert client.post("/", json=body, headers=headers).json()["count"]
            assert client.get("/v1/indexes", headers=headers).status_code == 200
        assert (
            client.get("/healthz").status_code == client.get("/").status_code == client.get("/static/page.js").status_code == 200
        )


def test_too_much_at_once_is_refused_and_then_answered(here, monkeypatch):
    limits = Limits(threads=1, waiting=1, deadline_seconds=1.0, requests=8, body_seconds=2.0)
    go = threading.Event()
    app = make_app(ServiceConfig(here.specs, limits=limits))
    monkeypatch.setattr("infinigram.service_answers.score", lambda *_: go.wait(20))
    with tools.running(app) as url:

        async def scenario():
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                waiting = [asyncio.create_task(client.post("/v1/words/score", json={"ids": [1]})) for _ in range(2)]
                await asyncio.sleep(0.4)
                refused = await client.post("/v1/words/score", json={"ids": [1]})
                short = await client.post("/v1/words/count", json={"ids": [1]})
                return refused, short, await asyncio.gather(*waiting)

        refused, short, late = asyncio.run(scenario())
        assert refused.status_code == 503 and refused.headers["Retry-After"] == "1" and refused.json()["error"]
        assert short.status_code == 200  # short queries pass by long ones
        assert [one.status_code for one in late] == [504, 504] and "longer than 1 s" in late[0].json()["error"]
        go.set()
        monkeypatch.undo()
        until = time.monotonic() + 10
        while (answer := httpx.post(f"{url}/v1/words/score", json={"ids": [1]})).status_code == 503 and time.monotonic() < until:
            time.sleep(0.05)
        assert answer.status_code == 200

        host, port = url.removeprefix("http://").split(":")
        slow = [socket.create_connection((host, int(port))) for _ in range(8)]
        for one in slow:
            one.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        refused = httpx.post(url, json={})
        assert refused.status_code == 503 and refused.headers["Retry-After"] == "1"  # eight bodies are awaited already
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert slow[0].recv(100).startswith(b"HTTP/1.1 408")
        for one in slow:
            one.close()
        assert httpx.post(f"{url}/v1/words/count", json={"ids": [1]}).status_code == 200


def test_64_clients_with_new_connections_are_all_answered(here):
    ids = here.index.tokenizer.encode(" the still boils slowly while the vapour rises")
    kinds = [
        ("/", {"index": "words", "query_type": "count", "query_ids": ids[:2]}, 4),
        ("/v1/words/prob", {"ids": ids[:5]}, 2),
        ("/v1/words/infgram_prob", {"ids": ids}, 2),
        ("/v1/words/next", {"ids": ids[:1]}, 1),
        ("/v1/words/search", {"ids": ids[:2], "limit": 1}, 1),
    ]
    mix = [(path, body) for path, body, share in kinds for _ in range(share)]
    expected = {json.dumps(body): here.client.post(path, json=body).json() for path, body in mix}
    until = time.monotonic() + 3

    async def client(number):
        answered = 0
        async with httpx.AsyncClient(base_url=here.url, timeout=60, headers={"Connection": "close"}) as session:
            while time.monotonic() < until or not answered:
                path, body = mix[(number + answered) % len(mix)]
                answer = await session.post(path, json=body)
                assert answer.status_code == 200, answer.text
                assert {**answer.json(), "latency": 0} == {**expected[json.dumps(body)], "latency": 0}
                answered += 1
        return answered

    async def everybody():
        return await asyncio.gather(*(client(number) for number in range(64)))

    assert sum(asyncio.run(everybody())) >= 64


@pytest.mark.slow
def test_two_workers_and_keys_from_a_file(here, tmp_path):
    keys = tmp_path / "keys.txt"
    keys.write_text(f"# ours\n\n{KEY}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*tools.COMMAND, "serve", f"mine={here.folders['words']}", "--port", port, "--workers", 2, "--keys", keys]
    with subprocess.Popen(
        list(map(str, command)), env=tools.environment(), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            tools.await_health(url, process)
            headers = {"Authorization": f"Bearer {KEY}"}
            for _ in range(30):  # new connections: both workers come to answer
                answer = httpx.post(f"{url}/v1/mine/count", json={"text": " the"}, headers=headers)
                assert answer.json()["count"] == here.index.count(" the")
            lines = httpx.get(f"{url}/metrics", headers=headers).text.splitlines()
            labels = 'limbeck_ngram_requests_total{index="mine",route="count",status="200"}'
            assert [float(line.split()[1]) for line in lines if line.startswith(labels)] == [30.0]  # of both together
        finally:
            process.terminate()
            process.wait(20)
        assert process.stderr is not None and "Traceback" not in process.stderr.read()


def test_official_folders_open_in_the_official_order(here, tmp_path: Path):
    from tests import ngram_oracle as naive

    naive.write_index(tmp_path / "plain", [[number, 3] for number in range(12)], "u16", 4, 12)
    specs = (IndexSpec(name="plain", paths=(str(tmp_path / "plain"),), eos=0),)
    with tools.running(make_app(ServiceConfig(specs))) as url:
        answer = httpx.post(url, json={"index": "plain", "query_type": "find", "query_ids": [10]}).json()
        assert [end - begin for begin, end in answer["segment_by_shard"]].index(1) == 2  # 0, 1, 10, 11, 2, ...
        text = httpx.post(f"{url}/v1/plain/count", json={"text": "a"})
        assert text.status_code == 422 and "tokenizer" in text.json()["error"]
        document = httpx.post(f"{url}/v1/plain/search", json={"ids": [3], "limit": 1}).json()["documents"][0]
        assert len(document["ids"]) == 2
