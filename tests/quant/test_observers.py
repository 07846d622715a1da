"""The histogram, and what every row of `OBSERVERS` must hold for any data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekit.errors import DataError
from edgekit.quant.observers import BINS, OBSERVERS, Histogram
from edgekit.quantization import Range


def noise(count: int = 20_000, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


DATA = {
    "normal": noise(),
    "uniform": torch.linspace(-1, 3, 20_000),
    "one-sided": noise().clamp(min=0),
    "negative": -noise().abs() - 1,
    "outlier": torch.cat([noise(), torch.tensor([1000.0])]),
    "constant": torch.full((100,), 0.7),
    "zero": torch.zeros(100),
}


def histogram(*batches: torch.Tensor) -> Histogram:
    seen = Histogram()
    for batch in batches:
        seen.update(batch)
    return seen


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("observer", OBSERVERS)
def test_range_contains_zero_and_lies_inside_what_was_seen(observer: str, data: str) -> None:
    values = DATA[data]
    span = OBSERVERS[observer](histogram(values))
    assert min(float(values.min()), 0.0) <= span.low <= 0.0 <= span.high <= max(float(values.max()), 0.0)


@pytest.mark.parametrize("data", ["normal", "uniform", "one-sided"])
@pytest.mark.parametrize("observer", OBSERVERS)
def test_range_keeps_nearly_all_well_behaved_values(observer: str, data: str) -> None:
    values, span = DATA[data], OBSERVERS[observer](histogram(DATA[data]))
    inside = (values >= span.low) & (values <= span.high)
    assert inside.float().mean() > 0.99


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("observer", OBSERVERS)
def test_streaming_equals_one_shot_to_a_bin(observer: str, data: str) -> None:
    values = DATA[data]
    whole = histogram(values)
    streamed = histogram(*values.split(997))
    left, right = OBSERVERS[observer](whole), OBSERVERS[observer](streamed)
    # mse searches in steps of 1 % of the range; the others are exact to the width of a bin.
    step = 0.011 * max(-whole.low, whole.high) if observer == "mse" else 4 * max(whole.limit, streamed.limit) / BINS
    assert left.low == pytest.approx(right.low, abs=step)
    assert left.high == pytest.approx(right.high, abs=step)


def test_minmax_is_all_that_was_seen() -> None:
    assert OBSERVERS["minmax"](histogram(torch.tensor([-1.5, 4.0]), torch.tensor([9.0]))) == Range(-1.5, 9.0)


def test_percentile_cuts_a_lone_outlier() -> None:
    assert OBSERVERS["percentile"](histogram(DATA["outlier"])).high < 10


def test_percentile_leaves_one_in_ten_thousand_outside_on_either_side() -> None:
    values = torch.linspace(-2, 2, 1_000_000)
    span = OBSERVERS["percentile"](histogram(values))
    assert (span.low, span.high) == pytest.approx((-2 + 4e-4, 2 - 4e-4), abs=2 * 4 / BINS)


def test_mse_chooses_the_range_with_less_error_than_minmax() -> None:
    values = torch.cat([noise(), torch.tensor([40.0])])
    seen = histogram(values)

    def error(span: Range) -> float:
        step = (span.high - span.low) / 255
        rounded = ((values - span.low) / step).round().clamp(0, 255) * step + span.low
        return float(((values - rounded) ** 2).sum())

    assert error(OBSERVERS["mse"](seen)) < error(OBSERVERS["minmax"](seen))


def test_doubling_keeps_every_count_and_the_place_of_each() -> None:
    seen = histogram(torch.full((10,), 0.9), torch.full((3,), -0.9), torch.full((7,), 100.0))
    assert seen.counts.sum() == 20
    width = 2 * seen.limit / BINS
    for value, count in ((0.9, 10), (-0.9, 3), (100.0, 7)):
        assert seen.counts[np.abs(seen.centers - value) <= width].sum() == count


def test_a_first_batch_of_zeros_does_not_ruin_the_histogram() -> None:
    seen = histogram(torch.zeros(100), noise())
    assert OBSERVERS["percentile"](seen).high == pytest.approx(float(noise().max()), rel=0.2)


def test_more_equal_values_than_float32_can_count_are_all_counted() -> None:
    values = torch.zeros(1).expand(3 * 2**24)
    assert histogram(values, torch.ones(1)).counts.sum() == 3 * 2**24 + 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused_and_leave_no_trace(value: float) -> None:
    seen = histogram(torch.ones(3))
    with pytest.raises(DataError, match="NaN or infinite"):
        seen.update(torch.tensor([0.0, value]))
    assert (seen.high, seen.counts.sum()) == (1.0, 3)


def test_memory_does_not_grow_with_the_number_of_values() -> None:
    seen = histogram(noise(10))
    before = seen.counts.nbytes
    for seed in range(20):
        seen.update(noise(50_000, seed) * seed)
    assert seen.counts.nbytes == before
