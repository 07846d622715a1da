"""Small transformers, and a network of operators that no listed network has."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer


def vision() -> tuple[nn.Module, int]:
    """A vision transformer of two blocks, and its image size."""
    torch.manual_seed(0)
    size, patch, layers, heads, width, inner = 32, 8, 2, 2, 32, 64
    network = VisionTransformer(size, patch, layers, heads, width, inner, num_classes=5)
    nn.init.normal_(network.heads.head.weight, std=0.3)  # zeros before training
    return network.eval(), size


def swin() -> tuple[nn.Module, int]:
    """A Swin transformer of two stages with shifted windows, and its image size."""
    torch.manual_seed(0)
    return SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=5).eval(), 64


class Odd(nn.Module):
    """Group norm, PReLU, Conv1d, tanh, subtraction, attention by hand, a norm, a constant, a mean over places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.GELU())
        self.conv, self.prelu = nn.Conv2d(16, 16, 3, padding=1), nn.PReLU(16)
        self.down = nn.Conv2d(32, 24, 3, 2, 1)
        self.qkv, self.norm, self.line = nn.Linear(24, 72), nn.LayerNorm(24), nn.Conv1d(24, 24, 3, padding=1)
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, 24))
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.prelu(self.conv(x))
        x = self.down(torch.cat([x - y, torch.tanh(y)], 1)).flatten(2).transpose(1, 2)
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        weights = torch.softmax(torch.matmul(query, key.transpose(1, 2)) / 5.0, -1)
        x = self.norm(x + torch.bmm(weights, value)) * self.gain
        x = x + self.line(x.transpose(1, 2)).transpose(1, 2)
        return self.head((x / (1 + torch.linalg.norm(x, dim=-1, keepdim=True))).mean(1))


def odd() -> tuple[nn.Module, int]:
    """`Odd`, and its image size."""
    torch.manual_seed(0)
    return Odd().eval(), 32


NETWORKS = {"vision": vision, "swin": swin, "odd": odd}
