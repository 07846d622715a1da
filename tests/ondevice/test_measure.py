"""The measuring loop, with a clock that a test can set."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from edgekit.ondevice.measure import measure, passes, warm_up


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
    warming = warm_up(clock.infer, INPUTS, limits(warmup_queries=queries, warmup_s=seconds), clock)
    assert warming == [100_000_000] * expected
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


@pytest.mark.parametrize(("queries", "more"), [(7, 4), (3, 0), (2, 0), (0, 0)])
def test_latencies_of_a_part_that_was_cut_off_count(queries: int, more: int) -> None:
    clock = Clock(0.1)
    found = measure(clock.infer, INPUTS, limits(min_queries=queries), clock, earlier=(5, 6, 7))
    assert found == [5, 6, 7] + [100_000_000] * more
    assert [int(image[0]) for image in clock.seen] == [0, 1, 2, 0][:more]  # goes on with the input whose turn it is


def test_time_that_was_cut_off_does_not_count() -> None:
    clock = Clock(0.1)
    assert len(measure(clock.infer, INPUTS, limits(min_s=0.5), clock, earlier=[1] * 20)) == 25


def test_the_list_of_earlier_ones_is_left_as_it_is() -> None:
    clock, earlier = Clock(0.1), [5]
    measure(clock.infer, INPUTS, limits(min_queries=3), clock, earlier=earlier)
    assert earlier == [5]


def test_now_and_then_all_so_far_is_kept() -> None:
    clock, kept = Clock(0.4), []
    found = measure(
        clock.infer, INPUTS, limits(min_queries=8), clock, earlier=[5, 6], keep=lambda so_far: kept.append(list(so_far))
    )
    one = 400_000_000
    assert kept == [[5, 6, one, one, one], [5, 6, *[one] * 6]]  # once a second has passed since the last time
    assert found == [5, 6, *[one] * 6]


def test_a_short_measurement_keeps_nothing() -> None:
    clock, kept = Clock(0.1), []
    measure(clock.infer, INPUTS, limits(min_queries=9), clock, keep=kept.append)
    assert kept == []


def test_keeping_takes_no_time_of_a_query() -> None:
    clock = Clock(0.6)

    def keep(so_far: list[int]) -> None:
        clock.now += 10_000_000_000

    assert measure(clock.infer, INPUTS, limits(min_queries=6), clock, keep=keep) == [600_000_000] * 6


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


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 1), (0.1, 1), (0.6, 1), (0.7, 2), (1.3, 3)])
def test_passes_go_over_all_inputs_until_the_time_is_over(seconds: float, expected: int) -> None:
    clock = Clock(0.1, 0.2, 0.3)
    assert passes(clock.infer, INPUTS, seconds, clock) == [600_000_000] * expected
    assert [int(image[0]) for image in clock.seen] == [0, 1, 2] * expected


def test_the_clock_is_read_once_a_pass() -> None:
    clock, read = Clock(0.1), []

    def reading() -> int:
        read.append(1)
        return clock()

    assert len(passes(clock.infer, INPUTS, 0.9, reading)) == len(read) - 1 == 3


def test_the_garbage_collector_rests_during_passes_and_is_left_as_found(collecting: bool) -> None:
    during = []
    passes(lambda _: during.append(gc.isenabled()), INPUTS, 0.0)
    assert during == [False] * 3
    assert gc.isenabled() is collecting
