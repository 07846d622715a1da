"""Contract of an exported classifier: from a picture to probabilities, in words and as metadata of ONNX files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import files
from edgekit.records import Preprocess


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
        "preprocess": contract.preprocess.document(),
        "temperature": contract.temperature,
    }
    del model.metadata_props[:]
    for key, value in values.items():
        if value is not None:
            model.metadata_props.add(key=f"edgekit.{key}", value=json.dumps(value, ensure_ascii=False))
    files.save_bytes(path, model.SerializeToString())
