"""Changes of top-1 and latency between two measurements, with intervals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.stats import quantiles, stability
from edgekit.stats.proportions import SIGNIFICANT, mcnemar, paired_difference, wilson

_Z = 1.959964
# Fewest latencies for an interval of the change of a percentile.
LEAST = {50: 20, 90: 64}
# By number of steps between consecutive measurements: the factor on the deviation (from their median) that two
# measurements differ by in at most 95 of 100 cases. Simulated, see docs/history.md. It is not monotonic, because of an
# even number of steps the upper one of the two in the middle is taken.
_FACTOR = {
    2: 15.9, 3: 3.64, 4: 2.23, 5: 2.92, 6: 2.18, 7: 2.64, 8: 2.16, 9: 2.47, 10: 2.13, 11: 2.39, 15: 2.27, 20: 2.2,
    30: 2.12, 50: 2.08, 100: 2.03,
}  # fmt: skip
# A bound that is farther away than this factor is dropped.
_MOST_APART = 10.0
# Median of |x| of a standard normal distribution, times the root of two: a step is the difference of two measurements.
_MEDIAN_STEP = 0.67449 * math.sqrt(2)


@dataclass(frozen=True)
class Spread:
    """Standard deviation of the logarithm of a figure, over repeated measurements of one file on one machine.

    Attributes:
        repeats: number of measurements. steps: of differences between consecutive ones.
    """

    deviation: float
    repeats: int
    steps: int


@dataclass(frozen=True)
class Change:
    """Change of a figure from one measurement to another, with a 95 % interval.

    Attributes:
        value: difference in points (top-1) or ratio (latency). low, high: None where the samples have no such bound.
        method: of the interval, "" where there is none.
        p_value: of a test, where there is one, else None. significant: beyond chance, at 5 %.
        repeats: number of further measurements that widen the interval.
        why: for users: what kept the samples from a better interval; "" where nothing did.
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
    """Return the change of top-1 in points, from bool arrays of right answers; None where there are no images.

    Paired: the exact test of McNemar, and Tango's interval (`proportions.paired_difference`). Otherwise the interval of
    Newcombe (1998) for two independent proportions, from Wilson's.
    """
    if not len(before) or not len(after):
        return None
    if paired:
        gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
        low, high = paired_difference(gained, lost, len(before))
        value, p_value = 100 * (gained - lost) / len(before), mcnemar(before, after)
        return Change(value, 100 * low, 100 * high, "McNemar", p_value, p_value < SIGNIFICANT)
    a, b = float(before.mean()), float(after.mean())
    (a_low, a_high), (b_low, b_high) = (wilson(int(x.sum()), len(x)) for x in (before, after))
    low = b - a - math.hypot(b - b_low, a_high - a)
    high = b - a + math.hypot(b_high - b, a - a_low)
    # One division of whole numbers, so that a change of exactly a tolerance is not beyond it.
    more = int(after.sum()) * len(before) - int(before.sum()) * len(after)
    value = 100 * more / (len(before) * len(after))
    return Change(value, 100 * low, 100 * high, "unpaired", None, low > 0 or high < 0)


def latency_change(before_ns: np.ndarray, after_ns: np.ndarray, percentile: int) -> Change | None:
    """Return the ratio of a percentile, `after` over `before`, from latencies in their order; None where one has none.

    The interval is made from that of each series, which accounts for the dependence of its queries. Its lower bound
    needs the lower one of `after` and the upper one of `before`, so there may be one bound without the other. For a
    series without a bound, because it drifts or is too dependent, its smallest and largest latency are used.
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
    by_range = None in (found[1][0], found[0][1]), None in (found[1][1], found[0][0])
    kept = None if by_range[0] and low <= 1 else low, None if by_range[1] and high >= 1 else high
    uses_range = any(used and end is not None for used, end in zip(by_range, kept))
    method = "range of the latencies" if uses_range else "" if kept == (None, None) else "order statistics"
    return Change(value, *kept, method, None, _is_significant(*kept), why="; ".join(missing))


def _is_significant(low: float | None, high: float | None) -> bool:
    return (low is not None and low > 1) or (high is not None and high < 1)


def _least_for_a_value(percentile: int) -> int:
    """Return the fewest latencies of which one is expected beyond a percentile."""
    return max(quantiles.LEAST_FOR_MEDIAN, math.ceil(100 / (100 - percentile) - 1e-9))


def _apart(low: float, middle: float, high: float, other: float) -> float:
    """Return the lower bound of `middle` / `other`, from the bounds `low` and `high` of each, by MOVER."""
    below, beyond = (max(0.0, math.log(ratio)) for ratio in (middle / low, high / other))
    return math.exp(math.log(middle / other) - math.hypot(below, beyond))


def _why_none(sample: quantiles.Sample) -> str:
    """Return the reason why a series has no interval of its own."""
    change = stability.shift(sample.values)
    if change is None:
        return f"autocorrelated ({sample.autocorrelation:.2f} at lag 1)"
    shape = "drifts" if change.at is None else f"a step at query {change.at + 1}"
    return f"{shape} ({100 * (change.ratio - 1):+.0f} %)"


class Steps:
    """Steps between consecutive measurements of groups of repeated ones, sorted once.

    `spread` leaves one measurement out without a walk over all of them.
    """

    def __init__(self, groups: Sequence[Sequence[float]]) -> None:
        self._logs = [np.log(np.asarray(group, np.float64)) for group in groups]
        steps = [np.abs(np.diff(group)) for group in self._logs]
        self._sorted = np.sort(np.concatenate(steps)) if steps else np.zeros(0)

    def spread(self, without: int | None = None) -> Spread | None:
        """Return how far measurements lie apart, by the median of the steps; None for fewer than two steps.

        A change of level, such as a regression that is in some of them already, is one large step among many and
        leaves the median where it was.

        Args:
            without: index of a measurement to leave out; there must be one group.
        """
        removed, added = ([], []) if without is None else self._changed(without)
        repeats = sum(n for group in self._logs if (n := len(group) - (without is not None)) > 1)
        count = len(self._sorted) - len(removed) + len(added)
        if count < 2:
            return None
        # Of two steps the smaller counts: the other may be that of the level.
        middle = _nth(self._sorted, removed, added, count // 2 if count > 2 else 0)
        return Spread(middle / _MEDIAN_STEP, repeats, count)

    def _changed(self, index: int) -> tuple[list[float], list[float]]:
        """Return the steps that vanish and appear without a measurement."""
        (logs,) = self._logs
        near = logs[max(0, index - 1) : index + 2]
        removed = [float(step) for step in np.abs(np.diff(near))]
        inner = 0 < index < len(logs) - 1
        return removed, [abs(float(logs[index + 1] - logs[index - 1]))] if inner else []


def _nth(ordered: np.ndarray, removed: Sequence[float], added: Sequence[float], n: int) -> float:
    """Return the n-th smallest value, from 0, of a sorted array without `removed`, values of it, and with `added`."""
    most = len(removed) + len(added)
    near = ordered[max(0, n - most) : n + most + 1].tolist()

    def at_most(value: float) -> int:
        below = int(np.searchsorted(ordered, value, side="right"))
        return below - sum(r <= value for r in removed) + sum(a <= value for a in added)

    return float(min(value for value in [*near, *added] if at_most(value) > n))


def spread(groups: Sequence[Sequence[float]]) -> Spread | None:
    """Return how far measurements lie apart, from groups of repeated ones in their order; None below two steps."""
    return Steps(groups).spread()


def widened(change: Change | None, by: Spread | None) -> Change | None:
    """Widen the interval of a ratio by the spread of repeated measurements."""
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
