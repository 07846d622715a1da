"""``edgekit benchmark``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import config, progress, runs
from edgekit.api.baselines import BASELINES
from edgekit.api.report import chosen_result, costs, debug_document, debug_documents
from edgekit.cli import console
from edgekit.cli.options import Json, Run, RunsDir, StrictGates, Verbose, options_of
from edgekit.measurements import BenchmarkResult, Gates, Summary
from edgekit.runs import choose_run

if TYPE_CHECKING:
    from edgekit.measurements import LayerFigures


_NARROW = ("layer", "ms", "% of time", "% of error")
# A terminal has no room for it.
_LEFT_OUT = "cosine"
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--baseline",
        help=f"The network as trained, here: {', '.join(BASELINES)}, or all. pytorch always is. Default: those that "
        "are installed and need no compiling.",
        show_default=False,
    ),
]


@options_of(Gates)
def benchmark(
    run: Run = None,
    device: Annotated[list[str] | None, typer.Option("--device", "-d", help="A device name or .toml file.")] = None,
    suite: Annotated[
        str, typer.Option(help=f"When to stop: {', '.join(config.names('benchmarks/suites'))}, or a .toml file.")
    ] = "standard",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads. Default: the device's.", show_default=False)
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Where the device is: user@address, or a Host of ~/.ssh/config; over adb its serial."),
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build TensorRT engines anew, also those that fit.")
    ] = False,
    set_power_mode: Annotated[
        str | None,
        typer.Option(
            help="Jetson: a mode of nvpmodel, and locked clocks; Android: fixed-performance. Put back, come what may.",
            metavar="MODE",
            show_default=False,
        ),
    ] = None,
    strict_gates: StrictGates = False,
    baseline: Names = None,
    json: Json = False,
    verbose: Verbose = False,
    runs_dir: RunsDir = Path("runs"),
    **gates: float | None,
) -> None:
    """Measure latency and accuracy of the exported models.

    Each model runs in a process of its own through the runner that also travels to devices: single stream, batch 1,
    every latency kept. The baseline is PyTorch on CUDA where there is a GPU, else on the CPU; the fastest of the
    other baselines is named beside it. ONNX made for TensorRT runs in ONNX Runtime here: its accuracy tells, its
    latency does not; on a Jetson over ssh its engines are built, where they are not yet, and measured. Phones are
    reached over adb. Several devices are measured at once. Gates are judged when all is measured and kept; one that
    is broken, or that too few samples could show, is exit status 7.
    """
    from edgekit.api import benchmark as api
    from edgekit.cli.figures import print_figures

    options = api.BenchmarkOptions(
        devices=tuple(device or ["local"]),
        suite=suite,
        gates={name: limit for name, limit in gates.items() if limit is not None},
        threads=threads,
        host=host,
        rebuild=rebuild,
        power_mode=set_power_mode or "",
        baselines=None if baseline is None else tuple(baseline),
    )
    found = api.measure_run(run, options, runs_dir)
    print_figures(found.run, found.results, found.rows, json, verbose)
    api.report_missing(found)
    api.check_gates(found, strict_gates)


# ``edgekit layers``.


def layers(
    run: Run = None,
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="Of which device the times are. Default: the first.")
    ] = None,
    artifact: Annotated[
        str | None, typer.Option("--artifact", "-a", help="Of which model, such as android/model.int8.tflite.")
    ] = None,
    every: Annotated[bool, typer.Option("--all/--blocks", help="Every layer, or the blocks that they make.")] = False,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Say which layers cost the time, and which make the error of INT8.

    Times are what the runtime's own profiler told when the model was benchmarked; errors are those of edgekit quant
    debug: alone, the layer's output with nothing else quantized; accumulated, with all before it; effect, what
    quantizing it alone does to the logits, whose share of all layers' noise power is "% of error".
    """
    opened = choose_run(runs_dir, run)
    from edgekit.analysis.layers import by_block, figures, verdict
    from edgekit.api import report
    from edgekit.reporting.layers import title

    result, row = chosen_result(opened, device, artifact)
    known = report.kept(opened) or costs(opened)
    documents, left = debug_documents(opened)
    found = debug_document(documents, result)
    times = () if result.source == "emulated" else result.layers
    rows = figures(times, known, found)
    shown = rows if every else by_block(rows)
    if json:
        console.as_json(_document(result, shown))
    else:
        _print(shown)
    _say(opened, result, row, found, rows)
    for line in left:
        progress.note(line)
    if sentence := verdict(shown):
        progress.note(f"{title(result, row)}: {sentence}")


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


def _print(rows: list[LayerFigures]) -> None:
    from edgekit.analysis.layers import error_shares
    from edgekit.reporting.layers import COLUMNS, cells

    kept = [n for n, name in enumerate(COLUMNS) if name != _LEFT_OUT]
    lines = [cells(row, share) for row, share in zip(rows, error_shares(rows))]
    columns = [COLUMNS[n] for n in kept]
    console.table(columns, [[line[n] for n in kept] for line in lines], right=columns[2:], narrow=_NARROW)


def _say(
    run: runs.Run,
    result: BenchmarkResult,
    row: Summary | None,
    debug: dict[str, Any] | None,
    rows: Sequence[LayerFigures],
) -> None:
    """How the times were got, and what brings what is not there."""
    from edgekit.analysis.layers import noise_db
    from edgekit.reporting.layers import time_notes

    environment, name = result.environment, result.artifact.name
    if result.source == "emulated":
        progress.note(f"{result.device} is emulated: its times are none")
    elif result.layers:
        for line in time_notes(result, row):
            progress.note(line)
    else:
        again = f"none were kept; next: edgekit benchmark {run.handle} -d {result.device}"
        silent = f"{environment.runtime} tells none" if environment.macs is not None else again
        why = environment.no_layers if environment.no_layers is not None else silent
        progress.note(f"no times of the layers of {name} on {result.device}: {why}")
    progress.note(_limit(result, row))
    if result.artifact.precision != "int8":
        progress.note(f"no errors: {name} is {result.artifact.precision.upper()}; -a names an INT8 model")
    elif debug is None:
        progress.note(f"no errors yet; next: edgekit quant debug {run.handle} --target {result.artifact.target}")
    elif (together := noise_db(rows)) is not None:
        whole = debug["effect"]["logits"]["sqnr_db"]
        progress.note(
            f"effects of all layers, one by one: {together:.1f} dB together; all quantized at once: {whole:.1f} dB"
        )


def _limit(result: BenchmarkResult, row: Summary | None) -> str:
    """What the device could do at best, and what of it was reached; or why that is not known."""
    found = row.roofline if row else None
    if row and row.stand_in:
        return f"no limit to compare with: {row.ran_in} is a stand-in, whose latency does not count"
    if found is None:
        why = result.environment.no_roofline or "it was not kept, or there is no latency"
        return f"no limit to compare with: {why}"
    reached = f"{100 * found.reached:.0f} % of it reached"
    if found.reached > 1:
        reached = "which was passed, as caches hold what it counts as moved"
    busy = "; !: the machine was busy with other work" if row and row.busy else ""
    return (
        f"at best {found.limit_ms:.3g} ms ({found.bound}: {found.macs / 1e6:.1f} MMACs, "
        f"{found.bytes_moved / 1e6:.1f} MB), {reached}; {found.source}{busy}"
    )
