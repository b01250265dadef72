"""Builds that open more files than the soft limit allows."""

import errno
import resource
import subprocess
import sys

import pytest

from helpers.ngram_served import environment
from limbeck.infinigram import manifest as manifests
from limbeck.infinigram.errors import BadIndex
from limbeck.infinigram.index import Index

BUILD = """
import resource, sys
soft, hard = int(sys.argv[1]), int(sys.argv[2])
from limbeck.infinigram.build import Settings, build
from limbeck.infinigram.errors import BadIndex
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
try:
    build([sys.argv[3]], sys.argv[4], Settings(tokenizer="bytes", shards=100, memory_bytes=1 << 28))
except BadIndex as error:
    print(error)
"""


def build_with(tmp_path, soft, hard):
    if not (tmp_path / "texts.jsonl").exists():
        (tmp_path / "texts.jsonl").write_text("".join(f'{{"text": "text {number}"}}\n' for number in range(120)))
    command = [sys.executable, "-c", BUILD, str(soft), str(hard), str(tmp_path / "texts.jsonl"), str(tmp_path / "index")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment(), cwd="/")
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_soft_limit_is_raised(tmp_path):
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert build_with(tmp_path, 256, hard) == ""
    assert Index.open(tmp_path / "index").count("text") == 120


def test_a_hard_limit_that_is_too_low_is_named(tmp_path):
    said = build_with(tmp_path, 256, 256)
    assert "encoding into 100 shards needs 528 open files, but the limit is 256 (ulimit -Hn)" in said and "\n" not in said.strip()
    assert build_with(tmp_path, 256, 1024) == ""  # the same call resumes


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENOSPC, "free some space"),
        (errno.EACCES, "permissions"),
        (errno.EIO, "check the disk"),
    ],
)
def test_an_error_names_its_own_remedy(tmp_path, number, words):
    with pytest.raises(BadIndex, match=words) as caught, manifests.writing(tmp_path):
        raise OSError(number, "a reason", str(tmp_path / "file"))
    assert f"{tmp_path / 'file'}: a reason while writing {tmp_path}; " in str(caught.value)
