"""Start-ups, shifts and modes: found where they are, and not where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.coverage import autoregressive
from edgekit.stats.stability import Modes, dip, modes, shift, warm_up_end

RNG = np.random.default_rng
AT = np.arange(662)


def noise(seed: int = 0, length: int = 662) -> np.ndarray:
    return 1 + 0.05 * RNG(seed).normal(size=length)


# The end of a start-up -----------------------------------------------------------------------


@pytest.mark.parametrize("slow", [5, 10, 40, 200])
def test_a_slow_start_is_cut_off_where_it_ends(slow: int) -> None:
    for seed in range(5):
        cut = warm_up_end(noise(seed) * np.where(slow > AT, 1.8, 1.0))
        assert slow <= cut <= slow + 100
        assert cut % 5 == 0


def test_a_start_that_fades_is_cut_off_too() -> None:
    assert 40 <= warm_up_end(noise() * (1 + 0.5 * np.exp(-AT / 20))) <= 200


@pytest.mark.parametrize("at", [20, 100, 200])
def test_a_head_that_is_faster_is_no_start_but_a_device_that_slows_down(at: int) -> None:
    for seed in range(5):
        throttled = noise(seed) * np.where(at > AT, 1.0, 1.5)
        assert warm_up_end(throttled) == 0
        found = shift(throttled)
        if at > 33:  # fewer than 5 % of all are no level of their own
            assert found is not None
            assert found.ratio == pytest.approx(1.5, abs=0.03)


@pytest.mark.parametrize("length", [15, 40, 80])
@pytest.mark.parametrize("factor", [1.2, 2.0])
def test_a_burst_later_on_is_cut_off_by_no_means(length: int, factor: float) -> None:
    """Nor is it behind a warm-up that was slow itself, for which it would be taken together."""
    for begin in (10, 30, 60, 100, 150, 190):
        burst = noise(begin) * np.where((begin <= AT) & (begin + length > AT), factor, 1.0)
        assert warm_up_end(burst) == 0
        assert warm_up_end(burst * np.where(AT < 5, 1.8, 1.0)) <= 10


def test_a_clock_that_tells_nothing_apart_starts_up_and_steps_by_no_chance() -> None:
    drawn = RNG(3).random((300, 662))
    for share in (0.001, 0.005, 0.02, 0.2):
        series = [1000.0 + 1000 * (values < share) for values in drawn]
        assert [warm_up_end(values) for values in series] == [0] * 300
        assert sum(shift(values) is not None for values in series) <= 6


@pytest.mark.parametrize("behind", [1, 4, 30])
def test_the_last_few_are_no_level_of_their_own(behind: int) -> None:
    assert shift(np.array([1.0] * (700 - behind) + [9.0] * behind)) is None
    assert shift(np.array([1.0] * 600 + [9.0] * 100)) is not None


@pytest.mark.parametrize(
    "factor",
    [np.ones(662), np.linspace(1, 1.3, 662), np.where(AT < 331, 1, 1.2), np.where(AT < 600, 1, 1.2),
     np.where(AT == 3, 50, 1), np.where(AT % 7 == 0, 3, 1)],
    ids=["level", "drift", "step in the middle", "step at the end", "spike", "comb"],
)  # fmt: skip
def test_what_is_no_start_is_left_whole(factor: np.ndarray) -> None:
    assert [warm_up_end(noise(seed) * factor) for seed in range(5)] == [0] * 5


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(1e-3, 1e6), max_size=120))
def test_never_more_than_half_is_cut_off(values: list[float]) -> None:
    assert 0 <= warm_up_end(np.array(values)) <= len(values) / 2


# Shifts --------------------------------------------------------------------------------------


def test_a_step_is_found_where_it_is_with_its_size() -> None:
    found = shift(noise() * np.where(AT < 500, 1, 1.2))
    assert found is not None
    assert found.at == pytest.approx(500, abs=3)
    assert found.ratio == pytest.approx(1.2, abs=0.02)
    down = shift(noise() * np.where(AT < 200, 1, 0.8))
    assert down is not None
    assert down.ratio == pytest.approx(0.8, abs=0.02)


def test_a_drift_is_no_step_and_said_of_the_last_third_against_the_first() -> None:
    found = shift(noise() * np.linspace(1, 1.3, 662))
    assert found is not None
    assert found.at is None
    assert found.ratio == pytest.approx(1.25 / 1.05, abs=0.02)


def test_a_step_of_one_percent_and_one_of_few_queries_are_not_spoken_of() -> None:
    small = 1 + 0.001 * RNG(0).normal(size=662)
    assert shift(small * np.where(AT < 331, 1, 1.01)) is None
    assert shift(small * np.where(AT < 331, 1, 1.03)) is not None
    assert shift(np.where(np.arange(59) < 30, 1.0, 2.0)) is None


@pytest.mark.parametrize(
    ("phi", "length", "most"), [(0.0, 128, 0.03), (0.0, 662, 0.03), (0.5, 662, 0.03), (0.9, 662, 0.04)]
)
def test_level_series_are_seldom_called_shifting(phi: float, length: int, most: float) -> None:
    drawn = np.exp(0.2 * autoregressive(RNG(4), 200, length, phi))
    assert np.mean([shift(values) is not None for values in drawn]) <= most


# Modes ---------------------------------------------------------------------------------------


def test_two_modes_are_found_with_their_shares() -> None:
    found = modes(noise() * np.where(RNG(1).random(662) < 0.3, 1.5, 1))
    assert found is not None
    assert found.share == pytest.approx(0.7, abs=0.05)
    assert (found.low, found.high) == (pytest.approx(1, abs=0.02), pytest.approx(1.5, abs=0.02))


@pytest.mark.parametrize(
    "values",
    [noise(), RNG(0).random(700), RNG(0).exponential(size=700), 1 + RNG(0).pareto(1.5, 700), np.full(700, 3.0),
     noise() * np.where(RNG(1).random(662) < 0.03, 4, 1), np.round(noise(), 1), np.round(noise(0, 5000), 2)],
    ids=["normal", "uniform", "exponential", "Pareto", "equal", "few spikes", "coarse clock", "less coarse clock"],
)  # fmt: skip
def test_one_mode_is_one_whatever_its_shape(values: np.ndarray) -> None:
    assert modes(values) is None


def test_the_dip_of_two_points_is_a_quarter_and_of_a_line_nothing() -> None:
    assert dip(np.repeat([0.0, 1.0], 250) + np.linspace(0, 1e-9, 500)) == pytest.approx(0.25, abs=0.01)
    assert dip(np.linspace(0, 1, 500)) < 0.002
    assert dip(np.linspace(0, 1, 500) ** 3) < 0.002


def test_the_dip_is_that_of_the_published_definition() -> None:
    """Against the largest distance that a search over straight pieces leaves: two uniform humps, equal and unequal."""
    for share, expected in ((0.5, 0.25), (0.8, 0.1)):
        points = 500
        low = np.linspace(0, 0.01, round(points * share))
        high = np.linspace(1, 1.01, points - len(low))
        assert dip(np.concatenate([low, high])) == pytest.approx(expected, abs=0.01)


def test_uniform_series_are_seldom_called_bimodal_at_any_length() -> None:
    for length in (60, 128, 662, 5000):
        assert sum(modes(1 + RNG(n).random(length)) is not None for n in range(100)) <= 3


def test_dependent_series_need_more_of_it() -> None:
    values = noise() * np.where(RNG(1).random(662) < 0.3, 1.5, 1)
    assert isinstance(modes(values), Modes)
    assert modes(values, inefficiency=50) is None
