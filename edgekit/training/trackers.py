"""Where the figures of every epoch go besides the run directory: TensorBoard or MLflow."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgekit.errors import missing_package, unknown

if TYPE_CHECKING:
    from edgekit.scores import EpochStats
    from edgekit.training.options import TrainOptions


# name -> (module that it needs, extra of edgekit that brings it)
TRACKERS = {"tensorboard": ("tensorboard", "tensorboard"), "mlflow": ("mlflow", "mlflow")}


class Tracker(Protocol):
    """Receives the figures of every epoch."""

    def epoch(self, stats: EpochStats) -> None: ...

    def close(self, finished: bool = True) -> None: ...


def check(name: str | None) -> None:
    """Refuse a tracker that is unknown or not installed, before any work."""
    if name is None:
        return
    if name not in TRACKERS:
        raise unknown("tracker", name, TRACKERS)
    module, extra = TRACKERS[name]
    if importlib.util.find_spec(module) is None:
        raise missing_package(module, f"--log {name}", extra)


def open_tracker(name: str | None, folder: Path, options: TrainOptions) -> Tracker | None:
    """The tracker for one run; TensorBoard's files lie in ``folder/tensorboard``.

    MLflow follows its own MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME.
    """
    check(name)
    if name is None:
        return None
    return TensorBoard(folder, options) if name == "tensorboard" else Mlflow(folder, options)


def _figures(stats: EpochStats) -> dict[str, float]:
    return {k: float(v) for k, v in dataclasses.asdict(stats).items() if k not in ("epoch", "best")}


class TensorBoard:
    """One event file a run."""

    def __init__(self, folder: Path, options: TrainOptions) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tensorboard"))
        self._writer.add_text("options", "  \n".join(f"{k}: {v}" for k, v in dataclasses.asdict(options).items()))

    def epoch(self, stats: EpochStats) -> None:
        """Write one point for every figure."""
        for name, value in _figures(stats).items():
            self._writer.add_scalar(name, value, stats.epoch)
        self._writer.flush()

    def close(self, finished: bool = True) -> None:
        """Write what is left."""
        self._writer.close()


class Mlflow:
    """One MLflow run, with the options as its parameters."""

    def __init__(self, folder: Path, options: TrainOptions) -> None:
        import mlflow

        self._mlflow: Any = mlflow
        self._mlflow.start_run(run_name=folder.name)
        self._mlflow.log_params(dataclasses.asdict(options))

    def epoch(self, stats: EpochStats) -> None:
        """Log one point for every figure."""
        self._mlflow.log_metrics(_figures(stats), step=stats.epoch)

    def close(self, finished: bool = True) -> None:
        """End MLflow's run."""
        self._mlflow.end_run("FINISHED" if finished else "FAILED")
