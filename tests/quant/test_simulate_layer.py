"""What follows one tensor: the same scores as the whole network's, also where it works in place."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.convert.fold import fold
from edgekit.quant.naming import tensor_names
from edgekit.quant.simulate import Suffix
from tests.nets import random_images


class InPlace(nn.Module):
    """A shortcut around the tensors, and activations and a sum that overwrite what they read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)
        self.wide, self.wide_act = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.stem(x))
        x += self.wide_act(self.wide(x))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("tensor", ["image", "act", "wide", "wide_act", "mean"])
@torch.no_grad()
def test_the_scores_follow_as_often_as_asked(tensor: str) -> None:
    torch.manual_seed(0)
    folded, images = fold(InPlace().eval()), random_images(3, 8)
    assert tensor in tensor_names(folded.graph).values()
    behind = Suffix(folded, tensor, images)
    exact = behind.scores(behind.value)
    assert torch.equal(exact, folded(images))
    assert not torch.equal(behind.scores(behind.value * 2 + 1), exact)
    assert torch.equal(behind.scores(behind.value), exact)
