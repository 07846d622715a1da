"""``edgekit report`` over measurements that lie in a run."""

from __future__ import annotations

import base64
import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import files, runs
from edgekit.bench import results
from edgekit.cli.app import run
from edgekit.evaluation.evaluate import save
from edgekit.measurements import BenchmarkResult
from edgekit.records import Artifact, Preprocess, Sample
from edgekit.reporting import html, pictures
from edgekit.runs import DataInfo, RunInfo
from tests.bench.results import artifact, result
from tests.datasets import indexed
from tests.reporting.evaluations import evaluation
from tests.reporting.made import meta

INT8 = artifact("android/model.int8.tflite", "int8", "litert", sha256="c" * 64)


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> runs.Run:
    """A run with a baseline and one INT8 model, both measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKIT_RUNS_DIR", raising=False)
    made = runs.create_run(tmp_path / "runs", "digits", RunInfo.from_document(meta()))
    (made.path / "checkpoint.pt").touch()
    files.save_json(made.path / "export" / "android" / "manifest.json", {"schema": 1, "artifacts": [INT8]})
    for one in (result(), result(INT8, ms=0.5)):
        results.save(made.path / "bench", one)
    return made


def test_the_newest_run_is_reported_and_its_page_written(
    measured: runs.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report"]) == 0
    output = capsys.readouterr()
    assert "run: digits (the newest)" in output.err
    assert "report: " in output.err
    assert output.out == ""  # the table was printed by edgekit benchmark
    assert run(["report", "--verbose"]) == 0
    output = capsys.readouterr()
    assert [line.split()[0] for line in output.out.splitlines()[1:]] == ["baseline/pytorch", INT8.name]
    assert "android/model.int8.tflite" in (measured.path / "report.html").read_text()


def test_json_on_standard_output_is_nothing_else(measured: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "digits", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["artifact"], r["p50_ms"]) for r in rows] == [("baseline/pytorch", 2.0), (INT8.name, 0.5)]


def test_the_folder_of_runs_can_be_set_in_the_environment(
    measured: runs.Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEKIT_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.chdir("/")
    assert run(["report", "digits"]) == 0


def test_measurements_of_other_weights_are_left_out(measured: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    measured.save(checkpoint_sha256="d" * 64)
    files.save_json(measured.path / "export" / "android" / "manifest.json", {"schema": 1, "artifacts": []})
    assert run(["report"]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert "nothing was measured yet; next: edgekit benchmark digits" in output.err
    assert "Figures" not in (measured.path / "report.html").read_text()


@pytest.mark.parametrize("key", ["arch", "history", "versions"])
def test_a_run_file_without_a_key_is_named_with_it(
    measured: runs.Run, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    files.save_json(measured.path / "run.json", {k: v for k, v in measured.info.plain().items() if k != key})
    assert run(["report"]) == 3
    assert f"run.json is damaged: {key} missing" in capsys.readouterr().err
    assert not (measured.path / "report.html").exists()


def test_a_busy_machine_is_marked_in_the_table_and_below_it(
    measured: runs.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = result(INT8, ms=0.5)
    results.save(
        measured.path / "bench", dataclasses.replace(busy, environment=busy.environment.with_values(busy_before=1))
    )
    assert run(["report", "--verbose"]) == 0
    output = capsys.readouterr()
    assert ["0.500!" in line for line in output.out.splitlines()] == [False, False, True]
    assert "! measured while other programs used the CPU" in output.err


@pytest.mark.parametrize(("harmed", "status"), [("android*int8*.npz", 0), ("baseline*pytorch*.npz", 4)])
def test_a_measurement_that_was_touched_is_left_out_by_name(
    measured: runs.Run, capsys: pytest.CaptureFixture[str], harmed: str, status: int
) -> None:
    (path,) = measured.path.rglob(harmed)
    path.write_bytes(b"")
    assert run(["report"]) == status
    said = " ".join(capsys.readouterr().err.split())
    assert "does not belong to" in said
    assert path.stem in said
    assert (measured.path / "report.html").exists() == (status == 0)


def test_a_folder_in_the_place_of_a_result_is_left_out_by_name(
    measured: runs.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    (measured.path / "bench" / "local" / "a.json").mkdir()
    assert run(["report"]) == 0
    assert "left out: Is a directory: failed while reading runs/digits/bench/local/a.json" in capsys.readouterr().err
    assert "android/model.int8.tflite" in (measured.path / "report.html").read_text()


# A run that was only trained -------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> runs.Run:
    """A run without exports, measurements or an evaluation."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKIT_RUNS_DIR", raising=False)
    made = runs.create_run(tmp_path / "runs", "digits", RunInfo.from_document(meta()))
    (made.path / "checkpoint.pt").touch()
    return made


def test_a_run_that_was_only_trained_has_its_page(trained: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report"]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert "next: edgekit evaluate digits" in output.err
    assert "next: edgekit export digits --target jetson --target android" in output.err
    assert "edgekit evaluate digits" in (trained.path / "report.html").read_text()
    assert {p.name for p in (trained.path / "pictures").iterdir()} == {"learning_curves.svg"}


def test_its_json_is_an_empty_list(trained: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_judged_run_says_what_it_is_worth(trained: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    judged = evaluation()
    save(trained.path, judged)
    assert run(["report"]) == 0
    error = capsys.readouterr().err
    assert f"Test accuracy: {judged.splits['test'].scores.top1:.1f} % of 18 images" in error
    assert "edgekit evaluate" not in error
    page = (trained.path / "report.html").read_text()
    assert "Most confident mistakes" in page
    pictures = {p.name for p in (trained.path / "pictures").iterdir()}
    assert pictures == {"learning_curves.svg", "confusion.svg", "reliability.svg", "mistakes.png"}


def test_an_evaluation_of_other_weights_is_not_shown(trained: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    save(trained.path, evaluation(checkpoint_sha256="d" * 64))
    assert run(["report"]) == 0
    assert "next: edgekit evaluate digits" in capsys.readouterr().err
    assert "Most confident mistakes" not in (trained.path / "report.html").read_text()


def test_the_picture_of_augmented_images_is_in_the_page(trained: runs.Run) -> None:
    content = pictures.samples(np.zeros((2, 9, 9, 3), np.uint8), ["a", "b"])
    (trained.path / "pictures").mkdir()
    (trained.path / "pictures" / "samples.png").write_bytes(content)
    assert run(["report"]) == 0
    assert html.data_url(content) in (trained.path / "report.html").read_text()
    assert (trained.path / "pictures" / "samples.png").read_bytes() == content


def test_a_damaged_evaluation_is_status_3(trained: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    save(trained.path, evaluation())
    (trained.path / "evaluation.npz").write_bytes(b"")
    assert run(["report"]) == 3
    assert "does not belong to evaluation.json" in capsys.readouterr().err
    assert not (trained.path / "report.html").exists()


def test_a_report_needs_no_torch(trained: runs.Run) -> None:
    save(trained.path, evaluation())
    code = "import sys; from edgekit.cli.app import run; assert run(['report']) == 0; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Other formats ----------------------------------------------------------------------------------


def test_a_page_for_standard_output_or_elsewhere_leaves_the_run_alone(
    measured: runs.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run may lie on a drive that cannot be written."""
    for name in ("pictures", "network.json"):
        path = measured.path / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    before = sorted((path, path.stat().st_mtime_ns) for path in measured.path.rglob("*"))
    assert run(["report", "digits", "-o", "-"]) == 0
    assert "<svg" in capsys.readouterr().out
    assert run(["report", "digits", "-o", str(tmp_path / "x.html")]) == 0
    assert sorted((path, path.stat().st_mtime_ns) for path in measured.path.rglob("*")) == before


@pytest.mark.parametrize(
    ("format_", "file", "begins"),
    [
        ("md", "report.md", "# digits"),
        ("json", "report.json", "{"),
        ("csv", "report.csv", "artifact,device,"),
        ("classes", "classes.csv", "artifact_on_device,class,"),
        ("card", "model-card.md", "---"),
        ("html", "report.html", "<!doctype html>"),
    ],
)
def test_each_format_has_its_file_and_can_go_to_standard_output(
    measured: runs.Run, capsys: pytest.CaptureFixture[str], format_: str, file: str, begins: str
) -> None:
    assert run(["report", "digits", "--format", format_]) == 0
    output = capsys.readouterr()
    text = (measured.path / file).read_text()
    assert text.startswith(begins)
    assert f"report: {Path('runs') / 'digits' / file}" in output.err
    assert output.out == ""
    assert run(["report", "digits", "--format", format_, "--output", "-"]) == 0
    assert capsys.readouterr().out.startswith(begins)
    assert run(["report", "digits", "--format", format_, "-o", "mine"]) == 0
    assert Path("mine").read_text().startswith(begins)


def test_an_output_behind_a_link_is_written_and_the_link_stays(measured: runs.Run) -> None:
    Path("target").write_text("old")
    Path("link").symlink_to("target")
    assert run(["report", "digits", "-f", "md", "-o", "link"]) == 0
    assert Path("link").is_symlink()
    assert Path("target").read_text().startswith("# digits")


def test_a_link_among_the_pictures_is_not_followed(
    measured: runs.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text("SECRET-KEY")
    (measured.path / "pictures").mkdir()
    (measured.path / "pictures" / "samples.png").symlink_to(tmp_path / "key")
    assert run(["report", "digits"]) == 0
    assert base64.b64encode(b"SECRET-KEY").decode() not in (measured.path / "report.html").read_text()
    assert "is a symbolic link, and is left out" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["pictures", "export", "bench", "export/android"])
def test_no_file_is_written_through_a_folder_that_is_linked_out_of_the_run(
    measured: runs.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    (tmp_path / "out").mkdir()
    shutil.rmtree(measured.path / folder, ignore_errors=True)
    (measured.path / folder).symlink_to(tmp_path / "out")
    assert run(["report", "digits"]) == 3
    assert f"{folder} is a symbolic link that leads out of the run" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_run_that_is_itself_a_link_is_reported(measured: runs.Run, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    measured.path.rename(tmp_path / "disk" / "digits")
    measured.path.symlink_to(tmp_path / "disk" / "digits")
    assert run(["report", "digits"]) == 0
    assert (tmp_path / "disk" / "digits" / "report.html").is_file()


def test_what_the_author_says_stands_in_the_card(measured: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("about.toml").write_text('title = "Digits: told apart"\nauthor = "A. Uthor"\nlicense = "mit"\n')
    assert run(["report", "-f", "card", "--about", "about.toml", "-o", "-"]) == 0
    card = capsys.readouterr().out
    assert "license: mit" in card
    assert "# Digits: told apart" in card
    assert "A. Uthor" in card


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--format", "pdf"], "unknown format 'pdf'"),
        (["--about", "about.toml"], "--about is for the model card"),
        (["--json", "--output", "-"], "would both write to standard output"),
    ],
)
def test_requests_that_mean_nothing_are_refused(
    measured: runs.Run, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    assert run(["report", *options]) == 2
    assert says in capsys.readouterr().err
    assert not (measured.path / "report.html").exists()


def test_an_about_file_that_is_not_there_is_status_4(measured: runs.Run) -> None:
    assert run(["report", "-f", "card", "--about", "nowhere.toml"]) == 4


# The images whose answer changed ------------------------------------------------------------------


@pytest.fixture
def with_images(measured: runs.Run, tmp_path: Path) -> runs.Run:
    """The measured run, with the 40 test images that its answers are to."""
    from PIL import Image

    samples = []
    for n in range(40):
        path = tmp_path / "data" / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 40), (6 * n, 0, 0)).save(path)
        samples.append(Sample(f"{n}.png", n % 3, "test", files.sha256_file(path)))
    index = indexed(tmp_path / "data", ("cat", "dog", "owl"), tuple(samples))
    files.save_json(measured.path / "data.json", index)
    results.save(measured.path / "bench", result(INT8, ms=0.5, right=27))
    return measured.save(preprocess=Preprocess(32, 32), data=DataInfo(str(index.root), index.fingerprint))


def test_images_whose_answer_changed_are_shown(with_images: runs.Run) -> None:
    assert run(["report"]) == 0
    page = (with_images.path / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 3
    assert "Broke: correct before, wrong now" in page
    assert all(f">{n}.png<" in page for n in (27, 28, 29))


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda run, data: shutil.rmtree(data), "are gone since training: there is no folder"),
        (lambda run, data: (data / "28.png").write_bytes(b"x"), "28.png (changed)"),
        (lambda run, data: (run.path / "data.json").unlink(), "data.json is missing in the run"),
    ],
)
def test_images_that_cannot_be_read_any_more_are_no_failure(
    with_images: runs.Run, tmp_path: Path, harm: Callable[[runs.Run, Path], None], why: str
) -> None:
    harm(with_images, tmp_path / "data")
    assert run(["report"]) == 0
    page = (with_images.path / "report.html").read_text()
    assert "data:image/jpeg" not in page
    assert "cannot be shown: " in page
    assert why in page
    assert str(tmp_path) not in page


def test_errors_of_layers_are_shown_where_they_are_of_these_weights(measured: runs.Run) -> None:
    pair = {"sqnr_db": 30.0, "cosine": 0.9}
    layer = {"name": "features.1.conv", "kind": "Conv2d", "position": 0, "alone": pair, "accumulated": pair,
             "effect": {"logits": pair}}  # fmt: skip
    found = {"schema": 1, "target": "android", "checkpoint_sha256": measured.weights_sha256, "layers": [layer],
             "effect": {"logits": pair}}  # fmt: skip
    files.save_json(measured.path / "quant" / "debug-android.json", found)
    assert run(["report"]) == 0
    assert "features.1.conv" in (measured.path / "report.html").read_text()
    files.save_json(measured.path / "quant" / "debug-android.json", {**found, "checkpoint_sha256": "d" * 64})
    assert run(["report"]) == 0
    assert "features.1.conv" not in (measured.path / "report.html").read_text()


def test_the_gates_of_the_suite_decide(measured: runs.Run) -> None:
    Path("strict.toml").write_text('description = "strict"\n[gates]\nmax_p90_ms = 0.1\n')
    for one in (result(), result(INT8, ms=0.5)):
        environment = one.environment.with_values(suite="strict.toml")
        results.save(measured.path / "bench", dataclasses.replace(one, environment=environment))
    assert run(["report"]) == 0
    page = (measured.path / "report.html").read_text()
    assert "Not decided" in page
    assert "the limit is 0.1 ms" in page


def test_terminal_and_page_decide_by_the_same_gates(measured: runs.Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("strict.toml").write_text('description = "strict"\n[gates]\nmax_p90_ms = 0.1\n')
    for path in measured.path.glob("bench/local/android*"):
        path.unlink()  # it was measured by another suite
    for one in (result(), result(INT8, ms=0.5, device="pi", source="device")):
        environment = one.environment.with_values(suite="strict.toml")
        results.save(measured.path / "bench", dataclasses.replace(one, environment=environment))
    assert run(["report"]) == 0
    assert "pi: nothing to ship. Not decided" in capsys.readouterr().err
    assert "Not decided: every model that is accurate enough" in (measured.path / "report.html").read_text()


def layered(device: str, of: Artifact, ms: float, **more: Any) -> BenchmarkResult:
    plain = result(of, ms=ms, device=device, source="device", **more)
    said = plain.environment.with_values(layers_by="a profiler", layers_run_ms=4.0)
    return dataclasses.replace(plain, environment=said, layers=(("features.0", 2.0), ("features.1", 1.0)))


def test_layers_of_what_is_chosen_and_of_int8_come_first_and_say_of_what_they_are_a_part(measured: runs.Run) -> None:
    fp32 = artifact("android/model.fp32.tflite", "fp32", "litert", sha256="e" * 64)
    fp16 = artifact("android/model.fp16.tflite", "fp16", "litert", sha256="f" * 64)
    artifacts = [INT8, fp32, fp16]
    files.save_json(measured.path / "export" / "android" / "manifest.json", {"schema": 1, "artifacts": artifacts})
    for of, ms in ((fp32, 3.0), (fp16, 1.0), (INT8, 2.0)):
        results.save(measured.path / "bench", layered("pi", of, ms))
    (measured.path / "network.json").write_text("{")
    (measured.path / "quant").mkdir()
    (measured.path / "quant" / "debug-rpi.json").write_text("{")
    assert run(["report", "-f", "json", "-o", "r.json"]) == 0
    said = json.loads(Path("r.json").read_text())
    assert list(said["layers"]) == [f"{of.name} on pi" for of in (fp16, INT8, fp32)]
    assert said["layer_notes"][f"{INT8.name} on pi"] == [
        "times: a profiler, medians; layers add up to 3.000 of 4.000 ms of a profiled run"
    ]
    assert run(["report"]) == 0
    page = (measured.path / "report.html").read_text()
    assert "layers add up to 3.000 of 4.000 ms" in page
    assert "Missing: quantization errors for rpi: " in page
    assert "edgekit quant debug digits --target rpi" in page
    assert "network.json cannot be computed" in page
    assert run(["report", "-f", "md", "-o", "r.md"]) == 0
    text = Path("r.md").read_text()
    text = text[text.index("## Layer by layer") :]
    assert text.index("fp16.tflite on pi") < text.index("int8.tflite on pi")
    assert "| block |" in text
