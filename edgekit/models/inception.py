"""Inception v3 (Szegedy et al. 2015, arXiv:1512.00567) that can be trained at other sizes than 299 px."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torchvision.models import Inception3
from torchvision.models import inception as parts

_POOLED = 5  # input size of the 5x5 convolution in the auxiliary head


class Aux(parts.InceptionAux):  # type: ignore[misc]
    """torchvision's auxiliary head, which needs 17x17 features (299 px), extended to smaller ones."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map features (N, 768, H, W) to logits; 17x17 features are pooled as in the paper."""
        if min(x.shape[-2:]) < 17:
            # Only below 17: at 17 its pooling regions differ from those of the pretrained weights.
            x = functional.adaptive_avg_pool2d(x, _POOLED)
        else:
            x = functional.avg_pool2d(x, kernel_size=5, stride=3)
        x = functional.adaptive_avg_pool2d(self.conv1(self.conv0(x)), 1)
        return self.fc(torch.flatten(x, 1))


def inception_v3(num_classes: int = 1000) -> nn.Module:
    """Return Inception v3 with its auxiliary head, for float32 (N, 3, H, W) of at least 75 px.

    In training mode it returns a named tuple (logits, aux_logits), both (N, num_classes).
    """
    blocks = [parts.BasicConv2d, parts.InceptionA, parts.InceptionB, parts.InceptionC, parts.InceptionD]
    return Inception3(num_classes, inception_blocks=[*blocks, parts.InceptionE, Aux], init_weights=False)
