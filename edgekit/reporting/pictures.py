"""Pictures of training, evaluation and quantization.

Charts are ``<svg>`` elements for the page (`svg.standalone` turns them into files), grids of images are PNG. Class
names may be anything that `labels.check_label` allows; they are shortened and drawn as plain text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import files
from edgekit.records import SPLITS, DatasetIndex
from edgekit.reporting import svg
from edgekit.scores import Calibration, Evaluation, Mistake

# Above these numbers of classes a picture has no counts, and no names.
MOST_COUNTED, MOST_NAMED = 20, 60
_SPLITS = {"train": svg.BLUE, "val": svg.YELLOW, "test": svg.RED}
# Grids of images: pixels of an image and between two; images in a row.
_TILE, _GAP, _COLUMNS = 96, 8, 8
# The picture of ``edgekit quant debug``.
MOST_HISTOGRAMS = 12
_HISTOGRAM_COLUMNS = 3
_WIDTH, _ROW, _HISTOGRAM = 9.5, 0.165, 1.55  # inches: width; height of a layer; height of a row of histograms
_LONGEST, _LONGEST_TITLE = 42, 28  # characters of a name
_RANKED = 5
_EXACT_DB = 150.0  # from here on there is no error


def learning_curves(history: Sequence[Mapping[str, Any]]) -> str:
    """Draw loss, accuracy and learning rate by epoch; figures that the entries lack are left out."""
    panels = {
        "loss": {"train_loss": ("train", svg.BLUE), "val_loss": ("val", svg.RED)},
        "val, %": {"val_top1": ("top-1", svg.BLUE), "val_macro_f1": ("macro F1", svg.GREEN)},
        "learning rate": {"lr": ("", svg.YELLOW)},
    }
    present = {title: lines for title, lines in panels.items() if any(_series(history, key)[0] for key in lines)}
    with svg.drawing(2.7 * max(2, len(present)), 2.7) as figure:
        best = max((entry["epoch"] for entry in history if entry.get("best")), default=None)
        for number, (title, lines) in enumerate(present.items(), 1):
            axes = figure.add_subplot(1, len(present), number)
            for key, (label, color) in lines.items():
                epochs, values = _series(history, key)
                if epochs:
                    marker = "o" if len(epochs) <= 30 else ""
                    axes.plot(epochs, values, marker=marker, markersize=3.5, color=color, label=label)
            if best is not None and title != "learning rate":
                axes.axvline(best, color=svg.INK, linewidth=0.8, linestyle=":", label="kept")
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            axes.grid()
            if any(label for label, _ in lines.values()):
                axes.legend()
        return svg.to_svg(figure, "learning curves; the table below has the figures")


def class_counts(labels: Sequence[str], counts: Mapping[str, Sequence[int]]) -> str:
    """Draw the number of images of each class; `counts` has one number per label for each split."""
    named = len(labels) <= MOST_NAMED
    with svg.drawing(6.5, max(2.0, 0.9 + 0.24 * len(labels)) if named else 3.4) as figure:
        axes = figure.add_subplot()
        order = np.arange(len(labels)) if named else np.argsort(-np.sum(list(counts.values()), 0), kind="stable")
        drawn = np.zeros(len(labels))
        for split, numbers in counts.items():
            values = np.asarray(numbers)[order]
            color = _SPLITS.get(split, svg.INK)
            if named:
                axes.barh(range(len(labels)), values, 0.8, drawn, color=color, label=split)
            else:
                edges = np.arange(len(labels) + 1) - 0.5
                axes.stairs(drawn + values, edges, baseline=drawn.copy(), fill=True, color=color, label=split)
            drawn += values
        if named:
            axes.set_yticks(range(len(labels)), [svg.shortened(name, 28) for name in labels])
            axes.set_ylim(len(labels) - 0.4, -0.6)
            axes.set_xlabel("images")
        else:
            axes.set_xlabel(f"{len(labels)} classes, the largest first")
            axes.set_ylabel("images")
            axes.set_xlim(-0.5, len(labels) - 0.5)
        axes.grid(axis="x" if named else "y")
        axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return svg.to_svg(figure, "images per class and split")


def confusion(cells: Sequence[Sequence[int]], labels: Sequence[str]) -> str:
    """Draw the confusion matrix, normalized by class; `cells` as in `scores.Scores`.

    Up to `MOST_COUNTED` classes the cells have their counts, up to `MOST_NAMED` the axes have the names.
    """
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    count = len(labels)
    matrix = np.zeros((count, count), np.int64)
    for row, column, images in cells:
        matrix[row, column] = images
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    # From transparent to blue, for light and dark backgrounds.
    blues = LinearSegmentedColormap.from_list("blues", [(0.27, 0.47, 0.67, 0.0), (0.27, 0.47, 0.67, 0.9)])
    side = min(8.0, max(3.6, 1.8 + 0.34 * count))
    with svg.drawing(side + 0.9, side) as figure:
        axes = figure.add_subplot()
        image = axes.imshow(shares, cmap=blues, norm=PowerNorm(0.6, 0, 1), interpolation="none")
        if count <= MOST_NAMED:
            size = 9 if count <= 30 else 6
            names = [svg.shortened(name, 16) for name in labels]
            axes.set_xticks(range(count), names, rotation=90, fontsize=size)
            axes.set_yticks(range(count), names, fontsize=size)
        if count <= MOST_COUNTED:
            for row, column in np.argwhere(matrix):
                axes.text(column, row, str(matrix[row, column]), ha="center", va="center", fontsize=9)
        numbered = "" if count <= MOST_NAMED else ", number in the table below"
        axes.set_xlabel(f"predicted{numbered}")
        axes.set_ylabel(f"true{numbered}")
        bar = figure.colorbar(image, ax=axes, shrink=0.6, label="share of the class's images")
        bar.outline.set_visible(False)
        return svg.to_svg(figure, "confusion matrix on the test split")


def reliability(curves: Mapping[str, Calibration]) -> str:
    """Draw accuracy against confidence, and the number of answers by confidence; one curve per entry."""
    colors = dict(zip(curves, (svg.RED, svg.BLUE, svg.GREEN)))
    with svg.drawing(8, 4.4) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1))
        left.plot([0, 100], [0, 100], color=svg.INK, linewidth=0.8, linestyle="--", label="ideal")
        for name, found in curves.items():
            used = [b for b in found.bins if b.confidence is not None and b.accuracy is not None]
            x = [100 * (b.confidence or 0.0) for b in used]
            y = [100 * (b.accuracy or 0.0) for b in used]
            left.plot(x, y, color=colors[name], linewidth=1)
            most = max((b.count for b in used), default=1)
            sizes = [8 + 50 * b.count / most for b in used]
            left.scatter(x, y, sizes, colors[name], label=f"{name}: ECE {found.ece:.1f} %")
            edges = [100 * b.low for b in found.bins] + [100.0]
            right.stairs([b.count for b in found.bins], edges, color=colors[name], linewidth=1.5, label=name)
        left.set_xlabel("confidence, %")
        left.set_ylabel("right answers, %")
        right.set_xlabel("confidence, %")
        right.set_ylabel("images")
        for axes in (left, right):
            axes.set_xlim(0, 101)
            axes.grid()
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=9)
        return svg.to_svg(figure, "reliability: confidence against accuracy on the test split")


def samples(pixels: np.ndarray, labels: Sequence[str]) -> bytes:
    """Return a PNG with augmented training images, uint8 (N, H, W, 3), and their labels."""
    return _grid(pixels, [[svg.shortened(label, 15)] for label in labels])


def mistakes(pixels: np.ndarray, found: Sequence[Mistake], labels: Sequence[str]) -> bytes:
    """Return a PNG with wrongly classified images, uint8 (N, H, W, 3): true label, prediction, confidence."""
    return _grid(
        pixels,
        [
            [
                svg.shortened(labels[m.label], 15),
                "-> " + svg.shortened(labels[m.predicted], 12),
                f"{100 * m.confidence:.0f} % sure",
            ]
            for m in found
        ],
    )


def draw_all(
    history: Sequence[Mapping[str, Any]], data: DatasetIndex | None, evaluation: Evaluation | None
) -> dict[str, str | bytes]:
    """Draw the pictures of a run except the samples; returns SVG elements and PNG files by file name."""
    drawn: dict[str, str | bytes] = {}
    if history:
        drawn["learning_curves.svg"] = learning_curves(history)
    if data:
        splits = {name: [s.label for s in data.split(name)] for name in SPLITS}
        counts = {name: np.bincount(found, minlength=len(data.labels)).tolist() for name, found in splits.items()}
        drawn["classes.svg"] = class_counts(data.labels, counts)
    if evaluation:
        test = evaluation.splits["test"]
        drawn["confusion.svg"] = confusion(test.scores.confusion, evaluation.labels)
        kinds = {"as trained": test.before, "temperature": test.after, "dropout": test.dropout}
        drawn["reliability.svg"] = reliability({name: found for name, found in kinds.items() if found})
        if evaluation.mistakes:
            drawn["mistakes.png"] = mistakes(evaluation.raw["mistake_pixels"], evaluation.mistakes, evaluation.labels)
    return drawn


def save(folder: Path, drawn: Mapping[str, str | bytes]) -> None:
    """Write pictures to files; SVG elements become dark on white."""
    for name, picture in drawn.items():
        content = svg.standalone(picture).encode() if isinstance(picture, str) else picture
        files.save_bytes(folder / name, content)


def _series(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Return the epochs that have a number under `key`, and the numbers."""
    found = [(entry["epoch"], entry[key]) for entry in history if isinstance(entry.get(key), int | float)]
    return [epoch for epoch, _ in found], [value for _, value in found]


def _grid(pixels: np.ndarray, captions: Sequence[Sequence[str]]) -> bytes:
    """Return a PNG of square images in a grid, each with the lines of its caption below."""
    from PIL import Image

    lines = max(map(len, captions), default=1)
    columns, rows = min(_COLUMNS, max(1, len(pixels))), max(1, math.ceil(len(pixels) / _COLUMNS))
    wide, high = _TILE + _GAP, _TILE + _GAP + 12 * lines
    canvas = np.full((rows * high + _GAP, columns * wide + _GAP, 3), 255, np.uint8)
    for number, image in enumerate(pixels):
        row, column = divmod(number, _COLUMNS)
        top, left = _GAP + row * high, _GAP + column * wide
        canvas[top : top + _TILE, left : left + _TILE] = np.asarray(Image.fromarray(image).resize((_TILE, _TILE)))
    with svg.drawing(canvas.shape[1] / 100, canvas.shape[0] / 100, ink="#1c2024") as figure:
        figure.set_layout_engine("none")
        figure.figimage(canvas)
        for number, caption in enumerate(captions):
            row, column = divmod(number, _COLUMNS)
            for line, text in enumerate(caption):
                x, y = _GAP + column * wide, _GAP + row * high + _TILE + 10 + 12 * line
                figure.text(x / canvas.shape[1], 1 - y / canvas.shape[0], text, fontsize=6.5, va="baseline")
        return svg.to_png(figure)


# The picture of ``edgekit quant debug``: the error of every layer, and the chosen ranges.


def inspection(found: Mapping[str, Any]) -> str:
    """Draw the errors of the layers in network order, and the ranges of the most sensitive tensors.

    Args:
        found: contents of debug-<target>.json: `quant.debug.Inspection` as plain values, and the run's name.
    """
    whole = found["effect"]
    title = f"{found['run']} for {found['target']}: INT8 against float on {found['images']} images. Logits: "
    title += f"{whole['logits']['sqnr_db']:.1f} dB, {100 * whole['changed']:.0f} % changed top-1"
    layers = sorted(found["layers"], key=lambda layer: layer["position"])
    tensors = found["tensors"][:MOST_HISTOGRAMS]
    above, below = 1.4 + _ROW * len(layers), 0.35 + _HISTOGRAM * -(-len(tensors) // _HISTOGRAM_COLUMNS)
    with svg.drawing(_WIDTH, above + below) as figure:
        upper, lower = figure.subfigures(2, 1, height_ratios=(above, below))
        figure.suptitle(title, fontsize=10)
        _layers(upper, layers, [layer["name"] for layer in found["layers"]])
        _histograms(lower, tensors)
        return svg.to_svg(figure, "error of every layer, and ranges of the most sensitive tensors")


def error_percent(sqnr_db: float) -> float:
    """Return the RMS of the error in percent of that of the signal."""
    return 0.0 if sqnr_db >= _EXACT_DB else float(100 * 10 ** (-sqnr_db / 20))


def _layers(figure: Any, layers: Sequence[Mapping[str, Any]], ranking: Sequence[str]) -> None:
    """Draw, left, the SQNR of weights and outputs; right, the effect of each layer alone on the logits."""
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    rows = np.arange(len(layers))
    values = {key: np.array([_drawn(layer[key]["sqnr_db"]) for layer in layers]) for key in ("alone", "accumulated")}
    left.hlines(rows, values["accumulated"], values["alone"], color=svg.INK, alpha=0.3, linewidth=0.8)
    weights = [_drawn(layer["weight"]["sqnr_db"]) for layer in layers]
    left.scatter(weights, rows, 16, svg.GREEN, marker="|", label="weights", zorder=3)
    left.scatter(values["alone"], rows, 14, svg.BLUE, label="outputs, only this layer quantized")
    left.scatter(values["accumulated"], rows, 14, svg.RED, marker="D", label="outputs, all layers up to it quantized")
    left.set_yticks(rows, [_name(layer) for layer in layers], fontsize=7)
    left.set_ylim(len(layers) - 0.4, -0.6)
    note = (
        "" if all(layer["int8"] for layer in layers) else "\n(float): not in INT8; weights are rounded if marked green"
    )
    left.set_xlabel(f"SQNR, dB (higher is better){note}")
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
    right.set_xlabel("error of the logits, % (only this layer quantized)")
    right.set_title(f"sensitivity; the worst {min(_RANKED, len(layers))} in red", fontsize=8)
    right.grid(axis="x", linewidth=0.5)


def _remark(layer: Mapping[str, Any], ranking: Sequence[str]) -> str:
    """Return the text beside a bar: the rank of the worst layers, and the share of changed top-1 answers."""
    rank, changed = ranking.index(layer["name"]) + 1, layer["effect"]["changed"]
    parts = [f"#{rank}"] if rank <= _RANKED else []
    return ", ".join([*parts, f"{100 * changed:.0f} % changed top-1"] if changed else parts)


def _drawn(sqnr_db: float) -> float:
    """Return NaN, which is not drawn, if there is no error at all."""
    return float("nan") if abs(sqnr_db) >= _EXACT_DB else sqnr_db


def _name(layer: Mapping[str, Any]) -> str:
    return _end(layer["name"], _LONGEST) + ("" if layer["int8"] else " (float)")


def _end(name: str, longest: int) -> str:
    """Return the end of a name, which distinguishes layers better than its start."""
    return name if len(name) <= longest else "…" + name[1 - longest :]


def _histograms(figure: Any, tensors: Sequence[Mapping[str, Any]]) -> None:
    """Draw the observed values of each tensor, with logarithmic counts and the chosen range between two lines."""
    if not tensors:
        return
    figure.suptitle(
        "values of the most sensitive tensors (logarithmic counts) and the chosen ranges (red); "
        "share of clipped values, SQNR of the logits with only this tensor rounded",
        fontsize=8,
    )
    grid = figure.subplots(-(-len(tensors) // _HISTOGRAM_COLUMNS), _HISTOGRAM_COLUMNS, squeeze=False).flatten()
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
