"""TensorRT on Jetson: a build kit. Engines fit only what built them, so they are built on the device."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgekit.files import sha256_file
from edgekit.records import Artifact, Device


def write_kit(folder: Path, artifacts: list[Artifact], device: Device | None) -> None:
    """Add build.sh, for a board that edgekit does not reach over ssh, and SHA256SUMS."""
    script = folder / "build.sh"
    shutil.copyfile(Path(__file__).with_name("build.sh"), script)
    script.chmod(0o755)
    files = sorted(folder.glob("*.onnx"))
    sums = "".join(f"{sha256_file(path)}  {path.name}\n" for path in files)
    (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")
