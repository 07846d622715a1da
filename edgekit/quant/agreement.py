"""How well quantized values agree with the float ones, summed over batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

# Beyond what float32 can tell apart; stands for no error at all (and, negative, for no signal).
EXACT_DB = 150.0


@dataclass(frozen=True)
class Agreement:
    """Quantized values against float ones.

    Attributes:
        sqnr_db: signal to quantization noise, 10 log10(sum(float ** 2) / sum((quantized - float) ** 2)),
            at most `EXACT_DB`, which stands for equality.
        cosine: of the angle between them; 1 is equal up to a factor.
    """

    sqnr_db: float
    cosine: float


@dataclass(frozen=True)
class Effect:
    """What it does to the network's answers: `logits` as a whole, and the share of images with another top-1."""

    logits: Agreement
    changed: float


class PairSums:
    """Sums over pairs of tensors that their agreement follows from."""

    def __init__(self) -> None:
        self.signal = self.noise = self.power = self.product = 0.0

    def add(self, got: torch.Tensor, wanted: torch.Tensor) -> None:
        """Take in two tensors of one shape, the quantized and the float one."""
        a, b = got.flatten().double(), wanted.flatten().double()
        self.signal += float(b @ b)
        self.power += float(a @ a)
        self.product += float(a @ b)
        self.noise += float((a - b).square().sum())

    def result(self) -> Agreement:
        """The agreement of all that was added."""
        if self.noise == 0:
            return Agreement(EXACT_DB, 1.0)
        if self.signal == 0 or self.power == 0:
            return Agreement(-EXACT_DB if self.signal == 0 else 0.0, 0.0)
        ratio = 10 * math.log10(self.signal / self.noise)
        return Agreement(min(max(ratio, -EXACT_DB), EXACT_DB), self.product / math.sqrt(self.signal * self.power))


@dataclass
class EffectSums:
    """Sums over batches of logits."""

    logits: PairSums = field(default_factory=PairSums)
    changed: int = 0
    images: int = 0

    def add(self, got: torch.Tensor, wanted: torch.Tensor) -> None:
        """Take in the logits (N, classes) of some images, the quantized and the float ones."""
        self.logits.add(got, wanted)
        self.changed += int((got.argmax(1) != wanted.argmax(1)).sum())
        self.images += len(got)

    def result(self) -> Effect:
        """The effect on all that was added."""
        return Effect(self.logits.result(), self.changed / max(1, self.images))
