"""What every image holds by itself, and the range that costs the images least.

Squared errors summed over all images are decided by the few with the largest values: one image that is
unlike the others can cost all others most of their 8 bits. Here each image is measured against itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

IMAGES = 64  # that are kept apart; later ones add nothing
_PER_OCTAVE, _OCTAVES, _LOWEST = 8, 80, -40  # magnitudes from 2**-40 on, the rest in the outermost bins
LARGEST = 2.0 ** (_LOWEST + _OCTAVES)
_SIDE = _PER_OCTAVE * _OCTAVES
_ZERO = _SIDE  # the bin of zero itself; below it the negative values
_LEVELS = 255
_ROUNDS = 3
_ENDS = np.geomspace(1.0, 1 / 1024, 161)  # shares of the largest value, 16 to the octave


class ImageHistograms:
    """Counts of magnitudes on a logarithmic scale, image by image; constant memory in the number of images."""

    def __init__(self) -> None:
        self.counts = np.zeros((0, 2 * _SIDE + 1), np.int32)
        self._low, self._high = float("inf"), float("-inf")
        self._sums = np.zeros((2, 2 * _SIDE + 1))  # of the values, and of their squares

    def update(self, values: torch.Tensor) -> None:
        """Add a batch, finite float32 with the images first; values without that axis are of one image."""
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
        """Two values for each bin, with the mean and the variance of what fell into it; float64 (2, bins).

        None lies beyond what was seen: many values stand at the limit of a ReLU6.
        """
        mean, square = self._sums[:, bins] / self.counts[:, bins].sum(0)
        deviation = np.sqrt(np.maximum(square - np.square(mean), 0.0))
        return np.clip(np.stack([mean - deviation, mean + deviation]), self._low, self._high)

    def relative_error(self) -> Callable[[float, float], float]:
        """A function of low and high: RMS of the noise of 8 bits over RMS of the values, mean over images."""
        occupied = np.flatnonzero(self.counts.any(0))
        values, counts = self.points(occupied), self.counts[:, occupied].astype(float)
        power = counts @ np.square(values).mean(0)
        counts, power = counts[power > 0], power[power > 0]
        width = (values[1] - values[0]) * 3**0.5  # over which evenly spread values have that variance

        def mean_error(low: float, high: float) -> float:
            step = (high - low) / _LEVELS
            if not len(power) or step <= 0:
                return 1.0
            inside = np.clip(values, low, high)
            exact = np.square(values - np.clip(np.rint(values / step) * step, low, high))
            # Values spread over several steps: rounding is evenly distributed, whatever their mean does.
            noise = np.where(width > step, np.square(values - inside) + step**2 / 12, exact)
            return float(np.sqrt((counts @ noise.mean(0)) / power).mean())

        return mean_error


def best_range(seen: ImageHistograms, low: float, high: float) -> tuple[float, float]:
    """The ends within [low, high] with the least mean error, searched in turns; they include zero."""
    error = seen.relative_error()
    lows = low * _ENDS if low < 0 else np.zeros(1)
    highs = high * _ENDS if high > 0 else np.zeros(1)
    # Together first: while one end is far out, moving the other changes little.
    low, high = min(((low * share, high * share) for share in _ENDS.tolist()), key=lambda ends: error(*ends))
    for _ in range(_ROUNDS):
        before = low, high
        high = min(highs.tolist(), key=lambda end: error(low, end))
        low = min(lows.tolist(), key=lambda end: error(end, high))
        if (low, high) == before:
            break
    return low, high


def _count(rows: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Counts of every row (images, bins), and sums by bin of all values and of their squares (2, bins)."""
    octave = torch.log2(rows.abs().clamp_min(2.0**_LOWEST))
    bins = ((octave - _LOWEST) * _PER_OCTAVE).int().clamp_(max=_SIDE - 1) + 1
    bins = bins * rows.sign().int() + _ZERO
    size = 2 * _SIDE + 1
    flat = (bins + torch.arange(len(rows), dtype=torch.int32)[:, None] * size).flatten()
    counts = torch.bincount(flat, minlength=len(rows) * size).view(len(rows), size)
    exact = rows.flatten().double()
    sums = [torch.bincount(flat, v, len(rows) * size).view(len(rows), size).sum(0) for v in (exact, exact.square())]
    return counts.numpy().astype(np.int32), torch.stack(sums).numpy()
