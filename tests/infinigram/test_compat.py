"""The official interface: its answers on small examples, its errors, and the official engine's own answers where it is there.

The comparison runs `infini_gram` in another process (it can abort) of the interpreter that LIMBECK_PEERS names, or of this one.
Its known defects are left out: CNF at document borders, rank 0 of creativity, next tokens and attribution in reversed indexes,
windows at separators, odd pointers, and next tokens of a prompt that ends a document and also ends a shard or stands before a
literal eos (all its hits then count as ends); so are estimates for clauses so frequent that each engine draws its own sample.
"""

import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import ngram_oracle as naive
from limbeck.infinigram.compat import InfiniGramEngine

S = 65535  # the separator of u16
OFFICIAL = """
import json, sys
from infini_gram.engine import InfiniGramEngine
jobs = json.load(sys.stdin)
engine = InfiniGramEngine(**jobs["open"], ds_prefetch_depth=0, sa_prefetch_depth=0, od_prefetch_depth=0)
json.dump([getattr(engine, name)(*arguments) for name, arguments in jobs["calls"]], sys.stdout)
"""


def peer() -> str:
    named = os.environ.get("LIMBECK_PEERS")
    if named is None and importlib.util.find_spec("infini_gram") is None:
        pytest.skip(
            "the official engine is not installed; pip install infini-gram==2.6.0 elsewhere and name its python in LIMBECK_PEERS"
        )
    return named or sys.executable


def official_answers(opening, calls):
    jobs = json.dumps({"open": opening, "calls": calls})
    run = subprocess.run([peer(), "-c", OFFICIAL], input=jobs, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def our_answers(opening, calls):
    engine = InfiniGramEngine(**opening, compat=True)
    return json.loads(json.dumps([getattr(engine, name)(*arguments) for name, arguments in calls]))


def assert_same(ours, theirs, call):
    assert type(ours) is type(theirs), (call, ours, theirs)
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), (call, ours, theirs)
        for key in ours:
            assert_same(ours[key], theirs[key], call)
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), (call, ours, theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_same(mine, other, call)
    elif isinstance(ours, float):
        assert ours == pytest.approx(theirs, rel=1e-9), (call, ours, theirs)
    else:
        assert ours == theirs, (call, ours, theirs)


def drawn(answer):
    """What does not depend on chance in the answer of a search."""
    return {**answer, "idxs": len(answer["idxs"]), "documents": len(answer["documents"])} if "idxs" in answer else answer


def assert_all_same(opening, calls, differs=lambda call, ours, theirs: False):
    """Ask both engines, compare answer by answer, and say how many there were."""
    left_out = 0
    for call, ours, theirs in zip(calls, our_answers(opening, calls), official_answers(opening, calls), strict=True):
        if differs(call, ours, theirs):
            left_out += 1
        elif call[0].startswith("search"):
            assert_same(drawn(ours), drawn(theirs), call)
        else:
            assert_same(ours, theirs, call)
    print(f"{len(calls) - left_out} answers equal, {left_out} left out ({opening['token_dtype']}, version {opening['version']})")


def calls_for(text, version, generator, each=40):
    """Calls with ids cut from a text (lists of documents), some of them changed."""

    def cut(most):
        at, size = generator.randrange(len(text)), generator.randrange(1, most)
        ids = text[at : at + size]
        if generator.random() < 0.3:
            ids[generator.randrange(len(ids))] = generator.choice(text)
        return ids

    calls = [["find", [[]]], ["count", [[]]], ["prob", [[], text[0]]], ["get_total_doc_cnt", []]]
    for _ in range(each):
        calls += [["find", [cut(8)]], ["count", [cut(30)]], ["prob", [cut(5), generator.choice(text)]]]
        calls += [["infgram_prob", [cut(60), generator.choice(text)]], ["search_docs", [cut(6), 3, 20]]]
        if version == 4:
            calls += [["ntd", [cut(4), generator.choice([1, 3, 10, 100, 1000])]], ["infgram_ntd", [cut(40), 100]]]
        ids = [text[0]] * 2 + cut(100)
        calls += [["creativity", [cut(60)]]] if version == 4 else []
        calls += (
            [["attribute", [ids, [text[3]], generator.randrange(1, 4), generator.randrange(1, 50), False]]]
            if version == 4
            else []
        )
    return calls


def document_calls(engine, generator, each=40):
    calls = []
    width = {255: 1, 65535: 2}.get(engine.token_id_max, 4)
    for _ in range(each):
        s = generator.randrange(len(engine.engine.shard_tokens))
        rank = generator.randrange(engine.engine.shard_tokens[s])
        number, length = generator.randrange(engine.get_total_doc_cnt()), generator.randrange(1, 50)
        pointer = engine.engine.pointer(s, rank)
        if int(engine.engine.text(s, pointer // width, pointer // width + 1)[0]) == engine.token_id_max:
            continue
        if pointer % 2 == 0:  # odd ones are refused officially whatever the width
            calls += [["get_doc_by_ptr", [s, pointer, length]], ["get_doc_by_ptr_2", [s, pointer, 3, length]]]
            calls += [["get_docs_by_ptrs", [[[s, pointer]], length]], ["get_docs_by_ptrs_2", [[[s, pointer, 2, length]]]]]
        calls += [["get_docs_by_ranks_2", [[[s, rank, 3, length]]]], ["get_docs_by_ixs_2", [[[number, length]]]]]
        calls += [["get_doc_by_rank", [s, rank, length]], ["get_doc_by_rank_2", [s, rank, 2, length]]]
        calls += [
            ["get_doc_by_ix", [number, length]],
            ["get_doc_by_ix_2", [number, length]],
            ["get_docs_by_ixs", [[number], length]],
        ]
    return calls


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(("dtype", "shards"), [("u8", 1), ("u16", 1), ("u16", 12), ("u32", 3)])
def test_official_answers(tmp_path, dtype, shards, version):
    generator = random.Random(11)
    numbers = np.random.default_rng(11)
    documents = [(numbers.zipf(1.4, generator.randrange(1, 300)) % 200).tolist() for _ in range(40)] + [[]]
    documents += [documents[0] * 2, documents[1][:50] + documents[2][:50]]
    for document in documents[-shards:]:
        document.append(201)  # shards end with what stands nowhere else
    folder = naive.write_index(tmp_path / "peer", documents, dtype, version, shards)
    opening = {"index_dir": str(folder), "eos_token_id": 249, "vocab_size": 250, "version": version, "token_dtype": dtype}
    text = [token for document in documents for token in document]
    assert_all_same(opening, calls_for(text, version, generator) + document_calls(InfiniGramEngine(**opening), generator))


@pytest.mark.parametrize("dtype", ["u8", "u16"])
def test_official_clauses_within_one_document(tmp_path, dtype):
    """Without borders of documents, at which clauses are undercounted, and without clauses so frequent that they are sampled."""
    generator = random.Random(5)
    document = (np.random.default_rng(5).zipf(1.3, 3000) % 100).tolist()
    folder = naive.write_index(tmp_path / "peer", [document], dtype)
    opening = {"index_dir": str(folder), "eos_token_id": 249, "vocab_size": 250, "version": 4, "token_dtype": dtype}
    calls = []
    for _ in range(150):
        terms = generator.sample(document, generator.randrange(2, 6))
        terms = [[token] for token in set(terms)]
        clauses = [terms[:1], *([terms[1:]] if generator.random() < 0.5 else [[term] for term in terms[1:]])]
        clauses = [clause for clause in clauses if clause]
        limits = [50_000, generator.choice([1, 5, 100])]
        calls += [
            ["count_cnf", [clauses, *limits]],
            ["find_cnf", [clauses, *limits]],
            ["search_docs_cnf", [clauses, 2, 9, *limits]],
        ]
    assert_all_same(opening, calls)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "version"), [("u8", 4), ("u16", 4), ("u16", 5), ("u32", 4)])
def test_official_answers_on_real_text(tmp_path, dtype, version):
    """The library's and the packages' sources, 20 MB as bytes: many long repeats."""
    from limbeck.infinigram.build import Settings, build

    peer()
    sources, bytes_left = [], 20_500_000
    for folder in (Path(os.__file__).parent, Path(np.__file__).parents[1]):
        for path in sorted(folder.glob("*/*.py")) + sorted(folder.glob("*/*/*.py")):
            if bytes_left > 0 and not {"test", "tests", "site-packages"} & set(path.relative_to(folder).parts):
                sources.append(path)
                bytes_left -= path.stat().st_size
    build(sources, tmp_path / "peer", Settings(tokenizer="bytes", dtype=dtype, version=version, shards=2))
    opening = {
        "index_dir": str(tmp_path / "peer"),
        "eos_token_id": 3,
        "vocab_size": 255,
        "token_dtype": dtype,
        "version": version,
    }
    engine = InfiniGramEngine(**opening)
    assert engine.count([])["count"] > 20_000_000
    text = [token for number in range(0, 150, 10) for token in engine.get_doc_by_ix(number, 5000)["token_ids"]]
    generator = random.Random(2)

    def counts_other_ends(call, ours, theirs):  # files end in newlines, so the last defect is common here
        ends = (
            [answer["result_by_token_id"].get("3", {}).get("cont_cnt", 0) for answer in (ours, theirs)]
            if "ntd" in call[0]
            else [0, 0]
        )
        return ends[1] > ends[0]

    calls = calls_for(text, version, generator, each=150) + document_calls(engine, generator, each=150)
    assert_all_same(opening, calls, counts_other_ends)


@pytest.fixture
def engine(tmp_path):
    documents = [[1, 2, 3, 4, 5], [1, 2, 3, 9], [2, 3, 4], [7], [1, 2, 3, 4, 5]]
    return InfiniGramEngine(index_dir=str(naive.write_index(tmp_path / "toy", documents)), eos_token_id=0)


def test_what_the_official_engine_answers_wrongly_is_right(engine, tmp_path):
    assert engine.count_cnf([[[1]], [[5]]]) == {"count": 2, "approx": False}
    assert engine.count_cnf([[[1]], [[1]]]) == {"count": 3, "approx": False}
    assert engine.creativity([1, 2, 3, 1])["rs"][0] == 3
    reversed_folder = naive.write_index(tmp_path / "five", [[1, 5, 7], [2, 5, 8], [3, 5, 8], [4, 5, 7]], version=5)
    backward = InfiniGramEngine(index_dir=str(reversed_folder), eos_token_id=0, version=5)
    assert {token: one["cont_cnt"] for token, one in backward.ntd([5])["result_by_token_id"].items()} == {7: 2, 8: 2}


@pytest.mark.parametrize(
    ("clauses", "distance", "pointers"),
    [
        ([[[S]]], 100, [0, 34, 12, 22, 46, 30]),
        ([[[S], [1]]], 100, [0, 34, 12, 22, 46, 30, 52, 50, 2, 36, 14]),
        ([[[5, S, 1]]], 100, [10]),
        ([[[5]], [[S]]], 1, [10, 44]),
        ([[[5]], [[S]]], 100, []),
        ([[[S]], [[5]]], 1, [10, 44]),
        ([[[S]], [[S]]], 1, [0, 34, 12, 22, 46, 30]),
        ([[[S]], [[S]]], 100, [0]),
        ([[[S, 7]], [[4]]], 1, [28]),
        ([[[S, 7]], [[4]]], 100, []),
        ([[[4, S]], [[7]]], 100, []),
        ([[[S, 2], [7]], [[3], [S]]], 1, [22]),
        ([[[S, 2], [7]], [[3], [S]]], 100, [18]),
    ],
)
@pytest.mark.parametrize("compat", [True, False])
def test_separators_in_clauses_count_as_officially(tmp_path, clauses, distance, pointers, compat):
    """Answers of infini_gram 2.6.0: a separator belongs to the document before it."""
    documents = [[1, 2, 3, 4, 5], [1, 2, 3, 9], [2, 3, 4], [7], [1, 2, 3, 4, 5], [5, 1, 1]]
    folder = naive.write_index(tmp_path / "toy", documents)
    engine = InfiniGramEngine(index_dir=str(folder), eos_token_id=0, compat=compat)
    assert engine.count_cnf(clauses, 50_000, distance) == {"count": len(pointers), "approx": False}
    assert engine.find_cnf(clauses, 50_000, distance)["ptrs_by_shard"] == [pointers]


def test_find_cnf_tells_the_places(engine):
    found = engine.find_cnf([[[1, 2], [7]], [[4]]])
    assert (found["cnt"], found["approx"], sorted(found["ptrs_by_shard"][0])) == (2, False, [2, 36])
    assert engine.find_cnf([[[1]], [[99]]]) == {"cnt": 0, "approx": False, "ptrs_by_shard": []}
    documents = engine.search_docs_cnf([[[9]], [[1]]], maxnum=3)["documents"]
    assert [document["token_ids"] for document in documents] == [[1, 2, 3, 9]] * 3
    for document in engine.search_docs([2, 3], maxnum=4, max_disp_len=2)["documents"]:
        assert document["token_ids"][document["needle_offset"]] == 2


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("find", [(1, 2)]),
        ("count", [[1, 70000]]),
        ("count", [[True]]),
        ("count", [[-1]]),
        ("prob", [[1], 2**70]),
        ("prob", ["1", 1]),
        ("ntd", [[1], 0]),
        ("ntd", [[1], 1.0]),
        ("infgram_prob", [[1.0], 1]),
        ("infgram_ntd", [[2**70], 5]),
        ("find_cnf", [[]]),
        ("find_cnf", [[[[]]]]),
        ("find_cnf", [[[[1]]], 0]),
        ("count_cnf", [[[[1]]], 5, -1]),
        ("search_docs", [[1], 0]),
        ("search_docs", [[1], 1, "5"]),
        ("search_docs_cnf", [[[1]]]),
        ("get_doc_by_rank", [0, 10**12, 5]),
        ("get_doc_by_rank", [9, 0, 5]),
        ("get_doc_by_ptr", [0, 3, 5]),
        ("get_doc_by_ix", [99, 5]),
        ("get_doc_by_ix", [0, 0]),
        ("get_doc_by_ix_2", [0, -1]),
        ("get_docs_by_ptrs_2", [[[0, 0, -1, 5]]]),
        ("creativity", [[None]]),
        ("attribute", [[1], [], -1, 1, False]),
        ("attribute", [[1], [], 1, 0, False]),
        ("attribute", [[1], [], 1, 1, 0]),
    ],
)
def test_bad_arguments_come_back_as_errors(engine, name, arguments):
    answer = getattr(engine, name)(*arguments)
    assert list(answer) == ["error"]
    assert "\n" not in answer["error"]


@pytest.mark.parametrize(
    "options",
    [{"eos_token_id": -1}, {"eos_token_id": 70000}, {"max_support": 0}, {"load_to_ram": 1}, {"index_dir": 5}, {"maxnum": "1"}],
)
def test_bad_constructor_arguments_raise(tmp_path, options):
    folder = naive.write_index(tmp_path / "toy", [[1]])
    with pytest.raises(AssertionError):
        InfiniGramEngine(**{"index_dir": str(folder), "eos_token_id": 0, **options})
