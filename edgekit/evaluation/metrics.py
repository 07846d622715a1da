"""Accuracy and calibration metrics of a classifier: pure functions of logits and labels."""

from __future__ import annotations

import numpy as np

from edgekit.scores import Average, Bin, Calibration, ClassScores, Scores
from edgekit.stats.proportions import wilson

BINS = 15


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return probabilities, float64 (..., classes), of logits over their last axis."""
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def nll(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative log-likelihood in nats; probabilities are clipped at 1e-30."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], 1e-30)).mean())


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Return counts, int64 (classes, classes): rows are labels, columns predictions."""
    cells = np.bincount(np.asarray(labels) * classes + np.asarray(predicted), minlength=classes * classes)
    return cells.reshape(classes, classes)


def scores(logits: np.ndarray, labels: np.ndarray) -> Scores:
    """Return accuracy, precision, recall and F1.

    Averages are those of scikit-learn with ``zero_division=0``, over the classes that have images.

    Args:
        logits: logits or probabilities, float (N, classes), N at least 1. labels: int (N,).
    """
    matrix = confusion_matrix(np.argmax(logits, 1), labels, np.shape(logits)[1])
    support, predicted, right = matrix.sum(1), matrix.sum(0), np.diag(matrix)
    present = support > 0
    precision = 100 * right / np.maximum(predicted, 1)
    recall = 100 * right / np.maximum(support, 1)
    f1 = 200 * right / np.maximum(support + predicted, 1)
    low, high = wilson(int(right.sum()), len(labels))
    macro = Average(*(float(each[present].mean()) for each in (precision, recall, f1)))
    return Scores(
        samples=len(labels),
        top1=100 * int(right.sum()) / len(labels),
        top1_low=100 * low,
        top1_high=100 * high,
        balanced_accuracy=macro.recall,
        macro=macro,
        weighted=Average(*(float((each * support).sum() / support.sum()) for each in (precision, recall, f1))),
        absent=int((~present).sum()),
        classes=tuple(
            ClassScores(
                int(support[n]),
                int(predicted[n]),
                float(precision[n]) if present[n] or predicted[n] else None,
                float(recall[n]) if present[n] else None,
                float(f1[n]) if present[n] else None,
            )
            for n in range(len(matrix))
        ),
        confusion=tuple((int(row), int(column), int(matrix[row, column])) for row, column in np.argwhere(matrix)),
    )


def calibration(probabilities: np.ndarray, labels: np.ndarray) -> Calibration:
    """Return NLL, expected calibration errors and reliability bins.

    Args:
        probabilities: (N, classes), N at least 1. labels: int (N,).
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    return Calibration(
        top1=100 * float(right.mean()),
        nll=nll(probabilities, labels),
        ece=_equal_width_error(bins := _bins(confidence, right)),
        ece_equal_mass=_equal_mass_error(confidence, right),
        bins=bins,
    )


def auroc(doubt: np.ndarray, wrong: np.ndarray) -> float | None:
    """Return the area under the ROC curve of `doubt` as a detector of wrong predictions.

    Computed from the rank sum, ties count half (Hanley & McNeil 1982).

    Args:
        doubt: float (N,). wrong: bool (N,).
    Returns:
        The area, or None if all predictions are right or all are wrong.
    """
    positives, negatives = int(wrong.sum()), int((~wrong).sum())
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(doubt, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[wrong].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def _bins(confidence: np.ndarray, right: np.ndarray) -> tuple[Bin, ...]:
    """Return reliability bins of equal width over (0, 1]."""
    edges = np.linspace(0, 1, BINS + 1)
    number = np.clip(np.searchsorted(edges, confidence, "left") - 1, 0, BINS - 1)
    found = []
    for n in range(BINS):
        inside = number == n
        means = (float(confidence[inside].mean()), float(right[inside].mean())) if inside.any() else (None, None)
        found.append(Bin(float(edges[n]), float(edges[n + 1]), int(inside.sum()), *means))
    return tuple(found)


def _equal_width_error(bins: tuple[Bin, ...]) -> float:
    total = sum(b.count for b in bins)
    gaps = (
        b.count * abs(b.confidence - b.accuracy) for b in bins if b.confidence is not None and b.accuracy is not None
    )
    return 100 * sum(gaps) / total


def _equal_mass_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error over bins with equal numbers of predictions, in percent."""
    order = np.argsort(confidence, kind="stable")
    groups = np.array_split(order, min(BINS, len(order)))
    return 100 * sum(abs(float((confidence[g] - right[g]).sum())) for g in groups) / len(order)
