"""Engines run by trtexec, a double that takes the flags of its version only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.ondevice import MISFIT, build, runner
from edgekit.ondevice.main import run_job
from edgekit.ondevice.run_trtexec import TrtexecRunner
from edgekit.ondevice.tensorrt_api import BuildError
from tests.doubles import plant

LIMITS = {"warmup_queries": 1, "warmup_s": 0, "min_queries": 6, "min_s": 0, "max_s": 60}
PROFILE = [("Reformatting CopyNode for Input Tensor 0 to node_conv2d", 0.01), ("node_conv2d + n4", 0.06),
           ("node_linear", 0.03)]  # fmt: skip


def built(folder: Path, onnx_bytes: bytes, number: int = 100300) -> dict[str, Any]:
    """Build out/model.engine by a trtexec of this version, which is planted; returns the engine's record."""
    (folder / "model.onnx").write_bytes(onnx_bytes)
    (folder / "out").mkdir(exist_ok=True)
    named = str(plant.trtexec(folder, number))
    return build.build({"precision": "fp32", "onnx": "model.onnx", "trtexec": named, "out": "out"}, str(folder))


def opened(folder: Path, **options: Any) -> TrtexecRunner:
    options.setdefault("trtexec", str(folder / "trtexec"))
    loaded = runner.open_runner("trtexec", str(folder / "out" / "model.engine"), 1, options)
    assert isinstance(loaded, TrtexecRunner)
    return loaded


@pytest.mark.parametrize(
    ("number", "version", "graph"),
    [(8502, "8.5.2", True), (100300, "10.3.0", False), (101300, "10.13.0", True), (110401, "11.4.1", True),
     (110401, "11.4.1", False)],
)  # fmt: skip
def test_every_version_measures_tells_layers_and_answers(
    tmp_path: Path,
    onnx_bytes: bytes,
    inputs: list[np.ndarray],
    answers: list[np.ndarray],
    number: int,
    version: str,
    graph: bool,
) -> None:
    record = built(tmp_path, onnx_bytes, number)
    loaded = opened(tmp_path, built=record, cuda_graph=graph)
    latencies = loaded.measure(inputs, LIMITS)
    computed = loaded.compute_times(inputs, 200)
    assert latencies is not None
    assert len(latencies) == len(computed) == 6
    assert all(0 < compute < latency for compute, latency in zip(computed, latencies, strict=True))
    assert loaded.layer_times(inputs, 2) == PROFILE
    np.testing.assert_allclose(loaded.infer(inputs[1]), answers[1], rtol=1e-6)
    assert loaded.infer(inputs[1]).dtype == np.float32
    assert loaded.info() == {
        "runtime": "trtexec",
        "version": version,
        "processor": "GPU",
        "cuda_graph": graph,
        "transfers": "in and out",
    }
    loaded.close()


@pytest.mark.parametrize(("number", "new"), [(100300, False), (110401, True)])
def test_a_graph_is_asked_for_as_this_version_wants_it_and_never_where_layers_are_told_apart(
    tmp_path: Path, onnx_bytes: bytes, inputs: list[np.ndarray], number: int, new: bool
) -> None:
    built(tmp_path, onnx_bytes, number)
    real, calls = tmp_path / "trtexec-itself", tmp_path / "calls"
    (tmp_path / "trtexec").rename(real)
    plant.script(tmp_path, "trtexec", f'echo "$@" >> {calls}; exec {real} "$@"')
    for graph in (True, False):
        loaded = opened(tmp_path, cuda_graph=graph)
        calls.write_text("")
        loaded.measure(inputs, LIMITS)
        loaded.layer_times(inputs, 2)
        loaded.close()
        measured, layers = (line.split() for line in calls.read_text().splitlines())
        assert ("--noCudaGraph" in measured, "--useCudaGraph" in measured) == (
            (not graph, False) if new else (False, graph)
        )
        assert ("--noCudaGraph" in layers, "--useCudaGraph" in layers) == (new, False)
        assert {"--iterations=2", "--profilingVerbosity=detailed"} <= set(layers)


def test_a_graph_that_trtexec_could_not_capture_is_not_said_to_be_used(
    tmp_path: Path, onnx_bytes: bytes, inputs: list[np.ndarray]
) -> None:
    built(tmp_path, onnx_bytes)
    real = (tmp_path / "trtexec").rename(tmp_path / "trtexec-itself")
    # NVIDIA/TensorRT, samples/common/sampleInference.cpp.
    warning = "[W] The specified --useCudaGraph flag has been ignored. The inference will be launched without it."
    plant.script(tmp_path, "trtexec", f'echo "{warning}"; exec {real} "$@"')
    loaded = opened(tmp_path)
    assert loaded.info()["cuda_graph"] is True
    loaded.measure(inputs, LIMITS)
    assert loaded.info()["cuda_graph"] is False
    loaded.close()


def test_each_image_gets_its_own_answer(
    tmp_path: Path, onnx_bytes: bytes, inputs: list[np.ndarray], answers: list[np.ndarray]
) -> None:
    built(tmp_path, onnx_bytes)
    loaded = opened(tmp_path)
    for image, want in zip(inputs, answers, strict=True):
        np.testing.assert_allclose(loaded.infer(image), want, rtol=1e-6)
    loaded.close()


def test_what_it_wrote_is_removed_when_it_is_closed(
    tmp_path: Path, onnx_bytes: bytes, inputs: list[np.ndarray]
) -> None:
    built(tmp_path, onnx_bytes)
    loaded = opened(tmp_path)
    loaded.infer(inputs[0])
    assert Path(loaded.folder, "output.json").is_file()
    loaded.close()
    assert not Path(loaded.folder).exists()


def test_an_engine_of_another_version_is_named_or_does_not_load(
    tmp_path: Path, onnx_bytes: bytes, inputs: list[np.ndarray]
) -> None:
    record = built(tmp_path, onnx_bytes, 8502)
    plant.trtexec(tmp_path, 8601)
    with pytest.raises(BuildError, match=rf"^{MISFIT}: tensorrt 8\.5\.2, here 8\.6\.1$"):
        opened(tmp_path, built=record)
    loaded = opened(tmp_path)
    with pytest.raises(BuildError, match=r"trtexec failed: .*Version tag does not match.*deserialization failed"):
        loaded.infer(inputs[0])
    loaded.close()


def test_a_dla_core_is_asked_for_and_said(tmp_path: Path, onnx_bytes: bytes, inputs: list[np.ndarray]) -> None:
    record = built(tmp_path, onnx_bytes)
    with pytest.raises(BuildError, match="dla_core None, here 0"):
        opened(tmp_path, built=record, dla_core=0)
    loaded = opened(tmp_path, built={**record, "dla_core": 1}, dla_core=1)
    assert loaded.info()["processor"] == "DLA 1 and GPU"
    calls = tmp_path / "calls"
    plant.script(tmp_path, "trtexec", f'echo "$@" >> {calls}; exit 1')
    with pytest.raises(BuildError):
        loaded.infer(inputs[0])
    assert "--useDLACore=1" in calls.read_text().split()
    loaded.close()


@pytest.mark.parametrize("call", ["measure", "layer_times", "infer"])
def test_files_that_are_cut_off_are_errors(
    tmp_path: Path, onnx_bytes: bytes, inputs: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    built(tmp_path, onnx_bytes)
    monkeypatch.setenv("DOUBLE_TRT_GARBAGE", "1")
    loaded = opened(tmp_path)
    arguments = {"measure": (inputs, LIMITS), "layer_times": (inputs, 2), "infer": (inputs[0],)}[call]
    with pytest.raises(BuildError, match=r"trtexec wrote no \w+\.json"):
        getattr(loaded, call)(*arguments)
    loaded.close()


def test_without_trtexec_it_is_an_error(tmp_path: Path, no_tensorrt: None) -> None:
    with pytest.raises(BuildError, match="trtexec was not found"):
        TrtexecRunner(str(tmp_path / "model.engine"), 1)


def test_a_job_takes_latencies_and_compute_times_as_trtexec_has_them(tmp_path: Path, onnx_bytes: bytes) -> None:
    record = built(tmp_path, onnx_bytes)
    np.save(tmp_path / "pixels.npy", np.random.default_rng(2).integers(0, 256, (2, 4, 4, 3), np.uint8))
    options = {"built": record, "trtexec": str(tmp_path / "trtexec")}
    job = {"model": "out/model.engine", "runtime": "trtexec", "threads": 1, "options": options, "pixels": "pixels.npy",
           "mean": [0, 0, 0], "std": [1, 1, 1], "layout": "NCHW", "limits": LIMITS, "out": "measured"}  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps(job))
    result = run_job(str(tmp_path / "job.json"))
    out = tmp_path / "measured"
    latencies, compute = np.load(out / "latencies_ns.npy"), np.load(out / "compute_ns.npy")
    assert latencies.shape == compute.shape == (6,)
    assert bool((latencies > compute).all())
    assert [tuple(layer) for layer in json.loads((out / "layers.json").read_text())] == PROFILE
    assert np.load(out / "logits.npy").shape == (2, 10)
    assert (result["runtime"], result["resumed"], result["warmup_queries"]) == ("trtexec", False, 0)
