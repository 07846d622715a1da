"""Everything that decides the weights, besides the data. The command line is made from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from edgekit.errors import UsageError, unknown
from edgekit.models import build, zoo

STRATEGIES = ("auto", "head", "partial", "full", "scratch")
AUGMENTS = ("none", "light", "randaugment")
MIXES = ("none", "mixup", "cutmix", "both")
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "plateau", "constant")
IMBALANCES = ("auto", "none", "weights", "focal", "sampling")
MONITORS = ("top1", "macro_f1", "loss")
AMPS = ("auto", "off", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda")
# Peak rates by what is trained; SGD with momentum wants about ten times AdamW's.
_LR = {"head": 3e-3, "partial": 1e-3, "full": 1e-3, "scratch": 2e-3, "auto": 1e-3}


def _option(default: Any, text: str, known: tuple[str, ...] = ()) -> Any:
    """A field that is an option of ``edgekit train``: `text` is its help, `known` its choices."""
    return field(default=default, metadata={"help": text, "known": known})


@dataclass(frozen=True)
class TrainOptions:
    """One training. Rates per image and step; fractions of 1; sizes in pixels."""

    arch: str
    strategy: str = _option("auto", "What is trained", STRATEGIES)
    epochs: int = _option(10, "Passes over the training images.")
    batch_size: int = _option(32, "Images per step, over all processes.")
    image_size: int | None = _option(None, "Input side in pixels. Default: the model's own.")
    weights: str | None = _option(None, "The start: pretrained (ImageNet), none, or a file. Default: pretrained.")
    optimizer: str = _option("adamw", "How weights move", OPTIMIZERS)
    lr: float | None = _option(None, "Peak learning rate. Default: by strategy and optimizer.")
    weight_decay: float = _option(0.01, "Of matrices and kernels; never of biases and norms.")
    schedule: str = _option("cosine", "What the rate does after the warm-up", SCHEDULES)
    warmup: float = _option(0.1, "Fraction of all steps with a linearly rising rate.")
    layer_decay: float = _option(1.0, "Each stage away from the head learns at this times its neighbour's rate.")
    clip: float = _option(0.0, "Largest norm of the gradient; 0: no limit.")
    frozen_stages: int | None = _option(None, "partial: how many stages stay frozen. Default: half of them.")
    unfreeze_every: int = _option(
        0, "Start with the head alone, add a stage after every so many epochs; 0: all at once."
    )
    freeze_bn: bool = _option(False, "Keep the batch-norm statistics of the start (small batches, several processes).")
    hidden: int = _option(0, "Width of a hidden layer (ReLU) in the head; 0: a plain linear head.")
    dropout: float | None = _option(None, "Dropout rate before and in the head. Default: the model's own.")
    cache_features: bool = _option(True, "head: run the backbone once per image and view, and keep what it gave.")
    views: int = _option(4, "head: augmented views of each image to keep.")
    augment: str = _option("light", "Random changes: light (crops, colour)", AUGMENTS)
    flip: bool = _option(True, "Mirror images at random. Default: yes, but not for digits.")
    mix: str = _option("none", "Blend images of a batch", MIXES)
    mix_alpha: float = _option(0.2, "mixup's Beta parameter (cutmix takes 1).")
    label_smoothing: float = _option(0.1, "How much of a label is spread over all classes.")
    imbalance: str = _option("auto", "What is done for rare classes", IMBALANCES)
    focal_gamma: float = _option(2.0, "focal: how much easy images are discounted.")
    ema: float = _option(0.0, "Decay of a running average of the weights, which is then kept (0.99-0.9999); 0: none.")
    monitor: str = _option("top1", "What the best epoch is best in, on val", MONITORS)
    patience: int = _option(0, "Stop after so many epochs without a better one; 0: never.")
    amp: str = _option("auto", "Arithmetic; auto measures once what is fastest here", AMPS)
    channels_last: bool = _option(True, "How images lie in memory; --amp auto also tries without.")
    seed: int = _option(0, "Fixes the start, the order and every random change.")
    workers: int | None = _option(None, "Processes that decode images. Default: none on a CPU, up to 8 for a GPU.")
    device: str = _option("auto", "Where; auto is CUDA where there is a GPU", DEVICES)

    def __post_init__(self) -> None:
        row = zoo.row(self.arch)
        for name, noun, known in (
            ("strategy", "strategy", STRATEGIES),
            ("augment", "augmentation", AUGMENTS),
            ("mix", "way to mix images", MIXES),
            ("optimizer", "optimizer", OPTIMIZERS),
            ("schedule", "schedule", SCHEDULES),
            ("imbalance", "way to treat imbalance", IMBALANCES),
            ("monitor", "measure", MONITORS),
            ("amp", "arithmetic", AMPS),
            ("device", "device", DEVICES),
        ):
            if getattr(self, name) not in known:
                raise unknown(noun, getattr(self, name), known)
        build.check_weights(self.start)
        for allowed, message in _limits(self, len(row.stages)):
            if not allowed:
                raise UsageError(message, "edgekit train --help")
        for clash, message, hint in _clashes(self):
            if clash:
                raise UsageError(message, hint)

    @property
    def start(self) -> str:
        """Which weights training starts from: ``pretrained``, ``none`` or a file."""
        return self.weights or ("none" if self.strategy == "scratch" else "pretrained")

    @property
    def peak_lr(self) -> float:
        """The learning rate that was asked for, or the strategy's."""
        return self.lr or _LR[self.strategy] * (10 if self.optimizer == "sgd" else 1)

    @property
    def caches(self) -> bool:
        """Whether the backbone's features are kept, so that epochs cost the head alone."""
        return self.strategy == "head" and self.cache_features

    @property
    def frozen(self) -> int:
        """How many stages of the backbone are never trained."""
        stages = len(zoo.row(self.arch).stages)
        if self.strategy == "head":
            return stages
        if self.strategy == "partial":
            return stages // 2 if self.frozen_stages is None else self.frozen_stages
        return 0

    def frozen_in(self, epoch: int) -> int:
        """How many stages are frozen in `epoch` (from 1): progressive unfreezing adds one at a time.

        Howard & Ruder 2018, arXiv:1801.06146, section 3.3.
        """
        if not self.unfreeze_every:
            return self.frozen
        opened = (epoch - 1) // self.unfreeze_every
        return max(self.frozen, len(zoo.row(self.arch).stages) - opened)


def _limits(o: TrainOptions, stages: int) -> list[tuple[bool, str]]:
    """(whether it holds, what must hold) for every number."""
    floats = {f.name: v for f in fields(o) if isinstance(v := getattr(o, f.name), float)}
    return [
        *(
            (math.isfinite(value), f"--{name.replace('_', '-')} must be a number, not {value}")
            for name, value in floats.items()
        ),
        (o.epochs >= 1, "epochs must be at least 1"),
        (o.batch_size >= 2, "the batch size must be at least 2: batch norm needs it"),
        (o.lr is None or 0 < o.lr < 10, "the learning rate must lie between 0 and 10"),
        (0 <= o.weight_decay < 1, "the weight decay must lie between 0 and 1"),
        (0 <= o.warmup < 1, "the warm-up is a fraction of all steps, below 1"),
        (0 < o.layer_decay <= 1, "the layer decay must be above 0 and at most 1"),
        (o.clip >= 0, "the gradient's norm cannot be below 0"),
        (
            o.frozen_stages is None or 0 < o.frozen_stages < stages,
            f"{o.arch} has {stages} stages: freeze 1 to {stages - 1}",
        ),
        (o.unfreeze_every >= 0, "--unfreeze-every counts epochs"),
        (0 <= o.hidden <= 16384, "the hidden layer's width must lie between 0 and 16384"),
        (o.dropout is None or 0 <= o.dropout < 1, "dropout must be at least 0 and below 1"),
        (1 <= o.views <= 100, "views must lie between 1 and 100"),
        (0 < o.mix_alpha <= 10, "mixup's alpha must lie between 0 and 10"),
        (0 <= o.label_smoothing < 1, "label smoothing must be at least 0 and below 1"),
        (0 <= o.focal_gamma <= 10, "focal's gamma must lie between 0 and 10"),
        (0 <= o.ema < 1, "the decay of the average must be at least 0 and below 1"),
        (o.patience >= 0, "--patience counts epochs"),
        (o.workers is None or o.workers >= 0, "--workers counts processes"),
        (0 <= o.seed < 2**31, "the seed must lie between 0 and 2147483647"),
    ]


def _clashes(o: TrainOptions) -> list[tuple[bool, str, str]]:
    """(whether it happens, what cannot be, what to type) for options that exclude each other."""
    return [
        (
            o.strategy == "scratch" and o.weights not in (None, "none"),
            f"scratch starts from random weights, not from {o.weights}",
            "--strategy full, or leave out --weights",
        ),
        (
            o.strategy in ("head", "partial") and o.weights == "none",
            f"--strategy {o.strategy} keeps weights of the start, and --weights none has none worth keeping",
            "--strategy scratch --weights none, or leave out --weights",
        ),
        (
            o.strategy != "partial" and o.frozen_stages is not None,
            "--frozen-stages belongs to --strategy partial",
            f"--strategy partial --frozen-stages {o.frozen_stages}",
        ),
        (
            o.unfreeze_every > 0 and o.strategy not in ("partial", "full"),
            f"--unfreeze-every needs stages to unfreeze, and --strategy {o.strategy} has none",
            f"--strategy full --unfreeze-every {o.unfreeze_every}",
        ),
        (
            o.caches and o.mix != "none",
            f"--mix {o.mix} blends pixels, and --strategy head keeps features",
            "add --no-cache-features, or leave out --mix",
        ),
        (
            o.caches and o.amp in ("bf16", "fp16"),
            f"--amp {o.amp} has nothing to do: on kept features the head alone is trained",
            "leave out --amp, or add --no-cache-features",
        ),
        (
            o.imbalance == "focal" and o.mix != "none",
            "focal loss needs to know how hard each image is; --mix makes blends of them",
            "--imbalance weights, or leave out --mix",
        ),
    ]
