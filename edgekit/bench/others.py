"""Jobs on a device that another edgekit runs, or that one which was killed left behind."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from edgekit.bench.link import Link
from edgekit.bench.powermode import is_running, who
from edgekit.errors import EdgekitError
from edgekit.labels import visible

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


def refuse(link: Link, name: str) -> None:
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
        end(link, job)


def end(link: Link, token: str) -> None:
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
