"""Export, benchmark and predict on one real run of a tiny network, through the command line."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit import files, runs
from edgekit.api import artifacts
from edgekit.api.emitters import EMITTERS, Emitted
from edgekit.cli.app import run
from edgekit.data import dataset
from tests.datasets import write_images

pytestmark = [pytest.mark.xdist_group("road"), pytest.mark.filterwarnings("ignore")]
SUITE = "warmup_queries = 1\nwarmup_s = 0\nmin_queries = 8\nmin_s = 0\nmax_s = 60\n"
BOARD = 'family = "desktop"\ntransport = "local"\nruntime = "onnxruntime"\npython = "{}"\n'


@pytest.fixture
def answers(road: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, str]]:
    """Predict with --json: image -> label."""

    def predict(*arguments: object, status: int = 0) -> dict[str, str]:
        capsys.readouterr()
        assert run(["predict", "fruit", *map(str, arguments), "--json"]) == status
        return {a["image"]: a["top"][0]["label"] for a in json.loads(capsys.readouterr().out)}

    return predict


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


# Export --------------------------------------------------------------------------------------


def test_every_export_has_fp32_onnx_in_common(road: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def emit(_intermediates: object, folder: Path, *_: object) -> list[Emitted]:
        (folder / "model.fp32.tflite").write_bytes(b"")
        return [Emitted("model.fp32.tflite")]

    shutil.rmtree(road / "export")
    monkeypatch.setitem(EMITTERS, (".tflite", "fp32"), emit)
    monkeypatch.setattr(artifacts, "_describer", lambda *_: lambda *_: None)
    assert run(["export", "fruit", "-t", "android", "-p", "fp32"]) == 0
    assert {p.name for p in (road / "export" / "common").glob("*.onnx")} == {
        "model.fp32.onnx",
        "model.fp32.dynamic.onnx",
    }


@pytest.mark.parametrize("name", ["model.fp32.onnx", "model.fp32.dynamic.onnx"])
@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["deleted", "emptied"])
def test_a_common_file_that_was_harmed_is_made_again(road: Path, name: str, harm: Callable[[Path], object]) -> None:
    path = road / "export" / "common" / name
    before = files.sha256_file(path)
    harm(path)
    assert run(["export", "fruit", "-t", "desktop", "-p", "fp32"]) == 0
    assert files.sha256_file(path) == before


def test_a_manifest_lists_versions_and_the_hash_of_the_calibration(road: Path) -> None:
    written = manifest(road / "export" / "jetson")
    assert {"torch", "onnx", "onnxruntime", "numpy"} <= written["versions"].keys()
    (table,) = (road / "calibration").glob("*.json")
    hashes = {a["details"].get("calibration_sha256") for a in written["artifacts"] if a["precision"] == "int8"}
    assert hashes == {files.sha256_file(table)}


def test_recipes_of_one_name_do_not_overwrite_each_other(road: Path, tmp_path: Path) -> None:
    for observer in ("minmax", "mse"):
        (tmp_path / observer).mkdir()
        (tmp_path / observer / "mine.toml").write_text(f'observer = "{observer}"\n')
        assert run(["export", "fruit", "-t", "desktop", "-p", "int8", "--recipe", f"{observer}/mine.toml"]) == 0
    tables = [json.loads(path.read_text()) for path in (road / "calibration").glob("mine-*.json")]
    assert sorted(t["made_by"]["recipe"]["observer"] for t in tables) == ["minmax", "mse"]


# Benchmark -----------------------------------------------------------------------------------


def benchmark(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """Benchmark on a board that is this Python; returns the rows."""
    (folder / "short.toml").write_text(SUITE)
    (folder / "board.toml").write_text(BOARD.format(sys.executable))
    capsys.readouterr()
    assert run(["benchmark", "fruit", "--suite", "short.toml", "-d", "board.toml", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_threads_reach_the_inserted_baseline_and_equal_files_both_get_a_row(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bomb = road / "export" / "common" / "baseline.pt2"
    bomb.write_bytes(b"no program")  # where former versions read it from
    sidecar = {"parent": runs.open_run(tmp_path / "runs", "fruit").weights_sha256, "sha256": files.sha256_file(bomb)}
    files.save_json(bomb.with_name("baseline.pt2.json"), sidecar)
    base, *rows = benchmark(tmp_path, capsys, "--threads", "2")
    assert (base["artifact"], base["device"], base["baseline"]) == ("baseline/pytorch", "local", True)
    assert {row["threads"] for row in (base, *rows)} == {2}
    assert all((row["speedup"] is None) == row["stand_in"] for row in rows)
    assert files.sha256_file(road / "export/jetson/model.fp32.onnx") == files.sha256_file(
        road / "export/desktop/model.fp32.onnx"
    )
    assert {"jetson/model.fp32.onnx", "desktop/model.fp32.onnx"} < {row["artifact"] for row in rows}
    for name in ("desktop/model.fp32.onnx", "jetson/model.int8.onnx"):
        every_layer_took_time(name, capsys)


def every_layer_took_time(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The profile of ONNX Runtime names the Conv and the Gemm of the network."""
    assert run(["layers", "fruit", "--all", "--json", "--artifact", name]) == 0
    rows = json.loads(capsys.readouterr().out)["layers"]
    weighted = [row for row in rows if row["macs"]]
    assert len(weighted) == 2
    assert all(row["ms"] is not None for row in weighted)


def test_without_images_the_latency_is_measured_and_a_known_accuracy_stays(
    road: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = dataset.load_index(road / "data.json")
    files.save_json(road / "data.json", dataclasses.replace(index, root=Path("/nowhere")))
    only = ("--baseline", "pytorch")
    first = benchmark(tmp_path, capsys, *only)
    assert {row["artifact"] for row in first} > {"baseline/pytorch", "desktop/model.fp32.onnx"}
    assert all(row["p50_ms"] > 0 and "top1" not in row for row in first)
    assert run(["report", "-f", "md", "-o", "-"]) == 0
    assert "measurements of latency alone" in capsys.readouterr().err
    assert run(["history", "fruit", "--json"]) == 0
    capsys.readouterr()
    whole = benchmark(tmp_path, capsys, *only, "--data", str(made / "photos"))
    assert {row["samples"] for row in whole} == {9}
    again = benchmark(tmp_path, capsys, *only)  # the same answers, other times
    assert [row["top1"] for row in again] == [row["top1"] for row in whole]
    assert [row["artifact"] for row in again] == [row["artifact"] for row in whole]
    assert [row["p50_ms"] for row in again] != [row["p50_ms"] for row in whole]
    shutil.rmtree(road / "bench")
    (tmp_path / "gated.toml").write_text(SUITE + "[gates]\nmax_drop = 0\n")
    assert run(["benchmark", "fruit", "--suite", "gated.toml", *only]) == 7
    said = capsys.readouterr()
    assert "without test images there is no accuracy to judge" in said.err
    assert "p50 ms" in said.out


def test_gates_are_judged_on_what_was_measured_and_standard_output_stays_clean(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short.toml").write_text(SUITE + "[gates]\nmax_p90_ms = 1e-6\nmax_drop = 0\n")
    (tmp_path / "board.toml").write_text(BOARD.format(sys.executable))
    arguments = ["benchmark", "fruit", "--suite", "short.toml", "-d", "board.toml", "--json", "--min-speedup", "1e6"]
    capsys.readouterr()
    assert run([*arguments, "--max-drop", "100"]) == 7  # over the suite's own
    output = capsys.readouterr()
    rows = json.loads(output.out)
    assert len(rows) > 1
    assert all(row["drop_low"] <= row["drop"] <= row["drop_high"] for row in rows)
    assert all(len(row["latency"]["quantiles"]) == 4 for row in rows)
    assert "gate broken: desktop/model.int8.onnx on board: the speed-up is" in output.err
    assert "max-p90-ms, --min-speedup); all results were saved" in output.err
    assert "baseline/pytorch on" not in output.err


# Predict -------------------------------------------------------------------------------------

TYPED = "jetson/model.int8.typed.onnx"


@pytest.mark.parametrize("name", ["desktop/model.fp32.onnx", "jetson/model.int8.onnx", TYPED])
def test_an_artifact_answers_like_the_checkpoint_by_name_and_by_the_path_that_export_printed(
    made: Path, road: Path, answers: Callable[..., dict[str, str]], name: str
) -> None:
    pictures = sorted((made / "photos").glob("*/000.png"))
    expected = answers(*pictures)
    assert len(set(expected.values())) > 1
    assert answers(*pictures, "--artifact", name) == expected
    assert answers(*pictures, "--artifact", Path("runs/fruit/export") / name) == expected


def test_a_path_into_another_run_is_not_taken_for_this_one_s(
    made: Path, road: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = shutil.copytree(road, road.with_name("other")) / "export" / "jetson" / "model.fp32.onnx"
    assert run(["predict", "fruit", str(made / "photos/apple/000.png"), "--artifact", str(other)]) == 2
    assert "known: desktop/model.fp32.onnx" in capsys.readouterr().err


def test_predict_refuses_a_file_that_changed_since_export(
    made: Path, road: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(road / "export" / "desktop" / "model.fp32.onnx", "ab") as file:
        file.write(b"\0")
    picture = str(made / "photos/apple/000.png")
    assert run(["predict", "fruit", picture, "--artifact", "desktop/model.fp32.onnx"]) == 6
    output = capsys.readouterr()
    assert "has changed since export" in output.err
    assert output.out == ""


@pytest.mark.parametrize(("bad", "status"), [(["none.png"], 4), (["text.png"], 3), (["none.png", "text.png"], 3)])
def test_good_images_are_answered_when_others_are_bad(
    made: Path, answers: Callable[..., dict[str, str]], tmp_path: Path, bad: list[str], status: int
) -> None:
    (tmp_path / "text.png").write_text("text")
    good = made / "photos" / "apple" / "000.png"
    assert list(answers(*bad, good, status=status)) == [str(good)]


def test_every_bad_image_is_named(road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.png").write_text("text")
    assert run(["predict", "fruit", "none.png", "text.png"]) == 3
    shown = capsys.readouterr().err
    assert all(text in shown for text in ("2 images", "none.png: no such", "text.png: cannot"))


def test_an_image_in_the_place_of_the_run_is_for_the_newest_run(
    made: Path, road: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = str(made / "photos" / "apple" / "000.png")
    assert run(["predict", picture, picture]) == 0  # of the newest run
    said = capsys.readouterr()
    assert said.out.count(picture) == 2
    assert "run: fruit" in said.err
    assert run(["predict", "fruit"]) == 2
    assert "hint: edgekit predict fruit IMAGE" in capsys.readouterr().err


# Train ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "status"),
    [("--epochs 0", 2), ("--batch-size 1", 2), ("--lr 0", 2), ("--augment heavy", 2), ("--device tpu", 2),
     ("--model vgg", 2), ("--image-size 5", 2), ("--weights none.pt", 4), ("--name fruit", 2), ("--name a/b", 2)],
)  # fmt: skip
def test_options_are_refused_before_any_image_is_read(
    road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, status: int
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("an image was read")

    write_images(tmp_path / "d", {"a": 4, "b": 4}, 8)
    monkeypatch.setattr("edgekit.data.dataset.examine", never)
    with pytest.raises(AssertionError, match="was read"):
        run(["train", "d", "--weights", "none"])
    assert run(["train", "d", "--weights", "none", *option.split()]) == status
