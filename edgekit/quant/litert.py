"""The LiteRT emitter: a float ``.tflite`` and a quantized model to INT8, and float16 weights.

The quantizer is LiteRT's own (ai-edge-quantizer); it is given our table as its calibration result,
so the file carries our scales and not the moving averages that it would take. It decides the form of
the file; the integers and scales of the weights are then replaced by those of the quantized model.
"""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import files
from edgekit.errors import EdgekitError
from edgekit.quant import affine, flatbuffer
from edgekit.quant.affine import QMAX, QMIN, Grid
from edgekit.quant.naming import Naming
from edgekit.quantization import LITERT_SCHEME, CalibrationTable, LayerWeights, QuantizedModel, Range

# Form of a quantized file -> the quantizer's own recipe for it.
FORMS = {"int8": "static_wi8_ai8", "16x8": "static_wi8_ai16", "w8": "weight_only_wi8_afp32"}


def quantize(float_path: Path, quantized: QuantizedModel, naming: Naming, path: Path, form: str = "int8") -> None:
    """Write a file with int8 weights, float32 input and output.

    Layers that the quantized model keeps in floating point read and write float32.

    Args:
        form: "int8": int8 activations. "16x8": int16 activations, which cover all that was seen. "w8": float32
            activations; the weights are widened when the model is loaded or while it runs.

    Raises:
        EdgekitError: an activation without a counterpart in the table, or an operator without one
            among the layers; the message names it.
    """
    from ai_edge_quantizer import qtyping, quantizer, recipe

    model, activations = _read(float_path)
    seen = None if form == "w8" else _seen(model, activations, quantized, naming, form)
    layers = _layers(model, quantized, naming)
    for op, layer in layers:
        _write_floats(model, op, layer)
    q = quantizer.Quantizer(flatbuffer.serialize(model))
    q.load_quantization_recipe(getattr(recipe, FORMS[form])())
    unquantized = {"algorithm_key": recipe.AlgorithmName.NO_QUANTIZE}
    for border in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        q.update_quantization_recipe(regex=".*", operation_name=border, **unquantized)
    for op, layer in layers:
        if layer.scales is None:
            for output in _with_padding(model, op):
                everything = qtyping.TFLOperationName.ALL_SUPPORTED
                q.update_quantization_recipe(regex=re.escape(output), operation_name=everything, **unquantized)
    result = flatbuffer.parse(q.quantize(seen, enable_progress_report=False).quantized_model)
    for op, (_, layer) in zip(_weighted(result), layers, strict=True):
        if layer.scales is not None:
            write_weights(result, op, layer)
            if form != "w8":
                write_bias(result, op, layer, float(flatbuffer.tensor(result, op, 0).quantization.scale[0]))
    if form == "int8":
        write_hard_swish(result)
    files.save_bytes(path, flatbuffer.serialize(result))


def _with_padding(model: Any, op: Any) -> list[str]:
    """What an operator writes, and what a PAD writes for it alone."""
    graph = model.subgraphs[0]
    writers = [
        each for each in graph.operators if op.inputs[0] in each.outputs and flatbuffer.kind(model, each) == "PAD"
    ]
    before = writers if _readers(graph, op.inputs[0]) == 1 else []
    return [graph.tensors[each.outputs[0]].name.decode() for each in (op, *before)]


def _seen(
    model: Any, activations: list[str], quantized: QuantizedModel, naming: Naming, form: str
) -> dict[str, dict[str, np.ndarray]]:
    """What the quantizer takes for the least and the largest value of each activation."""
    table = quantized.table
    if form == "16x8":
        ranges = _ranges(model, activations, replace(table, ranges={**table.ranges, **table.seen}), naming)
        spans = {n: (-(most := max(-span.low, span.high)), most) for n, span in ranges.items()}
    else:
        symmetric = quantized.scheme(LITERT_SCHEME).symmetric
        ranges = _ranges(model, activations, table, naming)
        grids = {n: affine.activation_grid(span, symmetric) for n, span in ranges.items()}
        spans = {n: (grid.low, grid.high) for n, grid in grids.items()}
    return {n: {"min": _array(low), "max": _array(high)} for n, (low, high) in spans.items()}


def spans(float_path: Path, table: CalibrationTable, naming: Naming) -> dict[str, Range]:
    """The range of every activation of the float file, by its name there.

    Raises:
        EdgekitError: an activation without a counterpart in the table.
    """
    return _ranges(*_read(float_path), table, naming)


def to_fp16(float_path: Path, path: Path) -> None:
    """Write a copy whose weights are float16; it computes in float32, or float16 on a GPU delegate."""
    from ai_edge_quantizer import qtyping, quantizer, recipe

    q = quantizer.Quantizer(str(float_path))
    q.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithm_key=recipe.AlgorithmName.FLOAT_CASTING,
    )
    result = q.quantize(enable_progress_report=False)
    files.save_bytes(path, result.quantized_model)


def _ranges(model: Any, activations: list[str], table: CalibrationTable, naming: Naming) -> dict[str, Range]:
    known = {n: table.ranges[naming.tensors[n]] for n in activations if naming.tensors.get(n) in table.ranges}
    found = _spread(model, known)
    if lost := [n for n in activations if n not in found]:
        raise EdgekitError(f"LiteRT tensors without a counterpart in the calibration table: {', '.join(lost[:5])}")
    return {n: found[n] for n in activations}


def _array(value: float) -> np.ndarray:
    return np.full((1, 1, 1, 1), value, np.float64)


def _read(path: Path) -> tuple[Any, list[str]]:
    """The model of a file, and the names of its float activations."""
    model = flatbuffer.read(path)
    graph = model.subgraphs[0]
    touched = {i for op in graph.operators for i in (*op.inputs, *op.outputs) if i >= 0}
    tensors = [(i, graph.tensors[i]) for i in sorted(touched)]
    is_float = flatbuffer.type_of("FLOAT32")
    return model, [t.name.decode() for _, t in tensors if t.type == is_float and model.buffers[t.buffer].data is None]


def _spread(model: Any, spans: dict[str, Range]) -> dict[str, Range]:
    """`spans` with the ranges of tensors that only LiteRT has.

    Rules:
    1. The output of a PAD has its input's range: torch pads inside its convolutions.
    2. What a MUL multiplies by a positive constant has the product's range over it: LiteRT's hard
       sigmoid is ``relu6(x + 3) * (1 / 6)``.
    """
    graph, known = model.subgraphs[0], dict(spans)
    for op in graph.operators:
        kind, (target, *_) = flatbuffer.kind(model, op), (graph.tensors[i].name.decode() for i in op.outputs)
        sources = [graph.tensors[i] for i in op.inputs if i >= 0]
        if kind in ("PAD", "PADV2") and (name := sources[0].name.decode()) in known:
            known.setdefault(target, known[name])
        elif kind == "MUL" and target in known:
            factors = [_scalar(model, tensor) for tensor in sources]
            for tensor, factor in zip(sources, reversed(factors)):
                if factor is not None and factor > 0:
                    span = known[target]
                    known.setdefault(tensor.name.decode(), Range(span.low / factor, span.high / factor))
    return known


def _scalar(model: Any, tensor: Any) -> float | None:
    """The value of a constant float32 tensor of one element, else None."""
    data = model.buffers[tensor.buffer].data
    return float(np.frombuffer(bytes(data), np.float32)[0]) if data is not None and len(data) == 4 else None


def _weighted(model: Any) -> list[Any]:
    """The operators that carry weights, in the order of the file."""
    kinds = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    return [op for op in model.subgraphs[0].operators if flatbuffer.kind(model, op) in kinds]


def _layers(model: Any, quantized: QuantizedModel, naming: Naming) -> list[tuple[Any, LayerWeights]]:
    """Every operator with weights, and what it is to carry.

    The converter moves what is added behind a layer into its bias (the 3 of a hard sigmoid): then the
    tensor has no counterpart in torch, and the layer is known by its weights. Whatever the bias in the
    file is, it changes by what the layer's bias changed.
    """
    found = []
    for op in _weighted(model):
        output = model.subgraphs[0].tensors[op.outputs[0]].name.decode()
        name = naming.layers.get(output) or _by_weight(model, op, naming)
        if name not in quantized.layers:
            raise EdgekitError(f"the LiteRT operator that writes {output!r} has no counterpart among the layers")
        layer, bias = quantized.layers[name], flatbuffer.constant(model, op, 2)
        before = naming.trained[name].bias if name in naming.trained else None
        if layer.bias is not None and before is not None and bias is not None:
            layer = replace(layer, bias=(bias + (layer.bias - before)).astype(np.float32))
        found.append((op, layer))
    return found


def _by_weight(model: Any, op: Any, naming: Naming) -> str | None:
    """The layer that was exported with this operator's weight."""
    weight = flatbuffer.constant(model, op, 1)
    for name, layer in naming.trained.items():
        if weight is not None and layer.weight.size == weight.size and layer.weight.ndim in (2, 4):
            same = (layer.weight.ndim == 2) == (flatbuffer.kind(model, op) == "FULLY_CONNECTED")
            if same and np.array_equal(_in_litert(model, op, layer.weight).ravel(), weight):
                return name
    return None


def _in_litert(model: Any, op: Any, weight: np.ndarray) -> np.ndarray:
    """A weight of torch's layout (outputs, inputs, height, width) in LiteRT's: OHWI, 1HWO or (outputs, inputs)."""
    kind = flatbuffer.kind(model, op)
    if kind == "CONV_2D":
        return weight.transpose(0, 2, 3, 1)
    return weight.transpose(1, 2, 3, 0) if kind == "DEPTHWISE_CONV_2D" else weight


def _write_floats(model: Any, op: Any, layer: LayerWeights) -> None:
    """Put the layer's weight and bias into the float model."""
    tensors = model.subgraphs[0].tensors
    arrays = [_in_litert(model, op, layer.weight), layer.bias]
    for index, array in zip(op.inputs[1:3], arrays):
        if index >= 0 and array is not None:
            buffer = model.buffers[tensors[index].buffer]
            if buffer.data is None or len(buffer.data) != array.nbytes:
                raise EdgekitError(f"{tensors[index].name.decode()!r} is not the constant that its layer has")
            buffer.data = flatbuffer.as_bytes(array)


def write_weights(model: Any, op: Any, layer: LayerWeights) -> None:
    """Put a layer's weights into a convolution or a fully connected operator: integers where it holds integers."""
    held = _own(model, op, 1)
    if held.type == flatbuffer.type_of("INT8"):
        assert layer.scales is not None
        held.quantization.scale = layer.scales.tolist()
        held.quantization.zeroPoint = [0] * len(layer.scales)
        array: np.ndarray = layer.integers
    else:
        array = layer.weight.astype(np.float16 if held.type == flatbuffer.type_of("FLOAT16") else np.float32)
    model.buffers[held.buffer].data = flatbuffer.as_bytes(_in_litert(model, op, array))


def write_bias(model: Any, op: Any, layer: LayerWeights, input_scale: float) -> None:
    """Put a layer's bias into an operator: in steps of the scales of its input and its weights, where it is integers.

    Raises:
        EdgekitError: a bias that does not fit.
    """
    if flatbuffer.tensor(model, op, 2) is None:
        return
    held, bias = _own(model, op, 2), 0.0 if layer.bias is None else layer.bias
    integers = {flatbuffer.type_of("INT32"): np.int32, flatbuffer.type_of("INT64"): np.int64}.get(held.type)
    if integers is None:
        dtype = np.float16 if held.type == flatbuffer.type_of("FLOAT16") else np.float32
        model.buffers[held.buffer].data = flatbuffer.as_bytes(np.asarray(bias, dtype))
        return
    assert layer.scales is not None
    scales = np.float64(np.float32(input_scale)) * layer.scales.astype(np.float64)
    steps = np.rint(bias / scales)
    if np.abs(steps).max() > np.iinfo(integers).max:
        raise EdgekitError(f"the bias {held.name.decode()!r} leaves int32", "use a recipe with another observer")
    held.quantization.scale = scales.astype(np.float32).tolist()
    model.buffers[held.buffer].data = flatbuffer.as_bytes(steps.astype(integers))


def _own(model: Any, op: Any, index: int) -> Any:
    """The constant that an operator reads, or that a DEQUANTIZE before it does, made its own: equal ones are shared."""
    graph = model.subgraphs[0]
    maker = next((each for each in graph.operators if op.inputs[index] in each.outputs), None)
    if _readers(graph, op.inputs[index]) > 1:
        op.inputs[index] = _copied(graph, op.inputs[index])
        if maker is not None:
            maker = copy.deepcopy(maker)
            maker.outputs = [op.inputs[index]]
            graph.operators.insert(graph.operators.index(op), maker)
    if maker is not None and _readers(graph, maker.inputs[0]) > 1:
        maker.inputs[0] = _copied(graph, maker.inputs[0])
    held = graph.tensors[op.inputs[index] if maker is None else maker.inputs[0]]
    if sum(tensor.buffer == held.buffer for tensor in graph.tensors) > 1:
        model.buffers.append(copy.deepcopy(model.buffers[held.buffer]))
        held.buffer = len(model.buffers) - 1
    return held


def _readers(graph: Any, number: int) -> int:
    return sum(list(op.inputs).count(number) for op in graph.operators)


def _copied(graph: Any, number: int) -> int:
    graph.tensors.append(copy.deepcopy(graph.tensors[number]))
    return len(graph.tensors) - 1


# Operators that XNNPACK does not take, written in those that it does: a file that it runs in part is slow.

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
