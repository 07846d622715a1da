"""``edgekit compare``: which run is best, and whether that is more than chance."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import files
from edgekit.api import evaluate
from edgekit.cli import train
from edgekit.cli.app import run
from edgekit.data import dataset
from edgekit.evaluation.evaluate import save
from edgekit.records import Sample
from edgekit.runs import DataInfo, Run, RunInfo, create_run, open_run
from edgekit.scores import Evaluation
from tests.bench.results import artifact
from tests.datasets import indexed
from tests.reporting.evaluations import evaluation, split
from tests.reporting.made import meta

IMAGES = 60
LABELS = ("cat", "dog", "owl")


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKIT_RUNS_DIR", raising=False)
    return tmp_path / "runs"


def judged(right: np.ndarray) -> Evaluation:
    """An evaluation whose answers are right where `right` says."""
    truth = np.arange(len(right)) % 3
    logits = 3 * np.eye(3, dtype=np.float32)[np.where(right, truth, (truth + 1) % 3)]
    scores = split(logits, truth)
    raw = {"val_logits": logits, "test_logits": logits, "val_labels": truth, "test_labels": truth,
           "mistake_pixels": np.zeros((0, 8, 8, 3), np.uint8)}  # fmt: skip
    return evaluation(LABELS, splits={"val": scores, "test": scores}, mistakes=(), raw=raw)


def made(
    name: str, right: np.ndarray | int | None, order: np.ndarray | None = None, data: str = "/data", **more: Any
) -> Run:
    """A run that answered `right` (bool (N,) or the first so many) of its test images; `data` names another set."""
    order = np.arange(IMAGES) if order is None else order
    samples = tuple(
        Sample(f"{n}.png", int(k % 3), "test", files.sha256_text([f"{data} {k}"])) for n, k in enumerate(order)
    )
    index = indexed(Path(data), LABELS, samples)
    about = meta(data={"root": data, "fingerprint": index.fingerprint}, **more)
    run_ = create_run(Path("runs"), name, RunInfo.from_document({"status": "finished", **about}))
    (run_.path / "checkpoint.pt").touch()
    if right is None:
        return run_
    answers = np.arange(IMAGES) < right if isinstance(right, int) else right
    files.save_json(run_.path / "data.json", index)
    whole = judged(answers)
    raw = {k: v[order] if k.startswith("test") else v for k, v in whole.raw.items()}
    save(run_.path, dataclasses.replace(whole, raw=raw))
    return run_


def compared(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[dict[str, Any]], str]:
    capsys.readouterr()
    assert run(["compare", *arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    return found["rows"], found["sentence"]


def test_the_best_comes_first_and_a_clear_lead_is_called_significant(capsys: pytest.CaptureFixture[str]) -> None:
    made("poor", 20), made("good", 55), made("middling", 40)
    rows, sentence = compared(capsys)
    assert [r["run"] for r in rows] == ["good", "middling", "poor"]
    assert rows[0]["p_value"] is None
    assert rows[1]["p_value"] == pytest.approx(2 * 0.5**15)  # 15 images, all one way
    assert sentence.startswith("best: good, 91.7 % of 60 test images; significantly better than the 2 others")


def test_a_lead_that_chance_explains_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    made("one", 40), made("two", 42), made("three", 10)
    rows, sentence = compared(capsys)
    assert [r["run"] for r in rows] == ["two", "one", "three"]
    assert rows[1]["p_value"] == 0.5
    assert "not significantly better than one (largest p: 0.500; McNemar)" in sentence
    assert "three" not in sentence


def test_answers_are_paired_by_the_images_not_by_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    made("one", 45)
    made("same_but_six", 39, np.random.default_rng(0).permutation(IMAGES))
    rows, _ = compared(capsys)
    assert rows[1]["p_value"] == pytest.approx(2 * 0.5**6)  # of other images than these six both say the same


def test_runs_on_other_data_are_marked_and_not_ranked(capsys: pytest.CaptureFixture[str]) -> None:
    made("one", 30), made("two", 40)
    made("perfect", 60, data="/other")
    rows, sentence = compared(capsys)
    assert [(r["run"], r["same_data"]) for r in rows] == [("two", True), ("one", True), ("perfect", False)]
    assert rows[2]["p_value"] is None
    assert "perfect" not in sentence
    assert run(["compare"]) == 0
    output = capsys.readouterr()
    assert "other data" in output.out.splitlines()[3]
    assert "the figures are not comparable" in output.err


def damage_run_json(path: Path) -> None:
    (path / "run.json").write_text('{"schema": 1,')


def damage_entries(path: Path) -> None:
    files.save_json(path / "run.json", {**files.load_json(path / "run.json"), "history": -1})


def damage_evaluation(path: Path) -> None:
    document = files.load_json(path / "evaluation.json")
    files.save_json(path / "evaluation.json", {**document, "temperature": 1.25})


def damage_labels(path: Path) -> None:
    document = files.load_json(path / "data.json")
    document["samples"][0]["label"] = 1
    files.save_json(path / "data.json", document)


def damage_manifest(path: Path) -> None:
    files.save_json(path / "export" / "android" / "manifest.json", {"schema": 1, "artifacts": 3})


def shorten(path: Path) -> None:
    index = dataset.load_index(path / "data.json")
    shorter = indexed(index.root, index.labels, index.samples[:-1])
    files.save_json(path / "data.json", shorter)
    open_run(path.parent, path.name).save(data=DataInfo("/data", shorter.fingerprint))


@pytest.mark.parametrize(
    "harm", [damage_run_json, damage_entries, damage_evaluation, damage_labels, damage_manifest, shorten]
)
def test_a_damaged_run_stops_no_comparison_of_the_others(
    harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    made("one", 30), made("two", 50), made("bad", 60)
    harm(Path("runs/bad"))
    rows, _ = compared(capsys)
    assert [row["run"] for row in rows] == ["two", "one"]
    assert rows[1]["p_value"] < 0.001
    assert run(["compare"]) == 0
    assert "warning: bad is left out: " in capsys.readouterr().err
    assert run(["compare", "bad", "one"]) == 3  # it was asked for
    for other in ("one", "two"):
        harm(Path("runs") / other)
    assert run(["compare"]) == 4


def test_a_run_that_was_not_judged_is_listed_with_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    made("old", None), made("one", 30)
    assert run(["compare"]) == 0
    output = capsys.readouterr()
    assert [line.split()[0] for line in output.out.splitlines()[1:]] == ["one", "old"]
    assert "old was not evaluated on the test split; next: edgekit evaluate old" in output.err
    assert "there is no other run on the same data" in output.err


def test_nothing_judged_is_nothing_to_rank(capsys: pytest.CaptureFixture[str]) -> None:
    made("old", None)
    rows, sentence = compared(capsys)
    assert rows[0]["top1"] is None
    assert sentence.startswith("nothing to rank")


def test_only_the_runs_that_are_named_are_compared_and_each_once(capsys: pytest.CaptureFixture[str]) -> None:
    made("one", 30), made("two", 40), made("three", 50)
    rows, _ = compared(capsys, "one", "two", "one")
    assert [r["run"] for r in rows] == ["two", "one"]


def test_costs_are_read_from_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    epochs = [{**meta()["history"][0], "seconds": s} for s in (9.0, 2.0, 3.0)]
    new = made("new", 30, history=epochs, options={"strategy": "head"}, peak_rss_mb=512,
               parameters={"total": 3_400_000, "trainable": 12_810})  # fmt: skip
    folder = new.path / "export"
    small, large, stale = (
        artifact(f"{t}/model.int8.x", "int8", "litert", parent=p)
        for t, p in (("ios", "b" * 64), ("android", "b" * 64), ("web", "c" * 64))
    )
    for one, size in ((small, 1_500_000), (large, 2_500_000), (stale, 10)):
        files.save_json(folder / one.target / "manifest.json", {"schema": 1, "artifacts": [one]})
        (folder / one.name).write_bytes(bytes(size))
    (row,), _ = compared(capsys)
    assert row["epoch_s"] == 3.0
    assert row["strategy"] == "head"
    assert (row["parameters"], row["parameters_trained"]) == (3_400_000, 12_810)
    assert row["peak_rss_mb"] == 512
    assert row["int8_mb"] == 1.5


def test_what_an_old_run_does_not_know_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    made("old", None, history=[], options={})
    assert run(["compare", "--verbose"]) == 0
    line = capsys.readouterr().out.splitlines()[1].split()
    assert line == ["old", "mobilenet_v2"] + ["-"] * 11


def test_a_run_in_memory_is_what_was_written(capsys: pytest.CaptureFixture[str]) -> None:
    made("one", 30)
    fresh = made("two", 40, options={"strategy": "full"})
    assert fresh == open_run(Path("runs"), "two")
    train.print_comparison([fresh, open_run(Path("runs"), "one")], json=False, verbose=True)
    assert "full" in capsys.readouterr().out


def test_a_narrow_terminal_keeps_what_matters() -> None:
    assert set(train._SHORT) <= set(train._COLUMNS)
    assert len(train._cells(evaluate.RunComparison("r", "m", None, True))) == len(train._COLUMNS)
