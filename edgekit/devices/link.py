"""Connection to a remote device: shell scripts, files by their hash, and replies as untrusted input.

Subclasses (`ssh.Connection`, `adb.Connection`) say how their program is called, and what its failures mean.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

from edgekit.errors import EdgekitError, StorageError
from edgekit.files import sha256_file
from edgekit.labels import visible

T = TypeVar("T")
_TRIES = 8
_LONGEST_PAUSE_S = 10.0
_ALIVE_S = 1.0  # a connection that lasted longer does not count as a failed try: waiting for a job may take many
_MOST_ERROR = 8192
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
        self._tidying = False  # `tidy` runs its script also after `stop`

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...

    @property
    def handle(self) -> str:
        """Name of the device on the command line."""
        return self.host

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
        with self._running(script, arguments, stdin) as reply:
            content = reply.read(most + 1)
            if len(content) > most:
                raise EdgekitError(f"{self.host} sent more than {most} bytes, the maximum for this reply")
        return content

    def listen(self, script: str, *arguments: str, line: Callable[[str], None]) -> None:
        """Run a script as `run` does, and call `line` with each line of its output as it comes, made printable."""
        with self._running(script, arguments, None) as reply:
            while content := reply.readline(_MOST_LINE):
                line(visible(content.decode("utf-8", "replace").strip()))

    @contextmanager
    def _running(self, script: str, arguments: tuple[str, ...], stdin: Path | None) -> Iterator[IO[bytes]]:
        """Start a script, yield its output, then wait for its end and check it."""
        sign = ': >"$cache/alive"\n' if self.sign_of_life else ""
        words = ["sh", "-c", self.cache + sign + script, "edgekit", *arguments]
        mark = secrets.token_hex(8)
        with open(stdin or os.devnull, "rb") as source, tempfile.TemporaryFile() as errors:
            with subprocess.Popen(
                self.command(words, mark), stdin=source, stdout=subprocess.PIPE, stderr=errors
            ) as process:
                self._process = process
                if self.stopped and not self._tidying:
                    process.kill()  # `stop` was called while it started
                assert process.stdout is not None
                try:
                    yield process.stdout
                except BaseException:
                    process.kill()
                    raise
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - _MOST_ERROR))
            messages = errors.read()
        if self.stopped and process.returncode < 0:
            raise Stopped(f"the work on {self.host} was stopped")
        self.ended(process.returncode, messages, mark)

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
        """Run a script that may run twice: again each time that the connection breaks.

        Gives up after `_TRIES` connections in a row that broke at once, which takes about a minute.
        """
        return self._again(lambda: self.run(script, *arguments, stdin=stdin, most=most))

    def insist_on_listening(self, script: str, *arguments: str, line: Callable[[str], None]) -> None:
        """Listen to a script that may run twice: again each time that the connection breaks."""
        self._again(lambda: self.listen(script, *arguments, line=line))

    def _again(self, work: Callable[[], T]) -> T:
        failed = 0
        while True:
            if self.stopped:
                raise Stopped(f"the work on {self.host} was stopped")
            start = time.monotonic()
            try:
                return work()
            except ConnectionLost:
                failed = 0 if time.monotonic() - start > _ALIVE_S else failed + 1
                if failed == _TRIES:
                    raise
                time.sleep(min(_LONGEST_PAUSE_S, 0.5 * 2**failed))

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


def one_line(content: bytes) -> str:
    """Join the lines of an output into one printable line."""
    lines = content.decode("utf-8", "replace").split("\n")
    return visible("; ".join(line.strip() for line in lines if line.strip()))
