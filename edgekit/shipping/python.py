"""The kit for Python: one file that needs numpy and the model's runtime."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from edgekit.shipping import kit

_PACKAGES = {"litert": "ai-edge-litert", "onnxruntime": "onnxruntime"}


def check(folder: Path) -> list[kit.Level]:
    """Run ``classifier.py --check`` of a kit with this Python."""
    return kit.results([sys.executable, str(folder.resolve() / "classifier.py"), "--check", "--json"], folder)


def values(source: kit.Source) -> dict[str, Any]:
    """Return what the README needs: the package of the runtime."""
    return {"pip": _PACKAGES[source.artifact.runtime]}


TARGET = kit.Target("python", ("litert", "onnxruntime"), check, values=values)
