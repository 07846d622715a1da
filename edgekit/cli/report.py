"""``edgekit report``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit import files, progress, runs
from edgekit.api.report import by_programs, measured
from edgekit.cli import console
from edgekit.cli.options import Json, Run, RunsDir
from edgekit.errors import MissingError, UsageError, unknown
from edgekit.runs import choose_run

if TYPE_CHECKING:
    from edgekit.measurements import BenchmarkResult, Gates, ProgramResult, Summary


# Format -> the file's name in the run.
FORMATS = {
    "html": "report.html",
    "md": "report.md",
    "json": "report.json",
    "csv": "report.csv",
    "classes": "classes.csv",
    "card": "model-card.md",
}
# What --parity strict holds, percent of images.
_PARITY = 99.0


def report(
    run: Run = None,
    format_: Annotated[str, typer.Option("--format", "-f", help=f"What is written: {', '.join(FORMATS)}.")] = "html",
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Where; - is standard output. Default: in the run.", metavar="FILE"),
    ] = None,
    about: Annotated[
        Path | None,
        typer.Option(
            help="card: a .toml file with title, description, version, author, license, as export takes it.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Print the figures and write the report: by default one HTML page.

    runs/<run>/report.html is self-contained: it can be mailed, printed and read without a network.
    --format md: the verdict and the tables, for GitHub. json: everything that the page says. csv: one row a model and
    device. classes: one row a class, as csv. card: a model card for the Hugging Face Hub. A run that was only trained
    has its report too; --json then prints an empty list.
    """
    if format_ not in FORMATS:
        raise unknown("format", format_, list(FORMATS))
    if about is not None and format_ != "card":
        raise UsageError("--about is for the model card", "add --format card")
    if output == "-" and json:
        raise UsageError("--json and --output - would both write to standard output", "leave one of them out")
    opened = choose_run(runs_dir, run)
    from edgekit.api.report import gather, written
    from edgekit.reporting import decide

    material = gather(opened)
    text = written(material, format_, about)
    if output != "-" and (json or format_ == "html"):
        print_rows(list(material.rows), json, material.gates)
        print_programs(list(material.programs), json)
        say_parity(list(material.results))
        for line in decide.training_verdicts(material.evaluation) if material.evaluation else ():
            progress.note(line)
    if output == "-":
        sys.stdout.write(text)
    else:
        path = Path(output) if output else opened.path / FORMATS[format_]
        files.save_bytes(path, text.encode())
        progress.note(f"report: {path}")
    _say_next(opened, bool(material.evaluation), bool(material.rows))


def _say_next(run: runs.Run, judged: bool, measured: bool) -> None:
    """What is missing in the report, and what brings it."""
    if not judged:
        progress.note(f"not judged on the test split; next: edgekit evaluate {run.handle}")
    if not measured:
        exported = any((run.path / "export").glob("*/manifest.json"))
        command = f"benchmark {run.handle}" if exported else f"export {run.handle} --target jetson --target android"
        progress.note(f"nothing was measured yet; next: edgekit {command}")


def print_table(run: runs.Run, json: bool) -> tuple[list[BenchmarkResult], list[Summary]]:
    """Print the run's measurements as a table or as JSON; returns the raw results and the judged ones.

    Raises:
        MissingError: there are none.
    """
    results, rows = measured(run)
    if not results:
        raise MissingError(f"the run {run.name!r} has no measurements yet", f"edgekit benchmark {run.handle}")
    from edgekit.api.report import suite_gates

    print_rows(rows, json, suite_gates(results))
    print_programs(by_programs(run), json)
    say_parity(results)
    return results, rows


def say_parity(results: list[BenchmarkResult]) -> None:
    """How far the targets of one calibration differ from each other."""
    from edgekit.analysis import summary

    for twin in summary.twins(results):
        progress.note(
            f"{twin.artifact} on {twin.device} and the same file here: same top-1 on {twin.agreement:.1f} % of "
            f"{twin.samples} images, cosine of the logits {twin.cosine:.5f}"
        )
    found = summary.parities(results)
    for pair in found:
        progress.note(f"same top-1: {pair.one} and {pair.other}, {pair.agreement:.1f} % of {pair.samples} images")
    if found and min(pair.agreement for pair in found) < _PARITY:
        progress.note(
            "each has the grid that suits its runtime; edgekit export --parity strict gives all the same integers"
        )


def print_programs(found: list[ProgramResult], json: bool) -> None:
    """What programs said, as a table of its own; JSON lies in the run."""
    from edgekit.reporting import tables

    if found and json:
        progress.note("measured by a program on a device, not in this list: bench/*/benchmark_model/*.json of the run")
    elif found:
        print()
        rows = [tables.program_cells(result) for result in found]
        console.table(tables.PROGRAM_COLUMNS, rows, right=tables.PROGRAM_RIGHT, narrow=tables.PROGRAM_NARROW)
        for line in tables.program_notes(found):
            progress.note(line)


def print_rows(rows: list[Summary], json: bool, gates: Gates) -> None:
    """Judged measurements as a table, or as JSON; what to ship must keep the gates."""
    from edgekit.reporting import decide, tables

    if json:
        console.as_json([dataclasses.asdict(row) for row in rows])
        return
    if rows:
        console.table(tables.COLUMNS, [tables.cells(row) for row in rows], right=tables.RIGHT, narrow=tables.NARROW)
        for line in tables.footnotes(rows):
            progress.note(line)
    if boards := [row for row in rows if tables.is_board(row)]:
        print()
        console.table(tables.BOARD_COLUMNS, [tables.board_cells(row) for row in boards], right=tables.BOARD_COLUMNS[4:])
        for line in tables.board_notes(rows):
            progress.note(line)
    for line in decide.quantization_verdicts(rows, gates):
        progress.note(line)
