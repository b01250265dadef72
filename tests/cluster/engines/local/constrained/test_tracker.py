"""The automaton against a search for phrases in the text, at every prefix."""

import random
from functools import cache

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from helpers.tiny_engines import tokenizer
from limbeck.cluster.engines.constraint import Clause, Constraint
from limbeck.cluster.engines.local.constrained.pieces import Pieces
from limbeck.cluster.engines.local.constrained.tracker import State, Tracker

OVERLAPPING = ("345", "34", "45")
PIECES = ("3", "4", "5", "0", "34", "45", "53", "4534")


def tokens_of(text: str) -> list[int]:
    return [PIECES.index(character) for character in text.strip()]


@pytest.mark.parametrize("together", [True, False])
def test_streams_of_five_symbols(together: bool) -> None:
    """Phrases within one another, as alternatives of one clause and as clauses of their own."""
    phrases = [OVERLAPPING, ("53", "345")] if together else [(phrase,) for phrase in (*OVERLAPPING, "53")]
    constraint = Constraint((*map(Clause, phrases), Clause(("4500", "5543"), positive=False)), whole_words=False)
    tracker = Tracker(constraint, lambda token: PIECES[token].encode(), tokens_of)
    rng = random.Random(0)
    seen = set()
    for _ in range(400):
        state, text = State(), ""
        for _ in range(12):
            token = rng.randrange(len(PIECES))
            state, text = tracker.advance(state, token), text + PIECES[token]
            check(tracker, constraint, state, text)
            seen.add(tracker.count(state))
    assert seen == set(range(len(phrases) + 1))


def check(tracker: Tracker, constraint: Constraint, state: State, text: str) -> None:
    """A state reaches what occurs in the text if it ends here."""
    occurring = {i for i, clause in enumerate(constraint.clauses) if any_occurs(clause, constraint, text)}
    assert {i for i in range(len(constraint.clauses)) if state.reached >> i & 1} == occurring, text
    assert tracker.may_end(state) == (not constraint.unmet(text)), text
    assert state.met & ~state.reached == 0


def any_occurs(clause: Clause, constraint: Constraint, text: str) -> bool:
    positive = Constraint((Clause(clause.phrases),), whole_words=constraint.whole_words)
    return not positive.unmet(text)


@cache
def byte_pieces() -> Pieces:
    return Pieces(tokenizer())


def encode(text: str) -> list[int]:
    return list(tokenizer()(text, add_special_tokens=False)["input_ids"])


def test_words_end_at_word_boundaries_in_any_script() -> None:
    """Random texts from pieces of words; the tokenizer has single bytes, so characters of other scripts are several tokens."""
    constraint = Constraint.of([["run", "runs"], ["ice cream"], ["café"], ["C++", "हिन्दी"]], ["cat", "été"])
    tracker = Tracker(constraint, byte_pieces(), encode)
    words = [
        "run",
        "running",
        "Run",
        "RUNS",
        "ice",
        "cream",
        "ice cream",
        "café",
        "cafés",
        "CAFÉ",
        "C++",
        "C+",
        "cat",
        "category",
    ]
    words += ["été", "étés", "हिन्दी", "हिन्द", "“run”", "concat", "_run", "pre", "a"]
    rng = random.Random(1)
    for _ in range(60):
        text = "".join(rng.choice(words) + rng.choice(("", " ", " ", "-", ", ", "…", "\n")) for _ in range(6))
        state, written = State(), b""
        for token in encode(text):
            state, written = tracker.advance(state, token), written + byte_pieces()(token)
            if not state.undecoded:
                check(tracker, constraint, state, written.decode())
        assert written.decode() == text


def test_a_met_clause_keeps_the_phrases_that_another_needs() -> None:
    """`34` is a phrase of both clauses: once the first is met by `5`, the second can still be met by it."""
    constraint = Constraint((Clause(("5", "34")), Clause(("34",))), whole_words=False)
    tracker = Tracker(constraint, lambda token: PIECES[token].encode(), tokens_of)
    state = tracker.advance(State(), PIECES.index("5"))
    assert tracker.proposals(state) == {PIECES.index("3")}
    state = tracker.advance(state, PIECES.index("3"))
    assert tracker.proposals(state) >= {PIECES.index("4")} and tracker.progress(state) == 0.5
    state = tracker.advance(state, PIECES.index("4"))
    assert tracker.may_end(state) and not tracker.proposals(state) and not state.nodes


def test_a_phrase_that_went_on_is_proposed_again() -> None:
    constraint = Constraint.of([["run"]])
    tracker = Tracker(constraint, byte_pieces(), encode)

    def after(text: str) -> State:
        state = State()
        for token in encode(text):
            state = tracker.advance(state, token)
        return state

    proposed = {
        text: {byte_pieces()(token).decode() for token in tracker.proposals(after(text))} for text in ("", "a", "ru", "a ")
    }
    assert proposed == {"": {" ", "r", "R"}, "a": {" "}, "ru": {" ", "n"}, "a ": {" ", "r", "R"}}
    assert tracker.may_end(after("a run")) and not tracker.proposals(after("a run"))
    assert not tracker.may_end(after("a runn")) and tracker.proposals(after("a runn"))
    assert tracker.may_end(after("a run, runn"))


def test_pieces_are_what_the_tokenizer_decodes() -> None:
    fast, pieces = tokenizer(), byte_pieces()
    text = "Straße, 中文 “x”\n\t naïve \U0001f600"
    ids = fast(text, add_special_tokens=False)["input_ids"]
    assert b"".join(map(pieces, ids)).decode() == text
    assert pieces(256) == b"" and pieces(319) == b"", "special tokens, and tokens that only the model has"


def test_tokenizers_that_write_spaces_as_a_symbol_and_rare_characters_as_bytes() -> None:
    """The form of Llama 2: `▁` before words, `<0xE4>` for a byte, and a decoder that drops the first space of a text."""
    words = ["<unk>", "▁", "▁d", "▁dog", "s", "d", "o", "g", "▁a", "a", *(f"<0x{byte:02X}>" for byte in range(256))]
    merges = [("▁", "d"), ("▁", "a"), ("▁d", "o"), ("▁do", "g")]
    vocabulary = {word: number for number, word in enumerate([*words, "▁do"])}
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps)
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    pieces = Pieces(fast)
    constraint = Constraint.of([["dog"], ["é"], ["dogs"]], ["中"])
    tracker = Tracker(constraint, pieces, lambda text: fast(text, add_special_tokens=False)["input_ids"])
    for text in ("a dog", "dogs", "dog é dogs", "a 中 dog", "adog", "dogé"):
        state = State()
        tokens = fast(text, add_special_tokens=False)["input_ids"]
        for token in tokens:
            state = tracker.advance(state, token)
        assert tracker.text(tokens).lstrip() == fast.decode(tokens) == text
        check(tracker, constraint, state, text)
    proposed = {fast.convert_ids_to_tokens(token) for token in tracker.proposals(State())}
    assert proposed >= {"▁dog", "▁"} and all(word.startswith(("▁", "<0x")) for word in proposed)
