"""The boundary: every error has its status and two lines, and nothing drives the terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import edgekit
from edgekit.cli.app import run
from edgekit.runs import RunInfo, create_run, open_run
from tests.reporting.made import meta

Files = Callable[[str], list[str]]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; its runs/ holds a sound run and three that are not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGEKIT_RUNS_DIR", raising=False)
    folder = tmp_path / "runs"
    for name in ("damaged", "newer", "sound"):
        made = create_run(folder, name, RunInfo.from_document({"status": "finished", "checkpoint_sha256": "b" * 64}))
        (made.path / "checkpoint.pt").touch()
    (folder / "damaged" / "run.json").write_text("{")
    open_run(folder, "newer").save(schema=99)
    return folder


def two_lines(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What stood on standard error: the error and the hint, one line each, and nothing else anywhere."""
    output = capsys.readouterr()
    error, hint = output.err.splitlines()
    assert output.out == ""
    assert error.startswith("error: ")
    assert hint.startswith("  hint: ")
    return error.removeprefix("error: "), hint.removeprefix("  hint: ")


ERRORS = {
    "train": (2, "train needs images", "edgekit train DATA"),
    "train nothing": (4, "'nothing' is neither a folder, nor a file", "known: digits"),
    "train . --model vgg": (2, "unknown model 'vgg'", "known: resnet18"),
    "train empty": (3, "no images below", "DATA/<class>/<image>"),
    "export": (2, "needs a target", "jetson, android, ios"),
    "export -t jetsn": (2, "unknown target 'jetsn'", "did you mean 'jetson'? known: jetson"),
    "export -t jetson -p int4": (2, "unknown precision 'int4'", "known: fp32, fp16, int8"),
    "export -t desktop -p fp16": (2, "desktop does not run fp16", "supported precisions: fp32, int8"),
    "export -t jetson --recipe defalt": (2, "unknown calibration recipe 'defalt'", "did you mean 'default'?"),
    "export -t jetson --recipe no.toml": (4, "'no.toml' does not exist", "known: best, bias, default"),
    "export -t jetson none": (4, "there is no run 'none'", "runs in runs: "),
    "benchmark -d pixle-8": (2, "unknown device 'pixle-8'", "did you mean 'pixel-8'? known: iphone-15"),
    "benchmark -d jetson-thor": (2, "device 'jetson-thor' has no host", "--device jetson-thor --host"),
    "benchmark -d iphone-15": (2, "cannot run anything on 'iphone-15' yet", "benchmarks work over: local, ssh, adb"),
    "benchmark -d pixel-8": (4, "no benchmark_model to send to 'pixel-8'", "developers.google.com/edge/litert"),
    "benchmark -d rpi-5": (2, "has no host", "--host user@address"),
    "benchmark -d bad.toml": (3, "bad.toml: unknown key 'colour'", "known: name, family"),
    "benchmark -d torn.toml": (3, "torn.toml is not valid TOML", ""),
    "benchmark --suite fast": (2, "unknown suite 'fast'", "known: mlperf-mobile, quick, standard"),
    "benchmark none": (4, "there is no run 'none'", "runs in runs: "),
    "benchmark ../etc": (4, "there is no run '../etc'", "runs in runs: "),
    "report none": (4, "there is no run 'none'", "newer, damaged"),
    "report damaged": (3, "run.json is damaged", "make the run again"),
    "report newer": (6, "(format 99)", "upgrade edgekit to that version"),
    "report sound": (3, "run.json is damaged: arch, labels", "restore it"),
    "evaluate none": (4, "there is no run 'none'", "runs in runs: "),
    "evaluate sound": (3, "checkpoint.pt is no edgekit checkpoint", ""),
    "compare none": (4, "there is no run 'none'", "runs in runs: "),
    "compare --runs-dir empty": (4, "no finished run in empty", "edgekit train"),
    "predict sound a.png --uncertainty --artifact b": (
        2,
        "--uncertainty needs the checkpoint",
        "leave out --artifact, or leave out --uncertainty",
    ),
    "report --runs-dir empty": (4, "no finished run in empty", "edgekit train"),
    "predict none a.png": (4, "there is no run 'none'", "runs in runs: "),
    "predict sound a.png": (3, "checkpoint.pt is no edgekit checkpoint", ""),
}


@pytest.mark.parametrize("line", ERRORS)
def test_an_error_is_its_status_and_two_lines(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.toml").write_text('family = "rpi"\ncolour = 1\n')
    (tmp_path / "torn.toml").write_text("family =")
    os.utime(tmp_path / "runs" / "damaged" / "checkpoint.pt", (1, 1))
    os.utime(tmp_path / "runs" / "newer" / "checkpoint.pt", (2, 2))
    status, message, hint = ERRORS[line]
    assert run(line.split()) == status
    if hint:
        shown = two_lines(capsys)
        assert message in shown[0]
        assert hint in shown[1]
    else:
        assert message in capsys.readouterr().err.splitlines()[0]


def test_an_error_makes_no_files(tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    for line in ERRORS:
        run(line.replace("empty", "nothing").split())
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "line",
    ["bogus", "--bogus", "train a b", "train a --epochs many", "train a --bogus", "benchmark --threads 0",
     "predict", "predict a b --top 0"],
)  # fmt: skip
def test_wrong_usage_is_status_2_and_names_the_help(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "-h' for help" in output.err
    assert output.err.splitlines()[-1].startswith("Error: ")


ESCAPE = "a\x1b]0;title\x07\x1b[31mb"


@pytest.mark.parametrize(
    "arguments",
    [
        [ESCAPE],
        [f"--{ESCAPE}"],
        ["train", ESCAPE],
        ["train", "a", "--model", ESCAPE],
        ["train", "a", "--epochs", ESCAPE],
        ["export", "--target", ESCAPE],
        ["export", "--target", f"{ESCAPE}.toml"],
        ["benchmark", "--device", ESCAPE],
        ["benchmark", "--suite", ESCAPE],
        ["report", ESCAPE],
        ["predict", ESCAPE, "a.png"],
        ["report", "--runs-dir", ESCAPE],
    ],
    ids=lambda a: " ".join("X" if ESCAPE in word else word for word in a),
)
def test_control_characters_are_not_printed_raw(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) in (2, 3, 4)
    output = capsys.readouterr()
    assert not {c for c in output.out + output.err if not c.isprintable()} - {"\n"}


def test_control_characters_in_a_class_folder_are_not_printed_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.datasets import write_images

    write_images(tmp_path / "d", {"a\x1b[31m": 1, "b": 1}, 8)
    assert run(["train", "d"]) == 3
    assert "\\x1b[31m" in two_lines(capsys)[0]


def test_an_error_of_the_system_that_nothing_expects_is_status_6(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        Path("runs/sound").read_text()

    monkeypatch.setattr("edgekit.cli.report.choose", refuse)
    assert run(["report", "sound"]) == 6
    assert capsys.readouterr().err.startswith("error: Is a directory: failed while working (runs/sound)")


@pytest.mark.parametrize("line", ["--debug report none", "report none --debug", "report none"])
def test_debug_shows_the_traceback_wherever_it_stands_and_keeps_the_status(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line.split()) == 4
    shown = capsys.readouterr().err
    assert ("Traceback" in shown) == ("--debug" in line)
    assert "error: there is no run 'none'" in shown


def test_a_hint_names_a_run_elsewhere_by_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    open_run(Path("elsewhere"), "sound").save(**meta())
    assert run(["report", "sound", "--runs-dir", "elsewhere"]) == 0
    assert "next: edgekit evaluate elsewhere/sound" in capsys.readouterr().err


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("edgekit.cli.console.table", broken)
    with pytest.raises(ZeroDivisionError):
        run(["devices"])


SIGNALLED = """
import os, signal, sys
from edgekit.cli import console
from edgekit.cli.app import main
console.table = lambda *_, **__: os.kill(os.getpid(), signal.{})
sys.argv = ["edgekit", "devices"]
main()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_and_sigterm_are_status_130_without_a_traceback(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", SIGNALLED.format(name)], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT
    assert "Traceback" not in done.stderr
    assert "interrupted" in done.stderr


IN_A_CALLBACK = """
import os, signal, sys, time
from edgekit.cli import console
from edgekit.cli.app import main
class Callback:
    def __del__(self):  # where Python raises nothing: the error is shown and forgotten
        os.kill(os.getpid(), signal.{})
        time.sleep(0.001)
def work(*_, **__):
    Callback()
    time.sleep(60)
console.table = work
sys.argv = ["edgekit", "devices"]
main()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_that_arrives_in_a_callback_is_not_lost(name: str) -> None:
    code = IN_A_CALLBACK.format(name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 128 + signal.SIGINT
    assert "ignored" not in done.stderr
    assert "interrupted" in done.stderr


ASCII = """
import sys
from edgekit.cli import console, devices
from edgekit.cli.app import main
from edgekit import progress
def shown(*_, **__):
    progress.note("\u72ac")
    table(["class"], [["\u72ac"]])
    console.as_json({"class": "\u72ac \U0001f436"})
table, console.table = console.table, shown
sys.argv = ["edgekit", "devices"]
main()
"""


@pytest.mark.parametrize("closed", ["<&- >&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_as_good_as_none(tmp_path: Path, closed: str) -> None:
    command = f'"{sys.executable}" -m edgekit devices {closed}; echo $? >"{tmp_path}/status"'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert (tmp_path / "status").read_text() == "0\n"
    assert "Traceback" not in done.stderr
    assert ("jetson-orin-nano" in done.stdout) == (">&-" not in closed.replace("2>&-", ""))


def test_a_terminal_that_knows_ascii_alone_gets_every_name() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASCII],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u72ac" in done.stderr
    table, _, document = done.stdout.decode("ascii").partition("{")
    assert "\\u72ac" in table
    assert json.loads("{" + document) == {"class": "犬 🐶"}


def test_the_version_and_the_help_are_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"edgekit {edgekit.__version__}\n"
    for arguments in (["--help"], ["-h"], ["train", "-h"]):
        assert run(arguments) == 0
        assert "Usage: edgekit" in capsys.readouterr().out


def test_the_help_of_every_choice_names_what_the_tables_hold(capsys: pytest.CaptureFixture[str]) -> None:
    from edgekit import config
    from edgekit.models.zoo import MODELS
    from edgekit.targets.base import FAMILIES

    for command, names in (
        ("train", list(MODELS)),
        ("export", [*FAMILIES, *config.names("calibration")]),
        ("benchmark", config.names("benchmarks/suites")),
    ):
        run([command, "-h"])
        text = "".join(capsys.readouterr().out.split())
        assert not [name for name in names if name not in text]


def test_the_program_and_the_module_are_one() -> None:
    for command in ([sys.executable, "-m", "edgekit"], [str(Path(sys.executable).with_name("edgekit"))]):
        done = subprocess.run([*command, "devices", "--json"], capture_output=True, text=True, check=True)
        assert len(json.loads(done.stdout)) >= 10
