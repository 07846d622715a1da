"""Where a training stands, on disk: enough to go on bit for bit, as plain values and tensors."""

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
from edgekit.scores import EpochStats

STATE_FILE = "resume.pt"
SCHEMA = 1


@dataclass
class TrainingProgress:
    """How far a training is: `step` steps of `epoch` are done.

    `loss` and `images` are sums over these steps, `score` is the best epoch's (higher is better),
    `stale` counts the epochs since then, `cuts` how often a plateau has cut the rate, `cut_at`
    when last. Seconds are wall clock, over all sittings.
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
        """Begin the epoch after this one."""
        self.epoch, self.step, self.loss, self.images, self.seconds = self.epoch + 1, 0, 0.0, 0, 0.0


@dataclass(frozen=True)
class State:
    """What `save` wrote: where the training stood, its learner, and what it belongs to.

    `fingerprint` stands for the data and the options; `processes`, `device` and `threads` for where it ran.
    """

    progress: TrainingProgress
    learner: dict[str, Any]
    fingerprint: str
    processes: int
    device: str
    threads: int

    def check_place(self, processes: int, device: str) -> None:
        """Check that the training goes on as it began: elsewhere its weights would become others.

        Raises:
            UsageError: another number of processes, or another kind of device.
        """
        if (processes, device) != (self.processes, self.device):
            raise UsageError(
                f"this training ran in {self.processes} processes on {self.device}, not in {processes} on {device}",
                "edgekit train --resume RUN"
                if self.processes == 1
                else f"torchrun --nproc-per-node {self.processes} -m edgekit train --resume RUN",
            )

    def check_purpose(self, fingerprint: str) -> None:
        """Check that the state belongs to these data, options and features.

        Raises:
            DataError: it does not.
        """
        if fingerprint != self.fingerprint:
            raise DataError(
                f"{STATE_FILE} belongs to other data, options or cached features",
                "edgekit train DATA starts a new training",
            )


def save(
    path: Path,
    progress: TrainingProgress,
    learner: dict[str, Any],
    fingerprint: str,
    place: tuple[int, str] = (1, "cpu"),
) -> None:
    """Write the state whole.

    Args:
        fingerprint: of the data and the options. place: how many processes train, and on what.
    """
    buffer = io.BytesIO()
    content = {
        "schema": SCHEMA,
        "fingerprint": fingerprint,
        "progress": dataclasses.asdict(progress),
        "learner": learner,
        "processes": place[0],
        "device": place[1],
        "threads": torch.get_num_threads(),
    }
    torch.save(content, buffer)
    files.save_bytes(path, buffer.getvalue())


def read(path: Path) -> bytes:
    """The bytes that `save` wrote.

    Raises:
        MissingError: there are none. StorageError: the file cannot be read.
    """
    if not path.is_file():
        raise MissingError(f"{path.parent} holds no interrupted training", "edgekit train DATA starts a new one")
    try:
        return path.read_bytes()
    except OSError as error:
        raise from_os_error(error, f"reading {path}") from error


def load(content: bytes) -> State:
    """The state out of its bytes.

    Raises:
        DataError: they are damaged. StorageError: a newer edgekit wrote them.
    """
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        kept, schema = state.pop("progress"), state.pop("schema")
        history = [from_table(entry, EpochStats, STATE_FILE) for entry in kept.pop("history")]
        progress = TrainingProgress(**{**kept, "score": tuple(kept["score"])}, history=history)
    except Exception as error:  # torch.load raises many kinds for a file that is not one
        raise_if_not_damage(error, STATE_FILE)
        why = next(iter(str(error).splitlines()), "it ends too early")
        raise DataError(f"{STATE_FILE} is damaged: {why}", "edgekit train DATA starts a new training") from error
    if schema > SCHEMA:
        raise StorageError(f"{STATE_FILE} was written by a newer edgekit (format {schema})", "upgrade edgekit")
    try:
        return State(progress=progress, **state)
    except TypeError as error:
        raise DataError(f"{STATE_FILE} is damaged: {error}", "edgekit train DATA starts a new training") from error
