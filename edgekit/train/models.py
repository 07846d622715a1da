"""Networks as training and export see them: built, cut into stages, fed. The table is `zoo`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgekit.errors import UsageError
from edgekit.records import Preprocess
from edgekit.train.weights import check_weights, load_weights
from edgekit.train.zoo import MODELS, ModelRow, resolve, row

if TYPE_CHECKING:
    from torch import nn


__all__ = [
    "MODELS",
    "ModelRow",
    "build",
    "check_weights",
    "head_of",
    "load_weights",
    "precisions",
    "preprocess_for",
    "row",
    "stage_modules",
    "stage_of",
]
_RANGE = re.compile(r"(.*\D|)(\d+)-(\d+)")
_HIDDEN_DROPOUT = 0.2


def preprocess_for(arch: str, image_size: int | None) -> Preprocess:
    """What `arch` is fed, at `image_size` (its native size if None); the resize keeps its ratio.

    Raises:
        UsageError: the network does not take this size; the hint names the nearest that it does.
    """
    found = row(arch)
    native, step = found.preprocess, found.multiple_of
    size = native.image_size if image_size is None else image_size
    nearest = min(max(-(-found.least_size // step), round(size / step)), found.most_size // step) * step
    if not found.least_size <= size <= found.most_size:
        raise UsageError(
            f"{arch} takes image sizes of {found.least_size} to {found.most_size} px, not {size}",
            f"--image-size {nearest}",
        )
    if size % step:
        raise UsageError(
            f"{arch} takes image sizes that are multiples of {step}, not {size}", f"--image-size {nearest}"
        )
    resize = max(size, round(size * native.resize_size / native.image_size))
    return Preprocess(size, resize, native.resample, native.mean, native.std)


def precisions(arch: str, able: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Those of `able`, what a target takes, that edgekit can write of this network.

    Args:
        wanted: what was asked for by name; empty where nothing was.
    Raises:
        UsageError: one that was asked for cannot be written, or none is left.
    """
    possible = tuple(p for p in able if p in row(arch).precisions)
    if set(wanted) - set(row(arch).precisions) or not possible:
        others = [p for p in row(arch).precisions if p in able] or row(arch).precisions
        raise UsageError(f"edgekit cannot quantize {arch} to INT8 yet", " ".join(f"--precision {p}" for p in others))
    return possible


def build(arch: str, classes: int, image_size: int | None = None, hidden: int = 0) -> nn.Module:
    """The network with random weights and `classes` outputs.

    Takes float32 (N, 3, H, W), normalized; gives float32 (N, classes) logits, in train mode a
    named tuple (logits, aux_logits) where its row has an auxiliary head.

    Args:
        image_size: side in pixels, None for the native one; matters where the row is `sized`.
        hidden: width of one more layer (with ReLU and dropout) before the last; 0 for none.
    """
    found = row(arch)
    size = {"image_size": image_size or found.preprocess.image_size} if found.sized else {}
    model: nn.Module = resolve(found.builder)(num_classes=classes, **size)
    if hidden:
        from torch import nn

        features = head_of(model, arch).get_parameter("weight").shape[1]
        layers = nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(_HIDDEN_DROPOUT), nn.Linear(hidden, classes)
        model.set_submodule(found.head, nn.Sequential(*layers))
    return model


def head_of(model: nn.Module, arch: str) -> nn.Module:
    """The last layer: a Linear, or the Sequential that `build` puts there with ``hidden``."""
    return model.get_submodule(row(arch).head)


def stage_modules(model: nn.Module, arch: str) -> list[list[nn.Module]]:
    """The backbone's modules by stage, from the input on."""
    return [[model.get_submodule(name) for name in names] for names in _stage_names(arch)]


def stage_of(model: nn.Module, arch: str) -> dict[str, int]:
    """The stage of every parameter outside the heads; what belongs to no module of one is in stage 0."""
    heads = _prefixes([name for name in (row(arch).head, row(arch).aux) if name])
    stages = {name: 0 for name, _ in model.named_parameters() if not name.startswith(heads)}
    for number, names in enumerate(_stage_names(arch)):
        for name in stages:
            if name.startswith(_prefixes(names)):
                stages[name] = number
    return stages


def _prefixes(names: list[str]) -> tuple[str, ...]:
    return tuple(f"{name}." for name in names)


def _stage_names(arch: str) -> list[list[str]]:
    """The dotted module names of each stage, with ranges (``features.0-2``) written out."""
    return [[name for entry in stage.split() for name in _expand(entry)] for stage in row(arch).stages]


def _expand(entry: str) -> list[str]:
    found = _RANGE.fullmatch(entry)
    if found is None:
        return [entry]
    return [f"{found[1]}{number}" for number in range(int(found[2]), int(found[3]) + 1)]
