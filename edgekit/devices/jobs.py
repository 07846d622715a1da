"""What a device is to do, and what may come back of it."""

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


# Jobs on a device that another edgekit runs, or that one which was killed left behind.

# $1: a job. Names the others that run, and whose they are.
_OTHERS = """
read -r boot </proc/sys/kernel/random/boot_id
cd "$cache/jobs" || exit 0
for job in *; do
    [ "$job" != "$1" ] && [ ! -f "$job/status" ] || continue
    read -r was <"$job/started/boot" && [ "$was" = "$boot" ] || continue
    read -r pid <"$job/started/pid" && kill -0 "$pid" && echo "$job $(head -c 200 "$job/owner")"
done 2>/dev/null
exit 0
"""
_END = """
job="$cache/jobs/$1"
if [ ! -f "$job/status" ] && pid="$(cat "$job/started/pid" 2>/dev/null)"; then
    { kill -TERM -- "-$pid" || kill "$pid"; } 2>/dev/null
fi
rm -f "$(readlink "$job/job.json")"; rm -rf "$job"
"""


def refuse_others(link: Link, name: str) -> None:
    """Change nothing beneath a measurement.

    Raises:
        EdgekitError: another edgekit is measuring on the device, which is called `name`.
    """
    for _ in _left(link, "", name):
        pass


def be_alone(link: Link, token: str, name: str) -> None:
    """End jobs that an edgekit of this user left behind, but for the job `token`.

    Raises:
        As `refuse`.
    """
    for job in _left(link, token, name):
        end_others(link, job)


def end_others(link: Link, token: str) -> None:
    """Stop what still runs of a job, and leave nothing but the cache."""
    with contextlib.suppress(EdgekitError):  # then the job's folder stays for `edgekit devices clean`
        link.tidy(_END, token)


def _left(link: Link, token: str, name: str) -> Iterator[str]:
    for line in link.insist(_OTHERS, token).decode("ascii", "replace").splitlines():
        job, _, owner = line.partition(" ")
        if not re.fullmatch(r"[0-9a-f]{16}", job):
            continue
        whose, _, pid = owner.rpartition(" ")
        if whose != who() or is_running(pid):
            raise EdgekitError(f"another edgekit ({visible(owner)}) is at work on {name}", "wait until it has ended")
        yield job


def who() -> str:
    """This user of this machine."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def is_running(pid: str) -> bool:
    """Whether another process of this machine has this number."""
    if not pid.isdigit() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
