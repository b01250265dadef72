"""A journal of answers that were paid for: the answers of a server survive a crash before the part is published."""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from limbeck.cluster.engines.protocol import Completion, Engine, Pair, Request
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.seeds import derive_id


class JournaledEngine:
    """An engine that appends every answer to a file and never requests one that is there again. Thread-safe.

    Requests are identified by their content: prompt, sampling, seed and id. Failed answers are not kept, so they are requested
    again. Scores of pairs are not journaled: only completions are drawn from paid servers.
    """

    def __init__(self, engine: Engine, path: Path) -> None:
        """Read the journal of an earlier process at `path`; a last line truncated by a crash is ignored."""
        self._engine, self._path, self._lock = engine, path, threading.Lock()
        self._known = dict(_read(path))
        self.usage, self.context_tokens = engine.usage, engine.context_tokens

    def complete(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield known answers at once, then the engine's as they finish; each of those is on disk before it is yielded."""
        asked: dict[str, str] = {}
        unknown = []
        for request in requests:
            key = request_key(request)
            if key in self._known:
                yield self._known[key]
            else:
                asked[request.request_id] = key
                unknown.append(request)
        for completion in self._engine.complete(unknown) if unknown else ():
            if completion.finish_reason != "error":
                self._keep(asked[completion.request_id], completion)
            yield completion

    def logprobs(self, pairs: Sequence[Pair]) -> list[npt.NDArray[np.float32]]:
        """The engine's answer."""
        return self._engine.logprobs(pairs)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The engine's answer."""
        return self._engine.count_tokens(texts)

    def _keep(self, key: str, completion: Completion) -> None:
        line = json.dumps({"key": key, **asdict(completion)}, ensure_ascii=True) + "\n"
        try:
            with self._lock:
                self._known[key] = completion
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with open(self._path, "a", encoding="utf-8") as file:
                    file.write(line)
        except OSError as error:
            raise LimbeckError(f"cannot write {self._path}: {error.strerror}; free some space and rerun") from error


def request_key(request: Request) -> str:
    """An id of the complete content of a request."""
    plain: dict[str, Any] = asdict(request)
    for name in ("constraint", "contrast"):
        if plain["sampling"][name] is None:
            del plain["sampling"][name]  # keys that were written before these fields existed remain valid
    return derive_id(json.dumps(plain, sort_keys=True, ensure_ascii=True))


def _read(path: Path) -> Iterator[tuple[str, Completion]]:
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
            key = row.pop("key")
            yield key, Completion(**{**row, "token_ids": tuple(row["token_ids"]), "unmet": tuple(row.get("unmet", ()))})
        except (ValueError, KeyError, TypeError):
            continue
