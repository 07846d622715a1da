"""The program: its commands, and the boundary that turns errors into two lines and a status."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from edgekit import __version__
from edgekit.cli import (
    benchmark,
    console,
    data,
    devices,
    doctor,
    export,
    history,
    inspect,
    models,
    predict,
    quant,
    report,
    serve,
    train,
)
from edgekit.cli.options import GroupedCommand
from edgekit.errors import EdgekitError, ExitStatus, UsageError, from_os_error
from edgekit.labels import printable

app = typer.Typer(
    name="edgekit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Take an image classifier from a folder of images to measured INT8 models on Jetson and phones.

The whole road: edgekit train DATA, edgekit export --target jetson --target android,
edgekit benchmark, edgekit report. Every step works on the newest run unless one is named.""",
    epilog="Exit status: 0 done, 2 wrong request, 3 unusable data, 4 something missing, 5 failed, "
    "6 disk or file trouble, 7 gate not met, 130 interrupted.",
)
app.command(cls=GroupedCommand)(train.train)
app.command()(train.evaluate)
app.command()(train.compare)
app.command()(export.export)
app.command()(benchmark.benchmark)
app.command()(report.report)
app.command()(history.history)
app.command()(history.diff)
app.command()(history.check)
app.command()(predict.predict)
app.command()(inspect.inspect)
app.command()(benchmark.layers)
app.command()(serve.serve)
app.command()(models.models)
app.command()(doctor.doctor)
app.add_typer(devices.devices_app, name="devices", help="List devices, or look at one over ssh.")
app.add_typer(data.data_app, name="data", help="Look into a folder of images before training.")
app.add_typer(quant.quant_app, name="quant", help="Look into the quantized network.")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"edgekit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error (works anywhere).")] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Run one command line; returns its exit status."""
    debug = "--debug" in arguments
    try:
        with console.attached():
            app(args=[a for a in arguments if a != "--debug"], prog_name="edgekit")
    except SystemExit as ending:
        if ending.code == ExitStatus.INTERRUPTED:
            print("\ninterrupted; nothing half-written was left behind", file=sys.stderr)
        return ending.code if isinstance(ending.code, int) else ExitStatus.UNEXPECTED
    except (EdgekitError, OSError) as error:
        if debug:
            traceback.print_exc()
        known = error if isinstance(error, EdgekitError) else from_os_error(error, "working")
        _say(known)
        return known.status
    return ExitStatus.OK


def _say(error: EdgekitError) -> None:
    """Print an error: two lines. Of several processes the first one says a wrong request for all."""
    rank = os.environ.get("RANK", "0")
    if rank != "0" and isinstance(error, UsageError):
        return
    who = "" if rank == "0" else f"[process {rank}] "
    print(f"{who}error: {printable(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {printable(error.hint)}", file=sys.stderr)


def main() -> NoReturn:
    """The console script. SIGTERM ends a command as cleanly as Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))
