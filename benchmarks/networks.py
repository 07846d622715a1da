"""Trace and export classifiers that edgekit was not written for; writes results/networks.json.

    python -m benchmarks.networks [name ...]

``timm/NAME`` or a network of torchvision, optionally ``NAME@SIZE``. Entries of other networks are kept. The networks
have random weights and settled batch norms, small images where they allow them, and 1000 classes. ``route``: what
traced the network. ``onnx``, ``litert``: largest difference of the FP32 file from torch, relative to the largest
logit. ``tensorrt_layers``: from NVIDIA's parser (TensorRT for RTX), which needs no GPU. A failure is its message.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import fx, nn

from edgekit.convert import fold, onnx, tflite
from edgekit.errors import EdgekitError
from edgekit.ondevice import tensorrt_api
from tests import nets, rtx

RESULT = Path(__file__).parent / "results" / "networks.json"
SIZE = 64
NETWORKS = (
    *("timm/mobilenetv4_conv_small", "timm/mobilenetv3_large_100", "timm/efficientnet_lite0"),
    *("timm/tf_efficientnetv2_b0", "timm/mixnet_s", "timm/ghostnetv2_100", "timm/repvgg_a0", "timm/regnety_002"),
    *("timm/resnet18d", "timm/resnetv2_50", "timm/convnext_atto", "timm/edgenext_xx_small", "timm/mobilevit_xxs"),
    *("timm/fastvit_t8", "timm/efficientvit_b0", "timm/levit_128s@224", "timm/deit_tiny_patch16_224@224"),
    *("timm/swin_tiny_patch4_window7_224@224", "shufflenet_v2_x1_0", "squeezenet1_1", "mnasnet1_0"),
    *("regnet_y_400mf", "convnext_tiny", "efficientnet_v2_s", "maxvit_t@224"),
)


def made(name: str, size: int) -> nn.Module:
    """Return a network in eval mode that behaves like a trained one."""
    torch.manual_seed(0)
    if name.startswith("timm/"):
        import timm

        model: nn.Module = timm.create_model(name.removeprefix("timm/"), pretrained=False)
    else:
        model = torchvision.models.get_model(name, weights=None)
    return nets.settle(model, nets.random_images(16, size))


def attempt(work: Callable[[], Any]) -> Any:
    """Return the result of `work`, or the message of its error."""
    try:
        return work()
    except (EdgekitError, RuntimeError, ValueError, AssertionError, NotImplementedError, TypeError) as error:
        return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def route(model: nn.Module, size: int) -> str:
    """Return what traces a network."""
    try:
        plain = fold._is_plain(fold._by_fx(copy.deepcopy(model), size))
    except EdgekitError:
        plain = False
    return "torch.fx" if plain else "torch.export"


def measure(name: str) -> dict[str, Any]:
    """Return how one network goes through tracing and both exporters."""
    name, _, sized = name.partition("@")
    size = int(sized or SIZE)
    model = made(name, size)
    entry: dict[str, Any] = {"image_size": size, "route": route(model, size)}
    started = time.perf_counter()
    folded = attempt(lambda: fold.fold(model, size))
    entry["fold_seconds"] = round(time.perf_counter() - started, 1)
    if not isinstance(folded, fx.GraphModule):
        return {**entry, "fold": folded}
    images = nets.random_images(3, size)
    with torch.inference_mode():
        entry["fold"] = nets.relative_error(folded(images).numpy(), model(images).numpy())
    with tempfile.TemporaryDirectory() as folder:
        entry |= files_of(folded, size, Path(folder))
    return entry


def files_of(folded: fx.GraphModule, size: int, folder: Path) -> dict[str, Any]:
    """Return the parity of the FP32 files, and the number of layers in NVIDIA's parser."""
    static, dynamic, lite = (folder / name for name in ("static.onnx", "dynamic.onnx", "model.tflite"))

    def to_onnx() -> float:
        onnx.export(folded, size, "weights", static, dynamic)
        return onnx.check_parity(folded, dynamic, size, 3)

    def to_tflite() -> float:
        tflite.export(folded, size, lite)
        return tflite.check_parity(folded, lite, size)

    def layers() -> int:
        trt, builder, logger = rtx.parser()
        network, _parser = tensorrt_api.parse(trt, builder, logger, static.read_bytes(), 0)
        return int(network.num_layers)

    found: dict[str, Any] = {}
    started = time.perf_counter()
    for key, work in (("onnx", to_onnx), ("tensorrt_layers", layers), ("litert", to_tflite)):
        if key == "tensorrt_layers" and not static.exists():
            continue
        found[key] = attempt(work)
        found[f"{key}_seconds"] = round(time.perf_counter() - started, 1)
        started = time.perf_counter()
    return found


def main() -> None:
    """Measure the named networks, or all, and write the record after each."""
    warnings.simplefilter("ignore")
    for name in sys.argv[1:] or NETWORKS:
        entry = measure(name)
        print(name, json.dumps(entry), flush=True)
        kept = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
        kept[name] = entry
        RESULT.write_text(json.dumps({n: kept[n] for n in sorted(kept)}, indent=1) + "\n")


if __name__ == "__main__":
    main()
