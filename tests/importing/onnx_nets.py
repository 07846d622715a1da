"""Small ONNX classifiers, written by hand as exporters write them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 32
KINDS = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8,
         "int64": TensorProto.INT64, "int8": TensorProto.INT8, "int32": TensorProto.INT32,
         "float64": TensorProto.DOUBLE, "string": TensorProto.STRING}  # fmt: skip


@dataclass
class Net:
    """A graph under construction: `at` is the tensor that the next node reads."""

    at: str = "image"
    shape: tuple[int | str, ...] = ("N", 3, SIZE, SIZE)
    kind: str = "float32"
    opset: int = 17
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def constant(self, value: Any, name: str = "") -> str:
        name = name or f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def add(self, kind: str, *constants: Any, name: str = "", inputs: list[str] | None = None, outputs: int = 1,
            **attributes: Any) -> Net:  # fmt: skip
        """Add a node that reads `at` and some constants, or exactly `inputs`."""
        made = [f"t{len(self.nodes)}" + (f"_{k}" if k else "") for k in range(outputs)]
        reads = inputs or [self.at, *(c if isinstance(c, str) else self.constant(c) for c in constants)]
        self.nodes.append(helper.make_node(kind, reads, made, name or f"{kind.lower()}{len(self.nodes)}", **attributes))
        self.at = made[0]
        return self

    def weights(self, *shape: int) -> np.ndarray:
        return (self.random.standard_normal(shape) / max(1, np.prod(shape[1:])) ** 0.5).astype(np.float32)

    def conv(self, inputs: int = 3, outputs: int = 8, kernel: int = 3, name: str = "stem", **attributes: Any) -> Net:
        weight = self.constant(self.weights(outputs, inputs, kernel, kernel), f"{name}.weight")
        bias = self.constant(self.weights(outputs, 1)[:, 0], f"{name}.bias")
        return self.add("Conv", weight, bias, **{"strides": [2, 2], "pads": [1, 1, 1, 1], **attributes})

    def head(self, channels: int = 8, classes: int = 5) -> Net:
        self.add("GlobalAveragePool").add("Flatten")
        weight, bias = self.weights(classes, channels), self.weights(classes, 1)[:, 0]
        return self.add("Gemm", self.constant(weight, "fc.weight"), self.constant(bias, "fc.bias"), transB=1)

    def model(self, *outputs: str) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("image", KINDS[self.kind], self.shape)
        wanted = [helper.make_empty_tensor_value_info(name) for name in outputs or (self.at,)]
        held = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "net", [image], wanted, held)
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(d, 1) for d in {n.domain for n in self.nodes} - {""}]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        try:
            inferred = onnx.shape_inference.infer_shapes(model)
            types = {v.name: v for v in inferred.graph.output if v.type.tensor_type.elem_type}
        except onnx.shape_inference.InferenceError:
            types = {}
        for value in model.graph.output:
            value.CopyFrom(types.get(value.name) or helper.make_tensor_value_info(value.name, TensorProto.FLOAT, None))
        return model

    def save(self, folder: Path, *outputs: str) -> Path:
        path = folder / "model.onnx"
        path.write_bytes(self.model(*outputs).SerializeToString())
        return path


def classifier(**options: Any) -> Net:
    """A network with one convolution."""
    return Net(**options).conv().add("Relu").head()
