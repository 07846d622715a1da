"""INT8 files answer rightly on every x86 CPU: sums of 8-bit products do not saturate in sessions that edgekit opens.

Without the option these tests fail on CPUs without VNNI, and pass on all others.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.convert.onnx import session
from edgekit.models.onnx_module import OnnxModule
from edgekit.ondevice.runner import open_runner
from edgekit.targets import infer

CHANNELS, SIDE = 32, 4
Run = Callable[[Path, np.ndarray], np.ndarray]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A Q/DQ convolution of the largest weights: scores are the sum of the pixels, times 1."""
    constants = {
        "scale": np.array(1 / 127, np.float32),
        "zero": np.array(0, np.int8),
        "weight": np.full((8, CHANNELS, 1, 1), 127, np.int8),
        "weight_scale": np.full(8, 1 / 127, np.float32),
        "weight_zero": np.zeros(8, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["weight", "weight_scale", "weight_zero"], ["w"], axis=0),
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "scale_out", "zero"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "scale_out", "zero"], ["scores"]),
    ]
    constants["scale_out"] = np.array(CHANNELS / 127, np.float32)
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, CHANNELS, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 8, SIDE, SIDE])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.int8.onnx")
    return tmp_path / "model.int8.onnx"


def by_exporter(path: Path, image: np.ndarray) -> np.ndarray:
    return np.asarray(session(path).run(None, {"image": image})[0])


def by_runner(path: Path, image: np.ndarray) -> np.ndarray:
    return open_runner("onnxruntime", str(path), 1).infer(image)[None]


def by_example(path: Path, image: np.ndarray) -> np.ndarray:
    return infer.open_onnx(path, False)(image)


def by_kept_file(path: Path, image: np.ndarray) -> np.ndarray:
    import torch

    return OnnxModule(path.read_bytes(), "", False)(torch.from_numpy(image)).numpy()


@pytest.mark.parametrize("run", [by_exporter, by_runner, by_example, by_kept_file])
def test_the_largest_values_do_not_saturate(file: Path, run: Run) -> None:
    image = np.ones((1, CHANNELS, SIDE, SIDE), np.float32)
    np.testing.assert_allclose(run(file, image), np.full((1, 8, SIDE, SIDE), CHANNELS), rtol=0.01)
