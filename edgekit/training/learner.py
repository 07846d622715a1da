"""The network in training: its loss, learning rates, optimizer, moving average, and one step."""

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
AUX_WEIGHT = 0.4  # of the auxiliary head's loss (Szegedy et al. 2015, arXiv:1512.00567; also torchvision)
# Ratio of the largest to the smallest class from which ``--imbalance auto`` uses class weights. At a ratio of 7
# neither weights nor focal loss raised macro F1 (benchmarks/results/strategies.json).
BALANCED = 10.0
# --schedule plateau: factor of the learning rate, and epochs without improvement before it is applied.
PLATEAU_FACTOR, PLATEAU_PATIENCE = 0.3, 3
MOMENTUM = 0.9
# Parameters without weight decay besides biases and norms: class token and positions, as in torchvision's recipes.
# Networks of timm name theirs.
_NOT_DECAYED = ("class_token", "pos_embedding", "position_bias_table")


class Learner:
    """A network in training.

    Attributes:
        model: the whole network. learned: the module in training, `model` or (on cached features) its head.
        kept: the module that is evaluated and saved, `learned` or its moving average.
        averaged: number of updates of the moving average.
        checks_before_update: whether a step looks at its losses before it moves the weights.
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
        """Freeze the stages that are frozen in `epoch`, and switch the others to training mode."""
        frozen = self.options.frozen_in(epoch)
        if self.options.caches:
            self.learned.train()
        else:
            freeze(self.model, self.options, frozen)
            training_mode(self.model, self.options, frozen)
        self._called = self.team.wrap(self.learned)

    def leave_team(self) -> None:
        """Train without the other processes from now on; they may have ended."""
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
        # DDP divides gradients by the number of processes; the factor makes them those of the mean over the batch.
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
        """Return the loss of each image, float32 (n,), with its graph; inputs are pixels or features."""
        inputs, target = self._feed(inputs), labels.to(self.team.device, non_blocking=True)
        if self.mixer is not None:
            inputs, target = self.mixer(inputs, target)
        with autocast(self.options, self.team.device):
            output = self._called(inputs)
            if isinstance(output, tuple):
                logits, *others = output
                aux = sum(self.criterion(other, target) for other in others)
                return self.criterion(logits, target) + AUX_WEIGHT * aux
            return self.criterion(output, target)

    def _feed(self, inputs: torch.Tensor) -> torch.Tensor:
        """Move inputs to the device, and normalize them if they are pixels."""
        inputs = inputs.to(self.team.device, non_blocking=True)
        if inputs.dtype != torch.uint8:
            return inputs
        images = build.normalize(inputs, self.preprocess)
        return images if self.options.channels_last else images.contiguous()

    @torch.inference_mode()
    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits of the kept weights, float32 (N, C) on the CPU; inputs as for `step`."""
        self.kept.eval()
        return self.kept(self._feed(inputs)).float().cpu()

    @torch.no_grad()
    def _average(self) -> None:
        """Update the exponential moving average of weights and buffers.

        Polyak & Juditsky 1992. The decay rises as (1 + t) / (10 + t), as in TensorFlow.
        """
        self.averaged += 1
        decay = min(self.options.ema, (1 + self.averaged) / (10 + self.averaged))
        for average, new in zip(self.kept.state_dict().values(), self.learned.state_dict().values()):
            if average.is_floating_point():
                average.lerp_(new, 1 - decay)
            else:
                average.copy_(new)

    def whole(self) -> nn.Module:
        """Return the whole network with the kept weights."""
        if not self.options.caches:
            return self.kept
        assert isinstance(self.kept, nn.Sequential)
        self.model.set_submodule(zoo.row(self.options.arch).head, self.kept[1])
        return self.model

    def state(self) -> dict[str, Any]:
        """Return everything that changes during training, as plain values and tensors."""
        return {
            "learned": self.learned.state_dict(),
            "kept": self.kept.state_dict() if self.options.ema else None,
            "averaged": self.averaged,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the result of `state`."""
        self.learned.load_state_dict(state["learned"])
        if self.options.ema:
            self.kept.load_state_dict(state["kept"])
        self.averaged = state["averaged"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])


@dataclass(frozen=True)
class Criterion:
    """Loss per image: cross-entropy, with class `weights` (C,) if given, focal if `gamma` is greater than 0."""

    label_smoothing: float = 0.0
    weights: torch.Tensor | None = None
    gamma: float = 0.0

    def __call__(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return losses, float32 (N,).

        Focal loss (Lin et al. 2017, arXiv:1708.02002, section 3.2) multiplies the cross-entropy by
        (1 - p)^gamma, where p is the probability of the label.

        Args:
            logits: (N, C). target: labels, int64 (N,), or probabilities (N, C) of mixed images.
        """
        logits = logits.float()
        loss = nn.functional.cross_entropy(logits, target, label_smoothing=self.label_smoothing, reduction="none")
        if self.weights is not None:
            # Not with cross_entropy's `weight`: it also weights the smoothed probability of all other classes,
            # which pulls images of common classes towards rare ones.
            loss = loss * (self.weights[target] if target.ndim == 1 else target @ self.weights)
        if self.gamma:
            probability = logits.softmax(1).gather(1, target[:, None]).squeeze(1)
            loss = loss * (1 - probability).clamp(min=1e-6) ** self.gamma  # the gradient at 0 may be infinite
        return loss


def criterion(options: TrainOptions, labels: np.ndarray, classes: int, device: torch.device) -> Criterion:
    """Return the loss for `options`; class weights are computed from the `labels` of the train split."""
    weights = None
    if options.imbalance == "weights":
        weights = class_weights(np.bincount(labels, minlength=classes)).to(device)
    gamma = options.focal_gamma if options.imbalance == "focal" else 0.0
    return Criterion(options.label_smoothing, weights, gamma)


def class_weights(counts: Sequence[int] | np.ndarray) -> torch.Tensor:
    """Return inverse class frequencies, float32 (C,), scaled to a mean of 1 over all images."""
    counts = np.asarray(counts, np.float64)
    present = np.maximum(counts, 1)
    weights = counts.sum() / (np.count_nonzero(counts) * present)
    return torch.from_numpy(weights).float()


def decide_imbalance(counts: Sequence[int]) -> tuple[str, str]:
    """Return the value that ``--imbalance auto`` stands for, and the reason in words.

    Args:
        counts: training images per class.
    """
    ratio = max(counts) / max(1, min(counts))
    reason = f"the largest class has {ratio:.1f} times the images of the smallest ({max(counts)} and {min(counts)})"
    return ("weights" if ratio >= BALANCED else "none"), reason


def learning_rate_factor(options: TrainOptions, step: int, steps: int) -> float:
    """Return the fraction of the peak learning rate at `step` (counted from 0) of `steps`.

    Linear warm-up, then the schedule. Cosine decays to zero (Loshchilov & Hutter 2017,
    arXiv:1608.03983). For a plateau the training loop multiplies by `PLATEAU_FACTOR`.
    """
    warmup = max(1, round(steps * options.warmup)) if options.warmup else 0
    if step < warmup:
        return (step + 1) / warmup
    if options.schedule != "cosine":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def parameter_groups(model: nn.Module, options: TrainOptions) -> list[dict[str, Any]]:
    """Return the optimizer's parameter groups, one per stage and weight decay.

    The head has the peak learning rate, each stage before it `layer_decay` times that of the next one.
    Only matrices and kernels have weight decay. Stages that stay frozen are left out, those that are
    unfrozen later are included. On cached features only the head is trained.
    """
    stages = build.stage_of(model, options.arch)
    last = len(zoo.row(options.arch).stages)
    aux = zoo.row(options.arch).aux_heads
    not_decayed = (*_NOT_DECAYED, *getattr(model, "no_weight_decay", tuple)())
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        stage = stages.get(name, last)
        if stage >= options.frozen and not (options.caches and name.startswith(aux)):
            groups.setdefault((stage, parameter.ndim > 1 and not name.endswith(not_decayed)), []).append(parameter)
    return [
        {
            "params": parameters,
            "peak": options.peak_lr * options.layer_decay ** (last - stage),
            "weight_decay": options.weight_decay if decays else 0.0,
        }
        for (stage, decays), parameters in sorted(groups.items())
    ]


def make_optimizer(groups: list[dict[str, Any]], options: TrainOptions) -> torch.optim.Optimizer:
    """Return AdamW, or SGD with Nesterov momentum; `Learner.step` sets the learning rates."""
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, lr=0.0)


def freeze(model: nn.Module, options: TrainOptions, stages: int) -> None:
    """Freeze the first `stages` stages of the backbone, and unfreeze all other parameters."""
    stage_of = build.stage_of(model, options.arch)
    last = len(zoo.row(options.arch).stages)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stage_of.get(name, last) >= stages)


def training_mode(model: nn.Module, options: TrainOptions, stages: int) -> None:
    """Set training mode, but evaluation mode for frozen stages, so that their batch-norm statistics stay.

    With `freeze_bn` all batch norms keep their statistics.
    """
    model.train()
    for modules in build.stage_modules(model, options.arch)[:stages]:
        for module in modules:
            module.eval()
    if options.freeze_bn:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def autocast(options: TrainOptions, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return the autocast context for ``amp``; on cached features training is always float32."""
    if options.amp not in DTYPES or options.caches:
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[options.amp])


def head_on_features(model: nn.Module, arch: str) -> nn.Sequential:
    """Return the head, preceded by the dropout that the network applies right before it."""
    return nn.Sequential(nn.Dropout(_dropout_before(model, arch)), build.head_of(model, arch))


def _dropout_before(model: nn.Module, arch: str) -> float:
    parent, _, name = zoo.row(arch).head.rpartition(".")
    siblings = dict(model.get_submodule(parent).named_children())
    before = list(siblings)[: list(siblings).index(name)]
    last = siblings[before[-1]] if before else None
    return last.p if isinstance(last, nn.Dropout) else 0.0


def set_dropout(model: nn.Module, options: TrainOptions) -> None:
    """Set the rate of the dropout inside and right before the head to ``dropout``."""
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
    last = [m for m in build.head_of(model, arch).modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    return len(last.get_parameter("weight"))


def _mixer(options: TrainOptions, classes: int) -> Any:
    """Return mixup (Zhang et al. 2018, arXiv:1710.09412), cutmix (Yun et al. 2019, arXiv:1905.04899), or both."""
    if options.mix == "none":
        return None
    from torchvision.transforms import v2

    mixup, cutmix = v2.MixUp(alpha=options.mix_alpha, num_classes=classes), v2.CutMix(alpha=1.0, num_classes=classes)
    return {"mixup": mixup, "cutmix": cutmix, "both": v2.RandomChoice([mixup, cutmix])}[options.mix]
