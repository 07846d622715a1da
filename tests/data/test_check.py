"""What is odd about a data set is said in a sentence each."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.data import check
from edgekit.records import SPLITS, Content, DatasetIndex, Preprocess, Sample

SOUND = tuple(Sample(f"{s}/{label}.png", label, s, f"{s}{label}") for s in SPLITS for label in range(2))


def warnings(*more: Sample, without: str = "", carved: tuple[str, ...] = ()) -> list[str]:
    samples = (*(s for s in SOUND if s.path != without), *more)
    return check.warnings(DatasetIndex(Path(), ("a", "b"), samples, "", carved=carved))


def test_a_sound_data_set_has_none() -> None:
    assert warnings() == []


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        (Sample("train/x\x1b.png", 1, "train", "train0"),
         "1 image occurs in several classes, such as train/0.png and train/x\\x1b.png"),
        (Sample("test/x.png", 0, "test", "train0"),
         "1 image occurs in several splits, such as train/0.png and test/x.png"),
    ],
)  # fmt: skip
def test_equal_files_in_two_classes_or_splits_are_named(sample: Sample, says: str) -> None:
    assert warnings(sample) == [says]


def test_equal_files_of_one_class_and_split_are_no_matter() -> None:
    assert warnings(Sample("train/x.png", 0, "train", "train0")) == []


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_a_split_lacks_is_named(split: str) -> None:
    assert warnings(without=f"{split}/1.png") == [f"the {split} split has no image of b"]


@pytest.mark.parametrize(("carved", "says"), [(("val",), "no val folder"), (("val", "test"), "no val and no test")])
def test_splits_that_were_carved_are_said(carved: tuple[str, ...], says: str) -> None:
    (line,) = warnings(carved=carved)
    assert line.startswith(says)


def test_a_class_of_a_single_image_is_named() -> None:
    (line,) = warnings_of(SOUND, Sample("train/x.png", 2, "train", "x"))[-1:]
    assert line == "only one image, which is used for training but never for evaluation, in c"
    assert not [line for line in warnings_of(SOUND) if "only one image" in line]


@pytest.mark.parametrize(("more", "says"), [(9, []), (10, ["the largest class has 11 times"])])
def test_strong_imbalance_of_the_training_images_is_told(more: int, says: list[str]) -> None:
    lines = warnings(*(Sample(f"train/x{n}.png", 0, "train", f"x{n}") for n in range(more)))
    assert [line[:30] for line in lines] == says
    assert all("--imbalance auto" in line for line in lines)


def warnings_of(samples: tuple[Sample, ...], *more: Sample) -> list[str]:
    return check.warnings(DatasetIndex(Path(), ("a", "b", "c"), (*samples, *more), ""))


def unseen(contents: dict[str, Content], background: str = "white") -> list[str]:
    samples = [*SOUND]
    data = DatasetIndex(Path(), ("a", "b"), tuple(samples), "", contents=contents)
    return check.warnings(data, Preprocess(32, 32, background=background))


def test_icons_of_the_colour_of_the_background_are_said_with_a_background_that_shows_them() -> None:
    white = Content(transparent=True, colour=(255, 255, 255))
    icons = {"a/1.png": white, "a/2.png": white, "b/3.png": Content()}
    assert unseen(icons) == [
        "2 of 3 images have a single colour over white, which lies under transparent parts, such as a/1.png: nothing "
        "can be seen there; try --background black"
    ]
    assert unseen(icons, "black") == []
    both = {**icons, "b/4.png": Content(transparent=True, colour=(0, 0, 0))}
    assert unseen(both)[0].endswith("try --background '#808080'")
    assert unseen(both, "#808080") == []


def test_pictures_of_one_colour_and_pictures_that_are_scaled_down_are_said() -> None:
    contents = {"a/1.png": Content(colour=(1, 2, 3)), "b/2.png": Content(), "b/3.jpg": Content(scaled=True)}
    assert unseen(contents) == [
        "1 of 3 images has a single colour, such as a/1.png",
        "b/3.jpg: more than 80 megapixels, decoded at a fraction of the size",
    ]
