"""The commands `limbeck ngram ...` from a corpus to a served index."""

import json
import os
import pty
import re
import socket
import subprocess

import httpx
import pytest
from typer.testing import CliRunner

from helpers import ngram_served as tools
from limbeck.corpus.errors import LimbeckError
from limbeck.infinigram.index import Index
from limbeck.pipelines.cli import ngram as ngram_cli
from limbeck.pipelines.cli import ngram_show


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    tools.write_corpus(folder / "corpus")
    tools.write_tokenizer(folder / "tokenizer.json")
    done = tools.ngram(
        "build",
        folder / "corpus",
        "--out",
        folder / "index",
        "--tokenizer",
        folder / "tokenizer.json",
        "--shards",
        2,
        "--memory",
        "64MiB",
    )
    assert done.returncode == 0, done.stderr
    assert "tokens" in done.stdout and "Traceback" not in done.stderr
    return folder


def run(*arguments, stdin=None):
    """Run a command in this process, which is faster."""
    return CliRunner().invoke(ngram_cli.app, [str(argument) for argument in arguments], input=stdin)


def answer(*arguments, stdin=None):
    done = run(*arguments, "--json", stdin=stdin)
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout)


def words_of(*arguments):
    done = run(*arguments)
    assert done.exit_code == 0, done.exception
    return done.stdout


def test_help_names_every_command():
    done = run("--help")
    names = "build append remove compact verify info count next prob search score trace serve".split()
    assert done.exit_code == 0 and all(name in done.stdout for name in names)
    for name in names:
        shown = words_of(name, "--help")
        assert "Usage" in shown and ("--json" in shown or name == "serve")


def test_questions_get_the_engines_answers(home):
    index = Index.open(home / "index")
    where = home / "index"
    assert answer("info", where)["tokens"] == index.tokens
    assert answer("count", where, "the still") == {"count": index.count(" the still"), "approximate": False}
    assert answer("count", where, "he still", "--as-is")["count"] == index.count("he still")
    ids = " ".join(map(str, index.tokenizer.encode(" the still")))
    assert answer("count", where, ids, "--ids")["count"] == index.count(" the still")
    assert (
        answer("count", where, "boils AND lamp OR vapour", "--cnf")["count"]
        == index.count_cnf([[" boils"], [" lamp", " vapour"]])[0]
    )
    assert answer("prob", where, "the still")["continuation_count"] == index.count(" the still")
    assert answer("prob", where, "qqq the still", "--infgram")["suffix_tokens"] == 1
    assert answer("next", where, "the", "-n", 3)["tokens"][0]["count"] == int(index.next_tokens(" the").counts.max())
    assert answer("search", where, "quicksilver")["documents"][0]["spans"][1] == [" quicksilver", 0]
    assert answer("score", where, " the still")["suffix_tokens"] == [0, 1]
    spans = answer("trace", where, "--file", "-", stdin=" A quicksilver lamp burns")["spans"]
    assert spans and "quicksilver lamp" in spans[0]["text"]


def test_words_for_people(home):
    where = home / "index"
    assert words_of("count", where, "quicksilver") == "1\n"
    assert '" lamp"' in words_of("next", where, "quicksilver")
    assert words_of("prob", where, "quicksilver lamp") == "1 (1 of 1, after 1 token)\n"
    assert "[ quicksilver]" in words_of("search", where, "quicksilver")
    assert words_of("score", where, " the still").splitlines()[2].split()[-1] == 'still"'
    assert "quicksilver" in words_of("trace", where, " A quicksilver lamp burns")
    assert "2 shards, u16, version 4; tokenizer: huggingface" in words_of("info", where)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("count", "/nowhere", "x"), "/nowhere"),
        (("count", "INDEX", "one two", "--ids"), "token ids"),
        (("count", "INDEX", "99999999", "--ids"), "99999999"),
        (("count", "INDEX", "x", "--set", "colour=red"), "--set colour=red"),
        (("count", "INDEX", "x", "--set", "dtype=u9"), "dtype"),
        (("count", "INDEX", "x AND ", "--cnf"), "a phrase is missing"),
        (("count", "INDEX", "x AND  ", "--cnf"), "a phrase is missing"),
        (("search", "INDEX", "x", "--cursor", "zzz"), "cursor"),
        (("score", "INDEX"), "--file"),
        (("trace", "INDEX", "--file", "/nowhere.txt"), "/nowhere.txt"),
        (("build", "/nowhere", "--out", "OUT"), "/nowhere"),
        (("build", "CORPUS", "--out", "OUT", "--memory", "2 apples"), "2 apples"),
        (("remove", "INDEX", "100000"), "100000"),
        (("serve", "a=INDEX", "a=INDEX"), "two indexes"),
        (("serve", "=INDEX"), "an index cannot be served as ''"),
        (("serve", "..=INDEX"), "an index cannot be served as '..'"),
        (("serve", "indexes=INDEX"), "an index cannot be served as 'indexes'"),
        (("serve", "INDEX", "a\nb=INDEX"), "name it: NAME=FOLDER"),
        (("serve", "/"), "name it: NAME=FOLDER"),
        (("serve", "a="), "'a=': a folder is missing"),
        (("count", "INDEX,", "x"), "a folder is missing"),
        (("serve", "INDEX", "--keys", "/nowhere.keys"), "/nowhere.keys"),
        (("serve", "INDEX", "--host", "203.0.113.1"), "203.0.113.1"),
    ],
)
def test_faults_are_one_sentence(home, arguments, words):
    places = {"INDEX": home / "index", "OUT": home / "never", "CORPUS": home / "corpus"}
    done = run(*(re.sub("INDEX|OUT|CORPUS", lambda name: str(places[name[0]]), argument) for argument in arguments))
    assert isinstance(done.exception, LimbeckError), done.exception
    assert words in str(done.exception) and "\n" not in str(done.exception) and done.stdout == ""


def test_a_fault_is_one_line_and_exit_code_1(home):
    done = tools.ngram("count", home / "nothing", "x")
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith(f"limbeck: {home / 'nothing'}")
    assert len(done.stderr.strip().splitlines()) == 1


def test_usage_faults_have_exit_code_2(home):
    assert tools.ngram("count").returncode == run("nothing").exit_code == 2
    assert run("next", home / "index", "the", "-n", 0).exit_code == 2


def test_an_index_is_kept(home):
    where = home / "kept"
    assert answer("build", home / "corpus", "--out", where, "--tokenizer", home / "tokenizer.json")["shards"] == 1
    before = answer("count", where, "quicksilver")["count"]
    number = answer("search", where, "quicksilver")["documents"][0]["number"]
    more = home / "more.txt"
    more.write_text("more quicksilver. more quicksilver.")
    assert answer("append", where, more)["shards"] == 2
    assert answer("count", where, "quicksilver")["count"] == before + 2
    assert answer("verify", where)["checksums"] is True
    assert answer("remove", where, "--from", "-", stdin=f"{number}\n")["documents_down"] == 1
    assert answer("count", where, "quicksilver")["count"] == 2
    assert answer("compact", where)["documents"] == len(tools.texts())
    assert answer("verify", where)["documents"] == len(tools.texts())
    table = where / "table.0"
    content = bytearray(table.read_bytes())
    content[len(content) // 2] ^= 1
    table.write_bytes(content)
    assert "table.0" in str(run("verify", where).exception)


@pytest.mark.parametrize(
    ("text", "size"),
    [("400MiB", 400 << 20), ("2GiB", 2 << 30), ("2g", 2 << 30), ("1.5 GB", 1_500_000_000), ("17", 17), ("64k", 65536), ("1b", 1)],
)
def test_sizes(text, size):
    assert ngram_show.size(text) == size


@pytest.mark.parametrize("text", ["", "0", "GiB", "2XB", "-1", "1e9"])
def test_what_is_no_size(text):
    with pytest.raises(LimbeckError, match="is not a size"):
        ngram_show.size(text)


def test_names_and_folders():
    assert ngram_show.spec("web=a/b,c", ["dtype=u8", "eos=2"]).model_dump(include={"name", "paths", "dtype", "eos"}) == {
        "name": "web",
        "paths": ("a/b", "c"),
        "dtype": "u8",
        "eos": 2,
    }
    assert ngram_show.spec("some/folder/", []).name == "folder"
    assert ngram_show.spec("/a=b/folder", []).paths == ("/a=b/folder",)


def test_progress_has_a_rate_and_what_is_left(capsys):
    report = ngram_show._PlainLines()
    report("sort", 0, 1000, "tokens")
    report._steps["sort"] -= 100.0
    report._said -= 100.0
    report("sort", 250, 1000, "tokens")
    report("sort", 260, 1000, "tokens")  # too soon for another line
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "2.5 tokens/s, 300 s left" in lines[1]
    assert ngram_show.rate_words(13_000_000, 2.0, "tokens") == "6.5 Mtokens/s"


def test_progress_lines_end_at_the_total(capsys):
    """Of every step and shard, however soon after the line before."""
    report = ngram_show._PlainLines()
    for step, done, total in [("tokenise", 3, 9), ("tokenise", 6, 9), ("tokenise", 9, 9), ("sort", 4, 4), ("sort", 4, 4)]:
        report(step, done, total, "bytes")
    for done in (0, 2, 4):  # another shard of the same size
        report("sort", done, 4, "bytes")
    lines = [line.split(" ", 1)[1].split(",")[0] for line in capsys.readouterr().err.splitlines()]
    of = ["tokenise: 3 of 9 bytes", "tokenise: 9 of 9 bytes", "sort: 4 of 4 bytes", "sort: 0 of 4 bytes", "sort: 4 of 4 bytes"]
    assert lines == of


def test_every_step_of_a_build_ends_at_its_total(home, tmp_path):
    """In memory, in parts, and of a check."""
    for memory in (["--memory", "64MiB"], []):
        out = tmp_path / f"index{len(memory)}"
        done = tools.ngram("build", home / "corpus", "--out", out, "--tokenizer", "bytes", "--shards", 2, *memory)
        done_too = tools.ngram("verify", out)
        lines = [line.split(" ", 1)[1] for line in (done.stderr + done_too.stderr).splitlines() if " of " in line]
        last = {line.split(":")[0]: re.findall(r"[\d,]+ of [\d,]+", line)[0].split(" of ") for line in lines}
        assert {"tokenise", "sort", "checksums", "text", "table"} <= last.keys()
        assert all(done == total for done, total in last.values()), last


def test_skipped_rows_are_reported(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "one"}\n{"text": null}\n')
    done = run("build", tmp_path / "rows.jsonl", "--out", tmp_path / "index", "--tokenizer", "bytes")
    assert done.exit_code == 0 and "skipped 1 row: null text (first: rows.jsonl:2: null text)" in done.stdout
    facts = answer("build", tmp_path / "rows.jsonl", "--out", tmp_path / "index", "--tokenizer", "bytes")
    assert facts["skipped"] == [{"reason": "null text", "rows": 1, "first": "rows.jsonl:2: null text"}]
    (tmp_path / "more.csv").write_text("text\nmore\n")
    assert answer("append", tmp_path / "index", tmp_path / "more.csv")["skipped"] == []


def test_an_unclosed_quote_is_answered_with_what_this_command_can_do(tmp_path):
    (tmp_path / "unclosed.csv").write_text('text\n"never closed\n')
    done = run("build", tmp_path / "unclosed.csv", "--out", tmp_path / "index", "--tokenizer", "bytes")
    assert "close it, or convert the file to JSON Lines if cells are not quoted" in str(done.exception)
    assert "quote: null" not in str(done.exception)


def test_a_binary_text_file_is_skipped_and_reported(tmp_path):
    (tmp_path / "a.txt").write_text("a text")
    (tmp_path / "bin.txt").write_bytes(b"text\0with NUL bytes")
    done = run("build", tmp_path, "--out", tmp_path / "index", "--tokenizer", "bytes")
    assert done.exit_code == 0 and "skipped 1 row: binary, not text (first: bin.txt: binary, not text)" in done.stdout
    assert answer("info", tmp_path / "index")["documents"] == 1


def test_progress_is_a_bar_on_a_terminal(home, tmp_path):
    master, slave = pty.openpty()
    command = [*tools.COMMAND, "build", str(home / "corpus"), "--out", str(tmp_path / "bar"), "--tokenizer", "bytes"]
    with subprocess.Popen(
        command, env=tools.environment() | {"TERM": "xterm", "COLUMNS": "100"}, stdout=subprocess.DEVNULL, stderr=slave
    ) as process:
        os.close(slave)
        shown = b""
        with open(master, "rb", buffering=0) as screen:
            try:
                while part := screen.read(4096):
                    shown += part
            except OSError:  # the terminal's other end was closed
                pass
        assert process.wait(60) == 0
    assert b"tokenise" in shown and b"100 %" in shown and b"ETA" in shown


def test_serve(home):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [*tools.COMMAND, "serve", str(home / "index"), "--port", str(port)]
    with subprocess.Popen(command, env=tools.environment(), stderr=subprocess.PIPE, text=True) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            tools.await_health(url, process)
            assert httpx.post(f"{url}/v1/index/count", json={"text": " quicksilver"}).json()["count"] == 1
        finally:
            process.terminate()
            process.wait(20)
        assert process.stderr is not None and f"serving index at {url}/" in process.stderr.read()
