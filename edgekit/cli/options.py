"""Arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[
    str | None,
    typer.Argument(help="A run's name or path. Default: the newest run.", show_default=False),
]
RunsDir = Annotated[Path, typer.Option("--runs-dir", envvar="EDGEKIT_RUNS_DIR", help="The folder that holds the runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, for scripts.")]
