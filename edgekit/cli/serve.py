"""The command ``serve``."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit import config, files, progress, runs
from edgekit.api.run import choose
from edgekit.cli import console
from edgekit.cli.options import Data, Json, Run, RunsDir
from edgekit.errors import UsageError, unknown

if TYPE_CHECKING:
    from edgekit.api.serve import Link
    from edgekit.measurements import BenchmarkResult

_PORT = 8431


def serve(
    run: Run = None,
    artifact: Annotated[
        list[str] | None,
        typer.Option(
            "--artifact",
            "-a",
            help="Exported model; repeat it for several. Default: all LiteRT models.",
            show_default=False,
        ),
    ] = None,
    suite: Annotated[
        str,
        typer.Option(
            help=f"Duration of measurements: {', '.join(config.names('benchmarks/suites'))}, or a .toml file."
        ),
    ] = "quick",
    mode: Annotated[
        str, typer.Option(help="Initial backend of the page: wasm (one thread), threads or webgpu.")
    ] = "wasm",
    threads: Annotated[
        int | None, typer.Option(min=1, max=64, help="Number of threads of the mode threads. Default: 4.")
    ] = None,
    lan: Annotated[bool, typer.Option("--lan", help="Accept other devices of the local network.")] = False,
    address: Annotated[
        str | None, typer.Option(help="Address or name of this machine in the link, with --lan.", show_default=False)
    ] = None,
    https: Annotated[
        bool,
        typer.Option(
            "--https", help="HTTPS with a self-signed certificate, which threads, WebGPU and the camera need."
        ),
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help=f"Port; 0 for any free one. Default: {_PORT}, or a free one.", show_default=False
        ),
    ] = None,
    devices: Annotated[int, typer.Option(min=1, max=100, help="Number of browsers that may use the link.")] = 1,
    once: Annotated[bool, typer.Option("--once", help="Stop when the first browser has sent all results.")] = False,
    data: Data = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Measure exported models in the browser of any phone.

    Prints a link and a QR code. The browser that opens the link runs the LiteRT models with LiteRT.js, measures their
    latency, classifies the test images and sends the results back. Nothing is installed on the phone, and nothing is
    loaded from the internet. The page can also run a model on the camera. Ctrl-C ends it; received results are kept.
    """
    from edgekit.api import serve as api
    from edgekit.web import access, certificate
    from edgekit.web.visits import MODES

    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if address and not lan:
        raise UsageError("--address needs --lan", "add --lan")
    limits = config.load_suite(suite)
    named = access.ascii_name(address) if address else ""
    opened = choose(runs_dir, run, data)
    name = (named or api.own_address()) if lan else api.HERE
    secure, fingerprint = certificate.context(name) if https else (None, "")
    place = api.Place(name, lan, (_PORT, 0) if port is None else (port,), secure, fingerprint)
    with files.scratch() as scratch:
        offer = api.offer_of(opened, artifact or [], limits, scratch)
        offer = dataclasses.replace(offer, mode=mode, threads=threads or 0)
        received = api.serve(offer, opened, place, devices, once, _print_link)
    print_results(opened, received, json)


def _print_link(link: Link) -> None:
    """Print the link, with a QR code if other devices may open it."""
    place = link.place
    if place.lan:
        _print_code(link.url)
    progress.note(f"open on the phone: {link.url}" if place.lan else f"open in a browser of this machine: {link.url}")
    if place.fingerprint:
        progress.note(f"the browser will warn about an unknown certificate; its SHA-256 must be\n  {place.fingerprint}")
    elif place.lan:
        progress.note("without --https: one thread, no WebGPU, no live camera, and others in the network can listen")
    else:
        progress.note("phones: edgekit serve --lan --https")
    progress.note(f"the link is good for {link.devices} browser{'s' if link.devices > 1 else ''}; Ctrl-C ends")


def _print_code(link: str) -> None:
    """Print a QR code, black on white, on standard error if it is a terminal."""
    if not sys.stderr.isatty():
        return
    import segno
    from rich.console import Console
    from rich.text import Text

    rows = [list(row) for row in segno.make(link, error="l", micro=False).matrix_iter(border=2)]
    rows += [[0] * len(rows[0])] * (len(rows) % 2)
    blocks = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}
    console = Console(stderr=True, highlight=False, no_color=False)  # a QR code needs its colours, even with NO_COLOR
    if console.width < len(rows[0]):
        progress.note(f"the terminal is too narrow for the QR code: it needs {len(rows[0])} columns")
        return
    for upper, lower in zip(rows[::2], rows[1::2]):
        line = "".join(blocks[bool(a), bool(b)] for a, b in zip(upper, lower))
        console.print(Text(line, style="#000000 on #ffffff", no_wrap=True, overflow="ignore"))


def print_results(run: runs.Run, received: list[BenchmarkResult], json: bool) -> None:
    """Print the figures of the run, or only those received if the run has no baseline."""
    from edgekit import measurements
    from edgekit.api import report
    from edgekit.api import serve as api
    from edgekit.bench import results
    from edgekit.cli.figures import print_figures

    if not received:
        progress.note("no results were received")
        if json:
            console.as_json([])
        return
    if any(
        result.artifact.name in measurements.REFERENCES for result in results.load(run.path / "bench", progress.note)
    ):
        print_figures(run, *report.load_measurements(run), json, verbose=False)
        return
    rows = [api.figures_of(result) for result in received]
    if json:
        console.as_json(rows)
    else:
        columns = list(rows[0])
        cells = [[v if isinstance(v, str) else "-" if v is None else f"{v:.2f}" for v in row.values()] for row in rows]
        console.table(columns, cells, right=columns[2:])
    progress.note(f"next: edgekit benchmark {run.handle} measures the baseline to compare with")
