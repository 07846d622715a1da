"""Training images: shape, labels, and what the augmentations do and do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgekit.data.dataset import index
from edgekit.data.images import fit, load_image
from edgekit.records import DatasetIndex, Preprocess
from edgekit.train.augment import AUGMENTS, TrainImages

PREPROCESS = Preprocess(32, 36)


@pytest.fixture
def data(images: Path) -> DatasetIndex:
    return index(images)


@pytest.fixture
def half_white(data: DatasetIndex, tmp_path: Path) -> DatasetIndex:
    """One image, white on its left."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, :20] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    return replace(data, root=tmp_path, samples=(replace(data.split("train")[0], path="half.png"),))


def draws(data: DatasetIndex, augment: str, flip: bool, count: int = 40) -> list[np.ndarray]:
    torch.manual_seed(0)
    images = TrainImages(data, PREPROCESS, augment, flip)
    return [images[0][0].numpy() for _ in range(count)]


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("flip", [True, False])
def test_every_image_is_uint8_at_the_models_size_with_its_label(data: DatasetIndex, augment: str, flip: bool) -> None:
    images = TrainImages(data, PREPROCESS, augment, flip)
    assert len(images) == len(data.split("train"))
    for number, sample in enumerate(data.split("train")):
        pixels, label = images[number]
        assert (pixels.shape, pixels.dtype, label) == ((32, 32, 3), torch.uint8, sample.label)


def test_none_is_what_the_model_will_see_when_it_is_measured(data: DatasetIndex) -> None:
    pixels, _ = TrainImages(data, PREPROCESS, "none", flip=False)[0]
    assert np.array_equal(pixels.numpy(), fit(load_image(data.root / data.split("train")[0].path), PREPROCESS))


@pytest.mark.parametrize("preprocess", [Preprocess(40, 46), Preprocess(40, 40), Preprocess(32, 40, "bicubic")])
def test_none_resizes_also_what_has_the_models_size_already(data: DatasetIndex, preprocess: Preprocess) -> None:
    pixels, _ = TrainImages(data, preprocess, "none", flip=False)[0]
    assert np.array_equal(pixels.numpy(), fit(load_image(data.root / data.split("train")[0].path), preprocess))


def test_flip_mirrors_about_every_other_image(half_white: DatasetIndex) -> None:
    mirrored = [bool(pixels[16, 0, 0] < pixels[16, 31, 0]) for pixels in draws(half_white, "none", flip=True)]
    assert 10 <= sum(mirrored) <= 30


@pytest.mark.parametrize("augment", AUGMENTS)
def test_without_flip_nothing_is_mirrored(half_white: DatasetIndex, augment: str) -> None:
    assert all(pixels[16, 0, 0] >= pixels[16, 31, 0] for pixels in draws(half_white, augment, flip=False))


def test_light_varies_and_a_seed_fixes_it(data: DatasetIndex) -> None:
    first, again = draws(data, "light", flip=True), draws(data, "light", flip=True)
    assert len({pixels.tobytes() for pixels in first}) > 30
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
