"""What the figures say, in sentences, and no more than they carry."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.records import Summary
from edgekit.report.tables import SIGNIFICANT


def sentences(rows: Sequence[Summary]) -> list[str]:
    """One sentence per INT8 model: what it costs in accuracy, what it gains in size and time."""
    return [_sentence(row, rows) for row in rows if row.precision == "int8"]


def _sentence(row: Summary, rows: Sequence[Summary]) -> str:
    if row.p_value < SIGNIFICANT:
        verb = "loses" if row.drop > 0 else "gains"
        accuracy = f"{verb} {abs(row.drop):.1f} points of top-1 (p = {row.p_value:.2g})"
    else:
        side = "below" if row.drop > 0 else "above"
        distance = f"{abs(row.drop):.1f} points {side} the baseline" if abs(row.drop) >= 0.05 else "like the baseline"
        accuracy = f"gives {row.top1:.1f} % top-1, {distance}: no difference that {row.samples} images can show"
    size = f"{row.size_mb:.1f} MB"
    peer = next((r for r in rows if (r.target, r.device, r.precision) == (row.target, row.device, "fp32")), None)
    if peer is not None:
        size += f", {peer.size_mb / row.size_mb:.1f} times smaller than FP32"
    time = ""
    comparable = peer is not None and not (row.stand_in or row.busy or peer.busy)
    if comparable and peer is not None and row.p50_ms and peer.p50_ms:
        time = f"; {peer.p50_ms / row.p50_ms:.2f} times as fast as FP32 in {row.ran_in} on this machine"
    if row.stand_in:
        time = "; how fast it is must be measured on the device"
    return f"{row.artifact} {accuracy}; {size}{time}."
