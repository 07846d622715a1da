"""Percentiles of latencies, their intervals, and the dependence of a series on its own past.

The 95 % intervals are order statistics: ranks that the true percentile lies between, by the binomial distribution,
whatever the distribution of the latencies. Where latencies depend on each other, the binomial distribution is that of
the effective sample: as many independent samples as carry as much information on the share above the percentile
(Woodruff 1952, with a variance that accounts for the dependence). The usual way is a block bootstrap of the percentile;
in simulations it covered less at p99, where no sample of it lies beyond the largest latency. See docs/statistics.md.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edgekit.measurements import Quantile

CONFIDENCE = 0.99
LEVEL = 0.95
# Fewer samples have no median, and fewer effective ones no interval.
LEAST_FOR_MEDIAN, LEAST_EFFECTIVE = 8, 8
# Few samples lie beyond a high percentile, too few to show how they cluster: the dependence at another one counts too.
_ALSO_AT: dict[float, float] = {90: 95, 95: 90}
_TELLING = 95
# Automatic bandwidth (Politis & White 2004, section 3.2): number of consecutive lags without autocorrelation.
_SILENT_LAGS = 5
# Farthest lag, in square roots of the length.
_FARTHEST = 5
_Z = 1.959964


@lru_cache(1024)
def early_stopping_rank(samples: int, percentile: float) -> int | None:
    """Return the rank from the top of the latency that estimates `percentile`: 1 is the highest; None: too few samples.

    It is the largest t for which, if the true percentile were above the estimate, at most t of `samples` would lie
    above it with probability 1 - 0.99 (MLPerf Inference rules, "early stopping").
    """
    from scipy.special import bdtr

    if samples < 1:
        return None
    beyond = 1 - percentile / 100
    within = bisect_right(range(samples + 1), 1 - CONFIDENCE, key=lambda k: float(bdtr(k, samples, beyond))) - 1
    return within if within >= 1 else None


def percentile_ms(latencies_ns: Sequence[int] | np.ndarray, percentile: float) -> float | None:
    """Return a latency percentile in milliseconds, or None where there are too few samples.

    p50 is the median, from 8 samples on. Others are early-stopping estimates, which lie above the true percentile with
    99 % confidence if the samples are independent.
    """
    ordered = np.sort(np.asarray(latencies_ns, np.int64))
    if percentile == 50:
        return float(np.median(ordered)) / 1e6 if len(ordered) >= LEAST_FOR_MEDIAN else None
    rank = early_stopping_rank(len(ordered), percentile)
    return None if rank is None else float(ordered[len(ordered) - rank]) / 1e6


def half_ns(ms: float) -> int:
    """Return a median in half nanoseconds, a whole number, so that a ratio of two of them is rounded only once."""
    return round(2e6 * ms)


@lru_cache(1024)
def interval_ranks(samples: int, percentile: float, level: float = LEVEL) -> tuple[int | None, int | None]:
    """Return the ranks, from 1, between which the true percentile of independent samples lies.

    The confidence is at least `level`, with half of the rest on either side; None: the samples have no such bound.
    """
    from scipy.special import bdtr

    most = (1 - level) / 2

    def at_most(k: int) -> float:
        return float(bdtr(k, samples, percentile / 100))

    low = bisect_right(range(samples + 1), most, key=at_most)  # P(X <= low - 1) <= most
    high = bisect_left(range(samples + 1), 1 - most - 1e-12, key=at_most) + 1  # P(X >= high) <= most
    return low or None, high if high <= samples else None


@dataclass(frozen=True, eq=False)
class Sample:
    """A series of latencies, with its dependence.

    Attributes:
        values: float64, in their order. ordered: sorted. memory: number of queries after which one has no more
            influence, by the ranks; 0: independent. autocorrelation: of the ranks, at lag 1.
    """

    values: np.ndarray
    ordered: np.ndarray
    memory: int
    autocorrelation: float

    @classmethod
    def of(cls, values: Sequence[int] | np.ndarray) -> Sample:
        """Make the sample of a series."""
        kept = np.asarray(values, np.float64)
        correlations = autocorrelation(ranks(kept), lags_of(len(kept)))
        return cls(kept, np.sort(kept), memory(correlations, len(kept)), float(correlations[1]))

    def inefficiency(self, percentile: float) -> float:
        """Return how many queries carry as much information on the percentile as one independent query.

        It is that of the series of bools "is above the percentile"; at p90 and p95 the larger one of the two, above
        p95 at least that of p95.
        """
        at = {percentile, _ALSO_AT.get(percentile, min(percentile, _TELLING))}
        return max(inefficiency(self._above(each), self.memory) for each in at)

    def _above(self, percentile: float) -> np.ndarray:
        index = math.ceil(percentile / 100 * len(self.ordered)) - 1
        return (self.values > self.ordered[max(0, index)]).astype(np.float64)


def interval(sample: Sample, percentile: float, level: float = LEVEL) -> tuple[float | None, float | None]:
    """Return the interval of the true percentile; None for a bound that the samples do not have."""
    length = len(sample.ordered)
    if length < LEAST_FOR_MEDIAN:
        return None, None
    effective = int(length / sample.inefficiency(percentile))
    if effective < length and effective < LEAST_EFFECTIVE:
        return None, None
    low, high = (None if r is None else r * length / effective for r in interval_ranks(effective, percentile, level))
    return (
        None if low is None else float(sample.ordered[max(0, math.floor(low) - 1)]),
        None if high is None else float(sample.ordered[min(length, math.ceil(high)) - 1]),
    )


def quantile(sample: Sample, percentile: float) -> Quantile:
    """Return a percentile of latencies in nanoseconds, with its interval, in milliseconds.

    There is none below 8 samples, and where less than one sample is expected beyond the percentile.
    """
    length = len(sample.ordered)
    known = length >= LEAST_FOR_MEDIAN and length * (1 - percentile / 100) >= 1 - 1e-9
    low, high = interval(sample, percentile) if known else (None, None)
    return Quantile(
        percentile,
        float(np.quantile(sample.ordered, percentile / 100)) / 1e6 if known else None,
        None if low is None else low / 1e6,
        None if high is None else high / 1e6,
        None if percentile == 50 else percentile_ms(sample.ordered, percentile),
    )


def ratio(
    above: Sample, below: Sample, percentile: float = 50, level: float = LEVEL
) -> tuple[float | None, float | None]:
    """Return the interval of the ratio of a percentile of two series, from the interval of each, by their logarithms.

    It is MOVER, the method of variance estimates recovery (Donner & Zou 2012, "Closed-form confidence intervals for
    functions of the normal mean and standard deviation"), which keeps the skew and the dependence of both intervals.
    """
    first, second = interval(above, percentile, level), interval(below, percentile, level)
    if None in first or None in second:
        return None, None
    (low, high), (other_low, other_high) = ([math.log(max(1e-9, v or 0)) for v in ends] for ends in (first, second))
    middle, other = (math.log(max(1e-9, float(np.quantile(s.ordered, percentile / 100)))) for s in (above, below))
    apart = middle - other
    return (
        math.exp(apart - math.hypot(middle - low, other_high - other)),
        math.exp(apart + math.hypot(high - middle, other - other_low)),
    )


def ranks(values: np.ndarray) -> np.ndarray:
    """Return the ranks of values from 1, float64 (n,); equal values share the mean of theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]


def autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """Return the autocorrelations of a series, float64 (lags + 1,), from lag 0; zeros behind it for a constant one."""
    length = len(values)
    found = np.zeros(lags + 1)
    found[0] = 1.0
    if length < 2:
        return found
    centred = np.asarray(values, np.float64) - np.mean(values)
    size = 1 << (2 * length - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    sums = np.fft.irfft(spectrum * spectrum.conj(), size)[: min(length, lags + 1)]
    if sums[0] > 1e-12 * length * max(1.0, float(np.mean(values)) ** 2):
        found[: len(sums)] = sums / sums[0]
    return found


def farthest_lag(length: int) -> int:
    """Return the largest lag at which dependence is looked for."""
    return max(1, min(length // 3, math.ceil(_FARTHEST * math.sqrt(length))))


def memory(correlations: np.ndarray, length: int) -> int:
    """Return the number of lags after which a series of `length` no longer depends on its past.

    It is the smallest m behind which five autocorrelations lie within 2 sqrt(log10(n) / n) (Politis & White 2004,
    "Automatic block-length selection for the dependent bootstrap", Econometric Reviews 23; corrected in 28, 2009), and
    at most `farthest_lag`.
    """
    most = farthest_lag(length)
    if length < 2 * _SILENT_LAGS:
        return 0
    silent = np.abs(correlations[1:]) < 2 * math.sqrt(math.log10(length) / length)
    for lag in range(most):
        if silent[lag : lag + _SILENT_LAGS].all():
            return lag
    return most


def lags_of(length: int) -> int:
    """Return the number of autocorrelations that `memory` and `inefficiency` need of a series."""
    return 2 * farthest_lag(length) + _SILENT_LAGS


def inefficiency(values: np.ndarray, least_memory: int = 0) -> float:
    """Return how many values of a series carry as much information on its mean as one independent value; at least 1.

    It is 1 + 2 sum of the autocorrelations in a flat-top lag window (Politis & Romano 1995) twice as wide as the
    memory. Its own error would make intervals too short, so it is widened for the degrees of freedom that the window
    leaves, n / window.

    Args:
        least_memory: lower bound of the memory, known from elsewhere.
    """
    length = len(values)
    correlations = autocorrelation(values, lags_of(length))
    lag = max(least_memory, memory(correlations, length))
    if lag == 0:
        return 1.0
    window = 2 * lag
    steps = np.arange(1, window + 1)
    weights = np.minimum(1, 2 * (1 - steps / window))
    excess = 2 * float((weights * correlations[1 : window + 1]).sum())
    freedom = length / window
    # Centring on the series' own mean takes the share `window / length` of every autocorrelation away.
    wider = (student(max(2.0, freedom)) / _Z) ** 2 / max(0.1, 1 - 1 / freedom) ** 2
    return 1 + wider * max(0.0, excess)


def student(freedom: float) -> float:
    """Return the 97.5 % quantile of Student's t distribution."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
