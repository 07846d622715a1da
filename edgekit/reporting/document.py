"""The report as one JSON object with everything that the page shows.

``schema`` is the version of the format. Version 1 has
``run`` (name, arch, labels, preprocess, data, weights_sha256, options, versions, decisions, and ``source`` of one that
was imported),
``verdict`` (for each device: device, target, kind, where, chosen, reason, doubts, cautions, rejected),
``figures`` (`Summary`, ``number``, and ``leads``: true on the Pareto front of the device), ``distributions``
(percentiles of the raw latencies; p90, p95 and p99 are early-stopping estimates, null with too few samples),
``programs``, ``changes`` (names, counts, classes, pairs, answers with the paths of images that are known),
``layers``, ``layer_notes`` (source of their times), ``training`` (history), ``test`` (scores without raw values),
``images_per_class``, ``environment`` and ``reproduce``. Percentages are 0 to 100, latencies are in milliseconds, sizes
in megabytes; unknown values are null. There are no absolute paths and no addresses of devices.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from edgekit import __version__, files
from edgekit.measurements import BenchmarkResult, Summary
from edgekit.reporting import provenance
from edgekit.reporting.changes import Change
from edgekit.reporting.charts import ESTIMATED, estimate, row_of, with_latencies
from edgekit.reporting.decide import Decision, pareto_front
from edgekit.reporting.material import Material
from edgekit.reporting.privacy import public

SCHEMA = 1
_RUN_KEYS = ("arch", "labels", "preprocess", "data", "options", "versions", "decisions", "source")
_PERCENTILES = (0, 1, 5, 10, 25, 50, 75, 100)


def as_json(material: Material) -> str:
    """Return the document as text."""
    return json.dumps(_plain(document(material)), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def document(material: Material) -> dict[str, Any]:
    """Return everything that the page shows, as plain values."""
    material = public(material)
    run, meta = material.run, material.run.info.plain()
    return {
        "schema": SCHEMA,
        "edgekit": __version__,
        "made": files.now(),
        "run": {
            "name": run.name,
            "weights_sha256": run.weights_sha256,
            **{key: meta.get(key) for key in _RUN_KEYS},
        },
        "verdict": [_decision(decision) for decision in material.decisions],
        "figures": _figures(material),
        "distributions": [_distribution(result, material) for result in with_latencies(material.results)],
        "programs": [result.table() for result in material.programs],
        "changes": [_change(change, material) for change in material.changes],
        "layers": {name: [dataclasses.asdict(layer) for layer in found] for name, found in material.layers.items()},
        "layer_notes": {name: list(notes) for name, notes in material.layer_notes.items()},
        "training": meta.get("history") or [],
        "test": _test(material),
        "images_per_class": material.counts,
        "environment": [
            {"artifact": r.artifact.name, "device": r.device, "source": r.source, "sha256": r.artifact.sha256,
             "details": r.artifact.details, "size_bytes": r.size_bytes, "environment": r.environment.table()}
            for r in material.results
        ],
        "reproduce": {
            "train": provenance.training(run.name, meta),
            "rows": [dataclasses.asdict(p) for p in provenance.recipes(run.argument, material.results)],
        },
    }  # fmt: skip


def _decision(decision: Decision) -> dict[str, Any]:
    return {
        "device": decision.device,
        "target": decision.target,
        "kind": decision.basis,
        "chosen": decision.chosen.artifact if decision.chosen else None,
        "reason": decision.reason,
        "where": decision.where,
        "doubts": [doubt.text for doubt in decision.doubts],
        "cautions": decision.cautions,
        "rejected": [{"artifact": r.row.artifact, "why": r.reason} for r in decision.rejected],
    }


def _figures(material: Material) -> list[dict[str, Any]]:
    by_device: dict[str, list[int]] = {}
    for n, row in enumerate(material.rows):
        by_device.setdefault(row.device, []).append(n)
    leads = {
        numbers[n]
        for numbers in by_device.values()
        for n in pareto_front([material.rows[number] for number in numbers])
    }
    return [{"number": n + 1, "leads": n in leads, **_figure(row)} for n, row in enumerate(material.rows)]


def _figure(row: Summary) -> dict[str, Any]:
    """Return the figures of a row; a stand-in has no speed-up and no roofline."""
    hidden = ("speedup", "speedup_low", "speedup_high", "speedup_best", "roofline") if row.stand_in else ()
    return {**row.table(), **dict.fromkeys(hidden)}


def _distribution(result: BenchmarkResult, material: Material) -> dict[str, Any]:
    import numpy as np

    times = np.percentile(result.latencies_ns.astype(np.float64) / 1e6, _PERCENTILES)
    found: dict[str, float | None] = {f"p{share:g}_ms": float(time) for share, time in zip(_PERCENTILES, times)}
    row = row_of(result, material.rows)
    found.update({f"p{share}_ms": estimate(row, share) for share in ESTIMATED})
    return {"artifact": result.artifact.name, "device": result.device, "queries": len(result.latencies_ns), **found}


def _change(change: Change, material: Material) -> dict[str, Any]:
    found = dataclasses.asdict(change)
    for entry in found["answers"]:
        picture = material.images.get(entry["image"])
        entry["path"] = picture.path if picture else None
    return found


def _test(material: Material) -> dict[str, Any] | None:
    judged = material.evaluation
    if judged is None:
        return None
    return {
        "temperature": judged.temperature,
        "dropout": dataclasses.asdict(judged.dropout) if judged.dropout else None,
        "scores": dataclasses.asdict(judged.splits["test"]),
        "mistakes": [dataclasses.asdict(mistake) for mistake in judged.mistakes],
    }


def _plain(value: Any) -> Any:
    """Return plain values for JSON, which has neither NaN nor infinity."""
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bool | int | str | None):
        return value
    if hasattr(value, "item"):
        return _plain(value.item())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    return str(value)
