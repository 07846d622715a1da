"""The example of a kit: it prepares pictures as edgekit does, and runs ONNX files and engines."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from PIL import Image

from edgekit import files
from edgekit.convert.onnx import session
from edgekit.data.images import load_fitted
from edgekit.evaluation.metrics import softmax
from edgekit.ondevice.preprocess import prepare
from edgekit.records import Preprocess
from edgekit.targets import infer
from tests.doubles import engine, plant
from tests.quant.graphs import conv, gemm, graph, op

SOURCE = Path(infer.__file__)
HOW = {
    "crop": Preprocess(32, 40, "bicubic"),
    "squash": Preprocess(32, 32, resize="squash"),
    "letterbox": Preprocess(32, 32, resize="letterbox", background="#204060"),
    "range": Preprocess(32, 36, pixel_range=(100.0, 4095.0), background="#808080"),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of every mode and some shapes."""
    folder, random = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    made = {
        "rgb.png": Image.fromarray(random.integers(0, 256, (57, 91, 3), np.uint8)),
        "thin.png": Image.fromarray(random.integers(0, 256, (7, 39, 3), np.uint8)),
        "grey.png": Image.fromarray(random.integers(0, 256, (50, 40), np.uint8)),
        "alpha.png": Image.fromarray(random.integers(0, 256, (44, 60, 4), np.uint8)),
        "palette.gif": Image.fromarray(random.integers(0, 256, (40, 44), np.uint8)).convert("P"),
        "cmyk.jpg": Image.fromarray(random.integers(0, 256, (40, 48, 4), np.uint8), "CMYK"),
        "deep.png": Image.fromarray(random.integers(0, 65536, (40, 48), np.uint16)),
        "float.tif": Image.fromarray(random.uniform(-0.5, 1.5, (40, 48)).astype(np.float32)),
    }
    turned = Image.Exif()
    turned[0x0112] = 6
    made["rgb.png"].convert("RGB").save(folder / "turned.jpg", exif=turned)
    for name, image in made.items():
        image.save(folder / name)
    return sorted(folder.iterdir())


@pytest.mark.parametrize("how", HOW)
def test_pixels_and_tensors_are_those_of_edgekit(pictures: list[Path], how: str) -> None:
    preprocess = HOW[how]
    told = json.loads(json.dumps(preprocess.document()))  # as in preprocess.json
    feed = {"mean": preprocess.mean, "std": preprocess.std, "layout": "NCHW"}
    for path in pictures:
        expected = load_fitted(path, preprocess)
        found = infer.load(path, told)
        assert (found == expected).all(), path.name
        assert (infer.to_tensor(found, told) == prepare(expected, feed)).all()


def test_probabilities_are_those_of_predict() -> None:
    scores = np.random.default_rng(0).normal(0, 5, 7).astype(np.float32)
    assert infer.probabilities(scores, 1.7) == pytest.approx(softmax(scores, 1.7))


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """A kit of a model with two classes."""
    folder = tmp_path / "a kit"
    folder.mkdir()
    parts = [conv("image", "c1", inputs=3), op("GlobalAveragePool", ["c1"], "pool"), op("Flatten", ["pool"], "flat")]
    model = ir.to_proto(graph(*parts, gemm("flat", "scores", outputs=2), channels=3))
    for value in (*model.graph.input, *model.graph.output):
        for side in value.type.tensor_type.shape.dim:
            if side.dim_value == 4:
                side.dim_value = 32
    (folder / "model.fp32.onnx").write_bytes(model.SerializeToString())
    preprocess = HOW["crop"].document()
    sha256 = files.sha256_file(folder / "model.fp32.onnx")
    listed = [{"name": "jetson/model.fp32.onnx", "sha256": sha256, "details": {}}]
    manifest = {"labels": ["cat", "dog"], "preprocess": preprocess, "temperature": 1.7, "artifacts": listed}
    files.save_json(folder / "manifest.json", manifest)
    files.save_json(folder / "preprocess.json", preprocess)
    (folder / "labels.txt").write_text("cat\ndog\n")
    for path in (SOURCE, SOURCE.with_name("engine.py")):
        shutil.copy(path, folder)
    return folder


def said(kit: Path, *arguments: object, python: object = sys.executable, status: int = 0) -> str:
    done = subprocess.run([str(python), str(kit / "infer.py"), *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def expected_line(kit: Path, picture: Path) -> str:
    told = json.loads((kit / "preprocess.json").read_text())
    image = infer.to_tensor(infer.load(picture, told), told)
    shares = softmax(session(kit / "model.fp32.onnx").run(None, {"image": image})[0][0], 1.7)
    order = np.argsort(-shares)
    return f"{picture}: " + ", ".join(f"{['cat', 'dog'][n]} {100 * shares[n]:.1f} %" for n in order)


def test_an_onnx_file_is_run_where_there_is_no_engine(kit: Path, pictures: list[Path]) -> None:
    text = said(kit, *pictures[:2])
    assert text.startswith(f"{expected_line(kit, pictures[0])}\n{expected_line(kit, pictures[1])}\nmodel.fp32.onnx")


def test_an_engine_is_run_where_there_is_one(kit: Path, pictures: list[Path], tmp_path: Path) -> None:
    """By doubles of TensorRT and of the CUDA runtime."""
    (kit / "model.fp16.engine").write_bytes(engine.pack((kit / "model.fp32.onnx").read_bytes(), version="10.3.0"))
    tools = tmp_path / "tools"
    tools.mkdir()
    text = said(kit, *pictures[:2], python=plant.python(tools))
    assert text.startswith(f"{expected_line(kit, pictures[0])}\n{expected_line(kit, pictures[1])}\nmodel.fp16.engine")


def test_the_folder_is_checked(kit: Path) -> None:
    assert said(kit, "--check") == "model.fp32.onnx: ok\nlabels.txt: ok\npreprocess.json: ok\n"
    with open(kit / "model.fp32.onnx", "ab") as file:
        file.write(b"\0")
    (kit / "labels.txt").write_text("dog\ncat\n")
    text = said(kit, "--check", status=1)
    assert text == "model.fp32.onnx: changed\nlabels.txt: not that of the manifest\npreprocess.json: ok\n"
    (kit / "model.fp32.onnx").unlink()
    assert "model.fp32.onnx: missing" in said(kit, "--check", status=1)
    assert "no model can be run here" in said(kit, "a.png", status=1)


def test_it_runs_in_python_3_8_and_imports_nothing_of_edgekit() -> None:
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 8))
    imported = {n.module if isinstance(n, ast.ImportFrom) else a.name for n in ast.walk(tree)
                if isinstance(n, ast.Import | ast.ImportFrom) for a in n.names}  # fmt: skip
    assert not [name for name in imported if name.startswith("edgekit")]
