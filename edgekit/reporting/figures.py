"""The tables of figures as pages and Markdown show them: grouped by device, with confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.measurements import FlagKind, Quantile, Summary
from edgekit.reporting.decide import Decision, first_names, is_significant, quantile
from edgekit.reporting.tables import (
    Rows,
    Table,
    columns_for,
    compact,
    fastest_baseline,
    footnotes,
    labelled,
    latency,
    legend,
    number,
    roofline_percent,
)
from edgekit.reporting.tables import speedup as plain_speedup

COLUMNS = (
    "model", "#", "top-1 % (95 %)", "p50 ms (95 %)", "drop (95 %)", "x base (95 %)", "MB", "mJ", "p90 ms (95 %)",
    "p99 ms (95 %)", "ran in",
)  # fmt: skip
MORE = ("model", "#", "device", "agree %", "images/s", "x fastest baseline", "roofline %")
VERDICT = ("device", "ship", "top-1 % (95 %)", "drop (95 %)", "p50 ms (95 %)", "p90 ms (95 %)", "x base (95 %)", "MB",
           "mJ", "why")  # fmt: skip
FEW = "insufficient samples"


def table(rows: Sequence[Summary]) -> Table:
    """Return all rows grouped by device, with the numbers that the pictures use and without empty columns."""
    groups: dict[str, list[tuple[str, ...]]] = {}
    titles = {row.device: _title(row.device, [r for r in rows if r.device == row.device]) for row in rows}
    mixed = [device for device, title in titles.items() if title == device]
    for n, row in enumerate(rows, 1):
        line = cells(n, row)
        ran_in = f"{line[-1]}, {_threads(row)}" if row.device in mixed else line[-1]
        groups.setdefault(titles[row.device], []).append((*line[:-1], ran_in))
    found = Table(
        caption="Figures of every measured model, by device",
        columns=columns_for(COLUMNS, rows),
        groups=tuple(Rows(name, tuple(group)) for name, group in groups.items()),
        left=2,
        notes=tuple(notes(rows)),
    )
    return compact(found)


def cells(n: int, row: Summary) -> tuple[str, ...]:
    """Return one line of the table of figures, in the order of `COLUMNS`; `n` is the row's number."""
    return (
        row.artifact,
        str(n),
        top1(row),
        _marked_p50(row),
        drop(row) if not row.is_reference else "",
        speedup(row),
        number(row.size_mb, 1),
        latency(row.gross_mj),
        percentile(row, 90),
        percentile(row, 99),
        row.ran_in + (" (stand-in)" if row.stand_in else "") + (f", batch {row.batch}" if row.batch > 1 else ""),
    )


def _marked_p50(row: Summary) -> str:
    flagged = row.latency is not None and bool(row.latency.flags)
    return ("~" if row.stand_in else "") + percentile(row, 50) + "!" * row.busy + "†" * flagged


def more(rows: Sequence[Summary]) -> Table:
    """Return the second table of figures: agreement, throughput, the fastest baseline and the roofline."""
    found = Table(
        caption="More figures: agreement, throughput, fastest baseline, roofline",
        columns=MORE,
        groups=(Rows("", tuple(_more_cells(n, row, rows) for n, row in enumerate(rows, 1))),),
        left=3,
        notes=tuple(_more_notes(rows)),
    )
    return compact(found)


def _more_cells(n: int, row: Summary, rows: Sequence[Summary]) -> tuple[str, ...]:
    return (
        row.artifact,
        str(n),
        row.device + (" (stand-in)" if row.stand_in else ""),
        "-" if row.is_reference else number(row.agreement, 1),
        _throughput(row),
        _speedup_over_fastest(row, rows),
        roofline_percent(row),
    )


def _speedup_over_fastest(row: Summary, rows: Sequence[Summary]) -> str:
    """Format the speed-up over the fastest baseline, marked if one of the two was measured on a busy machine."""
    fastest = fastest_baseline(rows, row)
    if row.baseline or row.stand_in or row.speedup_best is None:
        return "-"
    busy = row.busy or (fastest.busy if fastest else row.speedup_doubtful)
    return f"{row.speedup_best:.2f}{'!' if busy else ''}" + (f" ({baseline_name(fastest.artifact)})" if fastest else "")


def baseline_name(artifact: str) -> str:
    """Return the name of a baseline for a sentence."""
    return {"pytorch": "PyTorch", "onnxruntime": "ONNX Runtime"}.get(name := artifact.partition("/")[2], name)


def _more_notes(rows: Sequence[Summary]) -> list[str]:
    lines = legend(rows, ("agree",)) if any(not row.baseline for row in rows) else []
    if any(_throughput(row) != "-" for row in rows):
        lines.append("images/s: throughput of images processed back to back")
    limited = [row for row in rows if roofline_percent(row) != "-"]
    if limited:
        sources = sorted({row.roofline.source for row in limited if row.roofline and row.roofline.source})
        peaks = "; ".join(sources) or "source unknown"
        lines.append(
            f"roofline %: shortest latency that the device's peaks allow, over the measured p50; peaks: {peaks}"
        )
    if any(row.roofline and row.roofline.reached > 1 for row in limited):
        lines.append("> limit: faster than the roofline, because caches hold data that it counts as moved")
    return lines


def _title(device: str, rows: Sequence[Summary]) -> str:
    """Return the device, with the number of threads if it is the same in all its rows."""
    threads = {row.threads for row in rows}
    return device + (f", {_threads(rows[0])}" if len(threads) == 1 else "")


def _threads(row: Summary) -> str:
    return f"{row.threads} thread" + ("s" if row.threads > 1 else "")


def top1(row: Summary) -> str:
    """Format the accuracy, or for images without labels the agreement, with its interval."""
    low, high = row.score_interval
    return f"{row.score:.1f} ({low:.1f}-{high:.1f})"


def drop(row: Summary) -> str:
    """Format the points below the baseline, with the interval if it is known and a star if they are significant."""
    if row.drop is None:
        return ""
    star = "*" if is_significant(row) else ""
    known = row.drop_low is not None and row.drop_high is not None
    return f"{row.drop:+.1f}{star}" + (f" ({row.drop_low:+.1f} to {row.drop_high:+.1f})" if known else "")


def percentile(row: Summary, percent: int) -> str:
    """Format the p50, p90 or p99 with the interval of the true percentile, or say why there is none.

    p90 and p99 are the early-stopping estimates of `Summary`.
    """
    if row.source == "emulated":
        return "emulated"
    value, found = {50: row.p50_ms, 90: row.p90_ms, 99: row.p99_ms}[percent], quantile(row, percent)
    return FEW if value is None else latency(value) + (_interval(found) if found else "")


def speedup(row: Summary) -> str:
    """Format the speed-up over the baseline, with the interval if it is known."""
    if row.is_reference:
        return ""
    if row.stand_in or row.speedup is None or row.speedup_low is None or row.speedup_high is None:
        return plain_speedup(row)
    return f"{plain_speedup(row)} ({row.speedup_low:.2f}-{row.speedup_high:.2f})"


def speedup_text(row: Summary, rows: Sequence[Summary]) -> str:
    """Return the speed-up over the reference and over the fastest baseline in words; empty if there is none."""
    if row.stand_in or row.speedup is None:
        return ""
    mark = "!" if row.busy or row.speedup_doubtful else ""
    text, fastest = f"{row.speedup:.3g}{mark} x {baseline_name(row.reference)}", fastest_baseline(rows, row)
    if fastest is None or row.speedup_best is None:
        return text
    if fastest.is_reference:
        return f"{text}, the fastest baseline"
    mark = "!" if row.busy or fastest.busy else ""
    return f"{text}; {row.speedup_best:.3g}{mark} x the fastest baseline ({baseline_name(fastest.artifact)})"


def verdict(decisions: Sequence[Decision]) -> Table:
    """Return the decisions as one table."""
    rows = tuple((f"{d.title}, {d.where}", *_chosen_cells(d.chosen), d.reason) for d in decisions)
    shipped = [d.chosen for d in decisions if d.chosen]
    columns = columns_for(VERDICT, shipped)
    found = Table("Model to ship on each device", columns, (Rows("", rows),), left=2, prose=("why",))
    return found if labelled(shipped) else compact(found)


def _chosen_cells(row: Summary | None) -> tuple[str, ...]:
    if row is None:
        return ("not decided", *("-",) * 7)
    return (
        row.artifact, top1(row), drop(row), percentile(row, 50), percentile(row, 90), speedup(row),
        number(row.size_mb, 1), latency(row.gross_mj),
    )  # fmt: skip


def notes(rows: Sequence[Summary]) -> list[str]:
    """Return the notes of the table of figures."""
    lines = legend(rows, ("drop", "x"))
    lines += [f"{line}; in brackets the 95 % interval of the percentile" for line in legend(rows, ("p90",))]
    methods = sorted({row.latency.method for row in rows if row.latency})
    if methods:
        lines.append(f"95 % intervals of latency: by {' or '.join(methods)}")
    return [*lines, *footnotes(rows, FEW), *_flag_notes(rows)]


def _flag_notes(rows: Sequence[Summary]) -> list[str]:
    """Return a line for each flagged series; those that are only autocorrelated share one line."""
    lines, dependent = [], []
    for row in rows:
        flags = row.latency.flags if row.latency and row.source != "emulated" else ()
        others = [flag.text for flag in flags if flag.kind != FlagKind.AUTOCORRELATED]
        if len(others) < len(flags):
            dependent.append(row)
        if others:
            lines.append(f"† {row.artifact} on {row.device}: {'; '.join(others)}")
    if dependent:
        most = max(row.latency.autocorrelation for row in dependent if row.latency)
        names = first_names([f"{row.artifact} on {row.device}" for row in dependent])
        lines.append(
            f"† latencies are autocorrelated (up to {most:.2f} at lag 1), so they tell less than as many independent "
            f"ones; the intervals take that into account, or are missing: {names}"
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
    interval = f" ({found.images_per_s_low:.3g}-{found.images_per_s_high:.3g})" if known else ""
    return f"{found.images_per_s:.3g}{interval}"
