"""What an ONNX file holds, and that no damage of one ends in anything but one error."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from edgekit.errors import DataError
from edgekit.targets import contents as figures
from edgekit.targets import read_onnx
from edgekit.targets.contents import Contents
from tests.small_onnx import model


def read(content: bytes, folder: Path) -> Contents:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return read_onnx.read(path)


def test_types_follow_from_what_is_known(tmp_path: Path) -> None:
    contents = read(model(np.float16), tmp_path)
    assert [kind[:3] for kind in figures.kinds(contents.ops)] == [
        ("DequantizeLinear", "int8 x float16 -> float16", 2),
        ("Cast", "float16 -> float32", 1),
        ("Conv", "float16 x float16 -> float16", 1),
        ("Conv", "int8 x int8 per channel -> float16", 1),
        ("QuantizeLinear", "float16 x float16 -> int8", 1),
    ]
    assert (contents.inputs[0].shape, contents.inputs[0].dtype) == ((-1, 3, 4, 4), "float16")
    assert [t.name for t in contents.outputs] == ["scores"]


def test_it_says_what_is_int8_and_what_is_float16(tmp_path: Path) -> None:
    about = read(model(np.float16), tmp_path).about
    assert (about["opset"], about["IR version"], about["producer"]) == ("ai.onnx 19", 9, "edgekit")
    assert (about["QuantizeLinear"], about["DequantizeLinear"]) == (1, 2)
    assert about["INT8 by Q/DQ"].startswith("1 of 2 ")
    assert about["in floats"] == "second"
    assert about["float16 of float bytes"] == "100 %"
    assert read(model(), tmp_path).about["float16 of float bytes"] == "0 %"


def test_weights_and_metadata(tmp_path: Path) -> None:
    contents = read(model(), tmp_path)
    assert figures.weight_bytes(contents) == {"float32": 4 * (1 + 4 + 8), "int8": 1 + 12 + 4}
    assert contents.metadata == {"checkpoint": "abc\\x1b"}
    assert figures.macs(contents) is None  # shapes between the nodes are not in the file


def test_an_external_file_is_not_opened(tmp_path: Path) -> None:
    made = onnx.load_from_string(model())
    weight = made.graph.initializer[2]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    contents = read(made.SerializeToString(), tmp_path)
    assert next(t.nbytes for t in contents.weights if t.name == "w_int8") == 12  # by its shape
    assert contents.about["external data"] == "1 tensors in /etc/passwd, which is not read"


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x00" * 64, b"TFL3" * 9])
def test_another_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(DataError, match="is damaged, or not an ONNX file"):
        read(content, tmp_path)


def test_graphs_nested_beyond_measure_are_an_error(tmp_path: Path) -> None:
    made = onnx.load_from_string(model())
    inner = made.graph
    for _ in range(40):
        attribute = inner.node[0].attribute.add(name="body", type=onnx.AttributeProto.GRAPH)
        attribute.g.node.add(op_type="If")
        inner = attribute.g
    with pytest.raises(DataError):
        read(made.SerializeToString(), tmp_path)


def survives(content: bytes, folder: Path) -> None:
    """It is read, or it is one error."""
    with contextlib.suppress(DataError):
        contents = read(content, folder)
        figures.kinds(contents.ops)
        figures.largest(contents, 3)


GOOD = model()


@settings(max_examples=60, deadline=None)
@given(end=st.integers(0, len(GOOD) - 1))
def test_a_file_that_was_cut_off_is_one_error_or_none(tmp_path_factory: pytest.TempPathFactory, end: int) -> None:
    survives(GOOD[:end], tmp_path_factory.getbasetemp())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=12))
def test_a_file_with_wrong_bytes_is_one_error_or_none(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[int, int]]
) -> None:
    content = bytearray(GOOD)
    for place, value in places:
        content[place] = value
    survives(bytes(content), tmp_path_factory.getbasetemp())


def test_weights_in_another_file_have_their_size(tmp_path: Path) -> None:
    weight = onnx.numpy_helper.from_array(np.zeros((16, 16, 3, 3), np.float16), "w")
    onnx.external_data_helper.set_external_data(weight, "weights.bin")
    weight.ClearField("raw_data")
    node = onnx.helper.make_node("Conv", ["image", "w"], ["scores"])
    values = [
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT16, [1, 16, 8, 8]) for n in ("image", "scores")
    ]
    held = onnx.helper.make_model(onnx.helper.make_graph([node], "g", values[:1], values[1:], [weight]))
    path = tmp_path / "model.onnx"
    path.write_bytes(held.SerializeToString())
    found = read_onnx.read(path)
    assert [tensor.nbytes for tensor in found.weights] == [16 * 16 * 9 * 2]
    assert found.about["external data"] == "1 tensors in weights.bin, which is not read"
