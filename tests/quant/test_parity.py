"""Strict parity: the ``.tflite`` and the ONNX file hold the same integers and scales."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from edgekit.convert import onnx as export
from edgekit.convert import tflite
from edgekit.convert.fold import fold
from edgekit.quant import litert, qdq, recover
from edgekit.quantization import CalibrationRecipe, QuantScheme
from tests import nets

SIZE = 32
STEPS = ("compensate", "rounding", "bias")


@dataclass(frozen=True)
class Pair:
    """Both files of one network."""

    onnx: Path
    tflite: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("parity")
    network = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU6(), nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.ReLU6()),
        *(nn.Conv2d(16, 24, 1), nn.Conv2d(24, 32, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(32, 5),
    )
    folded, images = fold(network.eval(), SIZE), nets.random_images(64, SIZE)
    table = nets.observe(folded, images, "mse")
    recipe = CalibrationRecipe("strict", observer="mse", steps=STEPS)
    quantized = recover.recover(folded, table, recipe, QuantScheme(True, everywhere=True), images)
    path, source = nets.emit_float_onnx(folded, SIZE, folder), nets.emit_float_tflite(folded, SIZE, folder)
    graph = ir.load(path)
    names = nets.naming(folded, export.run_all(path, images[:1].numpy()), images)
    qdq.quantize(graph, quantized, names, everywhere=True)
    export.save(graph, folder / "int8.onnx")
    with tflite.quiet():
        naming = nets.naming(folded, tflite.run_all(source, images[:1].numpy()), images)
        litert.quantize(source, quantized, naming, folder / "int8.tflite")
    return Pair(folder / "int8.onnx", folder / "int8.tflite")


def in_onnx(path: Path) -> tuple[list[tuple[bytes, bytes]], set[float]]:
    """(sorted integers, scales) of each weight, and every activation scale."""
    held = {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}
    weights = [(held[n], held[f"{n[:-5]}_scale"]) for n in held if n.endswith("_int8") and held[n].ndim > 1]
    scales = {float(a) for n, a in held.items() if n.endswith("_scale") and a.ndim == 0}
    return [(np.sort(w, axis=None).tobytes(), s.tobytes()) for w, s in weights], scales


def in_tflite(path: Path) -> tuple[list[tuple[bytes, bytes]], dict[float, int]]:
    """(sorted integers, scales) of each weight, and scale -> zero point of every activation."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    interpreter.allocate_tensors()
    weights, activations = [], {}
    for detail in interpreter.get_tensor_details():
        parameters = detail["quantization_parameters"]
        if detail["dtype"] == np.int8 and len(parameters["scales"]) > 1:
            values = interpreter.get_tensor(detail["index"])
            weights.append((np.sort(values, axis=None).tobytes(), parameters["scales"].tobytes()))
        elif detail["dtype"] == np.int8 and len(parameters["scales"]) == 1:
            activations[float(parameters["scales"][0])] = int(parameters["zero_points"][0])
    return weights, activations


def test_weight_integers_and_scales_are_the_same(pair: Pair) -> None:
    ours, theirs = in_onnx(pair.onnx)[0], in_tflite(pair.tflite)[0]
    assert len(ours) == 4  # the convolution of 3 channels stays float for TensorRT
    assert set(ours) <= set(theirs)


def test_activation_scales_are_the_same_and_zero_points_are_zero(pair: Pair) -> None:
    ours, theirs = in_onnx(pair.onnx)[1], in_tflite(pair.tflite)[1]
    assert len(ours) >= 5
    assert ours <= set(theirs)
    assert len(set(theirs) - ours) <= 1  # the scores: TensorRT gives them as they are
    assert set(theirs.values()) == {0}


def test_both_files_give_the_same_answers(pair: Pair) -> None:
    images = nets.random_images(200, SIZE, seed=5)
    a, b = nets.run_onnx(pair.onnx, images, optimize=False), nets.run_tflite(pair.tflite, images)
    assert nets.cosine(a, b) > 0.99
