"""A job on a device at the other end of a link: it runs there by itself, so that a broken connection loses nothing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import time
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Any

import edgekit.ondevice
from edgekit import files
from edgekit.devices import adb, android, jetson_power, jobs
from edgekit.devices.jobs import OPTIONAL, Job, Said, failure, quiet
from edgekit.devices.link import ConnectionLost, Link, RemoteError
from edgekit.devices.ssh import Connection
from edgekit.errors import EdgekitError, UsageError
from edgekit.labels import visible
from edgekit.records import Device

_ONDEVICE = Path(edgekit.ondevice.__file__).parent
_ERROR_LINES = 5
_STARTS = 2  # a job whose process disappears is started once more
_KILLED = ("lost", "137", "143")  # no process any more, or SIGKILL (as when memory runs out), or SIGTERM
_ABSENT = 44  # what fetching ends with where there is no such file
# $1: the job, $2: whose it is, then pairs of a name there and a hash. Linked, not copied. The same job of an edgekit
# that was killed is gone on with, unless it ended more than 15 minutes ago or failed.
_PREPARE = """
job="$cache/jobs/$1" owner=$2; shift 2
[ -n "$(find "$job/status" -mmin +15 2>/dev/null)" ] && rm -rf "$job"
mkdir -p "$job" "$cache/keep" && cd "$job" && ln -sfn "$cache/keep" keep || exit 1
printf '%s\\n' "$owner" >owner
[ ! -f status ] || [ "$(cat status)" = 0 ] || rm -rf started status
[ -z "$(find out -name 'latencies.part.*' -mmin +15 2>/dev/null)" ] || rm -f out/latencies.part.*
while [ $# -gt 0 ]; do ln -sf "$cache/objects/$2" "$1" || exit 1; shift 2; done
for part in started out/latencies.part.*; do [ ! -e "$part" ] || { echo there; break; }; done
"""
# $1: the job, then a command. Started once however often this runs; it outlives the connection.
_START = """
cd "$cache/jobs/$1" || exit 1
shift
mkdir started 2>/dev/null || exit 0
cat /proc/sys/kernel/random/boot_id >started/boot 2>/dev/null
session=; command -v setsid >/dev/null && session=setsid
$session sh -c '
echo $$ >started/pid.part; mv started/pid.part started/pid
"$@" >log 2>&1
echo $? >status.part; mv status.part status' edgekit "$@" >/dev/null 2>&1 </dev/null &
for i in 0.1 0.2 0.3 0.4 1 1 1 2 2 2; do [ -s started/pid ] && break; sleep $i 2>/dev/null || sleep 1; done
exit 0
"""
# $1: the job, $2: whether to show a sign of life. Says how far it is, and at last its status, or "lost" where its
# process is no more. Whoever measures wants no other work beside it: nothing but sleep is started in the loop.
_WAIT = """
cd "$cache/jobs/$1" 2>/dev/null || { echo status lost; exit 0; }
boot= pid= now= last=
alive() {
    read -r was <started/boot && read -r is </proc/sys/kernel/random/boot_id && read -r pid <started/pid
    [ "$was" = "$is" ] && kill -0 "$pid"
} 2>/dev/null
while [ ! -f status ]; do
    alive || { sleep 1; [ -f status ] && break; echo status lost; exit 0; }
    [ -z "$2" ] || : >"$cache/alive"
    [ -f progress ] && read -r now <progress
    [ "$now" = "$last" ] || { echo "said $now"; last="$now"; }
    sleep 0.5 2>/dev/null || sleep 1
done
echo "status $(cat status)"
"""
_AGAIN = 'cd "$cache/jobs/$1" && rm -rf started status\n'
_LOG = 'tail -c 4000 "$cache/jobs/$1/log" 2>/dev/null; exit 0\n'
_FETCH = f'[ -f "$cache/jobs/$1/out/$2" ] || exit {_ABSENT}\ncat "$cache/jobs/$1/out/$2"\n'
_CLEAN = 'du -sk "$cache" | cut -f1; rm -rf "$cache"\n'


class RemoteTransport:
    """A device behind a `Link`: files go by their hash, and only known replies come back.

    Attributes:
        environment: what is known of the last job's circumstances besides what the runner says of them.
        taken_up: whether the last job was there before, from an edgekit that is no more.
        losses: what else may end a job again and again, and what to look for.
    """

    losses = ("restarted", "out of memory? see what else runs there")

    def __init__(self, device: Device, connection: Link, said: Said = quiet, power_mode: str = "") -> None:
        self.device, self.connection, self.said, self.power_mode = device, connection, said, power_mode
        self.environment: dict[str, Any] = {"cpu_mask": device.cpu_mask} if device.cpu_mask else {}
        self.taken_up = False
        self._open = contextlib.ExitStack()

    def __enter__(self) -> RemoteTransport:
        with contextlib.ExitStack() as opened:
            opened.enter_context(self.connection)
            jobs.refuse_others(self.connection, self.device.name)
            opened.enter_context(self._held())
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, where)

    def _held(self) -> contextlib.AbstractContextManager[None]:
        """The power mode, while the device is used."""
        raise NotImplementedError

    def _hold(self) -> None:
        """See that the power mode is still held."""
        raise NotImplementedError

    def stop(self) -> None:
        self.connection.stop()

    def run(self, job: Job, results: Path) -> None:
        connection = self.connection
        with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
            own = Path(scratch)
            (own / "job.json").write_text(json.dumps({**job.settings, "out": "out"}), encoding="utf-8")
            sent = {**job.files, "job.json": own / "job.json"}
            if not job.command:
                sent["ondevice.zip"] = own / "ondevice.zip"
                sent["ondevice.zip"].write_bytes(_package())
            digests = {name: files.sha256_file(path) for name, path in sent.items()}
            self.said("sending files")
            connection.push({digests[name]: path for name, path in sent.items()})
        pairs = [part for pair in digests.items() for part in pair]
        settings = [self.device.name, *self._command(job), self.power_mode, jobs.who()]
        token = files.sha256_text([*pairs, *settings])[:16]
        jobs.be_alone(connection, token, self.device.name)
        if self.power_mode:
            self._hold()
        lost = False
        try:
            there = connection.insist(_PREPARE, token, f"{jobs.who()} {os.getpid()}", *pairs)
            self.taken_up = there.strip() == b"there"
            lost = not self._finish(token, job)
            if not lost:
                self._fetch(token, job, results)
        finally:
            if not lost:
                jobs.end_others(connection, token)
        if lost:
            raise EdgekitError(
                f"{job.title} on {self.device.name} was killed {_STARTS} times, or the device {self.losses[0]}",
                f"{self.losses[1]}; the same command goes on with what was measured",
            )

    def _command(self, job: Job) -> tuple[str, ...]:
        """What runs in the job's folder, on the cores that the device's file names; what is built may take all."""
        settings = "PYTHONPATH=ondevice.zip", "PYTHONDONTWRITEBYTECODE=1"
        command = job.command or ("env", *settings, self.device.python or "python3", "-m", "ondevice", "job.json")
        pinned = self.device.cpu_mask and job.settings.get("do") != "build"
        return ("taskset", self.device.cpu_mask, *command) if pinned else command

    def _finish(self, token: str, job: Job) -> bool:
        """Start the job, and wait for its end; returns whether it came to one.

        Raises:
            EdgekitError: it failed.
        """
        status = ""

        def hear(line: str) -> None:
            nonlocal status
            kind, _, text = line.partition(" ")
            if kind == "status":
                status = text
            elif kind == "said":
                self.said(text)

        for start in range(_STARTS):
            if start:
                self.connection.insist(_AGAIN, token)
            self.connection.insist(_START, token, *self._command(job))
            self.connection.insist_on_listening(_WAIT, token, "1" if self.power_mode else "", line=hear)
            if status == "0":
                return True
            if status not in _KILLED:
                break
            time.sleep(1)
        if status in _KILLED:
            return False
        said = self.connection.insist(_LOG, token).decode("utf-8", "replace").strip().splitlines()[-_ERROR_LINES:]
        tail = "".join(f"\n  {visible(line)}" for line in said)
        raise failure(
            f"{job.title} on {self.device.name} failed:{tail}", f"edgekit devices probe {self.connection.handle}"
        )

    def _fetch(self, token: str, job: Job, results: Path) -> None:
        """Take the files that a job of its kind may leave, and no others."""
        results.mkdir(parents=True, exist_ok=True)
        for name, most in job.replies.items():
            try:
                content = self.connection.insist(_FETCH, token, name, most=most)
            except RemoteError as error:
                if error.status_there == _ABSENT and name in OPTIONAL:
                    continue
                raise
            (results / name).write_bytes(content)


class SshTransport(RemoteTransport):
    """A device that `Device.host` names, behind ssh."""

    def __init__(self, device: Device, said: Said = quiet, power_mode: str = "") -> None:
        """
        Raises:
            UsageError: the device has no host, or one that is none.
        """
        if not device.host:
            raise UsageError(
                f"device {device.name!r} has no host", f"edgekit benchmark --device {device.name} --host user@address"
            )
        super().__init__(device, Connection(device.host), said, power_mode)

    def _held(self) -> contextlib.AbstractContextManager[None]:
        return jetson_power.held(self.connection, self.power_mode, self.said)

    def _hold(self) -> None:
        jetson_power.hold(self.connection, self.power_mode)


def clean(handle: str) -> float:
    """Empty the cache of a host, or of ``adb:SERIAL``; returns the megabytes that it held."""
    phone = adb.is_phone(handle)
    connection = adb.Connection(handle[len("adb:") :]) if phone else Connection(handle)
    with connection:
        (android if phone else jetson_power).release(connection)
        said = connection.insist(_CLEAN).split()
    return int(said[0]) / 1024 if said and said[0].isdigit() else 0.0


def _package() -> bytes:
    """The runner that travels, as a zip that Python imports from; the same bytes each time."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(_ONDEVICE.glob("*.py")):
            archive.writestr(zipfile.ZipInfo(f"ondevice/{path.name}", (1980, 1, 1, 0, 0, 0)), path.read_bytes())
    return content.getvalue()


# A job on a phone behind adb: what `remote` does for a board, with the phone's heat before and after.


class AdbTransport(RemoteTransport):
    """A phone whose serial `Device.host` may name; between two jobs it may cool down.

    What a phone says of itself before and after is left out of a job that was taken up, and the latter where the
    connection broke once all was fetched.
    """

    losses = (
        "restarted or was unplugged",
        "out of memory? see what else runs there, and leave the phone plugged in",
    )

    def __init__(self, device: Device, said: Said = quiet, power_mode: str = "") -> None:
        """
        Raises:
            UsageError: no serial, no Python, or another power mode than a phone has. MissingError: there is no adb.
        """
        if power_mode not in ("", android.FIXED):
            raise UsageError(f"an Android phone has no power mode {power_mode!r}", f"--set-power-mode {android.FIXED}")
        if not device.python and device.api != "benchmark-model":
            raise UsageError(
                f"device {device.name!r} names no Python, and a phone has none of its own",
                'python or api = "benchmark-model" in its .toml; edgekit devices probe adb --name X looks for one',
            )
        super().__init__(device, adb.Connection(device.host), said, power_mode)
        self._known = dict(self.environment)
        self._at_first: int | None = None

    def _held(self) -> contextlib.AbstractContextManager[None]:
        return android.held(self.connection, self.power_mode, self.said)

    def _hold(self) -> None:
        android.hold(self.connection)

    def run(self, job: Job, results: Path) -> None:
        waited = 0.0
        if self._at_first is not None:
            waited = android.cool_down(self.connection, self._at_first, self.device.cool_down_s, self.said)
        before = android.state(self.connection)
        if self._at_first is None:
            self._at_first = before.get("thermal_status")
        super().run(job, results)
        after: dict[str, Any] = {}
        with contextlib.suppress(ConnectionLost):  # what was measured is here
            after = android.state(self.connection)
        found: dict[str, Any] = {**self._known, "serial": self.connection.host}
        if self.taken_up:  # it began, and perhaps ended, at another time
            before, after = {}, {}
            found["taken_up"] = True
        else:
            found["cooled_s"] = waited
        mode = {"power_mode": self.power_mode} if self.power_mode else {}
        found.update({f"{name}_before": value for name, value in {**before, **mode}.items()})
        found.update({f"{name}_after": value for name, value in {**after, **mode}.items()})
        self.environment = found
