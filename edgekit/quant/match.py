"""Which tensor of one graph is which tensor of another: by value, because names are not stable."""

from __future__ import annotations

import numpy as np

TOLERANCE = 1e-3
_SKETCH = 512


def _sketch(tensor: np.ndarray) -> tuple[int, np.ndarray]:
    """Size and an even sample of the sorted values: the same for any layout of the same numbers."""
    ordered = np.sort(tensor, axis=None)
    places = np.linspace(0, ordered.size - 1, min(ordered.size, _SKETCH)).round().astype(int)
    return ordered.size, ordered[places].astype(np.float64)


def match_by_value(reference: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, str]:
    """Map names of `other` to names of `reference` whose tensors hold the same values.

    Both come from one and the same input. Tensors compare by size and by their sorted values, so
    NCHW matches NHWC; the closest within `TOLERANCE` (relative to the largest magnitude) wins.
    Tensors without a counterpart are left out.
    """
    known: dict[int, list[tuple[str, np.ndarray]]] = {}
    for name, tensor in reference.items():
        size, values = _sketch(tensor)
        known.setdefault(size, []).append((name, values))
    matches = {}
    for name, tensor in other.items():
        if tensor.size == 0:
            continue
        size, values = _sketch(tensor)
        largest = np.abs(values).max() + 1e-30
        distances = [(np.abs(values - v).max() / largest, n) for n, v in known.get(size, [])]
        if distances and min(distances)[0] < TOLERANCE:
            matches[name] = min(distances)[1]
    return matches
