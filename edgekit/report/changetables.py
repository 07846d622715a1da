"""What quantization changed, as tables and a picture."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.labels import visible
from edgekit.report import svg
from edgekit.report.changes import BOTH_WRONG, BROKE, REPAIRED, Change, ClassChange
from edgekit.report.table import Rows, Table
from edgekit.report.tables import SIGNIFICANT

MOST_CLASSES, MOST_PAIRS, MOST_DRAWN, MOST_SHOWN = 10, 10, 20, 15
SUMMARY = (
    "model", "images", "other answer", "broke", "repaired", "both wrong", "drop", "p", "classes p < 0.05",
    "after Holm",
)  # fmt: skip


def summary(found: Sequence[Change]) -> Table:
    """One row per set of answers."""
    rows = [
        (_names(c.names), str(c.samples), str(len(c.answers)), str(c.count(BROKE)), str(c.count(REPAIRED)),
         str(c.count(BOTH_WRONG)), f"{c.drop:+.1f}" + ("*" if c.p_value < SIGNIFICANT else ""), f"{c.p_value:.2g}",
         str(c.suspects), str(len(c.significant)))
        for c in found
    ]  # fmt: skip
    notes = [
        "against the baseline's answers to the same images; broke: right before, wrong now",
        "* p < 0.05 (McNemar, paired)" if any(c.p_value < SIGNIFICANT for c in found) else "",
        multiple(found),
    ]
    wide = ("images", "both wrong", "p", "classes p < 0.05", "after Holm")
    rows_of = (Rows("", tuple(rows)),)
    told = tuple(filter(None, notes))
    return Table("Answers that changed", SUMMARY, rows_of, 1, wide, "", ("model",), told, MOST_SHOWN)


def multiple(found: Sequence[Change]) -> str:
    """How many classes would be called changed by chance alone."""
    classes = max((len(c.classes) for c in found), default=0)
    if not classes:
        return ""
    chance = SIGNIFICANT * classes
    return (
        f"of {classes} classes looked at one by one, up to {chance:.1f} have p < {SIGNIFICANT:g} by chance alone; "
        "after Holm: those that are significant among all"
    )


def sentence(change: Change) -> str:
    """What became of the classes."""
    moved = [c for c in change.classes if c.change]
    if not moved:
        return f"The recall of none of {len(change.classes)} classes changed."
    many = len(change.significant)
    said = f"The recall of {len(moved)} of {len(change.classes)} classes changed, of {many} significantly"
    chance = SIGNIFICANT * len(change.classes)
    return f"{said} (Holm); without that correction {change.suspects}, where chance alone gives up to {chance:.1f}."


def classes(change: Change, labels: Sequence[str], most: int = MOST_CLASSES) -> Table:
    """The classes that changed most, the worsened first."""
    moved = sorted((c for c in change.classes if c.change), key=lambda c: (c.p_corrected, -abs(c.change), c.label))
    kept = sorted(moved[:most], key=lambda c: (c.change, c.label))
    rows = [_class(c, labels) for c in kept]
    more = (
        (f"the {most} most changed of {len(moved)}; all: edgekit report --format classes",) if len(moved) > most else ()
    )
    columns = ("class", "images", "recall before %", "recall %", "change", "p", "p (Holm)")
    return Table("Recall by class", columns, (Rows("", tuple(rows)),), 1, ("images", "p"), notes=more)


def _class(c: ClassChange, labels: Sequence[str]) -> tuple[str, ...]:
    star = "*" if c.p_corrected < SIGNIFICANT else ""
    figures = f"{c.before:.1f}", f"{c.after:.1f}", f"{c.change:+.1f}{star}", f"{c.p_value:.2g}", f"{c.p_corrected:.2g}"
    return (labels[c.label], str(c.images), *figures)


def pairs(change: Change, labels: Sequence[str], most: int = MOST_PAIRS) -> Table:
    """The confusions whose count changed most: cells of the confusion matrix, its diagonal too."""
    rows = [
        (labels[p.label], labels[p.said] + (" (right)" if p.said == p.label else ""), str(p.before), str(p.after),
         f"{p.after - p.before:+d}")
        for p in change.pairs[:most]
    ]  # fmt: skip
    more = (f"the {most} most changed of {len(change.pairs)} cells",) if len(change.pairs) > most else ()
    columns = ("true class", "answer", "before", "now", "change")
    return Table("Confusion: cells that changed", columns, (Rows("", tuple(rows)),), 2, notes=more)


def picture(change: Change, labels: Sequence[str]) -> str:
    """The confusion matrix less that of the baseline, as an ``<svg>`` element; empty for many classes."""
    import numpy as np

    count = len(labels)
    if count > MOST_DRAWN or not change.pairs:
        return ""
    from matplotlib.colors import LinearSegmentedColormap

    matrix = np.zeros((count, count))
    for pair in change.pairs:
        matrix[pair.label, pair.said] = pair.after - pair.before
    red, none, blue = (0.93, 0.4, 0.47, 0.9), (0.5, 0.5, 0.5, 0.0), (0.27, 0.47, 0.67, 0.9)
    most = float(np.abs(matrix).max())
    # More on the diagonal is good, more beside it is bad: the sign of the colour is that of the effect.
    effect = np.where(np.eye(count, dtype=bool), matrix, -matrix)
    side = min(6.0, max(3.0, 1.6 + 0.26 * count))
    with svg.drawing(side + 0.4, side) as figure:
        axes = figure.add_subplot()
        axes.imshow(effect, cmap=LinearSegmentedColormap.from_list("effect", [red, none, blue]), vmin=-most, vmax=most,
                    interpolation="none")  # fmt: skip
        names = [svg.shortened(visible(name), 16) for name in labels]
        axes.set_xticks(range(count), names, rotation=90, fontsize=7)
        axes.set_yticks(range(count), names, fontsize=7)
        for row, column in np.argwhere(matrix):
            axes.text(column, row, f"{matrix[row, column]:+.0f}", ha="center", va="center", fontsize=7)
        axes.set_xlabel("answer")
        axes.set_ylabel("true class")
        return svg.to_svg(figure, "change of the confusion matrix; the table beside it has the cells")


def _names(names: Sequence[str]) -> str:
    return "; ".join(names[:3]) + (f"; and {len(names) - 3} more with the same answers" if len(names) > 3 else "")
