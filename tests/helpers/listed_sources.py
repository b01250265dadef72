"""The oracle of `read_sources`: every row as an object in a list, step by step, as the definition says."""

from dataclasses import dataclass, replace
from typing import Any

from limbeck.corpus import sources
from limbeck.corpus.readers import RawRow
from limbeck.corpus.records import VARY
from limbeck.corpus.salience import document_frequencies, salient_spans
from limbeck.corpus.seeds import derive_id, derive_seed
from limbeck.corpus.sentences import cut
from limbeck.corpus.source_kinds import DrawSources
from limbeck.corpus.split import assign_splits, near_duplicate_groups
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.corpus.vary import drawing


@dataclass(frozen=True)
class Source:
    source_id: str
    row: RawRow
    document: str = ""
    tokens: int = 0
    following: str | None = None
    group: str = ""
    split: str | None = None
    salient: tuple[int, ...] = ()


def listed(config: Any, tokenizer: Tokenizer, seed: int) -> list[dict[str, Any]]:
    """The rows of the table."""
    rejected: list[Source] = []
    if isinstance(config, DrawSources):
        ids = [derive_id("draws", seed, number) for number in range(config.count)]
        usable = [Source(one, RawRow(f"draw {number}", ""), group=one) for number, one in enumerate(ids)]
    else:
        usable, rejected = identified(list(sources._read(config)))
        usable, unfit = prepared(usable, config, tokenizer, seed)
        rejected += unfit
        groups = grouped(usable, config.near_duplicate_threshold)
        usable = [replace(source, group=groups[source.source_id]) for source in usable]
    splits = assign_splits({source.source_id: source.group for source in usable}, config.split, seed)
    usable = [replace(source, split=splits[source.source_id]) for source in usable]
    rejected += [no(source, "more than the split asks for") for source in usable if source.split is None]
    used = [source for source in usable if source.split is not None]
    if not isinstance(config, DrawSources):
        frequencies, number = document_frequencies(source.document for source in used if source.split == "train")
        used = [
            replace(source, salient=tuple(salient_spans(source.document, frequencies, number, config.salient_fraction)))
            for source in used
        ]
    if config.vary:
        draw = drawing(config.vary, seed)
        records = [{**(source.row.record or {}), VARY: draw(source.source_id)} for source in used]
        used = [replace(one, row=replace(one.row, record=record)) for one, record in zip(used, records, strict=True)]
    order = [sorted(part, key=lambda source: source.source_id) for part in (used, rejected)]
    return [as_row(source) for part in order for source in part]


def identified(rows: list[RawRow]) -> tuple[list[Source], list[Source]]:
    usable: dict[str, Source] = {}
    rejected = []
    for row in rows:
        source_id = sources._hash(row.text) if row.record is None else sources._hash(row.text, sources._as_json(row.record))
        own = Source(sources._hash(row.text, row.origin), row)
        if row.reason is not None:
            rejected.append(no(own, row.reason))
        elif source_id in usable:
            rejected.append(no(own, f"same content as {usable[source_id].row.origin}"))
        else:
            usable[source_id] = Source(source_id, row)
    return list(usable.values()), rejected


def prepared(given: list[Source], config: Any, tokenizer: Tokenizer, seed: int) -> tuple[list[Source], list[Source]]:
    usable: list[Source] = []
    rejected = []
    for source in sorted(given, key=lambda source: derive_seed(seed, "documents", source.source_id)):
        if config.max_documents is not None and len(usable) >= config.max_documents:
            rejected.append(no(source, f"over max_documents: {config.max_documents}"))
            continue
        if source.row.text:
            document, tokens = cut(source.row.text, tokenizer, config.max_source_tokens)
            rest = source.row.text[len(document) :].lstrip() if document else ""
            following = cut(rest, tokenizer, sources.FOLLOWING_TOKENS)[0] or None if rest else None
            source = replace(source, document=document, tokens=tokens, following=following)
            if not document:
                rejected.append(no(source, f"its first word alone exceeds {config.max_source_tokens} tokens"))
                continue
            if tokens < config.min_source_tokens:
                rejected.append(no(source, f"too short: {tokens} of {config.min_source_tokens} tokens"))
                continue
        usable.append(source)
    return usable, rejected


def grouped(usable: list[Source], threshold: float) -> dict[str, str]:
    documents = {source.source_id: source.document for source in usable if source.document}
    groups = near_duplicate_groups(documents, threshold) if documents else {}
    related: dict[str, str] = {}
    for source in sorted(usable, key=lambda source: source.source_id):
        if not source.document:
            groups[source.source_id] = related.setdefault(source.row.related or source.source_id, source.source_id)
    return groups


def no(source: Source, reason: str) -> Source:
    return replace(source, split="rejected", group=source.group or source.source_id, row=replace(source.row, reason=reason))


def as_row(source: Source) -> dict[str, Any]:
    return {
        "source_id": source.source_id,
        "document": source.document,
        "reference": source.row.reference,
        "origin": source.row.origin,
        "split": source.split,
        "group": source.group,
        "document_tokens": source.tokens,
        "cut_characters": len(source.row.text) - len(source.document) if source.document else 0,
        "following": source.following,
        "salient": list(source.salient),
        "reason": source.row.reason,
        "record": None if source.row.record is None else sources._as_json(source.row.record),
    }
