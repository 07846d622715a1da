"""No format of the report holds an absolute path or an address of the machine that made it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from edgekit import runs
from edgekit.api.report import render
from edgekit.cli.report import FORMATS
from edgekit.measurements import Latency, Roofline
from edgekit.reporting import changes, pictures, privacy, provenance, svg
from edgekit.reporting.material import Material
from tests.bench.results import BASELINE_ROW, artifact, by_program, flag, result, row
from tests.reporting.evaluations import evaluation
from tests.reporting.made import meta
from tests.reporting.made import run as made_run

MARKER = "s3cr3t"
HOME = f"/home/{MARKER}"


def secretive(folder: Path) -> Material:
    """A run whose paths, notes and environments name the machine wherever they can."""
    path = folder / MARKER / "runs dir" / "fruit"
    path.mkdir(parents=True)
    described = meta(
        data={"root": f"{HOME}/my pictures/cats", "fingerprint": "f" * 64},
        options={"arch": "mobilenet_v2", "weights": f"{HOME}/my weights/best.pt", "lr": 0.1},
        decisions=[f"weights: read from {HOME}/my weights/best.pt", f"cache: file://{HOME}/cache/x.bin"],
        versions={"torch": "2.9", "ffmpeg": f"{HOME}/bin/ffmpeg"},
    )
    environment = result().environment.with_values(**{
        "serial": f"{MARKER}:5555", "board": f"{HOME}/tree/model", "suite": f"{HOME}/own.toml",
        "no_layers": f"{HOME}/bin/profiler: not found", "no_roofline": f"root@{MARKER}.lan does not answer",
        "python": f"3.12 ({HOME}/venv/bin/python)", "layers_by": f"trace in {HOME}/trace/a.json",
    })  # fmt: skip
    details = {"recipe": f"{HOME}/recipes/own.toml", "observer": "mse", "steps": [f"{HOME}/step/one"]}
    of = artifact("android/model.int8.tflite", "int8", "litert", details=details)
    program = by_program()
    flagged = Latency(700, 0, (), "order statistics", 0.0, (flag(f"seen in {HOME}/logs/a.txt"),))
    limit = Roofline(1, 1, 1.2, "memory", 0.4, f"{HOME}/devices/own.toml")
    results = [result(), result(of, right=20, environment=environment)]
    return Material(
        run=runs.Run(path, runs.RunInfo.from_document(described)),
        rows=[
            BASELINE_ROW,
            row(no_energy=f"cannot read {HOME}/sensors/in0", throttling=(f"see {HOME}/log/throttle",), roofline=limit,
                latency=flagged, state={"power_mode": f"{HOME}/modes/15W"}),
        ],
        results=results,
        changes=changes.changes(results),
        evaluation=evaluation(),
        drawn=pictures.draw_all(described["history"], None, evaluation()),
        programs=[
            dataclasses.replace(program, environment=program.environment.with_values(program=f"{HOME}/bin/bench"))
        ],
        layers={"m on d": []},
        layer_notes={"m on d": [f"times: trace in {HOME}/trace/a.json, medians"]},
        layers_left=[f"the errors for android: {path}/quant/debug-android.json cannot be read"],
        no_images=f"{HOME}/my pictures/cats/1.png is gone",
    )  # fmt: skip


@pytest.mark.parametrize("format_", FORMATS)
def test_no_format_names_the_machine(format_: str, tmp_path: Path) -> None:
    text = render(secretive(tmp_path), format_)
    assert text
    assert MARKER not in text
    assert str(tmp_path) not in text


def test_the_last_component_of_a_path_is_kept(tmp_path: Path) -> None:
    text = render(secretive(tmp_path), "json")
    for kept in (
        "edgekit train cats --name fruit --model mobilenet_v2 --weights best.pt",
        "edgekit benchmark fruit --device local --suite own.toml",
        "weights: read from best.pt", "(address) does not answer", "3.12 (python)", "cannot read in0",
    ):  # fmt: skip
        assert kept in text
    page = render(secretive(tmp_path / "again"), "html")
    assert "cats/1.png is gone" in page
    assert "fruit/quant/debug-android.json cannot be read" in page


@pytest.mark.parametrize(
    "text",
    ["images/s", "p50/p90", "a / b", "<b>board</b>", "https://a.example/peaks/orin", "/proc/device-tree/model",
     "jetson/model.int8.onnx", "TensorRT 10.3.0.26", "7 of 10 layers: </td>", "1/2, (3)/4", ""],
)  # fmt: skip
def test_text_that_is_no_path_stays_as_it_is(text: str, tmp_path: Path) -> None:
    made = secretive(tmp_path)
    assert privacy.public(dataclasses.replace(made, no_images=text)).no_images == text


@pytest.mark.parametrize(
    ("root", "shown"),
    [
        ("/home/me/.cache/edgekit/datasets/digits-v1", "digits"),
        ("/scratch/cache/datasets/digits-v1", "digits"),
        ("/home/me/digits-v1", "digits-v1"),
        ("/home/me/datasets/birds-v1", "birds-v1"),
    ],
)
def test_built_in_data_has_the_name_that_train_takes(root: str, shown: str) -> None:
    found = privacy.public(Material(made_run(data={"root": root, "fingerprint": "f" * 64})))
    assert provenance.training("a", found.run.info.plain()).startswith(f"edgekit train {shown} --name a ")


def test_a_relative_run_path_is_kept_for_the_commands() -> None:
    for path, handle in (("runs/fruit", "fruit"), ("out/fruit", "out/fruit"), ("../x/fruit", "fruit")):
        found = privacy.public(Material(runs.Run(Path(path), runs.RunInfo.from_document(meta()))))
        assert found.run.handle == handle
        assert found.run.weights_sha256 == "b" * 64


def test_pictures_have_no_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    import numpy as np
    from PIL import Image

    from edgekit.reporting import html

    (tmp_path / MARKER).mkdir()
    monkeypatch.chdir(tmp_path / MARKER)
    drawn: list[Any] = list(secretive(tmp_path).drawn.values())
    drawn += [svg.standalone(text) for text in drawn if isinstance(text, str)]
    drawn.append(pictures.samples(np.zeros((2, 8, 8, 3), np.uint8), ["a", "b"]))
    drawn.append(html.jpeg(np.zeros((8, 8, 3), np.uint8)))
    for picture in drawn:
        data = picture.encode() if isinstance(picture, str) else picture
        assert MARKER.encode() not in data
        if isinstance(picture, bytes):
            assert not set(Image.open(io.BytesIO(data)).info) - {"dpi", "jfif", "jfif_version", "jfif_unit",
                                                                 "jfif_density"}  # fmt: skip
