"""The sources of a run: every input row, cleaned, cut, grouped, split, and marked with its salient words; or a reason why not."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal, assert_never

import pyarrow as pa
from pydantic import Field, model_validator

from limbeck.corpus.config import Config
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.packages import read_packages
from limbeck.corpus.readers import RawRow, read_huggingface, read_jsonl, read_parquet, read_text
from limbeck.corpus.salience import document_frequencies, salient_spans
from limbeck.corpus.schemas import SOURCES
from limbeck.corpus.seeds import derive_seed
from limbeck.corpus.sentences import cut
from limbeck.corpus.split import Split, assign_splits, near_duplicate_groups
from limbeck.corpus.tokenizer import Tokenizer

FOLLOWING_TOKENS = 50
"""How much is kept of the text behind a cut: what a summary of the part before it should help to foresee."""


class Sources(Config):
    """What every kind of source shares."""

    max_documents: int | None = Field(None, ge=1, description="use at most this many, drawn by the seed; null: all")
    max_source_tokens: int | None = Field(512, ge=1, description="cut at a sentence end within this many; null: never")
    min_source_tokens: int = Field(1, ge=1, description="reject a document with fewer tokens than this")
    split: Split = Split()
    near_duplicate_threshold: float = Field(
        0.2, ge=0.1, le=1, description="documents at least this similar (Jaccard similarity of word pairs) share a split"
    )
    salient_fraction: float = Field(0.25, gt=0, le=1, description="the share of a document's words that counts as salient")

    @model_validator(mode="after")
    def _check_tokens(self) -> "Sources":
        if self.max_source_tokens is not None and self.min_source_tokens > self.max_source_tokens:
            raise ValueError(f"min_source_tokens {self.min_source_tokens} exceeds max_source_tokens {self.max_source_tokens}")
        return self


class TextSources(Sources):
    """Text files, one document each."""

    kind: Literal["text"]
    path: str = Field(description="a file, a folder (its *.txt, at any depth) or a glob")


class JsonlSources(Sources):
    """JSON Lines files, one document a line."""

    kind: Literal["jsonl"]
    path: str = Field(description="a file, a folder (its *.jsonl and *.ndjson) or a glob")
    document_column: str = "text"
    reference_column: str | None = None


class ParquetSources(Sources):
    """Parquet files, one document a row."""

    kind: Literal["parquet"]
    path: str = Field(description="a file, a folder (its *.parquet) or a glob")
    document_column: str = "text"
    reference_column: str | None = None


class HuggingFaceSources(Sources):
    """A Hugging Face dataset, one document a row."""

    kind: Literal["huggingface"]
    dataset: str = Field(description="an id, or a local folder")
    name: str | None = Field(None, description="the dataset's configuration, where it has several")
    dataset_split: str = "train"
    document_column: str = "text"
    reference_column: str | None = None


class PackagesSources(Sources):
    """The long descriptions of the installed Python distributions, with their summaries as references."""

    kind: Literal["installed-packages"]
    min_source_tokens: int = Field(40, ge=1, description="reject a document with fewer tokens than this")


SourcesConfig = Annotated[
    TextSources | JsonlSources | ParquetSources | HuggingFaceSources | PackagesSources,
    Field(discriminator="kind"),
]


@dataclass(frozen=True)
class _Source:
    """A row of the table in the making; `split` is None until it is known."""

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

    Every row is there exactly once: in a split, or rejected with a reason. The result depends on the rows, the configuration and
    `seed`, not on the order of the rows. Raises LimbeckError where an input is missing or broken, or no document is usable.
    """
    rows = list(_read(config))
    usable, rejected = _identify(rows)
    usable, unusable = _prepare(usable, config, tokenizer, seed)
    rejected += unusable
    if not usable:
        raise LimbeckError(_nothing_usable(config, rejected))
    groups = near_duplicate_groups({source.source_id: source.document for source in usable}, config.near_duplicate_threshold)
    splits = assign_splits(groups, config.split, seed)
    usable = [replace(source, group=groups[source.source_id], split=splits[source.source_id]) for source in usable]
    left_over = [_rejected(source, "more than the split asks for") for source in usable if source.split is None]
    used = _with_salience([source for source in usable if source.split is not None], config.salient_fraction)
    assert len(used) + len(rejected) + len(left_over) == len(rows)
    return _table(sorted(used, key=_by_id) + sorted(rejected + left_over, key=_by_id))


def _read(config: SourcesConfig) -> Iterator[RawRow]:
    match config:
        case TextSources():
            return read_text(config.path)
        case JsonlSources():
            return read_jsonl(config.path, config.document_column, config.reference_column)
        case ParquetSources():
            return read_parquet(config.path, config.document_column, config.reference_column)
        case HuggingFaceSources():
            columns = (config.document_column, config.reference_column)
            return read_huggingface(config.dataset, config.name, config.dataset_split, columns)
        case PackagesSources():
            return read_packages()
        case _:
            assert_never(config)


def _identify(rows: Iterable[RawRow]) -> tuple[list[_Source], list[_Source]]:
    """Give every row its id, and part the readable ones from the rest; of rows with the same content the first is kept."""
    usable: dict[str, _Source] = {}
    rejected: list[_Source] = []
    for row in rows:
        source_id = _hash(row.text)
        if row.reason is not None:
            rejected.append(_rejected(_Source(_hash(row.text, row.origin), row), row.reason))
        elif source_id in usable:
            reason = f"same content as {usable[source_id].row.origin}"
            rejected.append(_rejected(_Source(_hash(row.text, row.origin), row), reason))
        else:
            usable[source_id] = _Source(source_id, row)
    return list(usable.values()), rejected


def _prepare(sources: Iterable[_Source], config: Sources, tokenizer: Tokenizer, seed: int) -> tuple[list[_Source], list[_Source]]:
    """Cut and count, in an order drawn by `seed`, until there are `max_documents`; returns the usable and the rejected."""
    usable: list[_Source] = []
    rejected: list[_Source] = []
    for source in sorted(sources, key=lambda source: derive_seed(seed, "documents", source.source_id)):
        if config.max_documents is not None and len(usable) >= config.max_documents:
            rejected.append(_rejected(source, f"over max_documents: {config.max_documents}"))
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
    """The first sentences of what was cut off `text` behind `document`, within `FOLLOWING_TOKENS`; None where there are none."""
    rest = text[len(document) :].lstrip() if document else ""
    return cut(rest, tokenizer, FOLLOWING_TOKENS)[0] or None if rest else None


def _with_salience(sources: list[_Source], fraction: float) -> list[_Source]:
    frequencies, documents = document_frequencies(source.document for source in sources if source.split == "train")
    return [replace(s, salient=tuple(salient_spans(s.document, frequencies, documents, fraction))) for s in sources]


def _rejected(source: _Source, reason: str) -> _Source:
    return replace(source, split="rejected", group=source.group or source.source_id, row=replace(source.row, reason=reason))


def _hash(*parts: str) -> str:
    """16 hexadecimal digits of the SHA-256 of the parts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


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
        "record": [None for _ in sources],
    }
    return pa.table(columns, schema=SOURCES)


def _nothing_usable(config: SourcesConfig, rejected: list[_Source]) -> str:
    where = getattr(config, "path", None) or getattr(config, "dataset", None) or config.kind
    if not rejected:
        return f"there are no documents in {where}; give other sources"
    first = f"the first, {rejected[0].row.origin}: {rejected[0].row.reason}"
    return f"none of the {len(rejected)} rows of {where} is usable ({first}); give other sources, or loosen the limits"
