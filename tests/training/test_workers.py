"""Processes that decode images: how they end, and how the training ends with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgekit.errors import EdgekitError, ExitStatus
from edgekit.records import DatasetIndex, Preprocess
from edgekit.training import workers
from edgekit.training.augment import Key, TrainImages
from edgekit.training.workers import WorkerError, Workers
from tests.training import small

pytestmark = pytest.mark.usefixtures("rows")
PREPROCESS = Preprocess(32, 36)
SHAPE = (4, 32, 32, 3)
KEYS = [[(3, n) for n in range(start, start + 4)] for start in range(0, 40, 4)] + [[(3, 40), (3, 41)]]


@pytest.fixture
def images(colours: DatasetIndex) -> TrainImages:
    return TrainImages(colours, PREPROCESS, small.options(augment="randaugment", flip=True))


@pytest.fixture
def started(images: TrainImages) -> Iterator[Workers]:
    made = Workers(images, 2, SHAPE)
    yield made
    made.close()


def pids(of: Workers) -> list[int]:
    return [worker.process.pid or 0 for worker in of._workers]


def runs(pid: int) -> bool:
    """False for a process that ended, also if nobody has asked for its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_they_give_the_same_pixels_as_the_training_itself(images: TrainImages, started: Workers) -> None:
    for _ in range(2):
        found = list(started.batches(KEYS))
        assert len(found) == len(KEYS)
        assert all(torch.equal(pixels, images.load(keys)) for pixels, keys in zip(found, KEYS))


def test_an_epoch_that_was_left_early_does_not_show_in_the_next(images: TrainImages, started: Workers) -> None:
    next(started.batches(KEYS))
    found = list(started.batches(KEYS[3:]))
    assert all(torch.equal(pixels, images.load(keys)) for pixels, keys in zip(found, KEYS[3:], strict=True))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_one_that_is_killed_is_an_error_that_says_so(started: Workers, number: signal.Signals) -> None:
    batches = started.batches(KEYS)
    next(batches)
    os.kill(pids(started)[1], number)
    with pytest.raises(WorkerError, match=number.name) as caught:
        list(batches)
    assert caught.value.status is ExitStatus.FAILED
    assert "--workers 0" in caught.value.hint
    assert ("memory" in caught.value.message) == (number == signal.SIGKILL)
    left = pids(started)
    started.close()
    assert not any(map(runs, left))


def test_one_that_ended_between_two_epochs_is_an_error(started: Workers) -> None:
    list(started.batches(KEYS[:2]))
    os.kill(pids(started)[0], signal.SIGKILL)
    while runs(pids(started)[0]):
        time.sleep(0.01)
    with pytest.raises(WorkerError):
        list(started.batches(KEYS))


def test_those_that_hang_are_ended(images: TrainImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainImages, "load", lambda *_: time.sleep(600))
    hanging = Workers(images, 2, SHAPE)
    hanging._ask(hanging._workers[0], 0, KEYS[0])
    left = pids(hanging)
    hanging.close()
    assert not any(map(runs, left))


def test_ctrl_c_and_an_orderly_end_are_for_the_training_to_decide(images: TrainImages, started: Workers) -> None:
    for pid in pids(started):
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    assert len(list(started.batches(KEYS))) == len(KEYS)


def test_an_error_in_one_is_the_error_of_the_training(images: TrainImages, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: TrainImages, keys: list[Key], out: object = None) -> None:
        raise MemoryError("no room") if keys[0][1] else ValueError("wrong")

    monkeypatch.setattr(TrainImages, "load", load)
    failing = Workers(images, 1, SHAPE)
    with pytest.raises(RuntimeError, match="ValueError: wrong"):
        list(failing.batches(KEYS))
    with pytest.raises(MemoryError, match="no room"):
        list(failing.batches(KEYS[1:]))
    failing.close()


def test_processes_that_cannot_be_started_are_an_error(images: TrainImages, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(workers, "_start", none_left)
    with pytest.raises(EdgekitError, match=r"cannot be started.*temporarily unavailable"):
        Workers(images, 2, SHAPE)


def test_they_end_when_the_training_is_killed(tmp_path: Path) -> None:
    code = """
import os, sys, time
from edgekit.training import workers
class Images:
    def load(self, keys, out): time.sleep(0.1)
made = workers.Workers(Images(), 3, (2, 8, 8, 3))
next(made.batches([[(1, 0)], [(1, 1)], [(1, 2)], [(1, 3)]]))
print(*(w.process.pid for w in made._workers), flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as training:
        assert training.stdout is not None
        left = [int(pid) for pid in training.stdout.readline().split()]
        assert len(left) == 3
        training.kill()
    deadline = time.monotonic() + 20
    while any(map(runs, left)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(runs, left))
