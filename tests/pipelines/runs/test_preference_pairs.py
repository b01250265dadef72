"""The pairs of one prompt, against a naive oracle, and what is said of all pairs of a dataset."""

import itertools
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.corpus.errors import LimbeckError
from limbeck.pipelines.runs.preference_pairs import Contender, Pair, Tally, pairs_of, summary, warning
from limbeck.pipelines.runs.rows import PreferenceRows

CONTENDERS = st.lists(
    st.builds(
        Contender,
        text=st.sampled_from("abcdef"),
        score=st.sampled_from([-1.0, 0.0, 0.1, 0.3, 0.30000000000000004, 2.0, math.nan, math.inf]),
        words=st.integers(0, 6),
        may_win=st.booleans(),
        may_lose=st.booleans(),
        tokens=st.integers(0, 9),
    ),
    max_size=7,
)
ROWS = st.builds(
    PreferenceRows,
    by=st.just("f.c"),
    order=st.sampled_from(["highest", "lowest"]),
    margin=st.sampled_from([0.0, 0.2, 0.3, 1.0]),
    pairs=st.sampled_from(["best_worst", "best_random", "best_each", "all"]),
    max_length_ratio=st.sampled_from([None, 1.0, 1.5]),
)


def made(**changes: Any) -> PreferenceRows:
    return PreferenceRows.model_validate({"by": "f.c", **changes})


def better_by(one: Contender, other: Contender, rows: PreferenceRows) -> float:
    return one.score - other.score if rows.order == "highest" else other.score - one.score


def allowed(contenders: list[Contender], rows: PreferenceRows) -> dict[tuple[int, int], float]:
    """The oracle: every two places that the rules allow, with their margin."""
    found = {}
    for place, other in itertools.permutations(range(len(contenders)), 2):
        one, two = contenders[place], contenders[other]
        if not (math.isfinite(one.score) and math.isfinite(two.score) and one.may_win and two.may_lose and one.text != two.text):
            continue
        short, long = sorted((one.words, two.words))
        if rows.max_length_ratio is not None and long > rows.max_length_ratio * max(1, short):
            continue
        if (margin := better_by(one, two, rows)) > 0 and margin >= rows.margin:
            found[place, other] = margin
    return found


@given(CONTENDERS, ROWS, st.integers(0, 9))
def test_pairs_are_those_of_the_oracle(contenders: list[Contender], rows: PreferenceRows, seed: int) -> None:
    found = pairs_of(contenders, rows, random.Random(seed))
    by_texts: dict[frozenset[str], tuple[float, int, int]] = {}
    for (place, other), margin in allowed(contenders, rows).items():
        texts, key = frozenset((contenders[place].text, contenders[other].text)), (-margin, place, other)
        by_texts[texts] = min(key, by_texts.get(texts, key))
    every = [Pair(place, other, -margin) for margin, place, other in sorted(by_texts.values())]
    if not every:
        assert found == []
        return
    top = max((better_by(contenders[pair.chosen], Contender("", 0.0, 0), rows) for pair in every), default=0.0)
    best = min(pair.chosen for pair in every if better_by(contenders[pair.chosen], Contender("", 0.0, 0), rows) == top)
    of_best = [pair for pair in every if pair.chosen == best]
    if rows.pairs == "best_random":
        assert len(found) == 1 and found[0] in of_best
    else:
        assert found == {"all": every, "best_worst": every[:1], "best_each": of_best}[rows.pairs]


@given(CONTENDERS, ROWS, st.integers(0, 9))
def test_a_pair_keeps_its_margin_and_occurs_once(contenders: list[Contender], rows: PreferenceRows, seed: int) -> None:
    found = pairs_of(contenders, rows, random.Random(seed))
    assert found == pairs_of(contenders, rows, random.Random(seed))
    texts = [frozenset((contenders[pair.chosen].text, contenders[pair.rejected].text)) for pair in found]
    assert len(set(texts)) == len(texts) and all(len(both) == 2 for both in texts)
    for pair in found:
        difference = better_by(contenders[pair.chosen], contenders[pair.rejected], rows)
        assert difference == pair.margin > 0 and difference >= rows.margin


def test_a_random_pair_depends_on_the_random_numbers() -> None:
    contenders = [Contender(str(score), float(score), 1) for score in range(9)]
    drawn = {pairs_of(contenders, made(pairs="best_random"), random.Random(seed))[0].rejected for seed in range(200)}
    assert drawn == set(range(8)), "each answer below the best is drawn at times"


def tallied(pairs: list[tuple[int, int]], margin: float = 1.0) -> Tally:
    """One prompt per pair, with these words of the chosen and the rejected answer."""
    tally = Tally(made())
    for chosen, rejected in pairs:
        contenders = [Contender("a", margin, chosen, tokens=chosen), Contender("b", 0.0, rejected, tokens=rejected)]
        tally.add(contenders, pairs_of(contenders, made(), random.Random(0)), 1, 0)
    return tally


def test_facts_are_those_of_numpy_by_hand() -> None:
    tally = tallied([(10, 5), (4, 4), (1, 3)])
    tally.add([Contender("a", 1.0, 1), Contender("b", math.nan, 1)], [], 0, 0)
    facts = tally.facts()
    assert (facts.prompts, facts.compared, facts.prompts_with_pair, facts.pairs, facts.rows) == (4, 3, 3, 3, 3)
    assert facts.words.chosen.mean == 5 and facts.words.rejected.median == 4 and facts.words.ratio == 15 / 12
    assert facts.words.chosen_longer.share == 0.5 and facts.tokens.chosen.maximum == 10
    assert (facts.margins.minimum, facts.margins.q05, facts.margins.maximum) == (1.0, 1.0, 1.0)
    assert "3 pairs by f.c, from 3 of 3 prompts" in summary(facts)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([(20, 10)] * 30, "the chosen one is longer in 100 %"),
        ([(10, 20)] * 30, "the chosen one is shorter in 100 %"),
        ([(11, 10)] * 20 + [(10, 11)] * 10, None),  # two thirds of 30 may be chance
        ([(11, 10)] * 200 + [(10, 11)] * 100, "longer in 67 %"),
        ([(10, 11), (11, 10)] * 30, None),
        ([(30, 10), (10, 11)] * 30, None),  # longer on average, but not more often
        ([(20, 10)] * 2, None),  # too few
    ],
)
def test_lengths_that_tell_the_sides_apart_are_a_warning(words: list[tuple[int, int]], says: str | None) -> None:
    found = warning(tallied(words).facts())
    assert found is None if says is None else found is not None and says in found


def test_no_pair_is_one_sentence_with_the_reason() -> None:
    def refused(contenders: list[Contender], **changes: Any) -> str:
        rows = made(**changes)
        tally = Tally(rows)
        tally.add(contenders, pairs_of(contenders, rows, random.Random(0)), 0, 0)
        with pytest.raises(LimbeckError) as error:
            tally.facts()
        return str(error.value)

    one, two = Contender("a", 1.0, 3), Contender("b", 0.5, 3)
    assert "no answer has this score" in refused([Contender("a", math.nan, 1)])
    assert "no prompt has two scored answers" in refused([one])
    assert "the largest difference is 0.5, below rows.margin 0.6" in refused([one, two], margin=0.6)
    assert "rejected (scored)" in refused([one, Contender("b", 0.5, 3, may_lose=False)])
