"""The HTTP service: the official web API at `POST /`, typed routes under /v1, a search page, health and metrics.

Every worker process opens the indexes; mapped files share memory between processes.
"""

import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from limbeck import _infinigram
from limbeck.infinigram.errors import BadIndex, BadQuery
from limbeck.infinigram.service.limits import (
    Application,
    Guard,
    Keys,
    Limits,
    Receive,
    Refused,
    Scope,
    Send,
    Threads,
    extra_headers,
)
from limbeck.infinigram.service.metrics import Metrics
from limbeck.infinigram.service.models import ErrorAnswer, HealthAnswer
from limbeck.infinigram.service.official import NO_OBJECT, NOT_JSON, QUERY_TYPES, OfficialApi, Refusal
from limbeck.infinigram.service.page import add_page
from limbeck.infinigram.service.routes import Routes
from limbeck.infinigram.service.served import IndexSpec, Serving

_log = logging.getLogger("limbeck.ngram")


@dataclass(frozen=True)
class ServiceConfig:
    """What to serve, to whom, and within which limits."""

    indexes: tuple[IndexSpec, ...]
    keys: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)

    def to_json(self) -> str:
        """For the environment of the workers."""
        indexes = [spec.model_dump() for spec in self.indexes]
        return json.dumps({"indexes": indexes, "keys": self.keys, "limits": dataclasses.asdict(self.limits)})

    @classmethod
    def from_json(cls, text: str) -> "ServiceConfig":
        """What `to_json` wrote."""
        data = json.loads(text)
        specs = tuple(IndexSpec.model_validate(spec) for spec in data["indexes"])
        return cls(specs, tuple(data["keys"]), Limits(**data["limits"]))


def make_app(config: ServiceConfig) -> Application:
    """The ASGI application; opens every index, and raises BadIndex if one cannot be opened."""
    serving = Serving(config.indexes, config.limits)
    serving.require_all()
    return assemble(config, serving)


def assemble(config: ServiceConfig, serving: Serving) -> Application:
    """The ASGI application over open indexes, which it keeps watching."""
    _infinigram.catch_shrinking()
    serving.watch()
    threads = Threads(config.limits)
    metrics = Metrics()
    # the interactive pages of FastAPI load external scripts; the schema itself is served here
    app = FastAPI(title="Limbeck n-gram service", version="1", docs_url=None, redoc_url=None, openapi_url=None)
    add_page(app, serving)
    Routes(app, serving, threads)
    _add_house(app, serving, metrics)
    _add_handlers(app, serving, metrics)
    front = _official(OfficialApi(serving), serving, threads, app)
    return Guard(front, config.limits, Keys(config.keys), metrics, serving.corrupted)


def _official(api: OfficialApi, serving: Serving, threads: Threads, otherwise: Application) -> Application:
    """`POST /` in plain ASGI before the application: its queries take less time than the framework's dispatch."""

    async def answer(scope: Scope) -> tuple[int, bytes]:
        labels = scope["labels"]
        labels[0] = "official"
        try:
            asked = api.read(scope["body"])
            labels[:] = (f"official {asked.query_type}", asked.served.name)
            scope["served"] = asked.served
            found = await threads.run(asked.answer) if asked.is_long else asked.answer()
        except Refusal as refusal:
            return refusal.status, to_json({"error": str(refusal)})
        except Refused:
            raise
        except Exception as error:
            return 500, to_json({"error": _fault(error, scope, serving)})
        return 200, to_json(found)

    async def official(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/" or scope["method"] != "POST":
            await otherwise(_as_json(scope), receive, send)
            return
        status, body = await answer(scope)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return official


def _as_json(scope: Scope) -> Scope:
    """The scope with the content type of JSON: every body here is JSON, also if its client (such as curl) says otherwise."""
    if scope["type"] == "http" and scope["method"] == "POST":
        headers = [header for header in scope["headers"] if header[0] != b"content-type"]
        scope["headers"] = [*headers, (b"content-type", b"application/json")]
    return scope


_OFFICIAL_SCHEMA: dict[str, Any] = {
    "tags": ["official"],
    "summary": "The official infini-gram API",
    "description": f"query_type is one of {', '.join(QUERY_TYPES)}; each has its own options. Errors are returned under `error`.",
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["index", "query_type"],
                    "properties": {
                        "index": {"type": "string"},
                        "query_type": {"type": "string", "enum": list(QUERY_TYPES)},
                        "query": {"type": "string", "description": "a text; AND and OR make clauses"},
                        "query_ids": {"type": "array", "items": {}, "description": "token ids, or clauses of terms of ids"},
                    },
                },
                "example": {"index": "NAME", "query_type": "count", "query": "natural language processing"},
            }
        },
    },
    "responses": {"200": {"description": "the answer", "content": {"application/json": {"schema": {"type": "object"}}}}},
}


def _add_house(app: FastAPI, serving: Serving, metrics: Metrics) -> None:
    @app.get("/health", tags=["house"], response_model=HealthAnswer)
    @app.get("/healthz", tags=["house"], response_model=HealthAnswer)
    async def health(request: Request) -> Response:
        """The indexes in service, and the problems of those that are not, are damaged or cannot be updated; 503 if none is."""
        request.scope["labels"][0] = "health"
        served, problems = [one.name for one in serving], serving.problems
        answer = HealthAnswer(status="degraded" if problems else "ok", indexes=served, problems=problems)
        return Response(answer.model_dump_json(), 200 if served else 503, media_type="application/json")

    @app.get("/metrics", tags=["house"])
    async def prometheus(request: Request) -> Response:
        """Requests, seconds by route and index, requests in flight and refusals, for Prometheus."""
        request.scope["labels"][0] = "metrics"
        text, media_type = metrics.text()
        return Response(text, media_type=media_type)

    @app.get("/openapi.json", include_in_schema=False)
    async def schema(request: Request) -> Response:
        request.scope["labels"][0] = "openapi"
        found = get_openapi(title=app.title, version=app.version, description=__doc__, routes=app.routes)
        found["paths"]["/"]["post"] = _OFFICIAL_SCHEMA
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{}, {"key": []}]
        return _json(found)


def _add_handlers(app: FastAPI, serving: Serving, metrics: Metrics) -> None:
    def answer(status: int, words: str) -> Response:
        headers = {name.decode(): value.decode() for name, value in extra_headers(status)}
        return Response(ErrorAnswer(error=words).model_dump_json(), status, headers, "application/json")

    @app.exception_handler(BadQuery)
    async def bad_query(request: Request, error: BadQuery) -> Response:
        status = error.status if isinstance(error, Refused) else 422
        metrics.rejected(status)
        return answer(status, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        status, words = _invalid(error.errors(), request.scope.get("body"))
        metrics.rejected(status)
        return answer(status, words)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        metrics.rejected(error.status_code)
        # 400 is the framework's for a body that it cannot parse
        words = {400: NOT_JSON, 404: "not found; /openapi.json lists the routes", 405: "method not allowed for this route"}
        return answer(error.status_code, words.get(error.status_code, str(error.detail)))

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        return answer(500, _fault(error, request.scope, serving))


def _invalid(errors: Sequence[Any], body: bytes | None) -> tuple[int, str]:
    """Status and sentence of the first validation error; the input is not repeated, since it may be long or binary."""
    first = errors[0]
    if first["type"] == "json_invalid" or body == b"":
        return 400, NOT_JSON
    if first["loc"] == ("body",) and first["type"] in ("missing", "model_attributes_type"):
        return 422, NO_OBJECT
    where = ".".join(str(part) for part in first["loc"][:6] if part != "body")[:200]
    words = str(first["msg"]).removeprefix("Value error, ")[:300]
    text = f"{where}: {words}" if where else words
    return 422, text.encode("utf-8", "replace").decode()


def _fault(error: Exception, scope: Scope, serving: Serving) -> str:
    """Log a request that failed, report a damaged index to /health, and return the sentence to answer with."""
    _log.error("a request failed", exc_info=error)
    if not isinstance(error, BadIndex):
        return "internal error; see the log of the service"
    if "served" in scope:
        serving.damaged(scope["served"], error)
    return str(error)


def _json(value: Any) -> Response:
    return Response(to_json(value), media_type="application/json")


def keys_of(path: Path | None) -> tuple[str, ...]:
    """The keys of a file and of LIMBECK_NGRAM_KEYS (whitespace-separated)."""
    from limbeck.infinigram.service.limits import read_keys

    return (*(read_keys(path) if path is not None else ()), *os.environ.get("LIMBECK_NGRAM_KEYS", "").split())
