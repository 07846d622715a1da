"""Rates over the steps and per stage; what is frozen does not move."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit.models import build, zoo
from edgekit.models.zoo import MODELS
from edgekit.records import DatasetIndex
from edgekit.training import learner
from edgekit.training.learner import Learner
from edgekit.training.loop import finetune
from edgekit.training.options import TrainOptions
from edgekit.training.validation import Measured, Validation
from tests.training import small
from tests.training.recorder import Recorder

pytestmark = [pytest.mark.xdist_group("schedule"), pytest.mark.usefixtures("rows")]
REAL = ("resnet18", "vit_b_16", "inception_v3", "mobilenet_v3_small", "efficientnet_lite0", "densenet121")
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)


def on_meta(arch: str) -> nn.Module:
    """The real network, without memory for its weights."""
    with torch.device("meta"):
        return build.build(arch, 3)


def test_the_rate_rises_linearly_then_falls_to_zero_along_a_cosine() -> None:
    options = small.options(warmup=0.1)
    rates = [learner.learning_rate_factor(options, step, 100) for step in range(101)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert rates[10] == pytest.approx(1)
    assert rates[55] == pytest.approx(0.5)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["constant", "plateau"])
def test_other_schedules_stay_at_the_peak_after_the_warm_up(name: str) -> None:
    options = small.options(schedule=name, warmup=0.25)
    assert [learner.learning_rate_factor(options, step, 8) for step in range(8)] == [0.5, *[1.0] * 7]


def test_without_warm_up_the_first_step_has_the_peak_rate() -> None:
    assert learner.learning_rate_factor(small.options(warmup=0.0), 0, 10) == 1
    assert learner.learning_rate_factor(small.options(warmup=0.01), 0, 10) == 1  # a warm-up of one step


def validating(monkeypatch: pytest.MonkeyPatch, top1: list[float]) -> None:
    """Let validation find these accuracies, epoch after epoch."""
    answers = iter(top1)
    monkeypatch.setattr(Validation, "measure", lambda *_: Measured(1.0, next(answers), 50.0))


def test_on_a_plateau_the_rate_is_cut_after_three_epochs_without_a_better_one(
    colours: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validating(monkeypatch, [50, 60, 60, 60, 60, 60, 60, 60, 61, 61])
    recorder = Recorder()
    options = small.options(epochs=10, schedule="plateau", warmup=0.0, lr=1e-3)
    finetune(colours, options, tmp_path, recorder, small.ALONE)
    # Epochs 3, 4 and 5 brought nothing: cut. 6, 7 and 8 neither: cut again.
    assert [stats.lr / 1e-3 for stats in recorder.epochs] == pytest.approx([1] * 5 + [0.3] * 3 + [0.09] * 2)


def test_what_keeps_getting_better_is_not_cut(
    colours: DatasetIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validating(monkeypatch, [50.0 + n for n in range(8)])
    recorder = Recorder()
    finetune(colours, small.options(epochs=8, schedule="plateau", warmup=0.0), tmp_path, recorder, small.ALONE)
    assert {stats.lr for stats in recorder.epochs} == {0.03}


@pytest.mark.parametrize("arch", REAL)
@pytest.mark.parametrize("strategy", ["full", "partial", "head"])
def test_each_trainable_parameter_is_in_one_group_and_no_frozen_one_is(arch: str, strategy: str) -> None:
    options, model = TrainOptions(arch, strategy), on_meta(arch)
    stages, last = build.stage_of(model, arch), len(MODELS[arch].stages)
    grouped = [id(p) for group in learner.parameter_groups(model, options) for p in group["params"]]
    open_ = {id(p) for name, p in model.named_parameters() if stages.get(name, last) >= options.frozen}
    head = {id(p) for p in build.head_of(model, arch).parameters()}
    wanted = head if options.caches else open_  # on features an auxiliary head sees nothing
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == wanted
    learner.freeze(model, options, options.frozen)
    assert {id(p) for p in model.parameters() if p.requires_grad} == open_
    assert head <= wanted


@pytest.mark.parametrize("arch", REAL)
def test_biases_and_norms_have_no_weight_decay(arch: str) -> None:
    model = on_meta(arch)
    groups = learner.parameter_groups(model, TrainOptions(arch, "full", weight_decay=0.3))
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    plain = {id(p) for m in model.modules() if isinstance(m, NORMS) for p in m.parameters(recurse=False)}
    plain |= {id(p) for name, p in model.named_parameters() if name.endswith("bias")}
    places = ("class_token", "pos_embedding", "position_bias_table")
    plain |= {id(p) for name, p in model.named_parameters() if name.endswith(places)}
    assert {decay[key] for key in plain} == {0.0}
    assert {decay[id(p)] for p in model.parameters() if id(p) not in plain} == {0.3}


@pytest.mark.parametrize("arch", REAL)
def test_each_stage_learns_at_layer_decay_times_the_next_ones_rate(arch: str) -> None:
    model = on_meta(arch)
    groups = learner.parameter_groups(model, TrainOptions(arch, "full", lr=1.0, layer_decay=0.5))
    peak = {id(p): group["peak"] for group in groups for p in group["params"]}
    last = len(MODELS[arch].stages)
    assert {peak[id(p)] for p in build.head_of(model, arch).parameters()} == {1.0}
    stages = build.stage_of(model, arch)
    for name, parameter in model.named_parameters():
        if name in stages:
            assert peak[id(parameter)] == pytest.approx(0.5 ** (last - stages[name]))
    assert set(stages.values()) == set(range(last))


def test_frozen_stages_are_absent_also_when_others_are_unfrozen_later() -> None:
    options = TrainOptions("resnet18", "partial", frozen_stages=1, unfreeze_every=1, lr=1.0, layer_decay=0.1)
    model = on_meta("resnet18")
    peaks = {group["peak"] for group in learner.parameter_groups(model, options)}
    assert sorted(peaks) == pytest.approx([1e-3, 1e-2, 1e-1, 1.0])
    grouped = {id(p) for group in learner.parameter_groups(model, options) for p in group["params"]}
    assert not grouped & {id(p) for module in build.stage_modules(model, "resnet18")[0] for p in module.parameters()}


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_the_optimizer_is_the_one_that_was_asked_for(name: str, kind: type[torch.optim.Optimizer]) -> None:
    options = small.options(optimizer=name)
    made = learner.make_optimizer(learner.parameter_groups(build.build("tiny", 3), options), options)
    assert type(made) is kind
    assert {group["lr"] for group in made.param_groups} == {0.0}
    if name == "sgd":
        assert {(group["momentum"], group["nesterov"]) for group in made.param_groups} == {(0.9, True)}


@pytest.mark.parametrize("arch", MODELS)
def test_a_frozen_backbone_has_nothing_left_in_training_mode_that_keeps_statistics(arch: str) -> None:
    """Of every network; an auxiliary head is trained with the head."""
    model, aux = on_meta(arch), MODELS[arch].aux or "none"
    learner.training_mode(model, TrainOptions(arch, "head"), len(MODELS[arch].stages))
    batch_norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert not [name for name, module in batch_norms.items() if module.training and not name.startswith(aux)]
    assert model.training


def step(options: TrainOptions, epoch: int = 1) -> set[str]:
    """Take one step in an epoch; gives the names of the tensors that moved."""
    torch.manual_seed(0)
    learner = Learner(build.build(options.arch, 3), zoo.preprocess_for(options.arch, 32), options, small.ALONE)
    before = {k: v.clone() for k, v in learner.model.state_dict().items()}
    learner.begin(epoch)
    pixels = torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8)
    learner.step(pixels, torch.arange(8) % 3, 8, 1.0)
    return {k for k, v in learner.model.state_dict().items() if not torch.equal(v, before[k])}


STATISTICS = {f"{norm}.{name}" for norm in (1, 4) for name in ("running_mean", "running_var", "num_batches_tracked")}
FIRST = {"0.weight", "1.weight", "1.bias", *(s for s in STATISTICS if s.startswith("1."))}


def everything() -> set[str]:
    return set(build.build("staged", 3).state_dict())


def test_in_full_training_everything_moves() -> None:
    assert step(small.options("staged")) == everything()


def test_a_frozen_stage_moves_nothing_not_even_its_statistics() -> None:
    options = small.options("staged", strategy="partial", weights=None, frozen_stages=1)
    assert step(options) == everything() - FIRST


def test_freeze_bn_keeps_all_statistics_but_trains_the_rest() -> None:
    assert step(small.options("staged", freeze_bn=True)) == everything() - STATISTICS


@pytest.mark.parametrize(("epoch", "stages"), [(1, 2), (2, 2), (3, 1), (4, 1), (5, 0)])
def test_unfreezing_moves_one_stage_more_after_every_so_many_epochs(epoch: int, stages: int) -> None:
    moved = step(small.options("staged", unfreeze_every=2), epoch)
    head = {"9.weight", "9.bias"}
    assert moved == {2: head, 1: everything() - FIRST, 0: everything()}[stages]
