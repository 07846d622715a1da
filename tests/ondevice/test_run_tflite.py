"""LiteRT through both of its programming interfaces, with and without XNNPACK, and on accelerators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import files
from edgekit.bench import session
from edgekit.devices.transport import LocalTransport
from edgekit.errors import EdgekitError
from edgekit.measurements import BenchmarkResult, Suite
from edgekit.ondevice import run_tflite
from edgekit.ondevice.runner import open_runner
from edgekit.records import Device, Preprocess
from tests import flat, nets, software_gpu, tflite_runtime
from tests.bench.results import artifact

pytestmark = pytest.mark.xdist_group("litert")
FLOAT = ("float32", "float32", "float32")
FILES = [FLOAT, ("int8", "float32", "float32"), ("int8", "int8", "int8"), ("int8", "uint8", "uint8"),
         ("int8", "uint8", "float32")]  # fmt: skip
PREPROCESS = Preprocess(32, 32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
ONCE = Suite("once", warmup_queries=1, warmup_s=0.0, min_queries=8, min_s=0.0, max_s=60.0)
COMPILED = {"api": "compiled-model"}


def images(dtype: str, count: int = 40) -> np.ndarray:
    """(count, 1, SIZE, SIZE, 3): noise around a colour each."""
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.4, (count, 1, flat.SIZE, flat.SIZE, 3)) + rng.normal(0, 0.8, (count, 1, 1, 1, 3))
    if dtype == "float32":
        return values.astype(np.float32)
    steps = np.clip(np.rint(values / flat.IMAGE[0]), -128, 127)
    return (steps + 128).astype(np.uint8) if dtype == "uint8" else steps.astype(np.int8)


def answers(path: Path, inputs: np.ndarray, options: dict[str, Any], threads: int = 1) -> np.ndarray:
    runner = open_runner("litert", str(path), threads, options)
    try:
        return np.stack([runner.infer(image) for image in inputs])
    finally:
        runner.close()


@pytest.fixture(params=FILES, ids="-".join)
def kind(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    """Inside, input and output of a file."""
    return request.param


@pytest.fixture
def model(kind: tuple[str, str, str], tmp_path: Path) -> Path:
    """The file."""
    (tmp_path / "model.tflite").write_bytes(flat.tflite(*kind))
    return tmp_path / "model.tflite"


@pytest.mark.parametrize("xnnpack", [True, False])
def test_both_interfaces_give_the_same_bits(model: Path, kind: tuple[str, str, str], xnnpack: bool) -> None:
    inputs = images(kind[1])
    one = answers(model, inputs, {"xnnpack": xnnpack})
    assert one.dtype == np.float32
    assert len(np.unique(one)) > 50
    assert np.array_equal(one, answers(model, inputs, {**COMPILED, "xnnpack": xnnpack}))
    assert np.array_equal(one, answers(model, inputs, {**COMPILED, "xnnpack": xnnpack}, threads=2))


def test_without_xnnpack_the_answers_stay(model: Path, kind: tuple[str, str, str]) -> None:
    inputs = images(kind[1])
    on, off = answers(model, inputs, {}), answers(model, inputs, {"xnnpack": False})
    assert not np.array_equal(on, off)
    assert (on.argmax(1) == off.argmax(1)).mean() >= 0.95
    assert nets.cosine(on, off) > 0.999


def test_every_kind_of_file_says_the_same(tmp_path: Path) -> None:
    said = []
    for kind in FILES:
        (tmp_path / "model.tflite").write_bytes(flat.tflite(*kind))
        said.append(answers(tmp_path / "model.tflite", images(kind[1]), {}))
    assert all(nets.cosine(other, said[0]) > 0.99 for other in said)


def test_float_pixels_become_the_type_that_the_file_takes(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(flat.tflite("int8", "uint8", "float32"))
    floats, pixels = images("float32"), images("uint8")
    for options in ({}, COMPILED):
        got = answers(tmp_path / "model.tflite", floats, options)
        assert np.array_equal(got, answers(tmp_path / "model.tflite", pixels, options))


def test_pixels_for_a_file_that_takes_floats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(flat.tflite())
    with pytest.raises(ValueError, match="takes float32, not uint8"):
        answers(tmp_path / "model.tflite", images("uint8", 1), {})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, {"api": "interpreter", "xnnpack": True, "ops": 3, "delegated_ops": 3, "partitions": 1}),
        ({"xnnpack": False}, {"xnnpack": False, "ops": 3, "delegated_ops": 0, "partitions": 0}),
        (COMPILED, {"api": "compiled-model", "xnnpack": True, "fully_accelerated": True}),
        ({**COMPILED, "xnnpack": False}, {"xnnpack": False, "fully_accelerated": False}),
    ],
)
def test_it_says_how_the_model_is_run(tmp_path: Path, options: dict[str, Any], said: dict[str, Any]) -> None:
    (tmp_path / "model.tflite").write_bytes(flat.tflite())
    runner = open_runner("litert", str(tmp_path / "model.tflite"), 1, options)
    info = runner.info()
    runner.close()
    assert {"runtime": "ai-edge-litert", "processor": "cpu", "accelerator": "cpu", **said}.items() <= info.items()


def test_operators_that_xnnpack_leaves_are_counted(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(flat.tflite("int8", "uint8", "uint8"))
    runner = open_runner("litert", str(tmp_path / "model.tflite"), 1)
    assert (runner.info()["ops"], runner.info()["delegated_ops"]) == (5, 3)  # not the steps from and to uint8
    runner.close()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"accelerator": "gpu"}, 'a GPU needs api = "compiled-model"'),
        ({"api": "benchmark-model"}, "unknown api 'benchmark-model'; known: interpreter, compiled-model"),
        ({**COMPILED, "accelerator": "tpu"}, "unknown accelerator 'tpu'; known: cpu, gpu, npu"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, options: dict[str, Any], match: str) -> None:
    (tmp_path / "model.tflite").write_bytes(flat.tflite())
    with pytest.raises(ValueError, match=match):
        open_runner("litert", str(tmp_path / "model.tflite"), 1, options)


def test_an_old_ai_edge_litert_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.tflite").write_bytes(flat.tflite())
    monkeypatch.setitem(__import__("sys").modules, "ai_edge_litert.options", None)
    with pytest.raises(ValueError, match=r"needs ai-edge-litert 2\.3 or newer.*pip install -U"):
        open_runner("litert", str(tmp_path / "model.tflite"), 1, COMPILED)


def measured(path: Path, device: Device, pixels: np.ndarray, taken: str = "float32") -> BenchmarkResult:
    """A whole benchmark of one file, in a process of its own."""
    np.save(path.with_name("pixels.npy"), pixels)
    made = artifact(f"rpi/{path.name}", runtime="litert", layout="NHWC", input=taken, sha256=files.sha256_file(path))
    samples = session.EvaluationSet(path.with_name("pixels.npy"), np.arange(len(pixels)) % flat.CLASSES, PREPROCESS)
    with LocalTransport(device) as transport:
        return session.benchmark(session.as_exported(made, path, device), device, ONCE, samples, transport)


def pixels(count: int = 10) -> np.ndarray:
    return images("uint8", count)[:, 0]


@pytest.mark.parametrize("taken", ["uint8", "int8"])
def test_a_device_file_says_how_a_benchmark_runs(tmp_path: Path, taken: str) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(flat.tflite("int8", taken, taken))
    plain = measured(path, Device("plain", "rpi", transport="local", runtime="litert"), pixels(), taken)
    compiled = Device("compiled", "rpi", transport="local", runtime="litert", api="compiled-model", threads=2)
    result = measured(path, compiled, pixels(), taken)
    assert (plain.environment.api, result.environment.api) == ("interpreter", "compiled-model")
    assert np.array_equal(plain.logits, result.logits)


@pytest.mark.parametrize("accelerator", ["gpu", "npu"])
def test_an_accelerator_that_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accelerator: str
) -> None:
    software_gpu.unplug(monkeypatch)
    path = tmp_path / "model.tflite"
    path.write_bytes(flat.tflite())
    device = Device("phone", "rpi", transport="local", runtime="litert", api="compiled-model", accelerator=accelerator)
    with pytest.raises(EdgekitError) as caught:
        measured(path, device, pixels())
    assert f"the {accelerator.upper()} does not run the whole model (" in caught.value.message
    assert "there is no silent fallback to the CPU" in caught.value.message
    assert "INFO" not in caught.value.message
    assert "edgekit inspect" in caught.value.hint


def test_a_gpu_in_software_is_taken_for_its_answers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    software_gpu.plug_in(tmp_path, monkeypatch)
    path = tmp_path / "model.tflite"
    path.write_bytes(flat.tflite())
    keys: dict[str, Any] = {"transport": "local", "runtime": "litert", "api": "compiled-model", "accelerator": "gpu"}
    with pytest.raises(EdgekitError, match=r"the GPU here is software \(SwiftShader.*a CPU under a GPU's name"):
        measured(path, Device("pc", "rpi", **keys), pixels())
    result = measured(path, Device("emulated pc", "rpi", emulated=True, **keys), pixels())
    assert result.source == "emulated"
    assert "SwiftShader" in result.environment.processor
    assert (result.environment.accelerator, result.environment.fully_accelerated) == ("gpu", True)
    plain = measured(path, Device("plain", "rpi", transport="local", runtime="litert"), pixels())
    assert not np.array_equal(plain.logits, result.logits)
    assert np.allclose(plain.logits, result.logits, atol=1e-4)


def test_a_model_that_a_gpu_does_not_run_whole_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    software_gpu.plug_in(tmp_path, monkeypatch)
    path = tmp_path / "model.tflite"
    path.write_bytes(flat.tflite(normalized=True))
    device = Device("emulated pc", "rpi", transport="local", runtime="litert", emulated=True, api="compiled-model",
                    accelerator="gpu")  # fmt: skip
    with pytest.raises(EdgekitError, match=r"the GPU does not run the whole model \(.*L2_NORMALIZATION"):
        measured(path, device, pixels())
    plain = measured(path, Device("plain", "rpi", transport="local", runtime="litert"), pixels())
    assert (plain.environment.ops, plain.environment.delegated_ops) == (4, 3)


@pytest.mark.parametrize(("log", "error", "reason"), [
    ("INFO: a\nERROR: [x.cc:1] No adapters found\nERROR: [y.cc:2] then this", "e", "No adapters found"),
    ("WARNING: Logging before\nWARNING: [a.cc:1] one\nWARNING: [b.cc:2] the last", "e", "the last"),
    ("", "ERROR: [x]\n└ Some ops are not accelerated.", "└ Some ops are not accelerated."),
    ("", "", "no reason given"),
    ("INFO: a. b\nERROR: Following operations are not supported by GPU delegate:\n"
     "MEAN: Tensor type(INT16) is not supported. m\n"
     "CONV_2D: Tensor type(INT16) is not supported. x\nCONV_2D: Tensor type(INT16) is not supported. y", "e",
     "CONV_2D: Tensor type(INT16) is not supported; MEAN: Tensor type(INT16) is not supported"),
])  # fmt: skip
def test_the_reason_is_the_first_error_of_the_log(log: str, error: str, reason: str) -> None:
    assert run_tflite._reason(log, error) == reason


def old_board(path: Path, **keys: Any) -> BenchmarkResult:
    device = Device("old", "rpi", transport="local", runtime="litert", python=tflite_runtime.python(), **keys)
    return measured(path, device, pixels(40))


@pytest.mark.parametrize("kind", FILES[:2], ids="-".join, indirect=True)
def test_tflite_runtime_is_in_the_group_without_xnnpack_for_int8(model: Path, kind: tuple[str, str, str]) -> None:
    old, off = old_board(model), old_board(model, xnnpack=False)
    here = {on: measured(model, Device("here", "rpi", transport="local", runtime="litert", xnnpack=on), pixels(40))
            for on in (True, False)}  # fmt: skip
    assert (old.environment.runtime, off.environment.delegated_ops) == ("tflite-runtime", 0)
    if kind[0] == "int8":
        assert old.environment.delegated_ops == 0  # its XNNPACK takes no INT8 on x86
        assert np.array_equal(old.logits, off.logits)
        assert np.abs(old.logits - here[False].logits).max() <= flat.SCORES[0] * 1.001
    for one in (old, off, here[False]):
        assert (one.logits.argmax(1) == here[True].logits.argmax(1)).mean() >= 0.95
        assert nets.cosine(one.logits, here[True].logits) > 0.999


def test_tflite_runtime_says_that_it_has_no_compiled_model(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(flat.tflite())
    with pytest.raises(EdgekitError, match="tflite-runtime has no CompiledModel: install ai-edge-litert, or set api"):
        old_board(path, api="compiled-model")
