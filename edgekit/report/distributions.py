"""Pictures of latency distributions, sizes and energy, and the tables that say the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgekit.labels import visible
from edgekit.measurements import BenchmarkResult, Summary
from edgekit.report import svg
from edgekit.report.changes import is_baseline
from edgekit.report.chart import COLORS, MOST_PANELS, log_ticks
from edgekit.report.pareto import quantile
from edgekit.report.table import Table, plain
from edgekit.report.tables import latency, number

# More artifacts of a device than this are not told apart, only their precisions are: each has one colour everywhere.
MOST_TOLD_APART = 8
_STYLES = ("solid", "dashed", "dotted", "dashdot")
MOST_BARS = 40
# Where a distribution is drawn: enough for a curve, few enough for a small file.
_SHARES = (0.0, 0.5, 1, 2, *range(4, 96, 2), 96, 97, 98, 99, 99.5, 99.9, 100)
_MARKED = {50: "o", 90: "^", 99: "s"}
ESTIMATED = (90, 95, 99)
COLUMNS = ("model", "device", "queries", "min", "p10", "p50", "p90", "p95", "p99", "max", "max / p50")


def shown(results: Sequence[BenchmarkResult]) -> list[BenchmarkResult]:
    """Those whose latencies are some: an emulator's are none."""
    return [r for r in results if r.source != "emulated" and len(r.latencies_ns) > 1 and min(r.latencies_ns) > 0]


def drawn(results: Sequence[BenchmarkResult], rows: Sequence[Summary]) -> list[BenchmarkResult]:
    """Those whose curve says how fast an artifact is: a stand-in's does not."""
    return [r for r in shown(results) if not ((row := row_of(r, rows)) and row.stand_in)]


def row_of(result: BenchmarkResult, rows: Sequence[Summary]) -> Summary | None:
    """The row that a result was judged by."""
    ran_in = f"{result.environment.get('runtime')} {result.environment.get('version')}"
    name, device = result.artifact.name, result.device
    return next((row for row in rows if (row.artifact, row.device, row.ran_in) == (name, device, ran_in)), None)


def says(results: Sequence[BenchmarkResult], rows: Sequence[Summary]) -> str:
    """How the picture is read: only of the signs that are in it."""
    found = drawn(results, rows)
    panels = [group for _, group in _panels(found)]
    lines = ["The share of queries that are at most so slow."]
    if any(len(group) <= MOST_TOLD_APART for group in panels):
        lines.append("Marks at 50 % (round), 90 % (triangle) and 99 % (square) of the queries that were measured.")
    lines.append("A steep line is a steady latency; a long foot to the right is what users notice. One colour for each "
                 "precision.")  # fmt: skip
    if any(len(group) > MOST_TOLD_APART for group in panels):
        lines.append(f"Of devices with more than {MOST_TOLD_APART} models the models are not told apart.")
    if len(found) < len(shown(results)):
        lines.append("Stand-ins are not drawn.")
    return " ".join(lines)


def _panels(found: Sequence[BenchmarkResult]) -> list[tuple[str, list[BenchmarkResult]]]:
    devices: dict[str, list[BenchmarkResult]] = {}
    for result in found:
        devices.setdefault(result.device, []).append(result)
    kept = sorted(devices, key=lambda name: -len(devices[name]))[:MOST_PANELS]
    return [(name, group) for name, group in devices.items() if name in kept]


def ecdf(results: Sequence[BenchmarkResult], rows: Sequence[Summary] = ()) -> str:
    """The share of queries that are at most so slow, one panel a device, as an ``<svg>`` element; else empty."""
    panels = _panels(drawn(results, rows))
    if not panels:
        return ""
    columns = min(len(panels), 2)
    lines = math.ceil(len(panels) / columns)
    with svg.drawing(8, 0.3 + 3.5 * lines) as figure:
        grid = figure.subplots(lines, columns, squeeze=False).flatten()
        for axes, (title, found) in zip(grid, panels):
            axes.set_title(svg.shortened(visible(title), 40), fontsize=9)
            _curves(axes, found)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        grid[0].set_ylabel("share of queries, %")
        figure.supxlabel("latency, milliseconds (log scale)", fontsize=9)
        return svg.to_svg(figure, "distribution of latencies by device; the table below has the percentiles")


def _curves(axes: Any, found: Sequence[BenchmarkResult]) -> None:
    import numpy as np

    apart = len(found) <= MOST_TOLD_APART
    named: set[str] = set()
    low, high = [], []
    seen: dict[str, int] = {}
    for result in found:
        times = np.percentile(np.asarray(result.latencies_ns, np.float64) / 1e6, _SHARES)
        precision = "baseline" if is_baseline(result) else result.artifact.precision
        color = COLORS.get(precision, svg.INK)
        n = seen[precision] = seen.get(precision, -1) + 1
        label = svg.shortened(visible(result.artifact.name), 30) if apart else precision
        style = {"color": color, "linewidth": 0.8, "alpha": 0.6}
        if apart:
            shade = 1.0 if n < len(_STYLES) else 0.55
            style = {"color": color, "linewidth": 1.4, "alpha": shade, "linestyle": _STYLES[n % len(_STYLES)]}
        axes.plot(times, _SHARES, label="_" if label in named else label, **style)
        named.add(label)
        for share, marker in _MARKED.items():
            if apart:
                axes.plot(times[_SHARES.index(share)], share, marker, color=color, markersize=4)
        low.append(times[0])
        high.append(times[-1])
    for share in _MARKED:
        axes.axhline(share, color=svg.INK, linewidth=0.5, alpha=0.4)
    log_ticks(axes, [*low, *high])
    axes.set_yticks([0, 25, 50, 75, 90, 99])
    axes.grid(axis="x")
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, handlelength=2.6, labelspacing=0.3)


def percentiles(results: Sequence[BenchmarkResult], rows: Sequence[Summary] = ()) -> Table:
    """The distributions in figures; of p90, p95 and p99 the early-stopping estimates, where the samples carry them."""
    import numpy as np

    lines = []
    for r in shown(results):
        times = np.asarray(r.latencies_ns, np.float64) / 1e6
        p50 = float(np.percentile(times, 50))
        estimates = [latency(estimate(row_of(r, rows), p)) for p in ESTIMATED]
        values = [latency(float(v)) for v in (times.min(), np.percentile(times, 10), p50)]
        lines.append((r.artifact.name, r.device, str(len(times)), *values, *estimates, latency(float(times.max())),
                      f"{float(times.max()) / p50:.1f}"))  # fmt: skip
    found = plain("Milliseconds of the measured queries", COLUMNS, lines, left=2)
    note = "p90, p95, p99: early-stopping estimates, as in the table of figures; -: insufficient samples"
    return replace(found, notes=(note,))


def estimate(row: Summary | None, percent: float) -> float | None:
    """The early-stopping estimate of a percentile above the median; None: insufficient samples."""
    if row is None or row.source == "emulated":
        return None
    found = quantile(row, percent)
    return {90: row.p90_ms, 99: row.p99_ms}.get(int(percent), found.bound_ms if found else None)


def bars(rows: Sequence[Summary], kind: str) -> str:
    """Sizes or energies as bars, one an artifact, as an ``<svg>`` element; empty where there is nothing to draw."""
    found = sizes(rows) if kind == "size" else energies(rows)
    found = found[:MOST_BARS]
    if len(found) < 2:
        return ""
    with svg.drawing(8, 0.7 + 0.21 * len(found)) as figure:
        axes = figure.add_subplot()
        values = [value for _, value, _ in found]
        places = range(len(found))
        axes.barh(places, values, 0.7, color=[svg.INK if p == "baseline" else COLORS[p] for _, _, p in found])
        axes.set_yticks(places, [svg.shortened(visible(name), 44) for name, _, _ in found], fontsize=8)
        for place, value in zip(places, values):
            axes.annotate(latency(value), (value, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.set_xlim(0, 1.12 * max(values))
        axes.set_xlabel("megabytes" if kind == "size" else "millijoules per image, all that the rail carries")
        axes.grid(axis="x")
        return svg.to_svg(figure, f"{kind} of every artifact; the figures table has the numbers")


def sizes(rows: Sequence[Summary]) -> list[tuple[str, float, str]]:
    """(model, megabytes, precision or "baseline") of each file or engine, the largest first; equal ones are one."""
    found: dict[tuple[str, float], list[str]] = {}
    for row in rows:
        names = found.setdefault((_sign(row), round(row.size_mb, 2)), [])
        if row.artifact not in names:
            names.append(row.artifact)
    entries = [
        (names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else ""), size, sign)
        for (sign, size), names in found.items()
    ]
    return sorted(entries, key=lambda entry: (-entry[1], entry[0]))


def energies(rows: Sequence[Summary]) -> list[tuple[str, float, str]]:
    """(model, millijoules per image, precision) where it was measured, the least first."""
    measured = [row for row in rows if row.gross_mj is not None]
    one = len({row.device for row in measured}) == 1
    found = [(r.artifact if one else f"{r.artifact} on {r.device}", r.gross_mj or 0.0, _sign(r)) for r in measured]
    return sorted(found, key=lambda entry: (entry[1], entry[0]))


def energy_table(rows: Sequence[Summary]) -> Table:
    """What an image costs, where a board told."""
    columns = ("model", "device", "rail", "power mode", "idle W", "mJ per image", "mJ net of idle")
    cells = [
        (r.artifact, r.device, r.rail or "-", str(r.state.get("power_mode", "-")),
         number(None if r.idle_mw is None else r.idle_mw / 1000, 2), latency(r.gross_mj), latency(r.net_mj))
        for r in rows if r.gross_mj is not None
    ]  # fmt: skip
    return plain("Energy of one image, by the board's own sensors", columns, cells, left=4)


def _sign(row: Summary) -> str:
    return "baseline" if row.baseline else row.precision
