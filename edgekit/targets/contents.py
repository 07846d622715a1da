"""What a model file holds: records that every reader fills, and figures of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod
from typing import Any

_MOST_VALUES = 1 << 62
_LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor.

    Attributes:
        shape: -1 where a dimension is open. dtype: as numpy spells it; "" where the file does not say.
        scales, zero_points: one, or one for each channel of `axis`; empty where it is not quantized.
        nbytes: that the file holds of it; 0 unless it is constant. values: of a small constant of integers.
    """

    name: str
    shape: tuple[int, ...] | None = None
    dtype: str = ""
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis: int = 0
    constant: bool = False
    nbytes: int = 0
    values: tuple[int, ...] = ()

    @property
    def per_channel(self) -> bool:
        """Whether each channel has a scale of its own."""
        return len(self.scales) > 1

    @property
    def kind(self) -> str:
        """Its type in words."""
        return f"{self.dtype or '?'} per channel" if self.per_channel else self.dtype or "?"

    @property
    def real_range(self) -> tuple[float, float] | None:
        """The least and the largest value that it can hold; None for floats, and where each channel has its own."""
        if len(self.scales) != 1 or self.dtype not in _LIMITS:
            return None
        zero = self.zero_points[0] if self.zero_points else 0
        low, high = _LIMITS[self.dtype]
        return (low - zero) * self.scales[0], (high - zero) * self.scales[0]

    @property
    def count(self) -> int | None:
        """Its number of values; None where a dimension is open or unknown, or where no machine holds them."""
        if self.shape is None or min(self.shape, default=0) < 0:
            return None
        number = prod(self.shape)
        return number if number <= _MOST_VALUES else None


@dataclass(frozen=True)
class OpInfo:
    """One operator.

    Attributes:
        inputs: None stands for one that is left out. options: its parameters, as far as a reader knows them.
        macs: multiplications with addition; None where they are not counted or a shape is unknown.
    """

    index: int
    kind: str
    inputs: tuple[TensorInfo | None, ...]
    outputs: tuple[TensorInfo, ...]
    version: int = 1
    options: dict[str, Any] = field(default_factory=dict)
    macs: int | None = None
    name: str = ""

    @property
    def activations(self) -> tuple[TensorInfo, ...]:
        """What flows in and out: no constants."""
        return tuple(t for t in (*self.inputs, *self.outputs) if t is not None and not t.constant)

    @property
    def signature(self) -> str:
        """The types of the input, the weights and the output, such as ``int8 x int8 per channel -> int8``."""
        sources = [t.kind for t in self.inputs if t is not None]
        return f"{' x '.join(sources[:2])} -> {', '.join(t.kind for t in self.outputs)}"


@dataclass(frozen=True)
class Contents:
    """What one file holds.

    Attributes:
        form: "LiteRT" or "ONNX". about: facts by name. signatures: in words, one each.
        weights: every constant tensor once. metadata: what the file says of itself for people.
    """

    form: str
    about: dict[str, Any]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    ops: tuple[OpInfo, ...]
    weights: tuple[TensorInfo, ...]
    signatures: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)


def kinds(ops: Iterable[OpInfo]) -> list[tuple[str, str, int, int]]:
    """(operator, types, how many, multiplications) of every kind, the most frequent first."""
    counted: Counter[tuple[str, str]] = Counter()
    work: Counter[tuple[str, str]] = Counter()
    for op in ops:
        counted[op.kind, op.signature] += 1
        work[op.kind, op.signature] += op.macs or 0
    return [(*key, number, work[key]) for key, number in sorted(counted.items(), key=lambda item: (-item[1], item[0]))]


def weight_bytes(contents: Contents) -> dict[str, int]:
    """Bytes of the constants by type, the most first."""
    held: Counter[str] = Counter()
    for tensor in contents.weights:
        held[tensor.dtype or "?"] += tensor.nbytes
    return dict(held.most_common())


def largest(contents: Contents, count: int) -> list[TensorInfo]:
    """The constants that take the most bytes."""
    return sorted(contents.weights, key=lambda tensor: (-tensor.nbytes, tensor.name))[:count]


def macs(contents: Contents) -> int | None:
    """All multiplications of one run; None where none could be counted."""
    known = [op.macs for op in contents.ops if op.macs is not None]
    return sum(known) if known else None
