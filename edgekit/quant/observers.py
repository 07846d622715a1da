"""Observers: the range that a tensor's integers cover, from histograms of its values over the calibration images.

An observer is a function of a `Histogram` and a row in `OBSERVERS`. The memory of a histogram does not depend on the
number of images, and one pass over the images serves all observers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from edgekit.errors import DataError, unknown
from edgekit.quantization import Range

BINS = 4096
PERCENTILE = 99.99
MOST_PER_IMAGE = 2**16  # values of an image; their extremes are of all
_MOST_COUNTED = 2**24  # torch.histc counts in float32, which is exact up to here
_LEAST_LIMIT = 1e-12  # keeps bins wide enough for float32
_MOST_LIMIT = 1e37  # torch.histc works in float32, where twice a larger limit is infinite
_FAR = 256.0  # a value this many times larger than the rest leaves the rest no step of 8 bits
_SIDE_LEVELS = 128  # int8 levels on either side of zero
_STEPS = 255  # of int8

IMAGES = 64  # with a histogram of their own; more add nothing
_PER_OCTAVE, _OCTAVES, _LOWEST = 8, 80, -40  # bins of magnitudes from 2**-40 on; the outermost hold the rest
LARGEST = 2.0 ** (_LOWEST + _OCTAVES)
_SIDE = _PER_OCTAVE * _OCTAVES
_ZERO = _SIDE  # the bin of zero itself; below it the negative values
_ROUNDS = 3
_ENDS = np.geomspace(1.0, 1 / 1024, 161)  # shares of the largest value, 16 per octave


class ImageHistograms:
    """Counts of magnitudes on a logarithmic scale, for each of the first `IMAGES` images."""

    def __init__(self) -> None:
        self.counts = np.zeros((0, 2 * _SIDE + 1), np.int32)
        self._low, self._high = float("inf"), float("-inf")
        self._sums = np.zeros((2, 2 * _SIDE + 1))  # of the values, and of their squares

    def update(self, values: torch.Tensor) -> None:
        """Add a batch, finite float32 (N, ...); a tensor of fewer than two dimensions counts as one image."""
        if values.numel():
            low, high = (float(end) for end in torch.aminmax(values))
            self._low, self._high = min(self._low, low), max(self._high, high)
        if values.ndim < 2:
            counts, sums = _count(values.reshape(1, -1))
            self.counts = self.counts + counts if len(self.counts) else counts
            self._sums += sums
        elif (room := IMAGES - len(self.counts)) > 0:
            counts, sums = _count(values[:room].flatten(1))
            self.counts = np.concatenate([self.counts, counts])
            self._sums += sums

    def points(self, bins: np.ndarray) -> np.ndarray:
        """Return two values per bin that have the mean and the variance of its values; float64 (2, bins).

        They are clipped to the observed range: many values lie at the limit of a ReLU6.
        """
        mean, square = self._sums[:, bins] / self.counts[:, bins].sum(0)
        deviation = np.sqrt(np.maximum(square - np.square(mean), 0.0))
        return np.clip(np.stack([mean - deviation, mean + deviation]), self._low, self._high)

    def relative_error(self) -> Callable[[float, float], float]:
        """Return a function of low and high: RMS of the 8-bit noise over RMS of the values, mean over images."""
        occupied = np.flatnonzero(self.counts.any(0))
        values, counts = self.points(occupied), self.counts[:, occupied].astype(float)
        power = counts @ np.square(values).mean(0)
        counts, power = counts[power > 0], power[power > 0]
        width = (values[1] - values[0]) * 3**0.5  # of a uniform distribution with that variance

        def mean_error(low: float, high: float) -> float:
            step = (high - low) / _STEPS
            if not len(power) or step <= 0:
                return 1.0
            inside = np.clip(values, low, high)
            exact = np.square(values - np.clip(np.rint(values / step) * step, low, high))
            # Over several steps the rounding error is uniform, whatever the mean is.
            noise = np.where(width > step, np.square(values - inside) + step**2 / 12, exact)
            return float(np.sqrt((counts @ noise.mean(0)) / power).mean())

        return mean_error


def _count(rows: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return counts per row (images, bins), and the sums of values and of squares per bin (2, bins)."""
    octave = torch.log2(rows.abs().clamp_min(2.0**_LOWEST))
    bins = ((octave - _LOWEST) * _PER_OCTAVE).int().clamp_(max=_SIDE - 1) + 1
    bins = bins * rows.sign().int() + _ZERO
    size = 2 * _SIDE + 1
    flat = (bins + torch.arange(len(rows), dtype=torch.int32)[:, None] * size).flatten()
    counts = torch.bincount(flat, minlength=len(rows) * size).view(len(rows), size)
    exact = rows.flatten().double()
    sums = [torch.bincount(flat, v, len(rows) * size).view(len(rows), size).sum(0) for v in (exact, exact.square())]
    return counts.numpy().astype(np.int32), torch.stack(sums).numpy()


@dataclass
class Histogram:
    """Counts over the symmetric interval [-limit, limit], which doubles when a value leaves it.

    It does not grow for a few values that are hundreds of times larger than all others: with them
    inside, everything else would share two bins. They are counted in the outermost bins.

    Attributes:
        far: number of values that were outside the bins when they were added.
        extremes: sums of the least and of the largest value of each image. number: of the images.
        images: histograms of the first images, one each.
    """

    low: float = float("inf")
    high: float = float("-inf")
    limit: float = 0.0
    far: int = 0
    extremes: tuple[float, float] = (0.0, 0.0)
    number: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    images: ImageHistograms = field(default_factory=ImageHistograms)

    def update(self, values: torch.Tensor) -> None:
        """Add a tensor, float32 (N, ...).

        Raises:
            DataError: NaN or infinite values.
        """
        low, high = (float(v) for v in torch.aminmax(values))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError("NaN or infinite activations")
        self.low, self.high = min(self.low, low), max(self.high, high)
        rows = values.reshape(1, -1) if values.ndim < 2 else values.flatten(1)
        sums = (float(rows.amin(1).double().sum()), float(rows.amax(1).double().sum()))
        self.extremes = self.extremes[0] + sums[0], self.extremes[1] + sums[1]
        self.number += len(rows)
        sample = _sample(rows)
        self.images.update(sample if values.ndim > 1 else sample[0])
        flat = sample.float().flatten()
        reach = max(self._reach(flat, max(-low, high)), _LEAST_LIMIT)
        if self.limit == 0.0:
            self.limit = reach
        while reach > self.limit:
            quarter = BINS // 4
            pairs = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.pad(pairs, quarter)
            self.limit *= 2
        for part in torch.split(flat, _MOST_COUNTED):
            self._count(part)
        if max(-low, high) > self.limit:
            below, above = (int((flat * sign > self.limit).sum()) for sign in (-1, 1))
            self.counts[[0, -1]] += below, above
            self.far += below + above

    def _reach(self, flat: torch.Tensor, largest: float) -> float:
        """Return the largest magnitude that the bins must hold, leaving out a few values that are very far out."""
        few = int((self.counts.sum() + len(flat)) * (100 - PERCENTILE) / 100) - self.far
        if few <= 0 or largest <= _FAR * self.limit:
            return largest
        sizes = flat.abs()
        if largest <= _FAR * float(sizes.mean(dtype=torch.float64)):  # a few far values would lift the mean above this
            return largest
        kept = len(flat) - few
        rest = max(self.limit, float(sizes.kthvalue(kept).values) if kept > 0 else 0.0)
        return largest if rest <= _LEAST_LIMIT or largest <= _FAR * rest else rest

    def _count(self, part: torch.Tensor) -> None:
        limit = self.limit
        if limit > _MOST_LIMIT:
            part, limit = part / limit, 1.0
        self.counts += torch.histc(part, BINS, -limit, limit).numpy().astype(np.int64)

    @property
    def centers(self) -> np.ndarray:
        """Centre of each bin, float64 (BINS,)."""
        width = 2 * self.limit / BINS
        return -self.limit + width * (np.arange(BINS) + 0.5)


def _sample(rows: torch.Tensor) -> torch.Tensor:
    """Return at most `MOST_PER_IMAGE` values of each image (N, values), at equal distances, from all over it."""
    count = rows.shape[1]
    step = -(-count // MOST_PER_IMAGE)
    while step > 1 and math.gcd(step, count) > 1:  # else they would all be from the same columns
        step += 1
    return rows[:, ::step]


def minmax(seen: Histogram) -> Range:
    """Return the range of all values."""
    return Range(min(seen.low, 0.0), max(seen.high, 0.0))


def percentile(seen: Histogram) -> Range:
    """Return the range without the outermost 0.01 % on either side (McKinstry et al. 2018, arXiv:1809.04191)."""
    share = seen.counts.cumsum() / max(1, seen.counts.sum())
    edges = np.append(-seen.limit, seen.centers + seen.limit / BINS)
    low = float(edges[np.searchsorted(share, 1 - PERCENTILE / 100, side="right")])
    high = float(edges[np.searchsorted(share, PERCENTILE / 100) + 1])
    return Range(min(max(low, seen.low), 0.0), max(min(high, seen.high), 0.0))


def mse(seen: Histogram) -> Range:
    """Return the shrunk min-max range with the least squared rounding and clipping error in 8 bits.

    Choukroun et al. 2019, arXiv:1902.06822: a line search over the clipping threshold.
    """
    full, least = _binned(seen), float("inf")
    best = full
    occupied = seen.counts > 0
    values, counts = seen.centers[occupied], seen.counts[occupied]
    if full.low == full.high:
        return full
    for shrink in np.linspace(1.0, 0.2, 81).tolist():
        low, high = full.low * shrink, full.high * shrink
        step = (high - low) / 255
        rounded = np.clip(np.rint((values - low) / step), 0, 255) * step + low
        error = float((counts * (values - rounded) ** 2).sum())
        if error < least:
            best, least = Range(low, high), error
    return best


def entropy(seen: Histogram) -> Range:
    """Return the range whose 8-bit histogram has the least KL divergence from the full one.

    Migacz 2017, "8-bit Inference with TensorRT" (NVIDIA, GTC 2017, S7310), with the sign kept: a threshold
    on the magnitude, 128 levels on either side of zero; values beyond it are counted in the outermost
    bin within. An end that lies inside the threshold stays, so that only one end of a one-sided tensor is
    searched. The bins next to zero are given their neighbours' counts: every grid holds zero exactly, and
    the many zeros after a ReLU would dominate.
    """
    sides = [seen.counts[BINS // 2 :].astype(float), seen.counts[: BINS // 2][::-1].astype(float)]
    for side in sides:
        side[0] = min(side[0], side[1])
    occupied = np.flatnonzero(sides[0] + sides[1])
    full, last = _binned(seen), int(occupied[-1]) + 1 if len(occupied) else 0
    if last <= _SIDE_LEVELS:
        return full
    candidates = np.arange(_SIDE_LEVELS, last + 1)
    within, divergence = np.zeros(len(candidates)), np.zeros(len(candidates))
    for side in sides:
        inside, loss = _information_loss(side, candidates)
        within, divergence = within + inside, divergence + loss
    total = sum(side.sum() for side in sides)
    divergence = divergence / total + np.log(np.maximum(within, 1) / total)
    best = len(candidates) - 1 - int(np.argmin(divergence[::-1]))  # the widest of equals
    threshold = float(candidates[best]) * 2 * seen.limit / BINS
    return Range(max(full.low, -threshold), min(full.high, threshold))


def _information_loss(counts: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each threshold, the number of values within and the sum of p * log(p / q); both (T,).

    p are the counts with all beyond in the last bin, q those within, spread evenly over the occupied bins
    of each level; the last bin of q has at least one count, otherwise no threshold could lie in a gap.
    Sums over bins are differences of cumulative sums, so that all thresholds are computed at once.

    Args:
        counts: of one side, from zero outwards. candidates: thresholds in bins, (T,).
    """

    def cumulative(values: np.ndarray) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum(values)])

    def times_log(values: np.ndarray, argument: np.ndarray | None = None) -> np.ndarray:
        return values * np.log(np.where(values > 0, values if argument is None else argument, 1.0))

    edges = np.rint(np.outer(candidates, np.arange(_SIDE_LEVELS + 1) / _SIDE_LEVELS)).astype(int)
    mass, filled, own = cumulative(counts), cumulative(counts > 0), cumulative(times_log(counts))
    level, bins = np.diff(mass[edges]), np.maximum(np.diff(filled[edges]), 1)
    within, last = mass[candidates], counts[candidates - 1]
    beyond = mass[-1] - within
    piled = own[candidates] - times_log(last) + times_log(last + beyond)
    even = np.where(level > 0, level, 1.0) / bins
    outermost = np.where(last > 0, even[:, -1], 1.0)
    return within, piled - times_log(level, even).sum(1) - beyond * np.log(outermost)


def relative(seen: Histogram) -> Range:
    """Return the range with the least error relative to each image, averaged over images; no image dominates."""
    full = _binned(seen)
    if seen.limit > LARGEST:
        return full
    return Range(*best_range(seen.images, full.low, full.high))


def best_range(seen: ImageHistograms, low: float, high: float) -> tuple[float, float]:
    """Return the ends within [low, high] with the least mean error, by coordinate search; they include zero."""
    error = seen.relative_error()
    lows = low * _ENDS if low < 0 else np.zeros(1)
    highs = high * _ENDS if high > 0 else np.zeros(1)
    # Both together first: while one end is far out, moving the other changes little.
    low, high = min(((low * share, high * share) for share in _ENDS.tolist()), key=lambda ends: error(*ends))
    for _ in range(_ROUNDS):
        before = low, high
        high = min(highs.tolist(), key=lambda end: error(low, end))
        low = min(lows.tolist(), key=lambda end: error(end, high))
        if (low, high) == before:
            break
    return low, high


def mean(seen: Histogram) -> Range:
    """Return the mean over images of each image's least and largest value; a rare image's peaks are clipped."""
    low, high = (total / max(1, seen.number) for total in seen.extremes)
    full = _binned(seen)
    return Range(min(max(low, full.low), 0.0), max(min(high, full.high), 0.0))


def _binned(seen: Histogram) -> Range:
    """Return the range of all values that have a bin."""
    return Range(min(max(seen.low, -seen.limit), 0.0), max(min(seen.high, seen.limit), 0.0))


OBSERVERS: dict[str, Callable[[Histogram], Range]] = {
    "minmax": minmax,
    "percentile": percentile,
    "mse": mse,
    "entropy": entropy,
    "relative": relative,
    "mean": mean,
}
MEASURED = "measured"  # in a recipe: the observer that is best for the network (edgekit.quant.calibrate)


def check(name: str) -> None:
    """Check the name of an observer.

    Raises:
        UsageError: it is unknown; the message lists the known ones.
    """
    if name not in (*OBSERVERS, MEASURED):
        raise unknown("observer", name, (*OBSERVERS, MEASURED))
