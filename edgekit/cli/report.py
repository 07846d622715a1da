"""``edgekit report``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit import files, progress, runs
from edgekit.cli import console
from edgekit.cli.options import Json, Run, RunsDir, open_run
from edgekit.errors import MissingError, UsageError, unknown

if TYPE_CHECKING:
    from edgekit.measurements import BenchmarkResult, Gates, ProgramResult, Summary
    from edgekit.scores import Evaluation


# Format -> the file's name in the run.
FORMATS = {
    "html": "report.html",
    "md": "report.md",
    "json": "report.json",
    "csv": "report.csv",
    "classes": "classes.csv",
    "card": "model-card.md",
}
# A file that edgekit did not draw is not taken into the page.
_MOST_BYTES = 8_000_000
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
    opened = open_run(runs_dir, run)
    from edgekit.cli import reporting
    from edgekit.report import verdict

    material = reporting.gather(opened)
    text = reporting.written(material, format_, about)
    if output != "-" and (json or format_ == "html"):
        print_rows(list(material.rows), json, material.gates)
        print_programs(list(material.programs), json)
        say_parity(list(material.results))
        for line in verdict.trained(material.evaluation) if material.evaluation else ():
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


def save_pictures(run: runs.Run, evaluation: Evaluation | None) -> dict[str, str | bytes]:
    """Draw what can be drawn of a run into its pictures/; returns all of them, also the samples."""
    from edgekit.data import dataset
    from edgekit.report import pictures

    index = run.path / "data.json"
    data = dataset.load_index(index) if index.is_file() else None
    with progress.working("drawing"):
        drawn = pictures.draw_all(run.meta.get("history", ()), data, evaluation)
        pictures.save(run.path / "pictures", drawn)
    samples = run.path / "pictures" / "samples.png"
    if samples.is_file() and samples.stat().st_size <= _MOST_BYTES:
        drawn["samples.png"] = samples.read_bytes()
    return drawn


def print_table(run: runs.Run, json: bool) -> tuple[list[BenchmarkResult], list[Summary]]:
    """Print the run's measurements as a table or as JSON; returns the raw results and the judged ones.

    Raises:
        MissingError: there are none.
    """
    results, rows = measured(run)
    if not results:
        raise MissingError(f"the run {run.name!r} has no measurements yet", f"edgekit benchmark {run.handle}")
    from edgekit.cli.reporting import suite_gates

    print_rows(rows, json, suite_gates(results))
    print_programs(by_programs(run), json)
    say_parity(results)
    return results, rows


def say_parity(results: list[BenchmarkResult]) -> None:
    """How far the targets of one calibration differ from each other."""
    from edgekit.bench import summary

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


def measured(run: runs.Run) -> tuple[list[BenchmarkResult], list[Summary]]:
    """The raw measurements of what the run has now, and the judged ones; both may be empty.

    Raises:
        MissingError: they cannot be compared: no baseline, or one on other images.
    """
    from edgekit.bench import session, summary
    from edgekit.cli.artifacts import current_artifacts

    found = session.load(run.path / "bench", progress.note)
    if not found:
        return [], []
    weights = run.weights_sha256
    exported = {a.sha256 for a in current_artifacts(run, weights)}
    results = [
        r for r in found if r.artifact.parent == weights and (r.artifact.is_baseline or r.artifact.sha256 in exported)
    ]
    if results and (stale := len(found) - len(results)):
        progress.note(f"left out: {stale} measurements of files that were exported again since; edgekit benchmark")
    calibrations = {r.artifact.details.get("calibration_sha256") for r in results if r.artifact.precision == "int8"}
    if len(calibrations) > 1:
        progress.note("these INT8 models come from different calibrations; edgekit export again to compare targets")
    try:
        return results, summary.summarize(results) if results else []
    except MissingError as error:
        raise MissingError(str(error), f"edgekit benchmark {run.handle}") from None


def by_programs(run: runs.Run) -> list[ProgramResult]:
    """What programs on devices said of the files that the run has now."""
    from edgekit.bench import program
    from edgekit.cli.artifacts import current_artifacts

    exported = {a.sha256 for a in current_artifacts(run, run.weights_sha256)}
    return [found for found in program.load(run.path / "bench") if found.artifact.sha256 in exported]


def print_programs(found: list[ProgramResult], json: bool) -> None:
    """What programs said, as a table of its own; JSON lies in the run."""
    from edgekit.report import programs

    if found and json:
        progress.note("measured by a program on a device, not in this list: bench/*/benchmark_model/*.json of the run")
    elif found:
        print()
        rows = [programs.cells(result) for result in found]
        console.table(programs.COLUMNS, rows, right=programs.RIGHT, narrow=programs.NARROW)
        for line in programs.notes(found):
            progress.note(line)


def print_rows(rows: list[Summary], json: bool, gates: Gates) -> None:
    """Judged measurements as a table, or as JSON; what to ship must keep the gates."""
    from edgekit.report import tables, verdict

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
    for line in verdict.worth(rows, gates):
        progress.note(line)
