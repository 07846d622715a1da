"""TensorRT 8.5 to 11 with its Python API and the CUDA runtime through ctypes. Not verified on hardware."""

from __future__ import annotations

import ctypes
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from . import build, cudart, tensorrt_api
from .runner import Runner


class TensorRtRunner(Runner):
    """Runs an engine with one image input and one output.

    A query copies the image to pinned memory and to the GPU, runs the engine (as a CUDA graph, unless the option
    ``cuda_graph`` is false), copies the scores back, and waits for all of it.
    """

    def __init__(self, path: str, threads: int, options: Optional[Dict[str, Any]] = None) -> None:
        """
        Raises:
            ImportError: TensorRT or the CUDA runtime is not here.
            RuntimeError: the engine was built by another TensorRT or for another GPU, or does not load.
        """
        super().__init__(path, threads, options)
        self.trt, self.cuda = tensorrt_api.load(), cudart.open_cudart()
        self.capability = self.cuda.compute_capability()
        self.dla_core = self.options.get("dla_core")
        here = {"tensorrt": self.trt.__version__, "compute_capability": self.capability, "dla_core": self.dla_core}
        build.check_fit(self.options.get("built"), here)
        self.logger = tensorrt_api.make_logger(self.trt)
        self.runtime = self.trt.Runtime(self.logger)
        if self.dla_core is not None:
            self.runtime.DLA_core = self.dla_core
        with open(path, "rb") as file:
            self.engine = self.runtime.deserialize_cuda_engine(file.read())
        if self.engine is None:
            raise RuntimeError("TensorRT cannot load the engine: {}".format("; ".join(self.logger.lines[-3:])))
        self.context = self.engine.create_execution_context()
        self.stream, self.events = self.cuda.stream(), (self.cuda.event(), self.cuda.event())
        self.buffers: List[Tuple[int, int]] = []
        self.image, self.image_there = self._bind(self.trt.TensorIOMode.INPUT)
        self.scores, self.scores_there = self._bind(self.trt.TensorIOMode.OUTPUT)
        self._execute()  # TensorRT needs one run before a graph is captured
        self.cuda.wait(self.stream)
        self.graph = self._capture() if self.options.get("cuda_graph", True) else None

    def _bind(self, mode: Any) -> Tuple[np.ndarray, int]:
        """Allocate memory for the only tensor of a mode; return it pinned, as an array, and its address on the GPU."""
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        names = [name for name in names if self.engine.get_tensor_mode(name) == mode]
        if len(names) != 1:
            raise RuntimeError("the engine has {} tensors of {}, not one".format(len(names), mode))
        shape = tuple(self.engine.get_tensor_shape(names[0]))
        trt = self.trt  # not its nptype, which in 8.5 needs numpy before 1.24
        kinds = {trt.float32: np.float32, trt.float16: np.float16, trt.int8: np.int8, trt.int32: np.int32}
        dtype = np.dtype(kinds[self.engine.get_tensor_dtype(names[0])])
        size = int(np.prod(shape)) * dtype.itemsize
        here, there = self.cuda.allocate_host(size), self.cuda.allocate(size)
        self.buffers.append((here, there))
        self.context.set_tensor_address(names[0], there)
        memory: Any = (ctypes.c_byte * size).from_address(here)
        return np.frombuffer(memory, dtype).reshape(shape), there

    def _capture(self) -> int:
        try:
            self.cuda.begin_capture(self.stream)
            self._execute()
            return self.cuda.end_capture(self.stream)
        except RuntimeError as error:
            raise RuntimeError("{}; without a CUDA graph: cuda_graph = false in its .toml".format(error)) from error

    def _execute(self) -> None:
        if not self.context.execute_async_v3(self.stream):
            raise RuntimeError("TensorRT cannot run the engine: {}".format("; ".join(self.logger.lines[-3:])))

    def _run(self) -> None:
        if self.graph is None:
            self._execute()
        else:
            self.cuda.launch(self.graph, self.stream)

    def infer(self, image: np.ndarray) -> np.ndarray:
        np.copyto(self.image, image, casting="same_kind")
        self.cuda.copy(self.image_there, self.image.ctypes.data, self.image.nbytes, cudart.HOST_TO_DEVICE, self.stream)
        self._run()
        self.cuda.copy(
            self.scores.ctypes.data, self.scores_there, self.scores.nbytes, cudart.DEVICE_TO_HOST, self.stream
        )
        self.cuda.wait(self.stream)
        scores = self.scores.astype(np.float32)
        return scores[0] if len(scores) == 1 else scores

    def compute_times(self, inputs: Sequence[np.ndarray], count: int) -> List[int]:
        times = []
        for number in range(count):
            self.infer(inputs[number % len(inputs)])
            start, end = self.events
            self.cuda.record(start, self.stream)
            self._run()
            self.cuda.record(end, self.stream)
            self.cuda.wait(self.stream)
            times.append(round(1e6 * self.cuda.elapsed_ms(start, end)))
        return times

    def layer_times(self, inputs: Sequence[np.ndarray], count: int) -> List[Tuple[str, float]]:
        trt = self.trt

        class Times(trt.IProfiler):  # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                trt.IProfiler.__init__(self)
                self.found: Dict[str, List[float]] = {}

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                self.found.setdefault(layer_name, []).append(ms)

        times = Times()
        self.context.profiler = times
        for number in range(count):
            np.copyto(self.image, inputs[number % len(inputs)], casting="same_kind")
            self._execute()  # not as a graph, whose layers the profiler does not distinguish
            self.cuda.wait(self.stream)
        return [(name, float(np.median(values))) for name, values in times.found.items()]

    def info(self) -> Dict[str, Any]:
        where = "GPU" if self.dla_core is None else "DLA {} and GPU".format(self.dla_core)
        return {
            "runtime": "tensorrt",
            "version": self.trt.__version__,
            "processor": "{} (SM {})".format(where, self.capability),
            "cuda_graph": self.graph is not None,
            "transfers": "in and out",
        }

    def close(self) -> None:
        for here, there in self.buffers:
            self.cuda.free_host(here)
            self.cuda.free(there)
        self.buffers = []
        del self.context, self.engine, self.runtime
