"""Engines built on a device behind a real sshd, by doubles of TensorRT; and records that no device should send."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit import files
from edgekit.bench import engines
from edgekit.bench.session import EvaluationSet, benchmark
from edgekit.convert.onnx import with_batch
from edgekit.devices.jobs import Job, MisfitError
from edgekit.devices.transport import open_transport
from edgekit.errors import DataError, EdgekitError
from edgekit.measurements import Suite
from edgekit.records import Artifact, Device, Preprocess
from tests.bench.results import artifact
from tests.devices import sshd
from tests.doubles import plant

ORIN = Device("orin", "jetson", transport="ssh", runtime="tensorrt", host="board", python=sys.executable)
QUICK = Suite("quick", warmup_queries=1, warmup_s=0.0, min_queries=9, min_s=0.0, max_s=60.0, power_s=0.0)
FILES = ("fp32", "fp16", "int8", "int8.typed")


def mean_color(path: Path, producer: str) -> Path:
    """An ONNX file whose three scores are the means of the three channels; `producer` makes its hash another."""
    shapes = [("image", [1, 3, 32, 32]), ("pooled", [1, 3, 1, 1]), ("scores", [1, 3])]
    image, _, scores = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    graph = helper.make_graph(nodes, "mean", [image], [scores])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8, producer_name=producer), path)
    return path


@pytest.fixture
def work(tmp_path: Path) -> list[tuple[Artifact, Path]]:
    """An export for Jetson: four files of different content, and a calibration cache."""
    folder = tmp_path / "export" / "jetson"
    folder.mkdir(parents=True)
    (folder / "model.int8.dla.cache").write_text("TRT-8502-EntropyCalibration2\nimage: 3c010a14\n")
    made = []
    for name in FILES:
        path = mean_color(folder / f"model.{name}.onnx", name)
        precision = name.partition(".")[0]
        made.append((artifact(f"jetson/{path.name}", precision, "tensorrt", sha256=files.sha256_file(path)), path))
    return made


@pytest.fixture
def jetson(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[sshd.Server]:
    """A board with trtexec 10.3 on its PATH."""
    if sshd.SERVER is None:
        pytest.skip("no sshd here: apt install openssh-server")
    folder = tmp_path_factory.mktemp("jetson")
    plant.trtexec(folder)
    server = sshd.start(folder / "device", PATH=f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("EDGEKIT_SSH", server.ssh)
    yield server
    server.stop()


def kit(work: list[tuple[Artifact, Path]], precision: str = "int8") -> engines.Kit:
    return next(k for k in engines.kits(work) if k.precision == precision)


def build(kit: engines.Kit, device: Device = ORIN) -> engines.Engine:
    with open_transport(device) as transport:
        return engines.build(kit, device, transport)


def test_the_files_of_a_precision_are_one_kit(work: list[tuple[Artifact, Path]]) -> None:
    found = {k.precision: {name: path.name for name, (_, path) in k.files.items()} for k in engines.kits(work)}
    assert found == {
        "fp32": {"onnx": "model.fp32.onnx"},
        "fp16": {"onnx": "model.fp16.onnx"},
        "int8": {
            "onnx": "model.int8.onnx",
            "typed_onnx": "model.int8.typed.onnx",
            "plain_onnx": "model.fp32.onnx",
        },
    }


def test_an_engine_is_built_there_and_kept_here_with_what_built_it(
    jetson: sshd.Server, work: list[tuple[Artifact, Path]]
) -> None:
    made = build(kit(work))
    assert made.path == work[0][1].parent / "engines" / "orin" / "model.int8.engine"
    assert made.source.name == "jetson/model.int8.onnx"
    record = json.loads(made.path.with_name(made.path.name + ".json").read_text())
    assert record == made.record
    assert (record["tensorrt"], record["builder"], record["onnx"]) == ("10.3.0", "trtexec", "model.int8.onnx")
    assert record["onnx_sha256"] == made.source.sha256
    assert record["engine_sha256"] == files.sha256_file(made.path)
    assert (record["compute_capability"], record["flags"]) == ("8.7", "--int8 --fp16")
    assert "Engine built" in made.path.with_name(made.path.name + ".log").read_text()
    assert list((jetson.cache / "jobs").iterdir()) == []
    assert [p.name for p in (jetson.cache / "keep").iterdir()] == ["timing-10.3.0.cache"]
    found = engines.find(kit(work), ORIN)
    assert found == made


def test_an_engine_is_found_only_for_the_same_files_device_and_settings(
    jetson: sshd.Server, work: list[tuple[Artifact, Path]]
) -> None:
    made = build(kit(work))
    assert engines.find(kit(work), replace(ORIN, name="other")) is None
    assert engines.find(kit(work), replace(ORIN, dla_core=0)) is None
    assert engines.find(kit(work), replace(ORIN, workspace_mb=64)) is None
    exported = work[2][1].read_bytes()
    mean_color(work[2][1], "another")
    assert engines.find(kit(work), ORIN) is None
    work[2][1].write_bytes(exported)
    assert engines.find(kit(work), ORIN) == made
    made.path.write_bytes(made.path.read_bytes()[:-1])
    assert engines.find(kit(work), ORIN) is None


@pytest.mark.parametrize("content", ["", "[]", "{", "{}", '{"tensorrt": 1}'])
def test_a_record_that_is_none_means_no_engine(work: list[tuple[Artifact, Path]], content: str) -> None:
    place = work[0][1].parent / "engines" / "orin"
    place.mkdir(parents=True)
    (place / "model.int8.engine").write_bytes(b"x")
    (place / "model.int8.engine.json").write_text(content)
    assert engines.find(kit(work), ORIN) is None


def test_a_dla_gets_the_float_file_and_our_calibration_and_says_what_runs_where(
    jetson: sshd.Server, work: list[tuple[Artifact, Path]]
) -> None:
    made = build(kit(work), replace(ORIN, name="dla", dla_core=0))
    assert made.record["onnx"] == "model.fp32.onnx"
    assert made.source.name == "jetson/model.int8.onnx", "it is the INT8 model, whatever it was built from"
    assert made.record["placement"] == {
        "dla": ["{ForeignNode[node_conv2d...n4]}"],
        "gpu": ["node_linear"],
        "refused": ["node_linear"],
    }
    assert made.fits["dla_core"] == 0
    assert engines.as_model(made, replace(ORIN, dla_core=0)).options["cuda_graph"] is False
    assert engines.as_model(made, ORIN).options["cuda_graph"] is True


def test_what_refuses_the_model_is_the_error_and_nothing_is_kept(
    jetson: sshd.Server, work: list[tuple[Artifact, Path]]
) -> None:
    broken = kit(work, "fp16")
    broken.files["onnx"][1].write_bytes(b"no onnx")
    with pytest.raises(EdgekitError, match="Failed to parse ONNX model"):
        build(broken)
    assert not (broken.folder / "engines").exists()


def test_an_engine_of_another_version_is_a_misfit_that_names_the_remedy(
    jetson: sshd.Server, work: list[tuple[Artifact, Path]], tmp_path: Path
) -> None:
    made = build(kit(work))
    np.save(tmp_path / "pixels.npy", np.zeros((3, 32, 32, 3), np.uint8))
    samples = EvaluationSet(tmp_path / "pixels.npy", np.arange(3), Preprocess(32, 32))
    with open_transport(ORIN) as transport:
        result = benchmark(engines.as_model(made, ORIN), ORIN, QUICK, samples, transport)
        assert (result.runtime, result.source, len(result.latencies_ns)) == ("trtexec", "device", 9)
        assert result.logits.shape == (3, 3)
        assert dict(result.layers)["node_linear"] == 0.03
        plant.trtexec(jetson.folder.parent, 100700)
        with pytest.raises(MisfitError, match=r"tensorrt 10\.3\.0, here 10\.7\.0") as caught:
            benchmark(engines.as_model(made, ORIN), ORIN, QUICK, samples, transport)
    assert "--rebuild" in caught.value.hint


def test_a_batch_is_built_from_files_of_its_own(jetson: sshd.Server, work: list[tuple[Artifact, Path]]) -> None:
    device = replace(ORIN, name="orin-b4", batch=4)
    ready = engines.in_batches(kit(work), device, with_batch)
    places = {name: path.name for name, (_, path) in ready.files.items()}
    assert places["onnx"] == "model.int8.batch4.onnx"
    assert onnx.load(ready.files["onnx"][1]).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4
    made = build(ready, device)
    assert made.source.name == "jetson/model.int8.onnx"
    assert engines.find(engines.in_batches(kit(work), device, with_batch), device) == made
    assert engines.in_batches(kit(work), ORIN, with_batch) == kit(work)


class Liar:
    """A transport whose device sends what it likes."""

    def __init__(self, record: Any, engine: bytes = b"engine") -> None:
        self.record, self.engine = record, engine

    def run(self, job: Job, results: Path) -> None:
        (results / "result.json").write_text(
            json.dumps(self.record) if not isinstance(self.record, str) else self.record
        )
        (results / "model.engine").write_bytes(self.engine)
        (results / "build.log").write_bytes(b"\x1b[2Jcleared\xff\n<script>")


def honest(work: list[tuple[Artifact, Path]], **changes: Any) -> dict[str, Any]:
    return {
        "tensorrt": "10.3.0", "builder": "api", "precision": "int8", "flags": "INT8", "onnx": "model.onnx",
        "onnx_sha256": kit(work).files["onnx"][0].sha256,
        "engine_sha256": "8ebd2adf6b7b1ab5c3dbbec75e1dd4f4b3bafe1b0f8a0b1a9d4cd8c1d2ba33b2", **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [{"builder": "rm -rf"}, {"tensorrt": 10}, {"onnx_sha256": "0" * 64}, {"engine_sha256": "0" * 64}, {"flags": None}],
)
def test_a_record_that_no_build_writes_is_refused(work: list[tuple[Artifact, Path]], changes: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        engines.build(kit(work), ORIN, Liar(honest(work, **changes)))  # type: ignore[arg-type]
    assert not (work[0][1].parent / "engines").exists()


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, "null"])
def test_a_record_that_is_no_object_is_refused(work: list[tuple[Artifact, Path]], text: str) -> None:
    with pytest.raises(DataError, match="orin sent a record"):
        engines.build(kit(work), ORIN, Liar(text))  # type: ignore[arg-type]


def test_texts_of_a_device_are_printable_and_its_paths_are_never_used(
    work: list[tuple[Artifact, Path]], tmp_path: Path
) -> None:
    import hashlib

    record = honest(
        work, engine_sha256=hashlib.sha256(b"engine").hexdigest(), onnx="../../../evil", module="\x1b]0;x\x07",
        placement={"dla": ["\x1b[31m" * 100], "gpu": "no list", "refused": [{}]}, **{"k" * 999: 1, "nan": float("nan")},
    )  # fmt: skip
    made = engines.build(kit(work), ORIN, Liar(record))  # type: ignore[arg-type]
    kept = made.path.with_name(made.path.name + ".json").read_text()
    assert "\x1b" not in kept
    assert made.record["onnx"] == "model.int8.onnx"
    assert made.record["placement"]["gpu"] == []
    assert all(len(str(key)) <= 200 for key in made.record)
    assert "\x1b" not in made.path.with_name(made.path.name + ".log").read_text()
    assert {p.parent for p in tmp_path.rglob("*engine*") if p.is_file()} == {made.path.parent}
