"""Conversion of an ONNX classifier to the plain torch graph.

What depends on the pixels becomes a node of torch; everything else (weights, index arithmetic on shapes) is computed
here with ONNX's reference evaluator and becomes a constant. The graph is converted for two batch sizes at once: a
size that differs between them belongs to the batch, and is written as -1.
"""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from edgekit.errors import EdgekitError
from edgekit.importing import onnx_fuse
from edgekit.labels import visible
from edgekit.models.weights_file import first_line

# The two batch sizes of a conversion: no dimension of a network is a multiple of both in the same ratio.
BATCHES = (11, 13)
# Names that a module has itself.
_RESERVED = frozenset(dir(nn.Module())) | {"image"}
ONNX_DOMAINS = ("", "ai.onnx")


class UnsupportedError(EdgekitError):
    """A network that cannot be converted; `operators`: operator -> number of its nodes."""

    def __init__(self, message: str, operators: dict[str, int] | None = None) -> None:
        super().__init__(message)
        self.operators = operators or {}


@dataclass(frozen=True)
class Traced:
    """A tensor that depends on the pixels: its node, and its shapes for the `BATCHES`."""

    node: fx.Node
    examples: tuple[torch.Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape, with -1 for the batch."""
        first, second = (example.shape for example in self.examples)
        return tuple(a if a == b else -1 for a, b in zip(first, second))

    @property
    def rank(self) -> int:
        return self.examples[0].dim()


@dataclass(frozen=True)
class Known:
    """A tensor that does not depend on the pixels: its values for the `BATCHES`."""

    values: tuple[np.ndarray, ...]

    @property
    def is_fixed(self) -> bool:
        """True if it does not depend on the batch size either."""
        first, second = self.values
        return first is second or (first.shape == second.shape and bool(np.array_equal(first, second)))


Value = Traced | Known


@dataclass
class Call:
    """One ONNX node that is being converted.

    Attributes:
        inputs: None where an optional input is absent. opset: of the node's domain. fixed_batch: the batch size that
            the file is written for; None for any. is_only_reader: no other node reads any of its inputs.
    """

    graph: Builder
    node: onnx.NodeProto
    inputs: list[Value | None]
    opset: int
    fixed_batch: int | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    is_only_reader: bool = False

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute as a Python value."""
        return self.attributes.get(name, default)

    def traced(self, index: int = 0) -> Traced:
        """Return an input that depends on the pixels."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(value, Traced):
            raise UnsupportedError(f"{self.label}: input {index} is a constant")
        return value

    def optional(self, index: int) -> np.ndarray | None:
        """Return a constant input, or None if it is absent."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            return None
        if not isinstance(value, Known):
            raise UnsupportedError(f"{self.label}: input {index} depends on the image")
        if not value.is_fixed:
            raise UnsupportedError(f"{self.label}: input {index} depends on the batch size")
        return value.values[0]

    def constant(self, index: int) -> np.ndarray:
        """Return a constant input."""
        found = self.optional(index)
        if found is None:
            raise UnsupportedError(f"{self.label}: input {index} is absent")
        return found

    def integers(self, index: int, name: str) -> list[int] | None:
        """Return integers that are an input in newer opsets and an attribute in older ones; None if absent."""
        if (found := self.optional(index)) is not None:
            return [int(v) for v in found.reshape(-1)]
        value = self.attribute(name)
        return None if value is None else [int(v) for v in value]

    @property
    def label(self) -> str:
        """Operator and name of the node, for messages."""
        return label_of(self.node)


def label_of(node: onnx.NodeProto) -> str:
    """Return the operator and name of a node, for messages."""
    name = node.name or (node.output[0] if node.output else "")
    return f"{node.op_type} ({name})" if name else node.op_type


class Builder:
    """The torch graph while it is built."""

    def __init__(self) -> None:
        self.root = nn.Module()
        self.graph = fx.Graph()
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._taken: set[str] = set()
        self._folders: set[str] = set()
        self._constants = 0

    def placeholder(self, shape: tuple[int, ...]) -> Traced:
        """Return the input, float32 (N, *shape)."""
        with self.mode:
            examples = tuple(torch.empty(batch, *shape) for batch in BATCHES)
        return Traced(self.graph.placeholder("image"), examples)

    def module(self, name: str, module: nn.Module, x: Traced) -> Traced:
        """Add a module to the graph."""
        target = self._free(name)
        self.root_add(target, module.eval().requires_grad_(False))
        node = self.graph.call_module(target, (x.node,))
        return self._checked(node, tuple(self._run(module, example) for example in x.examples))

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Traced:
        """Add a function; arguments are `Traced`, numbers, arrays (which become constants) or lists of them."""
        constants: dict[int, tuple[fx.Node, torch.Tensor]] = {}

        def hold(value: Any) -> Any:
            if isinstance(value, np.ndarray) and id(value) not in constants:
                constants[id(value)] = self._constant(value)
            return value

        _map((args, kwargs), hold)

        def as_node(value: Any) -> Any:
            if isinstance(value, Traced):
                return value.node
            return constants[id(value)][0] if isinstance(value, np.ndarray) else value

        def as_example(number: int) -> Callable[[Any], Any]:
            def of(value: Any) -> Any:
                if isinstance(value, Traced):
                    return value.examples[number]
                return constants[id(value)][1] if isinstance(value, np.ndarray) else value

            return of

        examples = []
        for number in range(len(BATCHES)):
            given, named = _map((args, kwargs), as_example(number))
            examples.append(self._run(function, *given, **named))
        node_args, node_kwargs = _map((args, kwargs), as_node)
        return self._checked(self.graph.call_function(function, node_args, node_kwargs), tuple(examples))

    def _run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        with self.mode, torch.no_grad():
            result: torch.Tensor = function(*args, **kwargs)
        return result

    def _checked(self, node: fx.Node, examples: tuple[torch.Tensor, ...]) -> Traced:
        """Return a tensor if exactly one of its dimensions goes with the batch."""
        first, second = (tuple(example.shape) for example in examples)
        differing = [i for i, (a, b) in enumerate(zip(first, second)) if a != b]
        if len(first) != len(second) or len(differing) != 1:
            raise UnsupportedError("it mixes the images of a batch")
        node.meta["rank"] = len(first)
        return Traced(node, examples)

    def _constant(self, value: np.ndarray) -> tuple[fx.Node, torch.Tensor]:
        tensor = torch.from_numpy(np.array(value))  # a copy: arrays of a protobuf cannot be written
        name = f"constant_{self._constants}"
        self._constants += 1
        self.root.register_buffer(name, tensor)
        return self.graph.get_attr(name), tensor

    def _free(self, name: str) -> str:
        """Return a module path that neither is taken, nor lies inside another module, nor has one inside."""
        base = ".".join(re.sub(r"\W", "_", part) or "_" for part in name.split("."))
        if base[0].isdigit() or base.startswith("constant_") or base.split(".")[0] in _RESERVED:
            base = f"layer_{base}"
        flat = base.replace(".", "_")
        for candidate in itertools.chain([base, flat], (f"{flat}_{k}" for k in itertools.count(1))):
            parts = candidate.split(".")
            above = {".".join(parts[:k]) for k in range(1, len(parts))}
            if candidate not in self._folders and not ({candidate} | above) & self._taken:
                self._taken.add(candidate)
                self._folders |= above
                return candidate
        raise AssertionError

    def root_add(self, target: str, module: nn.Module) -> None:
        """Put a module at a dotted path."""
        parent = self.root
        *path, last = target.split(".")
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, nn.Module())
            parent = getattr(parent, part)
        parent.add_module(last, module)


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    """Apply `change` to the leaves of tuples, lists and dicts."""
    if isinstance(value, (tuple, list)):
        return type(value)(_map(each, change) for each in value)
    if isinstance(value, dict):
        return {k: _map(v, change) for k, v in value.items()}
    return change(value)


Operator = Callable[[Call], Value]


def convert(
    model: onnx.ModelProto,
    source: str,
    output: str,
    shape: tuple[int, ...],
    operators: dict[str, Operator],
    fixed_batch: int | None = None,
    permuted: bool = False,
) -> tuple[fx.GraphModule, dict[str, fx.Node]]:
    """Convert the part of a graph from one tensor to another.

    Args:
        source: the tensor that the images are, float32 (N, *shape) or, if `permuted`, (N, H, W, C).
        output: the tensor that is returned. fixed_batch: the batch size that the file is written for; None for any.
    Returns:
        The torch graph, and ONNX tensor -> its node.
    Raises:
        UnsupportedError: an operator that cannot be converted.
    """
    logging.getLogger("torch._subclasses.fake_tensor").setLevel(logging.CRITICAL)  # it logs what it also raises
    nodes = needed(model.graph, source, output)
    known = {t.name: t for t in model.graph.initializer}
    opset = next((o.version for o in model.opset_import if o.domain in ONNX_DOMAINS), 1)
    _check_operators(nodes, source, operators)
    readers = Counter(name for node in nodes for name in node.input) + Counter([output])
    builder = Builder()
    image = builder.placeholder(shape)
    if permuted:
        image = builder.call(torch.permute, image, (0, 2, 3, 1))
    values: dict[str, Value] = {source: image}
    for node in nodes:
        inputs = [_value(name, values, known) for name in node.input]
        alone = all(readers[name] == 1 for name in node.input if isinstance(values.get(name), Traced))
        call = Call(builder, node, inputs, opset, fixed_batch, _attributes(node), alone)
        try:
            results = _convert_node(call, operators)
        except UnsupportedError as error:
            message = error.message if label_of(node) in error.message else f"{call.label}: {error.message}"
            raise UnsupportedError(message, error.operators or {node.op_type: 1}) from None
        except Exception as error:  # whatever torch and ONNX's evaluator raise for a node that is not what it seems
            first = visible(first_line(error)) if str(error) else type(error).__name__
            raise UnsupportedError(f"{call.label}: {first}", {node.op_type: 1}) from error
        values.update((name, value) for name, value in zip(node.output, results) if name)
    result = values.get(output)
    if not isinstance(result, Traced):
        raise UnsupportedError(f"{output} does not depend on the image")
    if result.rank > 2:
        result = builder.call(torch.flatten, result, 1)
    builder.graph.output(result.node)
    builder.graph.lint()
    module = fx.GraphModule(builder.root, builder.graph)
    replaced = onnx_fuse.fuse(module)
    traced = {name: value.node for name, value in values.items() if isinstance(value, Traced)}
    return module.eval(), {name: replaced.get(node, node) for name, node in traced.items()}


def _convert_node(call: Call, operators: dict[str, Operator]) -> list[Value]:
    """Return the outputs of a node."""
    if _reads_shape(call.node) and isinstance(call.inputs[0], Traced):
        return [_shape(call)]
    if not any(isinstance(value, Traced) for value in call.inputs):
        return _evaluate(call)
    found: Any = operators[call.node.op_type](call)
    return list(found) if isinstance(found, (list, tuple)) else [found]


def _value(name: str, values: dict[str, Value], known: dict[str, onnx.TensorProto]) -> Value | None:
    if not name:
        return None
    if name not in values:
        array = numpy_helper.to_array(known[name])
        if array.dtype in (np.float16, np.float64):  # half and double precision are computed in float32
            array = array.astype(np.float32)
        values[name] = Known((array, array))
    return values[name]


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    found = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        found[attribute.name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return found


def needed(graph: onnx.GraphProto, source: str, output: str) -> list[onnx.NodeProto]:
    """Return the nodes that compute one tensor from another, in order."""
    makers = {name: node for node in graph.node for name in node.output if name}
    wanted, needed = [output], set()
    while wanted:
        node = makers.get(name := wanted.pop())
        if node is None or name == source or id(node) in needed:
            continue
        needed.add(id(node))
        wanted.extend(name for name in node.input if name)
    return [node for node in graph.node if id(node) in needed]


def _check_operators(nodes: Iterable[onnx.NodeProto], source: str, operators: dict[str, Operator]) -> None:
    """Raise an error that counts the operators which cannot be converted, and names the first node."""
    from_image, unknown = {source}, []
    for node in nodes:
        if not from_image.intersection(node.input) or _reads_shape(node):
            continue
        from_image.update(node.output)
        if node.op_type not in operators or node.domain not in ONNX_DOMAINS:
            unknown.append(node)
    if unknown:
        counted = Counter(f"{n.domain}.{n.op_type}" if n.domain else n.op_type for n in unknown)
        listed = ", ".join(f"{name} ({count})" for name, count in counted.most_common())
        plural = "operators" if len(counted) > 1 else "operator"
        raise UnsupportedError(f"{plural} {listed}; the first is {label_of(unknown[0])}", dict(counted))


def _reads_shape(node: onnx.NodeProto) -> bool:
    """Return True for a node that reads the shape of its input only."""
    return node.op_type in ("Shape", "Size") and node.domain in ONNX_DOMAINS


def _evaluate(call: Call) -> list[Value]:
    """Compute a node whose inputs do not depend on the pixels."""
    node, inputs = call.node, [v for v in call.inputs if isinstance(v, Known)]
    if node.domain not in ONNX_DOMAINS:
        raise UnsupportedError(f"the operator {node.domain}.{node.op_type} is not one of ONNX")
    if any(attribute.type in (attribute.GRAPH, attribute.GRAPHS) for attribute in node.attribute):
        raise UnsupportedError("it has graphs of its own")
    evaluator = ReferenceEvaluator(node, opsets={"": call.opset})
    names = list(dict.fromkeys(n for n in node.input if n))
    by_name = {n: v for n, v in zip(node.input, call.inputs) if isinstance(v, Known)}
    fixed = all(value.is_fixed for value in inputs)
    results = []
    for number in range(1 if fixed else len(BATCHES)):
        with np.errstate(all="ignore"):
            results.append(evaluator.run(None, {n: by_name[n].values[number] for n in names}))
    results *= len(BATCHES) // len(results)
    return [Known(tuple(np.asarray(result[k]) for result in results)) for k in range(len(node.output))]


def _shape(call: Call) -> Known:
    """Return the shape of a tensor as a constant."""
    shapes = [np.array(example.shape, np.int64) for example in call.traced().examples]
    if call.node.op_type == "Size":
        return Known(tuple(np.array(math.prod(shape.tolist()), np.int64) for shape in shapes))
    start, end = call.attribute("start", 0), call.attribute("end")
    return Known(tuple(shape[start:end] for shape in shapes))
