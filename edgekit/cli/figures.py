"""Tables of measurements that several commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit import progress
from edgekit.cli import console

if TYPE_CHECKING:
    from edgekit.measurements import BenchmarkResult, Gates, ProgramResult, Summary
    from edgekit.runs import Run

# Lowest percentage of images with the same top-1 at which two targets count as equal.
_PARITY = 99.0
# Columns of the table of boards where all do not fit.
_BOARD_SHORT = ("model", "on", "power mode", "p50 ms", "compute ms", "GPU MHz", "C", "mJ")


def print_figures(run: Run, results: list[BenchmarkResult], rows: list[Summary], json: bool, verbose: bool) -> None:
    """Print the measurements of a run, as a table or as JSON.

    Args:
        verbose: also the columns that most readers do not need, and the legend.
    """
    from edgekit.api.report import load_program_results, suite_gates

    print_rows(rows, json, suite_gates(results), verbose)
    print_programs(load_program_results(run), json, verbose)
    report_parity(results)


def print_latencies(found: list[BenchmarkResult], json: bool, verbose: bool) -> None:
    """Print results that have a latency and no accuracy, because there were no images."""
    from edgekit.reporting.tables import latency, number
    from edgekit.stats.latency import series_of

    if not found:
        return
    times = [{f"p{p}_ms": getattr(series_of(result), f"p{p}_ms") for p in (50, 90, 99)} for result in found]
    if json:
        console.as_json(
            [
                {"artifact": result.artifact.name, "device": result.device, "size_mb": result.size_bytes / 1e6, **each}
                for result, each in zip(found, times)
            ]
        )
        return
    columns = ("model", "on", "MB", "p50 ms", "p90 ms", "p99 ms")
    cells = [
        (result.artifact.name, result.device, number(result.size_bytes / 1e6, 1), *map(latency, each.values()))
        for result, each in zip(found, times)
    ]
    console.table(columns, cells, columns[2:], verbose=verbose)


def report_parity(results: list[BenchmarkResult]) -> None:
    """Log how often the targets of one calibration predict the same class."""
    from edgekit.analysis import summary

    for twin in summary.twins(results):
        progress.note(
            f"{twin.artifact} on {twin.device} and on this machine: same top-1 on {twin.agreement:.1f} % of "
            f"{twin.samples} images, cosine similarity of the logits {twin.cosine:.5f}"
        )
    found = summary.parities(results)
    for pair in found:
        progress.note(f"same top-1: {pair.one} and {pair.other}, {pair.agreement:.1f} % of {pair.samples} images")
    if found and min(pair.agreement for pair in found) < _PARITY:
        progress.note(
            "each target is quantized as suits its runtime; edgekit export --parity strict gives all the same integers"
        )


def print_programs(found: list[ProgramResult], json: bool, verbose: bool) -> None:
    """Print what a program on a device measured, as a table of its own; its JSON lies in the run."""
    from edgekit.reporting import tables

    if found and json:
        progress.note("not in this list: measurements of benchmark_model, in bench/*/benchmark_model/*.json of the run")
    elif found:
        print()
        console.table(
            tables.PROGRAM_COLUMNS,
            [tables.program_cells(result) for result in found],
            right=tables.PROGRAM_RIGHT,
            short=tables.PROGRAM_NARROW,
            verbose=verbose,
        )
        for line in tables.program_notes(found):
            progress.note(line)


def print_rows(rows: list[Summary], json: bool, gates: Gates, verbose: bool) -> None:
    """Print summaries as a table or as JSON, and the verdicts on their quantization.

    Args:
        gates: limits that a model must keep to be recommended.
        verbose: also the columns that most readers do not need, and the legend.
    """
    from edgekit.reporting import decide, tables

    if json:
        console.as_json([row.table() for row in rows])
        return
    if rows:
        columns = tables.COLUMNS if verbose else tables.short_columns(rows, console.WIDTH)
        titles, right, narrow = (
            tables.columns_for(names, rows) for names in (columns, tables.RIGHT, tables.narrow_columns(rows))
        )
        console.table(titles, tables.lines_of(rows, columns), right, narrow, verbose=verbose)
        for line in [*(tables.legend(rows) if verbose else []), *tables.footnotes(rows)]:
            progress.note(line)
        if not verbose:
            progress.note("(--verbose shows all columns and what they mean)")
    if boards := [row for row in rows if tables.is_board(row)]:
        print()
        cells = [tables.board_cells(row) for row in boards]
        console.table(tables.BOARD_COLUMNS, cells, tables.BOARD_COLUMNS[4:], _BOARD_SHORT, verbose=verbose)
        for line in tables.board_notes(rows):
            progress.note(line)
    for line in decide.quantization_verdicts(rows, gates):
        progress.note(line)
