"""Layers that old opsets write as arithmetic, put together again: GELU, hard swish and layer normalization."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

_CLOSE = 1e-3


def fuse(model: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """Replace arithmetic by layers, in place; return replaced node -> the node that computes it now."""
    replaced: dict[fx.Node, fx.Node] = {}
    for node in list(model.graph.nodes):
        for find in (_gelu, _hard_swish, _layer_norm):
            found = find(model, node)
            if found is None:
                continue
            last, x, layer = found
            name = f"{type(layer).__name__.lower()}_{len(replaced)}"
            model.add_submodule(name, layer.eval().requires_grad_(False))
            with model.graph.inserting_after(last):
                made = model.graph.call_module(name, (x,))
            last.replace_all_uses_with(made)
            replaced[last] = made
    if replaced:
        model.graph.eliminate_dead_code()
        model.graph.lint()
        model.delete_all_unused_submodules()
        for target in {name for name, _ in model.named_buffers(recurse=False)} - {
            str(node.target) for node in model.graph.nodes if node.op == "get_attr"
        }:
            delattr(model, target)
        model.recompile()
    return replaced


_Found = tuple[fx.Node, fx.Node, nn.Module] | None


def _gelu(model: fx.GraphModule, node: fx.Node) -> _Found:
    """Match x * 0.5 * (1 + erf(x / sqrt(2))), whatever the order of the factors."""
    if node.target is not torch.erf or (x := _unscaled(node.args[0], 2**-0.5)) is None:
        return None
    plus = _only_user(node)
    if plus is None or _constant_beside(plus, operator.add, node) != 1.0:
        return None
    last = _product(plus, x, 0.5)
    return None if last is None else (last, x, nn.GELU())


def _hard_swish(model: fx.GraphModule, node: fx.Node) -> _Found:
    """Match x * relu6(x + 3) / 6, and x * hard sigmoid(x)."""
    layer = model.get_submodule(str(node.target)) if node.op == "call_module" else None
    x: Any = node.args[0] if node.args else None
    if isinstance(layer, nn.Hardsigmoid):
        last = _product(node, x, 1.0)
        return None if last is None else (last, x, nn.Hardswish())
    if not isinstance(layer, nn.ReLU6) or not isinstance(x, fx.Node) or x.target is not operator.add:
        return None
    inner = next((a for a in x.args if isinstance(a, fx.Node)), None)
    if inner is None or _constant_beside(x, operator.add, inner) != 3.0:
        return None
    last = _product(node, inner, 1 / 6)
    return None if last is None else (last, inner, nn.Hardswish())


def _layer_norm(model: fx.GraphModule, node: fx.Node) -> _Found:
    """Match (x - mean) / sqrt(mean((x - mean)^2) + epsilon) * weight + bias over the last dimension."""
    if node.target is not torch.sqrt or not isinstance(node.args[0], fx.Node):
        return None
    plus = node.args[0]
    variance = next((a for a in plus.args if isinstance(a, fx.Node)), None)
    epsilon = _constant_beside(plus, operator.add, variance)
    square = _mean_over_last(variance)
    if epsilon is None or square is None or square.target is not operator.mul or square.args[0] is not square.args[1]:
        return None
    centred: Any = square.args[0]
    if not isinstance(centred, fx.Node) or centred.target is not operator.sub:
        return None
    x, mean = centred.args
    last = _only_user(node)
    if _mean_over_last(mean) is not x or not isinstance(x, fx.Node):
        return None
    if last is None or last.target is not operator.truediv or last.args != (centred, node):
        return None
    parts = []
    for function in (operator.mul, operator.add):
        user = _only_user(last)
        tensor = None if user is None else _vector_beside(model, user, function, last)
        if user is None or tensor is None:
            break
        parts.append(tensor)
        last = user
    if len(parts) != 2 or parts[0].shape != parts[1].shape:
        return None
    norm = nn.LayerNorm(parts[0].shape[0], eps=epsilon)
    with torch.no_grad():
        norm.weight.copy_(parts[0])
        norm.bias.copy_(parts[1])
    return last, x, norm


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _constant_beside(node: fx.Node | None, function: Callable[..., Any], other: Any) -> float | None:
    """Return the number that a node adds to (or multiplies) another one; None if it does something else."""
    if node is None or node.target is not function or len(node.args) != 2 or other not in node.args:
        return None
    value = node.args[1] if node.args[0] is other else node.args[0]
    return float(value) if isinstance(value, int | float) else None


def _vector_beside(
    model: fx.GraphModule, node: fx.Node, function: Callable[..., Any], other: fx.Node
) -> torch.Tensor | None:
    """Return the constant of one dimension that a node adds to (or multiplies) another one."""
    if node.target is not function or len(node.args) != 2 or other not in node.args:
        return None
    value = node.args[1] if node.args[0] is other else node.args[0]
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return None
    tensor = model.get_buffer(str(value.target))
    return tensor if tensor.dim() == 1 else None


def _mean_over_last(node: Any) -> fx.Node | None:
    """Return what a node takes the mean of, over the last dimension, which is kept."""
    if not isinstance(node, fx.Node) or node.target is not torch.mean or node.meta.get("rank") is None:
        return None
    keeps = node.kwargs.get("keepdim") or (len(node.args) > 2 and node.args[2])
    source = node.args[0]
    return source if keeps and node.args[1] == (node.meta["rank"] - 1,) and isinstance(source, fx.Node) else None


def _unscaled(node: Any, factor: float) -> fx.Node | None:
    """Return x of a node x * factor, or x / (1 / factor)."""
    if not isinstance(node, fx.Node) or len(node.args) != 2:
        return None
    x = next((a for a in node.args if isinstance(a, fx.Node)), None)
    value = _factor_beside(node, x)
    return x if value is not None and abs(value / factor - 1) < _CLOSE else None


def _factor_beside(node: fx.Node, x: Any) -> float | None:
    """Return the number that a node multiplies x by."""
    if (value := _constant_beside(node, operator.mul, x)) is not None:
        return value
    value = _constant_beside(node, operator.truediv, x)
    return 1 / value if value and node.args[0] is x else None


def _product(node: fx.Node, x: Any, factor: float) -> fx.Node | None:
    """Return the node that computes node * x * factor, through products that nothing else reads."""
    rest, has_x = factor, False
    while not has_x or abs(rest - 1) > _CLOSE:
        user = _only_user(node)
        if user is None:
            return None
        if (value := _factor_beside(user, node)) is not None:
            rest /= value
        elif user.target is operator.mul and not has_x:
            other = user.args[1] if user.args[0] is node else user.args[0]
            scale = 1.0 if other is x else _factor_beside(other, x) if isinstance(other, fx.Node) else None
            if scale is None:
                return None
            rest, has_x = rest / scale, True
        else:
            return None
        if not 1e-3 < abs(rest) < 1e3:
            return None
        node = user
    return node
