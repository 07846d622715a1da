"""A trained network on its way into a run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgekit.errors import DataError, EdgekitError, is_out_of_memory, out_of_memory
from edgekit.labels import visible
from edgekit.models.weights_file import first_line

if TYPE_CHECKING:
    from edgekit.records import Preprocess
    from edgekit.runs import Source


@dataclass(frozen=True)
class Network:
    """A network and what its file tells about it.

    Attributes:
        model: float32, on the CPU, in eval mode; maps normalized (N, 3, S, S) to logits (N, classes).
        arch: a name of `zoo.row`; for a `program`, any name.
        program: the network is kept as a graph, since no code of edgekit's builds it.
        classes: number of logits; 0 if only a forward pass tells.
        hidden: as in `build.build`.
        preprocess, labels: None if the file does not tell. normalized: mean and std of `preprocess` are those of
            arithmetic that was inside the file.
    """

    model: nn.Module
    arch: str
    source: Source
    program: bool = False
    classes: int = 0
    hidden: int = 0
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] | None = None
    normalized: bool = False


class _Logits(nn.Module):
    """A network that returns an object with ``logits``, such as those of transformers, as one that returns these."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.inner(images).logits
        return scores


def checked(network: Network, image_size: int) -> Network:
    """Run the network on two random images, and return it with the number of its logits.

    Raises:
        DataError: it does not take float32 (N, 3, S, S), does not give one row of finite logits for each image, or
            its answer to an image depends on the other images of the batch.
    """
    images = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    shape, name = f"float32 (2, 3, {image_size}, {image_size})", visible(network.arch)
    try:
        with torch.inference_mode():
            scores, alone = network.model(images), network.model(images[:1])
    except Exception as error:  # the user's code, which may raise anything
        if isinstance(error, EdgekitError):
            raise
        if is_out_of_memory(error):
            raise out_of_memory(f"running {name}") from error
        raise DataError(
            f"{name} fails on images {shape}: {visible(first_line(error))}",
            "a classifier takes normalized images (N, 3, S, S); say another S with --image-size",
        ) from error
    if network.program and isinstance(getattr(scores, "logits", None), torch.Tensor):
        note = f"the entry 'logits' of its {type(scores).__name__} is taken"
        source = dataclasses.replace(network.source, notes=(*network.source.notes, note))
        return checked(dataclasses.replace(network, model=_Logits(network.model).eval(), source=source), image_size)
    if not isinstance(scores, torch.Tensor):
        raise DataError(
            f"{name} returns {type(scores).__name__}, not one tensor of scores",
            "wrap it in a module whose forward returns the logits alone, (N, classes)",
        )
    if scores.ndim != 2 or len(scores) != 2:
        raise DataError(
            f"{name} returns {tuple(scores.shape)} for images {shape}; a classifier returns one row of logits for each "
            "image",
            "wrap it in a module whose forward returns (N, classes)",
        )
    if not bool(torch.isfinite(scores).all()):
        raise DataError(
            f"{name} returns scores that are NaN or infinite for random images",
            "check the weights; half precision that overflowed cannot be repaired",
        )
    if not torch.allclose(scores[:1], alone, rtol=1e-2, atol=1e-3 * float(scores.abs().max() + 1e-12)):
        raise DataError(
            f"the answer of {name} to an image depends on the other images of the batch",
            "call eval() in its factory; batch normalization must use its running statistics",
        )
    return dataclasses.replace(network, classes=int(scores.shape[1]))
