"""The accuracy/latency picture, as SVG without a script."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.measurements import Summary
from edgekit.report import svg

_COLORS = {"fp32": svg.BLUE, "fp16": svg.YELLOW, "int8": svg.RED, "w8": svg.GREEN, "16x8": svg.PURPLE}


def accuracy_latency(rows: Sequence[Summary]) -> str:
    """Top-1 with its 95 % interval against p50 latency, one point per row, as an ``<svg>`` element."""
    with svg.drawing(8, 4.2) as figure:
        from matplotlib.ticker import LogLocator, ScalarFormatter

        axes = figure.add_subplot()
        by_latency = sorted(range(1, len(rows) + 1), key=lambda number: rows[number - 1].p50_ms or 0.0)
        for number, row in enumerate(rows, 1):
            if row.p50_ms is None:
                continue
            error = [[row.top1 - row.top1_low], [row.top1_high - row.top1]]
            color = svg.INK if row.baseline else _COLORS[row.precision]
            marker = "D" if row.baseline else ("s" if row.stand_in else "o")
            fill = "none" if row.stand_in else color
            axes.errorbar(
                row.p50_ms, row.top1, error, fmt=marker, color=color, mfc=fill, capsize=3, markersize=7, elinewidth=1
            )
            above = by_latency.index(number) % 2 == 0  # so that the numbers of neighbours do not meet
            axes.annotate(
                str(number), (row.p50_ms, row.top1), xytext=(6, 6 if above else -13), textcoords="offset points"
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(lambda *_: "")
        axes.set_xlabel("p50 latency, milliseconds (log scale)")
        axes.set_ylabel("top-1 on the test split, %")
        axes.grid()
        return svg.to_svg(figure, "accuracy against latency; the table has the figures")
