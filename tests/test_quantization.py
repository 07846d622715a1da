"""The nouns of quantization refuse what cannot be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekit.errors import DataError, EdgekitError, UsageError
from edgekit.quantization import (
    LITERT_SCHEME,
    TENSORRT_SCHEME,
    CalibrationRecipe,
    Grid,
    LayerWeights,
    Placement,
    QuantizedModel,
    QuantScheme,
    Range,
    check_parity_mode,
)
from tests.nets import table_of


@pytest.mark.parametrize(
    ("field", "wrong", "right"),
    [
        ("samples", (0, -1, 100_001), (1, 100_000)),
        ("recovery_samples", (0, 1025), (1, 1024)),
        ("damping", (0, 1e-4, -0.1, 1001, float("nan")), (1e-3, 1000)),
    ],
)
def test_a_recipe_refuses_numbers_out_of_range_and_names_itself(field: str, wrong: tuple, right: tuple) -> None:
    for value in wrong:
        with pytest.raises(UsageError, match=f"'mine'.*{field}"):
            CalibrationRecipe("mine", **{field: value})
    for value in right:
        assert getattr(CalibrationRecipe("mine", **{field: value}), field) == value


@pytest.mark.parametrize("span", [(0.1, 1), (-1, -0.1), (1, -1), (float("nan"), 1), (-1, float("nan"))])
def test_a_range_without_zero_is_refused(span: tuple[float, float]) -> None:
    with pytest.raises(DataError, match="contain zero"):
        Range(*span)


@pytest.mark.parametrize("shape", [(3, 2, 3, 3), (3, 5)])
def test_integers_are_the_weight_in_steps_of_its_scales(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    whole = rng.integers(-127, 128, shape).astype(np.float32)
    scales = np.array([1e-3, 0.3, 7], np.float32)
    layer = LayerWeights(whole * scales.reshape(-1, *[1] * (len(shape) - 1)), None, scales)
    assert layer.integers.dtype == np.int8
    assert np.array_equal(layer.integers, whole)


def test_integers_never_reach_minus_128() -> None:
    layer = LayerWeights(np.array([[-128, 300]], np.float32), None, np.ones(1, np.float32))
    assert layer.integers.tolist() == [[-127, 127]]


def test_a_layer_in_floating_point_has_no_integers() -> None:
    with pytest.raises(DataError, match="floating point"):
        _ = LayerWeights(np.ones((1, 1), np.float32), None).integers


def test_the_float_layers_are_those_without_scales_in_order() -> None:
    one = np.ones((1, 1), np.float32)
    int8, kept = LayerWeights(one, None, one[0]), LayerWeights(one, None)
    model = QuantizedModel(table_of(image=(-1, 1)), {"c": kept, "b": int8, "a": kept})
    assert model.float_layers == ("c", "a")


@pytest.mark.parametrize("native", [TENSORRT_SCHEME, LITERT_SCHEME])
def test_strict_makes_the_scheme_symmetric_and_leaves_where(native: QuantScheme) -> None:
    table = table_of(image=(-1, 1))
    assert QuantizedModel(table, {}).scheme(native) == native
    strict = replace(native, symmetric=True, shifted=False)
    assert QuantizedModel(table, {}, symmetric=True).scheme(native) == strict


def test_a_model_refuses_the_placements_of_another() -> None:
    one, table = np.ones((1, 1), np.float32), table_of(image=(-1, 1))
    placed = Placement({"image": Grid(1 / 127, 0)}, ("image",), frozenset({("image", "a")}), frozenset({"a"}))
    model = QuantizedModel(table, {"a": LayerWeights(one, None, one[0])}, placements={TENSORRT_SCHEME: placed})
    assert model.placement(TENSORRT_SCHEME) is placed
    for change in ({"layers": {"a": LayerWeights(one, None)}}, {"table": table_of(other=(-1, 1))}):
        with pytest.raises(DataError, match="not of its layers"):
            replace(model, **change)
    with pytest.raises(EdgekitError, match="no placement"):
        model.placement(LITERT_SCHEME)


def test_an_unknown_parity_names_those_that_are() -> None:
    check_parity_mode("best")
    check_parity_mode("strict")
    with pytest.raises(UsageError, match="'exact'") as caught:
        check_parity_mode("exact")
    assert "best" in caught.value.hint
    assert "strict" in caught.value.hint
