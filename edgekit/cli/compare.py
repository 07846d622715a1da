"""``edgekit compare``."""

from __future__ import annotations

import dataclasses
import statistics as middle
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit import progress, runs
from edgekit.cli import console
from edgekit.cli.options import Json, RunsDir
from edgekit.errors import MissingError
from edgekit.runs import list_runs, open_run

if TYPE_CHECKING:
    import numpy as np

    from edgekit.scores import Evaluation


_COLUMNS = (
    "run", "model", "strategy", "top-1 % (95 %)", "p", "precision", "recall", "F1", "NLL", "ECE %", "s/epoch",
    "parameters (trained)", "peak MB", "INT8 MB",
)  # fmt: skip
_NARROW = ("run", "top-1 % (95 %)", "p", "F1", "INT8 MB")


@dataclass(frozen=True)
class Row:
    """One run beside others. Shares in percent, as in `scores`; None where the run does not know.

    `same_data`: its data set is that of most of the runs compared; only these are ranked and tested.
    `p_value` is of McNemar's test, image by image, against the best; None for the best itself.
    """

    run: str
    model: str
    strategy: str | None
    same_data: bool
    samples: int | None = None
    top1: float | None = None
    top1_low: float | None = None
    top1_high: float | None = None
    p_value: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    nll: float | None = None
    ece: float | None = None
    epoch_s: float | None = None
    parameters: int | None = None
    parameters_trained: int | None = None
    peak_rss_mb: float | None = None
    int8_mb: float | None = None


def compare(
    runs: Annotated[list[str] | None, typer.Argument(help="Names or paths. Default: all runs.")] = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Compare several trained runs in one table, the best first.

    Runs are ranked by top-1 on the test split. Those trained on other data are listed, not ranked.
    """
    names = list(dict.fromkeys(runs or [path.name for path in list_runs(runs_dir)]))
    if not names:
        raise MissingError(f"no finished run in {runs_dir}", "edgekit train DATA --model efficientnet_lite0")
    print_comparison([open_run(runs_dir, name) for name in names], json)


def print_comparison(runs: list[runs.Run], json: bool) -> None:
    """The runs as a table or as JSON, and which is best in one sentence."""
    # As they were written: a run that was just trained holds records, not plain values.
    rows, sentence = _rank([open_run(run.path.parent, run.name) for run in runs])
    if json:
        console.as_json({"rows": [dataclasses.asdict(row) for row in rows], "sentence": sentence})
        return
    console.table(_COLUMNS, [_cells(row) for row in rows], right=_COLUMNS[3:], narrow=_NARROW)
    progress.note(
        "p: McNemar, paired, against the first; precision, recall, F1: mean of the classes; NLL, ECE: calibrated"
    )
    if not all(row.same_data for row in rows):
        progress.note("other data: another data set or split; its figures cannot be compared with the others'")
    progress.note(sentence)


def _rank(runs: list[runs.Run]) -> tuple[list[Row], str]:
    """The rows, the best first, and what they say in one sentence."""
    from edgekit.statistics import mcnemar
    from edgekit.train import evaluation

    prints = [run.meta.get("data", {}).get("fingerprint") for run in runs]
    common = Counter(prints).most_common(1)[0][0]  # of equally many, the first named
    judged = [evaluation.load(run.path, run.weights_sha256) for run in runs]
    rows = [_row(run, found, mark == common) for run, found, mark in zip(runs, judged, prints)]
    order = sorted(range(len(rows)), key=lambda n: (not rows[n].same_data, -(rows[n].top1 or -1.0), rows[n].nll or 0.0))
    ranked = [n for n in order if rows[n].same_data and judged[n] is not None]
    for n in order:
        if judged[n] is None:
            progress.note(f"{runs[n].name} was not judged on the test split; edgekit evaluate {runs[n].handle}")
    if ranked:
        best = _right(runs[ranked[0]], judged[ranked[0]])
        for n in ranked[1:]:
            rows[n] = dataclasses.replace(rows[n], p_value=mcnemar(best, _right(runs[n], judged[n])))
    return [rows[n] for n in order], _sentence([rows[n] for n in ranked])


def _row(run: runs.Run, judged: Evaluation | None, same_data: bool) -> Row:
    options, parameters = run.meta.get("options", {}), run.meta.get("parameters") or {}
    seconds = [entry["seconds"] for entry in run.meta.get("history", ()) if "seconds" in entry]
    row = Row(
        run=run.name,
        model=str(run.meta.get("arch", "-")),
        strategy=options.get("strategy"),
        same_data=same_data,
        epoch_s=middle.median(seconds) if seconds else None,
        parameters=parameters.get("total"),
        parameters_trained=parameters.get("trainable"),
        peak_rss_mb=run.meta.get("peak_rss_mb"),
        int8_mb=_int8_mb(run),
    )
    if judged is None:
        return row
    test = judged.splits["test"]
    return dataclasses.replace(
        row,
        samples=test.scores.samples,
        top1=test.scores.top1,
        top1_low=test.scores.top1_low,
        top1_high=test.scores.top1_high,
        precision=test.scores.macro.precision,
        recall=test.scores.macro.recall,
        f1=test.scores.macro.f1,
        nll=test.after.nll,
        ece=test.after.ece,
    )


def _right(run: runs.Run, judged: Evaluation | None) -> np.ndarray:
    """Whether each test image was answered rightly: bool (N,), by the images' content.

    Equal fingerprints mean equal contents; the files may have other names, and so another order.
    """
    import numpy as np

    from edgekit.data import dataset

    assert judged is not None
    samples = dataset.load_index(run.path / "data.json").split("test")
    order = sorted(range(len(samples)), key=lambda n: (samples[n].sha256, samples[n].label))
    return np.asarray(judged.raw["test_logits"].argmax(1) == judged.raw["test_labels"])[order]


def _int8_mb(run: runs.Run) -> float | None:
    """The size of the smallest INT8 file that was exported from the run's weights."""
    from edgekit.cli.artifacts import load_artifacts

    files = [
        run.path / "export" / artifact.name
        for manifest in (run.path / "export").glob("[!.]*/manifest.json")
        for artifact in load_artifacts(manifest.parent)
        if artifact.precision == "int8" and artifact.parent == run.weights_sha256
    ]
    return min((path.stat().st_size / 1e6 for path in files if path.is_file()), default=None)


def _sentence(ranked: list[Row]) -> str:
    """Which run is best, and whether that is more than chance."""
    from edgekit.report.tables import SIGNIFICANT

    if not ranked:
        return "nothing to rank: no run here was judged on the test split"
    best, others = ranked[0], ranked[1:]
    start = f"best: {best.run}, {best.top1:.1f} % of {best.samples} test images"
    if not others:
        return f"{start}; there is no other run on its data to compare it with"
    near = [row for row in others if row.p_value is not None and row.p_value >= SIGNIFICANT]
    if not near:
        most = max(row.p_value or 0.0 for row in others)
        what = "the other" if len(others) == 1 else f"the {len(others)} others"
        return f"{start}; significantly better than {what} (largest p: {_p(most)}; McNemar)"
    named = ", ".join(row.run for row in near[:3]) + (f" and {len(near) - 3} more" if len(near) > 3 else "")
    most = max(row.p_value or 0.0 for row in near)
    return f"{start}; not significantly better than {named} (largest p: {_p(most)}; McNemar)"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _cells(row: Row) -> list[str]:
    from edgekit.report.tables import number

    def count(value: int | None) -> str:
        return "-" if value is None else f"{value / 1e6:.2f} M"

    interval = "-" if row.top1 is None else f"{row.top1:.1f} ({row.top1_low:.1f}-{row.top1_high:.1f})"
    p_value = "other data" if not row.same_data else "" if row.p_value is None else _p(row.p_value)
    figures = [
        *(number(value, 1) for value in (row.precision, row.recall, row.f1)),
        number(row.nll, 3),
        number(row.ece, 1),
        number(row.epoch_s, 1),
        f"{count(row.parameters)} ({count(row.parameters_trained)})" if row.parameters is not None else "-",
        number(row.peak_rss_mb, 0),
        number(row.int8_mb, 1),
    ]
    return [row.run, row.model, str(row.strategy or "-"), interval, p_value, *figures]
