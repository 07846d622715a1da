"""Every file below a data set is used, or counted under a reason; split folders are known by their usual names."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from edgekit.data import builtin, check, dataset, formats, listing
from edgekit.errors import DataError
from tests.datasets import write_images

CLASSES = {"a": 6, "b": 6}


def place(root: Path, *folders: str) -> Path:
    """Two classes in each of the folders; no image twice."""
    for seed, folder in enumerate(folders):
        write_images(root / folder, CLASSES, 8, seed=seed)
    return root


def loose(folder: Path, count: int = 3, ending: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (8, 8), (number, 50, 90)).save(folder / f"{number}.{ending}", "PNG")


def left(root: Path) -> dict[str, dict[str, int]]:
    """Reason -> what is left out and how often."""
    return {one.reason: one.of for one in listing.find(root).counted}


def every_file(root: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(root))


# Splits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "present"),
    [
        (("Training", "Testing"), ("train", "test")),
        (("Train", "Valid", "Test"), ("train", "val", "test")),
        (("TRAIN", "VAL"), ("train", "val")),
        (("training", "validation"), ("train", "val")),
        (("seg_train/seg_train", "seg_test/seg_test"), ("train", "test")),
        (("seg_train", "seg_test"), ("train", "test")),
        (("train_set", "dev_set", "test_set"), ("train", "val", "test")),
        (("train2017", "val2017"), ("train", "val")),
        (("trainImages", "testImages"), ("train", "test")),
        (("train/images", "test/images"), ("train", "test")),
        (("chest_xray_train", "chest_xray_test"), ("train", "test")),
    ],
)
def test_usual_names_of_splits_are_splits(tmp_path: Path, folders: tuple[str, ...], present: tuple[str, ...]) -> None:
    found = listing.find(place(tmp_path, *folders))
    assert found.present == present
    assert Counter(one.split for one in found.files) == dict.fromkeys(present, 12)
    assert {one.label for one in found.files} == {"a", "b"}
    assert all(folder in " ".join(found.notes) for folder in folders)


def test_splits_named_as_edgekit_names_them_need_no_word(tmp_path: Path) -> None:
    assert listing.find(place(tmp_path, "train", "val", "test")).notes == ()


def test_splits_inside_the_class_folders_are_splits(tmp_path: Path) -> None:
    for seed, name in enumerate(("cat", "dog")):
        write_images(tmp_path / name, {"train": 6, "test": 4}, 8, seed=seed)
    found = listing.find(tmp_path)
    assert Counter((one.split, one.label) for one in found.files) == {
        ("train", "cat"): 6, ("train", "dog"): 6, ("test", "cat"): 4, ("test", "dog"): 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    "names",
    [("train", "bus", "tram"), ("valid", "invalid"), ("train_station", "bus_station"), ("test_tube", "beaker")],
)
def test_classes_whose_names_only_sound_like_splits_stay_classes(tmp_path: Path, names: tuple[str, ...]) -> None:
    found = listing.find(write_images(tmp_path / "d", dict.fromkeys(names, 4), 8))
    assert (found.present, {one.label for one in found.files}) == (("",), set(names))


@pytest.mark.parametrize("folders", [("train", "test"), ("train", "test1"), ("Train",), ("val", "test")])
def test_splits_without_class_folders_are_refused(tmp_path: Path, folders: tuple[str, ...]) -> None:
    for name in folders:
        loose(tmp_path / name)
    (tmp_path / "train.csv").write_text("id,label\n0,dog\n")
    with pytest.raises(DataError, match="lie in no class folder") as caught:
        listing.find(tmp_path)
    assert "DATA/train/<class>/<image>" in caught.value.hint


@pytest.mark.parametrize("names", [("test", "a", "b"), ("train", "test", "bus")])
def test_what_can_be_read_in_two_ways_is_refused_with_both(tmp_path: Path, names: tuple[str, ...]) -> None:
    write_images(tmp_path / "d", dict.fromkeys(names, 4), 8)
    with pytest.raises(DataError, match="can be read in two ways") as caught:
        listing.find(tmp_path / "d")
    assert all(name in caught.value.message for name in names)
    assert "--layout classes" in caught.value.hint
    assert {one.label for one in listing.find(tmp_path / "d", "classes").files} == set(names)


def test_a_train_with_kinds_of_trains_beside_a_bus_can_be_read_in_two_ways(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"steam": 4, "electric": 4}, 8)
    loose(tmp_path / "bus")
    with pytest.raises(DataError, match="train is a split, and bus not used; or train and bus are all classes"):
        listing.find(tmp_path)
    assert {one.label for one in listing.find(tmp_path, "classes").files} == {"train", "bus"}
    assert {one.label for one in listing.find(tmp_path, "splits").files} == {"steam", "electric"}


def test_two_names_of_one_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"val and valid in .* are both names of the val split"):
        listing.find(place(tmp_path, "train", "val", "valid"))


def test_an_unlabelled_test_beside_a_labelled_train_is_said_and_test_is_carved(tmp_path: Path) -> None:
    loose(place(tmp_path, "train") / "test", 5)
    index = dataset.index(tmp_path)
    assert (index.carved, [one.split for one in index.samples].count("test")) == (("val", "test"), 2)
    assert left(tmp_path) == {"no_class": {"test": 5}}


# Files ---------------------------------------------------------------------------------------


def test_every_file_is_used_or_counted(tmp_path: Path) -> None:
    root = place(tmp_path, "train", "test")
    loose(root / "unlabelled", 4)
    loose(root / "test", 2)
    loose(root, 1)
    loose(root / "train" / "a" / "@eaDir", 3)
    loose(root / "train" / "a" / "thumbnails", 2)
    loose(root / "__MACOSX" / "train" / "a", 2)
    loose(root / ".git" / "objects", 2)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png"):
        (root / "train" / "b" / name).write_bytes(b"x")
    (root / "train" / "b" / "notes.txt").write_text("x")
    (root / "train" / "b" / "raw.CR2").write_bytes(b"II*\0")
    loose(root / "train" / "b", 1, "png.bak")
    found = listing.find(root)
    assert len(found.files) + sum(one.files for one in found.counted) == every_file(root)
    assert left(root) == {
        "format": {".cr2": 1},
        "backup": {".bak": 1},
        "no_class": {"test": 2, ".": 1},
        "outside": {"unlabelled": 4},
        "system": {"@eaDir": 3, ".git": 2, "__MACOSX": 2, "thumbnails": 2}
        | dict.fromkeys(("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini"), 1),
        "no_image": {".txt": 1},
    }  # fmt: skip


@pytest.mark.parametrize("name", ["x.jfif", "x.JPE", "x.ppm", "x.pgm", "x.avif", "x", "20240101", "x.jpg_large"])
def test_images_are_known_by_ending_or_content(tmp_path: Path, name: str) -> None:
    root = write_images(tmp_path / "d", CLASSES, 8)
    kind = {"ppm": "PPM", "pgm": "PPM", "avif": "AVIF"}.get(name.rpartition(".")[2], "JPEG")
    Image.new("RGB", (8, 8), (1, 2, 3)).save(root / "a" / name, kind)
    index = dataset.index(root)
    assert f"a/{name}" in {one.path for one in index.samples}
    assert index.left_out == ()


def test_files_that_are_named_like_no_image_and_are_some_are_said(tmp_path: Path) -> None:
    root = write_images(tmp_path / "d", CLASSES, 8)
    Image.new("RGB", (8, 8)).save(root / "a" / "x", "PNG")
    assert listing.find(root).notes == ("1 file is an image by content, not by its ending, and used",)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40


def test_heic_without_its_package_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "readable", lambda: formats.FORMATS)
    root = write_images(tmp_path / "d", CLASSES, 8)
    (root / "a" / "x.HEIC").write_bytes(HEIC)
    (one,) = listing.find(root).counted
    assert (one.reason, one.of) == ("format", {".heic": 1})
    assert "pillow-heif" in listing.sentence(one)


@pytest.mark.parametrize(
    ("start", "kind"),
    [(HEIC, "HEIC"), (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "AVIF"), (b"P6 4 4", "PPM"), (b"P6x", ""), (b"BMW", ""),
     (b"<svg", ""), (b"", "")],
)  # fmt: skip
def test_formats_by_content(start: bytes, kind: str) -> None:
    assert formats.of_content(start) == kind


def test_a_class_that_loses_all_of_its_images_is_an_error_unless_it_may_go(tmp_path: Path) -> None:
    root = write_images(tmp_path / "d", CLASSES, 8)
    (root / "c").mkdir()
    for number in range(3):
        (root / "c" / f"{number}.cr2").write_bytes(b"II*\0")
    with pytest.raises(DataError, match=r"class folder c loses all of its images \(3 .cr2\)") as caught:
        dataset.index(root)
    assert "--skip-empty" in caught.value.hint
    assert dataset.index(root, skip_empty=True).labels == ("a", "b")


def test_a_folder_without_any_image_is_no_lost_class(tmp_path: Path) -> None:
    root = write_images(tmp_path / "d", CLASSES, 8)
    (root / "annotations").mkdir()
    (root / "annotations" / "1.xml").write_text("<x/>")
    assert dataset.index(root).labels == ("a", "b")
    assert listing.find(root).empty == ["annotations"]


@pytest.mark.parametrize("name", ["runs", "my results"])
def test_runs_of_edgekit_are_no_class(tmp_path: Path, name: str) -> None:
    root = write_images(tmp_path / "d", CLASSES, 8)
    before = dataset.index(root)
    run = root / name / "first"
    loose(run / "pictures", 3)
    (run / "run.json").write_text(json.dumps({"schema": 1, "edgekit": "1.0", "arch": "x", "status": "training"}))
    after = dataset.index(root)
    assert (after.labels, after.fingerprint) == (before.labels, before.fingerprint)
    assert left(root) == {"own": {name: 4}}
    assert listing.find(root).empty == []


def test_a_run_json_of_something_else_hides_nothing(tmp_path: Path) -> None:
    root = write_images(tmp_path / "d", CLASSES, 8)
    (root / "a" / "run.json").write_text("[1]")
    assert len(listing.find(root).files) == 12


def test_the_cache_is_no_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_images(tmp_path / "d", CLASSES, 8)
    loose(root / "cache" / "datasets" / "x", 2)
    monkeypatch.setenv("EDGEKIT_CACHE", str(root / "cache"))
    assert {one.label for one in listing.find(root).files} == {"a", "b"}


def test_linked_class_folders_are_used_and_a_circle_ends(tmp_path: Path) -> None:
    root = write_images(tmp_path / "d", CLASSES, 8)
    write_images(tmp_path / "store", {"c": 5}, 8, seed=3)
    (root / "c").mkdir()
    (root / "c" / "images").symlink_to(tmp_path / "store" / "c")
    (root / "all").symlink_to(".")
    (root / "c" / "again").symlink_to("images")
    found = listing.find(root)
    assert Counter(one.label for one in found.files) == {"a": 6, "b": 6, "c": 5}
    assert left(root) == {"link": {"all": 1, "c/images": 1}}


def test_classes_in_two_unicode_forms_are_one(tmp_path: Path) -> None:
    write_images(tmp_path / "train", {"caf\u00e9": 4, "tea": 4}, 8)
    write_images(tmp_path / "test", {"cafe\u0301": 4, "tea": 4}, 8, seed=1)
    index = dataset.index(tmp_path)
    assert index.labels == ("caf\u00e9", "tea")
    assert any("one class" in note for note in index.notes)


def test_a_folder_comes_before_a_built_in_data_set_and_this_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edgekit")
    monkeypatch.chdir(tmp_path)
    assert builtin.is_meant("digits")
    write_images(tmp_path / "digits", CLASSES, 8)
    assert not builtin.is_meant("digits")
    assert dataset.resolve("./digits") == tmp_path / "digits"
    assert not caplog.messages
    assert dataset.resolve("digits") == tmp_path / "digits"
    assert caplog.messages == ["digits: the folder of that name is read here, not the built-in data set"]


def test_folders_below_class_folders_are_said_to_be_no_classes(tmp_path: Path) -> None:
    for seed, genus in enumerate(("quercus", "acer")):
        write_images(tmp_path / genus, {"robur": 4, "rubra": 4}, 8, seed=seed)
    (note,) = listing.find(tmp_path).notes
    assert note == (
        "class acer and 1 more: the folders in it are no classes of their own (move them to the top to make them "
        "classes)"
    )
    loose(tmp_path / "acer")
    (tmp_path / "quercus" / "rubra").rename(tmp_path / "quercus" / "robur" / "rubra")
    assert listing.find(tmp_path).notes == ()
    assert listing.find(place(tmp_path / "split", "train", "val")).notes == ()


def test_a_folder_around_the_data_set_is_named(tmp_path: Path) -> None:
    place(tmp_path, "my data/train", "my data/val")
    with pytest.raises(DataError, match="only one class found: 'my data', a folder with folders") as caught:
        dataset.index(tmp_path)
    assert caught.value.hint == f"if these are the classes or splits, give that folder: '{tmp_path / 'my data'}'"
    report = check.judge(check.read(tmp_path), None)
    (message,) = (f.message for f in report.findings if f.kind == "class_name")
    assert message.endswith(f"if these are the classes: '{tmp_path / 'my data'}'")
    assert dataset.index(tmp_path / "my data").labels == ("a", "b")
