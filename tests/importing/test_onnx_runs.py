"""Runs of ONNX files: in torch where that is possible, else as they are."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

import edgekit
from edgekit.api import import_model
from edgekit.bench.session import infer_here
from edgekit.cli.app import run
from edgekit.errors import DataError, EdgekitError, UsageError
from edgekit.models import checkpoints
from edgekit.models.onnx_module import OnnxModule
from edgekit.reporting.provenance import training
from edgekit.runs import Run
from tests.importing.onnx_nets import SIZE, Net, classifier
from tests.nets import cosine, relative_error

LABELS = ["a", "b", "c", "d", "e"]
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def normalized(net: Net) -> Net:
    return net.add("Sub", 255 * MEAN.reshape(1, 3, 1, 1)).add("Div", 255 * STD.reshape(1, 3, 1, 1))


def imported(folder: Path, net: Net, **options: Any) -> Run:
    options = {"labels": LABELS, "runs_dir": folder / "runs", "name": "mine", **options}
    return import_model.import_model(net.save(folder), **options)


def scores(path: Path, images: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(str(path)).run(["scores"], {"image": images})[0]


def test_a_run_has_the_network_of_its_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edgekit")
    net = normalized(Net()).conv().add("Relu").head()
    run = imported(tmp_path, net)
    assert run.info.source is not None
    assert (run.info.source.kind, run.info.source.file, run.info.source.as_is) == ("ONNX network", "model.onnx", "")
    assert run.info.preprocess is not None
    assert run.info.preprocess.mean == pytest.approx(MEAN, abs=1e-5)
    assert any("moves into the preprocessing" in line for line in caplog.messages)
    files = edgekit.export(run, "desktop", precisions=["fp32"])
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, SIZE, SIZE)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    expected = session.run(None, {"image": pixels})[0]
    prepared = (pixels / 255 - MEAN.reshape(1, 3, 1, 1)) / STD.reshape(1, 3, 1, 1)
    got = scores(run.path / "export" / files[0].name, prepared.astype(np.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_litert_files_give_what_onnx_runtime_gives_for_the_original(tmp_path: Path) -> None:
    """Pads that differ by side, a depthwise layer, an attention of channels, and two branches that are joined."""
    net = normalized(Net()).conv(pads=[0, 0, 1, 1]).add("HardSwish")
    before = net.at
    net.add("GlobalAveragePool").conv(8, 8, 1, "gate", strides=[1, 1], pads=[0, 0, 0, 0]).add("Sigmoid")
    net.add("Mul", inputs=[before, net.at])
    net.add("Conv", net.constant(net.weights(8, 1, 3, 3), "deep.weight"), group=8, pads=[1, 1, 1, 1]).add("Relu")
    net.add("Concat", inputs=[net.at, before], axis=1).add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    pixels = np.random.default_rng(2).integers(0, 256, (24, 1, 1, 3)) // 2  # a colour each, with noise
    pixels = (pixels + np.random.default_rng(3).integers(0, 128, (24, SIZE, SIZE, 3))).astype(np.uint8)
    run = imported(tmp_path, net.head(16), calibration=pixels)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    expected = np.concatenate(
        [session.run(None, {"image": image.transpose(2, 0, 1)[None].astype(np.float32)})[0] for image in pixels]
    )
    made = {file.precision: file for file in edgekit.export(run, "android", precisions=["fp32", "int8"])}
    preprocess = checkpoints.load(run.path / "checkpoint.pt")[0].preprocess
    exact, rounded = (
        infer_here(made[kind], run.path / "export" / made[kind].name, list(pixels), preprocess)
        for kind in ("fp32", "int8")
    )
    assert relative_error(exact, expected) < 1e-5
    assert cosine(rounded, expected) > 0.99


def test_another_normalization_than_the_one_inside_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"normalizes pixels itself, with mean 0\.485, 0\.456, 0\.406"):
        imported(tmp_path, normalized(Net()).conv().head(), mean=(0.5, 0.5, 0.5))
    assert not (tmp_path / "runs" / "mine").exists()
    imported(tmp_path, normalized(Net()).conv().head(), mean=(0.485, 0.456, 0.406))


def test_labels_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="5 outputs"):
        imported(tmp_path, classifier(), labels=["a", "b"])
    assert not (tmp_path / "runs" / "mine").exists()


def test_output_is_for_onnx_files(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(UsageError, match="--output goes with an"):
        import_model.import_model(tmp_path / "weights.pth", labels=LABELS, output="scores", runs_dir=tmp_path / "runs")


# As it is.


@pytest.fixture
def kept(tmp_path: Path) -> Run:
    return imported(tmp_path, normalized(Net()).conv().add("CumSum", np.int64(1), name="odd").head())


def test_a_network_that_stays_onnx_is_a_run_all_the_same(kept: Run, tmp_path: Path) -> None:
    assert kept.info.source is not None
    assert kept.info.source.as_is == "operator CumSum (1); the first is CumSum (odd)"
    checkpoint, model = checkpoints.load(kept.path / "checkpoint.pt")
    assert isinstance(model, OnnxModule)
    assert checkpoint.labels == tuple(LABELS)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, SIZE, SIZE)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    prepared = (pixels / 255 - MEAN.reshape(1, 3, 1, 1)) / STD.reshape(1, 3, 1, 1)
    np.testing.assert_allclose(
        model(torch.from_numpy(prepared.astype(np.float32))).numpy(), session.run(None, {"image": pixels})[0],
        rtol=1e-4, atol=1e-4,
    )  # fmt: skip
    Image.fromarray(pixels[0].transpose(1, 2, 0).astype(np.uint8)).save(tmp_path / "photo.png")
    (answer,) = edgekit.predict(kept, [tmp_path / "photo.png"])
    assert answer.top[0].label == LABELS[int(session.run(None, {"image": pixels[:1]})[0].argmax())]
    with pytest.raises(UsageError, match="this run keeps its ONNX file as it is"):
        edgekit.predict(kept, [tmp_path / "photo.png"], uncertainty=True)


def test_a_checkpoint_that_keeps_an_onnx_file_is_imported_again(kept: Run, tmp_path: Path) -> None:
    again = import_model.import_model(kept.path / "checkpoint.pt", runs_dir=tmp_path / "runs", name="again")
    assert kept.info.source is not None
    assert again.info.source is not None
    assert again.info.source.as_is == kept.info.source.as_is
    assert again.weights_sha256 == kept.weights_sha256
    assert "--arch" not in training("again", again.info.plain())


def test_what_stays_onnx_is_evaluated_and_inspected(kept: Run, tmp_path: Path) -> None:
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    random, right = np.random.default_rng(1), 0
    for number in range(20):
        pixels = random.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        found = int(session.run(None, {"image": pixels.transpose(2, 0, 1)[None].astype(np.float32)})[0].argmax())
        label = found if number % 2 else (found + 1) % len(LABELS)
        right += label == found
        path = tmp_path / "photos" / LABELS[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    judged = edgekit.evaluate(kept, data=tmp_path / "photos")
    assert judged.splits["test"].scores.top1 == pytest.approx(100 * right / 20)
    edgekit.export(kept, "desktop")
    assert run(["inspect", str(kept.path), "desktop/model.fp32.onnx"]) == 0


def test_what_stays_onnx_is_exported_in_floats(kept: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edgekit")
    assert [file.precision for file in edgekit.export(kept, "desktop")] == ["fp32"]
    files = edgekit.export(kept, "jetson", build=False)
    assert [file.precision for file in files] == ["fp32", "fp16"]
    assert any("without int8" in line and "CumSum" in line for line in caplog.messages)
    images = np.random.default_rng(0).standard_normal((1, 3, SIZE, SIZE)).astype(np.float32)
    exact, half = (scores(kept.path / "export" / file.name, images) for file in files)
    np.testing.assert_allclose(half, exact, atol=2e-2 * np.abs(exact).max())


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("desktop", {"precisions": ["int8"]}, "int8 needs the network in torch"),
        ("desktop", {"max_drop": 1.0}, "INT8 needs the network in torch"),
        (
            "android",
            {},
            "LiteRT needs the network in torch, and this run keeps its ONNX file as it is: operator CumSum",
        ),
    ],
)
def test_what_needs_torch_is_refused(kept: Run, target: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        edgekit.export(kept, target, **options)


@pytest.fixture
def suite(tmp_path: Path) -> str:
    """A fraction of a second."""
    path = tmp_path / "brief.toml"
    path.write_text("warmup_queries = 1\nwarmup_s = 0.0\nmin_s = 0.01\nmin_queries = 8\n")
    return str(path)


def test_what_stays_onnx_is_measured_against_onnx_runtime(tmp_path: Path, suite: str) -> None:
    photos = tmp_path / "photos"
    for number, label in enumerate(LABELS * 4):
        path = photos / label / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    run = imported(tmp_path, normalized(Net()).conv().add("CumSum", np.int64(1), name="odd").head(), data=photos)
    edgekit.export(run, "desktop")
    reference, *_, exported = edgekit.benchmark(run, suite=suite)
    assert (reference.artifact, reference.is_reference, reference.speedup) == ("baseline/onnxruntime", True, 1.0)
    assert (exported.artifact, exported.is_reference) == ("desktop/model.fp32.onnx", False)
    assert (exported.agreement, exported.drop, exported.samples) == (100.0, 0.0, 20)
    assert exported.speedup is not None
    page = edgekit.report(run).read_text()
    assert "x ONNX Runtime" in page
    assert "PyTorch" not in page


def test_what_stays_onnx_without_images_has_a_latency(kept: Run, suite: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edgekit")
    edgekit.export(kept, "desktop")
    assert edgekit.benchmark(kept, suite=suite) == []
    assert "the baseline is ONNX Runtime: this run keeps its ONNX file as it is" in caplog.messages
    with pytest.raises(EdgekitError, match="baseline torch-compile needs the network in torch"):
        edgekit.benchmark(kept, suite=suite, baselines=["torch-compile"])
