"""The folded float graph, which all exporters and observers work on."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn

from edgekit.convert import transformer
from edgekit.errors import EdgekitError


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
    6. Attention takes the form of `transformer`.

    Nodes keep the names of the modules of the original model.

    Args:
        image_size: height and width of the images in pixels; rules 5 and 6 need it.
    Raises:
        EdgekitError: the model's forward cannot be traced.
    """
    model = copy.deepcopy(model).eval()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.SiLU):
                setattr(parent, name, Swish())
    try:
        model = transformer.simplify(model, image_size)
        graph = _Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError) as error:
        raise EdgekitError(f"this network's forward cannot be traced: {error}") from error
    folded = fx.GraphModule(model, graph)
    modules = dict(folded.named_modules())
    for node in list(graph.nodes):
        if _is_noop(node, modules):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif _is_batch_norm(node, modules):
            _fold_batch_norm(folded, node, modules)
    _fold_pools(folded, image_size)
    graph.lint()
    folded.delete_all_unused_submodules()
    folded.recompile()
    return folded.requires_grad_(False)


def _is_noop(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Return whether a node does nothing in inference."""
    if node.op == "call_function":
        return getattr(node.target, "__name__", "") == "stochastic_depth"
    kinds = (nn.Dropout, nn.Dropout2d, nn.Identity)
    if node.op != "call_module":
        return False
    module = modules[str(node.target)]
    return isinstance(module, kinds) or type(module).__name__ == "StochasticDepth"


def _is_batch_norm(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    return node.op == "call_module" and isinstance(modules[str(node.target)], nn.BatchNorm2d)


def _fold_batch_norm(folded: fx.GraphModule, node: fx.Node, modules: dict[str, nn.Module]) -> None:
    """Apply rules 1 and 4."""
    norm, source = modules[str(node.target)], node.args[0]
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(source, fx.Node)
    before = modules.get(str(source.target)) if source.op == "call_module" else None
    if isinstance(before, nn.Conv2d) and len(source.users) == 1:
        modules[str(source.target)] = nn.utils.fusion.fuse_conv_bn_eval(before, norm)
        folded.set_submodule(str(source.target), modules[str(source.target)])
        node.replace_all_uses_with(source)
        folded.graph.erase_node(node)
        return
    channels = norm.num_features
    identity = nn.Conv2d(channels, channels, 1, groups=channels).eval()
    identity.load_state_dict({"weight": torch.ones(channels, 1, 1, 1), "bias": torch.zeros(channels)})
    folded.set_submodule(str(node.target), nn.utils.fusion.fuse_conv_bn_eval(identity, norm))


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
