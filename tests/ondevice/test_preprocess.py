"""Pixels to the tensor: as torchvision's Normalize has it, or as they are."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.ondevice.preprocess import prepare

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def normalize(layout: str) -> np.ndarray:
    return prepare(PIXELS, {"mean": MEAN, "std": STD, "layout": layout})


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (1, 3, 5, 7)), ("NHWC", (1, 5, 7, 3))])
def test_the_tensor_is_one_float32_image_in_the_layout_without_gaps(layout: str, shape: tuple[int, ...]) -> None:
    tensor = normalize(layout)
    assert (tensor.shape, tensor.dtype) == (shape, np.float32)
    assert tensor.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_each_channel_is_scaled_by_its_own_mean_and_std(layout: str) -> None:
    tensor = normalize(layout)[0]
    expected = (PIXELS.astype(np.float64) / 255 - MEAN) / STD
    assert tensor == pytest.approx(expected.transpose(2, 0, 1) if layout == "NCHW" else expected, abs=1e-5)


def test_the_pixels_stay_as_they_were() -> None:
    before = PIXELS.copy()
    normalize("NCHW")
    assert (before == PIXELS).all()


@pytest.mark.parametrize(("taken", "offset"), [("uint8", 0), ("int8", 128)])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_model_that_normalizes_by_itself_gets_the_bytes(taken: str, offset: int, layout: str) -> None:
    tensor = prepare(PIXELS, {"input": taken, "layout": layout})
    assert tensor.dtype == taken
    assert tensor.flags["C_CONTIGUOUS"]
    expected = PIXELS.astype(int) - offset
    assert (tensor[0].astype(int) == (expected.transpose(2, 0, 1) if layout == "NCHW" else expected)).all()


def test_an_unknown_input_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown input 'float64'"):
        prepare(PIXELS, {"input": "float64", "layout": "NHWC"})
