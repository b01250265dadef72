"""The figures of benchmarks/preferences.py: wins by hand, ties, and one vote per prompt."""

import numpy as np
import pytest

from benchmarks.preferences import compared


def test_wins_are_counted_once_per_prompt() -> None:
    chosen, rejected = np.array([0.9, 0.5, 0.1, 0.4]), np.array([0.1, 0.5, 0.2, np.nan])
    found = compared(chosen, rejected, ["p", "p", "q", "r"], higher=True)
    assert found["share"]["mean"] == pytest.approx((0.75 + 0) / 2) and found["decided"]["mean"] == 0.5
    assert found["difference"]["mean"] == pytest.approx((0.4 - 0.1) / 2)
    assert (found["pairs"], found["decided_pairs"]) == (3, 2)
    fewer = compared(chosen, rejected, ["p", "p", "q", "r"], higher=False)
    assert fewer["share"]["mean"] == pytest.approx(1 - found["share"]["mean"])


def test_nothing_to_compare_has_no_interval() -> None:
    found = compared(np.array([np.nan]), np.array([1.0]), ["p"], higher=True)
    assert found == {"share": None, "decided": None, "difference": None, "pairs": 0, "decided_pairs": 0}
