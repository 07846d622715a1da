"""The kit for C++: compiled by the real compiler for x86-64 and arm64, run on LiteRT's library, its mistakes named."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.data import images
from edgekit.shipping import cpp, golden, kit
from tests.shipping.test_python import KINDS, LABELS, PREPROCESS, SHAPES, source

HERE = Path(__file__).parent / "cpp"
TEMPLATES = kit.TEMPLATES / "cpp"
COMPILER = cpp.find_compiler()
ARM = shutil.which("aarch64-linux-gnu-g++")
QEMU = shutil.which("qemu-aarch64")
GEOMETRIES = {"crop": 0, "squash": 1, "letterbox": 2}

pytestmark = pytest.mark.skipif(not COMPILER, reason="no C++ compiler is installed")


def compiled(program: Path, *arguments: object, compiler: str = COMPILER or "") -> Path:
    warnings = ["-std=c++17", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
    done = subprocess.run(
        [compiler, *warnings, *map(str, arguments), "-o", str(program)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return program


def cases() -> list[tuple[np.ndarray, images.Preprocess]]:
    """The shapes of the Python kit, and 1,000 random ones, in each of four ways of resizing."""
    random = np.random.default_rng(0)
    shapes = [shape for shape in SHAPES for _ in KINDS]
    shapes += [tuple(int(s) for s in np.exp(random.uniform(0, np.log(500), 2)).round()) for _ in range(1000)]
    return [
        (golden.noise(width, height, number), KINDS[number % len(KINDS)])
        for number, (width, height) in enumerate(shapes)
    ]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """The file of all cases, and the squares of the reference."""
    path, expected = tmp_path_factory.mktemp("cases") / "cases", []
    with open(path, "wb") as file:
        for pixels, how in cases():
            height, width = pixels.shape[:2]
            kernel = ("bilinear", "bicubic").index(how.resample)
            colour = int(how.background[1:], 16)
            head = (how.image_size, how.resize_size, kernel, GEOMETRIES[how.resize], colour, width, height)
            file.write(np.array(head, "<i4").tobytes() + pixels.tobytes())
            expected.append(images.fit(Image.fromarray(pixels), how).tobytes())
    return path, b"".join(expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiler", "runner"),
    [
        pytest.param(COMPILER, (), id="here"),
        pytest.param(
            ARM,
            (QEMU,),
            id="arm64",
            marks=pytest.mark.skipif(not (ARM and QEMU), reason="g++-aarch64-linux-gnu or qemu-user is not installed"),
        ),
    ],
)
def test_its_pixels_are_the_references(
    written: tuple[Path, bytes], tmp_path: Path, compiler: str, runner: tuple[str, ...]
) -> None:
    program = compiled(tmp_path / "fits", "-O2", "-static", f"-I{TEMPLATES}", HERE / "fits.cpp", compiler=compiler)
    subprocess.run([*runner, str(program), str(written[0]), str(tmp_path / "out")], check=True)
    found = np.frombuffer((tmp_path / "out").read_bytes(), np.uint8)
    expected = np.frombuffer(written[1], np.uint8)
    assert found.shape == expected.shape
    assert int((found != expected).sum()) == 0


def made(folder: Path, given: kit.Source, runtime: str = "litert") -> Path:
    """A kit without its model."""
    given = replace(given, path=TEMPLATES / "main.cpp", artifact=replace(given.artifact, runtime=runtime))
    folder.mkdir(parents=True)
    kit.write_golden(given, folder / "golden")
    kit.fill(cpp.TARGET, given, folder)
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in given.contract.labels), encoding="utf-8")
    return folder


CENTRE = "const detail::Box box{width / 2.0 - half_w"
MUTATIONS = [
    ("stretched", "fit.hpp", "if (how.geometry == Geometry::whole) return", "if (true) return", 0),
    ("not cropped", "fit.hpp", "static_cast<double>(how.resize_size) / std::min", "double(size) / std::min", 0),
    ("no antialias", "fit.hpp", "wide = std::max(scale, 1.0);\n", "wide = 1.0;\n  kernel = Kernel::bilinear;\n", 0),
    ("other kernel", "fit.hpp", "x = std::fabs(x);", "x = std::fabs(x), kernel = Kernel::bilinear;", 0),
    ("bgr", "fit.hpp", "red += pixel[0] * weights[i];\n      green += pixel[1] * weights[i];\n      blue += pixel[2]",
     "red += pixel[2] * weights[i];\n      green += pixel[1] * weights[i];\n      blue += pixel[0]", 0),
    ("not turned", "decode.hpp", "if (orientation < 2 || orientation > 8)", "if (orientation)", 1),
    ("background", "decode.hpp", "if (alpha == 0) return below;", "below = 0;", 1),
    ("", "fit.hpp", "+ 0.5) * scale;", "+ 0.5001) * scale;", 0),
    ("", "fit.hpp", "bits = 22", "bits = 12", 0),
    ("", "fit.hpp", "float(box.left)", "float(box.left + 1e-3)", 0),
    ("values", "tensor.hpp", "(static_cast<float>(square[i]) - contract::mean[channel] * 255.0f)",
     "static_cast<float>(square[i])", 2),
]  # fmt: skip


@pytest.mark.slow
def test_what_drifts_is_found_and_named(tmp_path: Path) -> None:
    """All mutants in one program, each in a namespace of its own; the last entry is the code as it is."""
    needs = cpp.decoders(COMPILER or "")
    if len(needs[1]) < 2:
        pytest.skip("libpng-dev or libjpeg-dev is not installed")
    folder = made(tmp_path / "kit", source("float32"))
    main = ["#include <iostream>"]
    calls = []
    for number, (_, name, old, new, _) in enumerate([*MUTATIONS, ("", "fit.hpp", CENTRE, CENTRE, 0)]):
        mutant = tmp_path / f"m{number}"
        mutant.mkdir()
        for path in folder.glob("*.hpp"):
            text = path.read_text()
            if path.name == name:
                assert old in text, name
                text = text.replace(old, new)
            (mutant / path.name).write_text(text.replace("namespace edgekit", f"namespace m{number}"))
        main.append(f'#include "m{number}/golden.hpp"')
        calls.append(f'std::cout << m{number}::as_json(m{number}::check(arguments[1])) << "\\n";')
    (tmp_path / "main.cpp").write_text("\n".join([*main, "int main(int, char** arguments) {", *calls, "}\n"]))
    options = ["-DEDGEKIT_WITHOUT_RUNTIME", *needs[0], f"-I{tmp_path}", tmp_path / "main.cpp", *needs[1]]
    program = compiled(tmp_path / "mutants", *options)
    done = subprocess.run([str(program), str(folder)], capture_output=True, text=True, check=True)
    *found, right = [json.loads(line) for line in done.stdout.splitlines()]
    assert [level["checked"] for level in right] == [5, 17, 9, 0, 0]
    assert not [level["problems"] for level in right if level["problems"]]
    for (name, _, _, _, level), levels in zip(MUTATIONS, found, strict=True):
        assert levels[level]["problems"], name
        if name in golden.DRIFTS:
            assert levels[level]["cause"] == f"{name}: {golden.DRIFTS[name][0]}"
    assert found[-1][2]["problems"][0].startswith("R of 0: 0 instead of -2.1179")


@pytest.mark.slow
def test_class_names_stay_data(tmp_path: Path) -> None:
    """1,000 labels, among them quotes, escapes, and other scripts: they are read from labels.txt, not compiled."""
    hostile = (*LABELS, '");system("x', "\\u0022", "%s%n", "a\\", "${x}")
    labels = (*hostile, *(f"class {number}" for number in range(1000 - len(hostile))))
    given = source()
    given = replace(given, contract=replace(given.contract, labels=labels), scores=lambda squares: scores(len(squares)))
    folder = made(tmp_path / "kit", given)
    sources = "".join(path.read_text() for path in folder.glob("*.[hc]*") if path.is_file())
    assert not [label for label in hostile if label in sources and label != "cat"]
    assert "classes = 1000;" in sources
    main = tmp_path / "main.cpp"
    main.write_text(
        '#include "classifier.hpp"\n#include <iostream>\nint main(int, char** a) {'
        "for (auto& label : edgekit::Classifier::read_labels(a[1])) std::cout << label << '\\n'; }\n"
    )
    (folder / "runtime.hpp").write_text(
        "#pragma once\n#include <string>\n#include <vector>\nnamespace edgekit { struct Runtime { "
        "explicit Runtime(const std::string&) {} "
        "std::vector<float> run(const std::vector<uint8_t>&) { return {}; } }; }"
    )
    program = compiled(tmp_path / "labels", f"-I{folder}", main)
    said = subprocess.run([str(program), str(folder / "labels.txt")], capture_output=True, check=True).stdout
    assert said.decode() == "".join(f"{label}\n" for label in labels)
    (folder / "labels.txt").write_text("one\n")
    failed = subprocess.run([str(program), str(folder / "labels.txt")], capture_output=True, text=True)
    assert "has 1 labels instead of 1000" in failed.stderr


def scores(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (count, 1000)).astype(np.float32)


def test_without_a_compiler_nothing_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp, "find_compiler", lambda: None)
    (level,) = cpp.check(tmp_path)
    assert level.text == "not verified; no C++ compiler here: apt install g++"


def test_the_constants_are_those_of_the_contract(tmp_path: Path) -> None:
    preprocess = replace(PREPROCESS, resize="letterbox", resize_size=64, background="#0a141e")
    text = (made(tmp_path / "kit", source("float32", preprocess)) / "contract.hpp").read_text()
    assert (
        f"{preprocess.image_size}, {preprocess.resize_size}, Kernel::bicubic, Geometry::bars, Colour{{10, 20, 30}}"
        in text
    )
    assert "mean[3] = {0.485f, 0.456f, 0.406f};" in text
    assert "temperature = 1.5;" in text


def test_each_runtime_has_its_own_code(tmp_path: Path) -> None:
    for runtime, words in (("litert", "libLiteRt.so"), ("tensorrt", "NvInfer.h")):
        folder = made(tmp_path / runtime, source("float32"), runtime)
        for name in ("runtime.hpp", "CMakeLists.txt", "README.md"):
            assert (words in (folder / name).read_text()) or name != "runtime.hpp"
        assert ("LITERT_LIBRARY" in (folder / "CMakeLists.txt").read_text()) == (runtime == "litert")
