"""Sources from rows on disk equal those of the definition, which holds every row in a list."""

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from helpers.byte_tokenizer import byte_tokenizer
from helpers.listed_sources import listed
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.near_duplicates.minhash import bands_for, near_duplicates, sketch
from limbeck.corpus.readers import RawRow
from limbeck.corpus.schemas import SOURCES
from limbeck.corpus.source_kinds import SourcesConfig
from limbeck.corpus.source_spool import Spool
from limbeck.corpus.sources import prepared, read_sources
from limbeck.corpus.split import SPLITS
from limbeck.corpus.tokenizer import Tokenizer

THINGS = ["wheel", "parser", "telescope", "kitchen", "violin", "harbour", "北京很大。", "lantern"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def document(thing: str, sentences: int) -> str:
    return " ".join(f"The{thing}{number} {thing}a {thing}b turns{thing} {thing}c." for number in range(sentences))


ROWS = st.lists(
    st.one_of(
        st.builds(document, st.sampled_from(THINGS), st.integers(1, 8)),
        st.sampled_from(["", "tiny", "x" * 300, "café", None, 5]),
    ),
    min_size=4,
    max_size=30,
)
FIELDS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["jsonl", "labelled", "bare", "draws"]),
        "split": st.sampled_from([{"train": 0.6, "dev": 0.2, "test": 0.2}, {"train": 3, "dev": 0, "test": 0}]),
        "max_source_tokens": st.sampled_from([60, 200, None]),
        "min_source_tokens": st.sampled_from([1, 30]),
        "max_documents": st.sampled_from([None, 3, 6]),
        "vary": st.sampled_from([None, {"tone": ["dry", "warm"], "size": {"range": [1, 5]}}]),
    }
)


def config_of(folder: Path, rows: list[Any], fields: dict[str, Any]) -> Any:
    fields = {name: value for name, value in fields.items() if name != "vary" or value is not None}
    if fields["kind"] == "draws":
        fields = {"kind": "draws", "count": len(rows), **{name: fields[name] for name in ("split", "vary") if name in fields}}
    else:
        path = folder / "rows.jsonl"
        path.write_text("".join(json.dumps({"text": text, "n": number % 3}) + "\n" for number, text in enumerate(rows)))
        fields["path"] = str(path)
        if fields["kind"] == "labelled":
            fields |= {"document_column": "text", "reference_column": "n"}
        if fields["kind"] == "bare":
            fields["kind"] = "labelled"
    return TypeAdapter(SourcesConfig).validate_python(fields)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, FIELDS, st.integers(0, 9))
def test_every_row_equals_the_definition_s(
    tmp_path: Path, tokenizer: Tokenizer, rows: list[Any], fields: dict[str, Any], seed: int
) -> None:
    config = config_of(tmp_path, rows, fields)
    try:
        expected = listed(config, tokenizer, seed)
    except LimbeckError:
        with pytest.raises(LimbeckError):
            read_sources(config, tokenizer, seed)
        return
    table = read_sources(config, tokenizer, seed)
    assert table.schema == SOURCES and table.to_pylist() == expected
    with prepared(config, tokenizer, seed, tmp_path / "run") as sources:
        for split in (*SPLITS, "rejected"):
            rows_of = [row for row in expected if row["split"] == split]
            assert [row for part in sources.tables(split, rows=2) for row in part.to_pylist()] == rows_of
            assert sources.count(split) == len(rows_of)
        assert sources.document_tokens == sum(row["document_tokens"] for row in expected if row["split"] != "rejected")
        assert list((tmp_path / "run").iterdir()) == []  # the files have no names: a killed run leaves none


def test_sketches_on_disk_equal_those_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    texts = [" ".join(f"w{word}" for word in rng.integers(0, 40, length)) for length in rng.integers(0, 25, 800)]
    column = pa.chunked_array([pa.array(texts[:300]), pa.array(texts[300:])])
    bands = bands_for(0.4, 64, 0.9)
    memory, disk = sketch(column, "word", 2, bands), sketch(column, "word", 2, bands, folder=tmp_path)
    assert np.array_equal(memory.keys, disk.keys) and np.array_equal(memory.bitmaps, disk.bitmaps)
    assert np.array_equal(memory.shingles.hashes, disk.shingles.hashes) and isinstance(disk.keys, np.memmap)
    scopes = np.arange(800) % 2
    assert np.array_equal(near_duplicates(memory, scopes, 0.4), near_duplicates(disk, scopes, 0.4))


def test_a_spool_returns_every_row(tmp_path: Path) -> None:
    rows = [
        RawRow(f"o{n}", "t" * n, None if n % 2 else "r", "why" if n % 3 else None, None, "x" if n % 5 else None)
        for n in range(50)
    ]
    spool = Spool(tmp_path)
    for row in rows:
        spool.append(row, '{"a": 1}' if row.related else None)
    spool.flush()
    for place in (49, 0, 7):
        stored, row = spool[place], rows[place]
        assert stored[:4] == (row.origin, row.text, row.reference, row.reason) and stored.related == row.related
    assert len(spool) == 50
    spool.close()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(LimbeckError, match=r"cannot write to .*file: .*; free some space or choose another folder"):
        Spool(tmp_path / "file")


def test_a_full_disk_is_one_sentence(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    config = config_of(tmp_path, [document(thing, 2) for thing in THINGS], {"kind": "jsonl"})
    monkeypatch.setattr("os.posix_fallocate", full)
    with (
        pytest.raises(LimbeckError, match="cannot write to .*run: No space left on device"),
        prepared(config, tokenizer, 0, tmp_path / "run"),
    ):
        pass
