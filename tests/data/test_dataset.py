"""The index of a folder of images: layouts, splits, and everything that can be wrong with a folder."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit import files, runs
from edgekit.data import check, dataset
from edgekit.errors import DataError, MissingError
from edgekit.records import Content, DatasetIndex
from tests.datasets import write_images

HOSTILE = ["<script>alert(1)<", "{{ 7 * 7 }}", "$(touch x)", "%s%n", "a b", "犬", "--help", "[red]x", "'; DROP"]


def assigned(index: DatasetIndex) -> dict[str, str]:
    """Content hash -> split."""
    return {s.sha256: s.split for s in index.samples}


def counts(index: DatasetIndex) -> dict[str, int]:
    return dict(Counter(s.split for s in index.samples))


def presplit(root: Path, splits: dict[str, dict[str, int]]) -> Path:
    for seed, (split, classes) in enumerate(splits.items(), 1):
        write_images(root / split, classes, size=8, seed=seed)
    return root


def error_of(root: Path, **options: bool) -> DataError:
    with pytest.raises(DataError) as caught:
        dataset.index(root, **options)
    return caught.value


# Layouts -------------------------------------------------------------------------------------


def test_a_flat_folder_is_split_70_15_15_within_each_class(images: Path) -> None:
    index = dataset.index(images)
    assert index.labels == ("apple", "banana", "cherry")
    per_class = Counter((s.label, s.split) for s in index.samples)
    assert per_class == {(c, s): n for c in range(3) for s, n in (("train", 14), ("val", 3), ("test", 3))}
    assert all((images / s.path).parent.name == index.labels[s.label] for s in index.samples)


def test_one_picture_with_too_many_pixels_is_left_out_and_named(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = dataset.index(images)
    monkeypatch.setattr("edgekit.data.images.MAX_PIXELS", 2_000_000)
    Image.new("RGB", (2001, 1000), "red").save(images / "apple" / "x.png")
    Image.new("RGB", (2001, 1000), "red").save(images / "banana" / "x.jpg")
    index = dataset.index(images)
    assert index.skipped == ("apple/x.png: 2001x1000 is 2 megapixels, the limit is 2",)
    assert len(index.samples) == len(before.samples) + 1
    assert index.contents["banana/x.jpg"].scaled
    (images / "apple" / "bad.png").write_text("")
    assert "1 of 63 images cannot be used" in error_of(images).message


def test_what_images_hold_is_known_also_of_files_that_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_images(tmp_path / "d", {"a": 4, "b": 4}, 8)
    Image.fromarray(np.array([[3, 3921]], np.uint16)).save(root / "a" / "deep.png")
    Image.fromarray(np.array([[-2.5, np.nan]], np.float32)).save(root / "a" / "float.tif")
    Image.new("LA", (8, 8), (9, 0)).save(root / "b" / "clear.png")
    icon = np.full((1, 2, 4), 77, np.uint8)
    icon[0, 0, 3] = 255
    Image.fromarray(icon, "RGBA").save(root / "b" / "icon.png")
    monkeypatch.setattr("edgekit.data.index_cache.RACY_NS", -1_000_000_000)
    first = dataset.index(root).contents
    monkeypatch.setattr(dataset, "examine", lambda *_: pytest.fail("read again"))
    assert dataset.index(root).contents == first
    assert first["a/deep.png"] == Content("integer", 3, 3921)
    assert first["a/float.tif"] == Content("float", -2.5, -2.5, strange=True)
    assert first["b/clear.png"] == Content(colour=(0, 0, 0))
    assert first["b/icon.png"] == Content(transparent=True, colour=(77, 77, 77))


def test_what_images_hold_is_no_part_of_a_saved_index(images: Path, tmp_path: Path) -> None:
    index = dataset.index(images)
    assert index.contents
    files.save_json(tmp_path / "data.json", index)
    assert "contents" not in json.loads((tmp_path / "data.json").read_text())
    assert dataset.load_index(tmp_path / "data.json") == index


def test_three_given_splits_are_taken_as_they_are(tmp_path: Path) -> None:
    classes = {"a": 4, "b": 4}
    root = presplit(tmp_path, {"train": classes, "val": {"a": 1}, "test": {"b": 2}})
    index = dataset.index(root)
    assert counts(index) == {"train": 8, "val": 1, "test": 2}
    assert all(s.path.startswith(f"{s.split}/{index.labels[s.label]}/") for s in index.samples)


@pytest.mark.parametrize(("given", "carved"), [("val", "test"), ("test", "val")])
def test_a_split_that_is_missing_is_carved_out_of_train(tmp_path: Path, given: str, carved: str) -> None:
    index = dataset.index(presplit(tmp_path, {"train": {"a": 20, "b": 20}, given: {"a": 2, "b": 2}}))
    assert counts(index) == {"train": 34, given: 4, carved: 6}
    assert all(s.path.startswith(f"{given if s.split == given else 'train'}/") for s in index.samples)


def test_folders_named_val_and_test_alone_are_refused_unless_they_are_said_to_be_classes(tmp_path: Path) -> None:
    root = write_images(tmp_path / "d", {"val": 5, "test": 5}, 8)
    assert "lie in no class folder" in error_of(root).message
    assert dataset.index(root, layout="classes").labels == ("test", "val")


def test_images_in_folders_below_a_class_belong_to_it(tmp_path: Path) -> None:
    write_images(tmp_path / "d" / "a", {"deep": 5}, 8)
    write_images(tmp_path / "d" / "b" / "deeper", {"still": 5}, 8, seed=1)
    assert Counter(s.label for s in dataset.index(tmp_path / "d").samples) == {0: 5, 1: 5}


@pytest.mark.parametrize("name", ["rest", "more", "bus"])
def test_a_folder_beside_train_that_is_no_split_is_refused_with_the_names_of_splits(tmp_path: Path, name: str) -> None:
    error = error_of(presplit(tmp_path, {"train": {"a": 9, "b": 9}, name: {"a": 2, "b": 2}, ".cache": {"a": 1}}))
    assert f"contains train and {name}" in error.message
    assert "train, val, test" in error.hint


def test_train_alone_is_carved_and_that_is_said(tmp_path: Path) -> None:
    index = dataset.index(presplit(tmp_path, {"train": {"a": 20, "b": 20}, ".cache": {"a": 1}}))
    assert counts(index) == {"train": 28, "val": 6, "test": 6}
    assert index.carved == ("val", "test")
    assert check.warnings(index)[0].startswith("no val and no test folder")


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    index = dataset.index(write_images(tmp_path / "d", {"train": 10, "bus": 10}, 8))
    assert (index.labels, index.carved) == (("bus", "train"), ())
    assert len(index.samples) == 20


# Splits --------------------------------------------------------------------------------------


def test_the_index_is_the_same_every_time(images: Path) -> None:
    assert dataset.index(images) == dataset.index(images)


def test_renaming_and_moving_files_changes_no_split(images: Path, tmp_path: Path) -> None:
    before = assigned(dataset.index(images))
    for number, path in enumerate(sorted(images.rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"x{number}.PNG"))
    moved = images.rename(tmp_path / "moved")
    assert assigned(dataset.index(moved)) == before


def test_the_fingerprint_tells_other_pixels_labels_and_splits(images: Path, tmp_path: Path) -> None:
    first = dataset.index(images)
    copy = Path(shutil.copytree(images, tmp_path / "copy"))
    assert dataset.index(copy).fingerprint == first.fingerprint
    (copy / "apple").rename(copy / "pear")
    renamed = dataset.index(copy)
    Image.new("RGB", (9, 9)).save(copy / "pear" / "000.png")
    assert len({first.fingerprint, renamed.fingerprint, dataset.index(copy).fingerprint}) == 3


def test_equal_files_of_a_class_lie_on_one_side(images: Path) -> None:
    for path in sorted((images / "apple").iterdir()):
        for copy in range(4):
            shutil.copy(path, path.with_name(f"copy{copy}-{path.name}"))
    sides: dict[str, set[str]] = {}
    for sample in dataset.index(images).samples:
        sides.setdefault(sample.sha256, set()).add(sample.split)
    assert all(len(side) == 1 for side in sides.values())
    assert len([s for s in dataset.index(images).samples if s.split == "train" and s.label == 0]) == 70


def test_a_class_too_small_to_divide_stays_in_train(tmp_path: Path) -> None:
    index = dataset.index(write_images(tmp_path / "d", {"big": 10, "two": 2}, 8))
    assert {s.split for s in index.samples if s.label == 1} == {"train"}


def test_classes_too_small_for_any_measurement_are_an_error(tmp_path: Path) -> None:
    assert "no images for the val split" in error_of(write_images(tmp_path / "d", {"a": 1, "b": 2}, 8)).message


# What can be wrong ---------------------------------------------------------------------------


def test_an_empty_folder_is_told_the_layout(tmp_path: Path) -> None:
    error = error_of(tmp_path)
    assert str(tmp_path) in error.message
    assert "DATA/<class>/<image>" in error.hint


def test_files_without_a_class_folder_are_no_data_set(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert f"the images in {tmp_path} are not in class folders" in error_of(tmp_path).message


def test_one_class_is_too_few(tmp_path: Path) -> None:
    assert "only one class found: 'a'" in error_of(write_images(tmp_path / "d", {"a": 9}, 8)).message


@pytest.mark.parametrize("pair", [("Cat", "cat"), ("straße", "STRASSE"), ("cat", "cat "), ("a b", "a\u00a0b")])
def test_classes_that_differ_only_in_case_are_refused(tmp_path: Path, pair: tuple[str, str]) -> None:
    error = error_of(write_images(tmp_path / "d", dict.fromkeys(pair, 2), 8))
    assert all(repr(name) in error.message for name in pair)


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[31m", "a\x7f", "\u202egnp", "x" * 101])
def test_a_class_name_that_could_do_harm_is_refused(tmp_path: Path, name: str) -> None:
    error = error_of(write_images(tmp_path / "d", {name: 2, "fine": 2}, 8))
    assert "cannot be used" in error.message
    assert error.message.isprintable()


def test_hostile_but_printable_class_names_are_only_names(tmp_path: Path) -> None:
    index = dataset.index(write_images(tmp_path / "d", dict.fromkeys(HOSTILE, 4), 8))
    assert set(index.labels) == set(HOSTILE)


@pytest.mark.parametrize("hidden", [".x.png", "._000.png", ".ipynb_checkpoints/a.png", "deep/.cache/a.png"])
def test_hidden_files_and_folders_are_not_part_of_the_data(images: Path, hidden: str) -> None:
    before = dataset.index(images)
    path = images / "apple" / hidden
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("no image")
    write_images(images / ".hidden", {"class": 1}, 8)
    after = dataset.index(images)
    assert (after.samples, after.fingerprint) == (before.samples, before.fingerprint)
    assert [(left.reason, left.files) for left in after.left_out] == [("system", 2)]


def test_files_with_other_endings_are_passed_over(images: Path) -> None:
    before = dataset.index(images)
    (images / "apple" / "notes.txt").write_text("")
    (images / "apple" / "folder.png").mkdir()
    (images / "README").write_text("")
    after = dataset.index(images)
    assert (after.samples, after.fingerprint) == (before.samples, before.fingerprint)
    assert [(left.reason, left.of) for left in after.left_out] == [("no_image", {".txt": 1, "without an ending": 1})]


def test_every_bad_file_is_named_at_once_up_to_ten(images: Path) -> None:
    for number in range(12):
        (images / "banana" / f"bad{number:02}.png").write_text("text")
    error = error_of(images)
    assert error.message.startswith("12 of 72 images cannot be used")
    assert [f"banana/bad{n:02}.png" in error.message for n in range(12)] == [True] * 10 + [False] * 2
    assert "and 2 more" in error.message
    assert str(images) not in error.message
    assert "--skip-bad" in error.hint


def test_a_name_that_is_not_utf_8_is_listed_as_bad(images: Path, tmp_path: Path) -> None:
    with open(bytes(images / "apple" / "bad") + b"\xff.png", "wb") as file:
        file.write((images / "apple" / "000.png").read_bytes())
    message = error_of(images).message
    assert "its name is not UTF-8" in message
    assert "apple/bad" in message
    files.save_json(tmp_path / "data.json", dataset.index(images, skip_bad=True))


def test_skip_bad_leaves_them_out_and_remembers_which(images: Path) -> None:
    before = dataset.index(images)
    (images / "banana" / "bad.png").write_bytes(b"")
    index = dataset.index(images, skip_bad=True)
    assert assigned(index) == assigned(before)
    assert [line.partition(":")[0] for line in index.skipped] == ["banana/bad.png"]


def test_a_class_of_which_nothing_is_left_is_an_error(images: Path) -> None:
    for path in (images / "cherry").iterdir():
        path.write_bytes(b"")
    assert "no usable training image in class 'cherry'" in error_of(images, skip_bad=True).message


def test_a_class_that_train_lacks_is_an_error(tmp_path: Path) -> None:
    root = presplit(tmp_path, {"train": {"a": 4, "b": 4}, "val": {"a": 1, "c": 1}})
    assert "classes without training images: 'c'" in error_of(root).message


def test_progress_counts_every_file_once(images: Path) -> None:
    seen: list[tuple[int, int]] = []
    dataset.index(images, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 60) for n in range(1, 61)]


def test_what_is_no_folder_lists_the_built_in_data_sets(tmp_path: Path) -> None:
    for data in ("none", "digit", "\x1b[31m", " "):
        with pytest.raises(MissingError) as caught:
            dataset.resolve(data)
        assert "known: digits" in caught.value.hint
    with pytest.raises(MissingError) as caught:
        dataset.resolve(str(tmp_path / "d.zip"))
    assert caught.value.hint == f"check the path: there is no {tmp_path / 'd.zip'}"


# Later ---------------------------------------------------------------------------------------


def test_an_index_survives_being_saved(images: Path, tmp_path: Path) -> None:
    index = dataset.index(images)
    files.save_json(tmp_path / "data.json", index)
    assert dataset.load_index(tmp_path / "data.json") == index


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"label": 1}, "its images, labels or splits are not those that were trained on"),
        ({"split": "val"}, "not those that were trained on"),
        ({"sha256": "0" * 64}, "not those that were trained on"),
        ({"label": -1}, "is in no split or class"),
        ({"label": 3}, "is in no split or class"),
        ({"split": "x"}, "is in no split or class"),
        ({"label": None}, r"samples\[0\].label must be int"),
    ],
    ids=str,
)
def test_an_index_that_was_changed_is_refused(
    images: Path, tmp_path: Path, change: dict[str, object], why: str
) -> None:
    path = tmp_path / "data.json"
    files.save_json(path, dataset.index(images))
    document = json.loads(path.read_text())
    document["samples"][0] = {**document["samples"][0], "label": 0, **change}
    document["samples"][0].setdefault("path", "apple/000.png")
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=why) as caught:
        dataset.load_index(path)
    assert caught.value.message.count(str(path)) == 1
    assert "remove" not in caught.value.hint
    assert "restore" in caught.value.hint


@pytest.mark.parametrize(
    "content", ["[]", "1", "{}", "[" * 100_000, '{"root": 1}', '{"samples": NaN}'], ids=lambda c: c[:9]
)
def test_what_is_no_index_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(DataError, match="damaged"):
        dataset.load_index(tmp_path / "data.json")


def test_the_index_of_another_run_is_refused(images: Path, tmp_path: Path) -> None:
    index = dataset.index(images)
    files.save_json(tmp_path / "data.json", index)
    run = runs.Run(tmp_path, runs.RunInfo(data=runs.DataInfo(str(images), index.fingerprint)))
    assert dataset.of_run(run) == index
    other = runs.Run(tmp_path, runs.RunInfo(data=runs.DataInfo(str(images), "0" * 64)))
    with pytest.raises(DataError, match=r"is not the data that .* was trained on"):
        dataset.of_run(other)
