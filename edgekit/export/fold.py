"""The folded float graph: what every exporter and every observer sees."""

from __future__ import annotations

import copy

import torch
from torch import fx, nn

from edgekit.errors import EdgekitError


class Swish(nn.Module):
    """x * sigmoid(x), with the sigmoid's output as a tensor of its own (it needs a range)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)


class _Tracer(fx.Tracer):
    """Traces into `Swish`, so that both its operations are nodes."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return not isinstance(module, Swish) and super().is_leaf_module(module, name)


def fold(model: nn.Module) -> fx.GraphModule:
    """A copy of `model` for inference: batch norms folded into convolutions, dropout removed.

    Rules:
    1. ``Conv2d -> BatchNorm2d`` becomes one Conv2d with a bias (Jacob et al. 2018,
       arXiv:1712.05877, section 3.2), where nothing else reads the convolution's output.
    2. ``SiLU`` becomes ``x * sigmoid(x)``.
    3. Dropout, stochastic depth and identity vanish.

    Nodes keep the names of the modules of the original model.

    Raises:
        EdgekitError: the model's forward cannot be traced.
    """
    model = copy.deepcopy(model).eval()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.SiLU):
                setattr(parent, name, Swish())
    try:
        graph = _Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError) as error:
        raise EdgekitError(f"this network's forward cannot be traced: {error}") from error
    folded = fx.GraphModule(model, graph)
    modules = dict(folded.named_modules())
    for node in list(graph.nodes):
        if _is_noop(node, modules):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif _is_foldable(node, modules):
            conv_node = node.args[0]
            fused = nn.utils.fusion.fuse_conv_bn_eval(modules[conv_node.target], modules[node.target])
            _set_module(folded, conv_node.target, fused)
            modules[conv_node.target] = fused
            node.replace_all_uses_with(conv_node)
            graph.erase_node(node)
    graph.lint()
    folded.delete_all_unused_submodules()
    folded.recompile()
    return folded.requires_grad_(False)


def _is_noop(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether the node does nothing in inference."""
    if node.op == "call_function":
        return getattr(node.target, "__name__", "") == "stochastic_depth"
    kinds = (nn.Dropout, nn.Dropout2d, nn.Identity)
    if node.op != "call_module":
        return False
    module = modules[str(node.target)]
    return isinstance(module, kinds) or type(module).__name__ == "StochasticDepth"


def _is_foldable(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether the node is a batch norm whose only input is a convolution that it alone reads."""
    if node.op != "call_module" or not isinstance(modules[str(node.target)], nn.BatchNorm2d):
        return False
    source = node.args[0]
    if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
        return False
    return isinstance(modules[str(source.target)], nn.Conv2d)


def _set_module(root: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, module)
