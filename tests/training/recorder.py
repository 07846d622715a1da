"""A watcher that keeps what the training loop reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgekit.scores import EpochStats


@dataclass
class Recorder:
    """Keeps what the loop reports."""

    losses: list[float] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    epochs: list[EpochStats] = field(default_factory=list)
    before: list[EpochStats] = field(default_factory=list)

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        self.losses.append(loss)
        self.steps.append((epoch, step))

    def epoch(self, stats: EpochStats) -> None:
        self.epochs.append(stats)

    def resumed(self, history: Sequence[EpochStats]) -> None:
        self.before = list(history)

    def update(self, done: int, total: int, text: str = "") -> None:
        pass
