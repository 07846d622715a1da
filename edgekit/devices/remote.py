"""Transports over ssh and adb.

A job runs on the device in a session of its own, so that it survives a broken connection; the same command resumes it.
Files are cached there by their hash.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
import zipfile
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import Any

import edgekit.ondevice
from edgekit import files, progress
from edgekit.devices import adb, android, jetson_power, jobs
from edgekit.devices.jobs import OPTIONAL, Job, Report, discard, failure
from edgekit.devices.link import ConnectionLost, Link, RemoteError
from edgekit.devices.ssh import Connection
from edgekit.errors import EdgekitError, UsageError
from edgekit.labels import visible
from edgekit.records import Device

_ONDEVICE = Path(edgekit.ondevice.__file__).parent
_ERROR_LINES = 5
_STARTS = 2  # a job whose process disappears is started a second time
_KILLED = ("lost", "137", "143")  # its process disappeared; SIGKILL (out of memory, for example); SIGTERM
_PATIENCE_S = 600.0  # of a job without progress: then, and after twice the time each, a warning says so
_ABSENT = 44  # exit status of `_FETCH` if the file does not exist
# $1: a job, $2: its owner, then pairs of a file name in the job's folder and a hash. Prints "there" if the job was
# there before: a job of a killed edgekit is resumed, unless it failed or ended more than 15 minutes ago.
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
# $1: a job, then its command. Starts it once, however often this runs; it outlives the connection.
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
# $1: a job, $2: not empty to touch $cache/alive. Prints "progress TEXT" whenever that changes, "alive" every half
# minute, and at last "status N", or "status lost" if its process disappeared. The loop starts no program but sleep, so
# as not to disturb measurements.
_WAIT = """
cd "$cache/jobs/$1" 2>/dev/null || { echo status lost; exit 0; }
boot= pid= now= last= rounds=0
alive() {
    read -r was <started/boot && read -r is </proc/sys/kernel/random/boot_id && read -r pid <started/pid
    [ "$was" = "$is" ] && kill -0 "$pid"
} 2>/dev/null
while [ ! -f status ]; do
    alive || { sleep 1; [ -f status ] && break; echo status lost; exit 0; }
    [ -z "$2" ] || : >"$cache/alive"
    [ -f progress ] && read -r now <progress
    [ "$now" = "$last" ] || { echo "progress $now"; last="$now"; }
    rounds=$((rounds + 1))
    [ $((rounds % 60)) != 0 ] || echo alive
    sleep 0.5 2>/dev/null || sleep 1
done
echo "status $(cat status)"
"""
_AGAIN = 'cd "$cache/jobs/$1" && rm -rf started status\n'
_LOG = 'tail -c 4000 "$cache/jobs/$1/log" 2>/dev/null; exit 0\n'
_FETCH = f'[ -f "$cache/jobs/$1/out/$2" ] || exit {_ABSENT}\ncat "$cache/jobs/$1/out/$2"\n'
_CLEAN = 'du -sk "$cache" | cut -f1; rm -rf "$cache"\n'


class RemoteTransport:
    """A device behind a `Link`.

    Attributes:
        environment: fields of the last job's environment that the runner does not record itself.
        resumed: the last job was there before, from an edgekit that was killed.
        other_cause, cause_hint: for the error of a job that disappears each time that it is started.
    """

    other_cause = "restarted"
    cause_hint = "out of memory? look for other programs that run there"

    def __init__(self, device: Device, connection: Link, report: Report = discard, power_mode: str = "") -> None:
        self.device, self.connection, self.report, self.power_mode = device, connection, report, power_mode
        self.environment: dict[str, Any] = {"cpu_mask": device.cpu_mask} if device.cpu_mask else {}
        self.resumed = False
        self._open = contextlib.ExitStack()

    def __enter__(self) -> RemoteTransport:
        with contextlib.ExitStack() as opened:
            opened.enter_context(self.connection)
            jobs.refuse_if_busy(self.connection, self.device.name)
            opened.enter_context(self._keep_power_mode())
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, where)

    def _keep_power_mode(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that keeps the power mode of the device."""
        raise NotImplementedError

    def _set_power_mode(self) -> None:
        """Set the power mode again if the device has lost it."""
        raise NotImplementedError

    def stop(self) -> None:
        self.connection.stop()

    def run(self, job: Job, results: Path) -> None:
        connection = self.connection
        with files.scratch() as own:
            (own / "job.json").write_text(json.dumps({**job.settings, "out": "out"}), encoding="utf-8")
            sent = {**job.files, "job.json": own / "job.json"}
            if not job.command:
                sent["ondevice.zip"] = own / "ondevice.zip"
                sent["ondevice.zip"].write_bytes(_package())
            digests = {name: files.sha256_file(path) for name, path in sent.items()}
            self.report("sending files")
            connection.push({digests[name]: path for name, path in sent.items()})
        pairs = [part for pair in digests.items() for part in pair]
        settings = [self.device.name, *self._command(job), self.power_mode, jobs.user_at_host()]
        token = files.sha256_text([*pairs, *settings])[:16]
        jobs.end_orphans(connection, token, self.device.name)
        if self.power_mode:
            self._set_power_mode()
        lost = False
        try:
            there = connection.insist(_PREPARE, token, f"{jobs.user_at_host()} {os.getpid()}", *pairs)
            self.resumed = there.strip() == b"there"
            lost = not self._finish(token, job)
            if not lost:
                self._fetch(token, job, results)
        finally:
            if not lost:
                jobs.end(connection, token)
        if lost:
            raise EdgekitError(
                f"{job.title} on {self.device.name} was killed {_STARTS} times, or the device {self.other_cause}",
                f"{self.cause_hint}; the same command resumes the measurement",
            )

    def _command(self, job: Job) -> tuple[str, ...]:
        """Return the job's command, pinned to the cores of the device file; builds use all cores."""
        settings = "PYTHONPATH=ondevice.zip", "PYTHONDONTWRITEBYTECODE=1"
        command = job.command or ("env", *settings, self.device.python or "python3", "-m", "ondevice", "job.json")
        pinned = self.device.cpu_mask and job.settings.get("do") != "build"
        return ("taskset", self.device.cpu_mask, *command) if pinned else command

    def _finish(self, token: str, job: Job) -> bool:
        """Start the job and wait for its end; return False if it was killed each time.

        Raises:
            EdgekitError: it failed.
        """
        status = ""
        heard, patience = time.monotonic(), _PATIENCE_S

        def read(line: str) -> None:
            nonlocal status, heard, patience
            kind, _, text = line.partition(" ")
            if kind == "status":
                status = text
            elif kind == "progress":
                heard, patience = time.monotonic(), _PATIENCE_S
                self.report(text)
            elif kind == "alive" and time.monotonic() - heard > patience:
                progress.warn(f"{job.title} on {self.device.name}: no progress for {patience / 60:.0f} minutes")
                patience *= 2

        for start in range(_STARTS):
            if start:
                self.connection.insist(_AGAIN, token)
            self.connection.insist(_START, token, *self._command(job))
            self.connection.insist_on_listening(_WAIT, token, "1" if self.power_mode else "", line=read)
            if status == "0":
                return True
            if status not in _KILLED:
                break
            time.sleep(1)
        if status in _KILLED:
            return False
        log = self.connection.insist(_LOG, token).decode("utf-8", "replace").strip().splitlines()[-_ERROR_LINES:]
        tail = "".join(f"\n  {visible(line)}" for line in log)
        raise failure(
            f"{job.title} on {self.device.name} failed:{tail}", f"edgekit devices probe {self.connection.handle}"
        )

    def _fetch(self, token: str, job: Job, results: Path) -> None:
        """Fetch the replies that a job of its kind may leave, and nothing else."""
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
    """A device over ssh, at `Device.host`."""

    def __init__(self, device: Device, report: Report = discard, power_mode: str = "") -> None:
        """
        Raises:
            UsageError: the device has no host, or an invalid one.
        """
        if not device.host:
            raise UsageError(
                f"device {device.name!r} has no host",
                f"edgekit benchmark --device {quote(device.name)} --host user@address",
            )
        super().__init__(device, Connection(device.host), report, power_mode)

    def _keep_power_mode(self) -> contextlib.AbstractContextManager[None]:
        return jetson_power.power_mode(self.connection, self.power_mode, self.report)

    def _set_power_mode(self) -> None:
        jetson_power.set_mode(self.connection, self.power_mode)


class AdbTransport(RemoteTransport):
    """A phone over adb; `Device.host` may be its serial. It cools down between two jobs.

    `environment` has the state of the phone (`android.state`) before and after a job, except after a job that was
    resumed, which began at another time; the state after is missing if the connection broke after the job.
    """

    other_cause = "restarted or was unplugged"
    cause_hint = "out of memory? look for other programs that run there, and leave the phone plugged in"

    def __init__(self, device: Device, report: Report = discard, power_mode: str = "") -> None:
        """
        Raises:
            UsageError: the serial is invalid, the device has no Python, or phones have no such power mode.
            MissingError: adb is not installed.
        """
        if power_mode not in ("", android.FIXED):
            raise UsageError(
                f"an Android phone has no power mode {power_mode!r}",
                f"--set-power-mode {android.FIXED} is the only one",
            )
        if not device.python and device.api != "benchmark-model":
            raise UsageError(
                f"the file of device {device.name!r} names no Python, and Android has none",
                'set python or api = "benchmark-model" in its .toml; edgekit devices probe adb --name X finds a Python',
            )
        super().__init__(device, adb.Connection(device.host), report, power_mode)
        self._fixed = dict(self.environment)
        self._first_status: int | None = None

    def _keep_power_mode(self) -> contextlib.AbstractContextManager[None]:
        return android.power_mode(self.connection, self.power_mode, self.report)

    def _set_power_mode(self) -> None:
        android.set_mode(self.connection)

    def run(self, job: Job, results: Path) -> None:
        waited = 0.0
        if self._first_status is not None:
            waited = android.cool_down(self.connection, self._first_status, self.device.cool_down_s, self.report)
        before = android.state(self.connection)
        if self._first_status is None:
            self._first_status = before.get("thermal_status")
        super().run(job, results)
        after: dict[str, Any] = {}
        with contextlib.suppress(ConnectionLost):  # the results are here already
            after = android.state(self.connection)
        environment: dict[str, Any] = {**self._fixed, "serial": self.connection.host}
        if self.resumed:
            before, after = {}, {}
            environment["taken_up"] = True
        else:
            environment["cooled_s"] = waited
        mode = {"power_mode": self.power_mode} if self.power_mode else {}
        environment.update({f"{name}_before": value for name, value in {**before, **mode}.items()})
        environment.update({f"{name}_after": value for name, value in {**after, **mode}.items()})
        self.environment = environment


def clean(handle: str) -> float:
    """Empty the cache of a host, or of ``adb:SERIAL``, and return its size in MB."""
    phone = adb.is_phone(handle)
    connection = adb.Connection(handle[len("adb:") :]) if phone else Connection(handle)
    with connection:
        (android if phone else jetson_power).end_earlier(connection)
        reply = connection.insist(_CLEAN).split()
    return int(reply[0]) / 1024 if reply and reply[0].isdigit() else 0.0


def _package() -> bytes:
    """Return the ondevice runner as a zip that Python can import from; the bytes are the same each time."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(_ONDEVICE.glob("*.py")):
            archive.writestr(zipfile.ZipInfo(f"ondevice/{path.name}", (1980, 1, 1, 0, 0, 0)), path.read_bytes())
    return content.getvalue()
