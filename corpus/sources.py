"""The sources of a run: input rows, cleaned, cut, grouped, split, with salient words marked; or rejected with a reason."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, assert_never

import pyarrow as pa

from limbeck.corpus.earlier_runs import read_run
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.packages import read_packages
from limbeck.corpus.readers import RawRow, read_documents, read_text, reason_without_details
from limbeck.corpus.records import VARY, read_conversations, read_labelled, read_seeds
from limbeck.corpus.salience import document_frequencies, salient_spans
from limbeck.corpus.schemas import SOURCES
from limbeck.corpus.seeds import derive_id, derive_seed
from limbeck.corpus.sentences import cut
from limbeck.corpus.source_kinds import (
    AnySources,
    ConversationSources,
    CsvSources,
    DrawSources,
    HuggingFaceSources,
    JsonlSources,
    LabelledSources,
    PackagesSources,
    ParquetSources,
    RunSources,
    SeedSources,
    Sources,
    SourcesConfig,
    TextSources,
    TextualSources,
)
from limbeck.corpus.split import assign_splits, near_duplicate_groups
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.corpus.vary import drawing

FOLLOWING_TOKENS = 50
"""Maximum length of the text kept after a cut, which a summary of the part before it should help to predict."""


@dataclass(frozen=True)
class _Source:
    """A row of the table under construction; `split` is None until it is assigned."""

    source_id: str
    row: RawRow
    document: str = ""
    tokens: int = 0
    following: str | None = None
    group: str = ""
    split: str | None = None
    salient: tuple[int, ...] = ()


def read_sources(config: SourcesConfig, tokenizer: Tokenizer, seed: int) -> pa.Table:
    """Read every input row into a table of `limbeck.corpus.schemas.SOURCES`, used rows first, each part by source_id.

    Every row occurs exactly once: in a split, or rejected with a reason. The result depends on the rows, the configuration and
    `seed`, but not on the order of the rows. Raises LimbeckError if an input is missing or broken, or no document is usable.
    """
    draw = drawing(config.vary or {}, seed)  # its files are read before the documents
    rejected: list[_Source] = []
    if isinstance(config, DrawSources):
        usable = _draws(config.count, seed)
    else:
        usable, rejected = _read_usable(config, tokenizer, seed)
    count = len(usable) + len(rejected)
    try:
        splits = assign_splits({source.source_id: source.group for source in usable}, config.split, seed)
    except LimbeckError as error:
        raise LimbeckError(f"{error}{_others(rejected)}") from error
    usable = [replace(source, split=splits[source.source_id]) for source in usable]
    left_over = [_rejected(source, "more than the split asks for") for source in usable if source.split is None]
    used = [source for source in usable if source.split is not None]
    if not isinstance(config, DrawSources):
        used = _with_salience(used, config.salient_fraction)
    if config.vary:
        used = [_with_drawn(source, draw(source.source_id)) for source in used]
    assert len(used) + len(rejected) + len(left_over) == count
    return _table(sorted(used, key=_by_id) + sorted(rejected + left_over, key=_by_id))


def _draws(count: int, seed: int) -> list[_Source]:
    """Sources that differ only in their number."""
    rows = [(derive_id("draws", seed, place), RawRow(f"draw {place}", "")) for place in range(count)]
    return [_Source(source_id, row, group=source_id) for source_id, row in rows]


def _read_usable(config: TextualSources, tokenizer: Tokenizer, seed: int) -> tuple[list[_Source], list[_Source]]:
    """Every input row, with its group if it is usable, else with a reason; raises LimbeckError if none is usable."""
    rows = list(_read(config))
    usable, rejected = _identify(rows)
    usable, unusable = _prepare(usable, config, tokenizer, seed)
    rejected += unusable
    if not usable:
        raise LimbeckError(_nothing_usable(config, rejected))
    assert len(usable) + len(rejected) == len(rows)
    groups = _groups(usable, config.near_duplicate_threshold)
    return [replace(source, group=groups[source.source_id]) for source in usable], rejected


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
        case ConversationSources():
            return read_conversations(config.tables(), config.column)
        case RunSources():
            return read_run(config.run, config.round, config.selection)
        case _:
            assert_never(config)


def _identify(rows: Iterable[RawRow]) -> tuple[list[_Source], list[_Source]]:
    """Assign ids, and separate the readable rows from the others; of rows with the same content the first is kept."""
    usable: dict[str, _Source] = {}
    rejected: list[_Source] = []
    for row in rows:
        source_id = _hash(row.text) if row.record is None else _hash(row.text, _as_json(row.record))
        if row.reason is not None:
            rejected.append(_rejected(_Source(_hash(row.text, row.origin), row), row.reason))
        elif source_id in usable:
            reason = f"same content as {usable[source_id].row.origin}"
            rejected.append(_rejected(_Source(_hash(row.text, row.origin), row), reason))
        else:
            usable[source_id] = _Source(source_id, row)
    return list(usable.values()), rejected


def _groups(sources: list[_Source], threshold: float) -> dict[str, str]:
    """Map each source_id to its group: near-duplicate documents, or related rows without one, by their smallest source_id."""
    documents = {source.source_id: source.document for source in sources if source.document}
    groups = near_duplicate_groups(documents, threshold) if documents else {}
    related: dict[str, str] = {}
    bare = sorted((source for source in sources if not source.document), key=_by_id)
    for source in bare:
        groups[source.source_id] = related.setdefault(source.row.related or source.source_id, source.source_id)
    return groups


def _prepare(sources: Iterable[_Source], config: Sources, tokenizer: Tokenizer, seed: int) -> tuple[list[_Source], list[_Source]]:
    """Cut and count, in an order drawn by `seed`, up to `max_documents`; returns the usable and the rejected."""
    usable: list[_Source] = []
    rejected: list[_Source] = []
    for source in sorted(sources, key=lambda source: derive_seed(seed, "documents", source.source_id)):
        if config.max_documents is not None and len(usable) >= config.max_documents:
            rejected.append(_rejected(source, f"over max_documents: {config.max_documents}"))
            continue
        if not source.row.text:
            usable.append(source)  # only kinds that need no document have such rows without a reason
            continue
        document, tokens = cut(source.row.text, tokenizer, config.max_source_tokens)
        source = replace(source, document=document, tokens=tokens, following=_following(source.row.text, document, tokenizer))
        if not document:
            rejected.append(_rejected(source, f"its first word alone exceeds {config.max_source_tokens} tokens"))
        elif tokens < config.min_source_tokens:
            rejected.append(_rejected(source, f"too short: {tokens} of {config.min_source_tokens} tokens"))
        else:
            usable.append(source)
    return usable, rejected


def _following(text: str, document: str, tokenizer: Tokenizer) -> str | None:
    """The first sentences of the text cut off after `document`, within `FOLLOWING_TOKENS`; None if there are none."""
    rest = text[len(document) :].lstrip() if document else ""
    return cut(rest, tokenizer, FOLLOWING_TOKENS)[0] or None if rest else None


def _with_salience(sources: list[_Source], fraction: float) -> list[_Source]:
    frequencies, documents = document_frequencies(source.document for source in sources if source.split == "train")
    return [replace(s, salient=tuple(salient_spans(s.document, frequencies, documents, fraction))) for s in sources]


def _with_drawn(source: _Source, drawn: Mapping[str, Any]) -> _Source:
    return replace(source, row=replace(source.row, record={**(source.row.record or {}), VARY: drawn}))


def _rejected(source: _Source, reason: str) -> _Source:
    return replace(source, split="rejected", group=source.group or source.source_id, row=replace(source.row, reason=reason))


def _hash(*parts: str) -> str:
    """16 hexadecimal digits of the SHA-256 of the parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _as_json(record: Mapping[str, Any]) -> str:
    """A record as stored and hashed, independent of the order of its columns."""
    return json.dumps(record, ensure_ascii=False, sort_keys=True)


def _by_id(source: _Source) -> str:
    return source.source_id


def _table(sources: list[_Source]) -> pa.Table:
    columns: Mapping[str, list[object]] = {
        "source_id": [source.source_id for source in sources],
        "document": [source.document for source in sources],
        "reference": [source.row.reference for source in sources],
        "origin": [source.row.origin for source in sources],
        "split": [source.split for source in sources],
        "group": [source.group for source in sources],
        "document_tokens": [source.tokens for source in sources],
        "cut_characters": [len(source.row.text) - len(source.document) if source.document else 0 for source in sources],
        "following": [source.following for source in sources],
        "salient": [list(source.salient) for source in sources],
        "reason": [source.row.reason for source in sources],
        "record": [None if source.row.record is None else _as_json(source.row.record) for source in sources],
    }
    return pa.table(columns, schema=SOURCES)


def _others(rejected: list[_Source]) -> str:
    """How many rows are unusable, by reason without its details, in brackets; "" if none is."""
    reasons = Counter(reason_without_details(str(source.row.reason)) for source in rejected)
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return f" (not usable: {counts})" if counts else ""


def _nothing_usable(config: AnySources, rejected: list[_Source]) -> str:
    if not rejected:
        return f"there are no {config.rows_are} in {config.where}; give other sources"
    first = f"the first, {rejected[0].row.origin}: {rejected[0].row.reason}"
    return f"none of the {len(rejected)} rows of {config.where} is usable ({first}); give other sources, or relax the limits"
