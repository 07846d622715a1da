"""TensorRT engines with trtexec, where there is no Python API. Not verified on hardware.

trtexec measures by itself, as its raw times say; the answers cost one process an image.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from . import build, trtexec
from .runner import Runner
from .tensorrt_api import BuildError

_INPUT, _OUTPUT = "image", "scores"  # names in all ONNX files of edgekit


class TrtexecRunner(Runner):
    """Runs an engine with trtexec, which loads it for each call."""

    steady = False

    def __init__(self, path: str, threads: int, options: Optional[Dict[str, Any]] = None) -> None:
        """
        Raises:
            RuntimeError: there is no trtexec, or the engine was built by another version.
        """
        super().__init__(path, threads, options)
        program = trtexec.find(self.options.get("trtexec", ""))
        if program is None:
            raise BuildError("trtexec was not found")
        self.program, self.version = program, trtexec.version(program)
        self.dla_core = self.options.get("dla_core")
        self.graph = bool(self.options.get("cuda_graph", True))
        text = ".".join(map(str, self.version))
        build.check_fit(self.options.get("built"), {"tensorrt": text, "dla_core": self.dla_core})
        self.folder = tempfile.mkdtemp(prefix="ondevice-")
        self.computed: List[int] = []

    def _path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def _run(self, inputs: Sequence[np.ndarray], *flags: str) -> str:
        np.ascontiguousarray(inputs[0], np.float32).tofile(self._path("image"))
        command = [self.program, "--loadEngine={}".format(self.path)]
        command.append("--loadInputs={}:{}".format(_INPUT, self._path("image")))
        if self.dla_core is not None:
            command.append("--useDLACore={}".format(self.dla_core))
        done = trtexec.run([*command, *flags])
        if done.returncode != 0:
            raise BuildError("trtexec failed: {}".format(trtexec.failure(done.stdout)))
        return done.stdout

    def infer(self, image: np.ndarray) -> np.ndarray:
        path = self._path("output.json")
        self._run([image], "--iterations=1", "--duration=0", "--warmUp=0", "--exportOutput={}".format(path))
        return np.array(trtexec.read_output(path, _OUTPUT), np.float32)

    def measure(self, inputs: Sequence[np.ndarray], limits: Dict[str, Any]) -> Optional[List[int]]:
        path = self._path("times.json")
        flags = trtexec.measure_flags(self.version[:2], limits, self.graph)
        said = self._run(inputs, *flags, "--exportTimes={}".format(path))
        self.graph = self.graph and "--useCudaGraph flag has been ignored" not in said
        latencies, self.computed = trtexec.read_times(path)
        return latencies

    def compute_times(self, inputs: Sequence[np.ndarray], count: int) -> List[int]:
        return self.computed

    def layer_times(self, inputs: Sequence[np.ndarray], count: int) -> List[Tuple[str, float]]:
        path = self._path("profile.json")
        flags = ["--iterations={}".format(count), "--duration=0", "--profilingVerbosity=detailed"]
        if self.version >= (11, 0, 0):
            flags.append("--noCudaGraph")
        self._run(inputs, *flags, "--exportProfile={}".format(path))
        return trtexec.read_profile(path)

    def info(self) -> Dict[str, Any]:
        where = "GPU" if self.dla_core is None else "DLA {} and GPU".format(self.dla_core)
        return {
            "runtime": "trtexec",
            "version": ".".join(map(str, self.version)),
            "processor": where,
            "cuda_graph": self.graph,
            "transfers": "in and out",
        }

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
