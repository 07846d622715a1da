"""Classifiers of torchvision and timm that the table `zoo` does not list; their rows are computed from the networks."""

from __future__ import annotations

import math
import re
import warnings
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from edgekit.errors import UsageError, missing_package
from edgekit.models.model_row import ModelRow
from edgekit.records import RESAMPLES, Preprocess

TIMM = "timm/"
# Names of the argument of a builder that sets the image size.
_SIZE_ARGUMENTS = ("image_size", "img_size", "input_size")
# Converts ImageNet's normalization to (x - 0.5) / 0.5 in some of torchvision's networks, if they have pretrained
# weights; with the latter as preprocessing they need no conversion.
_CONVERTS = "transform_input"
_CROPS = {"center": "crop", "squash": "squash", "border": "letterbox"}
_GUESSES = 3
_USUAL_SIZES = (64, 96, 112, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)
_OPEN = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0")


def torchvision_names() -> list[str]:
    """Return the names of torchvision's image classifiers."""
    from torchvision import models

    return list(models.list_models(module=models))


def timm_names(pattern: str = "") -> list[str]:
    """Return the names of timm's architectures that fit a pattern with ``*``, with the prefix ``timm/``.

    Raises:
        MissingError: timm is not installed.
    """
    timm = _timm(TIMM)
    return [TIMM + name for name in timm.list_models(pattern.removeprefix(TIMM))]


def tags(arch: str) -> list[str]:
    """Return the names that stand for one architecture of timm with other pretrained weights, that of `arch` first."""
    timm = _timm(arch)
    name = arch.removeprefix(TIMM).partition(".")[0]
    found = [TIMM + tagged for tagged in timm.list_pretrained(f"{name}.*")]
    own = f"{TIMM}{name}.{_config(arch).tag}"
    return sorted(found, key=lambda tagged: tagged != own)


def known(arch: str) -> bool:
    """Return True if a name without ``timm/`` is one of torchvision's."""
    return find_spec("torchvision") is not None and arch in torchvision_names()


def guesses(arch: str, table: Any) -> list[str]:
    """Return known names like `arch`, the nearest first; timm is imported only for a name of timm."""
    name = arch.removeprefix(TIMM).lower()
    names = {own: own for own in (*torchvision_names(), *table)}
    if has_timm():
        theirs = {own.removeprefix(TIMM): own for own in timm_names()}
        names = {**names, **theirs} if arch.startswith(TIMM) else {**theirs, **names}
    return [names[close] for close in get_close_matches(name, names, n=_GUESSES, cutoff=0.6)]


@cache
def row(arch: str) -> ModelRow:
    """Return the row of a classifier of torchvision, or of timm with the prefix ``timm/``.

    Raises:
        UsageError: there is no such classifier, or edgekit cannot use it. MissingError: timm is not installed.
    """
    from edgekit.models import structure

    preprocess, more = _timm_facts(arch) if arch.startswith(TIMM) else _torchvision_facts(arch)
    size = preprocess.image_size
    argument = _size_argument(arch, size)
    build = partial(create, arch, size_argument=argument)
    try:
        found = structure.examine(lambda classes: build(num_classes=classes), size)
    except Exception as error:  # a network may fail in any way
        why = str(error).partition("\n")[0][:200] or type(error).__name__
        raise UsageError(f"{arch} is no image classifier that edgekit can use: {why}", "edgekit models") from error
    return ModelRow(
        build,
        head=found.heads[0],
        twins=found.heads[1:],
        aux=" ".join(found.aux),
        simple=found.simple,
        preprocess=preprocess,
        stages=found.stages,
        accepts=partial(accepts, arch),
        sized=bool(argument),
        parameters_m=round(found.parameters / 1e6, 2),
        macs_g=round(found.macs / 1e9, 3),
        **more,
    )


@cache
def accepts(arch: str, image_size: int) -> bool:
    """Return True if the network takes images of this size in pixels; found by running it."""
    from edgekit.models import structure

    build = row(arch).builder
    assert callable(build)
    size = {"image_size": image_size} if row(arch).sized else {}
    return structure.runs(lambda classes: build(num_classes=classes, **size), image_size)


def create(arch: str, *, image_size: int | None = None, size_argument: str = "", **more: Any) -> Any:
    """Return the network, an ``nn.Module``; its weights are random unless `more` says otherwise.

    Args:
        image_size: side of the input in pixels; None: that of the network. size_argument: name of the argument that
            sets it. more: ``num_classes=``, and further arguments of ``timm.create_model``.
    """
    size: dict[str, Any] = {}
    if image_size and size_argument:
        size = {size_argument: (image_size, image_size) if size_argument == "input_size" else image_size}
    if arch.startswith(TIMM):
        return _timm(arch).create_model(arch.removeprefix(TIMM), **size, **more)
    from torchvision import models

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about the random weights of GoogLeNet
        return models.get_model(arch, **size, **more)


def _size_argument(arch: str, image_size: int) -> str:
    """Return the name of the builder's argument for the image size, or nothing; found by trying."""
    from edgekit.models import structure

    for name in _SIZE_ARGUMENTS:
        try:
            structure.without_values(partial(create, arch, num_classes=2, image_size=image_size, size_argument=name))
        except TypeError:
            continue
        return name
    return ""


def _torchvision_facts(arch: str, converts: bool | None = None) -> tuple[Preprocess, dict[str, Any]]:
    """Return the preprocessing of one of torchvision's classifiers, and other fields of its row.

    Args:
        converts: whether the network converts the normalization; None: look.
    """
    from torchvision import models

    from edgekit.models import structure

    enum = models.get_model_weights(arch)
    best: Any = enum.DEFAULT
    if converts is None:
        converts = hasattr(structure.without_values(partial(create, arch, num_classes=2)), _CONVERTS)
    theirs = best.transforms()
    mean, std = ((0.5,) * 3, (0.5,) * 3) if converts else (tuple(theirs.mean), tuple(theirs.std))
    preprocess = Preprocess(theirs.crop_size[0], theirs.resize_size[0], theirs.interpolation.value, mean, std)
    weights = f"torchvision.models:{enum.__name__}.{best.name}"
    return preprocess, {"weights": weights, "license": best.meta.get("license", "")}


def _timm_facts(arch: str) -> tuple[Preprocess, dict[str, Any]]:
    """Return the preprocessing of one of timm's networks, as its pretrained weights want it, and other fields.

    The sizes are those of ``timm.data.create_transform``.
    """
    config = _config(arch)
    channels, height, width = config.input_size
    if channels != 3 or height != width:
        raise UsageError(
            f"{arch} takes images of {width} x {height} pixels in {channels} channels; edgekit needs a square in RGB",
            "edgekit models",
        )
    resize = _CROPS.get(config.crop_mode)
    shorter = math.floor(height / config.crop_pct) if resize == "crop" else height
    if resize is None or config.interpolation not in RESAMPLES:
        raise UsageError(
            f"the preprocessing of {arch} is not one that edgekit has: {config.crop_mode} crop of "
            f"{config.crop_pct:g}, {config.interpolation}",
            "edgekit models",
        )
    mean, std = (tuple(values) for values in (config.mean, config.std))
    background = "#" + "".join(f"{round(255 * value):02x}" for value in mean) if resize == "letterbox" else "white"
    preprocess = Preprocess(height, shorter, config.interpolation, mean, std, resize, background)
    whole = resize == "crop" or config.crop_pct == 1
    note = "" if whole else f"timm evaluates the weights on the central {config.crop_pct:.0%} of a {resize} picture"
    return preprocess, {"weights": _source(config), "license": config.license or "", "note": note.replace("%", " %")}


def _config(arch: str) -> Any:
    """Return timm's ``PretrainedCfg`` of an architecture.

    Raises:
        UsageError: timm does not know the name. MissingError: timm is not installed.
    """
    timm = _timm(arch)
    name, _, tag = arch.removeprefix(TIMM).partition(".")
    if not timm.is_model(name):
        close = guesses(arch, ())
        raise UsageError(f"timm has no model {name!r}", _did_you_mean(close) or "edgekit models 'timm/*' lists them")
    try:
        found = timm.get_pretrained_cfg(arch.removeprefix(TIMM))
    except RuntimeError as error:
        raise UsageError(f"timm has no weights {tag!r} of {name}", f"known: {', '.join(tags(TIMM + name))}") from error
    if found is None:
        raise UsageError(f"timm says nothing about the preprocessing of {name}", "choose another: edgekit models")
    return found


def _did_you_mean(names: list[str]) -> str:
    return f"did you mean {' or '.join(map(repr, names))}?" if names else ""


def unknown(arch: str, table: Any) -> UsageError:
    """Return the error for a name that neither `table` nor torchvision has."""
    guess = _did_you_mean(guesses(arch, table))
    return UsageError(
        f"unknown model {arch!r}", f"{guess} known: {', '.join(table)}; all others: edgekit models --all".strip()
    )


def matching(pattern: str, table: Any) -> list[str]:
    """Return the names that fit a pattern with ``*``: those of `table`, of torchvision and of timm, if installed.

    Raises:
        MissingError: the pattern names timm, which is not installed.
    """
    if pattern.startswith(TIMM):
        return timm_names(pattern)
    own = list(dict.fromkeys((*table, *torchvision_names())))
    theirs = timm_names() if has_timm() else []
    return [name for name in own if fnmatchcase(name, pattern)] + [
        name for name in theirs if fnmatchcase(name.removeprefix(TIMM), pattern)
    ]


def listed(arch: str, row: ModelRow | None) -> tuple[int, str, str]:
    """Return the native image size, the pretrained weights and their license, without computing the row of a network.

    Empty texts: there are none, or the license is not given.

    Args:
        row: of the table, if it has one.
    """
    if row:
        return row.preprocess.image_size, row.weights.rpartition(":")[2], row.license
    if not arch.startswith(TIMM):
        preprocess, more = _torchvision_facts(arch, converts=False)
        return preprocess.image_size, more["weights"].rpartition(":")[2], more["license"]
    config = _config(arch)
    return config.input_size[-1], _source(config), config.license or ""


def details(arch: str, row: ModelRow) -> dict[str, Any]:
    """Return the head, the stages, the image sizes, the license and other pretrained weights of an architecture."""
    if row.accepts:
        others = [str(size) for size in _USUAL_SIZES if row.accepts(size)]
        sizes = f"{' '.join(others)}" if others else "no other"
    else:
        step = f" in steps of {row.multiple_of}" if row.multiple_of > 1 else ""
        sizes = f"{row.least_size} to {row.most_size}{step}"
    return {
        "head": " ".join((row.head, *row.twins)),
        "stages": row.stages,
        "sizes": sizes,
        "license": row.license,
        "tags": tags(arch) if arch.startswith(TIMM) else [],
    }


def has_timm() -> bool:
    """Return True if timm is installed."""
    return find_spec("timm") is not None


def advice(license: str) -> str:
    """Return what a license of weights means for a product, as the end of a sentence; empty for usual open ones."""
    if license.lower() in _OPEN:
        return ""
    if re.search(r"\bnc\b|non-?commercial", license.lower()):
        return ", which does not allow commercial use"
    return "; read it before you ship a network that was trained from them"


def _source(config: Any) -> str:
    """Return the page or the address of timm's pretrained weights; empty if there are none."""
    return str(config.hf_hub_id or config.url or config.file or "")


def hub_files(arch: str) -> tuple[str, list[str]]:
    """Return the repository of a network of timm on the Hugging Face hub, and the files that may hold its weights.

    Empty: the weights are elsewhere, or in a form that only timm reads.
    """
    config = _config(arch)
    if not config.hf_hub_id or config.custom_load:
        return "", []
    given = config.hf_hub_filename or "pytorch_model.bin"
    safe = given.replace("pytorch_model.bin", "model.safetensors").replace(".bin", ".safetensors")
    return config.hf_hub_id, list(dict.fromkeys((safe, given)))


def _timm(arch: str) -> Any:
    try:
        return import_module("timm")
    except ImportError as error:
        raise missing_package("timm", f"the model {arch}", "timm") from error
