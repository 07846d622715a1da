"""The folder is right for python-tuf's client at every moment of every change."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.errors import DataError
from edgekit.release import store
from edgekit.release.publisher import Releases
from edgekit.release.verify import verify
from tests.release.folders import Publisher, kits

CHANGES: dict[str, Callable[[Publisher], object]] = {
    "add": lambda p: add(p, 4),
    "promote": lambda p: p.releases.promote("r3", "beta"),
    "promote an old one": lambda p: p.releases.promote("r2", "stable"),  # no channel names it any more
    "rollout": lambda p: p.releases.rollout("stable", 50),
    "back": lambda p: p.releases.back("stable"),
    "recall": lambda p: p.releases.recall("r4"),
    "refresh": lambda p: p.releases.refresh(),
    "refresh targets": lambda p: p.releases.refresh("targets"),
    "refresh root": lambda p: p.releases.refresh("root"),
    "rotate online": lambda p: p.releases.rotate("online", p.keys),
    "rotate targets": lambda p: p.releases.rotate("targets", p.keys),
    "rotate root": lambda p: p.releases.rotate("root", p.keys, p.releases.status().roles[0].keyids[0][:8]),
}


def add(publisher: Publisher, number: int) -> str:
    """Add a release with one kit, of few files."""
    return publisher.releases.add(kits(publisher.scratch, number, ("android-litert",)), "stable", percent=10)


def published(scratch: Path, name: str) -> Publisher:
    """A folder whose channel stable takes r4, and before that r3; no channel names r2 any more."""
    publisher = Publisher(scratch, name)
    for number in (2, 3):
        publisher.add(number)
    return publisher


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the publisher goes on after it."""


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_there_is_right_before_and_after_each_write(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, seen = published(tmp_path, "public"), []

    def watched(write: Callable[..., None]) -> Callable[..., None]:
        def watching(*arguments: object) -> None:
            verify(publisher.folder, publisher.root)
            write(*arguments)
            seen.append(verify(publisher.folder, publisher.root))

        return watching

    for each in ("write", "upload"):
        monkeypatch.setattr(store.Folder, each, watched(getattr(store.Folder, each)))
    CHANGES[name](publisher)
    assert seen


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_was_stopped_after_any_write_can_be_made_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stop in range(100):
        publisher = published(tmp_path, f"public{stop}")
        left = [stop]

        def counted(write: Callable[..., None], left: list[int] = left) -> Callable[..., None]:
            def counting(*arguments: object) -> None:
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
                write(*arguments)

            return counting

        with monkeypatch.context() as patch:
            for each in ("write", "upload"):
                patch.setattr(store.Folder, each, counted(getattr(store.Folder, each)))
            try:
                CHANGES[name](publisher)
            except Killed:
                pass
            else:
                assert stop
                return
        verify(publisher.folder, publisher.root)
        publisher.releases = Releases(publisher.folder, [publisher.keys], clock=publisher.clock)
        if name in ("back", "recall", "rotate root") and stop:
            publisher.releases.refresh()  # it may have been made: then it cannot be made again
        else:
            CHANGES[name](publisher)
        verify(publisher.folder, publisher.root)
    pytest.fail("it never came to its end")


@pytest.mark.parametrize("role", ["online", "targets"])
def test_a_lost_key_is_replaced_even_if_that_was_stopped(
    role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = Publisher(tmp_path)
    for path in publisher.keys.glob(f"{role}-*.pem"):
        path.unlink()

    def stopped(self: Releases, *_: object) -> bytes:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Releases, "_write_root", stopped)
        with pytest.raises(Killed):
            publisher.releases.rotate(role, publisher.keys)
    with pytest.raises(DataError, match="not signed by the keys"):
        publisher.releases.refresh()
    publisher.releases.rotate(role, publisher.keys)
    assert verify(publisher.folder, publisher.root).root == 2
    publisher.add(2)
    verify(publisher.folder, publisher.root)


def publish(folder: str, keys: str, made: list[Path]) -> None:
    """Publish a release, in a process of its own."""
    Releases(folder, [keys]).add(list(made), "stable")


def test_a_publisher_killed_at_random_moments_leaves_a_folder_that_is_right(tmp_path: Path) -> None:
    rng, publisher = random.Random(0), Publisher(tmp_path)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ends, seconds = [], 0.0
    for number in range(27):
        made = kits(tmp_path, number + 2, ("android-litert",))
        before = verify(publisher.folder, publisher.root).content.channels["stable"].release
        process = context.Process(target=publish, args=(str(publisher.folder), str(publisher.keys), made))
        started = time.monotonic()
        process.start()
        if number > 1:
            process.join(rng.uniform(0.1, 1.2) * seconds)
            process.kill()
        process.join()
        if number == 1:  # the first one waits for imports
            seconds = time.monotonic() - started
        now = verify(publisher.folder, publisher.root).content.channels["stable"].release
        ends += [now != before] if number > 1 else []
    assert len(set(ends)) == 2  # some were killed before the switch, some were not
    publisher.add(99)
    assert verify(publisher.folder, publisher.root).files
