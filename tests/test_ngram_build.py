"""Building an index: every kind of input against a naive writer, the memory limit, resuming after kill -9, refusals."""

import gzip
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infinigram.build import Settings, build
from infinigram.memory import free_memory_bytes
from infinigram.errors import BadIndex


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """What a killed process wrote survives it; only a power cut needs the disk, and the long tests wait for it all the same."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)


TEXTS = ["the cat sat on the mat", "", "the dog sat", "naïve café ☕", "the cat sat on the mat", "a" * 300]
WIDTHS = {"u8": 1, "u16": 2, "u32": 4}


def naive_files(documents: list[list[int]], shards: int, version: int, dtype: str) -> dict[str, bytes]:
    """What tokenized, offset and table of each shard must be, by the definition of the format."""
    width = WIDTHS[dtype]
    files: dict[str, bytes] = {}
    for shard in range(shards):
        text, offsets = b"", []
        for ids in documents[shard::shards]:
            offsets.append(len(text))
            text += b"\xff" * width
            text += b"".join(token.to_bytes(width, "little") for token in (ids if version == 4 else ids[::-1]))
        order = sorted(range(0, len(text), width), key=lambda at: text[at:])
        entry = next(n for n in range(1, 9) if 256**n >= len(text))
        files[f"tokenized.{shard}"] = text
        files[f"offset.{shard}"] = np.array(offsets, dtype="<u8").tobytes()
        files[f"table.{shard}"] = b"".join(at.to_bytes(entry, "little") for at in order)
    return files


def write_ids(folder: Path, documents: list[list[int]]) -> Path:
    np.save(folder / "ids.npy", np.array([token for ids in documents for token in ids], dtype=np.int64))
    np.save(folder / "ids.offsets.npy", np.cumsum([0, *map(len, documents)]))
    return folder / "ids.npy"


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file of a finished index."""
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def is_naive(folder: Path, expected: dict[str, bytes]) -> bool:
    return all((folder / name).read_bytes() == content for name, content in expected.items())


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
    from infinigram.tokenizers import load_tokenizer, open_tokenizer

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


def large_documents() -> list[list[int]]:
    """Some 40,000 tokens with long repeats, enough for many batches and parts."""
    random = np.random.default_rng(5)
    once = [random.integers(0, 300, size).tolist() for size in random.integers(0, 400, 100)]
    return once + once[::3] + [[7] * 3000, [7] * 2000]


def test_memory_limit_and_threads_change_nothing(tmp_path: Path) -> None:
    source = write_ids(tmp_path, large_documents())
    tables = {}
    for memory, threads in ((None, 1), (None, 3), (400_000, 1), (100_000, 3), (20_000, 2)):
        out = tmp_path / f"{memory}-{threads}"
        build([source], out, Settings(memory_bytes=memory, threads=threads))
        tables[memory, threads] = (out / "table.0").read_bytes()
    assert len(set(tables.values())) == 1


def test_it_tells_how_far_it_is(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int, str]] = []
    source = write_ids(tmp_path, large_documents())
    build([source], tmp_path / "index", Settings(memory_bytes=100_000), lambda *told: seen.append(told))
    steps = {step for step, *_ in seen}
    assert steps == {"tokenise", "sort", "rank", "merge"}
    for step in steps:
        told = [(done, total) for name, done, total, _ in seen if name == step]
        assert all(done <= total for done, total in told) and told == sorted(told), step
        assert step == "tokenise" or told[-1][0] == told[-1][1]


def killed_at(moment: int, work: Callable[[Callable[..., None]], object]) -> bool:
    """Run `work` in a forked process that kills itself at the so-many-th time it touches the disk or reports."""
    pid = os.fork()
    if pid == 0:
        try:
            left = moment
            lock = threading.Lock()

            def step(*_: object) -> None:
                nonlocal left
                with lock:
                    left -= 1
                    if left == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                        time.sleep(60)  # the signal takes a moment

            for name in ("fsync", "replace", "rename", "truncate", "unlink", "link", "symlink", "rmdir"):
                original = getattr(os, name)

                def counted(*args: Any, original: Callable[..., Any] = original, **named: Any) -> Any:
                    step()
                    return original(*args, **named)

                setattr(os, name, counted)
            work(step)
        finally:
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("memory", [None, 200_000])
def test_kill_at_every_step_of_a_build_and_resume(tmp_path: Path, memory: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each life of the build dies a step later than the last one; what stands at the end is what one life makes."""
    monkeypatch.setattr("infinigram.encode._BATCH_DOCUMENTS", 20)
    monkeypatch.setattr("infinigram.encode._CHECKPOINT_SECONDS", 0.0)
    source = write_ids(tmp_path, large_documents())
    chosen = Settings(shards=2, memory_bytes=memory, threads=1)
    build([source], tmp_path / "whole", chosen)
    lives = 0
    while killed_at(40, lambda step: build([source], tmp_path / "index", chosen, step)):
        lives += 1
        assert lives < 200
    assert lives > 2
    assert content_of(tmp_path / "index") == content_of(tmp_path / "whole")
    moment = 1
    while killed_at(moment, lambda step, out=tmp_path / f"at{moment}": build([source], out, chosen, step)):
        build([source], tmp_path / f"at{moment}", chosen)
        assert content_of(tmp_path / f"at{moment}") == content_of(tmp_path / "whole"), moment
        moment += 7


def dies_after(seconds: float, work: Callable[[], object]) -> bool:
    """Run `work` in a forked process and kill it after so long; whether it was still at it."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True])
def test_kill_at_random_moments_of_a_long_build(tmp_path: Path, again: bool) -> None:
    """Ten builds killed once each and continued; or one killed `again` and again. What reaches the disk really does so here."""
    random = np.random.default_rng(8)
    np.save(tmp_path / "ids.npy", random.zipf(1.2, 3_000_000) % 60_000)
    chosen = Settings(memory_bytes=12_000_000, threads=2)
    started = time.monotonic()
    build([tmp_path / "ids.npy"], tmp_path / "whole", chosen)
    took_seconds = time.monotonic() - started
    whole = content_of(tmp_path / "whole")
    died = 0
    for turn in range(10):
        out = tmp_path / ("index" if again else f"index{turn}")
        moment = random.random() * took_seconds / (4 if again else 1)
        died += dies_after(moment, lambda out=out: build([tmp_path / "ids.npy"], out, chosen))
        if not again:
            build([tmp_path / "ids.npy"], out, chosen)
            assert content_of(out) == whole, moment
            shutil.rmtree(out)
    if again:
        build([tmp_path / "ids.npy"], out, chosen)
        assert content_of(out) == whole
    print(f"{died} of 10 died within {took_seconds:.1f} s")
    assert died >= 5


@pytest.mark.parametrize(("step", "told"), [("rank", 1), ("rank", 5), ("merge", 1)])
def test_finished_parts_are_not_sorted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, told: int) -> None:
    """Nor counted again: `rank` is told twice a part."""
    source = write_ids(tmp_path, large_documents())
    chosen = Settings(memory_bytes=100_000, threads=1)

    calls: list[str] = []

    def stop(now: str, *_: object) -> None:
        calls.append(now)
        if calls.count(step) == told:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build([source], tmp_path / "index", chosen, stop)
    monkeypatch.setattr("infinigram.tables.sort_part", None)  # calling it again would raise
    if step == "merge":
        monkeypatch.setattr("infinigram.tables.count_gaps", None)
    monkeypatch.setattr("infinigram.encode._write", None)
    build([source], tmp_path / "index", chosen)
    assert is_naive(tmp_path / "index", naive_files([], 0, 4, "u16"))


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
        ("a.jsonl", b'{"text": "x"}\n{"text": 3}\n', "line 2: the document is int"),
        ("a.jsonl", b'{"text": "x"}\n{"text"\n', "line 2 is not JSON"),
        ("a.jsonl", b'["x"]\n', "line 1 is not a JSON object"),
        ("a.jsonl", b'{"body": "x"}\n', "has no 'text'; it has body"),
        ("a.jsonl", b'{"text": "\xff"}\n', "not UTF-8"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "surrogate"),
        ("a.jsonl", b'{"text": [1, 255]}\n', "token id 255"),
        ("a.jsonl", b'{"text": [1, -1]}\n', "token id -1"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 1000)[:-20], "cannot be read to its end"),
        ("a.jsonl.zst", b"nothing of the kind", "cannot be read to its end"),
        ("a.parquet", b"PAR1", "not a whole Parquet file"),
        ("a.npy", b"nothing", "no whole array"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
    ],
)
def test_documents_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadIndex, match=said):
        build([tmp_path / name], tmp_path / "index", Settings(tokenizer="bytes"))
    assert not (tmp_path / "index" / "manifest.json").exists()


def test_calls_that_cannot_work_are_refused(tmp_path: Path) -> None:
    source = as_jsonl(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    (tmp_path / "empty").mkdir()
    for paths, out, chosen, said in (
        ([tmp_path / "none"], "index", Settings(), "no file or folder"),
        ([tmp_path / "empty"], "index", Settings(), "holds no document file"),
        ([], "index", Settings(), "no documents were given"),
        ([source], "full", Settings(tokenizer="bytes"), "not empty"),
        ([source], "index", Settings(tokenizer="bytes", shards=0), "shards is 0"),
        ([source], "index", Settings(tokenizer="tiktoken:none"), "cannot load the encoding"),
        ([source], "index", Settings(tokenizer=str(tmp_path)), "holds no tokenizer.json"),
        ([source], "index", Settings(), "no tokenizer was chosen"),
    ):
        with pytest.raises(BadIndex, match=said):
            build(paths, tmp_path / out, chosen)


def test_no_documents_at_all(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("")
    manifest = build([tmp_path / "a.jsonl"], tmp_path / "index", Settings(tokenizer="bytes"))
    assert manifest["shards"][0]["tokens"] == 0
    assert (tmp_path / "index" / "table.0").read_bytes() == b""


def test_free_memory_is_plausible() -> None:
    assert 1 << 20 < free_memory_bytes() < 1 << 50
