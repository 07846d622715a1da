"""Reads a release folder as a device does: with python-tuf's own client."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import DataError, MissingError
from edgekit.progress import bar
from edgekit.release import metadata, publisher, store
from edgekit.release.metadata import Content

if TYPE_CHECKING:
    from tuf.ngclient import FetcherInterface, Updater

_MOST = 1 << 31  # bytes of a file
_URL = "release://"


@dataclass(frozen=True)
class Verified:
    """Releases as a client sees them. files, megabytes: of all that was downloaded. expires: of the timestamp."""

    root: int
    expires: datetime
    content: Content
    files: int
    megabytes: float


def verify(location: str | Path, root: bytes | None = None) -> Verified:
    """Read a release folder or website with python-tuf's client, and download every file of its releases.

    Args:
        root: metadata that is trusted first; None: the folder's 1.root.json.

    Raises:
        MissingError: there are no releases. DataError: python-tuf refuses what is there.
    """
    publisher.import_tuf()
    from tuf.api.exceptions import DownloadError, RepositoryError

    place = store.opened(location)
    with tempfile.TemporaryDirectory() as scratch:
        updater = _updater(place, root or first_root(place), Path(scratch))
        try:
            updater.refresh()
            trusted = updater._trusted_set  # its releases are not part of TUF
            content = Content.of(trusted.targets.unrecognized_fields.get(metadata.FIELD))
            names = sorted({target for release in content.releases.values() for target in release.targets()})
            total = 0
            with bar("downloading") as update:
                for number, name in enumerate(names):
                    update(number, len(names), name)
                    info = updater.get_targetinfo(name)
                    if info is None:
                        raise DataError(f"{place}: a release names {name}, which targets.json does not", "restore it")
                    updater.download_target(info, str(Path(scratch) / "file"))
                    total += info.length
        except (RepositoryError, DownloadError) as error:
            raise DataError(f"{place} is refused by python-tuf: {error}", "docs/releases.md tells what to do") from None
        return Verified(trusted.root.version, trusted.timestamp.expires, content, len(names), total / 1e6)


def trusted_root(location: str | Path, root: bytes | None = None) -> bytes:
    """Return the newest root of a release folder or website, reached from the one that is trusted first.

    Args:
        root: metadata that is trusted first; None: the folder's 1.root.json.
    """
    publisher.import_tuf()
    from tuf.api.exceptions import DownloadError, RepositoryError

    place = store.opened(location)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            _updater(place, root or first_root(place), Path(scratch)).refresh()
        except (RepositoryError, DownloadError) as error:
            raise DataError(f"{place} is refused by python-tuf: {error}", "edgekit release verify") from None
        return (Path(scratch) / "metadata" / "root.json").read_bytes()


def checked_root(content: bytes) -> bytes:
    """Return metadata of the role root, as a file, if it is signed by itself.

    Raises:
        DataError: it is not.
    """
    publisher.import_tuf()
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata, Root

    try:
        root = Metadata[Root].from_bytes(content)
        root.signed.verify_delegate("root", root.signed_bytes, root.signatures)
    except (RepositoryError, AttributeError, ValueError) as error:
        raise DataError(f"this is no root of releases: {error}", "take 1.root.json of the release folder") from None
    return content


def first_root(place: store.Store) -> bytes:
    """Return 1.root.json.

    Raises:
        MissingError: there are no releases.
    """
    content = place.read("1.root.json")
    if content is None:
        raise MissingError(f"{place} has no releases", "edgekit release init FOLDER --keys DIR")
    return content


def _updater(place: store.Store, root: bytes, scratch: Path) -> Updater:
    from tuf.api.exceptions import RepositoryError
    from tuf.ngclient import Updater

    state, targets = scratch / "metadata", scratch / "targets"
    for folder in (state, targets):
        folder.mkdir()
    try:
        return Updater(str(state), _URL, str(targets), f"{_URL}targets/", _fetcher(place), bootstrap=root)
    except RepositoryError as error:
        raise DataError(f"the root of {place} is refused by python-tuf: {error}", "restore it") from None


def _fetcher(place: store.Store) -> FetcherInterface:
    """Return how python-tuf reads from a store."""
    from tuf.api.exceptions import DownloadHTTPError
    from tuf.ngclient import FetcherInterface

    class Fetcher(FetcherInterface):
        def _fetch(self, url: str) -> Iterator[bytes]:
            content = place.read(url.removeprefix(_URL), _MOST)
            if content is None:
                raise DownloadHTTPError(f"{url.removeprefix(_URL)} is missing", 404)
            return iter([content])

    made: Any = Fetcher()
    return made
