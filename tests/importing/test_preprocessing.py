"""Preprocessing as trainers leave it: the same pixels come out of edgekit's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.models import MobileNet_V3_Small_Weights

from edgekit.data import images
from edgekit.errors import DataError, MissingError, UsageError
from edgekit.importing import preprocessing
from edgekit.importing.preprocessing import Changes
from edgekit.models.build import normalize
from edgekit.records import Preprocess
from edgekit.targets.contract import Contract

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CROPPED = transforms.Compose(
    [transforms.Resize(72, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(64), transforms.ToTensor(),
     transforms.Normalize(*HALF)]
)  # fmt: skip


def complete(given: Any, **changes: Any) -> Preprocess:
    return preprocessing.complete(preprocessing.read(given), Changes(**changes), None, "a network")


@pytest.mark.parametrize(
    "given",
    [
        Preprocess(64, 72, "bicubic", *HALF),
        {"image_size": 64, "resize_size": 72, "resample": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3},
        {"input_size": [3, 64, 64], "crop_pct": 64 / 72, "interpolation": "bicubic", "mean": HALF[0], "std": HALF[1]},
        {"pretrained_cfg": {"input_size": [3, 64, 64], "crop_pct": 0.885, "interpolation": "bicubic", "mean": HALF[0],
                            "std": HALF[1]}},
        {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}, "do_center_crop": True, "resample": 3,
         "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255},
        CROPPED,
    ],
)  # fmt: skip
def test_the_same_preprocessing_in_the_words_of_several_libraries(given: Any, tmp_path: Path) -> None:
    expected = Preprocess(64, 72, "bicubic", *HALF)
    assert complete(given) == expected
    if isinstance(given, dict):
        (tmp_path / "p.json").write_text(json.dumps(given))
        assert complete(tmp_path / "p.json") == expected


def test_the_pixels_are_those_of_the_transforms(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(noise).resize((150, 100)).save(tmp_path / "a.png")
    preprocess = complete(CROPPED)
    ours = normalize(torch.from_numpy(images.load_fitted(tmp_path / "a.png", preprocess))[None], preprocess)[0]
    theirs = CROPPED(Image.open(tmp_path / "a.png"))
    assert (ours - theirs).abs().max() < 0.05  # levels of 2/255: edgekit resizes and crops in one step


def test_torchvision_presets_and_squashing() -> None:
    assert complete(MobileNet_V3_Small_Weights.DEFAULT.transforms()) == Preprocess(224, 256)
    squashed = transforms.Compose([transforms.Resize((96, 96)), transforms.ToTensor()])
    assert complete(squashed) == Preprocess(96, 96, "bilinear", (0,) * 3, (1,) * 3, "squash")  # type: ignore[arg-type]
    timm = {"input_size": (3, 96, 96), "crop_mode": "squash", "mean": HALF[0], "std": HALF[1]}
    assert complete(timm) == Preprocess(96, 96, "bilinear", *HALF, "squash")
    vit = {"size": {"height": 96, "width": 96}, "image_mean": HALF[0], "image_std": HALF[1]}
    assert complete(vit) == Preprocess(96, 96, "bilinear", *HALF, "squash")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (transforms.Compose([transforms.RandomResizedCrop(64)]), "has the step RandomResizedCrop"),
        (transforms.Compose([transforms.Resize(64), transforms.Grayscale(3), transforms.CenterCrop(64)]), "Grayscale"),
        (transforms.Compose([transforms.ToTensor()]), "neither Resize nor CenterCrop"),
        (transforms.Compose([transforms.Resize(64)]), "has no CenterCrop"),
        (transforms.Compose([transforms.Resize((64, 96))]), "a rectangle"),
        (transforms.Compose([transforms.Resize(64, transforms.InterpolationMode.NEAREST)]), "bilinear and bicubic"),
        ({"input_size": [3, 64, 64], "crop_mode": "border", "mean": HALF[0], "std": HALF[1]}, "crop mode"),
        ({"input_size": "x"}, "is not a preprocessing"),
        ({"size": 64, "image_mean": HALF[0], "image_std": HALF[1], "rescale_factor": 1 / 127.5}, "rescale_factor"),
        ({"imagesize": 64}, "unknown key 'imagesize'"),
        ({"image_size": "64"}, "image_size must be"),
    ],
)
def test_what_edgekit_does_not_do_is_refused(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        preprocessing.read(given)


def test_files_and_single_changes(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("image_size = 64\nmean = [0.5, 0.5, 0.5]\n")
    assert complete(tmp_path / "p.toml").mean == (0.5, 0.5, 0.5)
    assert complete(tmp_path / "p.toml") == Preprocess(64, 64, mean=HALF[0])
    assert complete(Preprocess(224, 256), image_size=112) == Preprocess(112, 128)
    assert complete(Preprocess(224, 256), resize="squash") == Preprocess(224, 224, resize="squash")
    assert complete(Preprocess(224, 256), resize_size=240, std=HALF[1]) == Preprocess(224, 240, std=HALF[1])
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(DataError, match="is not valid JSON"):
        preprocessing.read(tmp_path / "p.json")
    with pytest.raises(MissingError, match="there is no file"):
        preprocessing.read(tmp_path / "q.json")
    with pytest.raises(UsageError, match="is int, which edgekit cannot read"):
        preprocessing.read(3)


def test_the_image_size_is_never_guessed() -> None:
    with pytest.raises(UsageError, match="nothing says which images a network takes"):
        preprocessing.complete({"mean": HALF[0]}, Changes(), None, "a network")
    native = Preprocess(224, 256, "bicubic", *HALF)
    assert preprocessing.complete({}, Changes(image_size=112), native, "x") == Preprocess(112, 128, "bicubic", *HALF)


def test_a_preprocess_json_of_an_export_is_read_and_a_newer_contract_is_refused() -> None:
    contract = Contract("net", "c" * 64, ("a", "b"), Preprocess(96, 110, "bicubic", resize="crop"), 1.5)
    found = preprocessing.read({**contract.of_file("uint8", "NHWC"), "tensors": {}})
    assert Preprocess(**found) == contract.preprocess
    with pytest.raises(DataError, match="contract 2; this edgekit knows up to 1"):
        preprocessing.read({**contract.document(), "schema": 2})
