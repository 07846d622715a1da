"""Rewriting of an exported program (ATen operators) into a plain graph of modules and ordinary functions.

One function per ATen operator, found by its name in `_RULES`. What does not depend on the image is computed here
and becomes a constant; sizes that depend on the batch become -1.
"""

from __future__ import annotations

import itertools
import math
import operator
import re
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from edgekit.errors import EdgekitError

INPUT = "image"
BATCH = -1  # the size of a dimension that depends on the batch
_Rule = Callable[..., Any]
_RULES: dict[str, _Rule] = {}
# Operators that give their input back in inference.
_SAME = (
    *("alias", "contiguous", "clone", "detach", "dropout", "feature_dropout", "alpha_dropout", "lift_fresh_copy"),
    *("to", "_to_copy", "type_as", "feature_alpha_dropout", "lift_fresh", "native_dropout", "requires_grad_"),
)
# Operators that give another view of their input, which a change in place would change too.
_VIEWS = (
    *_SAME,
    *("view", "reshape", "flatten", "slice", "select", "transpose", "permute", "expand", "squeeze"),
    *("unsqueeze", "split", "split_with_sizes", "chunk", "unbind", "narrow", "unflatten", "t", "expand_as"),
)
_NOT_WRITABLE = re.compile(r"[^\w -]", re.ASCII)  # in the name of a module; the reader refuses other names
_INLINED = ("wrap_with_autocast", "wrap_with_set_grad_enabled")
_UNARY = {
    **{"abs": torch.abs, "neg": operator.neg, "exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt},
    **{"rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal, "sin": torch.sin, "cos": torch.cos, "erf": torch.erf},
}
_ACTIVATIONS: dict[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "hardsigmoid": nn.Hardsigmoid,
    "hardswish": nn.Hardswish,
    "leaky_relu": lambda slope=0.01: nn.LeakyReLU(slope),
    "elu": lambda alpha=1.0, scale=1, input_scale=1: nn.ELU(alpha),
    "softplus": lambda beta=1, threshold=20: nn.Softplus(float(beta), float(threshold)),
    "gelu": lambda approximate="none": nn.GELU(approximate),
}


class Symbol:
    """A number that depends on the batch size. `at_one`: its value for a batch of 1."""

    def __init__(self, at_one: Any) -> None:
        self.at_one = at_one


class Repeated:
    """A constant that is repeated for each image. `value`: for a batch of 1."""

    def __init__(self, value: torch.Tensor) -> None:
        self.value = value


class NoRule(EdgekitError):
    """An operator that edgekit has no rule for. `target`: the operator."""

    def __init__(self, message: str, target: Any) -> None:
        super().__init__(message)
        self.target = target


def name_of(node: fx.Node) -> str:
    """Return the name of an ATen operator without its overload and the mark of a change in place."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return str(getattr(node.target, "__name__", node.target))
    name = str(schema.name).rpartition("::")[2]
    return name if name.startswith("__") or name == "requires_grad_" else name.rstrip("_")


def changes_in_place(graph: fx.Graph) -> bool:
    """Return whether an operator changes a tensor that something else sees as well."""
    for node in graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or not schema.is_mutable:
            continue
        changed = node.args[0]
        if not isinstance(changed, fx.Node) or len(changed.users) > 1 or name_of(changed) in _VIEWS:
            return True
        if changed.op != "call_function" or name_of(changed) == "getitem":
            return True
    return False


def size_of(size: Any) -> int:
    """Return a size of a tensor, `BATCH` if it depends on the batch."""
    return BATCH if isinstance(size, torch.SymInt) else int(size)


def _at_one(value: Any) -> Any:
    """Return a number that depends on the batch, for a batch of 1."""
    expression = value.node.expr
    found = expression.subs(dict.fromkeys(expression.free_symbols, 1))
    if isinstance(value, torch.SymInt):
        return int(found)
    return bool(found) if isinstance(value, torch.SymBool) else float(found)


def _slices(dim: int, item: slice | int) -> tuple[slice | int, ...]:
    return (*(slice(None, None, None),) * dim, item)


class Builder:
    """Rewrites one exported program.

    Args:
        model: the network that was exported, for the names of its modules.
    """

    def __init__(self, model: nn.Module) -> None:
        self.graph = fx.Graph()
        self.contents: dict[str, nn.Module | torch.Tensor] = {}
        self.leaves = {name for name, module in model.named_modules() if not list(module.children())}
        self.names: dict[int, str] = {}  # id of a parameter or buffer -> its name
        self.kept: list[torch.Tensor] = []  # whose ids are in use
        self.places: dict[tuple[Any, ...], str] = {}  # what a module was made of -> its name
        self.node: fx.Node | None = None

    # Reading

    def shape(self, node: Any = None) -> tuple[int, ...]:
        """Return the shape of the tensor of an exported node, with `BATCH`; default: of the current one."""
        assert self.node is not None
        value = (self.node if node is None else node).meta["val"]
        return tuple(size_of(size) for size in value.shape)

    def shape_of(self, value: Any) -> tuple[int, ...]:
        """Return the shape of a tensor of the plain graph, or of a constant."""
        if isinstance(value, fx.Node):
            return tuple(value.meta["shape"])
        if isinstance(value, Repeated):
            return (BATCH, *value.value.shape[1:])
        return tuple(value.shape) if isinstance(value, torch.Tensor) else ()

    def fail(self, why: str) -> EdgekitError:
        """Return the error for the current operator."""
        assert self.node is not None
        module = self.module_path()
        where = f" in {module}" if module else ""
        return EdgekitError(f"edgekit cannot rewrite the operator {name_of(self.node)}{where}: {why}")

    # Writing

    def call(self, function: Any, *args: Any, shape: tuple[int, ...] | None = None, name: str | None = None) -> fx.Node:
        """Add a call of a function."""
        node = self.graph.call_function(function, tuple(self.argument(arg) for arg in args))
        if name:
            node.name = self.graph._graph_namespace.create_name(name, node)
        return self._finish(node, shape)

    def module(self, module: nn.Module, source: Any, name: str = "", shape: tuple[int, ...] | None = None) -> fx.Node:
        """Add a call of a module.

        Args:
            name: its name in the network; default: that of the module that the operator comes from.
        """
        tensors = (*module.parameters(), *module.buffers())
        key = (name, self.module_path(), repr(module), *(tensor.data_ptr() for tensor in tensors))
        if key not in self.places:
            self.places[key] = self._place(name or self._own_name(), module.eval())
        return self._finish(self.graph.call_module(self.places[key], (self.argument(source),)), shape)

    def _finish(self, node: fx.Node, shape: tuple[int, ...] | None) -> fx.Node:
        assert self.node is not None
        node.meta["shape"] = self.shape() if shape is None else shape
        if path := self.module_path():
            node.meta["nn_module_stack"] = {path: (path, "")}
        return node

    def module_path(self) -> str:
        """Return the path of the module whose forward calls the current operator; "" for the network itself."""
        assert self.node is not None
        callers = list((self.node.meta.get("nn_module_stack") or {}).values())
        return str(callers[-1][0]).partition("@")[0] if callers else ""

    def _own_name(self) -> str:
        assert self.node is not None
        path = self.module_path()
        if path in self.leaves and path not in self.contents:
            return path
        return f"{path}.{name_of(self.node)}".lstrip(".")

    def _place(self, name: str, content: nn.Module | torch.Tensor) -> str:
        """Keep a module or constant under `name`, or under a similar one that is free."""
        name = ".".join(_writable(part) for part in name.split("."))
        parts = name.split(".")
        for count in range(1, len(parts)):  # a module within another that is a leaf here
            if ".".join(parts[:count]) in self.contents:
                name = ".".join([*parts[: count - 1], "_".join(parts[count - 1 :])])
                break
        wanted, number = name, 1
        while name in self.contents or any(other.startswith(f"{name}.") for other in self.contents):
            name, number = f"{wanted}_{number}", number + 1
        self.contents[name] = content
        return name

    def argument(self, value: Any) -> Any:
        """Return a value as an argument of a node: constants become buffers, numbers are taken out of tensors."""
        if isinstance(value, Repeated):
            return self._constant(value.value)
        if isinstance(value, torch.Tensor):
            return value.item() if value.ndim == 0 else self._constant(value)
        if isinstance(value, Symbol):
            raise self.fail("it computes with the number of images in a batch")
        if isinstance(value, list | tuple):
            return type(value)(self.argument(item) for item in value)
        return value

    def _constant(self, value: torch.Tensor) -> fx.Node:
        own = self.names.get(id(value), "")
        key = ("constant", id(value))
        if key not in self.places:
            kept = value.detach().clone().contiguous()
            kept = kept.float() if kept.is_floating_point() else kept
            self.places[key] = self._place(own or f"{self._own_name()}_constant", kept)
            self.kept.append(value)
        node = self.graph.get_attr(self.places[key])
        node.meta["shape"] = tuple(value.shape)
        return node

    # Walking

    def run(self, graph: fx.Graph, inputs: list[Any], owner: nn.Module) -> list[Any]:
        """Rewrite a graph for the values of its placeholders; return its outputs."""
        values: dict[fx.Node, Any] = {}
        given = iter(inputs)
        for node in graph.nodes:
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "get_attr":
                values[node] = operator.attrgetter(str(node.target))(owner)
            elif node.op == "output":
                return list(fx.node.map_arg(node.args[0], lambda n: values[n]))
            else:
                self.node = node
                values[node] = self._call(node, lambda n: values[n])
        raise AssertionError("a graph has an output")

    def _call(self, node: fx.Node, value_of: Callable[[fx.Node], Any]) -> Any:
        args: Any = fx.node.map_arg(node.args, value_of)
        kwargs: Any = fx.node.map_arg(node.kwargs, value_of)
        name = name_of(node)
        if name in _INLINED:
            place = next(k for k, arg in enumerate(args) if isinstance(arg, fx.GraphModule))
            return self.run(args[place].graph, list(args[place + 1 :]), args[place])
        found = node.meta.get("val")
        if isinstance(found, torch.SymInt | torch.SymFloat | torch.SymBool):
            return Symbol(_at_one(found))
        if name.startswith("_assert") or name.startswith("sym_constrain"):
            return None
        used = list(_flat((args, kwargs)))
        if not any(isinstance(value, fx.Node) for value in used):
            return self._compute(node, args, kwargs, used)
        if name == "getitem":
            return args[0][args[1]]
        if name in _SAME:
            return self._same(args[0], found)
        if name not in _RULES:
            raise NoRule(self.fail("edgekit has no rule for it").message, node.target)
        return _RULES[name](self, *args, **kwargs)

    def _same(self, value: fx.Node, found: Any) -> Any:
        if isinstance(found, tuple | list):  # native_dropout
            return [value, None]
        if not found.is_floating_point():
            raise self.fail("it turns what depends on the image into integers")
        return value

    def _compute(self, node: fx.Node, args: Any, kwargs: Any, used: list[Any]) -> Any:
        """Run an operator that does not depend on the image."""
        at_one = any(isinstance(value, Symbol | Repeated) for value in used)
        args, kwargs = _for_one(args), _for_one(kwargs)
        result = node.target(*args, **kwargs) if callable(node.target) else None
        if isinstance(result, torch.Tensor):
            result = result.cpu()
            for value in used:  # a view or copy of a parameter keeps its name
                if isinstance(value, torch.Tensor) and id(value) in self.names and name_of(node) in _SAME:
                    self.names[id(result)] = self.names[id(value)]
            self.kept.append(result)
        if not at_one:
            return result
        return _repeated(result, node.meta.get("val"))


_TAKEN = {*vars(nn.Module()), *vars(fx.GraphModule(nn.Module(), fx.Graph()))}


def is_reserved(name: str) -> bool:
    """Return whether a module cannot have this name in a graph, because it is an attribute of every graph."""
    return name in _TAKEN or hasattr(fx.GraphModule, name)


def _writable(part: str) -> str:
    """Return a part of a dotted name as documents can hold it: short, ASCII, and not an attribute of every graph."""
    part = _NOT_WRITABLE.sub("_", part)[:100]
    if part.startswith("__") or not part.strip("_"):
        part = f"x{part}"
    return f"{part}_" if is_reserved(part) else part


def _flat(value: Any) -> Iterable[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, dict):
        yield from _flat(list(value.values()))
    else:
        yield value


def _for_one(value: Any) -> Any:
    """Return arguments for a batch of 1."""
    if isinstance(value, list | tuple):
        return type(value)(_for_one(item) for item in value)
    if isinstance(value, dict):
        return {key: _for_one(item) for key, item in value.items()}
    if isinstance(value, Symbol):
        return value.at_one
    return value.value if isinstance(value, Repeated) else value


def _repeated(result: Any, found: Any) -> Any:
    """Return a result for a batch of 1 as one for any batch."""
    if isinstance(result, list | tuple):
        return [_repeated(item, other) for item, other in zip(result, found, strict=True)]
    if isinstance(result, torch.Tensor) and any(isinstance(size, torch.SymInt) for size in found.shape):
        return Repeated(result)
    return result


def rule(*names: str) -> Callable[[_Rule], _Rule]:
    """Register a rule for ATen operators."""

    def register(function: _Rule) -> _Rule:
        _RULES.update(dict.fromkeys(names, function))
        return function

    return register


# Layers


def _weights(b: Builder, weight: Any, what: str) -> str:
    """Return the name of the module that owns `weight`, "" if it has none."""
    if not isinstance(weight, torch.Tensor):
        raise b.fail(f"the {what} depend on the image")
    name = b.names.get(id(weight), "")
    return name.rpartition(".")[0] if name.endswith(".weight") else name


def _filled(module: nn.Module, **tensors: torch.Tensor | None) -> nn.Module:
    """Put tensors into a module, as they are."""
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        tensor = tensor.detach().float()
        if name in module._buffers:
            module._buffers[name] = tensor
        else:
            module.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
    return module


@rule("conv2d")
def _conv2d(
    b: Builder,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> fx.Node:
    name = _weights(b, weight, "weights")
    outputs, inputs, *kernel = weight.shape
    with torch.device("meta"):
        conv = nn.Conv2d(
            inputs * groups,
            outputs,
            tuple(kernel),
            _pair(stride),
            padding if isinstance(padding, str) else _pair(padding),
            _pair(dilation),
            groups,
            bias is not None,
        )
    return b.module(_filled(conv, weight=weight, bias=bias), x, name)


def _pair(sizes: Any) -> Any:
    return (sizes[0], sizes[-1]) if isinstance(sizes, list | tuple) else (sizes, sizes)


@rule("conv1d")
def _conv1d(
    b: Builder,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> fx.Node:
    _weights(b, weight, "weights")
    batch, channels, length = b.shape_of(x)
    x = _to_shape(b, x, (batch, channels, 1, length))
    wide = weight.unsqueeze(2)
    b.names[id(wide)] = b.names.get(id(weight), "")
    b.kept.append(wide)
    result = b.shape()
    stride, dilation = (1, _pair(stride)[0]), (1, _pair(dilation)[0])
    padding = padding if isinstance(padding, str) else (0, _pair(padding)[0])
    node = _conv2d(b, x, wide, bias, stride, padding, dilation, groups)
    node.meta["shape"] = (result[0], result[1], 1, result[2])
    return _to_shape(b, node, result)


@rule("linear")
def _linear(b: Builder, x: Any, weight: Any, bias: Any = None) -> fx.Node:
    if isinstance(weight, fx.Node):
        turned = _permute(b, weight, (1, 0))
        node = b.call(torch.matmul, x, turned)
        return node if bias is None else b.call(operator.add, node, bias)
    name = _weights(b, weight, "weights")
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    return b.module(_filled(linear, weight=weight, bias=bias), x, name)


@rule("addmm")
def _addmm(b: Builder, bias: Any, x: Any, weight: Any) -> fx.Node:
    return _linear(b, x, _turned(b, weight), bias)


def _turned(b: Builder, weight: torch.Tensor) -> torch.Tensor:
    """Return the transposed weight of a product under the name of the weight."""
    turned = weight.t().contiguous()
    b.names[id(turned)] = b.names.get(id(weight), "")
    b.kept.append(turned)
    return turned


@rule("matmul", "bmm", "mm", "__matmul__")
def _matmul(b: Builder, x: Any, y: Any) -> fx.Node:
    if isinstance(y, torch.Tensor) and y.ndim == 2 and isinstance(x, fx.Node):
        return _linear(b, x, _turned(b, y))
    return b.call(torch.matmul, x, y)


@rule("baddbmm")
def _baddbmm(b: Builder, added: Any, x: Any, y: Any, beta: float = 1, alpha: float = 1) -> fx.Node:
    product = b.call(torch.matmul, x, y)
    product = product if alpha == 1 else b.call(operator.mul, product, float(alpha))
    return product if beta == 0 else b.call(operator.add, product, _scaled(b, added, beta))


def _scaled(b: Builder, value: Any, factor: float) -> Any:
    if factor == 1:
        return value
    return value * factor if not isinstance(value, fx.Node) else b.call(operator.mul, value, float(factor))


@rule("batch_norm")
def _batch_norm(
    b: Builder,
    x: Any,
    weight: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    training: bool,
    momentum: float,
    eps: float,
    *_: Any,
) -> fx.Node:
    if training or mean is None:
        raise b.fail("it uses the statistics of the batch")
    name = next((b.names[id(t)].rpartition(".")[0] for t in (mean, weight) if id(t) in b.names), "")
    kind = nn.BatchNorm2d if len(b.shape_of(x)) == 4 else nn.BatchNorm1d
    ones, zeros = torch.ones_like(mean), torch.zeros_like(mean)
    norm = _filled(
        kind(len(mean), eps),
        weight=ones if weight is None else weight,
        bias=zeros if bias is None else bias,
        running_mean=mean,
        running_var=variance,
    )
    return b.module(norm, x, name, b.shape_of(x))


@rule("_native_batch_norm_legit_no_training")
def _native_batch_norm(
    b: Builder, x: Any, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, eps: float
) -> Any:
    return [_batch_norm(b, x, weight, bias, mean, variance, False, momentum, eps), None, None]


@rule("layer_norm")
def _layer_norm(
    b: Builder, x: Any, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> fx.Node:
    name = "" if weight is None else _weights(b, weight, "weights")
    with torch.device("meta"):
        norm = nn.LayerNorm(list(shape), eps, weight is not None, bias is not None)
    return b.module(_filled(norm, weight=weight, bias=bias), x, name)


@rule("group_norm")
def _group_norm(b: Builder, x: Any, groups: int, weight: Any = None, bias: Any = None, *more: Any) -> fx.Node:
    name, channels = "" if weight is None else _weights(b, weight, "weights"), b.shape_of(x)[1]
    weight = torch.ones(channels) if weight is None else weight
    bias = torch.zeros(channels) if bias is None else bias
    norm = _filled(nn.GroupNorm(groups, channels, more[0] if more else 1e-5), weight=weight, bias=bias)
    return b.module(norm, x, name)


@rule("rms_norm")
def _rms_norm(b: Builder, x: Any, shape: Any, weight: Any = None, eps: float | None = None) -> fx.Node:
    dims, whole = list(range(len(b.shape_of(x)) - len(shape), len(b.shape_of(x)))), b.shape_of(x)
    squares = b.call(
        torch.mean, b.call(operator.mul, x, x), dims, True, shape=(*whole[: -len(shape)], *[1] * len(shape))
    )
    small = torch.finfo(torch.float32).eps if eps is None else eps
    root = b.call(torch.rsqrt, b.call(operator.add, squares, small, shape=squares.meta["shape"]))
    root.meta["shape"] = squares.meta["shape"]
    normal = b.call(operator.mul, x, root)
    return normal if weight is None else b.call(operator.mul, normal, weight)


@rule("prelu")
def _prelu(b: Builder, x: Any, weight: Any) -> fx.Node:
    name = _weights(b, weight, "slopes")
    return b.module(_filled(nn.PReLU(weight.numel()), weight=weight), x, name)


# Activations


def _activation(name: str) -> _Rule:
    def add(b: Builder, x: Any, *args: Any, **kwargs: Any) -> fx.Node:
        return b.module(_ACTIVATIONS[name](*args, **kwargs), x, shape=b.shape_of(x))

    return add


for _name in _ACTIVATIONS:
    rule(_name)(_activation(_name))


@rule("silu")
def _silu(b: Builder, x: Any) -> fx.Node:
    return b.call(operator.mul, x, b.call(torch.sigmoid, x))


@rule("mish")
def _mish(b: Builder, x: Any) -> fx.Node:
    return b.call(operator.mul, x, b.module(nn.Tanh(), b.module(nn.Softplus(), x)))


@rule("hardtanh", "clamp", "clip")
def _clamp(b: Builder, x: Any, low: Any = None, high: Any = None, **named: Any) -> fx.Node:
    low, high = named.get("min", named.get("min_val", low)), named.get("max", named.get("max_val", high))
    if name_of(b.node) == "hardtanh":  # type: ignore[arg-type]
        low, high = -1.0 if low is None else low, 1.0 if high is None else high
    low, high = (v.item() if isinstance(v, torch.Tensor) else v for v in (low, high))
    if (low, high) == (0, 6):
        return b.module(nn.ReLU6(), x)
    if low is not None and high is not None:
        return b.module(nn.Hardtanh(float(low), float(high)), x)
    if low == 0:
        return b.module(nn.ReLU(), x)
    return b.call(torch.clamp, x, low, high)


@rule("clamp_min")
def _clamp_min(b: Builder, x: Any, low: Any) -> fx.Node:
    return _clamp(b, x, low)


@rule("clamp_max")
def _clamp_max(b: Builder, x: Any, high: Any) -> fx.Node:
    return _clamp(b, x, None, high)


def _unary(function: Any) -> _Rule:
    return lambda b, x: b.call(function, x)


for _name, _function in _UNARY.items():
    rule(_name)(_unary(_function))


# Arithmetic


def _binary(b: Builder, function: Any, x: Any, y: Any) -> fx.Node:
    # A tensor that was only spread over the shape of the other side is spread by the operator itself.
    shape, sides = b.shape(), [x, y]
    for place, side in enumerate(sides):
        if isinstance(side, fx.Node) and side.target is torch.broadcast_to:
            narrow, other = side.args[0], b.shape_of(sides[1 - place])
            if isinstance(narrow, fx.Node) and other == shape:
                sides[place] = narrow
    return b.call(function, *sides)


@rule("add")
def _add(b: Builder, x: Any, y: Any, alpha: float = 1) -> fx.Node:
    y = _scaled(b, y, alpha)
    for one, other in ((x, y), (y, x)):  # the class token is added to padding: add it to the positions instead
        token = one.meta.get("token") if isinstance(one, fx.Node) else None
        if token is not None and isinstance(other, torch.Tensor | Repeated):
            value = other.value if isinstance(other, Repeated) else other
            if torch.broadcast_shapes(value.shape, token.shape)[1:] == one.meta["shape"][1:]:
                return b.call(operator.add, one.args[0], value + token)
    return _binary(b, operator.add, x, y)


@rule("sub", "subtract")
def _sub(b: Builder, x: Any, y: Any, alpha: float = 1) -> fx.Node:
    return _binary(b, operator.sub, x, _scaled(b, y, alpha))


@rule("rsub")
def _rsub(b: Builder, x: Any, y: Any, alpha: float = 1) -> fx.Node:
    return _binary(b, operator.sub, y, _scaled(b, x, alpha))


@rule("mul", "multiply")
def _mul(b: Builder, x: Any, y: Any) -> fx.Node:
    return _binary(b, operator.mul, x, y)


@rule("div", "divide", "true_divide")
def _div(b: Builder, x: Any, y: Any, rounding_mode: str | None = None) -> fx.Node:
    if rounding_mode is not None:
        raise b.fail("it rounds what depends on the image")
    return _binary(b, operator.truediv, x, y)


@rule("pow")
def _pow(b: Builder, x: Any, power: Any) -> fx.Node:
    power = power.item() if isinstance(power, torch.Tensor) and power.ndim == 0 else power
    if power == 2:
        return b.call(operator.mul, x, x)
    if power == 0.5:
        return b.call(torch.sqrt, x)
    return b.call(torch.pow, x, float(power) if isinstance(power, int) else power)


@rule("maximum")
def _maximum(b: Builder, x: Any, y: Any) -> fx.Node:
    return _binary(b, torch.maximum, x, y)


@rule("minimum")
def _minimum(b: Builder, x: Any, y: Any) -> fx.Node:
    return _binary(b, torch.minimum, x, y)


@rule("where")
def _where(b: Builder, condition: Any, x: Any, y: Any) -> fx.Node:
    if not isinstance(condition, torch.Tensor):
        raise b.fail("the choice depends on the image")
    return b.call(torch.where, condition, x, y)


@rule("masked_fill")
def _masked_fill(b: Builder, x: Any, mask: Any, value: Any) -> fx.Node:
    return _where(b, mask, value, x)


@rule("softmax", "_softmax")
def _softmax(b: Builder, x: Any, dim: int, *_: Any) -> fx.Node:
    return b.call(torch.softmax, x, dim % len(b.shape()))


@rule("log_softmax", "_log_softmax")
def _log_softmax(b: Builder, x: Any, dim: int, *_: Any) -> fx.Node:
    return b.call(torch.log_softmax, x, dim % len(b.shape()))


@rule("glu")
def _glu(b: Builder, x: Any, dim: int = -1) -> fx.Node:
    first, gate = _chunk(b, x, 2, dim)
    return b.call(operator.mul, first, b.call(torch.sigmoid, gate))


@rule("scaled_dot_product_attention")
def _attention(
    b: Builder,
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> fx.Node:
    if enable_gqa:
        raise b.fail("queries share their keys")
    q, k = b.shape_of(query), b.shape_of(key)
    scores = (*b.shape()[:-1], k[-2])
    if is_causal:
        mask = torch.ones(q[-2], k[-2], dtype=torch.bool).tril()
    factor = 1 / math.sqrt(q[-1]) if scale is None else scale
    turned = _permute(b, key, (*range(len(k) - 2), len(k) - 1, len(k) - 2))
    query = _scaled_like(b, query, factor)
    product = b.call(torch.matmul, query, turned, shape=scores)
    if isinstance(mask, torch.Tensor | Repeated):
        mask = mask.value if isinstance(mask, Repeated) else mask
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))
    if mask is not None:
        product = b.call(operator.add, product, mask, shape=scores)
    weights = b.call(torch.softmax, product, len(scores) - 1, shape=scores)
    return b.call(torch.matmul, weights, value)


def _scaled_like(b: Builder, value: Any, factor: float) -> Any:
    if isinstance(value, fx.Node):
        return b.call(operator.mul, value, float(factor), shape=b.shape_of(value))
    return Repeated(value.value * factor) if isinstance(value, Repeated) else value * factor


@rule("einsum")
def _einsum(b: Builder, equation: str, operands: Any, *_: Any, **__: Any) -> fx.Node:
    equation = equation.replace(" ", "")
    inputs, arrow, output = equation.partition("->")
    letters = inputs.split(",")
    if len(letters) != 2 or not arrow or "." in equation or any(len(set(part)) != len(part) for part in letters):
        raise b.fail(f"edgekit has no rule for the equation {equation}")
    one, two = letters
    sizes = {k: s for part, x in zip(letters, operands) for k, s in zip(part, b.shape_of(x))}
    both = [k for k in output if k in one and k in two]
    first, second = ([k for k in output if k in part and k not in both] for part in letters)
    inner = [k for k in one if k in two and k not in output]
    if set(one + two) != set(both + first + second + inner):
        raise b.fail(f"edgekit has no rule for the equation {equation}")
    lead, parts = tuple(sizes[k] for k in both), []
    for letter, x, order, split in (
        (one, operands[0], [*both, *first, *inner], (first, inner)),
        (two, operands[1], [*both, *inner, *second], (inner, second)),
    ):
        turned = _permute(b, x, tuple(letter.index(k) for k in order))
        parts.append(_to_shape(b, turned, (*lead, *(math.prod(sizes[k] for k in names) for names in split))))
    product = b.call(torch.matmul, *parts, shape=(*b.shape_of(parts[0])[:-1], b.shape_of(parts[1])[-1]))
    found = [*both, *first, *second]
    product = _to_shape(b, product, tuple(sizes[k] for k in found))
    return _permute(b, product, tuple(found.index(k) for k in output))


# Pools


@rule("max_pool2d")
def _max_pool2d(
    b: Builder,
    x: Any,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> fx.Node:
    pool = nn.MaxPool2d(_side(kernel), _side(stride or kernel), _side(padding), _side(dilation), False, ceil_mode)
    return b.module(pool, x)


@rule("max_pool2d_with_indices")
def _max_pool2d_with_indices(b: Builder, x: Any, *args: Any) -> Any:
    assert b.node is not None
    shape = tuple(size_of(size) for size in b.node.meta["val"][0].shape)
    given: list[Any] = [*args, *(None, None, 0, 1, False)[len(args) :]]
    kernel, stride, padding, dilation, ceil = given
    pool = nn.MaxPool2d(_side(kernel), _side(stride or kernel), _side(padding), _side(dilation), False, ceil)
    return [b.module(pool, x, shape=shape), None]


@rule("avg_pool2d")
def _avg_pool2d(
    b: Builder,
    x: Any,
    kernel: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> fx.Node:
    sizes = _side(kernel), _side(stride or kernel), _side(padding)
    return b.module(nn.AvgPool2d(*sizes, ceil_mode, count_include_pad, divisor_override), x)


def _side(sizes: Any) -> Any:
    """Return one number for equal sizes, else a tuple."""
    if not isinstance(sizes, list | tuple):
        return sizes
    return sizes[0] if len(set(sizes)) == 1 else tuple(sizes)


@rule("adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def _adaptive_avg_pool2d(b: Builder, x: Any, size: Any) -> fx.Node:
    height, width = b.shape_of(x)[-2:]
    size = [side or whole for side, whole in zip(size, (height, width))]
    if size == [height, width]:
        return x
    if size != [1, 1] and height % size[0] == 0 and width % size[1] == 0:
        return b.module(nn.AvgPool2d(_side([height // size[0], width // size[1]])), x)
    return _pooled(b, x, b.shape()) if size == [1, 1] else b.module(nn.AdaptiveAvgPool2d(_side(size)), x)


def _pooled(b: Builder, x: Any, shape: tuple[int, ...]) -> fx.Node:
    """Return the mean over height and width; of a permuted tensor exporters would write the module as arithmetic."""
    assert b.node is not None
    source: Any = b.node.args[0]
    if source.meta["val"].stride()[1] == 1:
        return b.call(torch.mean, x, [2, 3], True, shape=shape)
    return b.module(nn.AdaptiveAvgPool2d(1), x, shape=shape)


@rule("adaptive_avg_pool1d")
def _adaptive_avg_pool1d(b: Builder, x: Any, size: Any) -> fx.Node:
    if list(size) != [1]:
        raise b.fail("edgekit has a rule for an output of one position only")
    return b.call(torch.mean, x, [2], True)


@rule("adaptive_max_pool2d")
def _adaptive_max_pool2d(b: Builder, x: Any, size: Any) -> Any:
    if list(size) != [1, 1]:
        raise b.fail("edgekit has a rule for an output of one position only")
    return [b.call(torch.amax, x, [2, 3], True, shape=(*b.shape_of(x)[:2], 1, 1)), None]


def _dims(b: Builder, x: Any, dims: Any) -> list[int]:
    """Return dimensions in order, without that of the batch being one of them."""
    count = len(b.shape_of(x))
    dims = range(count) if dims is None or dims == [] else dims if isinstance(dims, list | tuple) else [dims]
    found = sorted(dim % count for dim in dims)
    if any(b.shape_of(x)[dim] == BATCH for dim in found):
        raise b.fail("it mixes the images of a batch")
    return found


@rule("mean")
def _mean(b: Builder, x: Any, dims: Any = None, keepdim: bool = False, *_: Any, **__: Any) -> fx.Node:
    found, shape = _dims(b, x, dims), b.shape_of(x)
    if len(shape) == 4 and found == [2, 3]:
        pooled = _pooled(b, x, (*shape[:2], 1, 1))
        return pooled if keepdim else b.call(torch.flatten, pooled, 1)
    return b.call(torch.mean, x, found, keepdim)


def _reduction(function: Any) -> _Rule:
    return lambda b, x, dims=None, keepdim=False, *_, **__: b.call(function, x, _dims(b, x, dims), keepdim)


rule("sum")(_reduction(torch.sum))
rule("amax")(_reduction(torch.amax))
rule("amin")(_reduction(torch.amin))


@rule("max")
def _max(b: Builder, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    if isinstance(dim, fx.Node | torch.Tensor):
        return _binary(b, torch.maximum, x, dim)
    assert b.node is not None
    shape = tuple(size_of(size) for size in b.node.meta["val"][0].shape)
    return [b.call(torch.amax, x, _dims(b, x, dim), keepdim, shape=shape), None]


def _variance(b: Builder, x: Any, dims: Any, correction: Any, keepdim: bool, shape: tuple[int, ...]) -> Any:
    """Return mean and variance."""
    found, whole = _dims(b, x, dims), b.shape_of(x)
    narrow = tuple(1 if place in found else side for place, side in enumerate(whole))
    mean = b.call(torch.mean, x, found, True, shape=narrow)
    moved = b.call(operator.sub, x, mean, shape=whole)
    squares = b.call(torch.mean, b.call(operator.mul, moved, moved, shape=whole), found, True, shape=narrow)
    count = math.prod(whole[dim] for dim in found)
    variance = squares
    if correction:
        variance = b.call(operator.mul, squares, count / (count - correction), shape=narrow)
    if not keepdim:
        return _to_shape(b, variance, shape), _to_shape(b, mean, shape)
    return variance, mean


def _dims_and_correction(dims: Any, unbiased: Any, correction: Any) -> tuple[Any, Any]:
    """Return the arguments of the overloads of ``var``, the first of which has no dimensions."""
    if isinstance(dims, bool):
        dims, unbiased = None, dims
    return dims, (1 if correction is None else correction) if unbiased is None else int(unbiased)


@rule("var")
def _var(
    b: Builder, x: Any, dims: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Any:
    return _variance(b, x, *_dims_and_correction(dims, unbiased, correction), keepdim, b.shape())[0]


@rule("std")
def _std(
    b: Builder, x: Any, dims: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Any:
    return b.call(torch.sqrt, _var(b, x, dims, unbiased, keepdim, correction=correction))


@rule("var_mean")
def _var_mean(
    b: Builder, x: Any, dims: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None
) -> Any:
    assert b.node is not None
    shape = tuple(size_of(size) for size in b.node.meta["val"][0].shape)
    return list(_variance(b, x, *_dims_and_correction(dims, unbiased, correction), keepdim, shape))


@rule("linalg_vector_norm")
def _vector_norm(b: Builder, x: Any, order: float = 2, dims: Any = None, keepdim: bool = False, **_: Any) -> fx.Node:
    found = _dims(b, x, dims)
    if order == 1:
        return b.call(torch.sum, b.call(torch.abs, x, shape=b.shape_of(x)), found, keepdim)
    if order != 2:
        raise b.fail(f"edgekit has no rule for the norm {order}")
    squares = b.call(operator.mul, x, x, shape=b.shape_of(x))
    return b.call(torch.sqrt, b.call(torch.sum, squares, found, keepdim))


@rule("norm")
def _norm(b: Builder, x: Any, order: Any = 2, dims: Any = None, keepdim: bool = False, **_: Any) -> fx.Node:
    return _vector_norm(b, x, 2 if order is None else order, dims, keepdim)


# Shapes


def _to_shape(b: Builder, x: Any, shape: tuple[int, ...]) -> Any:
    """Reshape a tensor; `BATCH` stands for one size."""
    if not isinstance(x, fx.Node):
        value = x.value if isinstance(x, Repeated) else x
        value = value.reshape([1 if size == BATCH else size for size in shape] if BATCH in shape else shape)
        return Repeated(value) if isinstance(x, Repeated) else value
    if b.shape_of(x) == shape:
        return x
    if sum(size < 0 for size in shape) > 1:
        raise b.fail("two sizes of a tensor depend on the batch")
    while x.target is torch.reshape or x.target is torch.flatten:
        if b.shape_of(x.args[0]) == shape:
            return x.args[0]
        x = x.args[0]
    if len(shape) == 2 and shape[0] == b.shape_of(x)[0] == BATCH and math.prod(b.shape_of(x)[1:]) == shape[1]:
        return b.call(torch.flatten, x, 1, shape=shape)
    return b.call(torch.reshape, x, list(shape), shape=shape)


@rule("view", "reshape", "_unsafe_view", "reshape_as", "view_as", "unflatten", "flatten", "squeeze", "unsqueeze")
def _reshape(b: Builder, x: Any, *_: Any, **__: Any) -> Any:
    return _to_shape(b, x, b.shape())


@rule("expand", "expand_as", "broadcast_to")
def _expand(b: Builder, x: Any, *_: Any, **__: Any) -> Any:
    shape = b.shape()
    return x if b.shape_of(x) == shape else b.call(torch.broadcast_to, x, list(shape))


def _permute(b: Builder, x: Any, dims: Iterable[int]) -> Any:
    """Permute the dimensions of a tensor."""
    shape = b.shape_of(x)
    order = tuple(dim % len(shape) for dim in dims)
    if not isinstance(x, fx.Node):
        value = (x.value if isinstance(x, Repeated) else x).permute(order)
        return Repeated(value) if isinstance(x, Repeated) else value
    if x.target is torch.permute:
        inner: Any = x.args[1]
        order, x = tuple(inner[dim] for dim in order), x.args[0]
        shape = b.shape_of(x)
    if order == tuple(range(len(shape))):
        return x
    return b.call(torch.permute, x, list(order), shape=tuple(shape[dim] for dim in order))


@rule("permute")
def _permute_rule(b: Builder, x: Any, dims: Any) -> Any:
    return _permute(b, x, dims)


@rule("transpose", "swapaxes", "swapdims")
def _transpose(b: Builder, x: Any, one: int, other: int) -> Any:
    order = list(range(len(b.shape_of(x))))
    order[one], order[other] = order[other], order[one]
    return _permute(b, x, order)


@rule("t", "numpy_T", "mT", "adjoint")
def _t(b: Builder, x: Any) -> Any:
    order = list(range(len(b.shape_of(x))))
    return _permute(b, x, (*order[:-2], *order[:-3:-1]))


@rule("movedim", "moveaxis")
def _movedim(b: Builder, x: Any, source: Any, target: Any) -> Any:
    numbered = torch.empty(tuple(range(len(b.shape_of(x)))), device="meta")  # each size is its place
    return _permute(b, x, tuple(numbered.movedim(source, target).shape))


def _slice_of(b: Builder, x: Any, dim: int, start: int, end: int, step: int = 1) -> Any:
    """Return a part of a tensor along one dimension."""
    shape = b.shape_of(x)
    if (start, end, step) == (0, shape[dim], 1):
        return x
    part = (*shape[:dim], len(range(start, end, step)), *shape[dim + 1 :])
    if not isinstance(x, fx.Node):
        value = (x.value if isinstance(x, Repeated) else x)[_slices(dim, slice(start, end, step))]
        return Repeated(value) if isinstance(x, Repeated) else value
    item = slice(start, end, None if step == 1 else step)
    return b.call(operator.getitem, x, _slices(dim, item), shape=part)


@rule("slice")
def _slice(b: Builder, x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    dim %= len(b.shape_of(x))
    length = b.shape_of(x)[dim]
    if length == BATCH:
        if start in (None, 0) and step == 1 and b.shape()[dim] == BATCH:
            return x
        raise b.fail("it takes some images of a batch")
    return _slice_of(b, x, dim, *slice(start, end, step).indices(length))


@rule("narrow")
def _narrow(b: Builder, x: Any, dim: int, start: int, length: int) -> Any:
    return _slice(b, x, dim, start, start + length)


@rule("select")
def _select(b: Builder, x: Any, dim: int, index: int) -> Any:
    shape = b.shape_of(x)
    dim %= len(shape)
    if shape[dim] == BATCH:
        raise b.fail("it takes one image of a batch")
    index %= shape[dim]
    left = (*shape[:dim], *shape[dim + 1 :])
    if not isinstance(x, fx.Node):
        value = (x.value if isinstance(x, Repeated) else x).select(dim, index)
        return Repeated(value) if isinstance(x, Repeated) else value
    if x.target is torch.permute:  # fewer dimensions are permuted
        order: Any = x.args[1]
        inner = _select(b, x.args[0], order[dim], index)
        return _permute(b, inner, tuple(d - (d > order[dim]) for k, d in enumerate(order) if k != dim))
    if x.target is torch.reshape:  # a part of a dimension that is split afterwards
        source: Any = x.args[0]
        before = b.shape_of(source)
        if len(before) == dim + 1 and before[:dim] == shape[:dim]:
            step = before[dim] // shape[dim]
            return _to_shape(b, _slice_of(b, source, dim, index * step, (index + 1) * step), left)
    return b.call(operator.getitem, x, _slices(dim, index), shape=left)


@rule("unbind")
def _unbind(b: Builder, x: Any, dim: int = 0) -> list[Any]:
    return [_select(b, x, dim, index) for index in range(b.shape_of(x)[dim])]


@rule("split_with_sizes", "split")
def _split(b: Builder, x: Any, sizes: Any, dim: int = 0) -> list[Any]:
    dim %= len(b.shape_of(x))
    length = b.shape_of(x)[dim]
    if length == BATCH:
        raise b.fail("it divides a batch")
    if isinstance(sizes, int):
        sizes = [min(sizes, length - start) for start in range(0, length, sizes)]
    ends = [sum(sizes[: count + 1]) for count in range(len(sizes))]
    return [_slice_of(b, x, dim, end - size, end) for size, end in zip(sizes, ends)]


@rule("chunk")
def _chunk(b: Builder, x: Any, chunks: int, dim: int = 0) -> list[Any]:
    return _split(b, x, -(-b.shape_of(x)[dim] // chunks), dim)


@rule("index")
def _index(b: Builder, x: Any, indices: Any) -> Any:
    used = [(dim, index) for dim, index in enumerate(indices) if index is not None]
    if len(used) != 1 or not isinstance(used[0][1], torch.Tensor):
        raise b.fail("the positions depend on the image, or there are several lists of them")
    dim, index = used[0]
    if index.dtype == torch.bool:
        index = index.nonzero().flatten()
    shape = b.shape_of(x)
    if shape[dim] == BATCH:
        raise b.fail("it takes some images of a batch")
    index = index % shape[dim]
    flat = index.flatten().contiguous()
    b.kept.append(flat)
    part = b.call(torch.index_select, x, dim, flat, shape=(*shape[:dim], len(flat), *shape[dim + 1 :]))
    return _to_shape(b, part, b.shape())


@rule("index_select")
def _index_select(b: Builder, x: Any, dim: int, index: Any) -> Any:
    return _index(b, x, [*[None] * (dim % len(b.shape_of(x))), index])


@rule("cat", "concat", "concatenate")
def _cat(b: Builder, tensors: Any, dim: int = 0) -> Any:
    shape = b.shape()
    dim %= len(shape)
    if shape[dim] == BATCH:
        raise b.fail("it joins batches")
    tensors = [t for t in tensors if b.shape_of(t) != (0,)]
    if all(isinstance(t, fx.Node) for t in tensors):
        return b.call(torch.cat, tensors, dim) if len(tensors) > 1 else tensors[0]
    # The places of the constants are padded with zeros, to which they are added, for any batch size.
    lengths, whole = [b.shape_of(t)[dim] for t in tensors], shape[dim]
    padded, start = None, 0
    for is_node, run in itertools.groupby(range(len(tensors)), lambda k: isinstance(tensors[k], fx.Node)):
        places = list(run)
        length = sum(lengths[k] for k in places)
        if is_node:
            part = (*shape[:dim], length, *shape[dim + 1 :])
            joined = tensors[places[0]]
            if len(places) > 1:
                joined = b.call(torch.cat, [tensors[k] for k in places], dim, shape=part)
            sides = [*[0, 0] * (len(shape) - 1 - dim), start, whole - start - length]
            moved = b.call(F.pad, joined, sides, "constant", 0.0)
            padded = moved if padded is None else b.call(operator.add, padded, moved)
        start += length
    rest = [1 if size == BATCH else size for size in shape]
    values = [
        torch.zeros([*rest[:dim], length, *rest[dim + 1 :]]) if isinstance(t, fx.Node) else _for_one(t).float()
        for t, length in zip(tensors, lengths)
    ]
    token = torch.cat([v.expand([*rest[:dim], v.shape[dim], *rest[dim + 1 :]]) for v in values], dim)
    sum_ = b.call(operator.add, padded, token)
    sum_.meta["token"] = token
    return sum_


@rule("slice_scatter")
def _slice_scatter(
    b: Builder, x: Any, part: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Any:
    shape = b.shape()
    dim %= len(shape)
    if step != 1 or (shape[dim] == BATCH and not (start in (None, 0) and b.shape_of(part)[dim] == BATCH)):
        raise b.fail("it changes some images of a batch, or every other position")
    if shape[dim] == BATCH or b.shape_of(part)[dim] == shape[dim]:
        return part
    first, last, _ = slice(start, end).indices(shape[dim])
    rest = [_slice_of(b, x, dim, 0, first), part, _slice_of(b, x, dim, last, shape[dim])]
    return _cat(b, [t for t in rest if b.shape_of(t)[dim]], dim)


@rule("select_scatter")
def _select_scatter(b: Builder, x: Any, part: Any, dim: int, index: int) -> Any:
    shape = b.shape()
    dim %= len(shape)
    index %= shape[dim]
    part = _to_shape(b, part, (*shape[:dim], 1, *shape[dim + 1 :]))
    return _slice_scatter(b, x, part, dim, index, index + 1)


@rule("copy")
def _copy(b: Builder, x: Any, source: Any, *_: Any) -> Any:
    shape = b.shape()
    if b.shape_of(source) == shape:
        return source
    if isinstance(source, fx.Node):
        return b.call(torch.broadcast_to, source, list(shape))
    value = torch.as_tensor(_for_one(source), dtype=torch.float32)
    return Repeated(value.expand([1 if size == BATCH else size for size in shape]))


@rule("stack")
def _stack(b: Builder, tensors: Any, dim: int = 0) -> Any:
    shape = b.shape()
    dim %= len(shape)
    one = (*shape[:dim], 1, *shape[dim + 1 :])
    return _cat(b, [_to_shape(b, t, one) for t in tensors], dim)


@rule("repeat", "tile")
def _repeat(b: Builder, x: Any, times: Any) -> Any:
    times, shape = list(times), b.shape_of(x)
    x = _to_shape(b, x, (*[1] * (len(times) - len(shape)), *shape))
    for dim, count in enumerate(times):
        if isinstance(count, Symbol):
            raise b.fail("it repeats what depends on the image for each image")
        if count > 1:
            shape = b.shape_of(x)
            x = b.call(torch.cat, [x] * count, dim, shape=(*shape[:dim], shape[dim] * count, *shape[dim + 1 :]))
    return x


@rule("roll")
def _roll(b: Builder, x: Any, shifts: Any, dims: Any = ()) -> Any:
    shifts, dims = ([v] if isinstance(v, int) else list(v) for v in (shifts, dims))
    if not dims:
        raise b.fail("edgekit has a rule for named dimensions only")
    shape = b.shape_of(x)
    for shift, dim in zip(shifts, dims):
        length = shape[dim]
        start = -shift % length
        if start:
            parts = [_slice_of(b, x, dim % len(shape), *ends) for ends in ((start, length), (0, start))]
            x = b.call(torch.cat, parts, dim % len(shape), shape=shape)
    return x


@rule("pad", "constant_pad_nd")
def _pad(b: Builder, x: Any, pad: Any, mode: Any = "constant", value: Any = None) -> Any:
    if not isinstance(mode, str):  # constant_pad_nd has the value here
        mode, value = "constant", mode
    pad, value = list(pad), float(value or 0)
    if not any(pad):
        return x
    if min(pad) < 0:
        for place in range(0, len(pad), 2):
            dim = len(b.shape_of(x)) - 1 - place // 2
            length = b.shape_of(x)[dim]
            x = _slice_of(b, x, dim, max(0, -pad[place]), length - max(0, -pad[place + 1])) if length > 0 else x
        pad = [max(0, side) for side in pad]
        if not any(pad):
            return x
    if mode == "constant" and value == 0 and len(b.shape()) == 4 and not any(pad[4:]):
        return b.module(nn.ZeroPad2d(tuple((*pad, 0, 0)[:4])), x)
    return b.call(F.pad, x, pad, mode, value) if mode == "constant" else b.call(F.pad, x, pad, mode)


@rule("zero_pad2d", "reflection_pad2d", "replication_pad2d")
def _pad2d(b: Builder, x: Any, pad: Any) -> Any:
    assert b.node is not None
    kinds = {"zero_pad2d": "constant", "reflection_pad2d": "reflect", "replication_pad2d": "replicate"}
    return _pad(b, x, pad, kinds[name_of(b.node)])


def _interpolation(mode: str) -> _Rule:
    def add(b: Builder, x: Any, *args: Any, **_: Any) -> Any:
        before, after = b.shape_of(x)[2:], b.shape()[2:]
        if before == after:
            return x
        corners = bool(args[1]) if mode != "nearest" else None
        if all(new % old == 0 for old, new in zip(before, after)) and not corners:
            scales = [float(new // old) for old, new in zip(before, after)]
            return b.call(F.interpolate, x, None, scales, mode, corners)
        return b.call(F.interpolate, x, list(after), None, mode, corners)

    return add


rule("upsample_nearest2d")(_interpolation("nearest"))
rule("upsample_bilinear2d")(_interpolation("bilinear"))
rule("upsample_bicubic2d")(_interpolation("bicubic"))


@rule("pixel_shuffle")
def _pixel_shuffle(b: Builder, x: Any, factor: int) -> Any:
    batch, channels, height, width = b.shape_of(x)
    x = _to_shape(b, x, (batch, channels // factor**2, factor, factor, height, width))
    return _to_shape(b, _permute(b, x, (0, 1, 4, 2, 5, 3)), b.shape())


@rule("pixel_unshuffle")
def _pixel_unshuffle(b: Builder, x: Any, factor: int) -> Any:
    batch, channels, height, width = b.shape_of(x)
    x = _to_shape(b, x, (batch, channels, height // factor, factor, width // factor, factor))
    return _to_shape(b, _permute(b, x, (0, 1, 3, 5, 2, 4)), b.shape())


@rule("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(b: Builder, x: Any, groups: int) -> Any:
    batch, channels, height, width = b.shape_of(x)
    x = _to_shape(b, x, (batch, groups, channels // groups, height, width))
    return _to_shape(b, _permute(b, x, (0, 2, 1, 3, 4)), b.shape())
