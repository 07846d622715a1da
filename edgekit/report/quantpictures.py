"""The picture of ``edgekit quant debug``: every layer's error, and what the chosen ranges cover."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekit.report import svg

MOST_HISTOGRAMS = 12
_COLUMNS = 3
_WIDTH, _ROW, _HISTOGRAM = 9.5, 0.165, 1.55  # inches: the picture; a layer; a row of histograms
_LONGEST, _LONGEST_TITLE = 42, 28  # characters of a name
_RANKED = 5
_EXACT_DB = 150.0  # stands for no error


def inspection(found: Mapping[str, Any]) -> str:
    """Layers in the order of the network, and the ranges of the most sensitive tensors, as an ``<svg>`` element.

    Args:
        found: what debug-<target>.json holds: `quant.debug.Inspection` as plain values, and of which run.
    """
    whole = found["effect"]
    title = f"{found['run']} for {found['target']}: INT8 against float on {found['images']} images. Logits: "
    title += f"{whole['logits']['sqnr_db']:.1f} dB, {100 * whole['changed']:.0f} % other top-1"
    layers = sorted(found["layers"], key=lambda layer: layer["position"])
    tensors = found["tensors"][:MOST_HISTOGRAMS]
    above, below = 1.4 + _ROW * len(layers), 0.35 + _HISTOGRAM * -(-len(tensors) // _COLUMNS)
    with svg.drawing(_WIDTH, above + below) as figure:
        upper, lower = figure.subfigures(2, 1, height_ratios=(above, below))
        figure.suptitle(title, fontsize=10)
        _layers(upper, layers, [layer["name"] for layer in found["layers"]])
        _histograms(lower, tensors)
        return svg.to_svg(figure, "error of every layer, and ranges of the most sensitive tensors")


def error_percent(sqnr_db: float) -> float:
    """The root mean square of the error, in percent of that of the signal."""
    return 0.0 if sqnr_db >= _EXACT_DB else float(100 * 10 ** (-sqnr_db / 20))


def _layers(figure: Any, layers: Sequence[Mapping[str, Any]], ranking: Sequence[str]) -> None:
    """Left: SQNR of weights and outputs. Right: what each layer alone does to the logits."""
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    rows = np.arange(len(layers))
    values = {key: np.array([_drawn(layer[key]["sqnr_db"]) for layer in layers]) for key in ("alone", "accumulated")}
    left.hlines(rows, values["accumulated"], values["alone"], color=svg.INK, alpha=0.3, linewidth=0.8)
    weights = [_drawn(layer["weight"]["sqnr_db"]) for layer in layers]
    left.scatter(weights, rows, 16, svg.GREEN, marker="|", label="weights", zorder=3)
    left.scatter(values["alone"], rows, 14, svg.BLUE, label="outputs, this layer alone")
    left.scatter(values["accumulated"], rows, 14, svg.RED, marker="D", label="outputs, all before it too")
    left.set_yticks(rows, [_name(layer) for layer in layers], fontsize=7)
    left.set_ylim(len(layers) - 0.4, -0.6)
    note = "" if all(layer["int8"] for layer in layers) else "\n(float): no INT8 here; rounded weights if marked green"
    left.set_xlabel(f"SQNR, dB (more is better){note}")
    left.grid(axis="both", linewidth=0.5)
    left.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8, columnspacing=1, handletextpad=0.2)
    errors = [error_percent(layer["effect"]["logits"]["sqnr_db"]) for layer in layers]
    worst = set(ranking[:_RANKED])
    right.barh(rows, errors, 0.7, color=[svg.RED if layer["name"] in worst else svg.BLUE for layer in layers])
    for row, (layer, error) in enumerate(zip(layers, errors)):
        if text := _remark(layer, ranking):
            right.text(error, row, f"  {text}", fontsize=7, va="center")
    right.tick_params(axis="y", labelleft=False, length=0)
    right.set_xlim(0, 1.6 * max(errors, default=0.0) or 1.0)
    right.set_xlabel("error of the logits, % (this layer alone)")
    right.set_title(f"sensitivity; the worst {min(_RANKED, len(layers))} in red", fontsize=8)
    right.grid(axis="x", linewidth=0.5)


def _remark(layer: Mapping[str, Any], ranking: Sequence[str]) -> str:
    """What stands beside a bar: the rank of the worst, and how many top-1 answers are others."""
    rank, changed = ranking.index(layer["name"]) + 1, layer["effect"]["changed"]
    parts = [f"#{rank}"] if rank <= _RANKED else []
    return ", ".join([*parts, f"{100 * changed:.0f} % other top-1"] if changed else parts)


def _drawn(sqnr_db: float) -> float:
    """No error at all has no place on the axis."""
    return float("nan") if abs(sqnr_db) >= _EXACT_DB else sqnr_db


def _name(layer: Mapping[str, Any]) -> str:
    return _end(layer["name"], _LONGEST) + ("" if layer["int8"] else " (float)")


def _end(name: str, longest: int) -> str:
    """The end of a name tells layers apart."""
    return name if len(name) <= longest else "…" + name[1 - longest :]


def _histograms(figure: Any, tensors: Sequence[Mapping[str, Any]]) -> None:
    """What each tensor was seen to hold, counts on a logarithmic scale; the chosen range between two lines."""
    if not tensors:
        return
    figure.suptitle(
        "values of the most sensitive tensors (counts, logarithmic) and their chosen ranges (red); "
        "values clipped, SQNR of the logits when this tensor alone is rounded",
        fontsize=8,
    )
    grid = figure.subplots(-(-len(tensors) // _COLUMNS), _COLUMNS, squeeze=False).flatten()
    for axes, tensor in zip(grid, tensors):
        bins = tensor["bins"]
        edges = bins["start"] + bins["width"] * np.arange(len(bins["counts"]) + 1)
        axes.stairs(bins["counts"], edges, fill=True, color=svg.BLUE, alpha=0.7)
        axes.set_yscale("log", nonpositive="clip")
        axes.set_ylim(0.7, 2 * max(bins["counts"]))
        for side in ("low", "high"):
            axes.axvline(tensor[side], color=svg.RED, linewidth=1.2)
        axes.set_title(_end(tensor["name"], _LONGEST_TITLE), fontsize=7.5, loc="left", pad=3)
        axes.set_title(_figures(tensor), fontsize=6.5, loc="right", pad=3)
        axes.margins(x=0.03)
        axes.tick_params(labelsize=7, length=2)
        axes.tick_params(axis="y", which="both", labelleft=False, left=False)
    for axes in grid[len(tensors) :]:
        axes.set_visible(False)


def _figures(tensor: Mapping[str, Any]) -> str:
    clipped = f"{100 * tensor['clipped']:.2g} % clipped" if tensor["clipped"] else "none clipped"
    return f"{clipped}, {tensor['effect']['logits']['sqnr_db']:.0f} dB"
