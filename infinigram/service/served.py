"""The indexes of a service, by name, and what its routes need from them."""

import contextlib
import hashlib
import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from limbeck import _infinigram
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.files import replace_json
from limbeck.infinigram.compat import InfiniGramEngine
from limbeck.infinigram.errors import BadIndex, BadQuery
from limbeck.infinigram.index import Index
from limbeck.infinigram.layout import file_states, read_manifest, state
from limbeck.infinigram.manifest import WIDTH_BYTES
from limbeck.infinigram.pieces import Pieces
from limbeck.infinigram.readers import Reader
from limbeck.infinigram.readers import state as reader_state
from limbeck.infinigram.service.limits import Limits, Refused

Span = tuple[int, int, int | None]  # begin, end, and the number of the clause that it matches
_POLL_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 60.0
_log = logging.getLogger("limbeck.ngram")
_CHARACTERS_PER_TOKEN = 16  # a text longer than this times the token limit is refused before tokenisation


class IndexSpec(BaseModel):
    """An index to serve: its name in requests, its folder or folders, and properties that an official folder does not record."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    paths: tuple[str, ...]
    dtype: Literal["u8", "u16", "u32"] | None = None
    version: Literal[4, 5] | None = None
    eos: int | None = None
    tokenizer: str | None = None
    load: Literal["mmap", "ram"] = "mmap"


@dataclass(frozen=True)
class Served:
    """An open index with its name and its tokens' texts."""

    name: str
    index: Index
    pieces: Pieces
    vocabulary: int
    separator: int
    official: InfiniGramEngine

    def ids(self, text: str | None, ids: list[int] | None, most: int) -> list[int]:
        """Token ids of a query; raises BadQuery if it is too long, or is text and there is no tokenizer."""
        if ids is None:
            assert text is not None
            ids = self.encode(text, most)
        if len(ids) > most:
            raise BadQuery(f"the query has {len(ids):,} tokens; the maximum is {most:,}")
        return ids

    def encode(self, text: str, most: int) -> list[int]:
        """Token ids of a text; a much too long one is refused before any work."""
        if len(text) > most * _CHARACTERS_PER_TOKEN:
            raise BadQuery(f"the text has {len(text):,} characters; the maximum is {most:,} tokens")
        try:
            text.encode()  # tokenizers fail in various ways
        except UnicodeError as error:
            raise BadQuery("the text contains an unpaired surrogate; send whole characters") from error
        return list(self.index.ids(text))

    def spans(self, ids: Sequence[int], clauses: Sequence[Sequence[Sequence[int]]]) -> list[tuple[str, int | None]]:
        """The text of a window, split at term matches: (text, number of the clause or None)."""
        texts = self.pieces.texts(ids)
        return [("".join(texts[begin:end]), label) for begin, end, label in cut(ids, clauses)]


def cut(ids: Sequence[int], clauses: Sequence[Sequence[Sequence[int]]]) -> list[Span]:
    """Split a window at every match of a term: (begin, end, number of the clause or None); earlier clauses take precedence.

    O(tokens * terms), more if terms begin with tokens that are frequent in the window.
    """
    tokens = list(ids)
    spans: list[Span] = [(0, len(tokens), None)] if tokens else []
    for number, clause in enumerate(clauses):
        for term in clause:
            if term:
                spans = [part for span in spans for part in _cut_one(tokens, span, list(term), number)]
    return spans


def _cut_one(tokens: list[int], span: Span, term: list[int], number: int) -> Iterable[Span]:
    begin, end, label = span
    if label is not None:
        yield span
        return
    at = begin
    while True:
        try:
            at = tokens.index(term[0], at, end - len(term) + 1)
        except ValueError:
            break
        if tokens[at : at + len(term)] != term:
            at += 1
            continue
        if at > begin:
            yield begin, at, None
        at += len(term)
        yield at - len(term), at, number
        begin = at
    if begin < end:
        yield begin, end, None


def is_segment(name: str) -> bool:
    """Whether an index of this name can be asked for at /v1/NAME."""
    # clients resolve dots before they send a path; /v1/indexes lists all indexes
    return name not in ("", ".", "..", "indexes") and "/" not in name and name.isprintable()


class Serving:
    """All indexes of a service, and their limits. Opens each; what cannot be opened is reported by `problems`, not raised.

    `refresh` opens an index again if it changed on disk. A request that began before keeps the index that it found. Services of
    one folder `shared` tell each other about damage.
    """

    def __init__(self, specs: Sequence[IndexSpec], limits: Limits, shared: Path | None = None) -> None:
        names = [spec.name for spec in specs]
        twice = {name for name in names if names.count(name) > 1}
        if not names:
            raise BadIndex("no index was given; name at least one folder")
        if unusable := [name for name in names if not is_segment(name)]:
            raise BadIndex(
                f"an index cannot be served as {unusable[0]!r}, since its name is a part of URLs; name it: NAME=FOLDER"
            )
        if twice:
            raise BadIndex(f"two indexes are named {twice.pop()!r}; give them different names: NAME=FOLDER")
        self.limits = limits
        self._kept = {spec.name: Kept(spec, shared) for spec in specs}
        self._refreshing = threading.Lock()
        self.refresh()

    def __iter__(self) -> Iterator[Served]:
        """The indexes in service, as given."""
        return iter([kept.served for kept in self._kept.values() if kept.served is not None])

    @property
    def names(self) -> list[str]:
        """The names of all indexes, as given."""
        return list(self._kept)

    @property
    def problems(self) -> dict[str, str]:
        """By name, one sentence for every index that is out of service, damaged, or whose new state cannot be opened."""
        return {name: words for name, kept in self._kept.items() if (words := kept.trouble) is not None}

    def require_all(self) -> None:
        """Raise BadIndex unless every index is in service."""
        for name, problem in self.problems.items():
            raise BadIndex(problem if len(self._kept) == 1 else f"index {name!r}: {problem}")

    def close(self) -> None:
        """Stop listing this process as a holder of the indexes."""
        for kept in self._kept.values():
            kept.close()

    def refresh(self) -> None:
        """Take indexes out of service whose files shrank, and open those that changed on disk."""
        with self._refreshing:
            for kept in self._kept.values():
                kept.refresh()

    def watch(self) -> None:
        """Refresh every second, in a thread that ends with this object."""
        threading.Thread(target=_watch, args=(weakref.ref(self),), name="watch indexes", daemon=True).start()

    def corrupted(self, name: str, shrinks: int) -> bool:
        """Whether an answer from an index must be discarded: a file shrank since the process had caught `shrinks` such reads."""
        if _infinigram.shrinks() == shrinks or name not in self._kept:
            return False
        kept = self._kept[name]
        kept.check_mapped()
        return kept.shrunk_at > shrinks

    def damaged(self, served: Served, error: BadIndex) -> None:
        """Report damage of an index that a request found, until the index is opened again."""
        self._kept[served.name].damaged(served, str(error))

    def get(self, name: Any) -> Served | None:
        """The index with this name, or None if none has it; raises Refused with 503 if it is out of service."""
        kept = self._kept.get(name) if isinstance(name, str) else None
        return None if kept is None else kept.need()

    def find(self, name: str) -> Served:
        """The index with this name; raises Refused with 404 if it does not exist, and with 503 if it is out of service."""
        served = self.get(name)
        if served is None:
            raise Refused(404, f"no index {name[:80]!r}; available: {', '.join(self.names)}")
        return served


def _watch(reference: "weakref.ref[Serving]") -> None:
    while True:
        time.sleep(_POLL_SECONDS)
        serving = reference()
        if serving is None:
            return
        try:
            serving.refresh()
        except Exception as error:  # whatever it is, the indexes in service stay, and the next look may succeed
            _log.error("looking for changed indexes failed", exc_info=error)
        del serving


class Kept:
    """One index of a service over its changes: what is served now, or why nothing is."""

    def __init__(self, spec: IndexSpec, shared: Path | None = None) -> None:
        self.served: Served | None = None
        self.problem: str | None = None
        self.shrunk_at = 0  # how many reads of shrunken files the process had caught when a file of this index shrank
        self._spec = spec
        self._folders = [Path(path) for path in spec.paths]
        self._state: Any = None
        self._files: dict[str, tuple[int, int, int]] = {}
        self._readers: list[Reader] = []
        self._failures = 0
        self._retry_at = 0.0
        self._missing: str | None = None
        self._damage: tuple[Served, str, list[Any]] | None = None  # found in what, its words, and the files at that time
        self._notice = None if shared is None else shared / f"{hashlib.sha256(spec.name.encode()).hexdigest()[:16]}.json"

    @property
    def trouble(self) -> str | None:
        """One sentence if the index is not well."""
        damage = self._damage_of_served
        return self.problem or (damage[1] if damage is not None else self._missing)

    @property
    def _damage_of_served(self) -> tuple[Served, str, list[Any]] | None:
        damage = self._damage
        return damage if damage is not None and damage[0] is self.served else None

    def damaged(self, served: Served, words: str) -> None:
        """A request found damage in an index; ignored if another one is served now."""
        if served is self.served and self._damage_of_served is None:
            self._damage = (served, words, self._file_states())
            _log.error("index %s: %s", self._spec.name, words)

    def need(self) -> Served:
        """The open index; raises Refused with 503."""
        served = self.served
        if served is None:
            raise Refused(503, f"index {self._spec.name!r} is out of service: {self.problem}")
        return served

    def refresh(self) -> None:
        """Take the index out of service if a file shrank, and open it if it changed on disk or is out of service."""
        self.check_mapped()
        self._check_sizes()
        damage = self._damage_of_served
        now = (state(self._folders), self._file_states() if self.served is None or damage is not None else None)
        if damage is not None and self._state == (now[0], None):
            self._state = (now[0], damage[2])  # the damaged files are opened again when they change
            self._notify(*damage[1:])
        if now == self._state and (self.problem is None or time.monotonic() < self._retry_at):
            self._check_missing()
            self._read_notice()
            return
        held = [reader_state(folder) for folder in self._folders]
        try:
            served = open_served(self._spec)
        except (LimbeckError, OSError) as error:
            self._failures = self._failures + 1 if now == self._state else 0
            self._retry_at = time.monotonic() + min(_LONGEST_RETRY_SECONDS, _POLL_SECONDS * 2**self._failures)
            self._report(str(error) if self.served is None else f"its new state cannot be opened, the old one is served: {error}")
            self._state = now
            return
        self._state = (now[0], None)  # of before: what changed while it was opened is opened again
        self._files = _sizes(served)
        if self.problem is not None:
            _log.error("index %s is in service again", self._spec.name)
        self.served, self.problem, self._failures, self._missing = served, None, 0, None
        self.close()
        self._readers = [Reader(folder, shown) for folder, shown in zip(self._folders, held, strict=True)]

    def close(self) -> None:
        """Stop listing this process as a holder."""
        for reader in self._readers:
            reader.close()
        self._readers = []

    def _file_states(self) -> list[Any]:
        return [file_states(folder) for folder in self._folders]

    def _check_missing(self) -> None:
        path = next((path for path in self._files if not os.path.exists(path)), None) if self.served is not None else None
        if path is not None and (self._state is None or state(self._folders) != self._state[0]):
            return  # the index was replaced meanwhile
        words = None if path is None else f"{path} is missing; its open copy is served; restore it, or rebuild the index"
        if words is not None and words != self._missing:
            _log.error("index %s: %s", self._spec.name, words)
        self._missing = words

    def _notify(self, damage: str, files: list[Any]) -> None:
        """Tell the other workers about damage in the files that they serve, too."""
        if self._notice is not None:
            with contextlib.suppress(OSError):
                replace_json(self._notice, {"files": repr(files), "damage": damage})

    def _read_notice(self) -> None:
        """Take over the damage that another worker found in the same files."""
        if self._notice is None or self.served is None or self._damage_of_served is not None or not self._notice.exists():
            return
        notice = json.loads(self._notice.read_text(encoding="utf-8"))
        if notice["files"] == repr(self._file_states()):
            self.damaged(self.served, notice["damage"])

    def check_mapped(self) -> None:
        """Take the index out of service if a read beyond the end of one of its files was caught."""
        served = self.served
        path = next((path for path in _infinigram.shrunk_files() if path in self._files), None) if served is not None else None
        if path is not None:
            self._take_out(path)

    def _check_sizes(self) -> None:
        for path, (device, inode, size) in self._files.items() if self.served is not None else ():
            try:
                status = os.stat(path)
            except OSError:  # deleted or moved: the mapping keeps its content
                continue
            if (status.st_dev, status.st_ino) == (device, inode) and status.st_size < size:
                self._take_out(path)
                return

    def _take_out(self, path: str) -> None:
        self.served, self._state = None, None
        self.shrunk_at = _infinigram.shrinks()
        self.close()
        self._report(f"{path} shrank while it was served; restore it, or rebuild the index")

    def _report(self, problem: str) -> None:
        if problem != self.problem:
            _log.error("index %s: %s", self._spec.name, problem)
        self.problem = problem


def _sizes(served: "Served") -> dict[str, tuple[int, int, int]]:
    """Device, inode and size of every mapped file of an index."""
    layout = served.index.layout
    found = {}
    for path in (path for shard in (*layout.shards, *layout.removed) for path in shard.paths if path):
        with contextlib.suppress(OSError):  # deleted meanwhile: the next look finds another state
            status = os.stat(path)
            found[path] = (status.st_dev, status.st_ino, status.st_size)
    return found


def open_served(spec: IndexSpec) -> Served:
    """Open an index to serve; official folders use the official order of shards, on which document numbers depend."""
    tokenizer = None
    if spec.tokenizer is not None:
        from limbeck.infinigram.tokenizers import load_tokenizer

        tokenizer = load_tokenizer(spec.tokenizer)
    official = not any(_manifest(path) for path in spec.paths)
    index = Index.open(
        list(spec.paths),
        dtype=spec.dtype,
        version=spec.version,
        eos=spec.eos,
        tokenizer=tokenizer,
        load=spec.load,
        official_order=official,
    )
    separator = (1 << 8 * WIDTH_BYTES[index.dtype]) - 1
    vocabulary = index.tokenizer.vocabulary if index.tokenizer is not None else separator
    official_engine = InfiniGramEngine.of(index, int(vocabulary), compat=True)
    return Served(spec.name, index, Pieces(index.tokenizer), int(vocabulary), separator, official_engine)


def _manifest(path: str) -> dict[str, Any]:
    return read_manifest(Path(path))
