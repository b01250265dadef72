"""Encode documents to the files of shards: `tokenized`, `offset`, `metadata` and `metaoff`; resumable every few seconds.

Document i goes to shard i modulo the number of shards, as the official indexer distributes the lines of one file. All files grow
together; a checkpoint flushes them, and `encoded.json` records the number of documents and the file sizes. After a kill, anything
written beyond that is truncated, and the documents before it are skipped in the input.
"""

import itertools
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from limbeck.corpus.files import flush, replace_json
from limbeck.infinigram.documents import Document, Skipped
from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.open_files import allow_open_files
from limbeck.infinigram.tokenizers import HuggingFaceTokenizer, Tokenizer, load_tokenizer, open_tokenizer
from limbeck.infinigram.words import MOST_BYTES

_STATE = "encoded.json"
_BATCH_CHARACTERS = 1 << 19
_BATCH_DOCUMENTS = 4096
_CHECKPOINT_SECONDS = 10.0

Encoded = tuple[list[Document], list[np.ndarray]]


@dataclass(frozen=True)
class Encoding:
    """How documents become tokens: plain values that can be sent to another process. `version` 5 reverses every document.

    `tokenizer`: as for `load_tokenizer`, or None for documents of token ids; with `spec` (the record in an index manifest) it is
    the folder of that index, whose tokenizer is used.
    """

    tokenizer: str | None
    dtype: str
    version: int
    metadata: bool
    spec: dict[str, Any] | None = None
    words_bytes: int = MOST_BYTES  # for the tokenizer's word cache

    def load(self) -> Tokenizer | None:
        """The tokenizer; raises BadIndex if it does not exist or is not the one of the index."""
        if self.tokenizer is None:
            return None
        loaded = load_tokenizer(self.tokenizer) if self.spec is None else open_tokenizer(self.spec, Path(self.tokenizer))
        return loaded.remembering(self.words_bytes) if isinstance(loaded, HuggingFaceTokenizer) else loaded

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The little-endian type of a token."""
        return np.dtype(f"<{self.dtype[0]}{int(self.dtype[1:]) // 8}")

    @property
    def separator(self) -> int:
        """The token before every document."""
        return int(np.iinfo(self.numpy_dtype).max)


def encode_shards(
    documents: Iterator[Document],
    encoding: Encoding,
    numbers: list[int],
    folder: Path,
    threads: int,
    report: Callable[[int], None],
    skipped: Skipped,
) -> None:
    """Write the files of these shards into `folder`, resuming after a killed call.

    `report` gets the bytes of input read so far; `skipped` is filled by `documents`, and recorded once they are all read. Raises
    BadIndex for ids that the dtype cannot hold.
    """
    state = read_state(folder)
    kinds = ("tokenized", "offset", "metadata", "metaoff") if encoding.metadata else ("tokenized", "offset")
    names = [f"{kind}.{number}" for number in numbers for kind in kinds]
    if not state["finished"]:
        allow_open_files(len(names), f"encoding into {len(numbers)} shards", "build fewer shards at once")
        files = {name: _open_growing(folder / f"{name}.part", state["bytes"].get(name, 0)) for name in names}
        try:
            past = itertools.islice(documents, state["documents"], None)
            done = _write(past, encoding, numbers, files, threads, _Checkpoints(folder, files, state["documents"], report))
            _checkpoint(folder, files, done, finished=True, skipped=skipped.rows)
        finally:
            for file in files.values():
                file.close()
    for name in names:
        part = folder / f"{name}.part"
        if part.exists():
            os.replace(part, folder / name)
    flush(folder)


def read_state(folder: Path) -> dict[str, Any]:
    """Progress of the encoding in a folder: `documents` written, `bytes` of each file, whether it is `finished`.

    `skipped`: the rows without a document, by reason, of a finished one.
    """
    path = folder / _STATE
    begun = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {"documents": 0, "bytes": {}, "finished": False, "skipped": {}, **begun}


def _open_growing(path: Path, size: int) -> BinaryIO:
    file = open(path, "ab")  # noqa: SIM115 (the caller closes it)
    if os.fstat(file.fileno()).st_size < size:
        raise BadIndex(f"{path} is shorter than its build recorded; delete the folder {path.parent} and rebuild")
    os.truncate(path, size)
    file.seek(size)
    return file


def _checkpoint(folder: Path, files: dict[str, BinaryIO], documents: int, *, finished: bool, **more: Any) -> None:
    for file in files.values():
        file.flush()
        os.fsync(file.fileno())
    sizes = {name: file.tell() for name, file in files.items()}
    replace_json(folder / _STATE, {"documents": documents, "bytes": sizes, "finished": finished, **more})


@dataclass
class _Checkpoints:
    """Counts and reports progress, and makes checkpoints at intervals."""

    folder: Path
    files: dict[str, BinaryIO]
    documents: int
    report: Callable[[int], None]
    last: float = 0.0

    def wrote(self, documents: list[Document]) -> None:
        self.documents += len(documents)
        self.report(documents[-1].bytes_read)
        now = time.monotonic()
        self.last = self.last or now
        if now - self.last > _CHECKPOINT_SECONDS:
            _checkpoint(self.folder, self.files, self.documents, finished=False)
            self.last = now


def _write(
    documents: Iterator[Document],
    encoding: Encoding,
    numbers: list[int],
    files: dict[str, BinaryIO],
    threads: int,
    checkpoints: _Checkpoints,
) -> int:
    for batch, ids in _encoded(documents, encoding, threads):
        for turn, number in enumerate(numbers):
            first = (turn - checkpoints.documents) % len(numbers)
            _append(batch[first :: len(numbers)], ids[first :: len(numbers)], encoding, number, files)
        checkpoints.wrote(batch)
    return checkpoints.documents


def _encoded(documents: Iterator[Document], encoding: Encoding, threads: int) -> Iterator[Encoded]:
    """Batches of documents and their checked token ids in order; threads, since the tokenizers release the GIL."""
    tokenizer = encoding.load()
    waiting: deque[Future[Encoded]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for batch in _batches(documents):
                waiting.append(pool.submit(_encode, batch, encoding, tokenizer))
                if len(waiting) > threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.content)
        if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encode(batch: list[Document], encoding: Encoding, tokenizer: Tokenizer | None) -> Encoded:
    texts = [document.content for document in batch if isinstance(document.content, str)]
    if texts and tokenizer is None:
        raise BadIndex(
            f"{batch[0].origin} contains text, but no tokenizer was set; set one, for example bytes (--tokenizer bytes)"
        )
    encoded = iter(tokenizer.encode_batch(texts)) if tokenizer is not None else iter(())
    ids = [next(encoded) if isinstance(document.content, str) else document.content for document in batch]
    for document, tokens in zip(batch, ids, strict=True):
        if len(tokens) and (int(tokens.max()) >= encoding.separator or int(tokens.min()) < 0):
            worst = int(tokens.max()) if int(tokens.min()) >= 0 else int(tokens.min())
            raise BadIndex(
                f"{document.origin}, row {document.row} has the token id {worst}; {encoding.dtype} ranges from 0 to "
                f"{encoding.separator - 1}; choose a wider dtype"
            )
    if encoding.version == 5:
        ids = [tokens[::-1] for tokens in ids]
    return batch, ids


def _append(batch: list[Document], ids: list[np.ndarray], encoding: Encoding, number: int, files: dict[str, BinaryIO]) -> None:
    """Append documents to a shard: tokens with separators, offsets, metadata lines and their offsets."""
    if not batch:
        return
    text = files[f"tokenized.{number}"]
    lengths = np.array([len(tokens) + 1 for tokens in ids], dtype=np.int64)
    begins = np.cumsum(lengths) - lengths
    flat = np.empty(int(lengths.sum()), dtype=encoding.numpy_dtype)
    flat[begins] = encoding.separator
    for begin, tokens in zip(begins.tolist(), ids, strict=True):
        flat[begin + 1 : begin + 1 + len(tokens)] = tokens
    files[f"offset.{number}"].write((begins * flat.itemsize + text.tell()).astype("<u8").tobytes())
    text.write(flat.tobytes())
    if encoding.metadata:
        lines = [_metadata_line(document) for document in batch]
        sizes = np.array([len(line) for line in lines], dtype=np.int64)
        metadata = files[f"metadata.{number}"]
        files[f"metaoff.{number}"].write((np.cumsum(sizes) - sizes + metadata.tell()).astype("<u8").tobytes())
        metadata.write(b"".join(lines))


def _metadata_line(document: Document) -> bytes:
    record = {"path": document.origin, "linenum": document.row, "metadata": document.metadata}
    try:
        return json.dumps(record, default=str).encode("ascii") + b"\n"
    except (RecursionError, ValueError):  # nested almost too deeply to be read
        return json.dumps({**record, "metadata": {}}).encode("ascii") + b"\n"
