"""Names of tensors and layers: those of the folded torch graph, found again in exported graphs.

Exporters rename tensors, so that an exported tensor is recognised by its values on one input.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from torch import fx

from edgekit.quantization import LayerWeights

INPUT = "image"
TOLERANCE = 1e-3
_SKETCH = 512
_Sketch = tuple[int, np.ndarray]


def tensor_names(graph: fx.Graph) -> dict[fx.Node, str]:
    """Return a stable name for the output of each node: the module's path, or the function's name.

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


@dataclass(frozen=True)
class Affine:
    """Factors and summands at the end of a layer norm, (channels,), and the tensor that the layer after it reads."""

    tensor: str
    weight: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Naming:
    """The torch names of an exported graph's tensors and layers.

    Attributes:
        tensors: exported tensor -> tensor of the torch graph; of several with equal values, the first by name.
        layers: tensor that a Conv or Gemm writes -> layer of the torch graph.
        trained: layer -> the weights that it was exported with.
        equal: tensor of the torch graph -> the name that `tensors` has for its values, if that is another's.
        affine: layer -> the end of the layer norm that it reads, which converters may move into the layer.
    """

    tensors: dict[str, str]
    layers: dict[str, str]
    trained: dict[str, LayerWeights] = field(default_factory=dict)
    equal: dict[str, str] = field(default_factory=dict)
    affine: dict[str, Affine] = field(default_factory=dict)

    def matched(self, tensor: str) -> str:
        """Return the name under which `tensors` has a tensor of the torch graph."""
        return self.equal.get(tensor, tensor)


def name_exported(
    reference: dict[str, np.ndarray],
    written_by: dict[str, str],
    trained: dict[str, LayerWeights],
    exported: dict[str, np.ndarray],
    affine: dict[str, Affine] | None = None,
) -> Naming:
    """Name the tensors and layers of an exported graph.

    Args:
        reference: every tensor of the torch graph for one input. exported: of the exported graph, for the same.
        written_by: torch tensor -> the layer that writes it (`placement.written_by`).
        trained, affine: of the layers of the torch graph (`placement.trained_weights`, `placement.affine_before`).
    """
    known = _sketches(reference)
    tensors = _match(known, _sketches(exported))
    equal = {name: first for name, first in _match(known, known).items() if name != first}
    writers = {equal.get(name, name): layer for name, layer in reversed(written_by.items())} | written_by
    layers = {theirs: writers[ours] for theirs, ours in tensors.items() if ours in writers}
    return Naming(tensors, layers, trained, equal, affine or {})


def is_near(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two arrays of constants are the same, but for rounding in an exporter."""
    return bool(np.allclose(one, other, rtol=1e-3, atol=1e-4 * max(1e-3, float(np.abs(one).max(initial=0.0)))))


def _sketches(tensors: dict[str, np.ndarray]) -> dict[str, _Sketch]:
    """Return size and an even sample of the sorted values, which any layout of the same numbers shares."""
    found = {}
    for name, tensor in tensors.items():
        ordered = np.sort(tensor, axis=None)
        indices = np.linspace(0, ordered.size - 1, min(ordered.size, _SKETCH)).round().astype(int)
        found[name] = ordered.size, ordered[indices].astype(np.float64)
    return found


def _match(reference: dict[str, _Sketch], other: dict[str, _Sketch]) -> dict[str, str]:
    """Map names of `other` to names of `reference` whose tensors hold the same values; leave out the others.

    Tensors compare by size and by their sorted values, so that NCHW matches NHWC; the closest within `TOLERANCE`
    (relative to the largest magnitude) wins.
    """
    by_size: dict[int, list[tuple[str, np.ndarray]]] = {}
    for name, (size, values) in reference.items():
        by_size.setdefault(size, []).append((name, values))
    matches = {}
    for name, (size, values) in other.items():
        if size == 0:
            continue
        largest = np.abs(values).max() + 1e-30
        distances = [(np.abs(values - v).max() / largest, n) for n, v in by_size.get(size, [])]
        if distances and min(distances)[0] < TOLERANCE:
            matches[name] = min(distances)[1]
    return matches
