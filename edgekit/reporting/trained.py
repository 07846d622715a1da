"""Tables of the training and of the evaluation on the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.records import SPLITS
from edgekit.reporting.tables import Rows, Table, number, plain
from edgekit.scores import Calibration, Evaluation

# Of more than `MOST_CLASSES` classes only the `WORST` are shown; --format classes has all.
MOST_CLASSES, WORST = 100, 50
MOST_PAIRS, MOST_CONFUSED = 5, 50


def epochs(history: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of epochs; runs of older versions lack some figures."""
    columns = ("epoch", "loss", "val loss", "val top-1 %", "val macro F1 %", "learning rate", "images/s", "kept")
    rows = [
        (str(e["epoch"]), f"{e['train_loss']:.3f}", f"{e['val_loss']:.3f}", f"{e['val_top1']:.1f}",
         _figure(e.get("val_macro_f1"), ".1f"), _figure(e.get("lr"), ".2g"), f"{e['images_per_s']:.0f}",
         "best so far" if e["best"] else "")
        for e in history
    ]  # fmt: skip
    return Table("Training by epoch", columns, (Rows("", tuple(rows)),), 0)


def _figure(value: object, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) else "-"


def classes(judged: Evaluation) -> Table:
    """Return the table of precision, recall and F1 by class; of many classes, the worst by F1."""
    scores = judged.splits["test"].scores
    order = list(range(len(judged.labels)))
    few = len(order) <= MOST_CLASSES
    if not few:
        order = sorted(order, key=lambda n: (scores.classes[n].f1 is None, scores.classes[n].f1 or 0.0, n))[:WORST]
    rows = []
    for n in order:
        c = scores.classes[n]
        figures = [number(value, 1) for value in (c.precision, c.recall, c.f1)]
        rows.append((judged.labels[n], str(n), str(c.support), str(c.predicted), *figures))
    for name, a in (("(mean of classes)", scores.macro), ("(weighted by images)", scores.weighted)):
        figures = [number(value, 1) for value in (a.precision, a.recall, a.f1)]
        rows.append((name, "", str(scores.samples), "", *figures))
    columns = ("class", "#", "images", "predicted", "precision %", "recall %", "F1 %")
    caption = "Classes on the test split" + ("" if few else f": the {WORST} worst of {len(judged.labels)} by F1")
    notes = () if few else ("for all: edgekit report --format classes",)
    return Table(caption, columns, (Rows("", tuple(rows)),), 1, notes=notes)


def confused(judged: Evaluation) -> list[tuple[int, int, int]]:
    """Return (images, label, answer) of the wrong answers, the most frequent first."""
    cells = judged.splits["test"].scores.confusion
    return sorted(((n, row, column) for row, column, n in cells if row != column), reverse=True)


def pairs(judged: Evaluation) -> list[str]:
    """Return the most frequent confusions in words."""
    labels, scores = judged.labels, judged.splits["test"].scores
    return [
        f"{labels[row]} as {labels[column]}: {n} of {scores.classes[row].support}"
        for n, row, column in confused(judged)[:MOST_PAIRS]
    ]


def confusion(judged: Evaluation) -> Table:
    """Return the table of the wrong cells of the confusion matrix, the largest first."""
    found = confused(judged)
    rows = [(judged.labels[row], judged.labels[column], str(n)) for n, row, column in found[:MOST_CONFUSED]]
    more = (f"the {MOST_CONFUSED} largest of {len(found)} cells",) if len(found) > MOST_CONFUSED else ()
    return Table("Wrong answers", ("true class", "answer", "images"), (Rows("", tuple(rows)),), 2, notes=more)


def calibrations(judged: Evaluation) -> Table:
    """Return the table of calibration errors."""
    rows = [
        (name, f"{c.top1:.1f}", f"{c.nll:.3f}", f"{c.ece:.1f}", f"{c.ece_equal_mass:.1f}")
        for name, c in _variants(judged).items()
    ]
    columns = ("probabilities", "top-1 %", "NLL", "ECE %", "ECE %, equal mass")
    return plain("Calibration on the test split", columns, rows)


def reliability(judged: Evaluation) -> Table:
    """Return the table of the reliability diagram: every bin of confidence that has images."""
    groups = tuple(
        Rows(
            name,
            tuple(
                (f"{100 * b.low:.0f}-{100 * b.high:.0f}", str(b.count), f"{100 * (b.confidence or 0):.1f}",
                 f"{100 * (b.accuracy or 0):.1f}")
                for b in found.bins if b.count
            ),
        )
        for name, found in _variants(judged).items()
    )  # fmt: skip
    columns = ("confidence %", "images", "mean confidence %", "accuracy %")
    return Table("Reliability by confidence", columns, groups, 1)


def counts(labels: Sequence[str], found: Mapping[str, Sequence[int]]) -> Table:
    """Return the table of images per class and split; of many classes, the smallest."""
    totals = [sum(found[split][n] for split in found) for n in range(len(labels))]
    few = len(labels) <= MOST_CLASSES
    order = list(range(len(labels))) if few else sorted(range(len(labels)), key=lambda n: (totals[n], n))[:WORST]
    splits = [name for name in SPLITS if name in found]
    rows = [(labels[n], *(str(found[split][n]) for split in splits), str(totals[n])) for n in order]
    caption = "Images per class" + ("" if few else f": the {WORST} smallest of {len(labels)}")
    return plain(caption, ("class", *splits, "all"), rows)


def _variants(judged: Evaluation) -> dict[str, Calibration]:
    test = judged.splits["test"]
    found = {"as trained": test.before, "with temperature": test.after, "mean of dropout samples": test.dropout}
    return {name: calibration for name, calibration in found.items() if calibration}
