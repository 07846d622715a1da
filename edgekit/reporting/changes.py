"""Answers that quantization changed, compared with the baseline's answers to the same images.

`changes` finds them by class, by pair of classes and by image; below are their tables and a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from edgekit.analysis.summary import references
from edgekit.labels import visible
from edgekit.measurements import BenchmarkResult
from edgekit.reporting import svg
from edgekit.reporting.tables import Rows, Table
from edgekit.stats.proportions import NO_ANSWER, SIGNIFICANT, answers, holm, mcnemar

MOST_CLASSES, MOST_PAIRS, MOST_DRAWN, MOST_SHOWN = 10, 10, 20, 15
SUMMARY = (
    "model", "images", "other answer", "broke", "repaired", "both wrong", "drop", "p", "classes p < 0.05",
    "after Holm",
)  # fmt: skip


class ChangeKind(str, Enum):
    """Ways in which the answer to an image can change."""

    BROKE = "broke"
    REPAIRED = "repaired"
    BOTH_WRONG = "both wrong"

    __str__ = str.__str__

    @property
    def text(self) -> str:
        """Heading over the images."""
        return {
            ChangeKind.BROKE: "Broke: correct before, wrong now",
            ChangeKind.REPAIRED: "Repaired: wrong before, correct now",
            ChangeKind.BOTH_WRONG: "Both wrong, with different answers",
        }[self]


_ORDER = list(ChangeKind)


@dataclass(frozen=True)
class ClassChange:
    """Recall of one class that has images, in percent.

    Attributes:
        p_value: of McNemar's test over the class's images. p_corrected: corrected (Holm) for the number of classes.
    """

    label: int
    images: int
    before: float
    after: float
    p_value: float
    p_corrected: float

    @property
    def change(self) -> float:
        """Percentage points of recall; below zero is worse."""
        return self.after - self.before


@dataclass(frozen=True)
class PairChange:
    """One cell of the confusion matrix: images of class `label` that were answered with class `said`, or `NO_ANSWER`.

    `before` is the number in the baseline's matrix, `after` that in the artifact's.
    """

    label: int
    said: int
    before: int
    after: int


@dataclass(frozen=True)
class AnswerChange:
    """One test image whose answer changed.

    Attributes:
        image: position in the test split. label, before, after: classes; the answers may be `NO_ANSWER`.
        sure_before, sure: largest softmax probability of the baseline and of the artifact, not calibrated.
    """

    image: int
    kind: ChangeKind
    label: int
    before: int
    after: int
    sure_before: float
    sure: float


@dataclass(frozen=True)
class Change:
    """Changes of an artifact against its baseline.

    Attributes:
        names: "artifact on device" of all results with exactly these answers. precision: of the first of them.
        drop: points of top-1. p_value: of McNemar's test.
        classes: those that have images, the most worsened first.
        pairs: cells of the confusion matrix whose number changed, the most changed first.
        answers: in the order of `ChangeKind`, the most confident first.
    """

    names: tuple[str, ...]
    precision: str
    samples: int
    drop: float
    p_value: float
    classes: tuple[ClassChange, ...]
    pairs: tuple[PairChange, ...]
    answers: tuple[AnswerChange, ...]

    def count(self, kind: ChangeKind) -> int:
        """Return the number of answers that changed in one way."""
        return sum(answer.kind == kind for answer in self.answers)

    @property
    def suspects(self) -> int:
        """Number of classes whose change would be significant if each were the only class."""
        return sum(c.p_value < SIGNIFICANT for c in self.classes)

    @property
    def significant(self) -> tuple[ClassChange, ...]:
        """Classes whose change is significant after correction."""
        return tuple(c for c in self.classes if c.p_corrected < SIGNIFICANT)


def changes(results: Sequence[BenchmarkResult]) -> list[Change]:
    """Return one entry for all results with the same answers, the most changed first.

    Baselines, and results whose images no baseline has answered, are left out.
    """
    groups: dict[tuple[bytes, bytes], list[BenchmarkResult]] = {}
    bases: dict[tuple[bytes, bytes], BenchmarkResult] = {}
    for result in results:
        base = reference(result, results)
        if is_baseline(result) or base is None or not len(result.expected) or int(result.expected.min()) < 0:
            continue  # without labels no answer is right or wrong
        key = _answers(result).tobytes(), _answers(base).tobytes()
        groups.setdefault(key, []).append(result)
        bases[key] = base
    found = [_change(group, bases[key]) for key, group in groups.items()]
    return sorted(found, key=lambda c: (-len(c.answers), c.names))


def is_baseline(result: BenchmarkResult) -> bool:
    """Return whether the result is of the network as trained, in whatever runtime."""
    return result.artifact.runtime == "torch" or result.artifact.is_baseline


def reference(result: BenchmarkResult, results: Sequence[BenchmarkResult]) -> BenchmarkResult | None:
    """Return the reference baseline of the result's device, else the first one; None if it has other images."""
    bases = references(results)
    base = next((b for b in bases if b.device == result.device), bases[0] if bases else None)
    comparable = base is not None and base.logits.shape == result.logits.shape
    return base if base is not None and comparable and bool((base.expected == result.expected).all()) else None


def shown_images(found: Sequence[Change], most: int = 24) -> list[tuple[int, AnswerChange]]:
    """Choose the changed answers that are shown as images: (position in `found`, answer).

    Half of them broke; the entries of `found` take turns.
    """
    queues = [(n, _queue(change)) for n, change in enumerate(found)]
    chosen: list[tuple[int, AnswerChange]] = []
    while len(chosen) < most and any(queue for _, queue in queues):
        for n, queue in queues:
            if queue and len(chosen) < most:
                chosen.append((n, queue.pop(0)))
    return sorted(chosen, key=lambda entry: (entry[0], _ORDER.index(entry[1].kind), -entry[1].sure))


def _queue(change: Change) -> list[AnswerChange]:
    """Return the answers in the order: two that broke, one repaired, one both wrong, and so on."""
    by_kind = {kind: [a for a in change.answers if a.kind == kind] for kind in ChangeKind}
    queue: list[AnswerChange] = []
    while any(by_kind.values()):
        for kind in (ChangeKind.BROKE, *ChangeKind):
            if by_kind[kind]:
                queue.append(by_kind[kind].pop(0))
    return queue


def _change(group: Sequence[BenchmarkResult], base: BenchmarkResult) -> Change:
    first = min(group, key=lambda r: (r.source != "device", r.device, r.artifact.name))
    expected, before, after = np.asarray(first.expected), _answers(base), _answers(first)
    correct_before, correct = before == expected, after == expected
    return Change(
        names=tuple(sorted(f"{r.artifact.name} on {r.device}" for r in group)),
        precision=first.artifact.precision,
        samples=len(expected),
        drop=100 * float(correct_before.mean() - correct.mean()),
        p_value=mcnemar(correct_before, correct),
        classes=_class_changes(expected, correct_before, correct),
        pairs=_pair_changes(expected, before, after, np.asarray(first.logits).shape[1]),
        answers=_answer_changes(first, base),
    )


def _answers(result: BenchmarkResult) -> np.ndarray:
    """Return the top-1 of each image, int32 (N,)."""
    return answers(result.logits).astype(np.int32)


def answer_name(labels: Sequence[str], answer: int) -> str:
    """Return the name of an answer for users."""
    return "(no number)" if answer == NO_ANSWER else labels[answer]


def _class_changes(expected: np.ndarray, before: np.ndarray, after: np.ndarray) -> tuple[ClassChange, ...]:
    labels, images = np.unique(expected, return_counts=True)
    sums = [np.bincount(expected, correct, labels[-1] + 1)[labels] for correct in (before, after)]
    changed = np.bincount(expected, before != after, labels[-1] + 1)[labels]
    tests = [
        mcnemar(before[expected == label], after[expected == label]) if some else 1.0
        for label, some in zip(labels, changed)
    ]
    entries = [
        ClassChange(int(label), int(n), 100 * float(was / n), 100 * float(now / n), p, corrected)
        for label, n, was, now, p, corrected in zip(labels, images, *sums, tests, holm(tests))
    ]
    return tuple(sorted(entries, key=lambda c: (c.change, c.p_value, c.label)))


def _pair_changes(expected: np.ndarray, before: np.ndarray, after: np.ndarray, classes: int) -> tuple[PairChange, ...]:
    """Return the changed cells of the confusion matrix, its diagonal included."""
    counts: dict[int, list[int]] = {}
    for turn, said in enumerate((before, after)):
        cells = expected.astype(np.int64) * (classes + 1) + said - NO_ANSWER
        for cell, n in zip(*np.unique(cells, return_counts=True)):
            counts.setdefault(int(cell), [0, 0])[turn] = int(n)
    places = [(divmod(cell, classes + 1), both) for cell, both in counts.items() if both[0] != both[1]]
    changed = [PairChange(label, column + NO_ANSWER, *both) for (label, column), both in places]
    return tuple(sorted(changed, key=lambda p: (-abs(p.after - p.before), p.label, p.said)))


def _answer_changes(result: BenchmarkResult, base: BenchmarkResult) -> tuple[AnswerChange, ...]:
    expected, before, after = np.asarray(result.expected), _answers(base), _answers(result)
    changed = np.flatnonzero(before != after)
    sure_before, sure = (_confidence(np.asarray(r.logits)[changed]) for r in (base, result))
    found = []
    for n, image in enumerate(changed):
        label = int(expected[image])
        if before[image] == label:
            kind = ChangeKind.BROKE
        else:
            kind = ChangeKind.REPAIRED if after[image] == label else ChangeKind.BOTH_WRONG
        found.append(
            AnswerChange(
                int(image), kind, label, int(before[image]), int(after[image]), float(sure_before[n]), float(sure[n])
            )
        )
    return tuple(sorted(found, key=lambda a: (_ORDER.index(a.kind), -a.sure, a.image)))


def _confidence(logits: np.ndarray) -> np.ndarray:
    """Return the largest softmax probability of each row; 0 of a row that is not finite."""
    finite = np.isfinite(logits).all(1, keepdims=True)
    known = np.where(finite, logits, 0).astype(np.float64)
    return np.where(finite[:, 0], 1 / np.exp(known - known.max(1, keepdims=True, initial=-np.inf)).sum(1), 0.0)


# Tables and a picture.


def summary_table(found: Sequence[Change]) -> Table:
    """Return the table with one row for each set of answers."""
    rows = [
        (_names(c.names), str(c.samples), str(len(c.answers)), *(str(c.count(kind)) for kind in ChangeKind),
         f"{c.drop:+.1f}" + ("*" if c.p_value < SIGNIFICANT else ""), f"{c.p_value:.2g}", str(c.suspects),
         str(len(c.significant)))
        for c in found
    ]  # fmt: skip
    notes = ["compared with the baseline's answers to the same images; broke: correct before, wrong now"]
    if any(c.p_value < SIGNIFICANT for c in found):
        notes.append("* significant: p < 0.05 (McNemar's test, paired)")
    if classes := max((len(c.classes) for c in found), default=0):
        notes.append(
            f"classes p < {SIGNIFICANT:g}: of {classes} classes, up to {SIGNIFICANT * classes:.1f} are expected by "
            "chance; after Holm: classes that stay significant after correction for their number"
        )
    return Table(
        caption="Answers that changed",
        columns=SUMMARY,
        groups=(Rows("", tuple(rows)),),
        prose=("model",),
        notes=tuple(notes),
        first=MOST_SHOWN,
    )


def classes_text(change: Change) -> str:
    """Return in one sentence how many classes changed, and how many of them significantly."""
    changed = [c for c in change.classes if c.change]
    total = len(change.classes)
    if not changed:
        return f"The recall of all {total} classes is unchanged."
    return (
        f"The recall of {len(changed)} of {total} classes changed. After Holm's correction "
        f"{len(change.significant)} of these changes are significant; without it {change.suspects}, "
        f"where chance alone gives up to {SIGNIFICANT * total:.1f}."
    )


def class_table(change: Change, labels: Sequence[str], most: int = MOST_CLASSES) -> Table:
    """Return the table of the classes that changed most, the most worsened first."""
    changed = sorted((c for c in change.classes if c.change), key=lambda c: (c.p_corrected, -abs(c.change), c.label))
    kept = sorted(changed[:most], key=lambda c: (c.change, c.label))
    notes: tuple[str, ...] = ()
    if len(changed) > most:
        notes = (f"the {most} most changed of {len(changed)}; for all: edgekit report --format classes",)
    columns = ("class", "images", "recall before %", "recall %", "change", "p", "p (Holm)")
    rows = tuple(_class_cells(c, labels) for c in kept)
    return Table("Recall by class", columns, (Rows("", rows),), notes=notes)


def _class_cells(c: ClassChange, labels: Sequence[str]) -> tuple[str, ...]:
    star = "*" if c.p_corrected < SIGNIFICANT else ""
    figures = f"{c.before:.1f}", f"{c.after:.1f}", f"{c.change:+.1f}{star}", f"{c.p_value:.2g}", f"{c.p_corrected:.2g}"
    return (labels[c.label], str(c.images), *figures)


def pair_table(change: Change, labels: Sequence[str], most: int = MOST_PAIRS) -> Table:
    """Return the table of the most changed cells of the confusion matrix, its diagonal included."""
    rows = tuple(
        (labels[p.label], answer_name(labels, p.said) + (" (correct)" if p.said == p.label else ""), str(p.before),
         str(p.after), f"{p.after - p.before:+d}")
        for p in change.pairs[:most]
    )  # fmt: skip
    notes = (f"the {most} most changed of {len(change.pairs)} cells",) if len(change.pairs) > most else ()
    columns = ("true class", "answer", "before", "now", "change")
    return Table("Changed cells of the confusion matrix", columns, (Rows("", rows),), 2, notes=notes)


def picture(change: Change, labels: Sequence[str]) -> str:
    """Draw the confusion matrix minus that of the baseline, as an ``<svg>`` element; empty for many classes."""
    count = len(labels)
    if count > MOST_DRAWN or not change.pairs:
        return ""
    from matplotlib.colors import LinearSegmentedColormap

    matrix = np.zeros((count, count))
    for pair in (pair for pair in change.pairs if pair.said != NO_ANSWER):
        matrix[pair.label, pair.said] = pair.after - pair.before
    red, clear, blue = (0.93, 0.4, 0.47, 0.9), (0.5, 0.5, 0.5, 0.0), (0.27, 0.47, 0.67, 0.9)
    colors = LinearSegmentedColormap.from_list("effect", [red, clear, blue])
    most = float(np.abs(matrix).max())
    # More on the diagonal is good, more beside it is bad: the colour shows the effect.
    effect = np.where(np.eye(count, dtype=bool), matrix, -matrix)
    side = min(6.0, max(3.0, 1.6 + 0.26 * count))
    with svg.drawing(side + 0.4, side) as figure:
        axes = figure.add_subplot()
        axes.imshow(effect, cmap=colors, vmin=-most, vmax=most, interpolation="none")
        names = [svg.shortened(visible(name), 16) for name in labels]
        axes.set_xticks(range(count), names, rotation=90, fontsize=9)
        axes.set_yticks(range(count), names, fontsize=9)
        for row, column in np.argwhere(matrix):
            axes.text(column, row, f"{matrix[row, column]:+.0f}", ha="center", va="center", fontsize=9)
        axes.set_xlabel("answer")
        axes.set_ylabel("true class")
        return svg.to_svg(figure, "change of the confusion matrix; the table beside it has the cells")


def _names(names: Sequence[str]) -> str:
    return "; ".join(names[:3]) + (f"; and {len(names) - 3} more with the same answers" if len(names) > 3 else "")
