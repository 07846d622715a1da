"""Which tensors hold integers, told on the folded torch graph: what both emitters write, for simulation."""

from __future__ import annotations

import copy
import operator

import torch
import torch.nn.functional as F
from torch import fx, nn

from edgekit.quant.naming import tensor_names
from edgekit.quantization import LayerWeights, QuantScheme

Weighted = nn.Conv2d | nn.Linear
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardtanh)
_ACTIVATION_CALLS = (F.relu, F.relu6, F.hardtanh, torch.relu)
_LEAST_CHANNELS = 16
_SHIFTING = (nn.Conv2d, nn.Linear, *_ACTIVATIONS, nn.Hardswish, nn.GELU, nn.AdaptiveAvgPool2d, nn.Flatten)
_SHIFTING_CALLS = (
    *(*_ACTIVATION_CALLS, F.hardswish, F.gelu),
    *(operator.add, torch.add, operator.mul, torch.mul),
    *(F.adaptive_avg_pool2d, torch.mean, torch.flatten),
)


def module_of(folded: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that a node calls, if it calls one."""
    return folded.get_submodule(str(node.target)) if node.op == "call_module" else None


def layers(folded: fx.GraphModule) -> dict[str, tuple[fx.Node, Weighted]]:
    """Every Conv2d and Linear by name, in the order of the graph."""
    names = tensor_names(folded.graph)
    found = {}
    for node in folded.graph.nodes:
        module = module_of(folded, node)
        if isinstance(module, nn.Conv2d | nn.Linear):
            found[names[node]] = node, module
    return found


def conv_runs_in_int8(outputs: int, inputs: int, groups: int) -> bool:
    """Whether TensorRT has an INT8 kernel worth taking for so many channels.

    At least 16 of both, or multiples of 8; a depthwise convolution needs a multiple of 8.
    """
    if is_depthwise(inputs, groups):
        return outputs % 8 == 0
    return min(inputs, outputs) >= _LEAST_CHANNELS or (inputs % 8 == 0 and outputs % 8 == 0)


def runs_in_int8(folded: fx.GraphModule, node: fx.Node, scheme: QuantScheme) -> bool:
    """Whether the layer of `node` runs in INT8 under `scheme`; see `quant.qdq`, rules 2 and 3."""
    module = module_of(folded, node)
    if scheme.everywhere or isinstance(module, nn.Linear):
        return True
    assert isinstance(module, nn.Conv2d)
    if not conv_runs_in_int8(module.out_channels, module.in_channels, module.groups):
        return False
    writer = _writer(folded, node.all_input_nodes[0])
    follows_float = writer is not None and not runs_in_int8(folded, writer, scheme)
    return not (follows_float and is_depthwise(module.in_channels, module.groups))


def is_depthwise(inputs: int, groups: int) -> bool:
    """Whether every channel has a filter of its own."""
    return groups == inputs and groups > 1


def _writer(folded: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """The convolution that writes a tensor, by itself or through its activation."""
    while not isinstance(module_of(folded, node), nn.Conv2d):
        kinds = (*_ACTIVATIONS, nn.Hardswish, nn.Sigmoid, nn.ZeroPad2d)
        gate = node.target in (operator.mul, torch.mul, torch.sigmoid) or is_fused_activation(folded, node)
        if not (gate or isinstance(module_of(folded, node), kinds)) or not node.all_input_nodes:
            return None
        node = node.all_input_nodes[0]
    return node


def is_fused_activation(folded: fx.GraphModule, node: fx.Node) -> bool:
    """Whether LiteRT computes this node as part of the operator before it."""
    return isinstance(module_of(folded, node), _ACTIVATIONS) or node.target in _ACTIVATION_CALLS


def trained(folded: fx.GraphModule) -> dict[str, LayerWeights]:
    """Every Conv2d and Linear with the weights that it has."""
    return {
        name: LayerWeights(
            module.weight.detach().numpy(), None if module.bias is None else module.bias.detach().numpy()
        )
        for name, (_, module) in layers(folded).items()
    }


def with_weights(folded: fx.GraphModule, layers: dict[str, LayerWeights]) -> fx.GraphModule:
    """The network with other float weights in some layers, which shares all else; itself where there are none."""
    if not layers:
        return folded
    changed = fx.GraphModule(folded, copy.deepcopy(folded.graph))
    for name, layer in layers.items():
        node, module = _layer(folded, name)
        module.weight = nn.Parameter(torch.tensor(layer.weight), requires_grad=False)
        module.bias = None if layer.bias is None else nn.Parameter(torch.tensor(layer.bias), requires_grad=False)
        changed.set_submodule(str(node.target), module)
    return changed


def _layer(folded: fx.GraphModule, name: str) -> tuple[fx.Node, Weighted]:
    """A layer's node, and a copy of its module."""
    node, module = layers(folded)[name]
    return node, copy.deepcopy(module)


def written_by(folded: fx.GraphModule) -> dict[str, str]:
    """Tensor name -> the layer that writes it, by itself or with the activation that is fused into it."""
    names, written = tensor_names(folded.graph), {}
    for name, (node, _) in layers(folded).items():
        written[name] = name
        users = list(node.users)
        if len(users) == 1 and is_fused_activation(folded, users[0]):
            written[names[users[0]]] = name
    return written


def quantized_tensors(folded: fx.GraphModule, scheme: QuantScheme, float_layers: tuple[str, ...] = ()) -> set[str]:
    """The tensors, by name, that are rounded to int8.

    Rules:
    1. `everywhere` (LiteRT): every tensor but those that go only into a fused activation.
    2. Else (TensorRT): what an INT8 Conv2d or Linear reads, and both sides of the product that
       scales channels in squeeze-and-excitation, and what its pool reads.
    3. A tensor that only float layers read stays float.

    What is left out: the residual Add's shortcut where nothing else reads it in INT8.
    """
    names, weighted = tensor_names(folded.graph), layers(folded)
    chosen: set[str] = set()
    for node in folded.graph.nodes:
        if node not in names:
            continue
        users = list(node.users)
        read = [names[u] for u in users if names.get(u) in weighted]
        only_float = bool(read) and len(read) == len(users) and all(name in float_layers for name in read)
        if only_float:
            continue
        if scheme.everywhere:
            fused = len(users) == 1 and is_fused_activation(folded, users[0])
            if users and not (fused and not is_fused_activation(folded, node)):
                chosen.add(names[node])
            continue
        if any(name not in float_layers and runs_in_int8(folded, weighted[name][0], scheme) for name in read):
            chosen.add(names[node])
    if not scheme.everywhere:
        chosen |= _around_gates(folded, names)
    return chosen


def shifted_tensors(folded: fx.GraphModule, scheme: QuantScheme, float_layers: tuple[str, ...] = ()) -> set[str]:
    """The rounded tensors, by name, that may be stored about the middle of their range; see `quant.shift`."""
    if not scheme.shifted:
        return set()
    names, weighted = tensor_names(folded.graph), layers(folded)

    def takes_it(user: fx.Node) -> bool:
        name = names.get(user, "")
        in_int8 = name in weighted and name not in float_layers and runs_in_int8(folded, user, scheme)
        return in_int8 and is_unpadded(weighted[name][1]) and weighted[name][1].bias is not None

    rounded = quantized_tensors(folded, scheme, float_layers)
    return {
        name
        for node, name in names.items()
        if name in rounded and _adds_a_constant(folded, node) and all(takes_it(user) for user in node.users)
    }


def is_unpadded(module: Weighted) -> bool:
    """Whether a layer reads nothing but its input: no zeros around it, which would no longer be zeros."""
    return isinstance(module, nn.Linear) or module.padding in (0, (0, 0), "valid")


def _adds_a_constant(folded: fx.GraphModule, node: fx.Node) -> bool:
    """Whether what writes a tensor adds a constant on the way: a layer to its bias, a pointwise operator by itself."""
    module = module_of(folded, node)
    return isinstance(module, _SHIFTING) if module is not None else node.target in _SHIFTING_CALLS


def _around_gates(folded: fx.GraphModule, names: dict[fx.Node, str]) -> set[str]:
    """Rule 2, squeeze-and-excitation."""
    found = set()
    for node in folded.graph.nodes:
        if node.op == "call_function" and node.target in (operator.mul, torch.mul) and len(node.all_input_nodes) == 2:
            for gate, other in (node.all_input_nodes, reversed(node.all_input_nodes)):
                module = module_of(folded, gate)
                is_gate = isinstance(module, nn.Sigmoid | nn.Hardsigmoid) or gate.target is torch.sigmoid
                if is_gate and gate.all_input_nodes[0] is not other:
                    found |= {names[gate], names[other]}
    return found
