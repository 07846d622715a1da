"""The hard swish of INT8 files in operators that XNNPACK has: it has none for int8 HARD_SWISH.

``x * relu6(x + 3) / 6`` (Howard et al. 2019, arXiv:1905.02244, section 5.2): an ADD with the RELU6 fused, a MUL by a
sixth, a MUL with x. MobileNetV3 would fall into 20 parts, with copies between them, and be slower than in float32.
"""

from __future__ import annotations

from typing import Any

from edgekit.quant import flatbuffer
from edgekit.quant.affine import QMAX, QMIN, Grid

_RELU6 = 3  # ActivationFunctionType.RELU6


def write_out(model: Any) -> None:
    """Replace every int8 HARD_SWISH; what it reads and writes keeps its grid."""
    graph = model.subgraphs[0]
    for op in list(graph.operators):
        source = flatbuffer.tensor(model, op, 0)
        if flatbuffer.kind(model, op) != "HARD_SWISH" or source.type != flatbuffer.type_of("INT8"):
            continue
        place = graph.operators.index(op)
        name, shape = source.name.decode(), tuple(int(size) for size in source.shape)
        three, sixth = (_constant(model, f"{name}/{what}", value, len(shape)) for what, value in _CONSTANTS)
        above = flatbuffer.add_tensor(model, f"{name}/relu6", shape, "INT8", Grid(6 / 255, QMIN))
        gate = flatbuffer.add_tensor(model, f"{name}/gate", shape, "INT8", Grid(1 / 255, QMIN))
        x, written = op.inputs[0], op.outputs[0]
        graph.operators[place : place + 1] = [
            flatbuffer.add_operator(model, "ADD", [x, three], above, fusedActivationFunction=_RELU6),
            flatbuffer.add_operator(model, "MUL", [above, sixth], gate, fusedActivationFunction=0),
            flatbuffer.add_operator(model, "MUL", [x, gate], written, fusedActivationFunction=0),
        ]


_CONSTANTS = (("three", 3.0), ("sixth", 1 / 6))


def _constant(model: Any, name: str, value: float, dimensions: int) -> int:
    """An int8 tensor of one value."""
    import numpy as np

    shape = (1,) * dimensions
    grid = Grid(value / QMAX, 0)
    return flatbuffer.add_tensor(model, name, shape, "INT8", grid, np.full(shape, QMAX))
