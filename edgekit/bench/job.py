"""What a device is to do, and what may come back of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import EdgekitError
from edgekit.ondevice import MISFIT, NOT_ACCELERATED

_UNACCELERATED = (
    'install its driver; edgekit inspect ARTIFACT says what is expected to stay out; or accelerator = "cpu" in the '
    "device's .toml, or emulated = true for the answers of a GPU in software"
)
Said = Callable[[str], None]
# What each kind of job leaves, and how many bytes of it are taken.
_REPLIES = {
    "measure": {
        "result.json": 1 << 20,
        "latencies_ns.npy": 1 << 26,
        "logits.npy": 1 << 28,
        "compute_ns.npy": 1 << 26,
        "warmup_ns.npy": 1 << 26,
        "offline_ns.npy": 1 << 26,
        "layers.json": 1 << 22,
        "power.npy": 1 << 24,
    },
    "build": {"result.json": 1 << 22, "model.engine": 1 << 31, "build.log": 1 << 21},
    "program": {"said.txt": 1 << 20},
}
# What only some jobs leave.
OPTIONAL = {"compute_ns.npy", "warmup_ns.npy", "offline_ns.npy", "layers.json", "power.npy"}


@dataclass(frozen=True)
class Job:
    """One job of `edgekit.ondevice.main`, or of a program.

    Attributes:
        settings: the job file, without ``out``. files: name on the device -> file here.
        command: what runs in the job's folder; empty: a Python, with the runner that travels.
    """

    settings: dict[str, Any]
    files: dict[str, Path]
    command: tuple[str, ...] = ()

    @property
    def replies(self) -> dict[str, int]:
        """The files that may come back, and the most bytes of each."""
        return _REPLIES[self.settings.get("do", "measure")]

    @property
    def title(self) -> str:
        """What is done with what, for messages."""
        if self.settings.get("do") == "build":
            return f"building the {self.settings['precision']} engine"
        if self.settings.get("do") == "program":
            return str(self.settings["title"])
        return f"{self.settings['model']} in {self.settings['runtime']}"


class MisfitError(EdgekitError):
    """An engine was built by another TensorRT, for another GPU or for a DLA core; the message says what differs."""


def failure(message: str, hint: str) -> EdgekitError:
    """The error of a job that failed."""
    if MISFIT in message:
        return MisfitError(message, "the same command with --rebuild")
    if NOT_ACCELERATED in message:
        return EdgekitError(message, _UNACCELERATED)
    return EdgekitError(message, hint)


def quiet(text: str) -> None:
    """Nobody hears how far a job is."""
