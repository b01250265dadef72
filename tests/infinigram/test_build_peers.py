"""Tables and files byte for byte against the official indexer, and tables against libdivsufsort, where those are installed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from limbeck.infinigram.build import Settings, build

OFFICIAL = "--token_dtype u8 --cpus 1 --mem 1 --add_metadata --add_unigram --ulimit 1024".split()
DIVSUFSORT = """
import sys
import numpy as np, pydivsufsort
text, width, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
table = pydivsufsort.divsufsort(np.fromfile(text, dtype=np.uint8))
np.save(out, table[table % width == 0].astype(np.int64))
"""


def peer(module: str) -> str:
    """The interpreter that LIMBECK_PEERS names, or this one; skips where it lacks the module."""
    python = os.environ.get("LIMBECK_PEERS") or sys.executable
    if subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode:
        pytest.skip(f"{module} is not installed; pip install it elsewhere and name that python in LIMBECK_PEERS")
    return python


def prose(documents: int) -> list[str]:
    """Texts of repeated words, with some documents twice, one empty, and what is no ASCII."""
    random = np.random.default_rng(4)
    words = ["the", "cat", "sat", "on", "a", "mat", "naïve", "☕", "and", "\n"]
    texts = [" ".join(random.choice(words, int(size))) for size in random.integers(0, 300, documents)]
    return ["", *texts, *texts[: documents // 5]]


@pytest.mark.parametrize("shards", [1, 3])
def test_every_file_equals_the_official_indexers(tmp_path: Path, shards: int) -> None:
    python = peer("infini_gram")
    (tmp_path / "data").mkdir()
    (tmp_path / "official").mkdir()
    lines = [json.dumps({"text": text, "id": number, "from": "café"}) for number, text in enumerate(prose(300))]
    (tmp_path / "data" / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    folders = ["--data_dir", str(tmp_path / "data"), "--save_dir", str(tmp_path / "official"), "--shards", str(shards)]
    subprocess.run([python, "-m", "infini_gram.indexing", *folders, *OFFICIAL], check=True, capture_output=True)
    build([tmp_path / "data"], tmp_path / "ours", Settings(tokenizer="bytes", shards=shards))
    official = {path.name: path.read_bytes() for path in (tmp_path / "official").iterdir() if path.is_file()}
    assert len(official) == 6 * shards
    for name, content in official.items():
        assert (tmp_path / "ours" / name).read_bytes() == content, name


@pytest.mark.parametrize("dtype", ["u8", "u16", "u32"])
@pytest.mark.parametrize("memory_bytes", [None, 200_000])
def test_tables_equal_divsufsorts(tmp_path: Path, dtype: str, memory_bytes: int | None) -> None:
    python = peer("pydivsufsort")
    top = 256 ** (int(dtype[1:]) // 8) - 1
    random = np.random.default_rng(6)
    ids = np.concatenate([random.integers(0, top, 20_000), random.zipf(1.5, 40_000) % top, np.full(5000, top - 1)])
    np.save(tmp_path / "ids.npy", np.concatenate([ids, ids[10_000:40_000]]))
    build([tmp_path / "ids.npy"], tmp_path / "ours", Settings(dtype=dtype, memory_bytes=memory_bytes))  # type: ignore[arg-type]
    text = tmp_path / "ours" / "tokenized.0"
    subprocess.run([python, "-c", DIVSUFSORT, str(text), str(int(dtype[1:]) // 8), str(tmp_path / "table.npy")], check=True)
    expected = np.load(tmp_path / "table.npy")
    raw = np.fromfile(tmp_path / "ours" / "table.0", dtype=np.uint8).reshape(len(expected), -1).astype(np.int64)
    assert np.array_equal(raw @ (256 ** np.arange(raw.shape[1])), expected)
