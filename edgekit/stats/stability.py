"""Stability of a series of latencies: end of the start-up, shifts of its level, and modes.

The rates of false alarms were simulated; see docs/statistics.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgekit.stats import quantiles

_BATCH = 5
# A head that is cut off lies at least this many standard errors from the rest, and is at most this part of all.
_UNLIKE, _MOST_CUT = 3.5, 0.4
# It decays: no batch lies more than this factor, plus this many standard errors, farther from the rest than one before.
_FARTHER, _CHANCE = 1.5, 3.0
# Exceeded by 1 % of Brownian bridges (Kolmogorov's distribution).
_BRIDGE = 1.628
# The estimated dependence is too low after the fit of a step; the limit is raised, the more the fewer values count.
_CAUTION = 10.0
_LEAST_SHIFT, _LEAST_QUERIES = 0.02, 60
# Fewest queries on either side of a step, and their smallest part of all: fewer are outliers, not a level.
_LEAST_SIDE, _LEAST_SIDE_SHARE = 5, 0.05
# 99th percentile of sqrt(n) times the dip of n uniform values, for any n: simulated, see docs/statistics.md.
_DIP = 0.5
_DIP_POINTS = 500
_LEAST_SHARE, _LEAST_APART = 0.1, 0.05


def warm_up_end(values: np.ndarray) -> int:
    """Return the number of values that belong to a start-up; 0 if there is none, or if it does not end.

    MSER-5 (White 1997, "An effective truncation heuristic for bias reduction in simulation output") cuts where the mean
    of the rest, in batches of five, has the smallest standard error, at most half of all. It is applied to ranks, so
    that a spike is not a start-up. The head is cut only if it is slower than the rest from its first batch on, beyond
    chance, and approaches it; if it is at most 40 % of all; and if the rest is level. A later burst belongs into the
    percentiles, and a head that is faster than the rest is a device that slows down.
    """
    batches = len(values) // _BATCH
    if batches < 4:
        return 0
    ranks = quantiles.ranks(values)
    means = ranks[: batches * _BATCH].reshape(batches, _BATCH).mean(1)
    left = np.arange(batches, 0, -1)
    sums, squares = (np.cumsum(m[::-1])[::-1] for m in (means, means**2))
    errors = (squares - sums**2 / left) / left.astype(np.float64) ** 2
    cut = _BATCH * int(np.argmin(errors[: batches // 2 + 1]))
    if not 0 < cut <= _MOST_CUT * len(values):
        return 0
    rest = ranks[cut:]
    spread = float(rest.std()) * math.sqrt(quantiles.inefficiency(rest))
    heads = (ranks[:size] for size in {min(cut, _BATCH << n) for n in range(cut.bit_length())})
    slower = any(
        float(head.mean() - rest.mean()) > _UNLIKE * spread * math.sqrt(1 / len(head) + 1 / len(rest)) for head in heads
    )
    kept = np.asarray(values, np.float64)
    return cut if slower and _decays(kept[:cut], kept[cut:]) and shift(kept[cut:]) is None else 0


def _decays(head: np.ndarray, rest: np.ndarray) -> bool:
    """Return whether the head begins slower than the rest and approaches it, by the medians of batches.

    With medians, the two or three slow values of a clock so coarse that all others are equal are not a start-up.
    """
    middle = float(np.median(rest))
    noise = float(np.subtract(*np.quantile(rest, (0.84, 0.16)))) / 2 * math.sqrt(math.pi / 2 / _BATCH)
    apart = np.median(head.reshape(-1, _BATCH), axis=1) - middle
    if apart[0] < max(_LEAST_SHIFT * middle, 2 * noise):
        return False
    nearest = np.minimum.accumulate(np.maximum(0.0, apart[:-1]))
    return bool((apart[1:] <= _FARTHER * nearest + _CHANCE * noise).all())


@dataclass(frozen=True)
class Shift:
    """Change of the level of a series.

    Attributes:
        at: first query of the new level, from 0, of a step; None if the change is gradual.
        ratio: median after the step over median before it, or of the last third over that of the first third.
    """

    at: int | None
    ratio: float


def shift(values: np.ndarray) -> Shift | None:
    """Find a change of the level: a step or a drift of at least 2 %; false alarms in about 1 of 100 series.

    The largest partial sum of the ranks' deviations from their mean is compared with that of a Brownian bridge (Page
    1954; Ploberger & Kraemer 1992), scaled for the dependence of the values. It is a step if a step explains the ranks
    better than a straight line does; either side of it has at least 5 % of the queries, and five.
    """
    length = len(values)
    if length < _LEAST_QUERIES:
        return None
    ranks = quantiles.ranks(values)
    sums = np.cumsum(ranks - ranks.mean())[:-1]
    at = int(np.argmax(np.abs(sums))) + 1
    by_step = ranks - np.where(np.arange(length) < at, ranks[:at].mean(), ranks[at:].mean())
    time = np.arange(length) - (length - 1) / 2
    by_line = ranks - ranks.mean() - time * float(time @ ranks) / float(time @ time)
    is_step = float(by_step @ by_step) < float(by_line @ by_line)
    if is_step and min(at, length - at) < max(_LEAST_SIDE, _LEAST_SIDE_SHARE * length):
        return None
    left = by_step if is_step else by_line
    inefficiency = quantiles.inefficiency(left)
    limit = _BRIDGE * (1 + _CAUTION * inefficiency / length if inefficiency > 1 else 1)
    if float(np.abs(sums).max()) <= limit * float(left.std()) * math.sqrt(length * inefficiency):
        return None
    third = length // 3
    parts = (values[:at], values[at:]) if is_step else (values[:third], values[-third:])
    before, behind = (float(np.median(part)) for part in parts)
    found = Shift(at if is_step else None, behind / before if before > 0 else 1.0)
    return found if abs(found.ratio - 1) >= _LEAST_SHIFT else None


@dataclass(frozen=True)
class Modes:
    """Two groups of values: share of the lower one, 0 to 1, and the median of each."""

    share: float
    low: float
    high: float


def modes(values: np.ndarray, inefficiency: float = 1.0) -> Modes | None:
    """Find two groups of values, of at least 10 % each and 5 % apart.

    The test is the dip, the distance to the nearest distribution with one mode (Hartigan & Hartigan 1985, "The dip test
    of unimodality"; the mode may be an atom here), compared with that of a uniform distribution, which is the largest,
    for the number of effectively independent values.
    """
    if len(values) < _LEAST_QUERIES:
        return None
    ordered = _spread_ties(np.sort(np.asarray(values, np.float64)))
    if dip(ordered) * math.sqrt(len(ordered) / inefficiency) <= _DIP:
        return None
    cut = _best_split(ordered)
    found = Modes(cut / len(ordered), float(np.median(ordered[:cut])), float(np.median(ordered[cut:])))
    both = _LEAST_SHARE <= found.share <= 1 - _LEAST_SHARE
    return found if both and found.high >= (1 + _LEAST_APART) * found.low else None


def dip(ordered: np.ndarray) -> float:
    """Return the dip of a sorted sample, from at most 500 of its quantiles.

    Left of a mode the nearest convex function is half as far as the greatest convex minorant, and right of it the
    nearest concave one half as far as the least concave majorant. The first distance grows with the mode, the second
    falls, so the best mode is found by bisection.
    """
    count = min(len(ordered), _DIP_POINTS)
    heights = (np.arange(count) + 0.5) / count
    places = np.interp(heights, (np.arange(len(ordered)) + 0.5) / len(ordered), ordered)
    first, last = 0, count - 1

    def left(mode: int) -> float:
        return _above_convex(places[: mode + 1], heights[: mode + 1])

    def right(mode: int) -> float:
        return _above_convex(-places[mode:][::-1], -heights[mode:][::-1])

    while last - first > 1:
        middle = (first + last) // 2
        if left(middle) < right(middle):
            first = middle
        else:
            last = middle
    return min(max(left(mode), right(mode)) for mode in (first, last))


def _above_convex(places: np.ndarray, heights: np.ndarray) -> float:
    """Return half the largest height above the greatest convex minorant."""
    hull: list[int] = []
    xs, ys = places.tolist(), heights.tolist()
    for n in range(len(xs)):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (ys[b] - ys[a]) * (xs[n] - xs[a]) < (ys[n] - ys[a]) * (xs[b] - xs[a]):
                break
            hull.pop()
        hull.append(n)
    return float((heights - np.interp(places, places[hull], heights[hull])).max()) / 2


def _spread_ties(ordered: np.ndarray) -> np.ndarray:
    """Spread equal values evenly over the resolution of the clock, whose steps are not modes."""
    known, counts = np.unique(ordered, return_counts=True)
    if len(known) < 2:
        return ordered
    resolution = float(np.diff(known).min())
    within = np.concatenate([(np.arange(count) + 0.5) / count - 0.5 for count in counts])
    return ordered + resolution * within


def _best_split(ordered: np.ndarray) -> int:
    """Return the size of the lower of the two groups with the least variance within; outliers are clipped."""
    logs = np.log(np.clip(ordered, *np.quantile(ordered, (0.01, 0.99))))
    length = len(logs)
    sums = np.cumsum(logs)[:-1]
    below = np.arange(1, length)
    between = sums**2 / below + (float(logs.sum()) - sums) ** 2 / (length - below)
    return int(np.argmax(between)) + 1
