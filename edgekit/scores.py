"""Scores of a trained classifier on its splits: accuracy, calibration, uncertainty, mistakes.

Shares of images (top-1, precision, recall, F1, calibration errors) are in percent; probabilities
are fractions; negative log-likelihoods (NLL) and entropies are in nats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgekit.errors import DataError
from edgekit.labels import check_labels


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class in one split.

    A class without images has neither recall nor F1, and a precision only if it was predicted. A class with images
    that was never predicted has precision 0 (scikit-learn: ``zero_division=0``).

    Attributes:
        support: number of images of the class. predicted: number of images that were classified as it.
    """

    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Average:
    """Mean over the classes that have images."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Scores:
    """Accuracy on one split.

    Attributes:
        top1_low, top1_high: 95 % interval (Wilson 1927).
        balanced_accuracy: mean recall over the classes that have images.
        macro: mean in which every such class counts the same. weighted: mean in which every image does.
        absent: number of classes without an image in the split, which are left out of the means.
        classes: one entry per label.
        confusion: (label, predicted label, images) of every nonzero cell of the confusion matrix.
    """

    samples: int
    top1: float
    top1_low: float
    top1_high: float
    balanced_accuracy: float
    macro: Average
    weighted: Average
    absent: int
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Bin:
    """Answers with a confidence in (low, high]; `confidence` and `accuracy` are their means, None if there are none."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """Calibration of the probabilities on one split.

    Attributes:
        ece: expected calibration error in percent, with bins of equal width (Guo et al. 2017, arXiv:1706.04599,
            section 2). ece_equal_mass: with bins of equal numbers of images (Nixon et al. 2019, arXiv:1904.01685).
    """

    top1: float
    nll: float
    ece: float
    ece_equal_mass: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Tried:
    """One dropout rate that was tried, the best temperature for it, and the NLL on val with both."""

    rate: float
    scale: float
    nll: float


@dataclass(frozen=True)
class DropoutInjection:
    """Dropout before the head of the network at test time; its parameters are chosen on val.

    Attributes:
        rate: share of features that each of `samples` fixed random masks sets to zero.
        scale: temperature of the sampled logits.
        fitted_on: number of val images that `rate` and `scale` were fitted on.
        nll_before: NLL on these images with temperature scaling alone. nll_after: NLL of the mean of the samples.
        gain_error: standard error of ``nll_before - nll_after``.
        helps: true if the gain is more than two standard errors. Otherwise the mean of the samples is no better than
            the calibrated probabilities, but their spread still separates certain from uncertain answers.
        tried: all rates that were compared.
    """

    rate: float
    scale: float
    samples: int
    seed: int
    fitted_on: int
    nll_before: float
    nll_after: float
    gain_error: float
    helps: bool
    tried: tuple[Tried, ...]

    def __post_init__(self) -> None:
        if not (0 < self.rate < 1 and self.scale > 0 and 1 <= self.samples <= 10_000):
            raise DataError(f"invalid dropout injection: rate {self.rate}, scale {self.scale}, {self.samples} samples")


@dataclass(frozen=True)
class SplitScores:
    """Accuracy and calibration of one split.

    Attributes:
        before: calibration as trained. after: with temperature scaling. dropout: of the mean of the dropout samples.
            Both are None where nothing was fitted.
        error_auroc: AUROC of each measure of uncertainty for detecting wrong answers, 0.5 (chance) to 1; empty if all
            answers are correct, or all are wrong.
    """

    scores: Scores
    before: Calibration
    after: Calibration | None
    dropout: Calibration | None
    error_auroc: dict[str, float]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer: `path` relative to the data set's root, labels as indices, calibrated `confidence`."""

    path: str
    label: int
    predicted: int
    confidence: float


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of a checkpoint on val and test. Temperature and dropout are fitted on val only.

    Attributes:
        temperature: None for data without val. dropout: None without val, or for a network without a linear head.
        splits: ``test``, which reports quote, and ``val`` if there is one.
        mistakes: wrong answers on test, the most confident first.
        left_out: hashes of the images of val and test that were missing.
        raw: ``val_logits`` and ``test_logits`` float32 (N, classes), ``val_labels`` and ``test_labels``
            int64 (N,), and ``mistake_pixels`` uint8 (mistakes, side, side, 3).
    """

    checkpoint_sha256: str
    labels: tuple[str, ...]
    temperature: float | None
    dropout: DropoutInjection | None
    splits: dict[str, SplitScores]
    mistakes: tuple[Mistake, ...]
    raw: dict[str, Any]
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_labels(self.labels)
        if self.temperature is not None and not self.temperature > 0:
            raise DataError(f"the temperature must be above 0, not {self.temperature}")
        if "test" not in self.splits or ("val" not in self.splits and self.temperature is not None):
            raise DataError("an evaluation needs the split 'test', and 'val' for a temperature")
        numbers = [n for m in self.mistakes for n in (m.label, m.predicted)]
        cells = [n for split in self.splits.values() for cell in split.scores.confusion for n in cell[:2]]
        if not all(0 <= n < len(self.labels) for n in numbers + cells):
            raise DataError(f"the evaluation has a class index outside 0 to {len(self.labels) - 1}")


@dataclass(frozen=True)
class EpochStats:
    """Figures of one epoch of training.

    Attributes:
        train_loss, val_loss: mean cross-entropy; of val without class weights and label smoothing.
        val_top1, val_macro_f1: percent. images_per_s: of the training part, without validation.
        best: true if its weights were the best so far. seconds: wall clock. lr: learning rate of the head at its end.
            These and `val_macro_f1` are None in runs of versions that did not record them.
    """

    epoch: int
    train_loss: float
    val_loss: float
    val_top1: float
    images_per_s: float
    best: bool
    seconds: float | None = None
    val_macro_f1: float | None = None
    lr: float | None = None
