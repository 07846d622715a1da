"""Programs: any classifier as a plain graph, which needs no code of the network's authors.

A plain graph is an `fx.GraphModule` of torch's own modules and ordinary functions, for one image size and any batch
size: input float32 (N, 3, S, S), output logits (N, classes). It reads no shape when it runs. Everything that does not
depend on the image is a constant.
"""

from __future__ import annotations

import copy
import inspect
import math
import operator
import re
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from edgekit.errors import DataError, EdgekitError, ParityError, is_out_of_memory, out_of_memory
from edgekit.labels import visible
from edgekit.models import aten

FORMAT = 1
PARITY = 1e-3  # largest difference from the network, relative to the largest logit
_REPARAMETERIZED = 1e-3  # the same, of branches that were summed
_BATCHES = 1, 3
_MOST_DECOMPOSED = 20

# The functions of plain graphs, by their names in documents.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(operator, name) for name in ("add", "sub", "mul", "truediv", "neg", "getitem")},
    **{
        name: getattr(torch, name)
        for name in (
            *("sigmoid", "cat", "matmul", "softmax", "log_softmax", "reshape", "permute", "flatten", "mean", "sum"),
            *("amax", "amin", "clamp", "sqrt", "rsqrt", "reciprocal", "exp", "log", "erf", "abs", "sin", "cos", "pow"),
            *("maximum", "minimum", "where", "index_select", "broadcast_to"),
        )
    },
    "pad": F.pad,
    "interpolate": F.interpolate,
}
_NAMES = {function: name for name, function in FUNCTIONS.items()}
# The modules of plain graphs, and the arguments that make them.
MODULES: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "Conv2d": (
        nn.Conv2d,
        ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias"),
    ),
    "Linear": (nn.Linear, ("in_features", "out_features", "bias")),
    "BatchNorm1d": (nn.BatchNorm1d, ("num_features", "eps")),
    "BatchNorm2d": (nn.BatchNorm2d, ("num_features", "eps")),
    "LayerNorm": (nn.LayerNorm, ("normalized_shape", "eps", "elementwise_affine", "bias")),
    "GroupNorm": (nn.GroupNorm, ("num_groups", "num_channels", "eps")),
    "PReLU": (nn.PReLU, ("num_parameters",)),
    **{kind.__name__: (kind, ()) for kind in (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Tanh, nn.Hardsigmoid, nn.Hardswish)},
    "GELU": (nn.GELU, ("approximate",)),
    "Hardtanh": (nn.Hardtanh, ("min_val", "max_val")),
    "LeakyReLU": (nn.LeakyReLU, ("negative_slope",)),
    "ELU": (nn.ELU, ("alpha",)),
    "Softplus": (nn.Softplus, ("beta", "threshold")),
    "MaxPool2d": (
        nn.MaxPool2d,
        ("kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode"),
    ),
    "AvgPool2d": (
        nn.AvgPool2d,
        ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    ),
    "AdaptiveAvgPool2d": (nn.AdaptiveAvgPool2d, ("output_size",)),
    "ZeroPad2d": (nn.ZeroPad2d, ("padding",)),
}
_MOST_NODES, _MOST_ITEMS, _DEEPEST = 50_000, 4096, 4
_MOST_SIZE = 2**31 - 1  # of a number in a document
_MOST_VALUES = 2**29  # of one tensor for two images: 2 GB
_PATH = re.compile(r"[\w -]+(\.[\w -]+)*", re.ASCII)
_WORDS = ("constant", "reflect", "replicate", "nearest", "bilinear", "bicubic", "none", "tanh", "same", "valid")


def trace(model: nn.Module, image_size: int) -> fx.GraphModule:
    """Return the plain graph of a network for square images, which computes the same in inference.

    Branches that the network's own modules can sum into one layer (RepVGG's) are summed. The network is left alone.

    Args:
        model: takes float32 (N, 3, image_size, image_size) and returns logits (N, classes).
    Raises:
        EdgekitError: torch.export cannot take the network, or edgekit has no rule for one of its operators.
        ParityError: the graph computes something else than the network.
    """
    source = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    merged = reparameterized(source, image_size)
    with torch.no_grad():
        graph = _rebuild(merged, _export(merged, image_size))
        graph.meta["image_size"] = image_size
        _check_parity(source, graph, image_size)
    return graph


def _export(model: nn.Module, image_size: int) -> torch.export.ExportedProgram:
    """Export a network for any batch size, without changes in place."""
    example = torch.zeros(2, 3, image_size, image_size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(model, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
            return program.run_decompositions({}) if aten.changes_in_place(program.graph) else program
    except EdgekitError:
        raise
    except Exception as error:  # torch.export raises many kinds, also those of the network's own code
        if is_out_of_memory(error):
            raise out_of_memory("tracing the network") from error
        raise EdgekitError(
            f"torch.export cannot take this network: {_first_line(error)}{_place(error)}",
            "change the line, so that the computation does not depend on the values in the image",
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return visible(lines[0].rstrip(".") if lines else type(error).__name__)


def _place(error: Exception) -> str:
    """Return the last line of the network's own code that an error went through, in brackets."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_torch(f.filename)]
    frames = [f for f in frames if f.name not in ("_export", "trace")]
    return visible(f" ({frames[-1].filename}, line {frames[-1].lineno}: {frames[-1].line})") if frames else ""


def _is_torch(filename: str) -> bool:
    root = inspect.getfile(torch).rpartition("__init__")[0]
    return filename.startswith((root, "<")) or filename == __file__


def _rebuild(model: nn.Module, program: torch.export.ExportedProgram) -> fx.GraphModule:
    """Return the plain graph of an exported program; operators without a rule are decomposed by torch, where it can."""
    known: dict[Any, Any] = {}
    for _ in range(_MOST_DECOMPOSED):
        try:
            return _plain(model, program)
        except aten.NoRule as error:
            known = known or dict(torch.export.default_decompositions())
            if error.target not in known:
                raise EdgekitError(error.message) from error
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = program.run_decompositions({error.target: known[error.target]})
    raise EdgekitError("edgekit cannot rewrite this network: too many of its operators have no rule")


def _plain(model: nn.Module, program: torch.export.ExportedProgram) -> fx.GraphModule:
    builder = aten.Builder(model)
    signature = program.graph_signature
    named = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = {**signature.inputs_to_lifted_tensor_constants, **program.constants}
    inputs: list[Any] = []
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        name = named.get(node.name) or constants.get(node.name)
        if name is None:
            image = builder.graph.placeholder(aten.INPUT)
            image.meta["shape"] = tuple(aten.size_of(size) for size in node.meta["val"].shape)
            inputs.append(image)
            continue
        found = program.state_dict.get(name)
        tensor = program.constants[name] if found is None else found
        builder.names[id(tensor)] = name
        builder.kept.append(tensor)
        inputs.append(tensor)
    outputs = [value for value in builder.run(program.graph, inputs, program.graph_module) if value is not None]
    scores = outputs[-1] if len(outputs) == 1 + len(signature.buffers_to_mutate) else None
    if not isinstance(scores, fx.Node):
        raise EdgekitError(
            f"the network returns {len(outputs)} tensors instead of its logits alone",
            "wrap it in a module whose forward returns the logits",
        )
    builder.graph.output(scores)
    for node in reversed(list(builder.graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            builder.graph.erase_node(node)
    used = {str(node.target) for node in builder.graph.nodes if node.op in ("call_module", "get_attr")}
    graph = fx.GraphModule({name: value for name, value in builder.contents.items() if name in used}, builder.graph)
    return graph.eval().requires_grad_(False)


def _check_parity(model: nn.Module, graph: fx.GraphModule, image_size: int) -> None:
    """Raise a ParityError unless the graph gives the network's logits for batches of any size."""
    for batch in _BATCHES:
        images = _random_images(batch, image_size)
        expected, got = model(images), graph(images)
        if got.ndim != 2 or got.shape != expected.shape:
            raise EdgekitError(f"the network returns a tensor of shape {tuple(expected.shape)}, not (N, classes)")
        difference = _difference(got, expected)
        if not difference <= PARITY:
            raise ParityError(f"the traced graph disagrees with the network by {difference:.2g} (relative)")


def _random_images(batch: int, size: int) -> torch.Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(batch))


def _difference(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).abs().max() / (expected.abs().max() + 1e-12))


@torch.no_grad()
def reparameterized(model: nn.Module, image_size: int) -> nn.Module:
    """Return a network whose modules have summed their branches, by methods of their own; itself if there are none.

    Called on copies: ``fuse()`` of a module, which returns the module to take its place (LeViT), and
    ``reparameterize()`` or ``switch_to_deploy()``, which change it (RepVGG, MobileOne, FastViT). The result is used
    if it computes what the network does.
    """
    if not any(_own_method(module) for module in model.modules()):
        return model
    images = _random_images(2, image_size)
    try:
        merged = _merge(copy.deepcopy(model))
        same = _difference(merged(images), model(images)) <= _REPARAMETERIZED
    except Exception:  # a method of this name with another meaning, in foreign code
        return model
    return merged if same else model


def _own_method(module: nn.Module) -> str:
    """Return the name of the method with which a module sums its branches, or ""."""
    for name in ("fuse", "reparameterize", "switch_to_deploy"):
        method = getattr(module, name, None)
        if callable(method):
            needed = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty]
            if all(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in needed):
                return name
    return ""


def _merge(module: nn.Module) -> nn.Module:
    """Sum the branches of a module and of those in it."""
    name = _own_method(module)
    if name:
        result = getattr(module, name)()
        if name == "fuse" and isinstance(result, nn.Module):
            return result.eval()
    for child_name, child in list(module.named_children()):
        merged = _merge(child)
        if merged is not child:
            setattr(module, child_name, merged)
    return module


def to_document(graph: fx.GraphModule) -> dict[str, Any]:
    """Return a graph of `trace` as JSON-able values; its weights and constants are its state dict.

    Raises:
        EdgekitError: the graph is not plain.
    """
    modules: dict[str, Any] = {}
    nodes: list[dict[str, Any]] = []
    for node in graph.graph.nodes:
        entry: dict[str, Any] = {"name": node.name, "op": node.op}
        if node.op == "call_module":
            path = str(node.target)
            entry["target"] = path
            modules[path] = _module_document(path, graph.get_submodule(path))
        elif node.op == "call_function":
            if node.target not in _NAMES:
                raise EdgekitError(f"{node.name}: a plain graph has no function {node.target}")
            entry["target"] = _NAMES[node.target]
        elif node.op == "get_attr":
            entry["target"] = str(node.target)
        elif node.op not in ("placeholder", "output"):
            raise EdgekitError(f"{node.name}: a plain graph has no {node.op}")
        if node.kwargs:
            raise EdgekitError(f"{node.name}: a plain graph has no named arguments")
        if node.args:
            entry["args"] = [_encode(arg) for arg in node.args]
        if callers := list((node.meta.get("nn_module_stack") or {}).values()):
            entry["module"] = str(callers[-1][0])
        nodes.append(entry)
    return {"format": FORMAT, "image_size": graph.meta["image_size"], "nodes": nodes, "modules": modules}


def _module_document(path: str, module: nn.Module) -> dict[str, Any]:
    kind = type(module).__name__
    if kind not in MODULES or type(module) is not MODULES[kind][0]:
        raise EdgekitError(f"{path}: a plain graph has no module {kind}")
    options = {name: getattr(module, name) for name in MODULES[kind][1]}
    if "bias" in options:
        options["bias"] = module.bias is not None
    return {"kind": kind, "options": {name: _encode(value) for name, value in options.items()}}


def _encode(value: Any) -> Any:
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop, value.step]}
    if isinstance(value, tuple):
        return {"tuple": [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise EdgekitError(f"a plain graph has no argument of type {type(value).__name__}")


def from_document(document: Any, tensors: dict[str, torch.Tensor]) -> fx.GraphModule:
    """Return the plain graph of a document; only functions and modules of the tables are ever called.

    Args:
        document: untrusted. tensors: the state dict, untrusted; taken as it is, not copied.
    Raises:
        DataError: it is not what `to_document` writes, or needs more memory than any classifier.
    """
    try:
        return _Reader(document, tensors).read()
    except DataError:
        raise
    except (ArithmeticError, AssertionError, AttributeError, LookupError) as error:
        raise DataError(f"this is not a program of edgekit: {_first_line(error)}") from error
    except (RuntimeError, TypeError, ValueError, MemoryError, RecursionError, NotImplementedError) as error:
        raise DataError(f"this is not a program of edgekit: {_first_line(error)}") from error


class _Reader:
    """Rebuilds the graph of one document."""

    def __init__(self, document: Any, tensors: dict[str, torch.Tensor]) -> None:
        self.document, self.tensors = document, tensors
        self.graph, self.nodes = fx.Graph(), dict[str, fx.Node]()

    def read(self) -> fx.GraphModule:
        document = self._checked(self.document, dict, "the document")
        if document.get("format") != FORMAT:
            raise _wrong(f"its format is {visible(repr(document.get('format'))[:40])}, not {FORMAT}")
        size, entries = self._integer(document.get("image_size"), 1, 2**14), document.get("nodes")
        if not isinstance(entries, list) or not 0 < len(entries) <= _MOST_NODES:
            raise _wrong("it has no list of nodes, or too many")
        modules = self._checked(document.get("modules"), dict, "modules")
        contents: dict[str, Any] = {self._path(path): self._module(path, entry) for path, entry in modules.items()}
        for entry in entries:
            self._node(self._checked(entry, dict, "a node"), contents)
        self.graph.lint()
        if sum(node.op == "placeholder" for node in self.graph.nodes) != 1 or entries[-1].get("op") != "output":
            raise _wrong("it needs one input and one output")
        self._check_sizes(contents, size)
        graph = fx.GraphModule(contents, self.graph)
        graph.meta["image_size"] = size
        wanted = graph.state_dict().keys()
        if wanted != self.tensors.keys():
            other = sorted(wanted ^ self.tensors.keys())[0]
            raise _wrong(f"tensor {visible(other)!r} is missing, or is not one of the graph's")
        return graph.eval().requires_grad_(False)

    @staticmethod
    def _checked(value: Any, kind: type, what: str) -> Any:
        if not isinstance(value, kind):
            raise _wrong(f"{what}: {type(value).__name__} instead of {kind.__name__}")
        return value

    @staticmethod
    def _integer(value: Any, least: int, most: int) -> int:
        if type(value) is not int or not least <= value <= most:
            raise _wrong(f"{visible(repr(value)[:40])} is not an integer from {least} to {most}")
        return value

    @staticmethod
    def _path(path: Any) -> str:
        """Return a dotted name that cannot be mistaken for an attribute of torch's own classes."""
        parts = path.split(".") if isinstance(path, str) and len(path) < 1000 and _PATH.fullmatch(path) else []
        if not parts or any(p.startswith("__") or aten.is_reserved(p) for p in parts):
            raise _wrong(f"{visible(repr(path)[:60])} is not the name of a module or tensor")
        return str(path)

    def _tensor(self, name: str) -> torch.Tensor:
        found = self.tensors.get(name)
        if not isinstance(found, torch.Tensor) or found.layout != torch.strided:
            raise _wrong(f"tensor {visible(name)!r} is missing")
        return found

    def _module(self, path: str, entry: Any) -> nn.Module:
        kind, names = MODULES[self._checked(entry, dict, path)["kind"]]
        options = self._checked(entry["options"], dict, path)
        if set(options) != set(names):
            raise _wrong(f"{path}: its options are not those of {entry['kind']}")
        with torch.device("meta"):
            module = kind(**{name: self._value(value) for name, value in options.items()})
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            found = self._tensor(f"{path}.{name}")
            if found.shape != tensor.shape or found.dtype != tensor.dtype:
                raise _wrong(f"{path}.{name} has the shape {tuple(found.shape)}, not {tuple(tensor.shape)}")
            if name in module._buffers:
                module._buffers[name] = found
            else:
                module.register_parameter(name, nn.Parameter(found, requires_grad=False))
        return module

    def _node(self, entry: dict[str, Any], contents: dict[str, Any]) -> None:
        name, op = entry.get("name"), entry.get("op")
        target: Any = entry.get("target")
        if not isinstance(name, str) or not _PATH.fullmatch(name) or "." in name or name in self.nodes:
            raise _wrong(f"{visible(repr(name)[:60])} is not the name of a node, or occurs twice")
        args = tuple(self._value(arg) for arg in self._checked(entry.get("args", []), list, name))
        if op == "call_module" and target not in contents:
            raise _wrong(f"{name}: there is no module {visible(repr(target)[:60])}")
        if op == "get_attr":
            contents.setdefault(self._path(target), self._tensor(target))
            if not isinstance(contents[target], torch.Tensor):
                raise _wrong(f"{target} is a module, not a constant")
        if op == "call_function":
            if target not in FUNCTIONS:
                raise _wrong(f"{name}: there is no function {visible(repr(target)[:60])}")
            if target == "getitem" and not isinstance(args[0], fx.Node):
                raise _wrong(f"{name}: parts can be taken of tensors only")
            target = FUNCTIONS[target]
        elif op == "placeholder":
            target, args = name, ()
        elif op == "output":
            target = "output"
        elif op not in ("call_module", "get_attr"):
            raise _wrong(f"{name}: there is no operation {visible(repr(op)[:60])}")
        node = self.graph.create_node(op, target, args, {}, name)
        if isinstance(module := entry.get("module"), str) and _PATH.fullmatch(module):
            node.meta["nn_module_stack"] = {module: (module, "")}
        self.nodes[name] = node

    def _value(self, value: Any, depth: int = 0) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return self._integer(value, -_MOST_SIZE, _MOST_SIZE)
        if isinstance(value, float):
            return value
        if isinstance(value, str) and value in _WORDS:
            return value
        if isinstance(value, list) and len(value) <= _MOST_ITEMS and depth < _DEEPEST:
            return [self._value(item, depth + 1) for item in value]
        if isinstance(value, dict) and len(value) == 1 and depth < _DEEPEST:
            ((kind, content),) = value.items()
            if kind == "node":
                return self.nodes[content]
            if kind == "slice" and isinstance(content, list) and len(content) == 3:
                return slice(
                    *(item if item is None else self._integer(item, -_MOST_SIZE, _MOST_SIZE) for item in content)
                )
            if kind == "tuple" and isinstance(content, list):
                return tuple(self._value(content, depth))
            if kind == "float" and content in ("inf", "-inf", "nan"):
                return float(content)
        raise _wrong(f"{visible(repr(value)[:60])} is not an argument")

    def _check_sizes(self, contents: dict[str, Any], size: int) -> None:
        """Run the graph without values, so that no tensor can be larger than memory."""
        values: dict[fx.Node, Any] = {}
        with torch.no_grad():
            for node in self.graph.nodes:
                if node.op == "placeholder":
                    values[node] = torch.empty(2, 3, size, size, device="meta")
                elif node.op == "get_attr":
                    values[node] = contents[str(node.target)].to("meta")
                elif node.op == "output":
                    break
                else:
                    args = fx.node.map_arg(node.args, lambda n: values[n])
                    values[node] = self._run(node, contents, args)
                if not isinstance(values[node], torch.Tensor) or values[node].numel() > _MOST_VALUES:
                    raise _wrong(f"{node.name} is not a tensor, or too large")

    @staticmethod
    def _run(node: fx.Node, contents: dict[str, Any], args: Any) -> Any:
        if node.op == "call_function":
            return node.target(*args)  # type: ignore[operator]
        module = contents[str(node.target)]
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        return torch.func.functional_call(module.eval(), {n: t.to("meta") for n, t in tensors.items()}, args)


def _wrong(why: str) -> DataError:
    return DataError(f"this is not a program of edgekit: {why}")
