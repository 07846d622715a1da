"""Pixels to the float tensor, as torchvision's Normalize has it."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.ondevice.preprocess import normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (1, 3, 5, 7)), ("NHWC", (1, 5, 7, 3))])
def test_the_tensor_is_one_float32_image_in_the_layout_without_gaps(layout: str, shape: tuple[int, ...]) -> None:
    tensor = normalize(PIXELS, MEAN, STD, layout)
    assert (tensor.shape, tensor.dtype) == (shape, np.float32)
    assert tensor.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_each_channel_is_scaled_by_its_own_mean_and_std(layout: str) -> None:
    tensor = normalize(PIXELS, MEAN, STD, layout)[0]
    expected = (PIXELS.astype(np.float64) / 255 - MEAN) / STD
    assert tensor == pytest.approx(expected.transpose(2, 0, 1) if layout == "NCHW" else expected, abs=1e-5)


def test_the_pixels_stay_as_they_were() -> None:
    before = PIXELS.copy()
    normalize(PIXELS, MEAN, STD, "NCHW")
    assert (before == PIXELS).all()
