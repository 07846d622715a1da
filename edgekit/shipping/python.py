"""The kit for Python: one file that needs numpy and the model's runtime; for TensorRT, a second one."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from edgekit import targets
from edgekit.shipping import kit

_NEEDS = {
    "litert": "numpy pillow ai-edge-litert",
    "onnxruntime": "numpy pillow onnxruntime",
    "tensorrt": "numpy pillow",  # TensorRT's Python package comes with JetPack
}


def check(folder: Path) -> list[kit.Level]:
    """Run ``classifier.py --check`` of a copy of a kit with this Python: an engine that it builds is not of the kit."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = kit.copied(folder, Path(scratch) / "kit")
        return kit.results([sys.executable, str(copy / "classifier.py"), "--check", "--json"], copy)


def values(source: kit.Source) -> dict[str, Any]:
    """Return what the README needs: the packages to install."""
    return {"pip": _NEEDS[source.artifact.runtime] + (" cryptography" if source.updates else "")}


def more(source: kit.Source) -> dict[str, Path]:
    """Return the code that builds and runs engines, and the file for newer versions of TensorRT, where needed."""
    if source.artifact.runtime != "tensorrt":
        return {}
    return {"engine.py": Path(targets.__file__).with_name("engine.py"), **kit.typed(source)}


TARGET = kit.Target("python", ("litert", "onnxruntime", "tensorrt"), check, more=more, values=values)
