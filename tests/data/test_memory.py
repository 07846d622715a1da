"""Threads that decode large images wait until there is memory for them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgekit.data import images
from edgekit.data.memory import Budget
from edgekit.data.threads import in_order
from edgekit.records import Preprocess


def most_at_once(budget: Budget, sizes: list[int]) -> int:
    """The most bytes that threads held at a time, each for a moment."""
    lock, now, most = threading.Lock(), 0, 0

    def hold(size: int) -> None:
        nonlocal now, most
        with budget.hold(size):
            with lock:
                now += size
                most = max(most, now)
            time.sleep(0.002)
            with lock:
                now -= size

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, sizes))
    return most


def test_no_more_is_held_than_the_budget() -> None:
    assert most_at_once(Budget(100), [30] * 40) == 90


def test_what_is_larger_than_the_budget_is_held_alone() -> None:
    assert most_at_once(Budget(100), [250, 30, 250, 30] * 5) == 250


def test_an_error_frees_what_was_held() -> None:
    budget = Budget(10)
    with pytest.raises(ZeroDivisionError), budget.hold(10):
        _ = 1 / 0
    with budget.hold(10):
        pass


def test_images_are_decoded_within_the_budget_until_they_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(12)]
    for path in paths:
        Image.new("RGBA", (40, 40), (9, 9, 9, 128)).save(path)
    budget, fit = Budget(50_000), images.fit
    lock, now, most = threading.Lock(), 0, 0
    monkeypatch.setattr(images, "PIXELS", budget)
    monkeypatch.setattr("edgekit.data.threads.cores", lambda: 8)

    def slow(*given: Any) -> Any:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.005)
        with lock:
            now -= 1
        return fit(*given)

    monkeypatch.setattr(images, "fit", slow)
    found = list(in_order(lambda path: images.load_fitted(path, Preprocess(32, 32)), paths))
    assert len(found) == 12
    assert 1 < most <= 50_000 // (40 * 40 * 8)


def test_a_forked_process_begins_with_nothing_held() -> None:
    budget = Budget(10)
    with budget.hold(10):
        budget.reset()
        with budget.hold(10):
            pass
        budget.reset()
