"""Affine quantization arithmetic: real = scale * (integer - zero_point), int8.

Weights are symmetric and per output channel in [-127, 127]; activations are per tensor in
[-128, 127] (Jacob et al. 2018, arXiv:1712.05877; Nagel et al. 2021, arXiv:2106.08295).
"""

from __future__ import annotations

import numpy as np

from edgekit.errors import DataError
from edgekit.quantization import QMAX, QMIN, Grid, Range

WEIGHT_QMAX = 127
# A narrower range is a constant tensor; a smaller float32 scale would lose bits.
_LEAST_WIDTH = 1e-6
# The smallest float16: the typed ONNX file has float16 scales, and both ONNX files have the same integers.
LEAST_SCALE = 2.0**-24
# A shift (`quant.qdq`, rule 9) is worth it if the step becomes this times finer.
_FINER = 0.9
# LiteRT stores round(bias / (scale_x * scale_w)) as int32; half of its range leaves headroom.
BIAS_LIMIT = 2**30


def activation_grid(span: Range, symmetric: bool) -> Grid:
    """Return the grid that covers `span`: with zero point 0 if symmetric, else with the one that uses all 256 steps."""
    if symmetric:
        return Grid(float(np.float32(max(-span.low, span.high, _LEAST_WIDTH) / QMAX)), 0)
    scale = float(np.float32(max(span.high - span.low, _LEAST_WIDTH) / (QMAX - QMIN)))
    return Grid(scale, int(np.clip(round(QMIN - span.low / scale), QMIN, QMAX)))


def tensor_grid(span: Range, symmetric: bool, shifted: bool) -> Grid:
    """Return the grid of a tensor; if it may be `shifted`, with a free zero point where that makes its steps finer."""
    grid, free = activation_grid(span, symmetric), activation_grid(span, False)
    return free if shifted and free.scale < _FINER * grid.scale else grid


def weight_scales(weight: np.ndarray, bias: np.ndarray | None, input_scale: float) -> np.ndarray:
    """Return one scale per output channel (axis 0), float32.

    The scale covers the channel's largest magnitude. Channels whose weights are nearly zero get
    a larger scale, so that ``bias / (input_scale * scale)`` fits LiteRT's int32 bias.

    Raises:
        DataError: NaN or infinite weights or biases.
    """
    if not all(np.isfinite(array).all() for array in (weight, bias) if array is not None):
        raise DataError("the weights hold NaN or infinite values", "train again with a lower --lr")
    largest = np.abs(weight.reshape(len(weight), -1)).max(1)
    scales = np.maximum(largest / WEIGHT_QMAX, LEAST_SCALE)
    if bias is not None:
        scales = np.maximum(scales, np.abs(bias) / (input_scale * BIAS_LIMIT))
    return scales.astype(np.float32)
