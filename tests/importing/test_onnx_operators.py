"""Each ONNX operator computes in torch what ONNX Runtime computes; old and new opsets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.importing import onnx_model
from tests.importing.onnx_nets import SIZE, Net

HALF = SIZE // 2
F, I = np.float32, np.int64  # noqa: E741
ones = lambda *shape: np.linspace(0.5, 1.5, int(np.prod(shape)), dtype=F).reshape(shape)  # noqa: E731


def spread(net: Net) -> Net:
    """(N, 8, 16, 16) to (N, 256, 8), the tokens of a transformer."""
    return net.add("Reshape", I([0, 8, -1])).add("Transpose", perm=[0, 2, 1])


def pool(net: Net) -> Net:
    """(N, tokens, 8) to (N, 8)."""
    return net.add("ReduceMean", axes=[1], keepdims=0)


def residual(net: Net, kind: str) -> Net:
    before = net.at
    net.add("Sigmoid")
    return net.add(kind, inputs=[before, net.at])


def gelu(net: Net, order: int) -> Net:
    x = net.at
    net.add("Div", F(2**0.5)).add("Erf").add("Add", F(1))
    erf = net.at
    if order == 0:  # x * (1 + erf) * 0.5
        return net.add("Mul", inputs=[x, erf]).add("Mul", F(0.5))
    half = net.add("Mul", inputs=[x, net.constant(F(0.5))]).at
    if order == 1:  # (x * 0.5) * (1 + erf)
        return net.add("Mul", inputs=[half, erf])
    net.add("Mul", inputs=[net.constant(F(0.5)), erf])
    return net.add("Mul", inputs=[x, net.at])


def layer_norm(net: Net) -> Net:
    x = net.at
    net.add("ReduceMean", axes=[-1])
    centred = net.add("Sub", inputs=[x, net.at]).at
    net.add("Pow", F(2)).add("ReduceMean", axes=[-1]).add("Add", F(1e-5)).add("Sqrt")
    net.add("Div", inputs=[centred, net.at]).add("Mul", ones(8)).add("Add", ones(8))
    return net


def hard_swish(net: Net) -> Net:
    x = net.at
    net.add("Add", F(3)).add("Clip", F(0), F(6))
    return net.add("Mul", inputs=[x, net.at]).add("Div", F(6))


def attention(net: Net) -> Net:
    x = net.at
    parts = [net.add("MatMul", inputs=[x, net.constant(net.weights(8, 8))]).at for _ in range(3)]
    keys = net.add("Transpose", inputs=[parts[1]], perm=[0, 2, 1]).at
    scores = net.add("MatMul", inputs=[parts[0], keys]).add("Softmax", axis=-1).at
    return net.add("MatMul", inputs=[scores, parts[2]])


def class_token(net: Net, by_shape: bool) -> Net:
    x = net.at
    token = net.constant(ones(1, 1, 8))
    if by_shape:
        batch = net.add("Shape", inputs=[x]).add("Gather", I([0]), axis=0).at
        shape = net.add("Concat", inputs=[batch, net.constant(I([1, 8]))], axis=0).at
        token = net.add("Expand", inputs=[token, shape]).at
    return net.add("Concat", inputs=[token, x], axis=1)


def split(net: Net) -> Net:
    net.add("Split", I([2, 6]), axis=1, outputs=2)
    name = net.nodes[-1].output
    return net.add("Concat", inputs=[name[1], name[0]], axis=1)


def shuffle(net: Net) -> Net:
    net.add("Reshape", I([-1, 2, 4, HALF, HALF])).add("Transpose", perm=[0, 2, 1, 3, 4])
    return net.add("Reshape", I([-1, 8, HALF, HALF]))


def size(net: Net) -> np.ndarray:
    return I([2 if net.shape[0] == 2 else 1, 8, 20, 24])


CASES: dict[str, Callable[[Net], Net]] = {
    "Relu": lambda n: n.add("Relu"),
    "Clip": lambda n: n.add("Clip", F(-0.3), F(0.4)),
    "Clip to 6": lambda n: n.add("Clip", F(0), F(6)),
    "Clip from 0": lambda n: n.add("Clip", F(0)),
    "Sigmoid": lambda n: n.add("Sigmoid"),
    "Tanh": lambda n: n.add("Tanh"),
    "HardSigmoid": lambda n: n.add("HardSigmoid"),
    "HardSigmoid of torch": lambda n: n.add("HardSigmoid", alpha=1 / 6, beta=0.5),
    "HardSwish": lambda n: n.add("HardSwish"),
    "Elu": lambda n: n.add("Elu", alpha=0.7),
    "LeakyRelu": lambda n: n.add("LeakyRelu", alpha=0.2),
    "Softplus": lambda n: n.add("Softplus"),
    "PRelu": lambda n: n.add("PRelu", ones(8, 1, 1)),
    "Mul": lambda n: residual(n, "Mul"),
    "Add": lambda n: residual(n, "Add"),
    "Sub": lambda n: residual(n, "Sub"),
    "Div": lambda n: residual(n, "Div"),
    "Max": lambda n: residual(n, "Max"),
    "Min": lambda n: residual(n, "Min"),
    "Sum": lambda n: residual(n, "Sum"),
    "Mean": lambda n: residual(n, "Mean"),
    "Max with a number": lambda n: n.add("Max", F(0.1)),
    "constant - x": lambda n: n.add("Sub", inputs=[n.constant(F(1)), n.at]),
    "channel-wise": lambda n: n.add("Mul", ones(1, 8, 1, 1)).add("Add", ones(8, 1, 1)),
    "Pow": lambda n: n.add("Pow", F(2)).add("Add", F(1)).add("Pow", F(0.5)),
    "Sqrt": lambda n: n.add("Abs").add("Sqrt"),
    "Exp": lambda n: n.add("Exp").add("Log"),
    "Neg": lambda n: n.add("Neg").add("Exp").add("Add", F(1)).add("Reciprocal"),
    "BatchNormalization": lambda n: n.add("BatchNormalization", ones(8), ones(8), ones(8), ones(8)),
    "BatchNormalization over tokens": lambda n: pool(
        spread(n).add("Transpose", perm=[0, 2, 1]).add("BatchNormalization", ones(8), ones(8), ones(8), ones(8))
        .add("Transpose", perm=[0, 2, 1])
    ),
    "InstanceNormalization": lambda n: n.add("InstanceNormalization", ones(8), ones(8)),
    "MaxPool": lambda n: n.add("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "MaxPool uneven": lambda n: n.add("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
    "MaxPool SAME": lambda n: n.add("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    "MaxPool ceil": lambda n: n.add("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "AveragePool": lambda n: n.add("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "AveragePool counting": lambda n: n.add("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "AveragePool SAME": lambda n: n.add("AveragePool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    "AveragePool SAME_LOWER": lambda n: n.add("AveragePool", kernel_shape=[2, 2], auto_pad="SAME_LOWER"),
    "AveragePool uneven counting": lambda n: n.add(
        "AveragePool", kernel_shape=[2, 2], pads=[0, 0, 1, 1], count_include_pad=1
    ),
    "GlobalMaxPool": lambda n: n.add("GlobalMaxPool"),
    "LRN": lambda n: n.add("LRN", size=5, alpha=0.1, beta=0.75, bias=1.5),
    "Conv SAME": lambda n: n.conv(8, 8, 3, "more", auto_pad="SAME_UPPER", pads=None),
    "Conv uneven": lambda n: n.conv(8, 8, 3, "more", pads=[0, 0, 1, 1]),
    "Conv depthwise": lambda n: n.conv(1, 8, 3, "more", group=8),
    "Conv dilated": lambda n: n.conv(8, 8, 3, "more", dilations=[2, 2], strides=[1, 1], pads=[2, 2, 2, 2]),
    "Conv 1d": lambda n: n.add("Reshape", I([0, 8, -1])).add("Conv", n.weights(8, 8, 3), pads=[1, 1])
    .add("Reshape", I([0, 8, HALF, HALF])),
    "Pad": lambda n: n.add("Pad", I([0, 0, 1, 2, 0, 0, 3, 4])),
    "Pad value": lambda n: n.add("Pad", I([0, 1, 0, 0, 0, 0, 0, 0]), F(0.7)).add("Slice", I([0]), I([8]), I([1])),
    "Pad reflect": lambda n: n.add("Pad", I([0, 0, 1, 2, 0, 0, 3, 4]), mode="reflect"),
    "Slice": lambda n: n.add("Slice", I([1, 0]), I([-1, 2**62]), I([2, 3]), I([2, 1])),
    "Slice backwards": lambda n: n.add("Slice", I([-1]), I([-(2**62)]), I([1]), I([-1])),
    "Split": split,
    "shuffle": shuffle,
    "Gather": lambda n: n.add("Gather", I([7, 6, 5, 4, 3, 2, 1, 0]), axis=1),
    "Squeeze": lambda n: n.add("Unsqueeze", I([2])).add("Squeeze", I([2])),
    "DepthToSpace": lambda n: n.add("SpaceToDepth", blocksize=2).add("DepthToSpace", blocksize=2, mode="CRD"),
    "Resize nearest": lambda n: n.add("Resize", inputs=[n.at, "", n.constant(F([1, 1, 2, 2]))], mode="nearest",
                                      coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    "Resize linear": lambda n: n.add("Resize", inputs=[n.at, "", "", n.constant(size(n))], mode="linear"),
    "ReduceMax": lambda n: n.add("ReduceMax", axes=[2, 3]),
    "ReduceL2": lambda n: n.add("ReduceL2", axes=[2, 3]),
    "ReduceMean": lambda n: n.add("ReduceMean", axes=[-1, -2]).add("Relu"),
    "Where": lambda n: n.add("Where", inputs=[n.constant(ones(HALF, HALF) > 1), n.at, n.constant(F(0))]),
    "Expand": lambda n: n.add("GlobalAveragePool").add("Expand", I([1, 8, 4, 4])),
    "Identity": lambda n: n.add("Identity").add("Dropout").add("Cast", to=1),
    "Softmax over channels": lambda n: n.add("Softmax", axis=1),
    "attention": lambda n: pool(attention(spread(n))),
    "LayerNormalization": lambda n: pool(spread(n).add("LayerNormalization", ones(8), ones(8))),
    "MatMul + Add": lambda n: pool(spread(n).add("MatMul", n.weights(8, 8)).add("Add", ones(8))),
    "class token": lambda n: pool(class_token(spread(n), False)) if n.shape[0] == 1 else n,
    "class token by shape": lambda n: pool(class_token(spread(n), True)),
    "GELU": lambda n: gelu(n, 0),
    "GELU, half first": lambda n: gelu(n, 1),
    "GELU, half last": lambda n: gelu(n, 2),
    "layer norm by hand": lambda n: pool(layer_norm(spread(n))),
    "hard swish by hand": hard_swish,
}  # fmt: skip


def network(name: str, shape: tuple[int | str, ...]) -> Net:
    net = CASES[name](Net(shape=shape).conv())
    for node in net.nodes:
        for attribute in [
            a for a in node.attribute if a.name == "pads" and any(b.name == "auto_pad" for b in node.attribute)
        ]:
            node.attribute.remove(attribute)
    tokens = net.nodes[-1].op_type == "ReduceMean" and not net.nodes[-1].attribute[-1].i
    if not tokens:
        net.add("GlobalAveragePool").add("Flatten")
    return net.add("Gemm", net.weights(8, 5), net.weights(5))


@pytest.mark.parametrize("batch", ["N", 1, 2])
@pytest.mark.parametrize("name", list(CASES))
def test_an_operator_computes_what_it_does_in_onnx_runtime(tmp_path: Path, name: str, batch: int | str) -> None:
    found = onnx_model.read(network(name, (batch, 3, SIZE, SIZE)).save(tmp_path))  # compares them
    assert not found.problem
    assert found.difference < 1e-5
    assert found.model(torch.zeros(5, 3, SIZE, SIZE)).shape == (5, 5)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("GELU", torch.nn.GELU),
        ("GELU, half first", torch.nn.GELU),
        ("GELU, half last", torch.nn.GELU),
        ("layer norm by hand", torch.nn.LayerNorm),
        ("hard swish by hand", torch.nn.Hardswish),
        ("MatMul + Add", torch.nn.Linear),
        ("HardSigmoid of torch", torch.nn.Hardsigmoid),
        ("Clip to 6", torch.nn.ReLU6),
        ("Clip from 0", torch.nn.ReLU),
    ],
)
def test_arithmetic_that_is_a_layer_becomes_that_layer(tmp_path: Path, name: str, layer: type) -> None:
    model = onnx_model.read(network(name, ("N", 3, SIZE, SIZE)).save(tmp_path)).model
    assert isinstance(model, torch.fx.GraphModule)
    left = [n.target for n in model.graph.nodes if n.op == "call_function"]
    assert layer in [type(m) for m in model.modules()]
    assert not {torch.erf, torch.sqrt} & set(left)


OLD: dict[str, tuple[int, Callable[[Net], Net]]] = {
    "Clip of opset 10": (10, lambda n: n.add("Clip", min=0.0, max=6.0)),
    "Slice of opset 9": (9, lambda n: n.add("Slice", axes=[2, 3], starts=[0, 1], ends=[8, 9])),
    "Pad of opset 10": (10, lambda n: n.add("Pad", pads=[0, 0, 1, 1, 0, 0, 1, 1], mode="constant", value=0.5)),
    "Unsqueeze of opset 12": (12, lambda n: n.add("Unsqueeze", axes=[1]).add("Squeeze", axes=[1])),
    "Split of opset 12": (12, split),
    "Softmax of opset 12": (12, lambda n: n.add("ReduceMean", axes=[2, 3]).add("Softmax", axis=1)),
    "Upsample of opset 9": (9, lambda n: n.add("Upsample", F([1, 1, 2, 2]), mode="nearest")),
    "ReduceMean of opset 18": (18, lambda n: n.add("ReduceMean", I([2, 3]))),
    "Split of opset 18": (18, split),
    "Gelu of opset 20": (20, lambda n: n.add("Gelu", approximate="tanh")),
    "Pad of opset 18": (18, lambda n: n.add("Pad", I([1, 2, 3, 4]), F(0), I([2, 3]))),
    "AveragePool of opset 22": (22, lambda n: n.add("AveragePool", kernel_shape=[2, 2])),
    "GroupNormalization of opset 21": (21, lambda n: n.add("GroupNormalization", ones(8), ones(8), num_groups=4)),
}


@pytest.mark.parametrize("name", list(OLD))
def test_other_opsets(tmp_path: Path, name: str) -> None:
    opset, change = OLD[name]
    net = change(Net(opset=opset).conv())
    if name == "Split of opset 12":
        at = next(n for n in net.nodes if n.op_type == "Split")
        del at.input[1:]
        at.attribute.extend([__import__("onnx").helper.make_attribute("split", [2, 6])])
    net.add("GlobalAveragePool").add("Flatten").add("Gemm", net.weights(8, 5), net.weights(5))
    found = onnx_model.read(net.save(tmp_path))
    assert not found.problem
    assert found.difference < 1e-5
