"""The run directory: whole files or none, hashes, and JSON beside what it describes.

``runs/<name>/`` holds run.json, data.json, checkpoint.pt, calibration/, export/, bench/ and
report.html. Everything that edgekit writes goes through `writing` or `writing_folder`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.atomic import writing
from edgekit.errors import DataError, EdgekitError, MissingError, StorageError, UsageError, from_os_error

SCHEMA = 1
RUN_FILE = "run.json"


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def sha256_text(parts: Iterator[str] | list[str]) -> str:
    """The SHA-256 over strings, each ended by a newline."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\n")
    return digest.hexdigest()


def save_json(path: Path, value: Any) -> None:
    """Write plain values, dataclasses and paths as JSON, whole or not at all."""
    with writing(path) as temporary:
        text = json.dumps(value, indent=1, default=_plain, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"not JSON: {type(value)}")


def load_json(path: Path) -> Any:
    """Read a JSON file that edgekit wrote.

    Raises:
        MissingError: no such file. DataError: not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingError(f"{path} does not exist") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error}", "restore it, or make the run again") from error


def load_document(path: Path, schema: int, *keys: str) -> dict[str, Any]:
    """Read a JSON object of edgekit's, and check its format number and that `keys` are there.

    Raises:
        StorageError: a newer edgekit wrote it. DataError: it is no such document, or damaged.
    """
    document = load_json(path)
    if not isinstance(document, dict) or not isinstance(document.get("schema"), int):
        raise DataError(f"{path} is not a file that edgekit wrote", "restore it, or make it again")
    if document["schema"] > schema:
        raise StorageError(
            f"{path} was written by edgekit {document.get('edgekit', 'of a later version')} "
            f"(format {document['schema']}); this is edgekit {__version__} (format {schema})",
            "upgrade edgekit to that version or a newer one",
        )
    if missing := [key for key in keys if key not in document]:
        raise DataError(f"{path} is damaged: {', '.join(missing)} missing", "restore it, or make it again")
    return document


def cache_dir(part: str) -> Path:
    """Where edgekit keeps what it can make again: a folder in $EDGEKIT_CACHE, else in ~/.cache/edgekit."""
    return Path(os.environ.get("EDGEKIT_CACHE") or Path.home() / ".cache" / "edgekit") / part


def now() -> str:
    """The current time, UTC, ISO 8601 to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Run:
    """An opened run directory and the contents of its run.json."""

    path: Path
    meta: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def handle(self) -> str:
        """What the user types to name this run: its name in ./runs, else its path."""
        return self.name if self.path.parent == Path("runs") else str(self.path)

    @property
    def weights_sha256(self) -> str:
        """The hash of the weights that the run trained; of the file as it is, if training was killed."""
        return self.meta.get("checkpoint_sha256") or sha256_file(self.path / "checkpoint.pt")

    def save(self, **changes: Any) -> Run:
        """Write run.json with `changes` merged in; returns the new state."""
        meta = {**self.meta, **changes}
        save_json(self.path / RUN_FILE, meta)
        return Run(self.path, meta)


def create_run(runs_dir: Path, name: str, meta: dict[str, Any]) -> Run:
    """Make ``runs_dir/name`` and its run.json.

    Raises:
        UsageError: the name is taken, or is no plain folder name.
    """
    path = runs_dir / check_free(runs_dir, name)
    try:
        path.mkdir(parents=True, exist_ok=False)
    except OSError as error:
        raise from_os_error(error, f"making the run directory {path}") from error
    try:
        return Run(path, {}).save(schema=SCHEMA, edgekit=__version__, created=now(), **meta)
    except BaseException:
        remove_folder(path)
        raise


@contextlib.contextmanager
def locked(lock: Path, what: str) -> Iterator[None]:
    """Do something that only one process may do at a time. The lock dies with the process.

    Raises:
        UsageError: another process does it.
    """
    with open(lock, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another {what} is going on", "wait for it, then type the same command") from None
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextlib.contextmanager
def alone_in(path: Path) -> Iterator[None]:
    """Hold a run directory: nobody else may train in it meanwhile. The lock dies with the process.

    Raises:
        UsageError: another process holds it.
    """
    lock = path / ".lock"
    with open(lock, "w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another process is training {path.name}", "wait for it, or stop it first") from None
        for left in path.glob(".*.pt.*"):  # what a killed process was writing
            left.unlink(missing_ok=True)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def check_free(runs_dir: Path, name: str) -> str:
    """`name`, if a run can be called so.

    Raises:
        UsageError: it is taken, or no plain folder name.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise UsageError(f"{name!r} is no run name", "use letters, digits, '-' and '_'")
    if (runs_dir / name).exists():
        raise UsageError(f"the run {name!r} already exists in {runs_dir}", "choose another --name")
    return name


def free_name(runs_dir: Path, stem: str) -> str:
    """`stem`, or `stem` with the lowest number that is not taken yet."""
    number = 1
    while (runs_dir / (name := stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return name


def list_runs(runs_dir: Path) -> list[Path]:
    """The run directories in `runs_dir` that hold a checkpoint, newest first."""
    found = [p.parent for p in runs_dir.glob(f"[!.]*/{RUN_FILE}") if (p.parent / "checkpoint.pt").is_file()]
    return sorted(found, key=lambda p: ((p / "checkpoint.pt").stat().st_mtime_ns, p.name), reverse=True)


def open_run(runs_dir: Path, run: str | None) -> Run:
    """Open a run by name or path; without one, the newest whose training was finished.

    Raises:
        MissingError: there is none. StorageError: a newer edgekit wrote it.
    """
    runs = list_runs(runs_dir)
    if run is None:
        if not runs:
            raise MissingError(f"no finished run in {runs_dir}", "edgekit train DATA --model efficientnet_lite0")
        path = next((p for p in runs if _is_finished(p)), runs[0])
    else:
        path = next((p for p in (runs_dir / run, Path(run)) if (p / RUN_FILE).is_file()), Path(run))
    if not (path / RUN_FILE).is_file():
        known = ", ".join(p.name for p in runs) or "none yet"
        raise MissingError(f"there is no run {str(run)!r}", f"runs in {runs_dir}: {known}")
    return Run(path, load_document(path / RUN_FILE, SCHEMA))


def _is_finished(path: Path) -> bool:
    """Whether a run is readable and its training came to its end."""
    try:
        return load_document(path / RUN_FILE, SCHEMA).get("status") == "finished"
    except EdgekitError:
        return False


def remove_folder(path: Path) -> None:
    """Remove a folder that edgekit made, as far as it can be removed."""
    shutil.rmtree(path, ignore_errors=True)
