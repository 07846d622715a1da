"""The LiteRT emitter: a float ``.tflite`` and a quantized model to INT8, and float16 weights.

LiteRT's own quantizer (ai-edge-quantizer) gives the file its form. It gets the grids of the quantized model's
placement as its calibration result; the integers and scales of the weights are then replaced by those of the
quantized model. Operators that compute in floating point in the placement do so in the file, and so does everything
that has no counterpart in the network: the parts of a layer norm, for example. Operators that XNNPACK does not run are
rewritten: a file that it runs in part is slow.
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
from edgekit.quant.naming import Affine, Naming, is_near
from edgekit.quantization import (
    LITERT_SCHEME,
    QMAX,
    QMIN,
    CalibrationTable,
    Grid,
    LayerWeights,
    QuantizedModel,
    Range,
)

# Form of a quantized file -> the quantizer's recipe for it.
FORMS = {"int8": "static_wi8_ai8", "16x8": "static_wi8_ai16", "w8": "weight_only_wi8_afp32"}

_RELU, _RELU6 = 1, 3  # ActivationFunctionType
_HARD_SWISH_CONSTANTS = (("three", 3.0), ("sixth", 1 / 6))


def quantize(float_path: Path, quantized: QuantizedModel, naming: Naming, path: Path, form: str = "int8") -> list[str]:
    """Write a file with int8 weights and float32 input and output.

    Layers that the quantized model keeps in floating point read and write float32.

    Args:
        form: "int8": int8 activations. "16x8": int16 activations that cover the full observed range. "w8": float32
            activations; the weights are converted when the model is loaded or while it runs.

    Returns:
        The layers and products of the placement that compute in floating point, because they are not found in the file.
    Raises:
        EdgekitError: a layer without weights in the quantized model, or nothing in the file can hold integers.
    """
    from ai_edge_quantizer import qtyping, quantizer, recipe

    model = flatbuffer.read(float_path)
    naming = _separate_norms(model, naming)
    activations = _activations(model)
    spans = {} if form == "w8" else _spans(model, activations, quantized, naming, form)
    layers = _layers(model, quantized, naming)
    for op, _, layer in layers:
        if layer is not None:
            _write_floats(model, op, layer)
    floats = _float_operators(model, quantized, naming, layers, None if form == "w8" else spans)
    if form == "w8":
        result = None
    else:
        result = {name: {"min": _array(low), "max": _array(high)} for name, (low, high) in spans.items()}
    q = quantizer.Quantizer(flatbuffer.serialize(model))
    q.load_quantization_recipe(getattr(recipe, FORMS[form])())
    unquantized = {"algorithm_key": recipe.AlgorithmName.NO_QUANTIZE}
    for border in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        q.update_quantization_recipe(regex=".*", operation_name=border, **unquantized)
    lost = [] if form == "w8" else _lost(model, quantized, naming, layers, floats)
    if floats:
        # The quantizer searches in "<output>;", and one output's name may be part of another's.
        only = "^(?:" + "|".join(re.escape(_scope(model, op)) for op in floats) + ")$"
        q.update_quantization_recipe(regex=only, operation_name=qtyping.TFLOperationName.ALL_SUPPORTED, **unquantized)
    result = flatbuffer.parse(q.quantize(result, enable_progress_report=False).quantized_model)
    for op, (_, _, layer) in zip(_weighted(result), layers, strict=True):
        if layer is not None and layer.scales is not None:
            write_weights(result, op, layer)
            if form != "w8":
                read = flatbuffer.tensor(result, op, 0).quantization  # None: the operator computes in floating point
                write_bias(result, op, layer, 1.0 if read is None or read.scale is None else float(read.scale[0]))
    if form == "int8":
        write_hard_swish(result)
    files.save_bytes(path, flatbuffer.serialize(result))
    return lost


def _scope(model: Any, op: Any) -> str:
    """Return the text by which the quantizer knows an operator: its outputs, each with a semicolon."""
    return "".join(f"{model.subgraphs[0].tensors[number].name.decode()};" for number in op.outputs)


def _float_operators(
    model: Any, quantized: QuantizedModel, naming: Naming, layers: list[_Found], spans: dict[str, Any] | None
) -> list[Any]:
    """Return the operators that compute in floating point, in the order of the file.

    Args:
        spans: the ranges of activations; None for a file with float activations.
    Raises:
        EdgekitError: all of them do.
    """
    graph = model.subgraphs[0]
    kept = {id(op): layer is None or layer.scales is None for op, _, layer in layers}
    floating = {naming.matched(name) for name in quantized.placement(LITERT_SCHEME).float_operators}
    readers = _readers_of(graph)

    def is_float(op: Any) -> bool:
        if id(op) in kept:
            return kept[id(op)] or (spans is not None and lacks_range(op))
        if spans is None:
            return True
        after = readers.get(op.outputs[0], [])
        pads = flatbuffer.kind(model, op) == "PAD" and len(after) == 1 and kept.get(id(after[0]), False)
        return pads or lacks_range(op) or bool(floating and floating & _belongs_to(graph, op, naming, readers))

    def lacks_range(op: Any) -> bool:
        tensors = (graph.tensors[number] for number in (*op.inputs, *op.outputs) if number >= 0)
        reals = (t for t in tensors if t.type == flatbuffer.type_of("FLOAT32") and model.buffers[t.buffer].data is None)
        return any(t.name.decode() not in (spans or {}) for t in reals)

    floats = [op for op in graph.operators if is_float(op)]
    if len(floats) == len(graph.operators):
        raise EdgekitError("no operator of this network can compute on int8", "--precision fp16")
    return floats


def _readers_of(graph: Any) -> dict[int, list[Any]]:
    """Return the operators that read each tensor."""
    readers: dict[int, list[Any]] = {}
    for op in graph.operators:
        for number in op.inputs:
            readers.setdefault(int(number), []).append(op)
    return readers


def _belongs_to(graph: Any, op: Any, naming: Naming, readers: dict[int, list[Any]]) -> set[str]:
    """Return the torch tensors that an operator helps to compute: its own output, else the nearest ones after it."""
    found, waiting, seen = set[str](), [op], set[int]()
    while waiting:
        for number in map(int, waiting.pop().outputs):
            if (name := naming.tensors.get(graph.tensors[number].name.decode())) is not None:
                found.add(name)
            elif number not in seen:
                seen.add(number)
                waiting.extend(readers.get(number, []))
    return found


def _lost(model: Any, quantized: QuantizedModel, naming: Naming, layers: list[_Found], floats: list[Any]) -> list[str]:
    """Return the layers and products of the placement that do not compute on integers in the file."""
    graph, staying, placement = model.subgraphs[0], {id(op) for op in floats}, quantized.placement(LITERT_SCHEME)
    found = {naming.matched(str(name)) for op, name, _ in layers if id(op) not in staying}
    readers = _readers_of(graph)
    for op in graph.operators:
        if id(op) not in staying and flatbuffer.kind(model, op) == "BATCH_MATMUL":
            found |= _belongs_to(graph, op, naming, readers)
    wanted = sorted(placement.int8_layers | placement.int8_products)
    return [name for name in wanted if naming.matched(name) not in found]


def _spans(
    model: Any, activations: list[str], quantized: QuantizedModel, naming: Naming, form: str
) -> dict[str, tuple[float, float]]:
    """Return the smallest and the largest value of the grid of each activation that has a range."""
    table = quantized.table
    if form == "16x8":
        ranges = _ranges(model, activations, replace(table, ranges={**table.ranges, **table.seen}), naming)
        return {n: (-(most := max(-span.low, span.high)), most) for n, span in ranges.items()}
    grids = quantized.placement(LITERT_SCHEME).grids
    symmetric = quantized.scheme(LITERT_SCHEME).symmetric
    table, spans = replace(table, ranges=table.spans(symmetric)), {}
    for name, span in _ranges(model, activations, table, naming).items():
        ours = naming.tensors.get(name)
        grid = grids[ours] if ours in grids else affine.activation_grid(span, symmetric)  # LiteRT's own tensors
        spans[name] = grid.low, grid.high
    return spans


def spans(float_path: Path, table: CalibrationTable, naming: Naming) -> dict[str, Range]:
    """Return the range of every activation of the float file that has one, by its name there."""
    model = flatbuffer.read(float_path)
    return _ranges(model, _activations(model), table, naming)


def to_fp16(float_path: Path, path: Path) -> None:
    """Write a copy with float16 weights; it computes in float32, or in float16 on a GPU delegate."""
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
    return {n: found[n] for n in activations if n in found}


def _array(value: float) -> np.ndarray:
    return np.full((1, 1, 1, 1), value, np.float64)


def _activations(model: Any) -> list[str]:
    """Return the names of the float activations of a model."""
    graph = model.subgraphs[0]
    touched = {i for op in graph.operators for i in (*op.inputs, *op.outputs) if i >= 0}
    tensors = [(i, graph.tensors[i]) for i in sorted(touched)]
    is_float = flatbuffer.type_of("FLOAT32")
    return [t.name.decode() for _, t in tensors if t.type == is_float and model.buffers[t.buffer].data is None]


def _separate_norms(model: Any, naming: Naming) -> Naming:
    """Take the end of a layer norm out of the layer that the converter moved it into; return the new naming.

    The converter folds a factor and a summand per channel into the weights and the bias of the layer that alone reads
    them. What the layer reads then has no counterpart in the network, and its weights are not those that were solved.
    """
    graph, named, made = model.subgraphs[0], dict(naming.tensors), dict[int, int]()
    for op in _weighted(model):
        tensors = graph.tensors
        name = naming.layers.get(tensors[op.outputs[0]].name.decode(), "")
        held, source = flatbuffer.constant(model, op, 1), int(op.inputs[0])
        end = naming.affine.get(name)
        if end is None or held is None or tensors[source].name.decode() in named:
            continue
        trained = naming.trained[name]
        if not _holds(model, op, trained, end):
            continue
        if source not in made:
            made[source] = _affine(model, op, source, f"{end.tensor}/{name}", end)
            named[tensors[made[source]].name.decode()] = naming.matched(end.tensor)
        op.inputs[0] = made[source]
        weight = flatbuffer.tensor(model, op, 1)
        model.buffers[weight.buffer].data = flatbuffer.as_bytes(_in_litert(model, op, trained.weight))
        if (bias := flatbuffer.tensor(model, op, 2)) is not None:
            plain = np.zeros(len(trained.weight), np.float32) if trained.bias is None else trained.bias
            model.buffers[bias.buffer].data = flatbuffer.as_bytes(plain)
    return replace(naming, tensors=named) if made else naming


def _holds(model: Any, op: Any, layer: LayerWeights, end: Affine) -> bool:
    """Return whether an operator has a layer's weights times the factors, and its bias plus what the summands give."""
    weight, bias = flatbuffer.constant(model, op, 1), flatbuffer.constant(model, op, 2)
    if weight is None or weight.size != layer.weight.size or len(end.weight) != layer.weight.shape[1]:
        return False
    factors = end.weight.reshape(1, -1, *[1] * (layer.weight.ndim - 2))
    added = layer.weight.reshape(*layer.weight.shape[:2], -1).sum(2) @ end.bias
    sums = added if layer.bias is None else layer.bias + added
    held = np.zeros_like(sums) if bias is None else bias
    return is_near(_in_litert(model, op, layer.weight * factors).ravel(), weight) and is_near(sums, held)


def _affine(model: Any, op: Any, source: int, name: str, end: Affine) -> int:
    """Insert a MUL and an ADD before an operator; return the index of the sum."""
    graph, sums = model.subgraphs[0], source
    shape = tuple(int(size) for size in graph.tensors[source].shape)
    for kind, values in (("MUL", end.weight), ("ADD", end.bias)):
        if not (values - (kind == "MUL")).any():
            continue
        constant = flatbuffer.add_tensor(model, f"{name}/{kind}/constant", values.shape, "FLOAT32", data=values)
        written = flatbuffer.add_tensor(model, f"{name}/{kind}", shape, "FLOAT32")
        made = flatbuffer.add_operator(model, kind, [sums, constant], written, fusedActivationFunction=0)
        graph.operators.insert(graph.operators.index(op), made)
        sums = written
    return sums


def _spread(model: Any, spans: dict[str, Range]) -> dict[str, Range]:
    """Return `spans` with the ranges of tensors that only LiteRT has.

    Rules:
    1. The output of a PAD has its input's range: torch pads inside its convolutions.
    2. A tensor that a MUL multiplies by a positive constant has the product's range divided by the constant:
       LiteRT's hard sigmoid is ``relu6(x + 3) * (1 / 6)``.
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
    """Return the value of a constant float32 tensor with one element, else None."""
    data = model.buffers[tensor.buffer].data
    return float(np.frombuffer(bytes(data), np.float32)[0]) if data is not None and len(data) == 4 else None


def _weighted(model: Any) -> list[Any]:
    """Return the operators with weights, in the order of the file."""
    kinds = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    return [op for op in model.subgraphs[0].operators if flatbuffer.kind(model, op) in kinds]


# An operator with weights, the layer that it computes, and the weights for it; both None for other constants.
_Found = tuple[Any, str | None, LayerWeights | None]


def _layers(model: Any, quantized: QuantizedModel, naming: Naming) -> list[_Found]:
    """Return every operator with weights, its layer, and the weights for it.

    The converter folds a constant that is added after a layer into its bias (the 3 of a hard sigmoid). The
    tensor then has no counterpart in torch, and the layer is recognised by its weights; the bias in the file
    is changed by the difference between the layer's new and trained bias.
    """
    found: list[_Found] = []
    for op in _weighted(model):
        output = model.subgraphs[0].tensors[op.outputs[0]].name.decode()
        name = naming.layers.get(output) or _by_weight(model, op, naming)
        if name is None or not _has_weight_of(model, op, naming.trained.get(name)):
            found.append((op, None, None))
            continue
        if name not in quantized.layers:
            raise EdgekitError(f"the LiteRT operator that writes {output!r} has no counterpart among the layers")
        layer, bias = quantized.layers[name], flatbuffer.constant(model, op, 2)
        before = naming.trained[name].bias if name in naming.trained else None
        if layer.bias is not None and before is not None:
            # A bias of zeros is left out where the network is converted.
            held = bias if bias is not None else np.zeros_like(before)
            layer = replace(layer, bias=(held + (layer.bias - before)).astype(np.float32))
        found.append((op, name, layer))
    return found


def _has_weight_of(model: Any, op: Any, trained: LayerWeights | None) -> bool:
    """Return whether an operator holds the weight that the layer was exported with: nothing was folded into it."""
    held = flatbuffer.constant(model, op, 1)
    if held is None or trained is None:
        return held is not None
    return held.size == trained.weight.size and is_near(_in_litert(model, op, trained.weight).ravel(), held)


def _by_weight(model: Any, op: Any, naming: Naming) -> str | None:
    """Return the layer that was exported with this operator's weight."""
    weight = flatbuffer.constant(model, op, 1)
    for name, layer in naming.trained.items():
        if weight is not None and layer.weight.size == weight.size and layer.weight.ndim in (2, 4):
            same = (layer.weight.ndim == 2) == (flatbuffer.kind(model, op) == "FULLY_CONNECTED")
            if same and np.array_equal(_in_litert(model, op, layer.weight).ravel(), weight):
                return name
    return None


def _in_litert(model: Any, op: Any, weight: np.ndarray) -> np.ndarray:
    """Return a weight in LiteRT's layout: OHWI, 1HWO or (outputs, inputs), from torch's OIHW."""
    kind = flatbuffer.kind(model, op)
    if kind == "CONV_2D":
        return weight.transpose(0, 2, 3, 1)
    return weight.transpose(1, 2, 3, 0) if kind == "DEPTHWISE_CONV_2D" else weight


def _write_floats(model: Any, op: Any, layer: LayerWeights) -> None:
    """Write the layer's weight and bias into the float model."""
    tensors = model.subgraphs[0].tensors
    if layer.bias is not None and layer.bias.any() and flatbuffer.tensor(model, op, 2) is None:
        name = f"{tensors[op.outputs[0]].name.decode()}/bias"
        op.inputs = [*op.inputs[:2], flatbuffer.add_tensor(model, name, layer.bias.shape, "FLOAT32", data=layer.bias)]
    arrays = [_in_litert(model, op, layer.weight), layer.bias]
    for index, array in zip(op.inputs[1:3], arrays):
        if index >= 0 and array is not None:
            buffer = model.buffers[tensors[index].buffer]
            if buffer.data is None or len(buffer.data) != array.nbytes:
                raise EdgekitError(f"{tensors[index].name.decode()!r} does not have the shape of its layer's constant")
            buffer.data = flatbuffer.as_bytes(array)


def write_weights(model: Any, op: Any, layer: LayerWeights) -> None:
    """Write a layer's weights into a convolution or a fully connected operator, as the type that it holds."""
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
    """Write a layer's bias into an operator; an integer bias is in steps of input scale times weight scale.

    Raises:
        EdgekitError: the bias does not fit its integer type.
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
    """Return the constant that an operator reads, also through a DEQUANTIZE; a shared constant is copied first."""
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


def pad_with_zeros(model: Any) -> None:
    """Replace a PADV2 with the smallest value before a MAX_POOL_2D by a PAD with zeros, after a ReLU (ResNet).

    The pool's output stays the same: no value is below zero, and each window holds at least one value.
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
    """Replace every int8 HARD_SWISH by an ADD with RELU6, a MUL by a sixth, and a MUL with its input.

    ``x * relu6(x + 3) / 6`` (Howard et al. 2019, arXiv:1905.02244, section 5.2). XNNPACK has no int8 HARD_SWISH:
    MobileNetV3 would be split into 20 parts and be slower than in float32. Input and output keep their grids.
    """
    graph = model.subgraphs[0]
    for op in list(graph.operators):
        source = flatbuffer.tensor(model, op, 0)
        if flatbuffer.kind(model, op) != "HARD_SWISH" or source.type != flatbuffer.type_of("INT8"):
            continue
        position = graph.operators.index(op)
        name, shape = source.name.decode(), tuple(int(size) for size in source.shape)
        three, sixth = (_constant(model, f"{name}/{what}", value, len(shape)) for what, value in _HARD_SWISH_CONSTANTS)
        above = flatbuffer.add_tensor(model, f"{name}/relu6", shape, "INT8", Grid(6 / 255, QMIN))
        gate = flatbuffer.add_tensor(model, f"{name}/gate", shape, "INT8", Grid(1 / 255, QMIN))
        x, written = op.inputs[0], op.outputs[0]
        graph.operators[position : position + 1] = [
            flatbuffer.add_operator(model, "ADD", [x, three], above, fusedActivationFunction=_RELU6),
            flatbuffer.add_operator(model, "MUL", [above, sixth], gate, fusedActivationFunction=0),
            flatbuffer.add_operator(model, "MUL", [x, gate], written, fusedActivationFunction=0),
        ]


def _constant(model: Any, name: str, value: float, dimensions: int) -> int:
    """Add an int8 tensor of one value and return its index."""
    shape = (1,) * dimensions
    grid = Grid(value / QMAX, 0)
    return flatbuffer.add_tensor(model, name, shape, "INT8", grid, np.full(shape, QMAX))
