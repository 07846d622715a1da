"""Training of classifiers that the table of networks does not list: a step, with frozen stages, head first."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.models import build, zoo
from edgekit.training.distributed import Team
from edgekit.training.learner import Learner
from edgekit.training.options import TrainOptions

# One of each kind of head, stages, auxiliary heads and initial values.
TORCHVISION = [
    *("shufflenet_v2_x1_0", "squeezenet1_1", "regnet_y_400mf", "googlenet", "alexnet"),
]
TIMM = [
    *("mobilenetv4_conv_small", "repvgg_a0", "convnext_atto", "mobilevit_xxs", "levit_128s"),
    *("swin_tiny_patch4_window7_224", "deit_tiny_distilled_patch16_224"),
]
QUICK = {"shufflenet_v2_x1_0", "squeezenet1_1", "googlenet", "timm/mobilenetv4_conv_small", "timm/levit_128s"}
each = pytest.mark.parametrize(
    "arch",
    [
        pytest.param(arch, marks=[] if arch in QUICK else pytest.mark.slow)
        for arch in (*TORCHVISION, *(f"timm/{name}" for name in TIMM))
    ],
)


def smallest(arch: str) -> int:
    accepts = zoo.row(arch).accepts
    assert accepts
    return next(size for size in (64, 70, 96, 112, 128, zoo.row(arch).preprocess.image_size) if accepts(size))


@each
def test_steps_move_the_last_stages_and_the_head_and_nothing_else(arch: str) -> None:
    size, frozen = smallest(arch), len(zoo.row(arch).stages) // 2
    options = TrainOptions(arch, "partial", image_size=size, augment="none", device="cpu", amp="off", lr=0.01)
    assert options.frozen == frozen >= 1
    torch.manual_seed(0)
    model = build.build(arch, 3, size)
    learner = Learner(model, options.preprocess, options, Team(0, 1, torch.device("cpu")))
    learner.begin(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pixels = torch.randint(0, 256, (4, size, size, 3), dtype=torch.uint8)
    for _ in range(3):  # what ends in zeros gets no gradient at first
        losses = learner.step(pixels, torch.tensor([0, 1, 2, 0]), 4, 1.0)
    assert losses.shape == (4,)
    assert losses.isfinite().all()
    after, stages = model.state_dict(), build.stage_of(model, arch)
    parameters = dict(model.named_parameters())
    moved = {name for name in parameters if not torch.equal(before[name], after[name])}
    assert not {name for name in moved if stages.get(name, frozen) < frozen}
    weight = f"{zoo.row(arch).head}.weight"
    assert weight in moved
    trained = {name for name in parameters if stages.get(name, frozen) >= frozen}
    assert len(moved) > 0.9 * len(trained)
    still = build.stage_modules(model, arch)[:frozen]
    kept = {id(b) for stage in still for module in stage for b in module.buffers()}
    names = {name for name, value in model.named_buffers() if id(value) in kept}
    assert all(torch.equal(before[name], after[name]) for name in names if name in before)
    assert learner.logits(pixels).shape == (4, 3)


@pytest.mark.parametrize("arch", ["squeezenet1_1", "timm/levit_128s"])
def test_features_are_not_cached_in_front_of_an_unusual_head(arch: str) -> None:
    options = TrainOptions(arch, "head", image_size=smallest(arch))
    assert not options.caches
    assert TrainOptions("timm/mobilenetv4_conv_small", "head").caches


def test_what_timm_leaves_without_weight_decay_has_none() -> None:
    arch = "timm/deit_tiny_patch16_224"
    options = TrainOptions(arch, "full", image_size=32, weights="none", device="cpu", amp="off")
    model = build.build(arch, 3, 32)
    learner = Learner(model, options.preprocess, options, Team(0, 1, torch.device("cpu")))
    plain = [p for group in learner.optimizer.param_groups if not group["weight_decay"] for p in group["params"]]
    assert any(p is model.pos_embed for p in plain)
    assert any(p is model.cls_token for p in plain)
    assert isinstance(model.head, nn.Linear)
    assert not any(p is model.head.weight for p in plain)
