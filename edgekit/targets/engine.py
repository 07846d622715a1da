"""Run a classifier with TensorRT 8.5 to 11: needs its Python API, numpy and the CUDA runtime; no other package.

    from engine import Engine, built
    model = Engine(built(Path("model.int8.onnx"), "int8"))      # the engine is built once, in minutes, beside the file
    scores = model(image)                                       # float32 (1, 3, size, size) -> float32 (1, classes)

Made by edgekit; it imports nothing of it. Tested with doubles of TensorRT and CUDA, not verified on hardware.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

_CUDARTS = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
_TO_GPU, _FROM_GPU, _NON_BLOCKING = 1, 2, 1
_MAJOR, _MINOR = 75, 76  # cudaDevAttrComputeCapabilityMajor and Minor
_STRONGLY_TYPED_SINCE = (10, 12)  # where the types in the ONNX file decide, and flags are deprecated; removed in 11.0


def built(onnx: Path, precision: str) -> Path:
    """Return the engine of an ONNX file for this machine; build it if there is none.

    Its name tells the versions of TensorRT and of the GPU, and the hash of the ONNX file: engines run with no other.
    From 10.12 on, TensorRT takes the types of the file, so that the file's typed twin is built, if it is there.

    Args:
        precision: fp32, fp16 or int8; INT8 files say by Q/DQ pairs what is rounded.
    Raises:
        RuntimeError: TensorRT rejects the file, with TensorRT's own words.
    """
    import tensorrt as trt

    if not hasattr(trt, "Builder"):
        raise ImportError("tensorrt is a folder without code")  # type stubs leave such a folder
    typed = onnx.with_suffix(".typed.onnx")
    if _version(trt) >= _STRONGLY_TYPED_SINCE and typed.is_file():
        onnx = typed
    content, cuda = onnx.read_bytes(), Cuda()
    key = f"trt{trt.__version__}.sm{cuda.attribute(_MAJOR)}{cuda.attribute(_MINOR)}"
    engine = onnx.with_suffix(f".{key}.{hashlib.sha256(content).hexdigest()[:12]}.engine")
    if not engine.is_file():
        part = engine.with_suffix(f".part{os.getpid()}")
        try:
            part.write_bytes(_build(trt, content, precision))
            os.replace(part, engine)
        finally:
            part.unlink(missing_ok=True)
    return engine


def _version(trt: Any) -> tuple[int, ...]:
    """Return major and minor version of TensorRT."""
    return tuple(int(part) for part in trt.__version__.split(".")[:2])


def _build(trt: Any, onnx: bytes, precision: str) -> bytes:
    """Return an engine for the GPU of this machine."""
    version = _version(trt)
    kinds = trt.NetworkDefinitionCreationFlag
    flags = 0
    if version < (10, 0):
        flags = 1 << int(kinds.EXPLICIT_BATCH)
    elif _STRONGLY_TYPED_SINCE <= version < (11, 0):
        flags = 1 << int(kinds.STRONGLY_TYPED)
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        problems = "; ".join(parser.get_error(number).desc() for number in range(parser.num_errors))
        raise RuntimeError(f"TensorRT rejects the model: {problems}")
    config = builder.create_builder_config()
    if precision == "fp32" and hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
    if version < _STRONGLY_TYPED_SINCE:
        for flag in {"fp16": ["FP16"], "int8": ["INT8", "FP16"]}.get(precision, []):
            config.set_flag(getattr(trt.BuilderFlag, flag))
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise RuntimeError("TensorRT cannot build an engine; the lines above say why")
    return bytes(engine)


class Cuda:
    """The few functions of the CUDA runtime that an engine needs."""

    def __init__(self) -> None:
        found = sorted(map(str, Path("/usr/local/cuda/lib64").glob("libcudart.so*")))
        for name in filter(None, [os.environ.get("EDGEKIT_CUDART"), *_CUDARTS, *found]):
            try:
                self.library = ctypes.CDLL(name)
                break
            except OSError:
                continue
        else:
            raise ImportError("the CUDA runtime (libcudart) was not found")

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function, and raise RuntimeError if it fails."""
        status = getattr(self.library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} failed with status {status}")

    def attribute(self, number: int) -> int:
        """Return an attribute of the first GPU."""
        found = ctypes.c_int()
        self.call("cudaDeviceGetAttribute", ctypes.byref(found), number, 0)
        return found.value

    def make(self, name: str, *arguments: Any) -> ctypes.c_void_p:
        """Call a function that writes a pointer to its first argument."""
        made = ctypes.c_void_p()
        self.call(name, ctypes.byref(made), *arguments)
        return made


class Engine:
    """A TensorRT engine with the input ``image`` and the output ``scores``."""

    def __init__(self, path: Path) -> None:
        import tensorrt

        self.cuda = Cuda()
        self.runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
        self.engine = self.runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise RuntimeError(f"{path} does not load: it is for another TensorRT or another GPU; build it here")
        self.context = self.engine.create_execution_context()
        self.stream = self.cuda.make("cudaStreamCreateWithFlags", _NON_BLOCKING)
        self.there = {}
        for name in ("image", "scores"):
            size = 4 * int(np.prod(tuple(self.engine.get_tensor_shape(name))))
            self.there[name] = self.cuda.make("cudaMalloc", ctypes.c_size_t(size))
            self.context.set_tensor_address(name, self.there[name].value)
        self.scores = np.empty(tuple(self.engine.get_tensor_shape("scores")), np.float32)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Copy the image to the GPU, run the engine, copy the scores back, and wait for all of it."""
        self._copy(self.there["image"], image.ctypes.data_as(ctypes.c_void_p), image.nbytes, _TO_GPU)
        if not self.context.execute_async_v3(self.stream.value):
            raise RuntimeError("TensorRT cannot run the engine")
        self._copy(self.scores.ctypes.data_as(ctypes.c_void_p), self.there["scores"], self.scores.nbytes, _FROM_GPU)
        self.cuda.call("cudaStreamSynchronize", self.stream)
        return self.scores.copy()

    def _copy(self, to: ctypes.c_void_p, source: ctypes.c_void_p, size: int, kind: int) -> None:
        self.cuda.call("cudaMemcpyAsync", to, source, ctypes.c_size_t(size), kind, self.stream)
