"""Images that are kept apart: the error that is predicted is the one that rounding makes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekit.quant import affine, observers, simulate
from edgekit.quant.observers import ImageHistograms
from edgekit.quantization import Range


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def seen(*batches: torch.Tensor) -> ImageHistograms:
    histograms = ImageHistograms()
    for batch in batches:
        histograms.update(batch)
    return histograms


def measured(values: torch.Tensor, low: float, high: float) -> float:
    """The relative error by rounding every value, mean over images."""
    flat = values.flatten(1)
    off = simulate.fake_quantize(flat, affine.activation_grid(Range(low, high), symmetric=False)) - flat
    return float((off.square().mean(1).sqrt() / flat.square().mean(1).sqrt()).mean())


DATA = {
    "normal": noise(8, 20_000),
    "small": noise(8, 20_000) * 1e-4,
    "relu": noise(8, 20_000).clamp(min=0),
    "relu6": (noise(8, 20_000) * 4).clamp(0, 6),
    "silu": torch.nn.functional.silu(noise(8, 20_000) * 3),
    "images of all sizes": noise(8, 20_000) * torch.logspace(-2, 2, 8)[:, None],
}


@pytest.mark.parametrize("share", [1.0, 0.7, 0.3, 0.05])
@pytest.mark.parametrize("data", DATA)
def test_the_predicted_error_is_that_of_rounding(data: str, share: float) -> None:
    values = DATA[data]
    low, high = min(float(values.min()), 0.0) * share, float(values.max()) * share
    assert seen(values).relative_error()(low, high) == pytest.approx(measured(values, low, high), rel=0.1)


@pytest.mark.parametrize("data", DATA)
def test_no_other_range_is_clearly_better(data: str) -> None:
    values = DATA[data]
    full = min(float(values.min()), 0.0), float(values.max())
    found = measured(values, *observers.best_range(seen(values), *full))
    tried = [(full[0] * a, full[1] * b) for a in np.geomspace(1, 0.05, 12) for b in np.geomspace(1, 0.01, 24)]
    assert found <= 1.05 * min(measured(values, *each) for each in tried)


def test_one_image_that_is_unlike_the_others_does_not_decide() -> None:
    alike = noise(40, 5000)
    with_one = torch.cat([alike, noise(1, 5000) * 1000])
    alone = observers.best_range(seen(alike), -5.0, 5.0)
    low, high = observers.best_range(seen(with_one), float(with_one.min()), float(with_one.max()))
    assert low == pytest.approx(alone[0], rel=0.2)
    assert high == pytest.approx(alone[1], rel=0.2)


def test_batches_add_images_up_to_the_limit_and_take_no_more_memory() -> None:
    values = noise(100, 50)
    whole, streamed = seen(values), seen(*values.split(7))
    assert np.array_equal(whole.counts, streamed.counts)
    assert len(whole.counts) == observers.IMAGES
    assert whole.counts.sum() == observers.IMAGES * 50


def test_zeros_have_a_bin_of_their_own_and_no_error() -> None:
    values = torch.zeros(2, 1000)
    values[:, :10] = 1.0
    assert seen(values).relative_error()(0.0, 1.0) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("values", [torch.zeros(3, 100), torch.zeros(0, 5), torch.zeros(1, 1)])
def test_tensors_of_nothing_keep_their_range(values: torch.Tensor) -> None:
    assert observers.best_range(seen(values), 0.0, 0.0) == (0.0, 0.0)


def test_dead_images_do_not_count() -> None:
    values = DATA["normal"]
    with_dead = torch.cat([values, torch.zeros(8, 20_000)])
    assert seen(with_dead).relative_error()(-2.0, 2.0) == pytest.approx(seen(values).relative_error()(-2.0, 2.0))
