"""What a measuring job sends back: read, checked, and believed in nothing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import DataError, raise_if_not_damage
from edgekit.labels import visible

_SAID = ("runtime", "version", "processor", "threads")
_MAGIC = b"\x93NUMPY"
_TIMES = ("compute_ns", "warmup_ns", "offline_ns")
_NUMBERS = ("threads", "batch", "warmup_queries", "busy_before", "peak_rss_mb", "offline_images")
_MOST_NUMBER, _LARGEST = 1e15, 10**300
_MOST_TEXT, _MOST_LAYERS, _MOST_KEYS = 200, 5000, 300


@dataclass(frozen=True)
class Answer:
    """The files of one job.

    Attributes:
        environment: scalars by name. logits: float32 (samples, classes). compute_ns: of the model alone.
        warmup_ns: before the latencies. offline_ns: of passes over ``environment["offline_images"]`` images.
        layers: name and median milliseconds. power: float64 (n, 2), seconds and milliwatts; None where not measured.
    """

    environment: dict[str, Any]
    latencies_ns: tuple[int, ...]
    logits: np.ndarray
    compute_ns: tuple[int, ...] = ()
    layers: tuple[tuple[str, float], ...] = ()
    power: np.ndarray | None = None
    warmup_ns: tuple[int, ...] = ()
    offline_ns: tuple[int, ...] = ()


def read(folder: Path, device: str, samples: int) -> Answer:
    """The answer of `device` for so many samples.

    Raises:
        DataError: it is not what a runner writes.
    """
    try:
        said = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        latencies, logits = _array(folder / "latencies_ns.npy"), _array(folder / "logits.npy")
        times = {name: _array(path) for name in _TIMES if (path := folder / f"{name}.npy").is_file()}
        power = _array(folder / "power.npy") if (folder / "power.npy").is_file() else None
        layers = _layers(folder / "layers.json")
    except (ValueError, EOFError, OSError, TypeError, OverflowError, MemoryError, RecursionError) as error:
        if not isinstance(error, FileNotFoundError):  # which the device did not send
            raise_if_not_damage(error, folder)
        raise DataError(f"{device} sent results that cannot be read: {visible(str(error))[:_MOST_TEXT]}") from None
    sound = (
        isinstance(said, dict)
        and len(said) <= _MOST_KEYS
        and _are_times(latencies)
        and all(map(_are_times, times.values()))
        and ("offline_ns" not in times or _is_whole(said.get("offline_images")))
        and (logits.dtype == np.float32 and logits.ndim == 2 and len(logits) == samples and logits.shape[1] > 0)
        and (power is None or (power.dtype == np.float64 and power.shape[1:] == (2,)))
    )
    if (
        not sound
        or any(name not in said for name in _SAID)
        or not all(_is_number(said[n]) for n in _NUMBERS if n in said)
    ):
        raise DataError(f"{device} sent results that no runner of edgekit writes", "edgekit benchmark again")
    return Answer(
        {visible(str(k))[:_MOST_TEXT]: plain(v) for k, v in said.items()},
        tuple(int(v) for v in latencies),
        logits,
        layers=layers,
        power=power,
        **{name: tuple(int(v) for v in values) for name, values in times.items()},
    )


def plain(value: Any) -> Any:
    """A number as it is, anything else as short printable text."""
    if isinstance(value, float) and not math.isfinite(value):
        value = str(value)
    if isinstance(value, int | float) and abs(value) > _MOST_NUMBER:
        value = f"{float(value):g}" if abs(value) < _LARGEST else "huge"
    return value if isinstance(value, bool | int | float | None) else visible(str(value))[:_MOST_TEXT]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1 <= value < 1e12


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _are_times(values: np.ndarray) -> bool:
    return values.dtype == np.int64 and values.ndim == 1 and bool((values > 0).all())


def _array(path: Path) -> np.ndarray:
    """One array, by numpy's own format: `np.load` alone also takes zips and pickles.

    Raises:
        ValueError: it is something else.
    """
    with open(path, "rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{path.name} is no array")
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.ndarray):
        raise ValueError(f"{path.name} is no array")
    return loaded


def _layers(path: Path) -> tuple[tuple[str, float], ...]:
    """Names and times of at most `_MOST_LAYERS` layers.

    Raises:
        ValueError: it is something else.
    """
    if not path.is_file():
        return ()
    entries = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(entries, list) or len(entries) > _MOST_LAYERS:
        raise ValueError("layers.json is no list of layers")
    try:
        found = tuple((visible(str(name))[:_MOST_TEXT], float(ms)) for name, ms in entries)
    except TypeError:
        raise ValueError("layers.json is no list of names and times") from None
    if not all(0 <= ms < 1e6 for _, ms in found):
        raise ValueError("layers.json has times that cannot be")
    return found


# What ONNX Runtime's nodes are in the ONNX file that was given to it.

# What its optimizer appends to the names of tensors and nodes that it makes new ones of.
_MADE = re.compile(r"(?:_nchwc|_nhwc|_token_\d+|_bias_dq|_(?:de)?quantized?|_int8|\.(?:weight|bias)|_\d+)$")
# And what it puts before the names of tensors that it keeps in float32 in a file of float16.
_WIDENED = "InsertedPrecisionFreeCast_"


def name_layers(layers: Sequence[tuple[str, float]], path: Path) -> tuple[tuple[str, float], ...]:
    """The layers by the names of the file's nodes, where they are of one; of other files than ONNX as they are.

    A node that the optimizer fused is called after the node of the file that writes what it writes: a convolution
    with its activation after the activation, ``features.0.0/Clip``, which is of the layer ``features.0.0``.
    """
    if path.suffix != ".onnx" or not layers:
        return tuple(layers)
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    nodes = {node.name for node in graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear")}
    writer = {value: node.name for node in graph.node for value in node.output if node.name in nodes}
    return tuple((_node(name, nodes, writer), ms) for name, ms in layers)


def _node(name: str, nodes: set[str], writer: dict[str, str]) -> str:
    """The node that `name` is, or was made of; else `name`."""
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
