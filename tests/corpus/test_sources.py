"""Sources end to end: every row is accounted for, whatever the order, and every fault is one clear sentence."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from helpers.byte_tokenizer import byte_tokenizer
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.schemas import SOURCES
from limbeck.corpus.source_kinds import SourcesConfig
from limbeck.corpus.sources import FOLLOWING_TOKENS, read_sources
from limbeck.corpus.tokenizer import Tokenizer

NAMES = [
    "wheel",
    "parser",
    "telescope",
    "kitchen",
    "violin",
    "harbour",
    "glacier",
    "lantern",
    "orchard",
    "compass",
    "quarry",
    "meadow",
]


def document(name: str, sentences: int = 3) -> str:
    """A text about one thing that shares no word pair with one about another."""
    return " ".join(f"The{name}{i} {name}a {name}b {name}c turns{name} {name}d." for i in range(sentences))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """One token per byte."""
    return byte_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def config(kind: str, **fields: Any) -> SourcesConfig:
    return TypeAdapter(SourcesConfig).validate_python({"kind": kind, **fields})


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def reasons(table: pa.Table) -> dict[str, str]:
    return {row["origin"]: row["reason"] for row in table.to_pylist() if row["reason"] is not None}


def test_text_files(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for name in NAMES:
        (tmp_path / "deep").mkdir(exist_ok=True)
        (tmp_path / "deep" / f"{name}.txt").write_text(document(name))
    (tmp_path / "bad.txt").write_bytes(b"caf\xe9 is Latin-1")
    (tmp_path / "empty.txt").write_text(" \n")
    (tmp_path / "other.csv").write_text("not a text")
    (tmp_path / "copy.txt").write_text("\ufeff" + document("wheel") + "\r\n")
    table = read_sources(config("text", path=str(tmp_path)), tokenizer, 0)
    assert table.schema == SOURCES
    assert table.num_rows == len(NAMES) + 3
    assert reasons(table) == {"bad.txt": "not UTF-8", "empty.txt": "empty", "deep/wheel.txt": "same content as copy.txt"}
    assert len(set(table["source_id"].to_pylist())) == table.num_rows
    one = read_sources(config("text", path=str(tmp_path / "d*" / "*.txt")), tokenizer, 0)
    assert sorted(one["origin"].to_pylist()) == sorted(f"deep/{name}.txt" for name in NAMES)


def test_jsonl_rows_that_cannot_be_read_cost_one_row_each(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": document(name), "summary": f"About {name}."} for name in NAMES])
    broken = [b'{"text": "cut of', b"", b"[1, 2]", b'{"text": 5}', b'{"text": "half \\ud800 pair"}', b'{"summary": "x"}']
    broken += [b'{"text": "\xff"}', b'{"text": null}']
    with open(path, "ab") as file:
        file.writelines(line + b"\n" for line in broken)
    table = read_sources(config("jsonl", path=str(path), reference_column="summary"), tokenizer, 0)
    assert table.num_rows == len(NAMES) + 7
    found = reasons(table)
    assert found.pop("rows.jsonl:13").startswith("not JSON")
    assert found == {
        "rows.jsonl:15": "not a JSON object",
        "rows.jsonl:16": "not a text but a int",
        "rows.jsonl:17": "not UTF-8",
        "rows.jsonl:18": "no 'text'",
        "rows.jsonl:19": "not UTF-8",
        "rows.jsonl:20": "empty",
    }
    used = [row for row in table.to_pylist() if row["reason"] is None]
    assert all(row["reference"].split()[1][:-1] in row["document"] for row in used)


def test_parquet_and_its_faults(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = tmp_path / "rows.parquet"
    texts = [document(name).encode() for name in NAMES] + [b"\xff\xfe", None]
    invalid = pa.array(texts, pa.binary()).view(pa.string())  # a string column whose bytes nobody checked
    pq.write_table(pa.table({"body": invalid, "n": range(len(texts))}), path)
    table = read_sources(config("parquet", path=str(path), document_column="body"), tokenizer, 0)
    assert reasons(table) == {"rows.parquet:12": "not UTF-8", "rows.parquet:13": "empty"}
    with pytest.raises(LimbeckError, match="no column 'boby'; did you mean 'body'"):
        read_sources(config("parquet", path=str(path), document_column="boby"), tokenizer, 0)
    for length in (0, 10, 200, path.stat().st_size - 20):
        broken = tmp_path / "broken.parquet"
        broken.write_bytes(path.read_bytes()[:length])
        with pytest.raises(LimbeckError, match=r"broken\.parquet is not a complete Parquet file"):
            read_sources(config("parquet", path=str(broken), document_column="body"), tokenizer, 0)


def test_huggingface_folders(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = {"body": [document(name) for name in NAMES], "gist": [f"About {name}" for name in NAMES]}
    datasets.DatasetDict({"validation": datasets.Dataset.from_dict(rows)}).save_to_disk(tmp_path / "saved")
    (tmp_path / "plain").mkdir()
    write_jsonl(tmp_path / "plain" / "train.jsonl", [{"body": b, "gist": g} for b, g in zip(*rows.values(), strict=True)])
    columns = {"document_column": "body", "reference_column": "gist"}
    saved = read_sources(
        config("huggingface", dataset=str(tmp_path / "saved"), dataset_split="validation", **columns), tokenizer, 0
    )
    plain = read_sources(config("huggingface", dataset=str(tmp_path / "plain"), **columns), tokenizer, 0)
    assert saved.num_rows == len(NAMES) and set(saved["reference"].to_pylist()) == set(rows["gist"])
    assert saved.drop_columns("origin") == plain.drop_columns("origin")
    assert min(saved["origin"].to_pylist()) == "saved[validation]:0"
    for broken in ({"dataset": str(tmp_path / "saved")}, {"dataset": str(tmp_path / "absent")}):
        with pytest.raises(LimbeckError, match="saved|absent"):
            read_sources(config("huggingface", **broken, **columns), tokenizer, 0)
    with pytest.raises(LimbeckError, match="did you mean 'body'"):
        read_sources(config("huggingface", dataset=str(tmp_path / "plain"), document_column="bod"), tokenizer, 0)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_every_row_is_accounted_for_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, data: st.DataObject
) -> None:
    rows = [{"text": document(name, data.draw(st.integers(1, 6)))} for name in NAMES]
    rows += data.draw(
        st.lists(st.sampled_from([{"text": ""}, {"text": "tiny"}, rows[0], rows[1], {"text": document("wheel", 9)}]), max_size=8)
    )
    folder = tmp_path_factory.mktemp("rows")
    shuffled = random.Random(data.draw(st.integers(0, 99))).sample(rows, len(rows))
    fields: dict[str, Any] = {
        "max_source_tokens": 200,
        "min_source_tokens": 20,
        "max_documents": data.draw(st.sampled_from([None, 8])),
    }
    first, second = (
        read_sources(config("jsonl", path=str(write_jsonl(folder / "rows.jsonl", order)), **fields), tokenizer, 3)
        for order in (rows, shuffled)
    )
    assert sorted(first["origin"].to_pylist()) == sorted(f"rows.jsonl:{i + 1}" for i in range(len(rows)))
    assert len(set(first["source_id"].to_pylist())) == len(rows)
    table = first.to_pylist()
    groups: dict[str, set[str]] = {}
    for row in table:
        assert (row["split"] == "rejected") == (row["reason"] is not None)
        if row["reason"] is None:
            groups.setdefault(row["group"], set()).add(row["split"])
            assert 20 <= row["document_tokens"] == tokenizer.count([row["document"]])[0] <= 200
            assert row["document"].endswith(".")
            assert row["salient"] == sorted(row["salient"]) and row["salient"][-1] <= len(row["document"])
    assert all(len(splits) == 1 for splits in groups.values())
    if fields["max_documents"]:
        assert sum(row["reason"] is None for row in table) == 8

    def essence(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return [tuple(v for k, v in row.items() if k != "origin") for row in rows if row["reason"] is None]

    assert essence(table) == essence(second.to_pylist())
    kinds = [Counter(str(reason).split(":")[0].split(" as ")[0] for reason in t["reason"].to_pylist()) for t in (first, second)]
    assert kinds[0] == kinds[1]


def test_near_duplicates_and_cuts_of_the_same_text_share_a_split(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"text": document(name)} for name in NAMES] + [{"text": document("wheel", n)} for n in (4, 5, 6)]
    table = read_sources(config("jsonl", path=str(write_jsonl(tmp_path / "r.jsonl", rows)), max_source_tokens=150), tokenizer, 1)
    wheels = [row for row in table.to_pylist() if "wheel" in row["document"].lower()]
    assert len(wheels) == 4 and len({row["group"] for row in wheels}) == 1
    assert wheels[0]["group"] == min(row["source_id"] for row in wheels)
    assert all(row["cut_characters"] > 0 for row in wheels if row["origin"] != "r.jsonl:1")


def test_what_follows_a_cut_is_kept(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """The first sentences behind the cut, within 50 tokens; null where nothing was cut."""
    rows = [{"text": document(name)} for name in NAMES]
    whole = {f"r.jsonl:{number + 1}": row["text"] for number, row in enumerate(rows)}
    path = str(write_jsonl(tmp_path / "r.jsonl", rows))
    for row in read_sources(config("jsonl", path=path, max_source_tokens=100), tokenizer, 1).to_pylist():
        rest = whole[row["origin"]][len(row["document"]) :].strip()
        assert (row["following"] is None) == (row["cut_characters"] == 0) == (not rest)
        if rest:
            assert rest.startswith(row["following"])
            assert row["following"].endswith(".") or rest[len(row["following"])].isspace()  # a long first sentence is cut too
            assert 1 <= tokenizer.count([row["following"]])[0] <= FOLLOWING_TOKENS
    table = read_sources(config("jsonl", path=path, max_source_tokens=None), tokenizer, 1)
    assert set(table["following"].to_pylist()) == {None}


def test_what_no_split_asks_for_keeps_its_place(tmp_path: Path, tokenizer: Tokenizer) -> None:
    path = write_jsonl(tmp_path / "r.jsonl", [{"text": document(name)} for name in NAMES])
    table = read_sources(config("jsonl", path=str(path), split={"train": 4, "dev": 2, "test": 2}), tokenizer, 1)
    assert Counter(table["split"].to_pylist()) == {"train": 4, "dev": 2, "test": 2, "rejected": 4}
    assert set(reasons(table).values()) == {"more than the split asks for"}


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("text", {"path": "nowhere.txt"}, "there is no file or folder nowhere.txt"),
        ("text", {"path": "nowhere/*.txt"}, "no file matches nowhere"),
        ("text", {"path": "."}, r"holds no \.txt file"),
        ("jsonl", {"path": "blank.jsonl"}, "there are no documents in blank.jsonl"),
        ("jsonl", {"path": "rows.jsonl", "document_column": "txt"}, "no column 'txt'; did you mean 'text'"),
        ("jsonl", {"path": "rows.jsonl", "reference_column": "tex"}, "no column 'tex'; did you mean 'text'"),
        ("jsonl", {"path": "rows.jsonl", "min_source_tokens": 500}, "none of the 2 rows of rows.jsonl is usable .*too short"),
        ("jsonl", {"path": "rows.jsonl", "split": {"train": 5, "dev": 1, "test": 1}}, "needs 5 train"),
        ("jsonl", {"path": "rows.jsonl"}, "2 usable documents: too few for train, dev, test"),
        ("parquet", {"path": "rows.jsonl"}, "rows.jsonl is not a complete Parquet file"),
    ],
)
def test_faults_are_one_clear_sentence(
    kind: str, fields: dict[str, Any], message: str, tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blank.jsonl").write_text("\n \n")
    write_jsonl(tmp_path / "rows.jsonl", [{"text": document("wheel")}, {"text": document("parser")}])
    with pytest.raises(LimbeckError, match=message):
        read_sources(config(kind, **fields), tokenizer, 0)


@pytest.mark.parametrize("fields", [{"typo": 1}, {"max_source_tokens": 0}, {"min_source_tokens": 600}, {"salient_fraction": 1.5}])
def test_nonsense_configurations_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config("text", path="x", **fields)


def test_installed_packages_fill_a_table(tokenizer: Tokenizer) -> None:
    table = read_sources(config("installed-packages", max_source_tokens=600, min_source_tokens=160), tokenizer, 0)
    used = [row for row in table.to_pylist() if row["reason"] is None]
    assert len(used) >= 50
    assert all(row["reference"] and row["salient"] and 160 <= row["document_tokens"] <= 600 for row in used)
    assert table == read_sources(config("installed-packages", max_source_tokens=600, min_source_tokens=160), tokenizer, 0)
