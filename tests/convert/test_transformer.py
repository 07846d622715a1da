"""Attention in the form of edgekit computes what torchvision's does, and goes through both exporters."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer

from edgekit.convert import tflite, transformer
from edgekit.convert.fold import fold
from edgekit.errors import EdgekitError
from edgekit.ondevice import tensorrt_api
from tests import nets, rtx


def vision(size: int) -> nn.Module:
    """Two blocks of two heads."""
    torch.manual_seed(0)
    return randomized(VisionTransformer(size, 16, 2, 2, 16, 32, num_classes=5))


def swin(size: int, stages: int = 2) -> nn.Module:
    """Stages of a plain and a shifted block each."""
    torch.manual_seed(0)
    return randomized(SwinTransformer([4, 4], 8, [2] * stages, [1, 2][:stages], [7, 7], num_classes=5))


def one_stage_swin(size: int) -> nn.Module:
    """One stage: exporting more takes minutes."""
    return swin(size, 1)


@torch.no_grad()
def randomized(model: nn.Module) -> nn.Module:
    """Also what starts at zero (class token, head) or nearly so (biases) is random."""
    for parameter in model.parameters():
        if parameter.std() < 0.1 or parameter.numel() == 1:
            parameter.normal_(std=0.3)
    return model.eval()


@pytest.mark.parametrize(
    ("build", "size"),
    # Swin: several windows, one, padded ones, odd sides that patch merging pads.
    [(vision, 32), (vision, 96), (swin, 112), (swin, 28), (swin, 64), (swin, 100)],
)
def test_it_computes_what_torchvision_does(build: object, size: int) -> None:
    model, images = build(size), nets.random_images(3, size)
    ours = transformer.simplify(copy.deepcopy(model), size)
    with torch.inference_mode():
        assert nets.relative_error(ours(images).numpy(), model(images).numpy()) < 1e-5
    assert not any("ShiftedWindow" in type(m).__name__ or "EncoderBlock" in type(m).__name__ for m in ours.modules())


def test_other_networks_are_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten())
    assert transformer.simplify(model, None) is model


def test_windows_without_an_image_size_are_refused() -> None:
    with pytest.raises(EdgekitError, match="depends on the image size"):
        fold(swin(64))


@pytest.mark.slow
@pytest.mark.xdist_group("transformer")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("build", "size"), [(vision, 32), (one_stage_swin, 60)])
def test_its_files_agree_with_torch_and_nvidias_parser_takes_them(build: object, size: int, tmp_path: Path) -> None:
    model, images = build(size), nets.random_images(4, size)
    folded, expected = fold(model, size), model(images).detach().numpy()
    nets.emit_float_onnx(folded, size, tmp_path)
    nets.emit_float_tflite(folded, size, tmp_path)
    for name, least in (("fp32", 0.99999), ("fp16", 0.999)):
        assert nets.cosine(nets.run_onnx(tmp_path / f"model.{name}.onnx", images), expected) >= least
        assert nets.cosine(nets.run_tflite(tmp_path / f"model.{name}.tflite", images), expected) >= least
    assert tflite.check_parity(folded, tmp_path / "model.fp32.tflite", size) < tflite.PARITY
    trt, builder, logger = rtx.parser()
    for name in ("fp32", "fp16"):
        network, _parser = tensorrt_api.parse(trt, builder, logger, (tmp_path / f"model.{name}.onnx").read_bytes(), 0)
        assert network.num_layers > 0
