"""The run folder: everything that made a classifier, its exports and its measurements.

``runs/<name>/`` holds run.json, data.json, checkpoint.pt, calibration/, export/, bench/ and report.html.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from edgekit import __version__, config, files, progress
from edgekit.errors import DataError, EdgekitError, MissingError, UsageError, from_os_error
from edgekit.records import Preprocess
from edgekit.scores import EpochStats

SCHEMA = 1
_OF_EPOCH = ("epoch", "train_loss", "val_loss", "val_top1", "images_per_s", "best")
RUN_FILE = "run.json"
IMPORTED = "imported"
_ENDED = ("finished", IMPORTED)


@dataclass(frozen=True)
class DataInfo:
    """The data set of a run: its folder, the hash of its images and labels, and how many images were skipped."""

    root: str = ""
    fingerprint: str = ""
    skipped: int = 0


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters: in all, and of those that were trained."""

    total: int
    trainable: int


@dataclass(frozen=True)
class Source:
    """Origin of the weights of a run that was imported, not trained here.

    Attributes:
        kind: what was read, in words such as "state dict". file: name of the file; "" for a network in memory.
        sha256: of the file. notes: sentences about what was unwrapped, converted or assumed.
        program: the checkpoint holds the network itself, since no code of edgekit's builds it.
        entry: entry of a checkpoint, and output: of an ONNX file, that the user named.
        as_is: why an ONNX file is kept as it is, since it cannot be turned into torch; "" for other networks.
    """

    kind: str
    file: str = ""
    sha256: str = ""
    notes: tuple[str, ...] = ()
    program: bool = False
    as_is: str = ""
    entry: str = ""
    output: str = ""

    def __str__(self) -> str:
        return f"{self.kind} in {self.file}" if self.file else self.kind


@dataclass(frozen=True)
class RunInfo:
    """Contents of run.json. Entries that a run does not have (yet) are empty or None.

    Attributes:
        schema, edgekit: format of the file, and the version that wrote it. created: UTC, ISO 8601.
        status: "training", "finished", "interrupted" or "failed"; "imported" for a run that was not trained here.
        options: the training options as plain values. decisions: reasons for the options that were left on "auto".
        history: one entry per finished epoch. val_top1: of the best epoch, percent.
        checkpoint_sha256: of checkpoint.pt, once training has ended.
        peak_rss_mb, peak_gpu_mb: peak memory of training, MB.
        source: where an imported network came from; None for one that was trained here. calibration_data: folder of
            unlabelled images that it was imported with; relative to the run if it is inside.
        extra: entries that this version of edgekit does not know; preserved when the file is written again.
    """

    schema: int = SCHEMA
    edgekit: str = ""
    created: str = ""
    status: str = ""
    arch: str = ""
    labels: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    decisions: tuple[str, ...] = ()
    preprocess: Preprocess | None = None
    data: DataInfo | None = None
    versions: dict[str, str] = field(default_factory=dict)
    history: tuple[EpochStats, ...] | None = None
    val_top1: float | None = None
    checkpoint_sha256: str | None = None
    parameters: Parameters | None = None
    peak_rss_mb: float | None = None
    peak_gpu_mb: float | None = None
    source: Source | None = None
    calibration_data: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def epochs(self) -> tuple[EpochStats, ...]:
        """The history; empty before the first epoch."""
        return self.history or ()

    def missing(self, *names: str) -> list[str]:
        """Return those of the entries `names` that the run does not have."""
        return [name for name in names if (value := getattr(self, name)) is None or (name != "history" and not value)]

    @staticmethod
    def from_document(document: Mapping[str, Any], where: str = RUN_FILE) -> RunInfo:
        """Read the object that run.json holds; `where` names the file in errors.

        Raises:
            DataError: an entry has another type than it should have.
        """
        known = {f.name for f in dataclasses.fields(RunInfo)} - {"extra"}
        own = {key: value for key, value in document.items() if key in known and value is not None}
        history = own.get("history")
        epochs = [entry for entry in (history if isinstance(history, list) else ()) if isinstance(entry, Mapping)]
        if lacking := [key for key in _OF_EPOCH if any(key not in entry for entry in epochs)]:
            raise DataError(f"{where} is damaged: history: {', '.join(lacking)} missing", "restore it")
        if "preprocess" in own:
            own["preprocess"] = Preprocess.with_schema(own["preprocess"])
        try:
            info = config.from_table(own, RunInfo, where)
        except EdgekitError as error:
            raise DataError(f"{where} is damaged: {error.message}", "restore it, or train again") from error
        return dataclasses.replace(info, extra={key: value for key, value in document.items() if key not in known})

    def plain(self) -> dict[str, Any]:
        """Return `document` with plain values only: mappings, lists, strings and numbers."""
        plain: dict[str, Any] = json.loads(json.dumps(self.document(), default=files.plain))
        return plain

    def document(self) -> dict[str, Any]:
        """Return the object that run.json holds; entries that are None are left out."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "extra"}
        return {key: value for key, value in values.items() if value is not None} | self.extra


@dataclass(frozen=True)
class Run:
    """An opened run folder and the contents of its run.json.

    Attributes:
        images: folder to look for the run's images in, instead of that of its training.
    """

    path: Path
    info: RunInfo
    images: Path | None = None

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.path.name

    @property
    def argument(self) -> str:
        """The run as an argument of a command: its name if it is in ./runs, else its path."""
        return self.name if self.path.parent == Path("runs") else str(self.path)

    @property
    def handle(self) -> str:
        """The run as it is typed on a command line: `argument`, quoted where a shell needs it."""
        return quote(self.argument)

    @property
    def evaluate_command(self) -> str:
        """The command that evaluates the run; one that was imported without labelled images needs some."""
        needs_images = self.info.source is not None and self.info.data is None
        return f"edgekit evaluate {self.handle}" + (" --data DIR" if needs_images else "")

    @property
    def weights_sha256(self) -> str:
        """The hash of checkpoint.pt as trained; of the current file if training was killed."""
        return self.info.checkpoint_sha256 or files.sha256_file(self.path / "checkpoint.pt")

    def save(self, **changes: Any) -> Run:
        """Write run.json with `changes` to fields of `RunInfo`, and return the new state."""
        info = dataclasses.replace(self.info, **changes)
        files.save_json(self.path / RUN_FILE, info.document())
        return dataclasses.replace(self, info=info)


def create_run(runs_dir: Path, name: str, info: RunInfo | Callable[[Path], RunInfo], **documents: Any) -> Run:
    """Create ``runs_dir/name`` with its run.json and other files, all of them or nothing.

    Args:
        info: contents of run.json; or a function that writes further files into the folder that it is called with,
            which has another name as yet, and returns them.
        documents: contents of the other ``.json`` files, by their names without ``.json``.

    Raises:
        UsageError: the name is taken, or is not a valid folder name.
    """
    path = runs_dir / check_free(runs_dir, name)
    with files.staging(runs_dir) as made:
        for document, content in documents.items():
            files.save_json(made / f"{document}.json", content)
        content = info(made) if callable(info) else info
        run = Run(made, content).save(schema=SCHEMA, edgekit=__version__, created=files.now())
        if _is_unused(path):
            files.remove_folder(path)
        made.chmod(0o755)
        try:
            os.rename(made, path)  # noqa: PTH104  fails if another process has just made it
        except OSError as error:
            check_free(runs_dir, name)
            raise from_os_error(error, f"making the run directory {path}") from error
    return Run(path, run.info)


@contextlib.contextmanager
def alone_in(path: Path) -> Iterator[None]:
    """Hold the lock of a run folder, so that no other process trains in it; remove temporary files of a killed one.

    Raises:
        UsageError: another process trains in it.
    """
    with files.locked(path / ".lock", f"another process is training {path.name}", "wait for it, or stop it first"):
        files.sweep(path)
        yield


def check_free(runs_dir: Path, name: str) -> str:
    """Return `name` if it is valid and free.

    Raises:
        UsageError: it is taken, or not a valid folder name.
    """
    if not name or Path(name).name != name or name.startswith("."):
        raise UsageError(f"{name!r} is not a valid run name", "use letters, digits, '-' and '_'")
    path = runs_dir / name
    if path.exists() and not _is_unused(path):
        taken = f"the run {name!r} already exists in {runs_dir}"
        if _status(path) in (None, *_ENDED):
            raise UsageError(taken, "choose another --name")
        again = f"edgekit train --resume {Run(path, RunInfo()).handle}"
        raise UsageError(f"{taken}, and its training did not finish", f"{again} continues it; or choose another --name")
    return name


def _is_unused(path: Path) -> bool:
    """Return True if a folder has a run.json and nothing else: a training that ended before it was described."""
    try:
        return [p.name for p in path.iterdir()] == [RUN_FILE] and _status(path) == "training"
    except OSError:
        return False


def free_name(runs_dir: Path, stem: str) -> str:
    """Return `stem`, or `stem` with the lowest number that is free."""
    number = 1
    while (runs_dir / (name := stem if number == 1 else f"{stem}-{number}")).exists():
        number += 1
    return name


def list_runs(runs_dir: Path) -> list[Path]:
    """Return the run folders in `runs_dir` that have a checkpoint, newest first."""
    found = [p.parent for p in runs_dir.glob(f"[!.]*/{RUN_FILE}") if (p.parent / "checkpoint.pt").is_file()]
    return sorted(found, key=lambda p: ((p / "checkpoint.pt").stat().st_mtime_ns, p.name), reverse=True)


def readable_runs(runs_dir: Path) -> list[Run]:
    """Open the runs in `runs_dir` that have a checkpoint, newest first; warn of those that cannot be read."""
    opened = []
    for path in list_runs(runs_dir):
        try:
            opened.append(read_run(path))
        except EdgekitError as error:
            progress.warn(f"{path.name} is left out: {error.message}")
    return opened


def open_run(runs_dir: Path, run: str | None) -> Run:
    """Open a run by name or path; for None, the newest whose training has finished.

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
    return read_run(path)


def read_run(path: Path, *needed: str) -> Run:
    """Read the run in the folder `path`.

    Raises:
        DataError: run.json is damaged, or lacks one of the entries `needed`; or one of the run's folders is a symbolic
            link that leads out of it. StorageError: a newer edgekit wrote it.
    """
    where = path / RUN_FILE
    _refuse_linked_folders(path)
    return Run(path, RunInfo.from_document(files.load_document(where, SCHEMA, *needed), str(where)))


def _refuse_linked_folders(path: Path) -> None:
    """Check that no folder of a run is a link out of it: a run from elsewhere could have files written anywhere."""
    home = path.resolve()
    for folder, inside, _ in os.walk(path):
        for name in inside:
            found = Path(folder, name)
            if found.is_symlink() and not found.resolve().is_relative_to(home):
                raise DataError(
                    f"{found} is a symbolic link that leads out of the run, to {found.resolve()}",
                    f"move that folder to {found}; a whole run may be linked: ln -s /elsewhere/{path.name} {path}",
                )


def _is_finished(path: Path) -> bool:
    """Return True if a run is readable, and its training has finished or it was imported."""
    return _status(path) in _ENDED


def _status(path: Path) -> Any:
    """Return the status of the run in a folder; None if it cannot be read."""
    try:
        return files.load_document(path / RUN_FILE, SCHEMA).get("status")
    except EdgekitError:
        return None


def choose_run(runs_dir: str | Path, run: Run | str | Path | None, images: str | Path | None = None) -> Run:
    """Open a run by name or path, the newest for None, or read an opened run again.

    Log the name of the newest run, and a note if the training did not finish.

    Args:
        images: folder or container that the run's images are in, if it is not that of its training any more.

    Raises:
        MissingError: there is none, or no `images`. StorageError: a newer edgekit wrote it.
    """
    folder = None if images is None else Path(images)
    if folder is not None and not folder.exists() and "{" not in folder.name:  # shards
        raise MissingError(
            f"{str(images)!r} is neither a folder nor a file",
            "--data takes the folder that the run's images are in now",
        )
    if isinstance(run, Run):
        return dataclasses.replace(read_run(run.path), images=folder or run.images)
    opened = open_run(Path(runs_dir), None if run is None else str(run))
    if run is None:
        progress.note(f"run: {opened.name} (the newest)")
    if (status := opened.info.status) not in _ENDED:
        progress.note(f"the training of {opened.name} did not finish ({status}); its best weights so far are used")
    return dataclasses.replace(opened, images=folder)
