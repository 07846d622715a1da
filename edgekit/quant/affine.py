"""Affine quantization arithmetic: real = scale * (integer - zero_point), int8.

Weights are symmetric and per output channel in [-127, 127]; activations are per tensor in
[-128, 127] (Jacob et al. 2018, arXiv:1712.05877; Nagel et al. 2021, arXiv:2106.08295).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.errors import DataError
from edgekit.quantization import Range

QMIN, QMAX, WEIGHT_QMAX = -128, 127, 127
# A range narrower than this is a constant tensor; a float32 scale below it would lose bits.
_LEAST_WIDTH = 1e-6
# The smallest float16: the typed ONNX file has float16 scales, and both files have the same integers.
LEAST_SCALE = 2.0**-24
# A step must become so much finer to be worth a shift (`quant.shift`).
_FINER = 0.9
# LiteRT stores round(bias / (scale_x * scale_w)) as int32; half of its range leaves headroom.
BIAS_LIMIT = 2**30


@dataclass(frozen=True)
class Grid:
    """Scale and zero point of one activation tensor; int8, where `low` and `high` are asked for."""

    scale: float
    zero_point: int

    @property
    def low(self) -> float:
        """The smallest real number that the grid holds."""
        return (QMIN - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """The largest real number that the grid holds."""
        return (QMAX - self.zero_point) * self.scale


def activation_grid(span: Range, symmetric: bool) -> Grid:
    """The grid that covers `span`: zero point 0 if symmetric, else wherever uses all 256 steps."""
    if symmetric:
        return Grid(float(np.float32(max(-span.low, span.high, _LEAST_WIDTH) / QMAX)), 0)
    scale = float(np.float32(max(span.high - span.low, _LEAST_WIDTH) / (QMAX - QMIN)))
    return Grid(scale, int(np.clip(round(QMIN - span.low / scale), QMIN, QMAX)))


def tensor_grid(span: Range, symmetric: bool, shifted: bool) -> Grid:
    """The grid of a tensor; one that may be `shifted` has the free zero point where that makes its steps finer."""
    grid, free = activation_grid(span, symmetric), activation_grid(span, False)
    return free if shifted and free.scale < _FINER * grid.scale else grid


def weight_scales(weight: np.ndarray, bias: np.ndarray | None, input_scale: float) -> np.ndarray:
    """One scale per output channel (axis 0), float32.

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


def quantize_weight(weight: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Round to int8, half to even, per output channel (axis 0)."""
    shape = (-1,) + (1,) * (weight.ndim - 1)
    return np.clip(np.rint(weight / scales.reshape(shape)), -WEIGHT_QMAX, WEIGHT_QMAX).astype(np.int8)
