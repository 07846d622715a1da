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
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

from edgekit.errors import EdgekitError, MissingError, StorageError, UsageError
from edgekit.labels import visible
from edgekit.store import sha256_file

T = TypeVar("T")
# A command instead of ssh, with its first arguments: ``EDGEKIT_SSH="ssh -F other/config"``.
PROGRAM = "EDGEKIT_SSH"
_HOST = re.compile(r"(ssh://)?[A-Za-z0-9_][A-Za-z0-9_.%@:\[\]-]*")
_TRIES = 8
_LONGEST_PAUSE_S = 10.0
_LIVED_S = 1.0  # a connection that lasted so long was one: waiting for a long job may take many
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
_MOST_ERROR = 8192
_MOST_LINE = 1000
MOST_REPLY = 1 << 20

# Everything lies in one private folder. Given: HASH. The upload is kept only if it is what was sent.
_CACHE = (
    'umask 077; cache="${XDG_CACHE_HOME:-$HOME/.cache}/edgekit"; mkdir -p "$cache/objects" "$cache/jobs" || exit 1\n'
)
_RECEIVE = """
part="$cache/objects/.part.$1.$$"
trap 'rm -f "$part"' EXIT
cat >"$part" || exit 28
set -- "$1" $(sha256sum "$part")
[ "$1" = "$2" ] || { echo "arrived damaged" >&2; exit 29; }
mv "$part" "$cache/objects/$1"
"""
_HAVE = 'for hash; do [ -f "$cache/objects/$hash" ] && echo "$hash"; done; exit 0\n'


class ConnectionLost(EdgekitError):
    """The connection broke; what was asked for may or may not have happened."""


class Stopped(EdgekitError):
    """Somebody else, or the user, ended the work."""


class RemoteError(EdgekitError):
    """A command ended with another status than 0 over there. `status_there` is that status."""

    def __init__(self, message: str, status_there: int) -> None:
        super().__init__(message)
        self.status_there = status_there


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


class Connection:
    """One host, connected once for all that is done in a ``with`` block."""

    def __init__(self, host: str) -> None:
        """
        Raises:
            UsageError: not a host. MissingError: there is no OpenSSH.
        """
        check_host(host)
        self.host = host
        command = shlex.split(os.environ.get(PROGRAM, "ssh"))
        if not command or shutil.which(command[0]) is None:
            raise MissingError(
                f"{command[0] if command else 'ssh'} is not installed here", "apt install openssh-client"
            )
        self._program = command
        self._process: subprocess.Popen[bytes] | None = None
        self.stopped = False
        self.sign_of_life = False  # each command then shows the watcher of `powermode` that somebody is there
        self._ending = False  # what tidies up runs to its end, also when stopped

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

    def run(self, script: str, *arguments: str, stdin: Path | None = None, most: int = MOST_REPLY) -> bytes:
        """Run a POSIX shell script, which sees `arguments` as ``$1`` and on and the cache as ``$cache``.

        Args:
            stdin: a file that it reads. most: bytes that it may write to standard output.
        Raises:
            ConnectionLost: the connection broke. MissingError: the host cannot be reached.
            RemoteError: it failed there. EdgekitError: it wrote more than `most`.
        """
        with self._running(script, arguments, stdin) as reply:
            content = reply.read(most + 1)
            if len(content) > most:
                raise EdgekitError(f"{self.host} sent more than the {most} bytes that were expected")
        return content

    def listen(self, script: str, *arguments: str, line: Callable[[str], None]) -> None:
        """`run` a script whose lines are heard as they come, printable and not long.

        Raises:
            As `run`.
        """
        with self._running(script, arguments, None) as reply:
            while said := reply.readline(_MOST_LINE):
                line(visible(said.decode("utf-8", "replace").strip()))

    @contextmanager
    def _running(self, script: str, arguments: tuple[str, ...], stdin: Path | None) -> Iterator[IO[bytes]]:
        """A script that runs over there, and what it writes; its end is awaited and judged."""
        sign = ': >"$cache/alive"\n' if self.sign_of_life else ""
        remote = shlex.join(["sh", "-c", _CACHE + sign + script, "edgekit", *arguments])
        with open(stdin or os.devnull, "rb") as source, tempfile.TemporaryFile() as errors:
            with subprocess.Popen(
                [*self._ssh, self.host, "--", remote], stdin=source, stdout=subprocess.PIPE, stderr=errors
            ) as process:
                self._process = process
                if self.stopped and not self._ending:
                    process.kill()  # `stop` came while it started
                assert process.stdout is not None
                try:
                    yield process.stdout
                except BaseException:
                    process.kill()
                    raise
            said = _tail(errors)
        if self.stopped and process.returncode < 0:
            raise Stopped(f"stopped what ran on {self.host}")
        if process.returncode == _LOST:
            raise self._unreachable(said)
        if process.returncode != 0:
            raise RemoteError(f"{self.host}: {said or f'status {process.returncode}'}", process.returncode)

    def tidy(self, script: str, *arguments: str) -> bytes:
        """`run` what puts things back, also after `stop`."""
        self._ending = True
        return self.run(script, *arguments)

    def stop(self) -> None:
        """From another thread: end what runs, and begin nothing that insists."""
        self.stopped = True
        if self._process is not None:
            self._process.kill()

    def insist(self, script: str, *arguments: str, stdin: Path | None = None, most: int = MOST_REPLY) -> bytes:
        """`run` what may run twice, again after each break of the connection.

        It gives up after `_TRIES` connections in a row that broke at once, which takes a minute.
        """
        return self._again(lambda: self.run(script, *arguments, stdin=stdin, most=most))

    def insist_on_listening(self, script: str, *arguments: str, line: Callable[[str], None]) -> None:
        """`listen` to what may run twice, again after each break of the connection."""
        self._again(lambda: self.listen(script, *arguments, line=line))

    def _again(self, work: Callable[[], T]) -> T:
        failed = 0
        while True:
            if self.stopped:
                raise Stopped(f"stopped what ran on {self.host}")
            start = time.monotonic()
            try:
                return work()
            except ConnectionLost:
                failed = 0 if time.monotonic() - start > _LIVED_S else failed + 1
                if failed == _TRIES:
                    raise
                time.sleep(min(_LONGEST_PAUSE_S, 0.5 * 2**failed))

    def push(self, files: dict[str, Path]) -> None:
        """Bring files, by their sha256, into the cache of the host; those that it has stay.

        Raises:
            StorageError: its disk is full.
        """
        if not files:
            return
        there = self.insist(_HAVE, *files).decode("ascii", "replace").split()
        for digest, path in files.items():
            if digest not in there:
                self._send(digest, path)

    def _send(self, digest: str, path: Path) -> None:
        try:
            self.insist(_RECEIVE, digest, stdin=path)
        except RemoteError as error:
            if "No space left" in error.message or error.status_there == 28:
                raise StorageError(
                    f"the disk of {self.host} is full: {path.name} ({path.stat().st_size / 1e6:.1f} MB) does not fit",
                    f"edgekit devices clean {self.host}, or free some space there",
                ) from None
            if error.status_there == 29 and sha256_file(path) != digest:
                raise StorageError(f"{path} changed while it was sent", "run the same command again") from None
            raise

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


def _tail(file: IO[bytes]) -> str:
    """The end of what was written, in one printable line."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _MOST_ERROR))
    lines = file.read().decode("utf-8", "replace").split("\n")
    return visible("; ".join(line.strip() for line in lines if line.strip()))
