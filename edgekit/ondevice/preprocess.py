"""Preprocessing: from uint8 RGB pixels to the input tensor of a model."""

from __future__ import annotations

from typing import Any, Dict

import numpy as np


def prepare(pixels: np.ndarray, job: Dict[str, Any]) -> np.ndarray:
    """Return the input tensor of one uint8 (H, W, 3) image: (1, 3, H, W) for layout NCHW, (1, H, W, 3) for NHWC.

    The job's ``input`` is "float32": ``(pixel / 255 - mean) / std``; "uint8": the pixels, for models that normalize
    them; or "int8": the pixels minus 128.

    Raises:
        ValueError: another ``input``.
    """
    taken = job.get("input", "float32")
    if taken == "float32":
        center, width = np.asarray(job["mean"], np.float32) * 255, np.asarray(job["std"], np.float32) * 255
        values = ((pixels.astype(np.float32) - center) / width).astype(np.float32)
    elif taken == "int8":
        values = (pixels ^ 128).view(np.int8)
    elif taken == "uint8":
        values = pixels
    else:
        raise ValueError("unknown input {!r}".format(taken))
    if job["layout"] == "NCHW":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values[None])
