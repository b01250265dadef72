"""An index over a tiktoken encoding: a toy one, registered as its plug-ins are, because the others need a download."""

import json
import os
import subprocess
from pathlib import Path

from helpers.commands import limbeck
from helpers.paths import SEARCH_PATH

PLUGIN = """
def toy():
    words = [b" still", b" water", b"boil"]
    ranks = {bytes([value]): value for value in range(256)}
    pieces = {word[:end] for word in words for end in range(2, len(word) + 1)}
    ranks |= {piece: 256 + i for i, piece in enumerate(sorted(pieces, key=lambda piece: (len(piece), piece)))}
    pattern = r" ?[a-z]+|[^a-z]"
    return {"name": "toy", "pat_str": pattern, "mergeable_ranks": ranks, "special_tokens": {"<|endoftext|>": len(ranks)}}

ENCODING_CONSTRUCTORS = {"toy": toy}
"""


def ngram(*arguments: object, plugins: Path | None = None) -> subprocess.CompletedProcess[str]:
    return limbeck("ngram", *arguments, **({"PYTHONPATH": os.pathsep.join([SEARCH_PATH, str(plugins)])} if plugins else {}))


def test_an_index_over_a_tiktoken_encoding(tmp_path: Path) -> None:
    (tmp_path / "plugins" / "tiktoken_ext").mkdir(parents=True)
    (tmp_path / "plugins" / "tiktoken_ext" / "toy_encoding.py").write_text(PLUGIN)
    (tmp_path / "text.txt").write_text("a still boils water, and a still drips still water")
    index, plugins = tmp_path / "index", tmp_path / "plugins"
    built = ngram("build", tmp_path / "text.txt", "--out", index, "--tokenizer", "tiktoken:toy", plugins=plugins)
    assert built.returncode == 0, built.stderr
    manifest = json.loads((index / "manifest.json").read_text())
    assert manifest["tokenizer"]["kind"] == "tiktoken" and manifest["tokenizer"]["name"] == "toy" and manifest["dtype"] == "u16"
    for text, count in (("still", 3), ("still water", 1), ("water", 2), ("wine", 0)):
        found = ngram("count", index, f" {text}", "--as-is", "--json", plugins=plugins)
        assert found.returncode == 0 and json.loads(found.stdout)["count"] == count, (text, found.stdout, found.stderr)
    without = ngram("count", index, "still")
    assert without.returncode == 1 and "tiktoken cannot load the encoding 'toy'" in without.stderr
    assert "Traceback" not in without.stderr
