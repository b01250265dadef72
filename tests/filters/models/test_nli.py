"""The NLI critic against a naive one that asks pair by pair, over a scripted classifier and a tiny real one."""

import math
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from helpers.tiny_classifier import make_classifier
from limbeck.cluster.engines.protocol import Usage
from limbeck.cluster.engines.scoring_models.classifier import ClassifierConfig, Predictions
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.sentences import split_sentences
from limbeck.filters.config import FalseAcceptance
from limbeck.filters.contract import Filter
from limbeck.filters.models.nli import NliConfig, NliFilter
from limbeck.filters.models.premises import Question, answer, sentence_windows

WORDS = "cat dog bird mat tree ran sat".split()
SENTENCE = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(lambda words: " ".join(words).capitalize() + ".")
TEXT = st.lists(SENTENCE, max_size=4).map(" ".join)


class Overlap:
    """A classifier whose entailment is the share of the hypothesis' words in the premise; it fits `room` words, and counts."""

    def __init__(self, room: int = 1000, two_class: bool = False) -> None:
        self.usage = Usage()
        self.two_class = two_class
        self.room = room
        self.asked: list[list[tuple[str, str]]] = []

    def predict(self, pairs: list[tuple[str, str]]) -> Predictions:
        self.asked.append(list(pairs))
        found = np.array([self.one(*pair) for pair in pairs], dtype=np.float32).reshape(-1, 3)
        return Predictions(found, np.array([max(0, len(p.split()) - self.room) for p, _ in pairs], dtype=np.int32))

    def one(self, premise: str, hypothesis: str) -> tuple[float, float, float]:
        if len(hypothesis.split()) > self.room:
            return (math.nan,) * 3
        words = hypothesis.lower().rstrip(".").split()
        held = set(premise.lower().replace(".", "").split())
        share = sum(word in held for word in words) / len(words)
        return share, (1 - share) * 0.75, (1 - share) * 0.25

    def count_tokens(self, texts: list[str]) -> list[int]:
        return [len(text.split()) for text in texts]


def candidates(documents: list[Any], outputs: list[Any]) -> pa.Table:
    return pa.table(
        {
            "candidate_id": [f"id{i}" for i in range(len(outputs))],
            "document": pa.array(documents, pa.string()),
            "output": pa.array(outputs, pa.string()),
        }
    )


def naive(classifier: Overlap, premise: str, hypothesis: str) -> list[float]:
    """SummaC's zero-shot rule, loop by loop."""
    rows = []
    for sentence in split_sentences(hypothesis):
        found = [classifier.one(window, sentence) for window in split_sentences(premise)]
        if not found:
            return [math.nan] * 3
        rows.append([max(e for e, _, _ in found), min(n for _, n, _ in found), max(c for _, _, c in found)])
    return [sum(column) / len(column) for column in zip(*rows, strict=True)] if rows else [math.nan] * 3


@given(rows=st.lists(st.tuples(TEXT, TEXT), max_size=6))
@settings(deadline=None)
def test_windows_of_sentences_equal_the_naive_rule(rows: list[tuple[str, str]]) -> None:
    classifier = Overlap()
    config = NliConfig(windows="sentences", direction="both")
    table = NliFilter(classifier, config).score(candidates([d for d, _ in rows], [o for _, o in rows]))
    for row, (document, output) in zip(table.to_pylist(), rows, strict=True):
        found = [row[name] for name in ("entailment", "neutral", "contradiction")]
        np.testing.assert_allclose(found, naive(classifier, document, output), rtol=1e-6)
        np.testing.assert_allclose(row["reverse_entailment"], naive(classifier, output, document)[0], rtol=1e-6)


@given(text=TEXT, window_tokens=st.integers(1, 9))
@settings(deadline=None)
def test_windows_hold_every_sentence_in_order_within_their_size(text: str, window_tokens: int) -> None:
    windows = sentence_windows(text, window_tokens, Overlap().count_tokens)
    assert " ".join(windows) == " ".join(split_sentences(text))
    for window, following in zip(windows, windows[1:], strict=False):
        assert len(window.split()) <= window_tokens or len(split_sentences(window)) == 1
        assert len(window.split()) + len(split_sentences(following)[0].split()) > window_tokens  # the next would not have fitted


def test_whole_documents_are_one_pair_a_direction_all_in_one_call() -> None:
    classifier = Overlap()
    table = NliFilter(classifier, NliConfig(direction="both")).score(
        candidates(["Cat sat. Dog ran."] * 2, ["Cat ran.", " Bird. "])
    )
    assert classifier.asked == [
        [
            ("Cat sat. Dog ran.", "Cat ran."),
            ("Cat sat. Dog ran.", "Bird."),
            ("Cat ran.", "Cat sat. Dog ran."),
            ("Bird.", "Cat sat. Dog ran."),
        ]
    ]
    assert table.column_names == ["candidate_id", "entailment", "neutral", "contradiction", "reverse_entailment", "cut_tokens"]
    assert table["entailment"].to_pylist() == [1.0, 0.0]
    assert table["reverse_entailment"].to_pylist() == [0.5, 0.0]
    assert table.schema.field("entailment").metadata == {b"unit": b"probability"}


def test_the_sentence_with_the_least_support_is_shown() -> None:
    table = NliFilter(Overlap(), NliConfig(windows="sentences")).score(
        candidates(["Cat sat."] * 2, ["Cat sat. Dog sat. Bird.", ""])
    )
    assert table["least_entailed"].to_pylist() == ["Bird.", ""]
    assert table["entailment"].to_pylist()[0] == pytest.approx(0.5)


@pytest.mark.parametrize("windows", ["document", "sentences"])
@pytest.mark.parametrize(("document", "output"), [("Cat.", ""), ("Cat.", " \n"), ("", "Cat."), (None, "Cat."), ("Cat.", None)])
def test_an_empty_side_cannot_be_judged(windows: str, document: str | None, output: str | None) -> None:
    config = NliConfig.model_validate({"windows": windows, "direction": "both"})
    (row,) = NliFilter(Overlap(), config).score(candidates([document], [output])).to_pylist()
    assert all(math.isnan(row[name]) for name in ("entailment", "neutral", "contradiction", "reverse_entailment"))


def test_what_does_not_fit_is_not_a_number_and_what_was_cut_is_counted() -> None:
    rows = candidates(["Cat dog bird."] * 2, ["Cat.", "Cat dog bird."])
    table = NliFilter(Overlap(room=2), NliConfig(direction="both")).score(rows)
    assert table["cut_tokens"].to_pylist() == [1, 2]
    assert table["entailment"].to_pylist()[0] == 1.0
    assert math.isnan(table["entailment"].to_pylist()[1]) and math.isnan(table["reverse_entailment"].to_pylist()[0])


def test_a_window_that_fails_does_not_fail_its_sentence() -> None:
    nan = math.nan
    found = np.array([[nan] * 3, [0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [nan] * 3], dtype=np.float32)
    row = answer(Question(("a", "b"), ("x", "y")), found)
    assert (row.entailment, row.contradiction) == (pytest.approx(0.4), pytest.approx(0.2))
    assert row.least_entailed == "x"
    found[1] = nan
    assert math.isnan(answer(Question(("a", "b"), ("x", "y")), found).entailment)


def test_a_mismatched_pair_is_not_of_a_near_duplicate() -> None:
    """With the groups of a run, and with inputs that no run has grouped."""
    config = NliConfig(min_entailment=FalseAcceptance(false_acceptance=0.05))
    documents = ["The tool reads METAR reports.", "The tool reads METAR reports!", "Bread is baked."]
    table = candidates(documents, ["Tool.", "Tool.", "Bread."])
    grouped = table.append_column("group", [["g", "g", "h"]])
    own = table.append_column("group", [["a", "b", "c"]]).append_column("input", [documents])
    for candidates_ in (table, grouped, own):
        assert NliFilter(Overlap(), config).score(candidates_)["entailment_null"].to_pylist() == [0.0, 0.0, 0.0]


def test_mismatched_pairs_are_scored_for_a_false_acceptance_rate() -> None:
    config = NliConfig(min_entailment=FalseAcceptance(false_acceptance=0.05))
    documents = ["Cat sat.", "Cat sat.", "Dog ran."]
    table = NliFilter(Overlap(), config).score(candidates(documents, ["Cat.", "Dog.", "Dog."]))
    assert table["entailment"].to_pylist() == [1.0, 0.0, 1.0]
    assert table["entailment_null"].to_pylist() == [0.0, 1.0, 0.0]
    alone = NliFilter(Overlap(), config).score(candidates(["Cat sat."], ["Cat."]))
    assert math.isnan(alone["entailment_null"].to_pylist()[0])
    assert config.scoring() != NliConfig().scoring()


@pytest.mark.parametrize("windows", ["document", "sentences"])
def test_no_rows(windows: str) -> None:
    config = NliConfig.model_validate({"windows": windows, "min_entailment": {"false_acceptance": 0.1}, "direction": "both"})
    table = NliFilter(Overlap(), config).score(candidates([], []))
    assert table.num_rows == 0
    assert {"entailment", "reverse_entailment", "entailment_null"} <= set(table.column_names)


def test_the_config_says_what_it_limits_and_depends_on() -> None:
    config = NliConfig()
    assert config.models == {"classifier.model": "alisawuffles/roberta-large-wanli"}
    assert [(bound.column, bound.minimum) for bound in config.bounds] == [("entailment", 0.75)]
    assert NliConfig(min_entailment=0.5, lazy=True, name="other").scoring() == config.scoring()
    assert NliConfig(classifier=ClassifierConfig(model="a/b")).scoring() != config.scoring()
    both = NliConfig(direction="both", min_reverse_entailment=0.75, max_contradiction=0.1)
    assert [bound.column for bound in both.bounds] == ["entailment", "contradiction", "reverse_entailment"]
    assert all(bound.reason for bound in both.bounds)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"min_reverse_entailment": 0.5}, "direction: both"),
        ({"window_tokens": 50}, "windows: sentences"),
        ({"modle": 1}, "unknown key"),
    ],
)
def test_what_makes_no_sense_together_is_refused(given_: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        NliConfig.model_validate(given_)


class Provider:
    def __init__(self, classifier: Any) -> None:
        self.classifier = classifier

    def hold(self, config: ClassifierConfig) -> Any:
        return self.classifier or config.load()


def test_a_two_class_model_takes_no_limit_on_contradiction() -> None:
    assert isinstance(NliConfig().build(Provider(Overlap(two_class=True))), Filter)  # type: ignore[arg-type]
    with pytest.raises(LimbeckError, match="no contradiction score to bound"):
        NliConfig(max_contradiction=0.2).build(Provider(Overlap(two_class=True)))  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["\ud800 cat", "قطة", "x" * 100_000, "Cat. " * 2000, "\x00", "...", "!?"])
def test_strange_rows_through_a_model(text: str, tmp_path: Path) -> None:
    model = make_classifier(tmp_path / "model")
    config = NliConfig(classifier=ClassifierConfig(model=str(model)), windows="sentences", window_tokens=8)
    table = config.build(Provider(None)).score(_raw(["The cat sat.", text, text], [text, "A cat.", "A cat."]))  # type: ignore[arg-type]
    assert table.num_rows == 3
    first, second = table["entailment"].to_pylist()[1:]
    assert first == second or (text == "\x00" and math.isnan(first) and math.isnan(second)), "an empty document has no score"


def _raw(documents: list[str], outputs: list[str]) -> pa.Table:
    """Arrow holds no half surrogates, so what a table can carry of them are replaced beforehand, as readers do."""
    sound = [[text.encode("utf-8", "replace").decode() for text in column] for column in (documents, outputs)]
    return candidates(*sound)
