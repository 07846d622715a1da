"""Open a run."""

from __future__ import annotations

from pathlib import Path

from edgekit import runs


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
