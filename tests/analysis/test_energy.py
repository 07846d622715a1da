"""Energy against closed forms; throttling against states of `edgekit.ondevice.jetson`; samples that no board sends."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekit.analysis import energy as judged
from edgekit.analysis.energy import Energy
from edgekit.environment import parse

WINDOWS: dict[str, Any] = {
    "power_rail": "VDD_IN",
    "power_source": "sysfs",
    "power_idle_until_s": 2.0,
    "power_busy_from_s": 2.0,
    "power_busy_until_s": 4.0,
    "power_queries": 100,
}


def energy(fields: dict[str, Any], samples: np.ndarray) -> Energy | None:
    """Energy from fields as a device sends them."""
    return judged.energy(parse(fields), samples)


def throttling(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Reasons from states as a device sends them."""
    states = ((before, "before"), (after, "after"))
    found = parse({f"{name}_{when}": value for state, when in states for name, value in state.items()})
    return judged.throttling(found.before, found.after)


def sampled(power: Any, until: float = 4.5, period: float = 0.05) -> np.ndarray:
    """Samples of a function of the time, in seconds."""
    times = np.arange(0, until, period)
    return np.stack([times, np.broadcast_to(np.vectorize(power, otypes=[float])(times), times.shape)], axis=1)


def step(time: float) -> float:
    """5 W at rest, 12 W while busy."""
    return 12_000.0 if 2.0 < time <= 4.0 else 5_000.0


def test_constant_power_is_power_times_time() -> None:
    found = energy(WINDOWS, sampled(lambda time: 5_000.0))
    assert found is not None
    assert found.gross_mj == pytest.approx(5_000 * 2 / 100)
    assert found.idle_mw == pytest.approx(5_000)
    assert found.net_mj == pytest.approx(0, abs=1e-9)
    assert (found.queries, found.seconds, found.rail, found.source) == (100, 2.0, "VDD_IN", "sysfs")


def test_a_ramp_is_its_triangle_and_ends_are_interpolated() -> None:
    # P = 1000 t mW: the integral from a to b is 500 (b^2 - a^2), wherever the samples lie.
    windows = WINDOWS | {"power_idle_until_s": 1.53, "power_busy_from_s": 2.013, "power_busy_until_s": 3.977}
    found = energy(windows, sampled(lambda time: 1000 * time, period=0.07))
    assert found is not None
    length = 3.977 - 2.013
    gross = 500 * (3.977**2 - 2.013**2)
    idle = 1000 * (0.2 + 1.53) / 2
    assert found.gross_mj == pytest.approx(gross / 100)
    assert found.idle_mw == pytest.approx(idle)
    assert found.net_mj == pytest.approx((gross - idle * length) / 100)


def test_net_is_what_lies_above_idling() -> None:
    found = energy(WINDOWS, sampled(step, period=0.01))
    assert found is not None
    assert found.gross_mj == pytest.approx(12_000 * 2 / 100, rel=0.01)
    assert found.net_mj == pytest.approx(7_000 * 2 / 100, rel=0.01)


def test_the_idle_mean_is_weighted_by_time_and_starts_after_settling() -> None:
    samples = sampled(lambda time: 50_000.0 if time < 0.15 else 5_000.0)
    # Many samples at the end of a slow fall do not outweigh the few at its start.
    dense = np.stack([np.linspace(1.9, 1.95, 200, endpoint=False) + 1e-4, np.full(200, 5_000.0)], axis=1)
    samples = np.concatenate([samples, dense])
    samples = samples[np.argsort(samples[:, 0])]
    found = energy(WINDOWS, samples)
    assert found is not None
    assert found.idle_mw == pytest.approx(5_000)


@pytest.mark.parametrize("period", [0.05, 0.1, 0.3])
def test_uneven_samples_give_the_same(period: float) -> None:
    times = np.arange(0, 4.6, period)
    times = times + np.random.default_rng(0).uniform(0, period / 2, len(times))
    times[0] = 0
    found = energy(WINDOWS, np.stack([times, 3000 + 500 * times], axis=1))
    assert found is not None
    assert found.gross_mj == pytest.approx((3000 + 500 * 3) * 2 / 100)


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((0, 2)),
        np.zeros((5, 3)),
        np.zeros(10),
        np.array([["a", "b"]] * 9),
        np.array([[None, 1]] * 9),
        sampled(step)[:30],
        sampled(step)[:60],
        sampled(step)[50:],
        sampled(step, period=0.5),
        sampled(step)[::-1],
        np.repeat(sampled(step), 2, axis=0),
        np.delete(sampled(step), range(45, 65), axis=0),
        sampled(lambda time: math.nan if time > 3 else 5_000.0),
        sampled(lambda time: math.inf if time > 3 else 5_000.0),
        sampled(lambda time: -1.0 if time > 3 else 5_000.0),
        sampled(lambda time: 1_000_001.0 if time > 3 else 5_000.0),
        sampled(lambda time: 5_000.0) * [-1, 1],
        sampled(lambda time: 5_000.0).astype(np.complex128),
    ],
    ids=["none", "wide", "flat", "text", "objects", "idle only", "ends early", "starts late", "rare", "backwards",
         "twice", "gap", "nan", "infinite", "negative", "over 1 kW", "negative times", "complex"],
)  # fmt: skip
def test_samples_that_say_nothing_give_no_energy(samples: np.ndarray) -> None:
    assert energy(WINDOWS, samples) is None


@pytest.mark.parametrize(
    "change",
    [
        {"power_queries": 0},
        {"power_queries": -5},
        {"power_queries": 2.5},
        {"power_queries": True},
        {"power_queries": 10**400},
        {"power_queries": "100"},
        {"power_busy_until_s": 2.0},
        {"power_busy_until_s": math.nan},
        {"power_busy_until_s": math.inf},
        {"power_busy_until_s": 400.0},
        {"power_busy_from_s": 1.0},
        {"power_idle_until_s": 0.1},
        {"power_idle_until_s": None},
        {"power_rail": None},
        {"power_source": ["sysfs"]},
    ],
)
def test_fields_that_no_device_sends_give_no_energy(change: dict[str, Any]) -> None:
    assert energy(WINDOWS | change, sampled(step)) is None


@pytest.mark.parametrize("name", sorted(WINDOWS))
def test_a_missing_field_gives_no_energy(name: str) -> None:
    assert energy({key: value for key, value in WINDOWS.items() if key != name}, sampled(step)) is None


def test_names_are_safe_to_print() -> None:
    found = energy(WINDOWS | {"power_rail": "\x1b[2J" + "x" * 500}, sampled(step))
    assert found is not None
    assert found.rail.isprintable()
    assert len(found.rail) == 100


@settings(max_examples=100, deadline=None)
@given(
    samples=hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=12)),
    fields=st.dictionaries(
        st.sampled_from(sorted(WINDOWS)),
        st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.lists(st.integers()),
    ),
)
def test_nothing_that_a_device_sends_breaks_it(samples: np.ndarray, fields: dict[str, Any]) -> None:
    energy(WINDOWS | fields, samples)
    energy(WINDOWS | fields, sampled(step))
    throttling(fields, fields)


STATE: dict[str, Any] = {
    "power_mode": "25W",
    "clocks_locked": True,
    "gpu_mhz": 1020.0,
    "gpu_mhz_min": 1020.0,
    "gpu_mhz_max": 1020.0,
    "temperature_c": 63.8,
    "throttle_events": 52,
    "throttle_alarms": 0,
}


def test_a_board_that_kept_its_clock_was_not_throttled() -> None:
    assert throttling(STATE, STATE) == []
    assert throttling(STATE, STATE | {"gpu_mhz": 1019.25, "temperature_c": 80.0}) == []
    assert throttling({}, {}) == []
    assert throttling({}, STATE) == []
    assert throttling(STATE, {}) == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({}, {"gpu_mhz": 612.0}, "612 MHz afterwards, though locked at 1020 MHz"),
        ({"clocks_locked": False}, {"gpu_mhz": 204.0, "gpu_mhz_min": 306.0}, "204 MHz afterwards, below the lowest"),
        ({}, {"throttle_events": 55}, "3 over-current or under-voltage events"),
        ({}, {"throttle_alarms": 1}, "an alarm of over-current or heat was set"),
        ({}, {"thermal_status": 2}, "the phone's thermal status was 2 of 6 afterwards"),
        ({"thermal_status": 0}, {"thermal_status": 3}, "the phone's thermal status was 3 of 6 afterwards, 0 before"),
        ({"throttle_alarms": 1}, {"throttle_alarms": 1}, "an alarm of over-current or heat was set"),
        ({}, {"power_mode": "15W"}, "the power mode changed from 25W to 15W"),
    ],
)
def test_reasons_are_said_in_words(before: dict[str, Any], after: dict[str, Any], words: str) -> None:
    [reason] = throttling(STATE | before, STATE | after)
    assert words in reason


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"clocks_locked": False, "gpu_mhz_min": 306.0}, {"gpu_mhz": 306.0, "gpu_mhz_min": 306.0}),  # idles
        ({}, {"gpu_mhz": 0.0}),  # is switched off
        ({}, {"throttle_events": 3}),  # was restarted
        ({"thermal_status": 2}, {"thermal_status": 0}),
        ({"clocks_locked": "yes"}, {"gpu_mhz": 612.0, "gpu_mhz_min": None}),
        ({"throttle_events": math.nan}, {"throttle_events": "55"}),
        ({"power_mode": 25}, {"power_mode": "15W"}),
    ],
)
def test_other_changes_are_no_throttling(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert throttling(STATE | before, STATE | after) == []


def test_several_reasons_stand_beside_each_other_and_are_safe_to_print() -> None:
    reasons = throttling(STATE, STATE | {"gpu_mhz": 306.0, "throttle_events": 99, "power_mode": "\x1b[2J"})
    assert len(reasons) == 3
    assert all(reason.isprintable() for reason in reasons)
