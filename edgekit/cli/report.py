"""The command ``report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from edgekit import progress, runs
from edgekit.api.report import FORMATS
from edgekit.api.run import choose
from edgekit.cli.options import Data, Json, Run, RunsDir, Verbose
from edgekit.errors import UsageError, unknown


def report(
    run: Run = None,
    format_: Annotated[str, typer.Option("--format", "-f", help=f"Format: {', '.join(FORMATS)}.")] = "html",
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", help="File to write; - for standard output. Default: in the run.", metavar="FILE"
        ),
    ] = None,
    about: Annotated[
        Path | None,
        typer.Option(
            help="For card: .toml file with title, description, version, author and license.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    json: Json = False,
    verbose: Verbose = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Write the report of a run: what to ship on each device, and why.

    The default is runs/<run>/report.html, one file that can be mailed, printed and read offline. --format md: tables
    for GitHub; json: everything on the page; csv: one row per model and device; classes: one row per class, as csv;
    card: a model card for the Hugging Face Hub. --verbose prints the tables of edgekit benchmark, and --json their
    rows.
    """
    if format_ not in FORMATS:
        raise unknown("format", format_, list(FORMATS))
    if about is not None and format_ != "card":
        raise UsageError("--about is for the model card", "add --format card")
    if output == "-" and json:
        raise UsageError("--json and --output - would both write to standard output", "leave one of them out")
    from edgekit.api import report as api
    from edgekit.cli import figures
    from edgekit.reporting import decide

    opened = choose(runs_dir, run, data)
    material = api.collect(opened, keep=not output)
    text = api.render(material, format_, about)
    rows = list(material.rows)
    if json:
        figures.print_rows(rows, json, material.gates, verbose)
        figures.print_programs(list(material.programs), json, verbose)
    elif verbose and output != "-":
        figures.print_figures(opened, list(material.results), rows, json, verbose)
    elif format_ == "html" and output != "-":
        verdicts = decide.training_verdicts(material.evaluation) if material.evaluation else []
        for line in [*verdicts, *decide.quantization_verdicts(rows, material.gates)]:
            progress.note(line)
    if output == "-":
        sys.stdout.write(text)
    else:
        progress.note(f"report: {api.save(opened, text, format_, output or None)}")
    _report_missing(opened, bool(material.evaluation), bool(material.rows))


def _report_missing(run: runs.Run, evaluated: bool, measured: bool) -> None:
    """Log what the report lacks, with the command that adds it."""
    if not evaluated:
        progress.note(f"not evaluated on the test split; next: {run.evaluate_command}")
    if not measured:
        exported = any((run.path / "export").glob("[!.]*/manifest.json"))
        command = f"benchmark {run.handle}" if exported else f"export {run.handle} --target jetson --target android"
        progress.note(f"nothing was measured yet; next: edgekit {command}")
