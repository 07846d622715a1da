"""Pictures of latency distributions, sizes and energy, and the tables that say the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgekit.labels import visible
from edgekit.measurements import BenchmarkResult, Summary
from edgekit.report import svg
from edgekit.report.changes import is_baseline
from edgekit.report.chart import COLORS, MOST_PANELS, log_ticks
from edgekit.report.table import Table, plain
from edgekit.report.tables import latency, number

# More artifacts of a device than this are not told apart by colour, but by precision.
MOST_TOLD_APART = 8
MOST_BARS = 40
# Where a distribution is drawn: enough for a curve, few enough for a small file.
_SHARES = (0.0, 0.5, 1, 2, *range(4, 96, 2), 96, 97, 98, 99, 99.5, 99.9, 100)
_MARKED = {50: "o", 90: "^", 99: "s"}
# Paul Tol's muted scheme: nine colours that are told apart with every kind of colour vision.
_MUTED = ("#332288", "#cc6677", "#117733", "#ddaa33", "#88ccee", "#aa4499", "#44aa99", "#999933", "#882255")
COLUMNS = ("artifact", "device", "queries", "min", "p10", "p50", "p90", "p95", "p99", "max", "max / p50")


def shown(results: Sequence[BenchmarkResult]) -> list[BenchmarkResult]:
    """Those whose latencies are some: an emulator's are none."""
    return [r for r in results if r.source != "emulated" and len(r.latencies_ns) > 1 and min(r.latencies_ns) > 0]


def crowded(results: Sequence[BenchmarkResult]) -> bool:
    """Whether a device has more models than colours tell apart."""
    names = [r.device for r in shown(results)]
    return any(names.count(name) > MOST_TOLD_APART for name in set(names))


def ecdf(results: Sequence[BenchmarkResult]) -> str:
    """The share of queries that are at most so slow, one panel a device, as an ``<svg>`` element; else empty."""
    devices: dict[str, list[BenchmarkResult]] = {}
    for result in shown(results):
        devices.setdefault(result.device, []).append(result)
    kept = sorted(devices, key=lambda name: -len(devices[name]))[:MOST_PANELS]
    panels = [(name, found) for name, found in devices.items() if name in kept]
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
    for n, result in enumerate(found):
        times = np.percentile(np.asarray(result.latencies_ns, np.float64) / 1e6, _SHARES)
        precision = "baseline" if is_baseline(result) else result.artifact.precision
        color = _MUTED[n] if apart else COLORS.get(precision, svg.INK)
        label = svg.shortened(visible(result.artifact.name), 30) if apart else precision
        style = {"color": color, "linewidth": 1.4 if apart else 0.8, "alpha": 1.0 if apart else 0.6}
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
    axes.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2, handlelength=1.2, labelspacing=0.3)


def percentiles(results: Sequence[BenchmarkResult]) -> Table:
    """The distributions in figures: the raw samples' own percentiles."""
    import numpy as np

    rows = []
    for r in shown(results):
        times = np.asarray(r.latencies_ns, np.float64) / 1e6
        p50 = float(np.percentile(times, 50))
        values = [times.min(), *(np.percentile(times, p) for p in (10, 50, 90, 95, 99)), times.max()]
        rows.append((r.artifact.name, r.device, str(len(times)), *(latency(float(v)) for v in values),
                     f"{float(times.max()) / p50:.1f}"))  # fmt: skip
    return plain("Milliseconds of the measured queries, without intervals; the figures table says what they carry",
                 COLUMNS, rows, left=2)  # fmt: skip


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
    columns = ("artifact", "device", "rail", "power mode", "idle W", "mJ per image", "mJ net of idle")
    cells = [
        (r.artifact, r.device, r.rail or "-", str(r.state.get("power_mode", "-")),
         number(None if r.idle_mw is None else r.idle_mw / 1000, 2), latency(r.gross_mj), latency(r.net_mj))
        for r in rows if r.gross_mj is not None
    ]  # fmt: skip
    return plain("Energy of one image, by the board's own sensors", columns, cells, left=4)


def _sign(row: Summary) -> str:
    return "baseline" if row.baseline else row.precision
