"""uint8 RGB pixels to the float tensor that a model takes."""

from __future__ import annotations

from typing import Sequence

import numpy as np


def normalize(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float], layout: str) -> np.ndarray:
    """One uint8 (H, W, 3) image to float32 (1, 3, H, W) for layout NCHW, (1, H, W, 3) for NHWC."""
    center, width = np.asarray(mean, np.float32) * 255, np.asarray(std, np.float32) * 255
    scaled = (pixels.astype(np.float32) - center) / width
    if layout == "NCHW":
        scaled = scaled.transpose(2, 0, 1)
    return np.ascontiguousarray(scaled[None], dtype=np.float32)
