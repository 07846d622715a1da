"""ONNX Runtime's nodes get the names of the file's, by rules and by a real profile."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.bench import replies


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """stem.0, its Clip and a quantized product of it."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["conv2d"], name="stem.0"),
        helper.make_node("Clip", ["conv2d"], ["hardtanh"], name="stem.0/Clip"),
        helper.make_node("QuantizeLinear", ["hardtanh", "s"], ["hardtanh_int8"], name="hardtanh_quantize"),
        helper.make_node(
            "DequantizeLinear", ["hardtanh_int8", "s"], ["hardtanh_dequantized"], name="hardtanh_dequantize"
        ),
        helper.make_node("Gemm", ["hardtanh_dequantized", "v"], ["scores"], name="fc"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("image", "scores")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:])), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("stem.0", "stem.0"),
        ("hardtanh_nchwc", "stem.0/Clip"),
        ("conv2d_nchwc", "stem.0"),
        ("fc_token_82", "fc"),
        ("InsertedPrecisionFreeCast_hardtanh_nchwc", "stem.0/Clip"),
        ("InsertedPrecisionFreeCast_fc", "fc"),
        ("InsertedPrecisionFreeCast_other_nchwc", "InsertedPrecisionFreeCast_other_nchwc"),
        ("hardtanh_quantize", "stem.0/Clip/QuantizeLinear"),
        ("hardtanh_dequantize", "stem.0/Clip/DequantizeLinear"),
        ("fc.weight_dequantize", "fc/DequantizeLinear"),
        ("fc_bias_dq", "fc/DequantizeLinear"),
        ("ReorderOutput", "ReorderOutput"),
        ("Transpose_token_81", "Transpose_token_81"),
    ],
)
def test_a_node_is_of_the_file_s_node_that_it_was_made_of(path: Path, said: str, name: str) -> None:
    assert replies.name_layers([(said, 1.5)], path) == ((name, 1.5),)


def test_other_files_keep_their_names(tmp_path: Path) -> None:
    assert replies.name_layers([("a_nchwc", 1.0)], tmp_path / "model.engine") == (("a_nchwc", 1.0),)
