"""The histogram, and what every row of `OBSERVERS` must hold for any data."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit import config
from edgekit.errors import DataError
from edgekit.quant import observers
from edgekit.quant.observers import BINS, MOST_PER_IMAGE, OBSERVERS, Histogram
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
@pytest.mark.parametrize("observer", sorted(set(OBSERVERS) - {"mean"}))  # for which each batch here is an image
def test_streaming_equals_one_shot_to_a_bin(observer: str, data: str) -> None:
    values = DATA[data]
    whole = histogram(values)
    streamed = histogram(*values.split(997))
    left, right = OBSERVERS[observer](whole), OBSERVERS[observer](streamed)
    # mse searches in steps of 1 % of the range, entropy's divergence is flat around its least;
    # the others are exact to the width of a bin.
    search = {"mse": 0.011, "entropy": 0.1}
    step = search.get(observer, 0) * max(-left.low, left.high) + 4 * max(whole.limit, streamed.limit) / BINS
    assert left.low == pytest.approx(right.low, abs=step)
    assert left.high == pytest.approx(right.high, abs=step)


def test_mean_is_of_the_extremes_of_each_image() -> None:
    images = torch.tensor([[-1.0, 0.5, 2.0], [-3.0, 0.0, 4.0], [0.5, 1.0, 9.0]])
    for seen in (histogram(images), histogram(images[:1], images[1:])):
        assert OBSERVERS["mean"](seen).low == pytest.approx(-3.5 / 3)
        assert OBSERVERS["mean"](seen).high == pytest.approx(5.0)
    assert OBSERVERS["mean"](histogram(images[2:] + 1)) == Range(0.0, 10.0)


def test_of_large_images_a_sample_is_counted_and_the_extremes_are_of_all() -> None:
    images = noise(2 * 300_000).reshape(2, 3, 100, 1000)
    images[0, 0, 0, 1], images[1, 2, 99, 998] = 50.0, -40.0
    seen = histogram(images)
    assert (seen.low, seen.high) == (-40.0, 50.0)
    assert 0.5 * 2 * MOST_PER_IMAGE < seen.counts.sum() <= 2 * MOST_PER_IMAGE
    assert OBSERVERS["mean"](seen).high == pytest.approx((50.0 + float(images[1].max())) / 2)
    plain = noise(2 * 300_000).reshape(2, -1)
    seen, whole = histogram(plain), histogram(*plain.split(30_000, 1))
    for observer in ("percentile", "mse", "entropy"):
        sampled, exact = OBSERVERS[observer](seen), OBSERVERS[observer](whole)
        assert sampled.high == pytest.approx(exact.high, rel=0.15)


def test_a_sample_is_of_all_rows_columns_and_channels() -> None:
    rows = torch.arange(3 * 256 * 512).reshape(1, -1)
    sample = observers._sample(rows)[0]
    assert len(set((sample % 512).tolist())) == 512
    assert len(set((sample // 512 % 256).tolist())) == 256
    assert set((sample // 512 // 256).tolist()) == {0, 1, 2}
    assert observers._sample(rows[:, :1000]).shape == (1, 1000)


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
    values = torch.zeros(1).expand(300, MOST_PER_IMAGE)
    assert histogram(values, torch.ones(1, 1)).counts.sum() == 300 * MOST_PER_IMAGE + 1 > 2**24


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


# Entropy --------------------------------------------------------------------------------------


def divergence(seen: Histogram, bins: int) -> float:
    """Migacz's KL divergence for a threshold of so many bins on either side, bin by bin as he writes it."""
    half = BINS // 2
    counts = seen.counts.astype(float)
    counts[half], counts[half - 1] = min(counts[half], counts[half + 1]), min(counts[half - 1], counts[half - 2])
    p, q = [], []
    for side in (counts[half:], counts[:half][::-1]):
        inside, beyond = side[:bins].copy(), side[bins:].sum()
        edges = np.rint(bins * np.arange(129) / 128).astype(int)
        for a, b in pairwise(edges):
            level = inside[a:b]
            q += list(np.where(level > 0, level.sum() / max(1, (level > 0).sum()), 0.0))
        if beyond and inside[-1] == 0:
            q[-1] = 1.0
        inside[-1] += beyond
        p += list(inside)
    p, q = np.array(p), np.array(q)
    within = counts[half - bins : half + bins].sum()
    return float(sum(a / p.sum() * np.log((a / p.sum()) / (b / within)) for a, b in zip(p, q) if a > 0))


@pytest.mark.parametrize("data", ["normal", "one-sided", "uniform", "outlier"])
def test_entropy_chooses_the_threshold_of_least_divergence(data: str) -> None:
    seen = histogram(DATA[data])
    span = OBSERVERS["entropy"](seen)
    width = 2 * seen.limit / BINS
    chosen = divergence(seen, int(np.ceil(max(-span.low, span.high) / width - 1e-6)))
    assert chosen <= min(divergence(seen, bins) for bins in range(128, BINS // 2 + 1, 61)) + 1e-9


@pytest.mark.parametrize("data", ["normal", "one-sided", "outlier"])
def test_entropy_s_running_sums_give_the_divergence_of_every_threshold(data: str) -> None:
    side = histogram(DATA[data]).counts[BINS // 2 :].astype(float)
    side[0] = side[1]
    mirrored = Histogram(limit=1.0, counts=np.concatenate([np.zeros(BINS // 2, int), side.astype(int)]))
    thresholds = np.array([128, 129, 500, 1111, BINS // 2])
    within, loss = observers._information_loss(side, thresholds)
    got = loss / side.sum() + np.log(within / side.sum())
    assert got == pytest.approx([divergence(mirrored, bins) for bins in thresholds], abs=1e-9)


def test_entropy_cuts_a_long_thin_tail_and_nothing_of_a_uniform_tensor() -> None:
    tail = torch.cat([noise(200_000), torch.linspace(5, 60, 50)])
    assert 3 < OBSERVERS["entropy"](histogram(tail)).high < 15
    assert OBSERVERS["entropy"](histogram(DATA["uniform"])) == Range(-1.0, 3.0)


def test_entropy_searches_only_the_end_that_a_one_sided_tensor_has() -> None:
    span = OBSERVERS["entropy"](histogram(noise(200_000).abs() ** 3))
    assert span.low == 0
    assert 10 < span.high < float(noise(200_000).abs().max()) ** 3


def test_entropy_leaves_an_end_inside_the_threshold_where_it_is() -> None:
    values = torch.nn.functional.silu(noise(500_000) * 3)
    span = OBSERVERS["entropy"](histogram(values))
    assert span.low == float(values.min())
    assert span.high < float(values.max())


def test_entropy_is_not_decided_by_the_zeros_behind_a_relu() -> None:
    values = noise(200_000).abs()
    zeros = torch.zeros(1_000_000)
    plain, many = (OBSERVERS["entropy"](histogram(values, *more)) for more in ((), (zeros,)))
    assert many == plain


# Hard cases -----------------------------------------------------------------------------------

BROKEN = {
    "denormal": torch.full((20_000,), 1e-40),
    "near float32's end": torch.linspace(-1, 1, 20_000) * 3.4e38,
    "one value": torch.tensor([-2.5]),
    "two values": torch.tensor([-1.0, 1.0]).repeat(10_000),
    "scalar": torch.tensor(3.0),
}


@pytest.mark.parametrize("observer", OBSERVERS)
@pytest.mark.parametrize("data", BROKEN)
def test_hard_tensors_have_a_sound_range(observer: str, data: str) -> None:
    seen = histogram(BROKEN[data], BROKEN[data])
    assert seen.counts.sum() == 2 * BROKEN[data].numel()
    span = OBSERVERS[observer](seen)
    assert min(0.0, seen.low) <= span.low <= 0.0 <= span.high <= max(0.0, seen.high)
    assert type(span.low) is type(span.high) is float
    if data != "denormal":
        assert span.high - span.low >= 0.9 * (max(0.0, seen.high) - min(0.0, seen.low))


@pytest.mark.parametrize("first", [True, False], ids=["in the first batch", "in the last batch"])
@pytest.mark.parametrize("observer", sorted(set(OBSERVERS) - {"minmax"}))
def test_one_absurd_value_does_not_blur_the_others(observer: str, first: bool) -> None:
    batches = [torch.cat([noise(), torch.tensor([1e30])])[None], noise(seed=1)[None], noise(seed=2)[None]]
    span = OBSERVERS[observer](histogram(*(batches if first else reversed(batches))))
    assert -6 < span.low < -2
    assert 2 < span.high < 9


def test_minmax_shows_an_absurd_value() -> None:
    seen = histogram(torch.cat([noise(), torch.tensor([1e30])]))
    assert OBSERVERS["minmax"](seen).high == pytest.approx(1e30)
    assert seen.counts.sum() == 20_001


def test_far_values_that_are_not_few_are_kept() -> None:
    seen = histogram(noise())
    for seed in range(30):
        seen.update(torch.cat([noise(1000, seed), torch.tensor([5000.0])]))
    assert seen.limit >= 5000


@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=60),
    repeat=st.sampled_from([1, 500]),
    observer=st.sampled_from(sorted(OBSERVERS)),
)
@settings(max_examples=150, deadline=None)
def test_any_finite_tensor_has_a_range_that_holds_zero_and_nothing_unseen(
    values: list[float], repeat: int, observer: str
) -> None:
    tensor = torch.tensor(values).repeat(repeat)
    seen = histogram(*tensor.split(37))
    assert seen.counts.sum() == len(tensor)
    span = OBSERVERS[observer](seen)
    assert min(0.0, seen.low) <= span.low <= 0.0 <= span.high <= max(0.0, seen.high)


@given(scale=st.floats(1e-6, 1e6), observer=st.sampled_from(sorted(OBSERVERS)))
@settings(max_examples=40, deadline=None)
def test_ranges_grow_with_the_tensor(scale: float, observer: str) -> None:
    values = noise(5000)
    plain, scaled = (OBSERVERS[observer](histogram(v)) for v in (values, values * scale))
    tolerance = 0.15 if observer == "relative" else 0.02  # its bins lie on a fixed scale
    assert (scaled.low, scaled.high) == pytest.approx((plain.low * scale, plain.high * scale), rel=tolerance)


@pytest.mark.parametrize("name", config.names("calibration"))
def test_every_packaged_recipe_names_a_known_observer(name: str) -> None:
    assert config.load_recipe(name).observer in (*OBSERVERS, observers.MEASURED)
