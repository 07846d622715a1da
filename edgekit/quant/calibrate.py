"""Calibration: run the folded torch graph once over the calibration images and observe every tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import fx

from edgekit.errors import DataError
from edgekit.quant import loss, observers, placement, simulate
from edgekit.quant.naming import tensor_names
from edgekit.quant.observers import MEASURED, OBSERVERS, Histogram
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME, CalibrationRecipe, CalibrationSet, CalibrationTable

# Observers that `MEASURED` chooses between: no single one wins everywhere.
CANDIDATES = ("mse", "relative", "percentile", "mean")
IMAGES = 32  # that they are compared on
_CHUNK = 8


class _Watching(fx.Interpreter):
    """Runs a graph and passes the name and the value of every tensor of real numbers to `see`."""

    def __init__(self, folded: fx.GraphModule, see: Callable[[str, torch.Tensor], None]) -> None:
        super().__init__(folded)
        self.names = tensor_names(folded.graph)
        self.see = see

    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        if node in self.names and isinstance(result, torch.Tensor) and result.is_floating_point() and result.numel():
            self.see(self.names[node], result)
        return result


@torch.inference_mode()
def run_all(folded: fx.GraphModule, images: torch.Tensor) -> dict[str, np.ndarray]:
    """Return every tensor of the graph by name, for normalized float32 images (N, 3, H, W)."""
    tensors: dict[str, np.ndarray] = {}
    _Watching(folded, lambda name, value: tensors.update({name: value.numpy().copy()})).run(images)
    return tensors


@torch.inference_mode()
def calibrate(
    folded: fx.GraphModule,
    batches: Iterable[torch.Tensor],
    recipe: CalibrationRecipe,
    shown: CalibrationSet,
    parent: str,
) -> CalibrationTable:
    """Observe every tensor over `batches`, normalized float32 images (N, 3, H, W).

    Memory does not grow with the number of images; one pass serves every observer. The observer `MEASURED`
    stands for the one of `CANDIDATES` with the least error for this network. Tensors that a mask makes minus infinity
    in places have no range: nothing can hold them as integers.

    Args:
        shown: the samples in the batches, recorded in the table. parent: sha256 of the checkpoint.
    Raises:
        DataError: there are no images, or a tensor holds NaN or is infinite; the message names it.
    """
    observers.check(recipe.observer)
    seen: dict[str, Histogram] = {}
    first: list[torch.Tensor] = []
    masked: set[str] = set()
    # The scores keep their full range: clipping would make the highest scores equal.
    scores = {tensor_names(folded.graph)[node] for node in folded.graph.output_node().all_input_nodes}
    finite = {*scores, *placement.layers(folded)}

    def see(name: str, value: torch.Tensor) -> None:
        if name in masked:
            return
        try:
            seen.setdefault(name, Histogram()).update(value)
        except DataError as error:
            if name in finite or not _is_masked(value):
                raise DataError(f"{error.message} in tensor {name!r}", "check the checkpoint") from None
            masked.add(name)

    watching = _Watching(folded, see)
    for images in batches:
        watching.run(images)
        if (room := IMAGES - sum(len(kept) for kept in first)) > 0:
            first.append(images[:room].clone())
    if not seen:
        raise DataError("the calibration set is empty", "give the data set more training images")
    seen = {name: histogram for name, histogram in seen.items() if name not in masked}
    ends = {name: OBSERVERS["minmax"](histogram) for name, histogram in seen.items()}

    def table(observer: str) -> CalibrationTable:
        ranges = {n: OBSERVERS["minmax" if n in scores else observer](histogram) for n, histogram in seen.items()}
        return CalibrationTable(ranges, observer, recipe.name, shown.fingerprint, parent, ends)

    if recipe.observer != MEASURED:
        return table(recipe.observer)
    return with_least_error(folded, [table(observer) for observer in CANDIDATES], torch.cat(first))


def _is_masked(values: torch.Tensor) -> bool:
    """Return whether values are minus infinity in places, and finite everywhere else."""
    return bool((values.isneginf() | values.isfinite()).all())


@torch.inference_mode()
def with_least_error(folded: fx.GraphModule, tables: list[CalibrationTable], images: torch.Tensor) -> CalibrationTable:
    """Return the table under which rounding the activations alone moves the scores least.

    Args:
        tables: one per observer. images: normalized float32 (N, 3, H, W).
    """
    chunks = images.split(_CHUNK)
    wanted = torch.cat([folded(chunk) for chunk in chunks])
    return min(tables, key=lambda table: candidate_error(folded, table, chunks, wanted))


def candidate_error(
    folded: fx.GraphModule, table: CalibrationTable, chunks: tuple[torch.Tensor, ...], wanted: torch.Tensor
) -> float:
    """Return the change of the scores by rounded activations, relative to each image's scores; mean over both schemes.

    Args:
        wanted: scores of the float network (N, classes).
    """
    means = []
    for scheme in (LITERT_SCHEME, TENSORRT_SCHEME):
        rounded = simulate.Simulation(folded, placement.place(folded, table, scheme).rounded)
        scores = torch.cat([rounded.run(chunk) for chunk in chunks])
        means.append(float(loss.relative(scores, wanted).mean()))
    return sum(means) / len(means)
