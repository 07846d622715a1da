"""Check edgekit on a Jetson: ``make verify-jetson HOST=user@orin``, 10 to 20 minutes.

Trains a small network on the built-in digits, or takes the run that you name; builds and measures its engines on the
board in every way that edgekit supports; prints one line per check. On the board, only edgekit's own cache changes
(it is emptied at the end) and, with ``--mode``, the power mode (it is restored).

    python -m benchmarks.verify_jetson HOST [--run RUN] [--python PYTHON] [--mode MODE]

Exit status 0: every check passed or was skipped. 1: a check failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import edgekit
from edgekit import config, files
from edgekit.bench import results
from edgekit.devices import probe
from edgekit.devices.remote import clean
from edgekit.devices.ssh import Connection
from edgekit.errors import EdgekitError, ExitStatus
from edgekit.measurements import BenchmarkResult
from edgekit.reporting import tables
from edgekit.stats import proportions

SUITE = "warmup_queries = 10\nwarmup_s = 0.5\nmin_queries = 200\nmin_s = {}\nmax_s = 60\npower_s = {}\n"
SUITE_FILE = "verify.toml"
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
# Least share of images with the same top-1: FP32 and FP16 engines against the network, INT8 against ONNX Runtime.
FLOAT_AGREEMENT, INT8_AGREEMENT = 0.99, 0.97


class Skip(Exception):
    """The check does not apply to this board or this call; the message says why."""


@dataclass
class Board:
    """State that the checks share.

    Attributes:
        run: name of a run in runs/, or its absolute path. found: answer of the board's probe.
    """

    host: str
    python: str
    mode: str
    trtexec: str
    run: str = "verify"
    found: probe.Probe | None = None

    @property
    def path(self) -> Path:
        return Path("runs") / self.run

    def device(self, name: str, **keys: object) -> str:
        """Write devices/NAME.toml and return NAME."""
        fields = {"family": "jetson", "transport": "ssh", "runtime": "tensorrt", "host": self.host, **keys}
        if self.python:
            fields["python"] = self.python
        lines = (f"{key} = {json.dumps(value)}" for key, value in fields.items())
        Path("devices").mkdir(exist_ok=True)
        Path("devices", f"{name}.toml").write_text("\n".join(lines) + "\n")
        return name

    def benchmark(self, name: str, **options: Any) -> dict[str, BenchmarkResult]:
        """Measure on a device and return its results by precision."""
        edgekit.benchmark(self.run, [name], SUITE_FILE, **options)
        return self.results(name)

    def results(self, name: str) -> dict[str, BenchmarkResult]:
        """Return the newest results on a device, by precision."""
        return {r.artifact.precision: r for r in results.load(self.path / "bench") if r.device == name}

    def record(self, name: str, precision: str = "int8") -> Path:
        """Return the path of an engine's record."""
        return self.path / "export" / "jetson" / "engines" / name / f"model.{precision}.engine.json"


def demand(holds: bool, otherwise: str) -> None:
    """Fail the check unless the condition holds."""
    if not holds:
        raise AssertionError(otherwise)


def agreement(a: BenchmarkResult, b: BenchmarkResult) -> float:
    """Return the share of images with the same top-1, 0 to 1."""
    return float((a.logits.argmax(1) == b.logits.argmax(1)).mean())


def answers(board: Board) -> str:
    """The board answers and is a Jetson with TensorRT"""
    board.found = found = probe.probe(board.host, board.python or "python3")
    demand(found.family == "jetson", f"{found.model or found.machine} is no Jetson")
    demand(bool(found.tensorrt) or "tensorrt" in found.runtimes, "no TensorRT was found")
    return (
        f"{found.model}, L4T {found.l4t}, TensorRT {found.tensorrt or found.runtimes['tensorrt']}, {found.power_mode}"
    )


def prepares(board: Board) -> str:
    """A network is trained and exported on this machine"""
    if board.run == "verify" and not board.path.exists():
        edgekit.train("digits", "resnet18", name="verify", weights="none", image_size=64, epochs=3)
    edgekit.export(board.run, "jetson")
    return str(board.path)


def builds(board: Board) -> str:
    """Engines of all precisions are built on the board and measured, batch 1"""
    results = board.benchmark(board.device("verify"), rebuild=True)
    demand(set(results) == {"fp32", "fp16", "int8"}, f"only {', '.join(results)}")
    record = files.load_json(board.record("verify"))
    return f"TensorRT {record['tensorrt']} by {record['builder']}, {record['flags']}, {record['seconds']} s for INT8"


def floats_agree(board: Board) -> str:
    """FP32 and FP16 engines answer as PyTorch does"""
    baseline = board.results("local")["fp32"]
    shares = {p: agreement(board.results("verify")[p], baseline) for p in ("fp32", "fp16")}
    demand(min(shares.values()) >= FLOAT_AGREEMENT, f"same top-1: {shares}")
    return ", ".join(f"{p} {100 * share:.1f} %" for p, share in shares.items())


def int8_agrees(board: Board) -> str:
    """The INT8 engine answers as ONNX Runtime does on the same file"""
    engine = board.results("verify")["int8"]
    edgekit.benchmark(board.run, suite=SUITE_FILE)
    here = [r for r in results.load(board.path / "bench") if r.device == "local"]
    stand_in = next(r for r in here if r.artifact.sha256 == engine.artifact.sha256)
    share, cosine = agreement(engine, stand_in), proportions.cosine(engine.logits, stand_in.logits)
    demand(share >= INT8_AGREEMENT, f"same top-1 on {100 * share:.1f} %, cosine {cosine:.4f}")
    return f"same top-1 on {100 * share:.1f} %, cosine {cosine:.4f}"


def clocks_agree(board: Board) -> str:
    """Times by the GPU's clock are below those by the host's, and close to them"""
    results = board.results("verify")
    if not all(len(r.compute_ns) for r in results.values()):
        raise Skip("no times by the GPU's clock")
    ratios = {p: float(np.median(r.compute_ns) / np.median(r.latencies_ns)) for p, r in results.items()}
    demand(all(0.05 < ratio <= 1.1 for ratio in ratios.values()), f"compute over latency: {ratios}")
    return ", ".join(f"{p} {ratio:.2f}" for p, ratio in ratios.items())


def graphs_help(board: Board) -> str:
    """CUDA graphs are captured, and answers without a graph are the same"""
    results = board.results("verify")
    demand(all(r.environment.cuda_graph is True for r in results.values()), "no CUDA graph was captured")
    without = board.benchmark(board.device("verify-no-graph", cuda_graph=False))
    demand(without["fp16"].environment.cuda_graph is False, "a CUDA graph was captured")
    demand(agreement(without["fp16"], results["fp16"]) == 1.0, "the answers differ without a CUDA graph")
    ratio = np.median(without["fp16"].latencies_ns) / np.median(results["fp16"].latencies_ns)
    return f"FP16 takes {ratio:.2f} times as long without a graph"


def layers_are_named(board: Board) -> str:
    """At least 80 % of the layer time belongs to a block of the network"""
    result = board.results("verify")["fp16"]
    demand(bool(result.layers), "no layer times")
    total = sum(ms for _, ms in result.layers)
    p50 = float(np.median(result.latencies_ns)) / 1e6
    named = sum(b.percent for b in tables.blocks(result.layers) if b.name != "(other)")
    demand(named >= 80, f"only {named:.0f} % of the time is in layers with a name")
    return f"{len(result.layers)} layers, {total:.2f} ms of {p50:.2f} ms, {named:.0f} % named"


def power_is_measured(board: Board) -> str:
    """Idle power, gross and net energy per query are measured"""
    from edgekit.analysis.summary import summarize

    rows = [r for r in summarize(results.load(board.path / "bench")) if r.device == "verify"]
    row = next(r for r in rows if r.precision == "int8")
    if row.gross_mj is None or row.net_mj is None or row.idle_mw is None:
        raise Skip(row.no_energy or "not measured")
    demand(0 < row.net_mj < row.gross_mj, f"net {row.net_mj:.2f} of gross {row.gross_mj:.2f} mJ")
    return f"{row.rail}: idle {row.idle_mw / 1000:.2f} W, {row.gross_mj:.1f} mJ gross, {row.net_mj:.2f} mJ net"


def state_is_read(board: Board) -> str:
    """Power mode, clock and temperature are read before and after"""
    environment = board.results("verify")["int8"].environment.table()
    names = ("power_mode", "gpu_mhz", "temperature_c")
    missing = [name for name in names if f"{name}_before" not in environment or f"{name}_after" not in environment]
    demand(not missing, f"not read: {', '.join(missing)}")
    return ", ".join(f"{name} {environment[name + '_after']}" for name in names)


def timing_cache_is_used(board: Board) -> str:
    """A second build uses the timing cache"""
    before = files.load_json(board.record("verify"))["seconds"]
    board.benchmark("verify", rebuild=True)
    record = files.load_json(board.record("verify"))
    demand(record["timing_cache"] == "used", "the timing cache was not used")
    return f"{before} s, then {record['seconds']} s"


def misfits_are_refused(board: Board) -> str:
    """An engine of another TensorRT version is refused"""
    path = board.record("verify")
    record = files.load_json(path)
    files.save_json(path, {**record, "tensorrt": "8.5.2.2"})
    try:
        board.benchmark("verify")
    except EdgekitError as error:
        demand(error.status == ExitStatus.FAILED, f"{type(error).__name__}: {error.message}")
        return f"refused: {error.message}"
    finally:
        files.save_json(path, record)
    raise AssertionError("the engine was loaded")


def survives_breaks(board: Board) -> str:
    """No result is lost when the connection breaks during a measurement"""
    ended, breaks = threading.Event(), [0]

    def cut() -> None:
        while not ended.wait(4.0):
            # edgekit's own connections, on this machine: the board's sshd may serve other users.
            done = subprocess.run(["pkill", "-f", "ControlPath=[^ ]*/ek-"], check=False)  # noqa: S607
            breaks[0] += done.returncode == 0

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        results = board.benchmark("verify")
    finally:
        ended.set()
        cutter.join()
    demand(len(results) == 3, "results are missing")
    return f"connection cut {breaks[0]} times"


def trtexec_agrees(board: Board) -> str:
    """trtexec builds and measures, and its latency is near that of the Python API"""
    name = board.device("verify-trtexec", trtexec=board.trtexec, precisions=["fp16"])
    other = board.benchmark(name)["fp16"]
    ratio = float(np.median(other.latencies_ns) / np.median(board.results("verify")["fp16"].latencies_ns))
    share = agreement(other, board.results("verify")["fp16"])
    demand(share >= FLOAT_AGREEMENT, f"same top-1 on {100 * share:.1f} %")
    demand(0.5 < ratio < 2, f"trtexec over API: {ratio:.2f}")
    return f"trtexec over API: {ratio:.2f}, same top-1 on {100 * share:.1f} %"


def dla_runs(board: Board) -> str:
    """The DLA runs the network, and layers that it does not support are listed"""
    assert board.found is not None
    if not board.found.dla_cores:
        raise Skip("TensorRT on this board finds no DLA")
    board.benchmark(board.device("verify-dla", dla_core=0, precisions=["fp32", "fp16", "int8"]))
    placement = files.load_json(board.record("verify-dla"))["placement"]
    demand(bool(placement["dla"]), "no layer runs on the DLA")
    return f"{len(placement['dla'])} parts on the DLA, {len(placement['gpu'])} layers on the GPU"


def mode_is_put_back(board: Board) -> str:
    """A power mode is set and restored"""
    if not board.mode:
        raise Skip("no MODE=... was given")
    before = probe.probe(board.host).power_mode
    environment = board.benchmark("verify", power_mode=board.mode)["int8"].environment
    after = probe.probe(board.host).power_mode
    demand(after == before, f"the mode was {before} and is now {after}")
    demand(environment.before.clocks_locked is True, "the clocks were not locked during the measurement")
    return f"{before}, {environment.before.power_mode}, {after}"


def leaves_nothing(board: Board) -> str:
    """Cleaning removes every file"""
    megabytes = clean(board.host)
    with Connection(board.host) as connection:
        left = connection.run('find "$cache" -type f | head\n').decode().split()
    demand(not left, f"left: {left}")
    return f"{megabytes:.0f} MB removed"


CHECKS: tuple[Callable[[Board], str], ...] = (
    answers, prepares, builds, floats_agree, int8_agrees, clocks_agree, graphs_help, layers_are_named,
    power_is_measured, state_is_read, timing_cache_is_used, misfits_are_refused, survives_breaks, trtexec_agrees,
    dla_runs, mode_is_put_back, leaves_nothing,
)  # fmt: skip
_NEEDED = (answers, prepares, builds)  # the other checks depend on these


def verify(board: Board) -> list[tuple[str, str, str]]:
    """Run and print every check; return ("pass", "FAIL" or "skip", check, finding) of each."""
    lines: list[tuple[str, str, str]] = []
    for check in CHECKS:
        what, start = (check.__doc__ or "").strip(), time.monotonic()
        try:
            verdict, seen = "pass", check(board)
        except Skip as reason:
            verdict, seen = "skip", str(reason)
        except Exception as error:
            verdict, seen = "FAIL", f"{type(error).__name__}: {error}"
            if not isinstance(error, AssertionError):
                traceback.print_exc()
        lines.append((verdict, what, seen))
        print(f"{verdict}  {what}: {seen}  ({time.monotonic() - start:.0f} s)", flush=True)
        if verdict == "FAIL" and check in _NEEDED:
            break
    return lines


@contextlib.contextmanager
def inside(folder: Path, seconds: float, power_s: float) -> Iterator[None]:
    """Change to `folder` and write the suite there."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path(SUITE_FILE).write_text(SUITE.format(seconds, power_s))
        yield
    finally:
        os.chdir(before)


def main() -> int:
    """Parse the arguments and run the checks."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("host")
    parser.add_argument("--run", default="verify", help="path of a run; default: train a small network")
    parser.add_argument("--python", default="", help="Python on the board")
    parser.add_argument("--mode", default="", help="a power mode to set and restore")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # notes of edgekit
    run = given.run if given.run == "verify" else str(Path(given.run).resolve())
    with tempfile.TemporaryDirectory(prefix="edgekit-verify-") as name, inside(Path(name), 3, 10):
        lines = verify(Board(given.host, given.python, given.mode, TRTEXEC, run))
    count = {verdict: sum(line[0] == verdict for line in lines) for verdict in ("pass", "FAIL", "skip")}
    print(
        f"{given.host}: {count['pass']} passed, {count['FAIL']} failed, {count['skip']} skipped; from {platform.node()}"
    )
    print(f"known devices: {', '.join(config.names('devices'))}; please report these figures and this list")
    return 1 if count["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
