"""Contract of an exported classifier: from a picture to probabilities, in words, as a document and in ONNX files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import files
from edgekit.records import Preprocess

_VALUES = {"float32": "(pixel / 255 - mean) / std", "uint8": "pixel", "int8": "pixel - 128"}


@dataclass(frozen=True)
class Contract:
    """Facts that an app must know of a model.

    Attributes:
        arch: name of the network. weights: SHA-256 of the checkpoint.
        temperature: fitted on val; scores are divided by it before the softmax. None: the run was not evaluated.
    """

    arch: str
    weights: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    temperature: float | None = None

    def steps(self) -> tuple[str, ...]:
        """Return the steps from a file to the values of a float32 input, one sentence each."""
        return self.preprocess.steps()

    def document(self) -> dict[str, Any]:
        """Return what every file of the model has in common: `Preprocess.contract`, `scores` and `labels_sha256`.

        labels_sha256: of ``labels.txt``: the class names in UTF-8, each with a newline after it.
        """
        scores = {"kind": "logits", "classes": len(self.labels), "temperature": self.temperature}
        labels = "".join(f"{label}\n" for label in self.labels).encode()
        return {
            **self.preprocess.contract(),
            "scores": scores,
            "labels_sha256": hashlib.sha256(labels).hexdigest(),
        }

    def tensor(self, artifact_input: str, layout: str) -> dict[str, Any]:
        """Return what the input tensor of a file holds: `type`, `layout`, and `values` made of a pixel's.

        Args:
            artifact_input: one of `records.INPUTS`. layout: one of `records.LAYOUTS`.
        """
        found: dict[str, Any] = {"type": artifact_input, "layout": layout, "values": _VALUES[artifact_input]}
        if artifact_input == "float32":
            found |= {"mean": self.preprocess.mean, "std": self.preprocess.std}
        return found

    def of_file(self, artifact_input: str, layout: str) -> dict[str, Any]:
        """Return the whole contract of a file (`document`, `tensor`), as its metadata hold it."""
        return {**self.document(), "tensor": self.tensor(artifact_input, layout)}

    def scores(self) -> str:
        """Return in words how scores become probabilities."""
        softmax = "softmax gives probabilities"
        if self.temperature is not None:
            softmax = (
                f"softmax(scores / {self.temperature:.6g}) gives the calibrated probabilities that edgekit predict "
                "shows (temperature, fitted on val)"
            )
        return f"scores: (1, {len(self.labels)}), logits in the order of labels.txt; {softmax}."


def describe_onnx(path: Path, contract: Contract, purpose: str = "") -> None:
    """Write the contract into an ONNX file: for readers as its doc string, for programs as metadata.

    Args:
        purpose: for what the file is, besides the contract; a sentence.
    """
    import onnx

    model = onnx.load(path)
    size = contract.preprocess.image_size
    lines = [
        f"{contract.arch}, {len(contract.labels)} classes, weights {contract.weights[:12]}, exported by edgekit.",
        *([purpose] if purpose else []),
        f"Input image: float32 (1, 3, {size}, {size}), RGB, channels first (NCHW).",
        *(f"{number}. {step}" for number, step in enumerate(contract.steps(), 1)),
        f"Output {contract.scores()}",
    ]
    model.doc_string = "\n".join(lines)
    values: dict[str, Any] = {
        "labels": contract.labels,
        "preprocess": contract.of_file("float32", "NCHW"),
        "temperature": contract.temperature,
    }
    del model.metadata_props[:]
    for key, value in values.items():
        if value is not None:
            model.metadata_props.add(key=f"edgekit.{key}", value=json.dumps(value, ensure_ascii=False))
    files.save_bytes(path, model.SerializeToString())
