"""Thermal state and battery of an Android phone, and its fixed-performance mode: set on request, ended in any case.

``dumpsys thermalservice`` (Android 10 and newer) prints ``Thermal Status: N``, 0 to 6; ``dumpsys battery`` has lines
for the level, the temperature (tenths of a degree) and the sources of charge. ``cmd power
set-fixed-performance-mode-enabled true`` (Android 11 and newer) fails where the phone's power HAL has no such mode; its
state cannot be queried. Formats: ThermalManagerService, BatteryService and PowerManagerShellCommand of AOSP. Not
verified on hardware.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgekit import progress
from edgekit.devices import jobs
from edgekit.devices.jobs import Report, is_running, user_at_host
from edgekit.devices.link import ConnectionLost, Link, RemoteError
from edgekit.devices.probe import sections
from edgekit.errors import EdgekitError, UsageError
from edgekit.labels import visible

FIXED = "fixed-performance"
THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_NOT_DONE, _NO_MODE = 43, 45
_LOOK_S = 2.0
_TIMEOUT_MIN = 3
_BY_HAND = "adb -s {} shell cmd power set-fixed-performance-mode-enabled false"
STATE = """
section thermal; dumpsys thermalservice 2>/dev/null | head -c 20000
section battery; dumpsys battery 2>/dev/null | head -c 8000
"""
SECTION = """
mark=$1; shift
section() { printf '\\n%s %s\\n' "$mark" "$1"; }
"""
# $cache/fixed has the owner of the mode from before it is switched on until it is off; $cache/fixed.on exists once it
# was switched on. Without it a command whose connection broke may still run: then the mode is switched off twice.
_SHARED = """
mode() { cmd power set-fixed-performance-mode-enabled $1 >/dev/null 2>&1 </dev/null; }
put_back() {
    [ -f "$cache/fixed" ] || return 0
    unsure=; [ -f "$cache/fixed.on" ] || unsure=1
    mode false || [ -n "$unsure" ] || return 1
    rm -f "$cache/fixed" "$cache/fixed.on" "$cache/alive"
    [ -z "$unsure" ] || mode false || :
}
"""
# $1: owner. A watcher on the phone ends the mode when there was no sign of life for minutes and no job runs; a restart
# of the phone ends it, too.
_SET = (
    _SHARED
    + """
watched() {
    read -r is </proc/sys/kernel/random/boot_id && read -r was pid <"$cache/watcher" || return 1
    [ "$was" = "$is" ] && kill -0 "$pid"
} 2>/dev/null
: >"$cache/alive"
printf '%s\\n' "$1" >"$cache/fixed.part"; mv "$cache/fixed.part" "$cache/fixed"
if ! watched; then
cat >"$cache/watch.part" <<'END'
"""
    + _SHARED
    + f"""
busy() {{
    read -r boot </proc/sys/kernel/random/boot_id
    for job in "$cache"/jobs/*/; do
        [ -f "$job/status" ] && continue
        read -r was <"$job/started/boot" && [ "$was" = "$boot" ] || continue
        read -r pid <"$job/started/pid" && kill -0 "$pid" && return 0
    done 2>/dev/null
    return 1
}}
echo "$(cat /proc/sys/kernel/random/boot_id) $$" >"$cache/watcher"
while [ -f "$cache/fixed" ]; do
    sleep "$wait"
    [ -n "$(find "$cache/alive" -mmin -{_TIMEOUT_MIN} 2>/dev/null)" ] || busy || put_back || :
done
END
mv "$cache/watch.part" "$cache/watch.sh"
session=; command -v setsid >/dev/null && session=setsid
cache="$cache" wait="${{EDGEKIT_WATCH_S:-20}}" $session sh "$cache/watch.sh" >/dev/null 2>&1 </dev/null &
fi
trap '' HUP # run to the end, even if the connection breaks
on=; [ -f "$cache/fixed.on" ] && on=1
rm -f "$cache/fixed.on"
mode true || {{ [ -z "$on" ] || : >"$cache/fixed.on"; put_back; exit {_NO_MODE}; }}
: >"$cache/fixed.on"
[ -f "$cache/fixed" ] || {{ mode false; rm -f "$cache/fixed.on"; }}
exit 0
"""
)
_ASK = f"""
[ -f "$cache/fixed" ] || exit 0
fresh=; [ -z "$(find "$cache/alive" -mmin -{_TIMEOUT_MIN} 2>/dev/null)" ] || fresh=fresh
echo "$fresh:$(head -c 200 "$cache/fixed" 2>/dev/null)"
"""
_RESTORE = _SHARED + f'[ -f "$cache/fixed" ] || exit 0\nput_back && echo restored || exit {_NOT_DONE}\n'


def state(link: Link) -> dict[str, Any]:
    """Return thermal status, battery and charging of a phone now; see `parse_state`."""
    mark = secrets.token_hex(8)
    reply = link.insist(SECTION + STATE + "exit 0\n", mark).decode("utf-8", "replace")
    return parse_state(sections(reply, mark))


def parse_state(output: dict[str, str]) -> dict[str, Any]:
    """Parse the sections that `STATE` prints: thermal_status (0 to 6), battery_percent, battery_c, charged_by.

    Values that the phone does not report are left out.
    """
    found: dict[str, Any] = {}
    status = re.search(r"^Thermal Status: ([0-6])\r?$", output.get("thermal", ""), re.MULTILINE)
    if status:
        found["thermal_status"] = int(status[1])
    battery = output.get("battery", "").partition("[EventLogBuffer]")[0]
    level = re.search(r"^\s{1,8}level: (\d{1,3})\r?$", battery, re.MULTILINE)
    if level and int(level[1]) <= 100:
        found["battery_percent"] = int(level[1])
    tenths = re.search(r"^\s{1,8}temperature: (-?\d{1,4})\r?$", battery, re.MULTILINE)
    if tenths and -600 < int(tenths[1]) < 1500:
        found["battery_c"] = int(tenths[1]) / 10
    by = re.findall(r"^\s{1,8}(AC|USB|Wireless|Dock) powered: (true|false)\r?$", battery, re.MULTILINE)
    if by:
        found["charged_by"] = ", ".join(name for name, is_it in by if is_it == "true") or "nothing"
    return found


def thermal_name(status: Any) -> str:
    """Return a thermal status for messages, such as ``2 (moderate)``."""
    known = isinstance(status, int) and 0 <= status < len(THERMAL)
    return f"{status} ({THERMAL[status]})" if known else "unknown"


def cool_down(link: Link, wanted: int, most_s: float, report: Report) -> float:
    """Wait until the thermal status is at most `wanted`, for `most_s` seconds at most; return the seconds waited."""
    started = time.monotonic()
    while True:
        now, waited = state(link).get("thermal_status"), time.monotonic() - started
        if now is None or now <= wanted or waited >= most_s:
            return round(waited, 1)
        report(f"cooling down: thermal status {thermal_name(now)}, it was {wanted}; {most_s - waited:.0f} s at most")
        time.sleep(min(_LOOK_S, most_s - waited))


@contextmanager
def power_mode(link: Link, mode: str, report: Report) -> Iterator[None]:
    """Keep the phone in fixed-performance mode inside the block; "" changes nothing.

    A mode that an earlier run left on is switched off first, or kept if it is requested again: a job of that run may
    still be going on.

    Raises:
        UsageError: another mode is requested, the phone has no such mode, or another edgekit has switched it on.
        ConnectionLost: the mode could not be switched off; the hint has the command.
    """
    if mode not in ("", FIXED):
        raise UsageError(f"an Android phone has no power mode {mode!r}", f"--set-power-mode {FIXED} is the only one")
    if end_earlier(link, mode):
        report("switched off the fixed-performance mode that an earlier run had left on")
    if not mode:
        yield
        return
    report("switching the fixed-performance mode on")
    link.sign_of_life = True
    try:
        set_mode(link)
        yield
    except BaseException:
        try:
            _put_back(link, insist=False)
        except EdgekitError as error:
            progress.warn(f"{error.message}; its fixed-performance mode may still be on. {_how_it_ends(link)}")
        raise
    try:
        _put_back(link, insist=True)
    except ConnectionLost as error:
        raise ConnectionLost(f"{error.message}; its fixed-performance mode is still on", _how_it_ends(link)) from None


def _how_it_ends(link: Link) -> str:
    return (
        f"the phone switches it off in {_TIMEOUT_MIN + 1} minutes if it is awake and adbd did not restart; or run: "
        + _BY_HAND.format(link.host)
    )


def set_mode(link: Link) -> None:
    """Switch the mode on, unless it is on."""
    try:
        link.insist(_SET, f"{user_at_host()} {os.getpid()}")
    except RemoteError as error:
        if error.status_there != _NO_MODE:
            raise
        raise UsageError(
            f"{link.host} has no fixed-performance mode (it needs Android 11, and a power HAL that has it)",
            "run the command without --set-power-mode",
        ) from None


def end_earlier(link: Link, wanted: str = "") -> bool:
    """End the jobs of an earlier run that left the mode on, and switch it off; return whether it was on.

    Args:
        wanted: mode that is switched on next; if it is set, a mode that this user's run left on is kept.

    Raises:
        UsageError: that run is still going on. EdgekitError: the mode cannot be switched off.
    """
    reply = link.insist(_ASK).decode("utf-8", "replace").strip()
    if not reply:
        return False
    fresh, _, holder = reply.partition(":")
    owner, _, pid = holder.rpartition(" ")
    if is_running(pid) if owner == user_at_host() else bool(fresh):
        raise UsageError(
            f"another edgekit ({visible(holder)}) has set the power mode of {link.host}", "wait until it has ended"
        )
    if wanted and owner == user_at_host():
        return False
    jobs.end_orphans(link, "", link.host)
    return _put_back(link, insist=True)


def _put_back(link: Link, insist: bool) -> bool:
    try:
        return b"restored" in (link.insist if insist else link.tidy)(_RESTORE)
    except RemoteError as error:
        if error.status_there != _NOT_DONE:
            raise
        raise EdgekitError(
            f"{link.host} still has the fixed-performance mode that edgekit switched on", _BY_HAND.format(link.host)
        ) from None
