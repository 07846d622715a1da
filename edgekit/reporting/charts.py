"""The accuracy/latency picture: one panel a device, intervals both ways, the front drawn; SVG without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from edgekit.labels import visible
from edgekit.measurements import BenchmarkResult, Summary
from edgekit.reporting import svg
from edgekit.reporting.changes import is_baseline
from edgekit.reporting.decide import kind_of, pareto_front, per_image_ms, quantile
from edgekit.reporting.tables import Table, latency, number, plain

COLORS = {"fp32": svg.BLUE, "fp16": svg.YELLOW, "int8": svg.RED, "w8": svg.GREEN, "16x8": svg.PURPLE}
MOST_PANELS = 12
_FAINT = 0.5
_LABEL = 13, 9  # pixels that a number takes at 72 an inch, wide and high


def accuracy_latency(rows: Sequence[Summary]) -> str:
    """Top-1 against p50 of one image, each with its 95 % interval, as an ``<svg>`` element.

    Points carry the row's number where there is room. What another one of its device beats in both is faint.
    """
    panels = _panels(rows)
    columns = min(len(panels), 2) or 1
    high = 3.4 if columns == 1 else 2.9
    with svg.drawing(8, 0.3 + high * max(1, math.ceil(len(panels) / columns))) as figure:
        grid = figure.subplots(max(1, math.ceil(len(panels) / columns)), columns, squeeze=False, sharey=True).flatten()
        for axes, (title, numbers) in zip(grid, panels):
            if len(panels) > 1:
                axes.set_title(svg.shortened(visible(title), 40), fontsize=9)
            _panel(axes, rows, numbers)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
        grid[0].set_ylabel("top-1 on the test split, %")
        figure.supxlabel("p50 latency of one image, milliseconds (log scale)", fontsize=9)
        return svg.to_svg(figure, "accuracy against latency by device; the table of figures has every number")


def left_out(rows: Sequence[Summary]) -> int:
    """How many devices have no panel."""
    return max(0, len({row.device for row in rows if row.p50_ms is not None}) - MOST_PANELS)


def _panels(rows: Sequence[Summary]) -> list[tuple[str, list[int]]]:
    """Device -> the positions of its rows that have a latency; the devices with most rows."""
    found: dict[str, list[int]] = {}
    for n, row in enumerate(rows):
        if row.p50_ms is not None:
            found.setdefault(row.device, []).append(n)
    kept = sorted(found, key=lambda name: -len(found[name]))[:MOST_PANELS]
    return [(name, numbers) for name, numbers in found.items() if name in kept]


def _panel(axes: Any, rows: Sequence[Summary], numbers: Sequence[int]) -> None:
    shown = [rows[n] for n in numbers]
    best = [numbers[n] for n in pareto_front(shown)]
    x = [per_image_ms(rows[n]) for n in best]
    if len(best) > 1:
        axes.plot(x, [rows[n].top1 for n in best], color=svg.INK, linewidth=1, alpha=0.6, drawstyle="steps-post")
    for n in numbers:
        _point(axes, rows[n], n in best)
    log_ticks(axes, [per_image_ms(row) for row in shown])
    axes.grid()
    axes.margins(0.08, 0.12)
    _numbers(axes, rows, sorted(numbers, key=lambda n: (n not in best, not rows[n].baseline, n)))


def _point(axes: Any, row: Summary, leads: bool) -> None:
    color = svg.INK if row.baseline else COLORS[row.precision]
    marker = "D" if row.baseline else "s" if row.stand_in else "o"
    up = [[row.top1 - row.top1_low], [row.top1_high - row.top1]]
    p50, x = quantile(row, 50), per_image_ms(row)
    side = None
    if p50 and p50.low_ms is not None and p50.high_ms is not None:
        side = [[max(0.0, x - p50.low_ms / row.batch)], [max(0.0, p50.high_ms / row.batch - x)]]
    faint = 1.0 if leads or row.baseline else _FAINT
    axes.errorbar(
        x, row.top1, up, side, fmt=marker, color=color, mfc="none" if row.stand_in else color, alpha=faint,
        capsize=2, markersize=6 if leads else 5, elinewidth=0.9, zorder=3 if leads else 2,
    )  # fmt: skip


def log_ticks(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic x axis that has readable numbers also where all values are nearly equal."""
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


def _numbers(axes: Any, rows: Sequence[Summary], order: Sequence[int]) -> None:
    """The rows' numbers, the leading ones first; one that would lie over another is left out."""
    axes.figure.draw_without_rendering()
    width, height = _LABEL
    taken: list[tuple[float, float]] = []
    for n in order:
        at = axes.transData.transform((per_image_ms(rows[n]), rows[n].top1)) * 72 / axes.figure.dpi
        for dx, dy in ((4, 4), (4, -12), (-14, 4), (-14, -12)):
            place = float(at[0]) + dx, float(at[1]) + dy
            if all(abs(place[0] - x) >= width or abs(place[1] - y) >= height for x, y in taken):
                taken.append(place)
                text = str(n + 1)
                axes.annotate(
                    text, (per_image_ms(rows[n]), rows[n].top1), (dx, dy), textcoords="offset points", fontsize=8
                )
                break


def accuracy_latency_text(rows: Sequence[Summary]) -> str:
    """How the picture is read: only of the signs that are in it."""
    shown = [row for row in rows if row.p50_ms is not None]
    signs = {"fp32": "blue FP32", "fp16": "yellow FP16", "int8": "red INT8", "w8": "green W8", "16x8": "purple 16x8"}
    colors = [signs[name] for name in signs if any(row.precision == name and not row.baseline for row in shown)]
    lines = [f"Numbers are the rows of the table of figures. Diamond: baseline; {', '.join(colors)}." if colors else ""]
    lines.append(
        "Bars: 95 % intervals. The line is the front; what another artifact of its device beats in both is faint."
    )
    if any(row.stand_in for row in shown):
        lines.append("Hollow square: a stand-in runtime, whose latency does not count.")
    if any(kind_of(row) == "this machine" and not row.baseline for row in shown):
        lines.append("What was measured on this machine says nothing of how fast a device is.")
    if number := left_out(rows):
        lines.append(f"{number} more devices are in the table alone.")
    return " ".join(filter(None, lines))


# Pictures of latency distributions, sizes and energy, and the tables that say the same.

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


def distributions_text(results: Sequence[BenchmarkResult], rows: Sequence[Summary]) -> str:
    """How the picture is read: only of the signs that are in it."""
    found = drawn(results, rows)
    panels = [group for _, group in _panels_distributions(found)]
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


def _panels_distributions(found: Sequence[BenchmarkResult]) -> list[tuple[str, list[BenchmarkResult]]]:
    devices: dict[str, list[BenchmarkResult]] = {}
    for result in found:
        devices.setdefault(result.device, []).append(result)
    kept = sorted(devices, key=lambda name: -len(devices[name]))[:MOST_PANELS]
    return [(name, group) for name, group in devices.items() if name in kept]


def ecdf(results: Sequence[BenchmarkResult], rows: Sequence[Summary] = ()) -> str:
    """The share of queries that are at most so slow, one panel a device, as an ``<svg>`` element; else empty."""
    panels = _panels_distributions(drawn(results, rows))
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
