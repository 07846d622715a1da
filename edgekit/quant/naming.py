"""Which tensor of one graph is which tensor of another: by value, because names are not stable."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from torch import fx

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


# What tensors and layers are called everywhere: after the folded torch graph.

INPUT = "image"


def tensor_names(graph: fx.Graph) -> dict[fx.Node, str]:
    """A stable name for the output of each node: the module's path, or the function's name.

    A module that is called again gets ``:2``, ``:3``; the input is called ``image``.
    """
    names, calls = {}, Counter[str]()
    for node in graph.nodes:
        if node.op in ("call_module", "call_function", "call_method"):
            base = str(node.target) if node.op == "call_module" else node.name
            calls[base] += 1
            names[node] = base if calls[base] == 1 else f"{base}:{calls[base]}"
        elif node.op == "placeholder":
            names[node] = INPUT
    return names
