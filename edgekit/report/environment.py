"""Where the figures come from: machines, hashes, commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from edgekit.measurements import BenchmarkResult
from edgekit.report import reproduce
from edgekit.report.material import Material
from edgekit.report.table import Rows, Table, compact

_COLUMNS = ("model", "device", "source", "processor", "threads", "queries", "suite", "governor", "other work %",
            "peak RSS MB", "versions", "measured")  # fmt: skip


def machines(results: Sequence[BenchmarkResult]) -> Table:
    """What each result ran on."""
    rows = []
    for r in results:
        e = r.environment
        processor = e.get("cpu", "cpu") if e.get("processor") == "cpu" else e.get("processor", "-")
        busy = e.get("busy_before")
        figures = (
            str(e.get("threads", "-")), str(len(r.latencies_ns)), str(e.get("suite", "-")), str(e.get("governor", "-")),
            f"{100 * busy:.0f}" if isinstance(busy, int | float) and busy >= 0 else "-", str(e.get("peak_rss_mb", "-")),
            f"{e.get('runtime', '')} {e.get('version', '')}".strip() or "-", str(e.get("measured", "-")),
        )  # fmt: skip
        rows.append((r.artifact.name, r.device, r.source, str(processor), *figures))
    wide = ("processor", "governor", "other work %", "peak RSS MB", "suite")
    return compact(Table("Where it was measured", _COLUMNS, (Rows("", tuple(rows)),), 4, wide))


def hashes(results: Sequence[BenchmarkResult]) -> Table:
    """From every file back to the weights: SHA-256 of the file, of its calibration, and what made it."""
    found = {r.artifact.sha256 + r.artifact.name: r.artifact for r in results}
    rows = []
    for a in found.values():
        d = a.details
        made = f"calibration {d.get('recipe')} ({d.get('observer')})" if d.get("recipe") else "-"
        steps = ", ".join(map(str, d["steps"])) if isinstance(d.get("steps"), list | tuple) else ""
        rows.append((a.name, a.sha256, f"{made}{'; ' if steps else ''}{steps}", str(d.get("calibration_sha256", "-"))))
    columns = ("model", "SHA-256", "made by", "calibration SHA-256")
    return Table("Files and their calibration", columns, (Rows("", tuple(rows)),), 4, (), "", columns[1:])


def lineage(material: Material) -> list[tuple[str, str]]:
    """(what, which) of the run itself."""
    meta = hidden(material.run.meta)
    data = meta["data"]
    lines = [
        ("data", f"{data['root']}, fingerprint {data.get('fingerprint', '?')}"),
        ("weights", material.run.weights_sha256),
        ("classes", ", ".join(material.labels)),
    ]
    lines += [("decided", str(line)) for line in meta.get("decisions") or ()]
    lines += [("preprocessing", _pairs(meta["preprocess"])), ("options", _pairs(meta["options"]))]
    return [*lines, ("versions", _pairs(meta["versions"]))]


def commands(material: Material) -> Table:
    """How to make each number again, a row a result."""
    found = reproduce.recipes(material.run.handle, material.results)
    rows = [(p.artifact, p.device, " && ".join(p.commands)) for p in found]
    unknown = sorted({p.unknown for p in found if p.unknown})
    columns = ("model", "device", "commands")
    caption = "How to make each number again; versions and times of measuring are below"
    notes = tuple(f"options of exports that were {line}" for line in unknown)
    return Table(caption, columns, (Rows("", tuple(rows)),), 3, prose=("commands",), notes=notes, first=20)


def hidden(meta: Mapping[str, Any]) -> dict[str, Any]:
    """run.json without where its data lies: that is no business of whoever reads the report, only the folder's name."""
    data = meta["data"]
    name = PurePath(str(data.get("root", "?"))).name or "?"
    return {**meta, "data": {**data, "root": name}}


def _pairs(value: Any) -> str:
    return ", ".join(f"{name} {v}" for name, v in value.items()) if isinstance(value, dict) else str(value)
