"""The pair maker: golden examples of each rule, what no rule may touch, and the set as a whole."""

import subprocess
import sys
from collections import Counter
from random import Random

import pytest

from helpers.paths import ROOT, child_environment
from limbeck.corpus.errors import LimbeckError
from limbeck.corpus.packages import read_packages
from limbeck.filters.nli_model import evaluation as nli_evaluation
from limbeck.filters.nli_model import rules as nli_rules
from limbeck.filters.nli_model import splices as nli_splices
from limbeck.filters.nli_model import swaps as nli_swaps
from limbeck.filters.nli_model.pairs import LABELS, counts, make_pairs, read_sentences
from limbeck.filters.nli_model.rules import NliPair, Rule, articles

RULES: list[Rule] = [
    nli_rules.dropped,
    nli_rules.split,
    nli_rules.rephrased,
    nli_swaps.negated,
    nli_swaps.counted,
    nli_swaps.named,
    nli_swaps.reversed_,
    nli_splices.quantified,
    nli_splices.qualified,
    nli_splices.numbered,
    nli_splices.timed,
]
ONE_WAY = {"entailment": "neutral", "contradiction": "contradiction"}


def labels(rule: Rule, sentence: str, draws: int = 1) -> dict[tuple[str, str], str]:
    """Premise and hypothesis → label, over some draws; a pair with two labels fails."""
    found: dict[tuple[str, str], str] = {}
    for seed in range(draws):
        for pair in rule(sentence, Random(seed)):
            assert found.setdefault((pair.premise, pair.hypothesis), pair.label) == pair.label, pair
    return found


@pytest.mark.parametrize(
    ("rule", "sentence", "hypothesis"),
    [
        (nli_rules.dropped, "Quern is a small parser.", "Quern is a parser."),
        (nli_rules.dropped, "It has an old engine.", "It has an engine."),
        (nli_rules.dropped, "The parser quickly reads files.", "The parser reads files."),
        (nli_rules.dropped, "The parser reads files, which makes it useful.", "The parser reads files."),
        (nli_rules.dropped, "The mill was sold because the owner died.", "The mill was sold."),
        (nli_rules.dropped, "Although it is old, the mill still works well.", "The mill still works well."),
        (nli_rules.dropped, "However, the mill is open.", "The mill is open."),
        (nli_rules.dropped, "The mill (built of stone) is open.", "The mill is open."),
        (nli_rules.dropped, "Quern is a library that provides a parser.", "Quern provides a parser."),
        (nli_rules.dropped, "Quern is a library for reading files.", "Quern is a library."),
        (nli_rules.split, "Quern reads files and writes reports.", "Quern reads files."),
        (nli_rules.split, "Quern reads files and writes reports.", "Quern writes reports."),
        (nli_rules.split, "The shop sells maps, ropes and tents.", "The shop sells maps and tents."),
        (nli_rules.split, "The mill works, and it has a wheel.", "It has a wheel."),
        (nli_rules.split, "Quern runs on Linux and Windows.", "Quern runs on Linux."),
    ],
)
def test_what_is_dropped_is_entailed_and_not_the_other_way(rule: Rule, sentence: str, hypothesis: str) -> None:
    found = labels(rule, sentence)
    assert found[sentence, hypothesis] == "entailment"
    assert found.get((hypothesis, sentence), "neutral") == "neutral"


@pytest.mark.parametrize(
    "sentence",
    [
        "Quern is not a small parser.",
        "No small parser reads files.",
        "All small parsers read files.",
        "Only the small parser reads files.",
        "The small parser never reads files, which is bad.",
        "If the small parser reads files, it works.",
        "Few small mills are open.",
        "The mill works without a large wheel.",
        "It fails because the large wheel is broken.",
    ],
)
def test_nothing_is_dropped_where_it_would_not_follow(sentence: str) -> None:
    assert not labels(nli_rules.dropped, sentence)
    assert not labels(nli_rules.split, sentence)


def test_not_is_never_dropped_and_never_added_by_an_entailment() -> None:
    denials = ("not", "n't", "never", "no ", "cannot")
    for sentence in (s.text for s in read_sentences(row.text for row in read_packages() if row.text)):
        for rule in (nli_rules.dropped, nli_rules.split, nli_rules.rephrased):
            for pair in rule(sentence, Random(0)):
                if pair.label == "entailment":
                    denied = [any(word in text.lower() for word in denials) for text in (pair.premise, pair.hypothesis)]
                    assert denied[0] == denied[1] or not denied[1], pair


@pytest.mark.parametrize("list_", ["The path between Rome, Paris and Oslo is open.", "It is a mix of wheat, oats and barley."])
def test_lists_that_act_together_stay_together(list_: str) -> None:
    assert not labels(nli_rules.split, list_)


@pytest.mark.parametrize(
    ("sentence", "hypothesis"),
    [
        ("It is not a parser.", "It isn't a parser."),
        ("Quern begins early.", "Quern starts early."),
        ("The parser was written by Anna.", "Anna wrote the parser."),
        ("Quern uses a parser.", "A parser is used by Quern."),
        ("It is able to read files.", "It can read files."),
    ],
)
def test_other_words_for_the_same_are_entailed_both_ways(sentence: str, hypothesis: str) -> None:
    found = labels(nli_rules.rephrased, sentence)
    assert found[sentence, hypothesis] == found[hypothesis, sentence] == "entailment"


@pytest.mark.parametrize(
    ("sentence", "hypotheses"),
    [
        ("Quern is a parser.", {"Quern is not a parser.", "Quern isn't a parser."}),
        ("Quern reads files.", {"Quern does not read files.", "Quern doesn't read files.", "Quern never reads files."}),
        ("You can read files.", {"You cannot read files.", "You can't read files."}),
        ("It has been tested.", {"It has not been tested."}),
    ],
)
def test_a_denial_contradicts_both_ways(sentence: str, hypotheses: set[str]) -> None:
    found = labels(nli_swaps.negated, sentence, draws=20)
    assert {hypothesis for premise, hypothesis in found if premise == sentence} == hypotheses
    assert all(found[sentence, text] == found[text, sentence] == "contradiction" for text in hypotheses)


@pytest.mark.parametrize(
    "sentence",
    [
        "Some mills are open.",
        "Every mill is open.",
        "If it rains, the mill is closed.",
        "It may be open.",
        "It is also open.",
        "It is not open.",
    ],
)
def test_no_denial_where_both_could_be_true(sentence: str) -> None:
    assert not labels(nli_swaps.negated, sentence, draws=5)


def test_numbers_follow_arithmetic() -> None:
    sentence = "The mill has 6 wheels."
    found = labels(nli_swaps.counted, sentence, draws=300)
    assert found[sentence, "The mill has wheels."] == "entailment"
    assert found["The mill has wheels.", sentence] == "neutral"
    bounds = {"": (lambda n, v: v == n), "at least ": (lambda n, v: v >= n), "more than ": (lambda n, v: v > n)}
    bounds |= {"fewer than ": (lambda n, v: v < n), "exactly ": (lambda n, v: v == n)}

    def worlds(text: str) -> set[int]:
        """The numbers of wheels under which a sentence is true."""
        bound = next(b for b in sorted(bounds, key=len, reverse=True) if f"has {b}" in text)
        rest = text.removeprefix("The mill has ").removeprefix(bound).split()[0]
        return {v for v in range(1, 60) if rest == "wheels." or bounds[bound](int(rest), v)}

    assert len(found) > 15
    for (premise, hypothesis), label in found.items():
        left, right = worlds(premise), worlds(hypothesis)
        expected = "entailment" if left <= right else "contradiction" if not left & right else "neutral"
        assert label == expected, (premise, hypothesis)


@pytest.mark.parametrize(
    "sentence",
    [
        "It needs at least 6 wheels.",
        "It runs on Python 3 systems.",
        "It has up to 6 wheels.",
        "It may have 6 wheels.",
        "It costs about 6 pounds.",
    ],
)
def test_a_number_that_is_no_exact_count_is_left_alone(sentence: str) -> None:
    assert not labels(nli_swaps.counted, sentence, draws=20)


def test_names_change_only_where_there_is_room_for_one() -> None:
    found = labels(nli_swaps.named, "The parser was written in Rust.", draws=5)
    assert found and set(found.values()) == {"contradiction"}
    assert all(hypothesis.startswith("The parser was written in ") for _, hypothesis in found)
    assert not labels(nli_swaps.named, "The parser runs on Linux.", draws=5)
    assert not labels(nli_swaps.named, "The parser was written in Rust and Python.", draws=5)


def test_opposites_only_of_what_is_said_of_the_subject() -> None:
    assert labels(nli_swaps.reversed_, "The water is warm.") == {("The water is warm.", "The water is cool."): "contradiction"}
    assert not labels(nli_swaps.reversed_, "It supports large files.")
    assert not labels(nli_swaps.reversed_, "The water is not warm.")


def test_quantifiers_follow_the_square_of_opposition() -> None:
    """Every couple of quantifiers, by the sets of things that they are true of, out of five (with at least one of them)."""
    true_for = {
        "all": lambda k: k == 5,
        "most": lambda k: k > 2,
        "many": lambda k: k > 1,
        "several": lambda k: k > 1,
        "some": lambda k: k > 0,
        "no": lambda k: k == 0,
    }
    for before, after, label in nli_splices._QUANTIFIERS:
        left, right = ({k for k in range(6) if true_for[word](k)} for word in (before, after))
        expected = "entailment" if left <= right else "contradiction" if not left & right else "neutral"
        assert label == expected, (before, after)
    found = labels(nli_splices.quantified, "Parsers can read files.", draws=50)
    assert found["All parsers can read files.", "No parsers can read files."] == "contradiction"


def test_articles_follow_the_sound() -> None:
    assert (
        articles("It is a old an new a unknown an high a user an hour.") == "It is an old a new an unknown a high a user an hour."
    )


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return [row.text for row in read_packages() if row.text]


@pytest.fixture(scope="module")
def made(documents: list[str]) -> list[NliPair]:
    return make_pairs(documents, 3000, seed=1)


def test_the_set_is_balanced_and_distinct(made: list[NliPair]) -> None:
    totals = {label: sum(phenomena.values()) for label, phenomena in counts(made).items()}
    assert set(totals) == set(LABELS)
    assert min(totals.values()) > 0.7 * max(totals.values())
    assert len(set(made)) == len(made)
    shares = Counter((pair.label, pair.phenomenon) for pair in made)
    assert max(shares.values()) < 0.25 * len(made)


def test_no_pair_has_two_labels(made: list[NliPair]) -> None:
    by_text: dict[tuple[str, str], set[str]] = {}
    for pair in made:
        by_text.setdefault((pair.premise, pair.hypothesis), set()).add(pair.label)
    assert not [texts for texts, found in by_text.items() if len(found) > 1]


def test_the_same_seed_gives_the_same_pairs(documents: list[str]) -> None:
    assert make_pairs(documents[:60], 500, seed=2) == make_pairs(documents[:60], 500, seed=2)
    assert make_pairs(documents[:60], 500, seed=2) != make_pairs(documents[:60], 500, seed=3)


def test_the_same_pairs_in_every_process() -> None:
    """Whatever order Python gives to sets."""
    code = (
        "from limbeck.corpus.packages import read_packages; from limbeck.filters.nli_model.pairs import make_pairs;"
        "from limbeck.corpus.seeds import derive_id;"
        "print(derive_id(repr(make_pairs([row.text for row in read_packages() if row.text][:40], 400, 0))))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
            env=child_environment(PYTHONHASHSEED=seed),
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]


def test_too_little_text_says_so() -> None:
    with pytest.raises(LimbeckError, match="give a larger corpus"):
        make_pairs(["One short text. And no more."], 1000, seed=0)


def test_no_test_sentence_is_trained_on(documents: list[str]) -> None:
    """Neither in the default corpus nor among the pairs made of it."""
    sets = [pair for name in nli_evaluation.SETS for pair in nli_evaluation.test_pairs(name)]
    test = {text for pair in sets for text in (pair.premise, pair.hypothesis)}
    assert not test & {sentence.text for sentence in read_sentences(documents)}
    whole = "\n".join(documents)
    assert not [text for text in test if text in whole]
    assert not [p for p in make_pairs(documents, 12_000, seed=0) if {p.premise, p.hypothesis} & test]


@pytest.mark.parametrize(("name", "least"), [("test", 50), ("independent", 100)])
def test_the_test_sets_are_what_they_say(name: str, least: int) -> None:
    pairs = nli_evaluation.test_pairs(name)
    assert len({(pair.premise, pair.hypothesis) for pair in pairs}) == len(pairs)
    by_label = Counter(pair.label for pair in pairs)
    assert set(by_label) == set(LABELS) and min(by_label.values()) >= least
    assert all(pair.premise and pair.hypothesis and pair.phenomenon for pair in pairs)
    if name == "independent":
        assert min(Counter((pair.label, pair.phenomenon) for pair in pairs).values()) >= 13  # of 9 phenomena
