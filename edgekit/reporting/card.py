"""A model card: Markdown with YAML front matter, as the Hugging Face Hub reads it.

The front matter is that of huggingface/hub-docs, modelcard.md. What edgekit does not know is said to be unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.measurements import Summary
from edgekit.reporting import decide, figures, provenance, trained
from edgekit.reporting.markdown import block, bullets, commands, decided, escape, table
from edgekit.reporting.material import Material
from edgekit.reporting.privacy import public
from edgekit.reporting.tables import SIGNIFICANT, plain

# With fewer images a class's recall says little: its interval is wider than 30 points.
FEW_IMAGES = 30
_MOST_NAMED = 12
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class Said:
    """What the author says of the model; empty is unknown."""

    title: str = ""
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""


def card(material: Material, said: Said | None = None) -> str:
    """The model card of a run."""
    material, said = public(material), said or Said()
    run, meta = material.run, material.run.info.plain()
    parts = [
        f"# {escape(said.title or run.name)}",
        escape(said.description, 10_000) or f"An image classifier, {escape(str(meta['arch']))}, made with edgekit.",
        table(plain("", ("", ""), _facts(material, said), 2)),
        "## Intended use",
        _use(material),
        "## Training data",
        _data(material),
        "## Training",
        "Every option:",
        block(
            provenance.training(run.name, {**meta, "data": {"root": "DATA"}})
        ),  # where the author keeps it is no matter
        "## Evaluation",
        *_evaluation(material),
        "## Quantization",
        _quantization(material),
        "## Limitations",
        bullets(limitations(material)),
        "## How to reproduce",
        *(commands(material) or ["Nothing was measured yet."]),
        "Hashes, machines and versions of every figure: `edgekit report --format md`.",
    ]
    return dump(front_matter(material, said)) + "\n" + "\n\n".join(parts) + "\n"


def front_matter(material: Material, said: Said) -> dict[str, object]:
    """What the Hub reads. Only what is known stands in it; a licence that is none of its identifiers is ``other``."""
    run, meta = material.run, material.run.info.plain()
    head: dict[str, object] = {}
    if said.license:
        known = re.fullmatch(r"[a-z0-9][a-z0-9.-]*", said.license) is not None
        head["license"] = said.license if known else "other"
        head.update({} if known else {"license_name": said.license})
    head["library_name"] = "edgekit"
    head["pipeline_tag"] = "image-classification"
    head["tags"] = ["image-classification", str(meta["arch"]), "quantized", "int8"][: 4 if _rounded(material) else 2]
    results = _results(material)
    if results:
        head["metrics"] = ["accuracy"]
        head["model-index"] = [{"name": said.title or run.name, "results": results}]
    return head


def _results(material: Material) -> list[dict[str, object]]:
    """One result for the network as trained, and one for each measured artifact."""
    data = material.run.info.plain()["data"]
    task = {"type": "image-classification", "name": "Image Classification"}
    dataset = {
        "type": "imagefolder",
        "name": _data_name(data),
        "split": "test",
        "revision": str(data.get("fingerprint")),
    }
    found = []
    if material.evaluation:
        scores = material.evaluation.splits["test"].scores
        values = {
            "accuracy": ("Top-1 accuracy as trained", scores.top1),
            "f1": ("Macro F1 as trained", scores.macro.f1),
        }
        found += [{"type": t, "value": round(float(v) / 100, 6), "name": name} for t, (name, v) in values.items()]
    measured = {
        (row.artifact, round(float(row.top1) / 100, 6)): row.device
        for row in reversed(material.rows)
        if not row.baseline
    }
    for (artifact, value), device in reversed(measured.items()):
        found.append({"type": "accuracy", "value": value, "name": f"Top-1 accuracy of {artifact} on {device}"})
    return [{"task": task, "dataset": dataset, "metrics": found}] if found else []


def _facts(material: Material, said: Said) -> list[tuple[str, str]]:
    meta = material.run.info.plain()
    size = meta["preprocess"].get("image_size")
    return [
        ("architecture", str(meta["arch"])),
        ("input", f"RGB, {size} x {size} px, {meta['preprocess'].get('resample', _UNKNOWN)}"),
        ("classes", str(len(material.labels))),
        ("version", said.version or f"weights {material.run.weights_sha256[:12]}"),
        ("author", said.author or _UNKNOWN),
        ("licence", said.license or _UNKNOWN),
        ("started from", str((meta["options"] or {}).get("weights") or "pretrained weights, see the options below")
         if isinstance(meta["options"], Mapping) else _UNKNOWN),
    ]  # fmt: skip


def _use(material: Material) -> str:
    named = ", ".join(escape(name) for name in material.labels[:_MOST_NAMED])
    more = f" and {len(material.labels) - _MOST_NAMED} more" if len(material.labels) > _MOST_NAMED else ""
    return (
        f"To tell images of these classes apart: {named}{more}. Every image gets one of them: there is no answer for "
        "what is none of them. For what else it is meant, and for what it must not be used, is unknown to edgekit: "
        "the author should say it here."
    )


def _data_name(data: Mapping[str, object]) -> str:
    return str(data.get("root", _UNKNOWN)).rstrip("/").rpartition("/")[2] or _UNKNOWN


def _data(material: Material) -> str:
    data = material.run.info.plain()["data"]
    lines = [f"data set: {_data_name(data)}; its licence and how it was collected are {_UNKNOWN} to edgekit",
             f"fingerprint (SHA-256 over labels and images): {data.get('fingerprint', _UNKNOWN)}"]  # fmt: skip
    if material.counts:
        lines.append("images: " + ", ".join(f"{sum(n)} {split}" for split, n in material.counts.items()))
    else:
        lines.append(f"numbers of images: {_UNKNOWN}, the index of the data is gone")
    lines.append(f"left out because they cannot be decoded: {data.get('skipped', _UNKNOWN)}")
    return bullets(lines)


def _evaluation(material: Material) -> list[str]:
    parts = []
    if material.evaluation:
        parts += [
            bullets(decide.training_verdicts(material.evaluation)),
            table(trained.calibrations(material.evaluation)),
        ]
    else:
        parts.append("As trained, the network was not judged on the test split: `edgekit evaluate`.")
    if material.rows:
        parts += [table(figures.table(material.rows)), *decided(material)]
    return parts


def _quantization(material: Material) -> str:
    rounded = _rounded(material)
    if not rounded:
        return "No quantized model was measured."
    return table(
        provenance.hashes([r for r in material.results if r.artifact.name in {row.artifact for row in rounded}])
    )


def _rounded(material: Material) -> list[Summary]:
    return [row for row in material.rows if row.precision not in ("fp32", "fp16")]


def limitations(material: Material) -> list[str]:
    """What the figures say against the model, and what nobody looked at."""
    lines = []
    for split in ("train", "test"):
        numbers = material.counts.get(split, ())
        few = [material.labels[n] for n, count in enumerate(numbers) if count < FEW_IMAGES]
        if few:
            what = "recall is known only roughly" if split == "test" else "little was learned from"
            lines.append(f"{len(few)} of {len(material.labels)} classes have fewer than {FEW_IMAGES} {split} images "
                         f"({what}): {_named(few)}")  # fmt: skip
    worse = [row for row in material.rows if not row.baseline and row.drop > 0 and row.p_value < SIGNIFICANT]
    lines += [
        f"{row.artifact} on {row.device} loses {row.drop:.1f} points of top-1 (p = {row.p_value:.2g}, McNemar)"
        for row in worse
    ]
    for change in material.changes:
        names = [f"{material.labels[c.label]} ({c.change:+.0f})" for c in change.significant if c.change < 0]
        if names:
            lines.append(f"{change.names[0]}: recall fell significantly (Holm) in {_named(names)}")
    if material.evaluation:
        test = material.evaluation.splits["test"]
        bad = [n for n, c in enumerate(test.scores.classes) if c.recall is not None and c.recall < 50]
        if bad:
            lines.append(
                f"fewer than half of the test images are recognized in {_named([material.labels[n] for n in bad])}"
            )
    if not any(row.source == "device" for row in material.rows):
        lines.append("no latency was measured on a phone or a board: how fast it is there is unknown")
    return [*lines, "other data than its own test split, bias and robustness were not looked at: unknown"]


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (
        f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    )


def dump(head: Mapping[str, object]) -> str:
    """Write the front matter: a YAML mapping in block style between two lines of ``---``."""
    import yaml

    return f"---\n{yaml.safe_dump(dict(head), sort_keys=False, allow_unicode=True, width=10_000)}---\n"
