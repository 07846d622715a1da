"""What the layers of a run's network cost, kept beside it so that no command needs the network for them."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgekit import config, files, progress, runs
from edgekit.errors import EdgekitError, MissingError, unknown
from edgekit.measurements import LayerCost

if TYPE_CHECKING:
    from edgekit.api.intermediates import Intermediates
    from edgekit.measurements import BenchmarkResult, Summary


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
    from edgekit.api.report import measured
    from edgekit.report.distributions import row_of

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
    from edgekit.layers import figures

    found, left = {}, []
    for path in sorted((run.path / "quant").glob("debug-*.json")):
        target = path.stem.removeprefix("debug-")
        try:
            document = files.load_document(path, _DEBUG_SCHEMA, "layers", "effect", "checkpoint_sha256", "target")
            figures((), (), document)
            float(document["effect"]["logits"]["sqnr_db"])
        except (EdgekitError, KeyError, TypeError, ValueError):
            again = shlex.join(["edgekit", "quant", "debug", run.handle, "--target", target])
            left.append(f"the errors for {target}: {path} cannot be read; {again} makes it again")
            continue
        if document["checkpoint_sha256"] == run.weights_sha256:
            found[target] = document
    return found, left
