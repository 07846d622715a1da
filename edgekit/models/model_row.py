"""One architecture of the catalog: where its code and weights are, its head, stages, sizes and preprocessing."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

from edgekit.records import Preprocess


@dataclass(frozen=True)
class ModelRow:
    """One architecture.

    Attributes:
        builder: ``module:function``, or the function itself, called with ``num_classes=``.
        weights: ``module:name`` of torchvision's weights enum, of which IMAGENET1K_V1 is used, of one of its members,
            or of a function that returns a state dict. For timm, the page of the model. Empty: there are none.
        head: dotted name of the final layer, a Linear if `simple`.
        preprocess: preprocessing with which the pretrained weights were evaluated.
        stages: modules of the backbone from input to head, divided where the resolution halves, or in equal
            parts for transformers. Entries may contain ranges: ``"conv1 bn1 layer1"``, ``"features.0-3"``.
        multiple_of: divisor of valid image sizes. least_size, most_size: limits of the image size in pixels.
        accepts: tells whether the network takes an image size between these limits; None: it takes all.
        sized: whether the builder also takes ``image_size=``.
        aux: dotted names, separated by blanks, of auxiliary heads, which only training uses; see `build.build`.
        twins: further final layers, whose outputs are combined with those of `head`, as after distillation.
        simple: whether the network's output is that of one Linear on one vector per image. Only then its inputs can be
            cached, and it can have a hidden layer.
        parameters_m: parameters in millions. macs_g: 10**9 multiply-accumulates per image. Both at the native
            size, with 1000 classes, without the auxiliary head.
        note: other requirements, in a few words. license: of the pretrained weights, as their publisher names it.
    """

    builder: str | Callable[..., Any]
    weights: str
    head: str
    preprocess: Preprocess
    stages: tuple[str, ...] = ()
    multiple_of: int = 1
    least_size: int = 32
    most_size: int = 1024
    accepts: Callable[[int], bool] | None = None
    sized: bool = False
    aux: str = ""
    twins: tuple[str, ...] = ()
    simple: bool = True
    parameters_m: float = 0.0
    macs_g: float = 0.0
    note: str = ""
    license: str = ""

    @property
    def aux_heads(self) -> tuple[str, ...]:
        """Return the prefixes of the parameters of the auxiliary heads."""
        return tuple(f"{name}." for name in self.aux.split())

    @property
    def heads(self) -> tuple[str, ...]:
        """Return the prefixes of the parameters of all heads."""
        return (*(f"{name}." for name in (self.head, *self.twins)), *self.aux_heads)


def resolve(target: str | Callable[..., Any]) -> Any:
    """Import and return the object ``module:name``; the name may be dotted. An object is returned as it is."""
    if not isinstance(target, str):
        return target
    module, _, name = target.partition(":")
    return reduce(getattr, name.split("."), importlib.import_module(module))


def short_name(arch: str) -> str:
    """Return the name of an architecture without that of its package, for names of files and folders."""
    return arch.rpartition("/")[2]
