"""Power of the whole board in milliwatts: raw samples while it idles and while a model runs.

Rails: NVIDIA Jetson Linux Developer Guide, "Platform Power and Performance". ``VDD_IN`` and ``POM_5V_IN`` are the power
of the module; ``VIN``, of Thor, is that of module and carrier board. Other rails are parts of it. Files: the kernel's
hwmon documentation of ina3221 and ina238; L4T 32 has an IIO driver of its own. The INA3221 averages its ``samples``, so
that steps arrive late and smoothed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from .jetson import matches, number_of, text_of
from .measure import Infer

# Rails of the whole board.
TOTALS = ("VIN", "VDD_IN", "POM_5V_IN")
PERIOD_S = 0.05
INTERVAL_MS = 100
# Minimum number of samples in a window.
LEAST_SAMPLES = 5
_FIRST_SAMPLE_S = 3.0
# Pause after the last inference, so that the end of the busy window is between two samples.
_TAIL_S = 0.3
_LONGEST_LINE = 4096

_HWMON = ("sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*", "sys/bus/i2c/devices/*/hwmon/hwmon*")
_IIO = "sys/bus/i2c/drivers/ina3221x/*/iio:device*"

# "NAME current/average", "NAME currentmW/averagemW", and on L4T 39 a third value, the maximum.
_RAIL = re.compile(r"(?<!\S)([A-Za-z]\w*) (-?\d{1,9})(?:mW)?/-?\d{1,9}(?:mW)?(?:/-?\d{1,9}(?:mW)?)?(?!\S)")
_TEMPERATURE = re.compile(r"(?<!\S)([A-Za-z][\w-]*)@(-?\d{1,4}(?:\.\d{1,6})?)C(?=[/\s]|$)")
# Something must follow the clock, because a line that was cut off may end in its first digits.
_GPU_CLOCK = re.compile(r"(?<!\S)GR3D_FREQ (?:\d{1,3}%)?@\[?(\d{1,5})[\],\s]")
_NOT_RAILS = ("NC", "RAM", "SWAP", "IRAM", "GART", "Carveout")

Receive = Callable[[float, float], None]


def parse_tegrastats(line: str) -> Dict[str, Any]:
    """Parse one line of tegrastats; unknown parts are skipped.

    Returns:
        ``rails`` (name -> mW now), ``temperatures`` (sensor -> degrees Celsius) and, where it is said, ``gpu_mhz``
        (of the first GPC).
    """
    line = line[:_LONGEST_LINE]
    rails = {name: float(now) for name, now in _RAIL.findall(line) if name not in _NOT_RAILS}
    degrees = {name: float(value) for name, value in _TEMPERATURE.findall(line)}
    plausible = {name: value for name, value in degrees.items() if -60 < value < 200}
    found: Dict[str, Any] = {"rails": rails, "temperatures": plausible}
    clock = _GPU_CLOCK.search(line)
    if clock:
        found["gpu_mhz"] = float(clock.group(1))
    return found


class Meter:
    """Reads one rail. `source` is ``sysfs`` or ``tegrastats``."""

    source = ""

    def __init__(self, rail: str) -> None:
        self.rail = rail

    def read_mw(self) -> Optional[float]:
        """Return the current power; None if it cannot be read."""
        raise NotImplementedError

    def start(self, receive: Receive) -> Callable[[], None]:
        """Call `receive` with (time.perf_counter seconds, mW) from a thread. Return a function that ends it."""
        ended = threading.Event()

        def sample() -> None:
            while not ended.wait(PERIOD_S):
                begun = time.perf_counter()
                power = self.read_mw()
                if power is not None:
                    receive((begun + time.perf_counter()) / 2, power)

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()

        def stop() -> None:
            ended.set()
            thread.join(timeout=2)

        return stop


class SysfsMeter(Meter):
    """A rail in sysfs: the product of the integers in `paths`, times `to_mw`."""

    source = "sysfs"

    def __init__(self, rail: str, paths: Sequence[str], to_mw: float) -> None:
        super().__init__(rail)
        self.paths = paths
        self.to_mw = to_mw

    def read_mw(self) -> Optional[float]:
        power = self.to_mw
        for path in self.paths:
            value = number_of(path)
            if value is None:
                return None
            power *= value
        return power


class TegrastatsMeter(Meter):
    """A rail in the output of `program`; the time of a line is that of its arrival."""

    source = "tegrastats"

    def __init__(self, rail: str, program: str) -> None:
        super().__init__(rail)
        self.program = program

    def start(self, receive: Receive) -> Callable[[], None]:
        """Start as `Meter.start` does.

        Raises:
            OSError: the program cannot be started.
        """

        def take(seconds: float, line: str) -> None:
            power = parse_tegrastats(line)["rails"].get(self.rail)
            if power is not None:
                receive(seconds, power)

        return _Tegrastats(self.program, take).stop


class _Tegrastats:
    """A program in a process group of its own; `receive` is called with each line of its output."""

    def __init__(self, program: str, receive: Callable[[float, str], None]) -> None:
        silent = subprocess.DEVNULL
        self.process = subprocess.Popen([program, "--interval", str(INTERVAL_MS)], stdin=silent,
                                        stdout=subprocess.PIPE, stderr=silent, start_new_session=True)  # fmt: skip
        assert self.process.stdout is not None
        stream = self.process.stdout

        def read() -> None:
            with stream:
                for line in iter(lambda: stream.readline(_LONGEST_LINE), b""):
                    receive(time.perf_counter(), line.decode("utf-8", "replace"))

        self.thread = threading.Thread(target=read, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End the process group and reap the program, also if it has ended."""
        for ending in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, ending)  # not reaped yet, so the number still belongs to this group
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=1)
                break
        self.thread.join(timeout=2)


def find_meter(root: str = "/", tegrastats: Optional[str] = None) -> Tuple[Optional[Meter], str]:
    """Return the meter of the whole board, sysfs before `tegrastats` (default: on PATH), or None and the reason."""
    rails = list(_sysfs_rails(root))
    names = {meter.rail for meter in rails}
    for total in TOTALS:
        for meter in rails:
            if meter.rail == total and meter.read_mw() is not None:
                return meter, ""
    program = tegrastats or shutil.which("tegrastats")
    if program:
        printed = _tegrastats_rails(program)
        names.update(printed)
        for total in TOTALS:
            if total in printed:
                return TegrastatsMeter(total, program), ""
    unread = [name for name in TOTALS if name in names]
    if unread:
        return None, "the rail {} of this board cannot be read".format(unread[0])
    if names:
        return None, "no rail of this board carries its whole power (found: {})".format(", ".join(sorted(names)))
    return None, "this board has no power sensor that is known: no INA3221 or INA238 in sysfs, no rail in tegrastats"


def _sysfs_rails(root: str) -> Iterator[SysfsMeter]:
    # Thor's INA238 has no label; on other boards a monitor without a label may measure anything.
    thor = "tegra264" in text_of(os.path.join(root, "proc/device-tree/compatible"))
    for folder in [folder for pattern in _HWMON for folder in matches(root, pattern)]:
        chip = text_of(os.path.join(folder, "name"))
        if chip == "ina3221":
            for n in (1, 2, 3):  # in4 to in7 are voltages across the shunts, and their sum
                label = text_of(os.path.join(folder, "in{}_label".format(n)))
                paths = [os.path.join(folder, name.format(n)) for name in ("in{}_input", "curr{}_input")]
                if label and label != "NC":
                    yield SysfsMeter(label, paths, 1e-3)  # mV, mA
        elif chip == "ina238":
            labels = (text_of(os.path.join(folder, name)) for name in ("in1_label", "label"))
            label = next(filter(None, labels), "VIN" if thor else "")
            for names in (["power1_input"], ["in1_input", "curr1_input"]):  # microwatts; mV, mA
                if label:
                    yield SysfsMeter(label, [os.path.join(folder, name) for name in names], 1e-3)
    for folder in matches(root, _IIO):
        for n in (0, 1, 2):
            label = text_of(os.path.join(folder, "rail_name_{}".format(n)))
            if label and label != "NC":
                yield SysfsMeter(label, [os.path.join(folder, "in_power{}_input".format(n))], 1.0)  # mW


def _tegrastats_rails(program: str) -> Dict[str, float]:
    """Return the rails in the first line that has some; empty if the program fails or prints none within 3 s."""
    found: Dict[str, float] = {}
    try:
        running = _Tegrastats(program, lambda _, line: found.update(parse_tegrastats(line)["rails"]))
    except OSError:
        return found
    try:
        until = time.perf_counter() + _FIRST_SAMPLE_S
        while not found and running.thread.is_alive() and time.perf_counter() < until:
            time.sleep(0.01)
    finally:
        running.stop()
    return found


class Recorder:
    """Samples a meter in the background, inside a ``with`` block; a meter that cannot start gives no samples."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self._taken: List[Tuple[float, float]] = []
        self._stop: Callable[[], None] = lambda: None

    def __enter__(self) -> Recorder:
        with contextlib.suppress(OSError):
            self._stop = self.meter.start(lambda seconds, power: self._taken.append((seconds, power)))
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stop()

    def samples(self) -> np.ndarray:
        """Return the samples so far, float64 (n, 2): time.perf_counter seconds, mW."""
        return np.array(list(self._taken), np.float64).reshape(-1, 2)


def measure_energy(
    infer: Infer, inputs: Sequence[np.ndarray], seconds: float, meter: Meter, pause: float = 1.0
) -> Tuple[Dict[str, Any], np.ndarray]:
    """Sample the idle board for `seconds`, then the board during back-to-back inference for `seconds`.

    Waits `pause` seconds first, because the sensors average over the past. Times are seconds since the first
    sample.

    Returns:
        ``power_rail``, ``power_source``, ``power_idle_until_s`` (idle since 0), ``power_busy_from_s``,
        ``power_busy_until_s``, ``power_queries`` and, where the samples are too few, ``power_why_not``; and the
        samples, float64 (n, 2) of seconds and mW.
    """
    time.sleep(pause)
    with Recorder(meter) as recorder:
        began = time.perf_counter()
        while not len(recorder.samples()) and time.perf_counter() < began + _FIRST_SAMPLE_S:
            time.sleep(0.01)
        if not len(recorder.samples()):
            seconds = 0.0  # the meter gives no samples
        time.sleep(seconds)
        idle_until = busy_from = busy_until = time.perf_counter()
        queries = 0
        while busy_until < busy_from + seconds:
            infer(inputs[queries % len(inputs)])
            queries += 1
            busy_until = time.perf_counter()
        time.sleep(_TAIL_S)
    samples = recorder.samples()
    zero = float(samples[0, 0]) if len(samples) else began
    samples[:, 0] -= zero
    found: Dict[str, Any] = {
        "power_rail": meter.rail,
        "power_source": meter.source,
        "power_idle_until_s": idle_until - zero,
        "power_busy_from_s": busy_from - zero,
        "power_busy_until_s": busy_until - zero,
        "power_queries": queries,
    }
    ends = (idle_until - zero, busy_from - zero, busy_until - zero)
    idle, before_busy, until_end = (int((samples[:, 0] <= end).sum()) for end in ends)
    busy = until_end - before_busy
    if min(idle, busy) < LEAST_SAMPLES:
        found["power_why_not"] = "{} gave {} samples of {} while idle and {} while busy; {} are needed".format(
            meter.source, idle, meter.rail, busy, LEAST_SAMPLES
        )
    return found, samples
