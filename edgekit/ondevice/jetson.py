"""State of a Jetson, read from its kernel; on other machines it is empty.

Sources: NVIDIA Jetson Linux Developer Guide, "Platform Power and Performance" (``nvpmodel -q``, devfreq,
``oc*_event_cnt`` of hwmon, INA3221 alarms); the kernel's thermal, devfreq, cpufreq and hwmon sysfs ABI.
Values that this process may not read are left out: most of debugfs needs root.
"""

from __future__ import annotations

import glob
import json
import os
import platform
import re
import subprocess
from typing import Any, Callable, Dict, Iterator, List, Optional

Run = Callable[[List[str]], str]

# Names of the integrated GPU in devfreq: Nano 57000000.gpu, TX2 17000000.gp10b, Xavier 17000000.gv11b, Orin
# 17000000.ga10b or 17000000.gpu, Thor gpu-gpc-0 (its gpu-nvd-0 clocks the video engines).
_GPU = re.compile(r"gpu-gpc-\d+|(?:[0-9a-f]+\.)?(?:gpu|gp10b|gv11b|ga10b|gb10b)")
# The memory's clock: Thor; Xavier and Orin; Nano and TX1.
_EMC = (
    "sys/class/devfreq/bwmgr/cur_freq",
    "sys/kernel/debug/bpmp/debug/clk/emc/rate",
    "sys/kernel/debug/clk/emc/clk_rate",
)
_CHIPS = ("ina3221", "ina238")
_MOST_TEXT = 100


def text_of(path: str) -> str:
    """Return the stripped contents of a small file; "" if it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(4096).strip("\x00 \n")
    except OSError:
        return ""


def number_of(path: str) -> Optional[int]:
    """Return the integer in a sysfs file; None if it has none, or one of 10^12 or more."""
    text = text_of(path)
    return int(text) if re.fullmatch(r"-?[0-9]{1,12}", text) else None


def matches(root: str, pattern: str) -> List[str]:
    """Return the paths below `root` that match a glob pattern, sorted."""
    return sorted(glob.glob(os.path.join(glob.escape(root), pattern)))


def run_command(command: List[str]) -> str:
    """Return the standard output of a command; "" if it cannot be started or takes longer than 5 s."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    silent = subprocess.DEVNULL
    try:
        done = subprocess.run(command, stdin=silent, stdout=subprocess.PIPE, stderr=silent, timeout=5,
                              env=dict(os.environ, PATH=path))  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace")


def state(root: str = "/", run: Run = run_command) -> Dict[str, Any]:
    """Return the current values of everything that affects a measurement; unknown ones are left out.

    ``power_mode`` and ``power_mode_id`` of nvpmodel; ``clocks_locked``: the minimum clock of the GPU is its maximum;
    ``gpu_mhz``, ``gpu_mhz_max``, ``gpu_mhz_min``, ``cpu_mhz`` (core 0), ``emc_mhz``;
    ``temperature_c``: of the hottest zone; ``temperature_gpu_c``; ``throttle_events``: over-current and
    under-voltage events since boot; ``throttle_alarms``: number of over-current alarms that are set, plus number of
    parts of the chip that are throttled because of heat.
    """
    found: Dict[str, Any] = {}
    found.update(_power_mode(root, run))
    found.update(_clocks(root))
    found.update(_temperatures(root))
    found.update(_throttling(root))
    return {name: value for name, value in found.items() if value is not None}


def identity(root: str = "/") -> Dict[str, str]:
    """Return ``module``, ``l4t`` (such as 36.4.3), ``cuda`` and ``machine``; unknown values are left out."""
    tegra = text_of(os.path.join(root, "etc/nv_tegra_release"))
    release = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", tegra)
    found = {
        "module": text_of(os.path.join(root, "proc/device-tree/model")),
        "l4t": "{}.{}".format(*release.groups()) if release else "",
        "cuda": _cuda(text_of(os.path.join(root, "usr/local/cuda/version.json"))),
        "machine": platform.machine(),
    }
    return {name: value[:_MOST_TEXT] for name, value in found.items() if value}


def _cuda(text: str) -> str:
    try:
        return str(json.loads(text)["cuda"]["version"])
    except (ValueError, TypeError, KeyError, RecursionError):
        # The file is longer than the part that was read, or not valid JSON.
        found = re.search(r'"cuda"\s*:\s*\{[^{}]*"version"\s*:\s*"([\d.]+)"', text)
        return found.group(1) if found else ""


def _power_mode(root: str, run: Run) -> Dict[str, Any]:
    """Return the power mode by nvpmodel, else by its files /var/lib/nvpmodel/status and /etc/nvpmodel.conf."""
    said = re.search(r"NV Power Mode: *(\S.*)(?:\n *(\d{1,3}) *$)?", run(["nvpmodel", "-q"]), re.MULTILINE)
    if said:
        number = said.group(2)
        return {"power_mode": said.group(1).strip()[:_MOST_TEXT], "power_mode_id": int(number) if number else None}
    kept = re.search(r"pmode:(\d{1,4})\b", text_of(os.path.join(root, "var/lib/nvpmodel/status")))
    if not kept:
        return {}
    number = str(int(kept.group(1)))
    return {"power_mode": _mode_name(root, number), "power_mode_id": int(number)}


def _mode_name(root: str, number: str) -> Optional[str]:
    try:
        with open(os.path.join(root, "etc/nvpmodel.conf"), encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 20)
    except OSError:
        return None
    names = dict(re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\w+)\s*>", text))
    return names[number][:_MOST_TEXT] if number in names else None


def _clocks(root: str) -> Dict[str, Any]:
    found: Dict[str, Any] = {}
    gpu = _gpu(root)
    if gpu:
        lowest, highest = (number_of(os.path.join(gpu, name)) for name in ("min_freq", "max_freq"))
        found["gpu_mhz"] = _mhz(number_of(os.path.join(gpu, "cur_freq")))
        found["gpu_mhz_min"], found["gpu_mhz_max"] = _mhz(lowest), _mhz(highest)
        found["clocks_locked"] = None if lowest is None or highest is None else lowest == highest
    kilohertz = number_of(os.path.join(root, "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"))
    found["cpu_mhz"] = None if kilohertz is None else kilohertz / 1000
    rates = (number_of(os.path.join(root, path)) for path in _EMC)
    found["emc_mhz"] = _mhz(next((rate for rate in rates if rate is not None), None))
    return found


def _gpu(root: str) -> Optional[str]:
    """Return the devfreq folder of the GPU, by its own name or by that of its device-tree node."""
    for folder in matches(root, "sys/class/devfreq/*"):
        node = text_of(os.path.join(folder, "device/of_node/name"))
        if _GPU.fullmatch(os.path.basename(folder)) or (node and _GPU.fullmatch(node)):
            return folder
    return None


def _mhz(hertz: Optional[int]) -> Optional[float]:
    return None if hertz is None else hertz / 1e6


def _temperatures(root: str) -> Dict[str, Any]:
    """Return temperatures. Zones that are off report -256 C; PMIC-Die of Nano, TX2 and Xavier is a constant."""
    zones: Dict[str, float] = {}
    for folder in matches(root, "sys/class/thermal/thermal_zone*"):
        kind = text_of(os.path.join(folder, "type")).lower()
        value = number_of(os.path.join(folder, "temp"))
        if value is not None and -60_000 < value < 200_000 and "pmic" not in kind:
            zones[kind] = max(value / 1000, zones.get(kind, -60.0))
    gpus = [value for kind, value in zones.items() if kind.startswith("gpu")]
    return {"temperature_c": max(zones.values()) if zones else None, "temperature_gpu_c": max(gpus) if gpus else None}


def _throttling(root: str) -> Dict[str, Any]:
    """Return event counters, which only grow, and alarms, which come and go, as two values."""
    events = [number_of(path) for path in matches(root, "sys/class/hwmon/hwmon*/oc*_event_cnt")]
    counted = [count for count in events if count is not None]
    alarms = [number_of(path) for path in _alarms(root)]
    set_now = [bool(alarm) for alarm in alarms if alarm is not None]
    return {
        "throttle_events": sum(counted) if counted else None,
        "throttle_alarms": sum(set_now) if set_now else None,
    }


def _alarms(root: str) -> Iterator[str]:
    """Return alarms of the power monitors and of NVIDIA's ``<part>-throttle-alert`` cooling devices (0: none)."""
    for folder in matches(root, "sys/class/hwmon/hwmon*"):
        if text_of(os.path.join(folder, "name")) in _CHIPS:
            for pattern in ("curr*_max_alarm", "curr*_crit_alarm", "power*_max_alarm"):
                yield from matches(folder, pattern)
    for folder in matches(root, "sys/class/thermal/cooling_device*"):
        if text_of(os.path.join(folder, "type")).endswith("-throttle-alert"):
            yield os.path.join(folder, "cur_state")
