"""The program `edgekit`: its commands, and the conversion of errors into two lines and an exit status."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
import traceback
from typing import Annotated, Any, NoReturn

import typer

from edgekit import __version__, cores
from edgekit.cli import (
    benchmark,
    console,
    data,
    devices,
    doctor,
    export,
    history,
    importing,
    inspect,
    models,
    predict,
    quant,
    release,
    report,
    serve,
    ship,
    train,
)
from edgekit.cli.options import GroupedCommand
from edgekit.errors import EdgekitError, ExitStatus, UsageError, from_os_error
from edgekit.labels import printable

_FIRST = 30  # seconds that the first of several processes has to print a wrong usage
_SOON = 0.02  # seconds: the callback is over by then, or the request is lost and made once more

app = typer.Typer(
    name="edgekit",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Take an image classifier from a folder of images to measured INT8 models on Jetson and phones.

The steps: edgekit train DATA, edgekit export --target jetson --target android, edgekit benchmark, edgekit report.
Every step uses the newest run unless you name one.""",
    epilog="Exit status: 0 success, 2 wrong usage, 3 unusable data, 4 something is missing, 5 failure, "
    "6 disk or file error, 7 a gate is broken, 130 interrupted.",
)
app.command(cls=GroupedCommand)(train.train)
app.command("import", cls=GroupedCommand)(importing.import_)
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
app.command()(ship.ship)
app.command()(models.models)
app.command()(doctor.doctor)
app.add_typer(devices.devices_app, name="devices", help="List devices, or query and clean one.")
app.add_typer(data.data_app, name="data", help="Check a folder of images, or tell a run where its images are.")
app.add_typer(release.release_app, name="release", help="Publish kits, so that apps and boards take new models safely.")
app.add_typer(quant.quant_app, name="quant", help="Inspect the quantized network.")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"edgekit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of an error; allowed anywhere.")] = False,
) -> None:
    pass


def run(arguments: list[str]) -> int:
    """Run one command line, and return its exit status."""
    debug = "--debug" in arguments
    try:
        with console.attached():
            app(args=[a for a in arguments if a != "--debug"], prog_name="edgekit")
    except SystemExit as ending:
        if ending.code == ExitStatus.INTERRUPTED:
            print("\ninterrupted; no incomplete files were left behind", file=sys.stderr)
        return ending.code if isinstance(ending.code, int) else ExitStatus.UNEXPECTED
    except (EdgekitError, OSError) as error:
        if debug:
            traceback.print_exc()
        known = error if isinstance(error, EdgekitError) else from_os_error(error, "working")
        _print_error(known)
        return known.status
    return ExitStatus.OK


def _print_error(error: EdgekitError) -> None:
    """Print an error and its hint. Of several processes, the first one prints a wrong usage for all of them."""
    rank = os.environ.get("RANK", "0")
    if rank != "0" and isinstance(error, UsageError):
        _leave_it_to_the_first()
    process = "" if rank == "0" else f"[process {rank}] "
    print(f"{process}error: {printable(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"  hint: {printable(error.hint)}", file=sys.stderr)


def _leave_it_to_the_first() -> None:
    """Wait for torchrun to end this process, as it does when the first one has printed the error and failed.

    A process that fails earlier would make torchrun end the first one before it says anything. This returns if the
    first one has no error to print.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(_FIRST)


def _ask_again(lost: Any) -> None:
    """Handle an error in a callback, such as `__del__`, which Python cannot raise: a request to end is made again."""
    if issubclass(lost.exc_type, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, _SOON)
    else:
        sys.__unraisablehook__(lost)


def _open_standard_streams() -> None:
    """Open streams that are closed (``>&-``) on /dev/null: else the next file that is opened would be one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def main() -> NoReturn:
    """Run the program. SIGTERM ends it as Ctrl-C does: files stay complete."""
    _open_standard_streams()
    cores.wait_passively()
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, signal.default_int_handler)
    sys.unraisablehook = _ask_again
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # of which some encodings cannot write every name
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
