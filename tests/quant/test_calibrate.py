"""The one calibration: names, one pass, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.convert.fold import fold
from edgekit.errors import DataError, UsageError
from edgekit.quant import calibrate
from edgekit.quant.observers import OBSERVERS
from edgekit.quantization import CalibrationRecipe, CalibrationSet
from tests.nets import observe, random_images

SHOWN = CalibrationSet((), "the samples")


class Twice(nn.Module):
    """Calls one module twice and adds its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv(self.act(self.conv(x)))) + x


def run(batches: Iterator[torch.Tensor] | list[torch.Tensor], model: nn.Module | None = None, observer: str = "minmax"):
    return calibrate.calibrate(
        fold(model or Twice()), batches, CalibrationRecipe("r", observer=observer), SHOWN, "the checkpoint"
    )


def test_tensors_are_named_by_module_and_call() -> None:
    assert set(run([random_images(2, 8)]).ranges) == {"image", "conv", "act", "conv:2", "act:2", "add"}


def test_table_says_where_it_came_from() -> None:
    table = run([random_images(2, 8)])
    assert (table.recipe, table.observer, table.samples, table.parent) == (
        "r",
        "minmax",
        "the samples",
        "the checkpoint",
    )


def test_ranges_are_those_of_the_tensors() -> None:
    folded, images = fold(Twice()), random_images(20, 8)
    ranges, tensors = observe(folded, images).ranges, calibrate.run_all(folded, images)
    for name, tensor in tensors.items():
        assert ranges[name].low == pytest.approx(min(tensor.min(), 0), abs=1e-5)
        assert ranges[name].high == pytest.approx(max(tensor.max(), 0), abs=1e-5)


@pytest.mark.parametrize("observer", OBSERVERS)
def test_one_pass_serves_every_observer(observer: str) -> None:
    asked: list[int] = []

    def batches() -> Iterator[torch.Tensor]:
        for number in range(3):
            asked.append(number)
            yield random_images(2, 8, number)

    run(batches(), observer=observer)
    assert asked == [0, 1, 2]


def test_nan_names_the_tensor() -> None:
    model = Twice()
    model.conv.bias.data[0] = float("nan")
    with pytest.raises(DataError, match="'conv'"):
        run([random_images(1, 8)], model)


def test_empty_calibration_set_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        run([])


def test_unknown_observer_lists_the_known() -> None:
    with pytest.raises(UsageError) as caught:
        run([random_images(1, 8)], observer="minmaks")
    assert "minmax" in caught.value.hint


def test_run_all_gives_every_tensor_of_the_graph() -> None:
    folded, images = fold(Twice()), random_images(1, 8)
    tensors = calibrate.run_all(folded, images)
    assert np.array_equal(tensors["image"], images.numpy())
    assert np.array_equal(tensors["add"], folded(images).numpy())


def test_the_table_also_has_what_was_seen() -> None:
    images = random_images(20, 8)
    folded = fold(Twice())
    narrow, whole = observe(folded, images, "percentile"), observe(folded, images, "minmax")
    assert narrow.seen == whole.seen == whole.ranges
