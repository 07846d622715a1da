"""The kit for browsers: its pixels are the reference's in Node.js and Chromium, and its tests name what is wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import edgekit
from edgekit.api import ship
from edgekit.cli.app import run as command
from edgekit.data import images
from edgekit.errors import DataError, UsageError
from edgekit.models import build, zoo
from edgekit.records import Preprocess
from edgekit.release.publisher import Releases
from edgekit.shipping import browser, golden, kit, web
from edgekit.web import litertjs
from tests import nets
from tests.datasets import write_images
from tests.release.site import Site
from tests.shipping.test_python import KINDS, SHAPES, source
from tests.web.webstand import needs_litertjs

CHECKOUT = Path(__file__).parents[2]
TEMPLATES = kit.TEMPLATES / "web"
TSC = CHECKOUT / "node_modules" / ".bin" / "tsc"
NODE = shutil.which("node")
HOSTILE = ("<img src=x onerror=alert(1)>", 'a "quoted" $name u0041 ${x} `y`', "🐈 שלום & co")
FIVE = [
    "pixels to tensor", "picture file to tensor", "values of the tensor", "tensor to scores", "label and probability",
]  # fmt: skip
needs_node = pytest.mark.skipif(NODE is None, reason="Node.js is not installed")
in_chromium = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser"),
    needs_litertjs,
    pytest.mark.skipif(browser.program() is None, reason="no Chromium here: apt install chromium"),
]
# Resizes noise as cases.json says, and prints what differs from squares.rgb: [case, differing bytes].
CASES = """
import { readFileSync } from "node:fs";
import { noise } from "./golden.js";
import { fit } from "./fit.js";
const squares = readFileSync("squares.rgb");
let at = 0;
const wrong = [];
JSON.parse(readFileSync("cases.json")).forEach(({ noise: source, contract, alpha }, number) => {
  const picture = noise(source);
  if (alpha) picture.data = picture.data.subarray(0, picture.width * picture.height * 4);
  const square = fit(picture, contract);
  const differing = square.reduce((sum, level, n) => sum + (level !== squares[at + n]), 0);
  at += square.length;
  if (differing) wrong.push([number, differing]);
});
console.log(JSON.stringify({ wrong, bytes: at, all: squares.length }));
"""
REFUSED = """
import { fit } from "./fit.js";
const contract = {image_size: 32, resize_size: 36, resample: "bilinear", geometry: "centre-box", background: "#ffffff"};
const data = new Uint8Array(48);
for (const [picture, changes] of [
  [{ width: 0, height: 4, data: new Uint8Array(0) }, {}], [{ width: 4, height: 5, data }, {}],
  [{ width: 4.5, height: 4, data }, {}], [{ width: 2, height: 2, rows: () => data.subarray(1) }, {}],
  [{ width: 4, height: 4, data }, { resample: "lanczos" }], [{ width: 4, height: 4, data }, { geometry: "other" }],
]) {
  try { fit(picture, { ...contract, ...changes }); console.log("taken"); } catch (error) { console.log(error.message); }
}
"""


def node(folder: Path, script: str) -> str:
    """What a module prints that lies in a folder."""
    (folder / "script.mjs").write_text(script, encoding="utf-8")
    return subprocess.run(["node", "script.mjs"], cwd=folder, capture_output=True, text=True, check=True).stdout


def program(folder: Path) -> Path:
    """A folder with the program of a kit, without a model."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*web.TARGET.more(source()).values(), *TEMPLATES.glob("*.js")):
        shutil.copyfile(path, folder / path.name)
    (folder / "package.json").write_text('{"type": "module"}')
    return folder


def compared(folder: Path, cases: list[tuple[str, Preprocess, np.ndarray]], alpha: bool = False) -> dict[str, Any]:
    """What Node.js finds: noise, preprocessing and square of each case."""
    told = [{"noise": seed, "contract": preprocess.contract(), "alpha": alpha} for seed, preprocess, _ in cases]
    (folder / "cases.json").write_text(json.dumps(told))
    (folder / "squares.rgb").write_bytes(b"".join(square.tobytes() for _, _, square in cases))
    return dict(json.loads(node(folder, CASES)))


def case(number: int, width: int, height: int, preprocess: Preprocess) -> tuple[str, Preprocess, np.ndarray]:
    square = images.fit(Image.fromarray(golden.noise(width, height, number)), preprocess)
    return f"{width}x{height}x{number}", preprocess, square


@pytest.fixture(scope="module", params=["uint8", "int8", "float32"])
def pixels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit whose model was replaced by a formula: what Node.js checks."""
    folder = program(tmp_path_factory.mktemp(request.param))
    given = source(request.param)
    kit.write_golden(given, folder / "golden")
    (folder / "preprocess.json").write_text(json.dumps(kit.contract_of(given)))
    return folder


def changed(folder: Path, to: Path, old: str, new: str, name: str = "fit.js") -> Path:
    """A copy of a kit with a part of its program replaced."""
    shutil.copytree(folder, to)
    text = (to / name).read_text(encoding="utf-8")
    assert old in text
    (to / name).write_text(text.replace(old, new), encoding="utf-8")
    return to


@pytest.mark.skipif(not TSC.exists(), reason="TypeScript is not installed: npm ci")
@needs_node
@needs_litertjs
def test_the_modules_are_what_tsc_makes_of_the_sources(tmp_path: Path) -> None:
    subprocess.run([TSC, "--outDir", tmp_path], cwd=CHECKOUT, check=True)
    made = {path.name: path.read_text() for path in tmp_path.rglob("*.*")}
    assert set(made) == {f"{name}{suffix}" for name in ("fit", "classifier", "updates") for suffix in (".js", ".d.ts")}
    for folder in (CHECKOUT / "edgekit/web/fit", TEMPLATES, kit.TEMPLATES / "web-updates"):
        for path in folder.glob("*.ts"):
            if not path.name.endswith(".d.ts"):
                for suffix in (".js", ".d.ts"):
                    assert (folder / (path.stem + suffix)).read_text() == made.pop(path.stem + suffix), (
                        "run make scripts"
                    )
    assert not made


@needs_node
def test_its_pixels_are_the_references(tmp_path: Path) -> None:
    cases = [case(n, *shape, preprocess) for preprocess in KINDS for n, shape in enumerate(SHAPES, 1)]
    found = compared(program(tmp_path), cases)
    assert found["wrong"] == []
    assert found["bytes"] == found["all"] > 0


@needs_node
@pytest.mark.slow
def test_its_pixels_are_the_references_at_random_sizes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    sides = np.exp(random.uniform(0, np.log(500), (1000, 2))).round().astype(int)
    cases = [case(n, int(w), int(h), KINDS[n % len(KINDS)]) for n, (w, h) in enumerate(sides)]
    found = compared(program(tmp_path), cases)
    assert found["wrong"] == []
    assert found["bytes"] == found["all"]


@needs_node
@pytest.mark.parametrize("background", ["#ffffff", "#000000", "#0a14c8"])
def test_transparent_pixels_lie_over_the_background_as_with_pillow(tmp_path: Path, background: str) -> None:
    """Every alpha over noise."""
    preprocess = Preprocess(256, 256, resize="squash", background=background)
    bytes_ = golden.noise(512, 256, 7).reshape(-1)[: 256 * 256 * 4].reshape(256, 256, 4)
    below = Image.new("RGBA", (256, 256), (*preprocess.colour, 255))
    square = np.asarray(Image.alpha_composite(below, Image.fromarray(bytes_, "RGBA")).convert("RGB"))
    script = CASES.replace("noise(source)", "({ ...noise(source), width: 256, height: 256 })")
    folder = program(tmp_path)
    (folder / "cases.json").write_text(
        json.dumps([{"noise": "512x256x7", "contract": preprocess.contract(), "alpha": True}])
    )
    (folder / "squares.rgb").write_bytes(square.tobytes())
    assert json.loads(node(folder, script)) == {"wrong": [], "bytes": square.size, "all": square.size}


@needs_node
def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    assert node(program(tmp_path), REFUSED).splitlines() == [
        "a picture of 0 x 4 has no pixels",
        "4 x 5 pixels have 3 or 4 bytes each, not 48 in all",
        "a picture of 4.5 x 4 has no pixels",
        "2 rows of another length: 47 bytes",
        "unknown kernel lanczos",
        "unknown geometry other",
    ]


@needs_node
def test_node_checks_pixels_and_values_and_says_what_it_left_out(pixels: Path) -> None:
    found = {level.level: level for level in web.in_node(pixels)}
    assert [*found] == FIVE
    assert {name for name, level in found.items() if level.state == "verified"} == {FIVE[0], FIVE[2]}
    assert found[FIVE[1]].text == "not verified; Node.js decodes no pictures: open check.html in a browser"
    done = subprocess.run(["node", "--test"], cwd=pixels, capture_output=True, text=True, check=False)
    assert (done.returncode, "# pass 2" in done.stdout, "# skipped 3" in done.stdout) == (0, True, True), done.stdout


MUTATIONS = [
    ("stretched", "contract.geometry === 'whole'", "true"),
    ("not cropped", "contract.resize_size / Math.min(width, height)", "size / Math.min(width, height)"),
    ("no antialias", "const wide = Math.max(scale, 1);", "const wide = 1; kernel = 'bilinear';"),
    ("other kernel", "const reach =", "kernel = 'bilinear'; const reach ="),
    ("bgr", "out[to] = red >> BITS;\n            out[to + 1] = green >> BITS;\n            out[to + 2] = blue >> BITS;",
     "out[to] = blue >> BITS; out[to + 1] = green >> BITS; out[to + 2] = red >> BITS;"),
]  # fmt: skip


@needs_node
@pytest.mark.parametrize(("name", "old", "new"), MUTATIONS, ids=[each[0] for each in MUTATIONS])
def test_a_program_that_drifts_fails_and_is_told_why(
    pixels: Path, tmp_path: Path, name: str, old: str, new: str
) -> None:
    first = web.in_node(changed(pixels, tmp_path / "kit", old, new))[0]
    assert first.state == "wrong"
    assert first.details[0] == f"{name}: {golden.DRIFTS[name][0]}"


@needs_node
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("const from = Math.fround(start)", "const from = start"),
        ("(output + 0.5) * scale", "(output + 0.5001) * scale"),
        ("const BITS = 22", "const BITS = 12"),
        ("scaled - 0.5 : scaled + 0.5", "scaled : scaled"),
    ],
    ids=["float32", "centre", "bits", "rounding"],
)
def test_small_faults_are_seen_in_the_pixels(pixels: Path, tmp_path: Path, old: str, new: str) -> None:
    assert web.in_node(changed(pixels, tmp_path / "kit", old, new))[0].state == "wrong"


@needs_node
def test_a_wrong_mean_is_seen_in_the_values(pixels: Path, tmp_path: Path) -> None:
    if "float32" not in (pixels / "preprocess.json").read_text():
        pytest.skip("bytes have no mean")
    values = web.in_node(changed(pixels, tmp_path / "kit", "f(level - centre) / width", "level / 255"))[2]
    assert "R of 0: 0 instead of -2.1179" in values.text


def test_pages_allow_their_import_map_and_write_no_html() -> None:
    for page in TEMPLATES.glob("*.html*"):
        text = page.read_text(encoding="utf-8")
        (inline,) = re.findall(r"<script type=\"importmap\">(.*?)</script>", text)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in text
        assert re.search(r"http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; ", text)
    for path in [*TEMPLATES.glob("*.js"), *TEMPLATES.glob("*.html*")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|https?://", text)


def test_files_that_are_not_for_browsers_are_refused() -> None:
    assert web.refuses(replace(source("uint8").artifact, precision="16x8")).startswith("16x8 is for NPUs; LiteRT.js")
    assert web.refuses(source("int8").artifact) == "its input is int8, which LiteRT.js does not support"
    assert web.refuses(source("uint8").artifact) == litertjs.refuses(source("float32").artifact) == ""


@pytest.mark.parametrize(("here", "there", "expected"), [
    ([], [kit.Level("golden set", "not verified", ("no browser",))],
     ["golden set: not verified; no browser", "golden set, in Node.js: not verified; no node"]),
    ([kit.Level(FIVE[0], "verified"), kit.Level(FIVE[1], "not verified", ("x",))],
     [kit.Level("golden set", "not verified", ("no browser",))],
     [f"{FIVE[0]}: verified", f"{FIVE[1]}: not verified; no browser"]),
    ([kit.Level(FIVE[0], "verified"), kit.Level(FIVE[1], "not verified", ("x",))], [kit.Level(FIVE[0], "verified")],
     [f"{FIVE[0]}: verified", f"{FIVE[0]}, in Node.js: verified"]),
    ([kit.Level(FIVE[0], "verified")], [kit.Level("golden set", "wrong", ("no model",))],
     ["golden set: wrong; no model", f"{FIVE[0]}, in Node.js: verified"]),
], ids=["neither", "node", "both", "no page"])  # fmt: skip
def test_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, here: list[kit.Level], there: list[kit.Level], expected: list[str]
) -> None:
    monkeypatch.setattr(web, "in_node", lambda folder: here or [kit.Level("golden set", "not verified", ("no node",))])
    monkeypatch.setattr(web, "in_chromium", lambda folder: there)
    assert [f"{level.level}: {level.text}" for level in web.check(Path("none"))] == expected


def test_without_programs_nothing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (tmp_path / "node_modules/@litertjs/core").mkdir(parents=True)
    assert [level.text for level in web.check(tmp_path)] == [
        "not verified; Chromium is not installed: apt install chromium",
        "not verified; Node.js is not installed: apt install nodejs",
    ]


def test_a_browser_that_ends_or_says_nothing_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double = tmp_path / "chromium"
    for body, seconds, expected in (("echo no display; exit 1", 60, "Chromium ended: no display"),
                                    ("sleep 60", 0.3, "Chromium took more than 0.3 s")):  # fmt: skip
        double.write_text(f"#!/bin/sh\n{body}\n")
        double.chmod(0o755)
        monkeypatch.setattr(browser, "program", lambda: str(double))
        with pytest.raises(browser.NoAnswer, match=expected):
            browser.answer(tmp_path, "check.html", {}, seconds)


def test_the_server_of_a_kit_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "kit").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "kit/a.js").write_text("y")
    with browser._serving(tmp_path / "kit", {"/more/": tmp_path / "kit"}) as server:
        assert server.file("/a.js") == server.file("/more/a.js") == tmp_path / "kit/a.js"
        for address in ("/../secret", "/more/../../secret", "//etc/hostname", "/", "/b.js"):
            assert server.file(address) is None


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the run `fruit`, exported for phones, and its kit for browsers."""
    folder = tmp_path_factory.mktemp("web")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.MODELS, "tiny", nets.TINY)
        patch.chdir(folder)
        torch.manual_seed(0)
        torch.save(build.build("tiny", 3).state_dict(), "tiny.pth")
        write_images(folder / "photos", {"x": 20})
        run = edgekit.import_model(
            "tiny.pth", list(HOSTILE), arch="tiny", name="fruit", calibration=folder / "photos",
            preprocess={"image_size": 64, "resize_size": 73, "background": "#0a14c8"},
        )  # fmt: skip
        edgekit.export(run, "android", precisions=["int8", "fp32", "16x8"], recipe="minmax")
        edgekit.ship("fruit", "web", "kit")
        yield folder


class TestInChromium:
    """What only a browser shows."""

    pytestmark = in_chromium

    def test_a_kit_is_complete_and_says_what_was_checked(self, shipped: Path) -> None:
        manifest = json.loads((shipped / "kit/manifest.json").read_text())
        inside = {
            path.relative_to(shipped / "kit").as_posix() for path in (shipped / "kit").rglob("*") if path.is_file()
        }
        assert inside == {*manifest["files"], "manifest.json"}
        assert inside >= {"fit.ts", "fit.js", "fit.d.ts", "classifier.js", "index.html", "package.json", "labels.txt"}
        names = [level["level"] for level in manifest["checked"]]
        assert names == [*FIVE, *(f"{FIVE[n]}, in Node.js" for n in (0, 2) if NODE)]
        assert {level["state"] for level in manifest["checked"]} == {"verified"}
        text = (shipped / "kit/README.md").read_text()
        assert len(text.splitlines()) < 60
        assert "- tensor to scores: verified" in text
        assert json.loads((shipped / "kit/package.json").read_text())["dependencies"] == {
            "@litertjs/core": litertjs.VERSION
        }
        assert not [path for path in inside if any(label in path for label in HOSTILE)]

    def test_drifts_of_what_reads_files_are_named(self, shipped: Path, tmp_path: Path) -> None:
        for name, old, new in (
            (
                "not turned",
                "const bitmap = await createImageBitmap(source, {",
                UNTURNED + "await createImageBitmap(new Blob([bytes]), {",
            ),
            ("background", "const colour = rgb(contract.background)", "const colour = [0, 0, 0]"),
        ):
            found = web.in_chromium(changed(shipped / "kit", tmp_path / name, old, new))
            states = {level.level: level.state for level in found}
            assert (states[FIVE[0]], states[FIVE[1]]) == ("verified", "wrong")
            assert found[1].details[0] == f"{name}: {golden.DRIFTS[name][0]}"

    def test_colours_that_a_canvas_multiplied_by_alpha_are_seen(self, shipped: Path, tmp_path: Path) -> None:
        found = web.in_chromium(changed(shipped / "kit", tmp_path / "kit", "if (isOpaque(data))", "if (true)"))
        assert "alpha.png: other pixels, up to 1 levels off" in found[1].text

    def test_what_does_not_belong_to_the_model_is_refused(self, shipped: Path, tmp_path: Path) -> None:
        folder = tmp_path / "kit"
        shutil.copytree(shipped / "kit", folder)
        labels = (folder / "labels.txt").read_text(encoding="utf-8").splitlines(keepends=True)
        (folder / "labels.txt").write_text("".join(reversed(labels)), encoding="utf-8")
        (level,) = web.in_chromium(folder)
        assert (level.state, level.details[0].partition(" (")[0]) == (
            "wrong", "labels.txt is not the one that the model was trained with",
        )  # fmt: skip
        (level,) = web.in_chromium(shipped / "kit", "accelerator=webgpu&")
        assert level.state == "wrong"  # there is no GPU here, and nothing takes its place
        assert command(["ship", "--check", str(folder)]) == 7

    def test_the_sample_page_shows_names_as_they_are(self, shipped: Path, tmp_path: Path) -> None:
        """It is driven from another page of its origin, with a picture and with the camera."""
        folder = tmp_path / "kit"
        shutil.copytree(shipped / "kit", folder)
        (folder / "drive.html").write_text(
            '<!doctype html><iframe src="index.html"></iframe><script src="drive.js"></script>'
        )
        (folder / "drive.js").write_text(DRIVE)
        sent = json.loads(browser.answer(folder, "drive.html", {"/node_modules/@litertjs/": litertjs.folder()}, 120))
        assert sorted(line.rpartition(" ")[0].rpartition(" ")[0] for line in sent["answers"]) == sorted(HOSTILE)
        assert sent["elements"] == 0
        assert re.fullmatch(r"\d+ ms", sent["state"])

    @pytest.mark.parametrize(
        ("query", "options", "classes", "why"),
        [
            ("accelerator=webgpu&", '{ accelerator: "wasm" }', 3, "webgpu cannot run all of its operators"),
            ("", '{ accelerator: "wasm" }', 7, "it has 7 outputs for 3 classes"),
        ],
    )
    def test_what_litert_js_compiled_otherwise_is_refused(
        self, shipped: Path, tmp_path: Path, query: str, options: str, classes: int, why: str
    ) -> None:
        """A double of LiteRT.js, which takes WebAssembly where WebGPU cannot run an operator, and only warns."""
        folder = tmp_path / "kit"
        shutil.copytree(shipped / "kit", folder)
        (folder / "node_modules/@litertjs/core/dist").mkdir(parents=True)
        text = DOUBLE.replace("OPTIONS", options).replace("CLASSES", str(classes))
        (folder / "node_modules/@litertjs/core/dist/index.js").write_text(text)
        assert [level.details for level in web.in_chromium(folder, query)] == [(f"model.int8.tflite: {why}",)]

    def test_a_page_takes_releases_that_are_right_in_its_browser(self, shipped: Path, tmp_path: Path) -> None:
        releases = Releases(tmp_path / "public", [tmp_path / "keys"])
        releases.init()
        with Site(tmp_path / "public") as site:
            kit_with = edgekit.ship("fruit", "web", tmp_path / "kit", updates=site.url).folder
            assert f"connect-src 'self' {site.url};" in (kit_with / "index.html").read_text()
            releases.add([shipped / "kit"], "stable")
            right = shutil.copytree(tmp_path / "public", tmp_path / "right")
            wrong = shutil.copytree(shipped / "kit", tmp_path / "wrong")
            scores = wrong / "golden" / "scores.f32"
            scores.write_bytes(np.full(len(scores.read_bytes()) // 4, 9, "<f4").tobytes())
            manifest = json.loads((wrong / "manifest.json").read_text())
            manifest["files"]["golden/scores.f32"] = hashlib.sha256(scores.read_bytes()).hexdigest()
            (wrong / "manifest.json").write_text(json.dumps(manifest))
            releases.add([wrong], "stable")
            site.folders = [right, right, right, tmp_path / "public"]  # the kit has asked, too
            (import_map,) = re.findall(
                r"<script type=\"importmap\">.*?</script>", (kit_with / "index.html").read_text()
            )
            page = f'<!doctype html>{import_map}<script type="module" src="drive.js"></script>'
            (kit_with / "drive.html").write_text(page)
            (kit_with / "drive.js").write_text(UPDATES)
            sent = browser.answer(kit_with, "drive.html", {"/node_modules/@litertjs/": litertjs.folder()})
            site.folders = [right]
            news = 'page.getElementById("news").textContent'
            waiting = DRIVE.replace("const body", f"await until(() => {news});\n  const body")
            (kit_with / "drive.js").write_text(waiting.replace('page.getElementById("state").textContent', news))
            page = '<!doctype html><iframe src="index.html"></iframe><script src="drive.js"></script>'
            (kit_with / "drive.html").write_text(page)
            shown = json.loads(browser.answer(kit_with, "drive.html", {"/node_modules/@litertjs/": litertjs.folder()}))
        assert json.loads(sent) == {
            "first": None,
            "both": ["busy", "updated r2"],
            "second": "r2",
            "answers": 3,
            "third": "current r2",
            "fourth": "refused self-test: tensor to scores",
            "fifth": "r2",
            "sixth": "current r2",
        }
        assert shown["state"] == "a new model is here (r2): load the page again"

    def test_16x8_is_not_shipped(self, shipped: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"cannot run android/model\.16x8\.tflite: 16x8 is for NPUs"):
            edgekit.ship("fruit", "web", tmp_path / "out", artifact="android/model.16x8.tflite")
        assert not (tmp_path / "out").exists()

    def test_the_same_scores_as_litert_here(self, shipped: Path, tmp_path: Path) -> None:
        made = edgekit.ship("fruit", "web", tmp_path / "out", artifact="android/model.fp32.tflite")
        assert {level.state for level in made.levels} == {"verified"}
        assert [level.state for level in ship.check_kit(tmp_path / "out")] == ["verified"] * (1 + len(made.levels))


DOUBLE = """
export const getGlobalLiteRtPromise = () => Promise.resolve();
export const loadAndCompile = () => ({
  options: OPTIONS, isFullyAccelerated: true, delete() {},
  getInputDetails: () => [{ dtype: "uint8", shape: [1, 64, 64, 3] }],
  getOutputDetails: () => [{ dtype: "float32", shape: [1, CLASSES] }],
});
"""
# Hides the orientation: Chromium applies it whatever `imageOrientation` says.
UNTURNED = """const bytes = new Uint8Array(await source.arrayBuffer());
bytes.forEach((_, n) => { if (String.fromCharCode(...bytes.subarray(n, n + 4)) === "Exif") bytes[n] = 0; });
const bitmap = """
UPDATES = """
import { Classifier } from "./classifier.js";
import { Updates } from "./updates.js";
const told = ({ state, release, reason }) => [state, release, reason.slice(0, 27)].filter(Boolean).join(" ");
let body;
try {
  const [updates, tab] = [await Updates.open(), await Updates.open()];
  const first = await updates.start();
  const both = await Promise.all([updates.check(), tab.check()]);
  const release = await tab.start();
  const model = await Classifier.open(undefined, { files: release.files });
  const answers = await model.classify({ data: new Uint8Array(64 * 64 * 3), width: 64, height: 64 });
  await tab.good();
  body = { first, both: both.map((each) => each.state === "busy" ? "busy" : told(each)).sort(), second: release.id,
    answers: answers.length, third: told(await tab.check()), fourth: told(await tab.check()),
    fifth: (await (await Updates.open()).start()).id, sixth: told(await tab.check()) };
} catch (error) {
  body = String(error.stack);
}
await fetch("/results", { method: "POST", body: JSON.stringify(body) });
"""
DRIVE = """
onload = async () => {
  const page = document.querySelector("iframe").contentDocument;
  const until = async (done) => { while (!done()) await new Promise((resolve) => setTimeout(resolve, 50)); };
  const input = page.getElementById("file");
  await until(() => !input.disabled);
  const files = new DataTransfer();
  files.items.add(new File([await (await fetch("golden/alpha.png")).blob()], "alpha.png", { type: "image/png" }));
  input.files = files.files;
  input.dispatchEvent(new Event("change"));
  const list = page.getElementById("answers");
  await until(() => list.children.length === 3);
  const body = {
    answers: [...list.children].map((item) => item.textContent),
    elements: list.querySelectorAll("li *").length,
    state: page.getElementById("state").textContent,
  };
  await fetch("/results", { method: "POST", body: JSON.stringify(body) });
};
"""


def test_a_thousand_classes_stay_out_of_the_program(tmp_path: Path) -> None:
    given = source("uint8")
    labels = tuple(f"{HOSTILE[n % 3]} {n}" for n in range(1000))
    given = replace(given, contract=replace(given.contract, labels=labels))
    (tmp_path / "none").write_bytes(b"model")
    folder = tmp_path / "kit"
    folder.mkdir()
    kit.fill(web.TARGET, replace(given, path=tmp_path / "none"), folder)
    for path in folder.rglob("*"):
        text = path.read_text(encoding="utf-8")
        assert not [label for label in HOSTILE if label in text]
        assert "{{" not in text or path.suffix == ".js"


def test_a_kit_for_browsers_has_no_package_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a kit for web has no package name"):
        edgekit.ship("fruit", "web", tmp_path / "out", package="com.example")
    (tmp_path / "mine").write_text("x")
    with pytest.raises(DataError, match="is not empty"):
        edgekit.ship("fruit", "web", tmp_path)
