"""ONNX Runtime on desktops and servers: the model files are all it needs."""

from __future__ import annotations

from pathlib import Path

from edgekit.records import Artifact, Device


def write_kit(folder: Path, artifacts: list[Artifact], device: Device | None) -> None:
    """Nothing to add: labels and preprocessing are written for every target."""
