"""Energy per inference out of the power that a device sampled, and whether it slowed itself down meanwhile.

Gross energy is all that the board drew, net what it drew above idling; net may be below zero where a model needs
less than the noise. What a device says is believed in nothing: implausible samples give no energy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.labels import visible

LEAST_SAMPLES = 5
# The start of the idle window: the board still settles, and its sensor averages over what was before.
SETTLING_S = 0.2
_MOST_MW = 1e6
_MOST_SAMPLES = 10_000_000
_MOST_TEXT = 100
# A clock in sysfs may be rounded.
_SAME_MHZ = 1.0


@dataclass(frozen=True)
class Energy:
    """Of one query, averaged over the busy window.

    Attributes:
        idle_mw: mean power of the board at rest. gross_mj, net_mj: millijoules per query, with and without the idle
        power. queries, seconds: of the busy window. rail, source: where the power was measured.
    """

    idle_mw: float
    gross_mj: float
    net_mj: float
    queries: int
    seconds: float
    rail: str
    source: str


def energy(environment: dict[str, Any], samples: np.ndarray) -> Energy | None:
    """Integrate the samples of `edgekit.ondevice.power.measure_energy` by trapezoids.

    Args:
        environment: the fields that function returns, among others. samples: (n, 2) of seconds and mW.

    Returns:
        None where a window has fewer than 5 samples or a gap of over a quarter of it, or where samples or fields
        are not plausible: times that do not rise, power below 0 or above 1 kW, no query.
    """
    names = ("power_idle_until_s", "power_busy_from_s", "power_busy_until_s", "power_queries")
    numbers = [_number(environment, name) for name in names]
    rail, source = (environment.get(name) for name in ("power_rail", "power_source"))
    if not _plausible(samples) or not isinstance(rail, str) or not isinstance(source, str):
        return None
    idle_until, busy_from, busy_until, queries = (math.nan if number is None else number for number in numbers)
    if not (idle_until <= busy_from < busy_until and 1 <= queries <= 1e12 and queries == int(queries)):
        return None
    seconds, power = samples.astype(np.float64).T
    idle = _integral(seconds, power, float(seconds[0]) + SETTLING_S, idle_until)
    busy = _integral(seconds, power, busy_from, busy_until)
    if idle is None or busy is None:
        return None
    idle_mw = idle / (idle_until - float(seconds[0]) - SETTLING_S)
    length = busy_until - busy_from
    return Energy(
        idle_mw=idle_mw,
        gross_mj=busy / queries,
        net_mj=(busy - idle_mw * length) / queries,
        queries=int(queries),
        seconds=length,
        rail=visible(rail)[:_MOST_TEXT],
        source=visible(source)[:_MOST_TEXT],
    )


def throttling(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Why the board was slower than it should have been, by its state before and after.

    No temperature is judged: boards slow down at different ones (passive trip points: 99 C in Linux's
    tegra234-p3737 device tree, 109 C on AGX Thor with L4T 39.2) and say so themselves, by an alarm.
    """
    reasons = []
    clock, lowest = _number(after, "gpu_mhz") or math.inf, _number(after, "gpu_mhz_min")  # 0: switched off
    locked = _number(before, "gpu_mhz_max") if before.get("clocks_locked") is True else None
    if locked is not None and clock < locked - _SAME_MHZ:
        reasons.append(f"the GPU's clock was {clock:.0f} MHz afterwards, though locked at {locked:.0f} MHz")
    elif lowest is not None and clock < lowest - _SAME_MHZ:
        reasons.append(f"the GPU's clock was {clock:.0f} MHz afterwards, below the lowest allowed, {lowest:.0f} MHz")
    events = [_number(state, "throttle_events") for state in (before, after)]
    if events[0] is not None and events[1] is not None and events[1] > events[0]:
        reasons.append(f"{events[1] - events[0]:.0f} over-current or under-voltage events")
    if _number(after, "throttle_alarms"):
        reasons.append("an alarm of over-current or heat was set")
    heat = [_number(state, "thermal_status") for state in (before, after)]
    if heat[1] is not None and heat[1] > 0:
        was = "" if heat[0] is None else f", {heat[0]:.0f} before"
        reasons.append(f"the phone's thermal status was {heat[1]:.0f} of 6 afterwards{was}")
    modes = [_mode(state) for state in (before, after)]
    if modes[0] and modes[1] and modes[0] != modes[1]:
        reasons.append(f"the power mode changed from {modes[0]} to {modes[1]}")
    return reasons


def _number(fields: dict[str, Any], name: str) -> float | None:
    """A finite number, or None: JSON also has huge integers, NaN and true."""
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 < value < 1e15:
        return None
    return float(value)


def _mode(state: dict[str, Any]) -> str:
    mode = state.get("power_mode")
    return visible(mode)[:_MOST_TEXT] if isinstance(mode, str) else ""


def _plausible(samples: np.ndarray) -> bool:
    shaped = samples.ndim == 2 and samples.shape[1] == 2 and LEAST_SAMPLES <= len(samples) <= _MOST_SAMPLES
    if not shaped or samples.dtype.kind not in "fiu" or not np.isfinite(samples).all():
        return False
    seconds, power = samples.astype(np.float64).T
    rising = bool((np.diff(seconds) > 0).all()) and float(np.abs(seconds).max()) < 1e9
    return rising and bool(((power >= 0) & (power <= _MOST_MW)).all())


def _integral(seconds: np.ndarray, power: np.ndarray, start: float, end: float) -> float | None:
    """Of the power from `start` to `end`, interpolated at both; None where the samples do not cover that."""
    inside = (seconds >= start) & (seconds <= end)
    if not (seconds[0] <= start < end <= seconds[-1]) or inside.sum() < LEAST_SAMPLES:
        return None
    times = np.concatenate([[start], seconds[inside], [end]])
    if np.diff(times).max() > (end - start) / 4:
        return None
    powers = np.interp(times, seconds, power)
    return float((np.diff(times) * (powers[1:] + powers[:-1])).sum() / 2)
