"""Train, export and quantize classifiers that edgekit was not written for; writes results/networks.json and .md.

    python -m benchmarks.networks DATA [name ...]
    python -m benchmarks.networks --table

``timm/NAME`` or a network of torchvision, optionally ``NAME@SIZE``. Entries of other networks are kept. Each network is
trained on DATA from random weights for a few epochs, with small images where it allows them, and exported for a Jetson
and for Android with the recipe `default`, as a user would. All figures are of the files, on the test images:
``onnx``, ``litert``: largest difference of the FP32 file from torch, relative to the largest score. ``int8``: agreement
of top-1 with torch in percent, and the ratio of signal to noise of the scores in dB: of all images together, and of the
median image, since the scores of a network that is hardly trained can be a hundred times as large for one image as for
the others. ``steps``: of recovery, that were kept. ``float_macs``: share of the
multiplications that the INT8 file leaves in floating point, of the operators in ``float_multiplying``.
``tensorrt_layers``: of the INT8 file in NVIDIA's parser (TensorRT for RTX), which needs no GPU. ``xnnpack``: shares of
the INT8 file's operators, and of their time on one thread, that XNNPACK took; ``own``: the kinds that LiteRT ran with
its own kernels. A failure is its message.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import edgekit
from edgekit.convert import fold
from edgekit.data import dataset, images
from edgekit.errors import EdgekitError
from edgekit.models import build, checkpoints
from edgekit.ondevice import litert_layers, litert_profile, tensorrt_api
from edgekit.records import Artifact
from edgekit.stats import proportions
from tests import nets, rtx

RESULT = Path(__file__).parent / "results" / "networks.json"
TABLE = RESULT.with_suffix(".md")
SIZE, EPOCHS = 64, 5
NETWORKS = (
    *("timm/mobilenetv4_conv_small", "timm/mobilenetv3_large_100", "timm/efficientnet_lite0"),
    *("timm/tf_efficientnetv2_b0", "timm/mixnet_s", "timm/ghostnetv2_100", "timm/repvgg_a0", "timm/regnety_002"),
    *("timm/resnet18d", "timm/resnetv2_50", "timm/convnext_atto", "timm/edgenext_xx_small", "timm/mobilevit_xxs"),
    *("timm/fastvit_t8", "timm/efficientvit_b0", "timm/levit_128s@224", "timm/deit_tiny_patch16_224@224"),
    *("timm/swin_tiny_patch4_window7_224@224", "shufflenet_v2_x1_0", "squeezenet1_1", "mnasnet1_0"),
    *("regnet_y_400mf", "convnext_tiny", "efficientnet_v2_s", "maxvit_t@224"),
)


def measure(name: str, data: Path) -> dict[str, Any]:
    """Return how one network goes through training, tracing, both exporters and quantization."""
    name, _, sized = name.partition("@")
    size = int(sized or SIZE)
    entry: dict[str, Any] = {"image_size": size}
    clock = Clock(entry)
    with tempfile.TemporaryDirectory() as folder:
        epochs = EPOCHS if size == SIZE else 1
        options = {"weights": "none", "strategy": "scratch", "epochs": epochs, "image_size": size, "lr": 1e-3}
        run = attempt(lambda: edgekit.train(str(data), model=name, name="run", runs_dir=folder, **options))
        clock.lap("train_seconds")
        if isinstance(run, str):
            return {**entry, "train": run}
        _, model = checkpoints.load(run.path / "checkpoint.pt")
        entry["route"] = route(model, size)
        clock.lap("trace_seconds")
        index = dataset.of_run(run)
        pixels = images.load_pixels([index.root / s.path for s in index.split("test")], run.info.preprocess)
        with torch.inference_mode():
            expected = np.concatenate(
                [build.predict_logits(model, p, run.info.preprocess).numpy() for p in np.array_split(pixels, 8)]
            )
        labels = np.array([s.label for s in index.split("test")])
        entry["top1"] = round(100 * float((expected.argmax(1) == labels).mean()), 1)
        inputs = build.normalize(torch.from_numpy(pixels), run.info.preprocess).contiguous()
        for target, kind in (("jetson", "onnx"), ("android", "litert")):
            found = attempt(lambda target=target: edgekit.export(run, target, precisions=["fp32", "int8"], build=False))
            clock.lap(f"{target}_seconds")
            if isinstance(found, str):
                entry[kind] = found
                continue
            shown = inputs if kind == "onnx" else pixels  # LiteRT files take bytes
            entry |= judge(kind, {a.name.partition("/")[2]: a for a in found}, run.path / "export", shown, expected)
    return entry


def judge(kind: str, found: dict[str, Artifact], folder: Path, inputs: Any, expected: np.ndarray) -> dict[str, Any]:
    """Return the figures of the FP32 and INT8 files of one target."""
    ending, run = ("onnx", nets.run_onnx) if kind == "onnx" else ("tflite", scores)
    files = {precision: f"model.{precision}.{ending}" for precision in ("fp32", "int8")}
    result: dict[str, Any] = {}
    if files["fp32"] in found:
        path = folder / found[files["fp32"]].name
        result[kind] = attempt(lambda: nets.relative_error(run(path, inputs[:32]), expected[:32]))
    if files["int8"] not in found:
        return {**result, f"{kind}_int8": "no INT8 file was written"}
    artifact = found[files["int8"]]
    path = folder / artifact.name
    given = attempt(lambda: run(path, inputs))
    if isinstance(given, str):
        return {**result, f"{kind}_int8": given}
    noises = np.square(given - expected).sum(1)
    noise, median = float(noises.sum()), float(np.median(np.square(expected).sum(1) / np.maximum(noises, 1e-30)))
    result[f"{kind}_int8"] = {
        "agreement": round(100 * proportions.agreement(given, expected), 1),
        "snr_db": round(10 * float(np.log10(np.square(expected).sum() / noise)), 1) if noise else None,
        "median_db": round(10 * float(np.log10(median)), 1) if noise else None,
        "images": len(expected),
        "steps": list(artifact.details.get("steps") or ()),
        **{key: artifact.details[key] for key in ("float_macs", "float_multiplying") if key in artifact.details},
    }
    if kind == "onnx":
        result["tensorrt_layers"] = attempt(lambda: parsed(path))
    else:
        result["xnnpack"] = attempt(lambda: delegated(path, inputs[:1]))
    return result


def scores(path: Path, pixels: np.ndarray) -> np.ndarray:
    """Return the outputs of a LiteRT file, float32 (N, classes), for uint8 (N, S, S, 3)."""
    return nets.run_pixels(path, pixels).reshape(len(pixels), -1)


def parsed(path: Path) -> int:
    """Return the number of layers that NVIDIA's parser makes of a file."""
    trt, builder, logger = rtx.parser()
    network, _parser = tensorrt_api.parse(trt, builder, logger, path.read_bytes(), 0)
    return int(network.num_layers)


def delegated(path: Path, image: np.ndarray) -> dict[str, Any]:
    """Return what XNNPACK took of a LiteRT file, from the profile of one image, uint8 (1, S, S, 3)."""
    import ai_edge_litert

    library = Path(ai_edge_litert.__file__).parent / litert_layers._LIBRARY
    request = {"threads": 1, "xnnpack": True, "count": 8, "library": str(library), "model": str(path)}
    events = litert_layers._ask(request, [image])["events"][-1]
    own = Counter(str(tag) for tag, kind, *_ in events if kind == litert_profile.OPERATOR)
    own_us = sum(us for _, kind, _, us in events if kind == litert_profile.OPERATOR)
    return {
        "operators": round(1 - own.total() / len(events), 3),
        "time": round(1 - own_us / sum(us for *_, us in events), 3),
        "own": dict(own),
    }


def route(model: torch.nn.Module, size: int) -> str:
    """Return what traces a network."""
    try:
        plain = fold._is_plain(fold._by_fx(model, size))
    except EdgekitError:
        plain = False
    return "torch.fx" if plain else "torch.export"


class Clock:
    """Writes the seconds since the last lap into an entry."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.entry, self.started = entry, time.perf_counter()

    def lap(self, key: str) -> None:
        now = time.perf_counter()
        self.entry[key], self.started = round(now - self.started, 1), now


def attempt(work: Callable[[], Any]) -> Any:
    """Return the result of `work`, or the message of its error."""
    try:
        return work()
    except (EdgekitError, RuntimeError, ValueError, AssertionError, NotImplementedError, TypeError) as error:
        return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def table(kept: dict[str, dict[str, Any]]) -> str:
    """Return the record as a table in Markdown."""
    columns = (
        *("network", "px", "traced by", "top-1 %", "FP32 ONNX", "FP32 LiteRT", "layers in NVIDIA's parser"),
        *(
            "INT8 TensorRT: agreement %, SNR dB (of the median image)",
            "float MACs %",
            "INT8 LiteRT: the same",
            "float MACs %",
        ),
        "XNNPACK: % of operators, of time",
    )
    lines = [columns, ("---",) * len(columns), *(cells(name, kept[name]) for name in names(kept))]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def names(kept: dict[str, Any]) -> list[str]:
    """Return the names of the record in the order of `NETWORKS`, then the others."""
    known = [name.partition("@")[0] for name in NETWORKS]
    return sorted(kept, key=lambda name: (known.index(name) if name in known else len(known), name))


def cells(name: str, entry: dict[str, Any]) -> tuple[str, ...]:
    """Return one line of the table."""

    def plain(key: str, form: str) -> str:
        value = entry.get(key)
        return format(value, form) if isinstance(value, (int, float)) else str(value or "-")

    def int8(key: str) -> tuple[str, str]:
        found = entry.get(key)
        if not isinstance(found, dict):
            return str(found or "-"), "-"
        left = f"{100 * found.get('float_macs', 0):.1f}"
        median = f" ({found['median_db']:.1f})" if found.get("median_db") is not None else ""
        return f"{found['agreement']:.1f}, {found['snr_db'] or float('inf'):.1f}{median}", left

    taken = entry.get("xnnpack")
    share = (
        f"{100 * taken['operators']:.0f}, {100 * taken['time']:.0f}" if isinstance(taken, dict) else str(taken or "-")
    )
    return (
        *(name, plain("image_size", "d"), entry.get("route", "-"), plain("top1", ".1f")),
        *(plain("onnx", ".1e"), plain("litert", ".1e"), plain("tensorrt_layers", "d")),
        *(*int8("onnx_int8"), *int8("litert_int8"), share),
    )


def main() -> None:
    """Measure the named networks, or all, and write the record after each."""
    warnings.simplefilter("ignore")
    kept = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    if sys.argv[1:] != ["--table"]:
        for name in sys.argv[2:] or NETWORKS:
            entry = measure(name, Path(sys.argv[1]))
            print(name, json.dumps(entry), flush=True)
            kept = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
            kept[name.partition("@")[0]] = entry
            RESULT.write_text(json.dumps({n: kept[n] for n in names(kept)}, indent=1) + "\n")
    TABLE.write_text(table(kept))


if __name__ == "__main__":
    main()
