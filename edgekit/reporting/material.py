"""Everything that a report is made of, in whatever format it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgekit import runs
from edgekit.errors import DataError
from edgekit.measurements import BenchmarkResult, Gates, LayerFigures, ProgramResult, Summary
from edgekit.reporting.changes import Change
from edgekit.reporting.decide import Decision, decide
from edgekit.scores import Evaluation

# Entries of run.json that a report shows.
_SHOWN = ("arch", "labels", "preprocess", "data", "options", "versions", "history")


@dataclass(frozen=True)
class Picture:
    """A test image: its path below the data set's root, and a small JPEG of what the network was shown."""

    path: str
    jpeg: bytes


@dataclass(frozen=True)
class Material:
    """What is known of one run; all but the run may be empty.

    Attributes:
        rows, results: judged and raw measurements. drawn: SVG elements and PNG files by name.
        programs: what programs on devices said. changes: what quantization changed, as `changes.changes` has it.
        layers: "artifact on device" -> its layers, what matters most first; `layer_notes`: how their times were got;
            `layers_left`: what is left out of them, and why. images: of changed answers, by position in the test split;
            `no_images` is why there are none. gates: the limits that a choice must keep.
        counts: images per split and label; empty where the index is gone.
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
        if missing := self.run.info.missing(*_SHOWN):
            path = self.run.path / runs.RUN_FILE
            raise DataError(f"{path} is damaged: {', '.join(missing)} missing", "restore it")

    @property
    def labels(self) -> Sequence[str]:
        """The names of the classes."""
        return list(self.run.info.labels)

    @property
    def decisions(self) -> list[Decision]:
        """What to ship on each device."""
        return decide(self.rows, self.gates)
