"""Connection over OpenSSH.

The program ssh is used, so that ``~/.ssh/config``, ProxyJump, agents and known_hosts apply. It never asks for a
password: a login that needs one is an error with a hint.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
from types import TracebackType

from edgekit import files
from edgekit.devices.link import ConnectionLost, Link, RemoteError, one_line
from edgekit.errors import EdgekitError, MissingError, UsageError

# Environment variable with a command to use instead of ssh, such as ``EDGEKIT_SSH="ssh -F other/config"``.
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
_EXIT_S = 10
_SSH_FAILED = 255  # exit status of OpenSSH for its own failures; no script here ends with it
_CACHE = (
    'umask 077; cache="${XDG_CACHE_HOME:-$HOME/.cache}/edgekit"; mkdir -p "$cache/objects" "$cache/jobs" || exit 1\n'
)


def check_host(host: str) -> None:
    """Check that OpenSSH would take `host` for a destination, not for an option.

    Raises:
        UsageError: it is empty, or has characters that a destination cannot have.
    """
    if not _HOST.fullmatch(host):
        raise UsageError(f"{host!r} is not a host", "user@name, a Host of ~/.ssh/config, or ssh://user@name:port")


def address(host: str) -> str:
    """Return ``name:port`` of a host by the user's configuration, which is equal for two aliases of one machine."""
    command = shlex.split(os.environ.get(PROGRAM, "ssh"))
    done = subprocess.run([*command, "-G", host], capture_output=True, text=True, errors="replace", check=False)
    found = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    return f"{found.get('hostname', host)}:{found.get('port', '')}"


class Connection(Link):
    """Connection to a host; commands of one ``with`` block share it (ControlMaster)."""

    cache = _CACHE

    def __init__(self, host: str) -> None:
        """
        Raises:
            UsageError: `host` is not a valid destination. MissingError: OpenSSH is not installed.
        """
        check_host(host)
        super().__init__(host)
        command = shlex.split(os.environ.get(PROGRAM, "ssh"))
        if not command or shutil.which(command[0]) is None:
            raise MissingError(
                f"{command[0] if command else 'ssh'} is not installed here", "apt install openssh-client"
            )
        self._program = command
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Connection:
        folder = self._open.enter_context(files.scratch())
        # Short, because the path of a socket is limited to 104 characters.
        options = {**_OPTIONS, "ControlPath": f"{folder}/c"}
        self._ssh = [*self._program, *(part for k, v in options.items() for part in ("-o", f"{k}={v}"))]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        with self._open, contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([*self._ssh, "-O", "exit", self.host], capture_output=True, check=False, timeout=_EXIT_S)

    def command(self, words: list[str], mark: str) -> list[str]:
        return [*self._ssh, self.host, "--", shlex.join(words)]

    def ended(self, status: int, errors: bytes, mark: str) -> None:
        message = one_line(errors)
        if status == _SSH_FAILED:
            raise self._unreachable(message)
        if status != 0:
            raise RemoteError(f"{self.host}: {message or f'status {status}'}", status)

    def _unreachable(self, message: str) -> EdgekitError:
        """Return the error for a message of OpenSSH."""
        if "IDENTIFICATION HAS CHANGED" in message:
            return EdgekitError(
                f"the host key of {self.host} has changed: a new system, or an intercepted connection",
                f"if the system was set up anew: ssh-keygen -R {self.host.rpartition('@')[2]}",
            )
        if "Host key verification failed" in message:
            return MissingError(
                f"the host key of {self.host} is not known here",
                f"ssh -o StrictHostKeyChecking=accept-new {self.host} true",
            )
        if "Permission denied" in message:
            return MissingError(
                f"{self.host} refuses the login: {message}",
                f"ssh-copy-id {self.host}   (a key with a passphrase: ssh-add)",
            )
        never = ("Could not resolve", "Connection refused", "No route to host", "Network is unreachable", "timed out")
        if any(text in message for text in never) and "Timeout, server" not in message:
            return MissingError(f"{self.host} cannot be reached: {message}", f"ssh {self.host}")
        return ConnectionLost(
            f"the connection to {self.host} broke: {message or 'no reason given'}", f"ssh {self.host}"
        )
