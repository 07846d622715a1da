"""Resumable state of a training on disk: plain values and tensors that continue it bit for bit."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgekit import files
from edgekit.config import from_table
from edgekit.errors import DataError, MissingError, StorageError, UsageError, from_os_error, raise_if_not_damage
from edgekit.labels import visible
from edgekit.models import weights_file
from edgekit.scores import EpochStats

STATE_FILE = "resume.pt"
SCHEMA = 1


@dataclass
class TrainingProgress:
    """Progress of a training.

    Attributes:
        epoch: current epoch, counted from 1. step: finished steps of it.
        loss, images: sums over these steps. seconds: wall clock of them, over all interruptions.
        score: of the best epoch, higher is better. stale: epochs since then.
        cuts: reductions of the learning rate on a plateau. cut_at: epoch of the last one.
    """

    epoch: int = 1
    step: int = 0
    loss: float = 0.0
    images: int = 0
    seconds: float = 0.0
    score: tuple[float, ...] = ()
    stale: int = 0
    cuts: int = 0
    cut_at: int = 0
    history: list[EpochStats] = field(default_factory=list)

    def next_epoch(self) -> None:
        """Start the next epoch."""
        self.epoch, self.step, self.loss, self.images, self.seconds = self.epoch + 1, 0, 0.0, 0, 0.0


@dataclass(frozen=True)
class State:
    """State that `save` wrote.

    Attributes:
        learner: of `Learner.state`. fingerprint: of the data and the options.
        processes, device, threads: number of processes, kind of device, and CPU threads of the training.
    """

    progress: TrainingProgress
    learner: dict[str, Any]
    fingerprint: str
    processes: int
    device: str
    threads: int

    def check_place(self, processes: int, device: str) -> None:
        """Check that the training continues with as many processes and on the same kind of device.

        The weights would differ otherwise.

        Raises:
            UsageError: the number of processes or the kind of device is different.
        """
        if (processes, device) != (self.processes, self.device):
            raise UsageError(
                f"this training used {self.processes} processes on {self.device}: "
                f"it cannot continue with {processes} on {device}",
                "edgekit train --resume RUN"
                if self.processes == 1
                else f"torchrun --nproc-per-node {self.processes} -m edgekit train --resume RUN",
            )

    def check_purpose(self, fingerprint: str) -> None:
        """Check that the state belongs to these data, options and features.

        Raises:
            DataError: it belongs to others.
        """
        if fingerprint != self.fingerprint:
            raise DataError(
                f"{STATE_FILE} belongs to different data, options or cached features",
                "start a new training with: edgekit train DATA",
            )


def save(
    path: Path,
    progress: TrainingProgress,
    learner: dict[str, Any],
    fingerprint: str,
    processes: int = 1,
    device: str = "cpu",
) -> None:
    """Write the state, completely or not at all; the parameters are the attributes of `State`."""
    buffer = io.BytesIO()
    content = {
        "schema": SCHEMA,
        "fingerprint": fingerprint,
        "progress": dataclasses.asdict(progress),
        "learner": learner,
        "processes": processes,
        "device": device,
        "threads": torch.get_num_threads(),
    }
    torch.save(content, buffer)
    files.save_bytes(path, buffer.getvalue())


def read(path: Path) -> bytes:
    """Return the bytes that `save` wrote.

    Raises:
        MissingError: the file does not exist. StorageError: the file cannot be read.
    """
    if not path.is_file():
        raise MissingError(f"{path.parent} holds no interrupted training", "start a new one with: edgekit train DATA")
    try:
        return path.read_bytes()
    except OSError as error:
        raise from_os_error(error, f"reading {path}") from error


def load(content: bytes) -> State:
    """Decode the state.

    Raises:
        DataError: the bytes are damaged. StorageError: a newer edgekit wrote them.
    """
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        kept, schema = state.pop("progress"), int(state.pop("schema"))
        history = [from_table(entry, EpochStats, STATE_FILE) for entry in kept.pop("history")]
        progress = TrainingProgress(**{**kept, "score": tuple(kept["score"])}, history=history)
    except Exception as error:  # torch.load raises many kinds of errors for damaged files
        raise_if_not_damage(error, STATE_FILE)
        why = visible(weights_file.first_line(error))
        raise DataError(f"{STATE_FILE} is damaged: {why}", "start a new training with: edgekit train DATA") from error
    if schema > SCHEMA:
        raise StorageError(f"{STATE_FILE} was written by a newer edgekit (format {schema})", "upgrade edgekit")
    try:
        return State(progress=progress, **state)
    except TypeError as error:
        raise DataError(f"{STATE_FILE} is damaged: {error}", "start a new training with: edgekit train DATA") from error
