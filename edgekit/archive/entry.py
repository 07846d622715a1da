"""One line of the history: what a kept result says in short, and what telling two results apart needs.

An `Entry` is made from a result's files, and is all that an index, a team's database or a reference file has of it: the
comparison of two gives the same everywhere.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
import zipfile
import zlib
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import files, runs
from edgekit.bench import program, results
from edgekit.bench.replies import plain
from edgekit.errors import DataError, EdgekitError, raise_if_not_damage
from edgekit.labels import visible
from edgekit.measurements import BUSY, SOURCES, BenchmarkResult, ProgramResult
from edgekit.stats.latency import percentiles_ms, settled

_MOST_TEXT, _MOST_KEYS = 200, 300
_MOST_JSON, _MOST_RAW, _MOST_PACKED = 1 << 24, 1 << 31, 1 << 26
# Of a longer series so many stretches of so many queries in a row are kept: drift and autocorrelation stay in it.
_STRETCHES, _STRETCH = 64, 32
MOST_KEPT = _STRETCHES * _STRETCH
_ID = 8


@dataclass(frozen=True)
class Samples:
    """What significance needs.

    Attributes:
        latencies_ns: int64, those that count, in their order; at most 2,048, in stretches from the whole series.
        answers: int64, per image the class of the highest score. right: bool, whether it is the expected one.
    """

    latencies_ns: np.ndarray
    answers: np.ndarray
    right: np.ndarray

    def packed(self) -> dict[str, bytes]:
        """As bytes, by column."""
        return {
            "latencies": zlib.compress(self.latencies_ns.astype("<i8").tobytes()),
            "answers": zlib.compress(self.answers.astype("<u4").tobytes()),
            "right": zlib.compress(self.right.astype("u1").tobytes()),
        }


PACKED = ("latencies", "answers", "right")


def unpack(packed: dict[str, bytes]) -> Samples:
    """What `Samples.packed` gave.

    Raises:
        DataError: it is something else.
    """
    try:
        latencies, answers, right = (
            np.frombuffer(_inflate(packed[name]), kind) for name, kind in zip(PACKED, ("<i8", "<u4", "u1"))
        )
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise DataError(f"the samples of a result are damaged: {error}", "remove the reference or the row") from None
    if len(answers) != len(right) or (latencies <= 0).any() or (right > 1).any():
        raise DataError("the samples of a result are none that edgekit kept", "remove the reference or the row")
    return Samples(latencies.astype(np.int64), answers.astype(np.int64), right.astype(bool))


def _inflate(content: bytes) -> bytes:
    opened = zlib.decompressobj()
    found = opened.decompress(content, _MOST_PACKED)
    if not opened.eof:
        raise ValueError("too long, or cut off")
    return found


@dataclass(frozen=True)
class Entry:
    """A kept result in short.

    Attributes:
        sha256: of its .json, which holds the hash of the raw values: with `run` what a row is known by.
        number: which measurement of this artifact on this device it is, in its run; 0 is of the former layout.
        measured: when, UTC, ISO 8601. kind: "measured", or "program" for the figures of a program.
        model: the network. runtime, version: what ran it. images_sha256: of the test images and their labels, ""
            where that is not known. batch: images in a query, of which the latencies are.
        queries, warmup: that count, and that were taken off before them because the series had not settled yet.
        p50_ms, p90_ms: of a query, p90 the early-stopping estimate; None where the samples cannot carry it, and of
            emulation. samples: None where not asked for.
    """

    sha256: str
    run: str
    number: int
    measured: str
    kind: str
    device: str
    artifact: str
    model: str
    precision: str
    source: str
    runtime: str
    version: str
    edgekit: str
    threads: int
    batch: int
    cpu: str
    artifact_sha256: str
    weights_sha256: str
    images_sha256: str
    size_bytes: int
    queries: int
    p50_ms: float | None
    p90_ms: float | None
    images: int
    correct: int
    environment: dict[str, Any]
    warmup: int = 0
    samples: Samples | None = None

    @property
    def id(self) -> str:
        """What the user types to name it."""
        return self.sha256[:_ID]

    @property
    def busy(self) -> bool:
        """Whether other work took much of the machine just before."""
        load = self.environment.get("busy_before", -1)
        return isinstance(load, int | float) and load > BUSY

    @property
    def top1(self) -> float | None:
        """Percent; None where no image was judged."""
        return 100 * self.correct / self.images if self.images else None


@dataclass(frozen=True)
class About:
    """What a run says of all its results: its name, the network, and the hash and number of its test images."""

    folder: Path
    run: str
    model: str
    images_sha256: str
    images: int


def about(run: Path) -> About:
    """What stands in a run's run.json and data.json; nothing is made of what cannot be read there."""
    model, digest, images = "", "", 0
    try:
        model = text(files.load_document(run / runs.RUN_FILE, runs.SCHEMA).get("arch", ""))
        data = files.load_json(run / "data.json")
        test = [f"{s['label']} {s['sha256']}" for s in data["samples"] if s["split"] == "test"]
        digest, images = files.sha256_text([*map(str, data["labels"]), "", *test]), len(test)
    except (EdgekitError, KeyError, TypeError, AttributeError, OSError, ValueError):
        pass
    return About(run, text(run.name), model, digest, images)


def read(path: Path, of: About) -> Entry:
    """The entry of one .json of a run's bench folder.

    Raises:
        DataError: it, or the raw values beside it, are damaged. StorageError: a newer edgekit wrote it.
    """
    try:
        if path.stat().st_size > _MOST_JSON:
            raise DataError(f"{path} is no result: it has {path.stat().st_size} bytes")
        content = path.read_bytes()
        if path.relative_to(of.folder).parts[2:3] == (program.NAME,):
            return _of_program(program.load_file(path), path, content, of)
        _check_raw(path.with_name(path.name.removesuffix(".json") + ".npz"))
        return _of_result(results.load_file(path), path, content, of)
    except (EdgekitError, ValueError, OSError, KeyError, TypeError, AttributeError, IndexError, OverflowError,
            MemoryError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:  # fmt: skip
        raise_if_not_damage(error, path)
        raise DataError(f"{path} is damaged: {type(error).__name__}: {error}", "remove it, or restore it") from error


def _check_raw(path: Path) -> None:
    """Refuse what would fill the memory."""
    if path.is_file():
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MOST_RAW:
                raise DataError(f"{path} unpacks to more than {_MOST_RAW} bytes")


def _of_result(result: BenchmarkResult, path: Path, content: bytes, of: About) -> Entry:
    emulated = result.source == "emulated"
    answers = result.logits.argmax(1) if len(result.logits) else np.zeros(0, np.int64)
    right = answers == result.expected
    latencies = settled(() if emulated else result.latencies_ns, result.warmup_ns)
    p50, p90, _ = percentiles_ms(latencies, result.environment)
    entry = _common(result, path, content, of)
    return dataclasses.replace(
        entry,
        images_sha256=of.images_sha256 if of.images == len(right) else "",
        queries=len(result.latencies_ns) if emulated else len(latencies),
        warmup=0 if emulated else len(result.latencies_ns) - len(latencies),
        p50_ms=p50,
        p90_ms=p90,
        images=len(right),
        correct=int(right.sum()),
        samples=Samples(thinned(latencies), answers.astype(np.int64), right),
    )


def _of_program(result: ProgramResult, path: Path, content: bytes, of: About) -> Entry:
    entry = _common(result, path, content, of)
    none = np.zeros(0, np.int64)
    return dataclasses.replace(
        entry,
        kind="program",
        runtime=text(result.program),
        version=text(result.program_sha256[:12]),
        queries=result.figures.runs,
        p50_ms=None if result.source == "emulated" else result.figures.median_ms,
        samples=Samples(none, none, none.astype(bool)),
    )


def _common(result: BenchmarkResult | ProgramResult, path: Path, content: bytes, of: About) -> Entry:
    artifact = result.artifact
    environment = {text(k): plain(v) for k, v in list(result.environment.items())[:_MOST_KEYS]}
    return Entry(
        sha256=hashlib.sha256(content).hexdigest(),
        run=of.run,
        number=results.order(path)[0],
        measured=moment(environment.get("measured")) or moment(path.stat().st_mtime) or "",
        kind="measured",
        device=text(result.device),
        artifact=text(artifact.name),
        model=of.model,
        precision=artifact.precision,
        source=result.source,
        runtime=text(environment.get("runtime", "")),
        version=text(environment.get("version", "")),
        edgekit=text(environment.get("edgekit", "")),
        threads=_whole(environment.get("threads"), 1),
        batch=max(1, _whole(environment.get("batch"), 1)),
        cpu=text(environment.get("cpu") or environment.get("board") or ""),
        artifact_sha256=text(artifact.sha256),
        weights_sha256=text(artifact.parent),
        images_sha256="",
        size_bytes=_whole(result.size_bytes, 0),
        queries=0,
        p50_ms=None,
        p90_ms=None,
        images=0,
        correct=0,
        environment=environment,
    )


def thinned(latencies_ns: np.ndarray) -> np.ndarray:
    """At most 2,048 latencies: stretches of 32 queries in a row, evenly over the series."""
    if len(latencies_ns) <= MOST_KEPT:
        return latencies_ns
    starts = np.linspace(0, len(latencies_ns) - _STRETCH, _STRETCHES).astype(np.int64)
    return np.asarray(latencies_ns[(starts[:, None] + np.arange(_STRETCH)).ravel()])


def moment(value: Any) -> str | None:
    """A time of a file or in ISO 8601, as UTC to the second; None where it is none."""
    try:
        if isinstance(value, float):
            when = datetime.fromtimestamp(value, timezone.utc)
        else:
            when = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
        when = when.replace(tzinfo=when.tzinfo or timezone.utc).astimezone(timezone.utc)
    except (ValueError, OverflowError, OSError):
        return None
    return when.isoformat(timespec="seconds")


def text(value: Any) -> str:
    """As every name is kept: short and printable."""
    return visible(str(value)[:_MOST_TEXT])[:_MOST_TEXT]


def _whole(value: Any, otherwise: int) -> int:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53
    return int(value) if fits else otherwise


# Entries that came from elsewhere, out of a database or a reference file: checked, and believed in nothing.

_FOREIGN_MOST_KEYS, _MOST_NUMBER, _MOST_MS = 300, 2**53, 1e12
_KINDS = ("measured", "program")
_HASH = re.compile("[0-9a-f]{64}")
_FIELDS = {f.name: str(f.type) for f in dataclasses.fields(Entry) if f.name != "samples"}


def checked(row: dict[str, Any], where: str) -> Entry:
    """The entry that a row says, its texts made short and printable.

    Raises:
        DataError: edgekit did not write it; `where` names it.
    """
    try:
        if missing := [name for name in _FIELDS if name not in row]:
            raise ValueError(f"{', '.join(missing)} missing")
        if more := [name for name in row if name not in _FIELDS]:
            raise ValueError(f"{text(more[0])} is not known")
        entry = Entry(**{name: _value(name, row[name], kind) for name, kind in _FIELDS.items()})
        _check(entry)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"{where} is none that edgekit wrote: {text(error)}", "remove it, or make it again") from None
    return entry


def _value(name: str, value: Any, kind: str) -> Any:
    if kind == "str" and isinstance(value, str):
        return text(value)
    if kind == "int" and type(value) is int and 0 <= value < _MOST_NUMBER:
        return value
    if kind == "float | None" and value is None:
        return None
    if kind == "float | None" and type(value) in (int, float) and math.isfinite(value) and 0 < value < _MOST_MS:
        return float(value)
    if kind == "dict[str, Any]" and isinstance(value, dict) and len(value) <= _FOREIGN_MOST_KEYS:
        return {text(key): plain(one) for key, one in value.items()}
    raise ValueError(f"{name} cannot be {text(repr(value))}")


def _check(entry: Entry) -> None:
    for name, fits in (
        ("sha256", _HASH.fullmatch(entry.sha256)),
        ("measured", not entry.measured or moment(entry.measured) == entry.measured),
        ("kind", entry.kind in _KINDS),
        ("source", entry.source in SOURCES),
        ("batch", entry.batch >= 1),
        ("correct", entry.correct <= entry.images),
    ):
        if not fits:
            raise ValueError(f"{name} cannot be {text(repr(getattr(entry, name)))}")


def joined(entry: Entry, packed: dict[str, bytes], where: str) -> Entry:
    """An entry with its samples.

    Raises:
        DataError: they are damaged, or another's.
    """
    try:
        samples = unpack(packed)
    except DataError as error:
        raise DataError(f"{where}: {error.message}", error.hint) from None
    return _fitting(dataclasses.replace(entry, samples=samples), where)


def sound(entry: Entry, where: str) -> Entry:
    """An entry with its samples as it is, if it would be believed when it comes back.

    Raises:
        DataError: it would not.
    """
    checked({name: getattr(entry, name) for name in _FIELDS}, where)
    return _fitting(entry, where)


def _fitting(entry: Entry, where: str) -> Entry:
    assert entry.samples is not None
    kept, right = entry.samples.latencies_ns, entry.samples.right
    if (len(right), int(right.sum())) != (entry.images, entry.correct) or len(kept) > min(MOST_KEPT, entry.queries):
        raise DataError(f"{where} has samples that do not belong to it", "remove it, or make it again")
    return entry
