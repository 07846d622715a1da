"""Kinds of problems in a data set, with their severity."""

from __future__ import annotations

from dataclasses import dataclass

ERROR, WARNING, INFO = "error", "warning", "info"
# kind -> severity, in the order of the report. Errors make metrics wrong or training impossible.
KINDS = {
    "unreadable": ERROR,
    "class_name": ERROR,
    "lost_class": ERROR,
    "no_training_images": ERROR,
    "missing_from_split": ERROR,
    "contradictory": ERROR,
    "leakage": ERROR,
    "near_contradictory": ERROR,
    "near_leakage": ERROR,
    "unclear_values": ERROR,
    "single_image": WARNING,
    "too_few": WARNING,
    "imbalance": WARNING,
    "empty_class": WARNING,
    "left_out": WARNING,
    "too_large": WARNING,
    "tiny": WARNING,
    "extreme_shape": WARNING,
    "blank": WARNING,
    "strange_values": WARNING,
    "duplicate": WARNING,
    "divided": WARNING,
    "alike_in_splits": WARNING,
    "near_duplicate": INFO,
    "crowded": INFO,
    "values": INFO,
    "scaled": INFO,
    "no_images": INFO,
    "folders": INFO,
    "kept_together": INFO,
    "carved": INFO,
}


@dataclass(frozen=True)
class Finding:
    """One problem. `paths` are relative to the data set; `message` is safe to print on a terminal."""

    kind: str
    message: str
    paths: tuple[str, ...] = ()

    @property
    def severity(self) -> str:
        """Return ``error``, ``warning`` or ``info``."""
        return KINDS[self.kind]


@dataclass(frozen=True)
class Report:
    """Problems and statistics of a data set.

    Attributes:
        images: readable images. counts: class -> split -> images.
        imbalance: ratio of the largest to the smallest class in train.
    """

    images: int
    counts: dict[str, dict[str, int]]
    imbalance: float
    findings: tuple[Finding, ...]

    def count(self, severity: str) -> int:
        """Return the number of findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)
