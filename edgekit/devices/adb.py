"""Connection to an Android phone over adb, with the client of Android's platform-tools.

``adb devices -l`` prints a title, then one line per device: serial, state, and words like ``model:Pixel_8``
(packages/modules/adb: transport.cpp, `append_transport`). The client's exit status is not reliable, because it is 0
when the connection breaks: each command prints a mark and its own status on standard error at its end.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass

from edgekit.devices.link import ConnectionLost, Link, RemoteError, one_line
from edgekit.errors import EdgekitError, MissingError, UsageError
from edgekit.labels import visible

# Environment variable with a command to use instead of adb, such as ``EDGEKIT_ADB="adb -P 5038"``.
PROGRAM = "EDGEKIT_ADB"
_SERIAL = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:()\[\]% -]{0,127}")
_ASK_S = 60
_MOST_DEVICES, _MOST_TEXT, _MOST_LINE = 64, 200, 1000
_STATES = (
    "device", "offline", "unauthorized", "authorizing", "connecting", "bootloader", "recovery", "rescue", "sideload",
    "host", "detached", "unknown", "no device",
)  # fmt: skip
_LINE = re.compile(
    r"(?P<serial>\S(?:.{0,126}?\S)?)\s+"
    rf"(?P<state>{'|'.join(_STATES)}|no permissions[^\[]{{0,120}}(?:\[\S{{1,120}}\])?)"
    r"(?P<rest>(?:\s+\S{1,120}){0,12})\s*"
)
# The one folder where the shell's user may write and execute. Old releases lack TMPDIR, which here-documents need.
_CACHE = (
    'umask 077; export TMPDIR="${TMPDIR:-/data/local/tmp}"; cache="$TMPDIR/edgekit"\n'
    'mkdir -p "$cache/objects" "$cache/jobs" || exit 1\n'
)
# Prints the commands that the scripts need and the phone lacks. Toybox has `find -mmin` since 0.7.3 (Android 8).
_NEEDS = """
for tool in cat chmod cut du env find head ln mkdir mv readlink rm sha256sum sleep tail; do
    command -v $tool >/dev/null || echo $tool
done
find "$cache" -prune -mmin +0 >/dev/null 2>&1 || echo 'find -mmin'
exit 0
"""
_NEWER = "Android 8 or newer is needed"
_PLUG_IN = "on the phone: Settings, About, seven taps on the build number; then Developer options, USB debugging"


@dataclass(frozen=True)
class Listed:
    """One line of ``adb devices -l``; `model` is empty where the line has none."""

    serial: str
    state: str
    model: str = ""


def is_phone(handle: str) -> bool:
    """Return whether a handle is ``adb`` or ``adb:SERIAL``, not a host of ssh."""
    return handle == "adb" or handle.startswith("adb:")


def check_serial(serial: str) -> None:
    """Check that adb would take `serial` for a serial, not for an option.

    Raises:
        UsageError: it has characters that a serial cannot have.
    """
    if not _SERIAL.fullmatch(serial):
        raise UsageError(
            f"{serial!r} is not the serial of an Android device", "adb devices lists serials in its first column"
        )


def parse_devices(text: str) -> list[Listed]:
    """Parse the output of ``adb devices -l``; other lines, such as those of the server's start, are skipped."""
    found: list[Listed] = []
    for line in text.replace("\r", "").split("List of devices attached", 1)[-1].split("\n"):
        match = _LINE.fullmatch(line[:_MOST_LINE])
        if match is not None and not line.startswith("*") and len(found) < _MOST_DEVICES:
            model = re.search(r"\smodel:(\S+)", match["rest"])
            state = "no permissions" if match["state"].startswith("no permissions") else match["state"]
            name = visible(model[1].replace("_", " "))[:_MOST_TEXT] if model else ""
            found.append(Listed(visible(match["serial"])[:_MOST_TEXT], state, name))
    return found


class Connection(Link):
    """Connection to a phone; `host` is its serial inside the ``with`` block."""

    cache = _CACHE

    def __init__(self, serial: str = "") -> None:
        """
        Args:
            serial: "" for that of ANDROID_SERIAL, or of the only phone that is connected.

        Raises:
            UsageError: `serial` is not a valid serial. MissingError: adb is not installed.
        """
        serial = serial or os.environ.get("ANDROID_SERIAL", "")
        if serial:
            check_serial(serial)
        super().__init__(serial)
        self._program = shlex.split(os.environ.get(PROGRAM, "adb"))
        if not self._program or shutil.which(self._program[0]) is None:
            raise MissingError(
                f"{self._program[0] if self._program else 'adb'} is not installed here",
                "apt install adb   (or Android's platform-tools, on PATH or in EDGEKIT_ADB)",
            )

    def __enter__(self) -> Connection:
        """
        Raises:
            MissingError: the phone is not connected, or not ready.
            UsageError: several phones are connected and none is named; or its Android is too old.
        """
        self.host = choose(self.devices(), self.host).serial
        features = self._ask("-s", self.host, "features")
        if "shell_v2" not in features.split():
            raise UsageError(
                f"{self.host} has an adbd without shell_v2, which does not return the exit status of a command",
                _NEWER,
            )
        missing = visible(", ".join(self.insist(_NEEDS).decode("utf-8", "replace").split("\n")[:-1]))[:_MOST_TEXT]
        if missing:
            raise UsageError(f"{self.host} has no {missing}", _NEWER)
        return self

    @property
    def handle(self) -> str:
        return shlex.quote(f"adb:{self.host}") if self.host else "adb"

    def devices(self) -> list[Listed]:
        """Return all connected devices, ready or not.

        Raises:
            MissingError: adb does not work on this machine.
        """
        return parse_devices(self._ask("devices", "-l"))

    def _ask(self, *arguments: str) -> str:
        """Run the client and return its output."""
        try:
            done = subprocess.run([*self._program, *arguments], capture_output=True, timeout=_ASK_S, check=False)
        except subprocess.TimeoutExpired:
            raise MissingError(
                f"adb did not respond within {_ASK_S} s", "adb kill-server, then run the same command again"
            ) from None
        if done.returncode != 0:
            message = one_line(done.stderr)
            raise self._lost(message) if arguments[0] == "-s" else _no_server(message)
        return done.stdout.decode("utf-8", "replace")

    def command(self, words: list[str], mark: str) -> list[str]:
        script = f"{shlex.join(words)}; status=$?; echo >&2; echo {mark} $status >&2; exit $status"
        return [*self._program, "-s", self.host, "shell", "-T", script]

    def ended(self, status: int, errors: bytes, mark: str) -> None:
        message, _, end = errors.rpartition(f"\n{mark} ".encode())
        if not re.fullmatch(rb"\d{1,3}\r?\n", end):
            raise self._lost(one_line(errors))
        if int(end) != 0:
            raise RemoteError(f"{self.host}: {one_line(message) or f'status {int(end)}'}", int(end))

    def _lost(self, message: str) -> EdgekitError:
        """Return why a command did not end, by the state of the device now."""
        try:
            asked = subprocess.run([*self._program, "devices", "-l"], capture_output=True, timeout=_ASK_S, check=False)
        except subprocess.TimeoutExpired:
            return ConnectionLost(
                f"adb did not respond within {_ASK_S} s", "adb kill-server, then run the same command again"
            )
        if asked.returncode != 0:
            unable = _no_server(one_line(asked.stderr))
            return ConnectionLost(
                unable.message, f"{unable.hint}; then run the same command again: finished measurements are kept"
            )
        now = {each.serial: each for each in parse_devices(asked.stdout.decode("utf-8", "replace"))}
        if self.host not in now:
            return ConnectionLost(
                f"{self.host} is not connected any more: unplugged, switched off, or out of reach",
                "plug it in, then run the same command again: finished measurements are kept, a running job is resumed",
            )
        unready = not_ready(now[self.host])
        if unready is not None:
            return ConnectionLost(
                unready.message, f"{unready.hint}; then run the same command again: finished measurements are kept"
            )
        return ConnectionLost(
            f"the connection to {self.host} broke: {message or 'no reason given'}", f"adb -s {self.host} reconnect"
        )


def choose(found: list[Listed], serial: str) -> Listed:
    """Return the device with this serial, or the only one if `serial` is "".

    Raises:
        MissingError: it is not connected, or not ready. UsageError: several are connected and none is named.
    """
    if not found:
        wanted = f"{serial} is not connected" if serial else "no Android device is connected"
        raise MissingError(wanted, f"{_PLUG_IN} (over Wi-Fi: adb connect ADDRESS:5555)")
    names = ", ".join(f"{d.serial} ({', '.join(filter(None, (d.model, d.state)))})" for d in found)
    if not serial and len(found) > 1:
        raise UsageError(
            f"several Android devices are connected: {names}",
            "name one: --host SERIAL, `host` in its .toml file, or ANDROID_SERIAL; devices probe takes adb:SERIAL",
        )
    chosen = next((each for each in found if not serial or each.serial == serial), None)
    if chosen is None:
        raise MissingError(f"{serial} is not connected", f"connected: {names}")
    unready = not_ready(chosen)
    if unready is not None:
        raise unready
    return chosen


def not_ready(device: Listed) -> MissingError | None:
    """Return the error for a device that is not ready; None if it is."""
    serial = device.serial
    if device.state == "device":
        return None
    if device.state in ("unauthorized", "authorizing"):
        return MissingError(
            f"{serial} does not trust this computer yet ({device.state})",
            "unlock the phone and accept 'Allow USB debugging?'; if it does not ask: adb kill-server, then try again",
        )
    if device.state == "offline":
        return MissingError(f"{serial} is offline", f"unplug it and plug it in again, or: adb -s {serial} reconnect")
    if device.state == "no permissions":
        return MissingError(
            f"this user may not open the USB device {serial}",
            "apt install android-sdk-platform-tools-common (udev rules), join the group plugdev, plug it in again",
        )
    if device.state in ("bootloader", "recovery", "rescue", "sideload"):
        return MissingError(f"{serial} is in {device.state}, not in Android", f"adb -s {serial} reboot")
    return MissingError(f"{serial} is not ready ({device.state})", "adb devices -l")


def _no_server(message: str) -> MissingError:
    return MissingError(
        f"adb does not work on this machine: {message or 'no reason given'}", "adb kill-server, then adb devices"
    )
