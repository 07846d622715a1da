"""Real networks, exported by torch's exporters and imported again; minutes in all."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgekit.importing import onnx_model

# Name of torchvision, or timm/NAME with options that make it small; opset, and whether any batch is taken.
NETWORKS = [
    ("shufflenet_v2_x1_0", {}, 18, True),
    ("squeezenet1_1", {}, 17, True),
    ("timm/convnext_atto", {"depths": (1, 1, 1, 1), "dims": (16, 16, 24, 24)}, 17, False),
    ("timm/deit_tiny_patch16_224", {"depth": 2}, 18, True),
]


def network(name: str, options: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    if name.startswith("timm/"):
        timm = pytest.importorskip("timm")
        model: nn.Module = timm.create_model(name.removeprefix("timm/"), pretrained=False, num_classes=7, **options)
    else:
        import torchvision

        model = torchvision.models.get_model(name, weights=None, num_classes=7, **options)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def exported(model: nn.Module, path: Path, opset: int, is_open: bool) -> Path:
    """Export with torch's present exporter, or with the older one for opsets below 18."""
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"], "opset_version": opset}
    image = torch.randn(2 if is_open else 1, 3, 224, 224)
    if opset >= 18:
        shapes = ({0: torch.export.Dim("batch")},) if is_open else None
        names |= {"dynamo": True, "dynamic_shapes": shapes, "verbose": False, "external_data": False}
    else:
        axes = {"input": {0: "batch"}, "logits": {0: "batch"}}
        names |= {"dynamo": False, "dynamic_axes": axes if is_open else None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (image,), str(path), **names)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "opset", "is_open"), NETWORKS)
def test_a_network_comes_back(tmp_path: Path, name: str, options: dict[str, Any], opset: int, is_open: bool) -> None:
    model = network(name, options)
    found = onnx_model.read(exported(model, tmp_path / "model.onnx", opset, is_open))
    assert found.problem == ""
    assert found.difference < 1e-5
    images = torch.randn(3, 3, 224, 224)
    with torch.inference_mode():
        expected, got = model(images), found.model(images)
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-4
