"""Results of measurements in a run: each in files of its own, which nothing overwrites.

Files may be damaged, or come from anybody, so everything is checked before it is used.
"""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from edgekit import __version__, config, environment, files, validation
from edgekit.errors import DataError, EdgekitError, raise_if_not_damage
from edgekit.measurements import BenchmarkResult
from edgekit.records import Artifact

SCHEMA = 1
TIMES = ("latencies_ns", "compute_ns", "warmup_ns", "offline_ns")
RAW = ("logits", "expected", "power")
_NAME = re.compile(r"(?P<slug>.+)@(?P<number>[0-9]{4,9})-(?P<time>[0-9]{8}T[0-9]{6}Z)-[0-9a-f]{8}")
_MOST_RAW = 2**31
_HINT = "restore it, or keep it elsewhere; edgekit benchmark measures again"


@dataclass(frozen=True)
class _Description:
    """Content of the .json of a result, besides its format and the hash of the raw values."""

    artifact: dict[str, Any]
    device: str
    runtime: str
    source: str
    environment: dict[str, Any]
    size_bytes: Annotated[int, Meta(ge=1, le=2**53)]
    layers: Annotated[list[tuple[str, Annotated[float, Meta(ge=0, le=1e9)]]], Meta(max_length=5000)] = ()  # type: ignore[assignment]


@dataclass(frozen=True)
class _Details:
    """Details of an artifact that are computed with."""

    calibration_sha256: str = ""
    host_runtime: str = ""


def slug(name: str) -> str:
    """Return a file name for an artifact or a device; different names stay different."""
    slug = re.sub(r"[^A-Za-z0-9._-]", "_", name.replace("/", "__")).lstrip(".")
    return slug if slug == name.replace("/", "__") else f"{slug}-{files.sha256_text([name])[:8]}"


def free_stem(folder: Path, artifact: str, measured: object, digest: str) -> str:
    """Return the name, without suffix, of the next result of an artifact in a device's folder.

    Args:
        measured: time, ISO 8601; anything else is now. digest: of the content, hexadecimal.
    """
    own = slug(artifact)
    number = 1 + max((order(path)[0] for path in folder.glob("*.json") if _slug_of(path) == own), default=0)
    return f"{own}@{number:04d}-{_stamp(measured)}-{digest[:8]}"


def order(path: Path) -> tuple[int, str, str]:
    """Return the sort key of results of one artifact on one device; that of the newest is the highest."""
    match = _NAME.fullmatch(path.name.removesuffix(".json"))
    return (int(match["number"]), match["time"], path.name) if match else (0, "", path.name)


def newest(paths: Iterable[Path]) -> list[Path]:
    """Return the newest file of each artifact on each device, sorted."""
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


def save(folder: Path, result: BenchmarkResult) -> Path:
    """Write a result beside the earlier ones, and return the path of its .json.

    ``<device>/<artifact>@....npz`` holds the raw values; the .json, written last, describes them.

    Raises:
        DataError: it could not be read again, such as values from a device that no measurement gives. Nothing is kept.
    """
    home = folder / slug(result.device)
    with files.staging(home) as staging:
        raw = staging / "raw.npz"
        values = {name: getattr(result, name) for name in (*TIMES, *RAW) if getattr(result, name) is not None}
        np.savez_compressed(raw, **values)
        digest = files.sha256_file(raw)
        stem = free_stem(home, result.artifact.name, result.environment.measured, digest)
        described = {
            "schema": SCHEMA,
            "edgekit": __version__,
            "raw_sha256": digest,
            "artifact": result.artifact,
            "device": result.device,
            "runtime": result.runtime,
            "source": result.source,
            "environment": result.environment.table(),
            "size_bytes": result.size_bytes,
            "layers": result.layers,
        }
        _check_kept(staging, described, result)
        with files.writing(home / f"{stem}.npz") as temporary:
            os.replace(raw, temporary)
    files.save_json(home / f"{stem}.json", described)
    return home / f"{stem}.json"


def _check_kept(staging: Path, described: dict[str, Any], result: BenchmarkResult) -> None:
    """Raise a DataError if what is about to be kept could not be read again."""
    path = staging / "raw.json"
    try:
        files.save_json(path, described)
        load_file(path)
    except (ValueError, DataError) as error:
        why = re.sub(rf"^{re.escape(str(staging))}/raw\.(json|npz) is damaged: ", "", str(error))
        raise DataError(
            f"the result of {result.artifact.name} on {result.device} is not kept: {why}",
            "measure again; if this repeats, the device or its runtime answers wrongly",
        ) from error


def load(folder: Path, damaged: Callable[[str], None] | None = None) -> list[BenchmarkResult]:
    """Load the newest result of each artifact on each device below `folder`, sorted by device and artifact.

    Args:
        damaged: is called with a message for each file that cannot be read, which is left out; without it that is an
            error.

    Raises:
        EdgekitError: as `load_file`.
    """
    return list(_load_each(newest(folder.glob("*/*.json")), damaged))


def load_all(folder: Path, damaged: Callable[[str], None] | None = None) -> list[BenchmarkResult]:
    """Load every result below `folder`, the older ones first.

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
    """Load a result from a .json and the .npz beside it.

    Raises:
        DataError: either is damaged, or they do not belong together. StorageError: a newer edgekit wrote it.
    """
    described = files.load_document(path, SCHEMA, "raw_sha256", "artifact", "device", "runtime", "source",
                                    "environment", "size_bytes")  # fmt: skip
    where = f"{path} is damaged"
    found: _Description = validation.convert(described, _Description, where, _HINT)
    validation.convert(found.artifact.get("details", {}), _Details, where, _HINT, "artifact.details")
    circumstances = environment.parse(found.environment, where, environment.REQUIRED, _HINT)
    raw = path.with_name(path.name.removesuffix(".json") + ".npz")
    if not raw.is_file() or files.sha256_file(raw) != described["raw_sha256"]:
        raise DataError(f"{raw} does not belong to {path.name}", "edgekit benchmark")
    try:
        return BenchmarkResult(
            artifact=config.from_table(found.artifact, Artifact, "artifact"),
            device=found.device,
            runtime=found.runtime,
            source=found.source,
            environment=circumstances,
            size_bytes=found.size_bytes,
            layers=tuple(found.layers),
            **read_raw(raw),
        )
    except EdgekitError as error:
        raise DataError(f"{path} is damaged: {error.message}", error.hint) from None


def read_raw(path: Path) -> dict[str, Any]:
    """Read the raw values of a result, by the names of `BenchmarkResult`.

    Raises:
        DataError: the file is damaged, or holds what no measurement gives.
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
    if wrong := next((name for name, is_sound in _SHAPES.items() if not is_sound(found.get(name))), None):
        raise DataError(f"{path} is damaged: {wrong} is not what a measurement gives", _HINT)
    return found


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
