"""A process that opens indexes and runs every kind of query, so that a crash does not end the test: JSON lines in and out."""

import json
import sys
from typing import Any

from limbeck.corpus.errors import LimbeckError
from limbeck.infinigram.index import Index


def answers(job: dict[str, Any]) -> dict[str, Any]:
    """Results by call and query: values, or {"error": message}; only "open" and a message if it cannot be opened."""
    try:
        index = Index.open(job["folder"], **job["options"])
    except LimbeckError as error:
        return {"open": str(error)}
    calls: dict[str, Any] = {
        "count": index.count,
        "longest_suffix": index.longest_suffix,
        "next_tokens": lambda ids: [part.tolist() for part in (index.next_tokens(ids).ids, index.next_tokens(ids).counts)],
        "prob": lambda ids: list(index.prob(ids, 1)[:2]),
        "infgram_prob": lambda ids: list(index.infgram_prob(ids, 1)[:2]),
        "score": lambda ids: index.score(ids).continuation_counts.tolist(),
        "creativity": lambda ids: index.creativity(ids).tolist(),
        "search": lambda ids: sorted((one.number, one.begin + one.needle) for one in index.search(ids, limit=999).documents),
        "count_cnf": lambda ids: index.count_cnf([[ids[:1]], [ids[-1:]]]) if ids else None,
        "trace": lambda ids: [[span.begin, span.end, span.count] for span in index.trace(ids, spans_per_token=None)],
    }
    found = {f"{name} {query}": answered(call, query) for name, call in calls.items() for query in job["queries"]}
    documents = {f"document {number}": answered(lambda n: index.document(n).ids.tolist(), number) for number in range(12)}
    return {**found, **documents}


def answered(call: Any, argument: Any) -> Any:
    try:
        return call(argument)
    except LimbeckError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(answers(json.loads(line))), flush=True)
