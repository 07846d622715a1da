"""What was read once is not read again, unless anything about it may have changed."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgekit import files
from edgekit.data import dataset, images, index_cache
from edgekit.errors import DataError
from tests.datasets import write_images


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded from here on; files are cached however young they are."""
    names: list[str] = []

    def examine(path: Path, *options: Any) -> Any:
        names.append(path.name)
        return images.examine(path, *options)

    monkeypatch.setattr(dataset, "examine", examine)
    monkeypatch.setattr(index_cache, "RACY_NS", -1_000_000_000)
    return names


def cache_file(folder: Path) -> Path:
    (path,) = (folder / "index").iterdir()
    return path


def test_the_second_time_nothing_is_decoded_and_the_index_is_the_same(images: Path, decoded: list[str]) -> None:
    first = dataset.index(images)
    assert len(decoded) == 60
    seen: list[tuple[int, int]] = []
    assert dataset.index(images, progress=lambda done, total: seen.append((done, total))) == first
    assert len(decoded) == 60
    assert seen == [(n, 60) for n in range(1, 61)]


def test_the_file_is_small_and_holds_no_names(images: Path, decoded: list[str], cache_folder: Path) -> None:
    dataset.index(images)
    content = cache_file(cache_folder).read_bytes()
    assert len(content) < 60 * 848 + 100
    assert b"apple" not in content


def test_a_file_that_changed_is_read_again(images: Path, decoded: list[str]) -> None:
    before = dataset.index(images)
    path = images / "apple" / "000.png"
    Image.new("RGB", (9, 9)).save(path)
    decoded.clear()
    after = dataset.index(images)
    assert decoded == ["000.png"]
    assert {s.sha256 for s in after.samples} - {s.sha256 for s in before.samples} == {
        hashlib.sha256(path.read_bytes()).hexdigest()
    }


def test_a_file_that_was_touched_is_read_again_once(images: Path, decoded: list[str]) -> None:
    before = dataset.index(images)
    os.utime(images / "apple" / "000.png", (1, 1))
    decoded.clear()
    assert dataset.index(images) == dataset.index(images) == before
    assert decoded == ["000.png"]


def test_a_file_of_the_same_size_and_age_in_its_place_is_read(tmp_path: Path, decoded: list[str]) -> None:
    root = write_images(tmp_path / "d", {"a": 5, "b": 5}, 8)
    path, other = root / "a" / "x.bmp", tmp_path / "other.bmp"
    for number, file in enumerate((path, other)):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(file)
        os.utime(file, (1000, 1000))
    dataset.index(root)
    shutil.copy2(other, path)
    assert path.stat().st_mtime == 1000
    index = dataset.index(root)
    assert hashlib.sha256(path.read_bytes()).hexdigest() in {s.sha256 for s in index.samples}


def test_a_young_file_is_not_trusted(images: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_cache, "RACY_NS", 2_000_000_000)
    os.utime(images / "apple" / "000.png", (4e9, 4e9))  # and neither is one from the future
    dataset.index(images)
    dataset.index(images)
    assert len(decoded) == 120
    monkeypatch.setattr(index_cache, "RACY_NS", 0)
    dataset.index(images)
    decoded.clear()
    dataset.index(images)
    assert decoded == ["000.png"]


@pytest.mark.parametrize("name", ["bad.png", "gone.png"])
def test_a_file_that_cannot_be_used_is_an_error_every_time(images: Path, decoded: list[str], name: str) -> None:
    path = images / "apple" / name
    path.write_text("no image") if name == "bad.png" else path.symlink_to("nowhere")
    for _ in range(2):
        with pytest.raises(DataError, match=f"apple/{name}"):
            dataset.index(images)
    assert len(dataset.index(images, skip_bad=True).samples) == 60
    assert len(decoded) <= 60 + 3


def damages() -> dict[str, object]:
    return {
        "empty": lambda whole: b"",
        "short": lambda whole: whole[:-1],
        "long": lambda whole: whole + b"x",
        "a bit": lambda whole: whole[:200] + bytes([whole[200] ^ 1]) + whole[201:],
        "another version": lambda whole: whole.replace(b"Pillow ", b"Pillow 0"),
        "noise": lambda whole: os.urandom(5000),
    }


@pytest.mark.parametrize("damage", damages())
def test_a_damaged_cache_is_no_cache(images: Path, decoded: list[str], cache_folder: Path, damage: str) -> None:
    before = dataset.index(images)
    path = cache_file(cache_folder)
    sound = path.read_bytes()
    path.write_bytes(damages()[damage](sound))  # type: ignore[operator]
    assert dataset.index(images) == before
    assert len(decoded) == 120
    assert path.read_bytes() == sound


@pytest.mark.parametrize("obstacle", ["a folder for the file", "a file for the folder", "no home"])
def test_a_cache_that_cannot_be_read_or_written_is_no_error(
    images: Path, decoded: list[str], cache_folder: Path, obstacle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dataset.index(images)
    path = cache_file(cache_folder)
    (cache_folder / "instead").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(cache_folder / "instead"))
    files._temporary_cache.cache_clear()
    if obstacle == "a folder for the file":
        path.unlink()
        path.mkdir()
    elif obstacle == "a file for the folder":
        shutil.rmtree(cache_folder / "index")
        (cache_folder / "index").write_text("")
    else:
        monkeypatch.delenv("EDGEKIT_CACHE")
        monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert dataset.index(images) == before
    assert len(decoded) == 120


def test_a_full_disk_is_no_error(images: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgekit.files.os.replace", full)
    assert len(dataset.index(images).samples) == 60


def test_what_was_read_before_ctrl_c_is_kept(images: Path, decoded: list[str]) -> None:
    def stop(done: int, total: int) -> None:
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dataset.index(images, progress=stop)
    decoded.clear()
    dataset.index(images)
    assert len(decoded) == 40


def test_files_that_are_gone_are_forgotten(images: Path, decoded: list[str], cache_folder: Path) -> None:
    dataset.index(images)
    size = cache_file(cache_folder).stat().st_size
    (images / "apple" / "000.png").unlink()
    dataset.index(images)
    assert cache_file(cache_folder).stat().st_size == size - 848


def test_data_sets_and_their_copies_do_not_share(images: Path, decoded: list[str], tmp_path: Path) -> None:
    dataset.index(images)
    dataset.index(Path(shutil.copytree(images, tmp_path / "copy")))
    assert len(decoded) == 120


def test_a_name_that_is_not_utf_8_is_never_cached(images: Path, decoded: list[str]) -> None:
    shutil.copy(images / "apple" / "000.png", bytes(images / "apple" / "bad") + b"\xff.png")
    for _ in range(2):
        assert len(dataset.index(images, skip_bad=True).skipped) == 1
