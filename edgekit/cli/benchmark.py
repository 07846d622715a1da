"""``edgekit benchmark``."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import config, progress, records, runs
from edgekit.analysis import gates as judged
from edgekit.api import baselines
from edgekit.api.baselines import BASELINES
from edgekit.api.benchmark import devices_of, plan_of, test_set, with_gates
from edgekit.api.report import chosen_result, costs, debug_document, debug_documents
from edgekit.cli import console
from edgekit.cli.options import Json, Run, RunsDir, StrictGates, options_of
from edgekit.errors import GateError
from edgekit.measurements import LEAST_SAMPLES, BenchmarkResult, Gates, Suite, Summary
from edgekit.runs import choose_run
from edgekit.stats.latency import settled
from edgekit.stats.quantiles import early_stopping_rank

if TYPE_CHECKING:
    from edgekit.measurements import LayerFigures


_ACCURACY = "edgekit quant debug says where accuracy is lost; more test images narrow its interval"
_LATENCY = "edgekit benchmark --suite standard on an idle machine; a network or a device that is faster"
_HINTS = {"max_drop": _ACCURACY, "min_accuracy": _ACCURACY, "max_p90_ms": _LATENCY, "min_speedup": _LATENCY}
# Names of an artifact and of a device: what this command measured, beside what the run has of earlier ones.
Measured = Set[tuple[str, str]]
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
    from edgekit.api import report
    from edgekit.api.benchmark import Wanted, measure_all
    from edgekit.api.intermediates import Intermediates
    from edgekit.bench import roofline
    from edgekit.cli.report import print_table

    devices = devices_of(device or ["local"], threads, host, set_power_mode or "")
    limits, chosen = with_gates(config.load_suite(suite), gates), baselines.choose(baseline)
    opened = choose_run(runs_dir, run)
    bench = Intermediates(opened)
    with tempfile.TemporaryDirectory(prefix="edgekit-") as scratch:
        plan = plan_of(bench, devices, baselines.made(bench, chosen, Path(scratch)))
        wanted = Wanted(opened, limits, test_set(bench, Path(scratch)), rebuild, set_power_mode or "")
        costs, peaks = tuple(report.layers(bench)), roofline.measure(plan[0][0].threads)
        measure_all(dataclasses.replace(wanted, costs=costs, peaks=peaks), plan)
    results, rows = print_table(opened, json)
    measured = {(artifact.name, each.name) for each, work in plan for artifact, _ in work}
    say_missing(limits, results, measured)
    check(limits.gates, rows, measured, strict_gates)


# What is said of gates, and of percentiles that a suite promised, once everything is measured and kept.


def say_missing(suite: Suite, results: Sequence[BenchmarkResult], measured: Measured) -> None:
    """A line for each measurement that ended before it could carry a percentile of its suite."""
    for result in (r for r in results if (r.artifact.name, r.device) in measured and r.source != "emulated"):
        queries = len(settled(result.latencies_ns, result.warmup_ns))
        lacking = [p for p in suite.percentiles if p > 50 and early_stopping_rank(queries, p) is None]
        if lacking:
            needs = ", ".join(f"p{p} needs {LEAST_SAMPLES[p]}" for p in lacking)
            cut = len(result.latencies_ns) - queries
            behind = f" behind a start-up of {cut}" if cut else ""
            progress.note(
                f"{result.artifact.name} on {result.device}: insufficient samples, {queries} queries{behind}; {needs}"
            )


def check(gates: Gates, rows: Sequence[Summary], measured: Measured, strict: bool) -> None:
    """Say how each gate fared; one that holds is not spoken of.

    Raises:
        GateError: one is broken or could not be shown; with `strict` also where it is doubtful.
    """
    if gates == Gates():
        return
    own = [row for row in rows if (row.artifact, row.device) in measured]
    verdicts = judged.judge(own, gates, _without_rows(own, measured))
    failed = [verdict for verdict in verdicts if verdict.fails(strict)]
    for verdict in verdicts:
        if verdict.outcome != judged.HELD:
            progress.note(f"gate {verdict.outcome}: {verdict.text}")
    if all(row.baseline for row in own):
        raise GateError(
            "gates are set, and no artifact was measured that they could be judged on",
            "edgekit export, or another --device: what benchmark_model measures has no answers and no percentiles",
        )
    if failed:
        broken = sorted({verdict.gate for verdict in failed})
        raise GateError(
            f"{len(failed)} of {len(verdicts)} gates are not kept ({', '.join(map(_option, broken))}); everything was "
            "measured and kept",
            "; ".join(dict.fromkeys(_HINTS[gate] for gate in broken)),
        )
    progress.note(f"gates: {sum(v.outcome == judged.HELD for v in verdicts)} of {len(verdicts)} held")


def _without_rows(own: Sequence[Summary], measured: Measured) -> set[tuple[str, str]]:
    """What was measured on devices that gave no row: by a program, which says no single times.

    Where a device gave some, the others are files of which one engine was built, and that has its row.
    """
    devices = {row.device for row in own}
    return {
        (name, device) for name, device in measured if device not in devices and not name.startswith(records.BASELINES)
    }


def _option(gate: str) -> str:
    return f"--{gate.replace('_', '-')}"


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
        "layers_by": result.environment.get("layers_by", ""),
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
    from edgekit.reporting.layers import told

    environment, name = result.environment, result.artifact.name
    if result.source == "emulated":
        progress.note(f"{result.device} is emulated: its times are none")
    elif result.layers:
        for line in told(result, row):
            progress.note(line)
    else:
        again = f"none were kept; next: edgekit benchmark {run.handle} -d {result.device}"
        silent = f"{environment['runtime']} tells none" if "macs" in environment else again
        why = environment.get("no_layers", silent)
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
        why = result.environment.get("no_roofline", "it was not kept, or there is no latency")
        return f"no limit to compare with: {why}"
    reached = f"{100 * found.reached:.0f} % of it reached"
    if found.reached > 1:
        reached = "which was passed, as caches hold what it counts as moved"
    busy = "; !: the machine was busy with other work" if row and row.busy else ""
    return (
        f"at best {found.limit_ms:.3g} ms ({found.bound}: {found.macs / 1e6:.1f} MMACs, "
        f"{found.bytes_moved / 1e6:.1f} MB), {reached}; {found.source}{busy}"
    )
