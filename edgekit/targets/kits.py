"""ONNX Runtime on desktops and servers: the model files are all it needs."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgekit.files import sha256_file
from edgekit.records import Artifact, Device


def write_onnxruntime(folder: Path, artifacts: list[Artifact], device: Device | None) -> None:
    """Nothing to add: labels and preprocessing are written for every target."""


# TensorRT on Jetson: a build kit. Engines fit only what built them, so they are built on the device.


def write_tensorrt(folder: Path, artifacts: list[Artifact], device: Device | None) -> None:
    """Add build.sh, for a board that edgekit does not reach over ssh, and SHA256SUMS."""
    script = folder / "build.sh"
    shutil.copyfile(Path(__file__).with_name("build.sh"), script)
    script.chmod(0o755)
    files = sorted(folder.glob("*.onnx"))
    sums = "".join(f"{sha256_file(path)}  {path.name}\n" for path in files)
    (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")


# LiteRT on phones and small boards: a note on how to feed the files.

_README = """LiteRT models made by edgekit

{models}

image   (1, height, width, 3), RGB, resized and cut as preprocess.json says, and then
{inputs}
scores  (1, classes), logits in the order of labels.txt; softmax gives probabilities; integers have a scale and a
        zero point in the file

The signature serving_default has these names. Each file holds its labels and TFLite metadata: unzip -l FILE.
Run them with LiteRT (ai-edge-litert; com.google.ai.edge.litert on Android) or tflite-runtime 2.14.
Which figures were measured where stands in the run's report, not here: a latency belongs to a device.
"""
_USES = {
    "fp32": "reference; largest",
    "fp16": "half the size, float compute: for GPU delegates",
    "int8": "int8 weights and activations: for CPUs and NPUs",
    "w8": "int8 weights, float compute: a quarter of the size, for what loses too much in int8",
    "16x8": "int8 weights, int16 activations: for NPUs that have it; slow on CPUs",
}
_INPUTS = {
    "uint8": "uint8: the bytes as they are",
    "int8": "int8: the bytes less 128",
    "float32": "float32: normalized as preprocess.json says",
}


def write_litert(folder: Path, artifacts: list[Artifact], device: Device | None) -> None:
    """Write README.txt."""
    models = "\n".join(f"{a.file:20}{_USES[a.precision]}" for a in artifacts)
    taken = {a.input: [b.file for b in artifacts if b.input == a.input] for a in artifacts}
    several = len(taken) > 1
    inputs = "\n".join(
        f"        {_INPUTS[kind]}{': ' + ', '.join(files) if several else ''}" for kind, files in taken.items()
    )
    (folder / "README.txt").write_text(_README.format(models=models, inputs=inputs), encoding="utf-8")
