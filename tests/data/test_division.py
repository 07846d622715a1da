"""Division of images into train, val and test."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from edgekit.data.division import PLAIN, Division, carve, parse_division, to_divide, told
from edgekit.errors import DataError, MissingError, UsageError
from edgekit.files import sha256_text
from edgekit.records import Sample


def images(*paths: str, split: str = "") -> list[Sample]:
    """Make a sample for each path; the first folder is the class."""
    labels = sorted({path.split("/")[0] for path in paths})
    return [Sample(path, labels.index(path.split("/")[0]), split, sha256_text([path])) for path in paths]


def splits(samples: list[Sample]) -> dict[str, str]:
    return {sample.path: sample.split for sample in samples}


@pytest.mark.parametrize(
    ("text", "val", "test"), [("70/15/15", 0.15, 0.15), ("80/10/10", 0.1, 0.1), ("62.5/25/12.5", 0.25, 0.125)]
)
def test_shares_are_read(text: str, val: float, test: float) -> None:
    assert parse_division(text) == Division(val, test)


@pytest.mark.parametrize("text", ["", "70/30", "70/15/20", "80/20/0", "120/-10/-10", "nan/15/15", "a/b/c", "70,15,15"])
def test_other_shares_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="three percentages") as caught:
        parse_division(text)
    assert caught.value.hint == "try --split 70/15/15"


@pytest.mark.parametrize("text", ["file", "prefix:", "prefix", "groups.csv", "groups.csv:", ":patient", "folder:x"])
def test_other_groups_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not 'folder', 'prefix:SEPARATOR' or"):
        parse_division(group_by=text)


@pytest.mark.parametrize(
    ("text", "wanted"), [("70/15/15", (14, 3, 3)), ("80/10/10", (16, 2, 2)), ("50/30/20", (10, 6, 4))]
)
def test_each_class_is_divided_by_the_shares(text: str, wanted: tuple[int, int, int]) -> None:
    samples = images(*(f"{name}/{n}.png" for name in "ab" for n in range(20)))
    counts = Counter((s.label, s.split) for s in carve(samples, {""}, parse_division(text)))
    for label in (0, 1):
        assert tuple(counts[label, split] for split in ("train", "val", "test")) == wanted


def test_only_the_missing_split_is_taken_out_of_train() -> None:
    samples = images(*(f"{name}/{n}.png" for name in "ab" for n in range(20)), split="train")
    samples += images("a/v.png", "b/v.png", split="val")
    counts = Counter(s.split for s in carve(samples, {"train", "val"}, Division(0.3, 0.1)))
    assert counts == {"train": 36, "val": 2, "test": 4}


def test_nothing_to_divide_is_an_error_only_if_it_was_asked() -> None:
    samples = images("a/1.png", split="train")
    every = {"train", "val", "test"}
    assert carve(samples, every) == samples
    with pytest.raises(UsageError, match="would change nothing"):
        carve(samples, every, Division(0.1, 0.1))


PATIENTS = [f"{name}/p{patient:02d}_{n}.png" for name in "ab" for patient in range(12) for n in range(3)]


def test_a_prefix_keeps_the_images_of_a_patient_in_one_split_over_all_classes() -> None:
    found = splits(carve(images(*PATIENTS), {""}, parse_division(group_by="prefix:_")))
    of_patient: dict[str, set[str]] = {path.split("/")[1].split("_")[0]: set() for path in PATIENTS}
    for path, split in found.items():
        of_patient[path.split("/")[1].split("_")[0]].add(split)
    assert all(len(split) == 1 for split in of_patient.values())
    assert Counter(found.values()) == {"train": 60, "val": 6, "test": 6}  # 10, 1 and 1 of 12 patients
    plain = splits(carve(images(*PATIENTS), {""}, PLAIN))
    assert any(plain[f"a/p{n:02d}_0.png"] != plain[f"a/p{n:02d}_1.png"] for n in range(12))


def test_a_folder_keeps_its_images_together() -> None:
    paths = [f"{name}/day{day}/{n}.png" for name in "ab" for day in range(7) for n in range(4)]
    found = splits(carve(images(*paths), {""}, parse_division(group_by="folder")))
    for name in "ab":
        assert {found[f"{name}/day{day}/{n}.png"] for day in range(7) for n in range(4)} == {"train", "val", "test"}
        for day in range(7):
            assert len({found[f"{name}/day{day}/{n}.png"] for n in range(4)}) == 1


def test_a_column_of_a_table_names_the_groups_by_path_name_or_stem(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    paths = [f"a/x{n}.png" for n in range(16)] + [f"b/y{n}.png" for n in range(16)]
    rows = ["file,camera"] + [
        f"{path if n % 3 == 0 else Path(path).name if n % 3 == 1 else Path(path).stem},cam{n % 8 // 2}"
        for n, path in enumerate(paths)
    ]
    table.write_text("\ufeff" + "\r\n".join(rows))
    found = splits(carve(images(*paths), {""}, parse_division(group_by=f"{table}:camera")))
    for camera in range(4):
        assert len({found[path] for n, path in enumerate(paths) if n % 8 // 2 == camera}) == 1
    assert set(found.values()) == {"train", "val", "test"}


def test_images_with_the_same_bytes_join_their_groups() -> None:
    samples = images(*PATIENTS)
    same = samples[0].sha256
    samples = [Sample(s.path, s.label, s.split, same) if s.path == "b/p07_1.png" else s for s in samples]
    found = splits(carve(samples, {""}, parse_division(group_by="prefix:_")))
    assert {found[p] for p in PATIENTS if "p00_" in p or "p07_" in p} == {found["a/p00_0.png"]}


def test_the_order_of_the_files_does_not_matter() -> None:
    divide = parse_division("60/20/20", "prefix:_")
    samples = images(*PATIENTS)
    assert splits(carve(samples, {""}, divide)) == splits(carve(samples[::-1], {""}, divide))


def test_what_cannot_be_grouped_says_why(tmp_path: Path) -> None:
    def refused(group_by: str) -> str:
        with pytest.raises(DataError) as caught:
            carve(images(*PATIENTS), {""}, parse_division(group_by=group_by))
        return caught.value.message

    assert "no '-', such as a/p00_0.png" in refused("prefix:-")
    assert "2 groups of 72 images: too few" in refused("folder")
    table = tmp_path / "t.csv"
    table.write_text("file,patient\na/p00_0.png,1\n")
    assert "no row for 71 of 72 images, such as a/p00_1.png" in refused(f"{table}:patient")
    assert "no column age" in refused(f"{table}:age")
    table.write_text("file,patient\na/p00_0.png,1\na/p00_0.png,2\n")
    assert "several values" in refused(f"{table}:patient")
    table.write_bytes(b"file,patient\n\xff,1\n")
    assert "not a CSV file in UTF-8" in refused(f"{table}:patient")
    with pytest.raises(MissingError, match="no such file"):
        carve(images(*PATIENTS), {""}, parse_division(group_by=f"{tmp_path / 'none.csv'}:patient"))


def of_class(count: int, name: str = "a") -> list[Sample]:
    return images(*(f"{name}/{n:03d}.png" for n in range(count)), "b/x.png")


def digests(samples: list[Sample], numbers: range) -> list[str]:
    return [samples[n].sha256 for n in numbers]


def counts(samples: list[Sample], label: int = 0) -> list[int]:
    return [sum(s.split == split and s.label == label for s in samples) for split in ("train", "val", "test")]


def test_images_that_look_alike_are_in_one_split() -> None:
    samples = of_class(100)
    bursts = [digests(samples, range(start, start + 5)) for start in range(0, 50, 5)]
    divided = carve(samples, {""}, alike=bursts)
    split_of = {s.sha256: s.split for s in divided}
    assert all(len({split_of[digest] for digest in burst}) == 1 for burst in bursts)
    assert counts(divided) == [70, 15, 15]
    assert len({split_of[burst[0]] for burst in bursts}) > 1
    assert told(samples, divided, bursts) == (
        ["50 images look alike in 10 groups, and each group is in one split"],
        [],
    )


def test_without_look_alikes_the_division_is_what_it_was() -> None:
    samples = of_class(100)
    assert carve(samples, {""}, alike=[]) == carve(samples, {""})
    assert told(samples, carve(samples, {""}), []) == ([], [])


def test_look_alikes_of_several_classes_are_in_one_split() -> None:
    samples = images(*(f"{name}/{n}.png" for name in "ab" for n in range(20)))
    pairs = [[samples[n].sha256, samples[20 + n].sha256] for n in range(0, 20, 2)]
    split_of = {s.sha256: s.split for s in carve(samples, {""}, alike=pairs)}
    assert all(split_of[one] == split_of[other] for one, other in pairs)


@pytest.mark.parametrize("size", [90, 96, 99, 100])
def test_a_group_that_leaves_too_little_for_the_other_splits_is_divided(size: int) -> None:
    samples = of_class(100)
    group = [digests(samples, range(size))]
    divided = carve(samples, {""}, alike=group)
    assert min(counts(divided)) >= 8, counts(divided)
    kept, large = told(samples, divided, group)
    assert not kept
    assert large[0].startswith(f"{size} images look alike in 1 group too large to be in one split")


def test_a_class_that_looks_like_a_part_of_another_has_images_in_every_split() -> None:
    samples = images(*(f"{name}/{n}.png" for name in "ab" for n in range(100)))
    group = [digests(samples, range(10)) + digests(samples, range(100, 200))]
    divided = carve(samples, {""}, alike=group)
    assert counts(divided, 0) == [70, 15, 15]
    assert min(counts(divided, 1)) >= 8


def test_bursts_larger_than_the_shares_are_kept_whole_where_they_can() -> None:
    samples = of_class(100)
    bursts = [digests(samples, range(start, start + 20)) for start in range(0, 100, 20)]
    divided = carve(samples, {""}, alike=bursts)
    assert counts(divided) == [60, 20, 20]
    assert told(samples, divided, bursts)[1] == []


def test_three_groups_that_were_asked_for_fill_three_splits() -> None:
    paths = [f"{name}/p{patient}_{n}.png" for name in "ab" for patient in range(3) for n in range(10)]
    found = splits(carve(images(*paths), {""}, parse_division(group_by="prefix:_")))
    assert set(found.values()) == {"train", "val", "test"}


def test_groups_that_were_asked_for_are_not_joined_by_their_looks() -> None:
    assert to_divide(images(*PATIENTS), {""}, parse_division(group_by="prefix:_")) == []
    assert to_divide(images("a/1.png", split="train"), {"train", "val", "test"}) == []
    assert len(to_divide(images(*PATIENTS), {""})) == len(PATIENTS)
