"""A device that takes commands over a wire: scripts, files by their hash, and replies that are never trusted.

What a kind of wire adds is how its program is called, and what it meant when it failed: `edgekit.bench.ssh`,
`edgekit.bench.adb`.
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
_LIVED_S = 1.0  # a connection that lasted so long was one: waiting for a long job may take many
_MOST_ERROR = 8192
_MOST_LINE = 1000
MOST_REPLY = 1 << 20
# Given: HASH. The upload is kept only if it is what was sent.
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


class Link:
    """One device, reached for all that is done in a ``with`` block.

    Attributes:
        host: what messages call it. cache: a line of shell that sets ``$cache`` to one private folder there.
    """

    cache = ""

    def __init__(self, host: str) -> None:
        self.host = host
        self._process: subprocess.Popen[bytes] | None = None
        self.stopped = False
        self.sign_of_life = False  # each command then shows the watcher of `powermode` that somebody is there
        self._ending = False  # what tidies up runs to its end, also when stopped

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None: ...

    @property
    def handle(self) -> str:
        """What the user types to name it."""
        return self.host

    def command(self, words: list[str], mark: str) -> list[str]:
        """What is run here so that `words` run there; `mark` is a random word of this call."""
        raise NotImplementedError

    def ended(self, status: int, errors: bytes, mark: str) -> None:
        """Judge the end of a `command`, by its status here and the end of what it wrote to standard error.

        Raises:
            As `run`.
        """
        raise NotImplementedError

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
        words = ["sh", "-c", self.cache + sign + script, "edgekit", *arguments]
        mark = secrets.token_hex(8)
        with open(stdin or os.devnull, "rb") as source, tempfile.TemporaryFile() as errors:
            with subprocess.Popen(
                self.command(words, mark), stdin=source, stdout=subprocess.PIPE, stderr=errors
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
            errors.seek(max(0, errors.seek(0, os.SEEK_END) - _MOST_ERROR))
            said = errors.read()
        if self.stopped and process.returncode < 0:
            raise Stopped(f"stopped what ran on {self.host}")
        self.ended(process.returncode, said, mark)

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
                    f"edgekit devices clean {self.handle}, or free some space there",
                ) from None
            if error.status_there == 29 and sha256_file(path) != digest:
                raise StorageError(f"{path} changed while it was sent", "run the same command again") from None
            raise


def one_line(said: bytes) -> str:
    """What was written, in one printable line."""
    lines = said.decode("utf-8", "replace").split("\n")
    return visible("; ".join(line.strip() for line in lines if line.strip()))
