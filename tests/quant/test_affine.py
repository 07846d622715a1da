"""The grids: what they cover, and how far rounding to them can be off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import DataError
from edgekit.quant import affine
from edgekit.quantization import LayerWeights, Range

MAGNITUDES = st.one_of(st.just(0.0), st.floats(1e-4, 1e6))
SPANS = st.tuples(MAGNITUDES, MAGNITUDES).map(lambda pair: Range(-pair[0], pair[1]))
SMALL = st.floats(-4, 4, width=32)


def round_trip(values: np.ndarray, grid: affine.Grid) -> np.ndarray:
    integers = np.clip(np.rint(values / grid.scale) + grid.zero_point, affine.QMIN, affine.QMAX)
    return grid.scale * (integers - grid.zero_point)


@given(SPANS, st.booleans())
def test_grid_covers_the_range_to_half_a_step(span: Range, symmetric: bool) -> None:
    grid = affine.activation_grid(span, symmetric)
    slack = grid.scale * (0.5 + 1e-4)
    assert grid.low <= span.low + slack
    assert grid.high >= span.high - slack


@given(SPANS, st.booleans())
def test_zero_is_exactly_representable(span: Range, symmetric: bool) -> None:
    grid = affine.activation_grid(span, symmetric)
    assert round_trip(np.zeros(1), grid)[0] == 0.0
    assert affine.QMIN <= grid.zero_point <= affine.QMAX


@given(SPANS)
def test_symmetric_zero_point_is_zero(span: Range) -> None:
    assert affine.activation_grid(span, symmetric=True).zero_point == 0


@given(SPANS, st.booleans())
def test_scale_is_a_positive_float32(span: Range, symmetric: bool) -> None:
    scale = affine.activation_grid(span, symmetric).scale
    assert scale > 0
    assert float(np.float32(scale)) == scale


@given(SPANS, st.booleans(), st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_round_trip_error_is_at_most_half_a_step(span: Range, symmetric: bool, shares: list[float]) -> None:
    grid = affine.activation_grid(span, symmetric)
    values = span.low + (span.high - span.low) * np.array(shares)
    assert np.abs(round_trip(values, grid) - values).max() <= grid.scale * (0.5 + 1e-4)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_constant_zero_tensor_has_a_grid(symmetric: bool) -> None:
    assert affine.activation_grid(Range(0.0, 0.0), symmetric).scale > 0


def test_one_sided_range_uses_every_step_when_free_and_half_when_symmetric() -> None:
    span = Range(0.0, 6.0)
    assert affine.activation_grid(span, symmetric=False).zero_point == affine.QMIN
    free, symmetric = (affine.activation_grid(span, s).scale for s in (False, True))
    assert symmetric == pytest.approx(free * 255 / 127)


def test_weight_scale_covers_the_largest_magnitude_of_each_channel() -> None:
    weight = np.array([[0.5, -2.0], [0.25, 0.1]], np.float32)
    scales = affine.weight_scales(weight, None, 1.0)
    assert scales == pytest.approx([2.0 / 127, 0.25 / 127])
    assert LayerWeights(weight, None, scales).integers[0, 1] == -127


@given(
    st.lists(st.lists(SMALL, min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(1e-3, 10),
    st.floats(-1e4, 1e4, width=32),
)
def test_guard_keeps_the_int32_bias_within_its_limit(rows: list[list[float]], input_scale: float, bias: float) -> None:
    weight, biases = np.array(rows, np.float32), np.full(len(rows), bias, np.float32)
    scales = affine.weight_scales(weight, biases, input_scale)
    assert (np.abs(biases) / (input_scale * scales.astype(np.float64))).max() <= affine.BIAS_LIMIT * (1 + 1e-6)


@given(st.lists(st.lists(SMALL, min_size=4, max_size=4), min_size=1, max_size=5))
def test_weight_round_trip_error_is_at_most_half_a_step(rows: list[list[float]]) -> None:
    weight = np.array(rows, np.float32)
    scales = affine.weight_scales(weight, None, 1.0)
    restored = LayerWeights(weight, None, scales).integers * scales[:, None]
    assert (np.abs(restored - weight) <= scales[:, None] * 0.50001).all()


def test_weights_round_half_to_even_and_never_reach_minus_128() -> None:
    weight = np.array([[0.5, 1.5, 2.5, -127.0, -1000.0]], np.float32)
    assert LayerWeights(weight, None, np.ones(1, np.float32)).integers.tolist() == [[0, 2, 2, -127, -127]]


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_nan_and_infinite_weights_and_biases_are_refused(value: float, where: str) -> None:
    arrays = {"weight": np.ones((2, 3), np.float32), "bias": np.ones(2, np.float32)}
    arrays[where].flat[1] = value
    with pytest.raises(DataError, match="NaN or infinite"):
        affine.weight_scales(arrays["weight"], arrays["bias"], 1.0)
