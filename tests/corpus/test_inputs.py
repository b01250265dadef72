"""One reader of input files: the same documents from every format and compression, one sentence for whatever is no input."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from helpers.input_files import COMPRESSIONS, KINDS, encoded, write_texts
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.inputs import find_files, format_by_name, inner_suffix, open_content
from limbeck.corpus.readers import RawRow, read_documents, read_text
from limbeck.corpus.source_kinds import SourcesConfig
from limbeck.corpus.tables import open_tables
from limbeck.infinigram.documents import Document, Skipped, find_sources
from limbeck.infinigram.documents import read_documents as read_indexed
from limbeck.infinigram.errors import BadIndex

TEXTS = ["The first, with a comma.", 'A "quoted"\nsecond one,\ton two lines.', "naïve café ☕ 北京", "x" * 70_000, "last"]


def as_sources(path: Path, kind: str, **fields: Any) -> list[RawRow]:
    if kind == "text":
        return list(read_text(str(path)))
    config: Any = TypeAdapter(SourcesConfig).validate_python({"kind": kind, "path": str(path), **fields})
    return list(read_documents(config.tables(), config.document_column, config.reference_column))


def as_indexed(path: Path, skipped: Skipped | None = None, column: str = "text") -> list[Document]:
    return list(read_indexed(find_sources([path]), column, skipped=skipped))


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("suffix", KINDS)
def test_both_consumers_read_the_same_rows_from_every_format(tmp_path: Path, suffix: str, compression: str) -> None:
    path = tmp_path / f"rows{suffix}{compression}"
    path.write_bytes(COMPRESSIONS[compression](encoded(suffix, TEXTS)))
    for given_path in (path, tmp_path):  # a file, and a folder
        assert [row.text for row in as_sources(given_path, KINDS[suffix])] == TEXTS
        documents = as_indexed(given_path)
        assert [document.content for document in documents] == TEXTS
        assert [document.metadata for document in documents] == [{"number": str(number)} for number in range(len(TEXTS))]
    assert [row.record["text"] for table in open_tables(str(path)) for row in table.rows] == TEXTS
    renamed = path.rename(tmp_path / f"rows{suffix}")  # the compression is detected by the content
    assert [row.text for row in as_sources(renamed, KINDS[suffix])] == [str(d.content) for d in as_indexed(renamed)] == TEXTS


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("suffix", [".txt", ".md", ".rst", ".text"])
def test_both_consumers_read_the_same_text_files(tmp_path: Path, suffix: str, compression: str) -> None:
    folder = write_texts(tmp_path / "texts", suffix, compression, TEXTS)
    rows, documents = as_sources(folder, "text"), as_indexed(folder)
    assert [row.text for row in rows] == [document.content for document in documents] == TEXTS
    assert [row.origin for row in rows] == [document.origin for document in documents]
    assert all(row.reason is None for row in rows)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\0\ufeff"), min_size=1, max_size=30), min_size=1),
    st.sampled_from(sorted(KINDS)),
    st.sampled_from(sorted(COMPRESSIONS)),
)
def test_any_documents_are_read_equal_from_every_format(tmp_path: Path, texts: list[str], suffix: str, compression: str) -> None:
    path = tmp_path / f"any{suffix}{compression}"
    path.write_bytes(COMPRESSIONS[compression](encoded(suffix, texts)))
    assert [document.content for document in as_indexed(path)] == texts
    assert len(as_sources(path, KINDS[suffix])) == len(texts)  # cleaned there


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_fuzzed_bytes_give_rows_reasons_or_one_sentence(tmp_path: Path, data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from([*sorted(KINDS), ".txt", ".npy", ""]))
    compression = data.draw(st.sampled_from(sorted(COMPRESSIONS)))
    plain = encoded(suffix, TEXTS[:3]) if suffix in KINDS else TEXTS[1].encode()
    content = bytearray(COMPRESSIONS[compression](plain) if data.draw(st.booleans()) else plain)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    path = tmp_path / f"fuzzed{suffix}{compression}"
    path.write_bytes(content + data.draw(st.binary(max_size=5)))
    for kind in ("text", "jsonl", "csv", "parquet"):
        try:
            assert all(row.text or row.reason for row in as_sources(path, kind))
        except LimbeckError as error:
            assert len(str(error).splitlines()) == 1
    try:
        list(open_tables(str(path)))
        assert as_indexed(path)
    except LimbeckError as error:
        assert str(error)


def test_rows_that_hold_no_document_cost_one_row_each(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"text": "one"}',
        b'{"text": null}',
        b"{broken",
        b"[1]",
        b'{"text": "\xff"}',
        b'{"body": "x"}',
        b"",
        b'{"text": "two"}',
    ]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    reasons = [row.reason and row.reason.split(":")[0] for row in as_sources(tmp_path / "rows.jsonl", "jsonl")]
    assert reasons == [None, "empty", "not JSON", "not a JSON object", "not UTF-8", "no 'text'", None]
    skipped = Skipped()
    documents = as_indexed(tmp_path / "rows.jsonl", skipped)
    assert [(document.row, document.content) for document in documents] == [(0, "one"), (7, "two")]
    assert {reason: found["rows"] for reason, found in skipped.rows.items()} == {
        "null text": 1,
        "not JSON": 1,
        "not a JSON object": 1,
        "not UTF-8": 1,
        "no 'text'": 1,
    }
    assert skipped.rows["not UTF-8"]["first"] == "rows.jsonl:5: not UTF-8"


def test_a_row_of_an_array_that_is_not_utf_8_costs_that_row(tmp_path: Path) -> None:
    rows = b'[{"text": "caf\xe9"}, {"text": "two"}, 3, {"text": "' + b"y" * 200_000 + b'"}]'
    (tmp_path / "rows.json").write_bytes(rows)
    found = as_sources(tmp_path / "rows.json", "jsonl")
    assert [row.reason for row in found] == ["not UTF-8", None, "not a JSON object", None] and len(found[3].text) == 200_000
    assert [document.row for document in as_indexed(tmp_path / "rows.json")] == [1, 3]


@pytest.mark.parametrize("compression", [".gz", ".zst", ".bz2", ".xz"])
def test_a_truncated_compressed_file_is_one_sentence(tmp_path: Path, compression: str) -> None:
    rows = "".join(json.dumps({"text": f"row {number} {number**7}"}) + "\n" for number in range(5000)).encode()
    path = tmp_path / f"rows.jsonl{compression}"
    path.write_bytes(COMPRESSIONS[compression](rows)[:-40])
    for read in (lambda: as_sources(path, "jsonl"), lambda: as_indexed(path)):
        with pytest.raises(LimbeckError, match=r"rows\.jsonl\.\w+ is truncated or damaged .*; copy or download it again$"):
            read()
    text = tmp_path / f"note.txt{compression}"  # a text file is one row
    text.write_bytes(COMPRESSIONS[compression](rows)[:-40])
    (row,) = as_sources(text, "text")
    assert str(row.reason).startswith("truncated or damaged")


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("rows.csv", b"text\nx\n", "jsonl", r"rows\.csv is not a JSON Lines file but CSV; set `kind: csv`"),
        ("rows.jsonl.gz", b'{"text": "x"}\n', "csv", "is not a CSV file but JSON; set `kind: jsonl`"),
        ("rows.jsonl", encoded(".parquet", TEXTS), "jsonl", "is not a JSON Lines file but Parquet; set `kind: parquet`"),
        ("rows.jsonl", b'{"text": "x"}\n', "text", "is JSON, with one document per row; set `kind: jsonl`"),
        ("rows.jsonl", b"PK\x03\x04 and so on", "jsonl", "is a zip archive, which cannot be read"),
        ("rows.csv", b"title,body\na,b\n", "csv", "no column 'text'; it has body, title"),
        ("rows.csv", b'text\n"open\n', "csv", "never closed; close it, or set `quote: null` if cells are not quoted$"),
        ("rows.csv", b"", "csv", ""),
    ],
)
def test_a_wrong_file_is_named_with_the_way_out(tmp_path: Path, name: str, content: bytes, kind: str, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    if not message:
        assert as_sources(tmp_path / name, kind) == []
        return
    with pytest.raises(LimbeckError, match=message):
        as_sources(tmp_path / name, kind)


def test_a_binary_file_among_texts_costs_its_row(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A text.")
    (tmp_path / "b.txt").write_bytes(b"%PDF-1.7 ...")
    (tmp_path / "c.txt").write_bytes(encoded(".parquet", TEXTS))
    (tmp_path / "d.txt.gz").write_bytes(gzip.compress(b"a text\0 with a NUL"))
    (tmp_path / "e.txt").write_bytes("UTF-16 without a mark".encode("utf-16-le"))
    reasons = ["a PDF, not text", "a Parquet file, not text", "binary, not text", "binary, not text"]
    assert [row.reason for row in as_sources(tmp_path, "text")] == [None, *reasons]
    skipped = Skipped()
    assert [document.content for document in as_indexed(tmp_path, skipped)] == ["A text."]
    assert {reason: found["rows"] for reason, found in skipped.rows.items()} == Counter(reasons)


def test_a_folder_without_a_matching_file_names_what_is_there(tmp_path: Path) -> None:
    for name in ("a.csv.gz", "b.csv", "c.pdf", "d"):
        (tmp_path / name).write_text("x")
    with pytest.raises(LimbeckError, match=r"holds no \.txt file \(nor .*\); it holds 2 \.csv, 1 \.pdf, 1 \(no suffix\); give"):
        find_files(tmp_path, [".txt", ".md"])
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(LimbeckError, match="kind: huggingface, dataset: .*saved"):
        find_files(tmp_path / "saved", [".jsonl"])


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_files_without_a_document_build_no_index(tmp_path: Path, content: bytes) -> None:
    for name in ("a.jsonl", "b.csv"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadIndex, match=f"{name} holds no document, so there is nothing to index; name other files"):
            as_indexed(tmp_path / name)
    (tmp_path / "c.txt").write_bytes(b"")
    with pytest.raises(BadIndex, match="the document in c.txt is empty"):
        as_indexed(tmp_path / "c.txt")
    (tmp_path / "d.jsonl").write_bytes(b'{"text": null}\n{"text": null}\n')
    with pytest.raises(BadIndex, match=r"no row of d.jsonl holds a document: 2 null text \(first d.jsonl:1: null text\)"):
        as_indexed(tmp_path / "d.jsonl")


def test_the_column_is_named_with_those_that_exist(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"texts": "x", "id": 1}\n')
    with pytest.raises(BadIndex, match="no column 'text'; did you mean 'texts'[?] It has id, texts; set text_column"):
        as_indexed(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("name", "suffix", "form"),
    [
        ("a.JSONL.GZ", ".jsonl", "JSON"),
        ("a.gz", "", None),
        ("a.tar.gz", ".tar", None),
        ("a.md.zst", ".md", "text"),
        ("a", "", None),
    ],
)
def test_names_promise_formats(name: str, suffix: str, form: str | None) -> None:
    assert (inner_suffix(Path(name)), format_by_name(Path(name))) == (suffix, form)


def test_a_file_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(LimbeckError, match="cannot read .*: Is a directory"), open_content(tmp_path):
        pass
