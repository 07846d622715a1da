"""Open a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgekit import files, progress, runs


def open_run(run: runs.Run | str | Path | None = None, *, runs_dir: str | Path = "runs") -> runs.Run:
    """Open a run by name or path; for None, the newest whose training has finished.

    Args:
        run: name of a run in `runs_dir`, or its path; an opened run is read again.
        runs_dir: the folder of the runs.

    Returns:
        The run: its ``path``, and its ``info`` (options, labels, preprocessing, history, versions).

    Raises:
        MissingError: there is none. StorageError: a newer edgekit wrote it. DataError: run.json is damaged.

    Example:
        >>> edgekit.open_run("tour").info.labels
        ('apple', 'banana', 'cherry')
    """
    return runs.choose_run(runs_dir, run)


def choose(runs_dir: str | Path, run: runs.Run | str | Path | None, data: str | Path | None = None) -> runs.Run:
    """Open a run as `runs.choose_run` does; one that was imported without images keeps those of the folder `data`."""
    opened = runs.choose_run(runs_dir, run, data)
    if opened.images is None or opened.info.source is None or opened.info.data is not None:
        return opened
    from edgekit.data import dataset, evaluation

    with progress.bar("reading images") as update:
        index = evaluation.index(opened.images, opened.info.labels, update)
    for line in evaluation.described(index):
        progress.note(line)
    for line in evaluation.losses(index):
        progress.warn(line)
    files.save_json(opened.path / dataset.DATA_FILE, index)
    data_info = runs.DataInfo(str(index.root), index.fingerprint, len(index.skipped))
    return dataclasses.replace(opened.save(data=data_info), images=None)
