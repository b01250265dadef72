"""Limits on requests: size, time and concurrency; checked before anything is parsed."""

import asyncio
import hashlib
import hmac
import json
import os
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from limbeck import _infinigram
from limbeck.infinigram.errors import BadQuery
from limbeck.infinigram.service.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Result = TypeVar("Result")

HEALTH_PATHS = ("/health", "/healthz")
OPEN_PATHS = ("/", *HEALTH_PATHS, "/openapi.json")  # answered without a key: the page prompts for it


@dataclass(frozen=True)
class Limits:
    """Limits of one service process; requests above them are refused at once, with a status that gives the reason."""

    header_seconds: float = 10.0  # from a connection, or the first byte of a further request on it, to the end of its headers
    body_seconds: float = 10.0
    idle_seconds: float = 5.0  # between two requests on a connection
    body_bytes: int = 1 << 20
    connections: int = 1024  # open at once
    client_connections: int = 256  # of them from one address
    deadline_seconds: float = 30.0
    requests: int = 512  # being answered
    threads: int = 2  # for long queries
    waiting: int = 32  # queries that may wait for one of these threads
    query_tokens: int = 500
    text_tokens: int = 20_000  # per text to score or trace
    batch_tokens: int = 200_000
    shown_tokens: int = 1_000_000  # tokens of the documents in one answer


class Refused(BadQuery):
    """A refused request, with the HTTP status that gives the reason."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Keys:
    """Bearer keys; compared by digest, all of them, in constant time."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    @property
    def needed(self) -> bool:
        """Whether a key is required; without keys every request is admitted."""
        return bool(self._digests)

    def admit(self, authorization: bytes) -> bool:
        """Whether an Authorization header carries one of the keys."""
        scheme, _, key = authorization.partition(b" ")
        given = hashlib.sha256(key.strip()).digest()
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return any(matches) and scheme.lower() == b"bearer"


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys of a file, one per line, ignoring blank lines and lines that begin with #; raises BadQuery if it has no keys."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise BadQuery(f"the keys in {path} cannot be read ({error}); name a text file with one key per line") from error
    keys = tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
    if not keys:
        raise BadQuery(f"{path} holds no key; write one per line, or serve without keys")
    return keys


class Threads:
    """The threads for long queries; a query that would wait behind too many others is refused."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pool = ThreadPoolExecutor(limits.threads, "query")
        self._taken = 0

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run `work` in a thread; raises Refused with 503 if too many wait, and with 504 if it takes too long.

        A query cannot be interrupted: one that timed out keeps its thread and its slot until it is done.
        """
        if self._taken >= self._limits.threads + self._limits.waiting:
            raise Refused(503, "too many long queries are waiting; retry in a second")
        loop = asyncio.get_running_loop()
        self._taken += 1
        future: Future[Result] = self._pool.submit(work)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._limits.deadline_seconds)
        except TimeoutError as error:
            seconds = self._limits.deadline_seconds
            raise Refused(504, f"the query took longer than {seconds:g} s; request less, or use a rarer phrase") from error

    def _release(self) -> None:
        self._taken -= 1


class Guard:
    """The outermost layer, in plain ASGI: counts requests, checks keys, enforces body limits, measures time.

    `corrupted(index, shrinks)` answers whether a file of an index shrank since then, so that an answer from it must be discarded.
    """

    def __init__(
        self, application: Application, limits: Limits, keys: Keys, metrics: Metrics, corrupted: Callable[[str, int], bool]
    ) -> None:
        self._application = application
        self._limits = limits
        self._keys = keys
        self._metrics = metrics
        self._corrupted = corrupted
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        started = time.perf_counter()
        scope["labels"] = labels = ["other", ""]  # route and index; handlers fill in known names
        status, discarded, shrinks = 0, False, _infinigram.shrinks()

        async def watched(message: Message) -> None:
            nonlocal status, discarded
            if message["type"] == "http.response.start":
                if labels[1] and not discarded and self._corrupted(labels[1], shrinks):
                    discarded, status = True, 503
                    await refuse(send, Refused(503, f"a file of index {labels[1]!r} shrank while it was read; see /health"))
                status = status or message["status"]
            if not discarded:
                await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._answer(scope, receive, watched)
        except Refused as refused:
            self._metrics.rejected(refused.status)
            if not status:
                await refuse(watched, refused)
        except Disconnected:
            status = 499
        finally:
            self._metrics.in_flight.dec()
            self._metrics.request(labels[0], labels[1], status, time.perf_counter() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        headers = {name: value for name, value in scope["headers"] if name in (b"authorization", b"content-length")}
        open_path = (path in OPEN_PATHS and scope["method"] in ("GET", "HEAD")) or path.startswith("/static/")
        if self._keys.needed and not open_path and not self._keys.admit(headers.get(b"authorization", b"")):
            raise Refused(401, "this service requires a key; send it as: Authorization: Bearer KEY")
        if scope["method"] == "POST":
            body = await self._body(headers.get(b"content-length", b""), receive)
            scope["body"] = body
            receive = _replay(body, receive)
        # only complete requests count: clients that withhold their bodies keep no one else waiting
        if self._in_flight >= self._limits.requests and path not in HEALTH_PATHS:  # busy is still healthy
            raise Refused(503, "too many concurrent requests; retry in a second")
        self._in_flight += 1
        try:
            await self._application(scope, receive, send)
        finally:
            self._in_flight -= 1

    async def _body(self, announced: bytes, receive: Receive) -> bytes:
        limit = self._limits.body_bytes
        too_large = Refused(413, f"the request body is larger than {limit:,} bytes; split the request")
        if announced.isdigit() and int(announced[:20]) > limit:
            raise too_large
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Disconnected
                    part = message.get("body", b"")
                    size += len(part)
                    if size > limit:
                        raise too_large
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            raise Refused(408, f"the request body took longer than {self._limits.body_seconds:g} s; send it again") from error


class Disconnected(Exception):
    """The client disconnected before its request was complete."""


async def refuse(send: Send, refused: Refused) -> None:
    """Answer with a status and one sentence as JSON."""
    body = json.dumps({"error": str(refused)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += extra_headers(refused.status)
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def extra_headers(status: int) -> list[tuple[bytes, bytes]]:
    """Extra headers for the status of a refusal."""
    if status == 503:
        return [(b"retry-after", b"1")]
    if status == 401:
        return [(b"www-authenticate", b"Bearer")]
    return [(b"connection", b"close")] if status == 408 else []


def cores() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _replay(body: bytes, receive: Receive) -> Receive:
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
