"""Cost of each operation of the folded network for one image: multiplications, parameters, activations."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from edgekit.measurements import LayerCost
from edgekit.quant import debug, operators, placement
from edgekit.quant.naming import tensor_names
from edgekit.quantization import Placement

# Operations without computation: other views of the same values, or padding that goes into the next layer.
_FREE_CALLS = {torch.flatten, operator.getitem, getattr, torch.unsqueeze, torch.reshape, F.dropout}
_FREE_METHODS = {"view", "reshape", "flatten", "size", "expand", "unsqueeze", "squeeze", "contiguous", "dim"}
_FREE_MODULES = (nn.Flatten, nn.ZeroPad2d, nn.Dropout, nn.Identity)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_MOST_NAMED = 5
_WITH_WEIGHT = {F.linear, F.conv1d, F.conv2d, F.conv3d}


@torch.inference_mode()
def costs(folded: fx.GraphModule, image_size: int) -> list[LayerCost]:
    """Return the cost of every operation in the order of the graph; activations belong to the layer before them.

    Multiply-accumulates: a Conv2d has outputs x kernel x inputs per group, a Linear outputs x inputs, a matrix
    product its inner dimension for each output, everything else 0.
    """
    walk = _Shapes(folded)
    walk.run(torch.zeros(1, 3, image_size, image_size))
    names = tensor_names(folded.graph)
    found: list[LayerCost] = []
    layer = ""
    for node in folded.graph.nodes:
        module = operators.module_of(folded, node)
        if node not in names or node.op == "placeholder" or _is_free(node, module) or node not in walk.shapes:
            continue
        if isinstance(module, nn.Conv2d | nn.Linear):
            layer = names[node]
        elif _is_fused(folded, node):
            continue
        found.append(_cost(folded, node, layer, walk.shapes))
    return found


@dataclass(frozen=True)
class LeftFloat:
    """Operators of a quantized network that compute in floating point.

    Attributes:
        macs: share of the multiply-accumulates, 0 to 1.
        multiplying: operators that do these, ``name (kind)``, those with the most first.
        others: number of the other operators without an integer kernel, by kind.
    """

    macs: float
    multiplying: tuple[str, ...]
    others: dict[str, int]

    def __str__(self) -> str:
        """Return it in one line."""
        more = f" and {len(self.multiplying) - _MOST_NAMED} more" if len(self.multiplying) > _MOST_NAMED else ""
        named = f": {', '.join(self.multiplying[:_MOST_NAMED])}{more}" if self.multiplying else ""
        others = "; also " + ", ".join(f"{count} {kind}" for kind, count in self.others.items()) if self.others else ""
        return f"{100 * self.macs:.1f} % of the multiplications in floating point{named}{others}"


def left_float(folded: fx.GraphModule, placed: Placement, image_size: int, lost: Sequence[str] = ()) -> LeftFloat:
    """Return what computes in floating point where a runtime holds integers as in `placed`, but for those of `lost`."""
    found = costs(folded, image_size)
    in_int8 = (placed.int8_layers | placed.int8_products).difference(lost)
    staying = sorted((c for c in found if c.macs and c.name not in in_int8), key=lambda cost: -cost.macs)
    nodes = tensor_names(folded.graph)
    others = Counter(
        _kind(node, operators.module_of(folded, node))
        for node, name in nodes.items()
        if node.op != "placeholder" and name not in {cost.name for cost in found if cost.macs}
        if name in placed.float_operators or not operators.has_integer_kernel(folded, node)
        if not operators.moves(folded, node)
    )
    total = sum(cost.macs for cost in found)
    share = sum(cost.macs for cost in staying) / total if total else 0.0
    return LeftFloat(share, tuple(f"{cost.name} ({cost.kind})" for cost in staying), dict(others.most_common()))


class _Shapes(fx.Interpreter):
    """Runs a graph and keeps the shape of every tensor."""

    def __init__(self, folded: fx.GraphModule) -> None:
        super().__init__(folded)
        self.shapes: dict[fx.Node, torch.Size] = {}

    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        if isinstance(value, torch.Tensor):
            self.shapes[node] = value.shape
        return value


def _is_free(node: fx.Node, module: nn.Module | None) -> bool:
    if node.op == "call_method":
        return node.target in _FREE_METHODS
    return isinstance(module, _FREE_MODULES) or node.op == "get_attr" or node.target in _FREE_CALLS


def _is_fused(folded: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node is computed with the operation before it, whose only reader it is."""
    sources = node.all_input_nodes
    return placement.is_fused_activation(folded, node) and len(sources) == 1 and len(sources[0].users) == 1


def _cost(folded: fx.GraphModule, node: fx.Node, layer: str, shapes: dict[fx.Node, torch.Size]) -> LayerCost:
    names, module = tensor_names(folded.graph), operators.module_of(folded, node)
    followers = [user for user in node.users if _is_fused(folded, user)]
    weighted = isinstance(module, nn.Conv2d | nn.Linear)
    parameters = {name: value.numel() for name, value in module.named_parameters()} if module is not None else {}
    biases = parameters.get("bias", 0)
    return LayerCost(
        name=names[node],
        kind=debug.kind(module) if weighted and module is not None else _kind(node, module),
        layer=layer,
        macs=_macs(folded, node, module, shapes),
        weights=sum(parameters.values()) - biases,
        biases=biases,
        read=sum(math.prod(shapes[source]) for source in node.all_input_nodes if source in shapes),
        written=math.prod(shapes[node]),
        tensors=tuple(dict.fromkeys((names[node], *(names[user] for user in followers)))),
    )


def _kind(node: fx.Node, module: nn.Module | None) -> str:
    """Return the kind of an operation: ``add``, ``maxpool2d``."""
    if module is not None:
        return type(module).__name__.lower()
    return str(getattr(node.target, "__name__", node.target)).strip("_")


def _macs(folded: fx.GraphModule, node: fx.Node, module: nn.Module | None, shapes: dict[fx.Node, torch.Size]) -> int:
    written = math.prod(shapes[node])
    if isinstance(module, _CONVOLUTIONS):
        return written * math.prod(module.kernel_size) * (module.in_channels // module.groups)
    if isinstance(module, _TRANSPOSED):
        read = math.prod(shapes[node.all_input_nodes[0]])
        return read * math.prod(module.kernel_size) * (module.out_channels // module.groups)
    if isinstance(module, nn.Linear):
        return written * module.in_features
    if operators.kind(folded, node) in operators.PRODUCTS:
        return written * shapes[node.all_input_nodes[0]][-1]
    if node.target in _WITH_WEIGHT:
        return written * math.prod(shapes[node.all_input_nodes[1]][1:])
    if node.target is F.scaled_dot_product_attention:
        query, key = (shapes[source] for source in node.all_input_nodes[:2])
        return 2 * math.prod(query) * key[-2]
    return 0
