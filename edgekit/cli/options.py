"""What several commands share: arguments, and opening a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit import store
from edgekit.cli import show

Run = Annotated[
    str | None,
    typer.Argument(help="A run's name or path. Default: the newest run.", show_default=False),
]
RunsDir = Annotated[Path, typer.Option("--runs-dir", envvar="EDGEKIT_RUNS_DIR", help="The folder that holds the runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for scripts.")]


def open_run(runs_dir: Path, run: str | None) -> store.Run:
    """Open the run that was named, or the newest, and say which, and what is odd about it."""
    opened = store.open_run(runs_dir, run)
    if run is None:
        show.note(f"run: {opened.name} (the newest)")
    if (status := opened.meta.get("status")) != "finished":
        show.note(f"the training of {opened.name} did not finish ({status}); its best weights so far are used")
    return opened
