"""A double of NVIDIA's trtexec: it takes the flags that each version takes, prints and writes as the real one does.

Sources: NVIDIA/TensorRT, samples/common/sampleOptions.cpp (flags), sampleReporting.cpp (exported files); logs of 8.6.3
in issue 3747 and of 8.5.10 in issue 4106 of NVIDIA/TensorRT; a layer profile in issue 3842; DLA warnings in issue 3 of
NVIDIA-AI-IOT/jetson_dla_tutorial, where layers run in issue 23488 of ultralytics/ultralytics (8.5) and, by 10.3, only
with --verbose; `TensorRT 11` defaults in its release notes.

Environment: DOUBLE_TRT_NUMBER (8502, 100300, ...; what it greets with), DOUBLE_TRT_FAIL (it fails with these words),
DOUBLE_TRT_GARBAGE (files that it writes are cut off).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from tests.doubles import engine

NUMBER = int(os.environ.get("DOUBLE_TRT_NUMBER", "100300"))
VERSION = (NUMBER // 10_000, NUMBER // 100 % 100) if NUMBER >= 100_000 else (NUMBER // 1000, NUMBER // 100 % 10)
TEXT = ".".join(map(str, (*VERSION, NUMBER % 100)))
# Flag -> (first version, first version without it).
FLAGS = {
    "onnx": ((8, 0), (99, 0)), "saveEngine": ((8, 0), (99, 0)), "loadEngine": ((8, 0), (99, 0)),
    "buildOnly": ((8, 0), (10, 0)), "skipInference": ((8, 6), (99, 0)), "profilingVerbosity": ((8, 4), (99, 0)),
    "fp16": ((8, 0), (11, 0)), "int8": ((8, 0), (11, 0)), "calib": ((8, 0), (11, 0)), "noTF32": ((8, 0), (11, 0)),
    "stronglyTyped": ((9, 0), (11, 0)), "memPoolSize": ((8, 4), (99, 0)), "timingCacheFile": ((8, 0), (99, 0)),
    "useDLACore": ((8, 0), (99, 0)), "allowGPUFallback": ((8, 0), (99, 0)), "iterations": ((8, 0), (99, 0)),
    "duration": ((8, 0), (99, 0)), "warmUp": ((8, 0), (99, 0)), "loadInputs": ((8, 0), (99, 0)),
    "exportOutput": ((8, 0), (99, 0)), "exportTimes": ((8, 0), (99, 0)), "exportProfile": ((8, 0), (99, 0)),
    "useCudaGraph": ((8, 0), (99, 0)), "exposeDMA": ((8, 0), (99, 0)),
    "useSpinWait": ((8, 0), (99, 0)), "noCudaGraph": ((11, 0), (99, 0)),
    "includeDataTransfers": ((11, 0), (99, 0)), "help": ((8, 0), (99, 0)),
    "verbose": ((8, 0), (99, 0)),
}  # fmt: skip


def say(text: str, level: str = "I") -> None:
    print(f"[11/25/2026-12:00:00] [{level}] {text}", flush=True)


def fail(*lines: str) -> int:
    for line in lines:
        say(line, "E")
    print(f"&&&& FAILED TensorRT.trtexec [TensorRT v{NUMBER}] # {' '.join(sys.argv)}")
    return 1


def main(arguments: list[str]) -> int:
    print(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{NUMBER}] # trtexec {' '.join(arguments)}")
    given = dict(a.removeprefix("--").partition("=")[::2] for a in arguments)
    for name in given:
        if name not in FLAGS or not FLAGS[name][0] <= VERSION < FLAGS[name][1]:
            return fail(f"Unknown option: --{name}")
    if "help" in given:
        print("=== Model Options ===\n  --onnx=<file>               ONNX model")
        return 0
    say("=== Device Information ===")
    say("Selected Device: Orin (a double)")
    say("Compute Capability: 8.7")
    say(f"TensorRT version: {TEXT}")
    if words := os.environ.get("DOUBLE_TRT_FAIL"):
        return fail(words)
    return build(given) if "onnx" in given else infer(given)


def build(given: dict[str, str]) -> int:
    onnx = Path(given["onnx"]).read_bytes()
    try:
        engine.session(onnx)
    except Exception:
        return fail("ModelImporter.cpp:735: Failed to parse ONNX model from file: " + given["onnx"])
    say("Finished parsing network model. Parse time: 0.1")
    if "calib" in given:
        header = Path(given["calib"]).read_text().splitlines()[0]
        if header != f"TRT-{NUMBER}-EntropyCalibration2":
            return fail("Calibration table does not match calibrator algorithm type.")
    if "useDLACore" in given:
        say(
            "[TRT] Layer 'node_linear' (MATRIX_MULTIPLY): Unsupported on DLA. "
            "Switching this layer's device type to GPU.",
            "W",
        )
        say_placement("verbose" in given)
    if "verbose" in given:
        say("[TRT] Trying tactic after tactic", "V")
    if "timingCacheFile" in given:
        path = Path(given["timingCacheFile"])
        say(f"Loaded {path.stat().st_size} bytes of timing cache" if path.is_file() else "new timing cache")
        path.write_bytes(b"timings " + str(NUMBER).encode())
    weak = [name for name in ("fp16", "int8", "stronglyTyped") if name in given]
    Path(given["saveEngine"]).write_bytes(engine.pack(onnx, version=TEXT, flags=weak, dla=given.get("useDLACore")))
    say("Engine built in 1.2 sec.")
    print(f"&&&& PASSED TensorRT.trtexec [TensorRT v{NUMBER}] # {' '.join(sys.argv)}")
    return 0


def say_placement(verbose: bool) -> None:
    if VERSION < (10, 0):
        say("[TRT] ---------- Layers Running on DLA ----------")
        say("[TRT] [DlaLayer] {ForeignNode[node_conv2d...n4]}")
        say("[TRT] ---------- Layers Running on GPU ----------")
        say("[TRT] [GpuLayer] MATRIX_MULTIPLY: node_linear")
    elif verbose:
        say("[TRT] {ForeignNode[node_conv2d...n4]} successfully offloaded to DLA.", "V")
        say("[TRT] [GpuLayer] MATRIX_MULTIPLY: node_linear", "V")


def infer(given: dict[str, str]) -> int:
    try:
        built, onnx = engine.unpack(Path(given["loadEngine"]).read_bytes())
    except ValueError:
        built, onnx = {"version": "none"}, b""
    if built["version"] != TEXT:
        return fail(
            "Error[1]: [stdArchiveReader.cpp::StdArchiveReader::35] Error Code 1: Serialization (Serialization "
            "assertion stdVersionRead == kSERIALIZATION_VERSION failed.Version tag does not match.)",
            "Engine deserialization failed",
        )
    opened = engine.session(onnx)
    shape = opened.get_inputs()[0].shape
    path = given["loadInputs"].partition(":")[2]
    image = np.fromfile(path, np.float32).reshape(shape)
    count = max(1, int(given.get("iterations", "10")))
    times, scores = [], None
    for _ in range(count):
        start = time.perf_counter()
        scores = engine.run(opened, image)
        ms = 1e3 * (time.perf_counter() - start)
        times.append({"startEnqMs": 0, "endEnqMs": 0, "startH2dMs": 0, "endH2dMs": 0, "startComputeMs": 0,
                      "endComputeMs": 0, "startD2hMs": 0, "endD2hMs": 0, "h2dMs": 0.01, "computeMs": ms, "d2hMs": 0.005,
                      "latencyMs": ms + 0.015})  # fmt: skip
    assert scores is not None
    dimensions = "x".join(map(str, scores.shape))
    export(given, "exportTimes", times)
    export(given, "exportOutput", [{"name": "scores", "dimensions": dimensions, "values": scores.ravel().tolist()}])
    layers = [
        {"name": n, "timeMs": 5.0, "averageMs": a, "medianMs": a, "percentage": p}
        for n, a, p in (("Reformatting CopyNode for Input Tensor 0 to node_conv2d", 0.01, 10.0),
                        ("node_conv2d + n4", 0.06, 60.0), ("node_linear", 0.03, 30.0))
    ]  # fmt: skip
    export(given, "exportProfile", [{"count": count}, *layers])
    print(f"&&&& PASSED TensorRT.trtexec [TensorRT v{NUMBER}] # {' '.join(sys.argv)}")
    return 0


def export(given: dict[str, str], flag: str, content: object) -> None:
    if flag in given:
        text = json.dumps(content)
        cut = "DOUBLE_TRT_GARBAGE" in os.environ
        Path(given[flag]).write_text(text[: len(text) // 2] if cut else text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
