"""Every kind of finding: images that give it, and images that do not."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from edgekit.data import check, dataset, findings, images
from edgekit.data.check import connected
from edgekit.data.findings import Finding, Report
from edgekit.records import Preprocess

SPLIT_SIZES = {"train": 4, "val": 2, "test": 2}


def picture(seed: int, side: int = 48) -> Image.Image:
    """A few coloured blocks; no two seeds look alike."""
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """DATA/<class>/<image>: two classes of 8."""
    root = tmp_path / "flat"
    for number in range(16):
        folder = root / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number:02}.png")
    return root


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """DATA/<split>/<class>/<image>: two classes of 4, 2 and 2."""
    root = tmp_path / "split"
    number = 0
    for name, count in SPLIT_SIZES.items():
        for label in "ab":
            (root / name / label).mkdir(parents=True)
            for _ in range(count):
                picture(number).save(root / name / label / f"{number:02}.png")
                number += 1
    return root


def judge(root: Path, distance: int | None = 8, least_side: int = check.LEAST_SIDE) -> Report:
    return check.judge(check.read(root), distance, least_side)


def found(root: Path, **options: int | None) -> dict[str, list[Finding]]:
    """The findings by kind."""
    by_kind: dict[str, list[Finding]] = {}
    for finding in judge(root, **options).findings:
        by_kind.setdefault(finding.kind, []).append(finding)
    return by_kind


def only(root: Path, kind: str, **options: int | None) -> Finding:
    """The one finding that there is."""
    by_kind = found(root, **options)
    assert list(by_kind) == [kind], by_kind
    (finding,) = by_kind[kind]
    return finding


def resaved(path: Path, target: Path) -> None:
    """The same picture as a JPEG."""
    with Image.open(path) as image:
        image.save(target, quality=80)


@pytest.mark.parametrize("layout", ["flat", "split"])
def test_a_sound_data_set_has_no_findings(layout: str, request: pytest.FixtureRequest) -> None:
    report = judge(request.getfixturevalue(layout))
    assert report.findings == ()
    assert report.imbalance == 1.0
    assert report.images == 16


def test_counts_are_those_of_the_index(flat: Path, split: Path) -> None:
    for root in (flat, split):
        index = dataset.index(root)
        for number, name in enumerate(index.labels):
            counts = {s: sum(x.label == number for x in index.split(s)) for s in SPLIT_SIZES}
            assert judge(root).counts[name] == counts


# Files that cannot be read -------------------------------------------------------------------


def oversized(path: Path) -> None:
    """A PNG header that promises 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")))


def truncated(path: Path) -> None:
    picture(99).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:-60])


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "not a known image format"),
    "text": (lambda path: path.write_text("<svg/>"), "not a known image format"),
    "cut": (truncated, "cannot be decoded"),
    "dangling": (lambda path: path.symlink_to("nowhere"), "no such file"),
    "circle": (lambda path: path.symlink_to(path.name), ""),
}


@pytest.mark.parametrize("layout", ["flat", "split"])
def test_every_unreadable_file_is_told_with_its_reason(layout: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(layout)
    folder = root / "train" / "a" if layout == "split" else root / "a"
    for name, (make, _) in BAD.items():
        make(folder / f"x-{name}.png")
    by_kind = found(root)
    assert list(by_kind) == ["unreadable"]
    assert [Path(f.paths[0]).stem for f in by_kind["unreadable"]] == sorted(f"x-{name}" for name in BAD)
    for finding in by_kind["unreadable"]:
        assert BAD[Path(finding.paths[0]).stem[2:]][1] in finding.message
        assert finding.message.startswith(f"{finding.paths[0]}: ")
        assert str(root) not in finding.message


def test_a_file_that_vanishes_while_it_is_read_is_told(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examine = images.examine

    def vanish(path: Path, *options: Any) -> Any:
        found = examine(path, *options)
        if path.name == "00.png":
            path.unlink()
        return found

    monkeypatch.setattr(dataset, "examine", vanish)
    assert only(flat, "unreadable").message == "a/00.png: cannot be read (no such file)"


def test_what_may_not_be_read_is_told(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir
    (flat / "a" / "closed").mkdir()

    def refuse(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("edgekit.data.listing.os.scandir", refuse)
    assert only(flat, "unreadable").message == "a/closed: the folder cannot be listed (Permission denied)"


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_told(flat: Path) -> None:
    (flat / "a" / "00.png").chmod(0)
    assert "Permission denied" in only(flat, "unreadable").message


def test_folders_named_like_images_and_hidden_files_are_nothing(flat: Path) -> None:
    (flat / "a" / "folder.png").mkdir()
    (flat / "a" / ".hidden.png").write_text("")
    os.mkfifo(flat / "a" / "pipe.png")
    by_kind = found(flat)
    assert [f.message for f in by_kind.pop("left_out", ())] == []
    assert [f.message for f in by_kind.pop("no_images")] == [
        "1 file hidden, or left by systems and tools: 1 .hidden.png",
        "1 file pipes, sockets or devices: 1 .png",
    ]
    assert by_kind == {}


def test_links_to_folders_that_lead_back_are_not_followed_and_that_is_said(flat: Path) -> None:
    (flat / "a" / "again").symlink_to("..")
    assert "1 a/again" in only(flat, "left_out").message
    assert judge(flat).images == 16


def test_links_to_folders_elsewhere_are_followed(flat: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    picture(77).save(tmp_path / "store" / "x.png")
    (tmp_path / "store" / "back").symlink_to(flat / "a")
    (flat / "a" / "more").symlink_to(tmp_path / "store")
    assert judge(flat).images == 17
    assert "1 a/more/back" in only(flat, "left_out").message


def test_very_deep_folders_are_read(flat: Path) -> None:
    deep = flat / "a" / Path(*["d"] * 300)
    deep.mkdir(parents=True)
    picture(77).save(deep / "x.png")
    assert judge(flat).images == 17


def test_a_name_that_is_not_utf_8_is_unreadable_and_printable(flat: Path) -> None:
    shutil.copy(flat / "a" / "00.png", bytes(flat / "a" / "bad") + b"\xff.png")
    finding = only(flat, "unreadable")
    assert finding.message.isprintable()
    assert "not UTF-8" in finding.message


# Classes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a\x1b[31m", "x\ny", "\u202egnp", "z" * 101])
def test_a_class_name_that_could_do_harm_is_told_printably(flat: Path, name: str) -> None:
    (flat / "b").rename(flat / name)
    finding = only(flat, "class_name")
    assert finding.message.isprintable()


def test_html_in_a_class_name_is_only_a_name(flat: Path) -> None:
    (flat / "b").rename(flat / "<script>x<")
    assert found(flat) == {}


def test_classes_that_differ_only_in_case_and_a_lonely_class_are_told(flat: Path, tmp_path: Path) -> None:
    lonely = tmp_path / "lonely"
    shutil.copytree(flat / "a", lonely / "a")
    assert "only one class" in only(lonely, "class_name").message
    (flat / "b").rename(flat / "A")
    assert "differ only in case" in only(flat, "class_name").message


@pytest.mark.parametrize("name", ["val", "test"])
def test_a_class_that_a_split_lacks_is_an_error(split: Path, name: str) -> None:
    shutil.rmtree(split / name / "b")
    finding = only(split, "missing_from_split")
    assert (finding.severity, finding.message) == ("error", f"the {name} split has no image of class b")


@pytest.mark.parametrize("how", ["no folder", "empty folder", "unreadable"])
def test_a_class_without_training_images_is_an_error(split: Path, how: str) -> None:
    for path in (split / "train" / "b").iterdir():
        path.write_bytes(b"") if how == "unreadable" else path.unlink()
    if how == "no folder":
        (split / "train" / "b").rmdir()
    by_kind = found(split)
    assert [f.message for f in by_kind.pop("no_training_images")] == ["class b has no usable training image"]
    assert list(by_kind) == (["unreadable"] if how == "unreadable" else [])


@pytest.mark.parametrize("layout", ["flat", "split"])
def test_an_empty_class_folder_is_a_warning(layout: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(layout)
    (root / "train" / "c" if layout == "split" else root / "c").mkdir()
    assert only(root, "empty_class").message == "class folder c contains no images"


def test_classes_of_one_and_two_images_are_told_apart(flat: Path) -> None:
    for name, count in {"one": 1, "two": 2, "three": 3}.items():
        (flat / name).mkdir()
        for number in range(count):
            picture(hash((count, number)) % 1000 + 100).save(flat / name / f"{number}.png")
    by_kind = found(flat)
    assert list(by_kind) == ["single_image", "too_few"]
    assert "class one has a single image" in by_kind["single_image"][0].message
    assert "class two has only 2 different images" in by_kind["too_few"][0].message


def test_copies_do_not_make_a_class_large_enough(flat: Path) -> None:
    (flat / "c").mkdir()
    for number in range(6):
        picture(200).save(flat / "c" / f"{number}.png")
    by_kind = found(flat)
    assert list(by_kind) == ["too_few", "duplicate"]
    assert "class c has only 1 different image," in by_kind["too_few"][0].message


def test_strong_imbalance_is_a_warning_that_names_the_remedy(flat: Path) -> None:
    (flat / "c").mkdir()
    for number in range(120):
        picture(number + 300).save(flat / "c" / f"{number}.png")
    by_kind = found(flat, distance=None)
    assert list(by_kind) == ["imbalance"]
    assert "14 times" in by_kind["imbalance"][0].message
    assert "--imbalance auto" in by_kind["imbalance"][0].message
    for number in range(60):
        (flat / "c" / f"{number}.png").unlink()
    assert found(flat, distance=None) == {}


def test_a_split_that_is_carved_is_said(split: Path) -> None:
    shutil.rmtree(split / "test")
    assert only(split, "carved").severity == "info"


# Shapes --------------------------------------------------------------------------------------


def test_tiny_images_are_those_below_the_side_asked_for(flat: Path) -> None:
    picture(500, 31).save(flat / "a" / "x.png")
    assert "31x31" in only(flat, "tiny").message
    assert found(flat, least_side=31) == {}
    assert len(found(flat, least_side=49)["tiny"]) == 17


@pytest.mark.parametrize(("size", "extreme"), [((200, 50), False), ((204, 50), True), ((50, 300), True)])
def test_long_images_are_told(flat: Path, size: tuple[int, int], extreme: bool) -> None:
    picture(500).resize(size).save(flat / "a" / "x.png")
    assert list(found(flat)) == (["extreme_shape"] if extreme else [])


def test_images_of_a_single_colour_are_blank_and_not_compared(flat: Path) -> None:
    for number in range(4):
        Image.new("RGB", (48, 48 + number), (7, 7, 7)).save(flat / "a" / f"x{number}.png")
    by_kind = found(flat)
    assert (list(by_kind), len(by_kind["blank"])) == (["blank"], 4)


# The same bytes, the same look ---------------------------------------------------------------


def test_equal_files_of_one_class_and_split_are_a_warning(flat: Path, split: Path) -> None:
    shutil.copy(split / "train" / "a" / "00.png", split / "train" / "a" / "x.png")
    assert only(split, "duplicate").paths == ("train/a/00.png", "train/a/x.png")
    for number in range(9):
        shutil.copy(flat / "a" / "00.png", flat / "a" / f"x{number}.png")
    assert len(only(flat, "duplicate").paths) == 10  # carving keeps them together


def test_equal_files_in_two_splits_are_leakage(split: Path) -> None:
    shutil.copy(split / "train" / "a" / "00.png", split / "test" / "a" / "x.png")
    finding = only(split, "leakage")
    assert (finding.severity, finding.paths) == ("error", ("train/a/00.png", "test/a/x.png"))


@pytest.mark.parametrize("layout", ["flat", "split"])
def test_equal_files_in_two_classes_contradict(layout: str, request: pytest.FixtureRequest) -> None:
    root = request.getfixturevalue(layout)
    folder = root / "train" if layout == "split" else root
    shutil.copy(folder / "a" / "00.png", folder / "b" / "x.png")
    finding = found(root)["contradictory"][0]
    assert finding.severity == "error"
    assert {Path(path).parent.name for path in finding.paths} == {"a", "b"}


def test_images_that_look_alike_in_one_class_and_split_are_only_said(split: Path) -> None:
    resaved(split / "train" / "a" / "00.png", split / "train" / "a" / "x.jpg")
    finding = only(split, "near_duplicate")
    assert (finding.severity, finding.message) == ("info", "train/a/00.png and train/a/x.jpg look alike")


def test_images_that_look_alike_across_splits_are_leakage(split: Path) -> None:
    resaved(split / "train" / "a" / "00.png", split / "val" / "a" / "x.jpg")
    finding = only(split, "near_leakage")
    assert (finding.severity, finding.paths) == ("error", ("train/a/00.png", "val/a/x.jpg"))
    assert found(split, distance=None) == {}


def test_images_that_look_alike_across_classes_contradict(split: Path) -> None:
    resaved(split / "train" / "a" / "00.png", split / "train" / "b" / "x.jpg")
    assert only(split, "near_contradictory").severity == "error"


def test_copies_of_a_look_alike_leak_too(split: Path) -> None:
    """A file in train and again in test, and its JPEG in train: both pairs across the splits are there."""
    shutil.copy(split / "train" / "a" / "00.png", split / "test" / "a" / "x.png")
    resaved(split / "train" / "a" / "00.png", split / "train" / "a" / "y.jpg")
    by_kind = found(split)
    assert list(by_kind) == ["leakage", "near_leakage", "near_duplicate"]
    assert by_kind["near_leakage"][0].paths == ("train/a/y.jpg", "test/a/x.png")


def test_images_that_look_alike_stay_in_one_split_where_edgekit_divides(flat: Path) -> None:
    for path in sorted((flat / "a").iterdir()):
        resaved(path, path.with_suffix(".jpg"))
    by_kind = found(flat)
    assert list(by_kind) == ["near_duplicate", "kept_together"]
    message = "16 images look alike in 8 groups, and each group is in one split"
    assert [f.message for f in by_kind["kept_together"]] == [message]
    index = dataset.index(flat)
    assert index.notes == (message,)
    split_of = {s.path: s.split for s in index.samples}
    for finding in by_kind["near_duplicate"]:
        one, other = finding.paths
        assert split_of[one] == split_of[other]
        assert finding.message == f"{one} ({split_of[one]}) and {other} ({split_of[other]}) look alike"
    assert set(split_of.values()) == set(SPLIT_SIZES)


def test_images_that_look_alike_stay_together_when_nothing_is_read_again(
    flat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.data.index_cache.RACY_NS", -1_000_000_000)
    for path in sorted((flat / "a").iterdir()):
        resaved(path, path.with_suffix(".jpg"))
    first = dataset.index(flat)
    monkeypatch.setattr(dataset, "examine", lambda *_: pytest.fail("read again"))
    assert dataset.index(flat) == first


def test_where_most_of_a_class_looks_alike_it_is_divided_and_that_is_a_warning(
    flat: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in the frames of one video: no split stays empty, and nothing is an error."""
    for number in range(60):
        picture(0).save(flat / "a" / f"frame{number}.jpg", quality=30 + number)
    by_kind = found(flat)
    assert set(by_kind) == {"divided", "alike_in_splits", "near_duplicate"}
    (message,) = (f.message for f in by_kind["divided"])
    assert message.startswith("61 images look alike in 1 group too large to be in one split: they are divided like ")
    assert message.endswith("keep together what belongs together with --group-by")
    assert judge(flat).count("error") == 0
    index = dataset.index(flat)
    assert message in caplog.messages
    a = [sum(s.label == 0 for s in index.split(name)) for name in SPLIT_SIZES]
    assert a == [48, 10, 10]


def test_look_alikes_of_deep_images_are_those_of_their_own_range(flat: Path) -> None:
    """At the full scale of 16 bits these would be black."""
    for path in sorted(flat.rglob("*.png")):
        grey = np.asarray(Image.open(path).convert("L"), np.uint16)
        Image.fromarray(grey).save(path)
        Image.fromarray(np.uint16(grey + 1)).save(path.with_name(f"x{path.name}"))
    by_kind = found(flat)
    assert list(by_kind) == ["near_duplicate", "values", "kept_together"]
    assert by_kind["kept_together"][0].message.startswith("32 images look alike in 16 groups")


def test_small_images_are_not_compared(split: Path, flat: Path) -> None:
    """Digits of 8 pixels a side look alike without being copies."""
    for side, wanted in ((31, False), (32, True)):
        shutil.copy(split / "train" / "a" / "00.png", split / "x.png")
        picture(0, side).save(split / "train" / "a" / "x.png")
        picture(0, side).save(split / "val" / "a" / "x.jpg", quality=85)
        (split / "x.png").unlink()
        assert ("near_leakage" in found(split)) == wanted


def test_the_same_shape_in_another_colour_is_no_finding(split: Path) -> None:
    for name, colour in {"red": (220, 20, 20), "green": (20, 160, 20)}.items():
        image = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(image).ellipse((10, 10, 54, 54), fill=colour)
        image.save(split / "train" / "a" / f"{name}.png")
    assert found(split) == {}


def test_crowds_are_said(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.data.near_duplicates.BUDGET", 10)
    monkeypatch.setattr("edgekit.data.near_duplicates.BUDGET_EACH", 1)
    for quality in range(50, 90):
        picture(0).save(flat / "a" / f"q{quality}.jpg", quality=quality)
    assert found(flat)["crowded"][0].severity == "info"


def test_what_hangs_together_is_one_group() -> None:
    assert connected([(5, 6), (1, 2), (6, 2), (8, 9)]) == [[1, 2, 5, 6], [8, 9]]


# The report ----------------------------------------------------------------------------------


def test_the_report_is_the_same_every_time_and_worst_first(flat: Path) -> None:
    for number in range(3):
        (flat / "a" / f"bad{number}.png").write_bytes(b"")
        picture(600 + number, 20).save(flat / "b" / f"tiny{number}.png")
    report = judge(flat)
    assert report == judge(flat)
    assert [f.kind for f in report.findings] == ["unreadable"] * 3 + ["tiny"] * 3
    assert [f.paths for f in report.findings] == sorted(f.paths for f in report.findings)
    assert (report.count("error"), report.count("warning"), report.count("info")) == (3, 3, 0)


def test_severities_stand_in_order() -> None:
    order = [findings.ERROR, findings.WARNING, findings.INFO]
    ranks = [order.index(severity) for severity in findings.KINDS.values()]
    assert ranks == sorted(ranks)


def test_a_check_spares_the_training_its_reading(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.data.index_cache.RACY_NS", -1_000_000_000)
    judge(flat)
    monkeypatch.setattr(dataset, "examine", lambda *_: pytest.fail("was read again"))
    assert len(dataset.index(flat).samples) == 16


def test_progress_counts_every_file_once(flat: Path) -> None:
    seen: list[tuple[int, int]] = []
    check.read(flat, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 16) for n in range(1, 17)]


def test_the_scale_of_deep_values_is_said_and_images_are_judged_at_it(flat: Path) -> None:
    """At the full scale of 16 bits all of them would be black."""
    for path in flat.rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path).convert("L"), np.uint16)).save(path)
    by_kind = found(flat)
    assert list(by_kind) == ["values"]
    assert "read as 0 (black) to 255 (white)" in by_kind["values"][0].message
    full = check.judge(check.read(flat, preprocess=Preprocess(32, 32, pixel_range=(0, 65535))), 8)
    assert len([f for f in full.findings if f.kind == "blank"]) == 16


def test_a_scale_that_cannot_be_told_is_an_error(flat: Path) -> None:
    Image.fromarray(np.repeat(np.array([[-5, 300]], np.int32), 48, 0)).save(flat / "a" / "x.tif")
    message = found(flat)["unclear_values"][0].message
    assert "negative values" in message
    assert message.endswith("--pixel-range -5:300 or --pixel-range 0:1023")


def test_white_on_transparent_is_blank_over_white_alone(flat: Path) -> None:
    icon = Image.new("RGBA", (48, 48), (255, 255, 255, 0))
    ImageDraw.Draw(icon).rectangle((9, 9, 30, 30), (255, 255, 255, 255))
    icon.save(flat / "a" / "x.png")
    assert only(flat, "blank").message == "a/x.png: single colour over white, under its transparent parts"
    black = check.judge(check.read(flat, preprocess=Preprocess(32, 32, background="black")), 8)
    assert not black.findings


def test_large_pictures_are_told(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 3000)
    oversized(flat / "a" / "bomb.png")
    picture(800, 60).save(flat / "a" / "x.jpg")
    picture(801, 60).save(flat / "b" / "y.png")
    by_kind = found(flat)
    assert [f.message for f in by_kind["too_large"]] == [
        "a/bomb.png: far more than 0 megapixels, the limit; left out",
        "b/y.png: 60x60 is 0 megapixels, the limit is 0; left out",
    ]
    assert [f.paths for f in by_kind["scaled"]] == [("a/x.jpg",)]
