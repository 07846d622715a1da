"""Replies of devices to a measuring job: untrusted files, read and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from edgekit import environment, validation
from edgekit.environment import MOST_TEXT, Environment, plain
from edgekit.errors import DataError, raise_if_not_damage
from edgekit.labels import visible

_MAGIC = b"\x93NUMPY"
_TIMES = ("compute_ns", "warmup_ns", "offline_ns")
_MOST_LAYERS, _MOST_KEYS = 5000, 300
_Layers = Annotated[list[tuple[str, Annotated[float, Meta(ge=0, lt=1e6)]]], Meta(max_length=_MOST_LAYERS)]
# Suffixes of names that ONNX Runtime's optimizer gives to tensors and nodes that it makes of others.
_MADE = re.compile(r"(?:_nchwc|_nhwc|_token_\d+|_bias_dq|_(?:de)?quantized?|_int8|\.(?:weight|bias)|_\d+)$")
# Prefix of the names of tensors that it keeps in float32 in a file of float16.
_WIDENED = "InsertedPrecisionFreeCast_"


def _empty() -> np.ndarray:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class Reply:
    """Files that a device sends for one job.

    Attributes:
        latencies_ns, compute_ns, warmup_ns, offline_ns: int64, as for `BenchmarkResult`.
        logits: float32 (samples, classes). layers: names and median milliseconds.
        power: float64 (n, 2), seconds and milliwatts; None where it was not measured.
    """

    environment: Environment
    latencies_ns: np.ndarray
    logits: np.ndarray
    compute_ns: np.ndarray = field(default_factory=_empty)
    layers: tuple[tuple[str, float], ...] = ()
    power: np.ndarray | None = None
    warmup_ns: np.ndarray = field(default_factory=_empty)
    offline_ns: np.ndarray = field(default_factory=_empty)


def read(folder: Path, device: str, samples: int) -> Reply:
    """Read the reply of `device`, which was sent `samples` images.

    Raises:
        DataError: it cannot be read, or is not what a runner writes.
    """
    try:
        table = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        latencies, logits = _array(folder / "latencies_ns.npy"), _array(folder / "logits.npy")
        times = {name: _array(path) for name in _TIMES if (path := folder / f"{name}.npy").is_file()}
        power = _array(folder / "power.npy") if (folder / "power.npy").is_file() else None
        layers = _layers(folder / "layers.json")
    except (ValueError, EOFError, OSError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        if not isinstance(error, FileNotFoundError):  # which the device did not send
            raise_if_not_damage(error, folder)
        raise DataError(f"{device} sent results that cannot be read: {visible(str(error))[:MOST_TEXT]}") from None
    where, hint = f"{device} sent results that no runner of edgekit writes", "edgekit benchmark again"
    table = validation.convert(table, Annotated[dict[str, Any], Meta(max_length=_MOST_KEYS)], where, hint)
    found = environment.parse(
        {visible(key)[:MOST_TEXT]: plain(value) for key, value in table.items()}, where, environment.REQUIRED, hint
    )
    sound = {
        "latencies_ns": _are_times(latencies),
        **{name: _are_times(values) for name, values in times.items()},
        "offline_images": "offline_ns" not in times or bool(found.offline_images),
        "logits": logits.dtype == np.float32 and logits.ndim == 2 and len(logits) == samples and logits.shape[1] > 0,
        "power": power is None or (power.dtype == np.float64 and power.shape[1:] == (2,)),
    }
    if wrong := [name for name, is_sound in sound.items() if not is_sound]:
        raise DataError(f"{where}: {', '.join(wrong)}", hint)
    return Reply(found, latencies, logits, layers=layers, power=power, **times)


def _are_times(values: np.ndarray) -> bool:
    return values.dtype == np.int64 and values.ndim == 1 and bool((values > 0).all())


def _array(path: Path) -> np.ndarray:
    """Read one .npy file; `np.load` alone also accepts zips and pickles.

    Raises:
        ValueError: the file holds something else.
    """
    with open(path, "rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{path.name} is not an array")
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.ndarray):
        raise ValueError(f"{path.name} is not an array")
    return loaded


def _layers(path: Path) -> tuple[tuple[str, float], ...]:
    """Read the names and times of layers.

    Raises:
        ValueError: the file holds something else.
    """
    if not path.is_file():
        return ()
    try:
        found = validation.convert(json.loads(path.read_text(encoding="utf-8")), _Layers, "layers.json")
    except DataError as error:
        raise ValueError(error.message) from None
    return tuple((visible(name)[:MOST_TEXT], ms) for name, ms in found)


def name_layers(layers: Sequence[tuple[str, float]], path: Path) -> tuple[tuple[str, float], ...]:
    """Return layers under the names of the nodes in an ONNX file; those of other files unchanged.

    ONNX Runtime's optimizer renames nodes. A node that it fused gets the name of the node in the file that writes the
    same output: a convolution with its activation that of the activation, ``features.0.0/Clip``, which belongs to the
    layer ``features.0.0``.
    """
    if path.suffix != ".onnx" or not layers:
        return tuple(layers)
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    nodes = {node.name for node in graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")}
    writer = {value: node.name for node in graph.node for value in node.output if node.name in nodes}
    return tuple((_node(name, nodes, writer), ms) for name, ms in layers)


def _node(name: str, nodes: set[str], writer: dict[str, str]) -> str:
    """Return the node that `name` is, or was made of; else `name`."""
    found, kind = name.removeprefix(_WIDENED), ""
    while True:
        if found in nodes:
            return found + kind
        if found in writer:
            return writer[found] + kind
        shorter = _MADE.sub("", found)
        if shorter == found:
            return name
        made = found[len(shorter) :]
        if re.search(r"quant|_dq", made):
            kind = "/DequantizeLinear" if "_dq" in made or "dequant" in made else "/QuantizeLinear"
        found = shorter
