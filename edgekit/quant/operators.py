"""Operators of a folded graph by kind: those with integer kernels, those that only move values, matrix products.

A kind is the name of torch's function, method or module in lower case: ``add``, ``conv2d``, ``layernorm``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

Weighted = nn.Conv2d | nn.Linear
# Functions that hold nothing but their arguments are torch's, Python's operators, or compiled ones.
_OURS = ("torch", "_operator", "operator", "builtins")
PRODUCTS = ("matmul", "bmm")
# The same values in another shape or order, perhaps fewer, or zeros beside them: their grid is that of their source.
MOVES = frozenset(
    ("reshape", "view", "flatten", "unflatten", "permute", "transpose", "swapaxes", "movedim", "contiguous", "clone")
    + ("squeeze", "unsqueeze", "getitem", "select", "slice", "narrow", "chunk", "split", "unbind", "pad", "zeropad2d")
    + ("t", "expand", "pixel_unshuffle", "pixelunshuffle", "split_with_sizes", "expand_as", "roll")
)
# Operators without weights that LiteRT computes on int8 (its quantizer's policy for static_wi8_ai8).
INTEGER = frozenset(
    ("add", "sub", "mul", "cat", "concat", "stack", "mean", "interpolate", "upsample", "sigmoid", "tanh", "hardtanh")
    + ("relu", "relu6", "hardsigmoid", "hardswish", "maxpool2d", "max_pool2d", "avgpool2d", "avg_pool2d")
    + ("adaptiveavgpool2d", "adaptive_avg_pool2d")
)


def module_of(folded: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the module that a node calls, or None."""
    return folded.get_submodule(str(node.target)) if node.op == "call_module" else None


def kind(folded: fx.GraphModule, node: fx.Node) -> str:
    """Return the kind of a node's operator; "" for inputs, constants, outputs, and functions that are not torch's."""
    if node.op == "call_module":
        return type(module_of(folded, node)).__name__.lower()
    if node.op == "call_method":
        return str(node.target).rstrip("_")
    if node.op != "call_function":
        return ""
    source = getattr(node.target, "__module__", None) or "torch"
    return str(getattr(node.target, "__name__", "")).rstrip("_") if source.split(".")[0] in _OURS else ""


def is_layer(module: nn.Module | None) -> bool:
    """Return whether a module is a layer whose weights edgekit rounds: a Conv2d that pads with zeros, or a Linear."""
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.padding_mode == "zeros")


def is_product(folded: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node multiplies two matrices that both depend on the image."""
    sources = node.all_input_nodes
    return kind(folded, node) in PRODUCTS and len(sources) == 2 and all(s.op != "get_attr" for s in sources)


def moves(folded: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node only moves the values of one tensor."""
    name = kind(folded, node)
    if name not in MOVES or any(source.op == "get_attr" for source in node.all_input_nodes):
        return False
    return name != "pad" or _pads_with_zeros(node)


def _pads_with_zeros(node: fx.Node) -> bool:
    arguments: tuple[Any, ...] = (*node.args[2:], *node.kwargs.values())
    return not any(isinstance(each, str) and each != "constant" for each in arguments) and not any(
        isinstance(each, int | float) and each for each in arguments
    )


def has_integer_kernel(folded: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether LiteRT computes a node on int8 tensors, weights apart; constants beside numbers are none."""
    if any(source.op == "get_attr" for source in node.all_input_nodes):
        return False
    return kind(folded, node) in INTEGER or moves(folded, node)


def origin(folded: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Return the tensor that a chain of moves begins with; the node itself if it moves nothing."""
    while moves(folded, node):
        node = node.all_input_nodes[0]
    return node


def gives_several(node: fx.Node) -> bool:
    """Return whether a node gives several tensors in one tuple or list."""
    return str(getattr(node.target, "__name__", node.target)) in ("chunk", "split", "unbind", "split_with_sizes")


def only_reader(node: fx.Node) -> fx.Node | None:
    """Return the reader of a tensor, if there is only one."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def run_node(network: fx.GraphModule, node: fx.Node, value: torch.Tensor) -> torch.Tensor:
    """Return the output of one node for the input `value`."""
    run = fx.Interpreter(network)
    run.env = {node.all_input_nodes[0]: value.clone()}  # it may work in place
    return torch.as_tensor(run.run_node(node))
