"""The table of figures as pages and Markdown show it: grouped by device, every figure with its interval."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.measurements import Quantile, Summary
from edgekit.report.decide import Decision
from edgekit.report.pareto import quantile
from edgekit.report.table import Rows, Table, compact
from edgekit.report.tables import SIGNIFICANT, footnotes, latency, number
from edgekit.suites import LEAST_SAMPLES

COLUMNS = (
    "model", "#", "ran in", "MB", "top-1 % (95 %)", "drop (95 %)", "agree %", "p50 ms (95 %)",
    "p90 ms (95 %)", "p99 ms (95 %)", "images/s", "x base (95 %)", "mJ", "roofline %",
)  # fmt: skip
_WIDE = ("ran in", "MB", "agree %", "p90 ms (95 %)", "p99 ms (95 %)", "images/s", "mJ", "roofline %")
VERDICT = ("device", "ship", "top-1 % (95 %)", "drop (95 %)", "p50 ms (95 %)", "p90 ms (95 %)", "x base (95 %)", "MB",
           "mJ", "why")  # fmt: skip
FEW = "insufficient samples"


def table(rows: Sequence[Summary]) -> Table:
    """Every row, below its device; its number is that of the picture. Columns without any figure are left out."""
    groups: dict[str, list[tuple[str, ...]]] = {}
    titles = {row.device: _title(row.device, [r for r in rows if r.device == row.device]) for row in rows}
    mixed = [device for device, title in titles.items() if title == device]
    for n, row in enumerate(rows, 1):
        line = cells(n, row)
        ran = f"{line[2]}, {_threads(row)}" if row.device in mixed else line[2]
        groups.setdefault(titles[row.device], []).append((*line[:2], ran, *line[3:]))
    found = Table(
        caption="Figures of every measured model, by device",
        columns=COLUMNS,
        groups=tuple(Rows(name, tuple(group)) for name, group in groups.items()),
        left=3,
        wide=_WIDE,
        notes=tuple(notes(rows)),
    )
    return compact(found)


def cells(n: int, row: Summary) -> tuple[str, ...]:
    """One line, in the order of `COLUMNS`."""
    compared = not row.baseline
    return (
        row.artifact,
        str(n),
        row.ran_in + (" (stand-in)" if row.stand_in else "") + (f", batch {row.batch}" if row.batch > 1 else ""),
        number(row.size_mb, 1),
        top1(row),
        drop(row) if compared else "",
        number(row.agreement, 1) if compared else "",
        percentile(row, 50) + ("!" if row.busy else "†" if row.latency and row.latency.flags else ""),
        percentile(row, 90),
        percentile(row, 99),
        _throughput(row),
        speedup(row),
        latency(row.gross_mj),
        "-" if row.roofline is None else f"{100 * row.roofline.reached:.0f} ({row.roofline.bound})",
    )


def _title(device: str, rows: Sequence[Summary]) -> str:
    """The device, and the threads of all its rows where they are the same."""
    threads = {row.threads for row in rows}
    return device + (f", {_threads(rows[0])}" if len(threads) == 1 else "")


def _threads(row: Summary) -> str:
    return f"{row.threads} thread" + ("s" if row.threads > 1 else "")


def top1(row: Summary) -> str:
    """Accuracy with its interval."""
    return f"{row.top1:.1f} ({row.top1_low:.1f}-{row.top1_high:.1f})"


def drop(row: Summary) -> str:
    """Points below the baseline, with the interval where it is known; a star where it is significant."""
    interval = (
        "" if row.drop_low is None or row.drop_high is None else f" ({row.drop_low:+.1f} to {row.drop_high:+.1f})"
    )
    return f"{row.drop:+.1f}" + ("*" if row.p_value < SIGNIFICANT else "") + interval


def percentile(row: Summary, percent: int) -> str:
    """A latency percentile with its interval, or in words why there is none."""
    if row.source == "emulated":
        return "emulated"
    found, value = quantile(row, percent), {50: row.p50_ms, 90: row.p90_ms, 99: row.p99_ms}[percent]
    if found is None or found.ms is None:
        return FEW if value is None else latency(value)
    return latency(found.ms) + _interval(found)


def speedup(row: Summary) -> str:
    """Against the baseline, with the interval where it is known; nothing of stand-ins and busy machines."""
    if row.baseline or row.stand_in or row.busy or row.speedup is None:
        return "" if row.baseline else "-"
    interval = "" if row.speedup_low is None or row.speedup_high is None else (
        f" ({row.speedup_low:.2f}-{row.speedup_high:.2f})")  # fmt: skip
    best = "" if row.speedup_best is None else f", best {row.speedup_best:.2f}"
    return f"{row.speedup:.2f}{interval}{best}"


def verdict(decisions: Sequence[Decision]) -> Table:
    """The decisions as one table."""
    rows = tuple((f"{d.title}, {d.where}", *_chosen(d.chosen), d.reason) for d in decisions)
    return Table("What to ship on each device, and why", VERDICT, (Rows("", rows),), 2, (), "", ("why",))


def _chosen(row: Summary | None) -> tuple[str, ...]:
    if row is None:
        return ("not decided", *("-",) * 7)
    return (
        row.artifact, top1(row), drop(row), percentile(row, 50), percentile(row, 90), speedup(row),
        number(row.size_mb, 1), latency(row.gross_mj),
    )  # fmt: skip


def notes(rows: Sequence[Summary]) -> list[str]:
    """What a reader must know to read the table right."""
    lines = [line for line in footnotes(rows) if not line.startswith("-: insufficient")] if rows else []
    timed = [row for row in rows if row.source != "emulated"]
    if any(value is None for row in timed for value in (row.p50_ms, row.p90_ms, row.p99_ms)):
        lines.append(f"{FEW}: a p90 needs {LEAST_SAMPLES[90]}, a p99 {LEAST_SAMPLES[99]} queries")
    methods = sorted({row.latency.method for row in rows if row.latency})
    if methods:
        lines.append(f"intervals of latency: {' or '.join(methods)}, 95 %")
    if any(row.speedup_best is not None for row in rows):
        lines.append("best: over the fastest baseline of that machine")
    if any(row.roofline for row in rows):
        sources = sorted({row.roofline.source for row in rows if row.roofline and row.roofline.source})
        lines.append(f"roofline %: the device's limit over the measured p50; peaks: {'; '.join(sources) or 'not said'}")
    for row in rows:
        if row.latency and row.latency.flags:
            lines.append(f"† {row.artifact} on {row.device}: {'; '.join(row.latency.flags)}")
    return lines


def _interval(found: Quantile) -> str:
    if found.low_ms is None or found.high_ms is None:
        return ""
    return f" ({latency(found.low_ms)}-{latency(found.high_ms)})"


def _throughput(row: Summary) -> str:
    found = row.latency
    if found is None or found.images_per_s is None or row.source == "emulated":
        return "-"
    known = found.images_per_s_low is not None and found.images_per_s_high is not None
    return f"{found.images_per_s:.3g}" + (
        f" ({found.images_per_s_low:.3g}-{found.images_per_s_high:.3g})" if known else ""
    )
