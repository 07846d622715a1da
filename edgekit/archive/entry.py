"""Entries of the history: kept results in short, with the samples that a comparison needs.

An `Entry` is made from the files of a result, and is all that an index, a team's database or a reference file keeps of
it, so that the comparison of two entries is the same everywhere. Entries from elsewhere are untrusted: see `checked`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
import zlib
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import numpy as np
from msgspec import Meta

from edgekit import files, runs, validation
from edgekit.bench import program, results
from edgekit.environment import BUSY, MOST_TEXT, plain
from edgekit.errors import DataError, EdgekitError, raise_if_not_damage
from edgekit.labels import visible
from edgekit.measurements import BenchmarkResult, ProgramResult, TextEnum
from edgekit.stats import proportions
from edgekit.stats.latency import series_of
from edgekit.stats.proportions import NO_ANSWER

Count = Annotated[int, Meta(ge=0, lt=2**53)]
Positive = Annotated[int, Meta(ge=1, lt=2**53)]
Milliseconds = Annotated[float, Meta(gt=0, lt=1e12)] | None

_MOST_KEYS = 300
_MOST_JSON, _MOST_RAW = 1 << 24, 1 << 31
# Images of a result; the samples of that many take 36 MB in memory.
MOST_IMAGES = 1 << 22
# Of a longer series, stretches of consecutive queries are kept, so that drift and autocorrelation stay visible.
_STRETCHES, _STRETCH = 64, 32
MOST_KEPT = _STRETCHES * _STRETCH
_ID = 8


@dataclass(frozen=True)
class Samples:
    """Samples that the significance of a change is computed from.

    Attributes:
        latencies_ns: int64, settled, in their order; at most 2,048, in stretches from the whole series.
        answers: int64 (images,), the classes with the highest score, or `proportions.NO_ANSWER`.
        right: bool (images,), the answers that are right.
    """

    latencies_ns: np.ndarray
    answers: np.ndarray
    right: np.ndarray

    def packed(self) -> dict[str, bytes]:
        """Return the samples as bytes, by column of the database."""
        return {
            "latencies": zlib.compress(self.latencies_ns.astype("<i8").tobytes()),
            "answers": zlib.compress(self.answers.astype("<i4").tobytes()),
            "right": zlib.compress(self.right.astype("u1").tobytes()),
        }


PACKED = ("latencies", "answers", "right")


def unpack(packed: dict[str, bytes], images: int) -> Samples:
    """Read what `Samples.packed` wrote for a result on a number of images; it never unpacks more than they have.

    Raises:
        DataError: the bytes are damaged.
    """
    try:
        latencies, answers, right = (
            np.frombuffer(_inflate(packed[name], count * np.dtype(kind).itemsize), kind)
            for name, kind, count in zip(PACKED, ("<i8", "<i4", "u1"), (MOST_KEPT, images, images))
        )
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise DataError(
            f"the samples of a result are damaged: {error}",
            "make the reference again; in a database, leave out the row",
        ) from None
    unsound = (latencies <= 0).any() or (right > 1).any() or (answers < NO_ANSWER).any()
    if len(answers) != len(right) or unsound:
        raise DataError(
            "the samples of a result were not written by edgekit",
            "make the reference again; in a database, leave out the row",
        )
    return Samples(latencies.astype(np.int64), answers.astype(np.int64), right.astype(bool))


def _inflate(content: bytes, most: int) -> bytes:
    opened = zlib.decompressobj()
    found = opened.decompress(content, most + 1)
    if not opened.eof or len(found) > most:
        raise ValueError("too long, or cut off")
    return found


class Kind(TextEnum):
    """Origin of the figures of an entry: measured by edgekit, or printed by a program."""

    MEASURED = "measured"
    PROGRAM = "program"


@dataclass(frozen=True)
class Entry:
    """A kept result in short.

    Attributes:
        sha256: of its .json, which holds the hash of the raw values; with `run` the key of a row.
        number: of the measurement of this artifact on this device, in its run; 0: of the former layout.
        measured: time, UTC, ISO 8601.
        model: name of the network. runtime, version: what ran it. images_sha256: of the test images and their labels,
            "" if unknown. batch: images in a query.
        queries, warmup: that count, and that were cut off before them as start-up.
        p50_ms, p90_ms: latency of a query; p90 is the early-stopping estimate. None where there are too few samples,
            and of emulators.
        environment: flat table of `Environment`, short and printable. samples: None where they were not asked for.
    """

    sha256: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    run: str
    number: Count
    measured: str
    kind: Kind
    device: str
    artifact: str
    model: str
    precision: str
    source: Literal["device", "host", "emulated"]
    runtime: str
    version: str
    edgekit: str
    threads: Count
    batch: Positive
    cpu: str
    artifact_sha256: str
    weights_sha256: str
    images_sha256: str
    size_bytes: Count
    queries: Count
    p50_ms: Milliseconds
    p90_ms: Milliseconds
    images: Count
    correct: Count
    environment: Annotated[dict[str, Any], Meta(max_length=_MOST_KEYS)]
    warmup: Count = 0
    samples: Samples | None = None

    @property
    def id(self) -> str:
        """The beginning of the hash, by which users name the result."""
        return self.sha256[:_ID]

    @property
    def busy(self) -> bool:
        """True if other work took much of the machine just before."""
        load = self.environment.get("busy_before", -1)
        return isinstance(load, int | float) and load > BUSY

    @property
    def top1(self) -> float | None:
        """Top-1 in percent; None where there are no images."""
        return 100 * self.correct / self.images if self.images else None


@dataclass(frozen=True)
class About:
    """Facts that all results of a run share: its name, the network, and the hash and number of its test images."""

    folder: Path
    run: str
    model: str
    images_sha256: str
    images: int


def about(run: Path) -> About:
    """Read run.json and data.json of a run; what cannot be read stays empty."""
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
    """Make the entry of one .json in the bench folder of a run.

    Raises:
        DataError: it, or the raw values beside it, are damaged. StorageError: a newer edgekit wrote it.
    """
    try:
        if path.stat().st_size > _MOST_JSON:
            raise DataError(f"{path} is not a result: it has {path.stat().st_size} bytes")
        content = path.read_bytes()
        if path.relative_to(of.folder).parts[2:3] == (program.NAME,):
            return _of_program(program.load_file(path), path, content, of)
        _check_raw(path.with_name(path.name.removesuffix(".json") + ".npz"))
        return _of_result(results.load_file(path), path, content, of)
    except (EdgekitError, ValueError, OSError, KeyError, TypeError, AttributeError, IndexError, OverflowError,
            MemoryError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:  # fmt: skip
        raise_if_not_damage(error, path)
        raise DataError(
            f"{path} is damaged: {type(error).__name__}: {error}", "restore it, or keep it elsewhere"
        ) from error


def _check_raw(path: Path) -> None:
    """Refuse a file that would fill the memory."""
    if path.is_file():
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > _MOST_RAW:
                raise DataError(f"{path} unpacks to more than {_MOST_RAW} bytes")


def _of_result(result: BenchmarkResult, path: Path, content: bytes, of: About) -> Entry:
    series, is_emulated = series_of(result), result.source == "emulated"
    answers, right = proportions.answers(result.logits), proportions.top1(result.logits, result.expected)
    if len(right) and int(result.expected.min()) < 0:  # images without labels
        answers, right = answers[:0], right[:0]
    entry = _common(result, path, content, of)
    return dataclasses.replace(
        entry,
        images_sha256=of.images_sha256 if of.images == len(right) else "",
        queries=len(result.latencies_ns) if is_emulated else len(series.settled_ns),
        warmup=series.cut,
        p50_ms=series.p50_ms,
        p90_ms=series.p90_ms,
        images=len(right),
        correct=int(right.sum()),
        samples=Samples(thinned(series.settled_ns), answers, right),
    )


def _of_program(result: ProgramResult, path: Path, content: bytes, of: About) -> Entry:
    entry = _common(result, path, content, of)
    none = np.zeros(0, np.int64)
    return dataclasses.replace(
        entry,
        kind=Kind.PROGRAM,
        runtime=text(result.program),
        version=text(result.program_sha256[:12]),
        queries=result.figures.runs,
        p50_ms=None if result.source == "emulated" else result.figures.median_ms,
        samples=Samples(none, none, none.astype(bool)),
    )


def _common(result: BenchmarkResult | ProgramResult, path: Path, content: bytes, of: About) -> Entry:
    artifact = result.artifact
    environment = _plain(dict(list(result.environment.table().items())[:_MOST_KEYS]))
    return Entry(
        sha256=hashlib.sha256(content).hexdigest(),
        run=of.run,
        number=results.order(path)[0],
        measured=moment(environment.get("measured")) or moment(path.stat().st_mtime) or "",
        kind=Kind.MEASURED,
        device=text(result.device),
        artifact=text(artifact.name),
        model=of.model,
        precision=artifact.precision,
        source=cast(Any, result.source),
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
    """Return at most 2,048 latencies: stretches of 32 consecutive queries, evenly over the series."""
    if len(latencies_ns) <= MOST_KEPT:
        return latencies_ns
    starts = np.linspace(0, len(latencies_ns) - _STRETCH, _STRETCHES).astype(np.int64)
    return np.asarray(latencies_ns[(starts[:, None] + np.arange(_STRETCH)).ravel()])


def moment(value: Any) -> str | None:
    """Return a time, in seconds or ISO 8601, as UTC to the second; None if it is not a time."""
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
    """Return a value as short printable text, as all names are kept."""
    return visible(str(value)[:MOST_TEXT])[:MOST_TEXT]


def _whole(value: Any, otherwise: int) -> int:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53
    return int(value) if fits else otherwise


def _plain(environment: dict[str, Any]) -> dict[str, Any]:
    return {text(key): plain(value) for key, value in environment.items()}


_FIELDS = [f.name for f in dataclasses.fields(Entry) if f.name != "samples"]


def checked(row: dict[str, Any], where: str) -> Entry:
    """Read an entry from a row of untrusted values; its texts become short and printable.

    Args:
        where: name of the row, for messages.

    Raises:
        DataError: edgekit did not write it.
    """
    where, hint = f"{where} was not written by edgekit", "make it again, or keep it elsewhere"
    if missing := [name for name in _FIELDS if name not in row]:
        raise DataError(f"{where}: {', '.join(missing)} missing", hint)
    if more := [name for name in row if name not in _FIELDS]:
        raise DataError(f"{where}: unknown field {text(more[0])}", hint)
    entry: Entry = validation.convert(row, Entry, where, hint)
    if entry.measured and moment(entry.measured) != entry.measured:
        raise DataError(f"{where}: measured cannot be {text(repr(entry.measured))}", hint)
    if entry.images > MOST_IMAGES:
        raise DataError(f"{where}: {entry.images} images are more than {MOST_IMAGES}", hint)
    if entry.correct > entry.images:
        raise DataError(f"{where}: {entry.correct} of {entry.images} images cannot be correct", hint)
    texts: dict[str, Any] = {name: text(value) for name, value in vars(entry).items() if type(value) is str}
    return dataclasses.replace(entry, **texts, environment=_plain(entry.environment))


def joined(entry: Entry, packed: dict[str, bytes], where: str) -> Entry:
    """Return an entry with its samples.

    Raises:
        DataError: the samples are damaged, or belong to another entry.
    """
    try:
        samples = unpack(packed, entry.images)
    except DataError as error:
        raise DataError(f"{where}: {error.message}", error.hint) from None
    return _fitting(dataclasses.replace(entry, samples=samples), where)


def sound(entry: Entry, where: str) -> Entry:
    """Return an entry with its samples unchanged, after the checks that it will meet when it is read again.

    Raises:
        DataError: it would be refused.
    """
    checked({name: getattr(entry, name) for name in _FIELDS}, where)
    return _fitting(entry, where)


def _fitting(entry: Entry, where: str) -> Entry:
    assert entry.samples is not None
    kept, right = entry.samples.latencies_ns, entry.samples.right
    if (len(right), int(right.sum())) != (entry.images, entry.correct) or len(kept) > min(MOST_KEPT, entry.queries):
        raise DataError(f"{where} has samples that do not belong to it", "make it again, or keep it elsewhere")
    return entry
