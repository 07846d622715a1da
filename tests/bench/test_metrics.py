"""Statistics against closed forms, published values, and a simulation of what they promise."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.bench import metrics
from edgekit.bench.metrics import early_stopping_rank, mcnemar, percentile_ms, wilson
from edgekit.records import LEAST_SAMPLES


def at_most(successes: int, trials: int, probability: Fraction) -> Fraction:
    """P(X <= successes) of a binomial, exactly."""
    return sum(
        (math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k) for k in range(successes + 1)),
        Fraction(0),
    )


# Percentiles ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("percentile", "least"), LEAST_SAMPLES.items())
def test_the_least_samples_are_those_of_mlperf(percentile: int, least: int) -> None:
    assert {90: 64, 95: 130, 99: 662}[percentile] == least
    assert early_stopping_rank(least - 1, percentile) is None
    assert early_stopping_rank(least, percentile) == 1
    # Closed form: with one latency allowed over the bound, 0.99 confidence needs exactly so many.
    over = 1 - Fraction(percentile, 100)
    assert at_most(1, least, over) <= Fraction(1, 100) < at_most(1, least - 1, over)


@pytest.mark.parametrize("percentile", [90, 95, 99])
@pytest.mark.parametrize("samples", [662, 1000, 1777])
def test_the_rank_is_the_largest_that_the_binomial_allows(samples: int, percentile: int) -> None:
    rank = early_stopping_rank(samples, percentile)
    over = 1 - Fraction(percentile, 100)
    assert rank is not None
    assert at_most(rank, samples, over) <= Fraction(1, 100) < at_most(rank + 1, samples, over)


@pytest.mark.parametrize("percentile", [90, 95, 99])
def test_more_samples_never_lower_the_rank(percentile: int) -> None:
    ranks = [early_stopping_rank(n, percentile) or 0 for n in range(0, 1500, 11)]
    assert ranks == sorted(ranks)
    assert ranks[0] == 0


def test_the_estimate_is_the_latency_of_that_rank_in_milliseconds() -> None:
    latencies = [n * 1_000_000 for n in range(1, 1001)]
    for percentile in (90, 99):
        rank = early_stopping_rank(1000, percentile)
        assert rank is not None
        assert percentile_ms(latencies[::-1], percentile) == 1001 - rank
        assert 1001 - rank > 10 * percentile


def test_the_median_needs_eight_samples() -> None:
    assert percentile_ms([1_000_000] * 7, 50) is None
    assert percentile_ms([], 50) is None
    assert percentile_ms([8, 1, 2, 7, 3, 6, 4, 5], 50) == pytest.approx(4.5e-6)


@pytest.mark.parametrize(("percentile", "samples"), [(90, 64), (90, 200), (99, 662), (99, 1500)])
def test_the_estimate_lies_above_the_true_percentile_99_times_in_100(percentile: int, samples: int) -> None:
    runs = np.sort(np.random.default_rng(0).exponential(1e6, (4000, samples)), axis=1)
    rank = early_stopping_rank(samples, percentile)
    assert rank is not None
    true = -1e6 * math.log(1 - percentile / 100)
    covered = (runs[:, samples - rank] >= true).mean()
    # The promise is at least 0.99; the allowance is three standard errors of 4,000 runs.
    assert covered >= 0.99 - 3 * math.sqrt(0.99 * 0.01 / 4000)
    assert (runs[:, samples - rank - 1] >= true).mean() < covered


# Accuracy ------------------------------------------------------------------------------------


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


def test_top1_and_agreement_compare_the_largest_logit() -> None:
    logits = np.array([[1.0, 2, 0], [5, 1, 1], [0, 0, 9]])
    assert metrics.top1(logits, np.array([1, 0, 0])).tolist() == [True, True, False]
    assert metrics.agreement(logits, logits * 100) == 1
    assert metrics.agreement(logits, np.array([[9.0, 0, 0]] * 3)) == pytest.approx(1 / 3)
