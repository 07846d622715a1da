"""The C++ kit: its pixels are the reference's on two kinds of processors, and its golden set names what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

import edgekit
from edgekit import files
from edgekit.data import images
from edgekit.models import build, zoo
from edgekit.records import Artifact, Preprocess
from edgekit.release.publisher import Releases
from edgekit.shipping import cpp, golden, kit
from edgekit.targets.contract import Contract
from tests import nets
from tests.datasets import write_images
from tests.release.site import Site
from tests.shipping.test_python import KINDS, PREPROCESS, SHAPES

COMPILER = cpp._compiler()
pytestmark = [
    pytest.mark.skipif(not COMPILER, reason="no C++ compiler is installed"),
    pytest.mark.xdist_group("cpp"),  # programs are compiled once
]
TESTS = Path(__file__).parent / "cpp"
SOURCES = kit.TEMPLATES / "cpp" / "src"
GEOMETRIES = {"crop": 0, "squash": 1, "letterbox": 2}
LABELS = ('a "quoted" \\ $name', "<b>\\u0041</b> ?)\"';", "🐈", "שלום", "'${{ }}")
RUN_LABELS = LABELS[2:]  # edgekit has no class names with a backslash
CHECKED = [
    "pixels to tensor", "picture file to tensor", "values of the tensor", "tensor to scores", "label and probability",
]  # fmt: skip


def compiled(source: Path, program: Path, *options: str, compiler: str = COMPILER) -> Path:
    """Compile a program without a warning."""
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", str(source), *options]
    done = subprocess.run([*command, "-o", str(program)], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode or done.stderr:
        pytest.fail(done.stderr[:2000], pytrace=False)
    return program


def lines(*command: str | Path) -> list[str]:
    """The lines that a program prints."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests' program, for this machine."""
    folder = tmp_path_factory.mktemp("program")
    return compiled(TESTS / "program.cpp", folder / "program", f"-I{SOURCES}", *cpp.decoders(COMPILER))


@pytest.fixture(scope="module")
def arm() -> str:
    """A compiler for arm64, whose programs can be run here."""
    found = shutil.which("aarch64-linux-gnu-g++")
    if not found or not shutil.which("qemu-aarch64"):
        pytest.skip("g++-aarch64-linux-gnu or qemu-user is not installed")
    return found


Shape = tuple[int, int, Preprocess]


def written(shapes: list[Shape], path: Path) -> list[str]:
    """Write cases for the tests' program. Returns what it must print."""
    asked, wanted = [], []
    for seed, (width, height, preprocess) in enumerate(shapes):
        kernel, colour = int(preprocess.resample == "bicubic"), int(preprocess.background[1:], 16)
        geometry = GEOMETRIES[preprocess.resize]
        asked.append(
            f"{width} {height} {seed} {preprocess.image_size} {preprocess.resize_size} {geometry} {kernel} {colour}\n"
        )
        pixels = images.fit(Image.fromarray(golden.noise(width, height, seed)), preprocess)
        wanted.append(f"{zlib.crc32(pixels.tobytes())} " * 2)
    path.write_text("".join(asked))
    return [line.strip() for line in wanted]


def test_its_pixels_are_the_references(program: Path, tmp_path: Path) -> None:
    """In a plain array, and in rows of BGRA with gaps."""
    shapes = [(*shape, preprocess) for preprocess in KINDS for shape in SHAPES]
    wanted = written(shapes, tmp_path / "cases")
    assert lines(program, "fit", tmp_path / "cases") == wanted


@pytest.fixture(scope="module")
def random_cases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """1,000 pictures of random sizes, and what must be printed of them."""
    random = np.random.default_rng(0)
    sides = np.exp(random.uniform(0, np.log(700), (1000, 2))).round().astype(int).tolist()
    shapes = [(width, height, KINDS[number % len(KINDS)]) for number, (width, height) in enumerate(sides)]
    path = tmp_path_factory.mktemp("random") / "cases"
    return path, written(shapes, path)


@pytest.mark.slow
def test_its_pixels_are_the_references_at_random_sizes(program: Path, random_cases: tuple[Path, list[str]]) -> None:
    assert lines(program, "fit", random_cases[0]) == random_cases[1]


@pytest.mark.slow
def test_its_pixels_are_the_references_on_arm64(arm: str, random_cases: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Whose compiler would join a product and a sum, which rounds once, where the reference rounds twice."""
    arm_program = compiled(TESTS / "program.cpp", tmp_path / "program", f"-I{SOURCES}", "-static", compiler=arm)
    assert lines("qemu-aarch64", arm_program, "fit", random_cases[0]) == random_cases[1]
    assert lines("qemu-aarch64", arm_program, "refuse")[0] == "taken"


def test_pixels_that_are_none_are_refused(program: Path) -> None:
    assert lines(program, "refuse") == [
        "taken",
        "a picture of 4 x 5 has 60 bytes, not 59",
        "a picture of 0 x 5 has no pixels",
        "a picture of -4 x -5 has 0 bytes, not 60",
        "a picture of 4 x 5 has 60 bytes, not 0",
    ]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Files of every kind that PNG and JPEG have, and damaged ones."""
    picture = Image.fromarray(golden.noise(40, 30, 1))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"):
        picture.convert(mode).save(tmp_path / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}")
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", (30000).to_bytes(4, "big"))
    picture.save(tmp_path / "gamma.png", pnginfo=info)
    picture.convert("P").save(tmp_path / "index.png", transparency=3)
    picture.save(tmp_path / "key.png", transparency=picture.getpixel((3, 3)))
    levels = np.arange(256, dtype=np.uint8)
    alpha = np.stack([*np.broadcast_arrays(levels[:, None], levels[::-1, None], 7, levels)], -1)
    Image.fromarray(alpha.astype(np.uint8)).save(tmp_path / "alpha.png")
    Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)).save(tmp_path / "deep.png")
    picture.save(tmp_path / "a.ppm")
    picture.save(tmp_path / "a.jpg")
    picture.convert("L").save(tmp_path / "grey.jpg")
    for name in ("RGB.png", "a.jpg", "a.ppm"):
        (tmp_path / f"cut.{name}").write_bytes((tmp_path / name).read_bytes()[:-900])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "huge.ppm").write_bytes(b"P6 99999 99999 255\n")
    return tmp_path


def test_files_are_decoded_as_edgekit_decodes_them(program: Path, pictures: Path) -> None:
    if len(cpp.decoders(COMPILER)) < 4:
        pytest.skip("libpng-dev or libjpeg-dev is not installed")
    paths = sorted(pictures.iterdir())
    found = dict(zip([path.name for path in paths], lines(program, "load", *paths), strict=True))
    for name, said in found.items():
        if "error" in said:
            continue
        pixels = np.asarray(images.load_image(pictures / name, Preprocess(64, 64, background="#808080")))
        size = f"{pixels.shape[1]} {pixels.shape[0]} "
        assert said == f"{size}{zlib.crc32(pixels.tobytes())}" or (name.endswith(".jpg") and said.startswith(size)), (
            name
        )
    refused = {name: said.partition(": ")[2] for name, said in found.items() if "error" in said}
    texts = {name: said.removeprefix(f"{pictures}/{name}").removeprefix(": ") for name, said in refused.items()}
    assert texts.pop("CMYK.jpg")
    assert texts == {
        "cut.RGB.png": "it is truncated",
        "cut.a.jpg": "Premature end of JPEG file",
        "cut.a.ppm": " is truncated",
        "deep.png": "values of 16 bits: convert them, and pass the pixels",
        "empty.jpg": "not a PPM, PNG or JPEG file",
        "huge.ppm": "99999 x 99999 pixels",
    }


# The golden set, with a network that needs no runtime.


def network(squares: Any, classes: int = len(LABELS)) -> np.ndarray:
    """Scores that depend on every channel and half of a picture."""
    values = np.asarray(squares).astype(np.float64) / 255
    means = np.concatenate([values.mean((1, 2)), values[:, : values.shape[1] // 2].mean((1, 2))], 1)
    number = np.arange(classes)
    return (means[:, number % 6] - number // 6 * 0.01).astype(np.float32)


def source(
    input_: str = "uint8", labels: tuple[str, ...] = LABELS, preprocess: Preprocess = PREPROCESS, layout: str = "NHWC"
) -> kit.Source:
    name = "android/model.int8.tflite"
    artifact = Artifact(name, "android", "int8", "litert", layout, "a" * 64, "b" * 64, {}, input_)
    contract = Contract("net", "b" * 64, labels, preprocess, 1.5)
    return kit.Source("run", Path("none"), artifact, contract, lambda squares: network(squares, len(labels)))


def folder_of(given: kit.Source, folder: Path) -> Path:
    """Write the files that the program of a kit reads, without its sources."""
    kit.write_golden(given, folder / "golden")
    files.save_json(folder / "preprocess.json", kit.contract_of(given))
    (folder / "labels.txt").write_bytes("".join(f"{label}\n" for label in given.contract.labels).encode())
    about = {
        "schema": 1, "kit": "cpp", "files": {}, "model": given.artifact.file, "precision": "int8",
        "runtime": given.artifact.runtime,
    }  # fmt: skip
    files.save_json(folder / "manifest.json", about)
    return folder


# Name of a drift, or of a small fault; the file; pairs of C++ expressions: what is there, and what is there instead.
MUTATIONS: list[tuple[str, str, list[tuple[str, str]]]] = [
    ("stretched", "fit.hpp", [("detail::centre_box(width, height, rule)", "all")]),
    ("not cropped", "fit.hpp", [("static_cast<double>(rule.resize_size)", "static_cast<double>(rule.image_size)")]),
    ("no antialias", "fit.hpp", [("std::max(scale, 1.0)", "1.0"), ("kernel == Kernel::bilinear", "true")]),
    ("nearest", "fit.hpp", [
        ("std::max(static_cast<int>(centre - support + 0.5), 0)", "static_cast<int>(centre)"),
        ("std::min(static_cast<int>(centre + support + 0.5), length) - low", "1"),
    ]),
    ("other kernel", "fit.hpp", [("kernel == Kernel::bilinear", "true")]),
    ("bgr", "fit.hpp", [("format == Format::rgb || format == Format::rgba ? 0 : 2", "2")]),
    ("off by one", "fit.hpp", [
        (f"{side} / 2.0 {sign} half_{axis}", f"{side} / 2.0 {sign} half_{axis} + 2 * half_{axis} / rule.image_size")
        for side, axis in (("width", "w"), ("height", "h")) for sign in "+-"
    ]),
    ("not turned", "picture.hpp", [("orientation_of(marker->data, marker->data_length)", "1")]),
    ("background", "picture.hpp", [("background[c]", "0")]),
    ("box", "fit.hpp", [("height / 2.0 - half_h", "height / 2.0 - half_h + 1e-3")]),
    ("centre", "fit.hpp", [("(output + 0.5) * scale", "(output + 0.5001) * scale")]),
    ("bits", "fit.hpp", [("share < 0 ? share - 0.5 : share + 0.5", "std::floor(share / 1024) * 1024")]),
    ("mean", "contract.hpp", [("contract.mean[channel] * 255", "0.0f")]),
    ("sign", "contract.hpp", [("pixel ^ 0x80", "pixel")]),
    ("planes", "contract.hpp", [
        ("contract.channels_first ? channel * places + place : place * 3 + channel", "place * 3 + channel"),
    ]),
    ("model", "golden.hpp", [("scores.at(i)", "scores.at(labels.size() - 1 - i)")]),
    ("temperature", "contract.hpp", [("(score - most) / temperature", "(score - most) / 0.01")]),
]  # fmt: skip
_SWITCH = """inline bool mutated(const char* name) {
  const char* given = std::getenv("MUTATION");
  return given != nullptr && std::string(given) == name;
}
"""


@pytest.fixture(scope="module")
def mutants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of the kit with each mistake in it, of which the variable MUTATION takes one."""
    folder = tmp_path_factory.mktemp("mutants")
    shutil.copytree(SOURCES, folder / "src")
    for name, file, pairs in MUTATIONS:
        path = folder / "src" / file
        text = path.read_text(encoding="utf-8")
        for old, new in pairs:
            assert old in text, (name, old)
            text = text.replace(old, f'(mutated("{name}") ? ({new}) : ({old}))')
        path.write_text(text, encoding="utf-8")
    fit = folder / "src" / "fit.hpp"
    text = fit.read_text(encoding="utf-8").replace("namespace edgekit {\n", f"namespace edgekit {{\n{_SWITCH}", 1)
    fit.write_text(text.replace("#include <cmath>", "#include <cmath>\n#include <cstdlib>"), encoding="utf-8")
    options = ("-Wno-parentheses", f"-I{folder / 'src'}", f"-I{TESTS / 'network'}", *cpp.decoders(COMPILER))
    return compiled(folder / "src" / "main.cpp", folder / "classifier", *options)


def run(program: Path, folder: Path, mutation: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(program), "--check", "--json", "--kit", str(folder)]
    variables = {**os.environ, "MUTATION": mutation, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=variables)


def levels(program: Path, folder: Path, mutation: str = "", **environment: str) -> dict[str, Any]:
    done = run(program, folder, mutation, **environment)
    found = {level["level"]: level for level in json.loads(done.stdout)}
    assert done.returncode == int(any(level["problems"] for level in found.values()))
    return found


INPUTS = [("uint8", "NHWC"), ("int8", "NHWC"), ("float32", "NHWC"), ("float32", "NCHW")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """A kit's files for each kind of input tensor."""
    return {
        (input_, layout): folder_of(source(input_, layout=layout), tmp_path_factory.mktemp("kit"))
        for input_, layout in INPUTS
    }


@pytest.mark.slow
@pytest.mark.parametrize("taken", INPUTS, ids="-".join)
def test_the_kit_as_it_is_has_no_faults(
    mutants: Path, folders: dict[tuple[str, str], Path], taken: tuple[str, str]
) -> None:
    found = levels(mutants, folders[taken])
    assert [*found] == CHECKED
    assert not [level for level in found.values() if level["problems"] or level["skipped"]]
    assert [level["checked"] for level in found.values()] == [5, 17, 9, 14, 14]


@pytest.mark.slow
@pytest.mark.parametrize("name", golden.DRIFTS)
def test_a_program_that_drifts_fails_and_is_told_why(
    mutants: Path, folders: dict[tuple[str, str], Path], name: str
) -> None:
    level = levels(mutants, folders["uint8", "NHWC"], name)[CHECKED[name in ("not turned", "background")]]
    assert level["problems"]
    assert level["cause"] == f"{name}: {golden.DRIFTS[name][0]}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["box", "centre", "bits"])
def test_small_faults_are_seen_in_the_pixels(mutants: Path, folders: dict[tuple[str, str], Path], name: str) -> None:
    assert levels(mutants, folders["uint8", "NHWC"], name)["pixels to tensor"]["problems"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "taken", "level", "text"),
    [
        ("mean", INPUTS[2], "values of the tensor", "R of 0: 0 instead of -2.1179 (mean, std, scale)"),
        ("sign", INPUTS[1], "values of the tensor", "R of 0: 0 instead of -128 (mean, std, scale)"),
        ("planes", INPUTS[3], "tensor to scores", "scores differ by"),
        ("model", INPUTS[0], "tensor to scores", "scores differ by"),
        ("temperature", INPUTS[0], "label and probability", "noise 165x117: probability"),
    ],
)
def test_other_faults_are_seen_in_their_level(
    mutants: Path, folders: dict[tuple[str, str], Path], name: str, taken: tuple[str, str], level: str, text: str
) -> None:
    found = levels(mutants, folders[taken], name)
    assert text in found[level]["problems"][0]
    assert not found["pixels to tensor"]["problems"]


@pytest.mark.slow
def test_a_thousand_classes_and_the_geometries(mutants: Path, tmp_path: Path) -> None:
    given = source(labels=tuple(f"{number} {LABELS[number % 5]}" for number in range(1000)), preprocess=KINDS[2])
    folder = folder_of(given, tmp_path)
    assert not [level for level in levels(mutants, folder).values() if level["problems"]]
    shown = lines(mutants, "--kit", folder, folder / "golden" / "landscape.png")
    best = network([images.load_fitted(folder / "golden" / "landscape.png", KINDS[2])], 1000)[0].argmax()
    assert shown[0].startswith(f"{folder}/golden/landscape.png: {given.contract.labels[best]} 0.")


@pytest.mark.slow
def test_files_of_another_model_are_refused(mutants: Path, tmp_path: Path) -> None:
    folder = folder_of(source(), tmp_path)
    labels = folder / "labels.txt"
    labels.write_bytes(b"".join(reversed(labels.read_bytes().splitlines(keepends=True))))
    assert "labels.txt is not the one that the model was trained with" in run(mutants, folder).stderr
    labels.unlink()
    assert f"{labels} cannot be read" in run(mutants, folder).stderr
    contract = json.loads((folder / "preprocess.json").read_text())
    for change, text in (
        ({"schema": 2}, "this program knows schema 1"), ({"geometry": "tiles"}, 'does not know "tiles"'),
        ({"tensor": 3}, "JSON: there is no \"type\""), ({"image_size": "x"}, "JSON: a value is not a number"),
    ):  # fmt: skip
        files.save_json(folder / "preprocess.json", {**contract, **change})
        assert text in run(mutants, folder).stderr
    for text in ("", "{", '{"a', '{"a": [1, 2', "[1] 2", '{"a" 1}'):
        (folder / "preprocess.json").write_text(text)
        assert "JSON: " in run(mutants, folder).stderr


@pytest.mark.slow
def test_without_runtime_and_decoders_the_rest_is_checked_on_arm64(
    arm: str, folders: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    program = tmp_path / "classifier"
    compiled(SOURCES / "main.cpp", program, "-DEDGEKIT_WITHOUT_RUNTIME", "-static", compiler=arm)
    shown = lines("qemu-aarch64", program, "--check", "--json", "--kit", folders["float32", "NCHW"])
    found = {level["level"]: (level["checked"], level["problems"], level["skipped"]) for level in json.loads(shown[0])}
    decoders = "not installed when this program was built: libpng-dev and libjpeg-dev"
    runtime = "the model's runtime was not found when this program was built: CMake says what to set"
    assert found == {
        "pixels to tensor": (5, [], ""), "picture file to tensor": (0, [], decoders),
        "values of the tensor": (9, [], ""), "tensor to scores": (0, [], runtime),
        "label and probability": (0, [], runtime),
    }  # fmt: skip


# The whole kit, with LiteRT.


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, list[kit.Level]]]:
    """The kit of the run `fruit`, its program as `ship` built it, and what that found."""
    folder = tmp_path_factory.mktemp("ship")
    program, built = folder / "classifier", cpp.build

    def keep(compiler: str, copy: Path, build_folder: Path) -> Path:
        return Path(shutil.copy(built(compiler, copy, build_folder), program))

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.MODELS, "tiny", nets.TINY)
        patch.setattr(cpp, "build", keep)
        patch.chdir(folder)
        torch.manual_seed(0)
        torch.save(build.build("tiny", 3).state_dict(), "tiny.pth")
        write_images(folder / "photos", {"x": 20})
        imported = edgekit.import_model(
            "tiny.pth", RUN_LABELS, arch="tiny", image_size=64, name="fruit", calibration=folder / "photos"
        )
        edgekit.export(imported, "android", precisions=["int8"], recipe="minmax")
        made = edgekit.ship("fruit", "cpp", "kit")
        yield folder / "kit", program, list(made.levels)


@pytest.mark.slow
def test_a_kit_is_complete_and_verified(shipped: tuple[Path, Path, list[kit.Level]]) -> None:
    folder, _, found = shipped
    manifest = json.loads((folder / "manifest.json").read_text())
    inside = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert inside == {*manifest["files"], "manifest.json"}
    assert inside >= {"CMakeLists.txt", "src/classifier.hpp", "src/runtime.hpp", "model.int8.tflite", "README.md"}
    assert "classifier.service" not in inside
    states = {level.level: level.state for level in found}
    assert [*states] == CHECKED
    assert {*states.values()} - {"verified"} <= {"not verified"}
    if cpp._litert():
        assert states["tensor to scores"] == "verified"
    text = (folder / "README.md").read_text()
    assert f"- tensor to scores: {states['tensor to scores']}" in text
    assert "not verified on hardware" in text
    assert len(text.splitlines()) < 60
    sources = "".join(path.read_text(encoding="utf-8") for path in folder.glob("src/*"))
    assert not [label for label in RUN_LABELS if label in sources]


@pytest.mark.slow
def test_the_program_answers_files_and_a_folder(shipped: tuple[Path, Path, list[kit.Level]], tmp_path: Path) -> None:
    folder, program, _ = shipped
    if not cpp._litert():
        pytest.skip("LiteRT is not installed")
    rows = [line.split("\t") for line in (folder / "golden" / "golden.tsv").read_text().splitlines()]
    case = next(row for row in rows if row[1:3] == ["file", "landscape.png"])
    wanted = f"{RUN_LABELS[int(case[7])]} {100 * float(case[8]):.1f} %"
    picture = folder / "golden" / "landscape.png"
    for options in ([], ["--threads", "2"]):
        assert lines(program, "--kit", folder, *options, picture)[0].startswith(f"{picture}: {wanted}, ")
    for words, code in ((["--gpu"], 1), (["--nothing"], 2), ([], 2), (["--threads", "x"], 2)):
        arguments = [str(program), "--kit", str(folder), *words, *([str(picture)] if words == ["--gpu"] else [])]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (code, "")
    shutil.copy(picture, tmp_path / "1.png")
    (tmp_path / "2.jpg").write_bytes(b"\xff\xd8damaged")
    (tmp_path / "3.part").write_bytes(picture.read_bytes())
    watching = subprocess.Popen([str(program), "--kit", str(folder), "--watch", str(tmp_path)])
    try:
        answers = [tmp_path / "1.png.json", tmp_path / "2.jpg.json"]
        for _ in range(300):
            if all(path.exists() for path in answers):
                break
            time.sleep(0.1)
        found = [json.loads(path.read_text(encoding="utf-8")) for path in answers]
    finally:
        watching.kill()
        watching.wait()
    assert found[0]["answers"][0]["label"] == RUN_LABELS[int(case[7])]
    assert "2.jpg" in found[1]["error"]
    assert not (tmp_path / "3.part.json").exists()


@pytest.mark.slow
def test_a_kit_takes_releases_that_are_right_on_its_machine(
    shipped: tuple[Path, Path, list[kit.Level]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the publisher to the programs of the kit, as CMake built them, through a web server."""
    folder, _, _ = shipped
    if not cpp._litert():
        pytest.skip("LiteRT is not installed")
    publisher = Releases(tmp_path / "public", [tmp_path / "keys"])
    publisher.init()
    built = cpp.build

    def keep(compiler: str, copy: Path, build_folder: Path) -> Path:
        made = built(compiler, copy, build_folder)
        for path in build_folder.glob("updates"):
            shutil.copy(path, tmp_path / "updates")
        return Path(shutil.copy(made, tmp_path / "classifier"))

    monkeypatch.setattr(cpp, "build", keep)
    app, root = tmp_path / "app", tmp_path / "public" / "1.root.json"
    edgekit.ship("fruit", "cpp", app, updates="https://example.com/models", root=root, runs_dir=folder.parent / "runs")
    if not (tmp_path / "updates").exists():
        pytest.skip("cmake, libssl-dev or libcurl4-openssl-dev is not installed")
    services = {"classifier.service", "classifier-updates.service", "classifier-updates.timer"}
    assert {path.name for path in app.iterdir()} >= {"updates.json", "root.json", *services}
    text = (app / "README.md").read_text()
    assert "Releases of the channel `stable` come from https://example.com/models." in text
    assert len(text.splitlines()) < 90

    with Site(tmp_path / "public") as site:

        def updates(*commands: str) -> list[dict[str, str]]:
            words = [tmp_path / "updates", "--kit", app, "--state", tmp_path / "state", "--url", site.url, *commands]
            return [json.loads(line) for line in lines(*words)]

        publisher.add([folder], "stable")
        found, started, _ = updates("check", "start", "good")
        assert (found["state"], started["release"]) == ("updated", "r2")
        assert not [path for path in site.requests if "model.int8" in path]  # it is the model that the kit has
        wrong = tmp_path / "wrong"  # another model's scores: what a device with a broken driver sees
        shutil.copytree(folder, wrong)
        scores = wrong / "golden" / "scores.f32"
        scores.write_bytes(bytes(len(scores.read_bytes())))
        manifest = json.loads((wrong / "manifest.json").read_text())
        manifest["files"]["golden/scores.f32"] = files.sha256_file(scores)
        files.save_json(wrong / "manifest.json", manifest)
        publisher.add([wrong], "stable")
        found, again = updates("check", "start")
    assert (found["state"], again["release"]) == ("refused", "r2")
    assert found["reason"].startswith("self-test: tensor to scores: ")
    picture = folder / "golden" / "landscape.png"
    wanted = lines(tmp_path / "classifier", "--kit", app, picture)
    assert lines(tmp_path / "classifier", "--kit", started["folder"], picture) == wanted
    assert not [
        level for level in levels(tmp_path / "classifier", Path(started["folder"])).values() if level["problems"]
    ]


def test_without_a_compiler_nothing_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp.shutil, "which", lambda name: None)
    assert cpp.check(tmp_path) == [
        kit.Level("golden set", "not verified", ("no C++ compiler is installed here: apt install g++ cmake",))
    ]


def test_what_does_not_compile_is_wrong_and_takes_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(source(), tmp_path / "kit")
    (folder / "src").mkdir()
    (folder / "src" / "main.cpp").write_text("#error of ours\n")
    monkeypatch.setattr(cpp, "build", cpp._compile)
    (level,) = cpp.check(folder)
    assert (level.level, level.state) == ("build", "wrong")
    assert "#error of ours" in level.details[0]

    def hang(*_: Any) -> Path:
        raise subprocess.TimeoutExpired("c++", 300)

    monkeypatch.setattr(cpp, "build", hang)
    assert cpp.check(folder) == [kit.Level("build", "not verified", ("compiling took more than 300 s",))]


# TensorRT, with a stand-in for its headers.


def tensorrt_kit(folder: Path) -> Path:
    """A kit's files for an ONNX file, whose network is that of the stand-in."""
    given = source("float32", layout="NCHW")
    artifact = replace(given.artifact, name="jetson/model.int8.onnx", target="jetson", runtime="tensorrt")
    mean, std = (np.float32(getattr(PREPROCESS, name)) for name in ("mean", "std"))

    def scores(squares: Any) -> np.ndarray:
        values = (np.asarray(squares).astype(np.float32) / 255 - mean) / std
        return np.concatenate([values.mean((1, 2)), values[:, :32].mean((1, 2))], 1)[:, :5]

    folder_of(replace(given, artifact=artifact, scores=scores), folder)
    (folder / "model.int8.onnx").write_bytes(b"int8")
    (folder / "model.int8.typed.onnx").write_bytes(b"typed")
    return folder


TENSORRT = (
    "-iquote",
    str(SOURCES),
    "-iquote",
    str(kit.TEMPLATES / "cpp-tensorrt"),
    "-isystem",
    str(TESTS / "tensorrt"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "precision", "built"),
    [((8, 6), "int8", "flags FP16 INT8 network 1\nint8"), ((10, 3), "fp16", "flags FP16 network 0\nint8"),
     ((10, 13), "int8", "flags network 2\ntyped"), ((11, 0), "fp32", "flags no-TF32 network 0\ntyped")],
    ids=["8.6", "10.3", "10.13", "11.0"],
)  # fmt: skip
def test_engines_are_built_with_the_flags_of_each_tensorrt(
    tmp_path: Path, version: tuple[int, int], precision: str, built: str
) -> None:
    options = [f"-DNV_TENSORRT_M{name}={number}" for name, number in zip(("AJOR", "INOR"), version, strict=True)]
    program = compiled(TESTS / "engine.cpp", tmp_path / "engine", "-O0", *options, *TENSORRT)
    folder = tensorrt_kit(tmp_path / "kit")
    (path,) = lines(program, folder / "model.int8.onnx", precision)
    assert Path(path).read_text() == built
    content = b"typed" if "typed" in built else b"int8"
    assert Path(path).name.split(".")[-4:-1] == ["trt100300", "sm87", hashlib.sha256(content).hexdigest()[:12]]


@pytest.mark.slow
def test_engines_are_built_once_and_for_their_machine(tmp_path: Path) -> None:
    folder = tensorrt_kit(tmp_path / "kit")
    program = compiled(SOURCES / "main.cpp", tmp_path / "classifier", "-O0", *TENSORRT, *cpp.decoders(COMPILER))
    before = {path.name for path in folder.iterdir()}

    def is_right(**machine: str) -> bool:
        return not [level for level in levels(program, folder, **machine).values() if level["problems"]]

    assert is_right()
    (engine,) = folder.glob("*.engine")
    engine.write_text("flags of before\n")
    assert is_right()
    assert engine.read_text() == "flags of before\n"
    assert is_right(EDGEKIT_SM="72")
    assert is_right(EDGEKIT_TRT="100400")
    engines = {path.name for path in folder.glob("*.engine")}
    assert len(engines) == 3
    assert levels(program, folder, EDGEKIT_SM="0")["tensor to scores"]["skipped"] == "CUDA finds no GPU here: unknown"
    (folder / "model.int8.onnx").write_bytes(b"bad")
    done = run(program, folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert "TensorRT rejects the model: no such operator" in done.stderr
    assert {path.name for path in folder.iterdir()} == before | engines
    engine.write_text("damaged")
    (folder / "model.int8.onnx").write_bytes(b"int8")
    assert "TensorRT gives no engine from the file" in run(program, folder).stderr
