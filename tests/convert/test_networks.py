"""Networks that edgekit was not written for: traced, exported, and taken by NVIDIA's parser."""

from __future__ import annotations

import pytest

from benchmarks import networks
from edgekit.convert import onnx, tflite

# One of each kind; `python -m benchmarks.networks` measures them all.
NETWORKS = ["regnet_y_400mf", "shufflenet_v2_x1_0", "timm/convnext_atto", "timm/mobilevit_xxs"]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.xdist_group(n)) for n in NETWORKS])
def test_its_files_agree_with_torch_and_nvidias_parser_takes_them(name: str) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    entry = networks.measure(name)
    print(name, entry)
    assert entry["fold"] < 1e-4
    assert entry["onnx"] < onnx.PARITY
    assert entry["litert"] < tflite.PARITY
    assert entry["tensorrt_layers"] > 0
