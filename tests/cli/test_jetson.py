"""From a trained run to measured engines on boards behind real sshds, with doubles of TensorRT."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import files
from edgekit.bench import results
from edgekit.bench.results import load
from edgekit.cli.app import run
from tests.devices import sshd
from tests.doubles import plant

pytestmark = [pytest.mark.xdist_group("jetson"), pytest.mark.filterwarnings("ignore")]
SUITE = "warmup_queries = 1\nwarmup_s = 0\nmin_queries = 70\nmin_s = {}\nmax_s = 60\npower_s = 0\n"
BOARD = 'family = "jetson"\ntransport = "ssh"\nruntime = "tensorrt"\nhost = "{}"\npython = "{}"\n'


@pytest.fixture
def boards(road: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """devices/orin.toml (TensorRT 10.3 by its Python API) and devices/xavier.toml (trtexec 8.5); their folder."""
    if sshd.SERVER is None:
        pytest.skip("no sshd here: apt install openssh-server")
    folder = tmp_path_factory.mktemp("boards")
    servers = []
    Path("devices").mkdir()
    for name, number in (("orin", 100300), ("xavier", 8502)):
        tools = folder / name
        tools.mkdir()
        plant.trtexec(tools, number)
        python = plant.python(tools) if name == "orin" else sys.executable
        server = sshd.start(folder / f"{name}-device", PATH=f"{tools}:{os.environ['PATH']}")
        Path("devices", f"{name}.toml").write_text(BOARD.format(name, python))
        servers.append(server)
    lines = ["Host orin", f" Port {servers[0].port}", "Host xavier", f" Port {servers[1].port}", "Host *"]
    common = [" HostName 127.0.0.1", " StrictHostKeyChecking yes", " GlobalKnownHostsFile /dev/null"]
    keys = [f" IdentityFile {s.folder}/id" for s in servers]
    known = [" UserKnownHostsFile " + " ".join(f"{s.folder}/known_hosts" for s in servers)]
    (folder / "config").write_text("\n".join([*lines, *common, *keys, *known]) + "\n")
    monkeypatch.setenv("EDGEKIT_SSH", f"ssh -F {folder / 'config'}")
    Path("short.toml").write_text(SUITE.format(0))
    yield folder
    for server in servers:
        server.stop()


def table(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert run(["benchmark", "fruit", "--suite", "short.toml", "--json", "--baseline", "pytorch", *arguments]) == status
    return json.loads(capsys.readouterr().out) if status == 0 else []


def engines(road: Path, target: str = "jetson") -> list[str]:
    return sorted(str(p.relative_to(road / "export" / target / "engines")) for p in road.rglob("*.engine"))


def test_export_with_a_host_builds_the_engines_there(
    boards: Path, road: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", "fruit", "-t", "jetson-agx-xavier", "--host", "xavier"]) == 0
    said = capsys.readouterr().err
    assert "from model.int8.onnx by TensorRT 8.5.2 on jetson-agx-xavier" in said
    names = [f"jetson-agx-xavier/model.{p}.engine" for p in ("fp16", "fp32", "int8")]
    assert engines(road, "jetson-agx-xavier") == names
    assert run(["export", "fruit", "-t", "jetson-agx-xavier", "-p", "fp32"]) == 0  # no host: nothing is built
    assert engines(road, "jetson-agx-xavier") == names, "engines of files that stay the same stay"


def test_int8_alone_gets_fp16_beside_it_where_engines_are_built(
    boards: Path, road: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", "fruit", "-t", "orin", "-p", "int8"]) == 0
    assert engines(road, "orin") == ["orin/model.fp16.engine", "orin/model.int8.engine"]
    assert "fp16 too, to compare INT8 with" in capsys.readouterr().err


def test_no_build_and_wrong_hosts(boards: Path, road: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "fruit", "-t", "orin", "--no-build"]) == 0
    assert engines(road, "orin") == []
    assert run(["export", "fruit", "-t", "android", "--host", "orin"]) == 2
    assert run(["export", "fruit", "-t", "jetson", "-t", "orin", "--host", "orin"]) == 2
    assert run(["export", "fruit", "-t", "jetson", "--host", "-oProxyCommand=x"]) == 2
    assert "--host goes with one --target" in capsys.readouterr().err


def test_two_boards_are_measured_beside_the_baseline(
    boards: Path, road: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("devices/xavier.toml", "a") as file:
        file.write('precisions = ["int8"]\n')
    rows = table(capsys, "-d", "orin", "-d", "xavier")
    found = {(r["device"], r["precision"]): r for r in rows}
    wanted = {("orin", p) for p in ("fp32", "fp16", "int8")} | {("xavier", "int8"), ("local", "fp32")}
    assert set(found) == wanted
    assert {r["source"] for r in rows} == {"device", "host"}
    assert not any(r["stand_in"] for r in rows)
    orin = found["orin", "int8"]
    assert (orin["ran_in"], found["xavier", "int8"]["ran_in"]) == ("tensorrt 10.3.0", "trtexec 8.5.2")
    assert orin["compute_ms"] > 0
    assert orin["queries"] >= 70
    here = {r["precision"]: r for r in table(capsys) if r["target"] == "jetson" and r["device"] == "local"}
    for precision in ("fp32", "int8"):
        assert found["orin", precision]["top1"] == pytest.approx(here[precision]["top1"])
    results = {(r.device, r.artifact.precision): r for r in load(road / "bench")}
    assert dict(results["orin", "int8"].layers) == {"node_conv2d + n4": 0.06, "node_linear": 0.03}
    assert len(results["orin", "int8"].compute_ns) == 200
    logits = results["orin", "fp32"].logits
    assert np.allclose(logits, results["local", "fp32"].logits, atol=1e-3)
    assert run(["report", "fruit", "--verbose"]) == 0
    said = capsys.readouterr()
    shipped = said.err.partition("orin: ship ")[2].partition(".")[0]
    assert "compute ms" in said.out
    page = (road / "report.html").read_text()
    assert "<h3><bdi>orin</bdi></h3>" in page
    assert f"Blocks of jetson/model.{shipped}.onnx on orin" in page


def test_a_batch_answers_every_image_and_counts_per_image(
    boards: Path, road: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = Path("devices/orin.toml").read_text() + 'precisions = ["fp32"]\n'
    Path("devices/orin.toml").write_text(alone)
    Path("devices/orin-b5.toml").write_text(alone + "batch = 5\n")
    rows = {r["device"]: r for r in table(capsys, "-d", "orin", "-d", "orin-b5")}
    assert (rows["orin"]["batch"], rows["orin-b5"]["batch"]) == (1, 5)
    found = {r.device: r for r in results.load(road / "bench")}
    assert len(found["orin"].logits) % 5 != 0, "the last batch is filled up"
    assert np.allclose(found["orin-b5"].logits, found["orin"].logits, atol=1e-4)
    batch, base = rows["orin-b5"], rows["local"]
    assert batch["speedup"] == pytest.approx(5 * base["p50_ms"] / batch["p50_ms"])
    assert run(["report", "fruit", "--verbose"]) == 0
    said = capsys.readouterr()
    assert "orin-b5 x1, batch 5" in said.out
    assert "per image" in said.err


# As tegrastats of L4T 36 on an Orin Nano prints it (NVIDIA's forum), shortened.
TEGRASTATS = """
while :; do
    echo "11-25-2026 15:50:52 RAM 2105/7620MB (lfb 34x4MB) GR3D_FREQ 99%@[611] gpu@48.03C VDD_IN 4500mW/4562mW"
    sleep 0.1
done
"""


def test_power_and_state_of_a_board_reach_the_table(
    boards: Path, road: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant.script(boards / "orin", "tegrastats", TEGRASTATS)
    plant.script(boards / "orin", "nvpmodel", 'echo "NV Power Mode: 15W"; echo 0')
    with open("devices/orin.toml", "a") as file:
        file.write('precisions = ["fp16"]\n')
    Path("short.toml").write_text(SUITE.format(0).replace("power_s = 0", "power_s = 1.5"))
    row = next(r for r in table(capsys, "-d", "orin") if r["device"] == "orin")
    assert (row["rail"], row["idle_mw"], row["no_energy"]) == ("VDD_IN", pytest.approx(4500), "")
    assert row["net_mj"] == pytest.approx(0, abs=1e-6)
    assert row["gross_mj"] > 0
    assert row["state"]["power_mode"] == "15W"
    assert run(["report", "fruit", "--verbose"]) == 0
    assert "VDD_IN" in capsys.readouterr().out
    assert "VDD_IN" in (road / "report.html").read_text()


def test_an_engine_is_built_once_and_again_with_rebuild(
    boards: Path, road: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open("devices/orin.toml", "a") as file:
        file.write('precisions = ["int8"]\n')
    table(capsys, "-d", "orin")
    path = road / "export" / "jetson" / "engines" / "orin" / "model.int8.engine"
    before = path.stat().st_mtime_ns
    table(capsys, "-d", "orin")
    assert path.stat().st_mtime_ns == before
    python = boards / "orin" / "python-tensorrt"  # the board was upgraded
    python.write_text(python.read_text().replace("EDGEKIT_CUDART=", "DOUBLE_TRT_VERSION=10.7.0 EDGEKIT_CUDART="))
    table(capsys, "-d", "orin", status=5)
    said = capsys.readouterr().err
    assert "the engine does not fit: tensorrt 10.3.0, here 10.7.0" in said
    assert "--rebuild" in said
    assert path.stat().st_mtime_ns == before
    rows = table(capsys, "-d", "orin", "--rebuild")
    assert {r["ran_in"] for r in rows if r["device"] == "orin"} == {"tensorrt 10.7.0"}
    assert path.stat().st_mtime_ns != before


def test_a_board_that_fails_does_not_keep_the_others_from_being_measured(
    boards: Path, road: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("devices/xavier.toml").write_text(BOARD.format("xavier", "no-such-python"))
    with open("devices/orin.toml", "a") as file:
        file.write('precisions = ["int8"]\n')
    table(capsys, "-d", "xavier", "-d", "orin", status=5)
    assert "no-such-python" in capsys.readouterr().err
    assert {r.device for r in results.load(road / "bench")} == {"local", "orin"}


def test_power_modes_are_of_boards_only(boards: Path, road: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["benchmark", "fruit", "-d", "orin", "-d", "orin"]) == 2
    assert "two devices have the same name" in capsys.readouterr().err
    assert run(["benchmark", "fruit", "--set-power-mode", "MAXN"]) == 2
    assert "over ssh" in capsys.readouterr().err
    table(capsys, "-d", "orin", "--set-power-mode", "MAXN", status=2)
    assert "has no nvpmodel" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_ends_the_jobs_of_all_boards_and_keeps_what_was_measured(boards: Path, road: Path) -> None:
    Path("long.toml").write_text(SUITE.format(8))
    code = "import sys; from edgekit.models import zoo; from tests import nets; zoo.MODELS['tiny'] = nets.TINY; "
    code += "from edgekit.cli.app import main; main()"
    command = [
        sys.executable,
        "-c",
        code,
        "benchmark",
        "fruit",
        "--suite",
        "long.toml",
        "--baseline",
        "pytorch",
        "-d",
        "orin",
        "-d",
        "xavier",
    ]
    root = Path(__file__).parent.parent.parent
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(root)}, stderr=subprocess.PIPE, text=True)
    jobs = [boards / f"{name}-device" / "home" / ".cache" / "edgekit" / "jobs" for name in ("orin", "xavier")]

    def stop() -> None:
        end = time.monotonic() + 200
        while time.monotonic() < end and not all(list(j.glob("*/started/pid")) for j in jobs):
            time.sleep(0.1)
        time.sleep(2)
        process.send_signal(signal.SIGINT)

    stopper = threading.Thread(target=stop)
    stopper.start()
    _, said = process.communicate(timeout=280)
    stopper.join()
    assert process.returncode == 130, said
    assert all(list(j.iterdir()) == [] for j in jobs)
    assert (road / "bench" / "local").is_dir()


def test_the_kit_has_a_calibration_cache_for_dlas(road: Path) -> None:
    text = (road / "export" / "jetson" / "model.int8.dla.cache").read_text().splitlines()
    assert text[0] == "TRT-8502-EntropyCalibration2"
    assert any(line.startswith("image: ") for line in text)
    manifest = files.load_json(road / "export" / "jetson" / "manifest.json")
    assert all(not a["name"].endswith(".cache") for a in manifest["artifacts"])
