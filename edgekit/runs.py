"""The run directory: whole files or none, hashes, and JSON beside what it describes.

``runs/<name>/`` holds run.json, data.json, checkpoint.pt, calibration/, export/, bench/ and
report.html. Everything that edgekit writes goes through `writing` or `writing_folder`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import __version__, files, progress
from edgekit.errors import EdgekitError, MissingError, UsageError, from_os_error

SCHEMA = 1
RUN_FILE = "run.json"


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
        return self.meta.get("checkpoint_sha256") or files.sha256_file(self.path / "checkpoint.pt")

    def save(self, **changes: Any) -> Run:
        """Write run.json with `changes` merged in; returns the new state."""
        meta = {**self.meta, **changes}
        files.save_json(self.path / RUN_FILE, meta)
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
        return Run(path, {}).save(schema=SCHEMA, edgekit=__version__, created=files.now(), **meta)
    except BaseException:
        files.remove_folder(path)
        raise


@contextlib.contextmanager
def alone_in(path: Path) -> Iterator[None]:
    """Hold the lock of a run directory, so that no other process trains in it, and remove what a killed one left.

    Raises:
        UsageError: another process trains in it.
    """
    with files.locked(path / ".lock", f"another process is training {path.name}", "wait for it, or stop it first"):
        for left in path.glob(".*.pt.*"):  # temporary files of a killed process
            left.unlink(missing_ok=True)
        yield


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
    return Run(path, files.load_document(path / RUN_FILE, SCHEMA))


def _is_finished(path: Path) -> bool:
    """Whether a run is readable and its training came to its end."""
    try:
        return files.load_document(path / RUN_FILE, SCHEMA).get("status") == "finished"
    except EdgekitError:
        return False


def choose_run(runs_dir: Path, run: str | None) -> Run:
    """Open the named run, or the newest; log which one it is, and whether its training did not finish."""
    opened = open_run(runs_dir, run)
    if run is None:
        progress.note(f"run: {opened.name} (the newest)")
    if (status := opened.meta.get("status")) != "finished":
        progress.note(f"the training of {opened.name} did not finish ({status}); its best weights so far are used")
    return opened
