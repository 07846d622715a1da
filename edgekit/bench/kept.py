"""What the files of a kept result must hold before anything is made of it: they may be damaged, or from anybody."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import DataError

TIMES = ("latencies_ns", "compute_ns", "warmup_ns", "offline_ns")
RAW = ("logits", "expected", "power")
# The least and the most of what is computed with.
_WHOLE = {
    "threads": (1, 10**6), "batch": (1, 10**6), "offline_images": (0, 10**9), "timed_together": (1, 10**9),
    "warmup_queries": (0, 10**12), "cores": (0, 10**6),
}  # fmt: skip
_NUMBERS = ("busy_before", "peak_rss_mb", "layers_run_ms", "macs", "bytes_moved", "peak_tops", "bandwidth_gb_s",
            "peaks_busy")  # fmt: skip
_TEXTS = ("runtime", "version", "processor")
# Of an artifact's details, what is more than shown.
_DETAILS = ("calibration_sha256", "host_runtime")
_LARGEST, _MOST_BYTES, _MOST_MS = 1e18, 2**53, 1e9
_MOST_LAYERS, _MOST_RAW = 5000, 2**31
_HINT = "remove it, or restore it; edgekit benchmark measures again"


def check(described: Mapping[str, Any], path: Path) -> None:
    """
    Raises:
        DataError: the description at `path` says what no edgekit wrote; with what it is.
    """
    if wrong := _wrong(described):
        raise DataError(f"{path} is damaged: {wrong}", _HINT)


def _wrong(described: Mapping[str, Any]) -> str:
    """What is not as it must be; "" is nothing."""
    environment, artifact = described["environment"], described["artifact"]
    if not isinstance(environment, dict) or not isinstance(artifact, dict):
        return "its environment or artifact is no table"
    named = {name: described[name] for name in ("device", "runtime", "source")}
    named.update({f"environment.{name}": environment.get(name) for name in _TEXTS})
    named.update(
        {f"details.{name}": text for name, text in _table(artifact.get("details")).items() if name in _DETAILS}
    )
    for name, value in named.items():
        if not isinstance(value, str):
            return f"{name} is no text"
    if not _is_whole(described["size_bytes"], 0, _MOST_BYTES):
        return "size_bytes is no size"
    if "threads" not in environment:
        return "environment.threads is missing"
    for name, (least, most) in _WHOLE.items():
        if name in environment and not _is_whole(environment[name], least, most):
            return f"environment.{name} is no number from {least} to {most}"
    for name in _NUMBERS:
        if name in environment and not _is_number(environment[name], -_LARGEST, _LARGEST):
            return f"environment.{name} is no number"
    layers = described.get("layers", [])
    if not isinstance(layers, list) or len(layers) > _MOST_LAYERS or not all(map(_is_layer, layers)):
        return "layers is no list of names and times"
    return ""


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _is_layer(value: Any) -> bool:
    pair = isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
    return pair and _is_number(value[1], 0, _MOST_MS)


def _is_whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: Any, least: float, most: float) -> bool:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return known and least <= value <= most and math.isfinite(value)


def raw(path: Path) -> dict[str, Any]:
    """The raw values of a result, by the names of `BenchmarkResult`; times as tuples.

    Raises:
        DataError: the file is damaged, or holds what no edgekit wrote.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MOST_RAW:
                raise DataError(f"{path} is damaged: it unpacks to more than {_MOST_RAW} bytes", _HINT)
        with np.load(path, allow_pickle=False) as values:
            found = {name: values[name] for name in (*RAW, *TIMES) if name in values}
    except (ValueError, OSError, EOFError, MemoryError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}", _HINT) from None
    if wrong := next((name for name, of in _SHAPES.items() if not of(found.get(name))), None):
        raise DataError(f"{path} is damaged: {wrong} is not what a measurement gives", _HINT)
    return {name: tuple(v.astype(np.int64).tolist()) if name in TIMES else v for name, v in found.items()}


def _are_times(values: np.ndarray | None) -> bool:
    if values is None:
        return True
    whole = values.ndim == 1 and (values.dtype.kind in "iu" or not len(values))
    return whole and bool((values > 0).all())


_SHAPES: dict[str, Callable[[np.ndarray | None], bool]] = {
    **dict.fromkeys(TIMES, _are_times),
    "latencies_ns": lambda v: v is not None and _are_times(v),
    "logits": lambda v: v is not None and v.ndim == 2 and v.dtype.kind in "fiu",
    "expected": lambda v: v is not None and v.ndim == 1 and v.dtype.kind in "iu",
    "power": lambda v: v is None or (v.ndim == 2 and v.dtype.kind in "fiu"),
}
