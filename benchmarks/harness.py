"""Measure the overhead of edgekit's measurement loop; writes results/harness.json.

Floor: the loop around a runner that does nothing. Loop: the runner's latencies over those of a bare loop around the
same Interpreter, in turns in one process. Agreement: medians of whole processes of edgekit's runner, through either
API, over those of ``litert-benchmark``, in turns, on the CPU with one thread. ``litert-benchmark`` uses CompiledModel,
rounds to 0.01 ms and times the run alone, without input and output.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.ondevice import measure
from edgekit.ondevice.environment import busy_share, environment
from edgekit.ondevice.runner import Runner, open_runner

RESULT = Path(__file__).parent / "results" / "harness.json"
BLOCKS, QUERIES = 40, 60  # of each loop
ROUNDS, RUNS, WARMUP = 12, 300, 50  # processes of each program; queries of each process
NULL_QUERIES = 20_000
DRAWS = 4000
CLOCKS: dict[str, Callable[[], int]] = {"wall": time.perf_counter_ns, "cpu": time.thread_time_ns}
_UNLIMITED = {"min_s": 0.0, "max_s": 3600.0}


def floor() -> dict[str, float]:
    """Return, in nanoseconds, the latency of an empty query and the CPU time of one turn of the loop."""
    runner, image = open_runner("null", "", 1), [np.zeros((1, 8, 8, 3), np.float32)] * 32
    latencies, turns = [], []
    for _ in range(5):
        begin = _spent(lambda: measure.measure(runner.infer, image, {"min_queries": 1, **_UNLIMITED}))
        limits = {"min_queries": NULL_QUERIES + 1, **_UNLIMITED}
        turns.append(_spent(lambda: latencies.extend(measure.measure(runner.infer, image, limits))) - begin)  # noqa: B023
    return {"latency_ns": statistics.median(latencies), "turn_ns": round(min(turns) / NULL_QUERIES, 1)}


def _spent(work: Callable[[], object]) -> int:
    started = time.thread_time_ns()
    work()
    return time.thread_time_ns() - started


def _bare(runner: Any, image: np.ndarray, clock: Callable[[], int], queries: int) -> list[int]:
    """Run a hand-written loop around the Interpreter of the runner."""
    interpreter, source, target = runner.model.interpreter, runner.model.input["index"], runner.model.output["index"]
    found = []
    for _ in range(queries):
        started = clock()
        interpreter.set_tensor(source, image)
        interpreter.invoke()
        interpreter.get_tensor(target)
        found.append(clock() - started)
    return found


def _ours(runner: Runner, image: np.ndarray, clock: Callable[[], int], queries: int) -> list[int]:
    return measure.measure(runner.infer, [image], {"min_queries": queries, **_UNLIMITED}, clock)


def loops(model: Path, blocks: int = BLOCKS) -> dict[str, Any]:
    """Compare both loops in turns, in random order, by wall time and by the CPU time of the thread."""
    runner = open_runner("litert", str(model), 1)
    image = np.random.default_rng(0).normal(size=runner.model.input["shape"]).astype(np.float32)  # type: ignore[attr-defined]
    order = np.random.default_rng(1)
    _ours(runner, image, time.perf_counter_ns, WARMUP)
    ratios: dict[str, Any] = {}
    for name, clock in CLOCKS.items():
        medians: dict[str, list[float]] = {"edgekit": [], "bare": []}
        for _ in range(blocks):
            for which in order.permutation(["edgekit", "bare"]):
                loop: Callable[..., list[int]] = _ours if which == "edgekit" else _bare
                loop(runner, image, clock, 2)
                medians[which].append(statistics.median(loop(runner, image, clock, QUERIES)))
        ratios[name] = _ratio(**medians)
    runner.close()
    return ratios


def _ratio(edgekit: list[float], bare: list[float]) -> dict[str, float]:
    """Return edgekit's median over the other one with a 95 % interval, by bootstrap over pairs of blocks."""
    pairs = np.array([edgekit, bare])
    drawn = np.median(pairs[:, np.random.default_rng(0).integers(0, pairs.shape[1], (DRAWS, pairs.shape[1]))], axis=2)
    low, high = np.quantile(drawn[0] / drawn[1], (0.025, 0.975))
    ours, theirs = np.median(pairs, axis=1)
    return {
        "ratio": round(float(ours / theirs), 4), "low": round(float(low), 4), "high": round(float(high), 4),
        "edgekit_ms": round(float(ours) / 1e6, 4), "other_ms": round(float(theirs) / 1e6, 4),
    }  # fmt: skip


def agreement(model: Path, scratch: Path, rounds: int = ROUNDS) -> dict[str, Any]:
    """Compare whole processes of edgekit's runner, through either API, with litert-benchmark, in turns."""
    runner = open_runner("litert", str(model), 1)
    height, width = runner.model.input["shape"][1:3]  # type: ignore[attr-defined]
    runner.close()
    np.save(scratch / "pixels.npy", np.random.default_rng(0).integers(0, 256, (8, height, width, 3), np.uint8))
    medians: dict[str, list[float]] = {"compiled-model": [], "interpreter": [], "litert-benchmark": []}
    for _ in range(rounds):
        for api in ("compiled-model", "interpreter"):
            medians[api].append(statistics.median(_job(model, scratch, api)))
        medians["litert-benchmark"].append(_litert_benchmark(model, scratch))
    return {api: _ratio(medians[api], medians["litert-benchmark"]) for api in ("compiled-model", "interpreter")}


def _job(model: Path, scratch: Path, api: str) -> list[float]:
    """Run a job as a device does and return its latencies in nanoseconds."""
    limits = {"warmup_queries": WARMUP, "warmup_s": 0.0, "min_queries": RUNS, **_UNLIMITED}
    job = {
        "model": str(model.resolve()), "runtime": "litert", "options": {"api": api}, "threads": 1,
        "pixels": "pixels.npy", "mean": [0.5] * 3, "std": [0.25] * 3, "layout": "NHWC", "limits": limits, "out": api,
    }  # fmt: skip
    (scratch / "job.json").write_text(json.dumps(job), encoding="utf-8")
    for part in (scratch / api).glob("*.part.npy*"):
        part.unlink()
    command = [sys.executable, "-m", "edgekit.ondevice", str(scratch / "job.json")]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run(command, check=True, cwd=scratch, env=here, capture_output=True)  # hides its progress
    return [float(ns) for ns in np.load(scratch / api / "latencies_ns.npy")]


def _litert_benchmark(model: Path, scratch: Path) -> float:
    """Run litert-benchmark and return its median in nanoseconds."""
    path = scratch / "result.json"
    program = Path(sys.executable).parent / "litert-benchmark"
    flags = [f"--num_runs={RUNS}", f"--warmup_runs={WARMUP}", "--num_threads=1", f"--result_json={path}"]
    subprocess.run([program, "--model", model, *flags], check=True, capture_output=True)
    return 1e6 * float(json.loads(path.read_text(encoding="utf-8"))["latency"]["median_ms"])


def make(path: Path) -> None:
    """Write a model that takes about a millisecond: MobileNetV2, random weights, 96 pixels."""
    import litert_torch
    import torch
    from torchvision.models import mobilenet_v2

    torch.manual_seed(0)
    network = litert_torch.to_channel_last_io(mobilenet_v2(num_classes=10).eval(), args=[0])
    litert_torch.convert(network, (torch.zeros(1, 96, 96, 3),)).export(str(path))


def _made(folder: Path) -> Path:
    """Make the model in a separate process, because torch's objects would slow down the garbage collector."""
    path = folder / "model.tflite"
    code = f"from pathlib import Path; from benchmarks.harness import make; make(Path({str(path)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1], capture_output=True)
    return path


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--model", type=Path, help=".tflite file with float input; default: MobileNetV2 with random weights"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="processes of each program")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model = options.model or _made(Path(name))
        busy = busy_share()
        found = {
            "environment": environment(), "busy_before": round(busy, 3), "model": model.name, "floor": floor(),
            "loop": loops(model), "litert-benchmark": agreement(model, Path(name), options.rounds),
        }  # fmt: skip
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: found[name] for name in ("busy_before", "floor", "loop", "litert-benchmark")}, indent=1))


if __name__ == "__main__":
    main()
