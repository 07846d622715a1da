"""The runtimes of the desktop: ONNX Runtime with its profile, OpenVINO, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.ondevice import run_onnxruntime, run_torch
from edgekit.ondevice.runner import open_runner


@pytest.fixture
def path(onnx_bytes: bytes, tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(onnx_bytes)
    return tmp_path / "model.onnx"


def test_onnx_runtime_tells_the_time_of_every_node_that_is_left(path: Path, inputs: list[np.ndarray]) -> None:
    runner = open_runner("onnxruntime", str(path), 1)
    assert "layers_by" not in runner.info()
    found = dict(runner.layer_times(inputs, 5))
    assert len(found) >= 3
    assert all(0 <= ms < 1000 for ms in found.values())
    assert runner.info()["layers_by"] == "ONNX Runtime's profiler"
    assert not list(path.parent.glob("*.json"))


def test_a_profile_is_the_median_of_each_node_without_the_first_runs() -> None:
    def node(name: str, us: int) -> dict[str, object]:
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": us}

    runs = [900, 2000, 3000, 9000]
    events = [
        e for us in runs for e in (node("a", us), node("b", 1), {"cat": "Session", "name": "model_run", "dur": us})
    ]
    events.append({"cat": "Node", "name": "a_fence_before", "dur": 7})
    assert run_onnxruntime.read_profile(events, 1) == ([("a", 3.0), ("b", 0.001)], 3.0)


def test_openvino_answers_as_onnx_runtime(path: Path, inputs: list[np.ndarray], answers: list[np.ndarray]) -> None:
    pytest.importorskip("openvino")
    runner = open_runner("openvino", str(path), 2)
    for image, expected in zip(inputs, answers):
        np.testing.assert_allclose(runner.infer(image), expected.reshape(-1), rtol=1e-4, atol=1e-5)
    assert runner.info()["runtime"] == "openvino"
    threads = runner.model.get_property("INFERENCE_NUM_THREADS")  # type: ignore[attr-defined]
    assert (int(threads), str(runner.model.get_property("INFERENCE_PRECISION_HINT"))) == (2, "<Type: 'float32'>")  # type: ignore[attr-defined]


def test_a_provider_that_is_not_here_is_not_replaced(path: Path) -> None:
    if "CUDAExecutionProvider" in run_onnxruntime.onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(RuntimeError, match="onnxruntime-gpu"):
        open_runner("onnxruntime-cuda", str(path), 1)


def test_float16_needs_a_gpu(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, tmp_path / "model.pt2")
    with pytest.raises(RuntimeError, match="there is none"):
        run_torch.HalfRunner(str(tmp_path / "model.pt2"), 1)
