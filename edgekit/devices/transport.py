"""How a job reaches a device and its results come back."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Protocol

import edgekit.ondevice
from edgekit import files
from edgekit.devices.jobs import OPTIONAL, Job, Said, failure, quiet
from edgekit.devices.remote import AdbTransport, SshTransport
from edgekit.errors import MissingError, UsageError
from edgekit.labels import visible
from edgekit.ondevice.runner import RUNNERS
from edgekit.records import Device

_ONDEVICE = Path(edgekit.ondevice.__file__).parent
_ERROR_LINES = 5


class Transport(Protocol):
    """Runs jobs on a device, one after the other, in a ``with`` block.

    Attributes:
        environment: what is known of the last job's circumstances besides what the runner says of them.
    """

    @property
    def environment(self) -> Mapping[str, Any]: ...

    def __enter__(self) -> Transport: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...

    def run(self, job: Job, results: Path) -> None:
        """Send a job and its files; fetch what it leaves to the folder `results`.

        Raises:
            EdgekitError: the job failed there; the message holds what it printed.
        """
        ...

    def stop(self) -> None:
        """From another thread: end what runs, as Ctrl-C does."""
        ...


class LocalTransport:
    """This machine: the runner in a process of its own, by any Python that has a runtime."""

    environment: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, device: Device, said: Said = quiet, power_mode: str = "") -> None:
        """
        Raises:
            MissingError: there is no such Python. UsageError: a power mode is asked for.
        """
        python = shutil.which(device.python or sys.executable)
        if python is None:
            raise MissingError(
                f"the Python of device {device.name!r} does not exist: {device.python or sys.executable}",
                "correct `python` in its .toml file",
            )
        if power_mode:
            raise UsageError(
                "--set-power-mode needs a device over ssh or adb", "--host localhost, where this is the board"
            )
        # The job has a working directory of its own. Not resolved: a link is what makes a venv.
        self.python = str(Path(python).absolute())
        self.said = said
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LocalTransport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...

    def run(self, job: Job, results: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="edgekit-") as name:
            work = Path(name)
            shutil.copytree(_ONDEVICE, work / "ondevice", ignore=shutil.ignore_patterns("__pycache__"))
            for target, source in job.files.items():
                (work / target).symlink_to(source.resolve())
            files.cache_dir("keep").mkdir(parents=True, exist_ok=True)
            (work / "keep").symlink_to(files.cache_dir("keep"))
            (work / "job.json").write_text(json.dumps({**job.settings, "out": "out"}), encoding="utf-8")
            status = self._wait(work)
            if status in (130, -2):
                raise KeyboardInterrupt
            if status != 0:
                said = (work / "log").read_text(encoding="utf-8", errors="replace")
                tail = "\n  ".join(said.strip().splitlines()[-_ERROR_LINES:])
                raise failure(f"{job.title} failed:\n  {tail}", "edgekit doctor")
            results.mkdir(parents=True, exist_ok=True)
            for reply in job.replies:
                if reply not in OPTIONAL or (work / "out" / reply).is_file():
                    shutil.copyfile(work / "out" / reply, results / reply)

    def _wait(self, work: Path) -> int:
        """Run the job file of a folder; returns its exit status."""
        command = [self.python, "-m", "ondevice", "job.json"]
        with open(work / "log", "wb") as log, subprocess.Popen(command, cwd=work, stdout=log, stderr=log) as process:
            self._process = process
            try:
                return self._watch(process, work / "progress")
            except BaseException:
                process.kill()
                raise

    def _watch(self, process: subprocess.Popen[bytes], progress: Path) -> int:
        while True:
            try:
                return process.wait(1.0)
            except subprocess.TimeoutExpired:
                if progress.is_file():
                    self.said(visible(progress.read_text(encoding="utf-8", errors="replace").strip()))

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()


TRANSPORTS: dict[str, Callable[[Device, Said, str], Transport]] = {
    "local": LocalTransport,
    "ssh": SshTransport,
    "adb": AdbTransport,
}


def open_transport(device: Device, said: Said = quiet, power_mode: str = "") -> Transport:
    """The transport that `device` names; nothing is connected before its ``with`` block.

    Args:
        said: hears how far a job is. power_mode: that the device is to have meanwhile; "" leaves it as it is.

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
    return TRANSPORTS[device.transport](device, said, power_mode)


def at(devices: list[Device], host: str) -> Device:
    """The one device of the request, at `host`."""
    if len(devices) != 1 or devices[0].transport not in ("ssh", "adb"):
        raise UsageError(
            "--host goes with one device that is reached over ssh or adb", "edgekit devices probe HOST --name X"
        )
    return dataclasses.replace(devices[0], host=host)
