"""Networks that edgekit was not written for: traced, exported, and taken by NVIDIA's parser."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit.convert import fold, onnx, tflite
from edgekit.ondevice import tensorrt_api
from tests import nets, rtx

# One of each kind with options that make it small; `python -m benchmarks.networks` measures whole ones.
NETWORKS: dict[str, dict[str, object]] = {
    "shufflenet_v2_x1_0": {"stages_repeats": [1, 1, 1], "stages_out_channels": [24, 32, 48, 64, 128]},
    "timm/convnext_atto": {"depths": (1, 1, 1, 1), "dims": (16, 16, 24, 24)},
    "timm/regnety_002": {},
}
SIZE = 64

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in NETWORKS])
def test_its_files_agree_with_torch_and_nvidias_parser_takes_them(name: str, tmp_path: Path) -> None:
    model = network(name)
    folded, images = fold.fold(model, SIZE), nets.random_images(3, SIZE)
    with torch.inference_mode():
        assert nets.relative_error(folded(images).numpy(), model(images).numpy()) < 1e-4
    static, dynamic, lite = (tmp_path / each for each in ("static.onnx", "dynamic.onnx", "model.tflite"))
    onnx.export(folded, SIZE, "weights", static, dynamic)
    assert onnx.check_parity(folded, dynamic, SIZE, 3) < onnx.PARITY
    tflite.export(folded, SIZE, lite)
    assert tflite.check_parity(folded, lite, SIZE) < tflite.PARITY
    trt, builder, logger = rtx.parser()
    parsed, _parser = tensorrt_api.parse(trt, builder, logger, static.read_bytes(), 0)
    assert parsed.num_layers > 0


def network(name: str) -> nn.Module:
    """Return a network in eval mode that behaves like a trained one."""
    torch.manual_seed(0)
    if name.startswith("timm/"):
        timm = pytest.importorskip("timm")
        model: nn.Module = timm.create_model(name.removeprefix("timm/"), pretrained=False, **NETWORKS[name])
    else:
        from torchvision.models.shufflenetv2 import ShuffleNetV2

        model = ShuffleNetV2(**NETWORKS[name])
    return nets.settle(model, nets.random_images(16, SIZE))
