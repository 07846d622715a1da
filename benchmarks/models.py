"""Compare every exported file of every model with torch; writes results/models.json.

    python -m benchmarks.models [model ...]

Entries of other models are kept. The networks have random weights with settled batch norms (EfficientNet-Lite has its
own weights), small images and 10 classes; their operators are those of the real networks. ``tensorrt_layers`` is from
NVIDIA's parser (TensorRT for RTX), which needs no GPU.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from edgekit.convert.fold import fold
from edgekit.models import build, zoo
from edgekit.models.build import normalize
from edgekit.ondevice import tensorrt_api
from tests import nets, rtx

PRECISIONS = ("fp32", "fp16", "int8")
RESULT = Path(__file__).parent / "results" / "models.json"
SIZE, IMAGES = 64, 16


def measure(arch: str) -> dict[str, Any]:
    """Return the cosine similarity of every file with torch, and the number of layers in NVIDIA's parser."""
    torch.manual_seed(0)
    started, row = time.perf_counter(), zoo.row(arch)
    size = max(SIZE, row.least_size)
    preprocess = zoo.preprocess_for(arch, size)
    images = normalize(torch.from_numpy(nets.photographs(IMAGES, preprocess)), preprocess).contiguous()
    own = row.weights.startswith("edgekit.")
    model = build.build(arch, 1000 if own else 10, size).eval()
    if own:
        build.load_weights(model, arch, "pretrained")
    else:
        nets.settle(model, images)
    with torch.inference_mode():
        expected = model(images).numpy()
    folded = fold(model, size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        nets.emit_tflite(folded, size, folder, images, nets.emit_onnx(folded, size, folder, images).table)
        trt, builder, logger = rtx.parser()
        network, _parser = tensorrt_api.parse(trt, builder, logger, (folder / "model.fp32.onnx").read_bytes(), 0)
        layers = network.num_layers
        cosines = {
            kind: {
                p: nets.cosine(run(folder / f"model.{p}.{kind}", images), expected) for p in ("fp32", "fp16", "int8")
            }
            for kind, run in (("onnx", nets.run_onnx), ("tflite", nets.run_tflite))
        }
    seconds = round(time.perf_counter() - started, 1)
    return {"image_size": size, "cosine": cosines, "tensorrt_layers": layers, "seconds": seconds}


def main() -> None:
    """Measure the named models, or all, and write the record after each."""
    for arch in sys.argv[1:] or zoo.MODELS:
        entry = measure(arch)
        print(arch, json.dumps(entry), flush=True)
        kept = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
        kept[arch] = entry
        RESULT.write_text(json.dumps({a: kept[a] for a in zoo.MODELS if a in kept}, indent=1) + "\n")


if __name__ == "__main__":
    main()
