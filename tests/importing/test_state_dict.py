"""State dicts from elsewhere: each tensor lands where it belongs, and what does not fit is named."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.errors import DataError, MissingError, UsageError
from edgekit.importing import state_dict
from edgekit.models import build, checkpoints
from edgekit.records import Preprocess

ARCH = "mobilenet_v3_small"


@pytest.fixture(scope="module")
def trained() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return dict(build.build(ARCH, 5).state_dict())


def write(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "best.pth")
    return folder / "best.pth"


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k].float(), other[k].float()) for k in one)


def test_the_size_of_the_head_is_read_from_the_weights(trained: dict[str, torch.Tensor], tmp_path: Path) -> None:
    network = state_dict.read(write(tmp_path, trained), ARCH)
    assert (network.classes, network.hidden, network.labels, network.preprocess) == (5, 0, None, None)
    assert (network.source.kind, network.source.file, len(network.source.sha256)) == ("state dict", "best.pth", 64)
    assert network.source.notes == ()
    assert equal(dict(network.model.state_dict()), trained)
    assert not network.model.training


def test_a_head_with_a_hidden_layer_is_recognized(tmp_path: Path) -> None:
    state = build.build(ARCH, 5, hidden=16).state_dict()
    network = state_dict.read(write(tmp_path, state), ARCH)
    assert (network.classes, network.hidden) == (5, 16)
    assert equal(dict(network.model.state_dict()), dict(state))


def test_half_precision_is_converted_and_said(trained: dict[str, torch.Tensor], tmp_path: Path) -> None:
    half = {k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in trained.items()}
    network = state_dict.read(write(tmp_path, half), ARCH)
    assert {v.dtype for v in network.model.state_dict().values()} == {torch.float32, torch.int64}
    assert torch.equal(network.model.state_dict()["classifier.3.weight"], half["classifier.3.weight"].float())
    floats = sum(v.is_floating_point() for v in trained.values())
    said = f"{floats} of {len(trained)} tensors of best.pth are bfloat16; they are converted to float32"
    assert network.source.notes == (said,)


def test_averaged_weights_are_taken_unless_others_are_named(trained: dict[str, torch.Tensor], tmp_path: Path) -> None:
    raw = {f"module.{k}": v + 1 for k, v in trained.items()}
    path = write(tmp_path, {"state_dict": raw, "state_dict_ema": trained, "epoch": 3})
    averaged = state_dict.read(path, ARCH)
    assert equal(dict(averaged.model.state_dict()), trained)
    assert averaged.source.notes == ("weights of best.pth: the entry 'state_dict_ema', not 'state_dict' beside it",)
    plain = state_dict.read(path, ARCH, entry="state_dict")
    assert torch.equal(plain.model.state_dict()["features.0.0.weight"], trained["features.0.0.weight"] + 1)
    assert plain.source.notes == ("weights of best.pth: without the prefix 'module.'",)
    with pytest.raises(UsageError, match="has no entry 'ema'") as caught:
        state_dict.read(path, ARCH, entry="ema")
    assert caught.value.hint == "its entries: state_dict, state_dict_ema"


def test_a_mismatch_names_the_tensors(trained: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no classifier fc\.weight of resnet18; .*classifier\.3\.weight \(5, 1024\)"):
        state_dict.read(write(tmp_path, trained), "resnet18")
    wider = {**trained, "features.0.0.weight": torch.zeros(24, 3, 3, 3)}
    with pytest.raises(DataError, match=r"features\.0\.0\.weight is \(24, 3, 3, 3\) in the file and \(16, 3, 3, 3\)"):
        state_dict.read(write(tmp_path, wider), ARCH)
    lacking = {k: v for k, v in trained.items() if k != "features.1.block.0.0.weight"}
    with pytest.raises(DataError, match=r"1 of its tensors are missing \(features\.1\.block\.0\.0\.weight\)"):
        state_dict.read(write(tmp_path, lacking), ARCH)
    with pytest.raises(DataError, match=r"1 of the file are unknown \(extra\.weight\)"):
        state_dict.read(write(tmp_path, {**trained, "extra.weight": torch.zeros(1)}), ARCH)


def test_weights_that_are_not_finite_are_named(trained: dict[str, torch.Tensor], tmp_path: Path) -> None:
    broken = {**trained, "features.0.0.weight": torch.full((16, 3, 3, 3), torch.nan)}
    with pytest.raises(DataError, match=r"features\.0\.0\.weight in best\.pth has values that are NaN"):
        state_dict.read(write(tmp_path, broken), ARCH)


def test_the_image_size_of_a_transformer_is_told_by_its_positions(tmp_path: Path) -> None:
    state = build.build("vit_b_16", 2, 64).state_dict()
    with pytest.raises(DataError, match=r"pos_embedding is \(1, 17, 768\) in the file") as caught:
        state_dict.read(write(tmp_path, state), "vit_b_16")
    assert "--image-size 64" in caught.value.hint
    assert state_dict.read(tmp_path / "best.pth", "vit_b_16", 64).classes == 2


def test_an_auxiliary_head_may_be_missing(tmp_path: Path) -> None:
    state = {k: v for k, v in build.build("inception_v3", 2).state_dict().items() if not k.startswith("AuxLogits.")}
    network = state_dict.read(write(tmp_path, state), "inception_v3")
    assert not network.model.state_dict()["AuxLogits.fc.weight"].any()
    assert network.source.notes == ("best.pth has no auxiliary head AuxLogits, which only training uses; it is zero",)


def test_a_checkpoint_of_edgekit_knows_itself(tmp_path: Path) -> None:
    preprocess = Preprocess(64, 72, "bicubic")
    checkpoints.save(tmp_path / "best.pth", build.build(ARCH, 2), ARCH, ("a", "b"), preprocess)
    network = state_dict.read(tmp_path / "best.pth", None)
    assert (network.arch, network.labels, network.preprocess) == (ARCH, ("a", "b"), preprocess)
    with pytest.raises(UsageError, match=f"is a checkpoint of {ARCH}, not of resnet18"):
        state_dict.read(tmp_path / "best.pth", "resnet18")


def test_what_is_not_said_is_asked_for(trained: dict[str, torch.Tensor], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not say which network"):
        state_dict.read(write(tmp_path, trained), None)
    with pytest.raises(MissingError, match="there is no file"):
        state_dict.read(tmp_path / "nothing.pth", ARCH)


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("attacked",)


def test_a_file_that_calls_the_system_is_refused(
    trained: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"unpickling it would call (posix|nt)\.mkdir"):
        state_dict.read(write(tmp_path, {"state_dict": trained, "x": Attack()}), ARCH)
    assert not (tmp_path / "attacked").exists()
    harmless = {"state_dict": trained, "args": argparse.Namespace(lr=0.1)}
    assert state_dict.read(write(tmp_path, harmless), ARCH).classes == 5
