"""``edgekit serve``."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from edgekit import config, progress, runs
from edgekit.api.serve import figures_of, offer_of
from edgekit.bench import results
from edgekit.cli import console
from edgekit.cli.options import Json, Run, RunsDir
from edgekit.errors import UsageError, unknown
from edgekit.measurements import BenchmarkResult
from edgekit.runs import choose_run

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
    from edgekit.api import serve as api_serve
    from edgekit.api.serve import HERE, Place, own_address
    from edgekit.web import certificate
    from edgekit.web.visits import MODES

    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if address and not lan:
        raise UsageError("--address is for other devices", "add --lan")
    limits = config.load_suite(suite)
    opened = choose_run(runs_dir, run)
    name = (address or own_address()) if lan else HERE
    secure, fingerprint = certificate.context(name) if https else (None, "")
    place = Place(name, lan, (_PORT, 0) if port is None else (port,), secure, fingerprint)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
        offer = offer_of(opened, artifact or [], limits, Path(scratch))
        offer = dataclasses.replace(offer, mode=mode, threads=threads or 0)
        received = api_serve.serve(offer, opened, place, devices, once)
    print_results(opened, received, json)


# What ``edgekit serve`` does while it runs: the link, what browsers do, what they sent.


def print_results(run: runs.Run, received: list[BenchmarkResult], json: bool) -> None:
    """The table of the run; without a baseline to compare with, what was received."""
    from edgekit import measurements
    from edgekit.cli.report import print_table

    if not received:
        progress.note("nothing was received")
        if json:
            console.as_json([])
        return
    if any(
        result.artifact.name == measurements.REFERENCE for result in results.load(run.path / "bench", progress.note)
    ):
        print_table(run, json)
        return
    rows = [figures_of(result) for result in received]
    if json:
        console.as_json(rows)
    else:
        columns = list(rows[0])
        cells = [[v if isinstance(v, str) else "-" if v is None else f"{v:.2f}" for v in row.values()] for row in rows]
        console.table(columns, cells, right=columns[2:])
    progress.note(f"next, for the baseline that these are compared with: edgekit benchmark {run.handle}")
