"""Calls of the CUDA runtime that a TensorRT engine needs, through ctypes, so that no package has to be installed.

Names, arguments and numbers: NVIDIA, "CUDA Runtime API" (11.4 to 13). JetPack has the library; where it
lies elsewhere, EDGEKIT_CUDART names it.
"""

from __future__ import annotations

import ctypes
import glob
import os
from typing import Any, List

HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2
_MAJOR, _MINOR = 75, 76  # cudaDevAttrComputeCapabilityMajor, ...Minor
_CAPTURE_THREAD_LOCAL = 1  # cudaStreamCaptureModeThreadLocal
_NON_BLOCKING = 1  # cudaStreamNonBlocking
_PLACES = (
    "libcudart.so",
    "libcudart.so.13",
    "libcudart.so.12",
    "libcudart.so.11.0",
    "/usr/local/cuda/lib64/libcudart.so*",
)


class CudaError(RuntimeError):
    """A call of the CUDA runtime failed; the message is that of CUDA."""


def open_cudart() -> Cudart:
    """Load the CUDA runtime of this system.

    Raises:
        ImportError: there is none.
    """
    named = os.environ.get("EDGEKIT_CUDART")
    names: List[str] = [named] if named else [n for p in _PLACES for n in (sorted(glob.glob(p)) if "*" in p else [p])]
    for name in names:
        try:
            return Cudart(ctypes.CDLL(name))
        except OSError:
            continue
    raise ImportError("the CUDA runtime (libcudart) was not found")


class Cudart:
    """A loaded CUDA runtime. Pointers and handles are plain integers."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._library.cudaGetErrorString.restype = ctypes.c_char_p

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            said = self._library.cudaGetErrorString(status) or b""
            raise CudaError("{}: {} ({})".format(name, said.decode("utf-8", "replace"), status))

    def _made(self, name: str, *arguments: Any) -> int:
        """Call a function that writes a pointer to its first argument; return the pointer."""
        made = ctypes.c_void_p()
        self._call(name, ctypes.byref(made), *arguments)
        return int(made.value or 0)

    def compute_capability(self) -> str:
        """Return the compute capability of device 0, such as ``8.7``."""
        parts = []
        for attribute in (_MAJOR, _MINOR):
            value = ctypes.c_int()
            self._call("cudaDeviceGetAttribute", ctypes.byref(value), attribute, 0)
            parts.append(value.value)
        return "{}.{}".format(*parts)

    def allocate(self, size: int) -> int:
        """Allocate `size` bytes of device memory."""
        return self._made("cudaMalloc", ctypes.c_size_t(size))

    def allocate_host(self, size: int) -> int:
        """Allocate `size` bytes of pinned host memory."""
        return self._made("cudaMallocHost", ctypes.c_size_t(size))

    def free(self, pointer: int) -> None:
        self._call("cudaFree", ctypes.c_void_p(pointer))

    def free_host(self, pointer: int) -> None:
        self._call("cudaFreeHost", ctypes.c_void_p(pointer))

    def stream(self) -> int:
        """Create a stream that does not wait for the default one."""
        return self._made("cudaStreamCreateWithFlags", _NON_BLOCKING)

    def event(self) -> int:
        return self._made("cudaEventCreate")

    def record(self, event: int, stream: int) -> None:
        self._call("cudaEventRecord", ctypes.c_void_p(event), ctypes.c_void_p(stream))

    def elapsed_ms(self, start: int, end: int) -> float:
        """Return the milliseconds between two events that have occurred."""
        value = ctypes.c_float()
        self._call("cudaEventElapsedTime", ctypes.byref(value), ctypes.c_void_p(start), ctypes.c_void_p(end))
        return value.value

    def copy(self, to: int, source: int, size: int, kind: int, stream: int) -> None:
        """Enqueue a copy of `size` bytes; `kind` is HOST_TO_DEVICE or DEVICE_TO_HOST."""
        pointers = ctypes.c_void_p(to), ctypes.c_void_p(source)
        self._call("cudaMemcpyAsync", *pointers, ctypes.c_size_t(size), kind, ctypes.c_void_p(stream))

    def wait(self, stream: int) -> None:
        """Wait until all work of the stream is done."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def begin_capture(self, stream: int) -> None:
        """Record the work that is enqueued from now on, instead of executing it."""
        self._call("cudaStreamBeginCapture", ctypes.c_void_p(stream), _CAPTURE_THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """Return the recorded work as a graph that can be launched."""
        graph = ctypes.c_void_p()
        self._call("cudaStreamEndCapture", ctypes.c_void_p(stream), ctypes.byref(graph))
        # Five arguments in CUDA 11, three since CUDA 12: zeros are right for both.
        none = ctypes.c_void_p(None)
        launchable = self._made("cudaGraphInstantiate", graph, none, none, ctypes.c_size_t(0))
        self._call("cudaGraphDestroy", graph)
        return launchable

    def launch(self, graph: int, stream: int) -> None:
        self._call("cudaGraphLaunch", ctypes.c_void_p(graph), ctypes.c_void_p(stream))
