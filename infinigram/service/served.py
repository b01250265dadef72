"""The indexes of a service, by name, and what its routes need from them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from limbeck.infinigram.errors import BadIndex, BadQuery
from limbeck.infinigram.index import Index
from limbeck.infinigram.layout import read_manifest
from limbeck.infinigram.manifest import WIDTH_BYTES
from limbeck.infinigram.pieces import Pieces
from limbeck.infinigram.service.limits import Limits, Refused

Span = tuple[int, int, int | None]  # begin, end, and the number of the clause that it matches
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


class Serving:
    """All indexes of a service, and their limits."""

    def __init__(self, specs: Sequence[IndexSpec], limits: Limits) -> None:
        names = [spec.name for spec in specs]
        twice = {name for name in names if names.count(name) > 1}
        if not names:
            raise BadIndex("no index was given; name at least one folder")
        if twice:
            raise BadIndex(f"two indexes are named {twice.pop()!r}; give them different names: NAME=FOLDER")
        self.limits = limits
        self._served = {spec.name: open_served(spec) for spec in specs}

    def __iter__(self) -> Iterator[Served]:
        """The indexes, as given."""
        return iter(self._served.values())

    @property
    def names(self) -> list[str]:
        """The indexes' names, as given."""
        return list(self._served)

    def get(self, name: Any) -> Served | None:
        """The index with this name, or None."""
        return self._served.get(name) if isinstance(name, str) else None

    def find(self, name: str) -> Served:
        """The index with this name; raises Refused with 404 if it does not exist."""
        served = self._served.get(name)
        if served is None:
            raise Refused(404, f"no index {name[:80]!r}; available: {', '.join(self.names)}")
        return served


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
    return Served(spec.name, index, Pieces(index.tokenizer), int(vocabulary), separator)


def _manifest(path: str) -> dict[str, Any]:
    from pathlib import Path

    return read_manifest(Path(path))
