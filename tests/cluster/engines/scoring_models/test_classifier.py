"""Classifiers: classes by name, rows without padding equal to the library one by one, over-long rows, batches."""

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from helpers.tiny_classifier import MAX_TOKENS, WORDS, make_classifier
from limbeck.cluster.engines.scoring_models.classifier import Classifier, ClassifierConfig, label_places
from limbeck.cluster.engines.scoring_models.classifier_forward import PackedForward, PaddedForward
from limbeck.cluster.engines.scoring_models.pairs import batches
from limbeck.corpus.errors import LimbeckError

KINDS = ["bert", "roberta", "deberta-v2"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: make_classifier(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.fixture(scope="module")
def classifiers(folders: dict[str, Path]) -> dict[str, Classifier]:
    return {kind: ClassifierConfig(model=str(folder), dtype="float32").load() for kind, folder in folders.items()}


def library(folder: Path, pairs: list[tuple[str, str]]) -> np.ndarray:
    """The plain computation: one pair at a time, the library's own tokenizer, model and truncation."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    rows = []
    for premise, hypothesis in pairs:
        given = tokenizer(premise, hypothesis, truncation="only_first", max_length=MAX_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            rows.append(torch.softmax(model(**given).logits[0], -1).numpy())
    return np.array(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_the_library_one_by_one(kind: str, folders: dict[str, Path], classifiers: dict[str, Classifier]) -> None:
    generator = np.random.default_rng(0)
    pairs = [
        (
            " ".join(generator.choice(WORDS, generator.integers(1, 30))),
            " ".join(generator.choice(WORDS, generator.integers(1, 10))),
        )
        for _ in range(40)
    ]
    pairs.append((" ".join(WORDS * 4), "the cat sat"))  # the premise is cut
    expected = library(folders[kind], pairs)
    assert np.ptp(expected, axis=0).max() > 0.1  # the rows do differ
    found = classifiers[kind].probabilities(pairs)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@given(pairs=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=8))
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_company_does_not_change_a_row(kind: str, classifiers: dict[str, Classifier], pairs: list[tuple[str, str]]) -> None:
    together = classifiers[kind].probabilities(pairs)
    alone = np.concatenate([classifiers[kind].probabilities([pair]) for pair in pairs])
    np.testing.assert_allclose(together, alone, atol=1e-3)
    np.testing.assert_allclose(together.sum(1), 1, atol=1e-5)


def test_the_family_goes_without_padding_and_the_rest_as_the_library_runs_it(classifiers: dict[str, Classifier]) -> None:
    forwards = {kind: type(classifier._forward) for kind, classifier in classifiers.items()}
    assert forwards == {"bert": PackedForward, "roberta": PackedForward, "deberta-v2": PaddedForward}


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_is_close(kind: str, folders: dict[str, Path], classifiers: dict[str, Classifier]) -> None:
    pairs = [("the cat sat on the mat", "a dog ran"), ("Tom was not old .", "Ann was very new !"), ("one", "two")]
    found = ClassifierConfig(model=str(folders[kind]), dtype="bfloat16").load().probabilities(pairs)
    np.testing.assert_allclose(found, classifiers[kind].probabilities(pairs), atol=0.05)


@pytest.mark.parametrize("batch_tokens", [16, 40, 100_000])
def test_batches_do_not_change_the_answers(
    batch_tokens: int, folders: dict[str, Path], classifiers: dict[str, Classifier]
) -> None:
    pairs = [(" ".join(WORDS[:end]), " ".join(WORDS[end : end + 3])) for end in range(1, 20)]
    small = ClassifierConfig(model=str(folders["roberta"]), dtype="float32", batch_tokens=batch_tokens).load()
    np.testing.assert_allclose(small.probabilities(pairs), classifiers["roberta"].probabilities(pairs), atol=1e-5)


@given(lengths=st.lists(st.integers(0, 50), max_size=40), batch_tokens=st.integers(16, 120))
def test_every_row_is_in_one_batch_within_the_budget(lengths: list[int], batch_tokens: int) -> None:
    array = np.array(lengths, dtype=np.int64)
    found = list(batches(array, batch_tokens))
    assert sorted(place for batch in found for place in batch.tolist()) == [i for i, n in enumerate(lengths) if n]
    for batch in found:
        assert array[batch].sum() <= batch_tokens or len(batch) == 1
        assert (np.diff(array[batch]) <= 0).all()


def test_each_distinct_pair_once(folders: dict[str, Path]) -> None:
    classifier = ClassifierConfig(model=str(folders["bert"]), dtype="float32").load()
    found = classifier.probabilities([("a cat", "a dog")] * 3 + [("a dog", "a cat")])
    assert classifier.usage.extra["pairs"] == 2
    assert classifier.usage.forwarded_tokens == 2 * (4 + 3)
    assert (found[0] == found[1]).all() and (found[0] == found[2]).all() and (found[0] != found[3]).any()
    assert classifier.usage.model_seconds > 0 and classifier.usage.load_seconds > 0


def test_a_premise_that_is_too_long_loses_its_end(classifiers: dict[str, Classifier]) -> None:
    hypothesis = "the cat"
    room = MAX_TOKENS - 3 - 2
    premise = WORDS * 3
    judged = classifiers["bert"].predict([(" ".join(premise), hypothesis), (" ".join(premise[:room]), hypothesis)])
    assert judged.cut_tokens.tolist() == [len(premise) - room, 0]
    np.testing.assert_allclose(*judged.probabilities, atol=1e-6)


def test_a_hypothesis_that_leaves_no_room_is_not_a_number(classifiers: dict[str, Classifier]) -> None:
    fills = ["cat " * (MAX_TOKENS - 3), "cat " * (MAX_TOKENS - 4), "cat " * 500]
    found = classifiers["bert"].probabilities([("the", hypothesis) for hypothesis in fills])
    assert np.isnan(found).all(axis=1).tolist() == [True, False, True]


@pytest.mark.parametrize("text", ["", " \n", "\ud800 cat", "קטן שלום", "x" * 100_000, "\x00", "<pad> </s> <s>"])
def test_strange_texts_are_answered(text: str, classifiers: dict[str, Classifier]) -> None:
    for classifier in classifiers.values():
        found = classifier.probabilities([(text, "a cat"), ("a cat", text), (text, text)])
        assert found.shape == (3, 3)


def test_no_pairs_no_answers(classifiers: dict[str, Classifier]) -> None:
    judged = classifiers["bert"].predict([])
    assert judged.probabilities.shape == (0, 3) and judged.cut_tokens.shape == (0,)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["contradiction", "entailment", "neutral"], [1, 2, 0]),
        (["ENTAILMENT", "Neutral", "CONTRADICTION"], [0, 1, 2]),
        (["neutral", "contradict", "entail"], [2, 0, 1]),
        (["not_entailment", "entailment"], [1, 0]),
        (["entailment", "not entailment"], [0, 1]),
        ({2: "entailment", 0: "neutral", 1: "contradiction"}, [2, 0, 1]),
    ],
)
def test_classes_are_found_by_name(names: object, expected: list[int]) -> None:
    assert label_places(names, Path("m")) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "names", [["LABEL_0", "LABEL_1", "LABEL_2"], ["entailment", "neutral"], ["entailment"] * 3, ["positive"]]
)
def test_other_classes_are_refused_with_the_way_out(names: list[str]) -> None:
    with pytest.raises(LimbeckError, match=r"label_names: \[contradiction"):
        label_places(names, Path("m"))


def test_the_order_of_the_classes_changes_nothing(tmp_path: Path) -> None:
    """The same weights under other names give the same numbers in other columns; label_names overrides the config's."""
    pairs = [("the cat sat", "a dog ran"), ("one two", "three")]
    plain = ClassifierConfig(model=str(make_classifier(tmp_path / "a")), dtype="float32").load().probabilities(pairs)
    turned = make_classifier(tmp_path / "b", names=("contradiction", "entailment", "neutral"))
    found = ClassifierConfig(model=str(turned), dtype="float32").load().probabilities(pairs)
    np.testing.assert_allclose(found, plain[:, [1, 2, 0]], atol=1e-6)
    override = ("entailment", "neutral", "contradiction")
    named = ClassifierConfig(model=str(turned), dtype="float32", label_names=override).load().probabilities(pairs)
    np.testing.assert_allclose(named, plain, atol=1e-6)


def test_two_classes_have_no_neutral_and_no_contradiction(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path, names=("not_entailment", "entailment"))
    classifier = ClassifierConfig(model=str(folder), dtype="float32").load()
    found = classifier.probabilities([("the cat sat", "a dog ran")])
    expected = library(folder, [("the cat sat", "a dog ran")])
    assert classifier.two_class
    assert found[0, 0] == pytest.approx(expected[0, 1], abs=1e-5)
    assert np.isnan(found[0, 1:]).all()


def test_what_is_no_classifier_is_refused(tmp_path: Path) -> None:
    folder = make_classifier(tmp_path / "whole")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.bert.save_pretrained(tmp_path / "bare")
    (tmp_path / "bare" / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(LimbeckError, match="not a classifier: its weights lack"):
        ClassifierConfig(model=str(tmp_path / "bare")).load()
    with pytest.raises(LimbeckError, match="does not exist"):
        ClassifierConfig(model=str(tmp_path / "none")).load()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_says_so(folders: dict[str, Path]) -> None:
    with pytest.raises(LimbeckError, match="no usable GPU"):
        ClassifierConfig(model=str(folders["bert"]), device="cuda").load()
