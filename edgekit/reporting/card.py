"""A model card: Markdown with YAML front matter for the Hugging Face Hub.

The keys of the front matter are those of huggingface/hub-docs, modelcard.md. What edgekit cannot know is stated as
unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekit.measurements import Summary
from edgekit.records import FLOAT
from edgekit.reporting import decide, figures, provenance, trained, usage
from edgekit.reporting.markdown import block, bullets, code, commands, decision_blocks, escape, table
from edgekit.reporting.material import Material
from edgekit.reporting.privacy import public
from edgekit.reporting.tables import plain

# With fewer images the interval of a class's recall is wider than 30 points.
FEW_IMAGES = 30
_MOST_NAMED = 12
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class About:
    """Statements of the author about the model; empty means unknown."""

    title: str = ""
    description: str = ""
    version: str = ""
    author: str = ""
    license: str = ""


def card(material: Material, about: About | None = None) -> str:
    """Return the model card of a run."""
    material, about = public(material), about or About()
    run, meta = material.run, material.run.info.plain()
    parts = [
        f"# {escape(about.title or run.name)}",
        escape(about.description, 10_000) or f"Image classifier ({escape(str(meta['arch']))}), made with edgekit.",
        table(plain("", ("", ""), _facts(material, about), 2)),
        "## How to use",
        *_how_to_use(material),
        "## Intended use",
        _intended_use(material),
        *_training(material),
        "## Evaluation",
        *_evaluation(material),
        "## Quantization",
        _quantization(material),
        "## Limitations",
        bullets(limitations(material)),
        "## How to reproduce",
        *(commands(material) or ["There are no measurements yet."]),
        "For hashes, machines and versions of every figure: `edgekit report --format md`.",
    ]
    return dump(front_matter(material, about)) + "\n" + "\n\n".join(parts) + "\n"


def dump(head: Mapping[str, object]) -> str:
    """Return front matter: the mapping as YAML between two lines of ``---``."""
    import yaml

    return f"---\n{yaml.safe_dump(dict(head), sort_keys=False, allow_unicode=True, width=10_000)}---\n"


def front_matter(material: Material, about: About) -> dict[str, object]:
    """Return the metadata for the Hub, without what is unknown; a licence that the Hub does not know is ``other``."""
    run, meta = material.run, material.run.info.plain()
    head: dict[str, object] = {}
    if re.fullmatch(r"[a-z0-9][a-z0-9.-]*", about.license):
        head["license"] = about.license
    elif about.license:
        head.update({"license": "other", "license_name": about.license})
    head["library_name"] = "edgekit"
    head["pipeline_tag"] = "image-classification"
    architecture = str(meta["arch"]).split("/")  # "timm/resnet18" gives two tags
    head["tags"] = ["image-classification", *architecture, *(["quantized", "int8"] if _quantized(material) else [])]
    results = _results(material)
    if results:
        head["metrics"] = ["accuracy"]
        head["model-index"] = [{"name": about.title or run.name, "results": results}]
    return head


def _results(material: Material) -> list[dict[str, object]]:
    """Return the entry of the model index: metrics of the trained network and of each measured artifact."""
    data = material.run.info.plain().get("data") or {}
    task = {"type": "image-classification", "name": "Image Classification"}
    dataset = {
        "type": "imagefolder",
        "name": _data_name(data),
        "split": "test",
        "revision": str(data.get("fingerprint")),
    }
    metrics = []
    if material.evaluation:
        scores = material.evaluation.splits["test"].scores
        metrics = [
            {"type": "accuracy", "value": _share(scores.top1), "name": "Top-1 accuracy as trained"},
            {"type": "f1", "value": _share(scores.macro.f1), "name": "Macro F1 as trained"},
        ]
    # Equal accuracies of an artifact are one metric, of the first device.
    devices: dict[tuple[str, float], str] = {}
    for row in material.rows:
        if not row.baseline and row.top1 is not None:
            devices.setdefault((row.artifact, _share(row.top1)), row.device)
    for (artifact, value), device in devices.items():
        metrics.append({"type": "accuracy", "value": value, "name": f"Top-1 accuracy of {artifact} on {device}"})
    return [{"task": task, "dataset": dataset, "metrics": metrics}] if metrics and data else []


def _share(percent: float) -> float:
    return round(float(percent) / 100, 6)


def _facts(material: Material, about: About) -> list[tuple[str, str]]:
    meta = material.run.info.plain()
    size, resize = meta["preprocess"].get("image_size"), meta["preprocess"].get("resize", "crop")
    return [
        ("architecture", str(meta["arch"])),
        (
            "input",
            f"RGB, {size} x {size} px, {meta['preprocess'].get('resample', _UNKNOWN)}"
            + (f", {resize}" if resize != "crop" else ""),
        ),
        ("classes", str(len(material.labels))),
        ("version", about.version or f"weights {material.run.weights_sha256[:12]}"),
        ("author", about.author or _UNKNOWN),
        ("licence", about.license or _UNKNOWN),
        ("weights", f"imported: {material.run.info.source}") if material.run.info.source else
        ("initial weights", str((meta["options"] or {}).get("weights") or "pretrained, see the options below")
         if isinstance(meta["options"], Mapping) else _UNKNOWN),
    ]  # fmt: skip


def _intended_use(material: Material) -> str:
    return (
        f"Classification of images into these classes: {escape(_listed(material.labels), 2000)}. Every image gets one "
        "of them; there is no answer for an image that belongs to none. Other intended uses, and uses that are out of "
        "scope, are unknown to edgekit: the author should describe them here."
    )


def _how_to_use(material: Material) -> list[str]:
    preprocess = material.run.info.preprocess
    assert preprocess is not None  # `Material` has checked it
    made = {result.artifact.name: result.artifact for result in material.results}
    programs = {}
    for name in usage.shipped(material.decisions, material.rows, material.gates):
        if name in made and (text := usage.program(made[name], preprocess)):
            programs[name] = text
    steps = "\n".join(f"{n}. {escape(step, 2000)}" for n, step in enumerate(preprocess.steps(), 1))
    parts = ["From a file to the model's input (inputs of bytes take the pixels before the last step):", steps]
    if not programs:
        return [*parts, f"No exported file was measured yet; run `edgekit benchmark {code(material.run.handle)}`."]
    parts.append("Put `photo.jpg` and the program beside the model and its labels.txt.")
    if preprocess.pixel_range is not None:
        parts.append("The programs are for files of 8 bits a channel.")
    for name, text in programs.items():
        runtime = "onnxruntime" if name.endswith(".onnx") else "ai-edge-litert"
        needs = f"`pip install numpy pillow {runtime}`"
        on_board = " On a Jetson, `build.sh` makes a TensorRT engine of it." if name.startswith("jetson") else ""
        parts += [f"**{escape(name)}**: {needs}.{on_board}", block(text, "python")]
    return parts


def _data_name(data: Mapping[str, object]) -> str:
    return str(data.get("root", _UNKNOWN)).rstrip("/").rpartition("/")[2] or _UNKNOWN


def _training(material: Material) -> list[str]:
    """Return the sections about the training; of an imported network, it is known where the weights came from."""
    run, meta = material.run, material.run.info.plain()
    command = block(provenance.training(run.name, {**meta, "data": {"root": "DATA"}}))
    if run.info.source is None:
        training = ["## Training", "The command with every option:", command]
        return ["## Training data", _training_data(material), *training]
    origin = [f"{run.info.source}", *run.info.source.notes]
    if run.info.source.sha256:
        origin.insert(1, f"SHA-256 of the file: {run.info.source.sha256}")
    parts = ["## Origin", "The network was imported; its training and training data are unknown to edgekit.",
             bullets(origin), command]  # fmt: skip
    return [*parts, "## Evaluation data", _training_data(material)] if run.info.data is not None else parts


def _training_data(material: Material) -> str:
    data = material.run.info.plain()["data"]
    lines = [f"data set: {_data_name(data)}; its licence and origin are {_UNKNOWN} to edgekit",
             f"fingerprint (SHA-256 of labels and images): {data.get('fingerprint', _UNKNOWN)}"]  # fmt: skip
    if material.counts:
        lines.append("images: " + ", ".join(f"{sum(n)} {split}" for split, n in material.counts.items()))
    else:
        lines.append(f"images: {_UNKNOWN}, because the index of the data set is gone")
    lines.append(f"files left out because they cannot be decoded: {data.get('skipped', _UNKNOWN)}")
    return bullets(lines)


def _evaluation(material: Material) -> list[str]:
    parts = []
    if material.evaluation:
        parts += [
            bullets(decide.training_verdicts(material.evaluation)),
            table(trained.calibrations(material.evaluation)),
        ]
    else:
        parts.append(f"The trained network was not evaluated on the test split; run `{material.run.evaluate_command}`.")
    if material.rows:
        parts += [table(figures.table(material.rows)), *decision_blocks(material)]
    return parts


def _quantization(material: Material) -> str:
    names = {row.artifact for row in _quantized(material)}
    if not names:
        return "No quantized model was measured."
    return table(provenance.hashes([r for r in material.results if r.artifact.name in names]))


def _quantized(material: Material) -> list[Summary]:
    return [row for row in material.rows if row.precision not in FLOAT]


def limitations(material: Material) -> list[str]:
    """Return the weaknesses that the figures show, and what was not examined."""
    labels, lines = material.labels, []
    trained = [] if material.run.info.source else [("train", "learned from few examples")]
    for split, effect in (*trained, ("test", "recall is known only roughly")):
        numbers = material.counts.get(split, ())
        few = [labels[n] for n, count in enumerate(numbers) if count < FEW_IMAGES]
        if few:
            lines.append(f"{len(few)} of {len(labels)} classes have fewer than {FEW_IMAGES} {split} images "
                         f"({effect}): {_listed(few)}")  # fmt: skip
    worse = [row for row in material.rows if not row.baseline and decide.is_significant_loss(row)]
    lines += [
        f"{row.artifact} on {row.device} loses {row.loss:.1f} points of top-1 (p = {row.p_value:.2g}, McNemar's test)"
        for row in worse
    ]
    for change in material.changes:
        names = [f"{labels[c.label]} ({c.change:+.0f})" for c in change.significant if c.change < 0]
        if names:
            lines.append(f"{change.names[0]}: recall fell significantly (after Holm's correction) in {_listed(names)}")
    if material.evaluation:
        scores = material.evaluation.splits["test"].scores.classes
        bad = [labels[n] for n, c in enumerate(scores) if c.recall is not None and c.recall < 50]
        if bad:
            lines.append(f"fewer than half of the test images are recognized in {_listed(bad)}")
    if not any(row.source == "device" for row in material.rows):
        lines.append("no latency was measured on a phone or a board, so the speed there is unknown")
    return [*lines, "other data than the test split, bias and robustness were not examined"]


def _listed(names: Sequence[str]) -> str:
    left = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {left} more" if left > 0 else "")
