"""The contents of a report, independent of its format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgekit import runs
from edgekit.errors import DataError
from edgekit.measurements import BenchmarkResult, Gates, LayerFigures, ProgramResult, Summary
from edgekit.reporting.changes import Change
from edgekit.reporting.decide import Decision, decide
from edgekit.scores import Evaluation

# Entries of run.json that a report shows: of every run, and of one that was trained here.
_REQUIRED = ("arch", "labels", "preprocess", "versions")
_OF_TRAINING = ("data", "options", "history")


@dataclass(frozen=True)
class Picture:
    """A test image: its path relative to the data set's root, and a small JPEG of the network's input."""

    path: str
    jpeg: bytes


@dataclass(frozen=True)
class Material:
    """Everything that is known about one run; all but the run may be empty.

    Attributes:
        rows, results: judged and raw measurements.
        drawn: SVG elements and PNG files, by file name.
        programs: measurements by programs on devices.
        changes: answers that quantization changed.
        layers: figures of layers by "artifact on device", the most important first.
        layer_notes: notes on their times, by the same names.
        layers_left: parts of the layers that are missing, with the reason.
        images: images whose answer changed, by position in the test split.
        no_images: reason why there are none.
        gates: limits that a choice must keep.
        counts: images per split and label; empty if the index of the data set is gone.
    """

    run: runs.Run
    rows: Sequence[Summary] = ()
    results: Sequence[BenchmarkResult] = ()
    evaluation: Evaluation | None = None
    drawn: Mapping[str, str | bytes] = field(default_factory=dict)
    programs: Sequence[ProgramResult] = ()
    changes: Sequence[Change] = ()
    layers: Mapping[str, Sequence[LayerFigures]] = field(default_factory=dict)
    layer_notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    layers_left: Sequence[str] = ()
    images: Mapping[int, Picture] = field(default_factory=dict)
    no_images: str = ""
    gates: Gates = field(default_factory=Gates)
    counts: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """
        Raises:
            DataError: run.json is damaged.
        """
        trained = () if self.run.info.source is not None else _OF_TRAINING
        if missing := self.run.info.missing(*_REQUIRED, *trained):
            path = self.run.path / runs.RUN_FILE
            raise DataError(f"{path} is damaged: {', '.join(missing)} missing", "restore it")

    @property
    def labels(self) -> Sequence[str]:
        """Names of the classes."""
        return list(self.run.info.labels)

    @property
    def decisions(self) -> list[Decision]:
        """The model to ship on each device."""
        return decide(self.rows, self.gates)
