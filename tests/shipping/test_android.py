"""The Android kit: its Kotlin compiles, its pixels are the reference's, and its golden set names what a program does
wrong. Everything of it is compiled once, by Kotlin's own compiler, and run on the Java here."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import edgekit
from edgekit.api import ship as api
from edgekit.cli.app import run as command
from edgekit.data import images
from edgekit.errors import UsageError
from edgekit.models import build, zoo
from edgekit.records import Artifact, Preprocess
from edgekit.shipping import android, golden, kit, targets
from edgekit.targets.contract import Contract
from tests import nets
from tests.datasets import write_images
from tests.shipping.android import since, stubs

HERE = Path(__file__).parent / "android"
NODE = HERE / "node_modules"
PACKAGE = "com.example.fruit"
LABELS = ("cat", "<b>dog</b>", 'a "quoted" $name', "\\u0041 */ ${x}", "🐈", "שלום", *(f"class {n}" for n in range(994)))
PREPROCESS = Preprocess(64, 73, "bicubic")
KINDS = (
    Preprocess(224, 256), Preprocess(64, 64, "bicubic", resize="squash"),
    Preprocess(96, 96, resize="letterbox", background="#0a141e"), PREPROCESS,
)  # fmt: skip
SHAPES = ((1, 1), (64, 64), (7, 5), (300, 224), (223, 500), (3, 400), (1000, 3), (640, 481))
CLASSES = [
    *(f"android.content.{name}" for name in ("Context", "ContextWrapper", "ContentResolver", "Intent")),
    *("android.content.res.AssetManager", "android.app.Activity", "android.app.Instrumentation", "android.net.Uri"),
    *(f"android.graphics.{name}" for name in ("Bitmap", "BitmapFactory", "ColorSpace", "ImageFormat", "PixelFormat")),
    *("android.media.Image", "android.os.Build", "android.os.Bundle"),
    *(f"android.system.{name}" for name in ("ErrnoException", "Os", "OsConstants")),
    *(f"android.view.{name}" for name in ("View", "ViewGroup", "ContextThemeWrapper")),
    *(f"android.widget.{name}" for name in ("Button", "LinearLayout", "TextView")),
]
PLAIN = ("Contract.kt", "Fit.kt", "Golden.kt", "Check.kt", "Updates.kt", "ReleaseFiles.kt")  # without Android
# Called on newer devices alone.
GUARDED = {
    "android.graphics.BitmapFactory.Options.inPreferredColorSpace": 26, "android.graphics.ColorSpace.get": 26,
    "android.graphics.ColorSpace.Named.SRGB": 26,
    "android.graphics.Bitmap.Config.HARDWARE": 26,
}  # fmt: skip
pytestmark = pytest.mark.xdist_group("android kit")  # so that it is compiled once
needs_kotlin = pytest.mark.skipif(
    not shutil.which("javap") or not (NODE / "kotlin-compiler").is_dir(),
    reason="Kotlin's compiler is not installed: install Java 17 and npm, then npm ci --prefix tests/shipping/android",
)
needs_stubs = pytest.mark.skipif(not stubs.folder(), reason=f"{stubs.PACKAGE} is not installed")

# Mistakes that are put into a copy of Fit.kt, to be chosen when it runs: where, what is right, and what is wrong.
MUTATIONS = {
    "stretched": [("when (contract.geometry)", "contract.geometry", "Geometry.WHOLE")],
    "not cropped": [("contract.resizeSize.toDouble() / min", "contract.resizeSize.toDouble()", "size.toDouble()")],
    "no antialias": [("max(scale, 1.0)", "max(scale, 1.0)", "1.0"),
                     ("kernel.support * wide", "kernel", "Kernel.BILINEAR"),
                     ("weight(kernel, (", "kernel", "Kernel.BILINEAR")],
    "other kernel": [(f"{side}, kernel)\n", "kernel", "Kernel.BILINEAR") for side in ("outW", "outH")],
    "bgr": [("bytes[at].toInt()", "at", "at + 2"), ("bytes[at + 2].toInt()", "at + 2", "at")],
    "not turned": [("upright(orientation(file))", "orientation(file)", "1")],
    "background": [("over(contract.background), ", "contract.background", "0xFF000000.toInt()")],
    "box": [("val halfW = min(size / scale", "size / scale", "size / scale + 2e-3")],
    "centre": [("(number + 0.5) * scale", "0.5", "0.5001")],
    "bits": [("BITS get() = 22", "22", "12")],
    "values": [("Input.INT8) 128 else 0", "0", "1")],
}  # fmt: skip


def mutable(text: str) -> str:
    """Fit.kt with a variable `mistake` that chooses one of `MUTATIONS`."""
    text = text.replace("private const val BITS = 22", "private val BITS get() = 22")
    for name, places in MUTATIONS.items():
        for where, right, wrong in places:
            assert text.count(where) == 1, (name, where)
            before, _, after = where.rpartition(right)
            text = text.replace(where, f'{before}chosen("{name}", {wrong}, {right}){after}')
    return text + (
        'var mistake = ""\nprivate fun <T> chosen(name: String, wrong: T, right: T) = '
        "if (name == mistake) wrong else right\n"
    )


def source(input_: str = "uint8", preprocess: Preprocess = PREPROCESS, package: str = PACKAGE) -> kit.Source:
    """A source whose model is no model: here nothing runs it."""
    artifact = Artifact("a/model.int8.tflite", "a", "int8", "litert", "NHWC", "a" * 64, "b" * 64, {}, input_)
    contract = Contract("net", "b" * 64, LABELS, preprocess, 1.5)
    return kit.Source("run", HERE / "package.json", artifact, contract, network, package=package)


def network(squares: Any) -> np.ndarray:
    """Scores that depend on the mean of a picture."""
    means = np.asarray(squares).reshape(len(squares), -1).mean(1, keepdims=True)
    return (means * np.linspace(0, 1, len(LABELS))).astype(np.float32)


def written(folder: Path, given: kit.Source) -> Path:
    """A kit without the check."""
    kit.write(replace(android.TARGET, check=lambda folder: []), given, folder)
    return folder


@dataclass(frozen=True)
class Built:
    """A kit of a run, a copy that mistakes are in, and what was compiled of both and of the cases."""

    folder: Path
    copy: Path
    classes: Path

    def run(self, main: str, *arguments: str | Path, path: Sequence[Path] = (), options: Sequence[str] = ()) -> str:
        """What a program prints. path: more folders with classes. options: of Java."""
        folders = [self.classes, NODE / "kotlin-compiler/lib/kotlin-stdlib.jar", *path]
        done = subprocess.run(
            ["java", *options, "-cp", ":".join(map(str, folders)), main, *map(str, arguments)],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def answers(self, folder: Path, cases: list[tuple[Any, ...]]) -> list[bytes]:
        """What the kit's code gives for each case."""
        lines = "".join("\t".join(map(str, case)) + "\n" for case in cases)
        (folder / "cases").write_text(lines, encoding="utf-8")
        self.run("cases.CasesKt", folder / "cases", folder / "answers")
        content, found, at = (folder / "answers").read_bytes(), [], 0
        while at < len(content):
            length = int.from_bytes(content[at : at + 4], "big")
            found.append(content[at + 4 : at + 4 + length])
            at += 4 + length
        assert len(found) == len(cases)
        return found


@pytest.fixture(scope="module", autouse=True)
def compiler() -> Iterator[None]:
    """Take the compiler that npm installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KOTLIN_COMPILER", str(NODE / "kotlin-compiler"))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the run `fruit`, exported for phones."""
    folder = tmp_path_factory.mktemp("android")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.MODELS, "tiny", nets.TINY)
        patch.chdir(folder)
        torch.manual_seed(0)
        torch.save(build.build("tiny", 3).state_dict(), "tiny.pth")
        write_images(folder / "photos", {"x": 20})
        run = edgekit.import_model(
            "tiny.pth", ["cat", "<b>dog", LABELS[2]], arch="tiny", image_size=64, name="fruit",
            calibration=folder / "photos",
        )  # fmt: skip
        edgekit.export(run, "android", precisions=["int8"], recipe="minmax")
        yield folder


@pytest.fixture(scope="module")
def built(folder: Path) -> Built:
    """Compile everything at once, with every warning an error, as the Kotlin of Android's Gradle plugin 9 would."""
    made, copy = folder / "unchecked", folder / "copy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(targets.TARGETS, "android", replace(android.TARGET, check=lambda folder: []))
        patch.setattr(api, "_updates", lambda url, channel, root: kit.Updates(url, channel, b"{}"))
        edgekit.ship("fruit", "android", made, package=PACKAGE, updates="https://example.com")
    written(copy, source(package="mistakes"))
    sources = sorted(made.rglob("*.kt")), [path for path in sorted(copy.rglob("*.kt")) if path.name in PLAIN]
    for path in sources[1]:
        text = path.read_text(encoding="utf-8")
        path.write_text(mutable(text) if path.name == "Fit.kt" else text, encoding="utf-8")
    others = [HERE / "Cases.kt", HERE / "Mistakes.kt"]
    if installed := stubs.folder():
        stubs.write(installed, CLASSES, folder / "stubs")
        others = [*sorted(HERE.glob("*.kt")), folder / "stubs"]
    else:  # without Android's signatures, what needs them is left out
        sources[0][:] = [path for path in sources[0] if path.name in PLAIN]
    classes = folder / "classes"
    done = subprocess.run(
        [*android.compiler(), "-no-reflect", "-jvm-target", "11", "-language-version", "2.2", "-api-version", "2.2",
         "-Werror", "-Wextra", "-d", str(classes), *map(str, [*sources[0], *sources[1], *others])],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Built(made, copy, classes)


def fitted(preprocess: Preprocess, width: int, height: int, seed: int) -> tuple[Any, ...]:
    """A case of `fit`."""
    contract = preprocess.contract()
    names = android.enum(contract["geometry"]), android.enum(contract["resample"])
    return ("fit", *names, contract["image_size"], contract["resize_size"], "ff" + contract["background"][1:],
            width, height, seed)  # fmt: skip


@pytest.mark.slow
@needs_kotlin
def test_its_pixels_are_the_references(built: Built, tmp_path: Path) -> None:
    random, cases = np.random.default_rng(0), []
    for preprocess in KINDS:
        cases += [(preprocess, *shape, seed) for seed, shape in enumerate(SHAPES)]
    for number in range(1000):
        width, height = (int(side) for side in np.exp(random.uniform(0, np.log(500), 2)).round())
        cases.append((KINDS[number % len(KINDS)], width, height, number))
    found = built.answers(tmp_path, [fitted(*case) for case in cases])
    for case, answer in zip(cases, found):
        preprocess, *shape = case
        expected = images.fit(Image.fromarray(golden.noise(*shape)), preprocess)
        assert answer == expected.tobytes(), case


@pytest.mark.slow
@needs_kotlin
def test_pictures_are_turned_as_pillow_turns_them(built: Built, tmp_path: Path) -> None:
    turns = [
        None,
        *(
            getattr(Image.Transpose, name)
            for name in (
                "FLIP_LEFT_RIGHT",
                "ROTATE_180",
                "FLIP_TOP_BOTTOM",
                "TRANSPOSE",
                "ROTATE_270",
                "TRANSVERSE",
                "ROTATE_90",
            )
        ),
    ]
    picture = Image.fromarray(golden.noise(13, 7, 1))
    cases: list[tuple[Any, ...]] = [("upright", number, 13, 7, 1) for number in range(-1, 11)]
    cases += [("rotated", degrees, 13, 7, 1) for degrees in (0, 90, 180, 270, 45)]
    found = built.answers(tmp_path, cases)
    for (_, number, *_), answer in zip(cases[:12], found):
        turn = turns[number - 1] if 1 <= number <= 8 else None
        assert answer == np.asarray(picture if turn is None else picture.transpose(turn)).tobytes()
    for degrees, answer in zip((0, 90, 180, 270), found[12:]):
        assert answer == np.asarray(picture.rotate(-degrees, expand=True)).tobytes()
    assert b"0, 90, 180 or 270 degrees, not by 45" in found[-1]


@pytest.mark.slow
@needs_kotlin
def test_orientations_are_found_where_pillow_finds_them(built: Built, tmp_path: Path) -> None:
    wanted = []
    for number in range(10):
        for kind in ("jpg", "png", "webp"):
            for order in ("<", ">"):
                exif = Image.Exif()
                exif.endian = order
                exif[0x010F], exif[0x0112], exif[0x0131] = "maker", number, "a program"
                path = tmp_path / f"{number}{'be'[order == '<']}.{kind}"
                Image.new("RGB", (5, 4)).save(path, exif=exif)
                wanted.append((path, number if 1 <= number <= 8 else 1))
    plain = (tmp_path / "6b.jpg").read_bytes()
    for number in range(0, len(plain), 7):  # cut anywhere: no error
        (tmp_path / f"cut{number}").write_bytes(plain[:number])
        wanted.append((tmp_path / f"cut{number}", 0))
    (tmp_path / "filled.jpg").write_bytes(plain[:2] + b"\xff\xff" + plain[2:])
    wanted.append((tmp_path / "filled.jpg", 6))
    webp = (tmp_path / "6b.webp").read_bytes()
    (tmp_path / "odd.webp").write_bytes(webp[:12] + b"ODD \x03\0\0\0abc\0" + webp[12:])
    wanted.append((tmp_path / "odd.webp", 6))
    found = built.answers(tmp_path, [("orientation", path) for path, _ in wanted])
    for (path, number), answer in zip(wanted, found):
        assert len(answer) == 1, answer
        assert not number or answer[0] == number, path


@pytest.mark.slow
@needs_kotlin
def test_transparent_parts_lie_over_the_background_as_in_pillow(built: Built, tmp_path: Path) -> None:
    colours = ("ffffff", "000000", "0a141e")
    found = built.answers(tmp_path, [("over", 200, 100, 3, f"ff{colour}") for colour in colours])
    argb = golden.noise(800, 100, 3).reshape(-1)[: 200 * 100 * 4].reshape(100, 200, 4)
    picture = Image.fromarray(np.ascontiguousarray(argb[..., [1, 2, 3, 0]]))
    for colour, answer in zip(colours, found):
        below = Image.new("RGBA", picture.size, f"#{colour}")
        assert answer == np.asarray(Image.alpha_composite(below, picture).convert("RGB")).tobytes()


MATRICES = {"BT601": (0.299, 0.114), "BT709": (0.2126, 0.0722)}


def converted(y: np.ndarray, u: np.ndarray, v: np.ndarray, matrix: str) -> np.ndarray:
    """RGB of Y, U and V by the definition of a matrix, not rounded."""
    name, _, reach = matrix.partition("_")
    red, blue = MATRICES[name]
    black, luma, chroma = (0, 255, 255) if reach == "FULL" else (16, 219, 224)
    y, u, v = (y.astype(float) - black) / luma, (u.astype(float) - 128) / chroma, (v.astype(float) - 128) / chroma
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return (np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], -1) * 255).clip(0, 255)


@pytest.mark.slow
@needs_kotlin
def test_frames_of_cameras_are_converted_by_the_named_matrix(built: Built, tmp_path: Path) -> None:
    width, height, turned = 37, 21, (0, 90, 180, 270)
    layouts = [(37, 19, 1), (64, 64, 2), (40, 38, 2)]  # strides of Y; of U and V; from pixel to pixel of U and V
    cases, expected = [], []
    for matrix in (f"{name}_{reach}" for name in MATRICES for reach in ("FULL", "LIMITED")):
        for stride, chroma_stride, step in layouts:
            lengths = (height - 1) * stride + width, 10 * chroma_stride + 18 * step + 1
            y, u, v = (golden.noise(1, length, seed).reshape(-1)[:length]
                       for length, seed in ((lengths[0], 1), (lengths[1], 2), (lengths[1], 3)))  # fmt: skip
            rows, columns = np.mgrid[:height, :width]
            at = rows // 2 * chroma_stride + columns // 2 * step
            rgb = converted(y[rows * stride + columns], u[at], v[at], matrix)
            for degrees in turned:
                cases.append(("yuv", matrix, width, height, stride, chroma_stride, step, *lengths, degrees))
                expected.append(np.rot90(rgb, -degrees // 90))
    found = built.answers(tmp_path, cases)
    for answer, wanted in zip(found, expected):
        assert np.abs(np.frombuffer(answer, np.uint8).reshape(wanted.shape) - wanted).max() < 0.51
    frames = [("rgba", width, height, stride, (height - 1) * stride + width * 4, degrees)
              for stride in (148, 160) for degrees in turned]  # fmt: skip
    for (_, _, _, stride, length, degrees), answer in zip(frames, built.answers(tmp_path, frames)):
        buffer = golden.noise(1, length, 1).reshape(-1)[:length]
        rows = [buffer[row * stride : row * stride + width * 4].reshape(width, 4)[:, :3] for row in range(height)]
        assert answer == np.ascontiguousarray(np.rot90(np.stack(rows), -degrees // 90)).tobytes()


@pytest.mark.slow
@needs_kotlin
def test_tensors_and_probabilities_are_the_references(built: Built, tmp_path: Path) -> None:
    square = golden.noise(32, 32, 5)
    cases = [("tensor", "WHOLE", "BICUBIC", 32, 32, "0", input_, layout)
             for input_ in ("UINT8", "INT8", "FLOAT32") for layout in ("NHWC", "NCHW")]  # fmt: skip
    found = built.answers(tmp_path, [*cases, ("softmax", 1.5, 3, -2, 0.25), ("softmax", 0.01, 1e4, -1e4)])
    mean, std = (np.float32(each) for each in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    floats = (square.astype(np.float32) - mean * np.float32(255)) / (std * np.float32(255))
    tensors = {"UINT8": square, "INT8": (square ^ 128), "FLOAT32": floats.astype(">f4")}
    for (*_, input_, layout), answer in zip(cases, found):
        tensor = tensors[input_]
        assert answer == np.ascontiguousarray(tensor.transpose(2, 0, 1) if layout == "NCHW" else tensor).tobytes()
    shares = np.exp(np.array([3, -2, 0.25]) / 1.5)
    assert np.allclose([float(each) for each in found[-2].split()], shares / shares.sum(), rtol=1e-12)
    assert found[-1] == b"1.0 0.0"


@pytest.mark.slow
@needs_kotlin
def test_every_way_of_resizing_and_every_input_passes_the_golden_test(built: Built, tmp_path: Path) -> None:
    cases: list[tuple[Any, ...]] = []
    for input_, preprocess in zip(("float32", "int8", "float32", "uint8"), KINDS):
        set_ = tmp_path / str(len(cases))
        kit.write_golden(source(input_, preprocess), set_)
        cases.append(("golden", *fitted(preprocess, 0, 0, 0)[1:6], input_.upper(), set_))
    for answer in built.answers(tmp_path, cases):
        assert answer.decode().splitlines() == ["5 ", "17 ", "9 ", "0 needs Android", "0 needs Android"]


@pytest.mark.slow
@needs_kotlin
def test_bad_input_is_refused_in_words(built: Built, tmp_path: Path) -> None:
    assets = built.copy / android.TARGET.assets
    (tmp_path / "labels.txt").write_text("dog\ncat\n")
    hash_ = json.loads((assets / "preprocess.json").read_text())["labels_sha256"]
    found = built.answers(tmp_path, [
        ("wrong", 0, 0, 0), ("wrong", 11, 2, 2), ("wrong", 12, -2, -2), ("rgba", 37, 21, 140, 4000, 0),
        ("rgba", 37, 21, 148, 3107, 0), ("yuv", "BT601_FULL", 37, 21, 37, 19, 1, 776, 209, 0),
        ("yuv", "BT601_FULL", 37, 21, 37, 19, 1, 777, 208, 0), ("labels", tmp_path / "labels.txt", hash_),
        ("labels", assets / "labels.txt", hash_),
    ])  # fmt: skip
    assert found[0] == b"a picture of 0 x 0 pixels has none"
    assert found[1] == b"11 bytes for 2 x 2 RGB pixels"
    assert found[2] == b"a picture of -2 x -2 pixels has none"
    assert found[3] == b"4000 bytes, strides 140 and 4 are no plane of 37 x 21 pixels"
    assert found[4] == b"3107 bytes, strides 148 and 4 are no plane of 37 x 21 pixels"
    assert found[5] == b"776 bytes, strides 37 and 1 are no plane of 37 x 21 pixels"
    assert found[6] == b"208 bytes, strides 19 and 1 are no plane of 19 x 11 pixels"
    assert found[7] == b"labels.txt is not the one that the model was trained with"
    assert tuple(found[8].decode().split("\n")) == LABELS


@pytest.mark.slow
@needs_kotlin
def test_programs_that_drift_fail_and_are_told_why(built: Built) -> None:
    folder = built.copy / android.TARGET.golden
    lines = built.run("cases.MistakesKt", folder, "", *MUTATIONS).splitlines()
    every = dict(zip(["", *MUTATIONS], map(json.loads, lines)))
    assert [(level["level"], level["checked"], level["problems"], level["skipped"]) for level in every.pop("")] == [
        ("pixels to tensor", 5, [], ""), ("picture file to tensor", 17, [], ""), ("values of the tensor", 9, [], ""),
        ("tensor to scores", 0, [], "needs Android"), ("label and probability", 0, [], "needs Android"),
    ]  # fmt: skip
    for name, (pixels, of_files, values, *_) in every.items():
        if name in golden.DRIFTS:
            level = of_files if name in ("not turned", "background") else pixels
            assert level["problems"], name
            assert level["cause"] == f"{name}: {golden.DRIFTS[name][0]}"
        elif name == "values":
            assert "R of 128: 129.0 instead of 128.0 (mean, std, scale)" in values["problems"]
        else:
            assert pixels["problems"], name


@pytest.mark.slow
@needs_kotlin
@needs_stubs
def test_its_classifier_and_its_test_on_the_device_run_with_litert(built: Built, folder: Path) -> None:
    """On fakes of Android's classes: only decoding and reading assets are not the real ones."""
    fakes = folder / "fakes"
    subprocess.run(
        ["javac", "-Xlint:-options", "-cp", f"{built.classes}:{NODE / 'kotlin-compiler/lib/kotlin-stdlib.jar'}", "-d",
         str(fakes), *map(str, sorted((HERE / "fakes").rglob("*.java")))],
        check=True,
    )  # fmt: skip
    set_ = built.folder / android.TARGET.golden
    options = [f"-Dassets={built.folder / android.TARGET.assets}", f"-Dlitert={sys.executable}\t{HERE / 'runtime.py'}"]
    lines = [line.split("\t") for line in (set_ / "golden.tsv").read_text().splitlines()]
    cases = [line for line in lines if line[:2] == ["case", "file"] and line[6] != "-"]
    release = folder / "release"  # as a device has it: the files of a kit in one folder
    shutil.copytree(built.folder / android.TARGET.assets, release)
    shutil.copy(built.folder / "manifest.json", release)
    contract = json.loads((release / "preprocess.json").read_text())
    (release / "preprocess.json").write_text(
        json.dumps({**contract, "scores": {**contract["scores"], "temperature": 2.5}})
    )
    pictures = [set_ / case[2] for case in cases]
    shown = built.run(
        "cases.DeviceKt", *pictures, path=[fakes, set_.parent], options=[*options, f"-Drelease={release}"]
    )
    device, gpu, npu, short, broken, *answers, released = shown.splitlines()
    assert released == f"2.5 {answers[0].split(chr(9))[0].split(' ')[1]}"
    assert device == "done: kotlin.Unit"
    assert gpu == "no GPU here"
    assert npu == "LiteRT finds no NPU on this device, only [CPU]"
    assert short == f"a square has {64 * 64 * 3} bytes, not 5"
    assert broken == "Android cannot decode this file (5 bytes)"
    scores = np.fromfile(set_ / "scores.f32", "<f4").reshape(-1, 3)
    for case, answer in zip(cases, answers):
        found = [each.rsplit(" ", 2) for each in answer.split("\t")]
        assert found[0][0].split(" ", 1) == [case[7], ["cat", "<b>dog", LABELS[2]][int(case[7])]]
        assert abs(float(found[0][2]) - float(case[8])) < 1e-6
        for name, score, _ in found:
            assert np.float32(score) == scores[int(case[6]), int(name.split(" ")[0])]
    other = folder / "other"
    shutil.copytree(set_, other / "golden")
    (scores[:, ::-1] * 2).tofile(other / "golden" / "scores.f32")
    shown = built.run("cases.DeviceKt", path=[fakes, other], options=options)
    assert shown.count(": scores differ by ") == len(scores)


@pytest.mark.slow
@needs_kotlin
@needs_stubs
def test_it_calls_nothing_that_older_devices_do_not_have(built: Built) -> None:
    inside = built.classes / PACKAGE.replace(".", "/")
    compiled = [path for path in inside.rglob("*.class") if not path.name.startswith(("Check", "GoldenTest"))]
    assert {"Classifier.class", "FitKt.class", "MainActivity.class", "DeviceTest.class"} <= {p.name for p in compiled}
    levels = since.Levels.read(NODE / since.DECLARATIONS)
    assert levels.classes["android.graphics.ColorSpace"] == 26
    assert levels.members["java.util.List.sort"] == 24
    assert since.newer(compiled, android.MIN_SDK, levels) == GUARDED
    text = (built.folder / "classifier/src/main/kotlin/com/example/fruit/Classifier.kt").read_text()
    assert "if (Build.VERSION.SDK_INT >= 26) options.inPreferredColorSpace = ColorSpace.get" in text


def test_a_kit_has_nothing_of_the_user_but_names_in_its_code(tmp_path: Path) -> None:
    made = written(tmp_path / "kit", source("float32", KINDS[2]))
    assets = made / "classifier/src/main/assets"
    assert tuple((assets / "labels.txt").read_text(encoding="utf-8").splitlines()) == LABELS
    code = "".join(path.read_text(encoding="utf-8") for path in made.rglob("*.kt*"))
    assert not [label for label in LABELS[1:6] if label in code]
    contract = (made / "classifier/src/main/kotlin/com/example/fruit/Contract.kt").read_text()
    for line in ("size = 96", "geometry = Geometry.BARS", "background = 0xFF0a141e.toInt()", "input = Input.FLOAT32",
                 "mean = listOf(0.485, 0.456, 0.406)", "temperature = 1.5",
                 f'labelsSha256 = "{hashlib.sha256((assets / "labels.txt").read_bytes()).hexdigest()}"'):  # fmt: skip
        assert line in contract
    for path in made.rglob("AndroidManifest.xml"):
        assert ElementTree.parse(path).getroot().tag == "manifest"
    assert len((made / "README.md").read_text().splitlines()) < 60
    assert not list(made.rglob("*.j2"))


@pytest.mark.parametrize("name", ["com.example.fruit", "a.b", "com.example.In", "org.inside.fun_1", "de.klasse.is1"])
def test_package_names_are_taken(name: str) -> None:
    assert android.TARGET.named(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "fruit", "com.example.in", "java.lang.fruit", "kotlin.fruit",
     "fun.example", "com.1st", "com..fruit", ".com.fruit", "com.fruit.", "com.fr-uit",
     "com.obst.äpfel", "com.example\n", "com.a/b", "com.$x", "com.`in`", "com.class", "a." * 60 + "b", "com._x"],
)  # fmt: skip
def test_other_package_names_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="is no package name for android: it must be two or more words") as caught:
        android.TARGET.named(name)
    assert caught.value.hint == "--package com.example.classifier"


def test_without_a_compiler_nothing_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("KOTLIN_COMPILER", raising=False)
    assert android.check(tmp_path)[0].text == "not verified; install Java 17 or newer"
    (tmp_path / "java").touch(0o755)
    assert android.check(tmp_path)[0].text.startswith("not verified; no Kotlin compiler")
    monkeypatch.setenv("KOTLIN_COMPILER", str(tmp_path / "none"))
    assert android.check(tmp_path)[0].text.startswith("not verified; no Kotlin compiler")


@pytest.mark.slow
@needs_kotlin
def test_a_run_becomes_a_kit_that_is_checked_where_it_lies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["ship", "fruit", "--to", "android", "--out", "kit", "--package", PACKAGE]) == 0
    manifest = json.loads(Path("kit/manifest.json").read_text())
    assert [level["state"] for level in manifest["checked"]] == ["verified"] * 3 + ["not verified"] * 2
    assert "- tensor to scores: not verified; needs Android" in Path("kit/README.md").read_text()
    inside = {path.relative_to("kit").as_posix() for path in Path("kit").rglob("*") if path.is_file()}
    assert inside == {*manifest["files"], "manifest.json"}
    capsys.readouterr()
    fit = Path("kit/classifier/src/main/kotlin/com/example/fruit/Fit.kt")
    Path("kit/classifier/src/main/kotlin/com/example/fruit/Contract.kt").rename("Contract.kt")
    assert api.check_kit(Path("kit"))[1].text == "wrong; missing: Contract.kt"
    Path("Contract.kt").rename("kit/classifier/src/main/kotlin/com/example/fruit/Contract.kt")
    fit.write_text(fit.read_text().replace("upright(orientation(file))", "upright(1)"))
    assert command(["ship", "--check", "kit"]) == 7
    shown = " ".join(capsys.readouterr().out.split())
    assert "Fit.kt: changed or missing" in shown
    assert f"not turned: {golden.DRIFTS['not turned'][0]}" in shown


@pytest.mark.slow
@needs_kotlin
def test_code_that_does_not_compile_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "Fit.kt").write_text("fun broken( {")
    problem = android.compiled([tmp_path / "Fit.kt"], tmp_path / "x.jar")
    assert problem
    assert re.match("wrong; the Kotlin code does not compile: .*Fit.kt:1", problem.text)


def test_a_compiler_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kotlinc").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "kotlinc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("KOTLIN_COMPILER", raising=False)
    monkeypatch.setattr(android, "_SECONDS", 0.2)
    problem = android.compiled([tmp_path / "Fit.kt"], tmp_path / "x.jar")
    assert problem == kit.Level("golden set", "not verified", ("Kotlin's compiler took more than 0.2 s",))
