"""The layer table: times and quantization errors of a network's layers, by block."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.layers import by_block, error_shares, verdict
from edgekit.measurements import LayerFigures
from edgekit.report.table import Rows, Table, compact
from edgekit.report.tables import number

COLUMNS = (
    "layer", "kind", "ms", "% of time", "MMACs", "alone dB", "accumulated dB", "effect dB", "cosine", "% of error",
)  # fmt: skip
_WIDE = COLUMNS[4:9]
MOST_SHOWN = 15
_EXACT_DB = 150.0  # stands for no error


def table(title: str, layers: Sequence[LayerFigures]) -> Table:
    """One row a block, the slowest first, or in the order of the network where no time is known."""
    blocks = by_block(layers)
    notes = [f"{sentence}." for sentence in [verdict(blocks)] if sentence]
    notes.append(f"{len(layers)} layers in {len(blocks)} blocks")
    if any(layer.alone_db is not None for layer in layers):
        notes.append(
            "dB: signal to quantization noise, more is better; alone: of the layer's activations with only it "
            "quantized, of a block the worst; accumulated: with all before it too; effect: of the logits when only it "
            "is quantized; % of error: that effect's noise power, of the sum over all layers"
        )
    return _table(f"Blocks of {title}", ("block", *COLUMNS[1:]), blocks, notes)


def every(title: str, layers: Sequence[LayerFigures]) -> Table:
    """One row a layer: the slowest first, or in the order of the network where no time is known."""
    return _table(f"Layers of {title}", COLUMNS, layers, ())


def _table(caption: str, columns: tuple[str, ...], rows: Sequence[LayerFigures], notes: Sequence[str]) -> Table:
    shares = dict(zip(map(id, rows), error_shares(rows), strict=True))
    order = sorted(rows, key=lambda row: -(row.ms or 0.0))
    found = Table(
        caption=caption,
        columns=columns,
        groups=(Rows("", tuple(_cells(row, shares[id(row)]) for row in order)),),
        left=2,
        wide=_WIDE,
        bars=COLUMNS[3] if any(row.percent for row in rows) else "",
        notes=tuple(notes),
        first=MOST_SHOWN,
    )
    return compact(found)


def _cells(row: LayerFigures, share: float | None) -> tuple[str, ...]:
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
