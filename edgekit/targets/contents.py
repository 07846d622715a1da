"""Contents of a model file, as the readers of all formats return them."""

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
    """A tensor.

    Attributes:
        shape: -1 for a dynamic dimension; None if unknown. dtype: name of the numpy dtype; "" if unknown.
        scales, zero_points: one, or one per channel of `axis`; empty if it is not quantized.
        nbytes: size of its data in the file; 0 unless it is constant. values: of small integer constants.
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
        """True if it is quantized per channel."""
        return len(self.scales) > 1

    @property
    def kind(self) -> str:
        """Dtype, and whether it is quantized per channel, as text."""
        return f"{self.dtype or '?'} per channel" if self.per_channel else self.dtype or "?"

    @property
    def real_range(self) -> tuple[float, float] | None:
        """Smallest and largest representable value; None for floats and for per-channel quantization."""
        if len(self.scales) != 1 or self.dtype not in _LIMITS:
            return None
        zero = self.zero_points[0] if self.zero_points else 0
        low, high = _LIMITS[self.dtype]
        return (low - zero) * self.scales[0], (high - zero) * self.scales[0]

    @property
    def count(self) -> int | None:
        """Number of values; None if a dimension is dynamic or unknown, or if the number is implausible."""
        if self.shape is None or min(self.shape, default=0) < 0:
            return None
        number = prod(self.shape)
        return number if number <= _MOST_VALUES else None


@dataclass(frozen=True)
class OpInfo:
    """An operator.

    Attributes:
        inputs: None for an omitted optional input. options: parameters that the reader knows.
        macs: multiply-accumulate operations; None if they are not counted or a shape is unknown.
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
        """Inputs and outputs that are not constant."""
        return tuple(t for t in (*self.inputs, *self.outputs) if t is not None and not t.constant)

    @property
    def signature(self) -> str:
        """Types of the input, the weights and the outputs, such as ``int8 x int8 per channel -> int8``."""
        sources = [t.kind for t in self.inputs if t is not None]
        return f"{' x '.join(sources[:2])} -> {', '.join(t.kind for t in self.outputs)}"


@dataclass(frozen=True)
class Contents:
    """Contents of a model file.

    Attributes:
        form: "LiteRT" or "ONNX". about: general properties by name. signatures: a description of each.
        weights: all constant tensors. metadata: descriptions for readers of the file, by name.
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
    """Return (operator, types, count, MACs) of each kind of operator, the most frequent first."""
    counted: Counter[tuple[str, str]] = Counter()
    work: Counter[tuple[str, str]] = Counter()
    for op in ops:
        counted[op.kind, op.signature] += 1
        work[op.kind, op.signature] += op.macs or 0
    return [(*key, number, work[key]) for key, number in sorted(counted.items(), key=lambda item: (-item[1], item[0]))]


def weight_bytes(contents: Contents) -> dict[str, int]:
    """Return the bytes of the constants by dtype, the largest first."""
    held: Counter[str] = Counter()
    for tensor in contents.weights:
        held[tensor.dtype or "?"] += tensor.nbytes
    return dict(held.most_common())


def largest(contents: Contents, count: int) -> list[TensorInfo]:
    """Return the `count` largest constants."""
    return sorted(contents.weights, key=lambda tensor: (-tensor.nbytes, tensor.name))[:count]


def macs(contents: Contents) -> int | None:
    """Return the MACs of one inference; None if no operator's are known."""
    known = [op.macs for op in contents.ops if op.macs is not None]
    return sum(known) if known else None
