"""``edgekit check``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit import labels, progress, runs
from edgekit.cli import console, recall
from edgekit.cli.options import Json, Run, RunsDir
from edgekit.errors import GateError, MissingError, UsageError

if TYPE_CHECKING:
    from edgekit.bench.entries import Entry
    from edgekit.bench.regression import Tolerances, Verdict


_SAME = "the newest result is the reference itself"
_ORDER = ("top-1", "p50", "p90", "size")


def _percent(text: str) -> float:
    """``5`` and ``5%`` are the same."""
    try:
        value = float(text.strip().removesuffix("%"))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number") from None
    if not 0 <= value < 1e6:
        raise typer.BadParameter(f"{text!r} is none from 0 on")
    return value


def _tolerance(what: str, unit: str) -> typer.models.OptionInfo:
    return typer.Option(help=f"How much worse {what} may be, {unit}.", parser=_percent, metavar="NUMBER")


def check(
    run: Run = None,
    against: Annotated[
        str | None, typer.Option(help=f"The reference: {recall.GRAMMAR}, @previous, or a .json file.", metavar="REF")
    ] = None,
    save_reference: Annotated[
        Path | None, typer.Option(help="Write the newest results as a reference, and check nothing.", metavar="FILE")
    ] = None,
    device: recall.OnDevice = None,
    artifact: Annotated[str | None, typer.Option(help="Only this artifact.", show_default=False)] = None,
    tolerance_p50: Annotated[float, _tolerance("p50", "percent")] = "5%",  # type: ignore[assignment]
    tolerance_p90: Annotated[float | None, _tolerance("p90", "percent; default: not checked")] = None,
    tolerance_top1: Annotated[float, _tolerance("top-1", "points")] = "1.0",  # type: ignore[assignment]
    tolerance_size: Annotated[float, _tolerance("the file's size", "percent")] = "5%",  # type: ignore[assignment]
    strict: Annotated[bool, typer.Option("--strict", help="What cannot be told or compared fails too.")] = False,
    db: recall.Database = None,
    json: Json = False,
    runs_dir: RunsDir = Path("runs"),
) -> None:
    """Check that the newest results of a run are no worse than a reference; else the exit status is 7.

    A figure fails where its change is beyond the tolerance and beyond chance. Beyond the tolerance alone it "cannot
    tell", and does not fail, unless --strict. Latencies of another device, CPU, number of cores or of threads are not
    compared, and the line says so; where nothing can be compared the status is 4.
    """
    from edgekit.bench.regression import Tolerances

    if (against is None) == (save_reference is None):
        raise UsageError("a check needs one of --against and --save-reference", "edgekit check RUN --against @previous")
    name = run or runs.open_run(runs_dir, None).name
    names = [name, against] if against and against[0] != "@" and not against.endswith(".json") else [name]
    sources = recall.open_sources(runs_dir, names, db)
    if against and against.startswith("@"):
        against = recall.parse(name, runs_dir, sources).text + against
    newest = recall.resolve(name, runs_dir, sources, device)
    newest = recall.Resolved(_of(newest.entries, artifact), newest.sources)
    if save_reference is not None:
        _save(save_reference, newest)
        return
    assert against is not None
    reference, more = _reference(against, runs_dir, sources, device)
    tolerances = Tolerances(tolerance_p50, tolerance_p90, tolerance_top1, tolerance_size)
    verdicts = _judge(newest, _of(reference, artifact), more, tolerances)
    _print(verdicts, json)
    _end(verdicts, strict)


def _of(entries: list[Entry], artifact: str | None) -> list[Entry]:
    found = [e for e in entries if artifact in (None, e.artifact, e.artifact.partition("/")[2])]
    if not found:
        raise MissingError(
            f"{artifact!r} was not measured", f"measured: {', '.join(sorted({e.artifact for e in entries})[:12])}"
        )
    return found


def _save(path: Path, newest: recall.Resolved) -> None:
    from edgekit.bench import regression

    regression.save_reference(path, list(recall.with_samples(newest.sources, newest.entries).values()))
    progress.note(f"{path}: {len(newest.entries)} results; next: edgekit check --against {path}")


def _reference(
    against: str, runs_dir: Path, sources: recall.Sources, device: str | None
) -> tuple[list[Entry], list[Entry]]:
    """The entries of the reference with their samples, and other measurements of the same."""
    from edgekit.bench import regression

    if not against.endswith(".json"):
        found = recall.resolve(against, runs_dir, sources, device)
        return list(recall.with_samples(found.sources, found.entries).values()), recall.others(found)
    entries = regression.load_reference(Path(against))
    chosen = [entry for entry in entries if device in (None, entry.device)]
    if not chosen:
        known = ", ".join(sorted({entry.device for entry in entries})[:12])
        raise MissingError(f"{against} has no results of {device!r}", f"it has: {known}")
    return chosen, [entry for place in recall.holding(sources, chosen) for entry in recall.others(place)]


def _judge(newest: recall.Resolved, reference: list[Entry], more: list[Entry], tolerances: Tolerances) -> list[Verdict]:
    from edgekit.bench import regression

    by_place = {(entry.artifact, entry.device): entry for entry in reference}
    samples, more = recall.with_samples(newest.sources, newest.entries), [*recall.others(newest), *more]
    verdicts = []
    for entry in newest.entries:
        before = by_place.pop((entry.artifact, entry.device), None)
        if before is not None and before.sha256 == entry.sha256:
            before = None
            why = _SAME
        else:
            why = "not in the reference"
        if before is None:
            none = regression.Figure("all", regression.NOT_COMPARED, why)
            verdicts.append(regression.Verdict(entry.artifact, entry.device, "", entry.id, (none,)))
        else:
            verdicts.append(regression.judge(before, samples[entry.sha256, entry.run], tolerances, more))
    for entry in by_place.values():
        gone = regression.Figure("all", regression.NOT_COMPARED, "in the reference, but not measured now")
        verdicts.append(regression.Verdict(entry.artifact, entry.device, entry.id, "", (gone,)))
    return verdicts


def _print(verdicts: list[Verdict], json: bool) -> None:
    if json:
        console.as_json([{"state": v.state, **dataclasses.asdict(v)} for v in verdicts])
        return
    for verdict in verdicts:
        figures = sorted(verdict.figures, key=lambda f: _ORDER.index(f.name) if f.name in _ORDER else 0)
        said = "; ".join(
            f"{f.name} {f.why}" if f.state == verdict.state == "pass" else f"{f.name} {f.state}: {f.why}"
            for f in figures
        )
        print(labels.printable(f"{verdict.state:<12}  {verdict.artifact} on {verdict.device}: {said}"))


def _end(verdicts: list[Verdict], strict: bool) -> None:
    """The exit status, and why."""
    from edgekit.bench import regression

    figures = [figure for verdict in verdicts for figure in verdict.figures]
    worse = [v for v in verdicts if v.state == regression.WORSE]
    if worse:
        named = ", ".join(f"{v.artifact} on {v.device}" for v in worse[:5])
        raise GateError(
            f"worse than the reference beyond tolerance and chance: {named}",
            f"edgekit diff {worse[0].before} {worse[0].after} says more",
        )
    if all(figure.why == _SAME for figure in figures):
        raise MissingError(
            "the newest results are the reference itself: nothing was measured since",
            "edgekit benchmark, then this again",
        )
    if all(figure.state == regression.NOT_COMPARED or figure.name == "size" for figure in figures):
        raise MissingError(
            "no latency and no accuracy could be compared with the reference",
            "measure both on one device; edgekit check --save-reference FILE makes a reference of this machine",
        )
    if strict and (unsure := [v for v in verdicts if v.state != regression.PASS]):
        raise GateError(
            f"--strict: {len(unsure)} of {len(verdicts)} artifacts could not be judged in full",
            "measure longer, and on the machine of the reference: edgekit benchmark --suite standard",
        )
