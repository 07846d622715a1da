"""What quantization changed, against the baseline's answers to the same images: classes, pairs, single images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.labels import visible
from edgekit.measurements import BenchmarkResult
from edgekit.reporting import svg
from edgekit.reporting.tables import SIGNIFICANT, Rows, Table
from edgekit.stats.proportions import holm, mcnemar

BROKE, REPAIRED, BOTH_WRONG = "broke", "repaired", "both wrong"
KINDS = (BROKE, REPAIRED, BOTH_WRONG)


@dataclass(frozen=True)
class ClassChange:
    """One class that has images: recall before and after in percent, and how surprising the difference is.

    `p_value` is McNemar's over the class's images; `p_corrected` takes into account that every class was looked at.
    """

    label: int
    images: int
    before: float
    after: float
    p_value: float
    p_corrected: float

    @property
    def change(self) -> float:
        """Points of recall; below zero is worse."""
        return self.after - self.before


@dataclass(frozen=True)
class PairChange:
    """How many images of class `label` were answered `said`: by the baseline, and by the artifact."""

    label: int
    said: int
    before: int
    after: int


@dataclass(frozen=True)
class AnswerChange:
    """One test image, by its position in the split, that is answered otherwise. `sure`: the artifact's softmax."""

    image: int
    kind: str
    label: int
    before: int
    after: int
    sure_before: float
    sure: float


@dataclass(frozen=True)
class Change:
    """An artifact against its baseline.

    Attributes:
        names: "artifact on device" of every result that gives exactly these answers.
        precision: of the first of them.
        classes: those that have images, the most worsened first. pairs: confusions whose count changed, most first.
        answers: those that changed: broke, repaired, both wrong; the surest first.
    """

    names: tuple[str, ...]
    precision: str
    samples: int
    drop: float
    p_value: float
    classes: tuple[ClassChange, ...]
    pairs: tuple[PairChange, ...]
    answers: tuple[AnswerChange, ...]

    def count(self, kind: str) -> int:
        """How many answers changed in this way."""
        return sum(answer.kind == kind for answer in self.answers)

    @property
    def suspects(self) -> int:
        """Classes whose change would be called significant if it were the only class."""
        return sum(c.p_value < SIGNIFICANT for c in self.classes)

    @property
    def significant(self) -> tuple[ClassChange, ...]:
        """Classes whose change is significant among all."""
        return tuple(c for c in self.classes if c.p_corrected < SIGNIFICANT)


def is_baseline(result: BenchmarkResult) -> bool:
    """Whether others are compared with it, as it is: the network as trained, in whatever runtime."""
    return result.artifact.runtime == "torch" or result.artifact.name.startswith("baseline/")


def reference(result: BenchmarkResult, results: Sequence[BenchmarkResult]) -> BenchmarkResult | None:
    """The PyTorch baseline of the result's device, else the first one; None where there is none on its images."""
    bases = [r for r in results if r.artifact.runtime == "torch"]
    bases.sort(key=lambda r: r.artifact.name != "baseline/pytorch")
    base = next((b for b in bases if b.device == result.device), bases[0] if bases else None)
    fits = base is not None and base.logits.shape == result.logits.shape
    return base if base is not None and fits and bool((base.expected == result.expected).all()) else None


def changes(results: Sequence[BenchmarkResult]) -> list[Change]:
    """One entry for all results that give the same answers; those that changed most come first."""
    found: dict[tuple[bytes, bytes], list[BenchmarkResult]] = {}
    bases: dict[tuple[bytes, bytes], BenchmarkResult] = {}
    for result in results:
        base = reference(result, results)
        if is_baseline(result) or base is None or not len(result.expected):
            continue
        key = _said(result).tobytes(), _said(base).tobytes()
        found.setdefault(key, []).append(result)
        bases[key] = base
    made = [_change(group, bases[key]) for key, group in found.items()]
    return sorted(made, key=lambda c: (-len(c.answers), c.names))


def _said(result: BenchmarkResult) -> np.ndarray:
    return np.asarray(result.logits).argmax(1).astype(np.int32)


def _change(group: Sequence[BenchmarkResult], base: BenchmarkResult) -> Change:
    first = min(group, key=lambda r: (r.source != "device", r.device, r.artifact.name))
    expected, before, after = np.asarray(first.expected), _said(base), _said(first)
    right_before, right = before == expected, after == expected
    return Change(
        names=tuple(sorted(f"{r.artifact.name} on {r.device}" for r in group)),
        precision=first.artifact.precision,
        samples=len(expected),
        drop=100 * float(right_before.mean() - right.mean()),
        p_value=mcnemar(right_before, right),
        classes=_classes(expected, right_before, right),
        pairs=_pairs(expected, before, after, np.asarray(first.logits).shape[1]),
        answers=_answers(first, base, before, after),
    )


def _classes(expected: np.ndarray, before: np.ndarray, after: np.ndarray) -> tuple[ClassChange, ...]:
    labels, images = np.unique(expected, return_counts=True)
    sums = [np.bincount(expected, right, labels[-1] + 1)[labels] for right in (before, after)]
    moved = np.bincount(expected, before != after, labels[-1] + 1)[labels]
    tests = [
        mcnemar(before[expected == label], after[expected == label]) if some else 1.0
        for label, some in zip(labels, moved)
    ]
    entries = [
        ClassChange(int(label), int(n), 100 * float(was / n), 100 * float(now / n), p, corrected)
        for label, n, was, now, p, corrected in zip(labels, images, *sums, tests, holm(tests))
    ]
    return tuple(sorted(entries, key=lambda c: (c.change, c.p_value, c.label)))


def _pairs(expected: np.ndarray, before: np.ndarray, after: np.ndarray, classes: int) -> tuple[PairChange, ...]:
    """Right answers too: the diagonal of the confusion matrix."""
    counts: dict[int, list[int]] = {}
    for turn, said in enumerate((before, after)):
        for cell, n in zip(*np.unique(expected.astype(np.int64) * classes + said, return_counts=True)):
            counts.setdefault(int(cell), [0, 0])[turn] = int(n)
    moved = [PairChange(*divmod(cell, classes), *both) for cell, both in counts.items() if both[0] != both[1]]
    return tuple(sorted(moved, key=lambda p: (-abs(p.after - p.before), p.label, p.said)))


def _answers(
    result: BenchmarkResult, base: BenchmarkResult, before: np.ndarray, after: np.ndarray
) -> tuple[AnswerChange, ...]:
    expected, moved = np.asarray(result.expected), np.flatnonzero(before != after)
    sure_before, sure = (_confidence(np.asarray(r.logits)[moved]) for r in (base, result))
    answers = []
    for n, image in enumerate(moved):
        label = int(expected[image])
        kind = BROKE if before[image] == label else REPAIRED if after[image] == label else BOTH_WRONG
        sureness = float(sure_before[n]), float(sure[n])
        answers.append(AnswerChange(int(image), kind, label, int(before[image]), int(after[image]), *sureness))
    return tuple(sorted(answers, key=lambda a: (KINDS.index(a.kind), -a.sure, a.image)))


def _confidence(logits: np.ndarray) -> np.ndarray:
    """The largest softmax probability of each row; not calibrated."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True, initial=-np.inf)
    return 1 / np.exp(shifted).sum(1)


def pictured(found: Sequence[Change], most: int = 24) -> list[tuple[int, AnswerChange]]:
    """Which changed answers are shown as pictures: (position in `found`, answer), at most `most` in all.

    What broke takes the first half; entries of integers take turns, those that changed most first.
    """
    queues = [(n, _queue(change)) for n, change in enumerate(found)]
    chosen: list[tuple[int, AnswerChange]] = []
    while len(chosen) < most and any(queue for _, queue in queues):
        for n, queue in queues:
            if queue and len(chosen) < most:
                chosen.append((n, queue.pop(0)))
    return sorted(chosen, key=lambda entry: (entry[0], KINDS.index(entry[1].kind), -entry[1].sure))


def _queue(change: Change) -> list[AnswerChange]:
    """Two that broke, one repaired, one both wrong, and so on."""
    by_kind = {kind: [a for a in change.answers if a.kind == kind] for kind in KINDS}
    queue: list[AnswerChange] = []
    while any(by_kind.values()):
        for kind in (BROKE, BROKE, REPAIRED, BOTH_WRONG):
            if by_kind[kind]:
                queue.append(by_kind[kind].pop(0))
    return queue


# What quantization changed, as tables and a picture.

MOST_CLASSES, MOST_PAIRS, MOST_DRAWN, MOST_SHOWN = 10, 10, 20, 15
SUMMARY = (
    "model", "images", "other answer", "broke", "repaired", "both wrong", "drop", "p", "classes p < 0.05",
    "after Holm",
)  # fmt: skip


def summary_table(found: Sequence[Change]) -> Table:
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


def class_table(change: Change, labels: Sequence[str], most: int = MOST_CLASSES) -> Table:
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


def pair_table(change: Change, labels: Sequence[str], most: int = MOST_PAIRS) -> Table:
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
