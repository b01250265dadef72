"""The official web API at `POST /`: the same request fields, limits and answers, so that its clients only need another address.

The same results are approximated as there (next tokens above `max_support`, clauses above `max_clause_freq`); the typed
routes are exact. See https://infini-gram.readthedocs.io, "API Endpoint".
"""

import json
import time
from collections.abc import Callable
from typing import Any

from limbeck.infinigram.errors import BadQuery
from limbeck.infinigram.service.limits import Refused
from limbeck.infinigram.service.served import Served, Serving, cut

NOT_JSON = "the request is not JSON"
NO_OBJECT = "the request must be a JSON object"
MAX_QUERY_CHARACTERS = 1000
MAX_QUERY_TOKENS = 500
MAX_CLAUSES = 4
MAX_TERMS = 4
MAX_OPTION = {"max_support": 1000, "max_clause_freq": 500_000, "max_diff_tokens": 1000, "maxnum": 10, "max_disp_len": 10_000}
_IGNORED = ("engine", "source", "timestamp")
_CLAUSE_OPTIONS = ("max_clause_freq", "max_diff_tokens")
_SHOWN_OPTIONS = ("maxnum", "max_disp_len")
# per query type: its options, its options with clauses, and the optional ones
_OPTIONS: dict[str, tuple[str, ...]] = {
    "count": (),
    "prob": (),
    "ntd": ("max_support",),
    "infgram_prob": (),
    "infgram_ntd": ("max_support",),
    "find": (),
    "find_cnf": _CLAUSE_OPTIONS,
    "search_docs": _SHOWN_OPTIONS,
    "get_doc_by_rank": ("s", "rank", "max_disp_len"),
    "get_doc_by_ptr": ("s", "ptr", "max_disp_len"),
    "count_cnf": _CLAUSE_OPTIONS,
    "search_docs_cnf": (*_SHOWN_OPTIONS, *_CLAUSE_OPTIONS),
}
_FIELDS = {"index", "corpus", "query_type", "query", "query_ids", *(name for names in _OPTIONS.values() for name in names)}
QUERY_TYPES = tuple(name for name in _OPTIONS if name not in ("count_cnf", "search_docs_cnf"))
_MANY_TOKENS = 4_000
Answer = tuple[int, dict[str, Any]]


class Refusal(BadQuery):
    """A request answered with an `error`; like the official service, mostly with status 200."""

    def __init__(self, words: str, status: int = 200) -> None:
        super().__init__(words)
        self.status = status


class OfficialApi:
    """`POST /` for all indexes of a service."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    def read(self, body: bytes) -> "Asked":
        """Read a request; raises Refusal if it is invalid."""
        try:
            data = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refusal(NOT_JSON, 400) from error
        if not isinstance(data, dict):
            raise Refusal(NO_OBJECT, 400)
        for field in _IGNORED:
            data.pop(field, None)
        # as in the official service, a field that is null is not given
        data = {name: value for name, value in data.items() if value is not None or name not in _FIELDS}
        query_type = data.pop("query_type", None)
        index = data.pop("index", None)
        name = data.pop("corpus", index)
        if query_type is None or name is None:
            raise Refusal(f"Missing required field: {'query_type' if query_type is None else 'index'}", 400)
        try:
            served = self._serving.get(name)
        except Refused as refused:
            raise Refusal(str(refused), refused.status) from refused
        if served is None:
            raise Refusal(f"Invalid index: {str(name)[:80]}; there are: {', '.join(self._serving.names)}", 400)
        if not isinstance(query_type, str) or query_type not in QUERY_TYPES:
            raise Refusal(f"Invalid query_type: {str(query_type)[:80]}", 400)
        if ("query" in data) == ("query_ids" in data):
            raise Refusal("Exactly one of query and query_ids must be present!", 400)
        return Asked(served, query_type, data)


class Asked:
    """One request, read but not answered."""

    def __init__(self, served: Served, query_type: str, data: dict[str, Any]) -> None:
        self.served = served
        self.query_type = query_type
        self._engine = served.official
        ids = _ids(served, data.pop("query")) if "query" in data else data.pop("query_ids")
        self._ids, self._clauses = ids, _is_clauses(ids)
        self._names = _names(served, ids, self._clauses)
        self._method = f"{query_type}_cnf" if self._clauses and query_type in ("count", "search_docs") else query_type
        self._options = data
        self._check_options()

    @property
    def is_long(self) -> bool:
        """Whether the answer may be slow, so that others should not wait for it."""
        shown = self._options.get("maxnum", 1) * self._options.get("max_disp_len", 1000)
        return self._method.endswith("_cnf") or (self._method == "search_docs" and shown > _MANY_TOKENS)

    def answer(self) -> dict[str, Any]:
        """Ask the engine; errors are returned under `error`."""
        started = time.perf_counter()
        result = getattr(self, f"_{self._method}", self._plain)()
        result["latency"] = (time.perf_counter() - started) * 1000
        # a document has its own ids, as documented; the official server overwrites them with the query's
        result.setdefault("token_ids", self._ids)
        result["tokens"] = self._names
        return result

    def _check_options(self) -> None:
        allowed = _OPTIONS[self._method]
        for name, value in self._options.items():
            if name not in allowed:
                raise Refusal(f"{self.query_type} has no option {name[:80]!r}; it has: {', '.join(allowed) or 'none'}", 400)
            if name in MAX_OPTION and not (type(value) is int and 0 < value <= MAX_OPTION[name]):
                raise Refusal(f"{name} must be an integer in [1, {MAX_OPTION[name]}]!")
        for name in ("s", "rank", "ptr"):
            if name in allowed and name not in self._options:
                raise Refusal(f"Missing required field: {name}", 400)

    def _plain(self) -> dict[str, Any]:
        name = "cnf" if self._method.endswith("_cnf") else "input_ids"
        return self._ask(**{name: self._ids})

    def _ask(self, **given: Any) -> dict[str, Any]:
        ask: Callable[..., dict[str, Any]] = getattr(self._engine, self._method)
        return ask(**given, **self._options)

    def _prob(self) -> dict[str, Any]:
        if not self._ids:
            return {"error": "Please provide a non-empty query!"}
        return self._ask(prompt_ids=self._ids[:-1], cont_id=self._ids[-1])

    def _infgram_prob(self) -> dict[str, Any]:
        result = self._prob()
        if "suffix_len" in result:
            result["longest_suffix"] = self.served.pieces.decode(self._ids[-result["suffix_len"] - 1 : -1])
        return result

    def _ntd(self) -> dict[str, Any]:
        result = self._ask(prompt_ids=self._ids)
        by_id = result.get("result_by_token_id", {})
        for entry, name in zip(by_id.values(), self.served.pieces.names(by_id), strict=True):
            entry["token"] = name.replace("Ġ", " ") if name is not None else ""
        return result

    def _infgram_ntd(self) -> dict[str, Any]:
        result = self._ntd()
        if "suffix_len" in result:
            result["longest_suffix"] = self.served.pieces.decode(self._ids[len(self._ids) - result["suffix_len"] :])
        return result

    def _search_docs(self) -> dict[str, Any]:
        return self._with_message(self._ask(input_ids=self._ids))

    def _search_docs_cnf(self) -> dict[str, Any]:
        return self._with_message(self._ask(cnf=self._ids))

    def _with_message(self, result: dict[str, Any]) -> dict[str, Any]:
        if "error" in result:
            return result
        for document in result["documents"]:
            document["spans"] = self._spans(document)
        about = "Approximately " if result["approx"] else ""
        shown = f". Displaying the documents of occurrences #{result['idxs']}" if result["cnt"] else ""
        result["message"] = f"{about if shown else ''}{result['cnt']} occurrences found{shown}"
        return result

    def _get_doc_by_rank(self) -> dict[str, Any]:
        result = self._ask()
        return result if "error" in result else {**result, "spans": self._spans(result)}

    def _get_doc_by_ptr(self) -> dict[str, Any]:
        return self._get_doc_by_rank()

    def _spans(self, document: dict[str, Any]) -> list[tuple[str, str | None]]:
        clauses = self._ids if self._clauses else [[self._ids]]
        ids, decode = document["token_ids"], self.served.pieces.decode
        return [(decode(ids[begin:end]), None if label is None else str(label)) for begin, end, label in cut(ids, clauses)]


def _ids(served: Served, query: Any) -> Any:
    """A query's token ids: a list, or three levels of lists if it contains AND or OR."""
    if not isinstance(query, str):
        raise Refusal("query must be a string!")
    if len(query) > MAX_QUERY_CHARACTERS:
        raise Refusal(f"Please limit your input to <= {MAX_QUERY_CHARACTERS} characters!")
    if " AND " not in query and " OR " not in query:
        return _term(served, query)
    return [[_term(served, term) for term in clause.split(" OR ")] for clause in query.split(" AND ")]


def _term(served: Served, text: str) -> list[int]:
    """Ids of a term at the start of a word, as in the official service."""
    try:
        return served.encode(served.pieces.word_start + text if text else "", MAX_QUERY_CHARACTERS)
    except BadQuery as error:
        raise Refusal(str(error)) from error


def _is_clauses(ids: Any) -> bool:
    """Whether ids are clauses of terms rather than one list; raises Refusal if they are neither."""
    if isinstance(ids, list):
        if all(type(token) is int for token in ids):
            return False
        if all(isinstance(clause, list) and all(_is_term(term) for term in clause) for clause in ids):
            return True
    raise Refusal("query_ids must be a list of integers, or a triply-nested list of integers!")


def _is_term(term: Any) -> bool:
    return isinstance(term, list) and all(type(token) is int for token in term)


def _names(served: Served, ids: Any, is_clauses: bool) -> Any:
    """The names of all tokens, in the shape of the ids; raises Refusal if there are too many or they are out of range."""
    terms = [term for clause in ids for term in clause] if is_clauses else [ids]
    if sum(map(len, terms)) > MAX_QUERY_TOKENS:
        raise Refusal(f"Please limit your input to <= {MAX_QUERY_TOKENS} tokens!")
    if is_clauses and len(ids) > MAX_CLAUSES:
        raise Refusal(f"Please enter at most {MAX_CLAUSES} disjunctive clauses!")
    if is_clauses and any(len(clause) > MAX_TERMS for clause in ids):
        raise Refusal(f"Please enter at most {MAX_TERMS} terms in each disjunctive clause!")
    if any(not (0 <= token < served.vocabulary or token == served.separator) for term in terms for token in term):
        raise Refusal("Some item(s) in your query_ids are out-of-range!")
    names = served.pieces.names
    return [[names(term) for term in clause] for clause in ids] if is_clauses else names(ids)
