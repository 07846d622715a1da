"""The report as comma-separated values: one row for each artifact and device, or for each class.

Column names end in the unit.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from edgekit.labels import visible
from edgekit.measurements import Summary
from edgekit.reporting.changes import Change
from edgekit.reporting.charts import estimate
from edgekit.reporting.decide import quantile
from edgekit.reporting.material import Material
from edgekit.reporting.privacy import public

# A spreadsheet takes a cell that starts with one of these for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_PERCENTILES = (50, 90, 95, 99)
_COPIED = (
    "artifact", "device", "target", "precision", "ran_in", "processor", "source", "threads", "batch", "baseline",
    "stand_in", "busy", "size_mb", "samples", "no_answer",
)  # fmt: skip
# Field of `Summary`: column.
_RENAMED = {
    "top1": "top1_percent", "top1_low": "top1_low_percent", "top1_high": "top1_high_percent", "drop": "drop_points",
    "drop_low": "drop_low_points", "drop_high": "drop_high_points", "p_value": "drop_p_value",
    "agreement": "agreement_percent", "queries": "queries", "speedup": "speedup_times",
    "speedup_low": "speedup_low_times", "speedup_high": "speedup_high_times",
    "speedup_best": "speedup_best_times", "speedup_doubtful": "speedup_doubtful", "compute_ms": "compute_p50_ms",
    "idle_mw": "idle_mw", "gross_mj": "energy_mj_per_image", "net_mj": "energy_net_mj_per_image",
}  # fmt: skip
CLASSES = (
    "artifact_on_device", "class", "class_index", "images", "baseline_recall_percent", "recall_percent",
    "change_points", "p_value", "p_value_holm", "trained_precision_percent", "trained_recall_percent",
    "trained_f1_percent",
)  # fmt: skip


def figures(material: Material) -> str:
    """Return one row for each artifact and device; figures that were not measured are empty.

    ``p90_ms``, ``p95_ms`` and ``p99_ms`` are early-stopping estimates, which are above the true percentile with 99 %
    confidence; ``_low_ms`` and ``_high_ms`` are the 95 % interval of the percentile. Empty: too few samples.
    """
    material = public(material)
    chosen = {(d.chosen.artifact, d.chosen.device) for d in material.decisions if d.chosen}
    lines = [_line(row, (row.artifact, row.device) in chosen) for row in material.rows]
    return _text(list(lines[0]) if lines else ["artifact"], [list(line.values()) for line in lines])


def _line(row: Summary, chosen: bool) -> dict[str, Any]:
    line: dict[str, Any] = {name: getattr(row, name) for name in _COPIED}
    line["chosen"] = chosen
    line.update({column: getattr(row, name) for name, column in _RENAMED.items()})
    if row.stand_in:  # the latency is that of another runtime
        line.update({column: None for name, column in _RENAMED.items() if name.startswith("speedup")})
    for percent in _PERCENTILES:
        q = quantile(row, percent)
        value = row.p50_ms if percent == 50 else estimate(row, percent)
        line[f"p{percent}_ms"] = value
        line[f"p{percent}_low_ms"], line[f"p{percent}_high_ms"] = (q.low_ms, q.high_ms) if q and value else (None, None)
    found = row.latency
    line["images_per_s"] = found.images_per_s if found else None
    line["latency_flags"] = "; ".join(flag.text for flag in found.flags) if found else ""
    line["throttling"] = "; ".join(row.throttling)
    line["roofline_reached"] = row.roofline.reached if row.roofline and not row.stand_in else None
    return line


def classes(material: Material) -> str:
    """Return one row for each class of each set of answers; for each class if nothing was measured."""
    material = public(material)
    judged = material.evaluation.splits["test"].scores.classes if material.evaluation else ()
    trained = {n: (c.precision, c.recall, c.f1) for n, c in enumerate(judged)}
    rows: list[list[Any]] = []
    for change in material.changes:
        rows += [[*start, *trained.get(start[2], (None,) * 3)] for start in _class_cells(change, material.labels)]
    if not material.changes:
        for n, c in enumerate(judged):
            rows.append(["", material.labels[n], n, c.support, *(None,) * 5, *trained[n]])
    return _text(CLASSES, rows)


def _class_cells(change: Change, labels: Sequence[str]) -> list[list[Any]]:
    names = "; ".join(change.names)
    return [
        [names, labels[c.label], c.label, c.images, c.before, c.after, c.change, c.p_value, c.p_corrected]
        for c in sorted(change.classes, key=lambda c: c.label)
    ]


def _text(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")  # RFC 4180
    writer.writerow(columns)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return out.getvalue()


def _cell(value: object) -> object:
    """Return figures as they are, and text so that no spreadsheet takes it for a formula."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:.10g}"
    text = visible(str(value))
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
