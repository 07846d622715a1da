"""Percentiles of latencies: what the samples carry of them, and how sure they are; pure functions of raw values.

The 95 % intervals are order statistics: ranks that the true percentile lies between, by the binomial distribution,
whatever the latencies are distributed like. Where these depend on each other the binomial is that of the effective
sample: as many independent samples as tell as much of the share above the percentile (Woodruff 1952, with a variance
that knows of the dependence). A block bootstrap of the percentile would be the usual way; it was simulated beside this
one and covers less at p99, where no sample of it lies beyond the largest latency. docs/statistics.md has both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edgekit.measurements import Quantile

CONFIDENCE = 0.99
LEVEL = 0.95
# Fewer samples have no median, and fewer effective ones no interval.
LEAST_FOR_MEDIAN, LEAST_EFFECTIVE = 8, 8
# Few samples lie beyond a high percentile, too few to tell how they cluster: what is known of another counts there too.
_ALSO_AT: dict[float, float] = {90: 95, 95: 90}
_TELLING = 95


def _at_most(trials: int, probability: float) -> np.ndarray:
    """P(X <= k) of a binomial, for k from 0 to `trials`."""
    successes = np.arange(trials)
    steps = np.log(trials - successes) - np.log(successes + 1) + math.log(probability) - math.log1p(-probability)
    logs = np.concatenate([[0.0], np.cumsum(steps)]) + trials * math.log1p(-probability)
    return np.minimum(1.0, np.cumsum(np.exp(logs)))


@lru_cache(1024)
def early_stopping_rank(samples: int, percentile: float) -> int | None:
    """Which of the highest latencies estimates `percentile`: 1 is the highest; None is too few.

    The largest t for which, were the true percentile higher than the bound, at most t of `samples`
    would lie above it with probability 1 - 0.99 (MLPerf Inference rules, "early stopping").
    """
    if samples < 1:
        return None
    within = int(np.searchsorted(_at_most(samples, 1 - percentile / 100), 1 - CONFIDENCE, side="right")) - 1
    return within if within >= 1 else None


def percentile_ms(latencies_ns: Sequence[int] | np.ndarray, percentile: float) -> float | None:
    """A latency percentile in milliseconds, or None where the samples cannot carry it.

    p50 is the median (from 8 samples on); higher ones are early-stopping estimates, which lie
    above the true percentile with 99 % confidence if the samples are independent.
    """
    ordered = np.sort(np.asarray(latencies_ns, np.int64))
    if percentile == 50:
        return float(np.median(ordered)) / 1e6 if len(ordered) >= LEAST_FOR_MEDIAN else None
    rank = early_stopping_rank(len(ordered), percentile)
    return None if rank is None else float(ordered[len(ordered) - rank]) / 1e6


@lru_cache(1024)
def interval_ranks(samples: int, percentile: float, level: float = LEVEL) -> tuple[int | None, int | None]:
    """The ranks, from 1, that the true percentile lies between with at least this confidence, half of the rest on
    either side; None where the samples have no such bound. They must be independent.
    """
    below, most = _at_most(samples, percentile / 100), (1 - level) / 2
    low = int(np.searchsorted(below, most, side="right"))  # P(X <= low - 1) <= most
    high = int(np.searchsorted(below, 1 - most - 1e-12)) + 1  # P(X >= high) <= most
    return low or None, high if high <= samples else None


@dataclass(frozen=True)
class Sample:
    """Latencies as the intervals need them.

    Attributes:
        values: in their order. ordered: by size. memory: after how many queries one is forgotten, by the ranks.
    """

    values: np.ndarray
    ordered: np.ndarray
    memory: int
    autocorrelation: float

    @classmethod
    def of(cls, values: Sequence[int] | np.ndarray) -> Sample:
        """The sample of a series."""
        kept = np.asarray(values, np.float64)
        correlations = autocorrelation(ranks(kept), lags_of(len(kept)))
        return cls(kept, np.sort(kept), memory(correlations, len(kept)), float(correlations[1]))

    def inefficiency(self, percentile: float) -> float:
        """So many queries tell as much of the percentile as one independent query would.

        Of the series that says of each query whether it lies above; at p90 and p95 no less than at the other one,
        above p95 no less than there.
        """
        at = {percentile, _ALSO_AT.get(percentile, min(percentile, _TELLING))}
        return max(inefficiency(self._above(each), self.memory) for each in at)

    def _above(self, percentile: float) -> np.ndarray:
        place = math.ceil(percentile / 100 * len(self.ordered)) - 1
        return (self.values > self.ordered[max(0, place)]).astype(np.float64)


def interval(sample: Sample, percentile: float, level: float = LEVEL) -> tuple[float | None, float | None]:
    """Of the true percentile; None for a bound that the samples do not have."""
    length = len(sample.ordered)
    if length < LEAST_FOR_MEDIAN:
        return None, None
    effective = int(length / sample.inefficiency(percentile))
    if effective < length and effective < LEAST_EFFECTIVE:
        return None, None
    ranks = interval_ranks(effective, percentile, level)
    low, high = (None if rank is None else rank * length / effective for rank in ranks)
    return (
        None if low is None else float(sample.ordered[max(0, math.floor(low) - 1)]),
        None if high is None else float(sample.ordered[min(length, math.ceil(high)) - 1]),
    )


def quantile(sample: Sample, percentile: float) -> Quantile:
    """The percentile of latencies in nanoseconds.

    Below 8 samples, or where not one is expected beyond the percentile, there is none.
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
    """The interval of the ratio of a percentile of two series, out of the interval of each, by their logarithms.

    MOVER, the method of variance estimates recovery (Donner & Zou 2012, "Closed-form confidence intervals for
    functions of the normal mean and standard deviation"): it keeps the skew and the dependence that theirs know of.
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


# How far the values of a series depend on the ones before: what decides how much it tells.

# Of the automatic bandwidth (Politis & White 2004, section 3.2): how many lags in a row must be silent.
_SILENT_LAGS = 5
# The farthest lag that is looked at, in square roots of the length.
_FARTHEST = 5
_Z = 1.959964
_MANY, _ANGLES = 30, 2001


def ranks(values: np.ndarray) -> np.ndarray:
    """float64 (n,) ranks from 1, equal values share theirs: what outliers cannot pull."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[which]


def autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """float64 (lags + 1,), from lag 0; nothing but zeros behind it where all values are equal."""
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
    """Beyond which dependence is not looked for."""
    return max(1, min(length // 3, math.ceil(_FARTHEST * math.sqrt(length))))


def memory(correlations: np.ndarray, length: int) -> int:
    """After how many lags a series of `length` has forgotten: 0 is none, at most `farthest_lag`.

    The smallest m behind which five autocorrelations lie within 2 sqrt(log10(n) / n) (Politis & White 2004, "Automatic
    block-length selection for the dependent bootstrap", Econometric Reviews 23; corrected in 28, 2009).
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
    """How many autocorrelations `memory` and `inefficiency` want of a series."""
    return 2 * farthest_lag(length) + _SILENT_LAGS


def inefficiency(values: np.ndarray, least_memory: int = 0) -> float:
    """So many values of the series tell as much of its mean as one independent value would; at least 1.

    1 + 2 sum of autocorrelations in the flat-top lag window (Politis & Romano 1995) twice as wide as the memory. Its
    own error makes intervals too short: it is widened for the degrees of freedom that the window leaves, n / window.

    Args:
        least_memory: what is known of the memory from elsewhere.
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
    """The 97.5 % quantile of Student's t with at least one degree of freedom, whole or not, within 0.1 %.

    Below 30 by the area under the density, which is a power of the cosine of arctan(t / sqrt(freedom)); from there on
    by the expansion in 1 / freedom (Abramowitz & Stegun 26.7.5).
    """
    if freedom < _MANY:
        angles = np.linspace(0, math.pi / 2, _ANGLES)
        heights = np.cos(angles) ** (freedom - 1)
        areas = np.concatenate([[0.0], np.cumsum(heights[1:] + heights[:-1])])
        return math.sqrt(freedom) * math.tan(float(np.interp(0.95 * areas[-1], areas, angles)))
    z = _Z
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return sum(term / freedom**power for power, term in enumerate(terms))
