"""What learns: the network, its optimizer, their average; one step, and all of its state."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekit.models import build, zoo
from edgekit.records import Preprocess
from edgekit.training.distributed import Team
from edgekit.training.options import TrainOptions

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
AUX_WEIGHT = 0.4  # of an auxiliary head's loss (Szegedy et al. 2015, arXiv:1512.00567; torchvision's reference too)


class Learner:
    """A network in training.

    Attributes:
        model: the whole network. learned: what is trained, `model` or (on cached features) its head.
        kept: what is evaluated and saved: `learned`, or its running average.
    """

    def __init__(self, model: nn.Module, preprocess: Preprocess, options: TrainOptions, team: Team) -> None:
        self.model = model
        self.preprocess = preprocess
        self.options = options
        self.team = team
        self.criterion = Criterion(options.label_smoothing)
        set_dropout(model, options)
        self.learned: nn.Module = head_on_features(model, options.arch) if options.caches else model
        self.kept = copy.deepcopy(self.learned) if options.ema else self.learned
        self.averaged = 0
        self.optimizer = make_optimizer(parameter_groups(model, options), options)
        self.scaler = torch.amp.GradScaler(team.device.type, enabled=options.amp == "fp16")
        self.mixer = _mixer(options, _classes(model, options.arch))
        # Reading a loss from a GPU before the update would stall the device in every step.
        self.checks_before_update = team.device.type == "cpu"
        self._called: Any = self.learned

    def begin(self, epoch: int) -> None:
        """Freeze what `epoch` freezes, and switch to training."""
        frozen = self.options.frozen_in(epoch)
        if self.options.caches:
            self.learned.train()
        else:
            freeze(self.model, self.options, frozen)
            training_mode(self.model, self.options, frozen)
        self._called = self.team.wrap(self.learned)

    def leave_team(self) -> None:
        """Train alone from now on: the others may be gone."""
        self._called = self.learned

    def step(self, inputs: torch.Tensor, labels: torch.Tensor, whole: int, rate: float) -> torch.Tensor:
        """Update the weights with this process's share of a batch of `whole` images.

        If a loss is not finite in any process, the weights stay as they are on the CPU. On a GPU
        they are updated nevertheless; the caller has to read the losses before it uses the weights.

        Args:
            rate: fraction of the peak learning rate.
        Returns:
            The loss of each image, float32 (n,), detached, on the training device.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        losses = self.losses(inputs, labels)
        values = losses.detach()
        if self.checks_before_update and self.team.sum(not torch.isfinite(values).all()):
            return values
        self.optimizer.zero_grad(set_to_none=True)
        # DDP divides by the number of processes: so it is the mean over the whole batch.
        self.scaler.scale(losses.sum() * (self.team.size / whole)).backward()
        if self.options.clip:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.learned.parameters(), self.options.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.options.ema:
            self._average()
        return values

    def losses(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of each image, float32 (n,), with its graph; inputs are pixels or features."""
        inputs, target = self._feed(inputs), labels.to(self.team.device, non_blocking=True)
        if self.mixer is not None:
            inputs, target = self.mixer(inputs, target)
        with autocast(self.options, self.team.device):
            output = self._called(inputs)
            if isinstance(output, tuple):
                return self.criterion(output[0], target) + AUX_WEIGHT * self.criterion(output[1], target)
            return self.criterion(output, target)

    def _feed(self, inputs: torch.Tensor) -> torch.Tensor:
        """Features as they are, pixels normalized, on the device."""
        inputs = inputs.to(self.team.device, non_blocking=True)
        if inputs.dtype != torch.uint8:
            return inputs
        images = build.normalize(inputs, self.preprocess)
        return images if self.options.channels_last else images.contiguous()

    @torch.inference_mode()
    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logits, float32 (N, C) on the CPU, of the kept weights in float32; inputs as for `step`."""
        self.kept.eval()
        return self.kept(self._feed(inputs)).float().cpu()

    @torch.no_grad()
    def _average(self) -> None:
        """Exponential moving average of weights and buffers, young ones faster.

        Polyak & Juditsky 1992; the ramp (1 + t) / (10 + t) is TensorFlow's.
        """
        self.averaged += 1
        decay = min(self.options.ema, (1 + self.averaged) / (10 + self.averaged))
        for mine, new in zip(self.kept.state_dict().values(), self.learned.state_dict().values()):
            if mine.is_floating_point():
                mine.lerp_(new, 1 - decay)
            else:
                mine.copy_(new)

    def whole(self) -> nn.Module:
        """The whole network with the kept weights."""
        if not self.options.caches:
            return self.kept
        assert isinstance(self.kept, nn.Sequential)
        self.model.set_submodule(zoo.row(self.options.arch).head, self.kept[1])
        return self.model

    def state(self) -> dict[str, Any]:
        """Everything that changes, as plain values and tensors."""
        return {
            "learned": self.learned.state_dict(),
            "kept": self.kept.state_dict() if self.options.ema else None,
            "averaged": self.averaged,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        self.learned.load_state_dict(state["learned"])
        if self.options.ema:
            self.kept.load_state_dict(state["kept"])
        self.averaged = state["averaged"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])


def autocast(options: TrainOptions, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Half precision where the options say so."""
    if options.amp not in DTYPES or options.caches:
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[options.amp])


def head_on_features(model: nn.Module, arch: str) -> nn.Sequential:
    """The head, and the dropout that the network applies right before it."""
    return nn.Sequential(nn.Dropout(_dropout_before(model, arch)), build.head_of(model, arch))


def _dropout_before(model: nn.Module, arch: str) -> float:
    parent, _, name = zoo.row(arch).head.rpartition(".")
    siblings = dict(model.get_submodule(parent).named_children())
    before = list(siblings)[: list(siblings).index(name)]
    last = siblings[before[-1]] if before else None
    return last.p if isinstance(last, nn.Dropout) else 0.0


def set_dropout(model: nn.Module, options: TrainOptions) -> None:
    """Give the dropout of and right before the head the rate that was asked for."""
    if options.dropout is None:
        return
    head = zoo.row(options.arch).head
    parent, _, name = head.rpartition(".")
    siblings = list(model.get_submodule(parent).named_children())
    index = [n for n, _ in siblings].index(name)
    before = [siblings[index - 1][1]] if index else []
    for module in (*before, *build.head_of(model, options.arch).modules()):
        if isinstance(module, nn.Dropout):
            module.p = options.dropout


def _classes(model: nn.Module, arch: str) -> int:
    return [m for m in build.head_of(model, arch).modules() if isinstance(m, nn.Linear)][-1].out_features


def _mixer(options: TrainOptions, classes: int) -> Any:
    """mixup (Zhang et al. 2018, arXiv:1710.09412), cutmix (Yun et al. 2019, arXiv:1905.04899), or either."""
    if options.mix == "none":
        return None
    from torchvision.transforms import v2

    mixup, cutmix = v2.MixUp(alpha=options.mix_alpha, num_classes=classes), v2.CutMix(alpha=1.0, num_classes=classes)
    return {"mixup": mixup, "cutmix": cutmix, "both": v2.RandomChoice([mixup, cutmix])}[options.mix]


# What is minimized: cross-entropy, weighted or focal; and what is done for rare classes.

# Below this ratio of the largest to the smallest class nothing is done: on a data set with a ratio of 7
# neither weights nor focal raised macro F1 (benchmarks/results/strategies.json).
BALANCED = 10.0


@dataclass(frozen=True)
class Criterion:
    """A loss per image. `weights` (C,) or None; `gamma` above 0 makes it focal."""

    label_smoothing: float = 0.0
    weights: torch.Tensor | None = None
    gamma: float = 0.0

    def __call__(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """float32 (N,) of logits (N, C) and labels: int64 (N,), or probabilities (N, C) of mixed images.

        Focal loss (Lin et al. 2017, arXiv:1708.02002, section 3.2) multiplies the cross-entropy by
        (1 - p)^gamma, p being the probability of the label.
        """
        logits = logits.float()
        loss = nn.functional.cross_entropy(logits, target, label_smoothing=self.label_smoothing, reduction="none")
        if self.weights is not None:
            # Of the image's own label: torch's `weight` would also weigh the smoothed share of every other
            # class, and rare classes would then pull common images over.
            loss = loss * (self.weights[target] if target.ndim == 1 else target @ self.weights)
        if self.gamma:
            right = logits.softmax(1).gather(1, target[:, None]).squeeze(1)
            loss = loss * (1 - right).clamp(min=1e-6) ** self.gamma  # at 0 its gradient would be infinite
        return loss


def criterion(options: TrainOptions, labels: np.ndarray, classes: int, device: torch.device) -> Criterion:
    """The loss that `options` ask for; class weights come from the train split's `labels`."""
    weights = None
    if options.imbalance == "weights":
        weights = class_weights(np.bincount(labels, minlength=classes)).to(device)
    gamma = options.focal_gamma if options.imbalance == "focal" else 0.0
    return Criterion(options.label_smoothing, weights, gamma)


def class_weights(counts: Sequence[int] | np.ndarray) -> torch.Tensor:
    """float32 (C,): one over each class's count, scaled so that the mean over all images is 1."""
    counts = np.asarray(counts, np.float64)
    present = np.maximum(counts, 1)
    weights = counts.sum() / (np.count_nonzero(counts) * present)
    return torch.from_numpy(weights).float()


def decide_imbalance(counts: Sequence[int]) -> tuple[str, str]:
    """What ``--imbalance auto`` does, and why: weights from a ratio of `BALANCED` on.

    Args:
        counts: training images per class.
    """
    ratio = max(counts) / max(1, min(counts))
    said = f"the largest class has {ratio:.1f} times the images of the smallest ({max(counts)} and {min(counts)})"
    return ("weights" if ratio >= BALANCED else "none"), said


# How fast each part learns: a rate per stage, and its course over the steps, as functions of the step.

# reduce-on-plateau: how often a rate is cut, and after how many epochs without a better one.
PLATEAU_FACTOR, PLATEAU_PATIENCE = 0.3, 3
MOMENTUM = 0.9
# Besides biases and norms: what tells a transformer where things are (torchvision's recipes too).
_NOT_DECAYED = ("class_token", "pos_embedding", "position_bias_table")


def learning_rate_factor(options: TrainOptions, step: int, steps: int) -> float:
    """The share of the peak rate at `step` (from 0) of `steps`: linear warm-up, then the schedule.

    Cosine goes to zero (Loshchilov & Hutter 2017, arXiv:1608.03983). On a plateau the loop
    multiplies by `PLATEAU_FACTOR` itself.
    """
    warmup = max(1, round(steps * options.warmup)) if options.warmup else 0
    if step < warmup:
        return (step + 1) / warmup
    if options.schedule != "cosine":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def parameter_groups(model: nn.Module, options: TrainOptions) -> list[dict[str, Any]]:
    """Groups by stage: the head at the peak rate, each stage before it at `layer_decay` of the next.

    Weight decay is for matrices and kernels only: not for biases and norms. Frozen stages are left
    out; those that are unfrozen later are in. On cached features there is nothing but the head.
    """
    stages = build.stage_of(model, options.arch)
    last = len(zoo.row(options.arch).stages)
    aux = zoo.row(options.arch).aux
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        stage = stages.get(name, last)
        if stage >= options.frozen and not (options.caches and aux and name.startswith(f"{aux}.")):
            groups.setdefault((stage, parameter.ndim > 1 and not name.endswith(_NOT_DECAYED)), []).append(parameter)
    return [
        {
            "params": parameters,
            "peak": options.peak_lr * options.layer_decay ** (last - stage),
            "weight_decay": options.weight_decay if decays else 0.0,
        }
        for (stage, decays), parameters in sorted(groups.items())
    ]


def make_optimizer(groups: list[dict[str, Any]], options: TrainOptions) -> torch.optim.Optimizer:
    """AdamW, or SGD with Nesterov momentum; the rate is set before every step."""
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, lr=0.0)


def freeze(model: nn.Module, options: TrainOptions, stages: int) -> None:
    """Make the first `stages` stages of the backbone untrainable, and the rest trainable."""
    stage_of = build.stage_of(model, options.arch)
    last = len(zoo.row(options.arch).stages)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stage_of.get(name, last) >= stages)


def training_mode(model: nn.Module, options: TrainOptions, stages: int) -> None:
    """Training mode, but evaluation mode for frozen stages: their batch-norm statistics stay.

    With `freeze_bn` every batch norm of the backbone keeps its statistics.
    """
    model.train()
    for modules in build.stage_modules(model, options.arch)[:stages]:
        for module in modules:
            module.eval()
    if options.freeze_bn:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
