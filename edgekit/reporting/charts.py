"""Charts of measured figures, and the tables with the same figures.

Accuracy against latency, distributions of latencies, sizes and energy, as ``<svg>`` elements without a script.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgekit.labels import visible
from edgekit.measurements import BenchmarkResult, Summary
from edgekit.reporting import svg
from edgekit.reporting.changes import is_baseline
from edgekit.reporting.decide import Basis, basis_of, pareto_front, per_image_ms, quantile
from edgekit.reporting.tables import Table, labelled, latency, number, plain

# A precision has one colour everywhere; the words are those of the explanations.
COLORS = {"fp32": svg.BLUE, "fp16": svg.YELLOW, "int8": svg.RED, "w8": svg.GREEN, "16x8": svg.PURPLE}
_COLOR_WORDS = {
    "fp32": "blue FP32", "fp16": "yellow FP16", "int8": "red INT8", "w8": "green W8", "16x8": "purple 16x8",
}  # fmt: skip
MOST_PANELS = 12
# With more artifacts than this on a device, curves are drawn by precision only.
MOST_DISTINCT = 8
MOST_BARS = 40
_FAINT = 0.5
_WIDTH = {1: 5.6, 2: 8.0}  # inches, by the number of panels beside each other
_TWO_COLUMNS = 22  # characters of the longest label of a legend in two columns
_LABEL = 14, 10  # pixels of a number at 72 dpi: width, height
_STYLES = ("solid", "dashed", "dotted", "dashdot")
# Percentages at which a distribution is drawn: enough for a curve, few enough for a small file.
_SHARES = (0.0, 0.5, 1, 2, *range(4, 96, 2), 96, 97, 98, 99, 99.5, 99.9, 100)
_MARKED = {50: "o", 90: "^", 99: "s"}
ESTIMATED = (90, 95, 99)
COLUMNS = ("model", "device", "queries", "min", "p10", "p50", "p90", "p95", "p99", "max", "max / p50")


@dataclass(frozen=True)
class Bar:
    """One bar: its value in megabytes or millijoules, and the precision or "baseline" that gives its colour."""

    name: str
    value: float
    kind: str


# Accuracy against latency.


def accuracy_latency(rows: Sequence[Summary]) -> str:
    """Draw top-1 against p50 of one image, one panel a device, with 95 % intervals and the Pareto front.

    Points carry the row's number where there is room. Models that another one of their device beats in both are faint.
    """
    panels = _row_panels(rows)
    columns = min(len(panels), 2) or 1
    lines = max(1, math.ceil(len(panels) / columns))
    with svg.drawing(_WIDTH[columns], 0.3 + 2.9 * lines) as figure:
        grid = figure.subplots(lines, columns, squeeze=False, sharey=True).flatten()
        for axes, (title, numbers) in zip(grid, panels):
            if len(panels) > 1:
                axes.set_title(svg.shortened(visible(title), 40), fontsize=9)
            _draw_points(axes, rows, numbers)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        grid[0].set_ylabel("top-1 on the test split, %" if labelled(rows) else "same answer as the baseline, %")
        figure.supxlabel("p50 latency of one image, milliseconds (log scale)", fontsize=9)
        return svg.to_svg(figure, "accuracy against latency by device; the table of figures has every number")


def accuracy_latency_text(rows: Sequence[Summary]) -> str:
    """Explain the marks that occur in the picture of `accuracy_latency`."""
    shown = [row for row in rows if row.p50_ms is not None]
    used = {row.precision for row in shown if not row.baseline}
    colors = [words for precision, words in _COLOR_WORDS.items() if precision in used]
    lines = []
    if colors:
        lines.append(f"Numbers are those of the table of figures. Diamond: baseline; {', '.join(colors)}.")
    lines.append(
        "Bars are 95 % intervals. The line is the Pareto front; models that another one on the device beats in both "
        f"{'accuracy' if labelled(rows) else 'agreement'} and latency are faint."
    )
    if any(row.stand_in for row in shown):
        lines.append("Hollow square: a stand-in runtime; its latency is not the device's.")
    if any(basis_of(row) == Basis.HERE and not row.baseline for row in shown):
        lines.append("Latencies of this machine do not tell how fast a device is.")
    if missing := max(0, len({row.device for row in shown}) - MOST_PANELS):
        lines.append(f"{missing} more devices are only in the table.")
    return " ".join(lines)


def _row_panels(rows: Sequence[Summary]) -> list[tuple[str, list[int]]]:
    """Return each device with the positions of its rows that have a latency; the devices with most rows."""
    found: dict[str, list[int]] = {}
    for n, row in enumerate(rows):
        if row.p50_ms is not None:
            found.setdefault(row.device, []).append(n)
    kept = sorted(found, key=lambda name: -len(found[name]))[:MOST_PANELS]
    return [(name, numbers) for name, numbers in found.items() if name in kept]


def _draw_points(axes: Any, rows: Sequence[Summary], numbers: Sequence[int]) -> None:
    shown = [rows[n] for n in numbers]
    front = [numbers[n] for n in pareto_front(shown)]
    if len(front) > 1:
        x, y = [per_image_ms(rows[n]) for n in front], [rows[n].score for n in front]
        axes.plot(x, y, color=svg.INK, linewidth=1, alpha=0.6, drawstyle="steps-post")
    for n in numbers:
        _draw_point(axes, rows[n], n in front)
    log_ticks(axes, [per_image_ms(row) for row in shown])
    axes.grid()
    axes.margins(0.08, 0.12)
    _draw_numbers(axes, rows, sorted(numbers, key=lambda n: (n not in front, not rows[n].baseline, n)))


def _draw_point(axes: Any, row: Summary, leads: bool) -> None:
    color = svg.INK if row.baseline else COLORS[row.precision]
    marker = "D" if row.baseline else "s" if row.stand_in else "o"
    low, high = row.score_interval
    y_error = [[row.score - low], [high - row.score]]
    p50, x = quantile(row, 50), per_image_ms(row)
    x_error = None
    if p50 and p50.low_ms is not None and p50.high_ms is not None:
        x_error = [[max(0.0, x - p50.low_ms / row.batch)], [max(0.0, p50.high_ms / row.batch - x)]]
    axes.errorbar(
        x, row.score, y_error, x_error, fmt=marker, color=color, mfc="none" if row.stand_in else color,
        alpha=1.0 if leads or row.baseline else _FAINT, capsize=2, markersize=6 if leads else 5, elinewidth=0.9,
        zorder=3 if leads else 2,
    )  # fmt: skip


def _draw_numbers(axes: Any, rows: Sequence[Summary], order: Sequence[int]) -> None:
    """Write the rows' numbers in this order; one that would cover another is left out."""
    axes.figure.draw_without_rendering()
    width, height = _LABEL
    taken: list[tuple[float, float]] = []
    for n in order:
        point = per_image_ms(rows[n]), rows[n].score
        x, y = axes.transData.transform(point) * 72 / axes.figure.dpi
        for dx, dy in ((4, 4), (4, -12), (-14, 4), (-14, -12)):
            corner = float(x) + dx, float(y) + dy
            if all(abs(corner[0] - left) >= width or abs(corner[1] - low) >= height for left, low in taken):
                taken.append(corner)
                axes.annotate(str(n + 1), point, (dx, dy), textcoords="offset points", fontsize=9)
                break


def log_ticks(axes: Any, values: Sequence[float]) -> None:
    """Give the x axis a logarithmic scale with readable ticks, also where all values are nearly equal."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    low, high = min(values), max(values)
    if high < 1.8 * low:  # a logarithmic axis would have no tick
        middle = math.sqrt(low * high)
        axes.set_xlim(middle / 2.2, middle * 2.2)
    subs = (1, 2, 5) if high > 6 * low else (1, 1.5, 2, 3, 5, 7)
    axes.xaxis.set_major_locator(LogLocator(subs=subs) if high > 0 else FixedLocator([1]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


# Distributions of latencies.


def with_latencies(results: Sequence[BenchmarkResult]) -> list[BenchmarkResult]:
    """Return the results with meaningful latencies: not those of emulators."""
    return [r for r in results if r.source != "emulated" and len(r.latencies_ns) > 1 and min(r.latencies_ns) > 0]


def drawn(results: Sequence[BenchmarkResult], rows: Sequence[Summary]) -> list[BenchmarkResult]:
    """Return the results whose distribution is drawn: those with latencies, without stand-ins."""
    return [r for r in with_latencies(results) if not ((row := row_of(r, rows)) and row.stand_in)]


def row_of(result: BenchmarkResult, rows: Sequence[Summary]) -> Summary | None:
    """Return the row that was computed from a result."""
    ran_in = f"{result.environment.runtime} {result.environment.version}"
    name, device = result.artifact.name, result.device
    return next((row for row in rows if (row.artifact, row.device, row.ran_in) == (name, device, ran_in)), None)


def ecdf(results: Sequence[BenchmarkResult], rows: Sequence[Summary] = ()) -> str:
    """Draw the empirical distribution functions of the latencies, one panel a device; empty if there are none."""
    panels = _result_panels(drawn(results, rows))
    if not panels:
        return ""
    columns = min(len(panels), 2)
    lines = math.ceil(len(panels) / columns)
    with svg.drawing(_WIDTH[columns], 0.3 + 3.5 * lines) as figure:
        grid = figure.subplots(lines, columns, squeeze=False).flatten()
        for axes, (title, found) in zip(grid, panels):
            axes.set_title(svg.shortened(visible(title), 40), fontsize=9)
            _draw_curves(axes, found)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        grid[0].set_ylabel("share of queries, %")
        figure.supxlabel("latency, milliseconds (log scale)", fontsize=9)
        return svg.to_svg(figure, "distribution of latencies by device; the table below has the percentiles")


def ecdf_text(results: Sequence[BenchmarkResult], rows: Sequence[Summary]) -> str:
    """Explain the marks that occur in the picture of `ecdf`."""
    found = drawn(results, rows)
    sizes = [len(group) for _, group in _result_panels(found)]
    lines = ["Share of queries with at most this latency."]
    if any(size <= MOST_DISTINCT for size in sizes):
        lines.append("Marks: p50 (circle), p90 (triangle) and p99 (square) of the measured queries.")
    lines.append("A steep curve is a steady latency; a long tail to the right is what users notice. Each precision has "
                 "one colour.")  # fmt: skip
    if any(size > MOST_DISTINCT for size in sizes):
        lines.append(f"On devices with more than {MOST_DISTINCT} models the curves show the precision only.")
    if len(found) < len(with_latencies(results)):
        lines.append("Stand-ins are not drawn.")
    return " ".join(lines)


def _result_panels(found: Sequence[BenchmarkResult]) -> list[tuple[str, list[BenchmarkResult]]]:
    devices: dict[str, list[BenchmarkResult]] = {}
    for result in found:
        devices.setdefault(result.device, []).append(result)
    kept = sorted(devices, key=lambda name: -len(devices[name]))[:MOST_PANELS]
    return [(name, group) for name, group in devices.items() if name in kept]


def _draw_curves(axes: Any, found: Sequence[BenchmarkResult]) -> None:
    import numpy as np

    distinct = len(found) <= MOST_DISTINCT
    named: set[str] = set()
    low, high = [], []
    seen: dict[str, int] = {}
    for result in found:
        times = np.percentile(result.latencies_ns.astype(np.float64) / 1e6, _SHARES)
        precision = "baseline" if is_baseline(result) else result.artifact.precision
        color = COLORS.get(precision, svg.INK)
        n = seen[precision] = seen.get(precision, -1) + 1
        label = svg.shortened(visible(result.artifact.name), 30) if distinct else precision
        style = {"color": color, "linewidth": 0.8, "alpha": 0.6}
        if distinct:
            alpha = 1.0 if n < len(_STYLES) else 0.55
            style = {"color": color, "linewidth": 1.4, "alpha": alpha, "linestyle": _STYLES[n % len(_STYLES)]}
        axes.plot(times, _SHARES, label="_" if label in named else label, **style)
        named.add(label)
        for share, marker in _MARKED.items():
            if distinct:
                axes.plot(times[_SHARES.index(share)], share, marker, color=color, markersize=4)
        low.append(times[0])
        high.append(times[-1])
    for share in _MARKED:
        axes.axhline(share, color=svg.INK, linewidth=0.5, alpha=0.4)
    log_ticks(axes, [*low, *high])
    axes.set_yticks([0, 25, 50, 75, 90, 99])
    axes.grid(axis="x")
    longest = max(map(len, named), default=0)
    axes.legend(
        fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2 if longest <= _TWO_COLUMNS else 1,
        handlelength=2.6, labelspacing=0.3,
    )  # fmt: skip


def percentiles(results: Sequence[BenchmarkResult], rows: Sequence[Summary] = ()) -> Table:
    """Return the table of the distributions; p90, p95 and p99 are the early-stopping estimates."""
    import numpy as np

    lines = []
    for r in with_latencies(results):
        times = r.latencies_ns.astype(np.float64) / 1e6
        p50 = float(np.percentile(times, 50))
        estimates = [latency(estimate(row_of(r, rows), p)) for p in ESTIMATED]
        values = [latency(float(v)) for v in (times.min(), np.percentile(times, 10), p50)]
        lines.append((r.artifact.name, r.device, str(len(times)), *values, *estimates, latency(float(times.max())),
                      f"{float(times.max()) / p50:.1f}"))  # fmt: skip
    found = plain("Percentiles of the measured queries, milliseconds", COLUMNS, lines, left=2)
    note = "p90, p95, p99: early-stopping estimates, as in the table of figures; -: insufficient samples"
    return replace(found, notes=(note,))


def estimate(row: Summary | None, percent: float) -> float | None:
    """Return the early-stopping estimate of p90, p95 or p99; None if there are too few samples."""
    if row is None or row.source == "emulated":
        return None
    found = quantile(row, percent)
    return {90: row.p90_ms, 99: row.p99_ms}.get(int(percent), found.bound_ms if found else None)


# Sizes and energy.


def size_chart(rows: Sequence[Summary]) -> str:
    """Draw the sizes of the artifacts as bars; empty if there are fewer than two."""
    return _bar_chart(sizes(rows), "megabytes", "size")


def energy_chart(rows: Sequence[Summary]) -> str:
    """Draw the energy of one image as bars; empty if there are fewer than two."""
    return _bar_chart(energies(rows), "millijoules per image, including idle power", "energy")


def _bar_chart(bars: Sequence[Bar], unit: str, what: str) -> str:
    bars = bars[:MOST_BARS]
    if len(bars) < 2:
        return ""
    with svg.drawing(_WIDTH[1], 0.7 + 0.21 * len(bars)) as figure:
        axes = figure.add_subplot()
        values, positions = [bar.value for bar in bars], range(len(bars))
        axes.barh(positions, values, 0.7, color=[COLORS.get(bar.kind, svg.INK) for bar in bars])
        axes.set_yticks(positions, [svg.shortened(visible(bar.name), 32) for bar in bars], fontsize=9)
        for y, value in zip(positions, values):
            axes.annotate(latency(value), (value, y), (4, 0), textcoords="offset points", va="center", fontsize=9)
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_xlim(0, 1.2 * max(values))
        axes.set_xlabel(unit)
        axes.grid(axis="x")
        return svg.to_svg(figure, f"{what} of every artifact; the figures table has the numbers")


def sizes(rows: Sequence[Summary]) -> list[Bar]:
    """Return the size of each file or engine, the largest first; equal sizes of one precision are one bar."""
    found: dict[tuple[str, float], list[str]] = {}
    for row in rows:
        names = found.setdefault((_bar_kind(row), round(row.size_mb, 2)), [])
        if row.artifact not in names:
            names.append(row.artifact)
    bars = [
        Bar(names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else ""), size, kind)
        for (kind, size), names in found.items()
    ]
    return sorted(bars, key=lambda bar: (-bar.value, bar.name))


def energies(rows: Sequence[Summary]) -> list[Bar]:
    """Return the energy of one image of each artifact that has it, the least first."""
    measured = [row for row in rows if row.gross_mj is not None]
    one_device = len({row.device for row in measured}) == 1
    bars = [
        Bar(row.artifact if one_device else f"{row.artifact} on {row.device}", row.gross_mj or 0.0, _bar_kind(row))
        for row in measured
    ]
    return sorted(bars, key=lambda bar: (bar.value, bar.name))


def energy_table(rows: Sequence[Summary]) -> Table:
    """Return the table of the energy of one image."""
    columns = ("model", "device", "rail", "power mode", "idle W", "mJ per image", "mJ net of idle")
    cells = [
        (r.artifact, r.device, r.rail or "-", str(r.state.get("power_mode", "-")),
         number(None if r.idle_mw is None else r.idle_mw / 1000, 2), latency(r.gross_mj), latency(r.net_mj))
        for r in rows if r.gross_mj is not None
    ]  # fmt: skip
    return plain("Energy of one image, by the board's own sensors", columns, cells, left=4)


def _bar_kind(row: Summary) -> str:
    return "baseline" if row.baseline else row.precision
