"""Run one job: build an engine, or measure a model, and write the results.

A job is a JSON file; its paths are relative to it. ``do`` is "measure" (the default) or "build" (see `build`).
A measurement has ``model``, ``runtime``, ``threads``, ``options`` (of the runtime), ``pixels`` (an .npy file, uint8
(N, H, W, 3)), ``input``, ``mean``, ``std``, ``layout`` (see `preprocess`), ``limits`` (see `measure`), ``batch``
(images per query, 1 by default), ``layers`` (false: no layer times), ``power_s`` (duration of the power measurement),
``offline_s`` (duration of the throughput measurement) and ``out`` (a folder).

Files in ``out``: ``latencies_ns.npy`` (int64) and ``logits.npy`` (float32, N x classes); if available,
``warmup_ns.npy`` (int64), ``offline_ns.npy`` (int64, see `passes`), ``compute_ns.npy`` (int64), ``layers.json``
([name, ms] each) and ``power.npy`` (see `power.measure_energy`); at last ``result.json``. A job that was killed
continues with the latencies that it had measured.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any, Callable, Dict, List

import numpy as np

from . import build, jetson, power
from .environment import busy_share, environment, load_average, peak_rss_mb
from .measure import measure, passes, warm_up
from .preprocess import prepare as prepared
from .progress import say
from .runner import Runner, open_runner

# Number of different inputs for the latency measurement; all of them are in memory.
_LATENCY_INPUTS = 32
_COMPUTE_RUNS, _LAYER_RUNS = 200, 50
_PART = "latencies.part.npy"
_WITH_PARENT = "--with-parent"
_GRACE_S = 3.0


def main(arguments: List[str]) -> int:
    """Run a job file. Return the exit status.

    With ``--with-parent`` before it, the job ends when standard input does, which the parent holds open: a runner must
    not go on beside the next measurement when its parent was killed.
    """
    if arguments[:1] == [_WITH_PARENT]:
        threading.Thread(target=_end_with_parent, daemon=True).start()
        arguments = arguments[1:]
    if len(arguments) != 1:
        print("usage: python -m ondevice [{}] JOB.json".format(_WITH_PARENT), file=sys.stderr)
        return 2
    try:
        run_job(arguments[0])
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        print("{}: {}".format(type(error).__name__, error), file=sys.stderr)
        return 1
    return 0


def _end_with_parent() -> None:
    """Interrupt this process when standard input ends, as Ctrl-C does; end it if that takes too long."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(_GRACE_S)
    os._exit(1)


def run_job(path: str) -> Dict[str, Any]:
    """Run a job file; return the contents of result.json."""
    with open(path, encoding="utf-8") as file:
        job = json.load(file)
    base = os.path.dirname(os.path.abspath(path))
    out = os.path.join(base, job["out"])
    os.makedirs(out, exist_ok=True)
    if job.get("do") == "build":
        return build.build(job, base)
    pixels = np.load(os.path.join(base, job["pixels"]), mmap_mode="r", allow_pickle=False)
    busy_before, load_before = busy_share(), load_average()
    say("loading the model")
    runner = open_runner(job["runtime"], os.path.join(base, job["model"]), job["threads"], job.get("options"))
    try:

        def prepare(image: np.ndarray) -> np.ndarray:
            return prepared(image, job)

        batch = job.get("batch", 1)
        inputs = [_stack(pixels, n, batch, prepare) for n in range(min(len(pixels), max(2, _LATENCY_INPUTS // batch)))]
        result = _measure(runner, inputs, job, out)
        logits = _logits(runner, pixels, batch, prepare)
        np.save(os.path.join(out, "logits.npy"), logits)
        result.update(runner.info(), threads=job["threads"], batch=batch, **environment())
    finally:
        runner.close()
    result.update(busy_before=busy_before, load_before=load_before, peak_rss_mb=peak_rss_mb())
    with open(os.path.join(out, "result.json"), "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    return result


def _measure(runner: Runner, inputs: List[np.ndarray], job: Dict[str, Any], out: str) -> Dict[str, Any]:
    """Measure latency, then what would disturb it. Return the state of the board before and after, among others."""
    limits, part = job["limits"], os.path.join(out, _PART)
    before = jetson.state()
    earlier = _earlier(part, [before.get("power_mode"), before.get("clocks_locked"), runner.info()])
    result: Dict[str, Any] = {"resumed": bool(earlier), "warmup_queries": 0}
    latencies = runner.measure(inputs, limits)
    if latencies is None:
        warming = warm_up(runner.infer, inputs, limits)
        result["warmup_queries"] = len(warming)
        if warming and not earlier:  # earlier latencies had another warm-up before them
            np.save(os.path.join(out, "warmup_ns.npy"), np.array(warming, np.int64))

        def keep(so_far: List[int]) -> None:
            _save(part, np.array(so_far, np.int64))
            say("latency: {} queries".format(len(so_far)))

        before = jetson.state()
        latencies = measure(runner.infer, inputs, limits, earlier=earlier, keep=keep)
    result.update({name + "_before": value for name, value in before.items()})
    result.update({name + "_after": value for name, value in jetson.state().items()})
    np.save(os.path.join(out, "latencies_ns.npy"), np.array(latencies, np.int64))
    computed = runner.compute_times(inputs, _COMPUTE_RUNS)
    if computed:
        np.save(os.path.join(out, "compute_ns.npy"), np.array(computed, np.int64))
    if job.get("offline_s"):
        result.update(_offline(runner, inputs, job["offline_s"], out))
    if job.get("power_s"):
        result.update(_energy(runner, inputs, job["power_s"], out))
    layers = runner.layer_times(inputs, _LAYER_RUNS) if job.get("layers", True) else []
    if layers:
        with open(os.path.join(out, "layers.json"), "w", encoding="utf-8") as file:
            json.dump(layers, file)
    return result


def _offline(runner: Runner, inputs: List[np.ndarray], seconds: float, out: str) -> Dict[str, Any]:
    """Measure throughput; nothing if the runtime cannot run queries without a pause. Return the images per pass."""
    say("throughput: {:.0f} s".format(seconds))
    found = runner.passes(inputs, seconds)
    if found is None:
        found = passes(runner.infer, inputs, seconds) if runner.steady else []
    if not found:
        return {}
    np.save(os.path.join(out, "offline_ns.npy"), np.array(found, np.int64))
    return {"offline_images": sum(len(image) for image in inputs)}


def _earlier(part: str, circumstances: List[Any]) -> List[int]:
    """Return the latencies of an interrupted measurement under the same circumstances; empty if there is none."""
    described = part + ".json"
    now = json.dumps(circumstances, sort_keys=True)
    if os.path.isfile(part) and os.path.isfile(described):
        with open(described, encoding="utf-8") as file:
            if file.read() == now:
                return [int(value) for value in np.load(part, allow_pickle=False)]
    if os.path.isfile(part):
        os.remove(part)
    with open(described, "w", encoding="utf-8") as file:
        file.write(now)
    return []


def _energy(runner: Runner, inputs: List[np.ndarray], seconds: float, out: str) -> Dict[str, Any]:
    """Measure the power of the board, idle and busy; without a meter, return the reason."""
    meter, why_not = power.find_meter()
    if meter is None:
        return {"power_why_not": why_not}
    if not runner.steady:
        return {"power_why_not": "{} runs each query in a process of its own".format(runner.info()["runtime"])}
    say("power: {:.0f} s idle, {:.0f} s busy".format(seconds, seconds))
    described, samples = power.measure_energy(runner.infer, inputs, seconds, meter)
    np.save(os.path.join(out, "power.npy"), samples)
    return described


def _stack(pixels: Any, start: int, batch: int, prepare: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the batch that begins with image `start`; the first image follows the last one."""
    return np.concatenate([prepare(pixels[(start + n) % len(pixels)]) for n in range(batch)])


def _logits(runner: Runner, pixels: Any, batch: int, prepare: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return the logits of all images, float32 (N, classes)."""
    logits: List[np.ndarray] = []
    for start in range(0, len(pixels), batch):
        answer = runner.infer(_stack(pixels, start, batch, prepare)).astype(np.float32)
        logits.extend(answer.reshape(batch, -1))
        say("accuracy: {} of {} images".format(len(logits), len(pixels)))
    return np.stack(logits[: len(pixels)])


def _save(path: str, values: np.ndarray) -> None:
    """Write a file whole or not at all."""
    with open(path + ".new", "wb") as file:
        np.save(file, values)
    os.replace(path + ".new", path)
