"""Jobs that run on a device: their files, their replies, and jobs that a killed edgekit left behind there."""

from __future__ import annotations

import contextlib
import getpass
import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.devices.link import Link
from edgekit.errors import EdgekitError
from edgekit.labels import visible
from edgekit.ondevice import MISFIT, NOT_ACCELERATED

# Takes a line about the progress of a job.
Report = Callable[[str], None]
_NOT_ACCELERATED_HINT = (
    "install its driver; edgekit inspect ARTIFACT lists the operators that are expected to run on the CPU; or "
    'accelerator = "cpu" in the device\'s .toml, or emulated = true for the results of a GPU in software'
)
# Files that each kind of job may leave, and the maximum size of each in bytes.
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
# Files that not every job leaves.
OPTIONAL = {"compute_ns.npy", "warmup_ns.npy", "offline_ns.npy", "layers.json", "power.npy"}


@dataclass(frozen=True)
class Job:
    """A job for `edgekit.ondevice.main`, or a program.

    Attributes:
        settings: contents of the job file, without ``out``. files: name on the device -> local file.
        command: program and arguments, run in the job's folder; empty for the ondevice runner in Python.
    """

    settings: dict[str, Any]
    files: dict[str, Path]
    command: tuple[str, ...] = ()

    @property
    def replies(self) -> dict[str, int]:
        """Files that the job may leave, and the maximum size of each in bytes."""
        return _REPLIES[self.settings.get("do", "measure")]

    @property
    def title(self) -> str:
        """Description of the job for messages."""
        if self.settings.get("do") == "build":
            return f"building the {self.settings['precision']} engine"
        if self.settings.get("do") == "program":
            return str(self.settings["title"])
        return f"{self.settings['model']} in {self.settings['runtime']}"


class MisfitError(EdgekitError):
    """An engine of another TensorRT version, or for another GPU or DLA core; the message has the difference."""


def failure(message: str, hint: str) -> EdgekitError:
    """Return the error of a failed job; known failures get a hint of their own."""
    if MISFIT in message:
        return MisfitError(message, "the same command with --rebuild")
    if NOT_ACCELERATED in message:
        return EdgekitError(message, _NOT_ACCELERATED_HINT)
    return EdgekitError(message, hint)


def discard(text: str) -> None:
    """Ignore a line of progress."""


# $1: a job. Prints the other jobs that run, and their owners.
_LIST_OTHERS = """
read -r boot </proc/sys/kernel/random/boot_id
cd "$cache/jobs" || exit 0
for job in *; do
    [ "$job" != "$1" ] && [ ! -f "$job/status" ] || continue
    read -r was <"$job/started/boot" && [ "$was" = "$boot" ] || continue
    read -r pid <"$job/started/pid" && kill -0 "$pid" && echo "$job $(head -c 200 "$job/owner")"
done 2>/dev/null
exit 0
"""
# $1: a job.
_END = """
job="$cache/jobs/$1"
if [ ! -f "$job/status" ] && pid="$(cat "$job/started/pid" 2>/dev/null)"; then
    { kill -TERM -- "-$pid" || kill "$pid"; } 2>/dev/null
fi
rm -f "$(readlink "$job/job.json")"; rm -rf "$job"
"""


def refuse_if_busy(link: Link, name: str) -> None:
    """Check that no other edgekit measures on the device `name`.

    Raises:
        EdgekitError: one does.
    """
    for _ in _orphans(link, "", name):
        pass


def end_orphans(link: Link, token: str, name: str) -> None:
    """End jobs that a killed edgekit of this user left on the device `name`, except the job `token`.

    Raises:
        EdgekitError: another edgekit measures there.
    """
    for job in _orphans(link, token, name):
        end(link, job)


def end(link: Link, token: str) -> None:
    """End a job if it still runs, and remove its folder; the cache of files stays."""
    with contextlib.suppress(EdgekitError):  # the folder then stays until `edgekit devices clean`
        link.tidy(_END, token)


def _orphans(link: Link, token: str, name: str) -> Iterator[str]:
    """Yield running jobs, except `token`, whose edgekit has ended; refuse jobs of an edgekit that has not."""
    for line in link.insist(_LIST_OTHERS, token).decode("ascii", "replace").splitlines():
        job, _, owner = line.partition(" ")
        if not re.fullmatch(r"[0-9a-f]{16}", job):
            continue
        user, _, pid = owner.rpartition(" ")
        if user != user_at_host() or is_running(pid):
            raise EdgekitError(f"another edgekit ({visible(owner)}) is measuring on {name}", "wait until it has ended")
        yield job


def user_at_host() -> str:
    """Return this user and machine, as owners of jobs are recorded on devices."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def is_running(pid: str) -> bool:
    """Return whether another process of this machine has this process id."""
    if not pid.isdigit() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
