"""Clients that open connections and do not complete their requests."""

import contextlib
import socket
import threading
import time

import httpx
import pytest

from helpers import ngram_oracle as naive
from helpers import ngram_served as tools
from limbeck.infinigram.service.app import ServiceConfig, make_app
from limbeck.infinigram.service.connections import Connections, LimitedProtocol
from limbeck.infinigram.service.limits import Limits
from limbeck.infinigram.service.served import IndexSpec

HALF_A_HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
NO_BODY = HALF_A_HEAD + b"Content-Length: 10\r\n\r\n{"
COUNT = {"index": "plain", "query_type": "count", "query_ids": [3]}


@pytest.fixture
def serve(tmp_path):
    folder = naive.write_index(tmp_path / "plain", [[number, 3] for number in range(5)])
    specs = (IndexSpec(name="plain", paths=(str(folder),), eos=0),)

    def start(**given):
        limits = Limits(**given)
        chosen = type("Chosen", (LimitedProtocol,), {"registry": Connections(limits)})
        return tools.running(make_app(ServiceConfig(specs, limits=limits)), http=chosen)

    return start


def connect(url, sent=b""):
    host, port = url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), timeout=120)
    client.sendall(sent)
    return client


def everything(client):
    """What a connection receives until it is closed."""
    received = b""
    while part := client.recv(4096):
        received += part
    return received


@pytest.mark.parametrize("sent", [b"", b"G", HALF_A_HEAD])
def test_headers_that_never_end_are_not_waited_for(serve, sent):
    with serve(header_seconds=0.3) as url, connect(url, sent) as client:
        assert everything(client).startswith(b"HTTP/1.1 408")


def test_a_second_request_has_a_time_out_of_its_own(serve):
    with serve(header_seconds=1.0) as url, connect(url, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n") as client:
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /hea")
        assert b"HTTP/1.1 408" in everything(client)


def test_bodies_that_never_end_are_not_waited_for(serve):
    with serve(body_seconds=0.3) as url, connect(url, NO_BODY) as client:
        assert everything(client).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("sent", [b"", HALF_A_HEAD, NO_BODY])
@pytest.mark.parametrize("limits", [{"client_connections": 8}, {"connections": 8}, {"requests": 2}])
def test_clients_that_withhold_their_requests_keep_no_other_waiting(serve, sent, limits):
    """The time-outs are longer than the test: a complete request replaces one that is idle."""
    with serve(header_seconds=1e4, body_seconds=1e4, idle_seconds=1e4, **limits) as url:
        slow = [connect(url, sent) for _ in range(24)]
        for _ in range(3):
            assert httpx.post(url, json=COUNT).json()["count"] == 6
        for client in slow:
            client.close()


def test_a_client_whose_connections_are_all_being_answered_is_refused(serve, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr("limbeck.infinigram.service.answers.score", lambda *_: go.wait(120))
    with serve(client_connections=1) as url:

        def ask() -> None:  # until it is this question that is answered, and the others are refused or closed
            while not go.is_set():
                with contextlib.suppress(httpx.TransportError):
                    if httpx.post(f"{url}/v1/plain/score", json={"ids": [3]}, timeout=120).status_code != 503:
                        return

        def health(wanted):  # an idle connection may be closed in favour of the other client's
            until = time.monotonic() + 120
            while time.monotonic() < until:
                with contextlib.suppress(httpx.TransportError):
                    if (answer := httpx.get(f"{url}/health")).status_code == wanted:
                        return answer
                time.sleep(0.02)
            raise AssertionError(f"/health never answered {wanted}")

        thread = threading.Thread(target=ask)
        thread.start()
        answer = health(503)
        assert answer.json()["error"] and answer.headers["Retry-After"] == "1"
        go.set()
        thread.join()
        health(200)
