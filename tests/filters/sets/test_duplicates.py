"""Duplicates as a set-wise filter: groups, who stays, what is told, whatever the order of the rows."""

import math

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from limbeck.corpus.errors import LimbeckError
from limbeck.filters.sets.distinct import BestConfig
from limbeck.filters.sets.duplicates import DuplicatesConfig

WORDS = ["storm", "reads", "weather", "files", "écran", "ΣΊΣΥΦΟΣ", "天気", "don't", "x_1", "42", "—", "...", "\u202e", "नमस्ते"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


def survivors(texts: list[str | None], sources: list[str] | None = None, **columns: object) -> pa.Table:
    rows = len(texts)
    return pa.table(
        {
            "candidate_id": [f"id{i}" for i in range(rows)],
            "source_id": sources or [f"s{i:04d}" for i in range(rows)],
            "sample": pa.array(range(rows), pa.int32()),
            "output": pa.array(texts, pa.string()),
            "document": pa.array(["A document."] * rows, pa.string()),
            **{name.replace("__", "."): values for name, values in columns.items()},
        }
    )


def vectors(rows: list[list[float] | None]) -> pa.Array:
    return pa.array(rows, pa.list_(pa.float32()))


def groups(table: pa.Table, told: pa.Table) -> dict[str, str]:
    """Candidate → the one that stays for it."""
    stays = dict(zip(told["candidate_id"].to_pylist(), told["duplicate_of"].to_pylist(), strict=True))
    return {id_: stays.get(id_) or id_ for id_ in table["candidate_id"].to_pylist()}


def test_of_near_duplicates_the_best_stays_and_the_rest_say_how_near() -> None:
    table = survivors(
        [
            "The filter reads weather files from a station and draws them as a map.",
            "The filter reads weather files from a station and draws them as a chart!",
            "A parser for mail.",
            "the FILTER reads weather-files from a station, and draws them as a map",
        ],
        pmi__pmi=[0.1, 0.9, 0.5, math.nan],
    )
    (first, second) = DuplicatesConfig(method="minhash", by="pmi.pmi").build().select(table).to_pylist()
    assert first == {
        "candidate_id": "id0",
        "reason": "a near duplicate of candidate id1 (similarity 0.86)",
        "undecided": False,
        "duplicate_of": "id1",
        "similarity": pytest.approx(12 / 14),
    }
    assert (second["candidate_id"], second["duplicate_of"], second["similarity"]) == ("id3", "id1", pytest.approx(12 / 14))


def test_a_chain_is_one_group_and_its_far_end_says_so() -> None:
    words = [f"w{i}" for i in range(30)]
    table = survivors([" ".join(words[i : i + 20]) for i in (0, 2, 4, 6)])
    told = DuplicatesConfig(method="minhash", shingle_size=1, min_similarity=0.8).build().select(table).to_pylist()
    assert [row["duplicate_of"] for row in told] == ["id0"] * 3
    assert [row["reason"].partition(" candidate")[0] for row in told] == [
        "a near duplicate of", "joined by a chain of near duplicates to", "joined by a chain of near duplicates to",
    ]  # fmt: skip
    assert told[2]["similarity"] == pytest.approx(14 / 26)


@pytest.mark.parametrize("method", ["exact", "minhash", "embedding"])
def test_within_a_source_and_across(method: str) -> None:
    table = survivors(
        ["Reads mail.", "reads mail", "Reads mail."],
        ["b", "a", "b"],
        embedding__vector=vectors([[1.0, 2.0], [1.0, 2.0], [2.0, 4.0]]),
    )
    across, within = (DuplicatesConfig(method=method, within_source=scoped).build() for scoped in (False, True))
    assert groups(table, across.select(table)) == {"id0": "id1", "id1": "id1", "id2": "id1"}  # the lowest source_id
    assert groups(table, within.select(table)) == {"id0": "id0", "id1": "id1", "id2": "id0"}


def test_texts_without_a_word_are_duplicates_only_where_equal() -> None:
    table = survivors(["", "!!!", None, "…", " !!! ", "…"])
    told = DuplicatesConfig(method="minhash").build().select(table)
    assert groups(table, told) == {"id0": "id0", "id1": "id0", "id2": "id0", "id3": "id3", "id4": "id0", "id5": "id3"}
    assert set(told["similarity"].to_pylist()) == {1.0}


def test_near_duplicate_prompts_of_one_source_are_found_whatever_their_answers() -> None:
    """As in the recipe documents-qa: questions of different documents are not compared."""
    prompts = [
        "What does the library Quern read and write?",
        "What does the library Quern read or write?",
        "Who wrote the library Quern?",
        "What does the library Quern read and write?",
    ]
    table = survivors(["One.", "Two.", "Three.", "Four."], ["s0", "s0", "s0", "s1"], prompt=prompts)
    config = DuplicatesConfig(text="prompt", method="minhash", within_source=True, min_similarity=0.5)
    assert groups(table, config.build().select(table)) == {"id0": "id0", "id1": "id0", "id2": "id2", "id3": "id3"}
    assert config.needs == {"prompt"}


def test_documents_can_be_compared_instead_of_outputs() -> None:
    table = survivors(["One thing.", "Another."])
    assert groups(table, DuplicatesConfig(text="document").build().select(table)) == {"id0": "id0", "id1": "id0"}
    assert groups(table, DuplicatesConfig(method="minhash", text="document").build().select(table)) == {
        "id0": "id0",
        "id1": "id0",
    }


def test_what_was_never_scored_is_undecided() -> None:
    table = survivors(["a", "b", "c"], embedding__vector=vectors([[1.0, 0.0], None, [1.0, 0.01]]))
    first, second = DuplicatesConfig(method="embedding").build().select(table).to_pylist()
    assert first == {"candidate_id": "id1", "reason": None, "undecided": True, "duplicate_of": None, "similarity": None}
    assert second["duplicate_of"] == "id0" and not second["undecided"]
    table = survivors(["a", "A.", "b"], pmi__pmi=pa.array([None, 0.5, None], pa.float64()))
    (told,) = DuplicatesConfig(by="pmi.pmi").build().select(table).to_pylist()  # id2 is alone: nothing to decide
    assert (told["candidate_id"], told["undecided"], told["reason"]) == ("id0", True, None)


def test_vectors_that_are_zero_or_not_finite_equal_nothing() -> None:
    rows = [[0.0, 0.0], [0.0, 0.0], [math.nan, 1.0], [math.nan, 1.0], [math.inf, 1.0], [1.0, 0.0]]
    told = DuplicatesConfig(method="embedding").build().select(survivors(list("abcdef"), embedding__vector=vectors(rows)))
    assert told.num_rows == 0


@pytest.mark.parametrize("method", ["exact", "minhash", "embedding"])
def test_no_rows_no_duplicates(method: str) -> None:
    table = survivors([], embedding__vector=vectors([]))
    told = DuplicatesConfig(method=method).build().select(table)
    assert told.num_rows == 0 and told.column_names[:2] == ["candidate_id", "reason"]
    assert (
        BestConfig(by="embedding.vector").build().select(survivors([], embedding__vector=pa.array([], pa.float64()))).num_rows
        == 0
    )


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"min_similarity": 0.5}, "min_similarity does not apply to method exact, only to minhash and embedding"),
        ({"method": "embedding", "shingle_size": 3}, "shingle_size does not apply to method embedding, only to minhash"),
        ({"method": "minhash", "vectors": "e.v"}, "vectors does not apply to method minhash"),
        ({"method": "minhash", "min_similarity": 0.01, "permutations": 16}, "raise permutations or min_similarity"),
        ({"method": "minhash", "min_similarity": 0.0}, "greater than 0"),
    ],
)
def test_settings_that_cannot_be_meant(settings_: dict[str, object], message: str) -> None:
    with pytest.raises((ValidationError, LimbeckError), match=message):
        DuplicatesConfig(**settings_)


def test_a_config_survives_being_written_out() -> None:
    config = DuplicatesConfig(method="minhash", min_similarity=0.8)
    assert DuplicatesConfig.model_validate_json(config.model_dump_json()) == config


def test_a_missing_column_is_named() -> None:
    with pytest.raises(LimbeckError, match=r"there is no vector column 'embedding\.vector'; add the filter embedding"):
        DuplicatesConfig(method="embedding").build().select(survivors(["a"]))
    with pytest.raises(LimbeckError, match="2 different lengths"):
        table = survivors(["a", "b"], embedding__vector=vectors([[1.0], [1.0, 2.0]]))
        DuplicatesConfig(method="embedding").build().select(table)
    with pytest.raises(LimbeckError, match="holds string, not vectors"):
        DuplicatesConfig(method="embedding", vectors="output").build().select(survivors(["a"]))
    with pytest.raises(LimbeckError, match="cannot rank by 'output': its type is string"):
        DuplicatesConfig(by="output").build().select(survivors(["a"]))
    with pytest.raises(LimbeckError, match=r"no score 'pmi\.pmi' to rank by"):
        DuplicatesConfig(by="pmi.pmi").build().select(survivors(["a"]))


@given(st.lists(TEXTS, min_size=1, max_size=40), st.sampled_from(["exact", "minhash", "embedding"]), st.booleans(), st.data())
@settings(max_examples=120, deadline=None)
def test_the_order_of_rows_decides_nothing(texts: list[str], method: str, within_source: bool, data: st.DataObject) -> None:
    rows = len(texts)
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    table = survivors(
        texts,
        [f"s{number}" for number in rng.integers(0, 4, rows)],
        pmi__pmi=pa.array(rng.integers(0, 3, rows).astype(float)),
        embedding__vector=vectors(rng.integers(0, 3, (rows, 5)).astype(float).tolist()),
    )
    by = data.draw(st.sampled_from([None, "pmi.pmi"]))
    filter_ = DuplicatesConfig(method=method, within_source=within_source, by=by).build()
    permuted = table.take(rng.permutation(rows))
    pieces = pa.concat_tables([permuted.slice(start, 7) for start in range(0, rows, 7)])  # many chunks, as parts come
    assert sorted(filter_.select(table).to_pylist(), key=str) == sorted(filter_.select(pieces).to_pylist(), key=str)
    told = filter_.select(table)
    kept = set(table["candidate_id"].to_pylist()) - set(told["candidate_id"].to_pylist())
    assert kept and set(told["duplicate_of"].to_pylist()) <= kept  # whoever stays for another does stay
    best = dict(zip(table["candidate_id"].to_pylist(), table["pmi.pmi"].to_pylist(), strict=True))
    if by is not None:
        assert all(best[row["duplicate_of"]] >= best[row["candidate_id"]] for row in told.to_pylist())


def test_hostile_texts_are_compared_as_any_other() -> None:
    long = "very long text of words " * 5000
    texts = [
        long,
        long + "and an end",
        "\u202eright to left\u202c",
        "right to left",
        "a" * 100_000,
        "a" * 100_000 + "b",
        "\x00",
        "\x00\x00",
    ]
    table = survivors(texts)
    told = DuplicatesConfig(method="minhash", min_similarity=0.6).build().select(table)
    assert groups(table, told) == {f"id{i}": f"id{j}" for i, j in enumerate([0, 0, 2, 2, 4, 5, 6, 7])}
