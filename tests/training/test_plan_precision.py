"""Which arithmetic ``--amp auto`` takes: measured once, kept on disk, and only where it is worth it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.errors import UsageError
from edgekit.training import plan
from edgekit.training.options import TrainOptions
from tests.training import small

pytestmark = [pytest.mark.xdist_group("precision"), pytest.mark.usefixtures("rows", "cache")]
MANY = plan.WORTH_MEASURING
LAST, CONTIGUOUS = "off channels_last", "off contiguous"
BF16, BF16_CONTIGUOUS = "bf16 channels_last", "bf16 contiguous"


def auto(**changes: Any) -> TrainOptions:
    return small.options(**{"amp": "auto", "epochs": 1, **changes})


class Stopwatch:
    """A measurement that is made up, and counts how often it was asked for."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = {LAST: 1.0, CONTIGUOUS: 1.0, BF16: 1.0, BF16_CONTIGUOUS: 1.0}
        self.seconds.update({name.replace("_", " ", 1): value for name, value in seconds.items()})
        self.asked = 0

    def __call__(self, *_: object) -> dict[str, float]:
        self.asked += 1
        return self.seconds


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Any:
    def use(**seconds: float) -> Stopwatch:
        watch = Stopwatch(**seconds)
        monkeypatch.setattr(plan, "measure_precisions", watch)
        return watch

    return use


@pytest.mark.parametrize(
    ("seconds", "amp", "channels_last"),
    [
        ({}, "off", True),
        ({"bf16_channels_last": 0.5}, "bf16", True),
        ({"bf16_contiguous": 0.4, "bf16_channels_last": 0.5}, "bf16", False),
        ({"off_contiguous": 0.5}, "off", False),
        ({"bf16_channels_last": 1 / 1.09}, "off", True),  # not worth the noise
        ({"bf16_channels_last": 1 / 1.11}, "bf16", True),
        ({"bf16_channels_last": 3.0, "bf16_contiguous": 3.0, "off_contiguous": 2.0}, "off", True),
    ],
)
def test_the_fastest_is_taken_if_it_gains_a_tenth(
    measured: Any, seconds: dict[str, float], amp: str, channels_last: bool
) -> None:
    measured(**seconds)
    options, why = plan.choose_precision(auto(), 3, MANY, small.ALONE)
    assert (options.amp, options.channels_last) == (amp, channels_last)
    assert options == replace(auto(), amp=amp, channels_last=channels_last)
    assert why.startswith(f"{amp} {'channels_last' if channels_last else 'contiguous'}")
    assert f"{LAST} 8" in why  # images a second: a batch of 8 in one


def test_the_answer_is_remembered(measured: Any, cache: Path) -> None:
    watch = measured(bf16_channels_last=0.5)
    first = plan.choose_precision(auto(), 3, MANY, small.ALONE)
    measured(bf16_channels_last=9.0)  # it would be another one now
    assert plan.choose_precision(auto(), 3, MANY, small.ALONE) == first
    assert watch.asked == 1
    assert len(list((cache / "speed").glob("*.json"))) == 1


@pytest.mark.parametrize("changes", [{"batch_size": 16}, {"image_size": 48}, {"arch": "staged"}, {"ema": 0.9}], ids=str)
def test_other_circumstances_are_measured_anew(measured: Any, changes: dict[str, Any]) -> None:
    watch = measured()
    plan.choose_precision(auto(), 3, MANY, small.ALONE)
    plan.choose_precision(auto(**changes), 3, MANY, small.ALONE)
    assert watch.asked == 2


@pytest.mark.parametrize("changes", [{"seed": 5}, {"lr": 0.5}, {"epochs": 3}], ids=str)
def test_what_does_not_matter_for_speed_is_not(measured: Any, changes: dict[str, Any]) -> None:
    watch = measured()
    plan.choose_precision(auto(), 3, MANY, small.ALONE)
    plan.choose_precision(auto(**changes), 5, MANY, small.ALONE)
    assert watch.asked == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', '{"schema": 99, "seconds": {}}'])
def test_a_damaged_answer_is_measured_again(measured: Any, cache: Path, content: str) -> None:
    watch = measured(bf16_channels_last=0.5)
    first = plan.choose_precision(auto(), 3, MANY, small.ALONE)
    (path,) = (cache / "speed").glob("*.json")
    path.write_text(content)
    assert plan.choose_precision(auto(), 3, MANY, small.ALONE) == first
    assert plan.choose_precision(auto(), 3, MANY, small.ALONE) == first
    assert watch.asked == 2


@pytest.mark.parametrize(("images", "epochs"), [(MANY - 1, 1), (MANY // 4 - 1, 4)])
def test_few_images_are_not_measured(measured: Any, images: int, epochs: int) -> None:
    watch = measured(bf16_channels_last=0.1)
    options, why = plan.choose_precision(auto(epochs=epochs), 3, images, small.ALONE)
    assert (options.amp, watch.asked) == ("off", 0)
    assert "too short to measure" in why


def test_a_head_on_kept_features_is_not_measured(measured: Any) -> None:
    watch = measured(bf16_channels_last=0.1)
    options, why = plan.choose_precision(auto(strategy="head", weights=None), 3, MANY, small.ALONE)
    assert (options.amp, watch.asked) == ("off", 0)
    assert "only the head" in why


def test_fp16_without_a_gpu_is_refused() -> None:
    with pytest.raises(UsageError, match="CUDA") as caught:
        plan.check_amp(auto(amp="fp16"), small.ALONE.device)
    assert "--amp bf16" in caught.value.hint
    plan.check_amp(auto(amp="fp16"), torch.device("cuda"))
    plan.check_amp(auto(amp="bf16"), small.ALONE.device)


def test_a_real_measurement_times_every_candidate() -> None:
    found = plan.measure_precisions(auto(amp="off"), 3, small.ALONE)
    names = {LAST, CONTIGUOUS} | ({BF16, BF16_CONTIGUOUS} if torch.backends.mkldnn.is_available() else set())
    assert set(found) == names
    assert all(seconds > 0 for seconds in found.values())
