"""``edgekit layers``."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import files, progress, runs
from edgekit.cli import console
from edgekit.cli.options import Json, Run, RunsDir, open_run
from edgekit.errors import EdgekitError, MissingError, unknown

if TYPE_CHECKING:
    from edgekit.measurements import BenchmarkResult, LayerCost, LayerFigures, Summary


_DEBUG_SCHEMA = 1
_NARROW = ("layer", "ms", "% of time", "% of error")
# A terminal has no room for it.
_LEFT_OUT = "cosine"


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
    opened = open_run(runs_dir, run)
    from edgekit.cli import network
    from edgekit.layers import by_block, figures, verdict
    from edgekit.report.layers import title

    result, row = _chosen(opened, device, artifact)
    known = network.kept(opened) or costs(opened)
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


def _chosen(run: runs.Run, device: str | None, artifact: str | None) -> tuple[BenchmarkResult, Summary | None]:
    """The measurement that is meant, and judged; by default the first INT8 model that has times of layers.

    Raises:
        MissingError: nothing was measured. UsageError: no such device or artifact.
    """
    from edgekit.cli.report import measured
    from edgekit.report.distributions import row_of

    every, judged = measured(run)
    results = [r for r in every if artifact is not None or not r.artifact.is_baseline]
    if not results:
        raise MissingError(f"the run {run.name!r} has no measurements yet", f"edgekit benchmark {run.handle}")
    for what, wanted, known in (
        ("device", device, {r.device for r in results}),
        ("artifact", artifact, {r.artifact.name for r in results}),
    ):
        if wanted is not None and wanted not in known:
            raise unknown(what, wanted, sorted(known))
    fitting = [r for r in results if device in (None, r.device) and artifact in (None, r.artifact.name)]
    if not fitting:
        raise MissingError(f"{artifact} was not measured on {device}", f"edgekit benchmark {run.handle} -d {device}")
    found = min(fitting, key=lambda r: (not r.layers, r.artifact.precision != "int8", r.runtime != r.artifact.runtime))
    return found, row_of(found, judged)


def costs(run: runs.Run) -> list[LayerCost]:
    """The network's layers, which the benchmark of an older edgekit did not keep."""
    from edgekit.cli import network
    from edgekit.cli.workbench import Workbench

    with progress.working("looking at the network"):
        return network.layers(Workbench(run))


def debug_document(documents: Mapping[str, dict[str, Any]], result: BenchmarkResult) -> dict[str, Any] | None:
    """What edgekit quant debug found out for the target of an INT8 model; None: nothing yet."""
    return documents.get(result.artifact.target) if result.artifact.precision == "int8" else None


def debug_documents(run: runs.Run) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What edgekit quant debug found out with the weights that the run has, by target; and, in words, which of its
    files cannot be read and what makes them again.
    """
    from edgekit.layers import figures

    found, left = {}, []
    for path in sorted((run.path / "quant").glob("debug-*.json")):
        target = path.stem.removeprefix("debug-")
        try:
            document = files.load_document(path, _DEBUG_SCHEMA, "layers", "effect", "checkpoint_sha256", "target")
            figures((), (), document)
            float(document["effect"]["logits"]["sqnr_db"])
        except (EdgekitError, KeyError, TypeError, ValueError):
            again = shlex.join(["edgekit", "quant", "debug", run.handle, "--target", target])
            left.append(f"the errors for {target}: {path} cannot be read; {again} makes it again")
            continue
        if document["checkpoint_sha256"] == run.weights_sha256:
            found[target] = document
    return found, left


def _document(result: BenchmarkResult, rows: list[LayerFigures]) -> dict[str, Any]:
    from edgekit.layers import error_shares, verdict

    shares = error_shares(rows)
    return {
        "artifact": result.artifact.name,
        "device": result.device,
        "layers_by": result.environment.get("layers_by", ""),
        "verdict": verdict(rows),
        "layers": [{**dataclasses.asdict(row), "error_percent": share} for row, share in zip(rows, shares)],
    }


def _print(rows: list[LayerFigures]) -> None:
    from edgekit.layers import error_shares
    from edgekit.report.layers import COLUMNS, cells

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
    from edgekit.layers import noise_db
    from edgekit.report.layers import told

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
