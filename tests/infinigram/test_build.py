"""Building an index: every kind of input against a naive writer, and what is refused."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.ngram_builds import WIDTHS, is_naive, naive_files, write_ids
from limbeck.infinigram.build import Settings, build
from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.maintain import append
from limbeck.infinigram.tokenizers import load_tokenizer

TEXTS = ["the cat sat on the mat", "", "the dog sat", "naïve café ☕", "the cat sat on the mat", "a" * 300]


@st.composite
def corpora(draw: st.DrawFn) -> tuple[list[list[int]], str]:
    dtype = draw(st.sampled_from(["u8", "u16", "u32"]))
    top = 256 ** WIDTHS[dtype] - 2
    alphabet = draw(st.lists(st.sampled_from([i for i in (0, 1, 254, 255, 256, 65534, 65535, top) if i <= top]), min_size=2))
    documents = draw(st.lists(st.lists(st.sampled_from(alphabet), max_size=8), min_size=1, max_size=20))
    return documents, dtype


@settings(max_examples=30, deadline=None)
@given(corpora(), st.integers(1, 12), st.sampled_from([4, 5]), st.sampled_from([None, 400]))
def test_files_equal_the_definition(
    tmp_path_factory: pytest.TempPathFactory, corpus: tuple[list[list[int]], str], shards: int, version: Any, memory: int | None
) -> None:
    folder = tmp_path_factory.mktemp("build")
    documents, dtype = corpus
    chosen = Settings(dtype=dtype, shards=shards, version=version, memory_bytes=memory, threads=2)  # type: ignore[arg-type]
    manifest = build([write_ids(folder, documents)], folder / "index", chosen)
    assert is_naive(folder / "index", naive_files(documents, shards, version, dtype))
    assert sum(shard["documents"] for shard in manifest["shards"]) == len(documents)
    assert sum(shard["tokens"] for shard in manifest["shards"]) == sum(len(ids) + 1 for ids in documents)


def as_jsonl(folder: Path, opener: Callable[..., Any] = open, name: str = "texts.jsonl") -> Path:
    with opener(folder / name, "wb") as file:
        for number, text in enumerate(TEXTS):
            file.write(json.dumps({"text": text, "number": number}).encode() + b"\n")
    return folder / name


def as_zst(folder: Path) -> Path:
    def opener(path: Path, mode: str) -> Any:
        return pa.CompressedOutputStream(pa.OSFile(str(path), mode), "zstd")

    return as_jsonl(folder, opener, "texts.jsonl.zst")


def as_parquet(folder: Path) -> Path:
    pq.write_table(pa.table({"number": range(len(TEXTS)), "text": TEXTS}), folder / "texts.parquet")
    return folder / "texts.parquet"


def as_dataset(folder: Path) -> Path:
    import datasets

    datasets.Dataset.from_dict({"number": list(range(len(TEXTS))), "text": TEXTS}).save_to_disk(str(folder / "saved"))
    return folder / "saved"


def as_text_files(folder: Path) -> Path:
    (folder / "texts").mkdir()
    for number, text in enumerate(TEXTS):
        (folder / "texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    return folder / "texts"


SOURCES = {
    "jsonl": as_jsonl,
    "gz": lambda folder: as_jsonl(folder, gzip.open, "texts.jsonl.gz"),
    "zst": as_zst,
    "parquet": as_parquet,
    "dataset": as_dataset,
    "text files": as_text_files,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_kind_of_input(tmp_path: Path, kind: str) -> None:
    source = SOURCES[kind](tmp_path)
    build([source], tmp_path / "index", Settings(tokenizer="bytes", shards=2))
    assert is_naive(tmp_path / "index", naive_files([list(text.encode()) for text in TEXTS], 2, 4, "u8"))
    lines = (tmp_path / "index" / "metadata.1").read_bytes()
    begins = np.fromfile(tmp_path / "index" / "metaoff.1", dtype="<u8").tolist()
    records = [json.loads(lines[begin:end]) for begin, end in zip(begins, [*begins[1:], len(lines)], strict=True)]
    if kind == "text files":
        assert [record["path"] for record in records] == ["1.txt", "3.txt", "5.txt"]
    else:
        assert [record["metadata"] for record in records] == [{"number": number} for number in (1, 3, 5)]
        assert [record["linenum"] for record in records] == [1, 3, 5]
    counts = [line.split() for line in (tmp_path / "index" / "unigram.0").read_text().splitlines()]
    assert sum(int(count) for _, count in counts) == (tmp_path / "index" / "tokenized.0").stat().st_size
    assert ["255", "3"] in counts


def small_tokenizer(folder: Path) -> Path:
    """A trained byte-level BPE, and what its model would call the end of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=300, special_tokens=["<eos>"], initial_alphabet=alphabet))
    (folder / "model").mkdir()
    tokenizer.save(str(folder / "model" / "tokenizer.json"))
    (folder / "model" / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))
    return folder / "model"


@pytest.mark.parametrize("version", [4, 5])
def test_a_hugging_face_tokenizer(tmp_path: Path, version: Any) -> None:
    from limbeck.infinigram.tokenizers import open_tokenizer

    model = small_tokenizer(tmp_path)
    manifest = build([as_jsonl(tmp_path)], tmp_path / "index", Settings(tokenizer=str(model), version=version))
    tokenizer = load_tokenizer(str(model))
    documents = [tokenizer.encode(text) for text in TEXTS]
    assert manifest["dtype"] == "u16" and manifest["eos"] == 0 and manifest["vocabulary"] == tokenizer.vocabulary
    assert is_naive(tmp_path / "index", naive_files(documents, 1, version, "u16"))
    stored = open_tokenizer(manifest["tokenizer"], tmp_path / "index")
    assert [stored.decode(stored.encode(text)) for text in TEXTS] == TEXTS
    (tmp_path / "index" / "tokenizer.json").write_text((model / "tokenizer.json").read_text() + " ")
    with pytest.raises(BadIndex, match="not the one"):
        open_tokenizer(manifest["tokenizer"], tmp_path / "index")


def test_the_same_call_returns_a_finished_index(tmp_path: Path) -> None:
    source = as_jsonl(tmp_path)
    first = build([source], tmp_path / "index", Settings(tokenizer="bytes"))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "index").iterdir()}
    assert build([source], tmp_path / "index", Settings(tokenizer="bytes", threads=1)) == first
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "index").iterdir()}
    with pytest.raises(BadIndex, match="finished index"):
        build([source], tmp_path / "index", Settings(tokenizer="bytes", shards=2))


def test_other_settings_are_refused_with_what_differs(tmp_path: Path) -> None:
    source = as_jsonl(tmp_path)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build([source], tmp_path / "index", Settings(tokenizer="bytes"), stop)
    for other, named in (
        (Settings(tokenizer="bytes", shards=2), "shards"),
        (Settings(tokenizer="bytes", version=5), "version"),
        (Settings(tokenizer="bytes", dtype="u16"), "dtype"),
        (Settings(tokenizer="bytes", metadata=False), "metadata"),
        (Settings(tokenizer=str(small_tokenizer(tmp_path)), dtype="u8"), "tokenizer"),
    ):
        with pytest.raises(BadIndex, match=f"another setting of .*{named}"):
            build([source], tmp_path / "index", other)
    source.write_text(source.read_text() + json.dumps({"text": "more"}) + "\n")
    with pytest.raises(BadIndex, match="another setting of documents"):
        build([source], tmp_path / "index", Settings(tokenizer="bytes"))


def test_two_builds_of_one_folder_exclude_each_other(tmp_path: Path) -> None:
    source = as_jsonl(tmp_path)

    def second(*_: object) -> None:
        with pytest.raises(BadIndex, match="another process"):
            build([source], tmp_path / "index", Settings(tokenizer="bytes"))

    build([source], tmp_path / "index", Settings(tokenizer="bytes"), second)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": 3}\n', "a.jsonl:1: neither text nor token ids but int"),
        ("a.jsonl", b'{"text"\n', "first a.jsonl:1: not JSON"),
        ("a.jsonl", b'["x"]\n', "a.jsonl:1: not a JSON object"),
        ("a.jsonl", b'{"body": "x"}\n', "has no column 'text'; it has body"),
        ("a.jsonl", b'{"text": "\xff"}\n', "not UTF-8"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "not UTF-8"),
        ("a.jsonl", b'{"text": [1, 255]}\n', "token id 255"),
        ("a.jsonl", b'{"text": [1, -1]}\n', "token id -1"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 1000, mtime=0)[:-20], "truncated or damaged"),
        ("a.jsonl.zst", b"nothing of the kind", "not JSON"),
        ("a.parquet", b"PAR1", "not a complete Parquet file"),
        ("a.npy", b"nothing", "not a complete numpy array"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
    ],
)
def test_documents_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadIndex, match=said):
        build([tmp_path / name], tmp_path / "index", Settings(tokenizer="bytes"))
    assert not (tmp_path / "index" / "manifest.json").exists()
    if "token id" not in said:  # nothing was encoded, so another input may be given
        (tmp_path / "b.txt").write_text("better")
        assert build([tmp_path / "b.txt"], tmp_path / "index", Settings(tokenizer="bytes"))["shards"][0]["documents"] == 1


def test_rows_without_a_document_are_skipped_and_listed(tmp_path: Path) -> None:
    """Wherever they are; the index equals that of the other rows."""
    lines = [json.dumps({"text": text}) for text in TEXTS]
    (tmp_path / "good.jsonl").write_text("\n".join(lines))
    (tmp_path / "mixed.jsonl").write_text("\n".join(["{", *lines[:2], '{"text": null}', *lines[2:], "[]", '{"text": null}']))
    clean = build([tmp_path / "good.jsonl"], tmp_path / "clean", Settings(tokenizer="bytes", metadata=False))
    mixed = build([tmp_path / "mixed.jsonl"], tmp_path / "index", Settings(tokenizer="bytes", metadata=False))
    assert "skipped" not in clean and mixed["shards"] == clean["shards"]
    (entry,) = mixed["skipped"]
    assert entry["shards"] == [0]
    assert {reason: found["rows"] for reason, found in entry["rows"].items()} == {
        "not JSON": 1,
        "null text": 2,
        "not a JSON object": 1,
    }
    assert entry["rows"]["null text"]["first"] == "mixed.jsonl:4: null text"
    assert build([tmp_path / "mixed.jsonl"], tmp_path / "index", Settings(tokenizer="bytes", metadata=False)) == mixed
    (tmp_path / "more.jsonl").write_text('{"text": 1.5}\n{"text": "more"}\n')
    grown = append(tmp_path / "index", [tmp_path / "more.jsonl"], Settings())
    assert [entry["shards"] for entry in grown["skipped"]] == [[0], [1]]


@pytest.mark.parametrize("name", ["bites", "tiktokn:gpt2", "gpt2x", "a b/c"])
def test_a_name_that_is_no_tokenizer_is_refused_without_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenizers import Tokenizer

    monkeypatch.setattr(Tokenizer, "from_pretrained", None)
    with pytest.raises(BadIndex, match=f"unknown tokenizer '{name}'; .*give bytes, tiktoken:NAME, a model folder"):
        load_tokenizer(name)
    assert load_tokenizer("byte") == load_tokenizer("bytes")


def test_calls_that_cannot_work_are_refused(tmp_path: Path) -> None:
    source = as_jsonl(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    (tmp_path / "empty").mkdir()
    for paths, out, chosen, said in (
        ([tmp_path / "none"], "index", Settings(), "there is no file or folder"),
        ([tmp_path / "empty"], "index", Settings(), "it holds no file at all"),
        ([], "index", Settings(), "no documents were given"),
        ([source], "full", Settings(tokenizer="bytes"), "not empty"),
        ([source], "index", Settings(tokenizer="bytes", shards=0), "shards is 0"),
        ([source], "index", Settings(tokenizer="tiktoken:none"), "cannot load the encoding"),
        ([source], "index", Settings(tokenizer=str(tmp_path)), "holds no tokenizer.json"),
        ([source], "index", Settings(), "no tokenizer was set"),
    ):
        with pytest.raises(BadIndex, match=said):
            build(paths, tmp_path / out, chosen)


def test_no_documents_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    with pytest.raises(BadIndex, match=r"a\.jsonl holds no document, so there is nothing to index"):
        build([tmp_path / "a.jsonl"], tmp_path / "index", Settings(tokenizer="bytes"))
