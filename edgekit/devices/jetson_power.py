"""The power mode of a Jetson, changed only where the user asks, and put back whatever happens.

``nvpmodel -q`` prints ``NV Power Mode: NAME`` and a line with the mode's number; ``nvpmodel -m NUMBER`` sets it,
``jetson_clocks --store``, ``--restore`` and without an option lock the clocks (Jetson Linux Developer Guide,
"Power Management for Jetson Xavier/Orin"); /etc/nvpmodel.conf, or the file that NVPMODEL_CONF names there, has the
modes as ``< POWER_MODEL ID=0 NAME=15W >``. Setting needs root: ``sudo -n`` must do. Not verified on hardware.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from edgekit import progress
from edgekit.devices import jobs
from edgekit.devices.jobs import Said
from edgekit.devices.link import ConnectionLost, Link, RemoteError
from edgekit.errors import EdgekitError, MissingError, UsageError
from edgekit.labels import visible

_NO_SUCH_MODE, _NOT_ALLOWED, _NOT_DONE, _NO_NVPMODEL = 41, 42, 43, 45
_ALONE_S = "120"
_BY_ITSELF = "within 4 minutes of the last command or job"
_BY_HAND = (
    "ssh -t {host} 'cd ~/.cache/edgekit && sudo nvpmodel -m $(cat restore) && sudo jetson_clocks --restore clocks'"
)
# The old mode lies in $cache/restore from before the change until it is back, and who holds the new one in
# $cache/holder. A watcher on the device puts it back where nobody comes for two minutes and no job runs; after a power
# cut, the next edgekit that connects does.
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
alone() { # one at a time: a command whose connection broke may still run
    tries=0
    until mkdir "$cache/mode.lock" 2>/dev/null; do
        tries=$((tries + 1)); [ $tries -lt 20 ] || break; sleep 1
    done
    trap 'rmdir "$cache/mode.lock" 2>/dev/null' EXIT
}
"""
# $1: a mode's name or number; $2: seconds without a sign of life; $3: who holds it.
_SET = (
    _SHARED
    + f"""
command -v nvpmodel >/dev/null || exit {_NO_NVPMODEL}
modes=$(sed -n 's/^ *< *POWER_MODEL  *ID=\\([0-9]*\\)  *NAME=\\([^ >]*\\) *>.*/\\1 \\2/p' \\
    "${{NVPMODEL_CONF:-/etc/nvpmodel.conf}}" 2>/dev/null)
id=$(printf '%s\\n' "$modes" | while read -r number name; do
    {{ [ "$1" = "$number" ] || [ "$1" = "$name" ]; }} && echo "$number" && break; done)
[ -n "$id" ] || {{ printf '%s' "$modes" | tr '\\n' ',' >&2; exit {_NO_SUCH_MODE}; }}
alone
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
# Says who holds a changed mode, and before that whether there was a sign of life of theirs lately.
_ASK = f"""
[ -f "$cache/restore" ] || exit 0
fresh=; [ -z "$(find "$cache/alive" -newermt '-{_ALONE_S} seconds' 2>/dev/null)" ] || fresh=fresh
echo "$fresh:$(head -c 200 "$cache/holder" 2>/dev/null)"
"""
_RESTORE = _SHARED + f'[ -f "$cache/restore" ] || exit 0\nalone\nput_back && echo restored || exit {_NOT_DONE}\n'


@contextmanager
def held(connection: Link, mode: str, said: Said) -> Iterator[None]:
    """Give the device the power mode `mode` and locked clocks meanwhile; "" changes nothing.

    A mode that an earlier run could not put back is put back first.

    Raises:
        UsageError: there is no such mode, the user may not set it, or another edgekit holds one.
        EdgekitError: it was not taken.
    """
    if release(connection):
        said("put back the power mode that an earlier run had changed")
    if not mode:
        yield
        return
    said(f"setting the power mode {mode}")
    connection.sign_of_life = True
    try:
        hold(connection, mode)
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
    """Describe a mode that could not be put back, and how it is."""
    return (
        f"{connection.host} may still have the power mode and the clocks that edgekit set: {error.message}. It puts "
        f"them back by itself {_BY_ITSELF}; or run: {_BY_HAND.format(host=connection.host)}"
    )


def hold(connection: Link, mode: str) -> None:
    """Set the mode, or see that it is still held."""
    try:
        connection.insist(_SET, mode, _ALONE_S, f"{jobs.who()} {os.getpid()}")
    except RemoteError as error:
        raise _meaning(error, connection.host, mode) from None


def release(connection: Link) -> bool:
    """Put back a mode that a run left which is no more; returns whether there was one.

    Raises:
        UsageError: that run is still there. EdgekitError: the device does not take its former mode.
    """
    said = connection.insist(_ASK).decode("utf-8", "replace").strip()
    if not said:
        return False
    fresh, _, holder = said.partition(":")
    owner, _, pid = holder.rpartition(" ")
    if jobs.is_running(pid) if owner == jobs.who() else bool(fresh):
        raise UsageError(
            f"another edgekit ({visible(holder)}) holds the power mode of {connection.host}", "wait until it has ended"
        )
    return _put_back(connection, insist=True)


def _put_back(connection: Link, insist: bool) -> bool:
    try:
        return b"restored" in (connection.insist if insist else connection.tidy)(_RESTORE)
    except RemoteError as error:
        if error.status_there != _NOT_DONE:
            raise
        raise EdgekitError(
            f"{connection.host} still has the power mode that edgekit set, and does not take its former one",
            _BY_HAND.format(host=connection.host),
        ) from None


def _meaning(error: RemoteError, host: str, mode: str) -> EdgekitError:
    """What the script ended with, in words."""
    if error.status_there == _NO_NVPMODEL:
        return UsageError(f"{host} has no nvpmodel: --set-power-mode is for Jetsons", "leave --set-power-mode out")
    if error.status_there == _NO_SUCH_MODE:
        known = error.message.partition(": ")[2].replace(",", ", ") or "none found"
        return UsageError(f"{host} has no power mode {mode!r}", f"its modes, number and name: {known}")
    if error.status_there == _NOT_ALLOWED:
        return UsageError(
            f"{host} asks for a password to set the power mode",
            'allow it there: echo "$USER ALL=NOPASSWD: /usr/sbin/nvpmodel, /usr/bin/jetson_clocks"'
            " | sudo tee /etc/sudoers.d/edgekit",
        )
    if error.status_there == _NOT_DONE:
        return EdgekitError(
            f"{host} does not take the power mode {mode!r} while it runs (some need a restart)",
            f"set it by hand: ssh -t {host} sudo nvpmodel -m NUMBER",
        )
    return error
