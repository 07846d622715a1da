"""What the layers of a run's network cost, kept beside it so that no command needs the network for them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from edgekit import config, files, runs
from edgekit.errors import EdgekitError
from edgekit.measurements import LayerCost

if TYPE_CHECKING:
    from edgekit.cli.workbench import Workbench


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


def layers(bench: Workbench) -> list[LayerCost]:
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
