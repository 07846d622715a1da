"""What quantization changed, against the baseline's answers to the same images: classes, pairs, single images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgekit.measurements import BenchmarkResult
from edgekit.report.tables import SIGNIFICANT
from edgekit.statistics import holm, mcnemar

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
