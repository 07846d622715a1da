"""A checkpoint judged on real files: what is run, fitted, kept and read again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit import files
from edgekit.data import dataset
from edgekit.data.images import load_pixels
from edgekit.errors import DataError, EdgekitError, StorageError
from edgekit.evaluation import evaluate, metrics, temperature, uncertainty
from edgekit.models import build, zoo
from edgekit.models.build import predict_logits
from edgekit.records import Checkpoint, DatasetIndex
from edgekit.scores import Evaluation
from tests import nets
from tests.datasets import write_images


@pytest.fixture(scope="module", autouse=True)
def tiny() -> Iterator[None]:
    zoo.MODELS["tiny"] = nets.TINY
    yield
    del zoo.MODELS["tiny"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    folder = tmp_path_factory.mktemp("evaluated")
    return dataset.index(write_images(folder / "images", {"apple": 30, "banana": 30, "cherry": 30}, seed=3))


def network(labels: int = 3) -> tuple[Checkpoint, nn.Module]:
    """Random weights of the tiny network, as good as they are."""
    torch.manual_seed(4)
    model = build.build("tiny", labels).eval()
    names = ("apple", "banana", "cherry", *map(str, range(labels - 3)))
    return Checkpoint(Path("checkpoint.pt"), "tiny", names, nets.TINY.preprocess, "c" * 64), model


@pytest.fixture(scope="module")
def judged(data: DatasetIndex, tiny: None) -> Evaluation:
    return evaluate.evaluate(*network(), data)


def test_the_logits_are_those_of_the_network_in_the_order_of_the_index(judged: Evaluation, data: DatasetIndex) -> None:
    checkpoint, model = network()
    for split in ("val", "test"):
        samples = data.split(split)
        pixels = load_pixels([data.root / s.path for s in samples], checkpoint.preprocess)
        want = predict_logits(model, pixels, checkpoint.preprocess).numpy()
        assert judged.raw[f"{split}_logits"] == pytest.approx(want, abs=1e-5)
        assert judged.raw[f"{split}_labels"].tolist() == [s.label for s in samples]
    assert judged.raw["val_logits"].dtype == np.float32
    assert judged.raw["test_labels"].dtype == np.int64


def test_temperature_and_dropout_are_fitted_on_val_alone(judged: Evaluation, data: DatasetIndex) -> None:
    assert judged.temperature == temperature.fit_temperature(judged.raw["val_logits"], judged.raw["val_labels"])
    others = [dataclasses.replace(s, label=(s.label + 1) % 3) if s.split == "test" else s for s in data.samples]
    again = evaluate.evaluate(*network(), dataclasses.replace(data, samples=tuple(others)))
    assert (again.temperature, again.dropout) == (judged.temperature, judged.dropout)
    assert again.splits["val"] == judged.splits["val"]
    assert again.splits["test"] != judged.splits["test"]


def test_what_is_derived_follows_from_the_logits(judged: Evaluation) -> None:
    for name, split in judged.splits.items():
        logits, labels = judged.raw[f"{name}_logits"], judged.raw[f"{name}_labels"]
        assert split.scores == metrics.scores(logits, labels)
        assert split.before == metrics.calibration(metrics.softmax(logits), labels)
        assert split.after == metrics.calibration(metrics.softmax(logits, judged.temperature), labels)
        assert split.before.top1 == split.after.top1 == pytest.approx(split.scores.top1)
        assert split.dropout.nll > 0


def test_val_is_not_made_worse_by_the_temperature(judged: Evaluation) -> None:
    val = judged.splits["val"]
    assert val.after.nll <= val.before.nll + 1e-9


def test_mistakes_are_the_surest_wrong_answers_on_test_with_what_the_network_saw(
    judged: Evaluation, data: DatasetIndex
) -> None:
    checkpoint, _ = network()
    samples = {s.path: s for s in data.split("test")}
    wrong = judged.raw["test_logits"].argmax(1) != judged.raw["test_labels"]
    assert len(judged.mistakes) == min(wrong.sum(), evaluate.MOST_MISTAKES) > 0
    confidences = [m.confidence for m in judged.mistakes]
    assert confidences == sorted(confidences, reverse=True)
    pixels = judged.raw["mistake_pixels"]
    assert pixels.shape == (len(judged.mistakes), 32, 32, 3)
    for mistake, shown in zip(judged.mistakes, pixels):
        assert samples[mistake.path].label == mistake.label != mistake.predicted
        assert (shown == load_pixels([data.root / mistake.path], checkpoint.preprocess)[0]).all()


def test_at_most_so_many_mistakes_are_kept(data: DatasetIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "MOST_MISTAKES", 2)
    checkpoint, model = network()
    with torch.no_grad():
        model[-1].bias += torch.tensor([0.0, 99.0, 0.0])
    judged = evaluate.evaluate(checkpoint, model, data)
    assert len(judged.mistakes) == len(judged.raw["mistake_pixels"]) == 2
    assert {m.predicted for m in judged.mistakes} == {1}


def test_the_progress_counts_the_images_of_val_and_test(data: DatasetIndex) -> None:
    seen: list[tuple[int, int]] = []
    evaluate.evaluate(*network(), data, lambda done, total: seen.append((done, total)))
    total = len(data.split("val")) + len(data.split("test"))
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_backbone_runs_once_per_image(data: DatasetIndex) -> None:
    checkpoint, model = network()
    images = 0

    def count(_module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        nonlocal images
        images += len(inputs[0])

    model[0].register_forward_pre_hook(count)
    evaluate.evaluate(checkpoint, model, data)
    assert images == len(data.split("val")) + len(data.split("test"))
    assert not model[-1]._forward_pre_hooks


def test_classes_without_images_are_left_out(data: DatasetIndex) -> None:
    wide = dataclasses.replace(data, labels=("apple", "banana", "cherry", "0", "1"))
    judged = evaluate.evaluate(*network(5), wide)
    assert judged.splits["test"].scores.absent == 2
    assert judged.splits["test"].scores.classes[4].recall is None


def test_a_perfect_network_has_no_mistakes(data: DatasetIndex, tmp_path: Path) -> None:
    checkpoint, model = network()
    answers = torch.tensor([0.0, 9.0, 0.0])
    model[-1] = type("Constant", (nn.Module,), {"forward": lambda _, x: answers.expand(len(x), 3)})()
    only = tuple(dataclasses.replace(s, label=1) for s in data.samples)
    judged = evaluate.evaluate(checkpoint, model, dataclasses.replace(data, samples=only))
    assert judged.mistakes == ()
    assert judged.splits["test"].error_auroc == {}
    evaluate.save(tmp_path, judged)
    again = evaluate.load(tmp_path, "c" * 64)
    assert again is not None
    assert again.raw["mistake_pixels"].shape[0] == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_an_error(data: DatasetIndex, value: float) -> None:
    checkpoint, model = network()
    with torch.no_grad():
        model[-1].bias.fill_(value)
    with pytest.raises(EdgekitError, match="not finite on the val split"):
        evaluate.evaluate(checkpoint, model, data)


# Files ---------------------------------------------------------------------------------------


def test_what_is_saved_is_read_again(judged: Evaluation, tmp_path: Path) -> None:
    evaluate.save(tmp_path, judged)
    again = evaluate.load(tmp_path, judged.checkpoint_sha256)
    assert again is not None
    for field in dataclasses.fields(judged):
        if field.name != "raw":
            assert getattr(again, field.name) == getattr(judged, field.name)
    assert again.raw.keys() == judged.raw.keys()
    assert all((again.raw[k] == v).all() and again.raw[k].dtype == v.dtype for k, v in judged.raw.items())


def test_the_json_is_for_others_to_read(judged: Evaluation, tmp_path: Path) -> None:
    evaluate.save(tmp_path, judged)
    document = json.loads((tmp_path / "evaluation.json").read_text())
    assert {"schema", "checkpoint_sha256", "temperature", "dropout", "splits", "mistakes"} <= document.keys()
    assert document["splits"]["test"]["scores"]["macro"].keys() == {"precision", "recall", "f1"}
    assert {"rate", "scale", "samples", "nll_before", "nll_after"} <= document["dropout"].keys()
    assert document["splits"]["test"]["before"]["bins"][0].keys() == {"low", "high", "count", "confidence", "accuracy"}


def test_no_evaluation_and_one_of_other_weights_are_none(judged: Evaluation, tmp_path: Path) -> None:
    assert evaluate.load(tmp_path, judged.checkpoint_sha256) is None
    evaluate.save(tmp_path, judged)
    assert evaluate.load(tmp_path, "d" * 64) is None


def test_raw_values_that_were_touched_are_refused(judged: Evaluation, tmp_path: Path) -> None:
    evaluate.save(tmp_path, judged)
    (tmp_path / "evaluation.npz").write_bytes(b"")
    with pytest.raises(DataError, match="does not belong"):
        evaluate.load(tmp_path, judged.checkpoint_sha256)
    (tmp_path / "evaluation.npz").unlink()
    with pytest.raises(DataError, match="does not belong"):
        evaluate.load(tmp_path, judged.checkpoint_sha256)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"schema": 99}, StorageError),
        ({"temperature": "warm"}, DataError),
        ({"temperature": 0}, DataError),
        ({"dropout": {}}, DataError),
        ({"splits": {}}, DataError),
        ({"labels": ["apple", "banana"]}, DataError),
        ({"mistakes": [{"path": "a", "label": 3, "predicted": 0, "confidence": 0.5}]}, DataError),
        ({"mistakes": [{"path": "a", "label": -1, "predicted": 0, "confidence": 0.5}]}, DataError),
        ({"colour": "red"}, DataError),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_damaged_description_is_refused(
    judged: Evaluation, tmp_path: Path, change: dict[str, object], error: type[EdgekitError]
) -> None:
    evaluate.save(tmp_path, judged)
    path = tmp_path / "evaluation.json"
    files.save_document(path, {**json.loads(path.read_text()), **change})
    with pytest.raises(error):
        evaluate.load(tmp_path, judged.checkpoint_sha256)


def test_a_pickle_in_the_raw_file_is_not_loaded(judged: Evaluation, tmp_path: Path) -> None:
    evaluate.save(tmp_path, judged)
    np.savez(tmp_path / "evaluation.npz", test_logits=np.array([{}], object))
    path = tmp_path / "evaluation.json"
    digest = files.sha256_file(tmp_path / "evaluation.npz")
    files.save_document(path, {**json.loads(path.read_text()), "raw_sha256": digest})
    with pytest.raises(DataError, match="damaged"):
        evaluate.load(tmp_path, judged.checkpoint_sha256)


@pytest.mark.parametrize(
    "change",
    [
        {"test_logits": np.zeros((3, 3), np.float32)},
        {"val_labels": np.zeros(2, np.int64)},
        {"mistake_pixels": np.zeros((1, 4, 4, 3), np.uint8)},
        {"mistake_pixels": np.zeros(5)},
        {},
    ],
    ids=lambda change: next(iter(change), "nothing"),
)
def test_arrays_that_do_not_fit_are_refused(judged: Evaluation, tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    evaluate.save(tmp_path, judged)
    np.savez(tmp_path / "evaluation.npz", **({**judged.raw, **change} if change else {}))
    path = tmp_path / "evaluation.json"
    digest = files.sha256_file(tmp_path / "evaluation.npz")
    files.save_document(path, {**json.loads(path.read_text()), "raw_sha256": digest})
    with pytest.raises(DataError, match="do not fit"):
        evaluate.load(tmp_path, judged.checkpoint_sha256)


def test_doubt_on_the_kept_features_is_what_the_record_says(judged: Evaluation, data: DatasetIndex) -> None:
    checkpoint, model = network()
    pixels = load_pixels([data.root / s.path for s in data.split("test")], checkpoint.preprocess)
    with uncertainty.features_into(model[-1]) as seen:
        predict_logits(model, pixels, checkpoint.preprocess)
    found = uncertainty.doubt(model[-1], torch.cat(seen), judged.dropout)
    want = metrics.calibration(found.probabilities, judged.raw["test_labels"])
    assert judged.splits["test"].dropout.nll == pytest.approx(want.nll, rel=1e-4)
