"""``edgekit train``: its options, what a run holds, and what is left behind when training ends early."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from edgekit import files, runs
from edgekit.api import train as api_train
from edgekit.api.train import _Watcher
from edgekit.bench import results
from edgekit.cli.app import run
from edgekit.data import dataset
from edgekit.errors import EdgekitError
from edgekit.models import build, zoo
from edgekit.records import DatasetIndex
from edgekit.runs import RunInfo
from edgekit.scores import EpochStats
from edgekit.training.options import TrainOptions
from edgekit.training.resume import STATE_FILE
from tests import nets
from tests.bench.results import artifact, result
from tests.datasets import write_images
from tests.reporting.made import meta

pytestmark = pytest.mark.xdist_group("cli-train")
Loop = Callable[..., Any]
Output = pytest.CaptureFixture[str]
DECIDED = ["--weights", "none", "--strategy", "full", "--imbalance", "none", "--amp", "off"]
TINY = ["train", "photos", "--model", "tiny", *DECIDED, "--epochs", "3", "--batch-size", "8", "--lr", "0.03"]


def ending_with(error: BaseException, epochs: int) -> Loop:
    """A training loop that ends so after a number of epochs, without having learnt anything."""

    def loop(data: Any, options: Any, folder: Path, watcher: Any, team: Any, resume: bool = False) -> None:
        for epoch in range(1, epochs + 1):
            (folder / "checkpoint.pt").write_text("weights")
            (folder / STATE_FILE).write_text("state")
            watcher.epoch(EpochStats(epoch, 1.0, 1.0, 50.0, 10.0, True, seconds=1.0, val_macro_f1=50.0))
        raise error

    return loop


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with photos, where nothing else is set; the tiny network is in the table."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKIT_RUNS_DIR", raising=False)
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(zoo.MODELS, "tiny", nets.TINY)
    return tmp_path


@pytest.fixture
def train(here: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Loop], int]:
    """Run ``edgekit train`` with another loop."""
    write_images(here / "photos", {"a": 4, "b": 4}, 8)

    def start(loop: Loop) -> int:
        monkeypatch.setattr(api_train, "finetune", loop)
        return run(["train", "photos", "--model", "mobilenet_v2", *DECIDED])

    return start


@pytest.fixture
def photos(here: Path) -> Path:
    return write_images(here / "photos", {"apple": 20, "banana": 20, "cherry": 20})


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (EdgekitError("no"), 5), (OSError(28, "full"), 6)]
)
def test_before_the_first_state_nothing_is_left(
    train: Callable[[Loop], int], here: Path, error: BaseException, status: int, capsys: Output
) -> None:
    assert train(ending_with(error, epochs=0)) == status
    assert list((here / "runs").iterdir()) == []
    assert "--resume" not in capsys.readouterr().err


def report_of(kept: runs.Run) -> str:
    """The page of a run after a measurement of its baseline."""
    results.save(kept.path / "bench", result(artifact(parent=kept.weights_sha256)))
    assert run(["report"]) == 0
    return (kept.path / "report.html").read_text()


@pytest.mark.parametrize(("error", "ended"), [(KeyboardInterrupt(), "interrupted"), (EdgekitError("NaN"), "failed")])
def test_after_an_epoch_the_best_weights_can_be_used_and_reported(
    train: Callable[[Loop], int], here: Path, error: BaseException, ended: str, capsys: Output
) -> None:
    assert train(ending_with(error, epochs=1)) in (130, 5)
    kept = runs.open_run(here / "runs", "photos-mobilenet_v2")
    assert kept.info.status == ended
    assert kept.info.checkpoint_sha256 == files.sha256_file(kept.path / "checkpoint.pt")
    assert len(kept.info.history) == 1
    said = capsys.readouterr().err
    assert "the best weights of 1 finished epoch are in " in said
    assert ("to continue: edgekit train --resume photos-mobilenet_v2" in said) is (ended == "interrupted")
    assert "input 224 px" in report_of(kept)


def test_a_run_that_was_killed_can_be_used_and_reported(train: Callable[[Loop], int], here: Path) -> None:
    train(ending_with(KeyboardInterrupt(), epochs=1))
    kept = runs.open_run(here / "runs", None)
    # A killed process writes nothing at its end.
    started = {k: v for k, v in kept.info.plain().items() if k != "checkpoint_sha256"} | {"status": "training"}
    files.save_json(kept.path / "run.json", started)
    assert "input 224 px" in report_of(runs.open_run(here / "runs", None))


def test_an_image_size_that_cannot_be_is_refused_before_a_run_is_made(photos: Path, here: Path) -> None:
    assert run(["train", "photos", "--image-size", "5"]) == 2
    assert not (here / "runs").exists()


def test_what_is_odd_about_the_data_is_said(train: Callable[[Loop], int], here: Path, capsys: Output) -> None:
    (here / "photos").rename(here / "train")
    (here / "photos").mkdir()
    (here / "train").rename(here / "photos" / "train")
    assert train(ending_with(KeyboardInterrupt(), epochs=0)) == 130
    assert "warning: no val and no test folder" in capsys.readouterr().err


@pytest.mark.slow
def test_a_finished_run_holds_its_history_its_cost_and_its_evaluation(photos: Path, here: Path) -> None:
    assert run([*TINY, "--name", "fruit"]) == 0
    meta = json.loads((here / "runs" / "fruit" / "run.json").read_text())
    assert meta["status"] == "finished"
    assert [entry["epoch"] for entry in meta["history"]] == [1, 2, 3]
    assert all(0 <= entry["val_macro_f1"] <= 100 for entry in meta["history"])
    count = sum(p.numel() for p in build.build("tiny", 3).parameters())
    assert meta["parameters"] == {"total": count, "trainable": count}
    assert 50 < meta["peak_rss_mb"] < 100_000
    assert meta["checkpoint_sha256"] == files.sha256_file(here / "runs" / "fruit" / "checkpoint.pt")
    decided = {name: value for name, value in meta["options"].items() if name not in ("device", "layout")}
    assert "auto" not in decided.values()
    evaluation = json.loads((here / "runs" / "fruit" / "evaluation.json").read_text())
    assert set(evaluation["splits"]) >= {"test"}
    assert not (here / "runs" / "fruit" / STATE_FILE).exists()


@pytest.fixture
def interrupted(photos: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> Path:
    """A run that got Ctrl-C in its second epoch."""
    real = _Watcher.step

    def step(watcher: Any, epoch: int, step: int, steps: int, loss: float) -> None:
        real(watcher, epoch, step, steps, loss)
        if (epoch, step) == (2, 2):
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(_Watcher, "step", step)
        assert run(TINY) == 130
    (here / "said").write_text(capsys.readouterr().err)
    return here / "runs" / "photos-tiny"


def test_ctrl_c_keeps_what_can_be_continued_and_says_how(interrupted: Path, here: Path) -> None:
    assert "to continue: edgekit train --resume photos-tiny" in (here / "said").read_text()
    meta = json.loads((interrupted / "run.json").read_text())
    assert (meta["status"], len(meta["history"])) == ("interrupted", 1)
    assert (interrupted / STATE_FILE).is_file()


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_weights_of_an_undisturbed_one(interrupted: Path, here: Path) -> None:
    assert run(["train", "--resume", "photos-tiny"]) == 0
    resumed = json.loads((interrupted / "run.json").read_text())
    assert run([*TINY, "--name", "undisturbed"]) == 0
    undisturbed = json.loads((here / "runs" / "undisturbed" / "run.json").read_text())
    assert resumed["status"] == "finished"
    assert resumed["checkpoint_sha256"] == undisturbed["checkpoint_sha256"]
    for figure in ("epoch", "train_loss", "val_loss", "val_top1", "best"):
        assert [e[figure] for e in resumed["history"]] == [e[figure] for e in undisturbed["history"]]


@pytest.mark.slow
def test_a_finished_run_cannot_be_resumed(photos: Path, capsys: Output) -> None:
    assert run([*TINY, "--epochs", "1", "--name", "done"]) == 0
    capsys.readouterr()
    assert run(["train", "--resume", "done"]) == 2
    said = capsys.readouterr().err
    assert "the training of done is finished" in said
    assert "hint: edgekit export done" in said


def test_a_run_that_was_not_evaluated_says_so_when_it_is_resumed(tmp_path: Path, capsys: Output) -> None:
    """As after a kill during the evaluation."""
    finished = runs.create_run(Path("runs"), "done", RunInfo.from_document(meta(status="finished")))
    assert run(["train", "--resume", "done"]) == 2
    said = capsys.readouterr().err
    assert "the training of done is finished, but it is not evaluated yet" in said
    assert "hint: edgekit evaluate done\n" in said
    (finished.path / "evaluation.json").touch()
    assert run(["train", "--resume", "done"]) == 2
    assert "hint: edgekit export done --target jetson" in capsys.readouterr().err


def test_ctrl_c_in_the_evaluation_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    from edgekit.api import evaluate

    def interrupted(run: runs.Run) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "evaluate_run", interrupted)
    done = runs.create_run(Path("runs"), "done", RunInfo.from_document(meta(status="finished", val_top1=50.0)))
    with pytest.raises(KeyboardInterrupt):
        api_train._evaluate(done, TrainOptions(arch="tiny"))
    assert "the training is finished; to evaluate it: edgekit evaluate done\n" in capsys.readouterr().err


def test_an_unknown_run_cannot_be_resumed(capsys: Output) -> None:
    assert run(["train", "--resume", "nothing"]) == 4
    assert "there is no run 'nothing'" in capsys.readouterr().err


def test_changed_images_are_noticed_when_resuming(interrupted: Path, photos: Path, capsys: Output) -> None:
    for path in (photos / "apple").glob("*.png"):
        path.write_bytes((photos / "banana" / path.name).read_bytes())
    assert run(["train", "--resume", "photos-tiny"]) == 3
    assert (interrupted / STATE_FILE).is_file()


def test_a_training_goes_on_with_images_that_were_moved(
    interrupted: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    index = dataset.load_index(interrupted / "data.json")
    Path("now").mkdir()
    for number, path in enumerate(sorted(photos.rglob("*.png"))):
        path.rename(Path("now") / f"{number}.png")
    assert run(["train", "--resume", "photos-tiny"]) == 4
    assert "hint: edgekit train DIR --resume photos-tiny, the folder where they are now" in capsys.readouterr().err
    seen: list[DatasetIndex] = []
    monkeypatch.setattr(api_train, "_train_and_evaluate", lambda run, found, *_, **__: seen.append(found))
    assert run(["train", "now", "--resume", "photos-tiny"]) == 0
    (found,) = seen
    assert [(s.label, s.split, s.sha256) for s in found.samples] == [
        (s.label, s.split, s.sha256) for s in index.samples
    ]
    assert all(
        files.sha256_file(found.root / s.path) == s.sha256 for split in ("train", "val") for s in found.split(split)
    )
    Path("now/0.png").unlink()
    Path("now/1.png").unlink()
    Path("now/2.png").unlink()
    Path("now/3.png").unlink()
    assert run(["train", "now", "--resume", "photos-tiny"]) == 4
    assert "images for the training are gone or have changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "named"), [(["--lr", "0.1"], "lr"), (["photos", "--no-flip", "--epochs", "9"], "epochs, flip")]
)
def test_resume_takes_no_other_option_and_names_it(more: list[str], named: str, capsys: Output) -> None:
    assert run(["train", "--resume", "some", *more]) == 2
    assert f"--resume takes all options from the run; remove {named}" in capsys.readouterr().err


def test_several_models_cannot_have_one_name(photos: Path, here: Path, capsys: Output) -> None:
    assert run(["train", "photos", "--models", "resnet18,tiny", "--name", "one"]) == 2
    assert "hint: leave out --name" in capsys.readouterr().err
    assert not (here / "runs").exists()


@pytest.mark.slow
def test_several_models_get_a_run_each_and_are_compared(photos: Path, here: Path, capsys: Output) -> None:
    assert run([*TINY, "--model", "tiny, tiny", "--epochs", "1"]) == 0
    assert sorted(p.name for p in (here / "runs").iterdir()) == ["photos-tiny", "photos-tiny-2"]
    out = capsys.readouterr().out
    assert "photos-tiny" in out
    assert "photos-tiny-2" in out


def test_one_wrong_model_of_several_is_refused_before_any_is_trained(photos: Path, here: Path) -> None:
    assert run(["train", "photos", "--models", "tiny,resnet81", *DECIDED]) == 2
    assert not (here / "runs").exists()


def test_a_name_that_is_taken_is_refused_before_reading_images(photos: Path, here: Path, capsys: Output) -> None:
    (here / "runs" / "fruit").mkdir(parents=True)
    assert run([*TINY, "--name", "fruit"]) == 2
    assert "already exists" in capsys.readouterr().err


def test_train_without_data_says_what_to_type(capsys: Output) -> None:
    assert run(["train"]) == 2
    said = capsys.readouterr().err
    assert "train needs images" in said
    assert "hint: edgekit train DATA" in said


def test_an_unknown_tracker_is_refused_before_any_work(photos: Path, here: Path) -> None:
    assert run([*TINY, "--log", "wandb"]) == 2
    assert not (here / "runs").exists()


def help_text(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["train", "--help"]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_help_lists_every_choice(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    text = help_text(capsys, monkeypatch)
    for field in fields(TrainOptions):
        if known := field.metadata.get("known"):
            assert f"{field.metadata['help']}: {', '.join(known)}." in text


def test_there_is_one_option_for_every_field(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.findall(r"--[a-z][a-z-]+", help_text(capsys, monkeypatch))
    for field in fields(TrainOptions):
        if field.name != "arch":
            assert f"--{field.name.replace('_', '-')}" in found
    assert "--arch" not in found


def test_every_option_reaches_the_record(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each field gets a value that is not its default, and nothing else changes."""
    changed: dict[str, Any] = {
        "strategy": "full", "epochs": 7, "batch_size": 6, "image_size": 64, "weights": "none", "optimizer": "sgd",
        "lr": 0.5, "weight_decay": 0.5, "schedule": "plateau", "warmup": 0.5, "layer_decay": 0.5, "clip": 2.0,
        "unfreeze_every": 2, "freeze_bn": True, "hidden": 9, "dropout": 0.3, "cache_features": False, "views": 3,
        "augment": "randaugment", "flip": False, "mix": "both", "mix_alpha": 1.5, "label_smoothing": 0.3,
        "imbalance": "weights", "focal_gamma": 3.0, "ema": 0.9, "monitor": "loss", "patience": 5, "amp": "bf16",
        "channels_last": False, "seed": 3, "workers": 1, "device": "cpu", "resize": "squash",
        "background": "#102030", "pixel_range": "-5:4095", "layout": "classes", "skip_empty": True,
        "split": "80/10/10", "group_by": "prefix:_", "columns": "path=file,label=kind",
    }  # fmt: skip
    assert set(changed) == {f.name for f in fields(TrainOptions)} - {"arch", "frozen_stages"}
    assert not [f.name for f in fields(TrainOptions) if f.name in changed and changed[f.name] == f.default]
    arguments = []
    for name, value in changed.items():
        option = f"--{name.replace('_', '-')}"
        arguments += [option.replace("--", "--no-", 1) if value is False else option]
        arguments += [] if isinstance(value, bool) else [str(value)]
    seen: list[Any] = []
    monkeypatch.setattr(api_train, "train_all", lambda *given, **place: seen.append(given) or [])
    assert run(["train", "photos", "--model", "resnet18", *arguments]) == 0
    assert seen[0][1] == [TrainOptions("resnet18", **changed)]


@pytest.mark.parametrize(("data", "flip"), [("photos", True), ("digits", False)])
def test_digits_are_not_mirrored_unless_asked(
    photos: Path, monkeypatch: pytest.MonkeyPatch, data: str, flip: bool
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(api_train, "train_all", lambda *given, **place: seen.append(given) or [])
    assert run(["train", data]) == 0
    assert run(["train", data, "--flip"]) == 0
    assert [given[1][0].flip for given in seen] == [flip, True]


def watcher_of(run_: runs.Run | None = None) -> Any:
    return _Watcher(run_, TrainOptions("mobilenet_v2", epochs=3))


def stats_of(epoch: int, top1: float, best: bool) -> EpochStats:
    return EpochStats(epoch, 1.0, 1.0, top1, 10.0, best, seconds=1.0, val_macro_f1=top1)


def test_what_is_said_of_the_kept_weights_is_of_the_last_best_epoch(tmp_path: Path) -> None:
    """With --monitor loss a later epoch may be better, and yet have a lower top-1."""
    run_ = runs.create_run(tmp_path, "run", RunInfo.from_document({"history": []}))
    watcher = watcher_of(run_)
    for epoch, (top1, best) in enumerate([(90.0, True), (80.0, True), (85.0, False)], 1):
        watcher.epoch(stats_of(epoch, top1, best))
    assert runs.open_run(tmp_path, str(run_.path)).info.val_top1 == 80.0


def test_after_a_resume_the_history_is_that_of_the_state(tmp_path: Path) -> None:
    """A kill may come between the state and run.json; and an epoch that was undone is not there twice."""
    run_ = runs.create_run(
        tmp_path,
        "run",
        RunInfo.from_document({"history": [{**dataclasses.asdict(stats_of(n, 1.0, n == 1))} for n in (1, 2)]}),
    )
    watcher = watcher_of(run_)
    watcher.resumed([stats_of(1, 50.0, True), stats_of(2, 40.0, False), stats_of(3, 60.0, True)])
    watcher.epoch(stats_of(4, 55.0, False))
    info = runs.open_run(tmp_path, str(run_.path)).info
    assert [stats.epoch for stats in info.epochs] == [1, 2, 3, 4]
    assert info.val_top1 == 60.0


def test_two_processes_cannot_train_in_one_run(interrupted: Path, capsys: Output) -> None:
    with runs.alone_in(interrupted):
        assert run(["train", "--resume", str(interrupted)]) == 2
    assert "another process is training" in capsys.readouterr().err
    assert (interrupted / STATE_FILE).is_file()
