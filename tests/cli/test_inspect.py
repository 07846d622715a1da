"""``edgekit inspect``: of files, of artifacts by their names, of engines, and of what is no model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgekit import files, runs
from edgekit.cli.app import run
from edgekit.records import Artifact
from edgekit.runs import RunInfo
from tests import flat
from tests.small_onnx import model as onnx_model

WEIGHTS = "c" * 64
DETAILS = {"recipe": "default", "samples": "d" * 64, "steps": ["rounding", "bias"], "calibration_sha256": "e" * 64}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run called fruit, with a .tflite, an ONNX file and an engine, whose export is written by hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKIT_RUNS_DIR", raising=False)
    runs.create_run(tmp_path / "runs", "fruit", RunInfo.from_document({"status": "finished"}))
    made = tmp_path / "runs" / "fruit"
    (made / "checkpoint.pt").write_bytes(b"")
    write_export(made / "export/android", "model.int8.tflite", flat.tflite("int8", "uint8", "float32"), "litert")
    write_export(made / "export/jetson", "model.int8.onnx", onnx_model(), "tensorrt")
    engine = made / "export/jetson/engines/orin/model.int8.engine"
    engine.parent.mkdir(parents=True)
    engine.write_bytes(b"an engine")
    record = {"tensorrt": "10.3.0", "onnx": "model.int8.onnx", "engine_sha256": files.sha256_file(engine),
              "exported_sha256": files.sha256_file(made / "export/jetson/model.int8.onnx"), "flags": ["INT8", "FP16"],
              "placement": {"dla": ["a", "b"], "gpu": ["c"]}, "module": "Orin\x1b[2J"}  # fmt: skip
    files.save_json(engine.with_name(engine.name + ".json"), record)
    return made / "export"


def write_export(folder: Path, name: str, content: bytes, runtime: str) -> None:
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    digest = files.sha256_file(folder / name)
    artifact = Artifact(
        f"{folder.name}/{name}", folder.name, "int8", runtime, "NHWC", digest, WEIGHTS, DETAILS, "uint8"
    )
    manifest = {"schema": 1, "edgekit": "0.1.0", "created": "2025-01-01", "run": "fruit", "arch": "tiny",
                "checkpoint_sha256": WEIGHTS, "artifacts": [artifact]}  # fmt: skip
    files.save_json(folder / "manifest.json", manifest)


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert run(["inspect", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("how", [["android/model.int8.tflite"], ["android/model.int8.tflite", "fruit"],
                                 ["fruit", "android/model.int8.tflite"],
                                 ["runs/fruit/export/android/model.int8.tflite"]])  # fmt: skip
def test_an_artifact_is_found_by_its_name_or_its_path(
    folder: Path, capsys: pytest.CaptureFixture[str], how: list[str]
) -> None:
    found = as_json(capsys, *how)
    assert found["form"] == "LiteRT"
    assert found["sha256"] == files.sha256_file(folder / "android/model.int8.tflite")
    assert found["inputs"] == [{"name": "image", "shape": [1, 8, 8, 3], "type": "uint8", "scale": 1 / 64,
                                "zero_point": 128, "range": [-2.0, 127 / 64]}]  # fmt: skip
    lineage = found["lineage"]
    assert (lineage["file"], lineage["run"], lineage["checkpoint sha256"]) == ("as exported", "fruit", WEIGHTS)
    assert (lineage["recipe"], lineage["steps"], lineage["calibration sha256"]) == (
        "default",
        "rounding, bias",
        "e" * 64,
    )
    assert {v["delegate"]: v["stays"] for v in found["delegates"]} == {
        "gpu": 5, "int8-npu": 4, "edge-tpu": 4, "xnnpack": 4,
    }  # fmt: skip
    assert not any(v["verified"] for v in found["delegates"])


def test_a_file_that_changed_since_export_is_named_as_such(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "android/model.int8.tflite"
    before = files.sha256_file(path)
    path.write_bytes(flat.tflite())
    assert as_json(capsys, str(path))["lineage"]["file"] == f"changed since export, when its hash was {before}"
    path.rename(path.with_name("other.tflite"))
    assert "not listed in " in as_json(capsys, str(path.with_name("other.tflite")))["lineage"]["file"]


def test_a_file_without_a_run_is_shown_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.tflite").write_bytes(flat.tflite())
    assert as_json(capsys, str(tmp_path / "x.tflite"))["lineage"] == {}
    assert run(["inspect", str(tmp_path / "x.tflite")]) == 0
    assert "unknown: there is no manifest beside it" in capsys.readouterr().out


def test_a_damaged_manifest_hides_nothing_of_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "android/manifest.json").write_text("[" * 100_000)
    found = as_json(capsys, str(folder / "android/model.int8.tflite"))
    assert found["lineage"]["manifest"].startswith("cannot be used: ")
    assert len(found["kinds"]) == 5


def test_the_tables_have_every_part(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", "android/model.int8.tflite", "--ops"]) == 0
    shown = capsys.readouterr().out
    for text in ("inputs and outputs", "-2 to 1.984", "CONV_2D", "int8 x int8 per channel -> int8", "conv/weight",
                 "every operator", "0.0 million", "according to their documentation (not verified on hardware)",
                 "QUANTIZE x1: conversion between int8 and uint8 is not supported", "\norigin\n"):  # fmt: skip
        assert text in shown or text in " ".join(shown.split())


def test_ops_lists_each_with_the_delegates_that_it_leaves(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ops = as_json(capsys, "android/model.int8.tflite", "--ops")["ops"]
    assert [op["op"] for op in ops] == ["QUANTIZE", "CONV_2D", "MEAN", "FULLY_CONNECTED", "DEQUANTIZE"]
    assert ops[1]["inputs"] == ["image_q", "conv/weight", "conv/bias"]
    assert ops[1]["leaves"] == {}
    assert set(ops[4]["leaves"]) == {"int8-npu", "edge-tpu"}


def test_an_onnx_file_says_what_is_int8(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "jetson/model.int8.onnx")
    assert found["about"]["INT8 by Q/DQ"].startswith("1 of 2 ")
    assert (found["delegates"], found["lineage"]["artifact"]) == ([], "jetson/model.int8.onnx")
    assert run(["inspect", "jetson/model.int8.onnx"]) == 0
    assert "delegates" not in capsys.readouterr().out


def test_an_engine_says_what_built_it_and_from_what(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "jetson/engines/orin/model.int8.engine"
    found = as_json(capsys, str(path))
    assert found["engine"]["file"] == "as built"
    assert (found["engine"]["tensorrt"], found["engine"]["flags"]) == ("10.3.0", "INT8, FP16")
    assert (found["engine"]["layers: dla"], found["engine"]["module"]) == (2, "Orin\\x1b[2J")
    assert found["lineage"]["checkpoint sha256"] == WEIGHTS
    path.write_bytes(b"another")
    assert run(["inspect", str(path)]) == 0
    assert "changed since it was built" in capsys.readouterr().out
    path.with_name(path.name + ".json").unlink()
    assert run(["inspect", str(path)]) == 4
    assert "no record beside it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["android/model.fp32.tflite"], 2, "unknown file or artifact"),
        (["x.tflite", "apple"], 4, "there is no run 'apple'"),
        (["x.tflite", "--runs-dir", "nowhere"], 4, "there is no file 'x.tflite', and no run"),
        (["runs/fruit/run.json"], 2, "is not a model file"),
    ],
)
def test_what_is_not_there_is_an_error(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str
) -> None:
    assert run(["inspect", *arguments]) == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x.tflite", "x.onnx"])
def test_damage_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    (tmp_path / name).write_bytes(b"\0\0\0\0TFL3" + bytes(range(256)))
    assert run(["inspect", str(tmp_path / name)]) == 3
    assert capsys.readouterr().err.startswith("error: ")
