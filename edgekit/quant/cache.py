"""Weights of a quantized model in one ``.npz`` file, so that the next export need not solve for them again."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import files
from edgekit.errors import DataError, raise_if_not_damage
from edgekit.quantization import LayerWeights, Range

_PARTS = ("weight", "bias", "scales")
_FORM = 5  # of the file; files of another form are ignored


@dataclass(frozen=True)
class Weights:
    """`QuantizedModel.layers` and `QuantizedModel.rewritten`.

    Attributes:
        ranges: tensor -> range, where they are not those of the calibration table. symmetric: those for symmetric
            grids, where they are others. steps: that made them.
    """

    layers: dict[str, LayerWeights]
    rewritten: dict[str, LayerWeights] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)
    steps: tuple[str, ...] = ()
    symmetric: dict[str, Range] = field(default_factory=dict)


def save(path: Path, weights: Weights, made_by: dict[str, Any]) -> None:
    """Write weights with a description of what they were made from."""
    arrays = {
        f"{group}|{name}|{part}": array
        for group, layers in (("layers", weights.layers), ("rewritten", weights.rewritten))
        for name, layer in layers.items()
        for part in _PARTS
        if (array := getattr(layer, part)) is not None
    }
    # With the names of the arrays: if one is damaged in the zip index, the array would be missing without notice.
    ranges, symmetric = (
        {name: (span.low, span.high) for name, span in spans.items()} for spans in (weights.ranges, weights.symmetric)
    )
    made = {"ranges": ranges, "symmetric": symmetric, "steps": weights.steps}
    head = json.dumps({"form": _FORM, "made_by": made_by, "arrays": list(arrays), **made})
    buffer = io.BytesIO()
    np.savez(buffer, made_by=np.array(head), **arrays)
    files.save_bytes(path, buffer.getvalue())


def load(path: Path, made_by: dict[str, Any]) -> Weights | None:
    """Return the weights in a file, or None if there is no file or they were made from something else.

    Raises:
        DataError: the file is damaged. EdgekitError, StorageError: it could not be read for another reason.
    """
    if not path.is_file():
        return None
    try:
        content = path.read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as kept:
            head = json.loads(str(kept["made_by"]))
            if (head.get("form"), head.get("made_by")) != (_FORM, json.loads(json.dumps(made_by))):
                return None
            if head["arrays"] != [key for key in kept.files if key != "made_by"]:
                raise ValueError("its index names other arrays")
            layers, rewritten = (_group(kept, head["arrays"], name) for name in ("layers", "rewritten"))
            ranges, symmetric = (
                {name: Range(float(low), float(high)) for name, (low, high) in head[part].items()}
                for part in ("ranges", "symmetric")
            )
            return Weights(layers, rewritten, ranges, tuple(map(str, head["steps"])), symmetric)
    except Exception as error:  # zipfile, zlib, json and numpy raise a dozen kinds
        raise_if_not_damage(error, path)
        raise DataError(f"{path} is damaged: {error}", "keep it elsewhere; the next export makes it again") from error


def _group(kept: Any, keys: list[str], group: str) -> dict[str, LayerWeights]:
    """Return the layers of one group of arrays, in their order."""
    names = dict.fromkeys(key[len(group) + 1 :].rpartition("|")[0] for key in keys if key.startswith(f"{group}|"))
    return {
        n: LayerWeights(kept[f"{group}|{n}|weight"], *(kept.get(f"{group}|{n}|{p}") for p in _PARTS[1:])) for n in names
    }
