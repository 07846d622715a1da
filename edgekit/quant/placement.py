"""Placement of integers: which tensors of the folded torch graph are rounded, on which grids, and who reads them.

This is the only place that decides it. The emitters write a `Placement`, the simulation runs it.

LiteRT (`everywhere`):

A. Conv2d, Linear and products of two matrices that depend on the image compute on int8 tensors.
B. What LiteRT has no int8 kernel for (layer norm, softmax, GELU, a constant tensor beside the input, and whatever is
   not in `quant.operators`) computes in floating point, on tensors as they are.
C. Every other operator is between these. It computes on int8 if each tensor that it reads is held as integers anyway,
   and no operator of rule B reads what it writes: the additions of a vision transformer, each between two layer norms,
   stay float. One that only moves values keeps the grid of what it reads.
D. Every tensor that an int8 operator reads or writes is rounded, except those that only a fused activation reads.

For TensorRT (NVIDIA TensorRT documentation, "Working with quantized types"; TensorRT 8.5's parser):

1. Conv2d and Linear read a rounded input, and have int8 weights.
2. A convolution with fewer than 16 input or output channels stays float, unless both counts are
   multiples of 8. A depthwise convolution needs a multiple of 8.
3. A depthwise convolution that reads what a float convolution writes (the second layer of MobileNet
   and EfficientNet) stays float: no tensor is more sensitive to rounding than the one between them
   (EfficientNet-Lite0: 20.9 dB at the logits if it alone is rounded, all others together 23.1 dB).
4. Nothing is rounded between a convolution and its activation, nor at the output of the network.
5. A residual addition reads its shortcut rounded; the other side is fused into the convolution that writes it. The
   shortcut is the input that no convolution writes; where both come from convolutions, the one that something else
   reads too (MobileNetV2), else the second (a ResNet's downsampling convolution).
6. Squeeze-and-excitation: the average pool before a convolution reads a rounded input, and so does the product that
   scales the channels, on both sides.
7. A layer that is kept in floating point reads its input as it is.
8. A product of two matrices that depend on the image (attention) reads both rounded. Softmax, layer norm, GELU and all
   else stay float (NVIDIA/TensorRT, issue 3243: a pair before each of the two products, for fused attention).

In both, an operator whose input has no range, because a mask makes it infinite, computes in floating point.

Strict parity on TensorRT rounds what LiteRT rounds; the layers that rule 2 keeps float then read and write rounded
values.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Container, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from edgekit.quant import affine, operators
from edgekit.quant.naming import Affine, tensor_names
from edgekit.quant.operators import Weighted, module_of
from edgekit.quantization import (
    LITERT_SCHEME,
    STRICT_TENSORRT_SCHEME,
    TENSORRT_SCHEME,
    CalibrationTable,
    LayerWeights,
    Placement,
    QuantizedModel,
    QuantScheme,
)

_Read = tuple[fx.Node, fx.Node]  # a tensor, and the operation that reads it
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardtanh)
_ACTIVATION_CALLS = (F.relu, F.relu6, F.hardtanh, torch.relu)
_ADDITIONS = (operator.add, torch.add)
_PRODUCTS = (operator.mul, torch.mul)
_LEAST_CHANNELS = 16
# Operations that can add a constant on the way: a layer by its bias, a pointwise operation because an Add can follow.
_SHIFTING = (nn.Conv2d, nn.Linear, *_ACTIVATIONS, nn.Hardswish, nn.GELU, nn.AdaptiveAvgPool2d, nn.Flatten)
_SHIFTING_CALLS = (
    *(*_ACTIVATION_CALLS, F.hardswish, F.gelu, *_ADDITIONS, *_PRODUCTS),
    *(F.adaptive_avg_pool2d, torch.mean, torch.flatten),
)


def quantized_model(
    folded: fx.GraphModule,
    table: CalibrationTable,
    layers: dict[str, LayerWeights],
    symmetric: bool = False,
    steps: tuple[str, ...] = (),
    rewritten: dict[str, LayerWeights] | None = None,
) -> QuantizedModel:
    """Return a quantized model with its placements for every target.

    Args:
        layers, symmetric, steps, rewritten: see `QuantizedModel`.
    """
    plain = QuantizedModel(table, layers, symmetric, steps, rewritten or {})
    schemes = {plain.scheme(native) for native in (TENSORRT_SCHEME, LITERT_SCHEME)}
    if symmetric:
        schemes.add(STRICT_TENSORRT_SCHEME)
    placements = {scheme: place(folded, table, scheme, plain.float_layers) for scheme in schemes}
    return QuantizedModel(table, layers, symmetric, steps, plain.rewritten, placements)


def with_changes(
    folded: fx.GraphModule,
    model: QuantizedModel,
    layers: dict[str, LayerWeights] | None = None,
    table: CalibrationTable | None = None,
) -> QuantizedModel:
    """Return a quantized model with other layers or another table, and its placements made anew."""
    layers = model.layers if layers is None else layers
    return quantized_model(folded, table or model.table, layers, model.symmetric, model.steps, model.rewritten)


def place(
    folded: fx.GraphModule, table: CalibrationTable, scheme: QuantScheme, float_layers: tuple[str, ...] = ()
) -> Placement:
    """Return where `scheme` holds integers, by the rules of this module.

    Args:
        float_layers: names of the layers that are kept in floating point.
    """
    names, known = tensor_names(folded.graph), table.ranges.keys()
    integers = quantized_tensors(folded, scheme, float_layers, known)
    shifted = _shifted_tensors(folded, scheme, float_layers, integers)
    in_int8 = {
        name
        for name, (node, _) in layers(folded).items()
        if name not in float_layers and runs_in_int8(folded, node, scheme) and _reads_known(names, node, known)
    }
    reads = set()
    for source, reader in _reads(folded, scheme, float_layers, known):
        reads.add((names[source], names[reader]))
        if isinstance(module_of(folded, source), nn.ZeroPad2d):  # exporters may fold it into the layer that reads it
            reads.add((names[source.all_input_nodes[0]], names[reader]))
    spans = table.spans(scheme.symmetric)
    grids = {n: affine.tensor_grid(span, scheme.symmetric, n in shifted) for n, span in spans.items()}
    floats: set[str] = set()
    if scheme.everywhere:
        computes = _integer_operators(folded, float_layers, known)
        floats = {name for node, name in names.items() if node.op != "placeholder" and node not in computes}
        floats -= set(float_layers)
        for node in computes:
            first = names.get(operators.origin(folded, node), "")
            if _keeps_grid(folded, node) and {names[node], first} <= grids.keys():
                grids[names[node]] = grids[first]
    return Placement(
        grids,
        tuple(name for name in names.values() if name in integers),
        frozenset(reads),
        frozenset(in_int8),
        frozenset(names[node] for node in names if _product_is_known(folded, node, names, known)),
        frozenset(floats),
    )


def quantized_tensors(
    folded: fx.GraphModule,
    scheme: QuantScheme,
    float_layers: tuple[str, ...] = (),
    known: Container[str] | None = None,
) -> set[str]:
    """Return the names of the tensors that the simulation rounds to int8.

    A tensor that only float layers read stays float. For TensorRT this leaves out tensors that only residual
    additions (rule 5) and pools (rule 6) read rounded.

    Args:
        known: tensors that have a range; by default all.
    """
    names, weighted = tensor_names(folded.graph), layers(folded)
    known = set(names.values()) if known is None else known
    if scheme.everywhere:
        computes = _integer_operators(folded, float_layers, known)
        return {
            name
            for node, name in names.items()
            if name in known and _rounded_everywhere(folded, node, names, float_layers, computes)
        }
    return {
        names[source]
        for source, reader in _reads(folded, scheme, float_layers, known)
        if names[reader] in weighted or reader.target in _PRODUCTS or operators.is_product(folded, reader)
    }


def _reads_known(names: dict[fx.Node, str], node: fx.Node, known: Container[str]) -> bool:
    """Return whether everything that a node reads has a range."""
    return all(names.get(source, "") in known for source in node.all_input_nodes)


def _product_is_known(folded: fx.GraphModule, node: fx.Node, names: dict[fx.Node, str], known: Container[str]) -> bool:
    return operators.is_product(folded, node) and _reads_known(names, node, known)


def _integer_operators(folded: fx.GraphModule, float_layers: tuple[str, ...], known: Container[str]) -> set[fx.Node]:
    """Return the operators that LiteRT computes on int8 tensors (rules A to C)."""
    names, weighted = tensor_names(folded.graph), layers(folded)

    def is_heavy(node: fx.Node) -> bool:
        name = names.get(node, "")
        if name in weighted:
            return name not in float_layers and name in known and _reads_known(names, node, known)
        return name in known and _product_is_known(folded, node, names, known)

    heavy = {node for node in names if is_heavy(node)}
    # A layer that was chosen to stay float (`float_layers`) is surrounded by integers: it changes nothing around it.
    bounds = {node for node in names if node.op == "placeholder" or names[node] in float_layers}
    floats = {
        node
        for node, name in names.items()
        if node not in heavy | bounds
        and not (operators.has_integer_kernel(folded, node) and _is_known(node, name, known))
    }
    computes = set(heavy)
    for node in names:
        if node in heavy | bounds | floats:
            continue
        sources = node.all_input_nodes
        if is_fused_activation(folded, node) and len(sources[0].users) == 1 and sources[0] in heavy:
            computes.add(node)
            continue
        held = all(s in computes or s in bounds or any(u in heavy for u in s.users) for s in sources)
        if held and (operators.moves(folded, node) or not any(u in floats for u in _readers(folded, node))):
            computes.add(node)
    return computes


def _is_known(node: fx.Node, name: str, known: Container[str]) -> bool:
    """Return whether a tensor has a range; several tensors in one (of a split) need none."""
    return name in known or operators.gives_several(node)


def _readers(folded: fx.GraphModule, node: fx.Node) -> Iterator[fx.Node]:
    """Yield the operators that read a tensor, those behind moves instead of the moves."""
    for user in node.users:
        if operators.moves(folded, user):
            yield from _readers(folded, user)
        else:
            yield user


def _keeps_grid(folded: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node keeps the grid of what it reads (rule C), and does not have its own range for it."""
    return operators.moves(folded, node) and operators.kind(folded, node) not in ("flatten", "zeropad2d")


def _rounded_everywhere(
    folded: fx.GraphModule,
    node: fx.Node,
    names: dict[fx.Node, str],
    float_layers: tuple[str, ...],
    computes: set[fx.Node],
) -> bool:
    """Return whether LiteRT holds a tensor as integers (rule D); `computes` are the operators on int8 tensors."""
    users = list(node.users)
    if not users or all(names.get(user) in float_layers for user in users):
        return False
    if not (node in computes or names[node] in float_layers or any(user in computes for user in users)):
        return False
    fused = len(users) == 1 and is_fused_activation(folded, users[0])
    return not fused or is_fused_activation(folded, node)


def _reads(
    folded: fx.GraphModule, scheme: QuantScheme, float_layers: tuple[str, ...], known: Container[str]
) -> Iterator[_Read]:
    """Yield every read of a rounded tensor."""
    names = tensor_names(folded.graph)
    if scheme.everywhere:
        computes = _integer_operators(folded, float_layers, known)
        for node in names:
            if names[node] in known and _rounded_everywhere(folded, node, names, float_layers, computes):
                yield from ((node, u) for u in node.users if u in computes)
        return
    for name, (node, _) in layers(folded).items():
        if name not in float_layers and runs_in_int8(folded, node, scheme) and _reads_known(names, node, known):
            yield node.all_input_nodes[0], node
    for node in names:
        if not _reads_known(names, node, known):
            continue
        sources = node.all_input_nodes
        if operators.is_product(folded, node):
            yield from ((source, node) for source in sources)
        elif node.target in _ADDITIONS and (shortcut := _shortcut(folded, node)) is not None:
            yield shortcut, node
        elif node.target in _PRODUCTS and _scales_channels(folded, node):
            yield from ((source, node) for source in sources)
        elif _is_global_pool(folded, node) and any(isinstance(module_of(folded, u), nn.Conv2d) for u in node.users):
            yield sources[0], node


def _shortcut(folded: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Return the input of an addition that rule 5 rounds, if it has one."""
    sources = node.all_input_nodes
    convs = [isinstance(module_of(folded, source), nn.Conv2d) for source in sources]
    if len(sources) != 2 or not any(convs) or any(source.op == "get_attr" for source in sources):
        return None
    if not all(convs):
        return sources[convs.index(False)]
    return next((source for source in sources if len(source.users) > 1), sources[1])


def _scales_channels(folded: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a product scales channels: one side is the sigmoid of something other than the other side."""
    if len(node.all_input_nodes) != 2:
        return False
    one, two = node.all_input_nodes
    for gate, scaled in ((one, two), (two, one)):
        module = module_of(folded, gate)
        is_gate = isinstance(module, nn.Sigmoid | nn.Hardsigmoid) or gate.target is torch.sigmoid
        if is_gate and gate.all_input_nodes[0] is not scaled:  # x * sigmoid(x) is SiLU
            return True
    return False


def _is_global_pool(folded: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node averages over height and width; of a mean it is taken for granted if a Conv2d reads it."""
    module = module_of(folded, node)
    size: object = None
    if isinstance(module, nn.AdaptiveAvgPool2d):
        size = module.output_size
    elif node.target is F.adaptive_avg_pool2d:
        size = node.args[1] if len(node.args) > 1 else node.kwargs["output_size"]
    return size in (1, (1, 1), [1, 1]) or node.target is torch.mean or (node.op, node.target) == ("call_method", "mean")


def layers(folded: fx.GraphModule) -> dict[str, tuple[fx.Node, Weighted]]:
    """Return every Conv2d and Linear whose weights are rounded by name, in the order of the graph."""
    names = tensor_names(folded.graph)
    found = {}
    for node in folded.graph.nodes:
        module = module_of(folded, node)
        if operators.is_layer(module):
            assert isinstance(module, nn.Conv2d | nn.Linear)
            found[names[node]] = node, module
    return found


def conv_runs_in_int8(outputs: int, inputs: int, groups: int) -> bool:
    """Return whether TensorRT has an INT8 kernel worth taking for these channel counts (rule 2)."""
    if is_depthwise(inputs, groups):
        return outputs % 8 == 0
    return min(inputs, outputs) >= _LEAST_CHANNELS or (inputs % 8 == 0 and outputs % 8 == 0)


def runs_in_int8(folded: fx.GraphModule, node: fx.Node, scheme: QuantScheme) -> bool:
    """Return whether the layer of `node` computes in INT8 under `scheme` (rules 2 and 3)."""
    module = module_of(folded, node)
    if isinstance(module, nn.Linear) or (scheme.everywhere and not scheme.few_kernels):
        return True
    assert isinstance(module, nn.Conv2d)
    if not conv_runs_in_int8(module.out_channels, module.in_channels, module.groups):
        return False
    if scheme.everywhere:
        return True
    writer = _writer(folded, node.all_input_nodes[0])
    follows_float = writer is not None and not runs_in_int8(folded, writer, scheme)
    return not (follows_float and is_depthwise(module.in_channels, module.groups))


def is_depthwise(inputs: int, groups: int) -> bool:
    """Return whether every channel has a filter of its own."""
    return groups == inputs and groups > 1


def _writer(folded: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """Return the convolution that writes a tensor, by itself or through its activation."""
    while not isinstance(module_of(folded, node), nn.Conv2d):
        kinds = (*_ACTIVATIONS, nn.Hardswish, nn.Sigmoid, nn.ZeroPad2d)
        gate = node.target in (*_PRODUCTS, torch.sigmoid) or is_fused_activation(folded, node)
        if not (gate or isinstance(module_of(folded, node), kinds)) or not node.all_input_nodes:
            return None
        node = node.all_input_nodes[0]
    return node


def is_fused_activation(folded: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether LiteRT computes a node as part of the operator before it."""
    return isinstance(module_of(folded, node), _ACTIVATIONS) or node.target in _ACTIVATION_CALLS


def is_zero_below_zero(folded: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether a node is an activation that is zero for values below zero."""
    if not is_fused_activation(folded, node):
        return False
    return not operators.run_node(folded, node, torch.tensor([-1e3, -1.0, -1e-3, 0.0])).any()


def is_plain_depthwise(module: nn.Conv2d) -> bool:
    """Return whether a convolution has one filter for each channel, and zeros around the image."""
    alone = is_depthwise(module.in_channels, module.groups)
    return alone and module.out_channels == module.in_channels and module.padding_mode == "zeros"


def trained_weights(folded: fx.GraphModule) -> dict[str, LayerWeights]:
    """Return every Conv2d and Linear with its float weights."""
    return {
        name: LayerWeights(
            module.weight.detach().numpy(), None if module.bias is None else module.bias.detach().numpy()
        )
        for name, (_, module) in layers(folded).items()
    }


def affine_before(folded: fx.GraphModule) -> dict[str, Affine]:
    """Return layer -> the end of the layer norm that it reads, perhaps with its values moved."""
    names, found = tensor_names(folded.graph), {}
    for name, (node, _) in layers(folded).items():
        source = node.all_input_nodes[0]
        norm = module_of(folded, operators.origin(folded, source))
        if isinstance(norm, nn.LayerNorm) and len(norm.normalized_shape) == 1 and norm.weight is not None:
            weight = norm.weight.detach().numpy()
            bias = np.zeros_like(weight) if norm.bias is None else norm.bias.detach().numpy()
            found[name] = Affine(names[source], weight, bias)
    return found


def with_weights(folded: fx.GraphModule, layers: dict[str, LayerWeights]) -> fx.GraphModule:
    """Return the network with other float weights in some layers, sharing everything else."""
    if not layers:
        return folded
    changed = fx.GraphModule(folded, copy.deepcopy(folded.graph))
    for name, layer in layers.items():
        node, module = _copy_of_layer(folded, name)
        module.weight = nn.Parameter(torch.tensor(layer.weight), requires_grad=False)
        module.bias = None if layer.bias is None else nn.Parameter(torch.tensor(layer.bias), requires_grad=False)
        changed.set_submodule(str(node.target), module)
    return changed


def _copy_of_layer(folded: fx.GraphModule, name: str) -> tuple[fx.Node, Weighted]:
    node, module = layers(folded)[name]
    return node, copy.deepcopy(module)


def written_by(folded: fx.GraphModule) -> dict[str, str]:
    """Return tensor name -> name of the layer that writes it, by itself or with its fused activation."""
    names, written = tensor_names(folded.graph), {}
    for name, (node, _) in layers(folded).items():
        written[name] = name
        users = list(node.users)
        if len(users) == 1 and is_fused_activation(folded, users[0]):
            written[names[users[0]]] = name
    return written


def _shifted_tensors(
    folded: fx.GraphModule, scheme: QuantScheme, float_layers: tuple[str, ...], integers: set[str]
) -> set[str]:
    """Return the names of the rounded tensors that may be stored about the middle of their range (`quant.qdq`)."""
    if not scheme.shifted:
        return set()
    names, weighted = tensor_names(folded.graph), layers(folded)

    def can_absorb(user: fx.Node) -> bool:
        name = names.get(user, "")
        in_int8 = name in weighted and name not in float_layers and runs_in_int8(folded, user, scheme)
        return in_int8 and is_unpadded(weighted[name][1]) and weighted[name][1].bias is not None

    return {
        name
        for node, name in names.items()
        if name in integers and _can_add_a_constant(folded, node) and all(can_absorb(user) for user in node.users)
    }


def is_unpadded(module: Weighted) -> bool:
    """Return whether a layer reads only its input, without zeros around it, which a shift would falsify."""
    return isinstance(module, nn.Linear) or module.padding in (0, (0, 0), "valid")


def _can_add_a_constant(folded: fx.GraphModule, node: fx.Node) -> bool:
    module = module_of(folded, node)
    return isinstance(module, _SHIFTING) if module is not None else node.target in _SHIFTING_CALLS
