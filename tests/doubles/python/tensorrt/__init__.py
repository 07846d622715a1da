"""A double of TensorRT's Python API, for where there is no GPU: the names and behaviour that edgekit uses.

Names, signatures and what returns None: the type stubs `tensorrt-stubs` 10.13 and NVIDIA's Python API reference. Built
engines hold the ONNX; they run in ONNX Runtime, on memory of the double of the CUDA runtime (cudart.c).
Environment: DOUBLE_TRT_VERSION ("10.3.0"), DOUBLE_TRT_DLA (how many cores), DOUBLE_TRT_CRASH (building
ends the process).
"""

from __future__ import annotations

import ctypes
import os
from enum import IntEnum
from typing import Any

import numpy as np

from tests.doubles import engine as packed

__version__ = os.environ.get("DOUBLE_TRT_VERSION", "10.3.0")
_VERSION = tuple(int(part) for part in __version__.split(".")[:2])
_TYPED = _VERSION >= (11, 0)


class BuilderFlag(IntEnum):
    FP16 = 0
    INT8 = 1
    GPU_FALLBACK = 3
    TF32 = 7


class DeviceType(IntEnum):
    GPU = 0
    DLA = 1


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class ProfilingVerbosity(IntEnum):
    DETAILED = 2


class TensorIOMode(IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class NetworkDefinitionCreationFlag(IntEnum):
    EXPLICIT_BATCH = 0
    STRONGLY_TYPED = 1


float32, float16, int8, int32 = np.float32, np.float16, np.int8, np.int32


class ILogger:
    VERBOSE, INFO, WARNING, ERROR = 4, 3, 2, 1

    def __init__(self) -> None: ...


class Logger(ILogger):
    def __init__(self, severity: int = ILogger.WARNING) -> None: ...

    def log(self, severity: int, message: str) -> None: ...


class IProfiler:
    def __init__(self) -> None: ...


class IProgressMonitor:
    def __init__(self) -> None: ...


if not _TYPED:

    class IInt8EntropyCalibrator2:
        def __init__(self) -> None: ...


class _Memory:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> memoryview:
        return memoryview(self._content)

    def __bytes__(self) -> bytes:
        return self._content


class _Config:
    def __init__(self) -> None:
        self.flags: set[str] = {"TF32"}
        self.default_device_type, self.DLA_core = DeviceType.GPU, -1
        self.workspace = 0
        if _VERSION >= (10, 0):
            self.progress_monitor: Any = None
        self._cache: _Memory | None = None

    def set_flag(self, flag: BuilderFlag) -> None:
        assert not (_TYPED and flag.name in ("FP16", "INT8")), "removed in 11.0"
        self.flags.add(flag.name)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self.flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        self.workspace = size

    def create_timing_cache(self, content: bytes) -> _Memory:
        return _Memory(content)

    def set_timing_cache(self, cache: _Memory, ignore_mismatch: bool) -> bool:
        if bytes(cache) not in (b"", b"timings " + __version__.encode()):
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> _Memory | None:
        return self._cache and _Memory(b"timings " + __version__.encode())


class _Network:
    def __init__(self, flags: int) -> None:
        assert flags == {8: 1}.get(_VERSION[0], 2 if (10, 12) <= _VERSION < (11, 0) else 0), flags
        self.onnx = b""


class _Problem:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


class OnnxParser:
    def __init__(self, network: _Network, logger: ILogger) -> None:
        self.network, self.num_errors = network, 0

    def parse(self, onnx: bytes) -> bool:
        try:
            packed.session(onnx)
        except Exception:
            self.num_errors = 1
            return False
        self.network.onnx = onnx
        return True

    def get_error(self, number: int) -> _Problem:
        return _Problem("Failed to parse the ONNX model.")


class Builder:
    num_DLA_cores = int(os.environ.get("DOUBLE_TRT_DLA", "0"))

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def create_network(self, flags: int = 0) -> _Network:
        return _Network(flags)

    def create_builder_config(self) -> _Config:
        return _Config()

    def build_serialized_network(self, network: _Network, config: _Config) -> _Memory | None:
        if os.environ.get("DOUBLE_TRT_CRASH"):
            os.abort()
        if monitor := getattr(config, "progress_monitor", None):
            monitor.phase_start("Building engine", None, 2)
            monitor.step_complete("Building engine", 0)
            monitor.phase_finish("Building engine")
        dla = config.DLA_core if config.default_device_type == DeviceType.DLA else None
        if dla is not None:
            node, new = "{ForeignNode[node_conv2d...n4]}", _VERSION >= (10, 0)
            level = ILogger.VERBOSE if new else ILogger.INFO
            self.logger.log(level, f"{node} successfully offloaded to DLA." if new else f"[DlaLayer] {node}")
            self.logger.log(level, "[GpuLayer] MATRIX_MULTIPLY: node_linear")
        self.logger.log(ILogger.VERBOSE, "Trying tactic after tactic")
        if calibrator := getattr(config, "int8_calibrator", None):
            header = calibrator.read_calibration_cache().split(b"\n")[0]
            self.logger.log(ILogger.INFO, f"calibrated by {header.decode()}")
        about = {"version": __version__, "flags": sorted(config.flags), "dla": dla, "workspace": config.workspace}
        return _Memory(packed.pack(network.onnx, **about))


class _Context:
    def __init__(self, onnx: bytes) -> None:
        self.session = packed.session(onnx)
        self.addresses: dict[str, int] = {}
        self.profiler: Any = None

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        cuda = ctypes.CDLL(os.environ["EDGEKIT_CUDART"])
        if cuda.double_capturing():
            self._recorded = ctypes.CFUNCTYPE(None)(self._execute)
            cuda.double_record(self._recorded)
            return True
        self._execute()
        return True

    def _execute(self) -> None:
        source, target = self.session.get_inputs()[0], self.session.get_outputs()[0]
        image = _view(self.addresses[source.name], source.shape)
        _view(self.addresses[target.name], target.shape)[:] = packed.run(self.session, image)
        if self.profiler is not None:
            self.profiler.report_layer_time("node_conv2d + n4", 0.06)
            self.profiler.report_layer_time("node_linear", 0.03)


def _view(address: int, shape: list[int]) -> np.ndarray:
    size = int(np.prod(shape))
    return np.frombuffer((ctypes.c_float * size).from_address(address), np.float32).reshape(shape)


class _Engine:
    num_io_tensors = 2

    def __init__(self, onnx: bytes) -> None:
        self.onnx = onnx
        opened = packed.session(onnx)
        self._tensors = [(opened.get_inputs()[0], TensorIOMode.INPUT), (opened.get_outputs()[0], TensorIOMode.OUTPUT)]

    def get_tensor_name(self, index: int) -> str:
        return str(self._tensors[index][0].name)

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return next(mode for tensor, mode in self._tensors if tensor.name == name)

    def get_tensor_shape(self, name: str) -> list[int]:
        return next(list(tensor.shape) for tensor, _ in self._tensors if tensor.name == name)

    def get_tensor_dtype(self, name: str) -> Any:
        return np.float32

    def create_execution_context(self) -> _Context:
        return _Context(self.onnx)


class Runtime:
    DLA_core = -1

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, content: bytes) -> _Engine | None:
        try:
            built, onnx = packed.unpack(content)
        except ValueError:
            built, onnx = {"version": "none"}, b""
        if built["version"] != __version__:
            self.logger.log(ILogger.ERROR, "Error Code 1: Serialization (Version tag does not match.)")
            return None
        return _Engine(onnx)
