"""What a trained classifier was found to be worth: the nouns that flow from train to report.

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
    """One class in one split: `support` images have it, `predicted` were said to.

    A class without images has neither recall nor F1, and a precision only if it was predicted. A class
    with images that was never predicted has precision 0 (scikit-learn: ``zero_division=0``).
    """

    support: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Average:
    """A mean over the classes that have images."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Scores:
    """How right the answers of one split are.

    Attributes:
        top1_low, top1_high: 95 % interval (Wilson 1927).
        balanced_accuracy: mean recall over the classes that have images.
        macro: every such class counts the same. weighted: every image does.
        absent: how many classes have no image in the split; they are left out of the averages.
        classes: one entry per label.
        confusion: (label, predicted label, images) of every cell that is not empty.
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
    """The answers whose confidence lies in (low, high]; None where there are none."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """How far the probabilities of one split can be trusted.

    `ece` has bins of equal width (Guo et al. 2017, arXiv:1706.04599, section 2), `ece_equal_mass` of
    equal numbers of images (Nixon et al. 2019, arXiv:1904.01685); both are in percent.
    """

    top1: float
    nll: float
    ece: float
    ece_equal_mass: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Tried:
    """A dropout rate, the scale that suits it best, and the NLL on val that they give."""

    rate: float
    scale: float
    nll: float


@dataclass(frozen=True)
class DropoutInjection:
    """How dropout is injected before the head of a network at test time, chosen on val alone.

    Attributes:
        rate: the share of features that each of `samples` fixed random masks sets to zero.
        scale: the temperature of the sampled logits.
        fitted_on: how many val images chose them.
        nll_before: on these, with temperature scaling alone. nll_after: of the mean of the samples.
        gain_error: the standard error of ``nll_before - nll_after``.
        helps: whether the gain is more than two standard errors. If not, the mean of the samples is no
            better than the calibrated probabilities; the spread still tells sure from unsure answers.
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
            raise DataError(f"no dropout injection: rate {self.rate}, scale {self.scale}, {self.samples} samples")


@dataclass(frozen=True)
class SplitScores:
    """One split: how right, and how well calibrated before and after temperature and with dropout.

    `error_auroc`: how well each measure of doubt finds the wrong answers, 0.5 (by chance) to 1;
    empty where all answers are right, or all wrong.
    """

    scores: Scores
    before: Calibration
    after: Calibration
    dropout: Calibration
    error_auroc: dict[str, float]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer: `path` below the data set's root, labels as indices, calibrated `confidence`."""

    path: str
    label: int
    predicted: int
    confidence: float


@dataclass(frozen=True)
class Evaluation:
    """A checkpoint judged on val and test. Temperature and dropout were chosen on val alone.

    Attributes:
        splits: ``val`` and ``test``; what is quoted is test.
        mistakes: the wrong answers on test, the surest first.
        raw: ``val_logits`` and ``test_logits`` float32 (N, classes), ``val_labels`` and ``test_labels``
            int64 (N,), and ``mistake_pixels`` uint8 (mistakes, side, side, 3).
    """

    checkpoint_sha256: str
    labels: tuple[str, ...]
    temperature: float
    dropout: DropoutInjection
    splits: dict[str, SplitScores]
    mistakes: tuple[Mistake, ...]
    raw: dict[str, Any]

    def __post_init__(self) -> None:
        check_labels(self.labels)
        if not self.temperature > 0:
            raise DataError(f"{self.temperature} is no temperature")
        if not {"val", "test"} <= set(self.splits):
            raise DataError("an evaluation needs the splits val and test")
        numbers = [n for m in self.mistakes for n in (m.label, m.predicted)]
        cells = [n for split in self.splits.values() for cell in split.scores.confusion for n in cell[:2]]
        if not all(0 <= n < len(self.labels) for n in numbers + cells):
            raise DataError("an evaluation names a class that its labels do not have")


@dataclass(frozen=True)
class EpochStats:
    """Figures of one epoch of training.

    Attributes:
        train_loss, val_loss: mean cross-entropy; of val without class weights and label smoothing.
        val_top1, val_macro_f1: percent. images_per_s: of the training part, without validation.
        best: whether its weights were the best so far. seconds: wall clock. lr: learning rate of the head at its end.
            These and `val_macro_f1` are None where an older edgekit did not keep them.
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
