"""The sources of a run: input rows, cleaned, cut, grouped, split, with salient words marked; or rejected with a reason.

Rows are read once, in order, into a file without a name (`corpus.source_spool`), and from there again, in the order of their ids,
when the tables are made. In memory are some numbers per row, and the document frequencies of words.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from limbeck.corpus.earlier_runs import read_run
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.local_labels import read_local_labels
from limbeck.corpus.near_duplicates.groups import Places
from limbeck.corpus.near_duplicates.shingles import Hashes
from limbeck.corpus.packages import read_packages
from limbeck.corpus.readers import RawRow, read_documents, read_text, reason_without_details
from limbeck.corpus.records import VARY, read_conversations, read_labelled, read_seeds
from limbeck.corpus.salience import document_frequencies, salient_spans
from limbeck.corpus.schemas import SOURCES
from limbeck.corpus.seeds import derive_id, derive_seed
from limbeck.corpus.sentences import cut
from limbeck.corpus.source_kinds import (
    ConversationSources,
    CsvSources,
    DrawSources,
    HuggingFaceSources,
    JsonlSources,
    LabelledSources,
    LocalLabelSources,
    PackagesSources,
    ParquetSources,
    RunSources,
    SeedSources,
    Sources,
    SourcesConfig,
    TextSources,
    TextualSources,
)
from limbeck.corpus.source_spool import Spool, StoredRow, writing
from limbeck.corpus.split import SPLITS, near_duplicate_labels, split_groups, split_key
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.corpus.vary import drawing

FOLLOWING_TOKENS = 50
"""Maximum length of the text kept after a cut, which a summary of the part before it should help to predict."""

ROWS_PER_TABLE = 1024
_TEXTS_PER_CHUNK = 256
_ROWS_AT_ONCE = 1 << 16
_NONE = -1


class State(IntEnum):
    """What became of a row: in one of the splits (their places in `SPLITS`), or rejected, and why."""

    TRAIN, DEV, TEST, LEFT_OVER, USABLE, UNREADABLE, SAME, OVER, FIRST_WORD, SHORT = range(10)


_REJECTED = (State.LEFT_OVER, State.UNREADABLE, State.SAME, State.OVER, State.FIRST_WORD, State.SHORT)


def read_sources(config: SourcesConfig, tokenizer: Tokenizer, seed: int) -> pa.Table:
    """Read every input row into a table of `limbeck.corpus.schemas.SOURCES`, used rows first, each part by source_id.

    Every row occurs exactly once: in a split, or rejected with a reason. The result depends on the rows, the configuration and
    `seed`, but not on the order of the rows. Raises LimbeckError if an input is missing or broken, or no document is usable.
    """
    with prepared(config, tokenizer, seed) as sources:
        return pa.concat_tables([SOURCES.empty_table(), *sources.tables(*SPLITS), *sources.tables("rejected")])


def refuse_unreadable(config: TextualSources) -> None:
    """Raise LimbeckError if an input is missing, or its first row cannot be read."""
    if next(iter(_read(config)), None) is None:
        raise LimbeckError(f"there are no {config.rows_are} in {config.where}; give other sources")


@contextmanager
def prepared(config: SourcesConfig, tokenizer: Tokenizer, seed: int, folder: Path | None = None) -> Iterator["Prepared"]:
    """Read every input row, and yield the sources; the rows are kept on disk in `folder`, or where temporary files are.

    Raises as `read_sources` does.
    """
    draw = drawing(config.vary or {}, seed) if config.vary else None  # its files are read before the documents
    spool = Spool(folder)
    try:
        yield _Preparation(config, tokenizer, seed, spool, folder).prepared(draw)
    finally:
        spool.close()


class Prepared:
    """The sources: what is known of every row without its text, and tables made on demand."""

    def __init__(self, rows: "_Rows", config: SourcesConfig, draw: Any) -> None:
        """`draw`: the values of `vary` for a source_id; None: there are none."""
        self._rows, self._draw = rows, draw
        self._fraction = 0.0 if isinstance(config, DrawSources) else config.salient_fraction
        self._frequencies: Counter[str] = Counter()
        self._documents = 0
        if self._fraction:
            train = np.flatnonzero(rows.states == State.TRAIN)
            self._frequencies, self._documents = document_frequencies(document for _, document in rows.documents(train))

    def count(self, *splits: str) -> int:
        """How many rows are in these splits, of which "rejected" is one."""
        return len(self._places(splits))

    @property
    def document_tokens(self) -> int:
        """The tokens of all documents that are used."""
        return int(self._rows.tokens[self._places(SPLITS)].sum(dtype=np.int64))

    def tables(self, *splits: str, rows: int = ROWS_PER_TABLE) -> Iterator[pa.Table]:
        """The rows of these splits by source_id, so many per table of `limbeck.corpus.schemas.SOURCES`."""
        return self.sliced(splits, ((start, start + rows) for start in range(0, self.count(*splits), rows)))

    def sliced(self, splits: Iterable[str], bounds: Iterable[tuple[int, int]]) -> Iterator[pa.Table]:
        """The rows of these splits by source_id, as one table for each (begin, end)."""
        places = self._places(tuple(splits))
        places = places[np.argsort(self._rows.ids[places], kind="stable")]
        return (self._table(places[begin:end]) for begin, end in bounds)

    def _places(self, splits: Iterable[str]) -> Places:
        wanted = [state for name in splits for state in (_REJECTED if name == "rejected" else [SPLITS.index(name)])]
        return np.flatnonzero(np.isin(self._rows.states, wanted))

    def _table(self, places: Places) -> pa.Table:
        return pa.Table.from_pylist([self._row(place) for place in places.tolist()], schema=SOURCES)

    def _row(self, place: int) -> dict[str, Any]:
        rows, state = self._rows, State(int(self._rows.states[place]))
        stored, source_id = rows.spool[place], _hex(rows.ids[place])
        document, following = rows.document_of(place, stored), int(rows.following[place])
        is_used = state not in _REJECTED
        record = stored.record
        if is_used and self._draw is not None:
            record = _as_json({**(json.loads(record) if record else {}), VARY: self._draw(source_id)})
        salient: list[int] = []
        if is_used and document:
            salient = salient_spans(document, self._frequencies, self._documents, self._fraction)
        return {
            "source_id": source_id,
            "document": document,
            "reference": stored.reference,
            "origin": stored.origin,
            "split": SPLITS[state] if is_used else "rejected",
            "group": _hex(rows.groups[place]),
            "document_tokens": int(rows.tokens[place]),
            "cut_characters": len(stored.text) - len(document) if document else 0,
            "following": None if following == _NONE else stored.text[len(document) :].lstrip()[:following],
            "salient": salient,
            "reason": None if is_used else rows.reason(place, stored),
            "record": record,
        }


class _Rows:
    """Numbers of all rows, in the order in which they were read, and the rows themselves on disk."""

    def __init__(self, spool: Spool, ids: Hashes, states: npt.NDArray[np.int8], config: SourcesConfig) -> None:
        """`ids`, `states`: of each row."""
        self.spool, self.ids, self.states, self._config = spool, ids, states, config
        self.first = np.arange(len(ids))  # the row that has the same content
        self.lengths = np.zeros(len(ids), np.int64)  # characters of the document
        self.tokens = np.zeros(len(ids), np.int32)
        self.following = np.full(len(ids), _NONE, np.int32)  # characters of the text after the cut
        self.groups = ids.copy()

    def document_of(self, place: int, stored: StoredRow) -> str:
        """The document of a row: the start of its text."""
        return stored.text[: int(self.lengths[place])]

    def documents(self, places: Places) -> Iterator[tuple[int, str]]:
        """The rows at these places with their documents."""
        for place in places.tolist():
            yield place, self.document_of(place, self.spool[place])

    def reason(self, place: int, stored: StoredRow) -> str:
        """Why a row is rejected."""
        config: Any = self._config
        match State(int(self.states[place])):
            case State.UNREADABLE:
                return str(stored.reason)
            case State.SAME:
                return f"same content as {self.spool[int(self.first[place])].origin}"
            case State.OVER:
                return f"over max_documents: {config.max_documents}"
            case State.FIRST_WORD:
                return f"its first word alone exceeds {config.max_source_tokens} tokens"
            case State.SHORT:
                return f"too short: {self.tokens[place]} of {config.min_source_tokens} tokens"
            case State.LEFT_OVER:
                return "more than the split asks for"
            case state:
                raise AssertionError(f"{state.name} is not rejected")


class _Documents:
    """The documents of rows, as `near_duplicate_labels` reads them."""

    def __init__(self, rows: _Rows, places: Places) -> None:
        self._rows, self._places = rows, places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def chunks(self) -> Iterator[pa.Array]:
        for start in range(0, len(self._places), _TEXTS_PER_CHUNK):
            yield self._array(self._places[start : start + _TEXTS_PER_CHUNK])

    def take(self, places: Places) -> pa.ChunkedArray:
        return pa.chunked_array([self._array(self._places[places])])

    def _array(self, places: Places) -> pa.Array:
        return pa.array([document for _, document in self._rows.documents(places)], pa.large_string())


class _Preparation:
    """The steps from input rows to sources."""

    def __init__(self, config: SourcesConfig, tokenizer: Tokenizer, seed: int, spool: Spool, folder: Path | None) -> None:
        self._config, self._tokenizer, self._seed, self._spool, self._folder = config, tokenizer, seed, spool, folder

    def prepared(self, draw: Any) -> Prepared:
        rows = self._read()
        if not isinstance(self._config, DrawSources):
            self._reject_equal(rows)
            self._cut(rows, self._config)
            usable = np.flatnonzero(rows.states == State.USABLE)
            if not len(usable):
                raise LimbeckError(self._nothing_usable(rows))
            self._group(rows, usable, self._config.near_duplicate_threshold)
        self._split(rows)
        return Prepared(rows, self._config, draw)

    def _read(self) -> _Rows:
        """Store every row, with its id."""
        ids, states = [np.empty(0, np.uint64)], [np.empty(0, np.int8)]
        config = self._config
        found = _draws(config.count, self._seed) if isinstance(config, DrawSources) else _identified(_read(config))
        for source_id, row, record in found:
            if len(ids) == 1 or len(self._spool) % _ROWS_AT_ONCE == 0:
                ids.append(np.empty(_ROWS_AT_ONCE, np.uint64))
                states.append(np.empty(_ROWS_AT_ONCE, np.int8))
            ids[-1][len(self._spool) % _ROWS_AT_ONCE] = int(source_id, 16)
            states[-1][len(self._spool) % _ROWS_AT_ONCE] = State.USABLE if row.reason is None else State.UNREADABLE
            self._spool.append(row, record)
        self._spool.flush()
        count = len(self._spool)
        return _Rows(self._spool, np.concatenate(ids)[:count], np.concatenate(states)[:count], config)

    def _reject_equal(self, rows: _Rows) -> None:
        """Of rows with the same content the first is kept; the others get ids of their own."""
        usable = np.flatnonzero(rows.states == State.USABLE)
        _, firsts, inverse = np.unique(rows.ids[usable], return_index=True, return_inverse=True)
        rows.first[usable] = usable[firsts[inverse]]
        for place in usable[rows.first[usable] != usable].tolist():
            stored = rows.spool[place]
            rows.states[place] = State.SAME
            rows.ids[place] = rows.groups[place] = int(_hash(stored.text, stored.origin), 16)

    def _cut(self, rows: _Rows, config: Sources) -> None:
        """Cut and count, up to `max_documents` in an order drawn by the seed."""
        places = np.flatnonzero(rows.states == State.USABLE)
        if config.max_documents is not None:
            places = places[np.argsort(self._keys(rows, places), kind="stable")]
        used = 0
        for place in places.tolist():
            if config.max_documents is not None and used >= config.max_documents:
                rows.states[place] = State.OVER
                continue
            text = rows.spool[place].text
            if text:  # only kinds that need no document have rows without a text or a reason
                document, tokens = cut(text, self._tokenizer, config.max_source_tokens)
                following = _following(text, document, self._tokenizer)
                rows.lengths[place], rows.tokens[place] = len(document), tokens
                rows.following[place] = _NONE if following is None else len(following)
                if not document or tokens < config.min_source_tokens:
                    rows.states[place] = State.SHORT if document else State.FIRST_WORD
                    continue
            used += 1

    def _keys(self, rows: _Rows, places: Places) -> Hashes:
        keys = (derive_seed(self._seed, "documents", _hex(source_id)) for source_id in rows.ids[places])
        return np.fromiter(keys, np.uint64, len(places))

    def _group(self, rows: _Rows, usable: Places, threshold: float) -> None:
        """Group near-duplicate documents, and related rows without one, by their smallest source_id."""
        usable = usable[np.argsort(rows.ids[usable], kind="stable")]
        written = usable[rows.lengths[usable] > 0]
        if len(written):
            with writing(self._folder):
                labels = near_duplicate_labels(_Documents(rows, written), threshold, self._folder)
            rows.groups[written] = rows.ids[written[labels]]
        related: dict[str, int] = {}
        if isinstance(self._config, RunSources):  # no other kind relates rows
            for place in usable[rows.lengths[usable] == 0].tolist():
                key = rows.spool[place].related or _hex(rows.ids[place])
                rows.groups[place] = related.setdefault(key, int(rows.ids[place]))

    def _split(self, rows: _Rows) -> None:
        usable = np.flatnonzero(rows.states == State.USABLE)
        groups, inverse, sizes = np.unique(rows.groups[usable], return_inverse=True, return_counts=True)
        keys = np.fromiter((split_key(_hex(group), self._seed) for group in groups), np.uint64, len(groups))
        try:
            chosen = split_groups(sizes, keys, self._config.split)
        except LimbeckError as error:
            raise LimbeckError(f"{error}{_others(rows)}") from error
        rows.states[usable] = chosen[inverse]

    def _nothing_usable(self, rows: _Rows) -> str:
        config = self._config
        if not len(rows.ids):
            return f"there are no {config.rows_are} in {config.where}; give other sources"
        unread = np.flatnonzero(np.isin(rows.states, (State.UNREADABLE, State.SAME)))
        place = int(unread[0]) if len(unread) else int(np.argmin(self._keys(rows, np.arange(len(rows.ids)))))
        stored = rows.spool[place]
        first = f"the first, {stored.origin}: {rows.reason(place, stored)}"
        count = len(rows.ids)
        rest = f"none of the {count} rows of {config.where} is usable ({first})"
        return f"{rest}; give other sources, or relax the limits"


def _draws(count: int, seed: int) -> Iterator[tuple[str, RawRow, None]]:
    """Sources that differ only in their number."""
    return ((derive_id("draws", seed, place), RawRow(f"draw {place}", ""), None) for place in range(count))


def _identified(rows: Iterable[RawRow]) -> Iterator[tuple[str, RawRow, str | None]]:
    """Rows with their ids, hashes of the content (and of the origin if they cannot be read), and records as JSON."""
    for row in rows:
        record = None if row.record is None else _as_json(row.record)
        content = [row.text, row.origin] if row.reason is not None else [row.text] if record is None else [row.text, record]
        yield _hash(*content), row, record


def _read(config: TextualSources) -> Iterator[RawRow]:
    match config:
        case TextSources():
            return read_text(config.path)
        case JsonlSources() | CsvSources() | ParquetSources() | HuggingFaceSources():
            return read_documents(config.tables(), config.document_column, config.reference_column)
        case PackagesSources():
            return read_packages()
        case SeedSources():
            return read_seeds(config.tables())
        case LabelledSources():
            return read_labelled(config.tables(), config.document_column, config.reference_column)
        case LocalLabelSources():
            return read_local_labels(config.tables, config.wordnet)
        case ConversationSources():
            return read_conversations(config.tables(), config.column)
        case RunSources():
            return read_run(config.run, config.round, config.selection)
        case _:
            assert_never(config)


def _following(text: str, document: str, tokenizer: Tokenizer) -> str | None:
    """The first sentences of the text cut off after `document`, within `FOLLOWING_TOKENS`; None if there are none."""
    rest = text[len(document) :].lstrip() if document else ""
    return cut(rest, tokenizer, FOLLOWING_TOKENS)[0] or None if rest else None


def _hash(*parts: str) -> str:
    """16 hexadecimal digits of the SHA-256 of the parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _hex(source_id: Any) -> str:
    """An id as text; the order is the same."""
    return f"{int(source_id):016x}"


def _as_json(record: Mapping[str, Any]) -> str:
    """A record as stored and hashed, independent of the order of its columns."""
    return json.dumps(record, ensure_ascii=False, sort_keys=True)


def _others(rows: _Rows) -> str:
    """How many rows are unusable, by reason without its details, in brackets; "" if none is."""
    unusable = np.flatnonzero(np.isin(rows.states, _REJECTED)).tolist()
    reasons = Counter(reason_without_details(rows.reason(place, rows.spool[place])) for place in unusable)
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return f" (not usable: {counts})" if counts else ""
