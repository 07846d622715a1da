"""The table of figures as pages and Markdown show it: grouped by device, every figure with its interval."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.measurements import LEAST_SAMPLES, Quantile, Summary
from edgekit.reporting.decide import AUTOCORRELATED, Decision, few, quantile
from edgekit.reporting.tables import (
    REFERENCE,
    SIGNIFICANT,
    Rows,
    Table,
    compact,
    fastest_baseline,
    footnotes,
    latency,
    number,
    reached,
    times,
)

COLUMNS = (
    "model", "#", "ran in", "top-1 % (95 %)", "p50 ms (95 %)", "drop (95 %)", "p90 ms (95 %)", "p99 ms (95 %)",
    "x base (95 %)", "MB", "mJ",
)  # fmt: skip
_WIDE = ("ran in", "p90 ms (95 %)", "p99 ms (95 %)", "MB", "mJ")
MORE = ("model", "#", "device", "agree %", "images/s", "x fastest baseline", "roofline %")
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
    compared = row.artifact != REFERENCE
    return (
        row.artifact,
        str(n),
        row.ran_in + (" (stand-in)" if row.stand_in else "") + (f", batch {row.batch}" if row.batch > 1 else ""),
        top1(row),
        percentile(row, 50) + ("!" if row.busy else "") + ("†" if row.latency and row.latency.flags else ""),
        drop(row) if compared else "",
        percentile(row, 90),
        percentile(row, 99),
        speedup(row),
        number(row.size_mb, 1),
        latency(row.gross_mj),
    )


def more(rows: Sequence[Summary]) -> Table:
    """What the table of figures has no room for."""
    found = Table(
        caption="More figures: agreement, throughput, the fastest baseline, the device's limit",
        columns=MORE,
        groups=(Rows("", tuple(_more(n, row, rows) for n, row in enumerate(rows, 1))),),
        left=3,
        notes=tuple(_more_notes(rows)),
    )
    return compact(found)


def _more(n: int, row: Summary, rows: Sequence[Summary]) -> tuple[str, ...]:
    return (
        row.artifact,
        str(n),
        row.device + (" (stand-in)" if row.stand_in else ""),
        "-" if row.artifact == REFERENCE else number(row.agreement, 1),
        _throughput(row),
        _over_fastest(row, rows),
        reached(row),
    )


def _over_fastest(row: Summary, rows: Sequence[Summary]) -> str:
    """Times as fast as the fastest baseline; marked where either of the two was measured on a busy machine."""
    fastest = fastest_baseline(rows, row)
    if row.baseline or row.stand_in or row.speedup_best is None:
        return "-"
    busy = row.busy or (fastest.busy if fastest else row.speedup_doubtful)
    return f"{row.speedup_best:.2f}{'!' if busy else ''}" + (f" ({short(fastest)})" if fastest else "")


def short(baseline: Summary) -> str:
    """What a baseline is called in a sentence."""
    return {"pytorch": "PyTorch"}.get(name := baseline.artifact.partition("/")[2], name)


def _more_notes(rows: Sequence[Summary]) -> list[str]:
    lines = ["agree: same top-1 as the baseline"] if any(not row.baseline for row in rows) else []
    if any(_throughput(row) != "-" for row in rows):
        lines.append("images/s: passes over the images, back to back")
    limited = [row for row in rows if reached(row) != "-"]
    if limited:
        sources = sorted({row.roofline.source for row in limited if row.roofline and row.roofline.source})
        lines.append(f"roofline %: the device's limit over the measured p50; peaks: {'; '.join(sources) or 'not said'}")
    if any(row.roofline and row.roofline.reached > 1 for row in limited):
        lines.append("> limit: faster than the limit, as caches hold what it counts as moved")
    return lines


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
    """A latency percentile and the interval of the true one, or in words why there is none.

    Above the median it is the early-stopping estimate, as in `Summary`: where there is none, nothing is shown.
    """
    if row.source == "emulated":
        return "emulated"
    value, found = {50: row.p50_ms, 90: row.p90_ms, 99: row.p99_ms}[percent], quantile(row, percent)
    return FEW if value is None else latency(value) + (_interval(found) if found else "")


def speedup(row: Summary) -> str:
    """Against the baseline, with the interval where it is known; nothing of stand-ins."""
    if row.artifact == REFERENCE:
        return ""
    if row.stand_in or row.speedup is None or row.speedup_low is None or row.speedup_high is None:
        return times(row)
    return f"{times(row)} ({row.speedup_low:.2f}-{row.speedup_high:.2f})"


def speed(row: Summary, rows: Sequence[Summary]) -> str:
    """In words: over the baseline, and over the fastest one of that machine; empty where neither can be said."""
    if row.stand_in or row.speedup is None:
        return ""
    mark = "!" if row.busy or row.speedup_doubtful else ""
    text, fastest = f"{row.speedup:.3g}{mark} x PyTorch", fastest_baseline(rows, row)
    if fastest is None or row.speedup_best is None:
        return text
    if fastest.artifact == REFERENCE:
        return f"{text}, the fastest baseline"
    mark = "!" if row.busy or fastest.busy else ""
    return f"{text}; {row.speedup_best:.3g}{mark} x the fastest baseline ({short(fastest)})"


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
    lines = [line for line in footnotes(rows, COLUMNS) if not line.startswith(("-: insufficient", "p90, p99:"))]
    timed = [row for row in rows if row.source != "emulated"]
    if any(value is None for row in timed for value in (row.p50_ms, row.p90_ms, row.p99_ms)):
        lines.append(f"{FEW}: a p90 needs {LEAST_SAMPLES[90]}, a p99 {LEAST_SAMPLES[99]} queries")
    if any(value is not None for row in timed for value in (row.p90_ms, row.p99_ms)):
        lines.append(
            "p90, p99: early-stopping estimates (above the true percentile with 99 % confidence); in brackets the "
            "interval of the percentile"
        )
    methods = sorted({row.latency.method for row in rows if row.latency})
    if methods:
        lines.append(f"intervals of latency: {' or '.join(methods)}, 95 %")
    return [*lines, *_flags(rows)]


def _flags(rows: Sequence[Summary]) -> list[str]:
    """What makes series doubtful; those whose queries merely depend on each other are one line."""
    lines, dependent = [], []
    for row in rows:
        flags = row.latency.flags if row.latency and row.source != "emulated" else ()
        rest = [flag for flag in flags if not flag.startswith(AUTOCORRELATED)]
        if len(rest) < len(flags):
            dependent.append(row)
        if rest:
            lines.append(f"† {row.artifact} on {row.device}: {'; '.join(rest)}")
    if dependent:
        most = max(row.latency.autocorrelation for row in dependent if row.latency)
        names = few([f"{row.artifact} on {row.device}" for row in dependent])
        lines.append(
            f"† queries depend on each other (up to {most:.2f} at lag 1), so that they tell less than as many "
            f"independent ones; the intervals know of it, or there is none: {names}"
        )
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
