"""What the files of a kept result must hold before anything is made of it: they may be damaged, or from anybody."""

from __future__ import annotations

import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import __version__, files
from edgekit.config import from_table
from edgekit.errors import DataError, EdgekitError, raise_if_not_damage
from edgekit.measurements import BenchmarkResult
from edgekit.records import Artifact

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


def check_document(described: Mapping[str, Any], path: Path) -> None:
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


def read_raw(path: Path) -> dict[str, Any]:
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
        raise_if_not_damage(error, path)
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
# Where results lie in a run: each in files of its own, which nothing overwrites.

_NAME = re.compile(r"(?P<slug>.+)@(?P<number>[0-9]{4,9})-(?P<time>[0-9]{8}T[0-9]{6}Z)-[0-9a-f]{8}")


def slug(name: str) -> str:
    """A file name out of an artifact's or a device's name; different names stay different."""
    slug = re.sub(r"[^A-Za-z0-9._-]", "_", name.replace("/", "__")).lstrip(".")
    return slug if slug == name.replace("/", "__") else f"{slug}-{files.sha256_text([name])[:8]}"


def free_stem(folder: Path, artifact: str, measured: object, digest: str) -> str:
    """The name, without suffix, of the next result of an artifact in a device's folder.

    Args:
        measured: when, ISO 8601; anything else is now. digest: of what is kept, hexadecimal.
    """
    own = slug(artifact)
    number = 1 + max((order(path)[0] for path in folder.glob("*.json") if _slug_of(path) == own), default=0)
    return f"{own}@{number:04d}-{_stamp(measured)}-{digest[:8]}"


def order(path: Path) -> tuple[int, str, str]:
    """What the results of one artifact on one device are sorted by; the newest is the highest."""
    match = _NAME.fullmatch(path.name.removesuffix(".json"))
    return (int(match["number"]), match["time"], path.name) if match else (0, "", path.name)


def newest(paths: Iterable[Path]) -> list[Path]:
    """Of each artifact on each device the newest file, sorted."""
    found: dict[tuple[Path, str], Path] = {}
    for path in paths:
        key = (path.parent, _slug_of(path))
        if key not in found or order(path) > order(found[key]):
            found[key] = path
    return sorted(found.values())


def _slug_of(path: Path) -> str:
    name = path.name.removesuffix(".json")
    match = _NAME.fullmatch(name)
    return match["slug"] if match else name


def _stamp(measured: object) -> str:
    now = datetime.now(timezone.utc)
    try:
        when = datetime.fromisoformat(str(measured).replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        when = now
    return f"{when if when.year >= 1970 else now:%Y%m%dT%H%M%SZ}"


SCHEMA = 1
_DESCRIBED = ("artifact", "device", "runtime", "source", "environment", "size_bytes", "layers")


def save(folder: Path, result: BenchmarkResult) -> Path:
    """Keep a result beside the earlier ones: ``<device>/<artifact>@....npz`` (raw values) and, last, the .json that
    describes it. Returns the path of the latter.
    """
    home = folder / slug(result.device)
    with files.staging(home) as staging:
        raw = staging / "raw.npz"
        values: dict[str, Any] = {name: np.array(getattr(result, name), np.int64) for name in TIMES}
        values.update({name: getattr(result, name) for name in RAW if getattr(result, name) is not None})
        np.savez_compressed(raw, **values)
        digest = files.sha256_file(raw)
        stem = free_stem(home, result.artifact.name, result.environment.get("measured"), digest)
        with files.writing(home / f"{stem}.npz") as temporary:
            os.replace(raw, temporary)
    described: dict[str, Any] = {"schema": SCHEMA, "edgekit": __version__, "raw_sha256": digest}
    for name in _DESCRIBED:
        described[name] = getattr(result, name)
    files.save_json(home / f"{stem}.json", described)
    return home / f"{stem}.json"


def load(folder: Path, damaged: Callable[[str], None] | None = None) -> list[BenchmarkResult]:
    """The newest result of each artifact on each device below `folder`, sorted by device and artifact.

    Args:
        damaged: hears of each that cannot be read, by name, which is left out then; without it that is an error.

    Raises:
        EdgekitError: as `load_file`.
    """
    return list(_load_each(newest(folder.glob("*/*.json")), damaged))


def load_all(folder: Path, damaged: Callable[[str], None] | None = None) -> list[BenchmarkResult]:
    """Every result below `folder`, also those that were measured again since; the older ones first.

    Raises:
        As `load`.
    """
    return list(_load_each(sorted(folder.glob("*/*.json"), key=lambda p: (p.parent, order(p))), damaged))


def _load_each(paths: Iterable[Path], damaged: Callable[[str], None] | None) -> Iterator[BenchmarkResult]:
    for path in paths:
        try:
            yield load_file(path)
        except EdgekitError as error:
            if damaged is None:
                raise
            damaged(f"left out: {error.message}")


def load_file(path: Path) -> BenchmarkResult:
    """The result that a .json and the .npz beside it hold.

    Raises:
        DataError: either is damaged, or raw values do not belong to their description. StorageError: a newer edgekit
            wrote it.
    """
    described = files.load_document(path, SCHEMA, "raw_sha256", *_DESCRIBED[:-1])
    check_document(described, path)
    raw = path.with_name(path.name.removesuffix(".json") + ".npz")
    if not raw.is_file() or files.sha256_file(raw) != described["raw_sha256"]:
        raise DataError(f"{raw} does not belong to {path.name}", "edgekit benchmark")
    layers = tuple((name, float(ms)) for name, ms in described.get("layers", ()))
    fields = {**read_raw(raw), **{k: described[k] for k in _DESCRIBED if k not in ("artifact", "layers")}}
    try:
        artifact = from_table(described["artifact"], Artifact, "artifact")
        return BenchmarkResult(artifact=artifact, layers=layers, **fields)
    except EdgekitError as error:
        raise DataError(f"{path} is damaged: {error.message}", error.hint) from None
