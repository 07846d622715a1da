"""ONNX operators as torch modules and functions, opset 7 on."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edgekit.importing.onnx_graph import BATCHES, Call, Known, Operator, Traced, UnsupportedError, Value

OPERATORS: dict[str, Operator] = {}


def _register(*names: str) -> Callable[[Operator], Operator]:
    def add(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return add


def name_of(call: Call, kind: str = "") -> str:
    """Return the path of a node's module: that of its weight, or else made of the node's name."""
    for name in call.node.input[1:]:
        for ending in (".weight", ".weight_quantized", ".parametrizations"):
            if name.endswith(ending):
                return name.removesuffix(ending)
    parts = [part for part in call.node.name.strip("/").split("/") if part]
    if len(parts) > 1 and "." in parts[-2]:  # torch writes /features/features.0/features.0.1/Relu
        return f"{parts[-2]}.{parts[-1]}"
    return ".".join(part.replace(".", "_") for part in parts) or kind or call.node.op_type.lower()


# Layers with weights.


@_register("Conv")
def _conv(call: Call) -> Value:
    x, weight, bias = call.traced(), _float(call.constant(1)), call.optional(2)
    sides = weight.ndim - 2
    if sides not in (1, 2):
        raise UnsupportedError(f"a convolution over {sides} dimensions")
    strides, dilations = call.attribute("strides", [1] * sides), call.attribute("dilations", [1] * sides)
    kernel, groups = list(weight.shape[2:]), call.attribute("group", 1)
    begin, end = _pads(call, x, kernel, strides, dilations)
    if begin != end:
        x = call.graph.call(functional.pad, x, _torch_pads(begin, end))
        begin = [0] * sides
    kind: Any = nn.Conv2d if sides == 2 else nn.Conv1d
    layer = kind(
        weight.shape[1] * groups, weight.shape[0], tuple(kernel), tuple(strides), tuple(begin), tuple(dilations),
        groups, bias is not None,
    )  # fmt: skip
    _load(layer, weight, bias)
    return call.graph.module(name_of(call), layer, x)


def _load(layer: nn.Module, weight: np.ndarray, bias: np.ndarray | None) -> None:
    with torch.no_grad():
        layer.get_parameter("weight").copy_(torch.from_numpy(np.array(weight, np.float32)))
        if bias is not None:
            layer.get_parameter("bias").copy_(torch.from_numpy(np.array(bias, np.float32).reshape(-1)))


def _linear(call: Call, x: Traced, weight: np.ndarray, bias: np.ndarray | None) -> Value:
    """Add a linear layer; `weight`: (out, in)."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    _load(layer, weight, bias)
    return call.graph.module(name_of(call), layer, x)


@_register("Gemm")
def _gemm(call: Call) -> Value:
    x, alpha, beta = call.traced(), call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    if call.attribute("transA", 0) or x.rank != 2:
        raise UnsupportedError("the images are not its rows")
    weight, bias = _float(call.constant(1)), call.optional(2)
    weight = alpha * (weight if call.attribute("transB", 0) else weight.T)
    if bias is None or bias.size in (1, weight.shape[0]):
        full = None if bias is None else beta * np.broadcast_to(_float(bias).reshape(-1), weight.shape[:1])
        return _linear(call, x, weight, full)
    raise UnsupportedError("its bias is not one number per output")


@_register("MatMul")
def _matmul(call: Call) -> Value:
    left, right = call.inputs
    if isinstance(left, Traced) and isinstance(right, Known) and right.is_fixed and right.values[0].ndim == 2:
        return _linear(call, left, _float(right.values[0]).T, None)
    return call.graph.call(torch.matmul, _operand(call, 0), _operand(call, 1))


@_register("BatchNormalization")
def _batch_norm(call: Call) -> Value:
    x, epsilon = call.traced(), call.attribute("epsilon", 1e-5)
    if call.attribute("training_mode", 0):
        raise UnsupportedError("it is in training mode; export the network after model.eval()")
    scale, shift, mean, variance = (_float(call.constant(k)) for k in range(1, 5))
    if x.rank in (2, 3, 4):
        norm = (nn.BatchNorm2d if x.rank == 4 else nn.BatchNorm1d)(len(scale), eps=epsilon)
        state = {"weight": scale, "bias": shift, "running_mean": mean, "running_var": variance}
        with torch.no_grad():
            for key, value in state.items():
                getattr(norm, key).copy_(torch.from_numpy(np.array(value)))
        return call.graph.module(name_of(call), norm, x)
    raise UnsupportedError(f"it is over {x.rank} dimensions")


@_register("LayerNormalization")
def _layer_norm(call: Call) -> Value:
    x, scale, shift = call.traced(), _float(call.constant(1)), call.optional(2)
    axis = call.attribute("axis", -1) % x.rank
    shape = x.shape[axis:]
    if -1 in shape or len(call.node.output) > 1:
        raise UnsupportedError("it is over the batch, or has several outputs")
    norm = nn.LayerNorm(shape, eps=call.attribute("epsilon", 1e-5), bias=shift is not None)
    with torch.no_grad():
        norm.weight.copy_(torch.from_numpy(np.broadcast_to(scale, shape).copy()))
        if shift is not None:
            norm.bias.copy_(torch.from_numpy(np.broadcast_to(_float(shift), shape).copy()))
    return call.graph.module(name_of(call), norm, x)


@_register("InstanceNormalization")
def _instance_norm(call: Call) -> Value:
    x, scale, shift = call.traced(), _float(call.constant(1)), _float(call.constant(2))
    if x.rank != 4:
        raise UnsupportedError(f"it is over {x.rank} dimensions")
    norm = nn.GroupNorm(len(scale), len(scale), eps=call.attribute("epsilon", 1e-5))
    _load(norm, scale, shift)
    return call.graph.module(name_of(call), norm, x)


@_register("GroupNormalization")
def _group_norm(call: Call) -> Value:
    x, scale, shift, groups = (
        call.traced(), _float(call.constant(1)), _float(call.constant(2)), call.attribute("num_groups")
    )  # fmt: skip
    channels = x.shape[1]
    scale, shift = (np.repeat(v, channels // len(v)) for v in (scale, shift))  # opset 18: one for each group
    norm = nn.GroupNorm(groups, channels, eps=call.attribute("epsilon", 1e-5))
    _load(norm, scale, shift)
    return call.graph.module(name_of(call), norm, x)


@_register("PRelu")
def _prelu(call: Call) -> Value:
    x, slope = call.traced(), _float(call.constant(1))
    if slope.size not in (1, x.shape[1]):
        raise UnsupportedError("its slope is not one number per channel")
    layer = nn.PReLU(slope.size)
    _load(layer, slope.reshape(-1), None)
    return call.graph.module(name_of(call), layer, x)


# Pools.


@_register("MaxPool")
def _max_pool(call: Call) -> Value:
    if len(call.node.output) > 1 and call.node.output[1]:
        raise UnsupportedError("the places of the maxima are read")
    x, kernel, strides, begin, end = _pooled(call)
    dilations = call.attribute("dilations", [1, 1])
    if begin != end or any(2 * p > k for p, k in zip(begin, kernel)):
        x = call.graph.call(functional.pad, x, _torch_pads(begin, end), value=-math.inf)
        begin = [0, 0]
    ceil = bool(call.attribute("ceil_mode", 0))
    pool = nn.MaxPool2d(tuple(kernel), tuple(strides), tuple(begin), tuple(dilations), ceil_mode=ceil)
    return call.graph.module(name_of(call), pool, x)


@_register("AveragePool")
def _average_pool(call: Call) -> Value:
    x, kernel, strides, begin, end = _pooled(call)
    if any(d != 1 for d in call.attribute("dilations", [1, 1])):
        raise UnsupportedError("it is dilated")
    ceil, counts = bool(call.attribute("ceil_mode", 0)), bool(call.attribute("count_include_pad", 0))
    if begin == end and not any(2 * p > k for p, k in zip(begin, kernel)):
        pool = nn.AvgPool2d(_two(kernel), _two(strides), _two(begin), ceil, counts)
        return call.graph.module(name_of(call), pool, x)
    if ceil:
        raise UnsupportedError("it has uneven padding and rounds its size up")
    height, width = x.shape[2:]
    x = call.graph.call(functional.pad, x, _torch_pads(begin, end))
    made = call.graph.module(name_of(call), nn.AvgPool2d(_two(kernel), _two(strides)), x)
    if counts:
        return made
    inside = functional.pad(torch.ones(1, 1, height, width), _torch_pads(begin, end))
    share = functional.avg_pool2d(inside, tuple(kernel), tuple(strides))
    return call.graph.call(operator.mul, made, (1 / share).numpy())


def _two(values: Sequence[int]) -> tuple[int, int]:
    height, width = values
    return height, width


def _pooled(call: Call) -> tuple[Traced, list[int], list[int], list[int], list[int]]:
    """Return input, kernel, strides and the padding at both ends of a pool."""
    x, kernel = call.traced(), list(call.attribute("kernel_shape"))
    if len(kernel) != 2 or x.rank != 4:
        raise UnsupportedError(f"a pool over {len(kernel)} dimensions")
    strides = list(call.attribute("strides", [1, 1]))
    begin, end = _pads(call, x, kernel, strides, list(call.attribute("dilations", [1, 1])))
    return x, kernel, strides, begin, end


@_register("GlobalAveragePool")
def _global_average_pool(call: Call) -> Value:
    x = call.traced()
    if x.rank != 4:
        return call.graph.call(torch.mean, x, tuple(range(2, x.rank)), keepdim=True)
    return call.graph.module(name_of(call), nn.AdaptiveAvgPool2d(1), x)


@_register("GlobalMaxPool")
def _global_max_pool(call: Call) -> Value:
    x = call.traced()
    return call.graph.call(torch.amax, x, tuple(range(2, x.rank)), keepdim=True)


@_register("LRN")
def _lrn(call: Call) -> Value:
    alpha, beta, bias = call.attribute("alpha", 1e-4), call.attribute("beta", 0.75), call.attribute("bias", 1.0)
    size = call.attribute("size")
    if size % 2 == 0:
        raise UnsupportedError(f"its size is {size}, an even number")
    return call.graph.module(name_of(call), nn.LocalResponseNorm(size, alpha, beta, bias), call.traced())


def _pads(
    call: Call, x: Traced, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return the padding at the beginning and the end of each spatial dimension."""
    sides, auto = len(kernel), call.attribute("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        sizes = x.shape[2:]
        total = [
            max(0, (math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size)
            for size, k, s, d in zip(sizes, kernel, strides, dilations)
        ]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        return (small, large) if auto == "SAME_UPPER" else (large, small)
    pads = list(call.attribute("pads", [0] * 2 * sides)) if auto != "VALID" else [0] * 2 * sides
    return pads[:sides], pads[sides:]


def _torch_pads(begin: Sequence[int], end: Sequence[int]) -> tuple[int, ...]:
    """Return paddings in torch's order: the last dimension first."""
    return tuple(p for pair in zip(reversed(begin), reversed(end)) for p in pair)


# Activations.


def _activation(make: Callable[[Call], nn.Module]) -> Operator:
    return lambda call: call.graph.module(name_of(call), make(call), call.traced())


OPERATORS.update(
    Relu=_activation(lambda call: nn.ReLU()),
    Sigmoid=_activation(lambda call: nn.Sigmoid()),
    Tanh=_activation(lambda call: nn.Tanh()),
    HardSwish=_activation(lambda call: nn.Hardswish()),
    Softplus=_activation(lambda call: nn.Softplus()),
    Softsign=_activation(lambda call: nn.Softsign()),
    Mish=_activation(lambda call: nn.Mish()),
    Elu=_activation(lambda call: nn.ELU(call.attribute("alpha", 1.0))),
    Celu=_activation(lambda call: nn.CELU(call.attribute("alpha", 1.0))),
    LeakyRelu=_activation(lambda call: nn.LeakyReLU(call.attribute("alpha", 0.01))),
    Gelu=_activation(lambda call: nn.GELU(call.attribute("approximate", "none"))),
)


@_register("Swish")
def _swish(call: Call) -> Value:
    x = call.traced()
    if (alpha := call.attribute("alpha", 1.0)) != 1.0:
        scaled = call.graph.call(operator.mul, x, float(alpha))
        return call.graph.call(operator.mul, x, call.graph.module(name_of(call), nn.Sigmoid(), scaled))
    return call.graph.call(operator.mul, x, call.graph.module(name_of(call), nn.Sigmoid(), x))


@_register("HardSigmoid")
def _hard_sigmoid(call: Call) -> Value:
    x, alpha, beta = call.traced(), call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-4 and abs(beta - 0.5) < 1e-6:
        return call.graph.module(name_of(call), nn.Hardsigmoid(), x)
    shifted = call.graph.call(operator.add, call.graph.call(operator.mul, x, float(alpha)), float(beta))
    return call.graph.module(name_of(call), nn.Hardtanh(0.0, 1.0), shifted)


@_register("Clip")
def _clip(call: Call) -> Value:
    low, high = (_bound(call, k, name) for k, name in ((1, "min"), (2, "max")))
    return _clipped(call, call.traced(), low, high)


def _bound(call: Call, index: int, name: str) -> float | None:
    found = call.optional(index)
    value = call.attribute(name) if found is None else float(found.reshape(-1)[0])
    return None if value is None or abs(value) > 3e38 else float(value)


def _clipped(call: Call, x: Traced, low: float | None, high: float | None) -> Value:
    if low is None and high is None:
        return x
    if low == 0 and high is None:
        return call.graph.module(name_of(call), nn.ReLU(), x)
    if low == 0 and high == 6:
        return call.graph.module(name_of(call), nn.ReLU6(), x)
    if low is not None and high is not None:
        return call.graph.module(name_of(call), nn.Hardtanh(low, high), x)
    return call.graph.call(torch.clamp, x, low, high)


@_register("Softmax", "LogSoftmax")
def _softmax(call: Call) -> Value:
    x, old = call.traced(), call.opset < 13
    axis = call.attribute("axis", 1 if old else -1) % x.rank
    if old and math.prod(x.shape[axis + 1 :]) != 1:
        raise UnsupportedError(f"it is over several dimensions (from axis {axis} on)")
    return call.graph.call(torch.softmax if call.node.op_type == "Softmax" else torch.log_softmax, x, axis)


# Arithmetic.


def _float(value: np.ndarray) -> np.ndarray:
    return np.asarray(value, np.float32)


def _batchless(value: Known, rank: int, fixed_batch: int | None) -> np.ndarray | None:
    """Return a constant that broadcasts over the batch of a tensor of this rank; None if it has other rows."""
    first, second = value.values
    if first.ndim < rank:
        return first if value.is_fixed else None
    is_batch = first.shape[:1] + second.shape[:1] == BATCHES or (value.is_fixed and first.shape[0] == fixed_batch)
    if value.is_fixed and (first.shape[0] == 1 or not is_batch):
        return first
    rows = [v[:1] for v in value.values]
    same = all(bool(np.allclose(v, rows[0], rtol=1e-5, atol=1e-6)) for v in value.values)
    return rows[0] if is_batch and same else None


def _operand(call: Call, index: int) -> Any:
    """Return an operand: a tensor, a number, or an array that broadcasts over the batch."""
    value = call.inputs[index]
    if isinstance(value, Traced):
        return value
    assert value is not None
    rank = max(other.rank for other in call.inputs if isinstance(other, Traced))
    found = _batchless(value, rank, call.fixed_batch)
    if found is None:
        raise UnsupportedError("it mixes the images of a batch")
    if found.size == 1 and found.ndim <= rank:
        return float(found.reshape(-1)[0])
    return found if found.dtype == bool else _float(found)


def _binary(function: Callable[..., Any]) -> Operator:
    return lambda call: call.graph.call(function, _operand(call, 0), _operand(call, 1))


OPERATORS.update(Sub=_binary(operator.sub), Mul=_binary(operator.mul), Div=_binary(operator.truediv))


def _unary(function: Callable[..., Any]) -> Operator:
    return lambda call: call.graph.call(function, call.traced())


OPERATORS.update(
    Sqrt=_unary(torch.sqrt), Exp=_unary(torch.exp), Log=_unary(torch.log), Neg=_unary(operator.neg),
    Abs=_unary(torch.abs), Erf=_unary(torch.erf), Reciprocal=_unary(torch.reciprocal),
)  # fmt: skip


@_register("Add")
def _add(call: Call) -> Value:
    left, right = _operand(call, 0), _operand(call, 1)
    for x, bias in ((left, right), (right, left)):
        if isinstance(x, Traced) and isinstance(bias, np.ndarray) and _give_bias(call, x, bias):
            return x
    return call.graph.call(operator.add, left, right)


def _give_bias(call: Call, x: Traced, bias: np.ndarray) -> bool:
    """Add a constant to the linear layer that made a tensor; False if it has a bias, or if something else reads it."""
    layer = call.graph.root.get_submodule(str(x.node.target)) if x.node.op == "call_module" else None
    if not isinstance(layer, nn.Linear) or layer.bias is not None or not call.is_only_reader:
        return False
    if bias.size != layer.out_features or bias.shape[-1] != layer.out_features:
        return False
    layer.bias = nn.Parameter(torch.from_numpy(np.array(bias.reshape(-1), np.float32)), requires_grad=False)
    return True


@_register("Sum", "Mean")
def _sum(call: Call) -> Value:
    operands = [_operand(call, k) for k in range(len(call.inputs))]
    total = operands[0]
    for each in operands[1:]:
        total = call.graph.call(operator.add, total, each) if isinstance(total, Traced) or isinstance(each, Traced) \
            else total + each  # fmt: skip
    if call.node.op_type == "Mean" and len(operands) > 1:
        total = call.graph.call(operator.truediv, total, float(len(operands)))
    return cast(Value, total)


@_register("Max", "Min")
def _extremum(call: Call) -> Value:
    operands, is_max = [_operand(call, k) for k in range(len(call.inputs))], call.node.op_type == "Max"
    traced = [o for o in operands if isinstance(o, Traced)]
    numbers = [o for o in operands if isinstance(o, float)]
    found: Value = traced[0]
    for other in (*traced[1:], *(o for o in operands if isinstance(o, np.ndarray))):
        found = call.graph.call(torch.maximum if is_max else torch.minimum, found, other)
    if numbers:
        assert isinstance(found, Traced)
        found = _clipped(call, found, max(numbers) if is_max else None, None if is_max else min(numbers))
    return found


@_register("Pow")
def _pow(call: Call) -> Value:
    exponent = _operand(call, 1)
    x = call.traced()
    if exponent == 2.0:
        return call.graph.call(operator.mul, x, x)
    return call.graph.call(torch.sqrt, x) if exponent == 0.5 else call.graph.call(torch.pow, x, exponent)


@_register("Where")
def _where(call: Call) -> Value:
    condition = call.constant(0)
    return call.graph.call(torch.where, condition.astype(bool), _operand(call, 1), _operand(call, 2))


_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax, "ReduceMin": torch.amin
}  # fmt: skip


@_register(*_REDUCTIONS, "ReduceL2", "ReduceSumSquare")
def _reduce(call: Call) -> Value:
    x, keep, kind = call.traced(), bool(call.attribute("keepdims", 1)), call.node.op_type
    axes = call.integers(1, "axes")
    if not axes and call.attribute("noop_with_empty_axes", 0):
        return x
    over = tuple(sorted(a % x.rank for a in axes)) if axes else tuple(range(x.rank))
    if kind in _REDUCTIONS:
        return call.graph.call(_REDUCTIONS[kind], x, over, keepdim=keep)
    total = call.graph.call(torch.sum, call.graph.call(operator.mul, x, x), over, keepdim=keep)
    return call.graph.call(torch.sqrt, total) if kind == "ReduceL2" else total


# Shapes.


@_register("Identity", "Dropout", "Cast", "CastLike")
def _same(call: Call) -> Value:
    if call.node.op_type == "Dropout" and (mode := call.optional(2)) is not None and bool(mode.any()):
        raise UnsupportedError("it is in training mode; export the network after model.eval()")
    kinds = (1, 10, 11)  # float32, float16, float64
    if call.node.op_type == "Cast" and call.attribute("to") not in kinds:
        raise UnsupportedError("it makes integers from the image")
    return call.traced()


@_register("Flatten")
def _flatten(call: Call) -> Value:
    x = call.traced()
    axis = call.attribute("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    before, after = (-1 if -1 in part else math.prod(part) for part in (x.shape[:axis], x.shape[axis:]))
    return reshape(call, x, [before, after])


def reshape(call: Call, x: Traced, shape: Sequence[int]) -> Traced:
    """Reshape a tensor to a static shape with at most one -1."""
    if tuple(shape) == x.shape:
        return x
    if len(shape) == 2 and x.shape[0] == shape[0] == -1 and shape[1] == math.prod(x.shape[1:]):
        return call.graph.call(torch.flatten, x, 1)
    return call.graph.call(torch.reshape, x, tuple(int(s) for s in shape))


@_register("Reshape")
def _reshape(call: Call) -> Value:
    x, target = call.traced(), call.inputs[1]
    if not isinstance(target, Known):
        raise UnsupportedError("its shape depends on the image")
    zero = not call.attribute("allowzero", 0)
    if call.fixed_batch is not None and target.is_fixed:
        return reshape(call, x, _shape_for_any_batch(x, target.values[0], zero, call.fixed_batch))
    shapes = [_resolved(v, tuple(e.shape), zero) for v, e in zip(target.values, x.examples)]
    return reshape(call, x, _with_batch(*shapes))


def _resolved(target: np.ndarray, shape: tuple[int, ...], zero_copies: bool) -> list[int]:
    """Return the sizes that a Reshape gives a tensor of this shape."""
    sizes = [int(v) for v in target.reshape(-1)]
    sizes = [shape[k] if size == 0 and zero_copies else size for k, size in enumerate(sizes)]
    if -1 in sizes:
        rest = -math.prod(sizes)
        if rest <= 0 or math.prod(shape) % rest:
            raise UnsupportedError(f"{list(shape)} cannot become {sizes}")
        sizes[sizes.index(-1)] = math.prod(shape) // rest
    if math.prod(sizes) != math.prod(shape):
        raise UnsupportedError(f"{list(shape)} cannot become {sizes}")
    return sizes


def _with_batch(first: list[int], second: list[int]) -> list[int]:
    """Return a shape with -1 where it differs between the `BATCHES`."""
    shape = [a if a == b else -1 for a, b in zip(first, second)]
    if len(first) != len(second) or shape.count(-1) != 1:
        raise UnsupportedError("it mixes the images of a batch")
    return shape


def _shape_for_any_batch(x: Traced, target: np.ndarray, zero_copies: bool, batch: int) -> list[int]:
    """Return the shape for any batch of a Reshape that is written for one batch size.

    The batch stays behind as many elements as before; all sizes else are those for the written batch.
    """
    axis = x.shape.index(-1)
    per_image = [int(e) for e in x.examples[0].shape]
    per_image[axis] = per_image[axis] * batch // BATCHES[0]
    sizes = _resolved(target, tuple(per_image), zero_copies)
    before = math.prod(x.shape[:axis])
    for place in range(len(sizes)):
        if math.prod(sizes[:place]) == before and sizes[place] % batch == 0:
            return [*sizes[:place], -1, *sizes[place + 1 :]]
    raise UnsupportedError("it mixes the images of a batch")


@_register("Squeeze")
def _squeeze(call: Call) -> Value:
    x, axes = call.traced(), call.integers(1, "axes")
    over = [a % x.rank for a in axes] if axes else [k for k, size in enumerate(x.shape) if size == 1]
    return reshape(call, x, [size for k, size in enumerate(x.shape) if k not in over])


@_register("Unsqueeze")
def _unsqueeze(call: Call) -> Value:
    x, axes = call.traced(), call.integers(1, "axes") or []
    places = {a % (x.rank + len(axes)) for a in axes}
    sizes = iter(x.shape)
    return reshape(call, x, [1 if k in places else next(sizes) for k in range(x.rank + len(axes))])


@_register("Transpose")
def _transpose(call: Call) -> Value:
    x = call.traced()
    order = tuple(int(a) for a in call.attribute("perm", range(x.rank - 1, -1, -1)))
    return x if order == tuple(range(x.rank)) else call.graph.call(torch.permute, x, order)


@_register("Expand")
def _expand(call: Call) -> Value:
    x, target = call.traced(), call.inputs[1]
    if not isinstance(target, Known):
        raise UnsupportedError("its shape depends on the image")
    sizes = np.broadcast_shapes(tuple(e for e in x.examples[0].shape), _for_batch(call, x, target))
    if sizes == tuple(x.examples[0].shape):
        return x
    ones = tuple(1 if size == now else size for size, now in zip(sizes, (1,) * (len(sizes) - x.rank) + x.shape))
    ones = tuple(1 if size == BATCHES[0] else size for size in ones)
    return call.graph.call(operator.add, x, np.zeros(ones, np.float32))


def _for_batch(call: Call, x: Traced, target: Known) -> tuple[int, ...]:
    """Return the shape of an Expand for the first of the `BATCHES`."""
    sizes = [int(v) for v in target.values[0]]
    if target.is_fixed and call.fixed_batch not in (None, 1):
        axis = x.shape.index(-1) + len(sizes) - x.rank
        if 0 <= axis < len(sizes) and sizes[axis] == call.fixed_batch:
            sizes[axis] = BATCHES[0]
    return tuple(sizes)


@_register("Concat")
def _concat(call: Call) -> Value:
    traced = [v for v in call.inputs if isinstance(v, Traced)]
    rank = traced[0].rank
    axis = call.attribute("axis", 1) % rank
    if len(traced) == len(call.inputs):
        return call.graph.call(torch.cat, traced, axis)
    if axis == 0 or any(v.shape.index(-1) != 0 for v in traced):
        raise UnsupportedError("it mixes the images of a batch")
    # Constant rows, such as a class token: zeros beside the rest, to which they are added.
    rows = []
    for value in call.inputs:
        row = _batchless(value, rank, call.fixed_batch) if isinstance(value, Known) else None
        if isinstance(value, Known) and (row is None or row.shape[0] != 1):
            raise UnsupportedError("it mixes the images of a batch")
        rows.append(row)
    first, last = (next(k for k in order if rows[k] is None) for order in (range(len(rows)), range(len(rows))[::-1]))
    if any(row is not None for row in rows[first:last]):
        raise UnsupportedError("it has constants between tensors")
    middle = traced[0] if len(traced) == 1 else call.graph.call(torch.cat, traced, axis)
    zeros = np.zeros([1, *middle.shape[1:]], np.float32)
    before, after = ([_float(r) for r in part if r is not None] for part in (rows[:first], rows[last + 1 :]))
    added = np.concatenate([*before, zeros, *after], axis)
    widths = [(0, 0)] * (rank - 1 - axis) + [(sum(r.shape[axis] for r in before), sum(r.shape[axis] for r in after))]
    padded = call.graph.call(functional.pad, middle, tuple(p for pair in widths for p in pair))
    return call.graph.call(operator.add, padded, added)


def part(call: Call, x: Traced, axis: int, start: int, end: int, step: int = 1) -> Traced:
    """Return a part of a tensor along one axis."""
    size = x.shape[axis]
    if size == -1:
        raise UnsupportedError("it takes images out of a batch")
    if (start, end, step) == (0, size, 1):
        return x
    index = (*(slice(None),) * axis, slice(start, end, step if step != 1 else None))
    return call.graph.call(operator.getitem, x, index)


@_register("Slice")
def _slice(call: Call) -> Value:
    x = call.traced()
    starts, ends = call.integers(1, "starts"), call.integers(2, "ends")
    if starts is None or ends is None:
        raise UnsupportedError("it has no starts or ends")
    axes = call.integers(3, "axes") or list(range(len(starts)))
    steps = call.integers(4, "steps") or [1] * len(starts)
    for axis, start, end, step in zip((a % x.rank for a in axes), starts, ends, steps):
        if x.shape[axis] == -1 and (start, step) == (0, 1) and end >= 2**31 - 1:
            continue
        if step < 1:
            order = np.arange(max(0, x.shape[axis]))[slice(start, None if end < -(10**9) else end, step)]
            x = call.graph.call(torch.index_select, x, axis, order.astype(np.int64))
            continue
        start, end, _ = slice(start, end).indices(max(0, x.shape[axis]))
        x = part(call, x, axis, start, end, step)
    return x


@_register("Split")
def _split(call: Call) -> Any:
    x = call.traced()
    axis, count = call.attribute("axis", 0) % x.rank, len(call.node.output)
    sizes = call.integers(1, "split")
    if sizes is None:
        each = -(-x.shape[axis] // count)
        sizes = [min(each, x.shape[axis] - each * k) for k in range(count)]
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    return [part(call, x, axis, start, start + size) for start, size in zip(starts, sizes)]


@_register("Gather")
def _gather(call: Call) -> Value:
    x = call.traced()
    axis = call.attribute("axis", 0) % x.rank
    size = x.shape[axis]
    if size == -1:
        return _gather_in_each(call, x, axis)
    places = call.constant(1)
    places = np.where(places < 0, places + size, places).astype(np.int64)
    if places.ndim == 0:
        return call.graph.call(torch.select, x, axis, int(places))
    flat = places.reshape(-1)
    if flat.size and bool(np.array_equal(flat, np.arange(flat[0], flat[0] + flat.size))):
        found = part(call, x, axis, int(flat[0]), int(flat[-1]) + 1)
    else:
        found = call.graph.call(torch.index_select, x, axis, flat)
    return reshape(call, found, [*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]])


def _gather_in_each(call: Call, x: Traced, axis: int) -> Value:
    """Gather from a batch that was flattened, by places that are the same in each image (torch's as_strided)."""
    places = call.inputs[1]
    if axis != 0 or not isinstance(places, Known):
        raise UnsupportedError("it takes images out of a batch")
    written = call.fixed_batch if places.is_fixed and call.fixed_batch else BATCHES[0]
    found, each = places.values[0], x.examples[0].shape[0] // BATCHES[0]
    inner = found[0] if found.ndim else found
    steps = np.arange(written).reshape(-1, *(1,) * (found.ndim - 1)) * each
    if (
        found.shape[:1] != (written,)
        or not np.array_equal(found, inner + steps)
        or not 0 <= inner.min() <= inner.max() < each
    ):
        raise UnsupportedError("it takes images out of a batch")
    rows = reshape(call, x, [-1, each, *x.shape[1:]])
    if not np.array_equal(inner.reshape(-1), np.arange(each)):
        rows = call.graph.call(torch.index_select, rows, 1, inner.reshape(-1).astype(np.int64))
    return reshape(call, rows, [-1, *inner.shape, *x.shape[1:]])


@_register("Resize", "Upsample")
def _resize(call: Call) -> Value:
    x, mode = call.traced(), call.attribute("mode", "nearest")
    if x.rank != 4:
        raise UnsupportedError(f"it is over {x.rank} dimensions")
    old = call.opset < 11
    sizes, scales = (None if old else call.inputs[3] if len(call.inputs) > 3 else None), call.optional(1 if old else 2)
    if isinstance(sizes, Known):
        target = [int(v) for v in sizes.values[0][2:]]
    else:
        factors = scales if scales is not None and scales.size else np.array(call.attribute("scales"))
        target = [math.floor(side * float(factor)) for side, factor in zip(x.shape[2:], factors[2:])]
    if target == list(x.shape[2:]):
        return x
    how = call.attribute("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest":
        return call.graph.call(functional.interpolate, x, target, None, "nearest")
    if mode == "linear" and how in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return call.graph.call(functional.interpolate, x, target, None, "bilinear", how == "align_corners")
    raise UnsupportedError(f"its mode is {mode}, {how}")


@_register("Pad")
def _pad(call: Call) -> Value:
    x, mode = call.traced(), call.attribute("mode", "constant")
    pads, axes = call.integers(1, "pads"), call.integers(3, "")
    if pads is None:
        raise UnsupportedError("it has no sizes")
    value = call.optional(2)
    fill = float(call.attribute("value", 0.0)) if value is None else float(value.reshape(-1)[0])
    begin, end = [0] * x.rank, [0] * x.rank
    for k, axis in enumerate(a % x.rank for a in (axes if axes is not None else range(x.rank))):
        begin[axis], end[axis] = pads[k], pads[k + len(pads) // 2]
    if not any((*begin, *end)):
        return x
    kept = next(k for k in range(x.rank) if begin[k] or end[k])
    sizes = _torch_pads(begin[kept:], end[kept:])
    if begin[x.shape.index(-1)] or end[x.shape.index(-1)] or mode not in ("constant", "reflect", "edge"):
        raise UnsupportedError(f"it pads the batch, or in the mode {mode!r}")
    if mode == "constant":
        return call.graph.call(functional.pad, x, sizes, **({"value": fill} if fill else {}))
    sizes = (*sizes, *(0,) * (2 * (x.rank - 2) - len(sizes)))
    return call.graph.call(functional.pad, x, sizes, mode={"reflect": "reflect", "edge": "replicate"}[mode])


@_register("DepthToSpace", "SpaceToDepth")
def _blocks(call: Call) -> Value:
    x, block = call.traced(), call.attribute("blocksize")
    _, channels, height, width = x.shape
    if call.node.op_type == "SpaceToDepth":
        parts = reshape(call, x, [-1, channels, height // block, block, width // block, block])
        moved = call.graph.call(torch.permute, parts, (0, 3, 5, 1, 2, 4))
        return reshape(call, moved, [-1, channels * block**2, height // block, width // block])
    first = call.attribute("mode", "DCR") == "DCR"
    inner = [block, block, channels // block**2] if first else [channels // block**2, block, block]
    parts = reshape(call, x, [-1, *inner, height, width])
    moved = call.graph.call(torch.permute, parts, (0, 3, 4, 1, 5, 2) if first else (0, 1, 4, 2, 5, 3))
    return reshape(call, moved, [-1, channels // block**2, height * block, width * block])
