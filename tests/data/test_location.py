"""The images of a run are found where they are now, by their content."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from edgekit import files, runs
from edgekit.data import builtin, dataset, location
from edgekit.errors import DataError, EdgekitError, MissingError
from edgekit.records import DatasetIndex
from edgekit.runs import DataInfo, Run, RunInfo


@pytest.fixture
def index(images: Path) -> DatasetIndex:
    return dataset.index(images)


@pytest.fixture
def run(index: DatasetIndex, tmp_path: Path) -> Run:
    info = RunInfo(status="finished", data=DataInfo(str(index.root), index.fingerprint))
    return runs.create_run(tmp_path / "runs", "fruit", info, data=index)


def scattered(images: Path, folder: Path) -> Path:
    """The same files under other names, in other folders, beside a file that is none of them."""
    for number, path in enumerate(sorted(images.rglob("*.png"))):
        new = folder / f"{number % 3}" / f"{number}.jpeg"
        new.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, new)
    (folder / "notes.txt").write_text("mine")
    shutil.rmtree(images)
    return folder


def contents(data: DatasetIndex) -> list[tuple[int, str]]:
    """Label and hash of what the files hold now, in order."""
    return [(sample.label, files.sha256_file(data.root / sample.path)) for sample in data.samples]


def test_images_that_stayed_are_found_under_their_names(run: Run, index: DatasetIndex) -> None:
    found = location.take(run, index.split("test"), "the test", index)
    assert (found.root, found.samples) == (index.root, index.split("test"))


def test_images_under_other_names_are_matched_by_their_content(
    run: Run, index: DatasetIndex, images: Path, tmp_path: Path
) -> None:
    moved = dataclasses.replace(run, images=scattered(images, tmp_path / "new"))
    for take in (location.take, location.take_all):
        found = take(moved, index.split("val"), "the test", index)
        assert contents(found) == [(sample.label, sample.sha256) for sample in index.split("val")]
    assert found.fingerprint == index.fingerprint


def test_a_folder_behind_a_link_to_itself_is_read_once(
    run: Run, index: DatasetIndex, images: Path, tmp_path: Path
) -> None:
    folder = scattered(images, tmp_path / "new")
    (folder / "loop").symlink_to(folder)
    (tmp_path / "link").symlink_to(folder)
    found = location.take(dataclasses.replace(run, images=tmp_path / "link"), index.split("val"), "the test", index)
    assert len(found.samples) == len(index.split("val"))


def test_images_that_are_gone_say_what_to_type(run: Run, index: DatasetIndex, images: Path) -> None:
    shutil.rmtree(images)
    with pytest.raises(MissingError) as caught:
        location.take(run, index.split("test"), "the evaluation", index)
    assert caught.value.message == f"the images for the evaluation are gone since training: there is no folder {images}"
    assert caught.value.hint == (
        f"add --data DIR, the folder where they are now; or once for all: edgekit data relocate {run.path} DIR"
    )


def test_a_few_missing_images_are_left_out_and_named(
    run: Run, index: DatasetIndex, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, *others = index.split("test")
    (images / first.path).unlink()
    (images / second.path).write_bytes(b"changed")
    found = location.take(run, index.split("test"), "the accuracy", index)
    assert list(found.samples) == others
    assert (
        f"warning: 2 of 9 test images are left out: {first.path} (gone), {second.path} (changed); "
        "the accuracy uses the other 7\n"
    ) in capsys.readouterr().err
    with pytest.raises(MissingError, match="2 of 9 images for the training are gone or have changed"):
        location.take_all(run, index.split("test"), "the training", index)


@pytest.mark.parametrize(("harm", "error"), [(Path.unlink, MissingError), (Path.touch, None)])
def test_more_than_a_few_are_an_error(
    run: Run, index: DatasetIndex, images: Path, harm: object, error: type[EdgekitError] | None
) -> None:
    chosen = index.split("test")
    for sample in chosen[:4]:
        harm(images / sample.path)  # type: ignore[operator]
    if error is None:
        assert location.take(run, chosen, "the accuracy", index).samples == chosen
        return
    with pytest.raises(error, match=r"4 of 9 images for the accuracy .* and 1 more"):
        location.take(run, chosen, "the accuracy", index)
    for sample in chosen[:4]:
        (images / sample.path).write_bytes(sample.path.encode())
    with pytest.raises(DataError, match=r"4 of 9 images for the accuracy have changed since training"):
        location.take(run, chosen, "the accuracy", index)


def test_a_run_is_relocated_and_keeps_its_fingerprint(
    run: Run, index: DatasetIndex, images: Path, tmp_path: Path
) -> None:
    new = scattered(images, tmp_path / "new")
    (new / "0" / "0.jpeg").unlink()
    (other := tmp_path / "other").mkdir()
    before = [(run.path / name).read_bytes() for name in ("data.json", "run.json")]
    with pytest.raises(MissingError, match="60 of the 60 images of fruit are not in"):
        location.relocate(run, other)
    assert [(run.path / name).read_bytes() for name in ("data.json", "run.json")] == before
    moved, lost, of = location.relocate(run, new)
    assert (len(lost), of) == (1, 60)
    again = dataset.of_run(runs.read_run(run.path))
    assert again.root == new
    assert again.fingerprint == index.fingerprint
    assert [(s.label, s.split, s.sha256) for s in again.samples] == [
        (s.label, s.split, s.sha256) for s in index.samples
    ]
    assert runs.read_run(run.path).info == moved.info
    assert moved.info.data == DataInfo(str(new), index.fingerprint)
    assert len(location.take(moved, again.samples, "the test", again).samples) == 59


@pytest.mark.parametrize("elsewhere", [False, True])
def test_built_in_data_is_made_again(elsewhere: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a run of another machine, whose cache is elsewhere."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    index = dataset.index(builtin.materialize("digits"))
    shutil.rmtree(tmp_path / "cache")
    if elsewhere:
        monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "own"))
    run = Run(tmp_path, RunInfo(data=DataInfo(str(index.root), index.fingerprint)))
    found = location.take(run, index.split("test"), "the test", index)
    assert found.root == files.cache_dir("datasets") / "digits-v1"
    assert len(found.samples) == len(index.split("test"))
