"""The same documents in every format and compression, and fuzzed bytes under every name."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": lambda data: pa.compress(data, codec="zstd", asbytes=True),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


def encoded(suffix: str, texts: Sequence[str]) -> bytes:
    """A table with a row number and a text, in the format of a suffix."""
    rows = [{"number": str(number), "text": text} for number, text in enumerate(texts)]
    if suffix in (".jsonl", ".ndjson"):
        return "".join(json.dumps(row, ensure_ascii=number % 2 == 0) + "\n" for number, row in enumerate(rows)).encode()
    if suffix == ".json":
        return json.dumps(rows, indent=1).encode()
    if suffix == ".parquet":
        sink = io.BytesIO()
        schema = pa.schema([("number", pa.string()), ("text", pa.string())])
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
        return sink.getvalue()
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, ["number", "text"], delimiter="\t" if suffix == ".tsv" else ",")
    writer.writeheader()
    writer.writerows(rows)
    return b"\xef\xbb\xbf" + written.getvalue().encode()


def write_texts(folder: Path, suffix: str, compression: str, texts: Sequence[str]) -> Path:
    """One file per text, named so that their order is that of the texts."""
    folder.mkdir()
    for number, text in enumerate(texts):
        data = (b"\xef\xbb\xbf" if number % 2 else b"") + text.encode()
        (folder / f"{number:04d}{suffix}{compression}").write_bytes(COMPRESSIONS[compression](data))
    return folder
