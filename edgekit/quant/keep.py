"""A quantized model in one file, so that no second export has to decide again."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import atomic
from edgekit.errors import DataError
from edgekit.quantization import CalibrationTable, LayerWeights, QuantizedModel

_PARTS = ("weight", "bias", "scales")


def save(path: Path, model: QuantizedModel, made_by: dict[str, Any]) -> None:
    """Write the weights of `model` as ``.npz``, with what they were made by."""
    arrays = {
        f"{name}|{part}": array
        for name, layer in model.layers.items()
        for part in _PARTS
        if (array := getattr(layer, part)) is not None
    }
    buffer = io.BytesIO()
    np.savez(buffer, made_by=np.array(json.dumps(made_by, sort_keys=True)), **arrays)
    atomic.save_bytes(path, buffer.getvalue())


def load(path: Path, table: CalibrationTable, made_by: dict[str, Any]) -> dict[str, LayerWeights] | None:
    """The layers that were kept, if they were made by the same; else None.

    Raises:
        DataError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["made_by"]) != json.dumps(made_by, sort_keys=True):
                return None
            names = dict.fromkeys(key.rpartition("|")[0] for key in kept.files if "|" in key)
            return {n: LayerWeights(kept[f"{n}|weight"], *(kept.get(f"{n}|{p}") for p in _PARTS[1:])) for n in names}
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged: {error}", "remove it: the next export makes it again") from error
