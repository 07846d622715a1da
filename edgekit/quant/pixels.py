"""The first layer on pixels: a network that normalizes by itself has the factors of it in these weights."""

from __future__ import annotations

import copy

import torch
from torch import fx, nn

from edgekit.quant import placement, recover
from edgekit.quantization import CalibrationRecipe, CalibrationTable, LayerWeights, QuantScheme
from edgekit.records import Preprocess


def first_layer(folded: fx.GraphModule, preprocess: Preprocess) -> nn.Sequential | None:
    """A copy of the first convolution, and of a padding before it, that takes pixels less 255 times their mean.

    None where the image goes into something else, or into a convolution in groups.
    """
    (image,) = (node for node in folded.graph.nodes if node.op == "placeholder")
    found: list[nn.Module] = []
    node = image
    while len(node.users) == 1 and not (found and isinstance(found[-1], nn.Conv2d)):
        node = next(iter(node.users))
        module = placement.module_of(folded, node)
        if not isinstance(module, nn.ZeroPad2d | nn.Conv2d):
            break
        found.append(copy.deepcopy(module))
    if not found or not isinstance(found[-1], nn.Conv2d) or found[-1].groups > 1:
        return None
    layer = found[-1]
    with torch.no_grad():
        layer.weight.div_(255 * torch.tensor(preprocess.std)[:, None, None])
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros(layer.out_channels))
    return nn.Sequential(*found).eval()


def exported(folded: fx.GraphModule) -> LayerWeights | None:
    """The weights of the first convolution on normalized images; None where `first_layer` is."""
    plain = Preprocess(32, 32, mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255))
    return trained(folded, plain)


def trained(folded: fx.GraphModule, preprocess: Preprocess) -> LayerWeights | None:
    """The weights of `first_layer` as they are."""
    layers = first_layer(folded, preprocess)
    if layers is None:
        return None
    layer = layers[-1]
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    return LayerWeights(layer.weight.detach().numpy(), layer.bias.detach().numpy())


def decided(
    folded: fx.GraphModule, preprocess: Preprocess, recipe: CalibrationRecipe, images: torch.Tensor
) -> LayerWeights | None:
    """The weights of `first_layer` as integers, decided as those of all other layers are; pixels need no rounding.

    Args:
        images: normalized float32 (N, 3, H, W), from the calibration set; of no use without steps.
    """
    layers = first_layer(folded, preprocess)
    if layers is None:
        return None
    nothing = CalibrationTable({}, "", "", "", "")
    pixels = images * (255 * torch.tensor(preprocess.std)[:, None, None])
    scheme = QuantScheme(symmetric=False, everywhere=True)
    (found,) = recover.recover(fx.symbolic_trace(layers), nothing, recipe, scheme, pixels).layers.values()
    return found
