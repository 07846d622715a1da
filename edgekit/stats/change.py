"""How far two measurements differ, and how far chance alone could have made them differ: two functions of samples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.stats import quantiles, stability
from edgekit.stats.proportions import SIGNIFICANT, mcnemar, paired_difference, wilson

_Z = 1.959964
# The fewest latencies that a quantile is compared from.
LEAST = {50: 20, 90: 64}
# By how many steps from one measurement to the next: how many of the deviations that their median gives lie between two
# measurements, in 95 of 100 cases. Simulated, see docs/history.md; of an even number the upper one of the two in the
# middle is taken, so they go up and down.
_FACTOR = {
    2: 15.9, 3: 3.64, 4: 2.23, 5: 2.92, 6: 2.18, 7: 2.64, 8: 2.16, 9: 2.47, 10: 2.13, 11: 2.39, 15: 2.27, 20: 2.2,
    30: 2.12, 50: 2.08, 100: 2.03,
}  # fmt: skip
# A bound that is a larger factor away says nothing.
_MOST_APART = 10.0
# The median of |x| of a normal distribution, and the root of two: a step is the difference of two measurements.
_MEDIAN_STEP = 0.67449 * math.sqrt(2)


@dataclass(frozen=True)
class Spread:
    """How far measurements of one file on one machine lie apart: standard deviation of the logarithm, from `repeats`
    measurements with so many steps from one to the next.
    """

    deviation: float
    repeats: int
    steps: int


@dataclass(frozen=True)
class Change:
    """What became of a figure, from one measurement to another, with a 95 % interval.

    Attributes:
        value: of top-1 the difference in points; of a latency the ratio. low, high: None where the samples have no such
            bound. method: of the interval, "" where there is none.
        p_value: of a test, where there is one, else None. significant: beyond chance, at 5 %.
        repeats: how many measurements the interval has in it beside the two; 0 is none.
        why: in words, what kept the samples from a better interval; "" where nothing did.
    """

    value: float
    low: float | None
    high: float | None
    method: str
    p_value: float | None
    significant: bool
    repeats: int = 0
    why: str = ""


def top1_change(before: np.ndarray, after: np.ndarray, paired: bool) -> Change | None:
    """Points of top-1, `after` less `before`, from right (bool) per image; None where there are no images.

    Paired: the exact test of McNemar, and Tango's interval (`statistics.paired_difference`). Else Newcombe's (1998) of
    two independent proportions, from Wilson's.
    """
    if not len(before) or not len(after):
        return None
    if paired:
        gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
        low, high = paired_difference(gained, lost, len(before))
        value, p_value = (gained - lost) / len(before), mcnemar(before, after)
        return Change(100 * value, 100 * low, 100 * high, "McNemar", p_value, p_value < SIGNIFICANT)
    a, b = float(before.mean()), float(after.mean())
    (a_low, a_high), (b_low, b_high) = (wilson(int(x.sum()), len(x)) for x in (before, after))
    low = b - a - math.hypot(b - b_low, a_high - a)
    high = b - a + math.hypot(b_high - b, a - a_low)
    return Change(100 * (b - a), 100 * low, 100 * high, "unpaired", None, low > 0 or high < 0)


def latency_change(before_ns: np.ndarray, after_ns: np.ndarray, percentile: int) -> Change | None:
    """The ratio of a percentile, `after` over `before`, from latencies in their order; None where one has none.

    The interval is out of that of each series, which knows that neighbours resemble each other: its lower bound needs
    the lower one of `after` and the upper one of `before`, and there may be one without the other. Of a series that
    has no such bound, as it drifts or depends on itself too much, the smallest and the largest latency stand for it.
    """
    if min(len(before_ns), len(after_ns)) < _least_for_a_value(percentile):
        return None
    value = float(np.percentile(after_ns, percentile) / np.percentile(before_ns, percentile))
    if min(len(before_ns), len(after_ns)) < LEAST[percentile]:
        why = f"too few queries: {len(before_ns)} and {len(after_ns)}"
        return Change(value, None, None, "", None, False, why=why)
    samples = [quantiles.Sample.of(series) for series in (before_ns, after_ns)]
    found = [quantiles.interval(sample, percentile) for sample in samples]
    limits = [
        tuple(known if known is not None else end for known, end in zip(ends, (s.ordered[0], s.ordered[-1])))
        for ends, s in zip(found, samples)
    ]
    middles = [float(np.percentile(sample.ordered, percentile)) for sample in samples]
    low = _apart(limits[1][0], middles[1], limits[0][1], middles[0])
    high = 1 / _apart(limits[0][0], middles[0], limits[1][1], middles[1])
    low, high = min(low, value), max(high, value)
    missing = [
        f"{side}: {_why_none(sample)}"
        for side, sample, ends in zip(("before", "after"), samples, found)
        if None in ends
    ]
    ours = None in (found[1][0], found[0][1]), None in (found[1][1], found[0][0])
    kept = None if ours[0] and low <= 1 else low, None if ours[1] and high >= 1 else high
    told = any(own and end is not None for own, end in zip(ours, kept))
    method = "range of the latencies" if told else "" if kept == (None, None) else "order statistics"
    return Change(value, *kept, method, None, _is_significant(*kept), why="; ".join(missing))


def _is_significant(low: float | None, high: float | None) -> bool:
    return (low is not None and low > 1) or (high is not None and high < 1)


def _least_for_a_value(percentile: int) -> int:
    """Of a percentile: one latency must be expected beyond it."""
    return max(quantiles.LEAST_FOR_MEDIAN, math.ceil(100 / (100 - percentile) - 1e-9))


def _apart(low: float, middle: float, high: float, other: float) -> float:
    """The lower bound of `middle` over `other`, out of a lower and an upper one of theirs, as in `quantiles.ratio`."""
    below, beyond = (max(0.0, math.log(of)) for of in (middle / low, high / other))
    return math.exp(math.log(middle / other) - math.hypot(below, beyond))


def _why_none(sample: quantiles.Sample) -> str:
    """Why a series has no interval of its own."""
    change = stability.shift(sample.values)
    if change is None:
        return f"autocorrelated ({sample.autocorrelation:.2f} at lag 1)"
    how = "drifts" if change.at is None else f"a step at query {change.at + 1}"
    return f"{how} ({100 * (change.ratio - 1):+.0f} %)"


def spread(groups: Sequence[Sequence[float]]) -> Spread | None:
    """How far measurements lie apart, from groups of repeated ones in their order; None below two steps.

    By the median of the steps from one to the next: a level that changes, as by a regression that is in some of them
    already, is one large step among many and leaves it where it was.
    """
    logs = [np.log(np.asarray(group, np.float64)) for group in groups if len(group) > 1]
    steps = np.sort(np.abs(np.concatenate([np.diff(group) for group in logs]))) if logs else np.zeros(0)
    if len(steps) < 2:
        return None
    # Of two steps the smaller counts: the other may be that of the level.
    middle = float(steps[len(steps) // 2 if len(steps) > 2 else 0])
    return Spread(middle / _MEDIAN_STEP, sum(len(group) for group in logs), len(steps))


def widened(change: Change | None, by: Spread | None) -> Change | None:
    """A ratio's interval, widened by how far one measurement lies from the next; where there is none, there is none."""
    if change is None or by is None or (change.low is None and change.high is None):
        return change
    factor = _FACTOR[max(known for known in _FACTOR if known <= by.steps)]
    between, value = factor * math.sqrt(2) * by.deviation, math.log(change.value)
    low, high = (
        None
        if end is None or (apart := math.hypot(value - math.log(end), between)) > math.log(_MOST_APART)
        else math.exp(value + side * apart)
        for side, end in ((-1, change.low), (1, change.high))
    )
    why, method = change.why, f"{change.method} and {by.repeats} repeated measurements"
    if (low, high) == (None, None):
        far = f"{by.repeats} repeated measurements lie too far apart"
        why, method = f"{why}; {far}" if why else far, ""
    significant = _is_significant(low, high)
    return dataclasses.replace(
        change, low=low, high=high, method=method, significant=significant, repeats=by.repeats, why=why
    )
