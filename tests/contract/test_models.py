"""A network of each family: its files go through NVIDIA's real parser and builder, and run everywhere.

ResNet, MobileNet and EfficientNet have random weights here (their ImageNet weights need a network),
EfficientNet-Lite0 its own. Of ResNet-50 and DenseNet there is a short one, with each of their blocks.
Images are crops of real photographs. The other rows of `MODELS` differ in widths and depths, or are too
large for every run: benchmarks/models.py keeps what it found of all, tests/export has small
transformers and VGG's pool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnx as onnx_package
import pytest
import torch

from edgekit.convert.fold import fold
from edgekit.models import build, zoo
from edgekit.models.build import normalize
from edgekit.ondevice import tensorrt_api
from edgekit.ondevice.runner import open_runner
from edgekit.records import Preprocess
from edgekit.targets import delegates, read_tflite
from tests import nets, rtx, tflite_runtime

pytestmark = pytest.mark.slow
SIZE = 64
FULL = ("resnet18", "short_resnet50", "mobilenet_v2", "efficientnet_b0", "efficientnet_lite0")
FINER = ("efficientnet_b0", "efficientnet_lite0")  # w8 and 16x8 of each would take minutes
LIGHT = ("mobilenet_v3_small", "short_densenet", "inception_v3")
# What a precision may cost: least cosine with torch (over what differs between images).
LEAST_COSINE = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.93}
ONNX_RUNS = {
    "fp32": nets.run_onnx,
    "fp16": nets.run_onnx,
    "int8": nets.run_onnx,
    "int8.typed": nets.run_onnx,
    "int8.typed as it is": partial(nets.run_onnx, optimize=False),
}


@dataclass(frozen=True)
class Files:
    """Every file of one network, and what torch answers on `pixels`."""

    arch: str
    onnx: nets.Emitted
    folder: Path
    preprocess: Preprocess
    pixels: np.ndarray
    images: torch.Tensor
    expected: np.ndarray


def grouped(archs: tuple[str, ...]) -> list[object]:
    """Parameters that keep the tests of one network on one worker."""
    return [pytest.param(arch, marks=pytest.mark.xdist_group(arch)) for arch in archs]


@pytest.fixture(scope="module", autouse=True)
def short() -> Iterator[None]:
    """The short networks are rows of the table."""
    with pytest.MonkeyPatch.context() as patch:
        for name, row in nets.SHORT.items():
            patch.setitem(zoo.MODELS, name, row)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Files]:
    """Makes the files of each network once."""
    return cache(lambda arch: write(arch, tmp_path_factory.mktemp(arch)))


@pytest.fixture(params=grouped(FULL))
def files(request: pytest.FixtureRequest, made: Callable[[str], Files]) -> Files:
    return made(request.param)


@pytest.fixture(params=grouped(FINER))
def small_files(request: pytest.FixtureRequest, made: Callable[[str], Files]) -> Files:
    return made(request.param)


def write(arch: str, folder: Path) -> Files:
    """Every file of a network, in `folder`."""
    torch.manual_seed(0)
    size = max(SIZE, zoo.row(arch).least_size)
    preprocess = zoo.preprocess_for(arch, size)
    pixels = nets.photographs(16, preprocess)
    images = normalize(torch.from_numpy(pixels), preprocess).contiguous()
    pretrained = arch == "efficientnet_lite0"
    model = build.build(arch, 1000 if pretrained else 10, size).eval()
    if pretrained:
        build.load_weights(model, arch, "pretrained")
    else:
        nets.settle(model, images)
    folded = fold(model, size)
    emitted = nets.emit_onnx(folded, size, folder, images)
    nets.emit_tflite(folded, size, folder, images, emitted.table)
    forms = ("fp32", "fp16", "int8", "w8", "16x8") if arch in FINER else ("fp32", "int8")
    nets.emit_pixel_tflite(folded, preprocess, folder, images, emitted.table, forms)
    with torch.inference_mode():
        expected = model(images).numpy()
    return Files(arch, emitted, folder, preprocess, pixels, images, expected)


def assert_agrees(got: np.ndarray, files: Files, name: str, least: float | None = None) -> None:
    cosine = nets.cosine(got, files.expected)
    print(f"{files.arch} {name}: cosine {cosine:.5f}, error {nets.relative_error(got, files.expected):.4f}")
    assert cosine >= (least or LEAST_COSINE[name.split(".")[0]])


@pytest.mark.parametrize("name", ONNX_RUNS)
def test_onnx_agrees_with_torch(files: Files, name: str) -> None:
    path = files.onnx.path(f"{name.split()[0]}.onnx")
    assert_agrees(ONNX_RUNS[name](path, files.images), files, f"{name}.onnx")


@pytest.mark.parametrize("precision", LEAST_COSINE)
def test_tflite_agrees_with_torch(files: Files, precision: str) -> None:
    assert_agrees(
        nets.run_tflite(files.folder / f"model.{precision}.tflite", files.images), files, f"{precision}.tflite"
    )


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_tflite_runs_in_the_last_tflite_runtime(files: Files, precision: str, tmp_path: Path) -> None:
    path = files.folder / f"model.{precision}.tflite"
    got = tflite_runtime.run(path, files.pixels, files.preprocess, tmp_path)
    assert_agrees(got, files, f"{precision}.tflite-runtime")


@pytest.mark.parametrize("form", ["fp32", "int8"])
def test_tflite_that_takes_bytes_agrees_with_torch(files: Files, form: str) -> None:
    got = nets.run_pixels(files.folder / f"pixels.{form}.tflite", files.pixels)
    assert_agrees(got, files, f"{form}.tflite of bytes")


# What finer forms than int8 may cost.
LEAST_COSINE_OF_FINER = 0.98


@pytest.mark.parametrize("form", ["fp16", "w8", "16x8"])
def test_finer_forms_agree_with_torch(small_files: Files, form: str) -> None:
    got = nets.run_pixels(small_files.folder / f"pixels.{form}.tflite", small_files.pixels)
    assert_agrees(got, small_files, f"{form}.tflite of bytes", LEAST_COSINE_OF_FINER)


@pytest.mark.parametrize("form", ["int8", "w8", "16x8"])
def test_tflite_that_takes_bytes_runs_in_the_last_tflite_runtime(small_files: Files, form: str, tmp_path: Path) -> None:
    files = small_files
    got = tflite_runtime.run(files.folder / f"pixels.{form}.tflite", files.pixels, files.preprocess, tmp_path, "uint8")
    assert_agrees(got, files, f"{form}.tflite-runtime", LEAST_COSINE.get(form, LEAST_COSINE_OF_FINER))


OPERATORS = {
    "resnet18": {"CONV_2D": 20, "ADD": 8, "MAX_POOL_2D": 1, "PAD": 4},
    "short_resnet50": {"CONV_2D": 17, "ADD": 4, "MAX_POOL_2D": 1, "PAD": 4},
    "mobilenet_v2": {"CONV_2D": 35, "DEPTHWISE_CONV_2D": 17, "ADD": 10, "PAD": 4},
    "efficientnet_b0": {
        **{"CONV_2D": 65, "DEPTHWISE_CONV_2D": 16, "ADD": 9, "PAD": 4},
        **{"MEAN": 16, "LOGISTIC": 65, "MUL": 65},  # squeeze-and-excitation, SiLU
    },
    "efficientnet_lite0": {"CONV_2D": 33, "DEPTHWISE_CONV_2D": 16, "ADD": 9},
}


def test_the_graph_holds_the_network_and_nothing_else(files: Files) -> None:
    """No transposition, no activation of its own, no pair of Q and DQ behind the image."""
    inside = Counter({**OPERATORS[files.arch], "FULLY_CONNECTED": 1}) + Counter({"MEAN": 1})
    one_mean = files.arch == "efficientnet_lite0"
    before = {
        "fp32": ["DEQUANTIZE"] if one_mean else ["DEQUANTIZE", "SUB", "PAD"],
        "int8": ["DEQUANTIZE", "QUANTIZE", *([] if one_mean else ["CONCATENATION", "CONCATENATION"])],
    }
    for form, behind in (("fp32", []), ("int8", ["DEQUANTIZE"])):
        found = nets.operators(files.folder / f"pixels.{form}.tflite")
        assert found == inside + Counter([*before[form], *behind]), form


@pytest.mark.parametrize("precision", LEAST_COSINE)
def test_xnnpack_takes_what_inspect_expects(files: Files, precision: str) -> None:
    path = files.folder / f"model.{precision}.tflite"
    runner = open_runner("litert", str(path), 1)
    info = runner.info()
    runner.close()
    expected = next(v for v in delegates.verdicts(read_tflite.read(path)) if v.delegate == "xnnpack")
    assert (info["ops"], info["delegated_ops"], info["partitions"]) == (expected.ops, expected.stays, expected.parts)


def test_both_int8_files_agree_with_each_other(files: Files) -> None:
    tensorrt = nets.run_onnx(files.onnx.path("int8.onnx"), files.images)
    litert = nets.run_tflite(files.folder / "model.int8.tflite", files.images)
    assert nets.cosine(litert, tensorrt) >= LEAST_COSINE["int8"]


def weighted_nodes(files: Files) -> list[str]:
    """The Conv and Gemm nodes of a network."""
    graph = onnx_package.load(files.onnx.path("fp32.onnx")).graph
    return [node.name for node in graph.node if node.op_type in ("Conv", "Gemm")]


def types_read(files: Files, name: str) -> dict[str, str]:
    """Conv or Gemm node -> the type that its layer reads, in the engine that NVIDIA builds of a file.

    Nodes that were fused into a layer without their name are left out.
    """
    layers = {
        layer.name.split("_myl")[0]: layer.inputs[0] for layer in rtx.build(files.onnx.path(name)) if layer.inputs
    }
    return {node: layers[node] for node in weighted_nodes(files) if node in layers}


@pytest.mark.parametrize("name", ["int8.onnx", "int8.typed.onnx"])
def test_engine_runs_every_int8_convolution_in_int8(files: Files, name: str) -> None:
    types, wanted, every = types_read(files, name), files.onnx.int8_nodes, weighted_nodes(files)
    print(f"{files.arch} {name}: {len(wanted)} of {len(every)} in int8")
    assert {node: types.get(node) for node in wanted} == dict.fromkeys(wanted, "Int8")
    assert len(wanted) >= 0.85 * len(every)


def test_fp16_engine_has_half_convolutions_only(files: Files) -> None:
    types = types_read(files, "fp16.onnx")
    assert len(types) >= 0.5 * len(weighted_nodes(files))
    assert set(types.values()) == {"Half"}


def test_fp32_engine_is_built(files: Files) -> None:
    assert set(types_read(files, "fp32.onnx").values()) == {"Float"}


@pytest.mark.parametrize("files", grouped(("efficientnet_lite0",)), indirect=True)
def test_engine_takes_pairs_on_every_tensor(files: Files) -> None:
    """What ``--parity strict`` writes."""
    types = types_read(files, "int8.strict.onnx")
    assert list(types.values()).count("Int8") >= 0.85 * len(weighted_nodes(files))


@pytest.mark.parametrize("arch", grouped(LIGHT))
def test_a_network_of_another_family_agrees_everywhere_and_parses(arch: str, tmp_path: Path) -> None:
    """One test and no engines, which would take minutes."""
    files = write(arch, tmp_path)
    for name, run in ONNX_RUNS.items():
        assert_agrees(run(tmp_path / f"model.{name.split()[0]}.onnx", files.images), files, f"{name}.onnx")
    for precision in LEAST_COSINE:
        got = nets.run_tflite(tmp_path / f"model.{precision}.tflite", files.images)
        assert_agrees(got, files, f"{precision}.tflite")
    assert len(files.onnx.int8_nodes) >= 0.85 * len(weighted_nodes(files))
    for name in ("fp32", "fp16", "int8", "int8.typed"):
        trt, builder, logger = rtx.parser()
        network, _parser = tensorrt_api.parse(trt, builder, logger, (tmp_path / f"model.{name}.onnx").read_bytes(), 0)
        assert network.num_layers >= len(weighted_nodes(files))
