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
    from edgekit.records import BenchmarkResult, Summary


def report(run: Run = None, json: Json = False, runs_dir: RunsDir = Path("runs")) -> None:
    """Print the figures and write one HTML page.

    runs/<run>/report.html is self-contained: it can be mailed, printed and read without a network.
    """
    opened = open_run(runs_dir, run)
    results, rows = print_table(opened, json)
    from edgekit.report import html

    path = opened.path / "report.html"
    with atomic.writing(path) as temporary:
        temporary.write_text(html.page(opened, rows, results), encoding="utf-8")
    show.note(f"report: {path}")


def print_table(run: store.Run, json: bool) -> tuple[list[BenchmarkResult], list[Summary]]:
    """Print the run's results as a table or as JSON; returns the raw results and the judged ones."""
    from edgekit.bench import session, summary
    from edgekit.cli.artifacts import current_artifacts
    from edgekit.report import tables

    measured = session.load(run.path / "bench")
    weights = run.weights_sha256
    exported = {a.sha256 for a in current_artifacts(run, weights)}
    results = [
        r for r in measured if r.artifact.parent == weights and (r.runtime == "torch" or r.artifact.sha256 in exported)
    ]
    if not results:
        raise MissingError(f"the run {run.name!r} has no measurements yet", f"edgekit benchmark {run.handle}")
    if stale := len(measured) - len(results):
        show.note(f"left out: {stale} measurements of files that were exported again since; edgekit benchmark")
    calibrations = {r.artifact.details.get("calibration_sha256") for r in results if r.artifact.precision == "int8"}
    if len(calibrations) > 1:
        show.note("these INT8 models come from different calibrations; edgekit export again to compare targets")
    rows = summary.summarize(results)
    if json:
        show.as_json([dataclasses.asdict(row) for row in rows])
        return results, rows
    show.table(tables.COLUMNS, [tables.cells(row) for row in rows], right=tables.RIGHT, narrow=tables.NARROW)
    for line in tables.footnotes(rows):
        show.note(line)
    return results, rows
