"""What can be odd about a data set, and how much each kind matters."""

from __future__ import annotations

from dataclasses import dataclass

ERROR, WARNING, INFO = "error", "warning", "info"
# An error makes figures wrong or training impossible; the order is that of the report.
KINDS = {
    "unreadable": ERROR,
    "class_name": ERROR,
    "no_training_images": ERROR,
    "missing_from_split": ERROR,
    "contradictory": ERROR,
    "leakage": ERROR,
    "near_contradictory": ERROR,
    "near_leakage": ERROR,
    "single_image": WARNING,
    "too_few": WARNING,
    "imbalance": WARNING,
    "empty_class": WARNING,
    "tiny": WARNING,
    "extreme_shape": WARNING,
    "blank": WARNING,
    "duplicate": WARNING,
    "near_duplicate": INFO,
    "crowded": INFO,
    "linked_folder": INFO,
    "carved": INFO,
}


@dataclass(frozen=True)
class Finding:
    """One thing that is odd. `paths` are relative to the data set; `message` is safe to print."""

    kind: str
    message: str
    paths: tuple[str, ...] = ()

    @property
    def severity(self) -> str:
        """``error``, ``warning`` or ``info``."""
        return KINDS[self.kind]


@dataclass(frozen=True)
class Report:
    """All that was found. `counts`: class -> split -> images; `imbalance`: most over fewest in train."""

    images: int
    counts: dict[str, dict[str, int]]
    imbalance: float
    findings: tuple[Finding, ...]

    def count(self, severity: str) -> int:
        """How many findings are so severe."""
        return sum(finding.severity == severity for finding in self.findings)
