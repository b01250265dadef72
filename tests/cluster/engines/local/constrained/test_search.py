"""The search on explicit tables: against exhaustive search, and against a plain beam search."""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from limbeck.cluster.engines.constraint import Clause, Constraint
from limbeck.cluster.engines.local.constrained.search import Hypothesis, Search
from limbeck.cluster.engines.local.constrained.tracker import Tracker

OVERLAPPING = ("345", "34", "45")
Key = tuple[int, bool, float]


def digits(text: str) -> list[int]:
    return [int(digit) for digit in text.strip()]


@dataclass(frozen=True)
class Table:
    """A language model whose next token depends on the position and the last token; the last token of its vocabulary ends."""

    logprobs: torch.Tensor  # [length, vocabulary, vocabulary]

    @classmethod
    def random(cls, seed: int, vocabulary: int, length: int) -> "Table":
        generator = torch.Generator().manual_seed(seed)
        return cls(torch.log_softmax(2 * torch.randn(length, vocabulary, vocabulary, generator=generator), -1))

    @property
    def length(self) -> int:
        return self.logprobs.shape[0]

    @property
    def end(self) -> int:
        return self.logprobs.shape[1] - 1

    def after(self, tokens: Sequence[int]) -> torch.Tensor:
        return self.logprobs[len(tokens), tokens[-1] if tokens else 0]

    def search(self, constraint: Constraint, places: int = 1, stop: tuple[str, ...] = ()) -> list[Hypothesis]:
        tracker = Tracker(constraint, lambda token: str(token).encode(), digits, stop)
        search = Search(constraint, tracker, {self.end}, self.length, places)
        while not search.done:
            search.advance(torch.stack([self.after(h.tokens) for h in search.live]))
        return search.results()


def exhaustive(table: Table, constraint: Constraint) -> list[tuple[Key, tuple[int, ...]]]:
    """Every text that the search may return, best first: by clauses met, whether it ended, and normalised score."""
    logprobs, found = table.logprobs.tolist(), []
    required = [clause for clause in constraint.clauses if clause.positive]
    banned = [phrase for clause in constraint.clauses if not clause.positive for phrase in clause.phrases]
    for length in range(table.length + 1):
        for tokens in itertools.product(range(table.end), repeat=length):
            text, size = "".join(map(str, tokens)), constraint.no_repeat_ngram
            grams = [tokens[i : i + size] for i in range(length - size + 1)] if size else []
            if any(phrase in text for phrase in banned) or len(set(grams)) < len(grams):
                continue
            met = sum(any(phrase in text for phrase in clause.phrases) for clause in required)
            score, last = 0.0, 0
            for place, token in enumerate(tokens):
                score, last = score + logprobs[place][last][token], token
            if length == table.length:
                found.append(((met, False, score / length**constraint.length_penalty), tokens))
            elif met == len(required):
                score += logprobs[length][last][table.end]
                found.append(((met, True, score / (length + 1) ** constraint.length_penalty), tokens))
    return sorted(found, reverse=True)


def clauses(rng: random.Random, symbols: int) -> tuple[Clause, ...]:
    """Up to three random clauses; some share phrases, or have phrases within one another."""
    pool = ["".join(str(rng.randrange(symbols)) for _ in range(rng.randint(1, 3))) for _ in range(3)]
    pool += [pool[0][1:] or pool[0], pool[0] + pool[1][:1]]
    made = [Clause(tuple(rng.sample(pool, rng.randint(1, 3))), rng.random() < 0.7) for _ in range(rng.randint(1, 3))]
    return tuple(made)


def wide(table: Table, **settings: Any) -> Constraint:
    """A beam that holds every text, and no pruning."""
    beams = table.end**table.length
    return Constraint(beams=beams, prune=None, tolerance=None, early_stop=None, whole_words=False, **settings)


@pytest.mark.parametrize("block", range(4))
def test_a_wide_beam_finds_the_best_of_all_texts(block: int) -> None:
    unsatisfiable = 0
    for seed in range(50 * block, 50 * block + 50):
        rng = random.Random(seed)
        vocabulary = rng.randint(3, 6)
        length = rng.randint(3, {3: 6, 4: 6, 5: 5, 6: 4}[vocabulary])  # up to 1,024 texts of full length
        table = Table.random(seed, vocabulary, length)
        constraint = wide(
            table,
            clauses=clauses(rng, table.end),
            length_penalty=rng.choice((0.0, 0.2, 1.0)),
            no_repeat_ngram=rng.choice((0, 0, 2)),
            progress=rng.choice((0.0, 1.25)),
        )
        expected, found = exhaustive(table, constraint), table.search(constraint)
        assert [h.tokens for h in found[:1]] == [tokens for _, tokens in expected[:1]], (seed, constraint)
        if expected:
            assert found[0].ended == expected[0][0][1] and math.isclose(
                found[0].score / found[0].drawn ** constraint.length_penalty, expected[0][0][2], abs_tol=1e-5
            )
        unsatisfiable += not expected or not expected[0][0][1]
    assert 0 < unsatisfiable < 40


@pytest.mark.parametrize("seed", range(2))
def test_overlapping_phrases_in_the_largest_vocabulary(seed: int) -> None:
    table = Table.random(seed, 7, 6)  # symbols 0 to 5, and the end
    required = tuple(Clause((phrase,)) for phrase in OVERLAPPING)
    constraint = wide(table, clauses=(*required, Clause(("51", "2"), positive=False)), length_penalty=0.2, no_repeat_ngram=0)
    assert table.search(constraint)[0].tokens == exhaustive(table, constraint)[0][1]


def test_overlapping_phrases() -> None:
    for seed in range(6):
        table = Table.random(seed, 7, 4)
        for phrases in ((OVERLAPPING,), tuple((phrase,) for phrase in OVERLAPPING), (("345",), ("45", "34"))):
            constraint = wide(table, clauses=tuple(map(Clause, phrases)), no_repeat_ngram=0)
            assert table.search(constraint)[0].tokens == exhaustive(table, constraint)[0][1]


def test_the_n_best_texts_do_not_depend_on_how_many_are_wanted() -> None:
    for seed in range(20):
        rng = random.Random(seed)
        table = Table.random(seed, 4, 4)
        constraint = wide(table, clauses=clauses(rng, table.end), no_repeat_ngram=0)
        expected = [tokens for _, tokens in exhaustive(table, constraint)]
        for places in (1, 3):
            found = table.search(constraint, places)
            assert [h.tokens for h in found[:places]] == expected[:places]


def plain_beam_search(
    after: Callable[[Sequence[int]], torch.Tensor], end: int, length: int, constraint: Constraint
) -> tuple[int, ...]:
    """The naive form: all continuations of all hypotheses, sorted."""
    live, finished = [(0.0, ())], list[tuple[bool, float, tuple[int, ...]]]()
    for step in range(1, length + 1):
        continuations = list[tuple[float, tuple[int, ...]]]()
        for score, tokens in live:
            logprobs = after(tokens).double().tolist()
            if sum(value > logprobs[end] for value in logprobs) < int(constraint.early_stop * constraint.beams):  # type: ignore[operator]
                finished.append((True, (score + logprobs[end]) / step**constraint.length_penalty, tokens))
            continuations += [(score + value, (*tokens, token)) for token, value in enumerate(logprobs) if token != end]
        live = sorted(continuations, reverse=True)[: constraint.beams]
    finished += [(False, score / length**constraint.length_penalty, tokens) for score, tokens in live]
    return max(finished)[2]


def test_without_clauses_it_is_plain_beam_search() -> None:
    for seed in range(60):
        rng = random.Random(seed)
        table = Table.random(seed, rng.randint(3, 12), rng.randint(2, 10))
        constraint = Constraint(
            beams=rng.randint(1, 6),
            prune=rng.choice((1, 5, None)),
            tolerance=rng.choice((0, 2, None)),
            progress=rng.choice((0.0, 1.25)),
            early_stop=rng.choice((1.0, 1.5)),
            length_penalty=rng.choice((0.0, 0.2, 1.0)),
            no_repeat_ngram=0,
        )
        expected = plain_beam_search(table.after, table.end, table.length, constraint)
        assert table.search(constraint)[0].tokens == expected, (seed, constraint)


def test_banned_phrases_never_occur_in_narrow_beams() -> None:
    met = 0
    for seed in range(60):
        rng = random.Random(seed)
        table = Table.random(seed, 6, 10)
        banned = ("".join(str(rng.randrange(5)) for _ in range(2)), str(rng.randrange(5)))
        required = ["".join(str(rng.randrange(5)) for _ in range(rng.randint(1, 2))) for _ in range(2)]
        constraint = Constraint.of([[phrase] for phrase in required], banned, beams=4, whole_words=False)
        for hypothesis in table.search(constraint, places=4):
            text = "".join(map(str, hypothesis.tokens))
            assert not any(phrase in text for phrase in banned)
            assert not hypothesis.ended or all(phrase in text for phrase in required)
            met += hypothesis.ended
    assert met > 20


@pytest.mark.parametrize("stop", ["01", "0012"])
def test_a_stop_string_ends_a_text_only_once_all_clauses_are_met(stop: str) -> None:
    count = 0
    for seed in range(15):
        table = Table.random(seed, 4, 6)
        constraint = wide(table, clauses=(Clause(("12", "2")),), no_repeat_ngram=0)
        found = table.search(constraint, places=800, stop=(stop,))
        texts = {"".join(map(str, h.tokens)): h for h in found}
        stopped = {text: h for text, h in texts.items() if text.endswith(stop)}
        assert all(stop not in text[:-1] for text in texts), "it ends where the stop string does"
        assert all(h.ended and "2" in text.removesuffix(stop) for text, h in stopped.items())
        every = {"".join(tokens) for length in range(1, 7) for tokens in itertools.product("012", repeat=length)}
        expected = {text for text in every if text.find(stop) == len(text) - len(stop) >= 0 and "2" in text.removesuffix(stop)}
        assert set(stopped) == expected
        count += len(expected)
    assert count


def test_a_search_that_can_go_nowhere_has_no_result() -> None:
    constraint = Constraint.of([["02"]], ["1", "2"], beams=4, whole_words=False, no_repeat_ngram=1)
    assert Table.random(0, 4, 4).search(constraint) == []


def test_a_zero_probability_is_never_chosen() -> None:
    table = Table.random(0, 4, 4)
    table.logprobs[:, :, 1] = -torch.inf
    constraint = Constraint.of([["1"]], beams=4, whole_words=False, no_repeat_ngram=0)
    found = table.search(constraint)
    assert not found[0].ended and all(1 not in h.tokens for h in found)
