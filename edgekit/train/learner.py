"""What learns: the network, its optimizer, their average; one step, and all of its state."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import torch
from torch import nn

from edgekit.records import Preprocess
from edgekit.train import models, schedule, zoo
from edgekit.train.distributed import Team
from edgekit.train.losses import Criterion
from edgekit.train.options import TrainOptions

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
        self.optimizer = schedule.make_optimizer(schedule.parameter_groups(model, options), options)
        self.scaler = torch.amp.GradScaler(team.device.type, enabled=options.amp == "fp16")
        self.mixer = _mixer(options, _classes(model, options.arch))
        self._called: Any = self.learned

    def begin(self, epoch: int) -> None:
        """Freeze what `epoch` freezes, and switch to training."""
        frozen = self.options.frozen_in(epoch)
        if self.options.caches:
            self.learned.train()
        else:
            schedule.freeze(self.model, self.options, frozen)
            schedule.training_mode(self.model, self.options, frozen)
        self._called = self.team.wrap(self.learned)

    def leave_team(self) -> None:
        """Train alone from now on: the others may be gone."""
        self._called = self.learned

    def step(self, inputs: torch.Tensor, labels: torch.Tensor, whole: int, rate: float) -> tuple[torch.Tensor, bool]:
        """One step on this process's share of a batch of `whole` images.

        Args:
            rate: the share of the peak learning rate.
        Returns:
            The losses, float32 (n,), and whether the weights moved: they stay, in every process,
            if a loss of the batch is not finite in any.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        losses = self.losses(inputs, labels)
        values = losses.detach().cpu()
        if self.team.sum(not torch.isfinite(values).all()):
            return values, False
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
        return values, True

    def losses(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of each image, float32 (n,), with its graph; inputs are pixels or features."""
        inputs, target = self._feed(inputs), labels.to(self.team.device)
        if self.mixer is not None:
            inputs, target = self.mixer(inputs, target)
        with autocast(self.options, self.team.device):
            output = self._called(inputs)
            if isinstance(output, tuple):
                return self.criterion(output[0], target) + AUX_WEIGHT * self.criterion(output[1], target)
            return self.criterion(output, target)

    def _feed(self, inputs: torch.Tensor) -> torch.Tensor:
        """Features as they are, pixels normalized, on the device."""
        inputs = inputs.to(self.team.device)
        if inputs.dtype != torch.uint8:
            return inputs
        images = normalize(inputs, self.preprocess)
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


def normalize(pixels: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """uint8 (N, H, W, 3) to normalized float32 (N, 3, H, W), channels_last in memory."""
    mean = torch.tensor(preprocess.mean, device=pixels.device) * 255
    scale = 1 / (torch.tensor(preprocess.std, device=pixels.device) * 255)
    return ((pixels.float() - mean) * scale).permute(0, 3, 1, 2)


def autocast(options: TrainOptions, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Half precision where the options say so."""
    if options.amp not in DTYPES or options.caches:
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[options.amp])


def head_on_features(model: nn.Module, arch: str) -> nn.Sequential:
    """The head, and the dropout that the network applies right before it."""
    return nn.Sequential(nn.Dropout(_dropout_before(model, arch)), models.head_of(model, arch))


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
    for module in (*before, *models.head_of(model, options.arch).modules()):
        if isinstance(module, nn.Dropout):
            module.p = options.dropout


def _classes(model: nn.Module, arch: str) -> int:
    return [m for m in models.head_of(model, arch).modules() if isinstance(m, nn.Linear)][-1].out_features


def _mixer(options: TrainOptions, classes: int) -> Any:
    """mixup (Zhang et al. 2018, arXiv:1710.09412), cutmix (Yun et al. 2019, arXiv:1905.04899), or either."""
    if options.mix == "none":
        return None
    from torchvision.transforms import v2

    mixup, cutmix = v2.MixUp(alpha=options.mix_alpha, num_classes=classes), v2.CutMix(alpha=1.0, num_classes=classes)
    return {"mixup": mixup, "cutmix": cutmix, "both": v2.RandomChoice([mixup, cutmix])}[options.mix]
