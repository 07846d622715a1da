"""LiteRT: ``ai-edge-litert`` if it is installed, else ``tflite-runtime``.

Options of a job: ``api`` ("interpreter" or "compiled-model"), ``accelerator`` ("cpu", "gpu" or "npu"), ``xnnpack``
(false: LiteRT's own kernels) and ``emulated`` (true: a GPU in software is accepted). A GPU or NPU is requested without
the CPU as a fallback, and the compiled model is checked: the accelerator runs all operators, or there is an error.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple

import numpy as np

from . import NOT_ACCELERATED, litert_layers
from .runner import Runner

try:
    from ai_edge_litert.interpreter import Interpreter

    PACKAGE = "ai-edge-litert"
except ImportError:
    from tflite_runtime.interpreter import Interpreter

    PACKAGE = "tflite-runtime"

_DEFAULTS = {"api": "interpreter", "accelerator": "cpu", "xnnpack": True, "emulated": False}
_ADAPTER = re.compile(r"Selected adapter: (.*?), arch=.*adapterType=(.*)")
# Line of the log about an operator that a delegate rejects: "CONV_2D: Tensor type(INT16) is not supported. name".
_REFUSED = re.compile(r"[A-Z][A-Z0-9_]{2,}: [^.]*(?=\.)")
_MARKS = ("ERROR", "WARNING", "INFO", "VERBOSE", "DEBUG")
_MOST_REASON = 300


class TfliteRunner(Runner):
    """Runs a ``.tflite`` file with one image input and one output, float32 or 8 bits.

    Raises:
        ValueError: options that do not go together, or not with this package. RuntimeError: the accelerator is not
            there, is software, or does not run the whole model.
    """

    def __init__(self, path: str, threads: int, options: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(path, threads, options)
        self.wanted = dict(_DEFAULTS, **self.options)
        _check(self.wanted)
        kind: Any = _Compiled if self.wanted["api"] == "compiled-model" else _Interpreted
        self.model = kind(path, threads, self.wanted)
        self.layers_by: Dict[str, Any] = {}

    def infer(self, image: np.ndarray) -> np.ndarray:
        raw = self.model.run(_to_type(image, self.model.input))
        return _to_float(raw, self.model.output)

    def info(self) -> Dict[str, Any]:
        said = {"runtime": PACKAGE, "version": _version(PACKAGE), "processor": "cpu"}
        said.update({name: self.wanted[name] for name in ("api", "accelerator")})
        if self.wanted["accelerator"] == "cpu":
            said["xnnpack"] = self.wanted["xnnpack"]
        said.update(self.model.described)
        said.update(self.layers_by)
        return said

    def layer_times(self, inputs: Sequence[np.ndarray], count: int) -> List[Tuple[str, float]]:
        found: List[Tuple[str, float]] = []
        try:
            if self.wanted["accelerator"] != "cpu":
                raise RuntimeError("LiteRT has no operator times on a {}".format(self.wanted["accelerator"].upper()))
            images = [_to_type(image, self.model.input) for image in inputs[: litert_layers.MOST_IMAGES]]
            request = {"threads": self.threads, "xnnpack": self.wanted["xnnpack"], "count": count}
            found, whole = litert_layers.layer_times(self.path, _interpreter(self.path, 1, False), images, request)
            self.layers_by = {"layers_by": litert_layers.METHOD, "layers_run_ms": whole}
        except (OSError, RuntimeError, ValueError) as error:
            self.layers_by = {"no_layers": str(error)[:_MOST_REASON]}
        return found

    def close(self) -> None:
        self.model.close()


def _check(wanted: Dict[str, Any]) -> None:
    if wanted["api"] not in ("interpreter", "compiled-model"):
        raise ValueError("unknown api {!r}; known: interpreter, compiled-model".format(wanted["api"]))
    if wanted["accelerator"] not in ("cpu", "gpu", "npu"):
        raise ValueError("unknown accelerator {!r}; known: cpu, gpu, npu".format(wanted["accelerator"]))
    if wanted["accelerator"] != "cpu" and wanted["api"] != "compiled-model":
        raise ValueError('a {} needs api = "compiled-model"'.format(wanted["accelerator"].upper()))
    if PACKAGE == "tflite-runtime" and wanted["api"] == "compiled-model":
        raise ValueError('tflite-runtime has no CompiledModel: install ai-edge-litert, or set api = "interpreter"')


class _Interpreted:
    """Runs a model in an `Interpreter`."""

    def __init__(self, path: str, threads: int, wanted: Dict[str, Any]) -> None:
        self.interpreter = _interpreter(path, threads, wanted["xnnpack"])
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]
        self.output = self.interpreter.get_output_details()[0]
        self.described = _coverage(self.interpreter)

    def run(self, values: np.ndarray) -> np.ndarray:
        self.interpreter.set_tensor(self.input["index"], values)
        self.interpreter.invoke()
        answer: np.ndarray = self.interpreter.get_tensor(self.output["index"])[0]
        return answer

    def close(self) -> None:
        del self.interpreter


class _Compiled:
    """Runs a model in a `CompiledModel`, on one accelerator."""

    def __init__(self, path: str, threads: int, wanted: Dict[str, Any]) -> None:
        plain = _interpreter(path, 1, False)  # scales and zero points are available here only
        self.input, self.output = plain.get_input_details()[0], plain.get_output_details()[0]
        self.count = int(np.prod(self.output["shape"]))
        self.model, log = _compile(path, threads, wanted)
        self.described: Dict[str, Any] = {"fully_accelerated": self.model.is_fully_accelerated()}
        if wanted["accelerator"] != "cpu":
            self.described["processor"] = _adapter(log)[0] or wanted["accelerator"]
        self.inputs, self.outputs = self.model.create_input_buffers(0), self.model.create_output_buffers(0)

    def run(self, values: np.ndarray) -> np.ndarray:
        self.inputs[0].write(values)
        self.model.run_by_index(0, self.inputs, self.outputs)
        answer: np.ndarray = self.outputs[0].read(self.count, self.output["dtype"])
        return answer

    def close(self) -> None:
        with _native_log():
            del self.inputs, self.outputs, self.model


def _interpreter(path: str, threads: int, xnnpack: bool) -> Any:
    """Return an `Interpreter` with LiteRT's default delegate, or with none."""
    if xnnpack:
        return Interpreter(model_path=path, num_threads=threads)
    kinds = sys.modules[Interpreter.__module__].OpResolverType
    plain = kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return Interpreter(model_path=path, num_threads=threads, experimental_op_resolver_type=plain)


def _coverage(interpreter: Any) -> Dict[str, Any]:
    """Return the number of operators that the delegate runs, and of their parts; empty if unknown.

    The node of a delegate follows those of the file; it runs the operators between its inputs and outputs.
    """
    try:
        nodes = interpreter._get_ops_details()
    except (AttributeError, RuntimeError, ValueError):
        return {}
    own = [node for node in nodes if node["op_name"] != "DELEGATE"]
    parts = [node for node in nodes if node["op_name"] == "DELEGATE"]
    writes = {int(tensor): node["index"] for node in own for tensor in node["outputs"]}
    reads = {node["index"]: [int(tensor) for tensor in node["inputs"]] for node in own}
    covered: Set[int] = set()
    for part in parts:
        border, left = {int(tensor) for tensor in part["inputs"]}, [int(tensor) for tensor in part["outputs"]]
        while left:
            tensor = left.pop()
            node = writes.get(tensor)
            if tensor not in border and node is not None and node not in covered:
                covered.add(node)
                left.extend(reads[node])
    return {"ops": len(own), "delegated_ops": len(covered), "partitions": len(parts)}


def _compile(path: str, threads: int, wanted: Dict[str, Any]) -> Any:
    """Compile a model; return it and LiteRT's log.

    Raises:
        RuntimeError: the accelerator that is wanted did not take all of it; the message says what to do.
    """
    accelerator = wanted["accelerator"]
    error, model = "", None
    with _native_log() as read:
        create = _creator(path, threads, accelerator, wanted["xnnpack"])
        try:
            model = create()
        except RuntimeError as failed:
            error = str(failed)
        log = read()
        whole = model is not None and model.is_fully_accelerated()
        name, kind = _adapter(log)
        software = "CPU" in kind and not wanted["emulated"]
        if accelerator != "cpu" and (software or not whole):
            model = None  # freed while its last messages are still captured
    if model is not None:
        return model, log
    if accelerator == "cpu":
        raise RuntimeError("LiteRT cannot compile the model: " + _reason(log, error))
    if software:
        why = "the GPU here is software ({}), a CPU under a GPU's name".format(name)
    else:
        why = "the {} does not run the whole model ({})".format(accelerator.upper(), _reason(log, error))
    raise RuntimeError("{}: {}; there is no silent fallback to the CPU".format(NOT_ACCELERATED, why))


def _creator(path: str, threads: int, accelerator: str, xnnpack: bool) -> Callable[[], Any]:
    """Return the function that creates a model on this accelerator only.

    Raises:
        ValueError: this ai-edge-litert is too old.
    """
    try:
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.cpu_kernel_mode import CpuKernelMode
        from ai_edge_litert.hardware_accelerator import HardwareAccelerator
        from ai_edge_litert.options import CpuOptions, Options
    except ImportError as error:
        raise ValueError(
            "CompiledModel with options needs ai-edge-litert 2.3 or newer, this is {} ({}): pip install -U "
            "ai-edge-litert".format(_version(PACKAGE), error)
        ) from None
    mode = CpuKernelMode.DELEGATE if xnnpack else CpuKernelMode.BUILTIN
    options = Options(
        hardware_accelerators=HardwareAccelerator[accelerator.upper()],
        cpu_options=CpuOptions(num_threads=threads, kernel_mode=mode) if accelerator == "cpu" else None,
    )
    return lambda: CompiledModel.from_file(path, options=options)


@contextlib.contextmanager
def _native_log() -> Iterator[Callable[[], str]]:
    """Capture standard error, where LiteRT logs; the value returns the log so far."""
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as log:

        def read() -> str:
            log.seek(0)
            said = log.read().decode("utf-8", "replace")
            log.seek(0, os.SEEK_END)
            return said

        os.dup2(log.fileno(), 2)
        try:
            yield read
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)


def _adapter(log: str) -> List[str]:
    """Return name and kind of the GPU that LiteRT chose; empty if its log does not have them."""
    found = _ADAPTER.search(log)
    return [found.group(1).strip(), found.group(2).strip()] if found else ["", ""]


def _reason(log: str, error: str) -> str:
    """Return the operators that a delegate rejects, else the first error or last warning of the log or exception."""
    lines = log.splitlines()
    refused = sorted(
        {found.group(0) for found in map(_REFUSED.match, lines) if found and not found.group(0).startswith(_MARKS)}
    )
    if refused:
        return "; ".join(refused)[:_MOST_REASON]
    errors = [line for line in lines if line.startswith("ERROR: ")]
    warnings = [line for line in lines if line.startswith("WARNING: [")]
    chosen = errors[:1] or warnings[-1:] or error.splitlines()[-1:] or ["no reason given"]
    return re.sub(r"^(ERROR|WARNING): (\[[^]]*\] ?)?", "", chosen[0])[:_MOST_REASON]


def _to_type(values: np.ndarray, detail: Dict[str, Any]) -> np.ndarray:
    """Quantize float32 to the tensor's dtype, by its scale and zero point; values of that dtype are unchanged."""
    if detail["dtype"] == values.dtype:
        return values
    scale, zero_point = detail["quantization"]
    if scale == 0 or values.dtype != np.float32:
        raise ValueError("the model takes {}, not {}".format(np.dtype(detail["dtype"]), values.dtype))
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(detail["dtype"])


def _to_float(values: np.ndarray, detail: Dict[str, Any]) -> np.ndarray:
    scale, zero_point = detail["quantization"]
    if detail["dtype"] == np.float32 or scale == 0:
        return values.astype(np.float32, copy=False)
    return ((values.astype(np.float32) - zero_point) * scale).astype(np.float32)


def _version(package: str) -> str:
    from importlib import metadata

    return metadata.version(package)
