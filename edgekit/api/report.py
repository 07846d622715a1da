"""Report: collect the figures of a run, and write them in one of several formats."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import config, files, progress, runs
from edgekit.api.run import choose
from edgekit.errors import EdgekitError, MissingError, unknown
from edgekit.measurements import BenchmarkResult, Gates, LayerCost, Summary
from edgekit.progress import Callback, reporting
from edgekit.records import SPLITS
from edgekit.targets.base import FAMILIES

if TYPE_CHECKING:
    from edgekit.api.intermediates import Intermediates
    from edgekit.measurements import LayerFigures, ProgramResult
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
    data: str | Path | None = None,
    progress: Callback | None = None,
) -> Path:
    """Write the report of a run: what to ship on each device, and why.

    Args:
        run: a run, its name or path; None for the newest.
        format: "html" (one self-contained page), "md", "json", "csv", "classes" or "card" (a model card).
        output: path of the file; by default in the run.
        about: card: .toml file with title, description, version, author and license.
        runs_dir: the folder of the runs.
        data: folder that the run's images are in now, some of which are shown; by default that of the training.
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
        opened = choose(runs_dir, run, data)
        text = render(collect(opened, keep=output is None), format, None if about is None else Path(about))
    return save(opened, text, format, output)


def save(run: runs.Run, text: str, format: str, output: str | Path | None) -> Path:
    """Write a report to `output`, by default in the run, and return its path."""
    if output is not None:
        files.save_output(Path(output), text.encode())
        return Path(output)
    path = run.path / FORMATS[format]
    files.save_bytes(path, text.encode())
    return path


def collect(run: runs.Run, keep: bool = True) -> Material:
    """Return everything that the report shows.

    Args:
        keep: save the pictures and the layers in the run, too.
    Raises:
        DataError: a file of the run is damaged. Missing images raise nothing: the report notes that they are missing.
    """
    from edgekit.evaluation import evaluate
    from edgekit.reporting import changes
    from edgekit.reporting.material import Material

    evaluation = evaluate.load(run.path, run.weights_sha256)
    results, rows = load_measurements(run)
    Material(run)  # raises for a damaged run.json before anything is drawn
    changed = changes.changes(results)
    data = _index(run)
    images, no_images = changed_images(run, data, changed)
    gates = suite_gates(results)
    return Material(
        run=run,
        rows=rows,
        results=results,
        evaluation=evaluation,
        drawn=save_pictures(run, evaluation, keep),
        programs=load_program_results(run),
        changes=changed,
        **_layers(run, results, rows, gates, keep),
        images=images,
        no_images=no_images,
        counts=_counts(data) if data else {},
        gates=gates,
    )


def render(material: Material, format_: str, about: Path | None = None) -> str:
    """Return the text of the report in one of `FORMATS`."""
    if format_ == "card":
        from edgekit.api.artifacts import load_about
        from edgekit.reporting import card

        names = ("title", "description", "version", "author", "license")
        given = load_about(about) if about else None
        return card.card(material, card.About(**{name: getattr(given, name) for name in names}) if given else None)
    if format_ in ("csv", "classes"):
        from edgekit.reporting import csvfiles

        return csvfiles.figures(material) if format_ == "csv" else csvfiles.classes(material)
    from edgekit.reporting import document, html, markdown

    with progress.working("writing the report"):
        return {"html": html.page, "md": markdown.document, "json": document.as_json}[format_](material)


def changed_images(
    run: runs.Run, data: DatasetIndex | None, found: Sequence[Change]
) -> tuple[Mapping[int, Picture], str]:
    """Return thumbnails of test images whose answer changed, by position in the split, and why there are none."""
    from edgekit.reporting.changes import shown_images
    from edgekit.reporting.html import MOST_ENTRIES

    wanted = sorted({a.image for _, a in shown_images([c for c in found if c.answers][:MOST_ENTRIES])})
    if not wanted:
        return {}, ""
    if data is None:
        return {}, "data.json is missing in the run"
    samples = data.split("test")
    if any(change.samples != len(samples) for change in found):
        return {}, "the test split has changed since the measurement"
    try:
        return _pictures(run, data, wanted), ""
    except (EdgekitError, OSError) as error:
        progress.note(f"images whose answer changed are not shown: {error}")
        return {}, str(error).replace(str(data.root), data.root.name)  # the report shows no absolute paths


def _pictures(run: runs.Run, data: DatasetIndex, wanted: Sequence[int]) -> dict[int, Picture]:
    """Return thumbnails of test images as the network sees them, JPEG, by position in the split.

    Raises:
        MissingError: an image does not exist any more. DataError: it has changed since training.
    """
    from edgekit.data import images, location
    from edgekit.reporting import html
    from edgekit.reporting.material import Picture

    assert run.info.preprocess is not None  # `Material` has checked it
    preprocess = run.info.preprocess
    samples = data.split("test")
    chosen = tuple(samples[n] for n in wanted)
    found = location.take_all(run, chosen, "the pictures", data, search=run.images is not None)
    pixels = images.load_pixels([found.root / sample.path for sample in found.samples], preprocess)
    return {n: Picture(s.path, html.jpeg(p, _SIDE)) for n, s, p in zip(wanted, chosen, pixels)}


def _index(run: runs.Run) -> DatasetIndex | None:
    from edgekit.data import dataset

    return dataset.of_run(run) if (run.path / dataset.DATA_FILE).is_file() else None


def suite_gates(results: Sequence[BenchmarkResult]) -> Gates:
    """Return the gates of the suite of all results; without limits if there are several suites or it does not exist."""
    from edgekit import config

    names = {r.environment.suite or "" for r in results}
    try:
        return config.load_suite(names.pop()).gates if len(names) == 1 else Gates()
    except EdgekitError:
        return Gates()


def _counts(data: DatasetIndex) -> dict[str, list[int]]:
    """Return the number of images by split and label."""
    counts = {split: [0] * len(data.labels) for split in SPLITS}
    for sample in data.samples:
        counts[sample.split][sample.label] += 1
    return counts


def _layers(
    run: runs.Run, results: Sequence[BenchmarkResult], rows: Sequence[Summary], gates: Gates, keep: bool
) -> dict[str, Any]:
    """Return the fields of `Material` about layers: times and quantization errors by model.

    Models that are recommended come first, then those measured on devices, then INT8.
    """
    from edgekit.analysis.layers import figures
    from edgekit.reporting.charts import row_of
    from edgekit.reporting.decide import decide
    from edgekit.reporting.layers import time_notes, title

    documents, problems = debug_documents(run)
    timed = [r for r in results if r.layers and r.source != "emulated"]
    costs: list[LayerCost] = []
    if timed or documents:
        costs, reason = _layer_costs_or_reason(run, keep)
        problems += [reason] if reason else []
    chosen = {(d.chosen.artifact, d.chosen.device) for d in decide(rows, gates) if d.chosen}
    judged = [(result, row_of(result, rows)) for result in timed]
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
    for line in problems:
        progress.note(line)
    return {"layers": found, "layer_notes": notes, "layers_left": problems}


def _layer_costs_or_reason(run: runs.Run, keep: bool) -> tuple[list[LayerCost], str]:
    """Return the network's layers, computed if they were not saved; empty, with the reason, if that fails."""
    try:
        return load_layer_costs(run) or compute_layer_costs(run, keep), ""
    except (EdgekitError, OSError) as error:
        return [], f"layers without MACs, in no order: {FILE} cannot be computed: {error}"


_MOST_BYTES = 8_000_000  # of samples.png; a larger one was not drawn by edgekit


def save_pictures(run: runs.Run, evaluation: Evaluation | None, keep: bool = True) -> dict[str, str | bytes]:
    """Draw the pictures of a run, and return them by file name, with samples.png if it exists.

    Args:
        keep: save them in ``<run>/pictures``.
    """
    from edgekit.reporting import pictures

    data = _index(run)
    with progress.working("drawing"):
        drawn = pictures.draw_all([dataclasses.asdict(stats) for stats in run.info.epochs], data, evaluation)
        if keep:
            pictures.save(run.path / "pictures", drawn)
    samples = run.path / "pictures" / "samples.png"
    if samples.is_symlink():  # the report is made to be mailed; its target may be any file
        progress.warn(f"{samples} is a symbolic link, and is left out of the report")
    elif samples.is_file() and samples.stat().st_size <= _MOST_BYTES:
        drawn["samples.png"] = samples.read_bytes()
    return drawn


def load_measurements(run: runs.Run) -> tuple[list[BenchmarkResult], list[Summary]]:
    """Return the results of the run's current weights and files, and their summaries; both may be empty.

    Raises:
        MissingError: there is no baseline, or it was measured on other images.
    """
    from edgekit.analysis import summary
    from edgekit.api.artifacts import current_artifacts
    from edgekit.bench.results import load

    every = load(run.path / "bench", progress.note)
    found = [result for result in every if len(result.expected)]
    if len(found) < len(every):
        progress.note(
            f"left out: {len(every) - len(found)} measurements of latency alone; with the test images: edgekit "
            f"benchmark {run.handle} --data DIR"
        )
    if not found:
        return [], []
    weights = run.weights_sha256
    exported = {a.sha256 for a in current_artifacts(run, weights)}
    results = [
        r for r in found if r.artifact.parent == weights and (r.artifact.is_baseline or r.artifact.sha256 in exported)
    ]
    if results and (stale := len(found) - len(results)):
        progress.note(f"left out: {stale} measurements of files that have been exported again; next: edgekit benchmark")
    for result in summary.on_other_images(results):
        progress.note(
            f"left out: {result.artifact.name} on {result.device} was measured on other images than the baseline; "
            f"next: edgekit benchmark {run.handle}"
        )
        results.remove(result)
    calibrations = {r.artifact.details.get("calibration_sha256") for r in results if r.artifact.precision == "int8"}
    if len(calibrations) > 1:
        progress.note("the INT8 models come from different calibrations; to compare targets, export them again")
    try:
        return results, summary.summarize(results) if results else []
    except MissingError as error:
        raise MissingError(str(error), f"edgekit benchmark {run.handle}") from None


def load_program_results(run: runs.Run) -> list[ProgramResult]:
    """Return what programs such as benchmark_model measured of the run's current files."""
    from edgekit.api.artifacts import current_artifacts
    from edgekit.bench import program

    exported = {a.sha256 for a in current_artifacts(run, run.weights_sha256)}
    return [found for found in program.load(run.path / "bench") if found.artifact.sha256 in exported]


# The layers of the network, saved in the run so that no command has to load the network for them.
SCHEMA = 1
FILE = "network.json"


def load_layer_costs(run: runs.Run) -> list[LayerCost]:
    """Return the saved layers; empty if there are none for the current weights, or the file is damaged."""
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


def layer_costs(intermediates: Intermediates, keep: bool = True) -> list[LayerCost]:
    """Return the layers of the folded network, computed once and, with `keep`, saved in the run.

    None are known of an ONNX file that is kept as it is.
    """
    found = load_layer_costs(intermediates.run)
    if intermediates.kept_onnx is not None:
        return []
    if not found:
        from edgekit.quant import costs

        found = costs.costs(intermediates.folded, intermediates.checkpoint.preprocess.image_size)
        if not keep:
            return found
        described = [dataclasses.asdict(cost) for cost in found]
        files.save_json(
            intermediates.run.path / FILE,
            {"schema": SCHEMA, "parent": intermediates.checkpoint.sha256, "layers": described},
        )
    return found


_DEBUG_SCHEMA = 1


@dataclass(frozen=True)
class LayerReport:
    """Layers of one measured model.

    Attributes:
        summary: of `result`; None if it is not summarized.
        figures: one entry per layer, in the order of the network.
        debugged: what ``edgekit quant debug`` found for the model's target; None: it was not run.
        problems: files that cannot be read, each with the command that makes it again.
    """

    result: BenchmarkResult
    summary: Summary | None
    figures: list[LayerFigures]
    debugged: dict[str, Any] | None
    problems: list[str]


def layer_report(run: runs.Run, device: str | None = None, artifact: str | None = None) -> LayerReport:
    """Return times and quantization errors of the layers of one measured model.

    Args:
        device, artifact: names; None for the first INT8 model that has layer times.

    Raises:
        MissingError: nothing was measured. UsageError: no such device or artifact.
    """
    from edgekit.analysis.layers import figures

    result, summary = select_result(run, device, artifact)
    costs = load_layer_costs(run) or compute_layer_costs(run)
    documents, problems = debug_documents(run)
    debugged = debug_document(documents, result)
    times = () if result.source == "emulated" else result.layers
    return LayerReport(result, summary, figures(times, costs, debugged), debugged, problems)


def select_result(run: runs.Run, device: str | None, artifact: str | None) -> tuple[BenchmarkResult, Summary | None]:
    """Return a result and its summary; by default of the first INT8 model that has layer times.

    Raises:
        MissingError: nothing was measured. UsageError: no such device or artifact.
    """
    from edgekit.reporting.charts import row_of

    every, summaries = load_measurements(run)
    results = [r for r in every if artifact is not None or not r.artifact.is_baseline]
    if not results:
        raise MissingError(f"the run {run.name!r} has no measurements yet", f"edgekit benchmark {run.handle}")
    for kind, name, known in (
        ("device", device, {r.device for r in results}),
        ("artifact", artifact, {r.artifact.name for r in results}),
    ):
        if name is not None and name not in known:
            raise unknown(kind, name, sorted(known))
    matching = [r for r in results if device in (None, r.device) and artifact in (None, r.artifact.name)]
    if not matching:
        on = f" -d {shlex.quote(device)}" if device else ""
        raise MissingError(f"{artifact} was not measured on {device}", f"edgekit benchmark {run.handle}{on}")
    found = min(matching, key=lambda r: (not r.layers, r.artifact.precision != "int8", r.runtime != r.artifact.runtime))
    return found, row_of(found, summaries)


def compute_layer_costs(run: runs.Run, keep: bool = True) -> list[LayerCost]:
    """Return the layers of a run whose benchmark did not save them, computed from the network."""
    from edgekit.api.intermediates import Intermediates

    with progress.working("computing the costs of the layers"):
        return layer_costs(Intermediates(run), keep)


def debug_document(documents: Mapping[str, dict[str, Any]], result: BenchmarkResult) -> dict[str, Any] | None:
    """Return what ``edgekit quant debug`` found for an INT8 model's target; None if it was not run for it."""
    return documents.get(result.artifact.target) if result.artifact.precision == "int8" else None


def debug_documents(run: runs.Run) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return what ``edgekit quant debug`` found for the run's weights, by target, and a note on each damaged file."""
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
            left.append(f"quantization errors for {target}: {path} cannot be read; {again} makes it again")
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
            return shlex.join(["edgekit", "quant", "debug", run.argument, "--target", target, *chosen])
    return shlex.join(["edgekit", "quant", "debug", run.argument])
