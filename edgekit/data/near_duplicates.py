"""Near-duplicates: images that look alike although their bytes differ (re-encoded, resized, brightened, cropped)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from edgekit.records import LEAST_CONTRAST

if TYPE_CHECKING:
    from PIL.Image import Image


# Bits of 64. At least 95 % of photographs that are re-encoded, halved, brightened or cropped by 3 % lie within.
DISTANCE = 8
MOST_DISTANCE = 12
SIDE = 16
# Pixels of the shorter side. Smaller images, such as digits, look alike without being the same picture.
LEAST_SIDE = 32
# Largest mean absolute difference of two thumbnails, in levels of 255, after equalizing their brightness.
MOST_DIFFERENCE = 10.0
# Largest factor by which the brightness is equalized.
MOST_GAIN = 1.25
# Most pairs of hashes compared per band: in all, or per image, whichever is larger.
BUDGET, BUDGET_EACH = 20_000_000, 200
_CHUNK = 1 << 20
_BLOCK = 1 << 16

# Perceptual hash, and thumbnail, uint8 (SIDE, SIDE, 3).
Look = tuple[int, np.ndarray]


def look(image: Image) -> Look:
    """Return the perceptual hash (pHash, 64 bits) of an RGB image, and its thumbnail, uint8 (SIDE, SIDE, 3)."""
    from PIL.Image import Resampling

    small = image.resize((32, 32), Resampling.BILINEAR, reducing_gap=3.0)
    basis = _cosines()
    low = (basis @ np.asarray(small.convert("L"), np.float64) @ basis.T).ravel()
    bits = low > np.median(low[1:])  # the first coefficient is the mean, far from the others
    return int.from_bytes(np.packbits(bits).tobytes(), "big"), np.asarray(small.reduce(2), np.uint8)


@cache
def _cosines() -> np.ndarray:
    """Return the 8 lowest rows of the orthonormal DCT-II of length 32: float64 (8, 32)."""
    k, n = np.mgrid[:8, :32]
    rows = np.cos(np.pi * (2 * n + 1) * k / 64) * np.sqrt(2 / 32)
    rows[0] /= np.sqrt(2)
    return rows


def is_blank(thumb: np.ndarray) -> bool:
    """Return True if the thumbnail of an image has a single colour, so that its hash is noise."""
    return int(np.ptp(thumb.reshape(-1, 3), axis=0).max()) < LEAST_CONTRAST


def comparable(image: Image) -> Look:
    """Return the look of an RGB image; nothing but zeros, as of a blank one, if it is too small to be compared."""
    return look(image) if min(image.size) >= LEAST_SIDE else (0, np.zeros((SIDE, SIDE, 3), np.uint8))


def alike(looks: Mapping[str, Look]) -> list[list[str]]:
    """Return the groups of images that look alike, directly or through others, each sorted.

    Args:
        looks: SHA-256 of each image -> its look. Blank ones are not compared.
    """
    names = sorted(name for name, (_, thumb) in looks.items() if not is_blank(thumb))
    hashes, thumbs = stacked([looks[name] for name in names])
    leader = np.arange(len(names))  # of each group, its first row
    for a, b in _close_pairs(hashes, DISTANCE, set()):
        for start in range(0, len(a), _BLOCK):
            one, other = a[start : start + _BLOCK], b[start : start + _BLOCK]
            apart = leader[one] != leader[other]  # so that the work stays small where all look alike
            one, other = one[apart], other[apart]
            same = _alike(thumbs, one, other)
            _join(leader, one[same], other[same])
    groups: dict[int, list[str]] = {}
    for name, first in zip(names, leader.tolist()):
        groups.setdefault(first, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def stacked(looks: Sequence[Look]) -> tuple[np.ndarray, np.ndarray]:
    """Return the hashes, uint64 (N,), and thumbnails, uint8 (N, SIDE, SIDE, 3), of looks."""
    hashes = np.array([phash for phash, _ in looks], np.uint64)
    return hashes, np.array([thumb for _, thumb in looks], np.uint8).reshape(-1, SIDE, SIDE, 3)


def _join(leader: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Join the groups of rows a[i] and b[i]; `leader` has the first row of the group of each row, int64 (N,)."""
    while (apart := leader[a] != leader[b]).any():
        a, b = a[apart], b[apart]
        np.minimum.at(leader, np.maximum(leader[a], leader[b]), np.minimum(leader[a], leader[b]))
        while ((further := leader[leader]) != leader).any():
            leader[:] = further


def similar_pairs(hashes: np.ndarray, thumbs: np.ndarray, distance: int = DISTANCE) -> tuple[np.ndarray, int]:
    """Find all pairs of images that look alike.

    Args:
        hashes: uint64 (N,). thumbs: uint8 (N, SIDE, SIDE, 3). distance: most different bits, 0 to 12.
    Returns:
        Row numbers (i, j) with i < j, sorted, int64 (P, 2); and the number of images with so many similar
        hashes that they were compared with the closest ones only.
    """
    found: list[np.ndarray] = []
    crowded: set[int] = set()
    for a, b in _close_pairs(hashes, distance, crowded):
        same = _alike(thumbs, a, b)
        found.append(np.sort(np.stack([a[same], b[same]], 1), axis=1))
    every = np.concatenate(found) if found else np.empty((0, 2), np.int64)
    return every[np.lexsort((every[:, 1], every[:, 0]))], len(crowded)


def _close_pairs(hashes: np.ndarray, distance: int, crowded: set[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield row numbers (a, b) of hashes that differ in at most `distance` bits, each pair once."""
    # Two hashes that differ in 2 m - 1 bits differ in at most one bit in at least one of m bands.
    count = distance // 2 + 1
    edges = [64 * n // count for n in range(count + 1)]
    flips = min(1, distance)
    for band in range(count):
        first, end = edges[band], edges[band + 1]
        for a, b in _candidates(hashes, first, end - first, flips, crowded):
            differ = hashes[a] ^ hashes[b]
            near = np.bitwise_count(differ) <= distance
            for earlier in range(band):  # already found in an earlier band
                near &= np.bitwise_count(differ & _mask(edges[earlier], edges[earlier + 1])) > flips
            yield a[near], b[near]


def _mask(first: int, end: int) -> np.uint64:
    """Return a mask of the bits from `first` up to `end`, counted from the highest."""
    return np.uint64((1 << (64 - first)) - (1 << (64 - end)))


def _candidates(
    hashes: np.ndarray, first: int, width: int, flips: int, crowded: set[int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield row numbers (a, b) of hashes that differ in at most `flips` of the bits first ... first + width - 1."""
    rotated = hashes if first == 0 else (hashes << np.uint64(first)) | (hashes >> np.uint64(64 - first))
    order = np.argsort(rotated, kind="stable")
    rotated = rotated[order]  # sorted by the band, which is in the highest bits
    rest = np.uint64((1 << (64 - width)) - 1)
    rows = np.arange(len(rotated))
    ranges = [(rows, rows + 1, np.searchsorted(rotated, rotated | rest, "right"), rows + 1)]
    for bit in range(64 - width, 64) if flips else ():
        low = np.flatnonzero(rotated & np.uint64(1 << bit) == 0)  # each pair once
        wanted = rotated[low] | np.uint64(1 << bit)
        start = np.searchsorted(rotated, wanted & ~rest, "left")
        ranges.append((low, start, np.searchsorted(rotated, wanted | rest, "right"), np.searchsorted(rotated, wanted)))
    most = _most_each([end - start for _, start, end, _ in ranges], len(hashes))
    for numbers, start, end, middle in ranges:
        crowded.update(order[numbers[end - start > most]].tolist())
        start = np.maximum(start, np.minimum(middle - most // 2, end - most))
        end = np.minimum(end, start + most)
        for a, b in _expand(numbers, start, end):
            yield order[a], order[b]


def _most_each(counts: list[np.ndarray], images: int) -> int:
    """Return the most neighbours per image for which the number of comparisons stays within the budget."""
    budget = max(BUDGET, BUDGET_EACH * images)
    most = max(int(c.max(initial=1)) for c in counts)
    while most > 2 and sum(int(np.minimum(c, most).sum()) for c in counts) > budget:
        most //= 2
    return most


def _expand(rows: np.ndarray, start: np.ndarray, end: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the pairs (rows[i], start[i] ... end[i] - 1), about `_CHUNK` at a time."""
    counts = np.maximum(end - start, 0)
    total = np.cumsum(counts)
    cuts = np.searchsorted(total, np.arange(_CHUNK, (total[-1] if len(total) else 0) + _CHUNK, _CHUNK))
    begin = 0
    for cut in cuts:
        part = slice(begin, min(int(cut) + 1, len(rows)))
        begin = part.stop
        some = counts[part]
        offset = np.arange(some.sum()) - np.repeat(np.cumsum(some) - some, some)
        yield np.repeat(rows[part], some), np.repeat(start[part], some) + offset


def _alike(thumbs: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return whether the thumbnails of rows a[i] and b[i] look alike, bool (P,)."""
    agree = np.empty(len(a), bool)
    for start in range(0, len(a), 256):  # fits into the cache of a CPU
        part = slice(start, start + 256)
        one, other = (thumbs[rows[part]].reshape(-1, SIDE * SIDE * 3).astype(np.float32) for rows in (a, b))
        gain = (one.sum(1) + 1) / (other.sum(1) + 1)
        gain = np.sqrt(np.clip(gain, 1 / MOST_GAIN, MOST_GAIN))[
            :, None
        ]  # half to each, so that the result is symmetric
        one /= gain
        other *= gain
        one -= other
        agree[part] = np.abs(one, out=one).mean(1) <= MOST_DIFFERENCE
    return agree
