"""Parallel convolutions whose outputs are summed, made one convolution: the blocks of RepVGG and of its followers.

Ding et al. 2021, "RepVGG: Making VGG-style ConvNets Great Again", arXiv:2101.03697, section 3.3.
"""

from __future__ import annotations

import copy
import operator

import torch
import torch.nn.functional as F
from torch import fx, nn

_SUMS = (operator.add, torch.add)


@torch.no_grad()
def sum_branches(folded: fx.GraphModule) -> None:
    """Replace each sum of two convolutions of one tensor by one convolution, in place.

    Rules:
    1. Both read the same tensor, only the sum reads what they write, and each is called once.
    2. Strides are equal, and so are dilations and groups. A depthwise layer, which a batch norm is by now, also goes
       into a layer with fewer groups. The smaller kernel lies in the middle of the larger one: no weights are added.
    3. A sum with the number 0, as Python's ``sum`` begins, is left out.

    The result may itself be a branch of the next sum. It has the name of the branch with the larger kernel.
    """
    for node in list(folded.graph.nodes):
        if node.op != "call_function" or node.target not in _SUMS or len(node.args) != 2 or node.kwargs:
            continue
        first, second = node.args
        if not isinstance(first, fx.Node) or not isinstance(second, fx.Node):
            given, other = (first, second) if isinstance(first, fx.Node) else (second, first)
            if isinstance(given, fx.Node) and type(other) in (int, float) and other == 0:
                node.replace_all_uses_with(given)
                folded.graph.erase_node(node)
            continue
        one, two = _branch(folded, first), _branch(folded, second)
        if one is None or two is None or first.args != second.args or first is second:
            continue
        if _size(one) < _size(two):
            first, second, one, two = second, first, two, one
        summed = _summed(one, two)
        if summed is not None:
            folded.set_submodule(str(first.target), summed)
            node.replace_all_uses_with(first)
            folded.graph.erase_node(node)
            folded.graph.erase_node(second)


def _branch(folded: fx.GraphModule, node: fx.Node) -> nn.Conv2d | None:
    """Return the convolution that a node calls, if rule 1 holds for it and it pads with zeros."""
    if node.op != "call_module" or len(node.users) != 1:
        return None
    module = folded.get_submodule(str(node.target))
    calls = sum((other.op, other.target) == ("call_module", node.target) for other in folded.graph.nodes)
    plain = type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return module if plain and calls == 1 else None  # type: ignore[return-value]


def _size(module: nn.Conv2d) -> tuple[int, int]:
    """Return the size of the kernel, and the number of weights."""
    return module.weight[0, 0].numel(), module.weight.numel()


def _summed(one: nn.Conv2d, two: nn.Conv2d) -> nn.Conv2d | None:
    """Return the sum of two convolutions, of which `one` has the larger kernel; None unless rule 2 holds."""
    weight, high, wide = _with_groups(two, one.groups), _margin(one, two, 0), _margin(one, two, 1)
    if one.stride != two.stride or weight is None or high is None or wide is None:
        return None
    biases = [torch.zeros(len(m.weight)) if m.bias is None else m.bias for m in (one, two)]
    result = copy.deepcopy(one)
    result.weight = nn.Parameter(one.weight + F.pad(weight, (wide, wide, high, high)), False)
    result.bias = nn.Parameter(biases[0] + biases[1], False)
    return result


def _margin(one: nn.Conv2d, two: nn.Conv2d, axis: int) -> int | None:
    """Return the weights of `one` on either side of the kernel of `two`; None if that lies elsewhere."""
    more, inner = one.kernel_size[axis] - two.kernel_size[axis], two.kernel_size[axis] > 1
    if more < 0 or (inner and one.dilation[axis] != two.dilation[axis]):
        return None
    moved = int(one.padding[axis]) - int(two.padding[axis])
    return more // 2 if 2 * moved == more * one.dilation[axis] and more % 2 == 0 else None


def _with_groups(module: nn.Conv2d, groups: int) -> torch.Tensor | None:
    """Return the weight of a layer for a number of groups; None if they cannot hold it."""
    weight, channels = module.weight, len(module.weight)
    if module.groups == groups:
        return weight
    if not module.groups == module.in_channels == channels:
        return None
    wide = torch.zeros(channels, channels // groups, *weight.shape[2:])
    wide[torch.arange(channels), torch.arange(channels) % (channels // groups)] = weight[:, 0]
    return wide
