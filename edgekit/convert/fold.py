"""The folded float graph, which all exporters and observers work on."""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torchvision.models.swin_transformer import _patch_merging_pad

from edgekit.convert import branches, products, transformer
from edgekit.errors import EdgekitError
from edgekit.models import program

# What torch.fx may leave in a graph; for a network with anything else, `program.trace` makes the graph.
_NOTHING = (nn.Dropout, nn.Dropout2d, nn.Identity)
_MODULES = (*(kind for kind, _ in program.MODULES.values()), *_NOTHING, nn.Flatten)
_FUNCTIONS = (
    *program.FUNCTIONS.values(),
    *(operator.matmul, torch.add, torch.mul, torch.relu, torch.transpose, F.relu, F.relu6, F.hardtanh, F.hardswish),
    *(F.gelu, F.softmax, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, _patch_merging_pad),
)
_METHODS = ("flatten", "unflatten", "transpose", "permute", "mean")


class Swish(nn.Module):
    """x * sigmoid(x), with the sigmoid's output as a tensor of its own, which needs a range."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)


class _Tracer(fx.Tracer):
    """Traces into `Swish`, so that both its operations are nodes."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return not isinstance(module, Swish) and super().is_leaf_module(module, name)


def fold(model: nn.Module, image_size: int | None = None) -> fx.GraphModule:
    """Return a copy of `model` for inference: batch norms folded into convolutions, dropout removed.

    Rules:
    1. ``Conv2d -> BatchNorm2d`` becomes one Conv2d with a bias (Jacob et al. 2018,
       arXiv:1712.05877, section 3.2), where nothing else reads the convolution's output.
    2. ``SiLU`` becomes ``x * sigmoid(x)``.
    3. Dropout, stochastic depth and identity are removed.
    4. Any other BatchNorm2d (DenseNet's) becomes a depthwise 1x1 Conv2d, which every INT8 runtime has.
    5. An adaptive average pool to more than one position (VGG's 7x7) is folded into the Linear after it
       unless it is a plain average pool: exporters would write index arithmetic.
    6. Attention of torchvision's transformers takes the form of `transformer`.
    7. BatchNorm1d goes into the Linear before it, or into the one after it, or becomes a product and a sum.
    8. Branches that the network's own modules can sum into one layer are summed (`program.reparameterized`).
    9. Convolutions of one tensor whose outputs are summed become one (`branches`).
    10. A product with one constant per channel goes into the layer before it (`products`).

    Nodes keep the names of the modules of the original model.

    Args:
        image_size: height and width of the images in pixels; rules 5, 6 and 8 need it, and so do networks that
            torch.fx cannot trace, or not to known operators: their graph is that of `program.trace`.
    Raises:
        EdgekitError: the model's forward cannot be traced.
    """
    folded = _graph(model, image_size)
    graph, modules = folded.graph, dict(folded.named_modules())
    for node in list(graph.nodes):
        if _is_noop(node, modules):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif _is_batch_norm(node, modules):
            _fold_batch_norm(folded, node, modules)
        elif node.op == "call_module" and isinstance(modules[str(node.target)], nn.BatchNorm1d):
            _fold_flat_batch_norm(folded, node)
    _fold_pools(folded, image_size)
    branches.sum_branches(folded)
    products.fold_products(folded)
    graph.lint()
    folded.delete_all_unused_submodules()
    folded.recompile()
    return folded.requires_grad_(False)


def _graph(model: nn.Module, image_size: int | None) -> fx.GraphModule:
    """Return a graph of a copy of the network: of torch.fx if that gives a plain one, else of `program.trace`."""
    if isinstance(model, fx.GraphModule) and "image_size" in model.meta:
        if image_size not in (None, model.meta["image_size"]):
            raise EdgekitError(
                f"this network was traced for images of {model.meta['image_size']} px and cannot take {image_size} px"
            )
        return copy.deepcopy(model)
    source = copy.deepcopy(model).eval()
    if image_size is not None:
        source = program.reparameterized(source, image_size)
    try:
        found = _by_fx(copy.deepcopy(source), image_size)
    except EdgekitError:
        if image_size is None:
            raise
        return program.trace(source, image_size)
    return found if image_size is None or _is_plain(found) else program.trace(source, image_size)


def _by_fx(model: nn.Module, image_size: int | None) -> fx.GraphModule:
    """Return the graph of torch.fx; changes the network."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.SiLU):
                setattr(parent, name, Swish())
    try:
        model = transformer.simplify(model, image_size)
        return fx.GraphModule(model, _Tracer().trace(model))
    except Exception as error:  # the network's own code runs on proxies, and fails in its own ways
        raise EdgekitError(f"this network's forward cannot be traced: {error}") from error


def _is_plain(graph: fx.GraphModule) -> bool:
    """Return whether a graph reads one image, gives one tensor, and holds known operators only."""
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    known = all(_is_known(graph, node) for node in graph.graph.nodes)
    return known and len(inputs) == 1 and isinstance(graph.graph.output_node().args[0], fx.Node)


def _is_known(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        return type(module) in _MODULES or _is_stochastic_depth(type(module))
    if node.op == "call_function":
        return node.target in _FUNCTIONS or _is_stochastic_depth(node.target)
    return node.op != "call_method" or (node.target in _METHODS and len(node.all_input_nodes) == 1)


def _is_stochastic_depth(target: Any) -> bool:
    return getattr(target, "__name__", "") in ("stochastic_depth", "StochasticDepth")


def _is_noop(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Return whether a node does nothing in inference."""
    if node.op == "call_function":
        return _is_stochastic_depth(node.target)
    if node.op != "call_module":
        return False
    module = modules[str(node.target)]
    return isinstance(module, _NOTHING) or _is_stochastic_depth(type(module))


def _is_batch_norm(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    return node.op == "call_module" and isinstance(modules[str(node.target)], nn.BatchNorm2d)


def _fold_batch_norm(folded: fx.GraphModule, node: fx.Node, modules: dict[str, nn.Module]) -> None:
    """Apply rules 1 and 4."""
    norm, source = modules[str(node.target)], node.args[0]
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(source, fx.Node)
    _separate(folded, source, modules)
    before = modules.get(str(source.target)) if source.op == "call_module" else None
    if isinstance(before, nn.Conv2d) and len(source.users) == 1:
        modules[str(source.target)] = nn.utils.fusion.fuse_conv_bn_eval(before, norm)
        folded.set_submodule(str(source.target), modules[str(source.target)])
        node.replace_all_uses_with(source)
        folded.graph.erase_node(node)
        return
    _separate(folded, node, modules)
    channels = norm.num_features
    identity = nn.Conv2d(channels, channels, 1, groups=channels).eval()
    identity.load_state_dict({"weight": torch.ones(channels, 1, 1, 1), "bias": torch.zeros(channels)})
    folded.set_submodule(str(node.target), nn.utils.fusion.fuse_conv_bn_eval(identity, norm))


def _separate(folded: fx.GraphModule, node: fx.Node, modules: dict[str, nn.Module]) -> None:
    """Give a module that is called more than once to this call alone, in a copy."""
    calls = [other for other in folded.graph.nodes if (other.op, other.target) == ("call_module", node.target)]
    if node.op == "call_module" and len(calls) > 1:
        path, number = str(node.target), 2
        while f"{path}_{number}" in modules:
            number += 1
        modules[f"{path}_{number}"] = copy.deepcopy(modules[path])
        folded.set_submodule(f"{path}_{number}", modules[f"{path}_{number}"])
        node.target = f"{path}_{number}"


def _fold_flat_batch_norm(folded: fx.GraphModule, node: fx.Node) -> None:
    """Apply rule 7."""
    norm: Any = folded.get_submodule(str(node.target))
    scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
    shift = norm.bias.detach() - norm.running_mean * scale
    source: Any = node.args[0]
    between = source
    while between.target is torch.reshape and len(between.users) == 1 and between.args[1][-1] == norm.num_features:
        between = between.args[0]
    before = _linear(folded, between)
    if before is not None and len(between.users) == 1 and before.out_features == norm.num_features:
        bias = torch.zeros(1) if before.bias is None else before.bias.detach()
        _set(before, before.weight.detach() * scale[:, None], bias * scale + shift)
        node.replace_all_uses_with(source)
        folded.graph.erase_node(node)
        return
    after = _linear(folded, next(iter(node.users))) if len(node.users) == 1 else None
    if after is not None and len(node.meta.get("shape", ())) == 2:
        bias = torch.zeros(1) if after.bias is None else after.bias.detach()
        _set(after, after.weight.detach() * scale, bias + after.weight.detach() @ shift)
        node.replace_all_uses_with(source)
        folded.graph.erase_node(node)
        return
    shape = (1, -1) if len(node.meta.get("shape", ())) == 2 else (1, -1, 1)
    with folded.graph.inserting_before(node):
        result = source
        for name, function, value in (("scale", operator.mul, scale), ("shift", operator.add, shift)):
            path = f"{str(node.target).replace('.', '_')}_{name}"
            folded.register_buffer(path, value.reshape(shape))
            result = folded.graph.call_function(function, (result, folded.graph.get_attr(path)))
            result.meta = dict(node.meta)
    node.replace_all_uses_with(result)
    folded.graph.erase_node(node)


def _linear(folded: fx.GraphModule, node: fx.Node) -> nn.Linear | None:
    """Return the Linear that a node calls, if it is called once."""
    module = folded.get_submodule(str(node.target)) if node.op == "call_module" else None
    calls = sum((other.op, other.target) == ("call_module", node.target) for other in folded.graph.nodes)
    return module if isinstance(module, nn.Linear) and calls == 1 else None


def _set(linear: nn.Linear, weight: torch.Tensor, bias: torch.Tensor) -> None:
    linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)


def _fold_pools(folded: fx.GraphModule, image_size: int | None) -> None:
    """Apply rule 5."""
    for node in list(folded.graph.nodes):
        places = _places(folded, node)
        if places == 1:
            continue
        side = _side_before(folded, node, image_size)
        if side % places:
            flat = next(iter(node.users))
            linear_node = next(iter(flat.users))
            linear = folded.get_submodule(str(linear_node.target)) if linear_node.op == "call_module" else None
            if not isinstance(linear, nn.Linear) or len(node.users) + len(flat.users) != 2:
                raise EdgekitError(f"{node.target}: an adaptive average pool must be read by one linear layer")
            folded.set_submodule(str(linear_node.target), _reading_unpooled(linear, side, places))
        if side % places or side == places:
            node.replace_all_uses_with(node.args[0])
            folded.graph.erase_node(node)


def _places(folded: fx.GraphModule, node: fx.Node) -> int:
    """Return the output size of an adaptive average pool; 1 for any other node."""
    pool = folded.get_submodule(str(node.target)) if node.op == "call_module" else None
    if not isinstance(pool, nn.AdaptiveAvgPool2d):
        return 1
    sides: Any = pool.output_size
    return int(sides[0] if isinstance(sides, tuple) else sides)


def _side_before(folded: fx.GraphModule, node: fx.Node, image_size: int | None) -> int:
    """Return the height of the features that a node's module reads."""
    if image_size is None:
        raise EdgekitError(f"{node.target} depends on the image size, which was not given")
    seen: list[int] = []
    handle = folded.get_submodule(str(node.target)).register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[-1]))
    with torch.inference_mode():
        fx.Interpreter(folded).run(torch.zeros(1, 3, image_size, image_size))
    handle.remove()
    return seen[0]


def _reading_unpooled(linear: nn.Linear, side: int, places: int) -> nn.Linear:
    """Return `linear` for (channels, side, side), from one for the pooled (channels, places, places)."""
    pool = torch.zeros(places, side)
    for place in range(places):
        start, end = place * side // places, -(-(place + 1) * side // places)
        pool[place, start:end] = 1 / (end - start)
    weight = linear.weight.detach().reshape(linear.out_features, -1, places, places)
    spread = torch.einsum("ocij,ik,jl->ockl", weight, pool, pool).flatten(1)
    wide = nn.Linear(1, 1)
    wide.weight, wide.bias = nn.Parameter(spread), linear.bias
    wide.in_features, wide.out_features = spread.shape[1], spread.shape[0]
    return wide
