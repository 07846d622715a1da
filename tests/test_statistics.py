"""Intervals and tests of right and wrong answers, against closed forms and published values."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.statistics import mcnemar, wilson


def at_most(successes: int, trials: int, probability: Fraction) -> Fraction:
    """P(X <= successes) of a binomial, exactly."""
    return sum(
        (math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k) for k in range(successes + 1)),
        Fraction(0),
    )


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # Newcombe 1998, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(correct: int, total: int, low: float, high: float) -> None:
    assert wilson(correct, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_of_nothing_is_everything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@settings(deadline=None)
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n) | st.sampled_from([0, n]), st.just(n))))
def test_wilson_holds_the_share_stays_in_bounds_and_is_symmetric(case: tuple[int, int]) -> None:
    correct, total = case
    low, high = wilson(correct, total)
    assert 0 <= low <= correct / total <= high <= 1
    assert wilson(total - correct, total) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def answers(only_a: int, only_b: int, both: int = 5, none: int = 3) -> tuple[np.ndarray, np.ndarray]:
    a = [True] * only_a + [False] * only_b + [True] * both + [False] * none
    b = [False] * only_a + [True] * only_b + [True] * both + [False] * none
    return np.array(a), np.array(b)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (10, 2, 158 / 4096), (3, 3, 1.0), (500, 500, 1.0)],
)
def test_mcnemar_gives_the_exact_values(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(*answers(only_a, only_b)) == pytest.approx(p, rel=1e-9)


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 9))
def test_mcnemar_is_the_binomial_test_of_the_discordant_pairs(only_a: int, only_b: int, both: int) -> None:
    p = mcnemar(*answers(only_a, only_b, both))
    assert 0 < p <= 1
    assert p == pytest.approx(mcnemar(*answers(only_b, only_a, both + 4)), rel=1e-12)
    exact = 2 * at_most(min(only_a, only_b), only_a + only_b, Fraction(1, 2))
    assert p == pytest.approx(min(1.0, float(exact)), rel=1e-9)
