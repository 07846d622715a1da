"""What TensorRT's real parser says, and how a network is created for each version."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest

from edgekit.errors import EdgekitError
from edgekit.targets import tensorrt
from tests import rtx
from tests.quant.graphs import conv, graph, op, quantize


def parse(onnx: bytes) -> tuple:
    trt, builder, logger = rtx.parser()
    return tensorrt.parse(trt, builder, logger, onnx, 0)


def test_a_good_model_is_parsed() -> None:
    network, _ = parse(ir.to_proto(graph(conv("image", "c1"), op("Relu", ["c1"], "act"))).SerializeToString())
    assert (network.get_input(0).name, network.get_output(0).name) == ("image", "act")


def test_a_quantized_model_is_parsed() -> None:
    model = graph(conv("image", "c1"), op("Relu", ["c1"], "act"), conv("act", "c2"))
    quantize(model)
    network, _ = parse(ir.to_proto(model).SerializeToString())
    assert network.num_layers > 4


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(EdgekitError, match="parser refuses"):
        parse(b"no onnx")


def test_a_zero_point_other_than_zero_is_refused_with_the_parsers_words() -> None:
    model = graph(conv("image", "c1"))
    quantize(model)
    model.graph.initializers["image_zero_point"].const_value = ir.tensor(np.array(3, np.int8))
    with pytest.raises(EdgekitError, match=r"shiftIsAllZeros|zero"):
        parse(ir.to_proto(model).SerializeToString())


@pytest.mark.parametrize(
    ("version", "flags"),
    [((8, 5), 1), ((8, 6), 1), ((10, 3), 0), ((10, 11), 0), ((10, 12), 2), ((10, 13), 2), ((11, 0), 0), ((11, 4), 0)],
)
def test_networks_are_explicit_batch_on_8_and_strongly_typed_from_10_12_to_10(
    version: tuple[int, int], flags: int
) -> None:
    # Real `tensorrt` needs a GPU's driver; these are the enum's values in its documentation.
    trt = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=0, STRONGLY_TYPED=1))
    assert tensorrt._network_flags(trt, version) == flags
