"""Passages: a premise of several sentences, with the hypothesis of one of them, of two, or with a fault."""

from random import Random

from limbeck.filters.nli_model.pairs import make_pairs
from limbeck.filters.nli_model.passages import PASSAGE_WORDS, Passage, composed, passages_of
from limbeck.filters.nli_model.rules import NliPair

MILL = (
    "The mill stands on the river Tarn near the old bridge of the town.",
    "It was built by Anna in Lisbon style with three large wheels of oak.",
    "Farmers of the valley bring their wheat to it in autumn.",
)
SHIP = (
    "The ship left Oslo early in the morning with ninety people on board.",
    "Its captain was Peter, who had crossed the northern sea many times.",
    "A storm broke its mast after two days of sailing.",
)
DOCUMENTS = [" ".join(MILL), " ".join(SHIP)]


def found() -> list[NliPair]:
    passages = passages_of(DOCUMENTS, {*MILL, *SHIP})
    denied = [NliPair(MILL[2], "Farmers of the valley never bring their wheat to it.", "contradiction", "negation")]
    kept = [NliPair(MILL[2], "Farmers bring their wheat to it.", "entailment", "drop clause")]
    return [pair for seed in range(20) for pair in composed(passages, [*denied, *kept], Random(seed))]


def test_a_passage_is_a_stretch_of_its_paragraph() -> None:
    passages = passages_of(DOCUMENTS, {MILL[1], SHIP[0], "It is not there."})
    assert passages == {MILL[1]: Passage(MILL, 0), SHIP[0]: Passage(SHIP, 1)}
    long = [f"This is sentence number {n} of a very long paragraph about mills and ships." for n in range(20)]
    passage = passages_of([" ".join(long)], {long[10]})[long[10]]
    assert long[10] in passage.sentences and len(passage.text.split()) <= PASSAGE_WORDS
    assert " ".join(passage.sentences) in " ".join(long)
    assert not passages_of(["Too short. It is."], {"Too short."})  # nothing around it


def test_entailed_hypotheses_consist_of_what_the_passage_says() -> None:
    said = {*MILL, *SHIP, "Farmers bring their wheat to it."}
    pairs = [pair for pair in found() if pair.label == "entailment"]
    assert {pair.phenomenon for pair in pairs} == {"in a passage", "two sentences"}
    for pair in pairs:
        rest = pair.hypothesis
        for sentence in said:
            rest = rest.replace(sentence, "")
        assert not rest.strip() and pair.premise in DOCUMENTS


def test_faults_are_not_entailed() -> None:
    by_kind = {pair.phenomenon: pair for pair in found() if pair.label != "entailment"}
    assert set(by_kind) == {
        *("in a passage", "two sentences", "left out of a passage", "added sentence", "another document", "another name")
    }
    for pair in found():
        if pair.phenomenon == "left out of a passage":
            assert pair.label == "neutral" and pair.hypothesis not in pair.premise
        elif pair.phenomenon == "added sentence":
            assert pair.label == "neutral" and any(
                sentence in pair.hypothesis for sentence in (MILL, SHIP)[pair.premise in DOCUMENTS[0]]
            )
        elif pair.phenomenon == "another name":
            assert pair.label == "contradiction" and pair.hypothesis not in pair.premise
        elif pair.label == "contradiction":
            assert "never" in pair.hypothesis


def test_the_whole_set_has_them() -> None:
    documents = [f"{one} {two}" for one in DOCUMENTS for two in DOCUMENTS] * 1
    names = ("Quern", "Tarn", "Fell", "Beck", "Ghyll", "Moor", "Scar", "Combe", "Rill", "Shaw")
    documents += [
        f"{name} is a small parser. It was written by Anna in Oslo. It reads old files and writes long reports. {name} is free, "
        "which is good. The parser supports maps, ropes and tents. It can read files quickly."
        for name in names
    ]
    phenomena = {pair.phenomenon for pair in make_pairs(documents, 400, 0)}
    assert {"in a passage", "two sentences", "added sentence", "another name", "left out of a passage"} <= phenomena
