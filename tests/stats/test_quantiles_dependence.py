"""How far values depend on the ones before, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coverage import autoregressive
from edgekit.stats.quantiles import autocorrelation, inefficiency, lags_of, memory, ranks, student


def test_ranks_are_shared_by_equal_values() -> None:
    assert ranks(np.array([30, 10, 20, 20])).tolist() == [4, 1, 2.5, 2.5]
    assert ranks(np.array([7.0] * 5)).tolist() == [3] * 5
    assert ranks(np.array([1.0, 9e9, 2.0])).tolist() == [1, 3, 2]  # no outlier pulls


@pytest.mark.parametrize("length", [2, 9, 50, 333])
def test_autocorrelations_are_those_of_the_definition(length: int) -> None:
    values = np.random.default_rng(length).normal(size=length)
    found, centred = autocorrelation(values, 12), values - values.mean()
    for lag in range(13):
        expected = centred[: length - lag] @ centred[lag:] / (centred @ centred) if lag < length else 0
        assert found[lag] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("values", [[], [5.0], [5.0] * 40, [2e9] * 700])
def test_what_does_not_vary_depends_on_nothing(values: list[float]) -> None:
    assert autocorrelation(np.array(values), 3).tolist() == [1, 0, 0, 0]
    assert inefficiency(np.array(values)) == 1


def test_independent_values_have_no_memory_and_dependent_ones_theirs() -> None:
    rng = np.random.default_rng(0)
    for phi, least, most in ((0.0, 0, 0), (0.5, 2, 8), (0.9, 12, 80)):
        values = autoregressive(rng, 1, 4000, phi)[0]
        assert least <= memory(autocorrelation(values, lags_of(4000)), 4000) <= most


@pytest.mark.parametrize("phi", [0.5, 0.8, 0.9])
def test_the_inefficiency_of_an_autoregression_is_its_closed_form(phi: float) -> None:
    drawn = autoregressive(np.random.default_rng(1), 20, 20_000, phi)
    assert np.median([inefficiency(values) for values in drawn]) == pytest.approx((1 + phi) / (1 - phi), rel=0.15)


def test_values_that_make_up_for_each_other_are_not_called_more_than_they_are() -> None:
    assert inefficiency(autoregressive(np.random.default_rng(2), 1, 2000, -0.8)[0]) >= 1


@pytest.mark.parametrize(
    ("freedom", "known"),
    [(1, 12.7062), (1.5, 6.0167), (2, 4.3027), (3, 3.1824), (10, 2.2281), (29, 2.0452), (30, 2.0423), (31, 2.0395),
     (120, 1.9799), (1e6, 1.95996)],
)  # fmt: skip
def test_student_s_quantiles_are_the_known_ones(freedom: float, known: float) -> None:
    assert student(freedom) == pytest.approx(known, rel=0.001)
