"""Doubles of TensorRT in this process, and a model that they build."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx_ir as ir
import pytest

from tests.doubles import engine, plant
from tests.quant.graphs import conv, gemm, graph, op

LoadTensorrt = Callable[[str], ModuleType]


@pytest.fixture(autouse=True)
def _progress_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How far a job is stands in a file of the current folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def cudart_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The double of the CUDA runtime."""
    return plant.cudart(tmp_path_factory.mktemp("cudart"))


@pytest.fixture
def load_tensorrt(cudart_library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoadTensorrt]:
    """A function that makes a version of the double of TensorRT what ``import tensorrt`` gives."""

    def load(version: str) -> ModuleType:
        sys.modules.pop("tensorrt", None)
        monkeypatch.setenv("DOUBLE_TRT_VERSION", version)
        return importlib.import_module("tensorrt")

    before = sys.modules.pop("tensorrt", None)
    monkeypatch.setenv("EDGEKIT_CUDART", str(cudart_library))
    monkeypatch.syspath_prepend(plant.HERE / "python")
    yield load
    sys.modules.pop("tensorrt", None)
    if before is not None:
        sys.modules["tensorrt"] = before


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """``import tensorrt`` fails, and there is no trtexec."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr("edgekit.ondevice.trtexec._PLACES", ())
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


@pytest.fixture(scope="session")
def onnx_bytes() -> bytes:
    """A model of ten scores for images of 3 x 4 x 4."""
    parts = [conv("image", "c1", inputs=3), op("Relu", ["c1"], "act"), op("GlobalAveragePool", ["act"], "pool")]
    model = graph(*parts, op("Flatten", ["pool"], "flat"), gemm("flat", "scores"), channels=3)
    return ir.to_proto(model).SerializeToString()


@pytest.fixture(scope="session")
def inputs() -> list[np.ndarray]:
    """Three different inputs of the model."""
    return list(np.random.default_rng(1).normal(size=(3, 1, 3, 4, 4)).astype(np.float32))


@pytest.fixture(scope="session")
def answers(onnx_bytes: bytes, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime makes of them."""
    opened = engine.session(onnx_bytes)
    return [engine.run(opened, image)[0] for image in inputs]
