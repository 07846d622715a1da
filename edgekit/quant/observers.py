"""From what a tensor was seen to hold, to the range that its integers will cover.

An observer is one function of a `Histogram` and one row in `OBSERVERS`. Histograms take constant
memory in the number of images, and one pass feeds them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from edgekit.errors import DataError, unknown
from edgekit.quantization import Range

BINS = 4096
PERCENTILE = 99.99
_MOST_COUNTED = 2**24  # torch.histc counts in float32, which is exact up to here


@dataclass
class Histogram:
    """Counts over the symmetric interval [-limit, limit], which doubles when a value leaves it."""

    low: float = float("inf")
    high: float = float("-inf")
    limit: float = 0.0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def update(self, values: torch.Tensor) -> None:
        """Add a tensor of any shape, float32.

        Raises:
            DataError: NaN or infinite values.
        """
        low, high = (float(v) for v in torch.aminmax(values))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise DataError("NaN or infinite activations")
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(-low, high, 1e-12)
        if self.limit == 0.0:
            self.limit = largest
        while largest > self.limit:
            quarter = BINS // 4
            pairs = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.pad(pairs, quarter)
            self.limit *= 2
        for part in torch.split(values.float().flatten(), _MOST_COUNTED):
            self.counts += torch.histc(part, BINS, -self.limit, self.limit).numpy().astype(np.int64)

    @property
    def centers(self) -> np.ndarray:
        """The middle of each bin, float64 (BINS,)."""
        width = 2 * self.limit / BINS
        return -self.limit + width * (np.arange(BINS) + 0.5)


def minmax(seen: Histogram) -> Range:
    """All that was seen."""
    return Range(min(seen.low, 0.0), max(seen.high, 0.0))


def percentile(seen: Histogram) -> Range:
    """All but the outermost 0.01 % on either side (McKinstry et al. 2018, arXiv:1809.04191)."""
    share = seen.counts.cumsum() / max(1, seen.counts.sum())
    edges = np.append(-seen.limit, seen.centers + seen.limit / BINS)
    low = edges[np.searchsorted(share, 1 - PERCENTILE / 100, side="right")]
    high = edges[np.searchsorted(share, PERCENTILE / 100) + 1]
    return Range(min(max(low, seen.low), 0.0), max(min(high, seen.high), 0.0))


def mse(seen: Histogram) -> Range:
    """The shrunk min-max range with the least squared rounding and clipping error over 8 bits.

    Choukroun et al. 2019, arXiv:1902.06822: a line search over the clipping threshold.
    """
    full, best, least = minmax(seen), minmax(seen), float("inf")
    occupied = seen.counts > 0
    values, counts = seen.centers[occupied], seen.counts[occupied]
    for shrink in np.linspace(1.0, 0.2, 81):
        low, high = full.low * shrink, full.high * shrink
        step = max(high - low, 1e-12) / 255
        rounded = np.clip(np.rint((values - low) / step), 0, 255) * step + low
        error = float((counts * (values - rounded) ** 2).sum())
        if error < least:
            best, least = Range(low, high), error
    return best


OBSERVERS: dict[str, Callable[[Histogram], Range]] = {"minmax": minmax, "percentile": percentile, "mse": mse}


def check(name: str) -> None:
    """Refuse an observer that is not in the table; names those that are."""
    if name not in OBSERVERS:
        raise unknown("observer", name, OBSERVERS)
