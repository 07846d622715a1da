"""The commands ``data check``, ``data relocate`` and ``data cache``."""

from __future__ import annotations

import dataclasses
import os
from itertools import groupby
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit import labels, progress
from edgekit.cli import console
from edgekit.cli.options import Json, RunsDir
from edgekit.errors import DataError, unknown
from edgekit.runs import choose_run

if TYPE_CHECKING:
    from edgekit.data.check import Scan
    from edgekit.data.findings import Report


SCHEMA = 1
_EXAMPLES = 3
_WHOLE = ("left_out", "no_images", "folders")  # a line for each reason
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@data_app.callback()
def _data() -> None:
    """Check a data set, tell a run where its images are now, or clear what was unpacked."""


@data_app.command()
def check(
    data: Annotated[
        str, typer.Argument(help="Folder of images, table, archive or shards (docs/data.md), or the built-in digits.")
    ],
    json: Json = False,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates/--no-near-duplicates", help="Search for near-duplicate images.")
    ] = True,
    distance: Annotated[
        int,
        typer.Option(min=0, max=12, help="Largest Hamming distance of two near-duplicates' 64-bit perceptual hashes."),
    ] = 8,
    image_size: Annotated[
        int, typer.Option(min=1, help="Shorter side, in pixels, below which an image is reported as tiny.")
    ] = 32,
    background: Annotated[
        str, typer.Option(help="Colour under transparent parts: white, black or '#rrggbb'.")
    ] = "white",
    pixel_range: Annotated[
        str | None,
        typer.Option(
            metavar="LOW:HIGH",
            help="Values that become black and white in files of more than 8 bits a channel. Default: chosen from the "
            "images.",
        ),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            help="Reading of the folders or archives, where their names leave it open: auto, splits, classes, parts."
        ),
    ] = "auto",
    split: Annotated[
        str, typer.Option(help="Percentages of train, val and test where these are no folders.")
    ] = "70/15/15",
    group_by: Annotated[
        str | None,
        typer.Option(help="Images that stay in one split: folder, prefix:SEPARATOR or FILE.csv:COLUMN."),
    ] = None,
    skip_empty: Annotated[
        bool, typer.Option("--skip-empty", help="Leave out classes of which no image can be used.")
    ] = False,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Columns of a table of images: path=COLUMN,label=COLUMN,split=COLUMN. Default: by their names."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit status 3 for warnings too.")] = False,
) -> None:
    """Check a data set: read every image once, and list problems.

    Errors (exit status 3): unreadable files, the same image in several classes or several split folders, classes
    missing in a split. Warnings: tiny, blank or very long images, copies, classes with very few images. For
    DATA/<class>/<image>, the splits are those that edgekit train would make; it keeps look-alikes in one split.
    """
    from edgekit.data import check as checks
    from edgekit.data import dataset, division
    from edgekit.data.check import read
    from edgekit.data.columns import parsed as columns_of
    from edgekit.data.images import PLAIN
    from edgekit.data.layout import LAYOUTS
    from edgekit.data.values import parsed

    preprocess = dataclasses.replace(PLAIN, background=background, pixel_range=parsed(pixel_range))
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    divide = division.parse_division(split, group_by)
    root = dataset.resolve(data)
    with progress.bar("reading images") as update:
        seen = read(root, update, preprocess, layout, skip_empty, columns_of(columns))
    with progress.working("comparing images"):
        report = checks.judge(seen, distance if near_duplicates else None, image_size, divide)
    if json:
        folders = [split for split in seen.listing.present if split]
        said = [labels.visible(line) for line in seen.listing.read_as]
        console.as_json(
            {
                "schema": SCHEMA,
                "data": _text(str(root)),
                "read_as": said,
                "split_folders": folders,
                **_plain(seen, report),
            }
        )
    else:
        _print(data, report)
    errors, warnings = report.count("error"), report.count("warning")
    if errors or (strict and warnings):
        found = f"{_several(errors, 'error')}, " if errors else ""
        raise DataError(
            f"{data}: {found}{_several(warnings, 'warning')}{'' if errors else ' (--strict)'}",
            f"repair or move the listed files (--json lists all), then: edgekit data check {quote(data)}",
        )


@data_app.command()
def relocate(
    run: Annotated[str, typer.Argument(help="Name or path of a run.", show_default=False)],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder or file that the run's images are in now.", show_default=False)
    ],
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Tell a run where its images are, after they were moved or renamed, or the run came to another machine.

    Images are matched by their content, whatever their names are. Only data.json and run.json of the run change.
    """
    from edgekit.data import location

    opened = choose_run(runs_dir, run, folder)
    with progress.working("reading images"):
        moved, lost, images = location.relocate(opened, folder)
    if lost:
        progress.warn(f"{len(lost)} of {images} images are not there: {location.named(lost)}")
    progress.note(f"{moved.name}: {images - len(lost)} of {images} images are in {folder}")


@data_app.command()
def cache(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", help="Unpacked data sets. Default: all.", show_default=False),
    ] = None,
    clear: Annotated[
        bool,
        typer.Option(
            "--clear",
            help="Remove them, except those that a process uses, and, unless named, those whose file is gone.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """List what was unpacked from archives, shards and arrays into the cache, or remove it.

    A run that needs its images again unpacks them again, as long as the file is there.
    """
    from edgekit.data import cache as kept

    chosen = kept.chosen(names or [])
    removed = kept.clear(chosen, named=bool(names)) if clear else []
    left = [entry for entry in chosen if entry not in removed]
    if json:
        console.as_json(
            {"schema": SCHEMA, "removed": [e.name for e in removed], "unpacked": [e.document() for e in left]}
        )
    elif left and not clear:
        rows = [[e.name, str(e.files), f"{e.size / 1e6:.1f}", e.last_used, ", ".join(e.states), e.shown] for e in left]
        columns = ["name", "files", "MB", "last used (UTC)", "state", "unpacked from"]
        console.table(columns, rows, right=["files", "MB"], verbose=True)
    if not json and not chosen:
        print("nothing is unpacked in the cache")
    if not json and removed:
        print(f"removed: {', '.join(e.name for e in removed)} ({sum(e.size for e in removed) / 1e6:.1f} MB)")
    if clear and left:
        kept.tell(left, named=bool(names))


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _plain(seen: Scan, report: Report) -> dict[str, object]:
    return {
        "images": report.images,
        "counts": {_text(name): counts for name, counts in report.counts.items()},
        "imbalance": round(report.imbalance, 2),
        "left_out": [dataclasses.asdict(left) for left in seen.listing.counted],
        "errors": report.count("error"),
        "warnings": report.count("warning"),
        "findings": [
            {"kind": f.kind, "severity": f.severity, "message": f.message, "paths": [_text(path) for path in f.paths]}
            for f in report.findings
        ],
    }


def _text(name: str) -> str:
    """Return a file name that JSON can hold, with bytes that are not UTF-8 escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _print(data: str, report: Report) -> None:
    """Print the table of counts, then the number and the first few findings of each kind."""
    totals = {split: sum(c[split] for c in report.counts.values()) for split in ("train", "val", "test")}
    rows = [[name, *(str(count) for count in counts.values())] for name, counts in report.counts.items()]
    columns = ["class", *totals]
    console.table(columns, [*rows, ["(all)", *map(str, totals.values())]], right=list(totals))
    print()
    for kind, group in groupby(report.findings, key=lambda f: (f.severity, f.kind)):
        found = list(group)
        print(f"{kind[0]}: {kind[1].replace('_', ' ')}: {len(found)}")
        shown = len(found) if kind[1] in _WHOLE else _EXAMPLES
        for finding in found[:shown]:
            print(f"  {labels.printable(finding.message)}")
        if len(found) > shown:
            print(f"  and {len(found) - shown} more")
    if not report.findings:
        print(f"{labels.printable(data)}: {report.images} images, no problems")
    elif not report.count("error"):
        print(f"{labels.printable(data)}: {report.images} images, no errors")
