"""The accuracy/latency picture: one panel a device, intervals both ways, the front drawn; SVG without a script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgekit.labels import visible
from edgekit.measurements import Summary
from edgekit.report import svg
from edgekit.report.decide import kind_of
from edgekit.report.pareto import front, per_image_ms, quantile

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
    best = [numbers[n] for n in front(shown)]
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


def says(rows: Sequence[Summary]) -> str:
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
