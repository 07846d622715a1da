"""Times of layers on a device and their errors in INT8, joined by the names of the trained network.

Shares of the error: `effect_db` is the SQNR of the logits with one layer quantized, so 10 ** (-effect_db / 10) is the
relative noise power of that layer, and its share is that over the sum. Errors of layers are taken as independent; where
they are not, the shares do not add up to the loss of the whole network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from edgekit.errors import DataError
from edgekit.measurements import LayerCost, LayerFigures

OTHER = "(other)"
_COPY = re.compile(r"^Reformatting CopyNode for .*? (?:to|from) ")
_NO_LAYER = re.compile(r"_(?:de)?quantized?$|^(?:node|val|n)_?\d*(?:_|$)")
_DEPTH = 2
# Share of the time, in percent, from which operations that belong to no layer are mentioned.
_MUCH = 20.0
# Kinds of nodes in ONNX and LiteRT that runtimes compute as part of the layer before.
_FUSED = {
    "",
    "clip",
    "relu",
    "relu6",
    "conv_2d",
    "depthwise_conv_2d",
    "fully_connected",
    "conv",
    "gemm",
    "matmul",
    "matmuladdfusion",
}


def figures(
    times: Sequence[tuple[str, float]], costs: Sequence[LayerCost] = (), debug: dict[str, Any] | None = None
) -> list[LayerFigures]:
    """Return one row for each layer with weights, and for each other operation that took time, in network order.

    Times that belong to no layer are the last row, `OTHER`. The percentages are of all times and add up to 100.

    Args:
        times: `BenchmarkResult.layers`. costs: of the network; without them the layers are those of `debug`, else of
            `times`. debug: content of ``quant/debug-<target>.json``.

    Raises:
        DataError: `debug` was not written by edgekit.
    """
    errors = _errors(debug)
    by_tensor = {tensor: cost for cost in costs for tensor in (cost.name, *cost.tensors)}
    known = {cost.name for cost in costs if cost.layer == cost.name} | set(errors)
    spent: dict[str, float] = {}
    for name, ms in times:
        row = _row_of(name, by_tensor, known)
        spent[row] = spent.get(row, 0.0) + ms
    total = sum(spent.values())
    kinds = {cost.name: cost for cost in costs if cost.layer == cost.name}
    rows = []
    for name in _ordered(spent, list(kinds) or list(errors), [cost.name for cost in costs] or list(errors)):
        taken, cost, error = spent.get(name), kinds.get(name), errors.get(name, {})
        kind = cost.kind if cost else error.get("kind", name.partition("/")[2])
        percent = None if taken is None or not total else 100 * taken / total
        measured = {field: error.get(field) for field in ("alone_db", "accumulated_db", "effect_db", "cosine")}
        rows.append(LayerFigures(name, str(kind), taken, percent, cost.macs if cost else None, **measured))
    return rows


def _ordered(spent: dict[str, float], layers: list[str], network: list[str]) -> list[str]:
    """Return the layers, with the operations behind them, in network order, then everything else."""
    places = {name: place for place, name in enumerate(network)}
    rows = dict.fromkeys([*layers, *spent])

    def place(row: str) -> tuple[bool, int, bool]:
        base, _, kind = row.partition("/")
        return row == OTHER, places.get(base, len(places)), bool(kind)

    return sorted(rows, key=place)


def _row_of(name: str, by_tensor: dict[str, LayerCost], known: set[str]) -> str:
    """Return the row that an operator's time belongs to: ``layer``, ``layer/kind``, or `OTHER`."""
    for part in parts(name):
        base, _, kind = part.partition("/")
        cost = by_tensor.get(base)
        if cost is not None and cost.name not in known:
            if "." in cost.name or cost.layer:  # a module of its own, or a function behind a layer
                return f"{cost.name if '.' in cost.name else cost.layer}/{cost.kind}"
            continue
        layer = cost.name if cost is not None else base
        if layer in known:
            kind = re.sub(r"_\d+$", "", kind.lower().strip("/").rpartition("/")[2])
            return layer if kind in _FUSED else f"{layer}/{kind}"
    if by_tensor or known or block_of(name) == OTHER:
        return OTHER
    return parts(name)[0]


def parts(name: str) -> list[str]:
    """Split the name of an engine's layer: TensorRT joins the names of the nodes that it fuses."""
    split = re.split(r" \+ |, *|\.\.\.", _COPY.sub("", name).strip("{}"))
    return [part.rpartition("[")[2].strip("]} ") for part in split]


def block_of(layer: str) -> str:
    """Return the block of the network that an engine's layer belongs to, by the names of its nodes.

    TensorRT joins the nodes that it fuses: ``features.4.layers.0 + features.4.layers.0/Clip`` belongs to
    ``features.4``. A block name has two components, or as many as it takes to reach one with a number
    (``encoder.layers.encoder_layer_3``). Layers without a name of the network are `OTHER`.
    """
    for part in parts(layer):
        name = re.sub(r":\d+$", "", part.partition("/")[0])
        if name and not _NO_LAYER.search(name) and re.fullmatch(r"[A-Za-z_][\w.]*", name):
            components = name.split(".")
            numbered = next((n for n, text in enumerate(components, 1) if re.search(r"\d", text)), len(components))
            return ".".join(components[: max(_DEPTH, numbered)])
    return OTHER


def _errors(debug: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """Return the errors by layer, in network order."""
    if debug is None:
        return {}
    try:
        ordered = sorted(debug["layers"], key=lambda layer: int(layer["position"]))
        return {
            str(layer["name"]): {
                "kind": str(layer["kind"]),
                "alone_db": float(layer["alone"]["sqnr_db"]),
                "accumulated_db": float(layer["accumulated"]["sqnr_db"]),
                "effect_db": float(layer["effect"]["logits"]["sqnr_db"]),
                "cosine": float(layer["accumulated"]["cosine"]),
            }
            for layer in ordered
        }
    except (KeyError, TypeError, ValueError):
        raise DataError("these figures of quantization were not written by edgekit", "edgekit quant debug") from None


def noise(effect_db: float | None) -> float | None:
    """Return the power of a layer's error in the logits over that of the logits."""
    return None if effect_db is None else float(10 ** (-effect_db / 10))


def noise_db(rows: Sequence[LayerFigures]) -> float | None:
    """Return the effect of all rows together, as if their errors were independent; None if none was measured."""
    powers = [power for power in (noise(row.effect_db) for row in rows) if power is not None]
    return -10 * math.log10(sum(powers)) if powers else None


def error_shares(rows: Sequence[LayerFigures]) -> list[float | None]:
    """Return the percentage of the error that each row makes; None where it was not measured."""
    powers = [noise(row.effect_db) for row in rows]
    total = sum(power for power in powers if power is not None)
    return [None if power is None or not total else 100 * power / total for power in powers]


def by_block(rows: Sequence[LayerFigures]) -> list[LayerFigures]:
    """Merge the rows of each block, in the order in which the blocks begin.

    Times, percentages and multiply-accumulates are sums, and the effect is that of the sum of all noise powers.
    `alone_db` is that of the worst layer; `accumulated_db` and `cosine` are those of the last one, the block's output.
    """
    found: dict[str, list[LayerFigures]] = {}
    for row in rows:
        found.setdefault(block_of(row.name), []).append(row)
    return [_joined(name, group) for name, group in found.items()]


def _joined(name: str, group: list[LayerFigures]) -> LayerFigures:
    last = next((row for row in reversed(group) if row.accumulated_db is not None), None)
    layers = sum("/" not in row.name for row in group)
    return LayerFigures(
        name=name,
        kind="" if name == OTHER else f"{layers} layer{'s' if layers != 1 else ''}",
        ms=_sum([row.ms for row in group]),
        percent=_sum([row.percent for row in group]),
        macs=_sum([row.macs for row in group]),
        alone_db=min((row.alone_db for row in group if row.alone_db is not None), default=None),
        accumulated_db=last.accumulated_db if last else None,
        effect_db=noise_db(group),
        cosine=last.cosine if last else None,
    )


def _sum(values: Sequence[Any]) -> Any:
    present = [value for value in values if value is not None]
    return sum(present) if present else None


def verdict(rows: Sequence[LayerFigures]) -> str:
    """Return a sentence on the slowest layer and the one with the largest error; "" if neither is known.

    Time that belongs to no layer is mentioned if it is much.
    """
    elsewhere = sum(row.percent or 0.0 for row in rows if row.name == OTHER)
    parts_of = [_slowest(rows), f"{elsewhere:.0f} % of the time is of no layer" if elsewhere > _MUCH else ""]
    return "; ".join(filter(None, parts_of))


def _slowest(rows: Sequence[LayerFigures]) -> str:
    shares = error_shares(rows)
    named = [(row, share) for row, share in zip(rows, shares, strict=True) if row.name != OTHER]
    slow = max((pair for pair in named if pair[0].percent is not None), key=lambda p: p[0].percent or 0, default=None)
    wrong = max((pair for pair in named if pair[1] is not None), key=lambda p: p[1] or 0, default=None)
    if slow is None:
        return "" if wrong is None else f"{wrong[0].name} makes {wrong[1]:.0f} % of the error"
    text = f"{slow[0].name} costs {slow[0].percent:.0f} % of the time"
    if wrong is None or slow[1] is None:
        return text
    if wrong[0] is slow[0]:
        return f"{text} and {slow[1]:.0f} % of the error"
    spent = "" if wrong[0].percent is None else f" in {wrong[0].percent:.0f} % of the time"
    return f"{text} and makes {slow[1]:.0f} % of the error; {wrong[0].name} makes {wrong[1]:.0f} % of the error{spent}"
