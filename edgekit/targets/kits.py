"""Kits: files beside the models of an export, for each runtime."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgekit.files import sha256_file
from edgekit.records import Artifact, Device

_LITERT_README = """LiteRT models made by edgekit

{models}

image   (1, height, width, 3), RGB, resized and cropped as preprocess.json describes, then
{inputs}
scores  (1, classes), logits in the order of labels.txt; softmax gives probabilities; integers have a scale and a
        zero point in the file

The signature serving_default has these names. Each file holds its labels and TFLite metadata: unzip -l FILE.
Run them with LiteRT (ai-edge-litert; com.google.ai.edge.litert on Android) or tflite-runtime 2.14.
The run's report has the measurements, each with the device that it was made on.
"""
_USES = {
    "fp32": "reference; largest",
    "fp16": "half the size, float compute: for GPU delegates",
    "int8": "int8 weights and activations: for CPUs and NPUs",
    "w8": "int8 weights, float compute: a quarter of the size, for models that lose too much accuracy in int8",
    "16x8": "int8 weights, int16 activations: for NPUs that support it; slow on CPUs",
}
_INPUTS = {
    "uint8": "uint8: the pixels unchanged",
    "int8": "int8: the pixels minus 128",
    "float32": "float32: normalized as preprocess.json describes",
}


def write_onnxruntime(folder: Path, artifacts: list[Artifact], device: Device | None) -> None:
    """Add nothing: ONNX Runtime needs the models, labels and preprocessing only."""


def write_tensorrt(folder: Path, artifacts: list[Artifact], device: Device | None) -> None:
    """Add SHA256SUMS, and build.sh for boards that edgekit does not reach over ssh.

    Engines run only on the kind of device that built them, so they are built there.
    """
    script = folder / "build.sh"
    shutil.copyfile(Path(__file__).with_name("build.sh"), script)
    script.chmod(0o755)
    files = sorted(folder.glob("*.onnx"))
    sums = "".join(f"{sha256_file(path)}  {path.name}\n" for path in files)
    (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")


def write_litert(folder: Path, artifacts: list[Artifact], device: Device | None) -> None:
    """Add README.txt, which describes inputs and outputs."""
    models = "\n".join(f"{a.file:20}{_USES[a.precision]}" for a in artifacts)
    files_by_input = {a.input: [b.file for b in artifacts if b.input == a.input] for a in artifacts}
    several = len(files_by_input) > 1
    inputs = "\n".join(
        f"        {_INPUTS[kind]}{': ' + ', '.join(files) if several else ''}" for kind, files in files_by_input.items()
    )
    (folder / "README.txt").write_text(_LITERT_README.format(models=models, inputs=inputs), encoding="utf-8")
