"""Operators that XNNPACK does not take, written in those that it does: a file that it runs in part is slow."""

from __future__ import annotations

from typing import Any

from edgekit.quant import flatbuffer
from edgekit.quant.affine import QMAX, QMIN, Grid

# ActivationFunctionType.
_RELU, _RELU6 = 1, 3


def pad_with_zeros(model: Any) -> None:
    """Replace the PADV2 before a MAX_POOL_2D, of the least value, by a PAD, of zeros, where no value is below zero.

    What a ReLU wrote has none, and each window of the pool holds some of it: the pool gives the same (ResNet).
    """
    graph = model.subgraphs[0]
    for op in graph.operators:
        if flatbuffer.kind(model, op) != "PADV2":
            continue
        readers = [each for each in graph.operators if op.outputs[0] in each.inputs]
        writer = next((each for each in graph.operators if op.inputs[0] in each.outputs), None)
        pools = all(flatbuffer.kind(model, each) == "MAX_POOL_2D" for each in readers)
        if pools and getattr(getattr(writer, "builtinOptions", None), "fusedActivationFunction", 0) in (_RELU, _RELU6):
            made = flatbuffer.add_operator(model, "PAD", list(op.inputs[:2]), op.outputs[0])
            graph.operators[graph.operators.index(op)] = made


def write_hard_swish(model: Any) -> None:
    """Replace every int8 HARD_SWISH by an ADD with RELU6, a MUL by a sixth, and a MUL with what it reads.

    ``x * relu6(x + 3) / 6`` (Howard et al. 2019, arXiv:1905.02244, section 5.2). MobileNetV3 would fall into 20 parts
    and be slower than in float32. What the operator reads and writes keeps its grid.
    """
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
