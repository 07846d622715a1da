"""``edgekit train``: what is left behind when training ends early. The loop itself is tested elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit import store
from edgekit.bench import session
from edgekit.cli.app import run
from edgekit.errors import EdgekitError
from tests.bench.results import artifact, result
from tests.conftest import write_images

Loop = Callable[..., Any]


def ending_with(error: BaseException, epochs: int) -> Loop:
    """A training loop that ends so after a number of epochs, without having learnt anything."""

    def loop(data: Any, options: Any, path: Path, watcher: Any) -> None:
        from edgekit.train import finetune

        for epoch in range(1, epochs + 1):
            path.write_text("weights")
            watcher.epoch(finetune.EpochStats(epoch, 1.0, 1.0, 50.0, 1.0, 10.0, True))
        raise error

    return loop


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Loop], int]:
    """Run ``edgekit train`` with another loop."""
    write_images(tmp_path / "photos", {"a": 4, "b": 4}, 8)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEKIT_RUNS_DIR", raising=False)

    def start(loop: Loop) -> int:
        monkeypatch.setattr("edgekit.train.finetune.finetune", loop)
        return run(["train", "photos", "--model", "mobilenet_v2", "--weights", "none"])

    return start


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt(), 130), (EdgekitError("no"), 5), (OSError(28, "full"), 6)]
)
def test_before_the_first_epoch_nothing_is_left(
    train: Callable[[Loop], int], tmp_path: Path, error: BaseException, status: int
) -> None:
    assert train(ending_with(error, epochs=0)) == status
    assert list((tmp_path / "runs").iterdir()) == []


def report_of(kept: store.Run) -> str:
    """The page of a run after a measurement of its baseline."""
    session.save(kept.path / "bench", result(artifact(parent=kept.weights_sha256)))
    assert run(["report"]) == 0
    return (kept.path / "report.html").read_text()


@pytest.mark.parametrize(("error", "ended"), [(KeyboardInterrupt(), "interrupted"), (EdgekitError("NaN"), "failed")])
def test_after_an_epoch_the_best_weights_can_be_used_and_reported(
    train: Callable[[Loop], int], tmp_path: Path, error: BaseException, ended: str
) -> None:
    assert train(ending_with(error, epochs=1)) in (130, 5)
    kept = store.open_run(tmp_path / "runs", "photos-mobilenet_v2")
    assert kept.meta["status"] == ended
    assert kept.meta["checkpoint_sha256"] == store.sha256_file(kept.path / "checkpoint.pt")
    assert len(kept.meta["history"]) == 1
    assert "input 224 px" in report_of(kept)


def test_a_run_that_was_killed_can_be_used_and_reported(train: Callable[[Loop], int], tmp_path: Path) -> None:
    train(ending_with(KeyboardInterrupt(), epochs=1))
    kept = store.open_run(tmp_path / "runs", None)
    # A killed process writes nothing at its end.
    started = {k: v for k, v in kept.meta.items() if k != "checkpoint_sha256"} | {"status": "training"}
    store.save_json(kept.path / "run.json", started)
    assert "input 224 px" in report_of(store.open_run(tmp_path / "runs", None))


def test_an_image_size_that_cannot_be_is_refused_before_a_run_is_made(
    train: Callable[[Loop], int], tmp_path: Path
) -> None:
    assert run(["train", "photos", "--image-size", "5"]) == 2
    assert not (tmp_path / "runs").exists()


def test_what_is_odd_about_the_data_is_said(
    train: Callable[[Loop], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").rename(tmp_path / "train")
    (tmp_path / "photos").mkdir()
    (tmp_path / "train").rename(tmp_path / "photos" / "train")
    assert train(ending_with(KeyboardInterrupt(), epochs=0)) == 130
    assert "warning: no val and no test folder" in capsys.readouterr().err
