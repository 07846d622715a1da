"""Labelled images for a trained network: by the names of its classes, whatever their order."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgekit.data import dataset, evaluation
from edgekit.errors import DataError, MissingError
from tests.datasets import write_images

LABELS = ("cherry", "apple", "banana")


def taken(root: Path) -> dict[tuple[str, str], int]:
    """(split, class) -> number of images."""
    index = evaluation.index(root, LABELS)
    assert index.labels == LABELS
    assert index.fingerprint == dataset.fingerprint(index.labels, index.samples)
    found: dict[tuple[str, str], int] = {}
    for sample in index.samples:
        label = LABELS[sample.label]
        assert label in sample.path.lower()
        found[sample.split, label] = found.get((sample.split, label), 0) + 1
    return found


def test_a_flat_folder_is_all_test(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", {"apple": 3, "banana": 2})
    assert taken(tmp_path / "photos") == {("test", "apple"): 3, ("test", "banana"): 2}


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "val", "test"), ("train", "val", "test")),
        (("Training", "Testing"), ("train", "test")),
        (("val", "test"), ("val", "test")),
        (("validation",), ("test",)),
        (("train", "val"), ("train", "test")),
    ],
)
def test_folders_of_splits_are_splits(folders: tuple[str, ...], splits: tuple[str, ...], tmp_path: Path) -> None:
    for folder in folders:
        write_images(tmp_path / "photos" / folder, {"apple": 2, "cherry": 1})
    expected = {(split, label): n for split in splits for label, n in (("apple", 2), ("cherry", 1))}
    assert taken(tmp_path / "photos") == expected


def test_a_class_may_have_the_name_of_a_split(tmp_path: Path) -> None:
    write_images(tmp_path, {"train": 2, "bus": 1})
    index = evaluation.index(tmp_path, ("bus", "train"))
    assert [(s.split, s.label) for s in index.samples] == [("test", 0), ("test", 1), ("test", 1)]


def test_case_and_unicode_form_of_a_folder_do_not_matter(tmp_path: Path) -> None:
    write_images(tmp_path, {"Apple": 1, "BANANA": 1})
    assert taken(tmp_path) == {("test", "apple"): 1, ("test", "banana"): 1}


def test_folders_that_are_no_classes_are_named(tmp_path: Path) -> None:
    write_images(tmp_path, {"apple": 1, "durian": 1, "elder": 1})
    with pytest.raises(DataError, match=r"2 of 3 folders .* have the name of no class: durian, elder; the classes are"):
        evaluation.index(tmp_path, LABELS)
    with pytest.raises(MissingError, match="is not a folder"):
        evaluation.index(tmp_path / "nowhere", LABELS)


def test_images_that_cannot_be_decoded_are_left_out_and_said(tmp_path: Path) -> None:
    write_images(tmp_path, {"apple": 2})
    (tmp_path / "apple" / "broken.png").write_bytes(b"no image")
    index = evaluation.index(tmp_path, LABELS)
    assert len(index.samples) == 2
    assert any("apple/broken.png" in line for line in evaluation.losses(index))
    assert evaluation.described(index)[0].endswith("2 test images of 1 of the 3 classes")
    for path in (tmp_path / "apple").glob("0*"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"no image below .* can be used"):
        evaluation.index(tmp_path, LABELS)


def test_a_table_an_archive_and_shards_are_read_as_for_a_training(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", {"apple": 3, "banana": 2})
    want = evaluation.index(tmp_path / "photos", LABELS)
    paths = sorted((tmp_path / "photos").rglob("*.png"))
    for name, of in (("names", lambda p: p.parent.name), ("numbers", lambda p: LABELS.index(p.parent.name))):
        rows = "".join(f"{p.relative_to(tmp_path / 'photos')},{of(p)}\n" for p in paths)
        (tmp_path / "photos" / f"{name}.csv").write_text(f"path,label\n{rows}")
        index = evaluation.index(tmp_path / "photos" / f"{name}.csv", LABELS)
        assert (index.fingerprint, index.root) == (want.fingerprint, tmp_path / "photos")
        assert index.notes[0].startswith(f"read as: table {name}.csv: 5 rows")
    assert "labels are the numbers of the classes, from 0 on" in index.notes
    (tmp_path / "photos" / "names.csv").unlink(), (tmp_path / "photos" / "numbers.csv").unlink()
    file = Path(shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "photos"))
    index = evaluation.index(file, LABELS)
    assert (index.fingerprint, index.container) == (want.fingerprint, file)
