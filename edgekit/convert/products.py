"""Products with constants, folded into the layers before them: the layer scale of ConvNeXt and of many transformers.

Converters do this by themselves, each in its own way; then the file has other weights than the network.
"""

from __future__ import annotations

import copy
import operator

import torch
from torch import fx, nn

_PRODUCTS = (operator.mul, torch.mul)
_PERMUTATIONS = (torch.permute,)


@torch.no_grad()
def fold_products(folded: fx.GraphModule) -> None:
    """Fold each product with one constant per channel into the Conv2d or Linear before it, in place.

    Only permutations may lie between, nothing else may read the tensors between, and the layer is called once.
    """
    for node in list(folded.graph.nodes):
        if node.op != "call_function" or node.target not in _PRODUCTS or len(node.args) != 2:
            continue
        held = [arg for arg in node.args if isinstance(arg, fx.Node) and arg.op == "get_attr"]
        given = [arg for arg in node.args if isinstance(arg, fx.Node) and arg.op != "get_attr"]
        if len(held) != 1 or len(given) != 1:
            continue
        constant = fx.graph_module._get_attr(folded, str(held[0].target))
        if isinstance(constant, torch.Tensor) and _fold(folded, given[0], constant):
            node.replace_all_uses_with(given[0])
            folded.graph.erase_node(node)
            if not held[0].users:
                folded.graph.erase_node(held[0])


def _fold(folded: fx.GraphModule, node: fx.Node, constant: torch.Tensor) -> bool:
    """Multiply the layer that writes `node` by a constant; return whether that was possible."""
    orders: list[tuple[int, ...]] = []
    while len(node.users) == 1 and (order := _order(node)) is not None:
        orders.append(order)
        node = node.all_input_nodes[0]
    module = folded.get_submodule(str(node.target)) if node.op == "call_module" else None
    calls = sum(each.op == "call_module" and each.target == node.target for each in folded.graph.nodes)
    if not isinstance(module, nn.Conv2d | nn.Linear) or len(node.users) != 1 or calls != 1:
        return False
    dims = len(orders[0]) if orders else (4 if isinstance(module, nn.Conv2d) else max(constant.ndim, 1))
    if constant.ndim > dims:
        return False
    shape = (*(1,) * (dims - constant.ndim), *constant.shape)
    axis = 1 if isinstance(module, nn.Conv2d) else dims - 1
    for order in reversed(orders):
        axis = order.index(axis)
    if shape[axis] not in (1, len(module.weight)) or any(size != 1 for k, size in enumerate(shape) if k != axis):
        return False
    factors = constant.detach().flatten().expand(len(module.weight))
    changed = _scaled(module, factors)
    folded.set_submodule(str(node.target), changed)
    return True


def _order(node: fx.Node) -> tuple[int, ...] | None:
    """Return the order of the dimensions that a permutation gives; None for other nodes."""
    if node.op == "call_method" and node.target == "permute":
        given = node.args[1:]
    elif node.op == "call_function" and node.target in _PERMUTATIONS:
        given = node.args[1:] or (node.kwargs["dims"],)
    else:
        return None
    order = given[0] if len(given) == 1 and isinstance(given[0], list | tuple) else given
    dims = len(order)
    return tuple(int(k) % dims for k in order)  # type: ignore[arg-type]


def _scaled(module: nn.Conv2d | nn.Linear, factors: torch.Tensor) -> nn.Module:
    """Return a copy of a layer whose outputs are multiplied by `factors` (outputs,)."""
    changed = copy.deepcopy(module)
    changed.weight = nn.Parameter(module.weight * factors.view(-1, *(1,) * (module.weight.ndim - 1)), False)
    if module.bias is not None:
        changed.bias = nn.Parameter(module.bias * factors, False)
    return changed
