"""NVIDIA's own ONNX parser and engine builder, on a machine without a GPU.

`tensorrt_rtx` is TensorRT for RTX: it says whether a file parses and which types its layers get.
Engines for SM 8.6, the nearest to Orin, are built and never run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from edgekit.ondevice.tensorrt_api import parse

_LAYER = re.compile(
    r"Name: (.*?), LayerType: (\w+), Inputs: \[(.*?)\], Constants: \[(.*?)\], Outputs: \[(.*?)\], Tactic"
)
_DATATYPE = re.compile(r"Datatype: (\w+)")


@dataclass(frozen=True)
class Layer:
    """One layer of an engine: `name` joins the ONNX nodes that were fused into it."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@cache
def _logger() -> Any:
    """The process's only logger: TensorRT keeps the first one it is given."""
    import tensorrt_rtx as trt

    class Lines(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            self.lines.append(message)

    return Lines()


def parser() -> tuple[Any, Any, Any]:
    """The module, a fresh builder and the logger; skips the test where TensorRT for RTX is missing."""
    trt = pytest.importorskip("tensorrt_rtx", reason='pip install -e ".[tensorrt-rtx]" (make test does)')
    return trt, trt.Builder(_logger()), _logger()


def build(path: Path) -> list[Layer]:
    """Parse and build; returns the engine's layers."""
    trt, builder, logger = parser()
    logger.lines.clear()
    network, keep = parse(trt, builder, logger, path.read_bytes(), 0)
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    engine = builder.build_serialized_network(network, config)
    del keep
    assert engine is not None, "\n".join(logger.lines[-5:])
    listed = next(line for line in reversed(logger.lines) if "Layers:" in line)
    return [_layer(found) for line in listed.splitlines() if (found := _LAYER.match(line))]


def _layer(found: re.Match[str]) -> Layer:
    inputs, outputs = (tuple(_DATATYPE.findall(found[number])) for number in (3, 5))
    return Layer(found[1], found[2], inputs, outputs)
