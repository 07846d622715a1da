"""Predict which operators of a LiteRT file a delegate does not run, and why.

The predictions follow from documents and source code, which `DELEGATES` names; the device decides. An operator that the
delegate does not run is executed on the CPU, and its data is copied there and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby

from edgekit.targets.contents import Contents, OpInfo, TensorInfo


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EIGHT_BITS = ("int8", "uint8")
_FLOATS = ("float32", "float16")
# CheckGpuDelegateCompatibility in tflite/tools/versioning/gpu_compatibility.cc of google-ai-edge/LiteRT. The documented
# list ("GPU delegates for LiteRT", ai.google.dev) is older and shorter: it lacks MEAN and HARD_SWISH, for example.
_GPU_OPS = _names(
    """ADD ADD_N AVERAGE_POOL_2D BATCH_MATMUL BITCAST CAST CONCATENATION CONV_2D CUMSUM DENSIFY DEPTHWISE_CONV_2D
    DEPTH_TO_SPACE DEQUANTIZE EMBEDDING_LOOKUP DYNAMIC_UPDATE_SLICE FULLY_CONNECTED GATHER HARD_SWISH LSTM MAX_POOL_2D
    MEAN MUL PACK ONE_HOT QUANTIZE RELU_N1_TO_1 PRELU RESHAPE SELECT SELECT_V2 SLICE SOFTMAX SPACE_TO_DEPTH SPLIT
    SPLIT_V STRIDED_SLICE TILE TOPK_V2 TRANSPOSE TRANSPOSE_CONV RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RELU RELU6
    LEAKY_RELU REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD SUM PAD PADV2 MIRROR_PAD REVERSE_V2 ABS CEIL COS
    ELU EXP FLOOR GELU LOG LOGICAL_NOT LOGISTIC NEG ROUND RSQRT SIGN SIN SQRT SQUARE TANH ATAN2 DIV EQUAL FLOOR_DIV
    FLOOR_MOD GREATER GREATER_EQUAL LOGICAL_AND LOGICAL_OR LESS LESS_EQUAL MAXIMUM MINIMUM NOT_EQUAL POW RIGHT_SHIFT
    SQUARED_DIFFERENCE SUB"""
)
# Floats: VisitNode in tflite/delegates/xnnpack/xnnpack_delegate.cc of google-ai-edge/LiteRT. 8 bits: the README there.
_XNNPACK_FLOAT = _names(
    """ABS CEIL COS DEQUANTIZE ELU EXP FLOOR GELU HARD_SWISH LEAKY_RELU LOGISTIC NEG RELU RELU6 RELU_N1_TO_1 ROUND RSQRT
    SIN SQRT SQUARE TANH ADD DIV MAXIMUM MINIMUM MUL PRELU SQUARED_DIFFERENCE SUB AVERAGE_POOL_2D BATCH_MATMUL
    CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEPTH_TO_SPACE EXPAND_DIMS FULLY_CONNECTED MAX_POOL_2D REDUCE_MIN REDUCE_MAX
    SUM MEAN PAD RESHAPE RESIZE_BILINEAR SLICE SOFTMAX SPACE_TO_DEPTH SPLIT STRIDED_SLICE TRANSPOSE TRANSPOSE_CONV"""
)
_XNNPACK_EIGHT_BITS = _names(
    """ADD CONCATENATION CONV_2D DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE ELU FULLY_CONNECTED LEAKY_RELU LOGISTIC
    MAX_POOL_2D MEAN MUL PAD QUANTIZE RESHAPE RESIZE_BILINEAR SLICE SPACE_TO_DEPTH SPLIT SUB TANH TRANSPOSE
    TRANSPOSE_CONV"""
)
# coral.ai/docs/edgetpu/models-intro, "Supported operations"; from copies, not confirmed after RESIZE_BILINEAR.
_EDGE_TPU_OPS = _names(
    """ADD AVERAGE_POOL_2D CONCATENATION CONV_2D DEPTHWISE_CONV_2D EXPAND_DIMS FULLY_CONNECTED L2_NORMALIZATION LOGISTIC
    LSTM MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL PACK PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1
    RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RSQRT SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQUEEZE STRIDED_SLICE SUB
    SUM SQUARED_DIFFERENCE TANH TRANSPOSE TRANSPOSE_CONV"""
)
_GPU_RANK = 4  # error of ai-edge-litert 2.3: "Tensor dimensions must be less than 5"
_XNNPACK_CONCATENATED = 5  # tensors; 4 in the README, but ai-edge-litert 2.3 accepts 5
_FUSED = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6")


@dataclass(frozen=True)
class Delegate:
    """A delegate. `rejects` returns why it does not run an operator, "" if it does."""

    title: str
    source: str
    rejects: Callable[[OpInfo], str]


@dataclass(frozen=True)
class Verdict:
    """Prediction for one delegate.

    Attributes:
        stays: number of operators that the delegate runs. ops: number of all operators.
        parts: number of contiguous runs of operators that the delegate gets, in the order of the file.
        leaving: (operator, reason, count) of the others.
    """

    delegate: str
    stays: int
    ops: int
    parts: int
    leaving: tuple[tuple[str, str, int], ...]


def verdicts(contents: Contents) -> list[Verdict]:
    """Return the prediction of each of `DELEGATES` for a LiteRT file."""
    found = []
    for name, delegate in DELEGATES.items():
        reasons = [delegate.rejects(op) for op in contents.ops]
        leaving: dict[tuple[str, str], int] = {}
        for op, why in zip(contents.ops, reasons):
            if why:
                leaving[op.kind, why] = leaving.get((op.kind, why), 0) + 1
        parts = sum(1 for stays, _ in groupby(reasons, key=lambda why: not why) if stays)
        rows = tuple((kind, why, number) for (kind, why), number in leaving.items())
        found.append(Verdict(name, reasons.count(""), len(reasons), parts, rows))
    return found


def _gpu(op: OpInfo) -> str:
    """Rules of LiteRT's GPU delegate and ML Drift, for floats and 8 bits (quantized models are allowed by default)."""
    if op.kind not in _GPU_OPS:
        return "the delegate has no such operator"
    if wrong := _types(op.activations, (*_FLOATS, *_EIGHT_BITS, "int32", "bool")):
        return f"{wrong} is not supported: it computes in floats, 8 bits are converted"
    if any(len(tensor.shape or ()) > _GPU_RANK for tensor in op.activations):
        return f"more than {_GPU_RANK} dimensions"
    if op.options.get("FusedActivationFunction") == "SIGN_BIT":
        return "fused SIGN_BIT"
    if op.kind == "SOFTMAX" and op.options.get("Beta", 1.0) != 1.0:
        return "beta is not 1"
    if op.kind in ("SLICE", "STRIDED_SLICE") and _rank(op) not in (3, 4):
        return f"{_rank(op)} dimensions instead of 3 or 4"
    if op.kind in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN") and not _constant(op, 1):
        return "its axes are not constant"
    if op.kind in ("PAD", "PADV2", "MIRROR_PAD") and _shape(op, 1) not in ((3, 2), (4, 2)):
        return "padding of neither 3 nor 4 dimensions"
    if op.kind in ("ADD", "MUL") and not _gpu_broadcasts(_shape(op, 0), _shape(op, 1)):
        return f"broadcasting of {_shape(op, 0)} and {_shape(op, 1)} is not supported"
    return ""


def _gpu_broadcasts(one: tuple[int, ...] | None, other: tuple[int, ...] | None) -> bool:
    """Return whether it broadcasts these shapes: CheckAddMulBroadcastCompatibility of the same file, basic mode."""
    if one is None or other is None or min(len(one), len(other)) < 2 or len(one) == len(other):
        return True
    long, short = sorted((one, other), key=len, reverse=True)
    if len(long) != 4:
        return False
    if len(short) == 3:
        return long[0] == 1
    return (long[0] == 1 and short == (1, 1)) or (long[0] == short[0] and long[3] == short[1])


def _xnnpack(op: OpInfo) -> str:
    """Rules of XNNPACK, on the CPU; LiteRT's own kernels run the other operators."""
    kinds = {tensor.dtype for tensor in op.activations}
    eight = bool(kinds & set(_EIGHT_BITS))
    if op.kind not in (_XNNPACK_EIGHT_BITS if eight else _XNNPACK_FLOAT):
        return f"not in its list of operators for {'8 bits' if eight else 'floats'}"
    if wrong := _types(op.activations, ("float32", "float16", *_EIGHT_BITS)):
        return f"{wrong} is not supported"
    if op.options.get("FusedActivationFunction", "NONE") not in _FUSED:
        return f"fused {op.options['FusedActivationFunction']}"
    if op.kind == "SOFTMAX" and op.options.get("Beta", 1.0) != 1.0:
        return "beta is not 1"
    if op.kind == "CONCATENATION" and not 2 <= len(op.inputs) <= _XNNPACK_CONCATENATED:
        return f"it supports 2 to {_XNNPACK_CONCATENATED} inputs"
    if op.kind == "QUANTIZE" and eight and {"int8", "uint8"} <= kinds:
        return "conversion between int8 and uint8 is not supported"
    if op.kind == "STRIDED_SLICE" and set(_values(op, 3)) != {1}:
        return "its strides are not all 1"
    return ""


def _int8_npu(op: OpInfo) -> str:
    """Rules of an NPU that computes in 8 bits only, such as Hexagon's HTP without FP16, or NNAPI drivers."""
    if op.kind in ("QUANTIZE", "DEQUANTIZE") and (border := _types(op.activations, _EIGHT_BITS)):
        return f"{border} at the boundary of the 8-bit part"
    if wrong := _types(op.activations, (*_EIGHT_BITS, "int32", "bool")):
        note = " (some NPUs support 16x8)" if wrong == "int16" else ""
        return f"{wrong} activations{note}"
    if any(tensor.count is None for tensor in op.activations):
        return "a dynamic dimension"
    return ""


def _edge_tpu(op: OpInfo) -> str:
    """Rules of Coral's Edge TPU; its compiler puts all operators after the first rejected one on the CPU, too."""
    if why := _int8_npu(op):
        return why
    if op.kind not in _EDGE_TPU_OPS:
        return "not in its list of operators"
    if op.kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D", "CONCATENATION") and _activation(op) != "NONE":
        return f"fused {_activation(op)}"
    if any(max(tensor.shape[:-3], default=1) > 1 for tensor in op.activations if tensor.shape):
        return "a dimension other than the last three is greater than 1"
    return ""


def _activation(op: OpInfo) -> str:
    return str(op.options.get("FusedActivationFunction", "NONE"))


def _types(tensors: Iterable[TensorInfo], allowed: tuple[str, ...]) -> str:
    """Return the first dtype that is not in `allowed`; "" if there is none."""
    return next((tensor.dtype or "an unknown type" for tensor in tensors if tensor.dtype not in allowed), "")


def _shape(op: OpInfo, index: int) -> tuple[int, ...] | None:
    tensor = op.inputs[index] if index < len(op.inputs) else None
    return tensor.shape if tensor is not None else None


def _values(op: OpInfo, index: int) -> tuple[int, ...]:
    tensor = op.inputs[index] if index < len(op.inputs) else None
    return tensor.values if tensor is not None else ()


def _rank(op: OpInfo) -> int:
    return len(_shape(op, 0) or ())


def _constant(op: OpInfo, index: int) -> bool:
    tensor = op.inputs[index] if index < len(op.inputs) else None
    return tensor is not None and tensor.constant


DELEGATES: dict[str, Delegate] = {
    "gpu": Delegate(
        "LiteRT GPU (OpenCL, Metal, WebGPU)",
        "google-ai-edge/LiteRT tflite/tools/versioning/gpu_compatibility.cc; ai.google.dev, GPU delegates for LiteRT",
        _gpu,
    ),
    "int8-npu": Delegate(
        "NPU for 8 bits only",
        "Qualcomm AI Engine Direct Delegate, Acceleration Support: HTP takes 8-bit activations and operators",
        _int8_npu,
    ),
    "edge-tpu": Delegate(
        "Coral Edge TPU (its compiler maps the first part only)",
        "coral.ai/docs/edgetpu/models-intro, Supported operations",
        _edge_tpu,
    ),
    "xnnpack": Delegate(
        "XNNPACK (CPU)", "google-ai-edge/LiteRT tflite/delegates/xnnpack: xnnpack_delegate.cc, README.md", _xnnpack
    ),
}
