"""FP32 LiteRT: an NHWC input, and the same answers as torch."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.convert import tflite
from edgekit.convert.fold import fold
from edgekit.errors import MissingError, ParityError
from tests.nets import random_images, relative_error

pytestmark = [pytest.mark.xdist_group("litert"), pytest.mark.filterwarnings("ignore")]
SIZE = 16


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    path = tmp_path_factory.mktemp("tflite") / "model.tflite"
    tflite.export(fold(model), SIZE, path)
    return model.eval(), path


def test_input_is_nhwc_and_both_ends_are_float32(exported: tuple[nn.Module, Path]) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(exported[1]))
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert source["shape"].tolist() == [1, SIZE, SIZE, 3]
    assert target["shape"].tolist() == [1, 5]
    assert source["dtype"] == target["dtype"] == np.float32


def test_answers_like_torch(exported: tuple[nn.Module, Path]) -> None:
    images = random_images(1, SIZE)
    got = tflite.run_all(exported[1], images.numpy())["scores"]
    assert relative_error(got, exported[0](images).detach().numpy()) < 1e-4


def test_run_all_gives_inner_tensors(exported: tuple[nn.Module, Path]) -> None:
    tensors = tflite.run_all(exported[1], random_images(1, SIZE).numpy())
    assert (1, SIZE // 2, SIZE // 2, 8) in {tensor.shape for tensor in tensors.values()}


@pytest.mark.parametrize("bad", [1.0, float("nan")])
def test_other_weights_are_a_parity_error(exported: tuple[nn.Module, Path], bad: float) -> None:
    changed = fold(exported[0])
    changed.get_submodule("4").weight.data[0, 0] += bad
    with pytest.raises(ParityError, match=r"model.tflite disagrees with torch"):
        tflite.check_parity(changed, exported[1], SIZE)


def test_only_the_file_is_left(exported: tuple[nn.Module, Path]) -> None:
    assert [p.name for p in exported[1].parent.iterdir()] == ["model.tflite"]


def test_without_litert_torch_the_message_says_what_to_install(
    exported: tuple[nn.Module, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(MissingError, match="litert-torch") as caught:
        tflite.export(fold(exported[0]), SIZE, tmp_path / "model.tflite")
    assert caught.value.hint.startswith('pip install "litert-torch')


def test_quiet_keeps_the_process_output_off_the_terminal_and_gives_it_back(capfd: pytest.CaptureFixture[str]) -> None:
    import os

    with tflite.quiet():
        os.write(1, b"hidden")
        os.write(2, b"hidden")
    os.write(1, b"shown")
    assert capfd.readouterr() == ("shown", "")
