"""Transformers in a form that every runtime supports: static windows, at most five dimensions.

These modules compute the same as torchvision's in inference, for one image size and any batch size; no shape is
read when the model runs. Windows are joined with the heads, not with the batch, so that the batch stays the first
dimension of every tensor.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torchvision.models.swin_transformer import ShiftedWindowAttention, SwinTransformer
from torchvision.models.vision_transformer import EncoderBlock, VisionTransformer

from edgekit.errors import EdgekitError

_FORBIDDEN = -100.0  # that the mask of Liu et al. 2021 adds to the score of two unrelated positions


class _Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv:1706.03762): (N, positions, width) to the same shape.

    Args:
        windows: number of consecutive parts of the positions; attention stays within a part.
    """

    def __init__(self, qkv: nn.Linear, output: nn.Linear, heads: int, windows: int = 1) -> None:
        super().__init__()
        width = output.in_features
        self.heads, self.windows, self.width = heads, windows, width
        self.qkv, self.output = qkv, output
        with torch.no_grad():  # 1 / sqrt(width of a head) goes into the query
            self.qkv.weight[:width] *= (width // heads) ** -0.5
            self.qkv.bias[:width] *= (width // heads) ** -0.5

    def scores(self, scores: torch.Tensor) -> torch.Tensor:
        """Hook for subclasses: change the scores (N, windows * heads, length, length)."""
        return scores

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.qkv(x)
        query, key, value = (
            self._split(y[:, :, start : start + self.width]) for start in range(0, 3 * self.width, self.width)
        )
        weights = functional.softmax(self.scores(query @ key.transpose(2, 3)), -1)
        return self.output(self._join(weights @ value))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """(N, windows * length, width) to (N, windows * heads, length, width of a head)."""
        parts = x.unflatten(2, (self.heads, self.width // self.heads))
        if self.windows == 1:
            return parts.transpose(1, 2)
        return parts.unflatten(1, (self.windows, -1)).transpose(2, 3).flatten(1, 2)

    def _join(self, x: torch.Tensor) -> torch.Tensor:
        """Invert `_split`."""
        if self.windows == 1:
            return x.transpose(1, 2).flatten(2)
        return x.unflatten(1, (self.windows, self.heads)).transpose(2, 3).flatten(3).flatten(1, 2)


class _Block(nn.Module):
    """Block of the vision transformer."""

    def __init__(self, source: EncoderBlock) -> None:
        super().__init__()
        found = source.self_attention
        qkv = nn.Linear(found.embed_dim, 3 * found.embed_dim)
        qkv.weight, qkv.bias = found.in_proj_weight, found.in_proj_bias
        output = nn.Linear(found.embed_dim, found.embed_dim)
        output.weight, output.bias = found.out_proj.weight, found.out_proj.bias
        self.self_attention = _Attention(qkv, output, found.num_heads)
        self.ln_1, self.ln_2, self.mlp = source.ln_1, source.ln_2, source.mlp

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attention(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Vision(nn.Module):
    """torchvision's VisionTransformer (Dosovitskiy et al. 2020, arXiv:2010.11929)."""

    positions: torch.Tensor

    def __init__(self, source: VisionTransformer) -> None:
        super().__init__()
        positions = source.encoder.pos_embedding.detach().clone()  # (1, 1 + patches, width)
        positions[:, :1] += source.class_token
        self.register_buffer("positions", positions)
        self.conv_proj, self.ln, self.heads = source.conv_proj, source.encoder.ln, source.heads
        self.layers = nn.Sequential(*(_Block(block) for block in source.encoder.layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        # A row of zeros before the patches becomes the class token when its position is added, for any batch size.
        x = functional.pad(patches, (0, 0, 1, 0)) + self.positions
        return self.heads(self.ln(self.layers(x))[:, 0])


class Windowed(_Attention):
    """Swin's (shifted) window attention (Liu et al. 2021, arXiv:2103.14030): (N, height, width, channels).

    Args:
        size: height and width of its input.
    """

    bias: torch.Tensor

    def __init__(self, source: ShiftedWindowAttention, size: tuple[int, int]) -> None:
        window = tuple(source.window_size)
        padded = tuple(-(-side // w) * w for side, w in zip(size, window))
        grid = tuple(side // w for side, w in zip(padded, window))
        super().__init__(source.qkv, source.proj, source.num_heads, math.prod(grid))
        self.size, self.window, self.padded, self.grid = size, window, padded, grid
        self.shift = tuple(0 if w >= side else shift for side, w, shift in zip(padded, window, source.shift_size))
        bias = source.get_relative_position_bias().detach() + self._mask()
        self.register_buffer("bias", bias.flatten(0, 1)[None])  # (1, windows * heads, length, length)

    def _mask(self) -> torch.Tensor:
        """Return the mask (windows, 1, length, length): `_FORBIDDEN` between positions that only the shift joined."""
        regions = torch.zeros(self.padded)
        for axis, (side, w, shift) in enumerate(zip(self.padded, self.window, self.shift)):
            if not shift:
                continue
            places = torch.arange(side)
            region = (places >= side - w).int() + (places >= side - shift).int()
            regions += region.reshape((-1, 1) if axis == 0 else (1, -1)) * 3**axis
        split = regions.reshape(self.grid[0], self.window[0], self.grid[1], self.window[1])
        windows = split.transpose(1, 2).reshape(self.windows, 1, -1)
        return (windows[..., None] != windows[:, :, None]) * _FORBIDDEN

    def scores(self, scores: torch.Tensor) -> torch.Tensor:
        return scores + self.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width, rows = *self.size, self.window[0]
        down, right = self.padded[0] - height, self.padded[1] - width
        if down or right:
            x = functional.pad(x, (0, 0, 0, right, 0, down))
        x = _roll(_roll(x, 1, self.shift[0]), 2, self.shift[1])
        strips = x.flatten(2).unflatten(2, (self.grid[1], -1)).unflatten(1, (self.grid[0], rows))
        x = super().forward(strips.transpose(2, 3).flatten(1).unflatten(1, (-1, self.width)))
        strips = x.flatten(1).unflatten(1, (self.grid[0], self.grid[1], rows, -1)).transpose(2, 3)
        x = strips.flatten(1).unflatten(1, (*self.padded, self.width))
        x = _roll(_roll(x, 1, -self.shift[0]), 2, -self.shift[1])
        return x[:, :height, :width] if down or right else x


class _Mean(nn.Module):
    """Mean over height and width; torch's pool of a permuted tensor would be exported as index arithmetic."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3), keepdim=True)


def _roll(x: torch.Tensor, axis: int, by: int) -> torch.Tensor:
    """Return `x` rolled by `by` positions towards its start."""
    if not by:
        return x
    start, end = (x[:, by:], x[:, :by]) if axis == 1 else (x[:, :, by:], x[:, :, :by])
    return torch.cat([start, end], axis)


@torch.no_grad()
def simplify(model: nn.Module, image_size: int | None) -> nn.Module:
    """Replace torchvision's modules in `model` by those of this module, in place; return the model.

    Args:
        image_size: height and width of the images in pixels, which the windows are laid out for.
    Raises:
        EdgekitError: the model has windows and no size was given.
    """
    if isinstance(model, VisionTransformer):
        return Vision(model).eval()
    if isinstance(model, SwinTransformer):
        model.avgpool = _Mean()
    sizes = _sizes(model, image_size)
    for name, size in sizes.items():
        model.set_submodule(name, Windowed(model.get_submodule(name), size).eval())
    return model


def _sizes(model: nn.Module, image_size: int | None) -> dict[str, tuple[int, int]]:
    """Return the height and width of the input of each window attention."""
    sizes: dict[str, tuple[int, int]] = {}
    names = {m: name for name, m in model.named_modules() if isinstance(m, ShiftedWindowAttention)}

    def see(module: nn.Module, given: tuple[Any, ...]) -> None:
        sizes[names[module]] = (given[0].shape[1], given[0].shape[2])

    if not names:
        return {}
    if image_size is None:
        raise EdgekitError("window attention depends on the image size, which was not given")
    handles = [module.register_forward_pre_hook(see) for module in names]
    model(torch.zeros(1, 3, image_size, image_size))
    for handle in handles:
        handle.remove()
    return sizes
