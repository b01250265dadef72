"""The text on which a model is measured and healed, as token ids in files. Imports no torch."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.parts import read_parts, read_table, write_table
from limbeck.corpus.schemas import SOURCES
from limbeck.corpus.source_kinds import SourcesConfig
from limbeck.corpus.sources import prepared
from limbeck.corpus.split import NEAR_DUPLICATE_THRESHOLD, Split, near_duplicate_labels
from limbeck.corpus.tokenizer import Tokenizer
from limbeck.students.base.config import BaseConfig, HealingConfig

_SAMPLE = pa.schema(
    [("text", pa.large_string()), ("group", pa.string()), ("input_ids", pa.list_(pa.int64())), ("bytes", pa.int64())]
)
Tokens = npt.NDArray[np.int64]


def train_documents(documents: Path | None) -> Iterable[dict[str, Any]]:
    """The rows of the run's train sources that have a document."""
    if documents is None:
        return []
    rows: list[dict[str, Any]] = read_parts(documents, SOURCES).to_pylist()
    return [row for row in rows if row["split"] == "train" and row["reason"] is None and row["document"]]


def write_sample(config: BaseConfig, tokenizer: Tokenizer, documents: Path | None, seed: int, file: Path) -> None:
    """Write the sample of documents on which models are measured, in tokens of `tokenizer`: text, group, input_ids, bytes.

    They are the first of the run's train documents, or of the healing's text if the run has none. `bytes` are those of all tokens
    but the first, which has no context. Raises LimbeckError if there are too few documents.
    """
    rows, named, text = train_documents(documents), "train documents", config.healing.text if config.healing is not None else None
    if not rows and text is None:
        raise LimbeckError(
            f"a base of kind {config.kind} is measured on documents, but the run's sources have none; set base.healing.text"
        )
    if not rows and text is not None:
        rows, named = itertools.chain.from_iterable(_tables(text, tokenizer, seed, file.parent)), "documents of healing.text"
    found = []
    for row in rows:
        encoded = tokenizer.backend.encode(row["document"], add_special_tokens=False)
        if len(encoded.ids) > 1:
            end = encoded.offsets[: config.sample_tokens][-1][1]
            found.append({"text": row["document"][:end], "group": row["group"]})
        if len(found) == config.sample:
            break
    if len(found) < config.sample:
        raise LimbeckError(
            f"the sample of a base of kind {config.kind} needs {config.sample} {named}, but there are {len(found)}; lower "
            "base.sample or add documents"
        )
    _write_encoded(tokenizer, found, config.sample_tokens, file)


def write_sample_again(sample: Path, tokenizer: Tokenizer, file: Path) -> None:
    """Write a sample in the tokens of another tokenizer."""
    _write_encoded(tokenizer, read_table(sample).select(["text", "group"]).to_pylist(), None, file)


def _write_encoded(tokenizer: Tokenizer, rows: Sequence[dict[str, Any]], limit: int | None, file: Path) -> None:
    encoded = [tokenizer.backend.encode(row["text"], add_special_tokens=False) for row in rows]
    facts = [
        {**row, "input_ids": one.ids[:limit], "bytes": len(row["text"][one.offsets[0][1] :].encode())}
        for row, one in zip(rows, encoded, strict=True)
    ]
    write_table(file, pa.Table.from_pylist(facts, schema=_SAMPLE))


def write_text(
    config: HealingConfig, tokenizer: Tokenizer, end: Sequence[int], documents: Path | None, sample: Path, seed: int, file: Path
) -> dict[str, int]:
    """Write the text for healing as sequences of token ids, up to the budget; returns documents, tokens and left_out.

    Documents are joined by the end token. Near-duplicates of the sample are left out, and with a text of its own also those of
    the run's dev and test documents, as far as the beginnings of the documents show: what is measured is never trained on. Raises
    LimbeckError if nothing is left.
    """
    stream: list[Tokens] = []
    tokens = used = left_out = 0
    for document in _documents(config, tokenizer, documents, sample, seed):
        if document is None:
            left_out += 1
            continue
        if tokens >= config.tokens:
            break
        ids = [*tokenizer.backend.encode(document, add_special_tokens=False).ids, *end]
        stream.append(np.asarray(ids, np.int64))
        tokens, used = tokens + len(ids), used + 1
    if not used:
        raise LimbeckError(
            "healing has no text beside the documents on which the model is measured; lower base.sample, add documents, or set "
            "base.healing.text"
        )
    joined = np.concatenate(stream)[: config.tokens]
    length = config.sequence_tokens
    if len(joined) % length == 1:  # a sequence of one token teaches nothing
        joined = joined[:-1]
    offsets = [*range(0, len(joined), length), len(joined)]
    sequences = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(joined))
    write_table(file, pa.table({"input_ids": sequences}))
    return {"documents": used, "tokens": len(joined), "left_out": left_out}


def _documents(
    config: HealingConfig, tokenizer: Tokenizer, documents: Path | None, sample: Path, seed: int
) -> Iterator[str | None]:
    """The documents for healing in order; None for one that is left out."""
    measured = read_table(sample)
    if config.text is None:
        groups = set(measured["group"].to_pylist())
        for row in train_documents(documents):
            yield None if row["group"] in groups else row["document"]
        return
    apart = [*measured["text"].to_pylist(), *_held_out(documents)]
    for rows in _tables(config.text, tokenizer, seed, sample.parent):
        texts = [row["document"] for row in rows]
        near = _near(apart, texts)
        for place, text in enumerate(texts):
            yield None if place in near else text


def _tables(text: SourcesConfig, tokenizer: Tokenizer, seed: int, folder: Path) -> Iterator[list[dict[str, Any]]]:
    """The usable rows of the healing's text, some at a time: all of them, and whole, unless the section says otherwise."""
    whole = {"max_source_tokens": None, "split": Split(train=1.0, dev=0.0, test=0.0)}
    changes = {key: value for key, value in whole.items() if key not in text.model_fields_set}
    unmarked = text.model_copy(update={**changes, "salient_fraction": 0.0})  # nothing here reads salient words
    with prepared(unmarked, tokenizer, seed, folder) as sources:
        for table in sources.tables("train"):
            yield [row for row in table.to_pylist() if row["document"]]


def _held_out(documents: Path | None) -> list[str]:
    """The run's dev and test documents."""
    folders = [documents.parent / split for split in ("dev", "test")] if documents is not None else []
    rows = [row for folder in folders if folder.is_dir() for row in read_parts(folder, SOURCES).to_pylist()]
    return [row["document"] for row in rows if row["document"]]


def _near(apart: Sequence[str], texts: Sequence[str]) -> set[int]:
    """The places of texts whose beginnings are near-duplicates of a text of `apart`, which may be cut."""
    longest = max(map(len, apart))
    compared = pa.array([*apart, *(text[:longest] for text in texts)], pa.large_string())
    labels = near_duplicate_labels(pa.chunked_array([compared]), NEAR_DUPLICATE_THRESHOLD).tolist()
    measured = set(labels[: len(apart)])
    return {place for place, label in enumerate(labels[len(apart) :]) if label in measured}
