"""``edgekit ship``: a kit of a run, whole or not at all, and verified where it lies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import edgekit
from edgekit import files
from edgekit.api import ship
from edgekit.cli.app import run as command
from edgekit.errors import DataError, MissingError, UsageError
from edgekit.models import build, zoo
from edgekit.shipping import golden, kit, targets
from tests import nets
from tests.datasets import write_images
from tests.doubles import engine, plant
from tests.release.site import Site

LABELS = ["apple", "<b>pear", 'a "quoted" $name']


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the run `fruit`, exported for phones, and its kit."""
    folder, before = tmp_path_factory.mktemp("ship"), Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.MODELS, "tiny", nets.TINY)
        patch.chdir(folder)
        torch.manual_seed(0)
        torch.save(build.build("tiny", 3).state_dict(), "tiny.pth")
        write_images(folder / "photos", {"x": 20})
        run = edgekit.import_model(
            "tiny.pth", LABELS, arch="tiny", image_size=64, name="fruit", calibration=folder / "photos"
        )
        edgekit.export(run, ["android", "jetson"], precisions=["int8"], recipe="minmax")
        edgekit.ship("fruit", "python", "kit")
        yield folder
    assert Path.cwd() == before


def test_a_kit_is_complete_and_says_what_was_checked(shipped: Path) -> None:
    folder = shipped / "kit"
    manifest = json.loads((folder / "manifest.json").read_text())
    inside = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert inside == {*manifest["files"], "manifest.json"}
    assert inside >= {
        "classifier.py",
        "model.int8.tflite",
        "README.md",
        "MODEL_CARD.md",
        "LICENSE",
        "NOTICE",
        "golden/golden.tsv",
    }
    assert [level["state"] for level in manifest["checked"]] == ["verified"] * 5
    text = (folder / "README.md").read_text()
    assert "- tensor to scores: verified" in text
    assert "not verified on hardware" in text
    assert len(text.splitlines()) < 60
    assert sum(path.stat().st_size for path in folder.glob("golden/*")) < 200_000


def test_the_program_of_a_kit_runs_alone(shipped: Path, tmp_path: Path) -> None:
    """In another folder, by the lines of its README, without edgekit."""
    code = "from classifier import Classifier; print(Classifier().classify('golden/landscape.png')[0].label)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    shown = subprocess.run(
        [sys.executable, "-c", "import sys; sys.modules['edgekit'] = None; sys.path.insert(0, '.'); " + code],
        cwd=shipped / "kit", env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    lines = [line.split("\t") for line in (shipped / "kit" / "golden" / "golden.tsv").read_text().splitlines()]
    case = next(line for line in lines if line[1:3] == ["file", "landscape.png"])
    assert shown.strip() == LABELS[int(case[7])]


def test_the_same_run_gives_the_same_bytes(shipped: Path) -> None:
    again = edgekit.ship("fruit", "python", "again")
    assert again.artifact == "android/model.int8.tflite"
    assert {level.state for level in again.levels} == {"verified"}
    for path in (shipped / "kit").rglob("*"):
        if path.is_file():
            assert (shipped / "again" / path.relative_to(shipped / "kit")).read_bytes() == path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(targets.TARGETS))
def test_every_kit_is_complete_and_right(
    shipped: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can be verified here is right; class names with quotes and markup are in no program."""
    made = edgekit.ship("fruit", kind, tmp_path / "kit")
    assert "wrong" not in {level.state for level in made.levels}
    assert all(level.state == "verified" or level.details for level in made.levels)
    manifest = json.loads((tmp_path / "kit" / "manifest.json").read_text())
    inside = {path.relative_to(made.folder).as_posix() for path in made.folder.rglob("*") if path.is_file()}
    assert inside == {*manifest["files"], "manifest.json"}
    names = {Path(name).name for name in inside}
    assert names >= {"README.md", "MODEL_CARD.md", "LICENSE", "NOTICE", "labels.txt", "preprocess.json", "golden.tsv"}
    assert len((made.folder / "README.md").read_text().splitlines()) <= 60
    for path in made.folder.rglob("*"):
        if path.is_file() and path.name not in ("labels.txt", "MODEL_CARD.md") and path.suffix != ".tflite":
            assert b"<b>pear" not in path.read_bytes(), path
    assert (next(made.folder.rglob("labels.txt"))).read_text(encoding="utf-8") == "".join(f"{n}\n" for n in LABELS)
    same = replace(targets.TARGETS[kind], check=lambda folder: list(made.levels))
    monkeypatch.setitem(targets.TARGETS, kind, same)
    again = edgekit.ship("fruit", kind, tmp_path / "again")
    for name in inside:
        assert (again.folder / name).read_bytes() == (made.folder / name).read_bytes(), name


def test_the_help_lists_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    command(["ship", "--help"])
    assert f"Kind of kit: {', '.join(sorted(targets.TARGETS))}." in " ".join(capsys.readouterr().out.split())


def test_a_changed_kit_is_found(shipped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "kit"
    edgekit.ship("fruit", "python", folder)
    assert command(["ship", "--check", str(folder)]) == 0
    program = folder / "classifier.py"
    program.write_text(program.read_text().replace("ImageOps.exif_transpose(opened) or opened", "opened"))
    assert command(["ship", "--check", str(folder)]) == 7
    shown = capsys.readouterr().out
    assert "classifier.py: changed or missing" in shown
    assert f"not turned: {golden.DRIFTS['not turned'][0]}" in " ".join(shown.split())
    (folder / "model.int8.tflite").unlink()
    assert [level.state for level in ship.check_kit(folder)] == ["wrong", "wrong"]


def test_an_empty_golden_set_verifies_nothing(shipped: Path, tmp_path: Path) -> None:
    edgekit.ship("fruit", "python", tmp_path / "kit")
    path = tmp_path / "kit" / "golden" / "golden.tsv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not line.startswith(("case", "wrong", "value"))))
    found = ship.check_kit(tmp_path / "kit")
    assert {level.state for level in found} == {"wrong"}
    assert found[1].text == "wrong; ValueError: golden.tsv is damaged: it has no cases"
    empty = {"level": "pixels to tensor", "checked": 0, "problems": [], "cause": "", "skipped": ""}
    assert kit.levels([empty])[0].text == "wrong; the golden set has nothing to check: it is damaged"


def test_what_came_into_the_folder_meanwhile_is_kept(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(folder: Path) -> list[kit.Level]:
        (tmp_path / "kit").mkdir()
        (tmp_path / "kit" / "thesis").write_text("x")
        return []

    monkeypatch.setitem(targets.TARGETS, "python", replace(targets.TARGETS["python"], check=check))
    with pytest.raises(DataError, match="is not empty"):
        edgekit.ship("fruit", "python", tmp_path / "kit")
    assert [path.name for path in tmp_path.iterdir()] == ["kit"]
    assert (tmp_path / "kit" / "thesis").read_text() == "x"


def test_folders_that_cannot_be_replaced_are_refused(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(DataError, match="link is a link"):
        edgekit.ship("fruit", "python", tmp_path / "link")
    monkeypatch.chdir(tmp_path / "real")
    with pytest.raises(DataError, match="is the current folder"):
        edgekit.ship(shipped / "runs" / "fruit", "python", ".")


def test_only_files_of_the_manifest_are_copied_and_damage_has_a_word(shipped: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kit"
    edgekit.ship("fruit", "python", folder)
    (folder / "loop").symlink_to(".")
    (folder / "nowhere").symlink_to("missing")
    os.mkfifo(folder / "pipe")
    assert {level.state for level in ship.check_kit(folder)} == {"verified"}
    with open(folder / "golden" / "golden.tsv", "ab") as file:
        file.write(b"\xff\n")
    assert "UnicodeDecodeError" in ship.check_kit(folder)[1].text
    manifest = json.loads((folder / "manifest.json").read_text())
    for broken in ({"files": {}}, {"files": {"x" * 5000: "0"}}):
        files.save_json(folder / "manifest.json", manifest | broken)
        assert ship.check_kit(folder)[0].state == "wrong"
    del manifest["runtime"]
    files.save_json(folder / "manifest.json", manifest)
    with pytest.raises(DataError):
        ship.check_kit(folder)


def test_labels_of_another_model_are_refused(shipped: Path, tmp_path: Path) -> None:
    edgekit.ship("fruit", "python", tmp_path / "kit")
    labels = tmp_path / "kit" / "labels.txt"
    labels.write_text("".join(reversed(labels.read_text().splitlines(keepends=True))))
    files_, program = ship.check_kit(tmp_path / "kit")
    assert files_.details == ("labels.txt: changed or missing",)
    assert program.state == "wrong"
    assert "labels.txt is not the one that the model was trained with" in program.text


@pytest.mark.parametrize("name", ["../../secret", "/etc/hostname"])
def test_a_manifest_leads_nowhere_else(shipped: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "a" / "kit"
    edgekit.ship("fruit", "python", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = files.sha256_file(tmp_path / "secret")
    files.save_json(folder / "manifest.json", manifest)
    assert ship.check_kit(folder)[0] == kit.Level("files", "wrong", (f"{name}: changed or missing",))


def test_what_cannot_be_shipped_is_refused_and_leaves_nothing(shipped: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="unknown kind of kit 'phone'") as caught:
        edgekit.ship("fruit", "phone", out)
    assert "python" in caught.value.message + caught.value.hint
    with pytest.raises(UsageError, match="unknown artifact"):
        edgekit.ship("fruit", "python", out, artifact="android/model.fp16.tflite")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    with pytest.raises(DataError, match="is not empty"):
        edgekit.ship("fruit", "python", tmp_path / "full")
    assert (tmp_path / "full" / "mine").read_text() == "x"
    with pytest.raises(MissingError, match="is no kit"):
        ship.check_kit(tmp_path)
    assert not out.exists()


def test_a_kit_that_fails_its_own_test_is_not_written(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = kit.Level("pixels to tensor", "wrong", ("bgr", "x"))
    target = replace(targets.TARGETS["python"], check=lambda folder: [level])
    monkeypatch.setitem(targets.TARGETS, "python", target)
    with pytest.raises(DataError, match="fails its own test: pixels to tensor: bgr; x"):
        edgekit.ship("fruit", "python", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_int8_the_error_names_the_export(shipped: Path, tmp_path: Path) -> None:
    edgekit.import_model("tiny.pth", LABELS, arch="tiny", image_size=64, name="bare")
    edgekit.export("bare", "android", precisions=["fp32"])
    with pytest.raises(MissingError, match="bare has no INT8 file for litert or onnxruntime") as caught:
        edgekit.ship("bare", "python", tmp_path / "out")
    assert caught.value.hint.startswith("edgekit export bare --target android")
    made = edgekit.ship("bare", "python", tmp_path / "out", artifact="android/model.fp32.tflite")
    assert {level.state for level in made.levels} == {"verified"}


def test_a_network_of_deep_images_has_no_kit(shipped: Path, tmp_path: Path) -> None:
    given = {"image_size": 64, "resize_size": 64, "pixel_range": [0, 4095]}
    edgekit.import_model("tiny.pth", LABELS, arch="tiny", preprocess=given, name="deep")
    edgekit.export("deep", "android", precisions=["fp32"])
    with pytest.raises(UsageError, match="trained on values of 0 to 4095"):
        edgekit.ship("deep", "python", tmp_path / "out", artifact="android/model.fp32.tflite")


def test_the_command_says_what_is_missing(shipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["ship", "fruit"]) == 2
    assert "edgekit ship --to python --out my-kit" in capsys.readouterr().err
    assert command(["ship", "--check", "kit", "--to", "python"]) == 2
    assert command(["ship", "--check", "kit", "--json"]) == 0
    assert [level["state"] for level in json.loads(capsys.readouterr().out)] == ["verified"] * 6


def test_onnx_files_can_be_shipped_too(shipped: Path, tmp_path: Path) -> None:
    edgekit.export("fruit", "desktop", precisions=["int8"], recipe="minmax")
    made = edgekit.ship("fruit", "python", tmp_path / "out", artifact="desktop/model.int8.onnx")
    assert {level.state for level in made.levels} == {"verified"}
    assert json.loads((tmp_path / "out" / "preprocess.json").read_text())["tensor"]["layout"] == "NCHW"


def test_a_kit_for_tensorrt_builds_its_engine_on_the_board(shipped: Path, tmp_path: Path) -> None:
    """By doubles of TensorRT and of the CUDA runtime, where an engine is its ONNX file."""
    folder = tmp_path / "kit"
    made = edgekit.ship("fruit", "python", folder, artifact="jetson/model.int8.onnx")
    states = {level.level: level.state for level in made.levels}
    assert states == {
        "pixels to tensor": "verified", "picture file to tensor": "verified", "values of the tensor": "verified",
        "tensor to scores": "not verified", "label and probability": "not verified",
    }  # fmt: skip
    assert "the runtime is not installed here" in made.levels[3].text
    (tmp_path / "tools").mkdir()
    board = plant.python(tmp_path / "tools")
    command = [str(board), str(folder / "classifier.py"), "--check", "--json"]
    stamps = set()
    for _ in ("built", "used again"):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert not [level["problems"] or level["skipped"] for level in json.loads(done.stdout) if level["skipped"]]
        assert not [level["problems"] for level in json.loads(done.stdout) if level["problems"]]
        engines = list(folder.glob("*.engine"))
        assert [path.name.split(".")[:3] for path in engines] == [["model", "int8", "trt10"]]
        assert files.sha256_file(folder / "model.int8.onnx")[:12] in engines[0].name
        stamps.add(engines[0].stat().st_mtime_ns)
    assert len(stamps) == 1


@pytest.mark.parametrize("version", ["8.5.2", "10.3.0", "10.13.0", "11.0.0"])
def test_engines_are_built_with_the_flags_of_each_tensorrt(shipped: Path, tmp_path: Path, version: str) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    path = shutil.copy(shipped / "runs/fruit/export/jetson/model.int8.onnx", tmp_path)
    shutil.copy(shipped / "runs/fruit/export/jetson/model.int8.typed.onnx", tmp_path)
    code = f"from pathlib import Path; from engine import built; print(built(Path({path!r}), 'int8'))"
    done = subprocess.run(
        [str(plant.python(tools)), "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(edgekit.__file__).parent / "targets", env={**os.environ, "DOUBLE_TRT_VERSION": version},
    )  # fmt: skip
    about, _ = engine.unpack(Path(done.stdout.strip()).read_bytes())
    assert about["version"] == version
    flags = {"INT8", "FP16"} if version in ("8.5.2", "10.3.0") else set()
    assert set(about["flags"]) - {"TF32"} == flags
    assert ("typed" in Path(done.stdout.strip()).name) == (not flags)


def test_a_kit_takes_releases_that_are_right_on_its_machine(shipped: Path, tmp_path: Path) -> None:
    """From the command line of the publisher to the programs of the kit, through a web server."""
    public, keys, kept = tmp_path / "public", tmp_path / "keys", tmp_path / "state"

    def release(*arguments: str | Path) -> None:
        assert command(["release", *map(str, arguments)]) == 0

    def updates(*commands: str) -> list[dict[str, str]]:
        program = [sys.executable, str(tmp_path / "app" / "updates.py"), "--state", str(kept), *commands]
        said = subprocess.run(program, capture_output=True, text=True, check=True).stdout
        return [json.loads(line) for line in said.splitlines()]

    release("init", public, "--keys", keys, "--no-passphrase")
    with Site(public) as site:
        made = ["ship", "fruit", "--to", "python", "--out", str(tmp_path / "app"), "--updates", site.url]
        assert command(made) == 0
        assert kit.check(targets.TARGETS["python"], tmp_path / "app")[0].state == kit.VERIFIED
        text = (tmp_path / "app" / "README.md").read_text()
        assert f"takes releases of the channel `stable` from {site.url}" in text
        assert "cryptography" in text
        release("add", public, "fruit", "--to", "python", "--channel", "stable", "--keys", keys)
        assert [each["state"] for each in updates("check")] == ["updated"]
        assert not [path for path in site.requests if "model.int8" in path]  # it is the model that the kit has
        assert [each.get("release") for each in updates("start", "good")] == ["r2", None]

        wrong = tmp_path / "wrong"  # another model's scores: what a device with a broken delegate sees
        shutil.copytree(shipped / "kit", wrong)
        scores = wrong / "golden" / "scores.f32"
        scores.write_bytes(bytes(len(scores.read_bytes())))
        manifest = json.loads((wrong / "manifest.json").read_text())
        manifest["files"]["golden/scores.f32"] = files.sha256_file(scores)
        files.save_json(wrong / "manifest.json", manifest)
        release("add", public, wrong, "--channel", "stable", "--keys", keys)
        found, started = updates("check", "start")
        assert (found["state"], started["release"]) == ("refused", "r2")
        assert found["reason"].startswith("self-test: tensor to scores: ")
        without = "import sys; sys.modules['ai_edge_litert'] = sys.modules['tflite_runtime'] = None\n"
        program = tmp_path / "app" / "classifier.py"
        kept_text = program.read_text()
        program.write_text(kept_text.replace("import argparse\n", f"{without}import argparse\n", 1))
        release("add", public, shipped / "kit", "--channel", "stable", "--keys", keys)
        release("recall", public, "r2", "--keys", keys)
        for _ in range(4):  # a test that cannot run says nothing of the release
            found = updates("check")[0]
            assert found["state"] == "unreachable"
            assert "the runtime is not installed here" in found["reason"]
        program.write_text(kept_text)
        found, started = updates("check", "start")
        assert (found["state"], started["release"]) == ("updated", found["release"])
        classify = [sys.executable, str(tmp_path / "app" / "classifier.py"), "--kit", started["folder"]]
        picture = str(shipped / "kit" / "golden" / "landscape.png")
        assert subprocess.run([*classify, picture], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://example.com", "no address of a website"),
        ("https://user:secret@example.com/a", "no address of a website"),
        ('https://example.com/"', "no address of a website"),
        ("http://127.0.0.1:9/models", "cannot be reached"),
    ],
)
def test_an_address_of_releases_that_is_none_is_told(shipped: Path, tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises((UsageError, MissingError), match=message):
        edgekit.ship("fruit", "python", tmp_path / "out", updates=url)
    assert not (tmp_path / "out").exists()


def test_a_root_of_releases_that_is_none_is_told(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "root.json").write_text('{"signatures":[],"signed":{}}')
    with pytest.raises(DataError, match="no root of releases"):
        edgekit.ship("fruit", "python", tmp_path / "out", updates="https://example.com", root=tmp_path / "root.json")
