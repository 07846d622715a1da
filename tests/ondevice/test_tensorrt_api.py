"""What TensorRT's real parser and builder say, and what is set for each version."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from edgekit.ondevice import tensorrt_api
from edgekit.ondevice.tensorrt_api import BuildError, Built, Order
from tests import rtx
from tests.ondevice.conftest import LoadTensorrt
from tests.quant.graphs import conv, graph, op, quantize


def parse(onnx: bytes) -> tuple:
    trt, builder, logger = rtx.parser()
    return tensorrt_api.parse(trt, builder, logger, onnx, 0)


def small(*, quantized: bool = False) -> bytes:
    model = graph(conv("image", "c1"), op("Relu", ["c1"], "act"), conv("act", "c2"))
    if quantized:
        quantize(model)
    return ir.to_proto(model).SerializeToString()


def test_a_good_model_is_parsed() -> None:
    network, _ = parse(small())
    assert (network.get_input(0).name, network.get_output(0).name) == ("image", "c2")


def test_a_quantized_model_is_parsed() -> None:
    network, _ = parse(small(quantized=True))
    assert network.num_layers > 4


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(BuildError, match="parser rejects"):
        parse(b"no onnx")


def test_a_zero_point_other_than_zero_is_refused_with_the_parsers_words() -> None:
    model = graph(conv("image", "c1"))
    quantize(model)
    model.graph.initializers["image_zero_point"].const_value = ir.tensor(np.array(3, np.int8))
    with pytest.raises(BuildError, match=r"shiftIsAllZeros|zero"):
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
    assert tensorrt_api.network_flags(trt, version) == flags


@pytest.mark.parametrize("version", [(8, 5), (8, 6), (10, 3), (10, 11), (10, 12), (10, 13), (11, 0)])
def test_precision_flags_end_where_the_file_alone_decides(version: tuple[int, int]) -> None:
    flags = {precision: tensorrt_api.precision_flags(version, precision) for precision in ("fp32", "fp16", "int8")}
    weak = {"fp32": [], "fp16": ["FP16"], "int8": ["INT8", "FP16"]}
    assert flags == (weak if version < (10, 12) else {precision: [] for precision in weak})


@pytest.mark.parametrize(
    ("text", "version"), [("8.5.2", (8, 5)), ("8.6.2.3", (8, 6)), ("10.13.0.35", (10, 13)), ("11.4.1", (11, 4))]
)
def test_a_version_is_its_first_two_numbers(text: str, version: tuple[int, int]) -> None:
    assert tensorrt_api.version_of(text) == version


def build(onnx: bytes, order: Order, heard: list[str]) -> Built:
    """By TensorRT for RTX, which needs to be told for which GPU where there is none."""
    trt, _, _ = rtx.parser()  # first: a process keeps the first logger
    prepared = []

    def prepare(config: Any) -> None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        prepared.append(config)

    built = tensorrt_api.build(trt, (11, 0), onnx, order, heard.append, prepare)
    assert len(prepared) == 1
    return built


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops")
@pytest.mark.parametrize("timing_cache", [b"", b"no timing cache"], ids=["new", "damaged"])
def test_an_engine_is_built_with_progress_and_a_timing_cache_even_after_a_damaged_one(timing_cache: bytes) -> None:
    heard: list[str] = []
    built = build(small(), Order("fp32", workspace_mb=64, timing_cache=timing_cache), heard)
    assert len(built.engine) > 10_000
    assert len(built.timing_cache) > 0
    assert built.timing_cache != timing_cache
    assert built.flags == "strongly typed no TF32 workspace 64 MB"
    assert heard[0].endswith(f" 1/{heard[0].rpartition('/')[2]}")


def test_a_dla_core_that_is_not_there_is_an_error() -> None:
    with pytest.raises(BuildError, match="there is no DLA core 0: TensorRT sees 0"):
        build(small(), Order("fp16", dla_core=0), [])


def test_bytes_that_are_no_model_are_an_error_of_the_build() -> None:
    with pytest.raises(BuildError, match=r"parser rejects the model: .*Failed to parse"):
        build(b"no onnx", Order("fp32"), [])


def test_a_model_without_an_implementation_builds_no_engine() -> None:
    trt, _, _ = rtx.parser()
    config = SimpleNamespace(clear_flag=lambda flag: None)
    network = SimpleNamespace()
    builder = SimpleNamespace(
        create_network=lambda flags: network,
        create_builder_config=lambda: config,
        build_serialized_network=lambda *_: None,
    )
    parser = SimpleNamespace(parse=lambda onnx: True)
    names = ("ILogger", "ProfilingVerbosity", "BuilderFlag", "NetworkDefinitionCreationFlag")
    double = SimpleNamespace(
        Builder=lambda logger: builder, OnnxParser=lambda *_: parser, **{name: getattr(trt, name) for name in names}
    )
    with pytest.raises(BuildError, match="cannot build an engine: no reason given"):
        tensorrt_api.build(double, (11, 0), b"", Order("fp32"), print)


def test_a_builder_that_does_not_start_is_an_error_with_what_it_logged() -> None:
    class ILogger:
        VERBOSE = 4

    def builder(logger: Any) -> Any:
        logger.log(1, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    double = SimpleNamespace(ILogger=ILogger, Builder=builder)
    with pytest.raises(BuildError, match="TensorRT cannot be started: CUDA initialization failure"):
        tensorrt_api.build(double, (10, 3), b"", Order("fp32"), print)


def test_a_logger_keeps_all_but_what_is_verbose_and_of_that_where_layers_run(load_tensorrt: LoadTensorrt) -> None:
    trt = load_tensorrt("10.3.0")
    logger = tensorrt_api.make_logger(trt)
    said = ["[DlaLayer] a", "[GpuLayer] CONVOLUTION: b", "{ForeignNode[c]} successfully offloaded to DLA."]
    for message in ["tactic", *said]:
        logger.log(trt.ILogger.VERBOSE, message)
    logger.log(trt.ILogger.INFO, "info")
    logger.log(trt.ILogger.ERROR, "error")
    assert logger.lines == [*said, "info", "error"]


def test_a_logger_does_not_grow_without_end(load_tensorrt: LoadTensorrt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_api, "_MOST_LINES", 3)
    logger = tensorrt_api.make_logger(load_tensorrt("10.3.0"))
    for _ in range(5):
        logger.log(1, "x")
    assert len(logger.lines) == 3


def test_a_folder_of_that_name_is_no_tensorrt(
    tmp_path: Path, load_tensorrt: LoadTensorrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_tensorrt("10.3.0")
    assert tensorrt_api.load().__version__ == "10.3.0"
    (tmp_path / "stubs" / "tensorrt").mkdir(parents=True)
    (tmp_path / "stubs" / "tensorrt" / "__init__.pyi").write_text("__version__: str\n")
    monkeypatch.delitem(sys.modules, "tensorrt")
    monkeypatch.setattr("sys.path", [str(tmp_path / "stubs")])
    with pytest.raises(ImportError, match="without code"):
        tensorrt_api.load()
