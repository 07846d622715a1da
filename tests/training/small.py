"""Small networks of several kinds as rows of `MODELS`, and options for them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from edgekit.models.zoo import ModelRow
from edgekit.records import Preprocess
from edgekit.training import loop
from edgekit.training.distributed import Team
from edgekit.training.learner import Learner
from edgekit.training.options import TrainOptions
from tests import nets

ALONE = Team(0, 1, torch.device("cpu"))


def staged(num_classes: int) -> nn.Module:
    """Two stages with a batch norm each, and dropout before the head."""
    first = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    second = [nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(
        *first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, num_classes)
    )


STAGED = ModelRow("tests.training.small:staged", "none", "9", Preprocess(32, 36), ("0-1", "3-4"))
ROWS = {"tiny": nets.TINY, "staged": STAGED}


def options(arch: str = "tiny", **changes: Any) -> TrainOptions:
    """Options that decide nothing by themselves: full training of a small network, from scratch."""
    plain = {"strategy": "full", "epochs": 3, "batch_size": 8, "lr": 0.03, "weights": "none", "flip": False}
    fixed = {"imbalance": "none", "amp": "off", "augment": "none"}
    return TrainOptions(arch, **{**plain, **fixed, **changes})


def read_later(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """Train as on a GPU: weights move at once, losses are read after `every` steps."""

    def learner(*arguments: Any) -> Learner:
        made = Learner(*arguments)
        made.checks_before_update = False
        return made

    monkeypatch.setattr(loop, "Learner", learner)
    monkeypatch.setattr(loop, "READ_EVERY", every)
