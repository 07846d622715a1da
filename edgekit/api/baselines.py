"""Baselines: the trained network in the runtimes of this machine, which exported models are compared with."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import files, progress, records
from edgekit.errors import EdgekitError, MissingError, install_command, unknown
from edgekit.labels import visible
from edgekit.measurements import REFERENCES
from edgekit.records import Artifact

if TYPE_CHECKING:
    from edgekit.api.intermediates import Intermediates
    from edgekit.models.onnx_module import OnnxModule


PYTORCH, ONNXRUNTIME = (name.removeprefix(records.BASELINES) for name in REFERENCES)
ALL = "all"


@dataclass(frozen=True)
class Baseline:
    """One runtime for the trained network.

    Attributes:
        runtime: of the artifact. runner: key of `edgekit.ondevice.runner.RUNNERS`.
        missing: returns an error if a requirement is not met. default: measured unless others are named.
    """

    runtime: str
    runner: str
    missing: Callable[[], EdgekitError | None] = lambda: None
    precision: str = "fp32"
    default: bool = False


def _no_compiler() -> EdgekitError | None:
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    if compiler is not None and shutil.which(compiler) is not None:
        return None
    return MissingError("torch.compile needs a C++ compiler", "apt install g++")


def _no_openvino() -> EdgekitError | None:
    if importlib.util.find_spec("openvino") is not None:
        return None
    return MissingError("OpenVINO is not installed", install_command("openvino"))


def _no_gpu() -> EdgekitError | None:
    import torch

    if torch.cuda.is_available():
        return None
    return MissingError("there is no CUDA GPU", "--baseline all measures those that run on this machine")


def _no_cuda_provider() -> EdgekitError | None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return None
    return MissingError("this onnxruntime has no CUDA provider", "pip install onnxruntime-gpu in place of onnxruntime")


def _no_tensorrt() -> EdgekitError | None:
    if missing := _no_gpu():
        return missing
    if importlib.util.find_spec("tensorrt") is not None:
        return None
    return MissingError("TensorRT is not installed", install_command("tensorrt"))


# By name; accuracy and speed are compared with the first one, or that of ONNX Runtime if a run keeps its ONNX file.
BASELINES = {
    PYTORCH: Baseline("torch", "torch", default=True),
    "torch-compile": Baseline("torch", "torch-compile", _no_compiler),
    ONNXRUNTIME: Baseline("onnxruntime", "onnxruntime", default=True),
    "openvino": Baseline("openvino", "openvino", _no_openvino, default=True),
    "pytorch-fp16": Baseline("torch", "torch-fp16", _no_gpu, "fp16", default=True),
    "onnxruntime-cuda": Baseline("onnxruntime", "onnxruntime-cuda", _no_cuda_provider, default=True),
    "tensorrt": Baseline("tensorrt", "tensorrt", _no_tensorrt, default=True),
    "tensorrt-fp16": Baseline("tensorrt", "tensorrt", _no_tensorrt, "fp16", default=True),
}


def choose(wanted: Sequence[str] | None) -> list[str]:
    """Return the names of the baselines to measure, with the reference first.

    Args:
        wanted: names, or "all" for those that run on this machine; None: those that need no compiler.

    Raises:
        UsageError: no such baseline. MissingError: a named baseline does not run on this machine.
    """
    for name in wanted or ():
        if name not in (*BASELINES, ALL):
            raise unknown("baseline", name, (*BASELINES, ALL))
    chosen = [PYTORCH]
    for name, row in BASELINES.items():
        named = name in (wanted or ())
        if name == PYTORCH or not (named or ALL in (wanted or ()) or (not wanted and row.default)):
            continue
        missing = row.missing()
        if missing is not None and named:
            raise MissingError(f"baseline {name}: {missing.message}", missing.hint)
        if missing is None:
            chosen.append(name)
        elif wanted:
            progress.note(f"left out: baseline {name}: {missing.message}")
    return chosen


def made(
    intermediates: Intermediates, names: Sequence[str], scratch: Path, wanted: Sequence[str] | None = None
) -> list[tuple[Artifact, Path]]:
    """Return artifact and file of each baseline; PyTorch's is written to `scratch`, the others use the ONNX file.

    Args:
        names: of the baselines, from `choose(wanted)`.

    Raises:
        EdgekitError: a baseline in torch is wanted by name, of a run that keeps its ONNX file as it is.
    """
    program = scratch / "baseline.pt2"
    if intermediates.kept_onnx is not None:
        names = _without_torch(names, wanted or (), intermediates.kept_onnx)
    else:
        with progress.working("preparing the baseline"):
            intermediates.save_baseline(program)
    parent, found = intermediates.checkpoint.sha256, []
    for name in names:
        row = BASELINES[name]
        path = (
            program
            if row.runtime == "torch"
            else _in_half(intermediates)
            if row.precision == "fp16"
            else intermediates.onnx
        )
        details = {} if row.runner == row.runtime else {"host_runtime": row.runner}
        digest = files.sha256_file(path)
        artifact = Artifact(f"baseline/{name}", "desktop", row.precision, row.runtime, "NCHW", digest, parent, details)
        found.append((artifact, path))
    return found


def _without_torch(names: Sequence[str], wanted: Sequence[str], kept: OnnxModule) -> list[str]:
    """Return the baselines of a run that keeps its ONNX file as it is: ONNX Runtime, then others without torch."""
    in_torch = {name for name in names if BASELINES[name].runtime == "torch"}
    if refused := sorted(in_torch.intersection(wanted)):
        raise EdgekitError(
            f"baseline {refused[0]} needs the network in torch, and this run keeps its ONNX file as it is: "
            f"{visible(kept.problem)}",
            "edgekit benchmark --baseline onnxruntime",
        )
    progress.note("the baseline is ONNX Runtime: this run keeps its ONNX file as it is")
    return [ONNXRUNTIME, *(name for name in names if name not in in_torch | {ONNXRUNTIME})]


def _in_half(intermediates: Intermediates) -> Path:
    """Return the ONNX file in float16, as exported for TensorRT."""

    def make(path: Path) -> None:
        import onnx_ir

        from edgekit.convert import onnx
        from edgekit.quant import fp16

        model = onnx_ir.load(intermediates.onnx)
        fp16.to_fp16(model, *intermediates.observed_onnx)
        onnx.save(model, path)

    return intermediates.kept(("model.fp16.onnx",), make)
