"""The folders of models: what their README.txt says, and what an ONNX file says of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from edgekit import config
from edgekit.convert.onnx import session
from edgekit.records import PRECISIONS, Artifact, Preprocess
from edgekit.targets import kits
from edgekit.targets.contract import Contract, describe_onnx
from tests.quant.graphs import conv, graph

PREPROCESS = Preprocess(64, 72, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), background="#102030")
CONTRACT = Contract("mobilenet_v2", "f" * 64, ("cat", "dog"), PREPROCESS, 1.25)


def artifacts(target: str, runtime: str, suffix: str, *precisions: str) -> list[Artifact]:
    return [Artifact(f"{target}/model.{p}{suffix}", target, p, runtime, "NCHW", "0", "0") for p in precisions]


def readme(kit: kits.Kit) -> str:
    write = kits.write_litert if kit.artifacts[0].file.endswith(".tflite") else kits.write_tensorrt
    write(kit)
    text = (kit.folder / "README.txt").read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 120
    return text


@pytest.mark.parametrize(("runtime", "suffix"), [("litert", ".tflite"), ("tensorrt", ".onnx")])
def test_it_lists_every_model_and_what_to_feed_and_what_comes_out(tmp_path: Path, runtime: str, suffix: str) -> None:
    names = PRECISIONS if runtime == "litert" else PRECISIONS[:3]
    text = readme(kits.Kit(tmp_path, artifacts("x", runtime, suffix, *names), CONTRACT))
    assert all(f"model.{p}{suffix}" in text for p in names)
    said = " ".join(text.split())
    for step in CONTRACT.steps():
        assert step in said
    assert ("(1, 64, 64, 3), RGB" if runtime == "litert" else "(1, 3, 64, 64), RGB, channels first (NCHW)") in said
    assert "(1, 2), logits in the order of labels.txt; softmax(scores / 1.25) gives the calibrated" in said


def test_a_run_without_an_evaluation_has_no_temperature(tmp_path: Path) -> None:
    contract = replace(CONTRACT, temperature=None)
    said = readme(kits.Kit(tmp_path, artifacts("x", "litert", ".tflite", "fp32"), contract))
    assert "softmax gives probabilities" in said
    assert "temperature, fitted" not in said


def test_what_takes_one_image_at_a_time_is_said(tmp_path: Path) -> None:
    fp32, int8 = artifacts("x", "litert", ".tflite", "fp32", "int8")
    assert "One image at a time" not in readme(kits.Kit(tmp_path, [fp32, int8], CONTRACT))
    text = readme(kits.Kit(tmp_path, [fp32, replace(int8, details={"batch": 1})], CONTRACT))
    assert "One image at a time: model.int8.tflite cannot be resized" in text


def test_a_file_that_an_optimizer_ruins_is_said(tmp_path: Path) -> None:
    fp32, int8 = artifacts("x", "tensorrt", ".onnx", "fp32", "int8")
    assert "opens each of these files as it is" in readme(kits.Kit(tmp_path, [fp32, int8], CONTRACT))
    plain = replace(int8, details={"host_runtime": "onnxruntime-unoptimized"})
    assert "open model.int8.onnx without its optimizer" in readme(kits.Kit(tmp_path, [fp32, plain], CONTRACT))
    assert "ORT_DISABLE_ALL" in kits.purpose_of(plain.details)


def test_a_board_whose_tensorrt_is_too_old_is_said(tmp_path: Path) -> None:
    models = artifacts("x", "tensorrt", ".onnx", "fp32", "fp16")
    nano = config.load_device("jetson-nano")
    why = "no engine can be built on jetson-nano: the newest TensorRT for it is 8.2, and these files need 8.5 or newer"
    assert kits.why_unbuildable(nano) == why
    text = readme(kits.Kit(tmp_path, models, CONTRACT, nano))
    assert f"NOTE: {why}" in " ".join(text.split())
    assert "./build.sh " not in text
    orin = config.load_device("jetson-orin-nano")
    assert kits.why_unbuildable(orin) == kits.why_unbuildable(None) == ""
    assert kits.why_unbuildable(replace(nano, newest_tensorrt="10.3")) == ""
    assert "./build.sh int8" in readme(kits.Kit(tmp_path, models, CONTRACT, orin))


def test_an_onnx_file_holds_its_contract_and_answers_as_before(tmp_path: Path) -> None:
    path = tmp_path / "model.fp32.onnx"
    path.write_bytes(ir.to_proto(graph(conv("image", "scores"))).SerializeToString())
    image = {"image": np.ones((1, 16, 4, 4), np.float32)}
    before = session(path).run(None, image)[0]
    for _ in range(2):  # written again it is the same
        describe_onnx(path, CONTRACT, "For TensorRT 10.12 and newer.")
    model = onnx.load(path)
    assert {p.key: json.loads(p.value) for p in model.metadata_props} == {
        "edgekit.labels": ["cat", "dog"],
        "edgekit.preprocess": json.loads(json.dumps(CONTRACT.of_file("float32", "NCHW"))),
        "edgekit.temperature": 1.25,
    }
    for part in ("mobilenet_v2, 2 classes", "For TensorRT 10.12", "NCHW", *CONTRACT.steps(), "scores / 1.25"):
        assert part in model.doc_string
    assert session(path).get_modelmeta().custom_metadata_map["edgekit.temperature"] == "1.25"
    assert (session(path).run(None, image)[0] == before).all()
