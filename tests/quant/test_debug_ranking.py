"""The layer that is spoilt is the one that is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from edgekit.export.fold import fold
from edgekit.quant import debug
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME
from tests import nets

SIZE = 16


def inspected(spoilt: str | None, scheme: object = LITERT_SCHEME) -> debug.Inspection:
    """A small network rounded to nearest, but for one layer, which has 3 bits."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)),
    )
    folded, images = fold(network.eval()), nets.random_images(16, SIZE)
    quantized = nets.plain(folded, nets.observe(folded, images))
    if spoilt:
        layer = quantized.layers[spoilt]
        coarse = np.rint(layer.integers / 32.0) * 32 * layer.scales.reshape(-1, *[1] * (layer.weight.ndim - 1))
        layers = {**quantized.layers, spoilt: replace(layer, weight=coarse.astype(np.float32))}
        quantized = replace(quantized, layers=layers)
    return debug.inspect(folded, quantized, scheme, images.split(8))


def test_the_spoilt_layer_comes_first_and_the_others_keep_their_figures() -> None:
    sound, found = ({layer.name: layer for layer in inspected(name).layers} for name in (None, "2"))
    assert next(iter(found)) == "2"
    assert found["2"].weight.sqnr_db < 20 < sound["2"].weight.sqnr_db
    assert found["2"].alone.sqnr_db < sound["2"].alone.sqnr_db - 10
    assert found["4"].alone.sqnr_db == sound["4"].alone.sqnr_db
    assert found["4"].accumulated.sqnr_db < sound["4"].accumulated.sqnr_db


def test_names_are_those_of_the_torch_model_and_the_stem_stays_float_for_tensorrt() -> None:
    layers = {layer.name: layer.int8 for layer in inspected(None, TENSORRT_SCHEME).layers}
    assert layers == {"0": False, "2": True, "4": True, "7": True}
    assert all(layer.int8 for layer in inspected(None).layers)
