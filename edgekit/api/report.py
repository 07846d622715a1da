"""What a report is made of, gathered from a run; and the text of each format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import progress, runs
from edgekit.errors import EdgekitError, MissingError
from edgekit.measurements import BenchmarkResult, Gates, Summary
from edgekit.records import SPLITS

if TYPE_CHECKING:
    from edgekit.measurements import LayerCost, ProgramResult
    from edgekit.records import DatasetIndex
    from edgekit.report.changes import Change
    from edgekit.report.material import Material, Picture
    from edgekit.scores import Evaluation


_SIDE = 96  # pixels of a picture in the page


def gather(run: runs.Run) -> Material:
    """Everything that is known of a run.

    Raises:
        DataError: a file of the run is damaged. Images that are gone are no error: the report says so.
    """
    from edgekit.report import changes
    from edgekit.report.material import Material
    from edgekit.train import evaluation

    judged = evaluation.load(run.path, run.weights_sha256)
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
    """The report in one of `report.FORMATS`."""
    if format_ == "card":
        from edgekit.api.export import load_about
        from edgekit.report import card

        said = load_about(about) if about else None
        names = ("title", "description", "version", "author", "license")
        return card.card(material, card.Said(**{name: getattr(said, name) for name in names}) if said else None)
    if format_ in ("csv", "classes"):
        from edgekit.report import csvfiles

        return csvfiles.figures(material) if format_ == "csv" else csvfiles.classes(material)
    from edgekit.report import document, html, markdown

    with progress.working("writing the report"):
        return {"html": html.page, "md": markdown.document, "json": document.as_json}[format_](material)


def changed_images(
    run: runs.Run, data: DatasetIndex | None, found: Sequence[Change]
) -> tuple[Mapping[int, Picture], str]:
    """The test images whose answer changed that are shown, by position in the split; and why there are none."""
    from edgekit.report.changes import pictured
    from edgekit.report.changesection import MOST_ENTRIES

    wanted = sorted({a.image for _, a in pictured([c for c in found if c.answers][:MOST_ENTRIES])})
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
    from edgekit.config import from_table
    from edgekit.data import dataset, images
    from edgekit.records import Preprocess
    from edgekit.report import html
    from edgekit.report.material import Picture

    preprocess = from_table(run.meta["preprocess"], Preprocess, "run.json")
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

    names = {str(r.environment.get("suite", "")) for r in results}
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
    from edgekit.api.network import debug_document, debug_documents
    from edgekit.layers import figures
    from edgekit.report.decide import decide
    from edgekit.report.distributions import row_of
    from edgekit.report.layers import title, told

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
        notes[name] = told(result, row)
    shown = {r.artifact.target for r in timed if r.artifact.precision == "int8"}
    for target, document in documents.items():
        if target not in shown:
            found[f"errors in INT8 for {document['target']} (debug-{target})"] = figures((), costs, document)
    for line in left:
        progress.note(line)
    return {"layers": found, "layer_notes": notes, "layers_left": left}


def _costs(run: runs.Run) -> tuple[list[LayerCost], str]:
    """The network's layers, worked out again where they were not kept; none, and why, where that cannot be done."""
    from edgekit.api import network
    from edgekit.api.network import costs

    try:
        return network.kept(run) or costs(run), ""
    except (EdgekitError, OSError) as error:
        return [], f"the multiplications of the layers, and their order: {network.FILE} cannot be made again: {error}"


# A file that edgekit did not draw is not taken into the page.
_MOST_BYTES = 8_000_000


def save_pictures(run: runs.Run, evaluation: Evaluation | None) -> dict[str, str | bytes]:
    """Draw what can be drawn of a run into its pictures/; returns all of them, also the samples."""
    from edgekit.data import dataset
    from edgekit.report import pictures

    index = run.path / "data.json"
    data = dataset.load_index(index) if index.is_file() else None
    with progress.working("drawing"):
        drawn = pictures.draw_all(run.meta.get("history", ()), data, evaluation)
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
    from edgekit.api.artifacts import current_artifacts
    from edgekit.bench import session, summary

    found = session.load(run.path / "bench", progress.note)
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
