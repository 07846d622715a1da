"""``edgekit layers``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit import store
from edgekit.cli import show
from edgekit.cli.options import Json, Run, RunsDir, open_run
from edgekit.errors import MissingError, unknown

if TYPE_CHECKING:
    from edgekit.layers import LayerCost
    from edgekit.measurements import BenchmarkResult, LayerFigures

_DEBUG_SCHEMA = 1
_COLUMNS = ("layer", "kind", "ms", "% time", "M mult.", "alone dB", "accumulated dB", "effect dB", "% error")
_NARROW = ("layer", "ms", "% time", "% error")
_EXACT_DB = 150.0


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
    quantizing it alone does to the logits, whose share of all layers' noise power is "% error".
    """
    opened = open_run(runs_dir, run)
    from edgekit.cli import network
    from edgekit.layers import by_block, figures, verdict

    result = _chosen(opened, device, artifact)
    costs = network.kept(opened) or _costs(opened)
    found = debug_document(opened, result)
    times = () if result.source == "emulated" else result.layers
    rows = figures(times, costs, found)
    shown = rows if every else by_block(rows)
    if json:
        show.as_json(_document(result, shown))
    else:
        _print(shown)
    _say(opened, result, found, rows)
    if sentence := verdict(shown):
        show.note(f"{result.artifact.name} on {result.device}: {sentence}")


def _chosen(run: store.Run, device: str | None, artifact: str | None) -> BenchmarkResult:
    """The measurement that is meant; by default the first INT8 model that has times of layers.

    Raises:
        MissingError: nothing was measured. UsageError: no such device or artifact.
    """
    from edgekit.cli.report import measured

    results = [r for r in measured(run)[0] if artifact is not None or not r.artifact.is_baseline]
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
    return min(fitting, key=lambda r: (not r.layers, r.artifact.precision != "int8", r.runtime != r.artifact.runtime))


def _costs(run: store.Run) -> list[LayerCost]:
    """The network's layers, which the benchmark of an older edgekit did not keep."""
    from edgekit.cli import network
    from edgekit.cli.workbench import Workbench

    with show.working("looking at the network"):
        return network.layers(Workbench(run))


def debug_document(run: store.Run, result: BenchmarkResult) -> dict[str, Any] | None:
    """What edgekit quant debug found out for the target of an INT8 model, with these weights; None: nothing yet."""
    stem = f"debug-{result.artifact.target}"
    known = {path.stem: found for path, found in debug_documents(run)} if result.artifact.precision == "int8" else {}
    return known.get(stem) if result.artifact.parent == run.weights_sha256 else None


def debug_documents(run: store.Run) -> list[tuple[Path, dict[str, Any]]]:
    """Everything that edgekit quant debug found out with the weights that the run has."""
    found = []
    for path in sorted((run.path / "quant").glob("debug-*.json")):
        document = store.load_document(path, _DEBUG_SCHEMA, "layers", "effect", "checkpoint_sha256", "target")
        if document["checkpoint_sha256"] == run.weights_sha256:
            found.append((path, document))
    return found


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

    cells = [
        [
            row.name,
            row.kind,
            _number(row.ms, 3),
            _number(row.percent, 1),
            _number(None if row.macs is None else row.macs / 1e6, 2),
            *(_db(value) for value in (row.alone_db, row.accumulated_db, row.effect_db)),
            _number(share, 1),
        ]
        for row, share in zip(rows, error_shares(rows))
    ]
    show.table(_COLUMNS, cells, right=_COLUMNS[2:], narrow=_NARROW)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _db(value: float | None) -> str:
    return "exact" if value is not None and value >= _EXACT_DB else _number(value, 1)


def _say(run: store.Run, result: BenchmarkResult, debug: dict[str, Any] | None, rows: Sequence[LayerFigures]) -> None:
    """How the times were got, and what brings what is not there."""
    from edgekit.layers import noise_db

    environment, name = result.environment, result.artifact.name
    if result.source == "emulated":
        show.note(f"{result.device} is emulated: its times are none")
    elif result.layers:
        whole = environment.get("layers_run_ms")
        took = f"; a whole run took {whole:.3f} ms meanwhile" if isinstance(whole, int | float) else ""
        show.note(f"times: {environment.get('layers_by', 'the runtime')}, medians{took}")
    else:
        again = f"none were kept; next: edgekit benchmark {run.handle} -d {result.device}"
        told = f"{environment['runtime']} tells none" if "macs" in environment else again
        why = environment.get("no_layers", told)
        show.note(f"no times of the layers of {name} on {result.device}: {why}")
    show.note(_limit(result))
    if result.artifact.precision != "int8":
        show.note(f"no errors: {name} is {result.artifact.precision.upper()}; -a names an INT8 model")
    elif debug is None:
        show.note(f"no errors yet; next: edgekit quant debug {run.handle} --target {result.artifact.target}")
    elif (together := noise_db(rows)) is not None:
        whole = debug["effect"]["logits"]["sqnr_db"]
        show.note(
            f"effects of all layers, one by one: {together:.1f} dB together; all quantized at once: {whole:.1f} dB"
        )


def _limit(result: BenchmarkResult) -> str:
    """What the device could do at best, and what of it was reached; or why that is not known."""
    from edgekit.bench import quantiles, roofline

    environment = result.environment
    p50 = None if result.source == "emulated" else quantiles.percentile_ms(result.latencies_ns, 50)
    found = roofline.reached(environment, p50, max(1, int(environment.get("batch", 1))))
    if found is None:
        return f"no limit to compare with: {environment.get('no_roofline', 'it was not kept, or there is no latency')}"
    return (
        f"at best {found.limit_ms:.3g} ms ({found.bound}: {found.macs / 1e6:.1f} M multiplications, "
        f"{found.bytes_moved / 1e6:.1f} MB), {100 * found.reached:.0f} % of it reached; {found.source}"
    )
