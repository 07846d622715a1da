"""Bad weights are named with their layer; what is odd is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.convert.fold import fold
from edgekit.errors import DataError
from edgekit.quant import calibrate, preflight
from tests.nets import observe, random_images, table_of, tiny


class Block(nn.Module):
    """Two convolutions, the second behind whatever is asked for."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.between = between
        self.second = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.between(self.first(x)))


@pytest.mark.parametrize(
    ("place", "value", "layer"),
    [
        ("second.weight", float("nan"), "second"),
        ("second.bias", float("-inf"), "second"),
        ("first.0.weight", float("inf"), r"first\.0"),
        ("first.1.running_var", float("nan"), r"first\.0"),  # folded into the convolution
    ],
)
def test_nan_and_infinite_weights_are_named_with_their_layer(place: str, value: float, layer: str) -> None:
    model = Block(nn.ReLU()).eval()
    model.state_dict()[place].view(-1)[0] = value
    with pytest.raises(DataError, match=rf"in {layer}$"):
        preflight.check_weights(fold(model))


def test_dead_channels_are_counted_with_their_layer() -> None:
    model = Block(nn.ReLU()).eval()
    assert preflight.check_weights(fold(model)) == []
    model.first[1].weight.data[:3] = 0
    model.second.weight.data[1] = 1e-40  # denormal
    model.second.weight.data[2] = 1e-30
    (said,) = preflight.check_weights(fold(model))
    assert said.endswith("first.0 (3 of 8), second (1 of 4)")


def test_tensors_that_were_always_zero_are_named() -> None:
    model = Block(nn.ReLU()).eval()
    model.first[1].weight.data[:], model.first[1].bias.data[:] = 0, -1
    for observer in ("minmax", "percentile", "mse"):
        (said,) = preflight.dead_tensors(observe(fold(model), random_images(4, 8), observer))
        assert "between;" in said
        assert "first" not in said
    assert preflight.dead_tensors(table_of(a=(0.0, 1e-3), b=(-1.0, 0.0))) == []


def test_features_are_what_the_last_layer_reads() -> None:
    folded, images = fold(tiny(4)), random_images(6, 32)
    found = preflight.features(folded, images.split(4))
    assert np.allclose(found, calibrate.run_all(folded, images)["4"])
    assert found.shape == (6, 16)


def test_features_with_places_are_averaged() -> None:
    folded, images = fold(Block(nn.ReLU())), random_images(2, 8)
    want = calibrate.run_all(folded, images)["between"].mean((2, 3))
    assert np.allclose(preflight.features(folded, [images]), want, atol=1e-6)
