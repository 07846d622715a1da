"""edgekit on an aarch64 board behind ssh and adb: one that is emulated, so its answers count and its time does not."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit import files
from edgekit.analysis.summary import summarize
from edgekit.bench import session
from edgekit.convert.fold import fold
from edgekit.devices import probe
from edgekit.devices.transport import open_transport
from edgekit.measurements import BenchmarkResult, Suite
from edgekit.records import Artifact, Device, Preprocess
from tests import nets
from tests.bench import results
from tests.devices import aarch64, adbd

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("litert"), pytest.mark.filterwarnings("ignore")]
BOARD = Device("emulated pi", "rpi", transport="ssh", runtime="litert", host="board", python=aarch64.PYTHON,
               emulated=True)  # fmt: skip
# More queries than a p99 needs: that none is quoted is not for their number.
ENOUGH = Suite("enough", warmup_queries=1, warmup_s=0.0, min_queries=700, min_s=0.0, max_s=60.0)
QUICK = Suite("quick", warmup_queries=1, warmup_s=0.0, min_queries=20, min_s=0.0, max_s=30.0)
PREPROCESS = Preprocess(32, 32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
SAMPLES = 12


@dataclass(frozen=True)
class Case:
    """One file, what it is shown, and what the board answered."""

    artifact: Artifact
    path: Path
    samples: session.EvaluationSet
    result: BenchmarkResult


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[aarch64.Board]:
    """An emulated board that `EDGEKIT_SSH` finds."""
    running = aarch64.start(aarch64.root(), tmp_path_factory.mktemp("aarch64") / "board")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EDGEKIT_SSH", running.ssh)
            yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> session.EvaluationSet:
    """Noise around red, green and blue, in turn."""
    expected = np.arange(SAMPLES) % 3
    noise = np.random.default_rng(0).integers(0, 96, (SAMPLES, 32, 32, 3), np.uint8)
    path = tmp_path_factory.mktemp("samples") / "pixels.npy"
    np.save(path, noise + np.eye(3, dtype=np.uint8)[expected, None, None] * 128)
    return session.EvaluationSet(path, expected, PREPROCESS)


@pytest.fixture(scope="module")
def models(samples: session.EvaluationSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of model.{fp32,int8}.tflite: a random network whose last layer is solved for the colours."""
    torch.manual_seed(0)
    images = (torch.from_numpy(np.load(samples.pixels)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
    model = nets.settle(nets.tiny(3), images)
    assert isinstance(model, torch.nn.Sequential)
    with torch.no_grad():
        wanted = torch.eye(3)[samples.expected] + torch.rand(SAMPLES, 3) / 4  # no two alike, all of them clear
        solved = torch.linalg.lstsq(model[:-1](images), wanted).solution
        model[-1].weight.copy_(solved.T)
        model[-1].bias.zero_()
    folder = tmp_path_factory.mktemp("models")
    nets.emit_tflite(fold(model), 32, folder, images)
    return folder


@pytest.fixture(scope="module", params=["fp32", "int8"])
def case(request: pytest.FixtureRequest, board: aarch64.Board, models: Path, samples: session.EvaluationSet) -> Case:
    """A model of each precision, benchmarked on the board."""
    path = models / f"model.{request.param}.tflite"
    made = results.artifact(f"rpi/{path.name}", request.param, "litert", layout="NHWC", sha256=files.sha256_file(path))
    with open_transport(BOARD) as transport:
        result = session.benchmark(session.as_exported(made, path, BOARD), BOARD, ENOUGH, samples, transport)
    return Case(made, path, samples, result)


def inhabitants(namespace: str) -> list[str]:
    """The processes in a pid namespace."""
    found = []
    for link in Path("/proc").glob("[0-9]*/ns/pid"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found += [link.parts[2]] if os.readlink(link) == namespace else []
    return found


def formats() -> list[str]:
    """What this machine's kernel runs by an interpreter."""
    return sorted(path.name for path in Path("/proc/sys/fs/binfmt_misc").iterdir())


def test_a_board_that_stops_leaves_nothing_behind(tmp_path: Path) -> None:
    before = formats()
    running = aarch64.start(aarch64.root(), tmp_path / "board")
    try:
        namespace = os.readlink(f"/proc/{running.process.pid}/ns/pid_for_children")
        assert namespace != os.readlink("/proc/self/ns/pid")
        command = [*shlex.split(running.ssh), running.host, "sleep 600 >/dev/null 2>&1 </dev/null & uname -m"]
        assert subprocess.run(command, capture_output=True, check=True).stdout == b"aarch64\n"
        assert len(inhabitants(namespace)) > 1
        assert formats() == before
    finally:
        running.stop()
    assert inhabitants(namespace) == []
    assert formats() == before


def test_the_board_says_what_it_is(board: aarch64.Board) -> None:
    found = probe.probe(board.host, aarch64.PYTHON)
    assert (found.machine, found.family, found.runtime) == ("aarch64", "rpi", "litert")
    assert found.python.startswith("3.11.")
    assert {"ai-edge-litert", "numpy"} <= set(found.runtimes)


def test_what_it_measured_is_marked_as_emulated(case: Case) -> None:
    environment = case.result.environment.table()
    assert (case.result.source, case.result.runtime) == ("emulated", "litert")
    assert (environment["machine"], environment["runtime"]) == ("aarch64", "ai-edge-litert")
    assert environment["python"].startswith("3.11.")
    assert len(case.result.latencies_ns) >= ENOUGH.min_queries
    assert not case.result.layers


def test_it_answers_as_this_machine_does(case: Case) -> None:
    pixels = np.load(case.samples.pixels)
    here = session.infer_here(case.artifact, case.path, pixels, case.samples.preprocess)
    assert here.argmax(1).tolist() == case.samples.expected.tolist()
    assert case.result.logits.argmax(1).tolist() == here.argmax(1).tolist()
    # XNNPACK's INT8 kernels are at most one step of the output apart: 1/255 of its range, which has a 0 in it.
    allowed = 1e-4 if case.artifact.precision == "fp32" else 1.01 / 255 * np.ptp(np.append(here, 0))
    assert case.result.logits == pytest.approx(here, abs=allowed)


def test_no_latency_of_it_is_quoted(case: Case) -> None:
    baseline = results.result(samples=SAMPLES, right=SAMPLES)
    row = next(row for row in summarize([baseline, case.result]) if not row.baseline)
    assert (row.p50_ms, row.p90_ms, row.p99_ms, row.speedup) == (None, None, None, None)
    assert (row.source, row.top1, row.agreement) == ("emulated", 100.0, 100.0)


@pytest.mark.parametrize("case", ["int8"], indirect=True)
def test_over_adb_it_answers_as_over_ssh_bit_for_bit(
    case: Case, board: aarch64.Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shells of the phone's side of adb run on the board, by its sshd."""
    client = adbd.client(tmp_path / "home")
    line = f'exec {board.ssh} {board.host} -- "export TMPDIR=/tmp; $1"'
    phone = adbd.Phone(["/bin/sh", "-c", line, "sh"], dict(os.environ)).plug_in()
    try:
        monkeypatch.setenv("EDGEKIT_ADB", client.program)
        client.connect(phone)
        device = replace(BOARD, name="emulated phone", family="android", transport="adb", host=phone.serial)
        with open_transport(device) as transport:
            found = session.benchmark(
                session.as_exported(case.artifact, case.path, device), device, QUICK, case.samples, transport
            )
    finally:
        phone.unplug()
        client.stop()
    assert (found.source, found.environment.machine, found.environment.serial) == (
        "emulated", "aarch64", phone.serial,
    )  # fmt: skip
    assert (found.logits == case.result.logits).all()
