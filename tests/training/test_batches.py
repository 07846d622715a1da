"""Which images a step sees."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.errors import DataError
from edgekit.records import DatasetIndex, Preprocess
from edgekit.training import workers
from edgekit.training.batches import Batch, Batches, balanced, order
from edgekit.training.distributed import Team
from edgekit.training.features import Features
from tests.training import small

pytestmark = [pytest.mark.xdist_group("batches"), pytest.mark.usefixtures("rows")]
PREPROCESS = Preprocess(32, 36)


def numbers(count: int, epoch: int = 1, chances: torch.Tensor | None = None, **changes: Any) -> list[list[int]]:
    return [batch.tolist() for batch in order(count, small.options(**changes), epoch, chances)]


def flat(batches: Iterable[list[int]]) -> list[int]:
    return list(chain.from_iterable(batches))


def batches_of(data: DatasetIndex, team: Team = small.ALONE, **changes: Any) -> Batches:
    return Batches(data, PREPROCESS, small.options(**changes), team)


def epoch_of(data: DatasetIndex, team: Team = small.ALONE, start: int = 0, **changes: Any) -> list[tuple[int, Batch]]:
    return [(whole, tuple(batch)) for whole, batch in batches_of(data, team, **changes).epoch(2, start)]  # type: ignore[misc]


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("count", "size"), [(2, 8), (8, 8), (10, 4), (43, 8), (1000, 32)])
def test_every_image_comes_once_in_an_epoch(count: int, size: int) -> None:
    found = numbers(count, batch_size=size)
    assert sorted(flat(found)) == list(range(count))
    assert all(len(batch) == size for batch in found[:-1])
    assert flat(found) != list(range(count)) or count == 2


def test_the_order_depends_on_the_seed_and_the_epoch_and_on_nothing_else() -> None:
    first = numbers(50)
    torch.manual_seed(123)
    assert numbers(50, lr=0.5, ema=0.5) == first
    assert numbers(50, epoch=2) != first
    assert numbers(50, seed=1) != first
    assert numbers(50, epoch=2) != numbers(50, epoch=1, seed=1)


@pytest.mark.parametrize(("count", "sizes"), [(17, [8, 8]), (18, [8, 8, 2]), (9, [8]), (8, [8]), (3, [3])])
def test_a_last_batch_of_one_image_is_left_out(count: int, sizes: list[int], colours: DatasetIndex) -> None:
    assert [len(batch) for batch in numbers(count)] == sizes
    few = replace(colours, samples=colours.split("train")[:count])
    found = batches_of(few)
    assert found.steps == len(sizes)
    assert [len(labels) for _, (_, labels, _) in found.epoch(1)] == sizes


def test_one_image_is_too_few(colours: DatasetIndex) -> None:
    with pytest.raises(DataError, match="at least 2 images"):
        batches_of(replace(colours, samples=colours.split("train")[:1]))


def test_balanced_chances_make_classes_equally_frequent() -> None:
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    chances = balanced(labels, 3)
    assert [chances[torch.from_numpy(labels == c)].sum().item() for c in range(3)] == pytest.approx([1, 1, 1])
    drawn = Counter(labels[flat(flat(numbers(1000, e, chances)) for e in range(1, 11))].tolist())
    assert sum(drawn.values()) == 10_000
    assert all(3100 < drawn[c] < 3570 for c in range(3))  # 5 standard deviations


def test_sampling_takes_as_many_images_as_there_are_and_other_ones_every_epoch() -> None:
    chances = balanced(np.repeat([0, 1], [30, 12]), 2)
    first, second = numbers(42, 1, chances), numbers(42, 2, chances)
    assert [len(b) for b in first] == [len(b) for b in numbers(42)]
    assert len(set(flat(first))) < 42
    assert first != second
    assert first == numbers(42, 1, chances)


@pytest.mark.parametrize("start", [0, 1, 3, 5])
def test_starting_at_a_step_is_skipping_what_comes_before(colours: DatasetIndex, start: int) -> None:
    every = epoch_of(colours, augment="light", flip=True)
    rest = epoch_of(colours, augment="light", flip=True, start=start)
    assert len(every) > 5
    assert len(rest) == len(every) - start
    assert all(a[0] == b[0] and same(a[1], b[1]) for a, b in zip(every[start:], rest))


@pytest.mark.parametrize("size", [2, 4])
def test_the_shares_of_all_processes_are_the_whole_batch(colours: DatasetIndex, size: int) -> None:
    data = replace(colours, samples=colours.split("train")[: 24 + 2 * size])  # a short last batch
    every = epoch_of(data, augment="light")
    shares = [epoch_of(data, Team(rank, size, small.ALONE.device), augment="light") for rank in range(size)]
    for (whole, (pixels, labels, images)), *parts in zip(every, *shares, strict=True):
        assert {part[0] for part in parts} == {whole} == {len(labels)}
        assert max(len(p[1][1]) for p in parts) - min(len(p[1][1]) for p in parts) <= 1
        found = {n: (x, y) for _, batch in parts for x, y, n in zip(batch[0], batch[1].tolist(), batch[2].tolist())}
        assert len(found) == whole
        for x, y, n in zip(pixels, labels.tolist(), images.tolist()):
            assert found[n][1] == y
            assert torch.equal(found[n][0], x)


def test_worker_processes_give_the_same_tensors(colours: DatasetIndex) -> None:
    alone, helped = (epoch_of(colours, augment="randaugment", flip=True, workers=w) for w in (0, 2))
    assert len(alone) == len(helped)
    assert all(a[0] == b[0] and same(a[1], b[1]) for a, b in zip(alone, helped))


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for every worker process that was started."""
    file = tmp_path / "started"
    file.touch()

    def note() -> None:
        with open(file, "a", encoding="utf-8") as lines:
            lines.write(f"{os.getpid()}\n")

    monkeypatch.setattr(workers, "ignore_signals", note)
    return file


def test_worker_processes_are_kept_for_all_epochs_until_they_are_closed(colours: DatasetIndex, started: Path) -> None:
    kept = batches_of(colours, augment="light", flip=True, workers=2)
    for epoch, start in [(1, 0), (2, 3), (3, 0), (1, 0)]:
        alone = batches_of(colours, augment="light", flip=True, workers=0)
        for (whole, found), (expected_whole, expected) in zip(
            kept.epoch(epoch, start), alone.epoch(epoch, start), strict=True
        ):
            assert whole == expected_whole
            assert same(found, expected)
    pids = [int(line) for line in started.read_text().split()]
    assert len(pids) == 2
    kept.close()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_an_epoch_that_was_left_early_does_not_show_in_the_next(colours: DatasetIndex, started: Path) -> None:
    kept = batches_of(colours, augment="light", workers=2)
    next(iter(kept.epoch(1)))
    found, expected = list(kept.epoch(2)), list(batches_of(colours, augment="light").epoch(2))
    assert len(found) == len(expected)
    assert all(a[0] == b[0] and same(a[1], b[1]) for a, b in zip(found, expected))
    assert len(started.read_text().split()) == 2


def test_labels_and_paths_belong_to_the_numbers(colours: DatasetIndex) -> None:
    found = batches_of(colours)
    samples = colours.split("train")
    for _, (_, labels, images) in found.epoch(1):
        assert labels.tolist() == [samples[n].label for n in images.tolist()]
        assert found.paths(images.tolist()) == [Path(colours.root) / samples[n].path for n in images.tolist()]


def test_kept_features_come_in_the_same_order_one_view_after_the_other(colours: DatasetIndex) -> None:
    found, count = batches_of(colours), len(colours.split("train"))
    views = []
    for view in (1, 2):
        rows = np.zeros(count, [("sha256", "S64"), ("features", "<f4", 2)])
        rows["features"][:, 0], rows["features"][:, 1] = np.arange(count), view
        views.append([rows])
    found.features = Features(views, [[(0, n) for n in range(count)]] * 2)
    for epoch in (1, 2, 3):
        expected = numbers(count, epoch)
        for want, (_, (rows, labels, images)) in zip(expected, found.epoch(epoch), strict=True):
            assert images.tolist() == want
            assert rows[:, 0].tolist() == want
            assert set(rows[:, 1].tolist()) == {2 - epoch % 2}
            assert labels.tolist() == [colours.split("train")[n].label for n in want]
