"""The commands ``benchmark`` and ``layers``: measure models, and show where their time and error come from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import config, progress
from edgekit.api.baselines import BASELINES
from edgekit.cli import console
from edgekit.cli.options import Data, Json, Run, RunsDir, Verbose, options_of
from edgekit.measurements import BenchmarkResult, Gates, Summary
from edgekit.records import MOST_THREADS
from edgekit.runs import choose_run

if TYPE_CHECKING:
    from edgekit.api.report import LayerReport
    from edgekit.measurements import LayerFigures

_LAYER_COLUMNS = (
    "layer", "kind", "ms", "% of time", "MMACs", "alone dB", "accumulated dB", "effect dB", "% of error",
)  # fmt: skip
_LAYER_SHORT = ("layer", "ms", "% of time", "MMACs", "effect dB", "% of error")


@options_of(Gates)
def benchmark(
    run: Run = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            "-d",
            help="Device name or .toml file; repeat it for several. Default: local.",
            show_default=False,
        ),
    ] = None,
    suite: Annotated[
        str,
        typer.Option(help=f"Duration and gates: {', '.join(config.names('benchmarks/suites'))}, or a .toml file."),
    ] = "standard",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_THREADS, help="CPU threads. Default: as in the device's file.", show_default=False
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address of the device: user@address or a Host of ~/.ssh/config; for adb, the serial number.",
            show_default=False,
        ),
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Rebuild TensorRT engines that exist already.")] = False,
    set_power_mode: Annotated[
        str | None,
        typer.Option(
            help="Power mode while measuring. Jetson: a mode of nvpmodel, with locked clocks; Android: "
            "fixed-performance. It is restored afterwards.",
            metavar="MODE",
            show_default=False,
        ),
    ] = None,
    strict_gates: Annotated[
        bool, typer.Option("--strict-gates", help="Pass a gate only if its 95 % interval shows that it holds.")
    ] = False,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Runtime on this machine to compare with: {', '.join(BASELINES)}, or all. Default: those installed "
            "that need no compiler. pytorch is always measured.",
            show_default=False,
        ),
    ] = None,
    artifact: Annotated[
        list[str] | None,
        typer.Option(
            "--artifact",
            "-a",
            help="Model to measure and to judge, such as android/model.int8.tflite; repeat it for several. Default: "
            "all; gates judge all but the FP32 references.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    json: Json = False,
    verbose: Verbose = False,
    runs_dir: RunsDir = Path("runs"),
    **gates: float | None,
) -> None:
    """Measure latency and accuracy of the exported models.

    Each model runs in a process of its own, batch 1, one query at a time, and every latency is kept. Several devices
    are measured at the same time: Jetson boards and computers over ssh, phones over adb. The baseline is PyTorch on
    this machine, on its CUDA GPU if there is one. A model for TensorRT that is measured without a Jetson runs in ONNX
    Runtime as a stand-in: its accuracy is valid, its latency is not.

    Gates are judged after everything is measured and saved. Exit status 7: a gate is broken, or too few samples were
    measured to judge it.
    """
    from edgekit.api import benchmark as api
    from edgekit.cli.figures import print_figures, print_latencies

    options = api.BenchmarkOptions(
        devices=tuple(device or ["local"]),
        suite=suite,
        gates={name: limit for name, limit in gates.items() if limit is not None},
        threads=threads,
        host=host,
        rebuild=rebuild,
        power_mode=set_power_mode or "",
        baselines=None if baseline is None else tuple(baseline),
        artifacts=tuple(artifact or ()),
    )
    found = api.measure_run(run, options, runs_dir, data)
    if found.rows or not found.latencies:
        print_figures(found.run, found.results, found.rows, json, verbose)
    print_latencies(found.latencies, json, verbose)
    api.report_missing(found)
    api.check_gates(found, strict_gates)


def layers(
    run: Run = None,
    device: Annotated[
        str | None,
        typer.Option("--device", "-d", help="Device whose times to show. Default: the first.", show_default=False),
    ] = None,
    artifact: Annotated[
        str | None,
        typer.Option("--artifact", "-a", help="Model, such as android/model.int8.tflite.", show_default=False),
    ] = None,
    every: Annotated[bool, typer.Option("--all/--blocks", help="Rows: every layer, or blocks of layers.")] = False,
    json: Json = False,
    verbose: Verbose = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Show which layers take the time, and which cause the error of INT8.

    Times come from the runtime's own profiler, during edgekit benchmark. Errors come from edgekit quant debug, as
    signal-to-quantization-noise ratios in dB. alone: output of the layer with only it quantized; accumulated: with
    all layers before it quantized too; effect: logits with only this layer quantized. % of error: noise power of that
    effect, as a share of all layers.
    """
    from edgekit.analysis.layers import by_block, verdict
    from edgekit.api.report import layer_report
    from edgekit.reporting.layers import title

    opened = choose_run(runs_dir, run)
    found = layer_report(opened, device, artifact)
    rows = found.figures if every else by_block(found.figures)
    if json:
        console.as_json(_document(found.result, rows))
    else:
        _print_layers(rows, verbose)
    for line in [*_notes(found, opened.handle), *found.problems]:
        progress.note(line)
    if sentence := verdict(rows):
        progress.note(f"{title(found.result, found.summary)}: {sentence}")


def _document(result: BenchmarkResult, rows: list[LayerFigures]) -> dict[str, Any]:
    from edgekit.analysis.layers import error_shares, verdict

    shares = error_shares(rows)
    return {
        "artifact": result.artifact.name,
        "device": result.device,
        "layers_by": result.environment.layers_by or "",
        "verdict": verdict(rows),
        "layers": [{**dataclasses.asdict(row), "error_percent": share} for row, share in zip(rows, shares)],
    }


def _print_layers(rows: list[LayerFigures], verbose: bool) -> None:
    from edgekit.analysis.layers import error_shares
    from edgekit.reporting.layers import COLUMNS, cells

    positions = [COLUMNS.index(column) for column in _LAYER_COLUMNS]
    lines = [cells(row, share) for row, share in zip(rows, error_shares(rows))]
    shown = [[line[n] for n in positions] for line in lines]
    console.table(_LAYER_COLUMNS, shown, _LAYER_COLUMNS[2:], _LAYER_SHORT, verbose=verbose)


def _notes(found: LayerReport, handle: str) -> list[str]:
    """Return notes on the source of the figures, and the commands that make missing ones.

    Args:
        handle: the run on the command line.
    """
    from edgekit.analysis.layers import noise_db
    from edgekit.reporting.layers import time_notes

    result, environment, name = found.result, found.result.environment, found.result.artifact.name
    if result.source == "emulated":
        notes = [f"{result.device} is emulated: an emulator has no meaningful times"]
    elif result.layers:
        notes = time_notes(result, found.summary)
    else:
        again = f"not measured yet; next: edgekit benchmark {handle} -d {quote(result.device)}"
        unable = f"{environment.runtime} does not report them" if environment.macs is not None else again
        reason = environment.no_layers if environment.no_layers is not None else unable
        notes = [f"no layer times of {name} on {result.device}: {reason}"]
    notes.append(_roofline_note(result, found.summary))
    if result.artifact.precision != "int8":
        notes.append(f"no quantization errors: {name} is {result.artifact.precision.upper()}; -a selects an INT8 model")
    elif found.debugged is None:
        notes.append(
            f"no quantization errors yet; next: edgekit quant debug {handle} --target {quote(result.artifact.target)}"
        )
    elif (together := noise_db(found.figures)) is not None:
        whole = found.debugged["effect"]["logits"]["sqnr_db"]
        notes.append(f"SQNR of the logits: {whole:.1f} dB; expected from the sum of the layers: {together:.1f} dB")
    return notes


def _roofline_note(result: BenchmarkResult, row: Summary | None) -> str:
    """Return the shortest possible latency on the device and the share reached, or why it is unknown."""
    found = row.roofline if row else None
    if row and row.stand_in:
        return f"no roofline limit: {row.ran_in} is a stand-in, so its latency is not valid"
    if found is None:
        why = result.environment.no_roofline or "it was not measured, or there is no latency"
        return f"no roofline limit: {why}"
    reached = f"{100 * found.reached:.0f} % of it reached"
    if found.reached > 1:
        reached = "exceeded, because caches hold data that the limit counts as memory traffic"
    busy = "; ! measured while other programs used the CPU" if row and row.busy else ""
    return (
        f"roofline limit: {found.limit_ms:.3g} ms ({found.bound}: {found.macs / 1e6:.1f} MMACs, "
        f"{found.bytes_moved / 1e6:.1f} MB), {reached}; {found.source}{busy}"
    )
