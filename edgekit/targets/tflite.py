"""LiteRT on phones and small boards: a note on how to feed the files."""

from __future__ import annotations

from pathlib import Path

from edgekit.records import Artifact, Device

_README = """LiteRT models made by edgekit

input   float32 (1, height, width, 3), RGB, normalized as preprocess.json says
output  float32 (1, classes), logits in the order of labels.txt; softmax gives probabilities

{models}

Run them with LiteRT (ai-edge-litert; com.google.ai.edge.litert on Android) or tflite-runtime 2.14.
Which figures were measured where stands in the run's report, not here: a latency belongs to a device.
"""

_USES = {
    "fp32": "reference; largest",
    "fp16": "half the size, float compute: for GPU delegates",
    "int8": "int8 weights and activations: for CPUs and NPUs",
}


def write_kit(folder: Path, artifacts: list[Artifact], device: Device | None) -> None:
    """Write README.txt."""
    models = "\n".join(f"{Path(a.name).name}  {_USES[a.precision]}" for a in artifacts)
    (folder / "README.txt").write_text(_README.format(models=models), encoding="utf-8")
