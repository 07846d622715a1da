"""Engines run by TensorRT's Python API and the CUDA runtime, both doubles."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.ondevice import MISFIT, build, runner
from edgekit.ondevice.main import run_job
from edgekit.ondevice.run_tensorrt import TensorRtRunner
from edgekit.ondevice.tensorrt_api import BuildError
from tests.doubles import engine
from tests.ondevice.conftest import LoadTensorrt

Open = Callable[..., TensorRtRunner]


@pytest.fixture
def built(tmp_path: Path, load_tensorrt: LoadTensorrt, onnx_bytes: bytes) -> dict[str, Any]:
    """The record of an engine that TensorRT 10.3.0 has built to out/model.engine."""
    load_tensorrt("10.3.0")
    (tmp_path / "model.onnx").write_bytes(onnx_bytes)
    (tmp_path / "out").mkdir()
    return build.build({"precision": "fp32", "onnx": "model.onnx", "out": "out"}, str(tmp_path))


@pytest.fixture
def live(cudart_library: Path) -> Iterator[Callable[[], int]]:
    """How many pieces of memory are allocated; a test ends with as many as it began with."""
    function = ctypes.CDLL(str(cudart_library)).double_live
    function.restype = ctypes.c_long
    before = function()
    yield function
    assert function() == before


@pytest.fixture
def open_engine(tmp_path: Path, built: dict[str, Any], live: Callable[[], int]) -> Iterator[Open]:
    """A function that loads the engine; what was loaded is closed at the end of the test."""
    opened = []

    def load(**options: Any) -> TensorRtRunner:
        loaded = runner.open_runner("tensorrt", str(tmp_path / "out" / "model.engine"), 1, options)
        assert isinstance(loaded, TensorRtRunner)
        opened.append(loaded)
        return loaded

    yield load
    for each in opened:
        each.close()


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "no graph"])
def test_answers_are_those_of_the_onnx_file_with_a_cuda_graph_and_without(
    open_engine: Open, inputs: list[np.ndarray], answers: list[np.ndarray], graph: bool
) -> None:
    loaded = open_engine(cuda_graph=graph)
    found = [loaded.infer(image) for image in inputs]
    assert loaded.info()["cuda_graph"] is graph
    for got, want in zip(found, answers, strict=True):
        assert (got.dtype, got.shape) == (np.float32, (10,))
        np.testing.assert_array_equal(got, want)
    assert not np.array_equal(found[0], found[1])


def test_a_graph_is_captured_unless_the_options_say_no(open_engine: Open) -> None:
    assert open_engine().info() == {
        "runtime": "tensorrt",
        "version": "10.3.0",
        "processor": "GPU (SM 8.7)",
        "cuda_graph": True,
        "transfers": "in and out",
    }


def test_with_a_graph_the_engine_itself_is_not_asked_again(open_engine: Open, inputs: list[np.ndarray]) -> None:
    for graph, times in ((True, 0), (False, 3)):
        loaded = open_engine(cuda_graph=graph)
        asked: list[int] = []
        execute = loaded.context.execute_async_v3
        loaded.context.execute_async_v3 = lambda stream, asked=asked, execute=execute: (
            asked.append(1) or execute(stream)
        )
        for image in inputs:
            loaded.infer(image)
        assert len(asked) == times


def test_a_capture_that_is_refused_is_an_error_that_names_the_call(
    tmp_path: Path, built: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOUBLE_CUDA_NO_GRAPH", "1")
    path = str(tmp_path / "out" / "model.engine")
    words = r"cudaStreamBeginCapture: operation not supported \(801\); .*cuda_graph = false"
    with pytest.raises(RuntimeError, match=words):
        TensorRtRunner(path, 1)
    TensorRtRunner(path, 1, {"cuda_graph": False}).close()


def test_compute_times_are_of_the_gpus_clock_and_answers_stay_right(
    open_engine: Open, inputs: list[np.ndarray], answers: list[np.ndarray]
) -> None:
    loaded = open_engine()
    times = loaded.compute_times(inputs, 7)
    assert len(times) == 7
    assert all(isinstance(ns, int) and ns > 0 for ns in times)
    np.testing.assert_array_equal(loaded.infer(inputs[1]), answers[1])


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "no graph"])
def test_layers_are_told_apart_also_of_an_engine_with_a_graph(
    open_engine: Open, inputs: list[np.ndarray], graph: bool
) -> None:
    assert open_engine(cuda_graph=graph).layer_times(inputs, 3) == [("node_conv2d + n4", 0.06), ("node_linear", 0.03)]


def test_layer_times_are_medians(open_engine: Open, inputs: list[np.ndarray]) -> None:
    loaded, times = open_engine(), iter([6.0, 1.0, 2.0])

    def execute(stream: int) -> bool:
        loaded.context.profiler.report_layer_time("a", next(times))
        return True

    loaded.context.execute_async_v3 = execute
    assert loaded.layer_times(inputs, 3) == [("a", 2.0)]


def test_an_engine_that_does_not_run_is_an_error_with_what_was_logged(
    open_engine: Open, inputs: list[np.ndarray]
) -> None:
    loaded = open_engine(cuda_graph=False)
    loaded.logger.log(1, "out of memory")
    loaded.context.execute_async_v3 = lambda stream: False
    with pytest.raises(RuntimeError, match=r"TensorRT cannot run the engine: .*out of memory"):
        loaded.infer(inputs[0])


def test_an_engine_that_fits_is_loaded_and_one_of_another_version_is_named(
    tmp_path: Path, built: dict[str, Any], open_engine: Open, load_tensorrt: LoadTensorrt
) -> None:
    open_engine(built=built)
    load_tensorrt("10.7.0")
    with pytest.raises(BuildError, match=rf"^{MISFIT}: tensorrt 10\.3\.0, here 10\.7\.0$"):
        open_engine(built=built)
    with pytest.raises(RuntimeError, match=r"TensorRT cannot load the engine: .*Version tag does not match"):
        open_engine()


def test_an_engine_for_another_gpu_is_named(
    built: dict[str, Any], open_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOUBLE_CUDA_SM", "72")
    with pytest.raises(BuildError, match=r"compute_capability 8\.7, here 7\.2"):
        open_engine(built=built)


def test_an_engine_for_a_dla_core_runs_on_that_core_only(
    built: dict[str, Any], open_engine: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = open_engine(built={**built, "dla_core": 1}, dla_core=1)
    assert loaded.runtime.DLA_core == 1
    assert loaded.info()["processor"] == "DLA 1 and GPU (SM 8.7)"
    with pytest.raises(BuildError, match=r"dla_core 1, here None"):
        open_engine(built={**built, "dla_core": 1})


def test_a_file_that_is_no_engine_does_not_load(tmp_path: Path, built: dict[str, Any]) -> None:
    (tmp_path / "no.engine").write_bytes(b"no engine")
    with pytest.raises(RuntimeError, match="TensorRT cannot load the engine"):
        TensorRtRunner(str(tmp_path / "no.engine"), 1)


def test_an_engine_without_exactly_one_input_is_refused(
    built: dict[str, Any], tmp_path: Path, load_tensorrt: LoadTensorrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = load_tensorrt("10.3.0")
    modes = {"image": trt.TensorIOMode.OUTPUT, "scores": trt.TensorIOMode.OUTPUT}
    monkeypatch.setattr(trt._Engine, "get_tensor_mode", lambda self, name: modes[name])
    with pytest.raises(RuntimeError, match=r"the engine has 0 tensors of .*, not one"):
        TensorRtRunner(str(tmp_path / "out" / "model.engine"), 1)


def test_memory_is_freed_when_it_is_closed(
    tmp_path: Path, built: dict[str, Any], live: Callable[[], int], inputs: list[np.ndarray]
) -> None:
    before = live()
    loaded = TensorRtRunner(str(tmp_path / "out" / "model.engine"), 1)
    loaded.infer(inputs[0])
    assert live() == before + 4  # image and scores, here and there
    loaded.close()
    assert live() == before


def test_without_tensorrt_it_is_an_import_error(tmp_path: Path, no_tensorrt: None) -> None:
    with pytest.raises(ImportError, match="tensorrt"):
        TensorRtRunner(str(tmp_path / "model.engine"), 1)


def test_without_the_cuda_runtime_it_is_an_import_error(
    tmp_path: Path, built: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEKIT_CUDART", "/nowhere/libcudart.so")
    with pytest.raises(ImportError, match="libcudart"):
        TensorRtRunner(str(tmp_path / "out" / "model.engine"), 1)


def test_a_job_writes_compute_times_layers_and_answers(
    tmp_path: Path, built: dict[str, Any], live: Callable[[], int], onnx_bytes: bytes
) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (4, 4, 4, 3), np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    job = {"model": "out/model.engine", "runtime": "tensorrt", "threads": 1, "options": {"built": built},
           "pixels": "pixels.npy", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.25, 0.5], "layout": "NCHW",
           "out": "measured", "limits": {"warmup_queries": 1, "warmup_s": 0, "min_queries": 5, "min_s": 0,
           "max_s": 60}}  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps(job))
    result = run_job(str(tmp_path / "job.json"))
    assert (result["runtime"], result["version"], result["cuda_graph"]) == ("tensorrt", "10.3.0", True)
    out = tmp_path / "measured"
    compute = np.load(out / "compute_ns.npy")
    assert (compute.dtype, compute.shape, bool((compute > 0).all())) == (np.int64, (200,), True)
    assert json.loads((out / "layers.json").read_text()) == [["node_conv2d + n4", 0.06], ["node_linear", 0.03]]
    assert np.load(out / "latencies_ns.npy").shape == (5,)
    normal = (pixels / np.float32(255) - np.float32(0.5)) / np.array([0.5, 0.25, 0.5], np.float32)
    opened = engine.session(onnx_bytes)
    expected = [engine.run(opened, image[None]) for image in normal.transpose(0, 3, 1, 2).astype(np.float32)]
    np.testing.assert_allclose(np.load(out / "logits.npy"), np.concatenate(expected), rtol=1e-4, atol=1e-5)
    assert json.loads((out / "result.json").read_text()) == result
