"""A small ONNX file written by hand: a Conv in INT8 by Q/DQ, one in floats, and a Cast behind them."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def model(kind: type = np.float32) -> bytes:
    """The file; `kind` is the type of its floats, float32 or float16."""
    elem = TensorProto.FLOAT if kind is np.float32 else TensorProto.FLOAT16
    constants = {
        "s": kind(0.5), "z": np.int8(0), "w_int8": np.ones((4, 3, 1, 1), np.int8), "w_scale": np.full(4, 0.25, kind),
        "w_zero": np.zeros(4, np.int8), "w2": np.ones((2, 4, 1, 1), kind),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["dq"]),
        helper.make_node("DequantizeLinear", ["w_int8", "w_scale", "w_zero"], ["w"], axis=0),
        helper.make_node("Conv", ["dq", "w"], ["c1"], name="first"),
        helper.make_node("Conv", ["c1", "w2"], ["c2"], name="second"),
        helper.make_node("Cast", ["c2"], ["scores"], to=TensorProto.FLOAT),
    ]
    image = helper.make_tensor_value_info("image", elem, ["N", 3, 4, 4])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 2, 4, 4])
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", [image], [scores], held)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9, producer_name="edgekit")
    helper.set_model_props(made, {"checkpoint": "abc\x1b"})
    return bytes(made.SerializeToString())
