"""Tensors of two graphs are paired by value alone."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.quant.naming import TOLERANCE, name_exported

RNG = np.random.default_rng(0)
ONE, OTHER = (RNG.normal(size=(1, 8, 5, 7)).astype(np.float32) for _ in range(2))


def matched(reference: dict[str, np.ndarray], exported: dict[str, np.ndarray]) -> dict[str, str]:
    return name_exported(reference, {}, {}, exported).tensors


@pytest.mark.parametrize(
    "same",
    [ONE.transpose(0, 2, 3, 1), ONE.reshape(1, -1), ONE * (1 + TOLERANCE / 10), ONE.astype(np.float64)],
    ids=["NHWC", "flattened", "rounding noise", "float64"],
)
def test_the_same_values_match_whatever_their_layout(same: np.ndarray) -> None:
    assert matched({"torch": ONE, "else": OTHER}, {"lite": same}) == {"lite": "torch"}


@pytest.mark.parametrize(
    "different",
    [ONE * 1.01, ONE + 0.1, -ONE, OTHER, ONE[:, :4], np.maximum(ONE, 0), np.zeros((0, 3), np.float32)],
    ids=["scaled", "shifted", "negated", "another", "part", "after ReLU", "empty"],
)
def test_near_misses_stay_unmatched(different: np.ndarray) -> None:
    assert matched({"torch": ONE}, {"lite": different}) == {}


def test_the_closest_wins() -> None:
    reference = {"far": ONE * (1 + TOLERANCE / 2), "near": ONE}
    assert matched(reference, {"lite": ONE}) == {"lite": "near"}


def test_every_name_finds_its_own() -> None:
    tensors = {str(i): RNG.normal(size=(1, 4, 6, 6)) for i in range(10)}
    turned = {f"lite{name}": tensor.transpose(0, 3, 1, 2) for name, tensor in tensors.items()}
    assert matched(tensors, turned) == {f"lite{name}": name for name in tensors}


def test_constant_tensors_match_by_size_and_value() -> None:
    zeros, ones = np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32)
    assert matched({"zeros": zeros, "ones": ones}, {"a": ones, "b": zeros}) == {"a": "ones", "b": "zeros"}
