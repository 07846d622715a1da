"""Zero points that TensorRT does not have, moved into biases.

TensorRT's activations are symmetric: a tensor without negative values (behind a ReLU) has half of its
integers for nothing. But ``y = scale * (q - zero_point)`` is ``y + scale * zero_point = scale * q``: the
layer that writes `y` adds a constant to its bias, the layers that read it take away what the constant
became, and in between lie all 256 steps with a zero point of 0 (the zero-point term of Jacob et al. 2018,
arXiv:1712.05877, section 2.3, worked out beforehand). Nothing is computed that was not before.

Rules:
1. Only a tensor all of whose readers are INT8 layers without padding: a zero beside the image would no
   longer be a zero. These are what the 1x1 convolutions and fully connected layers read.
2. A ReLU or ReLU6 behind the Conv that writes it vanishes: saturating at -128 is what it did.
3. Behind any other operator an Add is inserted; builders fuse it with the pointwise operator before it.
   Behind a Pad, a pool of maxima or a concatenation none is.
4. Only where the steps become finer by a tenth (`affine.tensor_grid`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgekit.quant import affine
from edgekit.quantization import LayerWeights

_POINTWISE = ("Conv", "Gemm", "Relu", "Clip", "HardSwish", "Gelu", "Add", "Mul")
_WRITERS = (*_POINTWISE, "GlobalAveragePool", "ReduceMean", "Reshape", "Flatten")
_CLIPS = ("Relu", "Clip")


def candidates(plan: list[tuple[ir.Node, int]], with_bias: list[ir.Node]) -> list[ir.Value]:
    """The tensors of a plan of Q/DQ pairs that rules 1 and 3 allow; `with_bias` are the INT8 layers that have one."""
    values = {node.inputs[index]: None for node, index in plan}
    return [
        v for v in values if v is not None and _is_written(v) and all(_takes_it(use, with_bias) for use in v.uses())
    ]


def _is_written(value: ir.Value) -> bool:
    writer = value.producer()
    return writer is not None and writer.op_type in _WRITERS and not value.is_graph_output()


def _takes_it(use: ir.Usage, with_bias: list[ir.Node]) -> bool:
    pads = use.node.attributes.get("pads")
    return use.idx == 0 and use.node in with_bias and not (pads is not None and any(pads.as_ints()))


def move(
    graph: ir.Graph,
    value: ir.Value,
    grid: affine.Grid,
    layers: dict[ir.Node, LayerWeights],
    constant: Callable[[str, np.ndarray], ir.Value],
) -> tuple[ir.Value, dict[ir.Node, np.ndarray]]:
    """Where the shifted tensor is, and what must be added to the bias of each Conv and Gemm, float64 (outputs,).

    Args:
        grid: of `value`. layers: what every Conv and Gemm carries. constant: makes an initializer of the graph.
    """
    offset = grid.scale * grid.zero_point
    biases = {use.node: -offset * _sum_of_weights(layers[use.node]) for use in value.uses()}
    writer = _layer_that_writes(value, grid, layers)
    if writer is not None:
        biases[writer] = np.full(len(layers[writer].weight), offset)
        return writer.outputs[0], biases
    shift = constant(f"{value.name}_shift", np.array(offset, np.float32))
    added = ir.node("Add", [value, shift], name=f"{value.name}_shifted")
    added.outputs[0].name = f"{value.name}_shifted"
    graph.append(added)
    return added.outputs[0], biases


def _sum_of_weights(layer: LayerWeights) -> np.ndarray:
    """What a layer makes of an input of ones, as its integers have it."""
    assert layer.scales is not None
    return layer.integers.astype(np.int64).reshape(len(layer.scales), -1).sum(1) * layer.scales.astype(np.float64)


def _layer_that_writes(value: ir.Value, grid: affine.Grid, layers: dict[ir.Node, LayerWeights]) -> ir.Node | None:
    """The Conv or Gemm whose bias can take the constant: nothing but a clip that the grid makes lies between."""
    node = value.producer()
    if node is not None and node.op_type in _CLIPS and _is_saturation(node, grid):
        source = node.inputs[0]
        node = source.producer() if source is not None and len(source.uses()) == 1 else None
    return node if node in layers and layers[node].bias is not None else None


def _is_saturation(node: ir.Node, grid: affine.Grid) -> bool:
    """Rule 2: whether integers from -128 to 127 are clipped as this node clips."""
    ends: list[float | None] = [0.0, None]
    if node.op_type == "Clip":
        given = [value.const_value if value is not None else None for value in node.inputs[1:3]]
        ends = [None if end is None else float(end.numpy()) for end in given]
    low, high = [*ends, None, None][:2]
    return low == 0.0 and grid.low == 0.0 and (high is None or grid.high <= high * (1 + 1e-6))
