"""The Python kit: its pixels are the reference's, and its golden set names what a program does wrong."""

from __future__ import annotations

import ast
import json
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgekit import runs
from edgekit.api import artifacts, ship
from edgekit.data import images
from edgekit.errors import DataError, MissingError
from edgekit.measurements import Summary
from edgekit.records import Artifact, Preprocess
from edgekit.shipping import golden, kit, python
from edgekit.targets.contract import Contract
from tests.bench.results import BASELINE_ROW

SOURCE = kit.TEMPLATES / "python" / "classifier.py"
UPDATES = kit.TEMPLATES / "python-updates" / "updates.py"
LABELS = ("cat", "<b>dog</b>", 'a "quoted" $name', "🐈", "שלום")
PREPROCESS = Preprocess(64, 73, "bicubic")
KINDS = (
    Preprocess(224, 256), Preprocess(64, 64, "bicubic", resize="squash"),
    Preprocess(96, 96, resize="letterbox", background="#0a141e"), PREPROCESS,
)  # fmt: skip
SHAPES = ((1, 1), (64, 64), (7, 5), (300, 224), (223, 500), (3, 400), (1000, 3), (640, 481))


def program(old: str = "", new: str = "") -> Any:
    """The module `classifier`, with a part of its text replaced."""
    text = SOURCE.read_text(encoding="utf-8")
    assert old in text
    module = types.ModuleType("classifier")
    module.__dict__["__file__"] = str(SOURCE)
    exec(compile(text.replace(old, new), str(SOURCE), "exec"), module.__dict__)
    return module


def network(squares: Any) -> np.ndarray:
    """Scores that depend on every channel and half of a picture."""
    values = np.asarray(squares).astype(np.float64) / 255
    half = values[:, : values.shape[1] // 2].mean((1, 2))
    return np.concatenate([values.mean((1, 2)), half], 1)[:, : len(LABELS)].astype(np.float32)


def source(input_: str = "uint8", preprocess: Preprocess = PREPROCESS) -> kit.Source:
    artifact = Artifact(
        "android/model.int8.tflite", "android", "int8", "litert", "NHWC", "a" * 64, "b" * 64, {}, input_
    )
    return kit.Source("run", Path("none"), artifact, Contract("net", "b" * 64, LABELS, preprocess, 1.5), network)


def model(module: Any, given: kit.Source) -> Any:
    """A `Classifier` of a module whose network is `network`."""
    contract = kit.contract_of(given)
    made = object.__new__(module.Classifier)
    made.contract, made.labels, made.temperature = contract, list(LABELS), 1.5
    made.tensor = json.loads(json.dumps(contract["tensor"]))
    made.processor = "cpu"
    made.run = lambda tensor: network(back(tensor, contract["tensor"]))[0]
    return made


def back(tensor: np.ndarray, told: dict[str, Any]) -> np.ndarray:
    """The pixels of an input tensor."""
    if told["type"] == "float32":
        return (tensor * np.float32(told["std"]) + np.float32(told["mean"])) * 255
    return tensor.astype(np.int16) + (128 if told["type"] == "int8" else 0)


@pytest.fixture(scope="module", params=["uint8", "int8", "float32"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[kit.Source, Path]:
    """A source and its golden set."""
    given, folder = source(request.param), tmp_path_factory.mktemp("kit") / "golden"
    kit.write_golden(given, folder)
    return given, folder


def levels(module: Any, made: tuple[kit.Source, Path]) -> dict[str, Any]:
    return {result.level: result for result in module.check(model(module, made[0]), made[1])}


@pytest.mark.parametrize("preprocess", KINDS, ids=lambda p: f"{p.resize}-{p.image_size}")
def test_its_pixels_are_the_references(preprocess: Preprocess) -> None:
    module, contract = program(), preprocess.contract()
    for seed, (width, height) in enumerate(SHAPES):
        pixels = golden.noise(width, height, seed)
        assert (module.fit(pixels, contract) == images.fit(Image.fromarray(pixels), preprocess)).all()


@pytest.mark.slow
def test_its_pixels_are_the_references_at_random_sizes() -> None:
    module, random = program(), np.random.default_rng(0)
    for number in range(1000):
        width, height = (int(side) for side in np.exp(random.uniform(0, np.log(700), 2)).round())
        preprocess = KINDS[number % len(KINDS)]
        pixels = golden.noise(width, height, number)
        same = module.fit(pixels, preprocess.contract()) == images.fit(Image.fromarray(pixels), preprocess)
        assert same.all(), (width, height, preprocess)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_files_of_every_kind_are_read_as_edgekit_reads_them(tmp_path: Path, mode: str) -> None:
    module, path = program(), tmp_path / "a.tif"
    picture = Image.fromarray(golden.noise(40, 30, 1))
    if mode in ("PA", "YCbCr"):
        path = tmp_path / ("a.png" if mode == "PA" else "a.jpg")
        picture = picture.convert("RGBA").convert("P") if mode == "PA" else picture
        picture.save(path, **({"transparency": 3} if mode == "PA" else {}))
    elif mode == "I;16":
        Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)).save(path)
    else:
        picture.convert(mode).save(path)
    if mode in ("I;16", "I", "F"):
        with pytest.raises(ValueError, match="more than 8 bits"):
            module.load(path, PREPROCESS.contract())
    else:
        assert (module.load(path, PREPROCESS.contract()) == np.asarray(images.load_image(path))).all()


@pytest.mark.parametrize("path", [SOURCE, UPDATES], ids=lambda path: path.stem)
def test_it_is_written_for_python_3_8(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    assigned = [node for statement in tree.body if isinstance(statement, ast.Assign) for node in ast.walk(statement)]
    assert not [node for node in assigned if isinstance(node, ast.Subscript)]  # tuple[...] needs 3.9 when it is run
    assert not [k for k in ast.walk(tree) if isinstance(k, ast.keyword) and k.arg == "strict"]
    imported = {alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import)
                for alias in node.names}  # fmt: skip
    imported |= {node.module.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    runtimes = {"ai_edge_litert", "tflite_runtime", "onnxruntime", "engine"}
    needed = {"cryptography"} if path == UPDATES else {"numpy", "PIL", *runtimes}
    assert imported - {*sys.stdlib_module_names} == needed


def test_noise_is_that_of_the_golden_set() -> None:
    assert (program().noise(13, 5, 3) == golden.noise(13, 5, 3)).all()
    state, levels = 3, []
    for _ in range(6):
        state = (1664525 * state + 1013904223) % 2**32
        levels.append(state >> 24)
    assert golden.noise(2, 1, 3).ravel().tolist() == levels


def test_the_kit_as_it_is_has_no_faults(made: tuple[kit.Source, Path]) -> None:
    found = levels(program(), made)
    assert [*found] == [
        "pixels to tensor", "picture file to tensor", "values of the tensor", "tensor to scores",
        "label and probability",
    ]  # fmt: skip
    assert not [result.problems for result in found.values() if result.problems]
    assert found["pixels to tensor"].checked == 5
    assert found["picture file to tensor"].checked == 17


UPRIGHT = "upright = ImageOps.exif_transpose(opened) or opened"
BOX = "box = (width / 2 - half_w, height / 2 - half_h, width / 2 + half_w, height / 2 + half_h)"
MUTATIONS = [
    ("stretched", 'if contract["geometry"] == "whole":', "if True:", "pixels to tensor"),
    ("not cropped", 'scale = contract["resize_size"] / min(width, height)', "scale = size / min(width, height)",
     "pixels to tensor"),
    ("no antialias", "wide = max(scale, 1.0)", 'wide, kernel = 1.0, "bilinear"', "pixels to tensor"),
    ("other kernel", 'size, kernel = contract["image_size"], contract["resample"]',
     'size, kernel = contract["image_size"], "bilinear"', "pixels to tensor"),
    ("bgr", "return np.ascontiguousarray(summed(rows,", "return np.ascontiguousarray(summed(rows[..., ::-1],",
     "pixels to tensor"),
    ("not turned", UPRIGHT, "upright = opened", "picture file to tensor"),
    ("background", "(*background(contract), 255)", "(0, 0, 0, 255)", "picture file to tensor"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "old", "new", "level"), MUTATIONS, ids=[each[0] for each in MUTATIONS])
def test_a_program_that_drifts_fails_and_is_told_why(
    made: tuple[kit.Source, Path], name: str, old: str, new: str, level: str
) -> None:
    found = levels(program(old, new), made)
    assert found[level].problems
    assert found[level].cause == f"{name}: {golden.DRIFTS[name][0]}"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (BOX, BOX.replace("height / 2 - half_h", "height / 2 - half_h + 1e-3")),
        ("+ 0.5) * scale\n", "+ 0.5001) * scale\n"),
        ("_BITS = 22", "_BITS = 12"),
    ],
    ids=["box", "centre", "bits"],
)
def test_small_faults_are_seen_in_the_pixels(made: tuple[kit.Source, Path], old: str, new: str) -> None:
    assert levels(program(old, new), made)["pixels to tensor"].problems


def test_a_wrong_mean_is_seen_in_the_values(tmp_path: Path) -> None:
    given = source("float32")
    kit.write_golden(given, tmp_path / "golden")
    found = levels(program("(square.astype(np.float32) - center) / width", "square.astype(np.float32) / 255"),
                   (given, tmp_path / "golden"))  # fmt: skip
    assert "R of 0: 0 instead of -2.1179 (mean" in found["values of the tensor"].problems[0]
    assert found["tensor to scores"].problems


def test_another_model_is_seen_in_the_scores(made: tuple[kit.Source, Path]) -> None:
    module = program()
    other = model(module, made[0])
    right = other.run
    other.run = lambda tensor: right(tensor)[::-1].copy()
    found = {result.level: result for result in module.check(other, made[1])}
    assert not found["pixels to tensor"].problems
    assert "scores differ by" in found["tensor to scores"].problems[0]
    assert found["label and probability"].problems


def test_without_pillow_the_files_are_left_out_and_the_rest_is_checked(
    made: tuple[kit.Source, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIL", "PIL.Image"):
        monkeypatch.setitem(sys.modules, name, None)
    found = levels(program(), made)
    assert found["picture file to tensor"].skipped == "Pillow, which decodes the files, is not installed"
    assert found["picture file to tensor"].checked == 0
    assert (found["pixels to tensor"].checked, found["tensor to scores"].checked) == (5, 5)
    assert not [result.problems for result in found.values() if result.problems]
    level = kit._level(found["picture file to tensor"]._asdict())
    assert level.text == "not verified; Pillow, which decodes the files, is not installed"


def test_without_the_runtime_the_scores_are_left_out(made: tuple[kit.Source, Path]) -> None:
    module = program()
    other = model(module, made[0])

    def run(tensor: np.ndarray) -> np.ndarray:
        raise ModuleNotFoundError("No module named 'tensorrt'")

    other.run = run
    found = {result.level: result for result in module.check(other, made[1])}
    for level in ("tensor to scores", "label and probability"):
        assert found[level].skipped == "the runtime is not installed here: No module named 'tensorrt'"
    assert found["pixels to tensor"].checked == 5


def test_pixels_of_another_kind_are_refused() -> None:
    for pixels in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match="pixels must be uint8"):
            program().fit(pixels, PREPROCESS.contract())


def test_a_folder_with_something_in_it_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(DataError, match="is not empty"):
        kit.write(python.TARGET, source(), tmp_path)
    assert (tmp_path / "mine").read_text() == "x"


RUN = runs.Run(Path("runs/x"), runs.RunInfo(checkpoint_sha256="b" * 64))


@pytest.fixture
def known(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files of the run: of android with floats as input, of phone with bytes; in the order of the parameter."""
    made = {"android": source("float32").artifact, "phone": source("uint8").artifact}
    listed = [replace(made[name], name=f"{name}/model.int8.tflite", target=name) for name in request.param]
    monkeypatch.setattr(artifacts, "current_artifacts", lambda run, weights: listed)


both_orders = pytest.mark.parametrize("known", [("android", "phone"), ("phone", "android")], indirect=True)


@both_orders
@pytest.mark.usefixtures("known")
def test_a_file_that_takes_bytes_is_preferred() -> None:
    assert ship._chosen(RUN, python.TARGET, None, None).name == "phone/model.int8.tflite"


@both_orders
@pytest.mark.usefixtures("known")
def test_with_a_device_the_fastest_file_there_is_shipped() -> None:
    def row(name: str, device: str, p50: float | None, stand_in: bool = False) -> Summary:
        return replace(BASELINE_ROW, artifact=name, device=device, p50_ms=p50, stand_in=stand_in)

    android, phone = "android/model.int8.tflite", "phone/model.int8.tflite"
    rows = [row(android, "pixel", 2.0), row(phone, "pixel", 3.0), row(phone, "nova", 1.0), row(android, "nova", None)]
    for device, fastest in (("pixel", android), ("nova", phone)):
        there = ship._measured_on(RUN, rows, device)
        assert {each.device for each in there} == {device}
        assert ship._chosen(RUN, python.TARGET, None, there).name == fastest
    with pytest.raises(MissingError, match="x was not measured on 'pixle', but on nova, pixel"):
        ship._measured_on(RUN, rows, "pixle")
    with pytest.raises(MissingError, match=r"none of the INT8 files .* was timed on nova"):
        ship._chosen(RUN, python.TARGET, None, [row(phone, "nova", 1.0, stand_in=True)])


def test_figures_say_what_is_doubtful() -> None:
    row = replace(BASELINE_ROW, device="local", processor="cpu", threads=1, p50_ms=0.54, busy=True, top1=98.1)
    figure = ship._figure(replace(row, ran_in="LiteRT 2", stand_in=False))
    assert (figure.device, figure.runtime, figure.top1) == ("desktop, CPU, 1 thread", "LiteRT 2", "98.1")
    assert figure.p50 == "0.54 (other programs used the CPU: not reliable)"
    figure = ship._figure(replace(row, device="pixel", stand_in=True, busy=False, ran_in="x", p50_ms=None))
    assert (figure.device, figure.runtime, figure.p50) == ("pixel", "x (a stand-in)", "not measured")


def test_tolerances_are_of_the_precision_and_of_the_kernels() -> None:
    scores = np.array([[0.0, 10.0]])
    assert golden.tolerance(scores, scores, "fp32") == {"cpu": 0.01, "gpu": 0.5, "npu": 0.5}
    assert golden.tolerance(scores, scores, "int8")["cpu"] == 0.1
    assert golden.tolerance(scores, scores + 0.2, "int8") == {"cpu": 0.8, "gpu": 0.8, "npu": 0.8}
