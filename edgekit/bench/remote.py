"""A job on a device behind ssh: it runs there by itself, so that a broken connection loses nothing."""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import edgekit.ondevice
from edgekit import store
from edgekit.bench.ssh import Connection
from edgekit.errors import EdgekitError, UsageError
from edgekit.labels import visible
from edgekit.records import Device

_ONDEVICE = Path(edgekit.ondevice.__file__).parent
# What a job may leave, and how many bytes of each are taken.
_REPLIES = {"result.json": 1 << 20, "latencies_ns.npy": 1 << 26, "logits.npy": 1 << 28}
_ERROR_LINES = 5
_STARTS = 2  # a job whose process disappears is started once more

# $1: the job, then pairs of a name there and a hash. Linked, not copied.
_PREPARE = """
job="$cache/jobs/$1"; shift
mkdir -p "$job" && cd "$job" || exit 1
while [ $# -gt 0 ]; do ln -sf "$cache/objects/$2" "$1" || exit 1; shift 2; done
"""
# $1: the job, $2: a Python. Started once however often this runs; it outlives the connection.
_START = """
cd "$cache/jobs/$1" || exit 1
mkdir started 2>/dev/null || exit 0
cat /proc/sys/kernel/random/boot_id >started/boot 2>/dev/null
session=; command -v setsid >/dev/null && session=setsid
$session sh -c '
echo $$ >started/pid.part; mv started/pid.part started/pid
PYTHONPATH=ondevice.zip PYTHONDONTWRITEBYTECODE=1 "$1" -m ondevice job.json >log 2>&1
echo $? >status.part; mv status.part status' edgekit "$2" >/dev/null 2>&1 </dev/null &
for i in 1 2 3 4 5 6 7 8 9 10; do [ -s started/pid ] && break; sleep 1; done
exit 0
"""
# $1: the job. Prints its status, or "lost" where its process is no more.
_WAIT = """
cd "$cache/jobs/$1" 2>/dev/null || { echo lost; exit 0; }
alive() {
    [ "$(cat started/boot 2>/dev/null)" = "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)" ] &&
        kill -0 "$(cat started/pid 2>/dev/null)" 2>/dev/null
}
while [ ! -f status ]; do
    alive || { sleep 1; [ -f status ] && break; echo lost; exit 0; }
    sleep 0.2 2>/dev/null || sleep 1
done
cat status
"""
_AGAIN = 'cd "$cache/jobs/$1" && rm -rf started status out\n'
_LOG = 'tail -c 4000 "$cache/jobs/$1/log" 2>/dev/null; exit 0\n'
_FETCH = 'cat "$cache/jobs/$1/out/$2"\n'
_END = """
job="$cache/jobs/$1"
if [ ! -f "$job/status" ] && pid="$(cat "$job/started/pid" 2>/dev/null)"; then
    { kill -TERM -- "-$pid" || kill "$pid"; } 2>/dev/null
fi
rm -rf "$job"
"""
_CLEAN = 'du -sk "$cache" | cut -f1; rm -rf "$cache"\n'


class SshTransport:
    """A device that `Device.host` names: files go by their hash, and only known replies come back."""

    def __init__(self, device: Device) -> None:
        """
        Raises:
            UsageError: the device has no host, or one that is none.
        """
        if not device.host:
            raise UsageError(
                f"device {device.name!r} has no host", f"edgekit benchmark --device {device.name} --host user@address"
            )
        self.device = device
        self.connection = Connection(device.host)

    def run(self, job: dict[str, Any], files: dict[str, Path], results: Path) -> None:
        with self.connection as connection, tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
            own = Path(scratch)
            (own / "ondevice.zip").write_bytes(_package())
            (own / "job.json").write_text(json.dumps({**job, "out": "out"}), encoding="utf-8")
            sent = {**files, "ondevice.zip": own / "ondevice.zip", "job.json": own / "job.json"}
            digests = {name: store.sha256_file(path) for name, path in sent.items()}
            connection.push({digests[name]: path for name, path in sent.items()})
            token = secrets.token_hex(8)
            try:
                connection.insist(_PREPARE, token, *(part for pair in digests.items() for part in pair))
                self._finish(connection, token, job)
                results.mkdir(parents=True, exist_ok=True)
                for name, most in _REPLIES.items():
                    (results / name).write_bytes(connection.insist(_FETCH, token, name, most=most))
            finally:
                self._end(connection, token)

    def _finish(self, connection: Connection, token: str, job: dict[str, Any]) -> None:
        """Start the job, and wait for its end."""
        python = self.device.python or "python3"
        for start in range(_STARTS):
            if start:
                connection.insist(_AGAIN, token)
            connection.insist(_START, token, python)
            status = connection.insist(_WAIT, token).decode("ascii", "replace").strip()
            if status == "0":
                return
            if status != "lost":
                break
            time.sleep(1)
        said = connection.insist(_LOG, token).decode("utf-8", "replace").strip().splitlines()[-_ERROR_LINES:]
        tail = "".join(f"\n  {visible(line)}" for line in said)
        where = f"{job['model']} in {job['runtime']} on {self.device.name}"
        if status == "lost":
            raise EdgekitError(
                f"{where} was killed twice, or the device restarted{tail}", "out of memory? a smaller model, or batch"
            )
        raise EdgekitError(f"{where} failed:{tail}", f"edgekit devices probe {self.device.host}")

    def _end(self, connection: Connection, token: str) -> None:
        """Stop what still runs, and leave nothing but the cache."""
        with contextlib.suppress(EdgekitError):  # then the job's folder stays for `edgekit devices clean`
            connection.run(_END, token)


def clean(host: str) -> float:
    """Empty the cache of a host; returns the megabytes that it held."""
    with Connection(host) as connection:
        said = connection.insist(_CLEAN).split()
    return int(said[0]) / 1024 if said and said[0].isdigit() else 0.0


def _package() -> bytes:
    """The runner that travels, as a zip that Python imports from; the same bytes each time."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(_ONDEVICE.glob("*.py")):
            archive.writestr(zipfile.ZipInfo(f"ondevice/{path.name}", (1980, 1, 1, 0, 0, 0)), path.read_bytes())
    return content.getvalue()
