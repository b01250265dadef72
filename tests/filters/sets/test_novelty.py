"""The novelty filter: self-instruct's rule on tables of survivors, in a stated order, with what it tells of each row."""

import json
import random

import pyarrow as pa
import pytest
from pydantic import ValidationError
from rouge_score.rouge_scorer import RougeScorer

from limbeck.corpus.errors import LimbeckError
from limbeck.filters.contract import SetFilter
from limbeck.filters.sets.novelty import NOVELTY, NOVELTY_MAXIMA, NoveltyConfig

SCORER = RougeScorer(["rougeL"], use_stemmer=False)
RECIPE = "Write a short poem about the sea and the wind"
NEAR = "Write a short poem about the sea and the rain"
FAR = "Sort these numbers from the largest down"


def survivors(texts: list[str | None], column: str = "output", **more: list) -> pa.Table:
    rows = len(texts)
    columns = {
        "candidate_id": [f"c{row}" for row in range(rows)],
        "source_id": [f"s{row // 3}" for row in range(rows)],
        "sample": pa.array([row % 3 for row in range(rows)], pa.int32()),
        "prompt": ["p"] * rows,
        "output": ["o"] * rows,
        "document": pa.array(["d"] * rows, pa.string()),
    }
    return pa.table(columns | {column: pa.array(texts, pa.string())} | more)


def judged(table: pa.Table, **settings) -> dict[str, dict]:
    rows = NoveltyConfig.model_validate({"kind": "novelty", **settings}).build().select(table).to_pylist()
    assert len(rows) == len({row["candidate_id"] for row in rows}) == table.num_rows
    return {row["candidate_id"]: row for row in rows}


def score(a: str, b: str) -> float:
    return float(SCORER.score(a, b)["rougeL"].fmeasure)


def test_it_is_a_set_filter_that_names_the_nearest() -> None:
    filter_ = NoveltyConfig().build()
    assert isinstance(filter_, SetFilter)
    found = filter_.select(survivors([RECIPE, FAR, NEAR]))
    assert found.schema.equals(NOVELTY_MAXIMA, check_metadata=True)
    rows = {row["candidate_id"]: row for row in found.to_pylist()}
    assert [rows[id_]["reason"] for id_ in ("c0", "c1")] == [None, None]
    assert rows["c0"]["rouge_l"] is None and rows["c0"]["nearest_id"] is None
    assert rows["c2"]["rouge_l"] == score(RECIPE, NEAR) == 0.9 and rows["c2"]["nearest_id"] == "c0"
    assert rows["c2"]["reason"] == "ROUGE-L 0.9 with candidate c0 is above 0.7: too near to what was accepted before"


def test_the_instances_of_a_task_share_the_decision_on_their_instruction() -> None:
    texts = [RECIPE, RECIPE, FAR, NEAR, NEAR, RECIPE]  # sources s0 and s1, three rows each
    rows = judged(survivors(texts, "prompt"), column="prompt", once_per_source=True, nearest=2)
    assert [rows[f"c{row}"]["reason"] is None for row in range(6)] == [True, True, True, False, False, False]
    assert [rows[f"c{row}"]["nearest_id"] for row in range(6)] == [None, None, "c0", "c0", "c0", "c0"]
    assert rows["c3"] | {"candidate_id": "c4"} == rows["c4"] and rows["c5"]["rouge_l"] == 1
    every = judged(survivors(texts, "prompt"), column="prompt")
    assert every["c1"]["reason"] is not None, "without the key a row is compared with all others"
    assert judged(survivors([], "prompt"), column="prompt", once_per_source=True) == {}


def test_an_installed_file_is_a_pool(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    config = NoveltyConfig(pool=("limbeck:filters/nli_model/test_set.jsonl",), pool_column="premise")
    assert config.problems() == []
    assert config.build().select(survivors(["A text of its own."])).num_rows == 1
    assert "no such pool file: limbeck:none.jsonl" in NoveltyConfig(pool=("limbeck:none.jsonl",)).problems()[0]


def test_what_was_rejected_rejects_nothing() -> None:
    rows = judged(survivors(["a b c d e f g h", "a b c d e f x y", "a b c d z w x y"]))
    assert [rows[id_]["reason"] is None for id_ in ("c0", "c1", "c2")] == [True, False, True]


def test_the_better_is_judged_first() -> None:
    table = survivors([RECIPE, FAR, NEAR], **{"pmi.pmi": pa.array([0.1, 0.2, 0.9])})
    assert judged(table, by="pmi.pmi")["c0"]["nearest_id"] == "c2"
    assert judged(table, by="pmi.pmi", order="lowest")["c2"]["nearest_id"] == "c0"
    ties = survivors([RECIPE, FAR, NEAR], **{"pmi.pmi": pa.array([0.5, 0.5, 0.5])})
    assert judged(ties, by="pmi.pmi")["c2"]["nearest_id"] == "c0"
    unknown = survivors([RECIPE, FAR, NEAR], **{"pmi.pmi": pa.array([float("nan"), 0.5, 0.4])})
    assert judged(unknown, by="pmi.pmi")["c0"]["nearest_id"] == "c2"
    with pytest.raises(LimbeckError, match=r"novelty.*nli\.entailment"):
        judged(table, by="nli.entailment")


def test_a_row_whose_rank_was_skipped_is_undecided_and_rejects_nothing() -> None:
    table = survivors([RECIPE, FAR, NEAR], **{"pmi.pmi": pa.array([None, 0.5, 0.4])})
    rows = judged(table, by="pmi.pmi", nearest=2)
    assert [rows[id_]["undecided"] for id_ in ("c0", "c1", "c2")] == [True, False, False]
    assert [rows[id_]["reason"] for id_ in ("c0", "c1", "c2")] == [None, None, None]
    assert rows["c0"]["rouge_l"] is None and rows["c0"]["neighbour_ids"] is None and rows["c2"]["neighbour_ids"] == ["c1"]


@pytest.mark.parametrize("column", ["output", "prompt", "document"])
def test_the_column_named_is_judged(column: str) -> None:
    rows = judged(survivors([RECIPE, FAR, RECIPE], column), column=column)
    assert rows["c2"]["nearest_id"] == "c0" and rows["c2"]["rouge_l"] == 1.0
    others = {"output", "prompt", "document"} - {column}
    assert all(judged(survivors([RECIPE, FAR, RECIPE], column), column=other)["c1"]["rouge_l"] == 1.0 for other in others)


def test_the_order_of_the_rows_given_is_nothing() -> None:
    draw = random.Random(0)
    words = ["the", "a", "of", "sea", "wind", "poem", "write", "sort"]
    table = survivors([" ".join(draw.choices(words, k=draw.randrange(9))) for _ in range(90)])
    expected = judged(table, nearest=3)
    order = list(range(90))
    draw.shuffle(order)
    assert judged(table.take(order), nearest=3) == expected
    assert 5 < sum(row["reason"] is None for row in expected.values()) < 85


def test_neighbours_are_what_sorting_everything_gives() -> None:
    draw = random.Random(1)
    texts = [" ".join(draw.choices(["the", "a", "of", "sea", "wind", "poem"], k=draw.randrange(1, 9))) for _ in range(40)]
    table = survivors(texts)
    found = NoveltyConfig(nearest=4).build().select(table)
    assert found.schema.equals(NOVELTY, check_metadata=True)
    accepted: list[int] = []
    by_id = {row["candidate_id"]: row for row in found.to_pylist()}
    for row in sorted(range(40), key=lambda row: (f"s{row // 3}", row % 3)):
        told = by_id[f"c{row}"]
        ranked = sorted(accepted, key=lambda other: -score(texts[row], texts[other]))[:4]
        scores = [score(texts[row], texts[other]) for other in ranked]
        assert told["neighbour_ids"] == [f"c{other}" for other in ranked] and told["neighbour_rouge_l"] == scores
        assert told["rouge_l"] == (scores[0] if scores else None)
        assert told["neighbour_mean"] == (pytest.approx(sum(scores) / len(scores)) if scores else None)
        if told["reason"] is None:
            accepted.append(row)


def test_seeds_count_as_accepted(tmp_path) -> None:
    (tmp_path / "seeds.txt").write_text(f"\n{RECIPE}\n  \n", "utf-8")
    (tmp_path / "seeds.jsonl").write_text("\n".join(json.dumps({"instruction": text}) for text in (FAR, "Name a tree")), "utf-8")
    pool = [str(tmp_path / "seeds.txt"), str(tmp_path / "seeds.jsonl")]
    rows = judged(survivors([NEAR, FAR, "Name two rivers"]), pool=pool, pool_column="instruction", nearest=1)
    assert [rows[f"c{row}"]["nearest_id"] for row in range(3)] == ["seeds.txt:2", "seeds.jsonl:1", "seeds.jsonl:2"]
    assert rows["c0"]["reason"].startswith("ROUGE-L 0.9 with seed seeds.txt:2 is above 0.7")
    assert rows["c2"]["reason"] is None


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("missing.txt", None, "no such pool file"),
        ("seeds.csv", b"a", "neither .txt"),
        ("seeds.txt", b"a\xff", "not UTF-8"),
        ("seeds.jsonl", b'{"text": "a"}\n{"text": 3}', r"seeds\.jsonl:2"),
        ("seeds.jsonl", b'{"texts": "a"}', "no column 'text'"),
    ],
)
def test_a_pool_that_cannot_be_read_is_named(tmp_path, file, content, said) -> None:
    if content is not None:
        (tmp_path / file).write_bytes(content)
    config = NoveltyConfig(pool=(str(tmp_path / file),))
    assert bool(config.problems()) == (content is None or file.endswith(".csv"))
    with pytest.raises(LimbeckError, match=said):
        config.build()


def test_the_maximum_is_told_above_the_floor_that_is_asked_for() -> None:
    texts = [RECIPE, "Write a poem about the sea", FAR]
    assert judged(survivors(texts), max_rouge_l=0.8)["c1"]["rouge_l"] is None
    told = judged(survivors(texts), max_rouge_l=0.8, exact_above=0.4)
    assert told["c1"]["rouge_l"] == score(texts[0], texts[1]) and told["c1"]["reason"] is None and told["c2"]["rouge_l"] is None
    with pytest.raises(ValidationError, match="exact_above 0.9 is above max_rouge_l 0.7"):
        NoveltyConfig(exact_above=0.9)


def test_a_tie_that_rouge_score_puts_above_the_limit_is_rejected_and_said_in_full() -> None:
    """7 words in common of 7 and 13 are 0.7, but its floats make 0.7000000000000001 of it; 10 and 10 with 7 stay at 0.7."""
    seven, thirteen = " ".join("abcdefg"), " ".join("abcdefghijklm")
    assert score(seven, thirteen) > 0.7
    assert "ROUGE-L 0.7000000000000001 with" in judged(survivors([seven, thirteen]))["c1"]["reason"]
    ten = [" ".join(letters) for letters in ("abcdefghij", "abcdefgxyz")]
    assert score(*ten) <= 0.7 and judged(survivors(ten))["c1"]["reason"] is None


def test_odd_texts_are_kept_or_rejected_but_never_stop_it() -> None:
    odd = [None, "", "\ud800 lone", "\ud800 lone", "שלום עולם", "שלום עולם", "x" * 100_000, "word " * 20_000, "word " * 19_999]
    table = survivors([""] * 9)
    fixed = table.set_column(
        table.column_names.index("output"),
        "output",
        pa.array([None if text is None else text.encode("utf-8", "replace").decode() for text in odd]),
    )
    rows = judged(fixed, nearest=2)
    assert [rows[f"c{row}"]["reason"] is None for row in range(9)] == [True, True, True, False, True, False, True, True, False]
    assert judged(survivors([]), nearest=2) == {} == judged(survivors([]))
