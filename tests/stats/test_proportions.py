"""Intervals and tests of right and wrong answers, against closed forms and published values."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.stats.proportions import mcnemar, paired_difference, wilson


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


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 300))
def test_the_interval_of_a_paired_difference_holds_it_and_turns_with_its_sign(won: int, lost: int, more: int) -> None:
    total = won + lost + more
    low, high = paired_difference(won, lost, total)
    assert -1 <= low <= (won - lost) / total + 1e-12
    assert (won - lost) / total - 1e-12 <= high <= 1
    assert paired_difference(lost, won, total) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize("total", [1, 10, 260, 5000])
def test_without_a_difference_the_interval_is_its_closed_form(total: int) -> None:
    """No discordant pair: z squared over n plus z squared, on either side (Tango 1998)."""
    z2 = 1.959964**2
    assert paired_difference(0, 0, total) == pytest.approx((-z2 / (total + z2), z2 / (total + z2)), abs=1e-9)
    assert paired_difference(0, 0, 0) == (-1, 1)


@pytest.mark.parametrize(
    ("only_a", "only_b", "total"), [(12, 2, 50), (9, 3, 44), (1, 0, 43), (2, 0, 260), (30, 25, 60)]
)
def test_its_ends_are_where_the_likelihood_score_is_z(only_a: int, only_b: int, total: int) -> None:
    for end in paired_difference(only_a, only_b, total):
        # The likeliest shares under that difference, by search rather than by Tango's quadratic.
        shares = np.linspace(max(0, -end) + 1e-9, (1 - end) / 2 - 1e-9, 400_001)
        fits = only_a * np.log(shares + end) + only_b * np.log(shares) if only_b else only_a * np.log(shares + end)
        fits = fits + (total - only_a - only_b) * np.log1p(-2 * shares - end)
        likeliest = shares[int(fits.argmax())]
        score = (only_a - only_b - total * end) / math.sqrt(total * (2 * likeliest + end - end * end))
        assert abs(score) == pytest.approx(1.959964, abs=0.01)


def test_a_drop_of_one_image_in_260_is_not_told_from_none() -> None:
    low, high = paired_difference(2, 1, 260)
    assert low < 0 < 1 / 260 < high < 0.03
    assert paired_difference(20, 1, 260)[0] > 0.03


@pytest.mark.parametrize(("lost", "won"), [(0.005, 0.005), (0.02, 0.01), (0.08, 0.03)])
def test_the_interval_of_a_paired_difference_holds_the_truth_95_times_in_100(lost: float, won: float) -> None:
    found = np.random.default_rng(0).multinomial(260, [lost, won, 1 - lost - won], 400)
    ends = [paired_difference(int(a), int(b), 260) for a, b, _ in found]
    held = np.mean([low <= lost - won <= high for low, high in ends])
    assert held >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 400)
