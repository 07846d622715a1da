"""The calibration set: seeded, balanced, and a matter of content alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from edgekit.data.calibration import choose
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
