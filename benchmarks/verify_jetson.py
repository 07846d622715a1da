"""What a person with a Jetson would check: ``make verify-jetson HOST=user@orin``, in 10 to 20 minutes.

Trains a small network on the built-in digits, or takes the run that is named, builds and measures its engines on the
board in every way that edgekit has, and prints a line for each check. Nothing is changed on the board but edgekit's
own cache (which is emptied at the end) and, only with ``--mode``, the power mode, which is put back.

    python -m benchmarks.verify_jetson HOST [--run RUN] [--python PYTHON] [--mode MODE]

Exit status 0: everything passed or was skipped; 1: something failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
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

import numpy as np

from edgekit import config, files
from edgekit.bench import results
from edgekit.bench.results import load
from edgekit.cli.app import run
from edgekit.devices import probe
from edgekit.devices.remote import clean
from edgekit.devices.ssh import Connection
from edgekit.measurements import BenchmarkResult
from edgekit.reporting import tables
from edgekit.stats import proportions

SUITE = "warmup_queries = 10\nwarmup_s = 0.5\nmin_queries = 200\nmin_s = {}\nmax_s = 60\npower_s = {}\n"
TRAIN = ["train", "digits", "--model", "resnet18", "--weights", "none", "--image-size", "64", "--epochs", "3"]
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"
# An engine of FP32 or FP16 gives the answers of the network; INT8 those that the desktop computes from the same file.
FLOAT_AGREEMENT, INT8_AGREEMENT = 0.99, 0.97


class Skip(Exception):
    """This board, or this call, cannot show it; the message says why."""


@dataclass
class Board:
    """What the checks share.

    Attributes:
        folder: a run directory's parent, with devices/*.toml in it. found: what the board says of itself.
    """

    host: str
    python: str
    mode: str
    trtexec: str
    folder: Path
    run: str = "verify"
    found: probe.Probe | None = None

    @property
    def path(self) -> Path:
        return Path("runs") / self.run

    def device(self, name: str, **keys: object) -> str:
        """Write devices/NAME.toml; returns NAME."""
        fields = {"family": "jetson", "transport": "ssh", "runtime": "tensorrt", "host": self.host, **keys}
        if self.python:
            fields["python"] = self.python
        lines = (f"{key} = {json.dumps(value)}" for key, value in fields.items())
        Path("devices").mkdir(exist_ok=True)
        Path("devices", f"{name}.toml").write_text("\n".join(lines) + "\n")
        return name

    def benchmark(self, name: str, *options: str) -> dict[str, BenchmarkResult]:
        """Precision -> result on a device, measured now."""
        demand(run(["benchmark", self.run, "-d", name, "--suite", "verify.toml", *options]) == 0, "benchmark failed")
        return self.results(name)

    def results(self, name: str) -> dict[str, BenchmarkResult]:
        """Precision -> result on a device, as measured before."""
        return {r.artifact.precision: r for r in results.load(self.path / "bench") if r.device == name}

    def record(self, name: str, precision: str = "int8") -> Path:
        """The record of an engine."""
        return self.path / "export" / "jetson" / "engines" / name / f"model.{precision}.engine.json"


def demand(holds: bool, otherwise: str) -> None:
    """Fail a check."""
    if not holds:
        raise AssertionError(otherwise)


def agreement(a: BenchmarkResult, b: BenchmarkResult) -> float:
    """The share of images with the same top-1."""
    return float((a.logits.argmax(1) == b.logits.argmax(1)).mean())


def answers(board: Board) -> str:
    """The board answers, and is a Jetson with TensorRT"""
    board.found = found = probe.probe(board.host, board.python or "python3")
    demand(found.family == "jetson", f"{found.model or found.machine} is no Jetson")
    demand(bool(found.tensorrt) or "tensorrt" in found.runtimes, "no TensorRT was found")
    return (
        f"{found.model}, L4T {found.l4t}, TensorRT {found.tensorrt or found.runtimes['tensorrt']}, {found.power_mode}"
    )


def prepares(board: Board) -> str:
    """A network is trained and exported here"""
    if board.run == "verify" and not board.path.exists():
        demand(run([*TRAIN, "--name", "verify"]) == 0, "training failed")
    demand(run(["export", board.run, "-t", "jetson"]) == 0, "export failed")
    return str(board.path)


def builds(board: Board) -> str:
    """Engines of all precisions are built there and measured, batch 1"""
    results = board.benchmark(board.device("verify"), "--rebuild")
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
    demand(run(["benchmark", board.run, "--suite", "verify.toml"]) == 0, "benchmark failed")
    results = [r for r in load(board.path / "bench") if r.device == "local"]
    stand_in = next(r for r in results if r.artifact.sha256 == engine.artifact.sha256)
    share, cosine = agreement(engine, stand_in), proportions.cosine(engine.logits, stand_in.logits)
    demand(share >= INT8_AGREEMENT, f"same top-1 on {100 * share:.1f} %, cosine {cosine:.4f}")
    return f"same top-1 on {100 * share:.1f} %, cosine {cosine:.4f}"


def clocks_agree(board: Board) -> str:
    """The GPU's own clock says less than the host's, and not much less"""
    results = board.results("verify")
    if not all(r.compute_ns for r in results.values()):
        raise Skip("no times by the GPU's clock")
    ratios = {p: float(np.median(r.compute_ns) / np.median(r.latencies_ns)) for p, r in results.items()}
    demand(all(0.05 < ratio <= 1.1 for ratio in ratios.values()), f"compute over latency: {ratios}")
    return ", ".join(f"{p} {ratio:.2f}" for p, ratio in ratios.items())


def graphs_help(board: Board) -> str:
    """CUDA graphs are captured, and answers without one are the same"""
    results = board.results("verify")
    demand(all(r.environment.get("cuda_graph") is True for r in results.values()), "no graph was captured")
    without = board.benchmark(board.device("verify-no-graph", cuda_graph=False))
    demand(without["fp16"].environment.get("cuda_graph") is False, "a graph was captured all the same")
    demand(agreement(without["fp16"], results["fp16"]) == 1.0, "other answers without a graph")
    ratio = np.median(without["fp16"].latencies_ns) / np.median(results["fp16"].latencies_ns)
    return f"FP16 takes {ratio:.2f} times as long without a graph"


def layers_are_named(board: Board) -> str:
    """Layer times add up, and most of them belong to a block of the network"""
    result = board.results("verify")["fp16"]
    demand(bool(result.layers), "no layer times")
    total = sum(ms for _, ms in result.layers)
    p50 = float(np.median(result.latencies_ns)) / 1e6
    named = sum(b.percent for b in tables.blocks(result.layers) if b.name != "(other)")
    demand(named >= 80, f"only {named:.0f} % of the time is in layers with a name")
    return f"{len(result.layers)} layers, {total:.2f} ms of {p50:.2f} ms, {named:.0f} % named"


def power_is_measured(board: Board) -> str:
    """Power: idle, gross and net energy of a query"""
    from edgekit.analysis.summary import summarize

    rows = [r for r in summarize(results.load(board.path / "bench")) if r.device == "verify"]
    row = next(r for r in rows if r.precision == "int8")
    if row.gross_mj is None or row.net_mj is None or row.idle_mw is None:
        raise Skip(row.no_energy or "not measured")
    demand(0 < row.net_mj < row.gross_mj, f"net {row.net_mj:.2f} of gross {row.gross_mj:.2f} mJ")
    return f"{row.rail}: idle {row.idle_mw / 1000:.2f} W, {row.gross_mj:.1f} mJ gross, {row.net_mj:.2f} mJ net"


def state_is_read(board: Board) -> str:
    """Power mode, clock and temperature are read before and after"""
    environment = board.results("verify")["int8"].environment
    names = ("power_mode", "gpu_mhz", "temperature_c")
    missing = [name for name in names if f"{name}_before" not in environment or f"{name}_after" not in environment]
    demand(not missing, f"not read: {', '.join(missing)}")
    return ", ".join(f"{name} {environment[name + '_after']}" for name in names)


def timing_cache_is_used(board: Board) -> str:
    """A second build uses the timing cache"""
    before = files.load_json(board.record("verify"))["seconds"]
    board.benchmark("verify", "--rebuild")
    record = files.load_json(board.record("verify"))
    demand(record["timing_cache"] == "used", "it was not used")
    return f"{before} s, then {record['seconds']} s"


def misfits_are_refused(board: Board) -> str:
    """An engine of another TensorRT is refused, with what differs, and --rebuild is the remedy"""
    path = board.record("verify")
    record = files.load_json(path)
    files.save_json(path, {**record, "tensorrt": "8.5.2.2"})
    status = run(["benchmark", board.run, "-d", "verify", "--suite", "verify.toml"])
    files.save_json(path, record)
    demand(status == 5, f"exit status {status}")
    return "refused"


def survives_breaks(board: Board) -> str:
    """A connection that breaks while it measures loses nothing"""
    ended, breaks = threading.Event(), [0]

    def cut() -> None:
        while not ended.wait(4.0):
            # On this side, and edgekit's own: the board's sshd may serve others.
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
    return f"{breaks[0]} times broken"


def trtexec_agrees(board: Board) -> str:
    """trtexec builds and measures too, and its latency is like that of the Python API"""
    name = board.device("verify-trtexec", trtexec=board.trtexec, precisions=["fp16"])
    other = board.benchmark(name)["fp16"]
    ratio = float(np.median(other.latencies_ns) / np.median(board.results("verify")["fp16"].latencies_ns))
    share = agreement(other, board.results("verify")["fp16"])
    demand(share >= FLOAT_AGREEMENT, f"same top-1 on {100 * share:.1f} %")
    demand(0.5 < ratio < 2, f"trtexec over API: {ratio:.2f}")
    return f"trtexec over API: {ratio:.2f}, same top-1 on {100 * share:.1f} %"


def dla_runs(board: Board) -> str:
    """The DLA runs the network, and what it does not take is listed"""
    assert board.found is not None
    if not board.found.dla_cores:
        raise Skip("this board's TensorRT sees no DLA")
    board.benchmark(board.device("verify-dla", dla_core=0, precisions=["fp32", "fp16", "int8"]))
    placement = files.load_json(board.record("verify-dla"))["placement"]
    demand(bool(placement["dla"]), "no layer runs on the DLA")
    return f"{len(placement['dla'])} parts on the DLA, {len(placement['gpu'])} layers on the GPU"


def mode_is_put_back(board: Board) -> str:
    """A power mode is set and put back"""
    if not board.mode:
        raise Skip("no MODE=... was given")
    before = probe.probe(board.host).power_mode
    environment = board.benchmark("verify", "--set-power-mode", board.mode)["int8"].environment
    after = probe.probe(board.host).power_mode
    demand(after == before, f"it was {before}, and is {after}")
    demand(environment.get("clocks_locked_before") is True, "the clocks were not locked meanwhile")
    return f"{before}, {environment.get('power_mode_before')}, {after}"


def leaves_nothing(board: Board) -> str:
    """Cleaning leaves nothing"""
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
_NEEDED = (answers, prepares, builds)  # without them the others say nothing


def verify(board: Board) -> list[tuple[str, str, str]]:
    """Run every check; returns (pass, FAIL or skip; what; what was seen) of each, and prints it."""
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
    """Work in a folder of its own, with a suite of its own."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        Path("verify.toml").write_text(SUITE.format(seconds, power_s))
        yield
    finally:
        os.chdir(before)


def main() -> int:
    """Parse the arguments, and verify."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("host")
    parser.add_argument("--run", default="verify", help="path of a run; default: a small network is trained")
    parser.add_argument("--python", default="", help="the board's Python")
    parser.add_argument("--mode", default="", help="a power mode to set and put back")
    given = parser.parse_args()
    own = given.run if given.run == "verify" else str(Path(given.run).resolve())
    with tempfile.TemporaryDirectory(prefix="edgekit-verify-") as name, inside(Path(name), 3, 10):
        lines = verify(Board(given.host, given.python, given.mode, TRTEXEC, Path(name), own))
    count = {verdict: sum(line[0] == verdict for line in lines) for verdict in ("pass", "FAIL", "skip")}
    print(
        f"{given.host}: {count['pass']} passed, {count['FAIL']} failed, {count['skip']} skipped; from {platform.node()}"
    )
    print(f"devices known: {', '.join(config.names('devices'))}; please report figures and this list")
    return 1 if count["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())
