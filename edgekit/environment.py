"""Circumstances of a measurement: what ran, on which machine, in which state."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_type_hints

from msgspec import Meta

from edgekit import validation
from edgekit.errors import DataError
from edgekit.labels import visible

Scalar = bool | int | float | str | None
Number = Annotated[int, Meta(ge=-(10**18), le=10**18)] | Annotated[float, Meta(ge=-1e18, le=1e18)]
Count = Annotated[int, Meta(ge=0, le=10**12)]

_MOST_NUMBER, _LARGEST = 1e15, 10**300
MOST_TEXT = 200
# The share of all cores that other work took just before, above which latencies are called doubtful.
BUSY = 0.2


@dataclass(frozen=True)
class BoardState:
    """State of a Jetson or a phone, as `ondevice.jetson.state` and `devices.android.state` read it.

    Attributes:
        throttle_events: over-current and under-voltage events since the board started.
        throttle_alarms: alarms set now: over-current, and parts that are slowed down because of heat.
        thermal_status: of Android, 0 (none) to 6 (shutdown).
    """

    power_mode: str | None = None
    power_mode_id: int | None = None
    clocks_locked: bool | None = None
    gpu_mhz: Number | None = None
    gpu_mhz_min: Number | None = None
    gpu_mhz_max: Number | None = None
    cpu_mhz: Number | None = None
    emc_mhz: Number | None = None
    temperature_c: Number | None = None
    temperature_gpu_c: Number | None = None
    throttle_events: Number | None = None
    throttle_alarms: Number | None = None
    thermal_status: Number | None = None
    battery_percent: Number | None = None
    battery_c: Number | None = None
    charged_by: str | None = None

    def table(self) -> dict[str, Any]:
        """Return what is known, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Environment:
    """Circumstances of a measurement. None: the source does not tell.

    In JSON it is one flat table; the names of `before` and `after` end in ``_before`` and ``_after`` there.

    Attributes:
        runtime, version, processor: what ran the model.
        threads: of the CPU. batch: images in a query.
        busy_before: share of all cores that other processes took just before, 0 to 1; below 0 if unknown.
        load_before: load average. memory_gb: RAM of the machine. peak_rss_mb: of the process.
        warmup_queries: queries before the measured ones. resumed: some latencies are of an interrupted job.
        offline_images: images in one pass of the offline scenario.
        timed_together: queries between two readings of the clock; above 1 in browsers with a coarse clock.
        clock_step_ns: resolution of that clock. was_hidden: the page was in the background meanwhile.
        fully_accelerated: every operation ran in the delegate.
        layers_by: profiler of the layers. layers_run_ms: latency while it ran. no_layers: why there are no times.
        power_*: windows of `ondevice.power.measure_energy`, in seconds; `power_why_not`: why power was not measured.
        macs, bytes_moved: work of one image. peak_tops, bandwidth_gb_s: peaks of the device. peaks_from: their source.
            peaks_busy: as `busy_before`, while they were measured. no_roofline: why there are no peaks.
        before, after: state of the board.
        extra: what no field is for, and values that do not fit their field, such as null; shown, never computed with.
    """

    runtime: str | None = None
    version: str | None = None
    processor: str | None = None
    threads: Annotated[int, Meta(ge=1, le=10**6)] | None = None
    batch: Annotated[int, Meta(ge=1, le=10**6)] | None = None
    suite: str | None = None
    edgekit: str | None = None
    measured: str | None = None
    resumed: bool | None = None
    warmup_queries: Count | None = None
    offline_images: Annotated[int, Meta(ge=0, le=10**9)] | None = None
    busy_before: Number | None = None
    load_before: Number | None = None
    peak_rss_mb: Number | None = None
    # the machine
    machine: str | None = None
    board: str | None = None
    cpu: str | None = None
    cores: Annotated[int, Meta(ge=0, le=10**6)] | None = None
    cores_usable: Count | None = None
    memory_gb: Number | None = None
    kernel: str | None = None
    microcode: str | None = None
    turbo: str | None = None
    governor: str | None = None
    system: str | None = None
    python: str | None = None
    numpy: str | None = None
    # reached over ssh or adb
    serial: str | None = None
    cpu_mask: str | None = None
    taken_up: bool | None = None
    cooled_s: Number | None = None
    # LiteRT
    api: str | None = None
    accelerator: str | None = None
    xnnpack: bool | None = None
    ops: Count | None = None
    delegated_ops: Count | None = None
    partitions: Count | None = None
    fully_accelerated: bool | None = None
    arguments: str | None = None
    libraries: str | None = None
    # TensorRT
    cuda_graph: bool | None = None
    transfers: str | None = None
    # a browser
    mode: str | None = None
    build: str | None = None
    gpu: str | None = None
    user_agent: str | None = None
    isolated: bool | None = None
    secure: bool | None = None
    was_hidden: bool | None = None
    clock_step_ns: Count | None = None
    timed_together: Annotated[int, Meta(ge=1, le=10**9)] | None = None
    load_ms: Number | None = None
    compile_ms: Number | None = None
    # times of layers
    layers_by: str | None = None
    layers_run_ms: Number | None = None
    no_layers: str | None = None
    # power
    power_rail: str | None = None
    power_source: str | None = None
    power_idle_until_s: Number | None = None
    power_busy_from_s: Number | None = None
    power_busy_until_s: Number | None = None
    power_queries: Number | None = None
    power_why_not: str | None = None
    # roofline
    macs: Number | None = None
    bytes_moved: Number | None = None
    peak_tops: Number | None = None
    bandwidth_gb_s: Number | None = None
    peaks_from: str | None = None
    peaks_busy: Number | None = None
    no_roofline: str | None = None
    before: BoardState = field(default_factory=BoardState)
    after: BoardState = field(default_factory=BoardState)
    extra: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Return whether other work took much of the machine just before the measurement."""
        return self.busy_before is not None and self.busy_before > BUSY

    @property
    def images_per_query(self) -> int:
        """Return the batch size; 1 where it was not recorded."""
        return self.batch or 1

    @property
    def is_each_timed(self) -> bool:
        """Return whether each query was timed by itself."""
        return (self.timed_together or 1) == 1

    def table(self) -> dict[str, Any]:
        """Return the flat table that is written to JSON: everything that is known, then `extra`."""
        own = {name: value for name, value in vars(self).items() if name not in _PARTS and value is not None}
        states = {f"{name}_{when}": v for when in _STATES for name, v in getattr(self, when).table().items()}
        return {**own, **states, **self.extra}

    def with_values(self, **values: Any) -> Environment:
        """Return a copy with other values, by the names of the flat table.

        Raises:
            DataError: as for `parse`.
        """
        return parse({**self.table(), **values})


_STATES, _PARTS = ("before", "after"), ("before", "after", "extra")
# Computed with, so a wrong value is an error; a wrong value of another field goes to `Environment.extra`.
_CHECKED = frozenset(
    ("runtime", "version", "processor", "threads", "batch", "offline_images", "timed_together", "warmup_queries",
     "cores", "busy_before", "peak_rss_mb", "layers_run_ms", "macs", "bytes_moved", "peak_tops", "bandwidth_gb_s",
     "peaks_busy")
)  # fmt: skip
REQUIRED = ("runtime", "version", "processor", "threads")


def parse(table: Mapping[str, Any], where: str = "", required: Iterable[str] = (), hint: str = "") -> Environment:
    """Read the flat table of JSON.

    Args:
        where: beginning of the error's message. required: names that must be there. hint: of the error.

    Raises:
        DataError: a required value is missing, or a value that is computed with is of another type or out of range.
    """
    for name in required:
        if name not in table:
            raise DataError(f"{where + ': ' if where else ''}environment.{name} is missing", hint)
    own: dict[str, Any] = {}
    states: dict[str, dict[str, Any]] = {when: {} for when in _STATES}
    extra: dict[str, Scalar] = {}
    for key, value in table.items():
        name, _, when = str(key).rpartition("_")
        if key in _CHECKED and value is None:
            raise DataError(f"{where + ': ' if where else ''}environment.{key} must not be null", hint)
        if key in _CHECKED or (key in _OWN and _fits(value, _OWN[key])):
            own[key] = value
        elif when in states and name in _STATE and _fits(value, _STATE[name]):
            states[when][name] = value
        else:
            extra[visible(str(key))[:MOST_TEXT]] = value if _is_scalar(value) else plain(value)
    found: Environment = validation.convert({**own, **states, "extra": extra}, Environment, where, hint, "environment")
    return found


def plain(value: Any) -> Scalar:
    """Return a finite number, a bool or None as it is; anything else as short printable text."""
    if isinstance(value, float) and not math.isfinite(value):
        value = str(value)
    if isinstance(value, int | float) and abs(value) > _MOST_NUMBER:
        value = f"{float(value):g}" if abs(value) < _LARGEST else "huge"
    return value if isinstance(value, bool | int | float | None) else visible(str(value))[:MOST_TEXT]


def _fits(value: Any, kind: Any) -> bool:
    return value is not None and validation.fits(value, kind)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str) or plain(value) is value


_OWN = {name: kind for name, kind in get_type_hints(Environment, include_extras=True).items() if name not in _PARTS}
_STATE = get_type_hints(BoardState, include_extras=True)
