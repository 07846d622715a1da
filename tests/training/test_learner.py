"""One step, by hand and by `Learner`; what is averaged, kept, put together, saved."""

from __future__ import annotations

import copy
import io
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from edgekit.models import build, zoo
from edgekit.models.build import normalize
from edgekit.training.distributed import Team
from edgekit.training.learner import AUX_WEIGHT, Learner, head_on_features, set_dropout
from edgekit.training.options import TrainOptions
from tests.training import small

pytestmark = [pytest.mark.xdist_group("learner"), pytest.mark.usefixtures("rows")]
LABELS = torch.arange(8) % 3


def learner_of(options: TrainOptions, seed: int = 0, size: int = 32) -> Learner:
    torch.manual_seed(seed)
    model = build.build(options.arch, 3, size, options.hidden)
    made = Learner(model, zoo.preprocess_for(options.arch, size), options, small.ALONE)
    made.begin(1)
    return made


def pixels_of(count: int = 8, size: int = 32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def by_hand(model: nn.Module, options: TrainOptions, make: Any, steps: int = 2) -> nn.Module:
    """Plain PyTorch, as its tutorials write it."""
    norms = [p for p in model.parameters() if p.ndim == 1]
    others = [p for p in model.parameters() if p.ndim > 1]
    groups = [{"params": norms, "weight_decay": 0.0}, {"params": others, "weight_decay": options.weight_decay}]
    optimizer = make(groups)
    preprocess = zoo.preprocess_for(options.arch, 32)
    for number in range(steps):
        images = pixels_of(seed=number).permute(0, 3, 1, 2).float() / 255
        images = (images - torch.tensor(preprocess.mean)[:, None, None]) / torch.tensor(preprocess.std)[:, None, None]
        loss = functional.cross_entropy(model(images), LABELS, label_smoothing=options.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_step_is_that_of_plain_pytorch_on_the_mean_loss(name: str) -> None:
    options = small.options(optimizer=name, lr=0.02, weight_decay=0.1, label_smoothing=0.1)
    learner = learner_of(options)
    model = copy.deepcopy(learner.model)

    def make(groups: Any) -> torch.optim.Optimizer:
        if name == "sgd":
            return torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True)
        return torch.optim.AdamW(groups, lr=0.01)

    expected = weights_of(by_hand(model, options, make))
    for number in range(2):
        losses = learner.step(pixels_of(seed=number), LABELS, 8, 0.5)
        assert losses.shape == (8,)
    found = weights_of(learner.model)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-6)


def test_the_losses_of_a_share_count_as_part_of_the_whole_batch() -> None:
    """With SGD half the batch of 8 moves the weights half as far as the same images alone."""
    moved = []
    for whole in (4, 8):
        learner = learner_of(small.options(optimizer="sgd", weight_decay=0.0))
        before = learner.model.get_parameter("5.weight").detach().clone()
        learner.step(pixels_of(4), LABELS[:4], whole, 1.0)
        moved.append(learner.model.get_parameter("5.weight").detach() - before)
    torch.testing.assert_close(moved[1] * 2, moved[0])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_moves_no_weight(value: float) -> None:
    learner = learner_of(small.options(ema=0.9, clip=1.0))
    poison = torch.tensor([0.0, 0, 0, value, 0, 0, 0, 0])
    learner.criterion = lambda logits, target: logits.sum(1) + poison  # type: ignore[assignment]
    before = {k: v.detach().clone() for k, v in learner.model.named_parameters()}
    kept = {k: v.detach().clone() for k, v in learner.kept.named_parameters()}
    losses = learner.step(pixels_of(), LABELS, 8, 1.0)
    assert torch.isfinite(losses).tolist() == [True, True, True, False, True, True, True, True]
    assert all(torch.equal(v, before[k]) for k, v in learner.model.named_parameters())
    assert all(torch.equal(v, kept[k]) for k, v in learner.kept.named_parameters())
    assert (learner.averaged, len(learner.optimizer.state)) == (0, 0)


class Reading(TorchDispatchMode):
    """Counts how often Python reads a value of a tensor, which on a GPU waits for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("changes", [{}, {"clip": 1.0, "ema": 0.9}], ids=str)
def test_a_step_reads_no_value_where_the_update_does_not_wait_for_the_losses(changes: dict[str, Any]) -> None:
    learner = learner_of(small.options(optimizer="sgd", **changes))
    learner.checks_before_update = False  # as on a GPU
    learner.begin(1)
    with Reading() as reading:
        learner.step(pixels_of(), LABELS, 8, 1.0)
    assert reading.count == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
@pytest.mark.parametrize("changes", [{}, {"clip": 1.0, "ema": 0.9}, {"mix": "mixup"}, {"amp": "bf16"}], ids=str)
def test_a_step_on_a_gpu_does_not_wait_for_it(changes: dict[str, Any]) -> None:
    device = torch.device("cuda", 0)
    learner = Learner(
        build.build("tiny", 3).to(device), zoo.preprocess_for("tiny", 32), small.options(**changes), Team(0, 1, device)
    )
    learner.begin(1)
    pixels, labels = pixels_of().pin_memory(), LABELS.pin_memory()
    learner.step(pixels, labels, 8, 1.0)  # copies constants to the device
    torch.cuda.set_sync_debug_mode("error")
    try:
        learner.step(pixels, labels, 8, 1.0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_average_is_the_one_computed_by_hand_ramp_and_statistics_included() -> None:
    learner = learner_of(small.options(ema=0.25))
    expected = {k: v.double() for k, v in weights_of(learner.model).items()}
    for number in range(4):
        learner.step(pixels_of(seed=number), LABELS, 8, 1.0)
        decay = min(0.25, (2 + number) / (11 + number))  # 2/11, 3/12, then the limit
        new = weights_of(learner.model)
        expected = {
            k: v * decay + new[k].double() * (1 - decay) if new[k].is_floating_point() else new[k].double()
            for k, v in expected.items()
        }
    found = weights_of(learner.kept)
    for key, value in expected.items():
        torch.testing.assert_close(found[key].double(), value, rtol=1e-5, atol=1e-6)
    assert not torch.equal(found["5.weight"], learner.model.get_parameter("5.weight"))
    assert learner.whole() is learner.kept


def test_without_an_average_the_learned_weights_are_kept() -> None:
    learner = learner_of(small.options())
    assert learner.kept is learner.model
    assert learner.whole() is learner.model


@pytest.mark.parametrize("changes", [{}, {"hidden": 8}, {"ema": 0.9}, {"dropout": 0.5}], ids=str)
def test_a_head_trained_on_features_is_put_back_into_the_network(changes: dict[str, Any]) -> None:
    options = small.options("staged", strategy="head", weights=None, **changes)
    learner = learner_of(options)
    backbone = {k: v for k, v in weights_of(learner.model).items() if not k.startswith("9.")}
    taken: list[torch.Tensor] = []
    hook = learner.model.get_submodule("9").register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    with torch.inference_mode():
        learner.model.eval()(normalize(pixels_of(), learner.preprocess))
    hook.remove()
    features = taken[0].clone()
    before = learner.logits(features)
    for _ in range(3):
        learner.step(features, LABELS, 8, 1.0)
    after = learner.logits(features)
    assert not torch.allclose(before, after)
    whole = learner.whole().eval()
    with torch.inference_mode():
        torch.testing.assert_close(whole(normalize(pixels_of(), learner.preprocess)), after, rtol=1e-4, atol=1e-5)
    found = weights_of(whole)
    assert all(torch.equal(found[k], v) for k, v in backbone.items())


def test_the_head_on_features_has_the_dropout_that_stood_before_it() -> None:
    options = small.options("staged", strategy="head", weights=None)
    model = build.build("staged", 3)
    assert head_on_features(model, "staged")[0].p == pytest.approx(0.2)
    set_dropout(model, replace(options, dropout=0.7))
    assert head_on_features(model, "staged")[0].p == pytest.approx(0.7)
    assert head_on_features(build.build("tiny", 3), "tiny")[0].p == 0


def test_a_hidden_head_is_two_layers_with_relu_and_dropout() -> None:
    learner = learner_of(small.options("staged", hidden=5, dropout=0.6))
    head = build.head_of(learner.model, "staged")
    assert [type(m) for m in head.children()] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]
    assert [(m.in_features, m.out_features) for m in head if isinstance(m, nn.Linear)] == [(16, 5), (5, 3)]
    assert [m.p for m in learner.model.modules() if isinstance(m, nn.Dropout)] == [0.6, 0.6]
    assert learner.step(pixels_of(), LABELS, 8, 1.0).isfinite().all()


@pytest.mark.parametrize("arch", ["resnet18", "vit_b_16", "vgg16", "mobilenet_v3_small", "inception_v3", "swin_t"])
def test_dropout_is_set_before_the_head_alone(arch: str) -> None:
    with torch.device("meta"):
        model = build.build(arch, 3)
    before = {name: m.p for name, m in model.named_modules() if isinstance(m, nn.Dropout)}
    set_dropout(model, TrainOptions(arch, "full"))
    assert {name: m.p for name, m in model.named_modules() if isinstance(m, nn.Dropout)} == before
    set_dropout(model, TrainOptions(arch, "full", dropout=0.61))
    changed = [n for n, m in model.named_modules() if isinstance(m, nn.Dropout) and m.p == 0.61]
    expected = {"vgg16": ["classifier.5"], "mobilenet_v3_small": ["classifier.2"], "inception_v3": ["dropout"]}
    assert changed == expected.get(arch, [])


def test_inception_adds_four_tenths_of_its_auxiliary_loss() -> None:
    options = TrainOptions("inception_v3", "full", weights="none", amp="off", imbalance="none", label_smoothing=0.0)
    learner = learner_of(options, size=75)
    outputs: list[Any] = []
    hook = learner.model.register_forward_hook(lambda _, inputs, output: outputs.append(output))
    found = learner.losses(pixels_of(2, 75), LABELS[:2])
    hook.remove()
    logits, aux = outputs[0]
    expected = functional.cross_entropy(logits, LABELS[:2], reduction="none") + 0.4 * functional.cross_entropy(
        aux, LABELS[:2], reduction="none"
    )
    assert AUX_WEIGHT == 0.4
    torch.testing.assert_close(found, expected)
    assert learner.logits(pixels_of(2, 75)).shape == (2, 3)  # evaluated without it


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "both"])
def test_mixing_gives_the_labels_as_probabilities(mix: str) -> None:
    learner = learner_of(small.options(mix=mix, mix_alpha=1.0))
    seen: list[torch.Tensor] = []
    real = learner.criterion
    learner.criterion = lambda logits, target: seen.append(target) or real(logits, target)  # type: ignore[assignment,func-returns-value]
    for number in range(4):
        torch.manual_seed(number)
        assert learner.step(pixels_of(), LABELS, 8, 1.0).isfinite().all()
    for target in seen:
        assert target.shape == (8, 3)
        torch.testing.assert_close(target.sum(1), torch.ones(8))
    assert any(((target > 0.01) & (target < 0.99)).any() for target in seen)


def test_evaluation_mixes_nothing() -> None:
    plain, mixed = learner_of(small.options()), learner_of(small.options(mix="both"))
    torch.testing.assert_close(mixed.logits(pixels_of()), plain.logits(pixels_of()))


def test_clipping_bounds_how_far_a_step_goes() -> None:
    def distance(clip: float) -> float:
        learner = learner_of(small.options(optimizer="sgd", lr=0.1, weight_decay=0.0, clip=clip))
        before = {k: v.detach().clone() for k, v in learner.model.named_parameters()}
        learner.step(pixels_of(), LABELS, 8, 1.0)
        return math.sqrt(sum((v.detach() - before[k]).pow(2).sum() for k, v in learner.model.named_parameters()))

    # The first step of Nesterov's momentum is (1 + 0.9) times the gradient.
    assert distance(1e-3) == pytest.approx(0.1 * 1.9e-3, rel=1e-2)
    assert distance(0.0) > 0.01
    assert distance(1e6) == pytest.approx(distance(0.0))


@pytest.mark.parametrize("changes", [{}, {"ema": 0.9}, {"optimizer": "sgd"}, {"hidden": 4}], ids=str)
def test_a_state_on_disk_continues_as_if_nothing_had_happened(changes: dict[str, Any]) -> None:
    options = small.options(**changes)
    first = learner_of(options)
    for number in range(2):
        first.step(pixels_of(seed=number), LABELS, 8, 1.0)
    buffer = io.BytesIO()
    torch.save(first.state(), buffer)
    buffer.seek(0)
    second = learner_of(options, seed=1)
    second.load_state(torch.load(buffer, weights_only=True))
    results = []
    for learner in (first, second):
        torch.manual_seed(5)
        losses = learner.step(pixels_of(seed=9), LABELS, 8, 0.5)
        results.append((losses, weights_of(learner.learned), weights_of(learner.kept)))
    (a, learned_a, kept_a), (b, learned_b, kept_b) = results
    assert torch.equal(a, b)
    assert all(torch.equal(learned_a[k], learned_b[k]) for k in learned_a)
    assert all(torch.equal(kept_a[k], kept_b[k]) for k in kept_a)


def test_bf16_runs_with_float32_weights_and_losses() -> None:
    plain, half = learner_of(small.options()), learner_of(small.options(amp="bf16"))
    for number in range(3):
        expected, found = (x.step(pixels_of(seed=number), LABELS, 8, 1.0) for x in (plain, half))
        assert found.dtype == torch.float32
        assert found.isfinite().all()
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}
    assert not torch.equal(half.logits(pixels_of()), plain.logits(pixels_of()))
    assert half.logits(pixels_of()).dtype == torch.float32


@pytest.mark.parametrize("channels_last", [True, False])
def test_images_lie_in_memory_as_the_options_say(channels_last: bool) -> None:
    learner = learner_of(small.options(channels_last=channels_last))
    images = learner._feed(pixels_of())
    assert images.is_contiguous(memory_format=torch.channels_last) is channels_last
    assert images.is_contiguous() is not channels_last


def test_the_rate_of_a_step_is_a_share_of_each_stages_peak() -> None:
    learner = learner_of(small.options("staged", lr=0.2, layer_decay=0.5))
    learner.step(pixels_of(), LABELS, 8, 0.1)
    assert sorted({group["lr"] for group in learner.optimizer.param_groups}) == pytest.approx([0.005, 0.01, 0.02])


def test_normalize_is_the_devices_own() -> None:
    from edgekit.ondevice.preprocess import prepare

    preprocess = zoo.preprocess_for("efficientnet_lite0", 32)
    ours = normalize(pixels_of(2), preprocess).numpy()
    job = {"mean": preprocess.mean, "std": preprocess.std, "layout": "NCHW"}
    theirs = prepare(pixels_of(2)[1].numpy(), job)
    assert ours[1:] == pytest.approx(theirs, abs=1e-5)
