"""Energy per inference, from the power that a device sampled, and signs of throttling.

Gross energy is all that the board drew, net energy what it drew above idling; net may be below zero where a model needs
less than the noise. Devices are untrusted: implausible samples give no energy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgekit.environment import BoardState, Environment
from edgekit.labels import visible

LEAST_SAMPLES = 5
# Start of the idle window, which is left out: the board still settles, and its sensor averages over the past.
SETTLING_S = 0.2
_MOST_MW = 1e6
_MOST_SAMPLES = 10_000_000
_MOST_TEXT = 100
# Clocks in sysfs may be rounded.
_SAME_MHZ = 1.0


@dataclass(frozen=True)
class Energy:
    """Energy of one query, averaged over the busy window.

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


def energy(environment: Environment, samples: np.ndarray) -> Energy | None:
    """Integrate the samples of `edgekit.ondevice.power.measure_energy` by trapezoids.

    Args:
        samples: (n, 2), seconds and mW.

    Returns:
        None where a window has fewer than 5 samples or a gap of over a quarter of it, or where samples or fields
        are not plausible: times that do not rise, power below 0 or above 1 kW, no query.
    """
    e = environment
    if not _is_plausible(samples) or e.power_rail is None or e.power_source is None:
        return None
    windows = (e.power_idle_until_s, e.power_busy_from_s, e.power_busy_until_s, e.power_queries)
    idle_until, busy_from, busy_until, queries = (math.nan if value is None else float(value) for value in windows)
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
        rail=visible(e.power_rail)[:_MOST_TEXT],
        source=visible(e.power_source)[:_MOST_TEXT],
    )


def throttling(before: BoardState, after: BoardState) -> list[str]:
    """Return the reasons to think that the board slowed itself down, from its state before and after.

    Temperatures are not judged: boards slow down at different ones (passive trip points: 99 C in Linux's
    tegra234-p3737 device tree, 109 C on AGX Thor with L4T 39.2), and then set an alarm.
    """
    reasons = []
    clock, lowest = after.gpu_mhz or math.inf, after.gpu_mhz_min  # 0: switched off
    locked = before.gpu_mhz_max if before.clocks_locked else None
    if locked is not None and clock < locked - _SAME_MHZ:
        reasons.append(f"the GPU's clock was {clock:.0f} MHz afterwards, though locked at {locked:.0f} MHz")
    elif lowest is not None and clock < lowest - _SAME_MHZ:
        reasons.append(f"the GPU's clock was {clock:.0f} MHz afterwards, below the lowest allowed, {lowest:.0f} MHz")
    first, last = before.throttle_events, after.throttle_events
    if first is not None and last is not None and last > first:
        reasons.append(f"{last - first:.0f} over-current or under-voltage events")
    if after.throttle_alarms:
        reasons.append("an alarm of over-current or heat was set")
    if after.thermal_status is not None and after.thermal_status > 0:
        was = "" if before.thermal_status is None else f", {before.thermal_status:.0f} before"
        reasons.append(f"the phone's thermal status was {after.thermal_status:.0f} of 6 afterwards{was}")
    if before.power_mode and after.power_mode and before.power_mode != after.power_mode:
        modes = [visible(mode)[:_MOST_TEXT] for mode in (before.power_mode, after.power_mode)]
        reasons.append(f"the power mode changed from {modes[0]} to {modes[1]}")
    return reasons


def _is_plausible(samples: np.ndarray) -> bool:
    shaped = samples.ndim == 2 and samples.shape[1] == 2 and LEAST_SAMPLES <= len(samples) <= _MOST_SAMPLES
    if not shaped or samples.dtype.kind not in "fiu" or not np.isfinite(samples).all():
        return False
    seconds, power = samples.astype(np.float64).T
    rising = bool((np.diff(seconds) > 0).all()) and float(np.abs(seconds).max()) < 1e9
    return rising and bool(((power >= 0) & (power <= _MOST_MW)).all())


def _integral(seconds: np.ndarray, power: np.ndarray, start: float, end: float) -> float | None:
    """Integrate the power from `start` to `end`, interpolated at both; None where the samples do not cover that."""
    inside = (seconds >= start) & (seconds <= end)
    if not (seconds[0] <= start < end <= seconds[-1]) or inside.sum() < LEAST_SAMPLES:
        return None
    times = np.concatenate([[start], seconds[inside], [end]])
    if np.diff(times).max() > (end - start) / 4:
        return None
    powers = np.interp(times, seconds, power)
    return float((np.diff(times) * (powers[1:] + powers[:-1])).sum() / 2)
