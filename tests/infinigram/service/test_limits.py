"""Limits of the n-gram service, and clients that misbehave."""

import asyncio
import json
import socket
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest

from helpers import ngram_served as tools
from helpers.ngram_served import ask, official
from limbeck.infinigram.service.app import ServiceConfig, make_app
from limbeck.infinigram.service.limits import Limits
from limbeck.infinigram.service.served import IndexSpec

KEY = "correct horse"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    with tools.serving(tmp_path_factory.mktemp("served")) as served:
        yield served


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
        ("batch/count", {"ids": [1, 2], "offsets": [0, 3]}, "offsets must ascend"),
        ("batch/count", {"ids": [1, 2]}, "give ids and offsets together"),
        ("batch/count", {"queries": [[1] * 200_001]}, "the maximum of each is 200,000"),
        ("batch/prob", {"queries": [[]]}, "empty"),
        ("batch/prob", {"queries": [[1]], "tokens": [1, 2]}, "continuation"),
    ],
)
def test_what_cannot_be_answered_is_said_in_a_sentence(here, route, body, words):
    answer = here.client.post(f"/v1/words/{route}", json=body)
    assert answer.status_code == 422, answer.text
    assert list(answer.json()) == ["error"] and words in answer.json()["error"] and len(answer.text) < 800


ROUTES = (
    "count prob infgram_prob next infgram_next search documents score trace batch/count batch/prob batch/infgram_prob batch/next "
    "batch/infgram_next batch/score"
).split()


def body_of(route):
    given = {"numbers": [0]} if route == "documents" else {"texts": [" the"]} if route.startswith("batch/") else {"text": " the"}
    return json.dumps(given).encode()


@pytest.mark.parametrize(
    "kind", [None, "application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", "", "junk"]
)
def test_a_body_is_json_whatever_its_type(here, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    for route in ROUTES:
        answer = here.client.post(f"/v1/words/{route}", content=body_of(route), headers=headers)
        assert answer.status_code == 200, answer.text
    official_body = b'{"index": "words", "query_type": "count", "query": " the"}'
    assert here.client.post("/", content=official_body, headers=headers).status_code == 200


@pytest.mark.parametrize("kind", [None, "application/json"])
@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b'{"text": "\xe9"}', b'{"ids": ' + b"9" * 5000 + b"}"])
def test_what_is_no_json_is_called_so_on_every_route(here, kind, body):
    for path in ("/", *(f"/v1/words/{route}" for route in ROUTES)):
        answer = here.client.post(path, content=body, headers={"Content-Type": kind} if kind else {})
        assert (answer.status_code, answer.json()) == (400, {"error": "the request is not JSON"}), path


@pytest.mark.parametrize("body", [b"null", b"[]", b'"text"', b"7"])
def test_json_that_is_no_object_is_called_so(here, body):
    for path in ("/", *(f"/v1/words/{route}" for route in ROUTES)):
        assert here.client.post(path, content=body).json() == {"error": "the request must be a JSON object"}, path


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
    until = time.monotonic() + 300  # more than a body may take
    # the question itself is one, and the one before it may not have been counted off yet
    while (left := in_flight(here)) > 1 and time.monotonic() < until:
        time.sleep(0.05)
    assert left == 1


def in_flight(here):
    return counted_in_flight(here.client.get("/metrics").text)


async def in_flight_at(client):
    return counted_in_flight((await client.get("/metrics")).text)


def counted_in_flight(text):
    return float(next(line for line in text.splitlines() if line.startswith("limbeck_ngram_in_flight ")).split()[1])


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
    limits = Limits(threads=1, waiting=1, deadline_seconds=4.0, requests=8, body_seconds=4.0)
    go = threading.Event()
    app = make_app(ServiceConfig(here.specs, limits=limits))
    monkeypatch.setattr("limbeck.infinigram.service.answers.score", lambda *_: go.wait(300))
    with tools.running(app) as url:

        async def scenario():
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                waiting = [asyncio.create_task(client.post("/v1/words/score", json={"ids": [1]})) for _ in range(2)]
                while await in_flight_at(client) < 3:  # the question itself is one
                    await asyncio.sleep(0.02)
                refused = await client.post("/v1/words/score", json={"ids": [1]})
                short = await client.post("/v1/words/count", json={"ids": [1]})
                return refused, short, await asyncio.gather(*waiting)

        refused, short, late = asyncio.run(scenario())
        assert refused.status_code == 503 and refused.headers["Retry-After"] == "1" and refused.json()["error"]
        assert short.status_code == 200  # short queries pass by long ones
        assert [one.status_code for one in late] == [504, 504] and "longer than 4 s" in late[0].json()["error"]
        go.set()
        monkeypatch.undo()
        until = time.monotonic() + 300
        while (answer := httpx.post(f"{url}/v1/words/score", json={"ids": [1]})).status_code == 503 and time.monotonic() < until:
            time.sleep(0.05)
        assert answer.status_code == 200

        host, port = url.removeprefix("http://").split(":")
        slow = [socket.create_connection((host, int(port))) for _ in range(8)]
        for one in slow:
            one.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
        assert httpx.post(f"{url}/v1/words/count", json={"ids": [1]}).status_code == 200  # awaited bodies occupy nothing
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
    from helpers import ngram_oracle as naive

    naive.write_index(tmp_path / "plain", [[number, 3] for number in range(12)], "u16", 4, 12)
    specs = (IndexSpec(name="plain", paths=(str(tmp_path / "plain"),), eos=0),)
    with tools.running(make_app(ServiceConfig(specs))) as url:
        answer = httpx.post(url, json={"index": "plain", "query_type": "find", "query_ids": [10]}).json()
        assert [end - begin for begin, end in answer["segment_by_shard"]].index(1) == 2  # 0, 1, 10, 11, 2, ...
        text = httpx.post(f"{url}/v1/plain/count", json={"text": "a"})
        assert text.status_code == 422 and "tokenizer" in text.json()["error"]
        document = httpx.post(f"{url}/v1/plain/search", json={"ids": [3], "limit": 1}).json()["documents"][0]
        assert len(document["ids"]) == 2
