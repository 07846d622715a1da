"""Which tensor of one graph is which tensor of another: by value, because names are not stable."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgekit.quantization import LayerWeights

TOLERANCE = 1e-3
_SKETCH = 512


@dataclass(frozen=True)
class Naming:
    """What the tensors of an exported graph are in the torch graph (see `naming`).

    Attributes:
        tensors: graph tensor -> name in the calibration table.
        layers: tensor that a Conv or Gemm writes -> layer of the quantized model.
        trained: layer -> the weights that it was exported with.
    """

    tensors: dict[str, str]
    layers: dict[str, str]
    trained: dict[str, LayerWeights] = field(default_factory=dict)


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


def naming(
    reference: dict[str, np.ndarray],
    written_by: dict[str, str],
    trained: dict[str, LayerWeights],
    other: dict[str, np.ndarray],
) -> Naming:
    """Name the tensors and layers of an exported graph.

    Args:
        reference: every tensor of the torch graph on one input. other: of the exported graph, on the same.
        written_by: torch tensor -> the layer that writes it (`placement.written_by`).
        trained: the layers of the torch graph (`placement.trained`).
    """
    tensors = match_by_value(reference, other)
    layers = {theirs: written_by[ours] for theirs, ours in tensors.items() if ours in written_by}
    return Naming(tensors, layers, trained)
