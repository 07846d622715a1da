"""edgekit: fine-tune an image classifier, quantize it, run it on Jetson boards and phones, and measure it.

The public functions are imported on first use, print nothing, and raise `EdgekitError`. Notes go to
``logging.getLogger("edgekit")``, progress to the callback that is passed as ``progress``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgekit.analysis.difference import Comparison
    from edgekit.analysis.regression import Tolerances, Verdict
    from edgekit.api.benchmark import benchmark
    from edgekit.api.evaluate import evaluate
    from edgekit.api.export import export
    from edgekit.api.history import HistoryRow, check, diff, history, save_reference
    from edgekit.api.import_model import import_model
    from edgekit.api.predict import Prediction, predict
    from edgekit.api.report import report
    from edgekit.api.run import open_run
    from edgekit.api.ship import Shipped, ship
    from edgekit.api.train import resume, train
    from edgekit.errors import DataError, EdgekitError, GateError, MissingError, ParityError, StorageError, UsageError
    from edgekit.measurements import Summary
    from edgekit.progress import Progress
    from edgekit.records import Artifact
    from edgekit.release.publisher import Releases
    from edgekit.runs import Run, RunInfo
    from edgekit.scores import Evaluation

# Public name -> the module that defines it.
_MODULES = {
    "train": "api.train",
    "resume": "api.train",
    "import_model": "api.import_model",
    "evaluate": "api.evaluate",
    "export": "api.export",
    "benchmark": "api.benchmark",
    "report": "api.report",
    "predict": "api.predict",
    "history": "api.history",
    "diff": "api.history",
    "check": "api.history",
    "save_reference": "api.history",
    "ship": "api.ship",
    "open_run": "api.run",
    "Run": "runs",
    "RunInfo": "runs",
    "Evaluation": "scores",
    "Artifact": "records",
    "Summary": "measurements",
    "Prediction": "api.predict",
    "Shipped": "api.ship",
    "Releases": "release.publisher",
    "HistoryRow": "api.history",
    "Comparison": "analysis.difference",
    "Verdict": "analysis.regression",
    "Tolerances": "analysis.regression",
    "Progress": "progress",
    "EdgekitError": "errors",
    "UsageError": "errors",
    "DataError": "errors",
    "MissingError": "errors",
    "StorageError": "errors",
    "GateError": "errors",
    "ParityError": "errors",
}

__all__ = [
    "Artifact",
    "Comparison",
    "DataError",
    "EdgekitError",
    "Evaluation",
    "GateError",
    "HistoryRow",
    "MissingError",
    "ParityError",
    "Prediction",
    "Progress",
    "Releases",
    "Run",
    "RunInfo",
    "Shipped",
    "StorageError",
    "Summary",
    "Tolerances",
    "UsageError",
    "Verdict",
    "benchmark",
    "check",
    "diff",
    "evaluate",
    "export",
    "history",
    "import_model",
    "open_run",
    "predict",
    "report",
    "resume",
    "save_reference",
    "ship",
    "train",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'edgekit' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"edgekit.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
