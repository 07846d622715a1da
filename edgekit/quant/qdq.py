"""The TensorRT emitter: FP32 ONNX and a quantized model to INT8 ONNX with explicit Q/DQ.

The quantized model's placement says which tensors are rounded, on which grids, and who reads them (rules 1 to 7 of
`quant.placement`). This module writes it:

8. All readers of a tensor share one Q/DQ pair. Every scale is float32, every zero point is 0 and written
   out: TensorRT 8.5 reads scales as float32 and insists on three inputs. An INT8 weight is an int8 initializer
   with a DequantizeLinear, one scale per output channel (axis 0; axis 1 of a MatMul's); biases stay float.
9. Where a grid has another zero point, biases stand for it, so that the tensor is stored about the middle of its
   range. What writes the tensor adds ``scale * zero_point``, and every layer that reads it takes the same off its
   output. The constant goes into the bias of the layer that writes the tensor if nothing lies between, or only an
   activation that clips exactly as int8 saturates, which is then removed, or a residual addition that reads the layer
   as it is; else into an Add. TensorRT fuses a convolution, the addition of a shortcut and the quantization behind
   it, but by its documentation no sum that broadcasts (TensorRT 8's Developer Guide, "Types of Fusions").

A Linear over more than two dimensions is a MatMul with a constant, and an Add with the bias. What has no counterpart in
the placement is left as it is.

With ``--parity strict`` every tensor that LiteRT holds as integers has a pair. ONNX Runtime 1.31 computes such a file
wrongly with its optimizer on (12 dB from what it gives without): WeightBiasQuantization also rounds the weights of
layers that stay in floating point between two pairs, with one scale for all channels.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

import numpy as np
import onnx_ir as ir

from edgekit import progress
from edgekit.errors import EdgekitError
from edgekit.quant.naming import Naming, is_near
from edgekit.quantization import (
    STRICT_TENSORRT_SCHEME,
    TENSORRT_SCHEME,
    Grid,
    LayerWeights,
    Placement,
    QuantizedModel,
)

_WEIGHTED = ("Conv", "Gemm", "MatMul")
_MOST_NAMED = 5
_CLIPS = ("Relu", "Clip")
_Read = tuple[ir.Node, int]  # a node, and the index of one of its inputs


def quantize(model: ir.Model, quantized: QuantizedModel, naming: Naming, everywhere: bool = False) -> list[str]:
    """Insert Q/DQ pairs and the quantized model's weights and biases in place.

    Args:
        everywhere: round what LiteRT rounds (strict parity); the quantized model must be symmetric.

    Returns:
        The names of the Conv, Gemm and MatMul nodes that now run in INT8. A layer or a product of the placement that
        is not found in the graph stays in floating point; a note names it.
    Raises:
        EdgekitError: a layer without weights in the quantized model; the message names it.
    """
    graph = model.graph
    placement = quantized.placement(STRICT_TENSORRT_SCHEME if everywhere else TENSORRT_SCHEME)
    named = {node: name for node in graph if (name := _layer_name(node, naming)) is not None}
    layers = {node: _layer_of(node, name, quantized) for node, name in named.items()}
    for node, layer in layers.items():
        if node.op_type == "MatMul" and layer.bias is not None and _bias_of(node) is None:
            _add_bias(graph, node, layer.bias)
    reads = dict.fromkeys(_rounded_reads(graph, placement, naming))
    in_int8 = [node for node, name in named.items() if name in placement.int8_layers and (node, 0) in reads]
    products = [n for n in graph if n.op_type == "MatMul" and (n, 0) in reads and (n, 1) in reads]
    alone = {n for n in graph if n.op_type == "MatMul" and n not in layers and n not in products}
    reads = {read: None for read in reads if read[0] not in alone}
    _note_lost(placement, naming, [*in_int8, *products])
    pairs: dict[ir.Value, ir.Value] = {}
    biases: dict[ir.Node, np.ndarray] = {}
    for value in dict.fromkeys(node.inputs[index] for node, index in reads):
        assert value is not None
        grid = _grid_of(value, placement, naming)
        source = value
        if grid.zero_point:
            source, added = _shift(graph, value, grid, layers, reads)
            biases.update({node: biases.get(node, 0.0) + each for node, each in added.items()})
        pairs[value] = _insert_pair(graph, source, str(value.name), grid.scale)
    for node, layer in layers.items():
        _set_weights(graph, node, layer, node in in_int8, biases.get(node))
    for node, index in reads:
        value = node.inputs[index]
        assert value is not None
        node.replace_input_with(index, pairs[value])
    _remove_unread_clips(graph)
    graph.sort()
    return [str(node.name) for node in graph if node in in_int8 or node in products]


def _note_lost(placement: Placement, naming: Naming, found: list[ir.Node]) -> None:
    """Note the layers and products of the placement that are not in the graph."""
    names = {_torch_name(node, naming) for node in found}
    wanted = sorted(placement.int8_layers | placement.int8_products)
    if lost := [name for name in wanted if naming.matched(name) not in names]:
        more = f" and {len(lost) - _MOST_NAMED} more" if len(lost) > _MOST_NAMED else ""
        progress.note(f"not found in the ONNX graph, so in floating point: {', '.join(lost[:_MOST_NAMED])}{more}")


def _rounded_reads(graph: ir.Graph, placement: Placement, naming: Naming) -> Iterator[_Read]:
    """Yield the inputs of nodes that get a Q/DQ pair: `Placement.reads`, found again in the ONNX graph."""
    wanted = {(naming.matched(tensor), naming.matched(reader)) for tensor, reader in placement.reads}
    for node in graph:
        reader = _torch_name(node, naming)
        for index, value in enumerate(node.inputs):
            if value is not None and (naming.tensors.get(str(value.name)), reader) in wanted:
                yield node, index


def _torch_name(node: ir.Node | None, naming: Naming) -> str | None:
    """Return the torch operation that a node belongs to; a node whose output torch does not have, to the next one's."""
    while node is not None:
        name = naming.tensors.get(str(node.outputs[0].name))
        uses = node.outputs[0].uses()
        if name is not None or len(uses) != 1:
            return name
        node = uses[0].node
    return None


def _grid_of(value: ir.Value, placement: Placement, naming: Naming) -> Grid:
    """Return the grid of a rounded tensor; of several torch tensors with its values, of the one that is rounded."""
    name = naming.tensors[str(value.name)]
    sources = {tensor for tensor, _ in placement.reads if naming.matched(tensor) == name}
    return placement.grids[name if name in sources else min(sources)]


def _remove_unread_clips(graph: ir.Graph) -> None:
    """Remove activations that nothing reads any more."""
    for node in list(graph):
        if node.op_type in _CLIPS and not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
            graph.remove(node, safe=True)


def _layer_name(node: ir.Node, naming: Naming) -> str | None:
    """Return the layer of the network that a node computes; None for other nodes."""
    if node.op_type not in _WEIGHTED or not _has_constant(node, 1):
        return None
    weight = node.inputs[1]
    end = found[0] if node.op_type == "MatMul" and (found := _bias_of(node)) is not None else node
    name = naming.layers.get(str(end.outputs[0].name))
    if name not in naming.trained or weight is None or weight.const_value is None:
        return name
    held, trained = weight.const_value.numpy(), naming.trained[name].weight
    trained = trained.T if node.op_type == "MatMul" else trained
    return name if held.shape == trained.shape and is_near(trained, held) else None  # None: something is folded into it


def _bias_of(node: ir.Node) -> _Read | None:
    """Return the node and the input that hold a layer's bias: of a MatMul, the Add of a constant that follows it."""
    if node.op_type != "MatMul":
        return node, 2
    uses = node.outputs[0].uses()
    if len(uses) != 1 or node.outputs[0].is_graph_output():
        return None
    (reader,) = uses
    added = 1 - reader.idx
    value = reader.node.inputs[added] if reader.node.op_type == "Add" else None
    shape = value.const_value.shape if value is not None and value.const_value is not None else ()
    return (reader.node, added) if len(shape) == 1 else None


def _add_bias(graph: ir.Graph, node: ir.Node, bias: np.ndarray) -> None:
    """Add a bias to a MatMul; the sum takes over the name of its output."""
    product = node.outputs[0]
    added = ir.node("Add", [product, constant(graph, f"{node.name}_bias", bias)], name=f"{node.name}/Add")
    ir.convenience.replace_all_uses_with(product, added.outputs[0], replace_graph_outputs=True)
    added.replace_input_with(0, product)
    added.outputs[0].name, product.name = product.name, f"{product.name}_product"
    added.outputs[0].shape, added.outputs[0].dtype = product.shape, product.dtype
    graph.insert_after(node, added)


def _layer_of(node: ir.Node, name: str, quantized: QuantizedModel) -> LayerWeights:
    if name not in quantized.layers:
        raise EdgekitError(f"the ONNX node {node.name!r} has no counterpart among the layers of the network")
    return quantized.layers[name]


def _has_constant(node: ir.Node, index: int) -> bool:
    value = node.inputs[index] if len(node.inputs) > index else None
    return value is not None and value.const_value is not None


def _insert_pair(graph: ir.Graph, value: ir.Value, name: str, scale: float) -> ir.Value:
    """Add QuantizeLinear and DequantizeLinear after `value`; return the dequantized value."""
    factor = constant(graph, f"{name}_scale", np.array(scale, np.float32))
    zero = constant(graph, f"{name}_zero_point", np.array(0, np.int8))
    quantized = ir.node("QuantizeLinear", [value, factor, zero], name=f"{name}_quantize")
    quantized.outputs[0].name = f"{name}_int8"
    restored = ir.node("DequantizeLinear", [quantized.outputs[0], factor, zero], name=f"{name}_dequantize")
    restored.outputs[0].name = f"{name}_dequantized"
    graph.extend([quantized, restored])
    return restored.outputs[0]


def _set_weights(graph: ir.Graph, node: ir.Node, layer: LayerWeights, in_int8: bool, added: np.ndarray | None) -> None:
    """Set the weight (input 1) of a Conv, a MatMul or a Gemm with transB=1, and the bias plus `added`."""
    value = node.inputs[1]
    assert value is not None
    if node.op_type == "Gemm" and not (node.attributes.get("transB") and node.attributes["transB"].as_int()):
        raise EdgekitError(f"{node.name}: a Gemm whose weight is not (outputs, inputs)")
    bias = layer.bias if added is None or layer.bias is None else (layer.bias + added).astype(np.float32)
    held, turned = _bias_of(node), node.op_type == "MatMul"
    if bias is not None and held is not None and _has_constant(*held):
        _replace(graph, *held, bias)
    elif bias is not None and bias.any():  # a bias of zeros is left out where the network is exported
        node.resize_inputs(3)
        node.replace_input_with(2, constant(graph, f"{node.name}_bias", bias))
    if not in_int8:
        _replace(graph, node, 1, layer.weight.T if turned else layer.weight)
        return
    assert layer.scales is not None
    whole = np.ascontiguousarray(layer.integers.T) if turned else layer.integers
    integers = constant(graph, f"{value.name}_int8", whole)
    factor = constant(graph, f"{value.name}_scale", layer.scales)
    zero = constant(graph, f"{value.name}_zero_point", np.zeros(len(layer.scales), np.int8))
    restored = ir.node(
        "DequantizeLinear", [integers, factor, zero], {"axis": int(turned)}, name=f"{value.name}_dequantize"
    )
    restored.outputs[0].name = f"{value.name}_dequantized"
    graph.insert_before(node, restored)
    node.replace_input_with(1, restored.outputs[0])
    if not value.uses():
        del graph.initializers[str(value.name)]


def _replace(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray) -> None:
    """Give a node another constant, under the old one's name unless something else reads that."""
    old = node.inputs[index]
    assert old is not None
    name = str(old.name)
    if len(old.uses()) > 1:
        name = f"{node.name}_{name}"
    else:
        node.replace_input_with(index, None)
        del graph.initializers[name]
    node.replace_input_with(index, constant(graph, name, np.ascontiguousarray(array)))


def constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Add an initializer to the graph and return it."""
    value = ir.Value(name=name, shape=ir.Shape(array.shape), const_value=ir.tensor(array, name=name))
    value.dtype = ir.DataType.from_numpy(array.dtype)
    graph.register_initializer(value)
    return value


def _shift(
    graph: ir.Graph, value: ir.Value, grid: Grid, layers: dict[ir.Node, LayerWeights], reads: Container[_Read]
) -> tuple[ir.Value, dict[ir.Node, np.ndarray]]:
    """Add a tensor's zero point to it (rule 9).

    Args:
        grid: of `value`. layers: the weights of every layer. reads: the inputs of nodes that are rounded.
    Returns:
        The shifted tensor, and what must be added to the bias of each Conv and Gemm, float64 (outputs,).
    """
    offset = grid.scale * grid.zero_point
    biases = {use.node: -offset * _sum_of_weights(layers[use.node]) for use in value.uses()}
    source = _without_saturation(value, grid)
    writer = _layer_that_writes(source, layers, reads)
    if source is not None and writer is not None:
        biases[writer] = np.full(len(layers[writer].weight), offset)
        return source, biases
    shift = constant(graph, f"{value.name}_shift", np.array(offset, np.float32))
    added = ir.node("Add", [value, shift], name=f"{value.name}_shifted")
    added.outputs[0].name = f"{value.name}_shifted"
    graph.append(added)
    return added.outputs[0], biases


def _sum_of_weights(layer: LayerWeights) -> np.ndarray:
    """Return what a layer makes of an input of ones, by its integers; float64 (outputs,)."""
    assert layer.scales is not None
    return layer.integers.astype(np.int64).reshape(len(layer.scales), -1).sum(1) * layer.scales.astype(np.float64)


def _without_saturation(value: ir.Value, grid: Grid) -> ir.Value | None:
    """Return what is clipped where a clip that the grid makes writes a tensor; None if something else reads that."""
    node = value.producer()
    if node is None or node.op_type not in _CLIPS or not _is_saturation(node, grid):
        return value
    source = node.inputs[0]
    return source if source is not None and len(source.uses()) == 1 else None


def _layer_that_writes(
    source: ir.Value | None, layers: dict[ir.Node, LayerWeights], reads: Container[_Read]
) -> ir.Node | None:
    """Return the layer whose bias can take the constant: it writes `source`, or the sum that `source` is."""
    node = source.producer() if source is not None else None
    if node is not None and node.op_type == "Add":
        total = node
        held = (value.producer() for index, value in enumerate(total.inputs) if _is_held(value, total, index, reads))
        node = next((layer for layer in held if layer in layers), None)
    return node if node in layers and layers[node].bias is not None else None


def _is_held(value: ir.Value | None, total: ir.Node, index: int, reads: Container[_Read]) -> bool:
    """Return whether what writes an input of an addition can add to the sum, and to nothing else."""
    layer = value.producer() if value is not None else None
    if value is None or layer is None or (total, index) in reads or len(value.uses()) != 1 or value.is_graph_output():
        return False
    return layer.op_type != "MatMul" or (_bias_of(layer) or (None,))[0] is total


def _is_saturation(node: ir.Node, grid: Grid) -> bool:
    """Return whether integers from -128 to 127 are clipped as this node clips."""
    ends: list[float | None] = [0.0, None]
    if node.op_type == "Clip":
        given = [value.const_value if value is not None else None for value in node.inputs[1:3]]
        ends = [None if end is None else float(end.numpy()) for end in given]
    low, high = [*ends, None, None][:2]
    return low == 0.0 and grid.low == 0.0 and (high is None or grid.high <= high * (1 + 1e-6))
