"""Inception v3 (Szegedy et al. 2015, arXiv:1512.00567) that trains at any size its features take."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torchvision.models import Inception3
from torchvision.models import inception as parts

_POOLED = 5  # the side that the auxiliary head's 5x5 convolution sees


class Aux(parts.InceptionAux):  # type: ignore[misc]
    """torchvision's auxiliary head, which needs 17x17 features (299 px), for smaller ones too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features (N, 768, H, W) to logits; 17x17 is pooled as in the paper."""
        if min(x.shape[-2:]) < 17:
            # Not above: there it would pool other places than the pretrained weights were trained with.
            x = functional.adaptive_avg_pool2d(x, _POOLED)
        else:
            x = functional.avg_pool2d(x, kernel_size=5, stride=3)
        x = functional.adaptive_avg_pool2d(self.conv1(self.conv0(x)), 1)
        return self.fc(torch.flatten(x, 1))


def inception_v3(num_classes: int = 1000) -> nn.Module:
    """Inception v3 with its auxiliary head: float32 (N, 3, H, W), sides from 75 px, to logits.

    In train mode it answers a named tuple (logits, aux_logits), both (N, num_classes).
    """
    blocks = [parts.BasicConv2d, parts.InceptionA, parts.InceptionB, parts.InceptionC, parts.InceptionD]
    return Inception3(num_classes, inception_blocks=[*blocks, parts.InceptionE, Aux], init_weights=False)
