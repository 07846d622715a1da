"""The LiteRT emitter: a float ``.tflite`` and a calibration table to INT8, and float16 weights.

The quantizer is LiteRT's own (ai-edge-quantizer); it is given our table as its calibration result,
so the file carries our scales and not the moving averages that it would take.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekit import atomic
from edgekit.errors import EdgekitError
from edgekit.quant import affine
from edgekit.quantization import LITERT_SCHEME, CalibrationTable, Range

_CONV = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def quantize(float_path: Path, table: CalibrationTable, names: dict[str, str], path: Path) -> None:
    """Write the full-INT8 file: int8 weights and activations, float32 input and output.

    Args:
        names: LiteRT tensor name -> name in `table` (see `match.match_by_value`).
    Raises:
        EdgekitError: an activation without a counterpart in the table; the message names it.
    """
    from ai_edge_quantizer import qtyping, quantizer, recipe

    model, activations = _read(float_path)
    spans = _spread(model, {n: table.ranges[names[n]] for n in activations if names.get(n) in table.ranges})
    if lost := [n for n in activations if n not in spans]:
        raise EdgekitError(f"LiteRT tensors without a counterpart in the calibration table: {', '.join(lost[:5])}")
    grids = {n: affine.activation_grid(spans[n], LITERT_SCHEME.symmetric) for n in activations}
    _lift_small_weights(model, grids)
    q = quantizer.Quantizer(_serialize(model))
    q.load_quantization_recipe(recipe.static_wi8_ai8())
    for border in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        q.update_quantization_recipe(regex=".*", operation_name=border, algorithm_key=recipe.AlgorithmName.NO_QUANTIZE)
    ranges = {n: {"min": _array(g.low), "max": _array(g.high)} for n, g in grids.items()}
    result = q.quantize(ranges, enable_progress_report=False)
    atomic.save_bytes(path, result.quantized_model)


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
    atomic.save_bytes(path, result.quantized_model)


def _array(value: float) -> np.ndarray:
    return np.full((1, 1, 1, 1), value, np.float64)


def _read(path: Path) -> tuple[Any, list[str]]:
    """The model's flatbuffer as objects, and the names of its float activations."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flat

    model = flat.read_model(path)
    graph = model.subgraphs[0]
    touched = {i for op in graph.operators for i in (*op.inputs, *op.outputs) if i >= 0}
    tensors = [(i, graph.tensors[i]) for i in sorted(touched)]
    is_float = flat.TENSOR_TYPE_TO_CODE["FLOAT32"]
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
        kind, (target, *_) = _operator(model, op), (graph.tensors[i].name.decode() for i in op.outputs)
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


def _operator(model: Any, op: Any) -> str:
    """The name of a LiteRT operator, such as CONV_2D."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flat

    return flat.flatbuffer_utils.opcode_to_name(model, op.opcodeIndex)


def _serialize(model: Any) -> bytes:
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flat

    return bytes(flat.flatbuffer_utils.convert_object_to_bytearray(model))


def _lift_small_weights(model: Any, grids: dict[str, affine.Grid]) -> None:
    """Raise one weight of each nearly dead channel, so that LiteRT's int32 bias cannot overflow.

    The weight grows to at most 127 * |bias| / (input_scale * 2**30), which moves the channel's
    output by less than 2e-5 of its bias.
    """
    graph = model.subgraphs[0]
    for op in graph.operators:
        kind = _operator(model, op)
        if kind not in _CONV or len(op.inputs) < 3 or op.inputs[2] < 0:
            continue
        x, w, b = (graph.tensors[i] for i in op.inputs[:3])
        weight, bias = (model.buffers[t.buffer].data for t in (w, b))
        if weight is None or bias is None:
            continue
        values = np.frombuffer(bytes(weight), np.float32).reshape(w.shape).copy()
        channels = np.moveaxis(values, -1, 0) if kind == "DEPTHWISE_CONV_2D" else values
        scales = affine.weight_scales(channels, np.frombuffer(bytes(bias), np.float32), grids[x.name.decode()].scale)
        flatter = channels.reshape(len(channels), -1)
        wanted = scales * affine.WEIGHT_QMAX
        for channel in np.flatnonzero(wanted > np.abs(flatter).max(1) * (1 + 1e-6)):
            at = np.unravel_index(np.abs(channels[channel]).argmax(), channels.shape[1:])
            place = (channel, *at)
            channels[place] = np.copysign(wanted[channel], channels[place])
        model.buffers[w.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
