"""Measuring one artifact for real, and keeping what came out."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit import config, files
from edgekit.bench import replies, results, session
from edgekit.devices.transport import open_transport
from edgekit.errors import DataError, EdgekitError, MissingError, StorageError
from edgekit.measurements import BenchmarkResult, Suite
from edgekit.ondevice import runner
from edgekit.records import Artifact, Device, Preprocess
from tests.bench.results import artifact, result

QUICK = Suite("quick", warmup_queries=1, warmup_s=0.0, min_queries=9, min_s=0.0, max_s=60.0)
PREPROCESS = Preprocess(32, 32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@pytest.fixture
def mean_color(tmp_path: Path) -> tuple[Artifact, Path]:
    """An ONNX file whose three scores are the means of the three channels."""
    shapes = [("image", [1, 3, 32, 32]), ("pooled", [1, 3, 1, 1]), ("scores", [1, 3])]
    image, _, scores = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    graph = helper.make_graph(nodes, "mean", [image], [scores])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "model.fp32.onnx"
    onnx.save(model, path)
    return artifact(f"jetson/{path.name}", runtime="tensorrt", sha256=files.sha256_file(path)), path


def color_pixels() -> np.ndarray:
    """Three images: red, green, blue."""
    return np.broadcast_to(np.eye(3, dtype=np.uint8)[:, None, None] * 255, (3, 32, 32, 3)).copy()


def evaluation_set(beside: Path) -> session.EvaluationSet:
    """The three images in a file beside the model."""
    np.save(beside.with_name("pixels.npy"), color_pixels())
    return session.EvaluationSet(beside.with_name("pixels.npy"), np.arange(3), PREPROCESS)


def measure(made: Artifact, path: Path) -> BenchmarkResult:
    local = config.load_device("local")
    with open_transport(local) as transport:
        return session.benchmark(session.as_exported(made, path, local), local, QUICK, evaluation_set(path), transport)


def test_a_benchmark_keeps_every_latency_and_every_answer(mean_color: tuple[Artifact, Path]) -> None:
    made, path = mean_color
    measured = measure(made, path)
    assert measured.logits == pytest.approx(np.eye(3), abs=1e-5)
    assert len(measured.latencies_ns) == 9
    assert measured.latencies_ns.dtype == np.int64
    assert (measured.latencies_ns > 0).all()
    assert (measured.source, measured.device, measured.runtime) == ("host", "local", "onnxruntime")
    assert (measured.environment.suite, measured.environment.warmup_queries) == ("quick", 1)
    assert measured.size_bytes == path.stat().st_size
    assert {"edgekit", "runtime", "version", "python", "numpy", "cpu", "cores", "governor", "load_before",
            "busy_before", "threads", "suite", "kernel", "memory_gb"} <= set(measured.environment.table())  # fmt: skip


def test_only_litert_hears_how_litert_is_run(mean_color: tuple[Artifact, Path]) -> None:
    made, path = mean_color
    device = Device("pi", "rpi", runtime="litert", api="compiled-model", accelerator="gpu", emulated=True)
    flat = dataclasses.replace(made, name="rpi/model.fp32.tflite", runtime="litert")
    options = {"api": "compiled-model", "accelerator": "gpu", "xnnpack": True, "emulated": True}
    assert session.as_exported(flat, path, device).options == options
    assert session.as_exported(made, path, device).options == {}


def test_in_process_the_answers_are_the_same(mean_color: tuple[Artifact, Path]) -> None:
    logits = session.infer_here(*mean_color, color_pixels(), PREPROCESS)
    assert logits == pytest.approx(np.eye(3), abs=1e-5)


def test_what_a_runtime_says_while_it_loads_is_not_shown(
    mean_color: tuple[Artifact, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def open_runner(*args: Any) -> runner.Runner:
        os.write(2, b"INFO: Created a delegate\n")
        return runner.NullRunner(*args[1:])

    monkeypatch.setattr(runner, "open_runner", open_runner)
    session.infer_here(*mean_color, color_pixels(), PREPROCESS)
    assert capfd.readouterr().err == ""


def test_a_file_that_changed_since_export_is_not_measured(mean_color: tuple[Artifact, Path]) -> None:
    made, path = mean_color
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(StorageError, match="has changed since export") as caught:
        measure(made, path)
    assert caught.value.hint == "edgekit export --target jetson"
    path.unlink()
    with pytest.raises(MissingError, match="is missing"):
        measure(made, path)


@pytest.mark.parametrize("name", ["numpy.py", "json.py", "ondevice.py"])
def test_a_model_called_like_a_module_is_never_run_as_one(tmp_path: Path, name: str) -> None:
    trace, path = tmp_path / "ran", tmp_path / name
    path.write_text(f"open({str(trace)!r}, 'w')\n")
    made = artifact(f"android/{name}", runtime="tensorrt", sha256=files.sha256_file(path))
    with pytest.raises(EdgekitError, match=r"model\.py in onnxruntime failed"):
        measure(made, path)
    assert not trace.exists()


@pytest.mark.parametrize("runtime", ["onnxruntime", "torch"])
def test_what_is_installed_is_known(runtime: str) -> None:
    assert session.is_installed(runtime)
    assert not session.is_installed("no_such_runtime")


def test_results_come_back_as_they_were_saved(tmp_path: Path) -> None:
    passed = {"warmup_ns": (9, 8), "offline_ns": (7, 6, 5)}
    kept = [
        result(),
        result(artifact("jetson/model.int8.onnx", "int8", "tensorrt"), right=7, device="b é/..", **passed),
    ]
    for one in kept:
        results.save(tmp_path, one)
    assert all(path.is_relative_to(tmp_path) and len(path.relative_to(tmp_path).parts) == 2
               for path in tmp_path.rglob("*.json"))  # fmt: skip
    loaded = {r.device: r for r in results.load(tmp_path)}
    for one in kept:
        for field in dataclasses.fields(one):
            value = getattr(loaded[one.device], field.name)
            assert np.array_equal(value, getattr(one, field.name)), field.name
    assert results.load(tmp_path / "none") == []


def test_results_of_before_have_neither_a_warm_up_nor_throughput(tmp_path: Path) -> None:
    raw, described = saved(tmp_path)
    with np.load(raw) as values:
        old = {name: values[name] for name in ("latencies_ns", "compute_ns", "logits", "expected")}
    np.savez_compressed(raw, **old)
    content = json.loads(described.read_text())
    described.write_text(json.dumps({**content, "raw_sha256": files.sha256_file(raw)}))
    (loaded,) = results.load(tmp_path)
    assert (len(loaded.warmup_ns), len(loaded.offline_ns)) == (0, 0)
    assert loaded.latencies_ns.tolist() == result().latencies_ns.tolist()


def test_a_suite_asks_for_throughput_and_gets_it_with_the_warm_up(mean_color: tuple[Artifact, Path]) -> None:
    made, path = mean_color
    local = config.load_device("local")
    suite = dataclasses.replace(QUICK, scenarios=("single_stream", "offline"), offline_s=0.02, warmup_queries=4)
    with open_transport(local) as transport:
        measured = session.benchmark(
            session.as_exported(made, path, local), local, suite, evaluation_set(path), transport
        )
    assert len(measured.warmup_ns) == measured.environment.warmup_queries >= 4
    assert sum(measured.offline_ns) >= 20_000_000
    assert measured.environment.offline_images == 3


def test_a_second_measurement_takes_the_place_of_the_first(tmp_path: Path) -> None:
    results.save(tmp_path, result(right=1))
    results.save(tmp_path, result(right=2))
    (loaded,) = results.load(tmp_path)
    assert np.array_equal(loaded.logits, result(right=2).logits)


def saved(folder: Path) -> tuple[Path, Path]:
    """The raw file and the description of one saved result."""
    results.save(folder, result())
    return next(folder.rglob("*.npz")), next(folder.rglob("*.json"))


def test_raw_values_that_were_touched_are_refused(tmp_path: Path) -> None:
    raw, _ = saved(tmp_path)
    with np.load(raw) as values:
        changed = {**values, "latencies_ns": values["latencies_ns"] // 2}
    np.savez_compressed(raw, **changed)
    with pytest.raises(DataError, match="does not belong to") as caught:
        results.load(tmp_path)
    assert str(raw) in caught.value.message
    raw.unlink()
    with pytest.raises(DataError, match="does not belong to"):
        results.load(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", '{"schema": 1}', "null", "{"])
def test_a_description_that_is_none_is_named(tmp_path: Path, content: str) -> None:
    _, described = saved(tmp_path)
    described.write_text(content)
    with pytest.raises(DataError) as caught:
        results.load(tmp_path)
    assert str(described) in caught.value.message


def test_raw_values_are_never_unpickled(tmp_path: Path) -> None:
    raw, described = saved(tmp_path)
    np.savez(raw, latencies_ns=np.array([{}], object), logits=np.zeros((1, 2)), expected=np.zeros(1))
    content = json.loads(described.read_text())
    described.write_text(json.dumps({**content, "raw_sha256": files.sha256_file(raw)}))
    with pytest.raises(DataError, match="allow_pickle") as caught:
        results.load(tmp_path)
    assert str(raw) in caught.value.message


def test_a_newer_raw_file_that_fills_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path)
    monkeypatch.setattr(results, "_MOST_RAW", 100)
    with pytest.raises(DataError, match="unpacks to more than 100 bytes"):
        results.load(tmp_path)


NONE = object()


def changed(described: Path, where: tuple[str, ...], value: object) -> None:
    """Put another value into a description, or none."""
    content = json.loads(described.read_text())
    table = content
    for key in where[:-1]:
        table = table[key]
    if value is NONE:
        del table[where[-1]]
    else:
        table[where[-1]] = value
    described.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("environment", "threads"), NONE), (("environment", "threads"), "many"), (("environment", "threads"), 0),
        (("environment",), []), (("environment", "busy_before"), "x"), (("environment", "busy_before"), None),
        (("environment", "busy_before"), float("nan")), (("environment", "batch"), "abc"),
        (("environment", "batch"), 10**30), (("environment", "batch"), 1e30),
        (("environment", "offline_images"), "abc"), (("environment", "peak_tops"), float("inf")),
        (("environment", "runtime"), ["r"]), (("size_bytes",), "x"), (("size_bytes",), -5), (("device",), ["a"]),
        (("source",), "moon"), (("source",), 5), (("layers",), [1]), (("layers",), {}),
        (("layers",), [["a", "b"]]), (("layers",), [["a", -1]]), (("artifact",), [1]), (("artifact", "name"), "../.."),
        (("artifact", "details"), {"calibration_sha256": []}), (("artifact", "details"), 5),
    ],
)  # fmt: skip
def test_a_description_is_believed_in_nothing_and_named(tmp_path: Path, where: tuple[str, ...], value: object) -> None:
    _, described = saved(tmp_path)
    results.load(tmp_path)
    changed(described, where, value)
    with pytest.raises(DataError) as caught:
        results.load(tmp_path)
    assert str(described) in caught.value.message


@pytest.mark.parametrize(
    "values",
    [{"latencies_ns": np.array([1.5])}, {"latencies_ns": np.array([0, -4])}, {"logits": np.zeros(40)},
     {"expected": np.zeros(40)}, {"logits": np.full((40, 3), "a")}, {"power": np.zeros(3)},
     {"offline_ns": np.zeros((2, 2), int)}],
)  # fmt: skip
def test_raw_values_that_no_measurement_gives_are_refused(tmp_path: Path, values: dict[str, np.ndarray]) -> None:
    raw, described = saved(tmp_path)
    with np.load(raw) as kept_values:
        every = {**kept_values, **values}
    np.savez_compressed(raw, **every)
    changed(described, ("raw_sha256",), files.sha256_file(raw))
    with pytest.raises(DataError, match=f"{next(iter(values))} is not what a measurement gives"):
        results.load(tmp_path)


def test_what_is_damaged_is_left_out_by_name_and_the_others_are_read(tmp_path: Path) -> None:
    results.save(tmp_path, result())
    results.save(tmp_path, result(device="board"))
    path = next((tmp_path / "board").glob("*.json"))
    changed(path, ("environment", "threads"), NONE)
    said: list[str] = []
    assert [r.device for r in results.load(tmp_path, said.append)] == ["local"]
    assert said == [f"left out: {path} is damaged: environment.threads is missing"]
    assert [r.device for r in results.load_all(tmp_path, said.append)] == ["local"]


# What a device sends ---------------------------------------------------------------------------

SOUND = {"runtime": "r", "version": "1", "processor": "cpu", "threads": 1}


def answer(folder: Path, **changes: object) -> Path:
    """The three files of a sound answer for three images, with changes."""
    sound = {
        "result": SOUND,
        "latencies": np.array([5, 6], np.int64),
        "logits": np.zeros((3, 2), np.float32),
        **changes,
    }
    folder.mkdir(exist_ok=True)
    (folder / "result.json").write_text(json.dumps(sound["result"]))
    np.save(folder / "latencies_ns.npy", sound["latencies"])
    np.save(folder / "logits.npy", sound["logits"])
    for name in sound.keys() & {"warmup", "offline"}:
        np.save(folder / f"{name}_ns.npy", sound[name])
    return folder


def test_what_only_some_jobs_leave_is_read_where_it_is(tmp_path: Path) -> None:
    times = {"warmup": np.array([3], np.int64), "offline": np.array([5, 6], np.int64)}
    found = replies.read(answer(tmp_path / "a", **times, result={**SOUND, "offline_images": 9}), "board", 3)
    assert (found.warmup_ns.tolist(), found.offline_ns.tolist(), found.environment.offline_images) == ([3], [5, 6], 9)
    plain = replies.read(answer(tmp_path / "b"), "board", 3)
    assert (len(plain.warmup_ns), len(plain.offline_ns)) == (0, 0)


def test_texts_of_a_device_are_printable_and_short(tmp_path: Path) -> None:
    said = {"runtime": "\x1b[2Jr", "version": "1" * 9999, "processor": ["<b>"], "threads": 1, "k\n": None}
    environment = replies.read(answer(tmp_path / "a", result=said), "board", 3).environment.table()
    assert environment["runtime"] == "\\x1b[2Jr"
    assert len(environment["version"]) == 200
    assert (environment["processor"], environment["threads"], environment["k\\n"]) == ("['<b>']", 1, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"logits": np.zeros((4, 2), np.float32)},
        {"logits": np.zeros((3, 2), np.float64)},
        {"logits": np.zeros(3, np.float32)},
        {"logits": np.float32(1)},
        {"logits": np.zeros((3, 0), np.float32)},
        {"latencies": np.array([5, -6], np.int64)},
        {"latencies": np.array([5.0])},
        {"latencies": np.zeros((2, 2), np.int64)},
        {"warmup": np.array([0], np.int64)},
        {"warmup": np.array([1.0])},
        {"offline": np.array([5, 6], np.int64)},
        {"offline": np.array([5], np.int64), "result": {**SOUND, "offline_images": 0}},
        {"offline": np.array([5], np.int64), "result": {**SOUND, "offline_images": True}},
        {"offline": np.array([5], np.int64), "result": {**SOUND, "offline_images": 1.5}},
        {"result": []},
        {"result": {"runtime": "r"}},
    ],
)
def test_what_no_runner_writes_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(DataError, match="board sent results that no runner"):
        replies.read(answer(tmp_path / "a", **changes), "board", 3)


@pytest.mark.parametrize(
    "header",
    [
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1125899906842624, 3), }"
        + b" " * 40
        + b"\n",
        b"PK\x03\x04 a zip",
        b"\x80\x04K\x01. a pickle",
        b"",
        b"\x93NUMPY",
    ],
)
@pytest.mark.parametrize(
    "name", ["logits.npy", "latencies_ns.npy", "compute_ns.npy", "power.npy", "warmup_ns.npy", "offline_ns.npy"]
)
def test_arrays_that_no_numpy_wrote_are_refused(tmp_path: Path, name: str, header: bytes) -> None:
    folder = answer(tmp_path / "a")
    (folder / name).write_bytes(header)
    with pytest.raises(DataError, match="board sent results"):
        replies.read(folder, "board", 3)


@pytest.mark.parametrize(
    "layers",
    ["{}", "[1]", '[["a"]]', '[["a", "b"]]', '[["a", -1]]', '[["a", NaN]]', f'[["a", 1{"0" * 400}]]', "[" * 9999],
)
def test_layers_that_are_none_are_refused(tmp_path: Path, layers: str) -> None:
    (answer(tmp_path / "a") / "layers.json").write_text(layers)
    with pytest.raises(DataError, match="board sent results"):
        replies.read(tmp_path / "a", "board", 3)


def test_numbers_that_no_board_has_are_texts(tmp_path: Path) -> None:
    said = {
        "runtime": "r",
        "version": "1",
        "processor": "cpu",
        "threads": 1,
        "a": 10**400,
        "b": 1e200,
        "c": float("inf"),
    }
    environment = replies.read(answer(tmp_path / "a", result=said), "board", 3).environment.table()
    assert [environment[name] for name in "abc"] == ["huge", "1e+200", "inf"]


@pytest.mark.parametrize("changes", [{"threads": "many"}, {"busy_before": None}, {"batch": 1e300}, {"peak_rss_mb": []}])
def test_numbers_that_are_none_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    said = {"runtime": "r", "version": "1", "processor": "cpu", "threads": 1, **changes}
    with pytest.raises(DataError, match="no runner"):
        replies.read(answer(tmp_path / "a", result=said), "board", 3)


@pytest.mark.parametrize("name", ["result.json", "latencies_ns.npy", "logits.npy"])
def test_damaged_and_pickled_replies_are_refused(tmp_path: Path, name: str) -> None:
    folder = answer(tmp_path / "a")
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read"):
        replies.read(folder, "board", 3)
    if name.endswith(".npy"):
        np.save(folder / name, np.array([object()]), allow_pickle=True)
        with pytest.raises(DataError, match="cannot be read"):
            replies.read(folder, "board", 3)
