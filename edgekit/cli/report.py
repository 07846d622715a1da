"""``edgekit report``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import atomic, store
from edgekit.cli import show
from edgekit.cli.options import Json, Run, RunsDir, open_run
from edgekit.errors import MissingError

if TYPE_CHECKING:
    from edgekit.measurements import BenchmarkResult, ProgramResult, Summary
    from edgekit.scores import Evaluation

# A file that edgekit did not draw is not taken into the page.
_MOST_BYTES = 8_000_000
# What --parity strict holds, percent of images.
_PARITY = 99.0


def report(run: Run = None, json: Json = False, runs_dir: RunsDir = Path("runs")) -> None:
    """Print the figures and write one HTML page.

    runs/<run>/report.html is self-contained: it can be mailed, printed and read without a network.
    A run that was only trained has a page too; --json then prints an empty list.
    """
    opened = open_run(runs_dir, run)
    from edgekit.report import html, verdict
    from edgekit.train import evaluation

    judged = evaluation.load(opened.path, opened.weights_sha256)
    results, rows = measured(opened)
    found = by_programs(opened)
    page = html.page(opened, rows, results, judged, save_pictures(opened, judged), found)
    print_rows(rows, json)
    print_programs(found, json)
    _say_parity(results)
    for line in verdict.trained(judged) if judged else ():
        show.note(line)
    path = opened.path / "report.html"
    with atomic.writing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    show.note(f"report: {path}")
    if not judged:
        show.note(f"not judged on the test split; next: edgekit evaluate {opened.handle}")
    if not rows:
        exported = any((opened.path / "export").glob("*/manifest.json"))
        command = (
            f"benchmark {opened.handle}" if exported else f"export {opened.handle} --target jetson --target android"
        )
        show.note(f"nothing was measured yet; next: edgekit {command}")


def save_pictures(run: store.Run, evaluation: Evaluation | None) -> dict[str, str | bytes]:
    """Draw what can be drawn of a run into its pictures/; returns all of them, also the samples."""
    from edgekit.data import dataset
    from edgekit.report import pictures

    index = run.path / "data.json"
    data = dataset.load_index(index) if index.is_file() else None
    with show.working("drawing"):
        drawn = pictures.draw_all(run.meta.get("history", ()), data, evaluation)
        pictures.save(run.path / "pictures", drawn)
    samples = run.path / "pictures" / "samples.png"
    if samples.is_file() and samples.stat().st_size <= _MOST_BYTES:
        drawn["samples.png"] = samples.read_bytes()
    return drawn


def print_table(run: store.Run, json: bool) -> tuple[list[BenchmarkResult], list[Summary]]:
    """Print the run's measurements as a table or as JSON; returns the raw results and the judged ones.

    Raises:
        MissingError: there are none.
    """
    results, rows = measured(run)
    if not results:
        raise MissingError(f"the run {run.name!r} has no measurements yet", f"edgekit benchmark {run.handle}")
    print_rows(rows, json)
    print_programs(by_programs(run), json)
    _say_parity(results)
    return results, rows


def _say_parity(results: list[BenchmarkResult]) -> None:
    """How far the targets of one calibration differ from each other."""
    from edgekit.bench import summary

    for twin in summary.twins(results):
        show.note(
            f"{twin.artifact} on {twin.device} and the same file here: same top-1 on {twin.agreement:.1f} % of "
            f"{twin.samples} images, cosine of the logits {twin.cosine:.5f}"
        )
    found = summary.parities(results)
    for pair in found:
        show.note(f"same top-1: {pair.one} and {pair.other}, {pair.agreement:.1f} % of {pair.samples} images")
    if found and min(pair.agreement for pair in found) < _PARITY:
        show.note(
            "each has the grid that suits its runtime; edgekit export --parity strict gives all the same integers"
        )


def measured(run: store.Run) -> tuple[list[BenchmarkResult], list[Summary]]:
    """The raw measurements of what the run has now, and the judged ones; both may be empty."""
    from edgekit.bench import session, summary
    from edgekit.cli.artifacts import current_artifacts

    found = session.load(run.path / "bench")
    if not found:
        return [], []
    weights = run.weights_sha256
    exported = {a.sha256 for a in current_artifacts(run, weights)}
    results = [
        r for r in found if r.artifact.parent == weights and (r.artifact.is_baseline or r.artifact.sha256 in exported)
    ]
    if results and (stale := len(found) - len(results)):
        show.note(f"left out: {stale} measurements of files that were exported again since; edgekit benchmark")
    calibrations = {r.artifact.details.get("calibration_sha256") for r in results if r.artifact.precision == "int8"}
    if len(calibrations) > 1:
        show.note("these INT8 models come from different calibrations; edgekit export again to compare targets")
    return results, summary.summarize(results) if results else []


def by_programs(run: store.Run) -> list[ProgramResult]:
    """What programs on devices said of the files that the run has now."""
    from edgekit.bench import program
    from edgekit.cli.artifacts import current_artifacts

    exported = {a.sha256 for a in current_artifacts(run, run.weights_sha256)}
    return [found for found in program.load(run.path / "bench") if found.artifact.sha256 in exported]


def print_programs(found: list[ProgramResult], json: bool) -> None:
    """What programs said, as a table of its own; JSON lies in the run."""
    from edgekit.report import programs

    if found and json:
        show.note("measured by a program on a device, not in this list: bench/*/benchmark_model/*.json of the run")
    elif found:
        print()
        rows = [programs.cells(result) for result in found]
        show.table(programs.COLUMNS, rows, right=programs.RIGHT, narrow=programs.NARROW)
        for line in programs.notes(found):
            show.note(line)


def print_rows(rows: list[Summary], json: bool) -> None:
    """Judged measurements as a table, or as JSON."""
    from edgekit.report import tables, verdict

    if json:
        show.as_json([dataclasses.asdict(row) for row in rows])
        return
    if rows:
        show.table(tables.COLUMNS, [tables.cells(row) for row in rows], right=tables.RIGHT, narrow=tables.NARROW)
        for line in tables.footnotes(rows):
            show.note(line)
    if boards := [row for row in rows if tables.is_board(row)]:
        print()
        show.table(tables.BOARD_COLUMNS, [tables.board_cells(row) for row in boards], right=tables.BOARD_COLUMNS[4:])
        for line in tables.board_notes(rows):
            show.note(line)
    for line in verdict.worth(rows):
        show.note(line)
