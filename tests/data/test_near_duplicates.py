"""Images that look alike are found, and others are not; the search finds what comparing all would."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image, ImageDraw, ImageEnhance

from edgekit.data import near_duplicates
from edgekit.data.check import connected
from edgekit.data.images import load_image

PHOTOS = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "ihc", "moon")


@cache
def photos() -> list[Image.Image]:
    """Quarters of real photographs: 40 images that do not show the same."""
    folder = Path(skimage.__file__).parent / "data"
    quarters = []
    for name in PHOTOS:
        image = load_image(folder / f"{name}.png")
        w, h = image.width // 2, image.height // 2
        quarters += [image.crop((x, y, x + w, y + h)) for x in (0, w) for y in (0, h)]
    return quarters


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return Image.open(content).convert("RGB")


def halved(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2))


def cropped(image: Image.Image) -> Image.Image:
    """3 % smaller on either axis, about the centre."""
    x, y = max(1, round(image.width * 0.015)), max(1, round(image.height * 0.015))
    return image.crop((x, y, image.width - x, image.height - y))


def brighter(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1.1)


VARIANTS: dict[str, tuple[Callable[[Image.Image], Image.Image], float]] = {
    "jpeg 40": (lambda image: jpeg(image, 40), 1.0),
    "jpeg 90": (lambda image: jpeg(image, 90), 1.0),
    "halved": (halved, 1.0),
    "brighter": (brighter, 1.0),
    "cropped": (cropped, 0.9),
    "all of it": (lambda image: jpeg(halved(brighter(cropped(image))), 60), 0.85),
}


def pairs_of(images: list[Image.Image], distance: int = near_duplicates.DISTANCE) -> list[tuple[int, int]]:
    hashes, thumbs = zip(*map(near_duplicates.look, images))
    found, crowded = near_duplicates.similar_pairs(np.array(hashes, np.uint64), np.stack(thumbs), distance)
    assert crowded == 0
    return [(a, b) for a, b in found.tolist()]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_changed_photograph_is_found_and_taken_for_no_other(name: str) -> None:
    change, recall = VARIANTS[name]
    originals = photos()
    found = pairs_of([*originals, *map(change, originals)])
    right = [(a, b) for a, b in found if b - a == len(originals)]
    assert len(right) >= recall * len(originals)
    assert len(found) == len(right)


def disc(colour: tuple[int, int, int], ground: tuple[int, int, int] = (255, 255, 255), size: int = 64) -> Image.Image:
    image = Image.new("RGB", (size, size), ground)
    ImageDraw.Draw(image).ellipse((size // 8, size // 8, size - size // 8, size - size // 8), fill=colour)
    return image


@pytest.mark.parametrize("other", [(30, 60, 220), (240, 160, 30), (30, 160, 60), (120, 20, 20)])
def test_the_same_shape_in_another_colour_is_another_image(other: tuple[int, int, int]) -> None:
    red = disc((220, 30, 30))
    assert pairs_of([red, jpeg(red, 90)]) == [(0, 1)]
    assert pairs_of([red, disc(other)]) == []


def test_the_same_image_on_another_ground_is_another_image() -> None:
    assert pairs_of([disc((220, 30, 30)), disc((220, 30, 30), ground=(40, 40, 40))]) == []


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (2000, 2), (8, 8)])
def test_any_shape_has_a_look(size: tuple[int, int]) -> None:
    value, thumb = near_duplicates.look(Image.new("RGB", size, (9, 99, 199)))
    assert 0 <= value < 2**64
    assert (thumb.shape, thumb.dtype, thumb[0, 0].tolist()) == ((16, 16, 3), np.uint8, [9, 99, 199])


def test_a_single_colour_is_blank_and_a_faint_picture_is_not() -> None:
    assert near_duplicates.is_blank(near_duplicates.look(Image.new("RGB", (50, 50), (200, 10, 10)))[1])
    assert near_duplicates.is_blank(near_duplicates.look(jpeg(Image.new("RGB", (50, 50), (200, 10, 10)), 50))[1])
    assert not near_duplicates.is_blank(near_duplicates.look(disc((240, 255, 255)))[1])


def planted(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of which many lie 0 to 13 bits from another, and thumbnails that all agree."""
    rng = np.random.default_rng(seed)
    hashes = [int(h) for h in rng.integers(0, 2**64, 150, dtype=np.uint64)]
    for _ in range(250):
        value = hashes[rng.integers(150)]
        for bit in rng.choice(64, rng.integers(0, 14), replace=False):
            value ^= 1 << int(bit)
        hashes.append(value)
    return np.array(hashes, np.uint64), np.full((400, 16, 16, 3), 99, np.uint8)


@pytest.mark.parametrize("distance", range(near_duplicates.MOST_DISTANCE + 1))
def test_the_search_finds_the_pairs_that_comparing_all_finds(distance: int) -> None:
    hashes, thumbs = planted(distance)
    a, b = np.triu_indices(len(hashes), 1)
    near = np.bitwise_count(hashes[a] ^ hashes[b]) <= distance
    found, _ = near_duplicates.similar_pairs(hashes, thumbs, distance)
    assert found.tolist() == np.stack([a[near], b[near]], 1).tolist()


@pytest.mark.parametrize("count", [0, 1])
def test_of_fewer_than_two_images_there_are_no_pairs(count: int) -> None:
    found, crowded = near_duplicates.similar_pairs(np.zeros(count, np.uint64), np.zeros((count, 16, 16, 3), np.uint8))
    assert (found.shape, crowded) == ((0, 2), 0)


def test_where_all_look_alike_the_work_is_bounded_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "BUDGET", 1000)
    monkeypatch.setattr(near_duplicates, "BUDGET_EACH", 4)
    hashes, thumbs = np.full(500, 7, np.uint64), np.full((500, 16, 16, 3), 99, np.uint8)
    found, crowded = near_duplicates.similar_pairs(hashes, thumbs)
    assert crowded > 400
    assert 499 <= len(found) < 4000
    assert set(found.ravel().tolist()) == set(range(500))


def test_many_images_take_little_time() -> None:
    rng = np.random.default_rng(0)
    hashes, thumbs = rng.integers(0, 2**64, 20_000, dtype=np.uint64), np.zeros((20_000, 16, 16, 3), np.uint8)
    hashes[1] = hashes[19_999]
    assert near_duplicates.similar_pairs(hashes, thumbs)[0].tolist() == [[1, 19_999]]


def test_groups_are_those_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_BLOCK", 7)
    rng = np.random.default_rng(3)
    base, thumbs = rng.integers(0, 2**64, 40, dtype=np.uint64), rng.integers(0, 256, (40, 16, 16, 3), np.uint8)
    hashes, looks = [], {}
    for number in range(200):
        bits = sum(1 << int(bit) for bit in rng.choice(64, int(rng.integers(0, 7)), replace=False))
        hashes.append(int(base[number % 40]) ^ bits)
        looks[f"{number:03}"] = hashes[-1], thumbs[number % 40]
    pairs, _ = near_duplicates.similar_pairs(*near_duplicates.stacked(list(looks.values())))
    wanted = [[f"{n:03}" for n in group] for group in connected(map(tuple, pairs.tolist()))]
    assert wanted
    assert near_duplicates.alike(looks) == wanted


def test_blank_and_small_images_are_in_no_group() -> None:
    blank = near_duplicates.comparable(Image.new("RGB", (50, 50), (200, 10, 10)))
    small = near_duplicates.comparable(disc((240, 255, 255)).resize((31, 40)))
    assert near_duplicates.alike({"a": blank, "b": blank, "c": small, "d": small}) == []
    assert near_duplicates.alike({}) == []
    large = near_duplicates.comparable(disc((240, 255, 255)).resize((32, 40)))
    assert near_duplicates.alike({"a": large, "b": large}) == [["a", "b"]]
