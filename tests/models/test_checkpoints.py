"""Checkpoints: what is saved comes back, and nothing else is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.errors import DataError, MissingError, StorageError, UsageError
from edgekit.files import sha256_file
from edgekit.models import build, checkpoints, zoo
from edgekit.records import Preprocess

LABELS = ("apple", "banana")
PREPROCESS = Preprocess(64, 80, "bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint.pt"
    checkpoints.save(path, build.build("resnet18", 2), "resnet18", LABELS, PREPROCESS)
    return path


def changed(saved: Path, folder: Path, *without: str, **changes: object) -> Path:
    """A copy with other contents."""
    content = {**torch.load(saved, weights_only=True), **changes}
    torch.save({key: value for key, value in content.items() if key not in without}, folder / "changed.pt")
    return folder / "changed.pt"


def test_round_trip(tmp_path: Path) -> None:
    model = build.build("mobilenet_v2", 2)
    written = checkpoints.save(tmp_path / "c.pt", model, "mobilenet_v2", LABELS, PREPROCESS)
    read, again = checkpoints.load(tmp_path / "c.pt")
    assert read == written
    assert (read.arch, read.labels, read.preprocess) == ("mobilenet_v2", LABELS, PREPROCESS)
    assert read.sha256 == sha256_file(tmp_path / "c.pt")
    assert not again.training
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_hidden_layer_and_the_image_size_come_back(tmp_path: Path) -> None:
    preprocess = zoo.preprocess_for("efficientnet_lite0", 75)
    model = build.build("efficientnet_lite0", 2, 75, hidden=6).eval()
    written = checkpoints.save(tmp_path / "c.pt", model, "efficientnet_lite0", LABELS, preprocess, 6)
    read, again = checkpoints.load(tmp_path / "c.pt")
    images = torch.randn(1, 3, 75, 75)
    assert (read, read.hidden) == (written, 6)
    assert torch.equal(again(images), model(images))


def test_a_file_of_before_hidden_layers_has_none(saved: Path, tmp_path: Path) -> None:
    assert checkpoints.load(changed(saved, tmp_path, "hidden"))[0].hidden == 0


@pytest.mark.parametrize("hidden", [-1, 2**40, 1.5, "8", True, None])
def test_an_impossible_hidden_layer_is_refused(hidden: object, saved: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="hidden layer"):
        checkpoints.load(changed(saved, tmp_path, hidden=hidden))


def test_the_file_holds_plain_tensors_and_values(saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    assert content["preprocess"] == PREPROCESS.document()
    assert set(content["preprocess"]) == {"schema", "image_size", "resize_size", "resample", "mean", "std"}
    assert all(isinstance(value, torch.Tensor) for value in content["state_dict"].values())


def test_a_file_from_before_the_preprocessing_contract_is_read(saved: Path, tmp_path: Path) -> None:
    content = torch.load(saved, weights_only=True)
    assert checkpoints.load(saved)[0].preprocess.schema == 1
    del content["preprocess"]["schema"]
    torch.save(content, tmp_path / "older.pt")
    older, _ = checkpoints.load(tmp_path / "older.pt")
    assert older.preprocess.schema == 0
    assert older.preprocess == PREPROCESS


def test_no_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        checkpoints.load(tmp_path / "none.pt")
    assert caught.value.hint.startswith("edgekit train")


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_a_cut_off_file_is_refused(saved: Path, tmp_path: Path, keep: float) -> None:
    whole = saved.read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: int(keep if keep >= 1 else len(whole) * keep)])
    with pytest.raises(DataError, match="damaged"):
        checkpoints.load(tmp_path / "cut.pt")


@pytest.mark.parametrize("content", [{"format": "other"}, {}, [1], torch.zeros(2), {"state_dict": {}}])
def test_a_torch_file_of_something_else_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(DataError, match="no edgekit checkpoint"):
        checkpoints.load(tmp_path / "other.pt")


@pytest.mark.parametrize("key", ["format", "schema", "arch", "labels", "preprocess", "state_dict"])
def test_a_file_that_lacks_a_part_is_refused(saved: Path, tmp_path: Path, key: str) -> None:
    with pytest.raises(DataError, match="no edgekit checkpoint"):
        checkpoints.load(changed(saved, tmp_path, key))


def test_weights_of_another_network_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no edgekit checkpoint"):
        checkpoints.load(changed(saved, tmp_path, arch="mobilenet_v2"))


def test_a_newer_format_asks_for_an_upgrade(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="newer edgekit") as caught:
        checkpoints.load(changed(saved, tmp_path, schema=checkpoints.SCHEMA + 1))
    assert "upgrade" in caught.value.hint


def test_an_unknown_architecture_is_named(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="resnet9000"):
        checkpoints.load(changed(saved, tmp_path, arch="resnet9000"))


def test_code_in_a_checkpoint_is_refused_and_never_run(saved: Path, tmp_path: Path) -> None:
    content = {**torch.load(saved, weights_only=True), "labels": Bomb(tmp_path / "ran")}
    torch.save(content, tmp_path / "bomb.pt")
    with pytest.raises(DataError, match="no edgekit checkpoint"):
        checkpoints.load(tmp_path / "bomb.pt")
    assert not (tmp_path / "ran").exists()


def test_the_hash_is_of_the_weights_not_of_their_layout_in_memory(tmp_path: Path) -> None:
    model = build.build("mobilenet_v3_small", 2)
    kept = [
        checkpoints.save(tmp_path / f"{n}.pt", model.to(memory_format=layout), "mobilenet_v3_small", LABELS, PREPROCESS)
        for n, layout in enumerate((torch.contiguous_format, torch.channels_last))
    ]
    assert kept[0].sha256 == kept[1].sha256


def test_a_network_whose_modules_have_versions_is_loaded_again(tmp_path: Path) -> None:
    model = build.build("mnasnet0_5", 3, 64)
    checkpoints.save(tmp_path / "checkpoint.pt", model, "mnasnet0_5", ("a", "b", "c"), Preprocess(64, 73))
    _, again = checkpoints.load(tmp_path / "checkpoint.pt")
    assert torch.equal(again.state_dict()["classifier.1.weight"], model.state_dict()["classifier.1.weight"])
