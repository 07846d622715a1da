"""The kit's build.sh, run by a real sh; trtexec is a stand-in that records how it was called.

The stand-in greets like the real one, writes the engine file and keeps its arguments. What real
versions of trtexec accept is not tested here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgekit import files
from edgekit.targets import kits
from edgekit.targets.kits import write_tensorrt
from tests.targets.test_kits import CONTRACT

FILES = ("fp32", "fp16", "int8", "int8.typed")
GREETINGS = {
    "8.5": 8502,
    "8.6": 8601,
    "10.3": 100301,
    "10.11": 101100,
    "10.12": 101200,
    "10.13": 101300,
    "11.4": 110401,
}
STAND_IN = """#!/bin/sh
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v{number}] # $0 $*"
[ "$1" = --help ] && exit 0
echo "$@" >> {calls}
for argument in "$@"; do
    case $argument in --saveEngine=*) echo engine > "${{argument#--saveEngine=}}" ;; esac
done
exit {status}
"""


@dataclass
class Kit:
    """A kit of empty ONNX files, and a folder for the stand-in."""

    folder: Path
    tools: Path
    environment: dict[str, str] = field(default_factory=dict)

    def install(self, number: int, status: int = 0) -> Path:
        script = self.tools / "trtexec"
        script.write_text(STAND_IN.format(number=number, calls=self.tools / "calls", status=status))
        script.chmod(0o755)
        return script

    def build(self, *precisions: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.tools}:{os.environ['PATH']}", **self.environment}
        command = ["sh", str(self.folder / "build.sh"), *precisions]
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")

    def calls(self) -> list[list[str]]:
        return [line.split() for line in (self.tools / "calls").read_text().splitlines()]

    def engines(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*.engine*"))


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    folder, tools = tmp_path / "a kit", tmp_path / "tools"
    folder.mkdir()
    tools.mkdir()
    for name in FILES:
        (folder / f"model.{name}.onnx").write_text(name)
    write_tensorrt(kits.Kit(folder, [], CONTRACT))
    return Kit(folder, tools)


WEAK = {"fp32": ["--noTF32"], "fp16": ["--fp16"], "int8": ["--int8", "--fp16"]}
TYPED = {"fp32": ["--stronglyTyped", "--noTF32"], "fp16": ["--stronglyTyped"], "int8": ["--stronglyTyped"]}
NONE: dict[str, list[str]] = {precision: [] for precision in WEAK}


@pytest.mark.parametrize(
    ("version", "flags"),
    [("8.5", WEAK), ("8.6", WEAK), ("10.3", WEAK), ("10.11", WEAK), ("10.12", TYPED), ("10.13", TYPED), ("11.4", NONE)],
)
def test_flags_of_each_version_and_precision(kit: Kit, version: str, flags: dict[str, list[str]]) -> None:
    kit.install(GREETINGS[version])
    done = kit.build()
    assert done.returncode == 0, done.stderr
    build_only = "--buildOnly" if version == "8.5" else "--skipInference"
    assert kit.calls() == [
        [
            f"--onnx=model.{'int8.typed' if precision == 'int8' and flags is not WEAK else precision}.onnx",
            f"--saveEngine=model.{precision}.engine.part",
            build_only,
            "--profilingVerbosity=detailed",
            *flags[precision],
        ]
        for precision in ("fp32", "fp16", "int8")
    ]
    assert kit.engines() == sorted(f"model.{p}.engine{end}" for p in WEAK for end in ("", ".json"))


def test_each_engine_says_what_built_it(kit: Kit) -> None:
    kit.install(GREETINGS["10.13"])
    kit.environment["TRTEXEC_FLAGS"] = "--memPoolSize=workspace:1024"
    assert kit.build("int8").returncode == 0
    described = json.loads((kit.folder / "model.int8.engine.json").read_text())
    assert described["tensorrt"] == "10.13"
    assert described["onnx_sha256"] == files.sha256_file(kit.folder / "model.int8.typed.onnx")
    assert described["flags"].split() == ["--stronglyTyped", "--memPoolSize=workspace:1024"]
    assert kit.calls()[0][-1] == "--memPoolSize=workspace:1024"


def test_one_precision_can_be_asked_for(kit: Kit) -> None:
    kit.install(GREETINGS["10.3"])
    assert kit.build("fp16").returncode == 0
    assert kit.engines() == ["model.fp16.engine", "model.fp16.engine.json"]


def test_trtexec_can_be_named(kit: Kit, tmp_path: Path) -> None:
    script = kit.install(GREETINGS["8.6"])
    kit.environment["TRTEXEC"] = str(script.rename(tmp_path / "my trtexec"))
    assert kit.build("fp32").returncode == 0
    assert len(kit.calls()) == 1


def test_a_trtexec_that_is_named_and_is_no_program_is_not_replaced_by_another(kit: Kit, tmp_path: Path) -> None:
    kit.install(GREETINGS["8.6"])
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none", tmp_path / "file"):
        kit.environment["TRTEXEC"] = str(path)
        done = kit.build("fp32")
        assert (done.returncode, f"TRTEXEC={path} is not an executable file" in done.stderr) == (1, True)
    assert kit.engines() == []


@pytest.mark.parametrize("number", [8003, 8205, 8401, 7103])
def test_a_tensorrt_before_8_5_is_too_old(kit: Kit, number: int) -> None:
    kit.install(number)
    done = kit.build()
    assert done.returncode == 1
    assert "too old" in done.stderr
    assert kit.engines() == []


def test_a_trtexec_that_does_not_say_its_version_is_refused(kit: Kit) -> None:
    script = kit.tools / "trtexec"
    script.write_text("#!/bin/sh\necho hello\n")
    script.chmod(0o755)
    done = kit.build()
    assert done.returncode == 1
    assert "is unknown: its help does not show it" in done.stderr


@pytest.mark.skipif(shutil.which("trtexec") is not None, reason="this machine has a trtexec")
def test_without_trtexec_it_says_what_to_set(kit: Kit) -> None:
    done = kit.build()
    assert done.returncode == 1
    assert "TRTEXEC=" in done.stderr


@pytest.mark.parametrize("damage", ["changed", "lost"])
def test_a_damaged_kit_is_refused(kit: Kit, damage: str) -> None:
    kit.install(GREETINGS["10.3"])
    if damage == "changed":
        (kit.folder / "model.fp16.onnx").write_text("other bytes")
    else:
        (kit.folder / "model.fp16.onnx").unlink()
    done = kit.build("int8")
    assert done.returncode == 1
    assert "damaged" in done.stderr
    assert not (kit.tools / "calls").exists()


def test_a_trtexec_that_fails_leaves_no_engine_and_names_the_log(kit: Kit) -> None:
    kit.install(GREETINGS["10.3"], status=1)
    done = kit.build("int8")
    assert done.returncode == 1
    log = kit.folder / "model.int8.log"
    assert str(log) in done.stderr
    assert "RUNNING" in log.read_text()
    assert kit.engines() == []


def test_a_precision_that_the_kit_lacks_is_named(kit: Kit) -> None:
    kit.install(GREETINGS["10.3"])
    done = kit.build("int4")
    assert done.returncode == 1
    assert "this kit has no model.int4.onnx" in done.stderr


def test_without_a_wish_only_the_precisions_of_the_kit_are_built(kit: Kit) -> None:
    kit.install(GREETINGS["10.3"])
    (kit.folder / "model.int8.onnx").unlink()
    write_tensorrt(kits.Kit(kit.folder, [], CONTRACT))
    assert kit.build().returncode == 0
    assert [call[0] for call in kit.calls()] == ["--onnx=model.fp32.onnx", "--onnx=model.fp16.onnx"]


def test_the_kit_lists_every_model_and_the_script_can_be_run(kit: Kit) -> None:
    sums = (kit.folder / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in sums] == sorted(f"model.{name}.onnx" for name in FILES)
    assert os.access(kit.folder / "build.sh", os.X_OK)
