"""Equalization: channels that use little of their tensor's range are scaled up, where that costs nothing.

A tensor that only a depthwise convolution reads can have a scale for each channel: the layer before it is multiplied
by it, the depthwise filter divided. Both have one weight scale per output channel, so that their own rounding stays
the same, and every channel uses the range of the widest. (Cross-layer equalization, Nagel et al. 2019,
arXiv:1906.04721, section 4.1, only where weights lose nothing: before a 1x1 convolution they would.) An activation
between them that stops at a limit, as ReLU6 does, must not stop a channel earlier than before: a channel gets no larger
than the limit leaves it room for values above those that calibration saw.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn

from edgekit.quant import loss, operators, placement, simulate
from edgekit.quant.naming import tensor_names
from edgekit.quantization import CalibrationTable, LayerWeights, QuantScheme, Range

ROOM = 1.5  # above the largest value of a channel that was seen
MOST = 64.0  # times that a channel is scaled up
JUDGING = 32  # images
_CHUNK = 8
_FAR = 1e6  # an activation that gives as much for it has no upper limit


@dataclass(frozen=True)
class Pair:
    """A convolution and the depthwise one that alone reads its activation: names of the layers and of the tensor.

    Attributes:
        limit: largest value that the activation gives.
    """

    first: str
    tensor: str
    depthwise: str
    limit: float


def pairs(folded: fx.GraphModule) -> list[Pair]:
    """Return the places where channels can be scaled.

    Rules:
    1. A Conv2d, perhaps depthwise; a ReLU, or one with an upper limit; a depthwise Conv2d with as many outputs as
       inputs, padded with zeros.
    2. Each is the only reader of its input, and each layer is called once.
    """
    names, calls = tensor_names(folded.graph), Counter(str(node.target) for node in folded.graph.nodes)
    layers, found = placement.layers(folded), []
    for name, (node, module) in layers.items():
        active = operators.only_reader(node)
        reader = None if active is None else operators.only_reader(active)
        if not isinstance(module, nn.Conv2d) or active is None or reader is None or names.get(reader) not in layers:
            continue
        after = layers[names[reader]][1]
        if not isinstance(after, nn.Conv2d) or not placement.is_plain_depthwise(after):
            continue
        if calls[str(node.target)] == calls[str(reader.target)] == 1 and placement.is_zero_below_zero(folded, active):
            limit = float(operators.run_node(folded, active, torch.tensor([_FAR])))
            found.append(Pair(name, names[active], names[reader], limit if limit < _FAR else float("inf")))
    return found


@torch.inference_mode()
def equalized(
    folded: fx.GraphModule, table: CalibrationTable, schemes: Sequence[QuantScheme], images: torch.Tensor
) -> tuple[CalibrationTable, dict[str, LayerWeights]]:
    """Return a table, and the float weights of the layers that change; with them the network computes the same.

    The range of a scaled tensor holds every value that was seen: where each channel fills it, clipping would take the
    peaks of all of them. The change is kept if two things hold on images that no scale was chosen on (if there are
    enough): the scores of the float network change by less than `loss.UNCHANGED_DB`, and those of the network with
    rounded tensors come nearer to them, summed over the schemes.

    Args:
        images: normalized float32 (N, 3, H, W).
    """
    places = [pair for pair in pairs(folded) if pair.tensor in table.ranges] if len(images) else []
    if not places:
        return table, {}
    judging, solving = (images[:JUDGING], images[JUDGING:]) if len(images) >= 2 * JUDGING else (images, images)
    scaled, found = _scaled(folded, table, places, _largest(folded, {pair.tensor for pair in places}, solving))
    if not found:
        return table, {}
    chunks, network = judging.split(_CHUNK), placement.with_weights(folded, found)
    wanted = [torch.as_tensor(folded(chunk)) for chunk in chunks]
    if loss.of(network, chunks, wanted) > 10 ** (-loss.UNCHANGED_DB / 10):
        return table, {}
    before = loss.rounded(folded, table, schemes, chunks, wanted)
    after = loss.rounded(network, scaled, schemes, chunks, wanted)
    return (scaled, found) if after < before else (table, {})


def _scaled(
    folded: fx.GraphModule, table: CalibrationTable, places: list[Pair], largest: dict[str, torch.Tensor]
) -> tuple[CalibrationTable, dict[str, LayerWeights]]:
    """Return the table and the weights of the scaled layers; layers of which no channel is scaled are left out.

    Args:
        largest: tensor -> largest value of each channel that was seen (channels,).
    """
    found: dict[str, LayerWeights] = {}
    ranges, weights = dict[str, Range](), placement.trained_weights(folded)
    for pair in places:
        scales = channel_scales(largest[pair.tensor], pair.limit).numpy()
        if not (scales > 1).any():
            continue
        first, after = (found.get(name, weights[name]) for name in (pair.first, pair.depthwise))
        column = scales.reshape(-1, 1, 1, 1)
        bias = None if first.bias is None else first.bias * scales
        found[pair.first] = LayerWeights(first.weight * column, bias)
        found[pair.depthwise] = LayerWeights(after.weight / column, after.bias)
        ranges[pair.tensor] = table.seen.get(pair.tensor, table.ranges[pair.tensor])
        if pair.first in table.seen:  # what the activation reads is not rounded, but float16 must hold it
            span, most = table.seen[pair.first], float(scales.max())
            ranges[pair.first] = Range(span.low * most, span.high * most)
    return table.with_ranges(ranges), found


def channel_scales(largest: torch.Tensor, limit: float) -> torch.Tensor:
    """Return the factor of each channel, at least 1, float32 (channels,).

    Args:
        largest: value of each channel that was seen (channels,). limit: of the activation.
    """
    reachable = (ROOM * largest).clamp(max=limit)
    scales = (largest.max() / reachable.clamp_min(1e-30)).clamp(1.0, MOST)
    return torch.where(largest > 0, scales, torch.ones_like(scales))


def _largest(folded: fx.GraphModule, tensors: set[str], images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the largest value of each channel of some tensors, float32 (channels,)."""
    found: dict[str, torch.Tensor] = {}

    def see(name: str, value: torch.Tensor) -> None:
        if name in tensors:
            largest = value.amax((0, 2, 3))
            found[name] = torch.maximum(found[name], largest) if name in found else largest

    run = simulate.Simulation(folded, {}, see=see)
    for chunk in images.split(_CHUNK):
        run.run(chunk)
    return found
