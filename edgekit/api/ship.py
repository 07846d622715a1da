"""Ship: write a folder that an app developer takes over: a model, its preprocessing as code, and a golden set."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import runs
from edgekit.errors import MissingError, UsageError, from_os_error, unknown
from edgekit.measurements import HERE
from edgekit.progress import Callback, note, reporting, working
from edgekit.shipping import kit, targets

if TYPE_CHECKING:
    import numpy as np

    from edgekit.measurements import Summary
    from edgekit.records import Artifact, Preprocess


@dataclass(frozen=True)
class Shipped:
    """A kit that was written.

    Attributes:
        artifact: name of the shipped file. levels: what the kit's own tests found on this machine.
    """

    folder: Path
    artifact: str
    levels: tuple[kit.Level, ...]


def ship(
    run: runs.Run | str | Path | None,
    to: str,
    out: str | Path,
    *,
    artifact: str | None = None,
    package: str | None = None,
    device: str | None = None,
    updates: str | None = None,
    channel: str = "stable",
    root: str | Path | None = None,
    runs_dir: str | Path = "runs",
    progress: Callback | None = None,
) -> Shipped:
    """Write a kit of an exported model: everything that a program needs to give the answers that were measured.

    The kit's own tests run here, and a kit that fails them is not written.

    Args:
        run: a run, its name or path; None for the newest.
        to: for what the kit is: "android", "cpp", "ios", "python" or "web".
        out: a new folder, or an empty one.
        artifact: name of an exported file, such as "android/model.int8.tflite"; by default the INT8 file for LiteRT,
            or else the one of another runtime that the kit has code for.
        package: what the code is called in its language, such as "com.example.fruit".
        device: name of a device that the run was measured on. The default is then the INT8 file that was fastest there,
            and the kit quotes no figures of others.
        updates: address of a website with releases, such as "https://example.com/models": the kit has a client that
            takes them. channel: of those releases. root: file that the client trusts first; by default the newest root
            of that website, reached from its first.
        runs_dir: the folder of the runs.
        progress: called with a `Progress` whenever the state changes.

    Returns:
        The folder, the shipped file, and what was checked.

    Raises:
        UsageError: no such kind of kit, or it cannot run the file. MissingError: no INT8 file was exported, or none was
            measured on the device.
        DataError: the folder is not empty, or a test of the kit fails.

    Example:
        >>> edgekit.ship("tour", "python", "kit", artifact="desktop/model.fp32.onnx").levels[0].state
        'verified'
    """
    if to not in targets.TARGETS:
        raise unknown("kind of kit", to, targets.TARGETS)
    target, folder = targets.TARGETS[to], Path(out)
    name = target.named(package)
    kit.check_empty(folder)
    from edgekit.api import report

    with reporting(progress):
        source_of_updates = None if updates is None else _updates(updates, channel, root)
        opened = runs.choose_run(runs_dir, run)
        material = report.collect(opened, keep=False)
        measured = material.rows if device is None else _measured_on(opened, material.rows, device)
        chosen = _chosen(opened, target, artifact, None if device is None else measured)
        rows = [row for row in measured if row.artifact == chosen.name]
        with working(f"writing the kit for {to}"):
            source = _source(opened, chosen, name, rows, report.render(material, "card"))
            source = replace(source, updates=source_of_updates)
            levels = kit.write(target, source, folder)
    return Shipped(folder, chosen.name, tuple(levels))


def _updates(url: str, channel: str, root: str | Path | None) -> kit.Updates:
    """Return where a kit takes releases from.

    Raises:
        UsageError: no address of a website, or no name of a channel. DataError: the root cannot be trusted.
    """
    from edgekit.release import metadata, verify

    if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~-]+)*/?", url):
        raise UsageError(f"{url!r} is no address of a website with releases", "--updates https://example.com/models")
    if url.startswith("http:"):
        note(f"{url} is not encrypted: what is published is signed all the same, but others see who asks for it")
    metadata.checked_name("channel", channel)
    try:
        first = None if root is None else Path(root).read_bytes()
    except OSError as error:
        raise from_os_error(error, f"reading {root}") from error
    trusted = first if first is not None else verify.trusted_root(url)
    return kit.Updates(url.rstrip("/"), channel, verify.checked_root(trusted))


def _measured_on(run: runs.Run, rows: Sequence[Summary], device: str) -> list[Summary]:
    """Return the measurements of a device.

    Raises:
        MissingError: there are none.
    """
    if found := [row for row in rows if row.device == device]:
        return found
    others = ", ".join(sorted({row.device for row in rows}))
    but = f", but on {others}" if others else " or any other device"
    raise MissingError(
        f"{run.name} was not measured on {device!r}{but}", f"edgekit benchmark {run.handle} --device NAME"
    )


def _chosen(run: runs.Run, target: kit.Target, name: str | None, rows: Sequence[Summary] | None) -> Artifact:
    """Return the artifact to ship: the named one, or an INT8 file.

    Args:
        rows: of the device whose fastest file is wanted; None: of any speed.
    """
    from edgekit.api.artifacts import current_artifacts

    known = {a.name: a for a in current_artifacts(run, run.weights_sha256)}
    if name is not None:
        if name not in known:
            raise unknown("artifact", name, sorted(known))
        if known[name].runtime not in target.runtimes:
            able = [a.name for a in known.values() if a.runtime in target.runtimes and not target.refuses(a)]
            able.sort(key=lambda name: known[name].precision != "int8")
            raise UsageError(
                f"a kit for {target.name} runs {' and '.join(target.runtimes)} files, and {name} is for "
                f"{known[name].runtime}",
                f"--artifact {able[0]}" if able else f"edgekit export {run.handle} --target android",
            )
        if why := target.refuses(known[name]):
            raise UsageError(f"a kit for {target.name} cannot run {name}: {why}", "name another file with --artifact")
        return known[name]
    usable = [
        a for a in known.values() if a.precision == "int8" and a.runtime in target.runtimes and not target.refuses(a)
    ]
    if not usable:
        raise MissingError(
            f"{run.name} has no INT8 file for {' or '.join(target.runtimes)}",
            f"edgekit export {run.handle} --target android, or name another file with --artifact",
        )
    if rows is not None:
        times = {row.artifact: row.p50_ms for row in rows if row.p50_ms is not None and not row.stand_in}
        if not (timed := [a for a in usable if a.name in times]):
            raise MissingError(
                f"none of the INT8 files that a kit for {target.name} runs was timed on {rows[0].device}",
                "name another file with --artifact, or leave out --device",
            )
        return min(timed, key=lambda a: times[a.name])
    # Bytes as input leave no mean and std for an app to get wrong.
    return min(usable, key=lambda a: (target.runtimes.index(a.runtime), a.input == "float32", a.name))


def _source(run: runs.Run, artifact: Artifact, package: str, rows: Sequence[Summary], card: str) -> kit.Source:
    """Return what the kit of an artifact is made of.

    Args:
        rows: measurements of the artifact that the kit quotes. card: the model card.
    """
    from edgekit.api.artifacts import contract_of
    from edgekit.api.intermediates import Intermediates
    from edgekit.bench import session

    path = run.path / "export" / artifact.name
    session.verify(artifact, path)
    contract = contract_of(Intermediates(run))
    preprocess = contract.preprocess
    if preprocess.pixel_range is not None:
        low, high = preprocess.pixel_range
        raise UsageError(
            f"kits read pictures of 8 bits, and {run.name} was trained on values of {low:g} to {high:g}",
            f"edgekit predict {run.handle} IMAGE",
        )
    return kit.Source(
        run=run.name,
        path=path,
        artifact=artifact,
        contract=contract,
        scores=lambda squares: session.infer_here(artifact, path, squares, preprocess),
        other_scores=_other_kernels(artifact, path, preprocess),
        card=card,
        terms=_terms(run, contract.arch),
        figures=tuple(map(_figure, rows)),
        package=package,
    )


def _terms(run: runs.Run, arch: str) -> str:
    """Return the licence of the weights that the training of a run began with; "" where it is unknown."""
    from edgekit.models import zoo

    started = run.info.options.get("start")
    return "none" if started == "none" else zoo.row(arch).license if started == "pretrained" else ""


def _other_kernels(
    artifact: Artifact, path: Path, preprocess: Preprocess
) -> Callable[[Sequence[np.ndarray]], np.ndarray] | None:
    """Return a function that runs a LiteRT file with LiteRT's own kernels instead of XNNPACK's; None for others."""
    if artifact.runtime != "litert":
        return None

    def scores(squares: Sequence[np.ndarray]) -> np.ndarray:
        import numpy as np

        from edgekit.convert import tflite
        from edgekit.ondevice.preprocess import prepare

        feed = {"mean": preprocess.mean, "std": preprocess.std, "layout": artifact.layout, "input": artifact.input}
        return np.concatenate([tflite.plain_scores(path, prepare(square, feed)) for square in squares])

    return scores


def _figure(row: Summary) -> kit.Figure:
    """Return a measurement as text."""
    doubt = " (other programs used the CPU: not reliable)" if row.busy else ""
    here = f"desktop, {row.processor.upper()}, {row.threads} thread{'' if row.threads == 1 else 's'}"
    return kit.Figure(
        here if row.device == HERE else row.device,
        row.ran_in + (" (a stand-in)" if row.stand_in else ""),
        f"{row.top1:.1f}" if row.top1 is not None else f"same answer as FP32: {row.agreement:.1f}",
        f"{row.p50_ms:.2f}{doubt}" if row.p50_ms is not None else "not measured",
    )


def check_kit(folder: str | Path) -> list[kit.Level]:
    """Return what can be verified of a kit on this machine, level by level.

    Raises:
        MissingError: the folder has no kit in it. DataError, StorageError: its manifest cannot be read.
    """
    return kit.check(targets.target_of(Path(folder)), Path(folder))
