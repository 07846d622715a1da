"""Scale of values of more than 8 bits: what is chosen, and what is refused because it cannot be told."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.data.values import misread, parsed, reading, written
from edgekit.errors import DataError, UsageError
from edgekit.records import Content


def integers(*ranges: tuple[float, float]) -> list[Content]:
    return [Content("integer", low, high) for low, high in ranges]


def floats(*ranges: tuple[float, float]) -> list[Content]:
    return [Content("float", low, high) for low, high in ranges]


@pytest.mark.parametrize(
    ("high", "full"),
    [(255, 255), (200, 255), (256, 1023), (900, 1023), (1024, 4095), (3921, 4095), (16000, 16383), (65535, 65535)],
)
def test_integers_are_read_at_the_scale_of_the_fewest_bits_that_hold_them(high: float, full: float) -> None:
    found = reading([*integers((3, high)), *integers((3, high - 1)) * 9, Content()])
    assert found.pixel_range == (0, full)
    assert found.sentence == (
        f"10 images of more than 8 bits with integer values from 3 to {high:,}, read as 0 (black) to {full:,} (white); "
        "another scale: --pixel-range LOW:HIGH"
    )


@pytest.mark.parametrize(("high", "full"), [(1, 1), (0.7, 1), (255, 255), (180.5, 255)])
def test_floats_are_read_as_fractions_or_as_levels(high: float, full: float) -> None:
    assert reading(floats((0, high), (0, high / 2))).pixel_range == (0, full)


def test_images_of_8_bits_have_no_scale_to_choose() -> None:
    assert reading([Content(), Content(transparent=True)]).sentence == ""
    assert reading([Content()]).pixel_range is None


@pytest.mark.parametrize(
    ("contents", "why", "hint"),
    [
        (integers((-1000, 3000)), "negative values", "--pixel-range -1000:3000 or --pixel-range 0:4095"),
        (integers((-32768, 32767)), "negative values", "--pixel-range -32768:32767 or --pixel-range 0:65535"),
        (floats((-0.5, 1)), "negative values", "--pixel-range -0.5:1 or --pixel-range 0:1"),
        (integers((0, 70000)), "values above 65,535", "--pixel-range 0:70000"),
        (floats((0, 4000)), "values above 255", "--pixel-range 0:4000"),
        (floats((0, 1.5)), "values in a small part of 0 to 255", "--pixel-range 0:1.5 or --pixel-range 0:255"),
        (integers((0, 1)), "values in a small part of 0 to 255", "--pixel-range 0:1 or --pixel-range 0:255"),
        (integers((8000, 8200)), "in a small part of 0 to 16,383", "--pixel-range 8000:8200 or --pixel-range 0:16383"),
        (
            integers(*[(0, 60000)] * 8, (0, 250), (0, 200)),
            "2 images with no value above 250",
            "--pixel-range 0:65535 or --pixel-range 0:255",
        ),
        (integers((7, 7)), "in a small part", "--pixel-range 0:255"),
    ],
)
def test_a_scale_that_cannot_be_told_is_refused_with_the_possible_readings(
    contents: list[Content], why: str, hint: str
) -> None:
    with pytest.raises(DataError) as caught:
        reading(contents)
    assert "the scale cannot be told" in caught.value.message
    assert why in caught.value.message
    assert caught.value.hint == f"choose the values that are black and white: {hint}"


def test_one_dark_image_of_many_is_no_second_scale() -> None:
    assert reading(integers(*[(0, 60000)] * 19, (0, 250))).pixel_range == (0, 65535)


def test_the_range_that_the_user_chose_is_taken_whatever_the_images_hold() -> None:
    found = reading(integers((-1000, 3000)), (-1000, 3000))
    assert found.pixel_range == (-1000, 3000)
    assert found.sentence.endswith("from -1,000 to 3,000, read as -1,000 (black) to 3,000 (white)")
    assert reading([Content()], (0, 4095)).sentence == (
        "--pixel-range changes nothing: no image has more than 8 bits a channel"
    )


def test_integers_and_floats_share_a_scale_or_have_their_full_ones_or_are_refused() -> None:
    assert reading([*integers((0, 255)), *floats((0, 255))]).pixel_range == (0, 255)
    full = reading([*integers((0, 65535)), *floats((0, 1))])
    assert (full.pixel_range, full.sentence[-29:]) == (None, ", each read at its full scale")
    with pytest.raises(DataError, match="no scale in common"):
        reading([*integers((0, 4095)), *floats((0, 1))])


def test_values_that_are_no_numbers_are_counted() -> None:
    found = reading([Content("float", 0, 1, strange=True), *floats((0, 1))])
    assert found.strange == "1 image with values that are no finite numbers, which are read as black or white"


@pytest.mark.parametrize("text", ["0:4095", "-1000:3000", "0:0.1", "0:1e-07", "-0.3333333333333333:70000"])
def test_a_written_range_is_read_back(text: str) -> None:
    assert written(parsed(text)) == text  # type: ignore[arg-type]
    assert np.float64(0.1) == parsed("0:0.1")[1]  # type: ignore[index]


@pytest.mark.parametrize("text", ["", "5", "a:b", "1:2:3"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no pixel range"):
        parsed(text)


@pytest.mark.parametrize(
    ("content", "chosen", "says"),
    [
        (Content(colour=(0, 0, 0)), None, ""),
        (Content("integer", 0, 60000), None, ""),
        (Content("integer", 0, 3000), (0, 4095), ""),
        (Content("float", 0, 1), None, ""),
        (Content("integer", 0, 255), None, "its integer values from 0 to 255 look black at 0 to 65,535"),
        (Content("integer", 0, 5000), (0, 4095), "lie in part outside 0 to 4,095, the scale of the model"),
        (Content("float", 0, 255), None, "lie in part outside 0 to 1, the scale of the model, and are clipped there"),
        (Content("integer", -3, 255), (0, 255), "its integer values from -3 to 255 lie in part outside 0 to 255"),
    ],
)
def test_an_image_at_another_scale_than_the_models_is_told(
    content: Content, chosen: tuple[float, float] | None, says: str
) -> None:
    found = misread(content, chosen)
    assert says in found
    assert bool(says) == bool(found)
