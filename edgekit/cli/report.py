"""``edgekit report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit import files, progress, runs
from edgekit.api.report import FORMATS
from edgekit.cli.options import Json, Run, RunsDir, Verbose
from edgekit.errors import UsageError, unknown
from edgekit.runs import choose_run

if TYPE_CHECKING:
    pass


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
    verbose: Verbose = False,
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
    from edgekit.api import report as api
    from edgekit.cli import figures
    from edgekit.reporting import decide

    opened = choose_run(runs_dir, run)
    material = api.gather(opened)
    text = api.written(material, format_, about)
    rows = list(material.rows)
    if json:
        figures.print_rows(rows, json, material.gates, verbose)
        figures.print_programs(list(material.programs), json)
    elif verbose and output != "-":
        figures.print_figures(opened, list(material.results), rows, json, verbose)
    elif format_ == "html" and output != "-":
        for line in decide.quantization_verdicts(rows, material.gates):
            progress.note(line)
    if output == "-":
        sys.stdout.write(text)
    else:
        path = Path(output) if output else opened.path / FORMATS[format_]
        files.save_bytes(path, text.encode())
        progress.note(f"report: {path}")
    _report_missing(opened, bool(material.evaluation), bool(material.rows))


def _report_missing(run: runs.Run, judged: bool, measured: bool) -> None:
    """What is missing in the report, and what brings it."""
    if not judged:
        progress.note(f"not judged on the test split; next: edgekit evaluate {run.handle}")
    if not measured:
        exported = any((run.path / "export").glob("*/manifest.json"))
        command = f"benchmark {run.handle}" if exported else f"export {run.handle} --target jetson --target android"
        progress.note(f"nothing was measured yet; next: edgekit {command}")
