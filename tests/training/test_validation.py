"""How val is measured: each image once, macro F1 as scikit-learn has it, decoded once if it fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgekit.data import images
from edgekit.data.images import load_pixels
from edgekit.models import build
from edgekit.models.build import normalize
from edgekit.records import DatasetIndex
from edgekit.training import validation
from edgekit.training.distributed import Team
from edgekit.training.features import View, backbone, extract
from edgekit.training.learner import Learner
from edgekit.training.validation import Validation, macro_f1
from tests import nets
from tests.training import small

pytestmark = [pytest.mark.xdist_group("validation"), pytest.mark.usefixtures("rows")]
PREPROCESS = nets.TINY.preprocess


@pytest.fixture(scope="module")
def data(colours: DatasetIndex) -> DatasetIndex:
    """All images are val: 60 of them, in batches of 7."""
    return replace(colours, samples=tuple(replace(s, split="val") for s in colours.samples))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images were decoded at a time."""
    counts: list[int] = []
    real = images.load_batches

    def counting(paths: list[Path], *more: Any) -> Iterator[np.ndarray]:
        for pixels in real(paths, *more):
            counts.append(len(pixels))
            yield pixels

    monkeypatch.setattr(validation, "load_batches", counting)
    return counts


def learner_of(**changes: Any) -> Learner:
    torch.manual_seed(0)
    return Learner(build.build("tiny", 3), PREPROCESS, small.options(batch_size=7, **changes), small.ALONE)


def val_of(data: DatasetIndex, team: Team = small.ALONE) -> Validation:
    return Validation(data, PREPROCESS, small.options(batch_size=7), team)


def test_the_figures_are_those_of_all_images_at_once(data: DatasetIndex) -> None:
    learner = learner_of()
    found = val_of(data).measure(learner)
    pixels = load_pixels([data.root / s.path for s in data.samples], PREPROCESS)
    labels = torch.tensor([s.label for s in data.samples])
    with torch.inference_mode():
        logits = learner.model.eval()(normalize(torch.from_numpy(pixels), PREPROCESS))
    assert found.loss == pytest.approx(functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert found.top1 == pytest.approx(100 * (logits.argmax(1) == labels).float().mean().item())
    assert found.macro_f1 == pytest.approx(100 * macro_f1(logits.argmax(1), labels))


def test_the_loss_is_plain_cross_entropy_whatever_is_trained_with(data: DatasetIndex) -> None:
    plain = val_of(data).measure(learner_of())
    assert val_of(data).measure(learner_of(label_smoothing=0.9, imbalance="focal")) == plain


def test_the_average_is_measured_where_it_is_kept(data: DatasetIndex) -> None:
    learner = learner_of(ema=0.9)
    before = val_of(data).measure(learner)
    with torch.no_grad():
        learner.model.get_parameter("5.bias").add_(torch.tensor([100.0, 0, 0]))
    assert val_of(data).measure(learner) == before


def test_each_image_is_decoded_once_for_all_epochs(data: DatasetIndex, decoded: list[int]) -> None:
    val, learner = val_of(data), learner_of()
    first = val.measure(learner)
    assert decoded == [7] * 8 + [4]
    assert val.measure(learner) == first
    assert sum(decoded) == 60


def test_a_split_too_large_to_keep_is_streamed_with_the_same_result(
    data: DatasetIndex, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = learner_of()
    kept = val_of(data).measure(learner)
    monkeypatch.setattr(validation, "KEEP", 0)
    val = val_of(data)
    assert val.measure(learner) == kept
    assert val.measure(learner) == kept
    assert sum(decoded) == 60 * 3
    assert val._kept is None


@pytest.mark.parametrize(("spare", "kept"), [(0, True), (-1, False)])
def test_the_limit_is_in_bytes_of_pixels(
    data: DatasetIndex, monkeypatch: pytest.MonkeyPatch, spare: int, kept: bool
) -> None:
    monkeypatch.setattr(validation, "KEEP", 60 * 3 * 32 * 32 + spare)
    val = val_of(data)
    val.measure(learner_of())
    assert (val._kept is not None) is kept


@pytest.mark.parametrize("size", [2, 3])
def test_processes_share_the_images_and_all_get_the_whole_result(
    data: DatasetIndex, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, shares = learner_of(), []
    teams = [Team(rank, size, small.ALONE.device) for rank in range(size)]
    for team in teams:
        val = val_of(data, team)
        shares.append(torch.cat([learner.logits(inputs) for inputs in val._inputs()]))
        assert 60 // size <= len(val.own) <= 60 // size + 1
    assert sum(map(len, shares)) == 60

    def gathered(parts: list[torch.Tensor], own: torch.Tensor) -> None:
        for part, share in zip(parts, shares):
            part[: len(share)] = share

    monkeypatch.setattr(torch.distributed, "all_gather", gathered)
    whole = val_of(data).measure(learner)
    found = val_of(data, teams[1]).measure(learner)
    assert (found.loss, found.top1) == pytest.approx((whole.loss, whole.top1), rel=1e-5)


def test_kept_features_give_the_same_figures(data: DatasetIndex, cache: Path) -> None:
    learner = learner_of(strategy="head", weights=None)
    pixels = replace(learner.options, cache_features=False)
    expected = val_of(data).measure(Learner(learner.model, PREPROCESS, pixels, small.ALONE))
    val = val_of(data)
    source = backbone(learner.model, "tiny", PREPROCESS)
    val.features = extract(source, data.root, data.samples, [View(0)], lambda *_: None)
    found = val.measure(learner)
    assert (found.loss, found.top1, found.macro_f1) == pytest.approx(
        (expected.loss, expected.top1, expected.macro_f1), rel=1e-5
    )


@pytest.mark.parametrize("seed", range(5))
def test_macro_f1_is_scikit_learns_over_the_classes_of_val(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 1, 2, 5], 60, p=[0.6, 0.3, 0.05, 0.05])
    answers = np.where(rng.random(60) < 0.5, labels, rng.integers(0, 7, 60))
    expected = metrics.f1_score(labels, answers, labels=np.unique(labels), average="macro", zero_division=0)
    assert macro_f1(torch.from_numpy(answers), torch.from_numpy(labels)) == pytest.approx(expected)


def test_macro_f1_of_perfect_and_of_constant_answers() -> None:
    labels = torch.tensor([0, 0, 0, 1])
    assert macro_f1(labels, labels) == 1
    assert macro_f1(torch.zeros(4, dtype=torch.int64), labels) == pytest.approx((6 / 7) / 2)
