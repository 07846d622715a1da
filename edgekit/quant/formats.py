"""Calibration tables in the formats of TensorRT and LiteRT, and differences between two tables."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

from edgekit.errors import EdgekitError, UsageError
from edgekit.quant import affine
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME, CalibrationTable, QuantScheme, Range

# TensorRT ignores a cache of another version: this is 8.5.2, of JetPack 5.1.
TENSORRT_VERSION = "8502"
_ALGORITHM = "EntropyCalibration2"  # the name that trtexec --calib expects, whatever the observer


def tensorrt_cache(
    table: CalibrationTable,
    names: dict[str, str],
    scheme: QuantScheme = TENSORRT_SCHEME,
    version: str = TENSORRT_VERSION,
) -> str:
    """Return a calibration cache for TensorRT before 11: ``trtexec --int8 --calib=FILE`` with the FP32 ONNX file.

    A line with the version and the algorithm, then ``tensor: scale``, the scale (dynamic range over 127)
    as the eight hexadecimal digits of a big-endian float32. NVIDIA/TensorRT, samples/sampleINT8/README.md,
    "Calibration file".

    Args:
        names: ONNX tensor name -> name in `table`. version: TensorRT's as one number, ``8502``.
    Raises:
        UsageError: `scheme` has zero points, which the format cannot express.
        EdgekitError: no tensor has a range, or a name cannot be printed in a line.
    """
    if not scheme.symmetric:
        raise UsageError("a TensorRT calibration cache holds symmetric scales only", "give the symmetric scheme")
    lines = [f"TRT-{version}-{_ALGORITHM}"]
    for name, span in _named(table, names).items():
        if not name.isprintable():
            raise EdgekitError(f"the tensor name {name!r} cannot be written to a calibration cache")
        lines.append(f"{name}: {struct.pack('>f', affine.activation_grid(span, symmetric=True).scale).hex()}")
    return "\n".join(lines) + "\n"


def litert_result(spans: dict[str, Range], scheme: QuantScheme = LITERT_SCHEME) -> dict[str, dict[str, Any]]:
    """Return a calibration result for LiteRT's quantizer (ai-edge-quantizer).

    Tensor -> ``{"min": [[[[a]]]], "max": [[[[b]]]]}``: the ends of the int8 grid, from which the quantizer
    computes exactly our scale and zero point. ``ai_edge_quantizer.utils.calibration_utils.load_calibration_results``
    reads it from JSON.

    Args:
        spans: LiteRT tensor name -> range (`litert.spans`).
    """
    grids = {name: affine.activation_grid(span, scheme.symmetric) for name, span in spans.items()}
    return {name: {"min": [[[[grid.low]]]], "max": [[[[grid.high]]]]} for name, grid in grids.items()}


def _named(table: CalibrationTable, names: dict[str, str]) -> dict[str, Range]:
    """Return name in the exported graph -> range, without tensors that the table does not have."""
    found = {name: table.ranges[ours] for name, ours in names.items() if ours in table.ranges}
    if not found:
        raise EdgekitError("no tensor of the exported network is in the calibration table")
    return found


@dataclass(frozen=True)
class Change:
    """Ranges of one tensor in two tables.

    Attributes:
        before, after: None if the table does not have the tensor.
        ratio: width of `after` divided by that of `before`; NaN if one is missing.
    """

    tensor: str
    before: Range | None
    after: Range | None
    ratio: float


def diff(a: CalibrationTable, b: CalibrationTable) -> list[Change]:
    """Return the differences from `a` to `b`: first tensors that one of them lacks, then by ratio.

    Tensors with equal ranges are left out.
    """
    changes = [
        Change(tensor, a.ranges.get(tensor), b.ranges.get(tensor), _ratio(a.ranges.get(tensor), b.ranges.get(tensor)))
        for tensor in {**a.ranges, **b.ranges}
        if a.ranges.get(tensor) != b.ranges.get(tensor)
    ]
    return sorted(changes, key=lambda change: -_distance(change.ratio))


def _ratio(before: Range | None, after: Range | None) -> float:
    if before is None or after is None:
        return math.nan
    narrow, wide = before.high - before.low, after.high - after.low
    return wide / narrow if narrow > 0 else math.inf


def _distance(ratio: float) -> float:
    return math.inf if math.isnan(ratio) or ratio <= 0 else abs(math.log(ratio))
