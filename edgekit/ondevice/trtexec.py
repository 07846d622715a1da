"""NVIDIA's trtexec: its flags by version, and parsers of its output and files.

Formats: the sources of trtexec (NVIDIA/TensorRT, samples/trtexec and samples/common/sampleReporting.cpp) and logs in
NVIDIA's issue tracker, 8.5 to 11. Not verified on hardware.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import Any, Dict, List, Optional, Tuple

from .tensorrt_api import STRONGLY_TYPED_SINCE, TELLS_PLACEMENT, BuildError, Order

_PLACES = ("/usr/src/tensorrt/bin/trtexec",)  # where JetPack installs it, usually not on PATH
_SKIP_INFERENCE_SINCE = (8, 6)
_OTHER_DEFAULTS_SINCE = (11, 0)  # CUDA graph and spin wait on, transfers off
_GREETING = re.compile(r"\[TensorRT v(\d{4,7})\]")


def find(named: str = "") -> Optional[str]:
    """Return the path of trtexec: `named`, else on PATH, else where JetPack installs it."""
    if named:
        return shutil.which(named)
    return next((found for found in map(shutil.which, ("trtexec",) + _PLACES) if found), None)


def version(program: str) -> Tuple[int, int, int]:
    """Return the version that trtexec prints: ``[TensorRT v8502]`` is 8.5.2, ``[TensorRT v101300]`` is 10.13.0.

    Raises:
        BuildError: it does not say.
    """
    done = run([program, "--help"])
    found = _GREETING.search(done.stdout)
    if found is None:
        raise BuildError("{} does not say its version".format(program))
    number = int(found.group(1))
    if number >= 100_000:
        return number // 10_000, number // 100 % 100, number % 100
    return number // 1000, number // 100 % 10, number % 100


def run(command: List[str]) -> subprocess.CompletedProcess[str]:
    """Run a program; standard error is part of its stdout."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        universal_newlines=True, errors="replace", check=False,
    )  # fmt: skip


def build_flags(number: Tuple[int, int], order: Order) -> List[str]:
    """Return the flags that determine the engine, besides the ONNX file."""
    if number >= STRONGLY_TYPED_SINCE:
        flags = ["--stronglyTyped"] if number < (11, 0) else []
    else:
        flags = {"fp16": ["--fp16"], "int8": ["--int8", "--fp16"]}.get(order.precision, [])
    if order.precision == "fp32" and number < (11, 0):
        flags.append("--noTF32")
    if order.workspace_mb is not None:
        flags.append("--memPoolSize=workspace:{}".format(order.workspace_mb))
    if order.dla_core is not None:
        flags += ["--useDLACore={}".format(order.dla_core), "--allowGPUFallback"]
    return flags


def build_command(program: str, number: Tuple[int, int], onnx: str, engine: str, order: Order) -> List[str]:
    """Return the command of a build, without files that not every build has."""
    only = "--skipInference" if number >= _SKIP_INFERENCE_SINCE else "--buildOnly"
    files = ["--onnx={}".format(onnx), "--saveEngine={}".format(engine)]
    verbose = [] if order.dla_core is None else ["--verbose"]
    return [program, *files, only, "--profilingVerbosity=detailed", *verbose, *build_flags(number, order)]


def worth_keeping(output: str) -> List[str]:
    """Return the lines of trtexec's output; of the verbose ones, only where layers run."""
    return [line for line in output.splitlines() if "[V]" not in line or TELLS_PLACEMENT.search(line)]


def measure_flags(number: Tuple[int, int], limits: Dict[str, Any], cuda_graph: bool) -> List[str]:
    """Return the flags for a single stream with transfers, as in the measurement loop, for any version's defaults."""
    other = number >= _OTHER_DEFAULTS_SINCE
    flags = [
        "--warmUp={}".format(round(1000 * limits["warmup_s"])),
        "--duration={}".format(max(1, round(limits["min_s"]))),
        "--iterations={}".format(limits["min_queries"]),
    ]
    if other:
        flags += ["--includeDataTransfers"] + ([] if cuda_graph else ["--noCudaGraph"])
    else:
        # exposeDMA: otherwise the next image is copied during the computation of this one.
        flags += ["--useSpinWait", "--exposeDMA"] + (["--useCudaGraph"] if cuda_graph else [])
    return flags


def failure(output: str) -> str:
    """Return the reason of a failure from trtexec's output: its errors, else its last lines."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [re.sub(r"^\[[^\]]*\] ", "", line) for line in lines if "[E]" in line]
    return "; ".join(errors[:3] or lines[-2:]) or "it said nothing"


def device(output: str) -> Dict[str, str]:
    """Return facts about the GPU from the part "Device Information" of trtexec's output; missing ones are left out."""
    texts = {"gpu": r"Selected Device: (.{1,100})$", "compute_capability": r"Compute Capability: (\d{1,2}\.\d)\s*$"}
    found = {name: re.search(text, output, re.MULTILINE) for name, text in texts.items()}
    return {name: match.group(1).strip() for name, match in found.items() if match}


def read_times(path: str) -> Tuple[List[int], List[int]]:
    """Read the file of ``--exportTimes``: latencies with transfers, and GPU compute times, in nanoseconds.

    Raises:
        BuildError: it is not what trtexec writes.
    """
    entries = _read(path, list)
    try:
        latencies = [round(1e6 * float(e["latencyMs"])) for e in entries]
        computed = [round(1e6 * float(e["computeMs"])) for e in entries]
    except (TypeError, KeyError, ValueError, OverflowError):
        latencies = computed = []
    if not latencies:
        raise BuildError("{} holds no times of trtexec".format(os.path.basename(path)))
    return latencies, computed


def read_profile(path: str) -> List[Tuple[str, float]]:
    """Read the file of ``--exportProfile``: layers and their median time in milliseconds (mean if it has no median).

    Raises:
        BuildError: it is not what trtexec writes.
    """
    layers = []
    try:
        for entry in _read(path, list):
            if "name" in entry:  # the first entry has the number of runs
                layers.append((str(entry["name"]), float(entry.get("medianMs", entry.get("averageMs")))))
    except (TypeError, ValueError, AttributeError, OverflowError):
        raise BuildError("{} holds no profile of trtexec".format(os.path.basename(path))) from None
    return layers


def read_output(path: str, name: str) -> List[float]:
    """Read the file of ``--exportOutput``: the values of one output.

    Raises:
        BuildError: it is not there.
    """
    try:
        values = next(e["values"] for e in _read(path, list) if e["name"] == name)
        return [float(value) for value in values]
    except (TypeError, KeyError, ValueError, OverflowError, StopIteration):
        raise BuildError("{} holds no output {!r}".format(os.path.basename(path), name)) from None


def _read(path: str, kind: type) -> Any:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise BuildError("trtexec wrote no {}: {}".format(os.path.basename(path), error)) from None
    if not isinstance(content, kind):
        raise BuildError("{} is not what trtexec writes".format(os.path.basename(path)))
    return content


_LISTED = re.compile(r"\[(Dla|Gpu)Layer\] *(?:[A-Z0-9_]+: )?(.+?),? *$")
_HEADING = re.compile(r"Layers running on (DLA|GPU): *$")
_REFUSED = re.compile(
    r"Layer '(.+?)' \(\w+\): ?Unsupported on DLA"
    r"|Default DLA is enabled but layer (.+?) is not (?:supported|running) on DLA"
    r"|Validation failed for DLA layer: (.+?)\. Switching to GPU"
)
_OFFLOADED = re.compile(r"(\S.*) successfully offloaded to DLA")


def placement(log: List[str]) -> Dict[str, List[str]]:
    """Return which layers run on the DLA and which fell back to the GPU, from the log of a build.

    8.x lists ``[DlaLayer] ...`` and ``[GpuLayer] KIND: name``; so does 10.x, or it says what was "successfully
    offloaded"; older ones list ``Layers running on DLA:`` and then ``{a,b}, {c}``; all warn of each layer that the
    DLA does not take.
    """
    found: Dict[str, List[str]] = {"dla": [], "gpu": [], "refused": []}
    offloaded: List[str] = []
    following = ""
    for line in log:
        text = re.sub(r"^.*?\[TRT\] *", "", line).strip()
        listed, heading = _LISTED.search(text), _HEADING.search(text)
        if listed:
            found[listed.group(1).lower()].append(listed.group(2))
        elif following and not heading:
            groups = re.split(r"}, *", text) if following == "dla" else text.split(", ")
            found[following] += [group.strip("{}, ") for group in groups if group.strip("{}, ")]
        else:
            refused, sent = _REFUSED.search(text), _OFFLOADED.search(text)
            found["refused"] += [group for group in refused.groups() if group] if refused else []
            offloaded += [sent.group(1)] if sent else []
        following = heading.group(1).lower() if heading else ""
    found["dla"] = found["dla"] or offloaded
    return found
