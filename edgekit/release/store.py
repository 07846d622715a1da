"""Places for releases: a folder, an object store (any URL of fsspec), or a website, which can only be read."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from edgekit import files
from edgekit.errors import DataError, EdgekitError, MissingError, StorageError, UsageError

MOST_METADATA = 8 << 20  # bytes of a file of metadata
LOCK = "publisher.lock"
_SECONDS = 30  # without a byte


class Taken(Exception):
    """A file that was to be new is there."""


class Store(ABC):
    """A place with named files. A name may have slashes. A file appears whole or not at all."""

    def __init__(self, location: str) -> None:
        self.location = location

    def __str__(self) -> str:
        return self.location

    @abstractmethod
    def read(self, name: str, most: int = MOST_METADATA) -> bytes | None:
        """Return the content of a file; None where there is none.

        Raises:
            DataError: it has more than `most` bytes.
        """

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return the bytes of a file; None where there is none."""

    @abstractmethod
    def create(self, name: str, content: bytes) -> None:
        """Write a file that must be new.

        Raises:
            Taken: it is there, maybe from another process at this moment.
        """

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it."""

    @abstractmethod
    def upload(self, name: str, path: Path) -> None:
        """Copy a file of this machine."""

    @abstractmethod
    def locked(self) -> contextlib.AbstractContextManager[None]:
        """Keep other publishers out for a while.

        Raises:
            UsageError: another one works there.
        """

    @abstractmethod
    def unlock(self) -> None:
        """Remove the lock of a publisher that was killed."""

    def too_long(self, name: str, most: int) -> DataError:
        """Return the error for a file that has too many bytes."""
        return DataError(f"{self}: {name} has more than {most} bytes", "restore it from a copy")


def opened(location: str | Path) -> Store:
    """Return the store at a path or a URL.

    Raises:
        UsageError: the URL is none. MissingError: the package for it is not installed.
    """
    text = str(location)
    scheme, separator, rest = text.partition("://")
    if not separator or isinstance(location, Path):
        return Folder(Path(location))
    if scheme in ("http", "https") and rest:
        return Site(text)
    if scheme in ("file", "local"):
        raise UsageError(f"{text} is a folder of this machine", "give its path alone")
    return Bucket(text)


class Folder(Store):
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path

    def read(self, name: str, most: int = MOST_METADATA) -> bytes | None:
        try:
            with open(self.path / name, "rb") as file:
                content = file.read(most + 1)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if len(content) > most:
            raise self.too_long(name, most)
        return content

    def size(self, name: str) -> int | None:
        try:
            return (self.path / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def create(self, name: str, content: bytes) -> None:
        if (self.path / name).exists():  # the lock keeps other publishers out
            raise Taken(name)
        self.write(name, content)

    def write(self, name: str, content: bytes) -> None:
        files.save_bytes(self.path / name, content)

    def upload(self, name: str, path: Path) -> None:
        with files.writing(self.path / name) as temporary:
            shutil.copyfile(path, temporary)

    @contextmanager
    def locked(self) -> Iterator[None]:
        if not self.path.is_dir():
            yield  # nothing is there to be changed by two
            return
        with files.locked(self.path / f".{LOCK}", f"another publisher is changing {self}"):
            yield

    def unlock(self) -> None:
        raise UsageError(f"{self} is a folder: its lock ends with the publisher that holds it", "try again")


class Bucket(Store):
    """Files of an object store, through fsspec: ``s3://bucket/folder``, ``gs://``, ``az://``, ``sftp://``."""

    def __init__(self, url: str) -> None:
        super().__init__(url.rstrip("/"))
        import fsspec

        try:
            found = fsspec.core.url_to_fs(self.location, use_listings_cache=False)
        except ImportError as error:  # its message names the package to install
            raise MissingError(f"{url}: {error}", "install that package") from None
        except ValueError as error:
            raise UsageError(f"{url} is no URL that edgekit can write to: {error}", "s3://bucket/folder") from None
        self.system: Any = found[0]
        self.root = str(found[1]).rstrip("/")

    def read(self, name: str, most: int = MOST_METADATA) -> bytes | None:
        with self._reaching(name):
            try:
                content = bytes(self.system.cat_file(self._path(name), start=0, end=most + 1))
            except FileNotFoundError:
                return None
        if len(content) > most:
            raise self.too_long(name, most)
        return content

    def size(self, name: str) -> int | None:
        with self._reaching(name):
            self.system.invalidate_cache()
            try:
                return int(self.system.info(self._path(name))["size"])
            except FileNotFoundError:
                return None

    def create(self, name: str, content: bytes) -> None:
        with self._reaching(name):
            try:
                self.system.pipe_file(self._path(name), content, mode="create")
            except FileExistsError:
                raise Taken(name) from None

    def write(self, name: str, content: bytes) -> None:
        with self._reaching(name):
            self.system.pipe_file(self._path(name), content)

    def upload(self, name: str, path: Path) -> None:
        with self._reaching(name):
            self.system.put_file(str(path), self._path(name))

    @contextmanager
    def locked(self) -> Iterator[None]:
        mine = {"host": platform.node(), "pid": os.getpid(), "since": files.now()}
        try:
            self.create(LOCK, json.dumps(mine).encode())
        except Taken:
            self._explain()
        try:
            yield
        finally:
            self.unlock()

    def _explain(self) -> NoReturn:
        """Raise the error that tells who holds the lock."""
        try:
            holder = json.loads(self.read(LOCK, 4096) or b"{}")
            text = f"since {holder['since']} ({holder['host']}, process {holder['pid']})"
        except (ValueError, KeyError, TypeError):
            text = "now"
        raise UsageError(
            f"another publisher has been changing {self} {text}",
            f"wait for it; if it was killed: edgekit release unlock {self}",
        )

    def unlock(self) -> None:
        with self._reaching(LOCK), contextlib.suppress(FileNotFoundError):
            self.system.rm_file(self._path(LOCK))

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"

    @contextmanager
    def _reaching(self, name: str) -> Iterator[None]:
        """Turn errors of the object store into edgekit's."""
        try:
            yield
        except (EdgekitError, Taken):
            raise
        except Exception as error:  # each store has errors of its own
            text = str(error).strip() or type(error).__name__
            raise StorageError(f"{self}: {name}: {text}", "check the URL, the network and your credentials") from error


class Site(Store):
    """A website, as devices see the releases. It cannot be written."""

    def __init__(self, url: str) -> None:
        super().__init__(url.rstrip("/"))

    def read(self, name: str, most: int = MOST_METADATA) -> bytes | None:
        opener = urllib.request.build_opener(_NoRedirects)
        try:
            with opener.open(f"{self.location}/{name}", timeout=_SECONDS) as answer:
                content: bytes = answer.read(most + 1)
        except urllib.error.HTTPError as error:
            if error.code in (403, 404, 410):  # object stores answer 403 where there is nothing
                return None
            raise MissingError(f"{self}/{name}: HTTP status {error.code}", "check the URL") from None
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", error)
            raise MissingError(f"{self} cannot be reached: {why}", "check the URL and the network") from None
        if len(content) > most:
            raise self.too_long(name, most)
        return content

    def size(self, name: str) -> int | None:
        self._refuse()

    def create(self, name: str, content: bytes) -> None:
        self._refuse()

    def write(self, name: str, content: bytes) -> None:
        self._refuse()

    def upload(self, name: str, path: Path) -> None:
        self._refuse()

    def locked(self) -> contextlib.AbstractContextManager[None]:
        self._refuse()

    def unlock(self) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise UsageError(
            f"{self} is a website, which edgekit only reads", "name the folder that it serves, or its object store"
        )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error, as the clients do."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        return None
