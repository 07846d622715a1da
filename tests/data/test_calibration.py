"""The calibration set: seeded, balanced, a matter of content alone; and what is said of a doubtful one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.data.calibration import SPLIT, UNLABELLED, choose, from_folder, problems, watched
from edgekit.errors import DataError, MissingError
from edgekit.quantization import CalibrationRecipe, CalibrationSet
from edgekit.records import Sample


def samples(*counts: int) -> list[Sample]:
    """`counts[i]` samples of class i."""
    return [
        Sample(f"{c}/{n}.png", c, "train", f"{c:02}-{n:04}") for c, count in enumerate(counts) for n in range(count)
    ]


def hashes(chosen: CalibrationSet) -> list[str]:
    return [s.sha256 for s in chosen.samples]


def recipe(count: int, seed: int = 0) -> CalibrationRecipe:
    return CalibrationRecipe("test", count, seed)


@pytest.mark.parametrize(
    ("counts", "wanted", "expected"),
    [
        ((50, 50, 50), 9, [3, 3, 3]),
        ((50, 50, 50), 10, [4, 3, 3]),
        ((2, 50, 50), 12, [2, 5, 5]),
        ((1000, 3), 20, [17, 3]),
        ((5, 5), 2, [1, 1]),
    ],
)
def test_classes_are_balanced_as_far_as_they_reach(counts: tuple[int, ...], wanted: int, expected: list[int]) -> None:
    chosen = choose(samples(*counts), recipe(wanted))
    by_class = Counter(s.label for s in chosen.samples)
    assert [by_class[c] for c in range(len(counts))] == expected
    assert len(set(hashes(chosen))) == wanted


def test_with_too_few_samples_all_are_taken() -> None:
    assert sorted(hashes(choose(samples(3, 4), recipe(100)))) == sorted(s.sha256 for s in samples(3, 4))
    assert choose([], recipe(10)).samples == ()


def test_the_choice_depends_on_the_seed_and_the_seed_alone() -> None:
    first, again, other = (choose(samples(50, 50), recipe(10, seed)) for seed in (1, 1, 2))
    assert first == again
    assert hashes(first) != hashes(other)
    assert first.fingerprint != other.fingerprint


def test_the_choice_is_not_the_first_files() -> None:
    assert sorted(hashes(choose(samples(50, 50), recipe(10)))) != sorted(s.sha256 for s in samples(5, 5))


def test_paths_and_order_do_not_matter() -> None:
    moved = [replace(s, path=f"elsewhere/{i}") for i, s in enumerate(reversed(samples(30, 30)))]
    one, other = choose(samples(30, 30), recipe(10)), choose(moved, recipe(10))
    assert hashes(one) == hashes(other)
    assert one.fingerprint == other.fingerprint


def test_a_smaller_set_is_the_start_of_a_larger_one() -> None:
    assert hashes(choose(samples(30, 30), recipe(20)))[:8] == hashes(choose(samples(30, 30), recipe(8)))


def fill(folder: Path, count: int, first: int = 0) -> Path:
    """`count` different images in two folders, one in the other."""
    for number in range(first, first + count):
        path = folder / ("a" if number % 2 else "a/b") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    return folder


def test_unlabelled_images_are_found_at_any_depth(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "loose.PNG")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"not looked at")
    chosen, paths, skipped = from_folder(fill(tmp_path, 4), recipe(100))
    assert {s.path for s in chosen.samples} == {"loose.PNG", "a/1.png", "a/3.png", "a/b/0.png", "a/b/2.png"}
    assert {(s.label, s.split) for s in chosen.samples} == {(UNLABELLED, SPLIT)}
    assert paths == [tmp_path / s.path for s in chosen.samples]
    assert skipped == []


def test_the_choice_among_unlabelled_images_is_a_matter_of_content_and_seed(tmp_path: Path) -> None:
    fill(tmp_path / "one", 20)
    for number, path in enumerate(sorted((tmp_path / "one").rglob("*.png"))):
        moved = tmp_path / "other" / f"{99 - number}.png"
        moved.parent.mkdir(exist_ok=True)
        moved.write_bytes(path.read_bytes())
    one, other = (from_folder(tmp_path / name, recipe(6, 1)).chosen for name in ("one", "other"))
    assert len(one.samples) == 6
    assert hashes(one) == hashes(other)
    assert one.fingerprint == other.fingerprint
    assert hashes(one) != hashes(from_folder(tmp_path / "one", recipe(6, 2)).chosen)
    assert hashes(one) == hashes(from_folder(tmp_path / "one", recipe(9, 1)).chosen)[:6]


def test_equal_files_count_once(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    (tmp_path / "copy.png").write_bytes((tmp_path / "a" / "1.png").read_bytes())
    assert len(from_folder(tmp_path, recipe(100)).chosen.samples) == 3


def test_a_broken_image_is_named_and_another_takes_its_place(tmp_path: Path) -> None:
    fill(tmp_path, 5)
    for number in range(40):
        (tmp_path / f"broken{number}.png").write_bytes(b"broken %d" % number)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "circle").symlink_to(tmp_path)
    chosen, _, skipped = from_folder(tmp_path, recipe(5))
    assert len(chosen.samples) == 5
    assert any(line.startswith("broken") and "not a known image format" in line for line in skipped)
    assert any(line.startswith("gone.png: cannot be read") for line in skipped)
    assert any("links that lead back" in line and "circle" in line for line in skipped)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no readable image"):
        from_folder(tmp_path, recipe(5))
    (tmp_path / "only.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"only\.png"):
        from_folder(tmp_path, recipe(5))
    with pytest.raises(MissingError, match="not a folder"):
        from_folder(tmp_path / "nowhere", recipe(5))
    with pytest.raises(DataError, match="no data set"):
        from_folder(tmp_path / "only.png", recipe(5))


def test_a_good_set_is_not_commented_on() -> None:
    assert problems(choose(samples(100, 100), recipe(64)), ("cat", "dog"), recipe(64)) == []
    unlabelled = tuple(replace(s, label=UNLABELLED) for s in samples(64))
    assert problems(CalibrationSet(unlabelled, ""), ("cat", "dog"), recipe(64)) == []


@pytest.mark.parametrize(
    ("counts", "wanted", "said"),
    [
        ((10, 10), 256, ["only 20 different calibration images; with fewer than 32 the ranges are unreliable"]),
        ((20, 20), 256, ["only 40 of the 256 requested calibration images"]),
        ((40, 0), 40, ["all calibration images are of one class, 'cat'"]),
        ((40, 40, 0, 0, 0, 0), 40, ["4 of 6 classes have no calibration image: owl, fox, elk and 1 more"]),
    ],
)
def test_problems_are_named(counts: tuple[int, ...], wanted: int, said: list[str]) -> None:
    labels = ("cat", "dog", "owl", "fox", "elk", "a\x1bb")[: len(counts)]
    assert problems(choose(samples(*counts), recipe(wanted)), labels, recipe(wanted)) == said


def test_copies_do_not_make_a_set_large_enough() -> None:
    copies = tuple(replace(s, sha256="same") for s in samples(32, 32))
    few, repeated = problems(CalibrationSet(copies, ""), ("cat", "dog"), recipe(64))
    assert few.startswith("only 1 different")
    assert repeated == "63 of the 64 calibration images are copies of others"


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(DataError, match="empty"):
        problems(CalibrationSet((), ""), ("cat", "dog"), recipe(64))


def look(*images: np.ndarray) -> list[str]:
    """What `watched` says of images, two at a time; they must come through as they were."""
    said: list[str] = []
    pixels = np.stack(images)
    batches = [pixels[start : start + 2] for start in range(0, len(pixels), 2)]
    passed = list(watched(batches, [Path(f"{n}.png") for n in range(len(images))], said.append))
    assert np.array_equal(np.concatenate(passed), pixels)
    return said


def test_images_of_a_single_colour_are_named() -> None:
    busy = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    blue = np.full((4, 4, 3), (0, 0, 255), np.uint8)
    almost = blue.copy()
    almost[3, 3, 2] = 254
    assert look(busy, almost, busy) == []
    assert look(busy, blue, almost, blue, busy) == ["2 of 5 calibration images have a single colour: 1.png, 3.png"]
    assert look(busy, *[blue] * 5)[0].endswith("1.png, 2.png, 3.png and 2 more")
    with pytest.raises(DataError, match="every calibration image has a single colour"):
        look(blue, blue, blue)
