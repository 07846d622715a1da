"""Percentiles and their intervals, against closed forms, published values, and simulations of what they promise."""

from __future__ import annotations

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.coverage import autoregressive, bootstrap
from edgekit.measurements import LEAST_SAMPLES
from edgekit.stats.quantiles import (
    Sample,
    early_stopping_rank,
    interval,
    interval_ranks,
    percentile_ms,
    quantile,
    ratio,
)
from tests.stats.test_proportions import at_most

# Early stopping ------------------------------------------------------------------------------


@pytest.mark.parametrize(("percentile", "least"), [(90, 64), (95, 130), (99, 662)])
def test_the_least_samples_are_those_of_mlperf(percentile: int, least: int) -> None:
    assert LEAST_SAMPLES[percentile] == least
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


def test_p99_9_needs_6636_queries() -> None:
    assert early_stopping_rank(6635, 99.9) is None
    assert early_stopping_rank(6636, 99.9) == 1


# Intervals of order statistics ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "percentile", "ranks"),
    [(300, 99, (293, None)), (1000, 99, (983, 997)), (10_000, 99, (9880, 9920)), (5, 50, (None, None)),
     (6, 50, (1, 6)), (60_000, 50, (29_760, 30_241))],
)  # fmt: skip
def test_the_ranks_are_the_known_ones(samples: int, percentile: float, ranks: tuple[int | None, int | None]) -> None:
    assert interval_ranks(samples, percentile) == ranks


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 400), st.sampled_from([50, 90, 95, 99]), st.sampled_from([0.95, 0.99]))
def test_the_ranks_are_the_narrowest_that_the_binomial_allows(samples: int, percentile: int, level: float) -> None:
    low, high = interval_ranks(samples, percentile, level)
    below, most = Fraction(percentile, 100), Fraction(str(1 - level)).limit_denominator(1000) / 2
    if low is not None:
        assert at_most(low - 1, samples, below) <= most  # so many lie below, were the percentile lower
    assert at_most(low or 0, samples, below) > most
    if high is not None:
        assert 1 - at_most(high - 1, samples, below) <= most
    assert 1 - at_most((high or samples + 1) - 2, samples, below) > most


def test_independent_latencies_have_the_interval_of_their_ranks() -> None:
    values = np.random.default_rng(0).permutation(1000) + 1.0
    sample = Sample.of(values)
    assert sample.memory == 0
    assert interval(sample, 99) == (983, 997)
    assert interval(sample, 50) == (469, 532)


def test_dependent_ones_have_a_wider_one_and_no_end_beyond_what_they_saw() -> None:
    values = np.exp(autoregressive(np.random.default_rng(0), 1, 1024, 0.95)[0])
    sample, mixed = Sample.of(values), Sample.of(np.random.default_rng(1).permutation(values))
    assert sample.memory > 0 == mixed.memory
    assert sample.autocorrelation > 0.8 > 0.1 > abs(mixed.autocorrelation)
    wide, narrow = interval(sample, 50), interval(mixed, 50)
    assert wide[0] < narrow[0] < np.median(values) < narrow[1] < wide[1]
    assert interval(mixed, 99)[1] is not None
    assert interval(sample, 99)[1] is None


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 10**6), min_size=0, max_size=200), st.sampled_from([50, 90, 95, 99]))
def test_a_quantile_lies_in_its_interval_and_in_the_sample(values: list[int], percentile: int) -> None:
    found = quantile(Sample.of([1_000_000 * v for v in values]), percentile)
    bound = None if percentile == 50 else percentile_ms([1_000_000 * v for v in values], percentile)
    assert found.bound_ms == bound
    if found.ms is None:
        assert len(values) < max(8, 100 / (100 - percentile))
        assert (found.low_ms, found.high_ms) == (None, None)
        return
    assert min(values) * (1 - 1e-9) <= found.ms <= max(values) * (1 + 1e-9)
    assert found.low_ms is None or found.low_ms <= found.ms
    assert found.high_ms is None or found.ms <= found.high_ms * (1 + 1e-9)


@pytest.mark.parametrize(("percentile", "least"), [(50, 8), (90, 10), (95, 20), (99, 100)])
def test_a_percentile_that_would_be_a_guess_is_none(percentile: int, least: int) -> None:
    assert quantile(Sample.of(range(1, least)), percentile).ms is None
    assert quantile(Sample.of(range(1, least + 1)), percentile).ms is not None


def test_equal_latencies_have_an_interval_of_no_width() -> None:
    found = quantile(Sample.of([2_000_000] * 700), 90)
    assert (found.ms, found.low_ms, found.high_ms, found.bound_ms) == (2, 2, 2, 2)


@pytest.mark.parametrize(("phi", "length", "percentile"), [(0.0, 662, 99), (0.5, 1024, 50), (0.9, 1024, 90)])
def test_the_intervals_hold_the_truth_95_times_in_100(phi: float, length: int, percentile: int) -> None:
    drawn = autoregressive(np.random.default_rng(5), 300, length, phi)
    true = {50: 0.0, 90: 1.2815516, 99: 2.3263479}[percentile]
    ends = [interval(Sample.of(values), percentile) for values in drawn]
    held = np.mean([(low is None or low <= true) and (high is None or true <= high) for low, high in ends])
    assert held >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 300)
    assert np.mean([None not in each for each in ends]) > 0.9
    if phi == 0.9:
        ranks = interval_ranks(length, percentile)
        ordered = np.sort(drawn, axis=1)
        naive = (ordered[:, ranks[0] - 1] <= true) & (true <= ordered[:, ranks[1] - 1])
        assert naive.mean() < 0.7  # what dependence does to the plain ones


def test_a_block_bootstrap_of_p99_covers_less_which_is_why_it_is_not_used() -> None:
    rng = np.random.default_rng(6)
    drawn, true = autoregressive(rng, 60, 662, 0.9), 2.3263479
    booted = [bootstrap(values, (99,), rng)[:, 0] for values in drawn]
    assert np.mean([low <= true <= high for low, high in booted]) < 0.85
    assert np.mean([(i := interval(Sample.of(v), 99))[1] is None or i[0] <= true <= i[1] for v in drawn]) > 0.9


# Ratios --------------------------------------------------------------------------------------


def test_the_ratio_of_a_series_and_its_double_is_around_two_with_the_interval_of_both() -> None:
    rng = np.random.default_rng(0)
    slow, fast = (Sample.of(np.exp(0.1 * rng.normal(size=700)) * scale) for scale in (2, 1))
    low, high = ratio(slow, fast)
    assert 1.9 < low < 2 < high < 2.1
    assert ratio(fast, slow) == pytest.approx((1 / high, 1 / low))
    alone = np.log(interval(slow, 50))
    assert math.log(high / low) == pytest.approx(math.sqrt(2) * (alone[1] - alone[0]), rel=0.3)


def test_a_ratio_to_what_has_no_interval_has_none() -> None:
    few, many = Sample.of(range(1, 6)), Sample.of(range(1, 700))
    assert ratio(few, many) == ratio(many, few) == (None, None)


@pytest.mark.parametrize("phi", [0.0, 0.7])
def test_the_interval_of_a_ratio_holds_the_truth(phi: float) -> None:
    rng = np.random.default_rng(3)
    slow, fast = (np.exp(0.2 * autoregressive(rng, 200, 500, phi)) for _ in range(2))
    ends = [ratio(Sample.of(3 * a), Sample.of(b)) for a, b in zip(slow, fast)]
    held = np.mean([low is not None and low <= 3 <= high for low, high in ends])
    assert held >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 200)


def test_a_median_has_no_early_stopping_estimate() -> None:
    found = quantile(Sample.of(range(1, 1000)), 50)
    assert found.ms is not None
    assert found.bound_ms is None


def test_long_series_leave_nothing_of_their_length_behind() -> None:
    quantile(Sample.of(range(1, 1000)), 99)
    tracemalloc.start()
    try:
        for more in range(8):
            quantile(Sample.of(np.arange(1, 200_000 + more)), 99)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000  # one array alone has 1.6 MB
