"""Checks before quantization: bad weights, dead channels and tensors."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import fx

from edgekit.errors import DataError
from edgekit.quant import placement, simulate
from edgekit.quant.naming import tensor_names
from edgekit.quantization import CalibrationTable

_MOST_NAMED = 5
# Below the smallest normal float32, processors round to zero.
_TINY = float(np.finfo(np.float32).tiny)
# `affine` makes no narrower grid.
_NOTHING = 1e-6


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
