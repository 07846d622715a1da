"""A quantized model in one file, so that no second export has to decide again."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import files
from edgekit.errors import DataError, raise_if_not_damage
from edgekit.quantization import LayerWeights, QuantizedModel

_PARTS = ("weight", "bias", "scales")
_FORM = 2  # of the file; those of another are decided again
Layers = dict[str, LayerWeights]


def save(path: Path, model: QuantizedModel, made_by: dict[str, Any]) -> None:
    """Write the weights of `model` as ``.npz``, with what they were made by."""
    arrays = {
        f"{group}|{name}|{part}": array
        for group, layers in (("layers", model.layers), ("rewritten", model.rewritten))
        for name, layer in layers.items()
        for part in _PARTS
        if (array := getattr(layer, part)) is not None
    }
    # The names too: a name that is damaged in the file's index would else be a bias less, and nobody the wiser.
    head = json.dumps({"form": _FORM, "made_by": made_by, "arrays": list(arrays)})
    buffer = io.BytesIO()
    np.savez(buffer, made_by=np.array(head), **arrays)
    files.save_bytes(path, buffer.getvalue())


def load(path: Path, made_by: dict[str, Any]) -> tuple[Layers, Layers] | None:
    """The `layers` and the `rewritten` ones that were kept, if they were made by the same; else None.

    Raises:
        DataError: the file is damaged.
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
            return _group(kept, head["arrays"], "layers"), _group(kept, head["arrays"], "rewritten")
    except Exception as error:  # of zipfile, zlib, json and numpy: a dozen kinds
        raise_if_not_damage(error, path)
        raise DataError(f"{path} is damaged: {error}", "remove it: the next export makes it again") from error


def _group(kept: Any, keys: list[str], group: str) -> Layers:
    """The layers of one group of arrays, in their order."""
    names = dict.fromkeys(key[len(group) + 1 :].rpartition("|")[0] for key in keys if key.startswith(f"{group}|"))
    return {
        n: LayerWeights(kept[f"{group}|{n}|weight"], *(kept.get(f"{group}|{n}|{p}") for p in _PARTS[1:])) for n in names
    }
