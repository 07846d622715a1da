"""Training images: shape, labels, what the augmentations do and do not, and what an item depends on."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgekit.data.images import fit, load_image
from edgekit.records import DatasetIndex, Preprocess
from edgekit.training.augment import TrainImages, augmentation, seed_of
from edgekit.training.options import AUGMENTS
from tests.training import small

pytestmark = [pytest.mark.xdist_group("augment"), pytest.mark.usefixtures("rows")]
PREPROCESS = Preprocess(32, 36)
CHANGING = [(augment, flip) for augment in AUGMENTS for flip in (True, False) if augment != "none" or flip]


def images_of(
    data: DatasetIndex, augment: str, flip: bool, seed: int = 0, preprocess: Preprocess = PREPROCESS
) -> TrainImages:
    return TrainImages(data, preprocess, small.options(augment=augment, flip=flip, seed=seed))


@pytest.fixture
def half_white(colours: DatasetIndex, tmp_path: Path) -> DatasetIndex:
    """One image, white on its left."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, :20] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    return replace(colours, root=tmp_path, samples=(replace(colours.split("train")[0], path="half.png"),))


def draws(data: DatasetIndex, augment: str, flip: bool, count: int = 40) -> list[np.ndarray]:
    """The first image in so many turns."""
    images = images_of(data, augment, flip)
    return [images[turn, 0][0].numpy() for turn in range(1, count + 1)]


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("flip", [True, False])
def test_every_image_is_uint8_at_the_models_size_with_its_label_and_number(
    colours: DatasetIndex, augment: str, flip: bool
) -> None:
    images = images_of(colours, augment, flip)
    assert len(images) == len(colours.split("train"))
    for number, sample in enumerate(colours.split("train")):
        pixels, label, said = images[1, number]
        assert (pixels.shape, pixels.dtype, label, said) == ((32, 32, 3), torch.uint8, sample.label, number)


@pytest.mark.parametrize(
    "preprocess", [PREPROCESS, Preprocess(40, 46), Preprocess(40, 40), Preprocess(32, 40, "bicubic")]
)
@pytest.mark.parametrize("turn", [1, 7])
def test_none_is_what_is_measured_also_of_a_file_that_has_the_models_size(
    colours: DatasetIndex, preprocess: Preprocess, turn: int
) -> None:
    pixels = images_of(colours, "none", False, preprocess=preprocess)[turn, 0][0]
    assert np.array_equal(pixels.numpy(), fit(load_image(colours.root / colours.split("train")[0].path), preprocess))


def test_flip_mirrors_about_every_other_image(half_white: DatasetIndex) -> None:
    mirrored = [bool(pixels[16, 0, 0] < pixels[16, 31, 0]) for pixels in draws(half_white, "none", flip=True)]
    assert 10 <= sum(mirrored) <= 30


@pytest.mark.parametrize("augment", ["none", "light"])
def test_without_flip_nothing_is_mirrored(half_white: DatasetIndex, augment: str) -> None:
    assert all(pixels[16, 0, 0] >= pixels[16, 31, 0] for pixels in draws(half_white, augment, flip=False))


@pytest.mark.parametrize("augment", ["light", "randaugment"])
def test_augmentation_varies_from_turn_to_turn(colours: DatasetIndex, augment: str) -> None:
    assert len({pixels.tobytes() for pixels in draws(colours, augment, flip=False)}) > 30


def test_the_same_turn_changes_different_images_differently(half_white: DatasetIndex) -> None:
    twins = replace(half_white, samples=half_white.samples * 2)
    images = images_of(twins, "light", False)
    assert not torch.equal(images[1, 0][0], images[1, 1][0])


def test_randaugment_turns_and_shears_which_light_never_does(half_white: DatasetIndex) -> None:
    """In an image of two halves every row is the same, until something turns it."""

    def turned(augment: str) -> int:
        found = [pixels.astype(int) for pixels in draws(half_white, augment, flip=False)]
        return sum(int(np.abs(pixels - pixels[:1]).max()) > 40 for pixels in found)

    assert turned("light") == 0
    assert turned("randaugment") >= 5


@pytest.mark.parametrize(("augment", "flip"), CHANGING)
def test_an_item_depends_on_seed_turn_and_number_alone(colours: DatasetIndex, augment: str, flip: bool) -> None:
    keys = [(turn, number) for turn in (1, 2, 9) for number in range(8)]
    images = images_of(colours, augment, flip)
    expected = {key: images[key][0] for key in keys}
    other_order = random.Random(0).sample(keys, len(keys))
    torch.manual_seed(99)
    again = images_of(colours, augment, flip)
    assert all(torch.equal(again[key][0], expected[key]) for key in other_order)
    assert any(not torch.equal(expected[1, n], expected[2, n]) for n in range(8))
    other = images_of(colours, augment, flip, seed=1)
    assert any(not torch.equal(other[key][0], expected[key]) for key in keys)


def test_no_change_is_no_transform() -> None:
    assert augmentation("none", False, PREPROCESS) is None


@pytest.mark.parametrize("augment", ["light", "randaugment"])
def test_squashed_pictures_are_squashed_before_they_are_cropped(
    colours: DatasetIndex, tmp_path: Path, augment: str
) -> None:
    """Both ends of a strip are seen in about every view; of its central square they are not part."""
    pixels = np.zeros((20, 400, 3), np.uint8)
    pixels[:, :200] = 255
    Image.fromarray(pixels).save(tmp_path / "strip.png")
    strip = replace(colours, root=tmp_path, samples=(replace(colours.split("train")[0], path="strip.png"),))
    images = images_of(strip, augment, False, preprocess=Preprocess(32, 32, resize="squash"))
    views = [images[turn, 0][0].numpy() for turn in range(1, 11)]
    assert all(view.shape == (32, 32, 3) and np.ptp(view) > 60 for view in views)


def test_letterboxed_pictures_have_their_bars_in_training_too(colours: DatasetIndex, tmp_path: Path) -> None:
    Image.new("RGB", (400, 100), (255, 0, 0)).save(tmp_path / "strip.png")
    strip = replace(colours, root=tmp_path, samples=(replace(colours.split("train")[0], path="strip.png"),))
    letterbox = Preprocess(32, 32, resize="letterbox", background="#0000ff")
    images = images_of(strip, "light", False, preprocess=letterbox)
    for turn in range(1, 11):
        view = images[turn, 0][0].numpy().astype(int)
        red = view[..., 0] > view[..., 2]
        assert 0.2 < red.mean() < 0.6  # 0.25 of the whole square
        assert red.any(1).sum() < 20


def test_seeds_differ_where_sums_would_not() -> None:
    seeds = {seed_of(*parts) for parts in [(0, "order", 1), (1, "order", 0), (0, "step", 1), (0, "order", 11), (0, 1)]}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(0, "order", 1) == seed_of(0, "order", 1)
