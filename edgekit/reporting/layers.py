"""Tables of layers: times and quantization errors, by block and by layer."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.analysis.layers import by_block, error_shares, verdict
from edgekit.measurements import BenchmarkResult, LayerFigures, Summary
from edgekit.reporting.tables import Rows, Table, compact, number

COLUMNS = (
    "layer", "kind", "ms", "% of time", "MMACs", "alone dB", "accumulated dB", "effect dB", "cosine", "% of error",
)  # fmt: skip
MOST_SHOWN = 15
_EXACT_DB = 150.0  # from here on there is no error


def title(result: BenchmarkResult, row: Summary | None) -> str:
    """Return the artifact and the device, marked if the times are not reliable."""
    marks = (" (stand-in)" if row.stand_in else "") + (" !" if row.busy else "") if row else ""
    return f"{result.artifact.name} on {result.device}{marks}"


def time_notes(result: BenchmarkResult, row: Summary | None) -> list[str]:
    """Return notes on the times of a result's layers: their source, their sum, and reasons to doubt them."""
    environment, spent = result.environment, sum(ms for _, ms in result.layers)
    if not result.layers:
        return []
    whole = environment.layers_run_ms
    part = f"layers add up to {spent:.3f}" + (f" of {whole:.3f}" if whole is not None else "") + " ms of a profiled run"
    lines = [f"times: {environment.layers_by or 'the runtime'}, medians; {part}"]
    if row and row.stand_in:
        lines.append(f"stand-in: {row.ran_in} has other kernels than the device, so the shares differ there")
    if row and row.busy:
        lines.append("! measured while other programs used the CPU: not reliable; run edgekit benchmark again")
    return lines


def block_table(title: str, layers: Sequence[LayerFigures], time_notes: Sequence[str] = ()) -> Table:
    """Return the table of blocks, the slowest first; in the order of the network if no times are known."""
    blocks = by_block(layers)
    notes = [*(f"{sentence}." for sentence in [verdict(blocks)] if sentence), *time_notes]
    notes.append(f"{len(layers)} layers in {len(blocks)} blocks")
    if any(layer.alone_db is not None for layer in layers):
        notes.append(
            "dB: signal-to-quantization-noise ratio, higher is better. alone: activations of the layer with only it "
            "quantized (the worst of a block); accumulated: with all layers up to it quantized; effect: logits with "
            "only this layer quantized; % of error: noise power of that effect, as a share of all layers"
        )
    return _table(f"Blocks of {title}", ("block", *COLUMNS[1:]), blocks, notes)


def layer_table(title: str, layers: Sequence[LayerFigures]) -> Table:
    """Return the table of layers, the slowest first; in the order of the network if no times are known."""
    return _table(f"Layers of {title}", COLUMNS, layers, ())


def _table(caption: str, columns: tuple[str, ...], rows: Sequence[LayerFigures], notes: Sequence[str]) -> Table:
    shares = dict(zip(map(id, rows), error_shares(rows), strict=True))
    order = sorted(rows, key=lambda row: -(row.ms or 0.0))
    found = Table(
        caption=caption,
        columns=columns,
        groups=(Rows("", tuple(cells(row, shares[id(row)]) for row in order)),),
        left=2,
        bars=COLUMNS[3] if any(row.percent for row in rows) else "",
        notes=tuple(notes),
        first=MOST_SHOWN,
    )
    return compact(found)


def cells(row: LayerFigures, share: float | None) -> tuple[str, ...]:
    """Return one line, in the order of `COLUMNS`; `share`: percent of the error."""
    return (
        row.name,
        row.kind or "-",
        number(row.ms, 3),
        number(row.percent, 1),
        number(None if row.macs is None else row.macs / 1e6, 2),
        _db(row.alone_db),
        _db(row.accumulated_db),
        _db(row.effect_db),
        number(row.cosine, 5),
        number(share, 1),
    )


def _db(value: float | None) -> str:
    return "exact" if value is not None and value >= _EXACT_DB else number(value, 1)
