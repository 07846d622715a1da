"""Options of a training: limits, clashes, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from edgekit.data.layout import LAYOUTS
from edgekit.errors import EdgekitError, UsageError
from edgekit.models.zoo import MODELS
from edgekit.records import RESIZES, Preprocess
from edgekit.training.options import (
    AMPS,
    AUGMENTS,
    DEVICES,
    IMBALANCES,
    MIXES,
    MONITORS,
    OPTIMIZERS,
    PANELS,
    SCHEDULES,
    STRATEGIES,
    TrainOptions,
)

PLAIN = TrainOptions("resnet18")
NAN = float("nan")
LIMITS: list[tuple[str, Any]] = [
    *[("epochs", v) for v in (0, -1)],
    *[("batch_size", v) for v in (1, 0, -8)],
    *[("lr", v) for v in (0.0, -0.1, 10.0, NAN)],
    *[("weight_decay", v) for v in (-0.1, 1.0, NAN)],
    *[("warmup", v) for v in (-0.1, 1.0, NAN)],
    *[("layer_decay", v) for v in (0.0, 1.1, NAN)],
    *[("clip", v) for v in (-1.0, NAN)],
    *[("unfreeze_every", v) for v in (-1,)],
    *[("hidden", v) for v in (-1, 16385)],
    *[("dropout", v) for v in (-0.1, 1.0, NAN)],
    *[("views", v) for v in (0, 101)],
    *[("mix_alpha", v) for v in (0.0, 10.1, NAN)],
    *[("label_smoothing", v) for v in (-0.1, 1.0, NAN)],
    *[("focal_gamma", v) for v in (-0.1, 10.1, NAN)],
    *[("ema", v) for v in (-0.1, 1.0, NAN)],
    *[("patience", v) for v in (-1,)],
    *[("workers", v) for v in (-1,)],
    *[("seed", v) for v in (-1, 2**31)],
]
EDGES: list[dict[str, Any]] = [
    {"epochs": 1},
    {"batch_size": 2},
    {"lr": 9.99},
    {"weight_decay": 0.0},
    {"warmup": 0.0},
    {"layer_decay": 1.0},
    {"hidden": 16384},
    {"dropout": 0.0},
    {"views": 100},
    {"mix_alpha": 10.0},
    {"label_smoothing": 0.0},
    {"focal_gamma": 0.0},
    {"ema": 0.9999},
    {"seed": 2**31 - 1},
    {"strategy": "partial", "frozen_stages": 1},
    {"strategy": "partial", "frozen_stages": 3},
]
CHOICES = {
    "strategy": STRATEGIES,
    "augment": AUGMENTS,
    "mix": MIXES,
    "resize": RESIZES,
    "layout": LAYOUTS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "imbalance": IMBALANCES,
    "monitor": MONITORS,
    "amp": AMPS,
    "device": DEVICES,
}
CLASHES: dict[str, dict[str, Any]] = {
    "--strategy scratch starts from random weights": {"strategy": "scratch", "weights": "pretrained"},
    "--strategy head keeps some": {"strategy": "head", "weights": "none"},
    "--strategy partial keeps some": {"strategy": "partial", "weights": "none"},
    "--frozen-stages requires": {"strategy": "full", "frozen_stages": 2},
    "--unfreeze-every requires --strategy full or partial, not head": {"strategy": "head", "unfreeze_every": 1},
    "--unfreeze-every requires --strategy full or partial, not scratch": {"strategy": "scratch", "unfreeze_every": 1},
    "--unfreeze-every requires --strategy full or partial, not auto": {"strategy": "auto", "unfreeze_every": 1},
    "--mix mixup mixes pixels": {"strategy": "head", "mix": "mixup"},
    "--imbalance focal needs one label per image": {"imbalance": "focal", "mix": "cutmix"},
}


@pytest.mark.parametrize("arch", MODELS)
def test_the_defaults_are_valid_for_every_model(arch: str) -> None:
    options = TrainOptions(arch)
    assert options.start == "pretrained"
    assert 0 < options.peak_lr < 10


def test_an_unknown_model_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(UsageError, match="resnet81") as caught:
        TrainOptions("resnet81")
    assert "resnet18" in caught.value.hint


def refused(make: Callable[[], TrainOptions]) -> EdgekitError:
    with pytest.raises(UsageError) as caught:
        make()
    return caught.value


@pytest.mark.parametrize(("name", "value"), LIMITS)
def test_a_number_outside_its_limits_is_refused_with_a_hint(name: str, value: Any) -> None:
    assert refused(lambda: replace(PLAIN, **{name: value})).hint == "edgekit train --help"


@pytest.mark.parametrize("changes", EDGES, ids=str)
def test_the_limits_themselves_are_allowed(changes: dict[str, Any]) -> None:
    assert replace(PLAIN, **changes)


def test_every_number_has_a_limit_that_is_tested() -> None:
    texts = {"background", "pixel_range", "split", "group_by", "columns", "weights"}
    free = {"arch", "image_size", *texts, *CHOICES}  # models.preprocess_for
    numbers = {f.name for f in fields(TrainOptions) if f.name not in free and not isinstance(f.default, bool)}
    assert numbers == {name for name, _ in LIMITS} | {"frozen_stages"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"background": "grey"}, "'grey' is no background colour"),
        ({"background": "#fff"}, "'#fff' is no background colour"),
        ({"pixel_range": "4095"}, "'4095' is no pixel range"),
        ({"pixel_range": "a:b"}, "'a:b' is no pixel range"),
        ({"pixel_range": "9:9"}, "pixel range 9:9 must go from a low to a higher number"),
        ({"pixel_range": "0:inf"}, "pixel range 0:inf must go from a low to a higher number"),
    ],
)
def test_preprocessing_that_cannot_be_is_refused_before_images_are_read(change: dict[str, Any], message: str) -> None:
    assert refused(lambda: replace(PLAIN, **change)).message == message


def test_the_preprocessing_is_the_models_with_what_was_chosen() -> None:
    chosen = replace(PLAIN, image_size=64, resize="letterbox", background="Black", pixel_range="-10:4095")
    assert chosen.preprocess == Preprocess(
        64, 64, resize="letterbox", background="#000000", pixel_range=(-10.0, 4095.0)
    )
    assert PLAIN.preprocess == Preprocess(224, 256)


def test_saved_states_of_earlier_versions_still_belong_to_the_same_options() -> None:
    assert PLAIN.identity == repr(PLAIN)
    assert "background" not in PLAIN.identity
    assert replace(PLAIN, resize="squash").identity != PLAIN.identity


@pytest.mark.parametrize("stages", [0, -1, 4, 5])
def test_frozen_stages_must_leave_one_and_the_message_says_how_many_there_are(stages: int) -> None:
    error = refused(lambda: replace(PLAIN, strategy="partial", frozen_stages=stages))
    assert error.message == "resnet18 has 4 stages: --frozen-stages must be between 1 and 3"


@pytest.mark.parametrize("name", CHOICES)
def test_an_unknown_choice_is_refused_and_the_known_ones_are_listed(name: str) -> None:
    error = refused(lambda: replace(PLAIN, **{name: "wrong"}))
    assert "'wrong'" in error.message
    assert all(choice in error.hint for choice in CHOICES[name])


def test_every_choice_is_taken_from_its_list() -> None:
    assert {f.name: f.metadata["known"] for f in fields(TrainOptions) if f.metadata.get("known")} == CHOICES


def test_every_option_has_a_help_text_and_is_listed_under_a_known_heading() -> None:
    options = [f for f in fields(TrainOptions) if f.name != "arch"]
    assert all(f.metadata["help"] for f in options)
    assert {f.metadata["panel"] for f in options} == set(PANELS)


@pytest.mark.parametrize(("message", "changes"), CLASHES.items())
def test_options_that_exclude_each_other_are_refused_with_a_way_out(message: str, changes: dict[str, Any]) -> None:
    error = refused(lambda: replace(PLAIN, **changes))
    assert message in error.message
    assert error.hint != "edgekit train --help"
    assert "--" in error.hint


@pytest.mark.parametrize(
    "changes",
    [
        {"strategy": "scratch", "weights": "none"},
        {"strategy": "full", "weights": "none"},
        {"strategy": "head", "mix": "mixup", "cache_features": False},
        {"strategy": "partial", "unfreeze_every": 2},
        {"imbalance": "weights", "mix": "both"},
    ],
    ids=str,
)
def test_what_the_hints_of_clashes_propose_is_allowed(changes: dict[str, Any]) -> None:
    assert replace(PLAIN, **changes)


def test_a_weights_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EdgekitError, match=r"missing\.pt") as caught:
        replace(PLAIN, weights=str(tmp_path / "missing.pt"))
    assert "--weights" in caught.value.hint


@pytest.mark.parametrize(
    ("strategy", "optimizer", "rate"),
    [
        ("head", "adamw", 3e-3),
        ("partial", "adamw", 1e-3),
        ("full", "adamw", 1e-3),
        ("scratch", "adamw", 2e-3),
        ("head", "sgd", 3e-2),
        ("partial", "sgd", 1e-2),
        ("full", "sgd", 1e-2),
        ("scratch", "sgd", 2e-2),
    ],
)
def test_the_peak_rate_follows_strategy_and_optimizer(strategy: str, optimizer: str, rate: float) -> None:
    options = replace(PLAIN, strategy=strategy, optimizer=optimizer)
    assert options.peak_lr == pytest.approx(rate)
    assert replace(options, lr=0.5).peak_lr == 0.5


@pytest.mark.parametrize(
    ("changes", "frozen"),
    [
        ({"strategy": "head"}, 4),
        ({"strategy": "partial"}, 2),
        ({"strategy": "partial", "frozen_stages": 3}, 3),
        ({"strategy": "full"}, 0),
        ({"strategy": "scratch"}, 0),
    ],
)
def test_how_many_stages_stay_frozen(changes: dict[str, Any], frozen: int) -> None:
    options = replace(PLAIN, **changes)
    assert options.frozen == frozen
    assert [options.frozen_in(epoch) for epoch in (1, 2, 10)] == [frozen] * 3


@pytest.mark.parametrize(
    ("changes", "frozen"),
    [
        ({"strategy": "full", "unfreeze_every": 1}, [4, 3, 2, 1, 0, 0, 0]),
        ({"strategy": "full", "unfreeze_every": 2}, [4, 4, 3, 3, 2, 2, 1]),
        ({"strategy": "partial", "unfreeze_every": 1}, [4, 3, 2, 2, 2, 2, 2]),
        ({"strategy": "partial", "frozen_stages": 3, "unfreeze_every": 3}, [4, 4, 4, 3, 3, 3, 3]),
    ],
)
def test_unfreezing_opens_one_stage_after_another_down_to_the_frozen_ones(
    changes: dict[str, Any], frozen: list[int]
) -> None:
    options = replace(PLAIN, **changes)
    assert [options.frozen_in(epoch) for epoch in range(1, 8)] == frozen


def test_training_starts_from_imagenet_unless_it_is_from_scratch_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(b"")
    assert PLAIN.start == "pretrained"
    assert replace(PLAIN, strategy="scratch").start == "none"
    assert replace(PLAIN, weights="none").start == "none"
    assert replace(PLAIN, weights=str(file)).start == str(file)


@pytest.mark.parametrize(
    ("changes", "caches"),
    [
        ({"strategy": "head"}, True),
        ({"strategy": "head", "cache_features": False}, False),
        ({"strategy": "full"}, False),
    ],
)
def test_features_are_kept_for_the_head_alone(changes: dict[str, Any], caches: bool) -> None:
    assert replace(PLAIN, **changes).caches is caches
