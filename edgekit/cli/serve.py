"""``edgekit serve``."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit import config, progress, runs
from edgekit.cli.options import Json, Run, RunsDir, open_run
from edgekit.errors import MissingError, UsageError, unknown

if TYPE_CHECKING:
    from edgekit.bench.webjob import Offer
    from edgekit.measurements import Suite
    from edgekit.records import Artifact


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
    from edgekit.bench import certificate
    from edgekit.bench.webresults import MODES
    from edgekit.cli import serving

    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if address and not lan:
        raise UsageError("--address is for other devices", "add --lan")
    limits = config.load_suite(suite)
    opened = open_run(runs_dir, run)
    name = (address or serving.own_address()) if lan else serving.HERE
    secure, fingerprint = certificate.context(name) if https else (None, "")
    place = serving.Place(name, lan, (_PORT, 0) if port is None else (port,), secure, fingerprint)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
        offer = _offer(opened, artifact or [], limits, Path(scratch))
        offer = dataclasses.replace(offer, mode=mode, threads=threads or 0)
        received = serving.serve(offer, opened, place, devices, once)
    serving.print_results(opened, received, json)


def _offer(opened: runs.Run, wanted: list[str], limits: Suite, scratch: Path) -> Offer:
    """What browsers get of a run."""
    from edgekit.bench.webjob import Offer
    from edgekit.cli.benchmark import test_set
    from edgekit.cli.workbench import Workbench
    from edgekit.train import evaluation

    bench = Workbench(opened)
    checkpoint = bench.checkpoint
    models = _models(opened, checkpoint.sha256, wanted)
    judged = evaluation.load(opened.path, checkpoint.sha256)
    return Offer(
        title=f"{opened.name}, {checkpoint.arch}",
        labels=checkpoint.labels,
        models=models,
        samples=test_set(bench, scratch),
        suite=limits,
        temperature=judged.temperature if judged else None,
    )


def _models(opened: runs.Run, weights: str, wanted: list[str]) -> tuple[tuple[Artifact, Path], ...]:
    """The LiteRT files that were exported, or those of them that are wanted; equal files once.

    Raises:
        UsageError: a file that is wanted cannot be had. MissingError: there is none that a browser can run.
    """
    from edgekit.bench import session
    from edgekit.cli.artifacts import current_artifacts

    known = {a.name: a for a in current_artifacts(opened, weights) if a.runtime == "litert"}
    for name in wanted:
        if name not in known:
            raise unknown("LiteRT file", name, sorted(known)) if known else _nothing(opened)
    chosen: dict[str, Artifact] = {}
    for artifact in (known[name] for name in wanted or known):
        if artifact.input == "int8":
            progress.note(f"left out: {artifact.name} (its input is int8, which LiteRT.js does not take)")
        else:
            chosen.setdefault(artifact.sha256, artifact)
    if not chosen:
        raise _nothing(opened)
    files = [(artifact, opened.path / "export" / artifact.name) for artifact in chosen.values()]
    for artifact, path in files:
        session.verify(artifact, path)
    return tuple(files)


def _nothing(opened: runs.Run) -> MissingError:
    return MissingError(
        f"the run {opened.name!r} has no LiteRT file that a browser can run",
        f"edgekit export {opened.handle} --target android",
    )
