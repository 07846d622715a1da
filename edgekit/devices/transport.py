"""Transports: run jobs on a device and fetch their results."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Protocol

import edgekit.ondevice
from edgekit import cores, files
from edgekit.devices.jobs import OPTIONAL, Job, Report, discard, failure
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
        environment: fields of the last job's environment that the runner does not record itself.
    """

    @property
    def environment(self) -> Mapping[str, Any]: ...

    def __enter__(self) -> Transport: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...

    def run(self, job: Job, results: Path) -> None:
        """Send a job and its files, run it, and fetch its replies into the folder `results`.

        Raises:
            EdgekitError: the job failed; the message has the end of its output.
        """
        ...

    def stop(self) -> None:
        """End the job that runs, as Ctrl-C does; for another thread."""
        ...


class LocalTransport:
    """This machine: runs the ondevice runner in a process of its own, with the Python of the device file."""

    environment: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, device: Device, report: Report = discard, power_mode: str = "") -> None:
        """
        Raises:
            MissingError: that Python does not exist. UsageError: a power mode was requested.
        """
        python = shutil.which(device.python or sys.executable)
        if python is None:
            raise MissingError(
                f"the Python of device {device.name!r} does not exist: {device.python or sys.executable}",
                "correct `python` in its .toml file",
            )
        if power_mode:
            raise UsageError(
                "--set-power-mode needs a device over ssh or adb", "if this machine is the board: --host localhost"
            )
        # Absolute, because the job has its own working directory; links stay, because they make a venv.
        self.python = str(Path(python).absolute())
        self.report = report
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> LocalTransport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...

    def run(self, job: Job, results: Path) -> None:
        with files.scratch() as work:
            shutil.copytree(_ONDEVICE, work / "ondevice", ignore=shutil.ignore_patterns("__pycache__"))
            for target, source in job.files.items():
                (work / target).symlink_to(source.resolve())
            files.cache_dir("keep").mkdir(parents=True, exist_ok=True)
            (work / "keep").symlink_to(files.cache_dir("keep"))
            (work / "tmp").mkdir()
            (work / "job.json").write_text(json.dumps({**job.settings, "out": "out"}), encoding="utf-8")
            status = self._wait(work)
            if status in (130, -2):
                raise KeyboardInterrupt
            if status != 0:
                log = (work / "log").read_text(encoding="utf-8", errors="replace")
                tail = "\n  ".join(log.strip().splitlines()[-_ERROR_LINES:])
                raise failure(f"{job.title} failed:\n  {tail}", "edgekit doctor")
            results.mkdir(parents=True, exist_ok=True)
            for reply in job.replies:
                if reply not in OPTIONAL or (work / "out" / reply).is_file():
                    shutil.copyfile(work / "out" / reply, results / reply)

    def _wait(self, work: Path) -> int:
        """Run the job in a folder and return its exit status."""
        command = [self.python, "-m", "ondevice", "--with-parent", "job.json"]
        temporary = {**cores.outside_environment(), "TMPDIR": str(work / "tmp")}
        with (
            open(work / "log", "wb") as log,
            subprocess.Popen(
                command, cwd=work, env=temporary, stdin=subprocess.PIPE, stdout=log, stderr=log
            ) as process,
        ):
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
                    self.report(visible(progress.read_text(encoding="utf-8", errors="replace").strip()))

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()


TRANSPORTS: dict[str, Callable[[Device, Report, str], Transport]] = {
    "local": LocalTransport,
    "ssh": SshTransport,
    "adb": AdbTransport,
}


def open_transport(device: Device, report: Report = discard, power_mode: str = "") -> Transport:
    """Return the transport of a device; it connects when its ``with`` block begins.

    Args:
        report: takes lines about the progress of a job. power_mode: power mode of the device inside the block; ""
            leaves it as it is.

    Raises:
        UsageError: edgekit has no transport for the device, or no runner for its runtime.
    """
    if device.transport not in TRANSPORTS:
        raise UsageError(
            f"edgekit cannot run anything on {device.name!r} yet (transport {device.transport!r})",
            f"copy runs/<run>/export/{device.family} to it; benchmarks work over: {', '.join(TRANSPORTS)}",
        )
    if device.runtime not in RUNNERS:
        raise UsageError(
            f"edgekit cannot run {device.runtime!r} on {device.name!r} yet",
            f"copy runs/<run>/export/{device.family} to it; supported runtimes: {', '.join(sorted(RUNNERS))}",
        )
    return TRANSPORTS[device.transport](device, report, power_mode)


def at(devices: list[Device], host: str) -> Device:
    """Return the one requested device, at `host`.

    Raises:
        UsageError: there is more than one, or it is not reached over ssh or adb.
    """
    if len(devices) != 1 or devices[0].transport not in ("ssh", "adb"):
        raise UsageError(
            "--host needs one --device that is reached over ssh or adb",
            "edgekit devices probe HOST --name X writes a device file for it",
        )
    return dataclasses.replace(devices[0], host=host)
