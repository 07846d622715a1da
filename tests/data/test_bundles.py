"""Several archives in a folder: splits, classes or parts of one data set, with the unpacked folder's fingerprint."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.data import dataset, evaluation, location, sources
from edgekit.errors import DataError
from tests.data.test_archives import tarred, zipped
from tests.data.test_sources import kept
from tests.datasets import write_images


def half(folder: Path, target: Path, number: int) -> Path:
    """Copy every second image of each class folder."""
    for path in sorted(folder.rglob("*.png"))[number::2]:
        (target / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target / path.parent.name)
    return target


@pytest.fixture
def split(tmp_path: Path) -> Path:
    for seed, name in enumerate(("train", "val", "test"), 5):
        write_images(tmp_path / "split" / name, {"a": 8, "b": 8}, 16, seed)
    return tmp_path / "split"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "r").mkdir()
    return tmp_path / "r"


@pytest.mark.parametrize(
    ("names", "below"),
    [
        (("train.zip", "val.zip", "test.zip"), ""),
        (("train.tar.gz", "valid.tar.gz", "test.tar.gz"), "x/images/"),
        (("flowers_train.zip", "flowers_val.tar", "flowers_test.zip"), "{}/"),
        (("train/images.zip", "val/images.zip", "test/images.zip"), ""),
    ],
)
def test_names_of_splits_are_splits(split: Path, root: Path, names: tuple[str, ...], below: str) -> None:
    want = dataset.index(split)
    for part, name in zip(("train", "val", "test"), names):
        (root / name).parent.mkdir(exist_ok=True)
        (zipped if name.endswith("zip") else tarred)(split / part, root / name, below.format(part))
    index = dataset.index(root)
    assert (index.labels, index.fingerprint, index.carved) == (want.labels, want.fingerprint, ())
    kind = "in their folders" if "/" in names[0] else "by the names of splits"
    assert index.notes[0] == f"read as: 3 archives, {kind}: {', '.join(sorted(names))}"
    assert index.container == root


def test_several_archives_of_one_split_are_laid_over_each_other(split: Path, root: Path, tmp_path: Path) -> None:
    want = dataset.index(split).fingerprint
    for number in range(2):
        zipped(half(split / "train", tmp_path / f"half{number}", number), root / f"train_{number}.zip", "train/")
    for name in ("val", "test"):
        zipped(split / name, root / f"{name}.zip")
    assert dataset.index(root).fingerprint == want


def test_images_without_labels_beside_a_training_split_are_not_used(split: Path, root: Path) -> None:
    shutil.rmtree(split / "val")
    for path in sorted((split / "test").rglob("*.png")):
        path.rename(split / "test" / f"{path.parent.name}{path.name}")
    want = dataset.index(split)
    for name in ("train", "test"):
        zipped(split / name, root / f"{name}.zip")
    index = dataset.index(root)
    assert (index.fingerprint, index.carved) == (want.fingerprint, ("val", "test"))
    assert index.left_out == want.left_out


@pytest.mark.parametrize("names", [("images_part1", "images_part2"), ("images_001", "images_002"), ("x", "y")])
def test_archives_that_share_class_folders_are_parts(
    images: Path, root: Path, tmp_path: Path, names: tuple[str, str]
) -> None:
    want = dataset.index(images)
    for number, name in enumerate(names):
        part = half(images, tmp_path / f"p{number}", number)
        same = images / "apple" / "000.png"
        shutil.copy(same, part / "apple")  # in both
        zipped(part, root / f"{name}.zip", f"{name}/")
    index = dataset.index(root)
    assert (index.labels, index.fingerprint) == (want.labels, want.fingerprint)
    assert index.notes[0] == f"read as: 2 archives, parts of one data set: {names[0]}.zip, {names[1]}.zip"
    assert "files that several parts hold under the same name, with the same content, used once: 1" in index.notes
    assert dataset.index(root, layout="classes").labels == names


def test_parts_that_hold_splits_make_one_data_set(split: Path, root: Path) -> None:
    want = dataset.index(split).fingerprint
    zipped(split / "train", root / "part1.zip", "set/train/")
    for name in ("val", "test"):
        shutil.move(split / name, split / "rest" / name)
    zipped(split / "rest", root / "part2.zip", "set/")
    assert dataset.index(root).fingerprint == want


@pytest.mark.parametrize("below", ["", "{}/", "images/"])
@pytest.mark.parametrize("pack", [("zip", zipped), ("tar", tarred)])
def test_an_archive_for_each_class(
    images: Path, root: Path, below: str, pack: tuple[str, Callable[[Path, Path, str], Path]]
) -> None:
    want = dataset.index(images)
    for name in want.labels:
        pack[1](images / name, root / f"{name}.{pack[0]}", below.format(name))
    index = dataset.index(root)
    assert (index.labels, index.fingerprint) == (want.labels, want.fingerprint)
    assert index.notes[0].startswith("read as: 3 archives, each one class: apple.")
    assert dataset.index(root, layout="classes").fingerprint == want.fingerprint


def test_an_archive_for_each_class_of_each_split(split: Path, root: Path) -> None:
    want = dataset.index(split)
    for folder in split.glob("*/*"):
        (root / folder.parent.name).mkdir(exist_ok=True)
        tarred(folder, root / folder.parent.name / f"{folder.name}.tar")
    index = dataset.index(root)
    assert (index.labels, index.fingerprint) == (want.labels, want.fingerprint)


def test_both_readings_are_shown_with_what_to_type(images: Path, root: Path) -> None:
    for name, inside in (("red", "apple"), ("yellow", "banana")):
        zipped(images / inside, root / f"{name}.zip", f"{inside}/")
    with pytest.raises(DataError, match=r"each archive is a class \(red, yellow\), or .*\(apple, banana\)") as caught:
        dataset.index(root)
    assert caught.value.hint == "say --layout classes for the first, --layout parts for the second"
    assert dataset.index(root, layout="classes").labels == ("red", "yellow")
    assert dataset.index(root, layout="parts").labels == ("apple", "banana")
    shutil.copytree(images / "cherry", images / "two" / "cherry")
    shutil.copytree(images / "apple", images / "two" / "lemon")
    zipped(images / "two", root / "z.zip")
    with pytest.raises(DataError, match="two ways"):
        dataset.index(root)


@pytest.mark.parametrize(("labels", "apples"), [(("apple", "banana"), "apple"), (("Red", "YELLOW"), "Red")])
def test_the_classes_of_a_network_decide_between_two_readings(
    labels: tuple[str, ...], apples: str, images: Path, root: Path
) -> None:
    for name, inside in (("red", "apple"), ("yellow", "banana")):
        zipped(images / inside, root / f"{name}.zip", f"{inside}/")
    index = evaluation.index(root, labels)
    assert len(index.samples) > 2
    assert {labels[sample.label] for sample in index.samples if "apple" in sample.path} == {apples}
    assert {sample.label for sample in index.samples} == {0, 1}


def test_two_readings_that_both_or_neither_fit_the_classes_are_refused(images: Path, root: Path) -> None:
    for name, inside in (("red", "apple"), ("yellow", "banana")):
        zipped(images / inside, root / f"{name}.zip", f"{inside}/")
    for labels in (("cat", "dog"), ("apple", "banana", "red", "yellow")):
        with pytest.raises(DataError, match="two ways") as caught:
            evaluation.index(root, labels)
        assert caught.value.hint == "name its folders and archives as labels.txt names the classes"


def test_the_classes_of_a_network_decide_between_folders_and_a_table(tmp_path: Path) -> None:
    write_images(tmp_path / "one", {"left": 4, "right": 4})
    rows = [
        f"{p.relative_to(tmp_path / 'one')},{('up', 'down')[n % 2]}"
        for n, p in enumerate(sorted(tmp_path.rglob("*.png")))
    ]
    (tmp_path / "one" / "table.csv").write_text("path,label\n" + "\n".join(rows))
    ups = sum(sample.label == 0 for sample in evaluation.index(tmp_path / "one", ("up", "down")).samples)
    assert ups == 4
    index = evaluation.index(tmp_path / "one", ("right", "left"))
    assert all(("right", "left")[sample.label] in sample.path for sample in index.samples)


def test_archives_that_do_not_go_together_are_refused(images: Path, root: Path) -> None:
    zipped(images, root / "all.zip")
    zipped(images / "apple", root / "loose.zip")
    with pytest.raises(DataError, match=r"loose.zip has images in no class folder, all.zip only class folders") as one:
        dataset.index(root)
    assert "--layout parts" in one.value.hint


def test_a_cut_archive_among_several_leaves_nothing(split: Path, root: Path, cache_folder: Path) -> None:
    for name in ("train", "val", "test"):
        tarred(split / name, root / f"{name}.tar")
    (root / "val.tar").write_bytes((root / "val.tar").read_bytes()[:5000])
    with pytest.raises(DataError, match=r"val.tar is cut off"):
        dataset.index(root)
    assert list(cache_folder.rglob("*.png")) == []


def test_folders_that_are_parts(images: Path, root: Path, tmp_path: Path) -> None:
    want = dataset.index(images)
    for number in range(2):
        half(images, root / f"images_{number}", number)
    index = dataset.index(root, layout="parts")
    assert (index.labels, index.fingerprint) == (want.labels, want.fingerprint)
    assert index.notes[0] == "read as: 2 folders, parts of one data set: images_0, images_1"
    with pytest.raises(DataError, match="fewer than two folders"):
        dataset.index(root / "images_0" / "apple", layout="parts")


@pytest.mark.parametrize("files", [1, 2])
def test_a_table_beside_archives(images: Path, root: Path, files: int) -> None:
    want = dataset.index(images)
    lines = ["image_id,label"]
    for number, path in enumerate(sorted(images.rglob("*.png"))):
        (root / f"p{number % files}").mkdir(exist_ok=True)
        shutil.copy(path, root / f"p{number % files}" / f"{path.parent.name}{path.name}")
        lines.append(f"{path.parent.name}{path.stem},{want.labels.index(path.parent.name)}")
    for folder in sorted(root.iterdir()):
        zipped(folder, root / f"images_{folder.name}.zip")
        shutil.rmtree(folder)
    (root / "labels.csv").write_text("\n".join(lines))
    (root / "classes.txt").write_text("\n".join(want.labels))
    index = dataset.index(root)
    assert (index.labels, index.fingerprint, index.container) == (want.labels, want.fingerprint, root)
    assert "table labels.csv: 60 rows, path is image_id, label is label" in index.notes[0]


def test_the_images_of_a_run_are_unpacked_again(split: Path, root: Path, tmp_path: Path, cache_folder: Path) -> None:
    for name in ("train", "val", "test"):
        zipped(split / name, root / f"{name}.zip")
    run = kept(root, tmp_path / "runs")
    index = dataset.of_run(run)
    shutil.rmtree(cache_folder / "datasets")
    assert len(location.take_all(run, index.samples, "the test", index, search=False).samples) == 48
    assert len(sources.find(root, sources.Reading(labelled=False)).files) == 48
