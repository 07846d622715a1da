"""Judged figures as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekit.records import LEAST_SAMPLES, Summary

COLUMNS = (
    "model", "ran in", "on", "MB", "top-1 % (95 %)", "drop", "agree %", "p50 ms", "p90 ms", "p99 ms", "x base",
)  # fmt: skip
RIGHT = COLUMNS[3:]
# What is left where there is little room: a terminal of 80 columns, a phone.
NARROW = ("model", "MB", "top-1 % (95 %)", "drop", "p50 ms", "x base")
PHONE = ("model", "top-1 % (95 %)", "drop", "p50 ms")
# Below this p-value a difference in accuracy is called one.
SIGNIFICANT = 0.05


def number(value: float | None, digits: int) -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def latency(value: float | None) -> str:
    """Milliseconds with three significant digits, or a dash."""
    if value is None or value <= 0:
        return number(value, 2)
    return number(value, max(0, 2 - math.floor(math.log10(value))))


def cells(row: Summary) -> list[str]:
    """One line of the table, in the order of `COLUMNS`."""
    compared = not row.baseline
    return [
        row.artifact,
        row.ran_in + (" (stand-in)" if row.stand_in else ""),
        f"{row.device} x{row.threads}",
        number(row.size_mb, 1),
        f"{row.top1:.1f} ({row.top1_low:.1f}-{row.top1_high:.1f})",
        f"{row.drop:+.1f}" + ("*" if row.p_value < SIGNIFICANT else "") if compared else "",
        number(row.agreement, 1) if compared else "",
        latency(row.p50_ms) + ("!" if row.busy else ""),
        latency(row.p90_ms),
        latency(row.p99_ms),
        number(row.speedup, 2) if compared and not (row.stand_in or row.busy) else "",
    ]


def footnotes(rows: Sequence[Summary]) -> list[str]:
    """What a reader must know to read the table right."""
    base = next(row for row in rows if row.baseline)
    where = "the CPU (no CUDA GPU here)" if base.processor == "cpu" else base.processor
    notes = [
        f"baseline: {base.ran_in} on {where}; batch 1, single stream; {base.samples} test images",
        "on: device x threads; x base: p50 of the baseline over this p50",
        "drop: points of top-1 below the baseline; * p < 0.05 (McNemar, paired); agree: same top-1 as the baseline",
    ]
    if any(row.stand_in for row in rows):
        notes.append(
            "stand-in: models for TensorRT, run in ONNX Runtime here; the accuracy tells, the latency does not"
        )
    if any(v is None for row in rows for v in (row.p50_ms, row.p90_ms, row.p99_ms)):
        notes.append(f"-: insufficient samples (p90 needs {LEAST_SAMPLES[90]}, p99 needs {LEAST_SAMPLES[99]})")
    if any(row.busy for row in rows):
        notes.append("!: the machine was busy with other work: do not trust these latencies; edgekit benchmark again")
    if any(row.source == "emulated" for row in rows):
        notes.append("emulated: the accuracy tells; how long an emulator takes is no latency, and is not shown")
    if all(row.source == "host" for row in rows):
        notes.append("every latency was measured on this machine; none says how fast a phone or a Jetson is")
    return notes
