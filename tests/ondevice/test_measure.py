"""The measuring loop, with a clock that a test can set."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgekit.ondevice.measure import measure, warm_up


class Clock:
    """Time that passes only while a model answers."""

    def __init__(self, *seconds: float) -> None:
        self.now = 1_000
        self.durations = itertools.cycle(round(s * 1e9) for s in seconds)
        self.seen: list[Any] = []

    def __call__(self) -> int:
        return self.now

    def infer(self, image: Any) -> None:
        self.seen.append(image)
        self.now += next(self.durations)


def limits(**changes: float) -> dict[str, float]:
    return {"warmup_queries": 0, "warmup_s": 0.0, "min_queries": 0, "min_s": 0.0, "max_s": 1e6, **changes}


INPUTS = [np.full(1, n) for n in range(3)]


@pytest.mark.parametrize(
    ("queries", "seconds", "expected"), [(5, 0.0, 5), (0, 1.0, 10), (5, 1.0, 10), (20, 1.0, 20), (0, 0.0, 0)]
)
def test_warm_up_reaches_both_its_queries_and_its_time(queries: int, seconds: float, expected: int) -> None:
    clock = Clock(0.1)
    assert warm_up(clock.infer, INPUTS, limits(warmup_queries=queries, warmup_s=seconds), clock) == expected
    assert len(clock.seen) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"min_queries": 7}, 7),
        ({"min_s": 1.0}, 10),
        ({"min_queries": 7, "min_s": 1.0}, 10),
        ({"min_queries": 20, "min_s": 1.0}, 20),
        ({"min_queries": 20, "max_s": 0.5}, 5),
        ({"min_s": 100.0, "max_s": 0.55}, 6),
        ({"min_queries": 20, "max_s": 0.0}, 1),
    ],
)
def test_measuring_stops_when_both_are_reached_or_at_max_s(change: dict[str, float], expected: int) -> None:
    clock = Clock(0.1)
    assert measure(clock.infer, INPUTS, limits(**change), clock) == [100_000_000] * expected


def test_every_latency_is_kept_in_order_in_nanoseconds() -> None:
    clock = Clock(0.003, 0.001, 0.002)
    assert measure(clock.infer, INPUTS, limits(min_queries=5), clock) == [
        3_000_000, 1_000_000, 2_000_000, 3_000_000, 1_000_000
    ]  # fmt: skip


def test_inputs_take_turns() -> None:
    for run in (measure, warm_up):
        clock = Clock(0.1)
        run(clock.infer, INPUTS, limits(min_queries=7, warmup_queries=7), clock)
        assert [int(image[0]) for image in clock.seen] == [0, 1, 2, 0, 1, 2, 0]


def test_the_real_clock_never_runs_backwards() -> None:
    assert all(ns >= 0 for ns in measure(lambda _: None, INPUTS, limits(min_queries=100)))


@pytest.fixture(params=[True, False], ids=["collector on", "collector off"])
def collecting(request: pytest.FixtureRequest) -> Iterator[bool]:
    """The garbage collector as it was found, put back afterwards."""
    before = gc.isenabled()
    (gc.enable if request.param else gc.disable)()
    yield request.param
    (gc.enable if before else gc.disable)()


def test_the_garbage_collector_rests_while_measuring_and_is_left_as_found(collecting: bool) -> None:
    during = []
    measure(lambda _: during.append(gc.isenabled()), INPUTS, limits(min_queries=3))
    assert during == [False] * 3
    assert gc.isenabled() is collecting


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_garbage_collector_as_found(collecting: bool, error: type[BaseException]) -> None:
    def fail(_: Any) -> None:
        raise error

    with pytest.raises(error):
        measure(fail, INPUTS, limits(min_queries=3))
    assert gc.isenabled() is collecting
