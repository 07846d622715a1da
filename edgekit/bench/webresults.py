"""What a browser says, believed in nothing: its name, its circumstances, its latencies, its logits."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.errors import DataError
from edgekit.labels import visible
from edgekit.measurements import BROWSERS

# How a browser runs a model: on one thread, on several (a cross-origin isolated page only), on the GPU.
MODES = ("wasm", "threads", "webgpu")
_SUFFIX = {"wasm": "", "threads": ", threads", "webgpu": ", WebGPU"}
# Of what a browser says of itself: numbers with their limits, switches, texts. Nothing else is kept.
_NUMBERS = {
    "threads": (1, 1024),
    "cores": (1, 4096),
    "memory_gb": (0, 4096),
    "clock_step_ns": (1, 10_000_000_000),
    "timed_together": (1, 100_000),
    "warmup_queries": (0, 100_000_000),
    "load_ms": (0, 86_400_000),
    "compile_ms": (0, 86_400_000),
}
_WHOLE = ("threads", "cores", "clock_step_ns", "timed_together", "warmup_queries")
_SWITCHES = ("isolated", "secure", "was_hidden", "fully_accelerated")
_TEXTS = ("build", "gpu")
_NEEDED = ("threads", "clock_step_ns", "timed_together", "warmup_queries", *_SWITCHES)
_MOST_LATENCIES, _LONGEST_NS = 1_000_000, 3_600_000_000_000
_MOST_TEXT, _MOST_NAME = 200, 40
# The first that fits names the browser: what imitates another one stands before it.
_BROWSERS = (
    ("Edge", r"Edg(?:e|A|iOS)?/(\d+)"),
    ("Opera", r"OPR/(\d+)"),
    ("Samsung Internet", r"SamsungBrowser/(\d+)"),
    ("Firefox", r"(?:Firefox|FxiOS)/(\d+)"),
    ("Headless Chrome", r"HeadlessChrome/(\d+)"),
    ("Chrome", r"(?:Chrome|CriOS)/(\d+)"),
    ("Safari", r"Version/(\d+)[\d.]* (?:Mobile/\w+ )?Safari/"),
)
_PLATFORMS = ("iPhone", "iPad", "Android", "Windows", "CrOS", "Macintosh", "Linux")


@dataclass(frozen=True)
class Said:
    """One finished measurement, as a browser described it and as it was checked."""

    environment: dict[str, Any]
    latencies_ns: tuple[int, ...]


def parse(body: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: anything else, also NaN and numbers without end.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"no JSON: {visible(str(error))[:_MOST_TEXT]}") from None
    if not isinstance(value, dict):
        raise DataError("no JSON object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def whole(said: Mapping[str, Any], key: str, least: int, most: int) -> int:
    """The whole number that `said` has under `key`.

    Raises:
        DataError: there is none, or one outside the limits.
    """
    value = said.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise DataError(f"{key} must be a whole number from {least} to {most}")
    return value


def mode(said: Mapping[str, Any]) -> str:
    """Which of `MODES` is meant.

    Raises:
        DataError: none of them.
    """
    value = said.get("mode")
    if value not in MODES:
        raise DataError(f"mode must be one of {', '.join(MODES)}")
    return str(value)


def measurement(said: Mapping[str, Any]) -> Said:
    """``{"latencies_ns": [...], "environment": {...}}``, checked.

    Raises:
        DataError: it is not what the page sends.
    """
    latencies, told = said.get("latencies_ns"), said.get("environment")
    if not isinstance(latencies, list) or not 1 <= len(latencies) <= _MOST_LATENCIES:
        raise DataError(f"latencies_ns must be a list of 1 to {_MOST_LATENCIES} numbers")
    if not all(type(ns) is int and 0 < ns <= _LONGEST_NS for ns in latencies):
        raise DataError("latencies_ns must be whole nanoseconds above zero, of an hour at most")
    if not isinstance(told, dict):
        raise DataError("environment must be an object")
    if missing := [name for name in _NEEDED if name not in told]:
        raise DataError(f"environment lacks {', '.join(missing)}")
    environment: dict[str, Any] = {}
    for name, (least, most) in _NUMBERS.items():
        if told.get(name) is not None:
            environment[name] = _number(told[name], name, least, most)
    for name in _SWITCHES:
        if not isinstance(told[name], bool):
            raise DataError(f"{name} must be true or false")
        environment[name] = told[name]
    for name in _TEXTS:
        if name in told:
            environment[name] = text(told[name])
    if missing := [name for name in _NEEDED if name not in environment]:
        raise DataError(f"environment lacks {', '.join(missing)}")
    return Said(environment, tuple(latencies))


def _number(value: Any, name: str, least: float, most: float) -> int | float:
    kinds = (int,) if name in _WHOLE else (int, float)
    if type(value) not in kinds or not least <= value <= most:
        raise DataError(f"{name} must be a {'whole ' if name in _WHOLE else ''}number from {least} to {most}")
    return value if name in _WHOLE else round(float(value), 3)


def logits(body: bytes, samples: int, classes: int) -> np.ndarray:
    """float32 (samples, classes) from little-endian bytes.

    Raises:
        DataError: another number of bytes, or values that are no numbers.
    """
    if len(body) != samples * classes * 4:
        raise DataError(f"{len(body)} bytes are not {classes} float32 each of {samples} images")
    values = np.frombuffer(body, "<f4").reshape(samples, classes).astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError("logits that are no finite numbers")
    return values


def text(value: Any) -> str:
    """Short printable text, whatever it was; nothing for None."""
    return "" if value is None else visible(str(value)[:_MOST_TEXT])[:_MOST_TEXT]


def device_name(user_agent: str, model: str = "") -> str:
    """``web:<phone or system>, <browser and version>``, of plain characters.

    Args:
        model: of the phone, where the browser tells; what user agents say of it is made up.
    """
    found = ((name, re.search(pattern, user_agent)) for name, pattern in _BROWSERS)
    browser = next((f"{name} {match[1][:4]}" for name, match in found if match), "browser")
    platform = next((name for name in _PLATFORMS if name in user_agent), "unknown system")
    plain = re.sub(r"[^A-Za-z0-9 ._()+-]", "", model).strip()[:_MOST_NAME]
    return f"{BROWSERS}{plain or platform}, {browser}"


def in_mode(device: str, way: str) -> str:
    """The name under which the results of one mode are kept; a suffix tells it from the others."""
    return device + _SUFFIX[way]
