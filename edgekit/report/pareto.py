"""Latency of one image against top-1: what can be compared, and what leads."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.measurements import Quantile, Summary


def timed(row: Summary) -> bool:
    """Whether the row has a latency that says how fast the artifact is there."""
    return row.p50_ms is not None and not row.stand_in and row.source != "emulated"


def per_image_ms(row: Summary) -> float:
    """The p50 of one image; only of rows that are `timed`."""
    assert row.p50_ms is not None
    return row.p50_ms / row.batch


def quantile(row: Summary, percentile: float) -> Quantile | None:
    """The percentile with its interval, where the statistics have it."""
    found = row.latency.quantiles if row.latency else ()
    return next((q for q in found if q.percentile == percentile), None)


def front(rows: Sequence[Summary]) -> list[int]:
    """Positions of the rows that no other one beats in both latency and top-1, the fastest first."""
    order = sorted(
        (n for n, row in enumerate(rows) if timed(row)), key=lambda n: (per_image_ms(rows[n]), -rows[n].top1)
    )
    best, kept = float("-inf"), []
    for n in order:
        if rows[n].top1 > best:
            best = rows[n].top1
            kept.append(n)
    return kept
