"""The iOS kit. With a Swift compiler, its code is built and run here, with stand-ins for Apple's frameworks."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import edgekit
from edgekit.api import artifacts, ship
from edgekit.data import images
from edgekit.errors import DataError, UsageError
from edgekit.models import build, zoo
from edgekit.records import Preprocess
from edgekit.shipping import golden, ios, kit
from tests import nets
from tests.datasets import write_images
from tests.shipping.test_python import KINDS, SHAPES, source
from tests.shipping.test_python import program as python_kit

LABELS = ["apple", "<b>pear", 'a "quoted" $name {{ x }}', "🐈", "שלום", "e\u0301"]
STAND_INS = Path(__file__).parent / "swift"
SOURCES = kit.TEMPLATES / "ios" / "Sources" / "__package__"
pytestmark = pytest.mark.xdist_group("ios")  # one build for all
needs_swift = pytest.mark.skipif(not ios._compiler(), reason="no Swift compiler is installed here")
LAYOUTS = ("rgbx", "bgrx", "xrgb", "rgb")  # of the bytes that ImageIO may give of an opaque picture


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the run `fruit`, and the kits `int8` and `fp32` of it, which were only parsed."""
    folder = tmp_path_factory.mktemp("ios")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.MODELS, "tiny", nets.TINY)
        patch.chdir(folder)
        torch.manual_seed(0)
        torch.save(build.build("tiny", len(LABELS)).state_dict(), "tiny.pth")
        write_images(folder / "photos", {"x": 20})
        given = {"image_size": 64, "resize_size": 73, "resample": "bicubic"}
        run = edgekit.import_model(
            "tiny.pth", LABELS, arch="tiny", preprocess=given, name="fruit", calibration=folder / "photos"
        )
        contract_of = artifacts.contract_of
        with pytest.MonkeyPatch.context() as within:
            within.setattr(ios, "_compiler", lambda: "")
            within.setattr(ship, "_updates", lambda url, channel, root: kit.Updates(url, channel, b"{}"))
            within.setattr(artifacts, "contract_of", lambda made: replace(contract_of(made), temperature=1.5))
            for precision, taken in (("int8", "uint8"), ("fp32", "float")):
                edgekit.export(run, "android", precisions=[precision], recipe="minmax", input=taken)
                edgekit.ship("fruit", "ios", precision, package="FruitClassifier", updates="https://example.com/models",
                             artifact=f"android/model.{precision}.tflite")  # fmt: skip
        yield folder


def test_a_kit_is_complete_and_says_what_was_checked(shipped: Path) -> None:
    folder = shipped / "int8"
    manifest = json.loads((folder / "manifest.json").read_text())
    inside = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert inside == {*manifest["files"], "manifest.json"}
    model = "Sources/FruitClassifier/Model"
    assert inside >= {
        "Package.swift", "FruitClassifier.podspec", "README.md", f"{model}/model.int8.tflite", f"{model}/labels.txt",
        f"{model}/preprocess.json", "Tests/FruitClassifierTests/golden/golden.tsv", "Sources/FruitClassifier/Fit.swift",
    }  # fmt: skip
    states = {level["level"]: level["state"] for level in manifest["checked"]}
    assert {states[level] for level in kit.LEVELS} == {"not verified"}
    text = (folder / "README.md").read_text()
    assert "- tensor to scores: not verified (no Swift compiler is installed here)\n" in text
    assert "not verified on hardware" in text
    assert len(text.splitlines()) < 90  # with what it says of updates
    assert not [line for line in text.splitlines() if len(line) > 125]


def test_class_names_are_in_no_code(shipped: Path) -> None:
    for path in [*(shipped / "int8").rglob("*.swift"), shipped / "int8" / "README.md"]:
        assert not [label for label in LABELS[1:] if label in path.read_text(encoding="utf-8")]
    labels = (shipped / "int8/Sources/FruitClassifier/Model/labels.txt").read_bytes()
    assert labels.decode().split("\n") == [*LABELS, ""]


@pytest.mark.parametrize(
    "name", ["1a", "_a", "a-b", "a.b", "", "a b", "Größe", "class", "Self", "Foundation", 'a"', "a" * 65]
)
def test_what_is_no_name_of_a_module_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no package name for ios") as caught:
        ios.TARGET.named(name)
    assert caught.value.hint == "--package ImageClassifier"


@pytest.mark.parametrize("name", ["FruitClassifier", "a", "A_1", "classes", "swift"])
def test_names_of_modules_are_taken(name: str) -> None:
    assert ios.TARGET.named(name) == name


def test_int8_inputs_are_refused() -> None:
    assert ios.refuses(source("int8").artifact) == "TensorFlowLiteSwift has no int8 tensors, only uint8"
    scores = replace(source("uint8").artifact, details={"output": "uint8"})
    assert ios.refuses(scores) == "its scores are no floats"
    assert ios.refuses(source("uint8").artifact) == ios.refuses(source("float32").artifact) == ""


def test_the_syntax_is_checked_without_a_compiler(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tree_sitter_swift")
    monkeypatch.setattr(ios, "_compiler", lambda: "")
    assert ios.check(shipped / "int8")[0] == kit.Level("syntax", "verified")
    folder = tmp_path / "kit"
    shutil.copytree(shipped / "int8", folder)
    with (folder / "Sources/FruitClassifier/Fit.swift").open("a") as file:
        file.write("func broken( {\n")
    found = ios.check(folder)
    assert found[0] == kit.Level("syntax", "wrong", ("Sources/FruitClassifier/Fit.swift: a syntax error",))
    assert {level.state for level in found[1:]} == {"not verified"}


def test_without_the_parser_it_says_what_to_install(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tree_sitter", None)
    monkeypatch.setattr(ios, "_compiler", lambda: "")
    assert ios.check(shipped / "int8")[0].text == "not verified; pip install tree-sitter tree-sitter-swift"


def command(folder: Path, lines: str) -> Path:
    """A command `swift` that is a shell script."""
    path = folder / "swift"
    path.write_text("#!/bin/sh\n" + lines)
    path.chmod(0o755)
    return path


def test_another_command_of_that_name_is_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    command(tmp_path, "echo python-swiftclient 4\n")
    assert ios._compiler() == ""
    command(tmp_path, "echo Swift version 6.0\n")
    assert ios._compiler() == str(tmp_path / "swift")


def test_a_compiler_that_hangs_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ios, "_SECONDS", 0.2)
    folder = tmp_path / "kit"
    folder.mkdir()
    found = ios._tested(folder, str(command(tmp_path, "sleep 60 & sleep 60\n")))
    assert {level.text for level in found} == {"not verified; swift test took more than 0.2 s"}


def test_output_of_a_failed_build_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "kit"
    folder.mkdir()
    wrong = ios._tested(folder, str(command(tmp_path, "echo a.swift:1: error: x; echo a.swift:1: error: x; exit 1\n")))
    assert wrong == [kit.Level("swift test", "wrong", ("a.swift:1: error: x",))]
    no_xctest = ios._tested(folder, str(command(tmp_path, "echo \"error: no such module 'XCTest'\" >&2; exit 1\n")))
    assert {level.text for level in no_xctest} == {"not verified; this Swift has no XCTest: install Xcode"}


@needs_swift
@pytest.mark.slow
def test_swift_test_verifies_a_kit_and_leaves_it_as_it_was(shipped: Path) -> None:
    found = ship.check_kit(shipped / "int8")
    assert [level.state for level in found] == [
        "verified", "verified", "not verified", "verified", "not verified", "not verified"
    ]  # fmt: skip
    assert not (shipped / "int8" / ".build").exists()
    assert "ImageIO is not on this system" in found[2].text
    assert "TensorFlowLiteSwift is not in this build" in found[4].text


# The kit's code as a program, each mutant switched on by its name: one build for all.

KERNEL = """let kernel = mutant == "no antialias" ? Kernel.bilinear : mutant == "other kernel" \
? (kernel == .bilinear ? Kernel.bicubic : .bilinear) : kernel"""
WIDE = "let wide = max(scale, 1)"
SHARE = "kernel.weight((Double($0) - center + 0.5) * (1 / wide))"
MUTATIONS = [
    ("Fit", "switch geometry {", 'switch mutant == "stretched" ? .whole : geometry {'),
    ("Fit", "let scale = Double(resizeSize)", 'let scale = Double(mutant == "not cropped" ? size : resizeSize)'),
    ("Fit", WIDE, f'let wide = mutant == "no antialias" ? 1 : max(scale, 1)\n{KERNEL}'),
    ("Fit", SHARE, f'mutant == "nearest" ? (abs(Double($0) - center + 0.5) <= 0.5 ? 1 : 0) : {SHARE}'),
    ("Fit", "pixel[format.red]", 'pixel[mutant == "bgr" ? format.blue : format.red]'),
    ("Fit", "pixel[format.blue]", 'pixel[mutant == "bgr" ? format.red : format.blue]'),
    ("Fit", "over: background", 'over: mutant == "background" ? [0, 0, 0] : background'),
    ("Picture", ".turned(orientation)", '.turned(mutant == "not turned" ? 1 : orientation)'),
    ("Fit", "(Double(output) + 0.5) * scale",
     '(Double(mutant == "off by one" ? min(output + 1, outputs - 1) : output) + (mutant == "centre" ? 0.5001 : 0.5))'
     " * scale"),
    ("Fit", "height / 2 - halfHeight,", 'height / 2 - halfHeight + (mutant == "box" ? 1e-3 : 0),'),
    ("Fit", "private let bits: Int32 = 22", 'private var bits: Int32 { mutant == "bits" ? 12 : 22 }'),
    ("Classifier", "/ temperature)", '/ (mutant == "temperature" ? 1 : temperature))'),
    ("Fit", "(Float($0) - mean[channel] * 255)", '(Float($0) - (mutant == "mean" ? 0 : mean[channel] * 255))'),
]  # fmt: skip


def mutated(name: str, text: str) -> str:
    """A source file of the kit with every mutation of it in it, all switched off."""
    for file, old, new in MUTATIONS:
        if file == name:
            assert old in text, old
            text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def program(shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit's code, built with the stand-ins; see Program/main.swift for what it does."""
    folder = tmp_path_factory.mktemp("program") / "package"
    shutil.copytree(STAND_INS, folder)
    own, tests = shipped / "int8/Sources/FruitClassifier", shipped / "int8/Tests/FruitClassifierTests"
    shutil.copytree(own / "Model", folder / "Program" / "Model")
    for path in own.glob("*.swift"):
        (folder / "Program" / path.name).write_text(mutated(path.stem, path.read_text()))
    code = (tests / "Golden.swift").read_text().replace("import FruitClassifier\n", "")
    (folder / "Program" / "Golden.swift").write_text('var mutant = ""\n' + code)
    found = importlib.util.find_spec("ai_edge_litert")
    assert found is not None
    assert found.origin is not None
    environment = {**os.environ, "LITERT": str(Path(found.origin).parent)}
    build = [ios._compiler(), "build", "-c", "release", "--disable-index-store", "--product", "Program"]
    done = subprocess.run(build, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning: " not in done.stdout, done.stdout
    return folder


Kind = tuple[int, int, int, str, int, int, Preprocess]  # width, height, seed, format, padding, orientation, preprocess


def line_of(kind: Kind) -> str:
    """A line of Program's cases."""
    *words, given = kind
    contract = given.contract()
    names = ("image_size", "resize_size", "resample", "geometry", "background")
    return " ".join(map(str, [*words, *(contract[name] for name in names)])) + "\n"


def kinds() -> list[Kind]:
    """Every geometry, byte order, padding and orientation; 1,000 random sizes."""
    random = np.random.default_rng(0)
    every: list[Kind] = [(*shape, seed, "rgb", 0, 1, each) for each in KINDS for seed, shape in enumerate(SHAPES)]
    every += [(40, 30, turn, "rgbx", 5, turn, KINDS[3]) for turn in range(10)]
    for number in range(1000):
        width, height = (int(side) for side in np.exp(random.uniform(0, np.log(700), 2)).round())
        form = ("rgb", "rgbx", "bgrx", "rgba", "grey")[number % 5]
        every.append((width, height, number, form, number % 3, number % 9, KINDS[number % len(KINDS)]))
    return every


def reference(kind: Kind) -> np.ndarray:
    """The square that edgekit makes of the same noise."""
    width, height, seed, form, padding, orientation, given = kind
    step = {"rgb": 3, "grey": 1}.get(form, 4)
    stride = width * step + padding
    noise = golden.noise(stride * height, 1, seed).reshape(-1)[: stride * height].reshape(height, stride)
    pixels = noise[:, : width * step].reshape(height, width, step)
    pixels = pixels.repeat(3, 2) if form == "grey" else pixels[..., [2, 1, 0]] if form == "bgrx" else pixels
    image = Image.fromarray(pixels) if form == "rgba" else Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    if form == "rgba":
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*given.colour, 255)), image).convert("RGB")
    turns = [None, *(Image.Transpose[name] for name in ("FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM", "TRANSPOSE",
                                                        "ROTATE_270", "TRANSVERSE", "ROTATE_90"))]  # fmt: skip
    turn = turns[orientation - 1] if 1 <= orientation <= 8 else None
    return images.fit(image if turn is None else image.transpose(turn), given)


def decode(folder: Path) -> None:
    """Write the decoded bytes of each picture beside it, in a layout that ImageIO may give."""
    for number, path in enumerate(sorted(folder.glob("*.[jp][np]g"))):
        with Image.open(path) as image:
            orientation = image.getexif().get(274, 1)
            layout = {"RGBA": "abgr", "L": "grey", "P": "drawn"}.get(image.mode, LAYOUTS[number % len(LAYOUTS)])
            pixels = np.asarray(image.convert("L" if layout == "grey" else "RGBA"))
        order = {"abgr": [3, 2, 1, 0], "bgrx": [2, 1, 0, 3], "xrgb": [3, 0, 1, 2], "rgb": [0, 1, 2]}
        pixels = pixels[..., order[layout]] if layout in order else pixels
        head = f"{pixels.shape[1]} {pixels.shape[0]} {layout} {orientation}\n"
        path.with_name(path.name + ".raw").write_bytes(head.encode() + np.ascontiguousarray(pixels).tobytes())


MUTANTS = ["right", *golden.DRIFTS, "box", "centre", "bits", "mean", "model", "temperature"]
Said = tuple[dict[str, str], Path]
CRLF_LABELS = [*LABELS, "a\r", "\r", "\u2028", "x\u0085y", " ", *map(str, range(989))]


@pytest.fixture(scope="module")
def said(program: Path, shipped: Path, tmp_path_factory: pytest.TempPathFactory) -> Said:
    """What the program prints, by command, and the folder that it writes to: one process for all tests."""
    folder = tmp_path_factory.mktemp("said")
    commands: dict[str, list[Any]] = {}
    for precision in ("int8", "fp32"):
        copy = folder / precision
        shutil.copytree(shipped / precision, copy)
        decode(copy / "Tests/FruitClassifierTests/golden")
        commands[precision] = ["golden", copy, "FruitClassifier", *MUTANTS]
    (folder / "lines").write_text("".join(map(line_of, kinds())))
    commands["cases"] = ["cases", folder / "lines", folder / "squares"]
    commands["composed"] = ["composed", folder / "composed"]
    commands |= {layout: ["tensor", layout, folder / layout] for layout in ("NHWC", "NCHW")}
    picture = Image.open(folder / "int8/Tests/FruitClassifierTests/golden/landscape.png")
    head = f"{picture.width} {picture.height} rgb 1\n"
    (folder / "picture.raw").write_bytes(head.encode() + picture.tobytes())
    commands |= {name: [name, folder / "picture"] for name in ("classify", "frame")}
    contract = json.loads((folder / "int8/Sources/FruitClassifier/Model/preprocess.json").read_text())
    contract["scores"]["classes"] = len(CRLF_LABELS)
    text = "".join(f"{label}\n" for label in CRLF_LABELS).encode()
    contract["labels_sha256"] = hashlib.sha256(text).hexdigest()
    (folder / "preprocess.json").write_text(json.dumps(contract))
    (folder / "labels.txt").write_bytes(text)
    commands |= {"labels": ["labels", folder], "refused": ["refused"]}
    for name in ("right release", "wrong release", "empty release"):
        commands[name] = ["release", release(shipped / "int8", folder / name.replace(" ", "-"), name[0] == "w")]
    empty = folder / "empty-release/golden/golden.tsv"
    lines = empty.read_text().splitlines(keepends=True)
    empty.write_text("".join(line for line in lines if not line.startswith(("case", "wrong"))))
    words = [str(word) for name in commands for word in (*commands[name], "--")]
    run = [ios._compiler(), "run", "-c", "release", "--skip-build", "Program", *words]
    done = subprocess.run(run, cwd=program, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(commands, done.stdout.split("--\n")[:-1], strict=True)), folder


@needs_swift
@pytest.mark.slow
def test_its_pixels_are_the_references(said: Said) -> None:
    made, at, differing = np.fromfile(said[1] / "squares", np.uint8), 0, []
    for kind in kinds():
        size = kind[-1].image_size
        square, at = made[at : at + size * size * 3].reshape(size, size, 3), at + size * size * 3
        if (square != reference(kind)).any():
            differing.append(kind)
    assert not differing
    assert at == len(made)


@needs_swift
@pytest.mark.slow
def test_transparent_levels_are_pillows(said: Said) -> None:
    made = np.fromfile(said[1] / "composed", np.uint8).reshape(256, 256, 4)
    over = np.zeros((256, 256, 4), np.uint8)
    over[..., :3], over[..., 3] = np.arange(256)[None, :, None], np.arange(256)[:, None]
    for place, level in enumerate((0, 10, 128, 255)):
        below = Image.new("RGBA", (256, 256), (level, level, level, 255))
        assert (np.asarray(Image.alpha_composite(below, Image.fromarray(over)))[..., 0] == made[..., place]).all()


@needs_swift
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_faults_are_found_and_named(said: Said, precision: str) -> None:
    results = json.loads(said[0][precision])
    found = {name: {each["level"]: each for each in results[name]} for name in results}
    right = found["right"]
    assert tuple(right) == kit.LEVELS
    assert not [each for each in right.values() if each["problems"] or each["skipped"]]
    assert [each["checked"] for each in right.values()] == [5, 17, 9, 14, 14]
    for name, (text, _) in golden.DRIFTS.items():
        level = "picture file to tensor" if name in ("not turned", "background") else "pixels to tensor"
        assert found[name][level]["problems"], name
        assert found[name][level]["cause"] == f"{name}: {text}"
    assert all(found[name]["pixels to tensor"]["problems"] for name in ("box", "centre", "bits"))
    assert bool(found["mean"]["values of the tensor"]["problems"]) == (precision == "fp32")
    assert not found["model"]["picture file to tensor"]["problems"]
    assert "scores differ by" in found["model"]["tensor to scores"]["problems"][0]
    assert found["model"]["label and probability"]["problems"]
    assert found["temperature"]["label and probability"]["problems"]
    assert not found["temperature"]["tensor to scores"]["problems"]


@needs_swift
@pytest.mark.slow
def test_answers_are_those_of_the_golden_set(said: Said) -> None:
    folder = said[1] / "int8/Tests/FruitClassifierTests/golden"
    lines = [line.split("\t") for line in said[0]["classify"].splitlines()]
    assert sorted(line[0] for line in lines) == sorted(LABELS)
    cases = [line.split("\t") for line in (folder / "golden.tsv").read_text().splitlines()]
    case = next(line for line in cases if line[1:3] == ["file", "landscape.png"])
    wanted = np.fromfile(folder / "scores.f32", "<f4").reshape(-1, len(LABELS))[int(case[6])]
    scores = {LABELS.index(line[0]): float(line[3]) for line in lines}
    assert [scores[number] for number in range(len(LABELS))] == pytest.approx(wanted, abs=1e-6)
    assert lines[0][0] == LABELS[int(case[7])]
    assert float(lines[0][2]) == pytest.approx(float(case[8]), abs=1e-6)


@needs_swift
@pytest.mark.slow
def test_bad_input_is_refused_in_words(said: Said) -> None:
    words = dict(line.split("\t") for line in said[0]["refused"].splitlines())
    assert words.pop("last row") == "taken"
    assert words["no pixels"] == "a picture of 0 x 4 has no pixels"
    assert words["too few"] == "100 bytes are too few for 5 x 5 pixels in rows of 25"
    assert words["narrow stride"] == "rows of 4 pixels take 12 bytes, and the stride is 11"
    assert words["no file"] == "nowhere.png is no picture that can be read"
    assert words["square"] == "a square has 12288 bytes, not 100"
    assert words["metal"] == "this build has no Metal delegate: add the pod TensorFlowLiteSwift/Metal"
    assert words["core ml"] == "this build has no Core ML delegate: add the pod TensorFlowLiteSwift/CoreML"
    assert "taken" not in words.values()


@needs_swift
@pytest.mark.slow
def test_camera_frames_give_the_answers_of_files(said: Said) -> None:
    equal, refused = said[0]["frame"].splitlines()
    assert equal == "equal"
    assert refused == "frames must be kCVPixelFormatType_32BGRA: set videoSettings of the output"


@needs_swift
@pytest.mark.slow
def test_labels_are_lines_whatever_is_in_them(said: Said) -> None:
    read, refused = said[0]["labels"].strip().split("\n")
    assert json.loads(read) == CRLF_LABELS
    assert len(CRLF_LABELS) == 1000
    assert refused == "the model gives 1 scores, and labels.txt has 1000 lines"


def release(own: Path, folder: Path, is_wrong: bool) -> Path:
    """What a device has of a release: the files of a kit in one folder. is_wrong: with other scores."""
    shutil.copytree(own / "Sources/FruitClassifier/Model", folder)
    shutil.copytree(own / "Tests/FruitClassifierTests/golden", folder / "golden")
    shutil.copy(own / "manifest.json", folder)
    contract = json.loads((folder / "preprocess.json").read_text())
    contract["scores"]["temperature"] = contract["scores"]["temperature"] + (1 if is_wrong else 0)
    (folder / "preprocess.json").write_text(json.dumps(contract))
    if is_wrong:
        scores = np.fromfile(folder / "golden/scores.f32", "<f4")
        (scores + 100).tofile(folder / "golden/scores.f32")
    return folder


@needs_swift
@pytest.mark.slow
def test_a_release_is_opened_and_tested_where_it_lies(said: Said) -> None:
    assert said[0]["right release"] == "right\t1.5\n"
    assert said[0]["wrong release"].startswith("tensor to scores: ")
    assert said[0]["empty release"] == 'NotTested(reason: "the golden set has no scores")\n'


@needs_swift
@pytest.mark.slow
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_tensors_are_those_of_the_python_kit(said: Said, layout: str) -> None:
    told = {"type": "float32", "layout": layout, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    wanted = python_kit().to_tensor(golden.noise(8, 8, 3), told)
    assert (np.fromfile(said[1] / layout, "<f4") == wanted.ravel()).all()


def test_a_kit_that_cannot_be_parsed_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    level = kit.Level("syntax", "wrong", ("a.swift: a syntax error",))
    model = tmp_path / "model"
    model.write_bytes(b"x")
    given = replace(source(), path=model, package="Fruit")
    with pytest.raises(DataError, match=r"fails its own test: syntax: a\.swift: a syntax error"):
        kit.write(replace(ios.TARGET, check=lambda folder: [level]), given, tmp_path / "out")
    assert not (tmp_path / "out").exists()
