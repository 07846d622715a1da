"""Layer times of a ``.tflite`` file: assign the events of LiteRT's profiler to operators.

Operators that LiteRT runs by itself come with their place in the file. XNNPACK names its own operators by what they
are ("Fully Connected (NC, QS8, QC8W) GEMM"), in the order in which they run, which is the file's: it joins some
(PAD into a convolution), drops some (DEQUANTIZE of weights), adds some (copies), but neither joins nor drops one with
weights. So those must agree, one by one, or no name is given; what lies between two of them is told by its kind.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from . import litert_profile

Operator = Tuple[str, str]  # kind, such as CONV_2D, and name of the output tensor
METHOD = "LiteRT's profiler (CompiledModel)"
MOST_IMAGES = 8
_LIBRARY = "libLiteRt.so"
# The modules may be in a .zip file; the child process finds them where this one does.
_CODE = "import sys; sys.path[:] = sys.argv[2:]; from {} import main; main(sys.argv[1])"
_SECONDS, _LONGEST = 1.0, 60
# Beginning of XNNPACK's name of an operator -> kinds of the operator in a file.
_WEIGHTED = {
    "Convolution": ("CONV_2D", "DEPTHWISE_CONV_2D"),
    "Fully Connected": ("CONV_2D", "FULLY_CONNECTED"),
    "Deconvolution": ("TRANSPOSE_CONV",),
    "Batch Matrix Multiply": ("BATCH_MATMUL",),
}
_OTHERS = {
    "Add": ("ADD",), "Subtract": ("SUB",), "Multiply": ("MUL",), "Divide": ("DIV",), "Mean": ("MEAN",),
    "Sum": ("SUM",), "Sigmoid": ("LOGISTIC",), "Softmax": ("SOFTMAX",), "HardSwish": ("HARD_SWISH",),
    "Constant Pad": ("PAD", "PADV2"), "Max Pooling": ("MAX_POOL_2D",), "Average Pooling": ("AVERAGE_POOL_2D",),
    "Transpose": ("TRANSPOSE",), "Convert": ("QUANTIZE", "DEQUANTIZE"), "GELU": ("GELU",), "Clamp": ("RELU6", "RELU"),
    "Slice": ("SLICE", "STRIDED_SLICE"), "Copy": ("RESHAPE", "CONCATENATION"),
    "Static Reshape": ("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), "Squared Difference": ("SQUARED_DIFFERENCE",),
    "Reciprocal Square Root": ("RSQRT",),
}  # fmt: skip


def layer_times(
    path: str, interpreter: Any, images: Sequence[np.ndarray], options: Dict[str, Any]
) -> Tuple[List[Tuple[str, float]], float]:
    """Return (tensor/kind, median milliseconds) of each operator that ran, and the median of the whole runs.

    Args:
        interpreter: of the same file, without a delegate. images: of the model's own type.
        options: ``threads``, ``xnnpack`` and ``count``, as `litert_profile` has them.
    Raises:
        RuntimeError: LiteRT gives no profile, or one whose operators are not those of the file.
    """
    package = os.path.dirname(sys.modules[type(interpreter).__module__].__file__ or "")
    library = os.path.join(package, _LIBRARY)
    if not os.path.isfile(library):
        raise RuntimeError("{} has no profiler; ai-edge-litert 2.3 has".format(os.path.basename(package)))
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    operators = [(node["op_name"], names.get(node["outputs"][0], "")) for node in interpreter._get_ops_details()]
    found = _ask(dict(options, library=library, model=os.path.abspath(path)), images)
    return _medians(found["events"], operators), float(np.median(found["runs_ns"])) / 1e6


def _ask(request: Dict[str, Any], images: Sequence[np.ndarray]) -> Dict[str, Any]:
    """Run `litert_profile` in a process of its own; return its reply."""
    with tempfile.TemporaryDirectory(prefix="ondevice-") as folder:
        inputs, out, asked = (os.path.join(folder, name) for name in ("inputs.npy", "out.json", "request.json"))
        np.save(inputs, np.stack(images))
        with open(asked, "w", encoding="utf-8") as file:
            json.dump(dict(request, inputs=inputs, out=out, seconds=_SECONDS), file)
        command = [sys.executable, "-c", _CODE.format(litert_profile.__name__), asked, *sys.path]
        try:
            done = subprocess.run(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=_LONGEST, check=False
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError("LiteRT's profiler takes too long") from None
        if done.returncode != 0:
            lines = done.stderr.decode("utf-8", "replace").splitlines() or ["no word"]
            raise RuntimeError("LiteRT's profiler failed ({}): {}".format(done.returncode, lines[-1][:200]))
        with open(out, encoding="utf-8") as file:
            answer: Dict[str, Any] = json.load(file)
    return answer


def _medians(runs: List[List[List[Any]]], operators: Sequence[Operator]) -> List[Tuple[str, float]]:
    first = [event[:3] for event in runs[0]]
    alike = [run for run in runs if [event[:3] for event in run] == first]
    if not first or len(alike) < len(runs):
        raise RuntimeError("LiteRT's profiler reports different operators in each run")
    names = name_events([(str(tag), int(kind), int(index)) for tag, kind, index in first], operators)
    times = np.median([[event[3] for event in run] for run in alike], axis=0) / 1000
    return [(name, float(ms)) for name, ms in zip(names, times)]


def name_events(events: Sequence[Tuple[str, int, int]], operators: Sequence[Operator]) -> List[str]:
    """Return a name for each event (tag, type, index): ``tensor/KIND`` of its operator, or its tag if it has none.

    Raises:
        RuntimeError: operators with weights that do not agree with the file's.
    """
    found: List[Optional[int]] = [None] * len(events)
    place = 0  # operators before it have been assigned
    for number, (tag, kind, index) in enumerate(events):
        if kind == litert_profile.OPERATOR:
            if index >= len(operators) or operators[index][0] != tag:
                raise RuntimeError("operator {} of the profile is not a {} in the file".format(index, tag))
            found[number], place = index, index + 1
        elif _kinds(tag, _WEIGHTED):
            found[number] = _next_weighted(tag, place, operators)
            place = found[number] + 1  # type: ignore[operator]
        elif _kinds(tag, _OTHERS):
            found[number] = _next_of_kind(_kinds(tag, _OTHERS), place, operators)
            place = place if found[number] is None else found[number] + 1  # type: ignore[operator]
    named = {index for index in found if index is not None}
    missed = [name for n, (kind, name) in enumerate(operators) if _is_weighted(kind) and n not in named]
    if missed:
        raise RuntimeError("the profile lacks {}".format(", ".join(missed[:3])))
    return [
        events[number][0] if index is None else "{}/{}".format(_tensor(index, operators), operators[index][0])
        for number, index in enumerate(found)
    ]


def _tensor(place: int, operators: Sequence[Operator]) -> str:
    """Return the name of an operator's output; padding without a name gets that of the operator that it is for."""
    if operators[place][0] in ("PAD", "PADV2") and place + 1 < len(operators):
        return operators[place + 1][1]
    return operators[place][1]


def _kinds(tag: str, table: Dict[str, Tuple[str, ...]]) -> Tuple[str, ...]:
    return table.get(tag.partition(" (")[0], ())


def _is_weighted(kind: str) -> bool:
    return any(kind in kinds for kinds in _WEIGHTED.values())


def _next_weighted(tag: str, place: int, operators: Sequence[Operator]) -> int:
    """Return the next operator with weights, which must match the tag."""
    following = next((n for n in range(place, len(operators)) if _is_weighted(operators[n][0])), None)
    kind = "" if following is None else operators[following][0]
    wanted = ("DEPTHWISE_CONV_2D",) if "DWConv" in tag else _kinds(tag, _WEIGHTED)
    if following is None or kind not in wanted:
        raise RuntimeError("XNNPACK reports {!r} where the file has {}".format(tag, kind or "nothing"))
    return following


def _next_of_kind(kinds: Tuple[str, ...], place: int, operators: Sequence[Operator]) -> Optional[int]:
    """Return the next operator of a kind before the next one with weights; None if there is none."""
    for number in range(place, len(operators)):
        if operators[number][0] in kinds:
            return number
        if _is_weighted(operators[number][0]):
            return None
    return None
