"""How far two measurements differ, and how far chance alone could have made them differ: two functions of samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.bench import quantiles
from edgekit.statistics import mcnemar, paired_difference, wilson

_Z = 1.959964
# The fewest latencies that a quantile is compared from.
LEAST = {50: 20, 90: 64}
SIGNIFICANT = 0.05


# Student's t at 97.5 %, by degrees of freedom; between two the lower, which is the wider interval.
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 8: 2.306, 10: 2.228, 15: 2.131, 30: 2.042}


@dataclass(frozen=True)
class Spread:
    """How far measurements of one file on one machine lie apart: standard deviation of the logarithm, from `repeats`
    measurements with so many degrees of freedom.
    """

    deviation: float
    repeats: int
    freedom: int


@dataclass(frozen=True)
class Change:
    """What became of a figure, from one measurement to another, with a 95 % interval.

    Attributes:
        value: of top-1 the difference in points; of a latency the ratio. method: of the interval.
        p_value: of a test, where there is one, else None. significant: beyond chance, at 5 %.
        repeats: how many measurements the interval has in it beside the two; 0 is none.
    """

    value: float
    low: float
    high: float
    method: str
    p_value: float | None
    significant: bool
    repeats: int = 0


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
    """The ratio of a percentile, `after` over `before`, from latencies in their order; None is insufficient samples.

    The interval knows that neighbours resemble each other: `quantiles.ratio`.
    """
    if min(len(before_ns), len(after_ns)) < LEAST[percentile]:
        return None
    before, after = quantiles.Sample.of(before_ns), quantiles.Sample.of(after_ns)
    low, high = quantiles.ratio(after, before, percentile)
    if low is None or high is None:
        return None
    value = float(np.percentile(after_ns, percentile) / np.percentile(before_ns, percentile))
    low, high = min(low, value), max(high, value)
    return Change(value, low, high, "order statistics", None, low > 1 or high < 1)


def spread(groups: Sequence[Sequence[float]]) -> Spread | None:
    """The spread within groups of repeated measurements, of any level each; None below two degrees of freedom."""
    logs = [np.log(np.asarray(group, np.float64)) for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in logs)
    if freedom < 2:
        return None
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in logs)
    return Spread(math.sqrt(squares / freedom), sum(len(group) for group in logs), freedom)


def widened(change: Change | None, by: Spread | None) -> Change | None:
    """A ratio's interval, widened by how far one measurement lies from the next."""
    if change is None or by is None:
        return change
    t = _T[max(known for known in _T if known <= by.freedom)]
    between, value = t * math.sqrt(2) * by.deviation, math.log(change.value)
    low = math.exp(value - math.hypot(value - math.log(change.low), between))
    high = math.exp(value + math.hypot(math.log(change.high) - value, between))
    method = f"{change.method} and {by.repeats} repeated measurements"
    significant = low > 1 or high < 1
    return Change(change.value, low, high, method, change.p_value, significant, by.repeats)
