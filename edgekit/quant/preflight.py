"""Checks before quantization: unknown operators, bad weights, dead channels and tensors."""

from __future__ import annotations

import operator
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from edgekit.errors import DataError, EdgekitError
from edgekit.quant import placement, simulate
from edgekit.quant.naming import tensor_names
from edgekit.quantization import CalibrationTable

# Operators of the networks of `MODELS` after folding, which both emitters are tested on.
_MODULES = (
    *(nn.Conv2d, nn.Linear, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Sigmoid, nn.Hardsigmoid, nn.Hardswish),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d, nn.Flatten),
)
_FUNCTIONS = (
    *(operator.add, operator.mul, torch.add, torch.mul, torch.cat, torch.flatten, torch.sigmoid),
    *(torch.relu, F.relu, F.relu6, F.hardtanh, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d),
)
_MOST_NAMED = 5
# Below the smallest normal float32, processors round to zero.
_TINY = float(np.finfo(np.float32).tiny)
# `affine` makes no narrower grid.
_NOTHING = 1e-6


def check_operators(folded: fx.GraphModule) -> None:
    """Check that edgekit can quantize every operator of a network.

    Raises:
        EdgekitError: names the unknown operators and their types.
    """
    names = tensor_names(folded.graph)
    unknown = [f"{_path(node, names)} ({kind})" for node in folded.graph.nodes if (kind := _unknown(folded, node))]
    if unknown:
        raise EdgekitError(
            f"edgekit does not know how to quantize {_first(unknown)}",
            "leave INT8 out: --precision fp16 --precision fp32",
        )


def _unknown(folded: fx.GraphModule, node: fx.Node) -> str:
    """Return the type of an unknown operator, else ""."""
    if node.op == "call_module":
        module = placement.module_of(folded, node)
        return "" if isinstance(module, _MODULES) else type(module).__name__
    if node.op == "call_function":
        return "" if node.target in _FUNCTIONS else str(getattr(node.target, "__name__", node.target))
    if node.op in ("call_method", "get_attr"):
        return f"Tensor.{node.target}" if node.op == "call_method" else "a constant"
    return ""


def _path(node: fx.Node, names: dict[fx.Node, str]) -> str:
    """Return the operator's name, with that of the module whose forward calls it in front."""
    own = names.get(node, str(node.target))
    callers = list((node.meta.get("nn_module_stack") or {}).values())
    if not callers or node.op in ("call_module", "get_attr"):
        return own
    return f"{callers[-1][0]}.{own}".lstrip(".")


def check_weights(folded: fx.GraphModule) -> list[str]:
    """Check weights for NaN and infinity; return a warning that names the layers with dead output channels.

    All weights of a dead channel are zero, or so small that processors flush them to zero: its output is its bias.

    Raises:
        DataError: names the layers that hold NaN or infinite values.
    """
    bad = {name.rpartition(".")[0]: None for name, v in folded.state_dict().items() if not bool(v.isfinite().all())}
    if bad:
        raise DataError(f"NaN or infinite weights in {_first(list(bad))}", "train again with a lower --lr")
    dead = []
    for name, (_, module) in placement.layers(folded).items():
        if count := int((module.weight.flatten(1).abs().amax(1) < _TINY).sum()):
            dead.append(f"{name} ({count} of {len(module.weight)})")
    return [f"output channels whose weights are all zero: {_first(dead)}"] if dead else []


def dead_tensors(table: CalibrationTable) -> list[str]:
    """Return a warning for tensors that were zero for every calibration image."""
    dead = [name for name, span in table.ranges.items() if span.high - span.low <= _NOTHING]
    return [f"always zero in the calibration: {_first(dead)}; INT8 cannot hold anything else there"] if dead else []


@torch.inference_mode()
def features(folded: fx.GraphModule, batches: Iterable[torch.Tensor]) -> np.ndarray:
    """Return the input of the network's last layer, float32 (images, features), averaged over positions.

    Args:
        batches: normalized float32 images (N, 3, H, W).
    """
    node, _ = list(placement.layers(folded).values())[-1]
    wanted = tensor_names(folded.graph)[node.all_input_nodes[0]]
    found: list[np.ndarray] = []

    def see(name: str, value: torch.Tensor) -> None:
        if name == wanted:
            found.append((value.flatten(2).mean(2) if value.ndim == 4 else value).numpy().copy())

    network = simulate.Simulation(folded, {}, see=see)
    for images in batches:
        network.run(images)
    return np.concatenate(found)


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
