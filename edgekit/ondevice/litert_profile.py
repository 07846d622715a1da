"""Operator times of LiteRT by its profiler, in a process of its own, so that a crash does not end the measurement.

The Python package has no call for it, but the library that its `CompiledModel` runs on (libLiteRt.so of ai-edge-litert
2.3) exports LiteRT's C API (litert/c/litert_compiled_model.h and litert_profiler.h), which this calls by ctypes.
XNNPACK times each of its operators with the profiler on. `main` is run for a request, a JSON file that names
``library``, ``model``, ``threads``, ``xnnpack``, ``inputs`` (an .npy file of the model's own type), ``count``,
``seconds`` and ``out``. Written to ``out``: ``events`` of every run ([tag, type, index, microseconds] each) and
``runs_ns``, how long each run took as a whole, profiled.
"""

from __future__ import annotations

import ctypes
import json
import time
from typing import Any, Dict, List, Tuple

import numpy as np

# Event types of tflite::Profiler: an operator of LiteRT's own, an operator inside a delegate (two event types).
OPERATOR, DELEGATE, DELEGATE_PROFILED = 2, 4, 8
_CPU, _WRITE = 1, 1
_BUILTIN_KERNELS = 2
_WARMUP = 5
_MOST_EVENTS = 20_000
# Size of an event: 104 bytes; another size would be that of another version.
_ROOM, _MARK = 256, 0xA5


class _Event(ctypes.Structure):
    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_int64 * 6),
        ("index", ctypes.c_uint64),
        ("more", ctypes.c_uint64),
        ("source", ctypes.c_int),
    ]


Event = Tuple[str, int, int, int]


class Profiled:
    """A model with one input and one output, compiled for the CPU with the profiler enabled."""

    def __init__(self, library: str, model: str, threads: int, xnnpack: bool) -> None:
        """
        Raises:
            OSError, AttributeError: this library has no such API. RuntimeError: it refused a call.
        """
        self.library = ctypes.CDLL(library)
        self.c = ctypes.CDLL(None)
        self.c.strdup.restype = ctypes.c_void_p
        environment, loaded, options = self._handle(), self._handle(), self._handle()
        self._call("LiteRtCreateEnvironment", 0, None, ctypes.byref(environment))
        self._call("LiteRtCreateModelFromFile", environment, model.encode(), ctypes.byref(loaded))
        self._call("LiteRtCreateOptions", ctypes.byref(options))
        self._call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        kernels = "" if xnnpack else "kernel_mode = {}\n".format(_BUILTIN_KERNELS)
        self._add(options, b"runtime_options_string", "enable_profiling = true\n")
        self._add(options, b"xnnpack", "num_threads = {}\n{}".format(threads, kernels))
        self.model, self.profiler = self._handle(), self._handle()
        self._call("LiteRtCreateCompiledModel", environment, loaded, options, ctypes.byref(self.model))
        self._call("LiteRtCompiledModelGetProfiler", self.model, ctypes.byref(self.profiler))
        signature = self._handle()
        self._call("LiteRtGetModelSignature", loaded, ctypes.c_size_t(0), ctypes.byref(signature))
        self.input, self.size = self._buffer("Input", environment, signature)
        self.output, _ = self._buffer("Output", environment, signature)

    @staticmethod
    def _handle() -> Any:
        return ctypes.c_void_p()

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, name)(*arguments)
        if status != 0:
            raise RuntimeError("{} returned status {}".format(name, status))

    def _add(self, options: Any, kind: bytes, toml: str) -> None:
        """Create options, which LiteRT takes as TOML and frees itself."""
        made = self._handle()
        text = ctypes.c_void_p(self.c.strdup(toml.encode()))
        free = ctypes.cast(self.c.free, ctypes.c_void_p)
        self._call("LiteRtCreateOpaqueOptions", kind, text, free, ctypes.byref(made))
        self._call("LiteRtAddOpaqueOptions", options, made)

    def _buffer(self, side: str, environment: Any, signature: Any) -> Tuple[Any, int]:
        """Create a buffer for the only tensor of a side; return it and its size in bytes."""
        tensor, wanted, buffer, size = self._handle(), self._handle(), self._handle(), ctypes.c_size_t()
        kind = ctypes.create_string_buffer(1024)  # an opaque LiteRtRankedTensorType
        zero = ctypes.c_size_t(0)
        self._call("LiteRtGetSignature{}TensorByIndex".format(side), signature, zero, ctypes.byref(tensor))
        self._call("LiteRtGetRankedTensorType", tensor, kind)
        self._call(
            "LiteRtGetCompiledModel{}BufferRequirements".format(side), self.model, zero, zero, ctypes.byref(wanted)
        )
        self._call("LiteRtCreateManagedTensorBufferFromRequirements", environment, kind, wanted, ctypes.byref(buffer))
        self._call("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(size))
        return buffer, size.value

    def feed(self, image: np.ndarray) -> None:
        """Copy an image of the model's dtype into the input."""
        if image.nbytes != self.size:
            raise RuntimeError("the input has {} bytes, not {}".format(self.size, image.nbytes))
        address = self._handle()
        self._call("LiteRtLockTensorBuffer", self.input, ctypes.byref(address), _WRITE)
        ctypes.memmove(address, np.ascontiguousarray(image).ctypes.data, image.nbytes)
        self._call("LiteRtUnlockTensorBuffer", self.input)

    def run(self) -> None:
        """Run one inference."""
        one, zero = ctypes.c_size_t(1), ctypes.c_size_t(0)
        self._call(
            "LiteRtRunCompiledModel", self.model, zero, one, ctypes.byref(self.input), one, ctypes.byref(self.output)
        )

    def profile(self) -> Tuple[List[Event], int]:
        """Run one inference with the profiler; return the operators in the order of execution, and its nanoseconds."""
        self._call("LiteRtResetProfiler", self.profiler)
        self._call("LiteRtStartProfiler", self.profiler)
        begun = time.perf_counter_ns()
        self.run()
        taken = time.perf_counter_ns() - begun
        self._call("LiteRtStopProfiler", self.profiler)
        return self._events(), taken

    def _events(self) -> List[Event]:
        number = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self.profiler, ctypes.byref(number))
        if not 0 < number.value <= _MOST_EVENTS:
            raise RuntimeError("the profiler has {} events".format(number.value))
        room = ctypes.create_string_buffer(bytes([_MARK]) * (_ROOM * number.value), _ROOM * number.value)
        self._call("LiteRtGetProfilerEvents", self.profiler, number, room)
        used = number.value * ctypes.sizeof(_Event)
        if set(room.raw[used:]) != {_MARK} or room.raw[used - 24 : used] == bytes([_MARK]) * 24:
            raise RuntimeError("the events of this LiteRT version have another format")
        events = (_Event * number.value).from_buffer(room)
        kinds = (OPERATOR, DELEGATE, DELEGATE_PROFILED)
        return [(_text(e.tag), e.type, e.index, e.elapsed_us) for e in events if e.type in kinds]


def _text(tag: Any) -> str:
    return str((tag or b"")[:200].decode("utf-8", "replace"))


def main(path: str) -> None:
    """Run the request in a file and print the reply."""
    with open(path, encoding="utf-8") as file:
        request: Dict[str, Any] = json.load(file)
    images = np.load(request["inputs"], allow_pickle=False)
    model = Profiled(request["library"], request["model"], request["threads"], request["xnnpack"])
    model.feed(images[0])
    for _ in range(_WARMUP):
        model.profile()
    events: List[List[Event]] = []
    runs: List[int] = []
    begun = time.perf_counter()
    while len(runs) < request["count"] and (len(runs) < _WARMUP or time.perf_counter() - begun < request["seconds"]):
        model.feed(images[len(runs) % len(images)])
        found, taken = model.profile()
        events.append(found)
        runs.append(taken)
    with open(request["out"], "w", encoding="utf-8") as file:
        json.dump({"events": events, "runs_ns": runs}, file)
