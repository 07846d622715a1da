"""Power mode of a Jetson: set on request, and restored in any case.

``nvpmodel -q`` prints ``NV Power Mode: NAME`` and a line with the mode's number; ``nvpmodel -m NUMBER`` sets it.
``jetson_clocks`` locks the clocks; ``--store`` and ``--restore`` are for the former ones (Jetson Linux Developer
Guide, "Power Management for Jetson Xavier/Orin"). /etc/nvpmodel.conf, or the file that NVPMODEL_CONF names on the
board, lists the modes as ``< POWER_MODEL ID=0 NAME=15W >``. Setting a mode needs root, by ``sudo -n``. Not verified on
hardware.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from shlex import quote

from edgekit import progress
from edgekit.devices import jobs
from edgekit.devices.jobs import Report
from edgekit.devices.link import ConnectionLost, Link, RemoteError
from edgekit.errors import EdgekitError, MissingError, UsageError
from edgekit.labels import visible

_NO_SUCH_MODE, _NOT_ALLOWED, _NOT_DONE, _NO_NVPMODEL = 41, 42, 43, 45
_TIMEOUT_S = "120"
_BY_ITSELF = "within 4 minutes of the last command or job"
_BY_HAND = (
    "ssh -t {host} 'cd ~/.cache/edgekit && sudo nvpmodel -m $(cat restore) && sudo jetson_clocks --restore clocks'"
)
# $cache/restore has the old mode from before the change until it is restored; $cache/holder has the owner of the new
# one. A watcher on the device restores the mode when there was no command for two minutes and no job runs; after a
# power cut, the next edgekit that connects does.
_SHARED = """
mode_now() { nvpmodel -q 2>/dev/null | sed -n 's/^\\([0-9][0-9]*\\)$/\\1/p' | head -n 1; }
put_back() {
    [ -f "$cache/restore" ] || return 0
    read -r old <"$cache/restore" || return 1
    sudo -n nvpmodel -m "$old" </dev/null >/dev/null 2>&1
    [ ! -f "$cache/clocks" ] || sudo -n jetson_clocks --restore "$cache/clocks" </dev/null >/dev/null 2>&1
    [ "$(mode_now)" = "$old" ] || return 1
    rm -f "$cache/restore" "$cache/clocks" "$cache/alive" "$cache/holder"
}
lock() { # a command whose connection broke may still run
    tries=0
    until mkdir "$cache/mode.lock" 2>/dev/null; do
        tries=$((tries + 1)); [ $tries -lt 20 ] || break; sleep 1
    done
    trap 'rmdir "$cache/mode.lock" 2>/dev/null' EXIT
}
"""
# $1: name or number of a mode; $2: seconds without a sign of life after which it is restored; $3: owner.
_SET = (
    _SHARED
    + f"""
command -v nvpmodel >/dev/null || exit {_NO_NVPMODEL}
modes=$(sed -n 's/^ *< *POWER_MODEL  *ID=\\([0-9]*\\)  *NAME=\\([^ >]*\\) *>.*/\\1 \\2/p' \\
    "${{NVPMODEL_CONF:-/etc/nvpmodel.conf}}" 2>/dev/null)
id=$(printf '%s\\n' "$modes" | while read -r number name; do
    {{ [ "$1" = "$number" ] || [ "$1" = "$name" ]; }} && echo "$number" && break; done)
[ -n "$id" ] || {{ printf '%s' "$modes" | tr '\\n' ',' >&2; exit {_NO_SUCH_MODE}; }}
lock
sudo -n nvpmodel -q >/dev/null 2>&1 || exit {_NOT_ALLOWED}
if [ ! -f "$cache/restore" ]; then
    old=$(mode_now)
    [ -n "$old" ] || exit {_NO_NVPMODEL}
    rm -f "$cache/clocks"
    sudo -n jetson_clocks --store "$cache/clocks" </dev/null >/dev/null 2>&1 || exit {_NOT_ALLOWED}
    printf '%s\\n' "$3" >"$cache/holder"; : >"$cache/alive"
    echo "$old" >"$cache/restore.part"; mv "$cache/restore.part" "$cache/restore"
fi
sudo -n nvpmodel -m "$id" </dev/null >/dev/null 2>&1
[ "$(mode_now)" = "$id" ] || {{ put_back; exit {_NOT_DONE}; }}
sudo -n jetson_clocks </dev/null >/dev/null 2>&1 || {{ put_back; exit {_NOT_ALLOWED}; }}
session=; command -v setsid >/dev/null && session=setsid
cat >"$cache/watch.sh" <<'END'
"""
    + _SHARED
    + """
recent() { [ -n "$(find "$@" -newermt "-$wait seconds" 2>/dev/null | head -n 1)" ]; }
busy() {
    read -r boot </proc/sys/kernel/random/boot_id
    for job in "$cache"/jobs/*/; do
        [ -f "$job/status" ] && continue
        read -r was <"$job/started/boot" && [ "$was" = "$boot" ] || continue
        read -r pid <"$job/started/pid" && kill -0 "$pid" && return 0
    done 2>/dev/null
    return 1
}
while [ -f "$cache/restore" ]; do
    sleep "$wait"
    recent "$cache/alive" || recent "$cache/objects" -name '.part.*' || busy || put_back || :
done
END
cache="$cache" wait="$2" $session sh "$cache/watch.sh" >/dev/null 2>&1 </dev/null &
exit 0
"""
)
# Prints the owner of a changed mode, after "fresh" if there was a sign of life recently.
_ASK = f"""
[ -f "$cache/restore" ] || exit 0
fresh=; [ -z "$(find "$cache/alive" -newermt '-{_TIMEOUT_S} seconds' 2>/dev/null)" ] || fresh=fresh
echo "$fresh:$(head -c 200 "$cache/holder" 2>/dev/null)"
"""
_RESTORE = _SHARED + f'[ -f "$cache/restore" ] || exit 0\nlock\nput_back && echo restored || exit {_NOT_DONE}\n'


@contextmanager
def power_mode(connection: Link, mode: str, report: Report) -> Iterator[None]:
    """Give the device the power mode `mode` and locked clocks inside the block; "" changes nothing.

    A mode that an earlier run left behind is undone first. If the connection breaks before the old mode is restored,
    a warning has the command that restores it.

    Raises:
        UsageError: there is no such mode, the user may not set it, or another edgekit has set one.
        EdgekitError: the device does not switch to it.
    """
    if end_earlier(connection):
        report("restored the power mode that an earlier run had changed")
    if not mode:
        yield
        return
    report(f"setting the power mode {mode}")
    connection.sign_of_life = True
    try:
        set_mode(connection, mode)
        yield
    except BaseException:
        try:
            _put_back(connection, insist=False)
        except EdgekitError as error:
            progress.warn(_may_be_set(connection, error))
        raise
    try:
        _put_back(connection, insist=True)
    except ConnectionLost as error:
        progress.warn(_may_be_set(connection, error))
    except MissingError as error:
        raise MissingError(_may_be_set(connection, error), error.hint) from None


def _may_be_set(connection: Link, error: EdgekitError) -> str:
    """Return a message about a mode that was perhaps not restored, with the command that restores it."""
    return (
        f"{connection.host} may still have the power mode and the clocks that edgekit set: {error.message}. It "
        f"restores the former ones by itself {_BY_ITSELF}; or run: {_BY_HAND.format(host=quote(connection.host))}"
    )


def set_mode(connection: Link, mode: str) -> None:
    """Set the mode, unless it is set."""
    try:
        connection.insist(_SET, mode, _TIMEOUT_S, f"{jobs.user_at_host()} {os.getpid()}")
    except RemoteError as error:
        raise _explain(error, connection.host, mode) from None


def end_earlier(connection: Link) -> bool:
    """Restore the mode that an earlier run changed and left; return whether there was one.

    Raises:
        UsageError: that run is still going on. EdgekitError: the device does not switch to its former mode.
    """
    reply = connection.insist(_ASK).decode("utf-8", "replace").strip()
    if not reply:
        return False
    fresh, _, holder = reply.partition(":")
    owner, _, pid = holder.rpartition(" ")
    if jobs.is_running(pid) if owner == jobs.user_at_host() else bool(fresh):
        raise UsageError(
            f"another edgekit ({visible(holder)}) has set the power mode of {connection.host}",
            "wait until it has ended",
        )
    return _put_back(connection, insist=True)


def _put_back(connection: Link, insist: bool) -> bool:
    try:
        return b"restored" in (connection.insist if insist else connection.tidy)(_RESTORE)
    except RemoteError as error:
        if error.status_there != _NOT_DONE:
            raise
        raise EdgekitError(
            f"{connection.host} still has the power mode that edgekit set, and does not switch to its former one",
            _BY_HAND.format(host=quote(connection.host)),
        ) from None


def _explain(error: RemoteError, host: str, mode: str) -> EdgekitError:
    """Return the error for the exit status of the script that sets a mode."""
    if error.status_there == _NO_NVPMODEL:
        return UsageError(
            f"{host} has no nvpmodel: --set-power-mode is for Jetsons", "run the command without --set-power-mode"
        )
    if error.status_there == _NO_SUCH_MODE:
        known = error.message.partition(": ")[2].replace(",", ", ") or "none found"
        return UsageError(f"{host} has no power mode {mode!r}", f"its modes (number and name): {known}")
    if error.status_there == _NOT_ALLOWED:
        return UsageError(
            f"{host} asks for a password to set the power mode",
            'allow it on the board: echo "$USER ALL=NOPASSWD: /usr/sbin/nvpmodel, /usr/bin/jetson_clocks"'
            " | sudo tee /etc/sudoers.d/edgekit",
        )
    if error.status_there == _NOT_DONE:
        return EdgekitError(
            f"{host} does not switch to the power mode {mode!r} while it runs (some modes need a restart)",
            f"set it yourself: ssh -t {host} sudo nvpmodel -m NUMBER",
        )
    return error
