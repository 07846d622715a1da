"""The observer that is measured to suit the network."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edgekit.quant import calibrate
from edgekit.quant.observers import MEASURED
from edgekit.quantization import CalibrationRecipe, CalibrationSet, CalibrationTable, Range
from tests.nets import observe, random_images
from tests.quant.test_recover import fragile


def scaled(table: CalibrationTable, share: float, observer: str) -> CalibrationTable:
    ranges = {name: Range(span.low * share, span.high * share) for name, span in table.ranges.items()}
    return replace(table, ranges=ranges, observer=observer)


@pytest.mark.parametrize("order", [1, -1])
def test_the_table_that_moves_the_scores_least_is_taken(order: int) -> None:
    folded, images, table = fragile()
    tables = [scaled(table, share, str(share)) for share in (0.1, 1.0, 20.0)][::order]
    assert calibrate.with_least_error(folded, tables, images[:16]).observer == "1.0"


def test_the_error_is_relative_to_each_image_and_zero_where_nothing_is_rounded() -> None:
    folded, images, table = fragile()
    with torch.inference_mode():
        wanted = folded(images[:8])
        nothing = replace(table, ranges={})
        assert calibrate.candidate_error(folded, nothing, (images[:8],), wanted) == pytest.approx(0, abs=1e-6)
        assert 0.001 < calibrate.candidate_error(folded, table, (images[:8],), wanted) < 0.5


def test_a_recipe_that_leaves_it_open_gets_the_table_of_one_candidate() -> None:
    folded, images, _ = fragile()
    unlike = torch.cat([images, random_images(1, 32) * 1000])
    recipe = CalibrationRecipe("r", observer=MEASURED)
    table = calibrate.calibrate(folded, unlike.split(16), recipe, CalibrationSet((), "s"), "w")
    assert table.observer == "relative"  # squared errors follow the one image that is a thousand times larger
    assert table.ranges == observe(folded, unlike, table.observer).ranges
