"""A small .tflite file written by hand: no converter, so tests of readers and runners take no time.

``image`` -> [QUANTIZE] -> CONV_2D with RELU6 -> MEAN -> FULLY_CONNECTED -> [DEQUANTIZE or QUANTIZE] -> ``scores``,
and at the end L2_NORMALIZATION, if wanted: an operator that neither XNNPACK nor a GPU takes.
"""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

SIZE, CLASSES = 8, 5
_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int8): schema.TensorType.INT8,
    np.dtype(np.uint8): schema.TensorType.UINT8,
    np.dtype(np.int32): schema.TensorType.INT32,
}
IMAGE, SCORES, HIDDEN = (1 / 64, 0), (1 / 16, 0), (6 / 255, -128)


class _Graph:
    """Tensors, buffers and operators in the making."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version, self.model.description = 3, "by hand"
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.name, self.graph.tensors, self.graph.operators = "main", [], []
        self.model.subgraphs = [self.graph]

    def tensor(
        self, name: str, shape: tuple[int, ...], dtype: Any, grid: Any = None, data: np.ndarray | None = None
    ) -> int:
        """Add one; `grid` is a scale (or one for each channel of axis 0) and a zero point."""
        made = schema.TensorT()
        made.name, made.shape, made.type, made.buffer = name, list(shape), _TYPES[np.dtype(dtype)], 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.astype(dtype).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            made.buffer = len(self.model.buffers) - 1
        if grid is not None and np.dtype(dtype) != np.float32:
            made.quantization = schema.QuantizationParametersT()
            scales = np.atleast_1d(grid[0])
            made.quantization.scale = [float(s) for s in scales]
            made.quantization.zeroPoint = [int(grid[1])] * len(scales)
        self.graph.tensors.append(made)
        return len(self.graph.tensors) - 1

    def op(self, code: int, inputs: list[int], outputs: list[int], options: Any = None, version: int = 1) -> None:
        kind = schema.OperatorCodeT()
        kind.builtinCode, kind.deprecatedBuiltinCode, kind.version = code, min(code, 127), version
        self.model.operatorCodes.append(kind)
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = len(self.model.operatorCodes) - 1, inputs, outputs
        if options is not None:
            made.builtinOptions = options
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        self.graph.operators.append(made)

    def finish(self) -> bytes:
        builder = flatbuffers.Builder(4096)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def tflite(inner: str = "float32", source: str = "float32", target: str = "float32", normalized: bool = False) -> bytes:
    """The file. `inner`: float32 or int8. `source`, `target`: of the input and the output; not 8 bits around floats."""
    rng, g = np.random.default_rng(0), _Graph()
    real = inner == "float32"
    weights, dense = rng.normal(0, 0.3, (16, 3, 3, 3)), rng.normal(0, 0.5, (CLASSES, 16))
    scales = np.abs(weights).max((1, 2, 3)) / 127
    image_grid = (IMAGE[0], IMAGE[1] + 128) if source == "uint8" else IMAGE
    image = x = g.tensor("image", (1, SIZE, SIZE, 3), source, image_grid)
    if source != inner:
        x = g.tensor("image_q", (1, SIZE, SIZE, 3), inner, IMAGE)
        g.op(schema.BuiltinOperator.QUANTIZE, [image], [x], schema.QuantizeOptionsT())
    w = g.tensor("conv/weight", weights.shape, inner, (scales, 0),
                 weights if real else np.rint(weights / scales[:, None, None, None]))  # fmt: skip
    b = g.tensor("conv/bias", (16,), "float32" if real else "int32", (scales * IMAGE[0], 0), np.zeros(16))
    act = g.tensor("act", (1, SIZE // 2, SIZE // 2, 16), inner, HIDDEN)
    conv = schema.Conv2DOptionsT()
    conv.strideH = conv.strideW = 2
    conv.fusedActivationFunction = schema.ActivationFunctionType.RELU6
    g.op(schema.BuiltinOperator.CONV_2D, [x, w, b], [act], conv, 1 if real else 3)
    axes, pool = g.tensor("axes", (2,), "int32", None, np.array([1, 2])), g.tensor("pool", (1, 16), inner, HIDDEN)
    g.op(schema.BuiltinOperator.MEAN, [act, axes], [pool], schema.ReducerOptionsT(), 1 if real else 2)
    step = float(np.abs(dense).max() / 127)
    w2 = g.tensor("dense/weight", dense.shape, inner, (step, 0), dense if real else np.rint(dense / step))
    b2 = g.tensor("dense/bias", (CLASSES,), "float32" if real else "int32", (step * HIDDEN[0], 0), np.zeros(CLASSES))
    y = g.tensor("scores_q", (1, CLASSES), inner, SCORES)
    g.op(schema.BuiltinOperator.FULLY_CONNECTED, [pool, w2, b2], [y], schema.FullyConnectedOptionsT(), 1 if real else 4)
    scores = y
    if target != inner:
        scores = g.tensor("scores", (1, CLASSES), target, (SCORES[0], SCORES[1] + 128))
        code = schema.BuiltinOperator.DEQUANTIZE if target == "float32" else schema.BuiltinOperator.QUANTIZE
        g.op(code, [y], [scores], None, 2)
    if normalized:
        y, scores = scores, g.tensor("normalized", (1, CLASSES), target)
        g.op(schema.BuiltinOperator.L2_NORMALIZATION, [y], [scores], schema.L2NormOptionsT())
    g.graph.inputs, g.graph.outputs = [image], [scores]
    g.model.signatureDefs = [_signature(image, scores)]
    return g.finish()


def _signature(image: int, scores: int) -> schema.SignatureDefT:
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = "serving_default", 0
    made.inputs, made.outputs = [_named("image", image)], [_named("scores", scores)]
    return made


def _named(name: str, index: int) -> schema.TensorMapT:
    made = schema.TensorMapT()
    made.name, made.tensorIndex = name, index
    return made
