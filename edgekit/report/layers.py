"""The layer table: times and quantization errors of a network's layers, by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.errors import DataError
from edgekit.measurements import BenchmarkResult, LayerFigures
from edgekit.report.table import Rows, Table, compact
from edgekit.report.tables import block_of, number

COLUMNS = ("layer", "kind", "ms", "% of time", "MMACs", "alone dB", "accumulated dB", "effect dB", "cosine")
MOST_SHOWN = 15
_EXACT_DB = 150.0  # stands for no error


def of_results(results: Sequence[BenchmarkResult]) -> dict[str, list[LayerFigures]]:
    """ "artifact on device" -> the times that the runtime told, by the runtime's own names of layers."""
    return {f"{r.artifact.name} on {r.device}": of_times(r.layers) for r in results if r.layers}


def of_times(layers: Sequence[tuple[str, float]]) -> list[LayerFigures]:
    """Layers of which nothing but the time is known."""
    total = sum(ms for _, ms in layers) or 1.0
    return [LayerFigures(name, "", ms, 100 * ms / total) for name, ms in layers]


def of_debug(found: Mapping[str, Any]) -> list[LayerFigures]:
    """The errors that a debug-<target>.json of ``edgekit quant debug`` holds, in the order of the network.

    Raises:
        DataError: it does not hold them.
    """
    try:
        return [
            LayerFigures(
                str(layer["name"]), str(layer["kind"]), None, None, None, float(layer["alone"]["sqnr_db"]),
                float(layer["accumulated"]["sqnr_db"]), float(layer["effect"]["logits"]["sqnr_db"]),
                float(layer["accumulated"]["cosine"]),
            )
            for layer in sorted(found["layers"], key=lambda layer: int(layer["position"]))
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"no layers of edgekit quant debug: {error!r}", "edgekit quant debug again") from None


def table(title: str, layers: Sequence[LayerFigures]) -> Table:
    """Blocks, the slowest first, each with its sums; then every layer below its block.

    Where no time is known, the blocks come in the order of the network.
    """
    blocks: dict[str, list[LayerFigures]] = {}
    for layer in layers:
        blocks.setdefault(block_of(layer.name), []).append(layer)
    worst = max((layer for layer in layers if layer.effect_db is not None), key=lambda la: -(la.effect_db or 0.0),
                default=None)  # fmt: skip
    order = sorted(blocks, key=lambda name: -sum(layer.ms or 0.0 for layer in blocks[name]))
    sums = Rows("", tuple(_block(name, blocks[name]) for name in order))
    notes = [f"{len(layers)} layers in {len(blocks)} blocks"]
    if any(layer.alone_db is not None for layer in layers):
        notes.append(
            "dB: signal to quantization noise, more is better; alone: of the layer's activations with only it "
            "quantized; accumulated: with all before it too; effect: of the logits when only it is quantized. "
            "Of a block the worst layer counts"
        )
    if worst is not None:
        share = f", {worst.percent:.1f} % of the time" if worst.percent is not None else ""
        notes.append(f"the greatest error comes from {worst.name}: {_db(worst.effect_db)} dB{share}")
    found = Table(
        caption=f"Blocks of {title}",
        columns=("block", "layers", *COLUMNS[2:]),
        groups=(sums,),
        wide=COLUMNS[4:7],
        bars=_bars(layers),
        notes=tuple(notes),
        first=MOST_SHOWN,
    )
    return compact(found)


def every(title: str, layers: Sequence[LayerFigures]) -> Table:
    """One row a layer: the slowest first, or in the order of the network where no time is known."""
    order = sorted(layers, key=lambda layer: -(layer.ms or 0.0))
    cells = tuple((layer.name, layer.kind or "-", *_figures([layer])) for layer in order)
    found = Table(
        caption=f"Layers of {title}",
        columns=COLUMNS,
        groups=(Rows("", cells),),
        left=2,
        wide=COLUMNS[4:7],
        bars=_bars(layers),
        first=MOST_SHOWN,
    )
    return compact(found)


def _bars(layers: Sequence[LayerFigures]) -> str:
    return COLUMNS[3] if any(layer.percent for layer in layers) else ""


def _block(name: str, layers: Sequence[LayerFigures]) -> tuple[str, ...]:
    return (name, str(len(layers)), *_figures(layers))


def _figures(layers: Sequence[LayerFigures]) -> tuple[str, ...]:
    def total(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    def least(values: Sequence[float | None]) -> float | None:
        return min((value for value in values if value is not None), default=None)

    macs = total([layer.macs for layer in layers])
    return (
        number(total([layer.ms for layer in layers]), 3),
        number(total([layer.percent for layer in layers]), 1),
        number(None if macs is None else macs / 1e6, 2),
        _db(least([layer.alone_db for layer in layers])),
        _db(least([layer.accumulated_db for layer in layers])),
        _db(least([layer.effect_db for layer in layers])),
        number(least([layer.cosine for layer in layers]), 5),
    )


def _db(value: float | None) -> str:
    return "exact" if value is not None and value >= _EXACT_DB else number(value, 1)
