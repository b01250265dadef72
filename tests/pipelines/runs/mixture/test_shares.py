"""How many rows each component gives: within one row of its exact share, against a naive apportionment."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.corpus.errors import LimbeckError
from limbeck.pipelines.runs.mixture.shares import Share, apportioned, counts_of, weights_of

WEIGHTS = st.lists(st.fractions(0, 50, max_denominator=40), min_size=1, max_size=8).filter(any)
COMPONENTS = st.lists(
    st.tuples(st.integers(1, 300), st.one_of(st.none(), st.integers(1, 100)), st.floats(0.01, 10)), min_size=1, max_size=5
)


def one_by_one(weights: list[Fraction], rows: int) -> list[int]:
    """The oracle: whole rows first, then one more row for the component that lacks most of its share, until all are given."""
    exact = [rows * weight / sum(weights) for weight in weights]
    counts = [int(share // 1) for share in exact]
    while sum(counts) < rows:
        lacking = [share - count if share - count < 1 else Fraction(-1) for share, count in zip(exact, counts, strict=True)]
        counts[lacking.index(max(lacking))] += 1
    return counts


@given(WEIGHTS, st.integers(0, 1000))
def test_every_component_is_within_one_row_of_its_share(weights: list[Fraction], rows: int) -> None:
    counts = apportioned(weights, rows)
    assert sum(counts) == rows and counts == one_by_one(weights, rows)
    for weight, count in zip(weights, counts, strict=True):
        assert abs(count - rows * weight / sum(weights)) < 1


@given(COMPONENTS, st.integers(1, 4), st.sampled_from([None, 1.0, 2.0, 5.0]))
def test_without_a_size_the_mixture_is_the_largest_that_caps_and_repeats_allow(
    components: list[tuple[int, int | None, float]], repeats: int, temperature: float | None
) -> None:
    shares = [
        Share(f"c{place}", usable, None if temperature else weight, cap) for place, (usable, cap, weight) in enumerate(components)
    ]
    try:
        counts = counts_of(shares, None, temperature or 1.0, repeats)
    except LimbeckError as error:
        assert "gives none" in str(error)
        return
    most = [share.most(repeats) for share in shares]
    assert all(count <= limit for count, limit in zip(counts, most, strict=True))
    weights = weights_of(shares, temperature or 1.0)
    whole = sum(counts)
    for larger in range(whole + 1, whole + 4):
        assert any(larger * weight / sum(weights) > limit for weight, limit in zip(weights, most, strict=True))


def test_temperature_flattens_capped_sizes_as_in_t5() -> None:
    shares = [Share("large", 10_000, cap=400), Share("small", 100)]
    assert counts_of(shares, 50, 1.0, 1) == [40, 10]  # 400 : 100
    assert counts_of(shares, 50, 2.0, 1) == [33, 17]  # 20 : 10
    assert counts_of(shares, 100, 1e9, 1) == [50, 50]


def test_weights_are_the_decimals_that_were_written() -> None:
    assert counts_of([Share("a", 9, 0.9), Share("b", 50, 0.1)], None, 1.0, 1) == [9, 1]


def test_equal_remainders_go_to_the_first() -> None:
    assert apportioned([Fraction(1)] * 3, 5) == [2, 2, 1]


@pytest.mark.parametrize(
    ("shares", "size", "repeats", "words"),
    [
        ([Share("a", 10, 0.0), Share("b", 5, 0.0)], None, 1, "sum to 0"),
        ([Share("a", 10, 1.0), Share("b", 0, 1.0)], None, 1, "component 'b' of the mixture has no usable row"),
        (
            [Share("a", 90, 1.0), Share("b", 9, 1.0)],
            40,
            1,
            "give 20 of the 40 rows .* has 9; lower size to 18, set max_repeats to 3",
        ),
        ([Share("a", 90, 1.0), Share("b", 9, 1.0)], 40, 2, "has 9, each taken up to 2 times; lower size to 36"),
        ([Share("a", 90, 1.0, 5), Share("b", 90, 1.0)], 40, 1, "is capped at 5; lower size to 10, raise its cap"),
        ([Share("a", 90, 99.0), Share("b", 90, 1.0)], 10, 1, "'b' gives none of the 10 rows .* share is 0.01; raise size"),
        ([Share("a", 900, 99.0), Share("b", 2, 1.0, 1), Share("c", 9, 0.4)], None, 1, "'c' gives none"),
    ],
)
def test_shares_that_cannot_be_had_are_one_sentence(shares: list[Share], size: int | None, repeats: int, words: str) -> None:
    with pytest.raises(LimbeckError, match=words):
        counts_of(shares, size, 1.0, repeats)
