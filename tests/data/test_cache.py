"""Data sets that were unpacked into the cache: their list, their removal, and what keeps them there."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgekit.cli.app import run as command
from edgekit.data import dataset, location, sources, unpacked
from tests.data.test_archives import zipped
from tests.data.test_arrays import npz, pixels
from tests.data.test_sources import kept


def end_of_process() -> None:
    """Give up the folders that this process uses, as when it ends."""
    while unpacked._held:
        os.close(unpacked._held.popitem()[1])


@pytest.fixture
def file(images: Path, tmp_path: Path) -> Path:
    """A zip file that is unpacked, and not in use."""
    file = zipped(images, tmp_path / "d.zip")
    sources.find(file)
    end_of_process()
    return file


def listed(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, list[dict[str, object]]]:
    capsys.readouterr()
    assert command(["data", "cache", "--json", *more]) == 0
    document: dict[str, list[dict[str, object]]] = json.loads(capsys.readouterr().out)
    return document


def test_nothing_is_unpacked(cache_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--clear"]):
        assert command(["data", "cache", *more]) == 0
        assert capsys.readouterr().out == "nothing is unpacked in the cache\n"
    assert command(["data", "cache", "x"]) == 4
    dataset.resolve("digits")
    assert listed(capsys)["unpacked"] == []


def test_the_list_tells_file_size_use_and_state(file: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = listed(capsys)["unpacked"][0]
    size = sum(path.stat().st_size for path in images.rglob("*.png"))
    assert (entry["source"], entry["source_exists"], entry["files"]) == (str(file), True, 60)
    assert size < int(str(entry["bytes"])) < size + 10_000
    assert entry["in_use"] is False
    sources.find(file)
    assert listed(capsys)["unpacked"][0]["in_use"] is True
    moved = file.rename(file.with_name("e.zip"))
    assert command(["data", "cache"]) == 0
    assert "in use, file gone" in capsys.readouterr().out
    sources.find(moved)
    assert listed(capsys)["unpacked"][0]["source"] == str(moved)


def test_a_use_is_the_last_use(file: Path, cache_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.utime(next(cache_folder.glob("datasets/.*.used")), (0, 0))
    assert listed(capsys)["unpacked"][0]["last_used"] == "1970-01-01T00:00:00+00:00"
    assert unpacked.use(next(cache_folder.glob("datasets/d-*")) / "files")
    assert not str(listed(capsys)["unpacked"][0]["last_used"]).startswith("1970")


def test_clear_removes_all_or_those_that_are_named(
    file: Path, images: Path, tmp_path: Path, cache_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(images / "apple")
    sources.find(zipped(images, tmp_path / "e.zip"))
    end_of_process()
    first = next(cache_folder.glob("datasets/d-*"))
    assert command(["data", "cache", "--clear", first.name]) == 0
    assert f"removed: {first.name} (" in capsys.readouterr().out
    assert [path.name[:2] for path in cache_folder.glob("datasets/[!.]*")] == ["e-"]
    assert command(["data", "cache", "--clear", first.name]) == 4
    document = listed(capsys, "--clear")
    assert (len(document["removed"]), document["unpacked"]) == (1, [])
    assert list((cache_folder / "datasets").iterdir()) == []


def test_what_a_process_uses_is_never_removed(
    file: Path, cache_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = next(cache_folder.glob("datasets/d-*"))
    lock = folder.with_name(f".{folder.name[-16:]}.lock")
    for path, flags in ((folder, os.O_RDONLY), (lock, os.O_CREAT)):  # it is used; it is unpacked
        place = os.open(path, flags)
        fcntl.flock(place, fcntl.LOCK_SH)
        assert command(["data", "cache", "--clear"]) == 0
        assert f"kept, because a process uses it: {folder.name}" in capsys.readouterr().err
        assert command(["data", "cache", "--clear", folder.name]) == 2
        assert "is in use by a process" in capsys.readouterr().err
        assert len(list(folder.rglob("*.png"))) == 60
        os.close(place)
    assert command(["data", "cache", "--clear"]) == 0
    assert not folder.exists()


def test_images_whose_file_is_gone_are_removed_only_by_name(
    file: Path, cache_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = next(cache_folder.glob("datasets/d-*"))
    file.unlink()
    assert command(["data", "cache", "--clear"]) == 0
    assert f"edgekit data cache --clear {folder.name}" in capsys.readouterr().err
    assert folder.is_dir()
    assert command(["data", "cache", "--clear", folder.name]) == 0
    assert not folder.exists()


def test_a_run_unpacks_its_images_again_and_keeps_them_while_it_lives(
    images: Path, tmp_path: Path, cache_folder: Path
) -> None:
    run = kept(zipped(images, tmp_path / "d.zip"), tmp_path / "runs")
    index = dataset.of_run(run)
    for _ in range(2):
        assert not unpacked.remove(index.root.parent)
        end_of_process()
        assert unpacked.remove(index.root.parent)
        assert not index.root.exists()
        assert len(location.take(run, index.samples, "the test", index).samples) == 60
    end_of_process()
    location.root_of(run, index)  # nothing is unpacked, but used
    assert not unpacked.remove(index.root.parent)
    (tmp_path / "d.zip").unlink()
    end_of_process()
    location.root_of(run, index)
    assert not unpacked.remove(index.root.parent)


def test_a_file_in_an_archive_is_of_that_archive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "n").mkdir()
    npz(tmp_path / "n" / "a.npz", images=pixels(8, 9, 9), labels=np.arange(8) % 2)
    file = zipped(tmp_path / "n", tmp_path / "d.zip")
    sources.find(file)
    assert [entry["source"] for entry in listed(capsys)["unpacked"]] == [str(file)] * 2


def test_what_a_killed_removal_left_is_removed(file: Path, cache_folder: Path) -> None:
    folder = next(cache_folder.glob("datasets/d-*"))
    left = folder.rename(folder.with_name(f".{folder.name}.4194399.abcdefgh"))
    assert unpacked.everything() == []
    assert not left.exists()
