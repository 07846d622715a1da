"""Images that lie in a data set more than once: the same bytes, or the same look."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


# Images that look alike though their bytes differ: re-encoded, resized, brightened, cropped a little.

DISTANCE = 8  # bits of 64; of photographs re-encoded, halved, brightened or cropped by 3 %, 95 % and more lie within
MOST_DISTANCE = 12
SIDE = 16
# Mean absolute difference of two thumbnails, in levels of 255, after their brightness was made equal.
MOST_DIFFERENCE = 10.0
# Brightness is made equal up to this factor; beyond it, the difference counts.
MOST_GAIN = 1.25
# A thumbnail whose levels differ by less is of a single colour: its hash would be noise.
LEAST_CONTRAST = 6
# Pairs of hashes compared for each band, at most: this, or so many for each image.
BUDGET, BUDGET_EACH = 20_000_000, 200
_CHUNK = 1 << 20


def look(image: Image) -> tuple[int, np.ndarray]:
    """The pHash of an RGB image (64 bits), and its thumbnail, uint8 (SIDE, SIDE, 3)."""
    from PIL.Image import Resampling

    small = image.resize((32, 32), Resampling.BILINEAR, reducing_gap=3.0)
    basis = _cosines()
    low = (basis @ np.asarray(small.convert("L"), np.float64) @ basis.T).ravel()
    bits = low > np.median(low[1:])  # the first is the mean, and far from the others
    return int.from_bytes(np.packbits(bits).tobytes(), "big"), np.asarray(small.reduce(2), np.uint8)


@cache
def _cosines() -> np.ndarray:
    """The 8 lowest rows of the orthonormal DCT-II of length 32: float64 (8, 32)."""
    k, n = np.mgrid[:8, :32]
    rows = np.cos(np.pi * (2 * n + 1) * k / 64) * np.sqrt(2 / 32)
    rows[0] /= np.sqrt(2)
    return rows


def is_blank(thumb: np.ndarray) -> bool:
    """Whether an image is of a single colour, as far as its thumbnail shows."""
    return int(np.ptp(thumb.reshape(-1, 3), axis=0).max()) < LEAST_CONTRAST


def similar_pairs(hashes: np.ndarray, thumbs: np.ndarray, distance: int = DISTANCE) -> tuple[np.ndarray, int]:
    """All pairs that look alike.

    Args:
        hashes: uint64 (N). thumbs: uint8 (N, SIDE, SIDE, 3). distance: hash bits that may differ, 0 to 12.
    Returns:
        Row numbers (i, j), i < j, sorted: int64 (P, 2). And how many images are so alike to so many others
        that they were compared with the nearest of them alone.
    """
    # One flipped bit in one of m bands: two hashes that differ in 2 m - 1 bits cannot have two in every band.
    count = distance // 2 + 1
    edges = [64 * n // count for n in range(count + 1)]
    flips = min(1, distance)
    found: list[np.ndarray] = []
    crowded: set[int] = set()
    for band in range(count):
        first, end = edges[band], edges[band + 1]
        for a, b in _candidates(hashes, first, end - first, flips, crowded):
            differ = hashes[a] ^ hashes[b]
            near = np.bitwise_count(differ) <= distance
            for earlier in range(band):  # which has found it already
                near &= np.bitwise_count(differ & _mask(edges[earlier], edges[earlier + 1])) > flips
            a, b = a[near], b[near]
            alike = _alike(thumbs, a, b)
            found.append(np.sort(np.stack([a[alike], b[alike]], 1), axis=1))
    every = np.concatenate(found) if found else np.empty((0, 2), np.int64)
    return every[np.lexsort((every[:, 1], every[:, 0]))], len(crowded)


def _mask(first: int, end: int) -> np.uint64:
    """The bits from `first` up to `end`, counted from the highest."""
    return np.uint64((1 << (64 - first)) - (1 << (64 - end)))


def _candidates(
    hashes: np.ndarray, first: int, width: int, flips: int, crowded: set[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers (a, b) of hashes that differ in at most `flips` of the bits first ... first + width - 1."""
    turned = hashes if first == 0 else (hashes << np.uint64(first)) | (hashes >> np.uint64(64 - first))
    order = np.argsort(turned, kind="stable")
    turned = turned[order]  # sorted, the band in the highest bits: equal bands lie together
    rest = np.uint64((1 << (64 - width)) - 1)
    rows = np.arange(len(turned))
    ranges = [(rows, rows + 1, np.searchsorted(turned, turned | rest, "right"), rows + 1)]
    for bit in range(64 - width, 64) if flips else ():
        low = np.flatnonzero(turned & np.uint64(1 << bit) == 0)  # each pair once
        wanted = turned[low] | np.uint64(1 << bit)
        start = np.searchsorted(turned, wanted & ~rest, "left")
        ranges.append((low, start, np.searchsorted(turned, wanted | rest, "right"), np.searchsorted(turned, wanted)))
    most = _most_each([end - start for _, start, end, _ in ranges], len(hashes))
    for who, start, end, middle in ranges:
        crowded.update(order[who[end - start > most]].tolist())
        start = np.maximum(start, np.minimum(middle - most // 2, end - most))
        end = np.minimum(end, start + most)
        for a, b in _expand(who, start, end):
            yield order[a], order[b]


def _most_each(counts: list[np.ndarray], images: int) -> int:
    """How many neighbours an image may be compared with so that the budget holds; all, if it does."""
    budget = max(BUDGET, BUDGET_EACH * images)
    most = max(int(c.max(initial=1)) for c in counts)
    while most > 2 and sum(int(np.minimum(c, most).sum()) for c in counts) > budget:
        most //= 2
    return most


def _expand(who: np.ndarray, start: np.ndarray, end: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The pairs (who[i], start[i] ... end[i] - 1), about `_CHUNK` at a time."""
    counts = np.maximum(end - start, 0)
    total = np.cumsum(counts)
    cuts = np.searchsorted(total, np.arange(_CHUNK, (total[-1] if len(total) else 0) + _CHUNK, _CHUNK))
    begin = 0
    for cut in cuts:
        part = slice(begin, min(int(cut) + 1, len(who)))
        begin = part.stop
        some = counts[part]
        offset = np.arange(some.sum()) - np.repeat(np.cumsum(some) - some, some)
        yield np.repeat(who[part], some), np.repeat(start[part], some) + offset


def _alike(thumbs: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether the thumbnails of rows a[i] and b[i] agree: bool."""
    agree = np.empty(len(a), bool)
    for start in range(0, len(a), 256):  # as many as stay in a processor's cache
        part = slice(start, start + 256)
        one, other = (thumbs[rows[part]].reshape(-1, SIDE * SIDE * 3).astype(np.float32) for rows in (a, b))
        gain = (one.sum(1) + 1) / (other.sum(1) + 1)
        gain = np.sqrt(np.clip(gain, 1 / MOST_GAIN, MOST_GAIN))[:, None]  # half to each: the order does not matter
        one /= gain
        other *= gain
        one -= other
        agree[part] = np.abs(one, out=one).mean(1) <= MOST_DIFFERENCE
    return agree
