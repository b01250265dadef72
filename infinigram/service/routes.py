"""The typed routes /v1/...: short queries are answered at once, long ones in a thread, so that they block no other query."""

from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from limbeck.infinigram.errors import BadQuery
from limbeck.infinigram.service import answers, models
from limbeck.infinigram.service.limits import Threads
from limbeck.infinigram.service.served import Served, Serving

_MANY_OCCURRENCES = 20_000  # prompts with more occurrences are answered in a thread
_MANY_TOKENS = 4_000  # larger documents are read and decoded in a thread
Work = Callable[[], BaseModel]
Handler = TypeVar("Handler", bound=Callable[..., Any])
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": models.ErrorAnswer, "description": words}
    for status, words in {
        400: "not JSON",
        401: "missing or wrong key",
        404: "no such index",
        413: "body too large",
        422: "invalid query",
        503: "overloaded; see Retry-After",
        504: "query timed out",
    }.items()
}


class Routes:
    """The routes of an application, and the two ways to answer."""

    def __init__(self, app: FastAPI, serving: Serving, threads: Threads) -> None:
        self._app = app
        self.serving = serving
        self.threads = threads
        for add in (_add_indexes, _add_queries, _add_next, _add_documents, _add_texts, _add_batches):
            add(self)

    def get(self, path: str, answer: Any, tag: str) -> Callable[[Handler], Handler]:
        """Add a handler of GET below /v1."""
        return self._app.get(f"/v1{path}", response_model=answer, tags=[tag], responses=_ERRORS)

    def post(self, path: str, answer: Any, tag: str) -> Callable[[Handler], Handler]:
        """Add a handler of POST below /v1; to the application itself, since a nested router would match every path twice."""
        return self._app.post(f"/v1{path}", response_model=answer, tags=[tag], responses=_ERRORS)

    def find(self, request: Request, name: str, route: str) -> Served:
        """The index that a request names; its metrics are labelled with that name from here on."""
        served = self.serving.find(name)
        request.scope["labels"][:] = (route, name)
        request.scope["served"] = served
        return served

    async def long(self, work: Work) -> Response:
        """Answer from a thread."""
        return Response(await self.threads.run(lambda: work().model_dump_json()), media_type="application/json")

    async def either(self, long: bool, work: Work) -> Response:
        """Answer at once, or from a thread if the work is long."""
        return await self.long(work) if long else _json(work())


def _json(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")


def _add_indexes(routes: Routes) -> None:
    serving = routes.serving

    @routes.get("/indexes", list[models.IndexAnswer], "indexes")
    async def indexes(request: Request) -> list[models.IndexAnswer]:
        """List the indexes."""
        request.scope["labels"][0] = "indexes"
        return [answers.index(served) for served in serving]

    @routes.get("/{index}", models.IndexAnswer, "indexes")
    async def one_index(index: str, request: Request) -> models.IndexAnswer:
        """Describe an index."""
        return answers.index(routes.find(request, index, "index"))


def _add_queries(routes: Routes) -> None:
    limits = routes.serving.limits

    @routes.post("/{index}/count", models.CountAnswer, "queries")
    async def count(index: str, query: models.ClauseQuery, request: Request) -> Response:
        """Count a query; an empty query counts all tokens."""
        served = routes.find(request, index, "count")
        if query.clauses is not None:
            return await routes.long(lambda: answers.count_clauses(served, query, limits))
        found = served.index.count(served.ids(query.text, query.ids, limits.query_tokens))
        return _json(models.CountAnswer(count=found, approximate=False))

    @routes.post("/{index}/prob", models.ProbAnswer, "queries")
    async def prob(index: str, query: models.ProbQuery, request: Request) -> Response:
        """Probability of a token after a prompt."""
        served = routes.find(request, index, "prob")
        return _json(answers.prob(served.index.prob(*_prompt(served, query, limits.query_tokens))))

    @routes.post("/{index}/infgram_prob", models.ProbAnswer, "queries")
    async def infgram_prob(index: str, query: models.ProbQuery, request: Request) -> Response:
        """Probability of a token after the longest suffix of a prompt that occurs."""
        served = routes.find(request, index, "infgram_prob")
        return _json(answers.prob(served.index.infgram_prob(*_prompt(served, query, limits.query_tokens))))


def _add_next(routes: Routes) -> None:
    limits = routes.serving.limits

    @routes.post("/{index}/next", models.NextAnswer, "queries")
    async def next_tokens(index: str, query: models.NextQuery, request: Request) -> Response:
        """Tokens that follow a prompt with exact counts, the most frequent first."""
        served = routes.find(request, index, "next")
        ids = served.ids(query.text, query.ids, limits.query_tokens)
        many = served.index.count(ids) > _MANY_OCCURRENCES
        return await routes.either(many, lambda: answers.next_page(served, served.index.next_tokens(ids), query))

    @routes.post("/{index}/infgram_next", models.NextAnswer, "queries")
    async def infgram_next(index: str, query: models.NextQuery, request: Request) -> Response:
        """Tokens that follow the longest suffix of a prompt that occurs, with exact counts, the most frequent first."""
        served = routes.find(request, index, "infgram_next")
        ids = served.ids(query.text, query.ids, limits.query_tokens)
        many = served.index.longest_suffix(ids)[1] > _MANY_OCCURRENCES
        return await routes.either(many, lambda: answers.next_page(served, served.index.infgram_next_tokens(ids), query))


def _add_documents(routes: Routes) -> None:
    limits = routes.serving.limits

    @routes.post("/{index}/search", models.SearchAnswer, "documents")
    async def search(index: str, query: models.SearchQuery, request: Request) -> Response:
        """Documents that contain a query, page by page, in the seeded order of its occurrences."""
        served = routes.find(request, index, "search")
        much = query.clauses is not None or query.distinct_documents or query.cursor is not None
        many = much or query.limit * query.max_tokens > _MANY_TOKENS
        return await routes.either(many, lambda: answers.search(served, query, limits))

    @routes.post("/{index}/documents", models.DocumentsAnswer, "documents")
    async def documents(index: str, query: models.DocumentsQuery, request: Request) -> Response:
        """Documents by number, and windows around ranks or pointers."""
        served = routes.find(request, index, "documents")
        many = (len(query.numbers) + len(query.places)) * query.max_tokens > _MANY_TOKENS
        return await routes.either(many, lambda: answers.documents(served, query, limits))


def _add_texts(routes: Routes) -> None:
    limits = routes.serving.limits

    @routes.post("/{index}/score", models.ScoreAnswer, "texts")
    async def score(index: str, query: models.Query, request: Request) -> Response:
        """The ∞-gram probability of every token of a text."""
        served = routes.find(request, index, "score")
        return await routes.long(lambda: answers.score(served, served.ids(query.text, query.ids, limits.text_tokens)))

    @routes.post("/{index}/trace", models.TraceAnswer, "texts")
    async def trace(index: str, query: models.TraceQuery, request: Request) -> Response:
        """The rarest spans of a text that occur verbatim, and the documents that contain them (OLMoTrace)."""
        served = routes.find(request, index, "trace")
        return await routes.long(lambda: answers.trace(served, query, limits))


def _add_batches(routes: Routes) -> None:
    most = routes.serving.limits.batch_tokens
    batch = routes.post

    @batch("/{index}/batch/count", models.BatchCountAnswer, "batches")
    async def count(index: str, query: models.BatchQuery, request: Request) -> Response:
        """Counts of a batch of queries."""
        served = routes.find(request, index, "batch/count")
        return await routes.long(lambda: answers.count_batch(served, query, most))

    @batch("/{index}/batch/prob", models.BatchProbAnswer, "batches")
    async def prob(index: str, query: models.BatchProbQuery, request: Request) -> Response:
        """`prob` of a batch of prompts."""
        served = routes.find(request, index, "batch/prob")
        return await routes.long(lambda: answers.prob_batch(served, served.index.prob_batch, query, most))

    @batch("/{index}/batch/infgram_prob", models.BatchProbAnswer, "batches")
    async def infgram_prob(index: str, query: models.BatchProbQuery, request: Request) -> Response:
        """`infgram_prob` of a batch of prompts."""
        served = routes.find(request, index, "batch/infgram_prob")
        return await routes.long(lambda: answers.prob_batch(served, served.index.infgram_prob_batch, query, most))

    @batch("/{index}/batch/next", models.BatchNextAnswer, "batches")
    async def next_tokens(index: str, query: models.BatchQuery, request: Request) -> Response:
        """`next` of a batch of prompts, complete and ascending by id."""
        served = routes.find(request, index, "batch/next")
        return await routes.long(lambda: answers.next_batch(served, query, most, infgram=False))

    @batch("/{index}/batch/infgram_next", models.BatchNextAnswer, "batches")
    async def infgram_next(index: str, query: models.BatchQuery, request: Request) -> Response:
        """`infgram_next` of a batch of prompts, complete and ascending by id."""
        served = routes.find(request, index, "batch/infgram_next")
        return await routes.long(lambda: answers.next_batch(served, query, most, infgram=True))

    @batch("/{index}/batch/score", models.BatchScoreAnswer, "batches")
    async def score(index: str, query: models.BatchQuery, request: Request) -> Response:
        """`score` of a batch of texts."""
        served = routes.find(request, index, "batch/score")
        return await routes.long(lambda: answers.score_batch(served, query, most))


def _prompt(served: Served, query: models.ProbQuery, most: int) -> tuple[list[int], int]:
    """The prompt and the token after it."""
    ids = served.ids(query.text, query.ids, most)
    if query.token is not None:
        return ids, query.token
    if not ids:
        raise BadQuery("the query is empty; it needs at least the token to score")
    return ids[:-1], ids[-1]
