"""TensorBoard and MLflow receive every epoch's figures; what is missing is said before any work."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.errors import MissingError, UsageError
from edgekit.scores import EpochStats
from edgekit.training import trackers
from tests.training import small

pytestmark = [pytest.mark.xdist_group("trackers"), pytest.mark.usefixtures("rows")]
STATS = [
    EpochStats(1, 1.5, 1.25, 50.0, 100.0, True, 2.0, 40.0, 0.01),
    EpochStats(2, 0.5, 0.75, 75.0, 100.0, True, 2.0, 70.0, 0.005),
]
FIGURES = {"train_loss", "val_loss", "val_top1", "val_macro_f1", "seconds", "images_per_s", "lr"}


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(UsageError, match="'tensorbord'") as caught:
        trackers.check("tensorbord")
    assert "did you mean 'tensorboard'" in caught.value.hint
    assert "mlflow" in caught.value.hint


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow-skinny")])
def test_a_missing_package_is_named_with_the_command_that_brings_it(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for ask in (lambda: trackers.check(name), lambda: trackers.open_tracker(name, tmp_path, small.options())):
        with pytest.raises(MissingError, match=f"--log {name}") as caught:
            ask()
        assert caught.value.hint.startswith("pip install ")
        assert f'"{package}<' in caught.value.hint.replace(">", "<")
    assert list(tmp_path.iterdir()) == []


def test_without_a_tracker_there_is_nothing(tmp_path: Path) -> None:
    trackers.check(None)
    assert trackers.open_tracker(None, tmp_path, small.options()) is None


def log(name: str, folder: Path) -> None:
    tracker = trackers.open_tracker(name, folder, small.options(lr=0.25))
    assert tracker is not None
    for stats in STATS:
        tracker.epoch(stats)
    tracker.close()


def test_tensorboard_reads_every_figure_of_every_epoch(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == FIGURES
    for name in FIGURES:
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(stats.epoch, pytest.approx(getattr(stats, name))) for stats in STATS]
    (text,) = events.Tensors("options/text_summary")
    assert b"lr: 0.25" in text.tensor_proto.string_val[0]


@pytest.fixture
def file_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """MLflow's default kind of store: an SQLite file."""
    mlflow = pytest.importorskip("mlflow")
    before, uri = mlflow.get_tracking_uri(), f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    yield uri
    mlflow.set_tracking_uri(before)


def test_mlflow_has_one_run_with_every_figure_and_the_options(tmp_path: Path, file_store: str) -> None:
    from mlflow.tracking import MlflowClient

    log("mlflow", tmp_path / "fruit-tiny")
    client = MlflowClient(file_store)
    (run,) = client.search_runs(["0"])
    assert (run.info.run_name, run.info.status) == ("fruit-tiny", "FINISHED")
    assert (run.data.params["arch"], run.data.params["lr"]) == ("tiny", "0.25")
    assert set(run.data.metrics) == FIGURES
    for name in FIGURES:
        found = sorted((metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name))
        assert found == [(stats.epoch, getattr(stats, name)) for stats in STATS]
