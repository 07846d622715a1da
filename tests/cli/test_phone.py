"""From a trained run to figures of a phone: a real adb client and real LiteRT behind it; only the phone is none."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekit import config, files
from edgekit.cli.app import run
from tests.cli.test_quant import fruit, made
from tests.devices import android_root
from tests.fixtures import Lab, adb_client, bare, lab

__all__ = ["adb_client", "bare", "fruit", "lab", "made"]
pytestmark = [pytest.mark.xdist_group("litert"), pytest.mark.filterwarnings("ignore")]
SUITE = "warmup_queries = 1\nwarmup_s = 0\nmin_queries = 70\nmin_s = 0\nmax_s = 60\npower_s = 0\n"


def test_probe_says_what_the_phone_is_and_clean_empties_it(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["devices", "probe", "adb", "--python", "no-such-python", "--name", "mine"]) == 0
    output = capsys.readouterr()
    for words in ("Google Pixel 8", "Google Tensor G3", "0 (none)", "81 %, 27 C, charged by USB", "not found"):
        assert words in output.out
    assert "devices/mine.toml" in output.err
    assert "so benchmark_model measures, without accuracy" in output.err
    assert (config.load_device("mine").host, config.load_device("mine").api) == (lab.phone.serial, "benchmark-model")
    assert run(["devices", "probe", f"adb:{lab.phone.serial}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"]["thermal_status"] == 0
    assert lab.cache.exists()
    assert run(["devices", "clean", "adb"]) == 0
    assert not lab.cache.exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["devices", "probe", "adb"], 4, "no Android device is connected"),
        (["devices", "probe", "adb:1234"], 4, "1234 is not connected"),
        (["devices", "probe", "adb:-s"], 2, "is not the serial of an Android device"),
        (["benchmark", "-d", "python.toml", "--set-power-mode", "MAXN"], 2, "no power mode 'MAXN'"),
        (["benchmark", "-d", "python.toml"], 2, "names no Python, and Android has none"),
        (["benchmark", "-d", "pixel-8"], 4, "there is no benchmark_model to send to 'pixel-8'"),
    ],
)
def test_what_cannot_be_reached_says_why(
    bare: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], status: int, words: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("python.toml").write_text('family = "android"\ntransport = "adb"\nruntime = "litert"\n')
    assert run(arguments) == status
    assert words in capsys.readouterr().err


@pytest.mark.slow
def test_a_phone_is_measured_by_python_and_by_the_program(
    lab: Lab, fruit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same .tflite file: with Python there raw latencies and answers; with benchmark_model its own figures."""
    Path("short.toml").write_text(SUITE)
    assert run(["devices", "probe", "adb", "--python", sys.executable, "--name", "mine"]) == 0
    mine = Path("devices/mine.toml")
    assert config.load_device("mine").api == "interpreter"
    mine.write_text(mine.read_text().replace('family = "android"', 'family = "android"\ncpu_mask = "3"', 1))
    assert run(["export", "fruit", "-t", "mine", "-p", "fp32"]) == 0
    capsys.readouterr()
    assert run(["benchmark", "fruit", "-d", "mine", "--suite", "short.toml", "--json", "--baseline", "pytorch"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    (found,) = (row for row in rows if row["device"] == "mine")
    assert (found["artifact"], found["source"], found["agreement"]) == ("mine/model.fp32.tflite", "device", 100.0)
    assert found["queries"] >= 70
    assert found["state"]["thermal_status"] == 0
    assert list((lab.cache / "jobs").iterdir()) == []

    double = android_root.benchmark_model(Path("benchmark_model").absolute(), "use_xnnpack")
    text = mine.read_text().replace('api = "interpreter"', "").replace(f'python = "{sys.executable}"', "")
    mine.write_text(text + f'api = "benchmark-model"\nbenchmark_model = "{double}"\n')
    command = [
        "benchmark",
        "fruit",
        "-d",
        "mine",
        "--suite",
        "short.toml",
        "--baseline",
        "pytorch",
        "--set-power-mode",
        "fixed-performance",
    ]
    assert run(command) == 0
    output = capsys.readouterr()
    assert output.out.count("full (58 of 58 in TfLiteXNNPackDelegate)") == 1
    assert f"benchmark_model (sha256 {files.sha256_file(double)[:12]}...)" in output.err
    assert lab.fixed[0] == "true"
    assert lab.fixed[-1] == "false"
