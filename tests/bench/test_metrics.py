"""Statistics against closed forms, published values, and a simulation of what they promise."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from edgekit.bench import metrics
from edgekit.bench.quantiles import early_stopping_rank, percentile_ms
from edgekit.suites import LEAST_SAMPLES
from tests.test_statistics import at_most

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


def test_top1_and_agreement_compare_the_largest_logit() -> None:
    logits = np.array([[1.0, 2, 0], [5, 1, 1], [0, 0, 9]])
    assert metrics.top1(logits, np.array([1, 0, 0])).tolist() == [True, True, False]
    assert metrics.agreement(logits, logits * 100) == 1
    assert metrics.agreement(logits, np.array([[9.0, 0, 0]] * 3)) == pytest.approx(1 / 3)


def test_the_cosine_is_that_of_the_angle_whatever_the_length() -> None:
    a = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
    assert metrics.cosine(a, 3 * a) == pytest.approx(1)
    assert metrics.cosine(a, -a) == pytest.approx(-1)
    assert metrics.cosine(a, a[:, ::-1]) == 0
    assert metrics.cosine(a, 0 * a) == 0
