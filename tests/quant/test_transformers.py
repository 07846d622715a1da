"""INT8 files of transformers and of unlisted operators: they run, they agree with the simulation, NVIDIA takes them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import fx

from edgekit.convert import onnx, tflite
from edgekit.convert.fold import fold
from edgekit.ondevice import tensorrt_api
from edgekit.quant import flatbuffer, fp16, litert, placement, qdq, simulate
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME, QuantizedModel
from tests import rtx
from tests.nets import cosine, naming, observe, operators, plain, random_images, run_onnx, run_tflite
from tests.quant.graphs import paired
from tests.quant.transformers import NETWORKS

pytestmark = [pytest.mark.filterwarnings("ignore")]
IMAGES = 16
EXPORTED = [
    pytest.param("vision", marks=pytest.mark.xdist_group("vision")),
    pytest.param("swin", marks=[pytest.mark.slow, pytest.mark.xdist_group("swin")]),
]


@dataclass(frozen=True)
class Made:
    """A network's files in `folder`, its quantized model, and the answers of torch."""

    name: str
    folder: Path
    folded: fx.GraphModule
    model: QuantizedModel
    nodes: list[str]
    images: torch.Tensor
    expected: np.ndarray

    def simulated(self, scheme: object) -> np.ndarray:
        with torch.inference_mode():
            return simulate.simulation(self.folded, self.model, scheme).run(self.images).numpy()

    def path(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="module", params=EXPORTED)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    network, size = NETWORKS[request.param]()
    folder, images = tmp_path_factory.mktemp(request.param), random_images(IMAGES, size)
    folded = fold(network, size)
    model = plain(folded, observe(folded, images))
    onnx.export(folded, size, "weights", folder / "fp32.onnx", folder / "dynamic.onnx")
    graph = ir.load(folder / "fp32.onnx")
    names = naming(folded, onnx.run_all(folder / "fp32.onnx", images[:1].numpy()), images)
    nodes = qdq.quantize(graph, model, names)
    onnx.save(graph, folder / "int8.onnx")
    fp16.to_fp16(graph, model.table, names.tensors)
    onnx.save(graph, folder / "typed.onnx")
    with torch.inference_mode():
        expected = folded(images).numpy()
    return Made(request.param, folder, folded, model, nodes, images, expected)


def test_every_int8_layer_and_product_is_in_the_onnx_file(made: Made) -> None:
    placed = made.model.placement(TENSORRT_SCHEME)
    assert len(made.nodes) == len(placed.int8_layers) + len(placed.int8_products)
    graph = ir.load(made.path("int8.onnx"))
    kinds = {node.name: node for node in graph.graph}
    for name in made.nodes:
        weight = kinds[name].inputs[1].producer()
        assert weight.op_type == "DequantizeLinear"
        assert paired(graph, name) in ([0], [0, 1])
        if kinds[name].op_type == "MatMul" and paired(graph, name) == [0]:
            integers, scales = (weight.inputs[number].const_value.numpy() for number in (0, 1))
            assert weight.attributes["axis"].as_int() == 1
            assert scales.shape == (integers.shape[1],)


def test_softmax_layer_norm_and_gelu_read_and_write_floats(made: Made) -> None:
    graph = ir.load(made.path("int8.onnx")).graph
    for node in graph:
        if node.op_type in ("Softmax", "LayerNormalization", "Erf", "InstanceNormalization"):
            assert node.inputs[0].producer().op_type != "DequantizeLinear"


@pytest.mark.parametrize("optimize", [False, True])
def test_onnx_file_agrees_with_the_simulation_and_with_torch(made: Made, optimize: bool) -> None:
    got = run_onnx(made.path("int8.onnx"), made.images, optimize)
    assert cosine(got, made.simulated(TENSORRT_SCHEME)) > 0.99
    assert cosine(got, made.expected) > 0.95


def test_typed_file_agrees_with_torch(made: Made) -> None:
    assert cosine(run_onnx(made.path("typed.onnx"), made.images, False), made.expected) > 0.95


@pytest.mark.parametrize("name", ["int8.onnx", "typed.onnx"])
def test_nvidias_parser_takes_the_file(made: Made, name: str) -> None:
    trt, builder, logger = rtx.parser()
    network, _parser = tensorrt_api.parse(trt, builder, logger, made.path(name).read_bytes(), 0)
    assert network.num_layers > len(made.nodes)


@pytest.mark.slow
def test_nvidias_builder_computes_linears_and_products_in_int8(made: Made) -> None:
    layers = rtx.build(made.path("typed.onnx"))
    in_int8 = [layer for layer in layers if "Int8" in layer.inputs]
    print(made.name, len(in_int8), "of", len(layers), "layers read int8;", len(made.nodes), "wanted")
    assert len(in_int8) >= 0.5 * len(made.nodes)


@pytest.fixture(scope="module")
def lite(made: Made) -> Made:
    """The LiteRT files beside the ONNX files."""
    path = made.path("fp32.tflite")
    tflite.export(made.folded, made.images.shape[-1], path)
    names = naming(made.folded, tflite.run_all(path, made.images[:1].numpy()), made.images)
    with tflite.quiet():
        for form in ("int8", "w8", "16x8"):
            litert.quantize(path, made.model, names, made.path(f"{form}.tflite"), form)
    return made


def test_litert_file_agrees_with_the_simulation_and_with_torch(lite: Made) -> None:
    got = run_tflite(lite.path("int8.tflite"), lite.images)
    assert cosine(got, lite.simulated(LITERT_SCHEME)) > 0.98
    assert cosine(got, lite.expected) > 0.93


@pytest.mark.parametrize("form", ["w8", "16x8"])
def test_finer_litert_files_agree_with_torch(lite: Made, form: str) -> None:
    assert cosine(run_tflite(lite.path(f"{form}.tflite"), lite.images), lite.expected) > 0.99


def test_layers_and_products_hold_integers_in_the_litert_file(lite: Made) -> None:
    placed, model = lite.model.placement(LITERT_SCHEME), flatbuffer.read(lite.path("int8.tflite"))
    found = Counter(
        (flatbuffer.kind(model, op), flatbuffer.tensor(model, op, 0).type == flatbuffer.type_of("INT8"))
        for op in model.subgraphs[0].operators
    )
    layers = sum(found[kind, True] for kind in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"))
    assert layers == len(placed.int8_layers) == len(placement.layers(lite.folded))
    assert found["BATCH_MATMUL", True] == len(placed.int8_products)
    assert found["BATCH_MATMUL", False] == 0
    assert not any(integers for kind, integers in found if kind in ("SOFTMAX", "GELU", "RSQRT", "SQUARED_DIFFERENCE"))


def test_w8_file_has_int8_weights_and_float_activations(lite: Made) -> None:
    assert not {"QUANTIZE"} & operators(lite.path("w8.tflite")).keys()
    model = flatbuffer.read(lite.path("w8.tflite"))
    held = Counter(tensor.type for tensor in model.subgraphs[0].tensors)
    assert held[flatbuffer.type_of("INT8")] >= len(placement.layers(lite.folded)) - 1
