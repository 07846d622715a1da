"""``edgekit serve``."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit import config, progress, runs
from edgekit.cli import console
from edgekit.cli.options import Json, Run, RunsDir
from edgekit.errors import UsageError, unknown
from edgekit.runs import choose_run

if TYPE_CHECKING:
    from edgekit.api.serve import Link
    from edgekit.measurements import BenchmarkResult

_PORT = 8431


def serve(
    run: Run = None,
    artifact: Annotated[
        list[str] | None,
        typer.Option("--artifact", "-a", help="An exported file. Default: every LiteRT file.", show_default=False),
    ] = None,
    suite: Annotated[
        str, typer.Option(help=f"When to stop: {', '.join(config.names('benchmarks/suites'))}, or a .toml file.")
    ] = "quick",
    mode: Annotated[
        str, typer.Option(help="What the page begins with: wasm (one thread), threads or webgpu.")
    ] = "wasm",
    threads: Annotated[int | None, typer.Option(min=1, max=64, help="Of the mode threads. Default: 4.")] = None,
    lan: Annotated[bool, typer.Option("--lan", help="Let other devices of the local network in.")] = False,
    address: Annotated[
        str | None, typer.Option(help="With --lan: this machine's address or name in the link.", show_default=False)
    ] = None,
    https: Annotated[
        bool, typer.Option("--https", help="With a certificate of its own: threads, WebGPU and the camera need it.")
    ] = False,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help=f"Default: {_PORT}, or a free one.", show_default=False)
    ] = None,
    devices: Annotated[int, typer.Option(min=1, max=100, help="So many browsers may use the link.")] = 1,
    once: Annotated[bool, typer.Option("--once", help="End when the first browser has sent everything.")] = False,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Measure exported models on any phone, by its browser.

    Prints a link and a QR code. The browser that opens it runs the LiteRT files with LiteRT.js, measures
    latency, classifies the test images and sends everything back; nothing is installed there, and nothing
    comes from the internet. Its camera can also try the model. Ends at Ctrl-C; what came in is kept.
    """
    from edgekit.api import serve as api
    from edgekit.web import certificate
    from edgekit.web.visits import MODES

    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if address and not lan:
        raise UsageError("--address is for other devices", "add --lan")
    limits = config.load_suite(suite)
    opened = choose_run(runs_dir, run)
    name = (address or api.own_address()) if lan else api.HERE
    secure, fingerprint = certificate.context(name) if https else (None, "")
    place = api.Place(name, lan, (_PORT, 0) if port is None else (port,), secure, fingerprint)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
        offer = api.offer_of(opened, artifact or [], limits, Path(scratch))
        offer = dataclasses.replace(offer, mode=mode, threads=threads or 0)
        received = api.serve(offer, opened, place, devices, once, _print_link)
    print_results(opened, received, json)


def _print_link(link: Link) -> None:
    """Show the link, as a QR code too where other devices may open it."""
    place = link.place
    if place.lan:
        _print_code(link.url)
    progress.note(f"open on the phone: {link.url}" if place.lan else f"open in a browser of this machine: {link.url}")
    if place.fingerprint:
        progress.note(f"the browser will warn of an unknown certificate; its SHA-256 must be\n  {place.fingerprint}")
    elif place.lan:
        progress.note("without --https: one thread, no WebGPU, no live camera, and others in the network can listen")
    else:
        progress.note("phones: edgekit serve --lan --https")
    progress.note(f"the link is good for {link.devices} browser{'s' if link.devices > 1 else ''}; Ctrl-C ends")


def _print_code(link: str) -> None:
    """A QR code on standard error, if that is a terminal: black on white whatever its colours are."""
    if not sys.stderr.isatty():
        return
    import segno
    from rich.console import Console
    from rich.text import Text

    rows = [list(row) for row in segno.make(link, error="l", micro=False).matrix_iter(border=2)]
    rows += [[0] * len(rows[0])] * (len(rows) % 2)
    blocks = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}
    console = Console(stderr=True, highlight=False, no_color=False)  # NO_COLOR too: without its colours it is none
    if console.width < len(rows[0]):
        progress.note(f"the terminal is too narrow for the code of the link: {len(rows[0])} columns show it")
        return
    for upper, lower in zip(rows[::2], rows[1::2]):
        line = "".join(blocks[bool(a), bool(b)] for a, b in zip(upper, lower))
        console.print(Text(line, style="#000000 on #ffffff", no_wrap=True, overflow="ignore"))


def print_results(run: runs.Run, received: list[BenchmarkResult], json: bool) -> None:
    """The table of the run; without a baseline to compare with, what was received."""
    from edgekit import measurements
    from edgekit.api import report
    from edgekit.api import serve as api
    from edgekit.bench import results
    from edgekit.cli.figures import print_figures

    if not received:
        progress.note("nothing was received")
        if json:
            console.as_json([])
        return
    if any(
        result.artifact.name == measurements.REFERENCE for result in results.load(run.path / "bench", progress.note)
    ):
        print_figures(run, *report.measured(run), json, verbose=False)
        return
    rows = [api.figures_of(result) for result in received]
    if json:
        console.as_json(rows)
    else:
        columns = list(rows[0])
        cells = [[v if isinstance(v, str) else "-" if v is None else f"{v:.2f}" for v in row.values()] for row in rows]
        console.table(columns, cells, right=columns[2:])
    progress.note(f"next, for the baseline that these are compared with: edgekit benchmark {run.handle}")
