"""The accuracy/latency picture, as SVG without a script."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from edgekit.records import Summary

# Paul Tol's bright scheme: told apart with every kind of colour vision, on light and on dark.
_COLORS = {"fp32": "#4477aa", "fp16": "#ccaa22", "int8": "#ee6677"}
# Drawn in this colour, shown in the page's text colour.
_INK = "#010203"


def accuracy_latency(rows: Sequence[Summary]) -> str:
    """Top-1 with its 95 % interval against p50 latency, one point per row, as an ``<svg>`` element."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, ScalarFormatter

    style = {"svg.fonttype": "none", "svg.hashsalt": "edgekit", "font.family": "sans-serif", "text.parse_math": False}
    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK)
    with plt.rc_context({**style, **ink}):
        figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
        by_latency = sorted(range(1, len(rows) + 1), key=lambda number: rows[number - 1].p50_ms or 0.0)
        for number, row in enumerate(rows, 1):
            if row.p50_ms is None:
                continue
            error = [[row.top1 - row.top1_low], [row.top1_high - row.top1]]
            color = _INK if row.baseline else _COLORS[row.precision]
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
        axes.set_xlabel("p50 latency on this machine, milliseconds (log scale)")
        axes.set_ylabel("top-1 on the test split, %")
        axes.grid(alpha=0.25, color=_INK)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        plt.close(figure)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    return svg.replace("<svg ", '<svg role="img" aria-label="accuracy against latency; the table has the figures" ', 1)
