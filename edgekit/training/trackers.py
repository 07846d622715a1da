"""Logging of every epoch to TensorBoard or MLflow, besides the run directory."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgekit.errors import missing_package, unknown

if TYPE_CHECKING:
    from edgekit.scores import EpochStats
    from edgekit.training.options import TrainOptions


# name -> (required module, extra of edgekit that installs it)
TRACKERS = {"tensorboard": ("tensorboard", "tensorboard"), "mlflow": ("mlflow", "mlflow")}


class Tracker(Protocol):
    """Receiver of the metrics of every epoch."""

    def epoch(self, stats: EpochStats) -> None: ...

    def close(self, finished: bool = True) -> None: ...


def check(name: str | None) -> None:
    """Check that a tracker is known and installed.

    Raises:
        UsageError: the name is unknown. MissingError: the package is not installed.
    """
    if name is None:
        return
    if name not in TRACKERS:
        raise unknown("tracker", name, TRACKERS)
    module, extra = TRACKERS[name]
    if importlib.util.find_spec(module) is None:
        raise missing_package(module, f"--log {name}", extra)


def open_tracker(name: str | None, folder: Path, options: TrainOptions) -> Tracker | None:
    """Return the tracker for one run, or None without a name.

    TensorBoard writes into ``folder/tensorboard``. MLflow uses MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME.
    """
    check(name)
    if name is None:
        return None
    return TensorBoard(folder, options) if name == "tensorboard" else Mlflow(folder, options)


def _figures(stats: EpochStats) -> dict[str, float]:
    return {k: float(v) for k, v in dataclasses.asdict(stats).items() if k not in ("epoch", "best")}


class TensorBoard:
    """Tracker that writes one event file per run."""

    def __init__(self, folder: Path, options: TrainOptions) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("options", "  \n".join(f"{k}: {v}" for k, v in dataclasses.asdict(options).items()))

    def epoch(self, stats: EpochStats) -> None:
        """Write one point per metric."""
        for name, value in _figures(stats).items():
            self._writer.add_scalar(name, value, stats.epoch)
        self._writer.flush()

    def close(self, finished: bool = True) -> None:
        """Write buffered events."""
        self._writer.close()


class Mlflow:
    """Tracker that logs one MLflow run, with the options as its parameters."""

    def __init__(self, folder: Path, options: TrainOptions) -> None:
        import mlflow

        self._mlflow: Any = mlflow
        self._mlflow.start_run(run_name=folder.name)
        self._mlflow.log_params(dataclasses.asdict(options))

    def epoch(self, stats: EpochStats) -> None:
        """Log one point per metric."""
        self._mlflow.log_metrics(_figures(stats), step=stats.epoch)

    def close(self, finished: bool = True) -> None:
        """End the MLflow run."""
        self._mlflow.end_run("FINISHED" if finished else "FAILED")
