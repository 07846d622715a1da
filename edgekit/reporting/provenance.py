"""Origin of the figures: machines, hashes of files, and commands that reproduce them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.environment import Environment
from edgekit.labels import visible
from edgekit.measurements import BROWSERS, BenchmarkResult
from edgekit.records import BASELINES
from edgekit.reporting.material import Material
from edgekit.reporting.tables import Rows, Table, compact

_COLUMNS = ("model", "device", "source", "processor", "threads", "queries", "suite", "governor", "other work %",
            "peak RSS MB", "versions", "measured")  # fmt: skip


# Options of run.json with another name on the command line.
_RENAMED = {"arch": "model"}
_INPUT_NAMES = {"float32": "float"}


@dataclass(frozen=True)
class Provenance:
    """Commands that reproduce one row, and what it was made of.

    Attributes:
        sha256: of the artifact. weights: SHA-256 of the weights.
        unknown: options that were not recorded, in words; empty if there are none.
    """

    artifact: str
    device: str
    commands: tuple[str, ...]
    sha256: str
    weights: str
    versions: str
    measured: str
    unknown: str = ""


def machines(results: Sequence[BenchmarkResult]) -> Table:
    """Return the table of the machines, runtimes and conditions of all results."""
    rows = []
    for r in results:
        e = r.environment
        processor = (e.cpu if e.cpu is not None else "cpu") if e.processor == "cpu" else e.processor or "-"
        busy = e.busy_before
        figures = (
            _or_dash(e.threads), str(len(r.latencies_ns)), _or_dash(e.suite), _or_dash(e.governor),
            f"{100 * busy:.0f}" if busy is not None and busy >= 0 else "-", _or_dash(e.peak_rss_mb),
            f"{e.runtime or ''} {e.version or ''}".strip() or "-", _or_dash(e.measured),
        )  # fmt: skip
        rows.append((r.artifact.name, r.device, r.source, str(processor), *figures))
    return compact(Table("Where it was measured", _COLUMNS, (Rows("", tuple(rows)),), 4))


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def hashes(results: Sequence[BenchmarkResult]) -> Table:
    """Return the table of artifacts with their SHA-256, their calibration and the steps that made them."""
    found = {r.artifact.sha256 + r.artifact.name: r.artifact for r in results}
    rows = []
    for a in found.values():
        d = a.details
        origin = f"calibration {d.get('recipe')} ({d.get('observer')})" if d.get("recipe") else "-"
        steps = ", ".join(map(str, d["steps"])) if isinstance(d.get("steps"), list | tuple) else ""
        if d.get("float_others") and isinstance(share := d.get("float_macs"), float):
            steps += f"; {100 * share:.1f} % of the multiplications in floating point"
        rows.append(
            (a.name, a.sha256, f"{origin}{'; ' if steps else ''}{steps}", str(d.get("calibration_sha256", "-")))
        )
    columns = ("model", "SHA-256", "made by", "calibration SHA-256")
    return Table("Files and their calibration", columns, (Rows("", tuple(rows)),), 4, prose=columns[1:])


def lineage(material: Material) -> list[tuple[str, str]]:
    """Return the data, weights, classes, options and versions of the run as (name, value)."""
    meta, source = material.run.info.plain(), material.run.info.source
    data = meta.get("data")
    lines = [("data", f"{data['root']}, fingerprint {data.get('fingerprint', '?')}" if data else "none")]
    if source is not None:
        lines.append(("imported from", f"{source}, SHA-256 {source.sha256}" if source.sha256 else str(source)))
        lines += [("on import", note) for note in source.notes]
    lines += [
        ("weights", material.run.weights_sha256),
        ("classes", ", ".join(material.labels)),
    ]
    lines += [("decided", str(line)) for line in meta.get("decisions") or ()]
    lines.append(("preprocessing", _pairs(meta["preprocess"])))
    if meta.get("options"):
        lines.append(("options", _pairs(meta["options"])))
    return [*lines, ("versions", _pairs(meta["versions"]))]


def command_rows(material: Material) -> Table:
    """Return the table of the commands that reproduce each result."""
    found = recipes(material.run.argument, material.results)
    rows = [(p.artifact, p.device, " && ".join(p.commands)) for p in found]
    unknown = sorted({p.unknown for p in found if p.unknown})
    columns = ("model", "device", "commands")
    caption = "Commands that reproduce each result; versions and dates are below"
    notes = tuple(f"export options that were {line}" for line in unknown)
    return Table(caption, columns, (Rows("", tuple(rows)),), 3, prose=("commands",), notes=notes, first=20)


def _pairs(value: Any) -> str:
    return ", ".join(f"{name} {v}" for name, v in value.items()) if isinstance(value, dict) else str(value)


def training(run: str, meta: Mapping[str, Any]) -> str:
    """Return the command that trained or imported the run, with every option."""
    if meta.get("source"):
        return _importing(run, meta)
    options = meta.get("options")
    words = ["edgekit", "train", str(meta.get("data", {}).get("root", "DATA")), "--name", run]
    for name, value in options.items() if isinstance(options, Mapping) else ():
        flag = "--" + _RENAMED.get(name, str(name)).replace("_", "-")
        if value is True or value is False:
            words.append(flag if value else f"--no-{flag.removeprefix('--')}")
        elif value is not None:
            words += [flag, str(value)]
    return _command_line(words)


def _importing(run: str, meta: Mapping[str, Any]) -> str:
    source, preprocess = meta["source"], meta["preprocess"]
    if source["kind"].startswith("module in memory"):
        return f"edgekit.import_model(...)  # {visible(str(meta['arch']))}, a module in memory"
    _, _, factory = source["kind"].partition("state dict for ")
    words = ["edgekit", "import", *([factory, "--weights"] if factory else []), source["file"]]
    words += ["--name", run, "--labels", "labels.txt"]
    if source["kind"].startswith("module that was pickled"):
        words.append("--trust")
    if not source.get("program"):
        words += ["--arch", str(meta["arch"])]
    for option in ("entry", "output"):
        if source.get(option):
            words += [f"--{option}", source[option]]
    for key in ("image_size", "resize_size", "resample", "mean", "std", "resize", "background"):
        if key in preprocess:
            value = preprocess[key]
            given = [f"{v:.9g}" for v in value] if isinstance(value, list | tuple) else [str(value)]
            words += [f"--{key.replace('_', '-')}", *given]
    if meta.get("data"):
        words += ["--data", str(meta["data"].get("root", "DATA"))]
    if images := meta.get("calibration_data"):
        words += ["--calibration-data", str(images)]
    return _command_line(words)


def recipes(handle: str, results: Sequence[BenchmarkResult]) -> list[Provenance]:
    """Return the export and benchmark commands of each result; the training command is the same for all."""
    return [
        Provenance(
            artifact=r.artifact.name,
            device=r.device,
            commands=tuple(_command_line(words) for words in (_export(handle, r), _benchmark(handle, r)) if words),
            sha256=r.artifact.sha256,
            weights=r.artifact.parent,
            versions=_versions(r.environment),
            measured=r.environment.measured or "unknown",
            unknown=_unknown(r),
        )
        for r in results
    ]


def _export(handle: str, result: BenchmarkResult) -> list[str]:
    artifact = result.artifact
    if artifact.is_baseline:
        return []
    words = ["edgekit", "export", handle, "--target", artifact.target, "--precision", artifact.precision]
    if recipe := artifact.details.get("recipe"):
        words += ["--recipe", str(recipe)]
    if artifact.runtime == "litert" and artifact.input != "uint8":
        words += ["--input", _INPUT_NAMES.get(artifact.input, artifact.input)]
    output = str(artifact.details.get("output", "float32"))
    if artifact.precision == "int8" and output != "float32":
        words += ["--output", output]
    return words


def _unknown(result: BenchmarkResult) -> str:
    """Return the options of the export that were not recorded although they may matter, in words."""
    artifact = result.artifact
    if artifact.is_baseline or artifact.precision in ("fp32", "fp16"):
        return ""
    options = ["--parity", "--calibration-data"]
    if artifact.details.get("float_layers"):
        options.append("--max-drop (some layers stayed in floating point)")
    return f"not recorded: {', '.join(options)}"


def commands(found: Sequence[Provenance]) -> list[str]:
    """Return each command once, the exports first."""
    lines = list(dict.fromkeys(command for p in found for command in p.commands))
    return sorted(lines, key=lambda line: not line.startswith("edgekit export "))


def _benchmark(handle: str, result: BenchmarkResult) -> list[str]:
    environment = result.environment
    suite = ["--suite", environment.suite] if environment.suite else []
    if result.device.startswith(BROWSERS):
        return ["edgekit", "serve", handle, "--artifact", result.artifact.name, *suite]
    words = ["edgekit", "benchmark", handle, "--device", result.device, *suite]
    name = result.artifact.name.removeprefix(BASELINES)
    if result.artifact.is_baseline and name != "pytorch":  # PyTorch is measured with every other one
        words += ["--baseline", name]
    return [*words, "--threads", str(environment.threads or 1)]


def _command_line(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(visible(word)) for word in words)


def _versions(environment: Environment) -> str:
    versions = {"python": environment.python, str(environment.runtime): environment.version}
    return ", ".join(f"{name} {value}" for name, value in versions.items() if value)
