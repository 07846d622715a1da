"""A host over OpenSSH: commands, files by their hash, and replies that are never trusted.

OpenSSH runs as a program, so that ``~/.ssh/config``, ProxyJump, agents and known_hosts all hold.
It is never asked for a password: a login that needs one is an error that says what to do.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from types import TracebackType

from edgekit.devices.link import ConnectionLost, Link, RemoteError, one_line
from edgekit.errors import EdgekitError, MissingError, UsageError

# A command instead of ssh, with its first arguments: ``EDGEKIT_SSH="ssh -F other/config"``.
PROGRAM = "EDGEKIT_SSH"
_HOST = re.compile(r"(ssh://)?[A-Za-z0-9_][A-Za-z0-9_.%@:\[\]-]*")
_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": "15",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ControlMaster": "auto",
    "ControlPersist": "60",
    "LogLevel": "ERROR",
}
_LOST = 255  # what OpenSSH ends with when itself fails; no script here does
# Everything lies in one private folder.
_CACHE = (
    'umask 077; cache="${XDG_CACHE_HOME:-$HOME/.cache}/edgekit"; mkdir -p "$cache/objects" "$cache/jobs" || exit 1\n'
)


def check_host(host: str) -> None:
    """Refuse what OpenSSH would not take for a host: nothing that begins like an option.

    Raises:
        UsageError: it is empty, or holds other characters than a destination does.
    """
    if not _HOST.fullmatch(host):
        raise UsageError(f"{host!r} is not a host", "user@name, a Host of ~/.ssh/config, or ssh://user@name:port")


def address(host: str) -> str:
    """Where `host` leads by the user's configuration, ``name:port``: two names of one machine are the same."""
    command = shlex.split(os.environ.get(PROGRAM, "ssh"))
    done = subprocess.run([*command, "-G", host], capture_output=True, text=True, errors="replace", check=False)
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    return f"{found.get('hostname', host)}:{found.get('port', '')}"


class Connection(Link):
    """One host, connected once for all that is done in a ``with`` block."""

    cache = _CACHE

    def __init__(self, host: str) -> None:
        """
        Raises:
            UsageError: not a host. MissingError: there is no OpenSSH.
        """
        check_host(host)
        super().__init__(host)
        command = shlex.split(os.environ.get(PROGRAM, "ssh"))
        if not command or shutil.which(command[0]) is None:
            raise MissingError(
                f"{command[0] if command else 'ssh'} is not installed here", "apt install openssh-client"
            )
        self._program = command

    def __enter__(self) -> Connection:
        self._folder = tempfile.mkdtemp(prefix="ek-")  # short: a socket's path has at most 104 characters
        options = {**_OPTIONS, "ControlPath": f"{self._folder}/%C"}
        self._ssh = [*self._program, *(part for k, v in options.items() for part in ("-o", f"{k}={v}"))]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        subprocess.run([*self._ssh, "-O", "exit", self.host], capture_output=True, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def command(self, words: list[str], mark: str) -> list[str]:
        return [*self._ssh, self.host, "--", shlex.join(words)]

    def ended(self, status: int, errors: bytes, mark: str) -> None:
        said = one_line(errors)
        if status == _LOST:
            raise self._unreachable(said)
        if status != 0:
            raise RemoteError(f"{self.host}: {said or f'status {status}'}", status)

    def _unreachable(self, said: str) -> EdgekitError:
        """What OpenSSH meant."""
        if "IDENTIFICATION HAS CHANGED" in said:
            return EdgekitError(
                f"the host key of {self.host} is another one than before: a new system, or somebody in between",
                f"if it was set up anew: ssh-keygen -R {self.host.rpartition('@')[2]}",
            )
        if "Host key verification failed" in said:
            return MissingError(
                f"the host key of {self.host} is not known here",
                f"ssh -o StrictHostKeyChecking=accept-new {self.host} true",
            )
        if "Permission denied" in said:
            return MissingError(
                f"{self.host} refuses the login: {said}",
                f"ssh-copy-id {self.host}   (a key with a passphrase: ssh-add)",
            )
        never = ("Could not resolve", "Connection refused", "No route to host", "Network is unreachable", "timed out")
        if any(text in said for text in never) and "Timeout, server" not in said:
            return MissingError(f"{self.host} cannot be reached: {said}", f"ssh {self.host}")
        return ConnectionLost(f"the connection to {self.host} broke: {said or 'no reason given'}", f"ssh {self.host}")
