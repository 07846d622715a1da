"""The command ``ship``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from edgekit import progress
from edgekit.cli import console
from edgekit.cli.options import Json, Run, RunsDir
from edgekit.errors import GateError, UsageError


def ship(
    run: Run = None,
    to: Annotated[str, typer.Option(help="Kind of kit: android, cpp, ios, python, web.", metavar="KIND")] = "",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="New folder for the kit.", metavar="DIR", show_default=False)
    ] = None,
    artifact: Annotated[
        str | None,
        typer.Option(help="Exported file, such as android/model.int8.tflite. Default: an INT8 file that the kit runs."),
    ] = None,
    package: Annotated[
        str | None,
        typer.Option(
            help="android: package of the code, such as com.example.fruit; ios: name of the Swift module.",
            metavar="ID",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Device that was measured: ship the INT8 file that was fastest there, quote its figures alone.",
            metavar="D",
        ),
    ] = None,
    updates: Annotated[
        str | None,
        typer.Option(
            help="Address of a website with releases, https://…: the kit takes new models from it.", metavar="URL"
        ),
    ] = None,
    channel: Annotated[str, typer.Option(help="With --updates: which releases.", metavar="CHANNEL")] = "stable",
    root: Annotated[
        Path | None,
        typer.Option(
            help="With --updates: root.json to trust first. Default: the newest of the website.", metavar="FILE"
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(help="Kit to verify on this machine.", metavar="DIR", show_default=False),
    ] = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Write a kit for an app: a model, its preprocessing as code, and tests that hold the two together.

    The kit gives a picture exactly the pixels that the model was trained and measured with, and its golden set names
    what a program does otherwise: stretched, not turned, red and blue swapped. --check DIR verifies a kit on this
    machine, and runs the program in it: check only kits that you trust. Exit status 7 if a level is wrong.
    """
    from edgekit.api import ship as api

    if check is not None:
        if to or out or artifact or package or device or updates or root or run is not None:
            raise UsageError("--check takes a kit, and nothing else", f"edgekit ship --check {quote(str(check))}")
        folder, levels = check, api.check_kit(check)
    else:
        if not to or out is None:
            raise UsageError("say what the kit is for, and where to write it", "edgekit ship --to python --out my-kit")
        shipped = api.ship(
            run,
            to,
            out,
            artifact=artifact,
            package=package,
            device=device,
            updates=updates,
            channel=channel,
            root=root,
            runs_dir=runs_dir,
        )
        folder, levels = shipped.folder, list(shipped.levels)
        progress.note(f"{shipped.artifact} -> {folder}")
    if json:
        console.as_json([dataclasses.asdict(level) for level in levels])
    else:
        console.table(("level", "on this machine"), [(level.level, level.text) for level in levels])
        if check is None:
            print(f"{folder}: next: read {folder / 'README.md'}")
    if wrong := [level for level in levels if level.state == "wrong"]:
        raise GateError(f"{folder} is wrong: {wrong[0].level}: {'; '.join(wrong[0].details[:3])}", "make the kit again")
