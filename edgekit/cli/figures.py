"""Tables of measurements, as several commands print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit import progress
from edgekit.cli import console

if TYPE_CHECKING:
    from edgekit.measurements import BenchmarkResult, Gates, ProgramResult, Summary
    from edgekit.runs import Run

# Agreement of the targets that --parity strict keeps, percent of images.
_PARITY = 99.0


def print_figures(run: Run, results: list[BenchmarkResult], rows: list[Summary], json: bool, verbose: bool) -> None:
    """Print the measurements of a run, as a table or as JSON.

    Args:
        verbose: also the columns that most readers do not need, and the legend.
    """
    from edgekit.api.report import by_programs, suite_gates

    print_rows(rows, json, suite_gates(results), verbose)
    print_programs(by_programs(run), json)
    report_parity(results)


def report_parity(results: list[BenchmarkResult]) -> None:
    """Log how far the targets of one calibration differ from each other."""
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
    """Print what a program on a device measured, as a table of its own; its JSON lies in the run."""
    from edgekit.reporting import tables

    if found and json:
        progress.note("measured by a program on a device, not in this list: bench/*/benchmark_model/*.json of the run")
    elif found:
        print()
        rows = [tables.program_cells(result) for result in found]
        console.table(tables.PROGRAM_COLUMNS, rows, right=tables.PROGRAM_RIGHT, narrow=tables.PROGRAM_NARROW)
        for line in tables.program_notes(found):
            progress.note(line)


def print_rows(rows: list[Summary], json: bool, gates: Gates, verbose: bool) -> None:
    """Judged measurements as a table, or as JSON; what to ship must keep the gates."""
    from edgekit.reporting import decide, tables

    if json:
        console.as_json([row.table() for row in rows])
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
