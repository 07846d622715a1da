"""What ``auto`` becomes: the four textbook cases, and that nothing stays open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgekit.data.dataset import index
from edgekit.records import DatasetIndex, Sample
from edgekit.training import plan
from edgekit.training.options import TrainOptions
from edgekit.training.plan import LARGE, Probe, linear_top1
from tests.datasets import write_images
from tests.training import small

pytestmark = [pytest.mark.xdist_group("plan"), pytest.mark.usefixtures("rows", "cache")]
AUTO = TrainOptions("resnet18")
EDGE = 20.0 + 80.0 * plan.SIMILAR  # top-1 from which data are similar, where guessing gets 20 %
SIMILAR, DIFFERENT = Probe((100 + EDGE) / 2, 20.0), Probe(EDGE / 2, 20.0)


def data_of(*counts: int) -> DatasetIndex:
    """So many training images of each class, in name alone."""
    train = [
        Sample(f"{c}/{n}.png", c, "train", f"{c:032}{n:032}") for c, count in enumerate(counts) for n in range(count)
    ]
    val = [Sample(f"{c}/v.png", c, "val", f"{c:032}{'f' * 32}") for c in range(len(counts))]
    return DatasetIndex(Path("nowhere"), tuple("abcdefgh"[: len(counts)]), (*train, *val), "fingerprint")


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arithmetic is not timed here."""
    monkeypatch.setattr(plan, "measure_precisions", lambda *_: {"off channels_last": 1.0, "bf16 channels_last": 0.5})


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Probe], list[int]]:
    """Let the probe find something made up; the list grows with every use of it."""

    def find(probe: Probe) -> list[int]:
        asked: list[int] = []

        def answer(*_: object) -> Probe:
            asked.append(1)
            return probe

        monkeypatch.setattr(plan, "probe", answer)
        return asked

    return find


def decide(data: DatasetIndex, options: TrainOptions) -> tuple[TrainOptions, list[str]]:
    said: list[str] = []
    return plan.decide(data, options, small.ALONE, lambda *_: None, said.append), said


@pytest.mark.parametrize(
    ("counts", "probe", "strategy", "layer_decay"),
    [
        ((LARGE - 1,) * 3, SIMILAR, "head", 1.0),
        ((LARGE - 1,) * 3, DIFFERENT, "partial", 1.0),
        ((LARGE, LARGE, LARGE), SIMILAR, "full", 0.7),
        ((LARGE, LARGE, LARGE), DIFFERENT, "full", 1.0),
        ((10, LARGE - 1, 5000), SIMILAR, "head", 1.0),  # the median counts
        ((10, LARGE, 5000), DIFFERENT, "full", 1.0),
    ],
)
def test_the_four_textbook_cases(
    probed: Any, counts: tuple[int, ...], probe: Probe, strategy: str, layer_decay: float
) -> None:
    probed(probe)
    options, said = decide(data_of(*counts), AUTO)
    assert (options.strategy, options.layer_decay) == (strategy, layer_decay)
    sentence = said[0]
    assert sentence.startswith(f"strategy: {strategy}; ")
    median = sorted(counts)[1]
    for number in (f"({median} training images", f"large from {LARGE}", f"{probe.top1:.1f} %", f"{probe.chance:.1f} %"):
        assert number in sentence
    assert ("large" if median >= LARGE else "small") in sentence.partition(";")[2].partition("(")[0]
    assert ("similar to" if probe is SIMILAR else "different from") in sentence


@pytest.mark.parametrize(
    ("top1", "chance", "skill"), [(100, 20, 1), (20, 20, 0), (10, 20, 0), (84, 20, 0.8), (100, 100, 0)]
)
def test_skill_runs_from_guessing_to_perfect(top1: float, chance: float, skill: float) -> None:
    assert Probe(top1, chance).skill == pytest.approx(skill)


def test_similar_starts_at_its_threshold(probed: Any) -> None:
    for top1, strategy in ((EDGE + 0.01, "head"), (EDGE - 0.01, "partial")):
        probed(Probe(top1, 20.0))
        assert decide(data_of(20, 20), AUTO)[0].strategy == strategy


def test_without_weights_to_start_from_nothing_is_probed_and_it_is_from_scratch(probed: Any) -> None:
    asked = probed(SIMILAR)
    options, said = decide(data_of(20, 20), replace(AUTO, weights="none"))
    assert (options.strategy, options.start, asked) == ("scratch", "none", [])
    assert said[0] == "strategy: scratch; there are no initial weights"


def test_mixing_images_excludes_the_head_alone(probed: Any) -> None:
    probed(SIMILAR)
    assert decide(data_of(20, 20), replace(AUTO, mix="mixup"))[0].strategy == "partial"


@pytest.mark.parametrize("strategy", ["head", "partial", "full"])
def test_a_strategy_that_was_asked_for_is_not_questioned(probed: Any, strategy: str) -> None:
    asked = probed(DIFFERENT)
    options, said = decide(data_of(2 * LARGE, 2 * LARGE), replace(AUTO, strategy=strategy))
    assert (options.strategy, asked) == (strategy, [])
    assert not [line for line in said if line.startswith("strategy")]


def test_a_layer_decay_that_was_asked_for_stays(probed: Any) -> None:
    probed(SIMILAR)
    assert decide(data_of(2 * LARGE, 2 * LARGE), replace(AUTO, layer_decay=0.9))[0].layer_decay == 0.9


@pytest.mark.parametrize(("counts", "name"), [((50, 30), "none"), ((50, 5), "weights"), ((300, 3), "weights")])
def test_imbalance_is_decided_by_the_counts_and_says_them(probed: Any, counts: tuple[int, int], name: str) -> None:
    probed(SIMILAR)
    options, said = decide(data_of(*counts), AUTO)
    assert options.imbalance == name
    (sentence,) = [line for line in said if line.startswith("imbalance")]
    assert sentence.startswith(f"imbalance: {name}; ")
    assert f"({counts[0]} and {counts[1]})" in sentence


@pytest.mark.parametrize("probe", [SIMILAR, DIFFERENT])
@pytest.mark.parametrize("counts", [(20, 20), (20, LARGE), (3 * LARGE, 3 * LARGE)])
@pytest.mark.parametrize("changes", [{}, {"weights": "none"}, {"mix": "cutmix"}, {"optimizer": "sgd"}], ids=str)
def test_nothing_is_left_open(probed: Any, probe: Probe, counts: tuple[int, int], changes: dict[str, Any]) -> None:
    probed(probe)
    asked = replace(AUTO, **changes)
    options, said = decide(data_of(*counts), asked)
    values = {k: v for k, v in asdict(options).items() if k not in ("device", "layout")}
    assert "auto" not in values.values()
    assert options.lr == pytest.approx(options.peak_lr)
    assert options.lr == replace(options, lr=None).peak_lr
    assert [line.partition(":")[0] for line in said] == ["strategy", "trained", "imbalance", "precision"]
    open_ones = {"strategy", "imbalance", "amp", "channels_last", "lr", "layer_decay"}
    assert {k for k, v in values.items() if v != asdict(asked)[k]} <= open_ones
    again, said = decide(data_of(*counts), options)
    assert again == options
    assert [line.partition(":")[0] for line in said] == ["trained"]  # there is nothing left to decide


@pytest.mark.parametrize(
    ("conv", "device", "crashes"),
    [
        (nn.Conv2d(3, 48, 1, 2), "cpu", True),
        (nn.Conv2d(4, 48, 1, (1, 2)), "cpu", True),
        (nn.Conv2d(3, 48, 1, 2), "cuda", False),
        (nn.Conv2d(3, 48, 3, 2), "cpu", False),
        (nn.Conv2d(3, 48, 1, 1), "cpu", False),
        (nn.Conv2d(8, 48, 1, 2), "cpu", False),
        (nn.Conv2d(4, 4, 1, 2, groups=4), "cpu", False),
    ],
)
def test_what_torch_crashes_on_is_not_trained_in_channels_last(
    monkeypatch: pytest.MonkeyPatch, conv: nn.Conv2d, device: str, crashes: bool
) -> None:
    monkeypatch.setattr(plan.build, "build", lambda *arguments: nn.Sequential(nn.Conv2d(3, 3, 3), conv))
    options = TrainOptions("resnet18", "full")
    assert plan.crashes_in_channels_last(options, 2, torch.device(device)) is crashes


def test_what_torch_crashes_on_is_decided_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "crashes_in_channels_last", lambda *arguments: True)
    options, said = decide(data_of(20, 20), replace(AUTO, strategy="full"))
    assert not options.channels_last
    assert any("memory format: contiguous" in line for line in said)


def test_linear_top1_of_separable_data_is_one_and_of_noise_is_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(300) % 3
    centres = 5 * torch.randn(3, 20, generator=generator)
    x = centres[y] + torch.randn(300, 20, generator=generator)
    assert linear_top1(x[:200], y[:200], x[200:], y[200:], 3) == 1
    noise = torch.randn(300, 20, generator=generator)
    assert linear_top1(noise[:200], y[:200], noise[200:], y[200:], 3) < 0.6


def test_linear_top1_does_not_mind_the_scale_nor_constant_features() -> None:
    y = torch.arange(60) % 2
    x = torch.stack([1e4 * y + 1e6, torch.full((60,), 7.0), 1e-5 * torch.randn(60)], 1).float()
    assert linear_top1(x[:40], y[:40], x[40:], y[40:], 2) == 1


def test_a_real_probe_knows_colours(tmp_path: Path) -> None:
    data = index(write_images(tmp_path / "images", {"a": 30, "b": 20, "c": 20}))
    said: list[tuple[int, int, str]] = []
    found = plan.probe(
        data, TrainOptions("efficientnet_lite0", image_size=32), small.ALONE, lambda *now: said.append(now)
    )
    labels = [s.label for s in data.split("val")]
    assert found.chance == pytest.approx(100 * labels.count(0) / len(labels))
    assert found.top1 >= 80
    assert said[-1][0] == said[-1][1]


def test_a_real_decision_trains_the_head_of_a_network_that_knows_the_classes(tmp_path: Path) -> None:
    data = index(write_images(tmp_path / "images", {"a": 30, "b": 30}))
    options, said = decide(data, TrainOptions("efficientnet_lite0", image_size=32))
    assert options.strategy in ("head", "partial")  # how sure it is of so few images is not the point
    assert options.strategy == ("head" if "similar to" in said[0] else "partial")
    assert options.amp == "off"
