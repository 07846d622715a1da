"""How a job reaches a device and its results come back."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import edgekit.ondevice
from edgekit.bench.remote import SshTransport
from edgekit.errors import EdgekitError, MissingError, UsageError
from edgekit.ondevice.runner import RUNNERS
from edgekit.records import Device

_ONDEVICE = Path(edgekit.ondevice.__file__).parent
_ERROR_LINES = 5


class Transport(Protocol):
    """Runs one job on a device."""

    def run(self, job: dict[str, Any], files: dict[str, Path], results: Path) -> None:
        """Send `files` (name on the device -> file here) and the job; fetch its output to `results`.

        Raises:
            EdgekitError: the job failed there; the message holds what it printed.
        """
        ...


class LocalTransport:
    """This machine: the runner in a process of its own, by any Python that has a runtime."""

    def __init__(self, device: Device) -> None:
        python = shutil.which(device.python or sys.executable)
        if python is None:
            raise MissingError(
                f"the Python of device {device.name!r} does not exist: {device.python or sys.executable}",
                "correct `python` in its .toml file",
            )
        # The job has a working directory of its own. Not resolved: a link is what makes a venv.
        self.python = str(Path(python).absolute())

    def run(self, job: dict[str, Any], files: dict[str, Path], results: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="edgekit-") as name:
            work = Path(name)
            shutil.copytree(_ONDEVICE, work / "ondevice", ignore=shutil.ignore_patterns("__pycache__"))
            for target, source in files.items():
                (work / target).symlink_to(source.resolve())
            (work / "job.json").write_text(json.dumps({**job, "out": "out"}), encoding="utf-8")
            done = subprocess.run(
                [self.python, "-m", "ondevice", "job.json"], cwd=work, capture_output=True, text=True, errors="replace"
            )
            if done.returncode in (130, -2):
                raise KeyboardInterrupt
            if done.returncode != 0:
                tail = "\n  ".join((done.stderr or done.stdout).strip().splitlines()[-_ERROR_LINES:])
                raise EdgekitError(f"{job['model']} failed in {job['runtime']}:\n  {tail}", "edgekit doctor")
            shutil.copytree(work / "out", results, dirs_exist_ok=True)


TRANSPORTS: dict[str, Callable[[Device], Transport]] = {"local": LocalTransport, "ssh": SshTransport}


def open_transport(device: Device) -> Transport:
    """The transport that `device` names.

    Raises:
        UsageError: this version has none for it; says what can be done instead.
    """
    if device.transport not in TRANSPORTS:
        raise UsageError(
            f"edgekit cannot reach {device.name!r} by itself yet (transport {device.transport!r})",
            f"copy runs/<run>/export/{device.family} there; benchmarking works over: {', '.join(TRANSPORTS)}",
        )
    if device.runtime not in RUNNERS:
        raise UsageError(
            f"edgekit does not run {device.runtime!r} on {device.name!r} by itself yet",
            f"copy runs/<run>/export/{device.family} there; what runs: {', '.join(sorted(RUNNERS))}",
        )
    return TRANSPORTS[device.transport](device)
