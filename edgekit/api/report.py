"""Report: gather what is known of a run, and write it in one of several formats."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import config, files, progress, runs
from edgekit.errors import EdgekitError, MissingError, unknown
from edgekit.measurements import BenchmarkResult, Gates, LayerCost, Summary
from edgekit.progress import Callback, reporting
from edgekit.records import SPLITS
from edgekit.targets.base import FAMILIES

if TYPE_CHECKING:
    from edgekit.api.intermediates import Intermediates
    from edgekit.measurements import ProgramResult
    from edgekit.records import DatasetIndex
    from edgekit.reporting.changes import Change
    from edgekit.reporting.material import Material, Picture
    from edgekit.scores import Evaluation


# Format -> name of the file in the run.
FORMATS = {
    "html": "report.html",
    "md": "report.md",
    "json": "report.json",
    "csv": "report.csv",
    "classes": "classes.csv",
    "card": "model-card.md",
}
_SIDE = 96  # pixels of a picture in the page


def report(
    run: runs.Run | str | Path | None = None,
    format: str = "html",
    *,
    output: str | Path | None = None,
    about: str | Path | None = None,
    runs_dir: str | Path = "runs",
    progress: Callback | None = None,
) -> Path:
    """Write the report of a run: what to ship on each device, and why.

    Args:
        run: a run, its name or path; None for the newest.
        format: "html" (one self-contained page), "md", "json", "csv", "classes" or "card" (a model card).
        output: path of the file; by default in the run.
        about: card: .toml file with title, description, version, author and license.
        runs_dir: the folder of the runs.
        progress: called with a `Progress` whenever the state changes.

    Returns:
        The path of the file.

    Raises:
        UsageError: no such format. DataError: a file of the run is damaged.

    Example:
        >>> edgekit.report("tour", "md").name
        'report.md'
    """
    if format not in FORMATS:
        raise unknown("format", format, list(FORMATS))
    with reporting(progress):
        opened = runs.choose_run(runs_dir, run)
        text = written(gather(opened), format, None if about is None else Path(about))
    path = Path(output) if output is not None else opened.path / FORMATS[format]
    files.save_bytes(path, text.encode())
    return path


def gather(run: runs.Run) -> Material:
    """Everything that is known of a run.

    Raises:
        DataError: a file of the run is damaged. Images that are gone are no error: the report says so.
    """
    from edgekit.evaluation import evaluate
    from edgekit.reporting import changes
    from edgekit.reporting.material import Material

    judged = evaluate.load(run.path, run.weights_sha256)
    results, rows = measured(run)
    Material(run)  # a damaged run.json is said before anything is drawn
    found = changes.changes(results)
    data = _index(run)
    images, why_not = changed_images(run, data, found)
    gates = suite_gates(results)
    return Material(
        run=run,
        rows=rows,
        results=results,
        evaluation=judged,
        drawn=save_pictures(run, judged),
        programs=by_programs(run),
        changes=found,
        **_layers(run, results, rows, gates),
        images=images,
        no_images=why_not,
        counts=_counts(data) if data else {},
        gates=gates,
    )


def written(material: Material, format_: str, about: Path | None = None) -> str:
    """Return the text of the report in one of `FORMATS`."""
    if format_ == "card":
        from edgekit.api.artifacts import load_about
        from edgekit.reporting import card

        said = load_about(about) if about else None
        names = ("title", "description", "version", "author", "license")
        return card.card(material, card.About(**{name: getattr(said, name) for name in names}) if said else None)
    if format_ in ("csv", "classes"):
        from edgekit.reporting import csvfiles

        return csvfiles.figures(material) if format_ == "csv" else csvfiles.classes(material)
    from edgekit.reporting import document, html, markdown

    with progress.working("writing the report"):
        return {"html": html.page, "md": markdown.document, "json": document.as_json}[format_](material)


def changed_images(
    run: runs.Run, data: DatasetIndex | None, found: Sequence[Change]
) -> tuple[Mapping[int, Picture], str]:
    """The test images whose answer changed that are shown, by position in the split; and why there are none."""
    from edgekit.reporting.changes import shown_images
    from edgekit.reporting.html import MOST_ENTRIES

    wanted = sorted({a.image for _, a in shown_images([c for c in found if c.answers][:MOST_ENTRIES])})
    if not wanted:
        return {}, ""
    if data is None:
        return {}, "the index of the data set is gone"
    samples = data.split("test")
    if any(change.samples != len(samples) for change in found):
        return {}, "the test split is another one than that which was measured"
    try:
        return _pictures(run, data, wanted), ""
    except (EdgekitError, OSError) as error:
        progress.note(f"the images whose answer changed are not shown: {error}")
        return {}, str(error).replace(str(data.root), data.root.name)  # where it lies is no matter of the report


def _pictures(run: runs.Run, data: DatasetIndex, wanted: Sequence[int]) -> dict[int, Picture]:
    """What the network was shown, as small JPEG.

    Raises:
        MissingError: an image is gone. DataError: it has changed since training.
    """
    from edgekit.data import dataset, images
    from edgekit.reporting import html
    from edgekit.reporting.material import Picture

    assert run.info.preprocess is not None  # `Material` has looked
    preprocess = run.info.preprocess
    samples = data.split("test")
    chosen = tuple(samples[n] for n in wanted)
    pixels = images.load_pixels(dataset.check_unchanged(data, chosen), preprocess)
    return {n: Picture(s.path, html.jpeg(p, _SIDE)) for n, s, p in zip(wanted, chosen, pixels)}


def _index(run: runs.Run) -> DatasetIndex | None:
    from edgekit.data import dataset

    index = run.path / "data.json"
    return dataset.load_index(index) if index.is_file() else None


def suite_gates(results: Sequence[BenchmarkResult]) -> Gates:
    """Those of the suite that everything was measured by; none where there are several, or where it is gone."""
    from edgekit import config

    names = {r.environment.suite or "" for r in results}
    try:
        return config.load_suite(names.pop()).gates if len(names) == 1 else Gates()
    except EdgekitError:
        return Gates()


def _counts(data: DatasetIndex) -> dict[str, list[int]]:
    """Images per split and label."""
    counts = {split: [0] * len(data.labels) for split in SPLITS}
    for sample in data.samples:
        counts[sample.split][sample.label] += 1
    return counts


def _layers(run: runs.Run, results: Sequence[BenchmarkResult], rows: Sequence[Summary], gates: Gates) -> dict[str, Any]:
    """What `Material` holds of layers: times that runtimes told, joined with the errors that ``edgekit quant debug``
    found for these weights; what is chosen first, then devices, then INT8.
    """
    from edgekit.analysis.layers import figures
    from edgekit.reporting.charts import row_of
    from edgekit.reporting.decide import decide
    from edgekit.reporting.layers import time_notes, title

    documents, left = debug_documents(run)
    timed = [r for r in results if r.layers and r.source != "emulated"]
    costs: list[LayerCost] = []
    if timed or documents:
        costs, why = _costs(run)
        left += [why] if why else []
    chosen = {(d.chosen.artifact, d.chosen.device) for d in decide(rows, gates) if d.chosen}
    judged = [(result, row_of(result, rows)) for result in timed]
    # What is chosen, what a device ran by itself, INT8.
    judged.sort(
        key=lambda pair: (
            (pair[0].artifact.name, pair[0].device) not in chosen,
            pair[1] is not None and pair[1].stand_in,
            pair[0].source != "device",
            pair[0].artifact.precision != "int8",
        )
    )
    found, notes = {}, {}
    for result, row in judged:
        name = title(result, row)
        found[name] = figures(result.layers, costs, debug_document(documents, result))
        notes[name] = time_notes(result, row)
    shown = {r.artifact.target for r in timed if r.artifact.precision == "int8"}
    for target, document in documents.items():
        if target not in shown:
            found[f"errors in INT8 for {document['target']} (debug-{target})"] = figures((), costs, document)
    for line in left:
        progress.note(line)
    return {"layers": found, "layer_notes": notes, "layers_left": left}


def _costs(run: runs.Run) -> tuple[list[LayerCost], str]:
    """The network's layers, worked out again where they were not kept; none, and why, where that cannot be done."""

    try:
        return kept(run) or costs(run), ""
    except (EdgekitError, OSError) as error:
        return [], f"the multiplications of the layers, and their order: {FILE} cannot be made again: {error}"


# A file that edgekit did not draw is not taken into the page.
_MOST_BYTES = 8_000_000


def save_pictures(run: runs.Run, evaluation: Evaluation | None) -> dict[str, str | bytes]:
    """Draw what can be drawn of a run into its pictures/; returns all of them, also the samples."""
    from edgekit.data import dataset
    from edgekit.reporting import pictures

    index = run.path / "data.json"
    data = dataset.load_index(index) if index.is_file() else None
    with progress.working("drawing"):
        drawn = pictures.draw_all([dataclasses.asdict(stats) for stats in run.info.epochs], data, evaluation)
        pictures.save(run.path / "pictures", drawn)
    samples = run.path / "pictures" / "samples.png"
    if samples.is_file() and samples.stat().st_size <= _MOST_BYTES:
        drawn["samples.png"] = samples.read_bytes()
    return drawn


def measured(run: runs.Run) -> tuple[list[BenchmarkResult], list[Summary]]:
    """The raw measurements of what the run has now, and the judged ones; both may be empty.

    Raises:
        MissingError: they cannot be compared: no baseline, or one on other images.
    """
    from edgekit.analysis import summary
    from edgekit.api.artifacts import current_artifacts
    from edgekit.bench.results import load

    found = load(run.path / "bench", progress.note)
    if not found:
        return [], []
    weights = run.weights_sha256
    exported = {a.sha256 for a in current_artifacts(run, weights)}
    results = [
        r for r in found if r.artifact.parent == weights and (r.artifact.is_baseline or r.artifact.sha256 in exported)
    ]
    if results and (stale := len(found) - len(results)):
        progress.note(f"left out: {stale} measurements of files that were exported again since; edgekit benchmark")
    calibrations = {r.artifact.details.get("calibration_sha256") for r in results if r.artifact.precision == "int8"}
    if len(calibrations) > 1:
        progress.note("these INT8 models come from different calibrations; edgekit export again to compare targets")
    try:
        return results, summary.summarize(results) if results else []
    except MissingError as error:
        raise MissingError(str(error), f"edgekit benchmark {run.handle}") from None


def by_programs(run: runs.Run) -> list[ProgramResult]:
    """What programs on devices said of the files that the run has now."""
    from edgekit.api.artifacts import current_artifacts
    from edgekit.bench import program

    exported = {a.sha256 for a in current_artifacts(run, run.weights_sha256)}
    return [found for found in program.load(run.path / "bench") if found.artifact.sha256 in exported]


# What the layers of a run's network cost, kept beside it so that no command needs the network for them.

SCHEMA = 1
FILE = "network.json"


def kept(run: runs.Run) -> list[LayerCost]:
    """The layers, as far as they were kept for the weights that the run has; else none.

    A file that cannot be read is as if it were missing: it can be made again.
    """
    path = run.path / FILE
    if not path.is_file():
        return []
    try:
        document = files.load_document(path, SCHEMA, "parent", "layers")
        if document["parent"] != run.weights_sha256:
            return []
        return [config.from_table(layer, LayerCost, str(path)) for layer in document["layers"]]
    except (EdgekitError, TypeError):
        return []


def layers(bench: Intermediates) -> list[LayerCost]:
    """The layers of the folded network; worked out once."""
    found = kept(bench.run)
    if not found:
        from edgekit.quant import costs

        found = costs.costs(bench.folded, bench.checkpoint.preprocess.image_size)
        described = [dataclasses.asdict(cost) for cost in found]
        files.save_json(
            bench.run.path / FILE, {"schema": SCHEMA, "parent": bench.checkpoint.sha256, "layers": described}
        )
    return found


_DEBUG_SCHEMA = 1


def chosen_result(run: runs.Run, device: str | None, artifact: str | None) -> tuple[BenchmarkResult, Summary | None]:
    """The measurement that is meant, and judged; by default the first INT8 model that has times of layers.

    Raises:
        MissingError: nothing was measured. UsageError: no such device or artifact.
    """
    from edgekit.reporting.charts import row_of

    every, judged = measured(run)
    results = [r for r in every if artifact is not None or not r.artifact.is_baseline]
    if not results:
        raise MissingError(f"the run {run.name!r} has no measurements yet", f"edgekit benchmark {run.handle}")
    for what, wanted, known in (
        ("device", device, {r.device for r in results}),
        ("artifact", artifact, {r.artifact.name for r in results}),
    ):
        if wanted is not None and wanted not in known:
            raise unknown(what, wanted, sorted(known))
    fitting = [r for r in results if device in (None, r.device) and artifact in (None, r.artifact.name)]
    if not fitting:
        raise MissingError(f"{artifact} was not measured on {device}", f"edgekit benchmark {run.handle} -d {device}")
    found = min(fitting, key=lambda r: (not r.layers, r.artifact.precision != "int8", r.runtime != r.artifact.runtime))
    return found, row_of(found, judged)


def costs(run: runs.Run) -> list[LayerCost]:
    """The network's layers, which the benchmark of an older edgekit did not keep."""
    from edgekit.api.intermediates import Intermediates

    with progress.working("looking at the network"):
        return layers(Intermediates(run))


def debug_document(documents: Mapping[str, dict[str, Any]], result: BenchmarkResult) -> dict[str, Any] | None:
    """What edgekit quant debug found out for the target of an INT8 model; None: nothing yet."""
    return documents.get(result.artifact.target) if result.artifact.precision == "int8" else None


def debug_documents(run: runs.Run) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What edgekit quant debug found out with the weights that the run has, by target; and, in words, which of its
    files cannot be read and what makes them again.
    """
    from edgekit.analysis.layers import figures

    found, left = {}, []
    for path in sorted((run.path / "quant").glob("debug-*.json")):
        target = path.stem.removeprefix("debug-")
        try:
            document = files.load_document(path, _DEBUG_SCHEMA, "layers", "effect", "checkpoint_sha256", "target")
            figures((), (), document)
            float(document["effect"]["logits"]["sqnr_db"])
        except (EdgekitError, KeyError, TypeError, ValueError):
            again = _debug_command(run, target)
            left.append(f"the errors for {target}: {path} cannot be read; {again} makes it again")
            continue
        if document["checkpoint_sha256"] == run.weights_sha256:
            found[target] = document
    return found, left


def _debug_command(run: runs.Run, stem: str) -> str:
    """Return the command that makes ``debug-<stem>.json`` again.

    `stem` is a target, or a target and a recipe: both may have dashes, so the longest known target counts.
    """
    parts = stem.split("-")
    for n in range(len(parts), 0, -1):
        target, recipe = "-".join(parts[:n]), "-".join(parts[n:])
        if target in FAMILIES or config.is_device(target):
            chosen = (
                ["--recipe", recipe if recipe in config.names("calibration") else f"{recipe}.toml"] if recipe else []
            )
            return shlex.join(["edgekit", "quant", "debug", run.handle, "--target", target, *chosen])
    return shlex.join(["edgekit", "quant", "debug", run.handle])
