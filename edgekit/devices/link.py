"""Connection to a remote device: shell scripts, files by their hash, and replies as untrusted input.

Subclasses (`ssh.Connection`, `adb.Connection`) say how their program is called, and what its failures mean.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import selectors
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import IO, TypeVar

from edgekit import progress
from edgekit.errors import EdgekitError, StorageError
from edgekit.files import sha256_file
from edgekit.labels import visible

T = TypeVar("T")
# Connections in a row that break before a device is given up: one that answered before, and one that never did.
_TRIES, _FIRST_TRIES = 8, 4
_LONGEST_PAUSE_S = 10.0
_LOST_S = 300.0  # the longest time without a connection
_SILENT_S = 180.0  # the longest time in which a command neither sends nor takes anything
_LOOK_S = 0.2
_MOST_ERROR = 8192  # kept of standard error: its end
_MUCH_ERROR = 1 << 20
_MOST_LINE = 1000
MOST_REPLY = 1 << 20
# $1: a sha256. Receives a file on standard input and keeps it only if it has this hash.
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
    """The connection broke; the command may or may not have run."""


class Stopped(EdgekitError):
    """The work was stopped from another thread, as Ctrl-C does."""


class RemoteError(EdgekitError):
    """A command failed on the device. `status_there` is its exit status there."""

    def __init__(self, message: str, status_there: int) -> None:
        super().__init__(message)
        self.status_there = status_there


class Link:
    """Connection to one device, used in a ``with`` block.

    Attributes:
        host: name of the device in messages. cache: shell code that sets ``$cache`` to a private folder there.
        stopped: `stop` was called. sign_of_life: commands touch ``$cache/alive``, which the watchers of power modes
            look at (`jetson_power`, `android`).
    """

    cache = ""

    def __init__(self, host: str) -> None:
        self.host = host
        self._process: subprocess.Popen[bytes] | None = None
        self.stopped = False
        self.sign_of_life = False
        self._answered = False  # the last command sent something, or ended by itself
        self._tidying = False  # `tidy` runs its script also after `stop`

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...

    @property
    def handle(self) -> str:
        """The device as it is typed on a command line."""
        return quote(self.host)

    def command(self, words: list[str], mark: str) -> list[str]:
        """Return the local command that runs `words` on the device; `mark` is a random word for this call."""
        raise NotImplementedError

    def ended(self, status: int, errors: bytes, mark: str) -> None:
        """Check how a `command` ended.

        Args:
            status: its local exit status. errors: the end of its standard error.

        Raises:
            EdgekitError: it failed; see `run`.
        """
        raise NotImplementedError

    def run(self, script: str, *arguments: str, stdin: Path | None = None, most: int = MOST_REPLY) -> bytes:
        """Run a POSIX shell script with `arguments` as ``$1``, ``$2``, ... and return its standard output.

        Args:
            stdin: file for its standard input. most: maximum size of the output in bytes.

        Raises:
            ConnectionLost: the connection broke. MissingError: the host cannot be reached.
            RemoteError: the script failed. EdgekitError: it wrote more than `most` bytes.
        """
        content = bytearray()
        with contextlib.closing(self._output(script, arguments, stdin)) as parts:
            for part in parts:
                content += part
                if len(content) > most:
                    raise EdgekitError(f"{self.host} sent more than {most} bytes, the maximum for this reply")
        return bytes(content)

    def listen(self, script: str, *arguments: str, line: Callable[[str], None]) -> None:
        """Run a script as `run` does, and call `line` with each line of its output as it comes, made printable."""
        begun = b""
        with contextlib.closing(self._output(script, arguments, None)) as parts:
            for part in parts:
                *lines, begun = (begun + part).split(b"\n")
                begun = begun[:_MOST_LINE]
                for content in lines:
                    line(visible(content[:_MOST_LINE].decode("utf-8", "replace").strip()))
        if begun:
            line(visible(begun.decode("utf-8", "replace").strip()))

    def _output(self, script: str, arguments: tuple[str, ...], stdin: Path | None) -> Generator[bytes, None, None]:
        """Start a script, yield its output as it comes, then wait for its end and check it.

        Raises:
            ConnectionLost: the device was silent for too long, or as for `ended`.
        """
        sign = ': >"$cache/alive"\n' if self.sign_of_life else ""
        words = ["sh", "-c", self.cache + sign + script, "edgekit", *arguments]
        mark = secrets.token_hex(8)
        errors = _Errors()
        with (
            open(stdin or os.devnull, "rb") as source,
            subprocess.Popen(
                self.command(words, mark), stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as process,
        ):
            self._process = process
            if self.stopped and not self._tidying:
                process.kill()  # `stop` was called while it started
            try:
                for part in _read(process, source, errors, self.host):
                    self._answered = True
                    yield part
            except BaseException:
                process.kill()
                raise
        if errors.dropped > _MUCH_ERROR:
            progress.warn(f"{self.host} wrote {errors.dropped / 1e6:.0f} MB of error messages; only their end was kept")
        if self.stopped and process.returncode < 0:
            raise Stopped(f"the work on {self.host} was stopped")
        self.ended(process.returncode, bytes(errors.end), mark)
        self._answered = True

    def tidy(self, script: str, *arguments: str) -> bytes:
        """Run a script that restores something, also after `stop`."""
        self._tidying = True
        return self.run(script, *arguments)

    def stop(self) -> None:
        """End the command that runs, and let `insist` start no other one; for another thread."""
        self.stopped = True
        if self._process is not None:
            self._process.kill()

    def insist(self, script: str, *arguments: str, stdin: Path | None = None, most: int = MOST_REPLY) -> bytes:
        """Run a script that may run twice: again each time that the connection breaks, which is said.

        Gives up after `_TRIES` connections in a row without an answer, which takes about a minute, and after `_LOST_S`.
        """
        return self._again(lambda: self.run(script, *arguments, stdin=stdin, most=most))

    def insist_on_listening(self, script: str, *arguments: str, line: Callable[[str], None]) -> None:
        """Listen to a script that may run twice: again each time that the connection breaks."""
        self._again(lambda: self.listen(script, *arguments, line=line))

    def _again(self, work: Callable[[], T]) -> T:
        tries, failed, lost_at = _TRIES if self._answered else min(_TRIES, _FIRST_TRIES), 0, 0.0
        while True:
            if self.stopped:
                raise Stopped(f"the work on {self.host} was stopped")
            self._answered = False
            try:
                return work()
            except ConnectionLost as error:
                now = time.monotonic()
                if self._answered:  # waiting for a job may take many connections
                    tries, failed = _TRIES, 0
                failed += 1
                lost_at = lost_at if failed > 1 else now
                pause = min(_LONGEST_PAUSE_S, 0.5 * 2**failed)
                if failed >= tries or now + pause - lost_at > _LOST_S:
                    raise
                progress.warn(f"{error.message}; connecting again in {pause:.0f} s (try {failed + 1} of {tries})")
                time.sleep(pause)

    def push(self, files: dict[str, Path]) -> None:
        """Copy files to the device's cache, unless it has them.

        Args:
            files: sha256 -> local file.

        Raises:
            StorageError: the disk of the device is full, or a file changed meanwhile.
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
                    f"free some space there, or run: edgekit devices clean {self.handle}",
                ) from None
            if error.status_there == 29 and sha256_file(path) != digest:
                raise StorageError(f"{path} changed while it was sent", "run the same command again") from None
            raise


class _Errors:
    """The end of what a command writes to standard error, and the number of bytes before it, which are dropped."""

    def __init__(self) -> None:
        self.end = bytearray()
        self.dropped = 0

    def add(self, content: bytes) -> None:
        """Take more of it."""
        self.end += content
        more = max(0, len(self.end) - _MOST_ERROR)
        del self.end[:more]
        self.dropped += more


def _read(process: subprocess.Popen[bytes], source: IO[bytes], errors: _Errors, host: str) -> Iterator[bytes]:
    """Yield the output of a process as it comes, until it has ended.

    A process that it left behind may keep the pipes open, as the master of shared ssh connections does.

    Raises:
        ConnectionLost: it has neither written output nor read from `source` for `_SILENT_S`.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    last, sent, ended = time.monotonic(), 0, False
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        while not ended or selector.get_map():
            ready = selector.select(0 if ended else _LOOK_S) if selector.get_map() else []
            for key, _ in ready:
                content = os.read(key.fd, 1 << 16)
                if not content:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    errors.add(content)
                else:
                    yield content
                    last = time.monotonic()
            if ended and not ready:
                return
            if not selector.get_map():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_LOOK_S)
            ended = process.poll() is not None
            if (now := os.lseek(source.fileno(), 0, os.SEEK_CUR)) != sent:
                sent, last = now, time.monotonic()
            if not ended and time.monotonic() - last > _SILENT_S:
                raise ConnectionLost(
                    f"{host} has not answered for {_SILENT_S:.0f} s", "look whether it still works, and restart it"
                )


def one_line(content: bytes) -> str:
    """Join the lines of an output into one printable line."""
    lines = content.decode("utf-8", "replace").split("\n")
    return visible("; ".join(line.strip() for line in lines if line.strip()))
