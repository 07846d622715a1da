"""TensorRT on Jetson: a build kit, and engines here where this machine has TensorRT and a GPU."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from edgekit import atomic, store
from edgekit.errors import EdgekitError
from edgekit.records import Artifact, Device

# Weakly typed networks were deprecated in 10.12 and removed in 11.0.
_STRONGLY_TYPED_SINCE = (10, 12)


def write_kit(folder: Path, artifacts: list[Artifact], device: Device | None) -> None:
    """Add build.sh and SHA256SUMS; where TensorRT and a GPU are here, build the engines too.

    Engines are built on the device that runs them, because they fit nothing else.
    """
    script = folder / "build.sh"
    shutil.copyfile(Path(__file__).with_name("build.sh"), script)
    script.chmod(0o755)
    files = sorted(folder.glob("*.onnx"))
    sums = "".join(f"{store.sha256_file(path)}  {path.name}\n" for path in files)
    (folder / "SHA256SUMS").write_text(sums, encoding="utf-8")
    if can_build_here():
        build_engines(folder, [a.precision for a in artifacts])


def can_build_here() -> bool:
    """Whether the `tensorrt` package is installed and torch sees a CUDA GPU."""
    found = importlib.util.find_spec("tensorrt")
    if found is None or found.origin is None:  # type stubs alone leave a folder without code
        return False
    import torch

    return torch.cuda.is_available()


def build_engines(folder: Path, precisions: list[str]) -> None:
    """Build ``model.<precision>.engine`` beside each ONNX file. Not verified on hardware.

    Raises:
        EdgekitError: TensorRT's parser or builder refuses; the message is its own.
    """
    import tensorrt as trt

    version = tuple(int(part) for part in trt.__version__.split(".")[:2])
    typed = version >= _STRONGLY_TYPED_SINCE
    for precision in dict.fromkeys(precisions):
        onnx = folder / f"model.{precision}.onnx"
        if precision == "int8" and typed:
            onnx = folder / "model.int8.typed.onnx"
        logger = trt.Logger(trt.Logger.WARNING)
        builder = trt.Builder(logger)
        network, _parser = parse(trt, builder, logger, onnx.read_bytes(), _network_flags(trt, version))
        settings = builder.create_builder_config()
        if precision == "fp32":
            settings.clear_flag(trt.BuilderFlag.TF32)
        if not typed:
            for flag in {"fp16": ["FP16"], "int8": ["INT8", "FP16"]}.get(precision, []):
                settings.set_flag(getattr(trt.BuilderFlag, flag))
        engine = builder.build_serialized_network(network, settings)
        if engine is None:
            raise EdgekitError(f"TensorRT {trt.__version__} built no engine from {onnx.name}")
        target = folder / f"model.{precision}.engine"
        atomic.save_bytes(target, bytes(engine))
        built_by = {"tensorrt": trt.__version__, **_gpu(), "onnx": onnx.name, "onnx_sha256": store.sha256_file(onnx)}
        store.save_json(target.with_name(target.name + ".json"), built_by)


def _gpu() -> dict[str, str]:
    """The GPU that an engine fits."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return {
        "gpu": torch.cuda.get_device_name(),
        "compute_capability": f"{major}.{minor}",
        "cuda": str(torch.version.cuda),
    }


def _network_flags(trt: Any, version: tuple[int, ...]) -> int:
    """How a network is created: explicit batch on 8.x, strongly typed from 10.12 to 10.x."""
    flags = trt.NetworkDefinitionCreationFlag
    if version < (10, 0):
        return 1 << int(flags.EXPLICIT_BATCH)
    if _STRONGLY_TYPED_SINCE <= version < (11, 0):
        return 1 << int(flags.STRONGLY_TYPED)
    return 0


def parse(trt: Any, builder: Any, logger: Any, onnx: bytes, flags: int) -> tuple[Any, Any]:
    """Read ONNX bytes into a TensorRT network; `trt` is `tensorrt` or `tensorrt_rtx`.

    Returns the network and its parser, whose memory holds the weights: keep both until built.

    Raises:
        EdgekitError: the parser's own messages.
    """
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        problems = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise EdgekitError(f"TensorRT's parser refuses the model: {problems}")
    return network, parser
