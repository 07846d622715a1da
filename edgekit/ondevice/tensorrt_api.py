"""TensorRT's Python API, 8.5 to 11: parse ONNX files and build engines. Not verified on hardware.

`trt` is the module `tensorrt`; its parser and builder part is also that of `tensorrt_rtx`.
"""

from __future__ import annotations

import importlib
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

# Weakly typed networks were deprecated in 10.12 and removed in 11.0.
STRONGLY_TYPED_SINCE = (10, 12)
# TensorRT 8.5 logs where layers run as information, 10.3 as verbose messages.
TELLS_PLACEMENT = re.compile(r"\[(?:Dla|Gpu)Layer\]|successfully offloaded to DLA")
_MOST_LINES = 20_000


class BuildError(RuntimeError):
    """TensorRT cannot build an engine; the message is that of TensorRT."""


class Order(NamedTuple):
    """Settings of an engine.

    Attributes:
        precision: fp32, fp16 or int8. dla_core: None for the GPU. workspace_mb: None for TensorRT's default.
        calibration: the calibration cache of an INT8 network without Q/DQ, else empty.
        timing_cache: timing cache of an earlier build, else empty.
    """

    precision: str
    dla_core: Optional[int] = None
    workspace_mb: Optional[int] = None
    calibration: bytes = b""
    timing_cache: bytes = b""


class Built(NamedTuple):
    """A serialized engine, the timing cache after the build, the flags of the build, and its log."""

    engine: bytes
    timing_cache: bytes
    flags: str
    log: List[str]


def load() -> Any:
    """Import and return the module `tensorrt`.

    Raises:
        ImportError: it is not here.
    """
    module = importlib.import_module("tensorrt")
    if not hasattr(module, "__version__"):
        raise ImportError("tensorrt is a folder without code")  # type stubs leave such a folder
    return module


def version_of(text: str) -> Tuple[int, int]:
    """Return major and minor version of ``10.3.0.30``."""
    parts = [int(p) for p in text.split(".")[:2]]
    return parts[0], parts[1]


def precision_flags(version: Tuple[int, int], precision: str) -> List[str]:
    """Return the builder flags of a precision; none if the types of the ONNX file decide."""
    if version >= STRONGLY_TYPED_SINCE:
        return []
    return {"fp16": ["FP16"], "int8": ["INT8", "FP16"]}.get(precision, [])


def network_flags(trt: Any, version: Tuple[int, int]) -> int:
    """Return the flags to create a network with: explicit batch on 8.x, strongly typed from 10.12 to 10.x."""
    flags = trt.NetworkDefinitionCreationFlag
    if version < (10, 0):
        return 1 << int(flags.EXPLICIT_BATCH)
    if STRONGLY_TYPED_SINCE <= version < (11, 0):
        return 1 << int(flags.STRONGLY_TYPED)
    return 0


def make_logger(trt: Any) -> Any:
    """Return a logger that keeps messages in `lines`; of the verbose ones, only where layers run."""

    class Lines(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: List[str] = []

        def log(self, severity: Any, message: str) -> None:
            tells = severity != trt.ILogger.VERBOSE or TELLS_PLACEMENT.search(message)
            if tells and len(self.lines) < _MOST_LINES:
                self.lines.append(message)

    return Lines()


def parse(trt: Any, builder: Any, logger: Any, onnx: bytes, flags: int) -> Tuple[Any, Any]:
    """Parse the bytes of an ONNX file into a network.

    Returns the network and its parser, whose memory holds the weights: keep both until built.

    Raises:
        BuildError: the parser's own messages.
    """
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        problems = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise BuildError("TensorRT's parser rejects the model: {}".format(problems))
    return network, parser


def build(
    trt: Any,
    version: Tuple[int, int],
    onnx: bytes,
    order: Order,
    said: Callable[[str], None],
    prepare: Callable[[Any], None] = lambda config: None,
) -> Built:
    """Build an engine for the GPU of this machine.

    Args:
        version: of TensorRT, which determines the flags. said: takes lines about the progress.
        prepare: called with the builder's configuration before it is used.
    Raises:
        BuildError: the parser or the builder refuses.
    """
    logger = make_logger(trt)
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # "factory function returned nullptr": CUDA does not work
        raise BuildError("TensorRT cannot be started: {}".format("; ".join(logger.lines[-3:]) or error)) from None
    network, keep = parse(trt, builder, logger, onnx, network_flags(trt, version))
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    flags = _configure(trt, builder, config, version, order)
    watcher, calibrator = _watch(trt, config, said), _calibrate(trt, config, order.calibration)
    has_cache = hasattr(config, "create_timing_cache")
    if has_cache:
        cache = config.create_timing_cache(order.timing_cache)
        if cache is None or not config.set_timing_cache(cache, False):
            config.set_timing_cache(
                config.create_timing_cache(b""), False
            )  # the cache is of another version, or damaged
    prepare(config)
    engine = builder.build_serialized_network(network, config)
    del keep, watcher, calibrator
    if engine is None:
        raise BuildError(
            "TensorRT cannot build an engine: {}".format("; ".join(logger.lines[-3:]) or "no reason given")
        )
    learnt = bytes(config.get_timing_cache().serialize()) if has_cache else b""
    return Built(bytes(engine), learnt, " ".join(flags), logger.lines)


def _configure(trt: Any, builder: Any, config: Any, version: Tuple[int, int], order: Order) -> List[str]:
    """Apply the settings; return them as text for the engine's record."""
    said = ["strongly typed"] if version >= STRONGLY_TYPED_SINCE else []
    if order.precision == "fp32" and hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
        said.append("no TF32")
    for flag in precision_flags(version, order.precision):
        config.set_flag(getattr(trt.BuilderFlag, flag))
        said.append(flag)
    if order.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, order.workspace_mb << 20)
        said.append("workspace {} MB".format(order.workspace_mb))
    if order.dla_core is not None:
        if order.dla_core >= builder.num_DLA_cores:
            raise BuildError("there is no DLA core {}: TensorRT sees {}".format(order.dla_core, builder.num_DLA_cores))
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = order.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        said.append("DLA core {} with GPU fallback".format(order.dla_core))
    return said


def _watch(trt: Any, config: Any, said: Callable[[str], None]) -> Any:
    """Report the progress of a build (TensorRT 10.0 and newer); the result must live as long as the build."""
    if not hasattr(config, "progress_monitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: Dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: Optional[str], num_steps: int) -> None:
            if parent_phase is None:
                self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.steps:
                said("{} {}/{}".format(phase_name, step + 1, self.steps[phase_name]))
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor


def _calibrate(trt: Any, config: Any, cache: bytes) -> Any:
    """Return a calibrator for a network without Q/DQ; it must live as long as the build."""
    if not cache:
        return None

    class FromTable(trt.IInt8EntropyCalibrator2):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: List[str]) -> None:
            return None

        def read_calibration_cache(self) -> bytes:
            return cache

        def write_calibration_cache(self, written: bytes) -> None:
            pass

    calibrator = FromTable()
    config.int8_calibrator = calibrator
    return calibrator
