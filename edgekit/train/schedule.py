"""How fast each part learns: a rate per stage, and its course over the steps, as functions of the step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from edgekit.train import models
from edgekit.train.options import TrainOptions

# reduce-on-plateau: how often a rate is cut, and after how many epochs without a better one.
PLATEAU_FACTOR, PLATEAU_PATIENCE = 0.3, 3
MOMENTUM = 0.9
# Besides biases and norms: what tells a transformer where things are (torchvision's recipes too).
_NOT_DECAYED = ("class_token", "pos_embedding", "position_bias_table")


def factor(options: TrainOptions, step: int, steps: int) -> float:
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
    stages = models.stage_of(model, options.arch)
    last = len(models.row(options.arch).stages)
    aux = models.row(options.arch).aux
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
    stage_of = models.stage_of(model, options.arch)
    last = len(models.row(options.arch).stages)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stage_of.get(name, last) >= stages)


def training_mode(model: nn.Module, options: TrainOptions, stages: int) -> None:
    """Training mode, but evaluation mode for frozen stages: their batch-norm statistics stay.

    With `freeze_bn` every batch norm of the backbone keeps its statistics.
    """
    model.train()
    for modules in models.stage_modules(model, options.arch)[:stages]:
        for module in modules:
            module.eval()
    if options.freeze_bn:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
