"""Imports: a run like any other, of what was read, or none at all."""

from __future__ import annotations

import dataclasses
import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import edgekit
from edgekit import files
from edgekit.api import import_model, search
from edgekit.api.evaluate import rank
from edgekit.bench import session
from edgekit.cli.app import run as command
from edgekit.data.images import fit
from edgekit.errors import DataError, EdgekitError, GateError, MissingError, UsageError
from edgekit.importing.network import Network
from edgekit.models import build, checkpoints, zoo
from edgekit.models.build import normalize
from edgekit.records import Preprocess
from edgekit.reporting import provenance
from edgekit.runs import Source
from tests import nets
from tests.datasets import write_images

ARCH, LABELS = "mobilenet_v3_small", ["apple", "banana", "cherry"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, labels and photos."""
    made = tmp_path_factory.mktemp("import")
    torch.manual_seed(0)
    torch.save(build.build(ARCH, 3).state_dict(), made / "best.pth")
    (made / "labels.txt").write_text("\n".join(LABELS) + "\n")
    write_images(made / "photos", dict.fromkeys(LABELS, 4))
    return made


def test_a_state_dict_becomes_a_run(folder: Path, tmp_path: Path) -> None:
    run = edgekit.import_model(folder / "best.pth", LABELS, arch=ARCH, image_size=64, runs_dir=tmp_path)
    assert (run.name, run.info.status, run.info.arch, run.info.labels) == (
        f"best-{ARCH}", "imported", ARCH, tuple(LABELS),
    )  # fmt: skip
    assert run.info.preprocess == Preprocess(64, 73)
    assert run.info.source is not None
    assert str(run.info.source) == "state dict in best.pth"
    assert run.info.data is None
    assert edgekit.open_run(runs_dir=tmp_path).path == run.path
    checkpoint, model = checkpoints.load(run.path / "checkpoint.pt")
    assert checkpoint.sha256 == run.weights_sha256
    state = torch.load(folder / "best.pth", weights_only=True)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_labelled_images_are_evaluated(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "edgekit"):
        run = edgekit.import_model(
            folder / "best.pth", folder / "labels.txt", arch=ARCH, image_size=64, runs_dir=tmp_path, name="mine",
            data=folder / "photos",
        )  # fmt: skip
    evaluation = edgekit.evaluate(run)
    assert list(evaluation.splits) == ["test"]
    assert evaluation.splits["test"].scores.samples == 12
    assert (evaluation.temperature, evaluation.dropout) == (None, None)
    assert any("12 test images of 3 of the 3 classes" in line for line in caplog.messages)
    assert edgekit.predict(run, [folder / "photos" / "apple" / "000.png"])[0].temperature is None
    with pytest.raises(MissingError, match="no dropout was fitted for 'mine': it was evaluated without val") as caught:
        edgekit.predict(run, [folder / "photos" / "apple" / "000.png"], uncertainty=True)
    assert caught.value.hint.startswith("import it again with --data DIR, where DIR has val/")


def test_images_may_come_later(folder: Path, tmp_path: Path) -> None:
    run = edgekit.import_model(folder / "best.pth", LABELS, arch=ARCH, image_size=64, runs_dir=tmp_path)
    with pytest.raises(MissingError, match="was imported without images") as caught:
        edgekit.evaluate(run)
    assert "--data DIR" in caught.value.hint
    assert edgekit.evaluate(run, data=folder / "photos").splits["test"].scores.samples == 12
    assert edgekit.evaluate(run.path, runs_dir=tmp_path).splits["test"].scores.samples == 12


def test_val_is_what_temperature_and_dropout_are_fitted_on(folder: Path, tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write_images(tmp_path / "data" / split, dict.fromkeys(LABELS, 4), seed=3)
    run = edgekit.import_model(
        folder / "best.pth", LABELS, arch=ARCH, image_size=64, runs_dir=tmp_path, data=tmp_path / "data"
    )
    evaluation = edgekit.evaluate(run)
    assert list(evaluation.splits) == ["val", "test"]
    assert evaluation.temperature is not None
    assert evaluation.dropout is not None


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"labels": None}, UsageError, "best.pth has 3 classes, and nothing names them"),
        ({"labels": ["a", "b"]}, DataError, r"2 labels \(a ... b\) for 3 classes"),
        ({"arch": "resnet18"}, DataError, "no classifier fc.weight"),
        ({"arch": "resnet19"}, UsageError, "unknown model 'resnet19'"),
        ({"arch": None}, UsageError, "does not say which network"),
        ({"weights": "best.pth"}, UsageError, "--weights goes with a function"),
        ({"data": "nowhere"}, MissingError, "'nowhere' is not a folder"),
        ({"calibration": "nowhere"}, MissingError, "'nowhere' is not a folder"),
        ({"image_size": 8}, UsageError, "image size 8 is outside"),
        ({"colour": "red"}, UsageError, "unknown option of import_model 'colour'"),
        ({"name": "a/b"}, UsageError, "is not a valid run name"),
    ],
)
def test_nothing_is_left_of_an_import_that_fails(
    changes: dict[str, Any], kind: type[EdgekitError], message: str, folder: Path, tmp_path: Path
) -> None:
    given = {"labels": LABELS, "arch": ARCH, "image_size": 64} | changes
    with pytest.raises(kind, match=message):
        edgekit.import_model(folder / "best.pth", runs_dir=tmp_path / "runs", **given)
    assert not (tmp_path / "runs").exists() or list((tmp_path / "runs").iterdir()) == []


def test_data_with_other_classes_leaves_no_run(folder: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "other", {"durian": 2})
    with pytest.raises(DataError, match="have the name of no class: durian"):
        edgekit.import_model(
            folder / "best.pth", LABELS, arch=ARCH, image_size=64, runs_dir=tmp_path / "runs", data=tmp_path / "other"
        )
    assert not (tmp_path / "runs").exists()


def test_an_imported_run_cannot_be_resumed(folder: Path, tmp_path: Path) -> None:
    run = edgekit.import_model(folder / "best.pth", LABELS, arch=ARCH, image_size=64, runs_dir=tmp_path)
    with pytest.raises(UsageError, match="was imported, not trained here") as caught:
        edgekit.resume(run)
    assert caught.value.hint.startswith(f"edgekit train DATA --model {ARCH} --weights ")


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["import", str(folder / "best.pth"), "--arch", ARCH, "--labels", str(folder / "labels.txt"), "--image-size",
            "64", "--mean", "0.5", "0.5", "0.5", "--runs-dir", str(tmp_path), "--name", "mine"]  # fmt: skip
    assert command(line) == 0
    assert edgekit.open_run("mine", runs_dir=tmp_path).info.preprocess == Preprocess(64, 73, mean=(0.5, 0.5, 0.5))
    assert "next: edgekit export" in capsys.readouterr().err
    assert command(line) == 2
    assert "the run 'mine' already exists" in capsys.readouterr().err
    assert command(["import", str(folder / "best.pth"), "--arch", ARCH, "--runs-dir", str(tmp_path)]) == 2
    assert "--labels labels.txt: a file with the 3 names, one a line" in capsys.readouterr().err


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights of a small network, in a folder of its own."""
    monkeypatch.setitem(zoo.MODELS, "tiny", nets.TINY)
    torch.manual_seed(0)
    torch.save(build.build("tiny", 3).state_dict(), tmp_path / "tiny.pth")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_entry_that_was_named_is_in_the_command_that_reproduces_the_run(tiny: Path) -> None:
    state = torch.load("tiny.pth", weights_only=True)
    torch.save({"model": state, "best": {name: value + 1 for name, value in state.items()}}, "two.pth")
    run = edgekit.import_model("two.pth", LABELS, arch="tiny", image_size=64, entry="best")
    again = edgekit.open_run(run.name)
    assert again.info.source is not None
    assert again.info.source.entry == "best"
    assert " --entry best" in provenance.training(run.name, again.info.plain())


def test_files_name_the_steps_that_were_kept_also_when_the_weights_are_read_again(tiny: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    run = edgekit.import_model("tiny.pth", LABELS, arch="tiny", image_size=64, calibration=pixels)
    for _ in range(2):
        (made,) = edgekit.export(run, "android", precisions=["int8"], recipe="rounding")
        assert list(made.details["steps"]) == ["rounding", "bias"]


def test_every_file_holds_the_contract_and_a_run_from_before_it_says_so(
    tiny: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = edgekit.import_model("tiny.pth", LABELS, arch="tiny", image_size=64)
    assert run.info.plain()["preprocess"]["schema"] == 1
    with caplog.at_level(logging.INFO, "edgekit"):
        (made,) = edgekit.export(run, "android", precisions=["fp32"])
        assert "contract" not in caplog.text
        monkeypatch.setattr(Preprocess, "with_schema", staticmethod(lambda document: {**document, "schema": 0}))
        edgekit.export(edgekit.open_run(run.name), "android", precisions=["fp32"])
    assert f"{run.name} was made before preprocessing contract 1" in caplog.text
    folder = run.path / "export" / "android"
    contract = json.loads((folder / "preprocess.json").read_text())
    assert contract == json.loads((folder / "manifest.json").read_text())["preprocess"]
    assert contract["schema"] == 1
    assert contract["labels_sha256"] == files.sha256_file(folder / "labels.txt")
    tensor = contract.pop("tensors")[made.file]
    assert tensor["type"] == "uint8"
    with zipfile.ZipFile(folder / made.file) as archive:
        assert json.loads(archive.read("preprocess.json")) == {**contract, "tensor": tensor}


def test_without_images_there_is_float_and_what_int8_needs_is_said(
    tiny: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = edgekit.import_model("tiny.pth", LABELS, arch="tiny", image_size=64, name="bare")
    with caplog.at_level(logging.INFO, "edgekit"):
        made = edgekit.export(run, ["jetson", "android"])
    assert {artifact.precision for artifact in made} == {"fp32", "fp16"}
    assert "edgekit export bare --target android --calibration-data DIR" in caplog.text
    with pytest.raises(MissingError, match="int8 needs images, and 'bare' was imported without") as caught:
        edgekit.export(run, "android", precisions=["int8"])
    assert caught.value.hint.startswith("edgekit export bare --target android --calibration-data DIR")
    with pytest.raises(MissingError, match="--max-drop needs images"):
        edgekit.export(run, "android", max_drop=1.0)
    assert edgekit.benchmark(run, suite="quick", baselines=["pytorch"]) == []
    assert "## Recommendation" in edgekit.report(run, "md").read_text()
    write_images(tiny / "more", {"x": 20})
    made = edgekit.export(run, "android", precisions=["int8"], calibration_data=tiny / "more")
    assert [artifact.precision for artifact in made].count("int8") == 1
    assert edgekit.open_run("bare").info.calibration_data == str(tiny / "more")


def test_images_without_labels_judge_by_agreement(tiny: Path) -> None:
    write_images(tiny / "photos", {"x": 30, "y": 30})
    run = edgekit.import_model("tiny.pth", LABELS, arch="tiny", image_size=64, name="cal", calibration=tiny / "photos")
    edgekit.export(run, "desktop")
    rows = edgekit.benchmark(run, suite="quick", baselines=["pytorch"], gates={"max_drop": 50})
    assert {row.artifact for row in rows} == {
        "baseline/pytorch", "desktop/model.fp32.onnx", "desktop/model.int8.onnx",
    }  # fmt: skip
    for row in rows:
        assert (row.top1, row.drop, row.p_value, row.samples) == (None, None, None, 60)
        assert row.agreement_low is not None
        assert row.agreement_low < row.agreement == row.score
    for form in ("html", "md", "card", "csv", "json", "classes"):
        text = edgekit.report(run, form).read_text()
        assert "top-1 %" not in text
    assert "same answer % (95 %)" in edgekit.report(run, "md").read_text()
    assert '"top1": null' in edgekit.report(run, "json").read_text()
    assert [row.entry.top1 for row in edgekit.history(["cal"])] == [None] * 3
    with pytest.raises(GateError, match="gates do not hold"):
        edgekit.benchmark(run, suite="quick", baselines=["pytorch"], gates={"min_accuracy": 50})


def test_images_without_labels_judge_the_search(
    tiny: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tiny / "photos", {"x": 60})
    run = edgekit.import_model("tiny.pth", LABELS, arch="tiny", image_size=64, name="cal", calibration=tiny / "photos")
    with pytest.raises(UsageError, match="60 images without labels cannot show a drop of at most 1 points") as caught:
        edgekit.export(run, "desktop", max_drop=1.0)
    assert caught.value.hint == "--max-drop 2.7, or --calibration-data with 419 images"
    with pytest.raises(UsageError, match="cannot show a drop of at most 0") as caught:
        edgekit.export(run, "desktop", max_drop=0.1)  # more images than are ever read
    assert caught.value.hint == "--max-drop 2.7"
    with caplog.at_level(logging.INFO, "edgekit"):
        made = edgekit.export(run, "desktop", precisions=["int8"], max_drop=50.0)
    assert [artifact.precision for artifact in made].count("int8") == 1
    checkpoint, model = checkpoints.load(run.path / "checkpoint.pt")
    photos = sorted(tiny.glob("photos/x/*"))
    pixels = np.stack([fit(Image.open(photo), checkpoint.preprocess) for photo in photos])
    exact = build.predict_logits(model, pixels, checkpoint.preprocess).numpy().argmax(1)
    (file,) = (artifact for artifact in made if artifact.precision == "int8")
    rounded = session.infer_here(file, run.path / "export" / file.name, pixels, checkpoint.preprocess).argmax(1)
    assert "desktop: at most 50 % other answers than the trained network, on 60 images without labels" in caplog.text
    assert f"relative: other answer {100 * (exact != rounded).mean():.2f} %, at most " in caplog.text
    monkeypatch.setattr(search, "MOST_FLOAT_LAYERS", 0)
    monkeypatch.setattr(search.Search, "_trained_answers", (exact + 1) % 3)
    with pytest.raises(GateError, match=r"no INT8 model keeps --max-drop 50 .*: desktop: relative: other answer 100"):
        edgekit.export(run, "desktop", precisions=["int8"], max_drop=50.0, recipe="relative")


def test_uncertainty_says_what_this_run_needs(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("val", "test"):
        write_images(tiny / "photos" / split, dict.fromkeys(LABELS, 4))
    photo = tiny / "photos" / "val" / "apple" / "000.png"
    run = edgekit.import_model("tiny.pth", LABELS, arch="tiny", image_size=64, name="bare")
    with pytest.raises(MissingError, match="'bare' was not evaluated yet") as caught:
        edgekit.predict(run, [photo], uncertainty=True)
    assert caught.value.hint.startswith("edgekit evaluate bare --data DIR, where DIR has val/")
    edgekit.evaluate("bare", data=tiny / "photos")
    assert edgekit.predict("bare", [photo], uncertainty=True)[0].uncertainty is not None
    (run.path / "evaluation.json").unlink()
    with pytest.raises(MissingError, match="'bare' was not evaluated yet") as caught:
        edgekit.predict("bare", [photo], uncertainty=True)
    assert caught.value.hint == "edgekit evaluate bare"
    assert edgekit.predict("bare", [photo])[0].temperature is None
    monkeypatch.setitem(zoo.MODELS, "tiny", dataclasses.replace(nets.TINY, simple=False))
    with pytest.raises(UsageError, match="the last linear layer, and tiny does not end in one") as refused:
        edgekit.predict("bare", [photo], uncertainty=True)
    assert refused.value.hint == "leave out --uncertainty"


def test_an_imported_run_is_described_as_imported(folder: Path, tmp_path: Path) -> None:
    run = edgekit.import_model(
        folder / "best.pth", LABELS, arch=ARCH, image_size=64, runs_dir=tmp_path, data=folder / "photos"
    )
    card = edgekit.report(run, "card").read_text()
    assert "## Origin" in card
    assert "## Training" not in card
    assert "state dict in best.pth" in card
    page = edgekit.report(run).read_text()
    assert "imported from" in page
    (run.path / "evaluation.json").unlink()
    assert f"Run <code>edgekit evaluate {run.name}</code>" in edgekit.report(run).read_text()
    run.save(data=None)
    assert f"Run <code>edgekit evaluate {run.name} --data DIR</code>" in edgekit.report(run.path).read_text()
    assert "edgekit import best.pth" in edgekit.report(run, "md").read_text()
    assert str(folder) not in page
    assert rank([run])[0][0].strategy == "imported"


class Small(torch.nn.Module):
    """A network that edgekit has never seen, with names that Python would not take."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.stem = torch.nn.Sequential()
        self.stem.add_module("conv-0", torch.nn.Conv2d(3, 8, 3, 2))
        self.stem.add_module("1", torch.nn.BatchNorm2d(8))
        self.head = torch.nn.Linear(8, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        return self.head(x.mean((2, 3)))


def test_a_module_in_memory_goes_all_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    net = Small().train()
    pixels = torch.randint(0, 256, (48, 64, 64, 3), dtype=torch.uint8)
    images = normalize(pixels, Preprocess(64, 73))
    loader = DataLoader(TensorDataset(images, torch.arange(48) % 3), batch_size=16)
    run = edgekit.import_model(
        net, LABELS, Preprocess(64, 73), name="mine", data=loader, calibration=loader, normalized=True
    )
    assert net.training
    _, model = checkpoints.load(run.path / "checkpoint.pt")
    with torch.no_grad():
        assert torch.allclose(model(images), net.eval()(images), atol=1e-5)
    evaluation = edgekit.evaluate("mine")
    expected = float((net(images).argmax(1) == torch.arange(48) % 3).float().mean()) * 100
    assert evaluation.splits["test"].scores.top1 == pytest.approx(expected)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs" / "mine").rename(tmp_path / "elsewhere" / "mine")  # the images move with the run
    made = edgekit.export("elsewhere/mine", ["jetson", "android"])
    assert {artifact.precision for artifact in made} == {"fp32", "fp16", "int8"}
    rows = edgekit.benchmark("elsewhere/mine", suite="quick", baselines=["pytorch"])
    assert min(row.agreement for row in rows) > 90
    assert rows[0].top1 == pytest.approx(expected)


def test_a_checkpoint_that_holds_its_network_is_imported_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = edgekit.import_model(Small(), LABELS, Preprocess(64, 73, mean=(0.5, 0.5, 0.5)), runs_dir=tmp_path, name="a")
    with caplog.at_level(logging.INFO, "edgekit"):
        again = edgekit.import_model(first.path / "checkpoint.pt", runs_dir=tmp_path, name="b")
    assert (again.info.labels, again.info.arch) == (tuple(LABELS), first.info.arch)
    assert again.info.preprocess == first.info.preprocess
    assert "preprocessing, of the file: " in caplog.text
    images = torch.randn(2, 3, 64, 64)
    answers = [checkpoints.load(run.path / "checkpoint.pt")[1](images) for run in (first, again)]
    assert torch.equal(*answers)


@pytest.mark.parametrize(
    ("more", "given", "said"),
    [
        ({}, set(), "of the pretrained network"),
        ({}, {"image_size"}, "of the pretrained network, but for what was given"),
        ({"preprocess": Preprocess(64, 64)}, set(), "of the file"),
        ({"program": True}, {"image_size", "mean", "std"}, "as given"),
        ({"program": True}, {"image_size"}, "as given, with ImageNet's mean and std, since none was given"),
        ({"program": True}, {"image_size", "mean"}, "as given, with ImageNet's std, since none was given"),
        (
            {"program": True, "preprocess": Preprocess(64, 64)},
            set(),
            "of the file, with ImageNet's mean and std, since none was given",
        ),
        ({"program": True, "preprocess": Preprocess(64, 64), "normalized": True}, set(), "of the file"),
    ],
)
def test_what_the_preprocessing_is_from_is_said(more: dict[str, Any], given: set[str], said: str) -> None:
    assert import_model._origin(Network(Small(), "mine", Source("module in memory"), **more), given) == said


def test_labels_in_another_order_are_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A network that answers by colour, and labels in the order of another one."""
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        net[2].weight.copy_(torch.eye(3))
    pixels, labels = np.zeros((60, 32, 32, 3), np.uint8), np.arange(60) % 3
    pixels[np.arange(60), ..., :] = np.eye(3, dtype=np.uint8)[labels][:, None, None] * 200
    said = "the labels are probably in another order"
    for order, warned in ((labels, False), ((labels + 1) % 3, True)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "edgekit"):
            edgekit.import_model(
                net, ["red", "green", "blue"], Preprocess(32, 32), runs_dir=tmp_path, data=(pixels, order)
            )
        assert (said in caplog.text) == warned
    assert "red is output 2, not 0, green is output 0, not 1" in caplog.text


def test_a_whole_pickle_is_refused_unless_trusted(tmp_path: Path) -> None:
    torch.save(Small(), tmp_path / "whole.pt")
    given: dict[str, Any] = {"labels": LABELS, "preprocess": Preprocess(64, 64), "runs_dir": tmp_path / "runs"}
    with pytest.raises(UsageError, match=r"whole\.pt holds a module that was pickled whole") as caught:
        edgekit.import_model(tmp_path / "whole.pt", **given)
    assert "--trust" in caught.value.hint
    assert not (tmp_path / "runs").exists()
    run = edgekit.import_model(tmp_path / "whole.pt", trust=True, **given)
    assert str(run.info.source) == "module that was pickled whole in whole.pt"


@pytest.mark.slow
def test_an_imported_state_dict_gives_the_files_of_the_run_that_trained_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val", "test"):
        write_images(tmp_path / "photos" / split, dict.fromkeys(LABELS, 12))
    arch = "mnasnet0_5"
    first = edgekit.train("photos", arch, weights="none", image_size=64, epochs=1, batch_size=8, name="trained")
    torch.save({"state_dict": checkpoints.load(first.path / "checkpoint.pt")[1].state_dict()}, "best.pth")
    assert first.info.preprocess is not None
    again = edgekit.import_model("best.pth", LABELS, first.info.preprocess, arch=arch, name="imported", data="photos")
    assert again.weights_sha256 == first.weights_sha256
    targets = ["jetson", "android"]
    made = [edgekit.export(run, targets, recipe="minmax", build=False) for run in (first, again)]
    assert [a.name for a in made[0]] == [a.name for a in made[1]]
    assert {a.name: a.sha256 for a in made[0]} == {a.name: a.sha256 for a in made[1]}
    for name in ("model.fp32.onnx", "model.fp32.dynamic.onnx", "model.fp32.tflite"):
        files = [run.path / "export" / "common" / name for run in (first, again)]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert {(a.runtime, a.precision) for a in made[0]} >= {
        (runtime, precision) for runtime in ("tensorrt", "litert") for precision in ("fp32", "fp16", "int8")
    }
