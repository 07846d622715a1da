"""A job on a phone behind adb: what `remote` does for a board, with the phone's heat before and after."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from edgekit.bench import adb, android
from edgekit.bench.job import Job, Said, quiet
from edgekit.bench.link import ConnectionLost
from edgekit.bench.remote import RemoteTransport
from edgekit.errors import UsageError
from edgekit.records import Device


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
