"""Preprocessing of an imported network, read from what its trainer left: a file, a record, or transforms."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import config
from edgekit.errors import DataError, MissingError, UsageError, unknown
from edgekit.records import CONTRACT, Preprocess

_FIELDS = tuple(f.name for f in dataclasses.fields(Preprocess) if f.name != "schema")
# Keys of a preprocess.json of edgekit that say nothing about a network's input, or what its other keys say in words.
_DESCRIBED = {*Preprocess(32, 32).contract(), "scores", "labels_sha256", "tensor", "tensors"} - {*_FIELDS}
_HOW = "say it with --image-size, --resize-size, --resample, --mean, --std and --resize"
# Numbers of Pillow's filters, as transformers writes them.
_PILLOW = {2: "bilinear", 3: "bicubic"}
_SAME_NORMALIZATION = 2e-3
_IGNORED = {
    *("ToTensor", "MaybeToTensor", "PILToTensor", "MaybePILToTensor", "ToImage", "ToPILImage", "ToPureTensor"),
    *("ConvertImageDtype", "ToDtype", "Identity"),
}


@dataclass(frozen=True)
class Changes:
    """Fields of `Preprocess` that were given one by one; None: as before."""

    image_size: int | None = None
    resize_size: int | None = None
    resample: str | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    resize: str | None = None
    background: str | None = None

    def given(self) -> dict[str, Any]:
        """Return the fields that were given."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}


def read(given: Any) -> dict[str, Any]:
    """Return fields of `Preprocess` from what a user gave.

    Args:
        given: a `Preprocess`; a mapping with its fields, a ``pretrained_cfg`` of timm or a ``preprocessor_config`` of
            transformers; the path of a .json or .toml file with one of these; torchvision's ``weights.transforms()``;
            or a ``Compose`` of Resize, CenterCrop, ToTensor and Normalize, also of timm.

    Raises:
        MissingError: there is no such file. DataError: it describes something else.
    """
    if isinstance(given, Preprocess):
        return {name: getattr(given, name) for name in _FIELDS}
    if isinstance(given, str | Path):
        return _from_file(Path(given))
    if isinstance(given, Mapping):
        return _from_mapping(given, "preprocess")
    if hasattr(given, "transforms"):
        return _from_steps(given.transforms)
    if isinstance(given, Sequence):
        return _from_steps(given)
    if hasattr(given, "crop_size") and hasattr(given, "resize_size"):  # ImageClassification of torchvision
        return {
            "image_size": _side(given.crop_size),
            "resize_size": _side(given.resize_size),
            "resample": _resample(given.interpolation),
            "mean": tuple(given.mean),
            "std": tuple(given.std),
        }
    raise UsageError(f"preprocess is {type(given).__name__}, which edgekit cannot read", _HOW)


def complete(fields: Mapping[str, Any], changes: Changes, native: Preprocess | None, what: str) -> Preprocess:
    """Return the preprocessing of `fields` and `changes`, and of `native` for what they leave open.

    The ratio of resize and crop stays as it is when only the image size changes.

    Args:
        native: preprocessing of the pretrained network; None if there is none. what: the network, for messages.

    Raises:
        UsageError: the image size is not known, or a field has an impossible value.
    """
    values = {name: getattr(native, name) for name in _FIELDS} if native else {}
    known = {**values, **fields}
    given = changes.given()
    size = given.get("image_size", known.get("image_size"))
    if size is None:
        raise UsageError(
            f"nothing says which images {what} takes",
            "--image-size 224 --resize-size 256, and --mean and --std unless they are ImageNet's; or --preprocess FILE",
        )
    resize = given.get("resize", known.get("resize", "crop"))
    if "resize_size" not in given:
        before, crop = known.get("resize_size"), known.get("image_size")
        if resize != "crop" or before is None or crop is None:
            given["resize_size"] = size
        elif size != crop:
            given["resize_size"] = max(size, round(size * before / crop))
    return Preprocess(**{**known, **given})


def check_normalization(preprocess: Preprocess, inside: Preprocess, file: str) -> None:
    """Raise an error if another normalization was given than the one that is inside a network's file.

    Raises:
        UsageError: images would be normalized twice, or wrongly.
    """
    given, known = ([*p.mean, *p.std] for p in (preprocess, inside))
    if any(abs(a - b) > _SAME_NORMALIZATION for a, b in zip(given, known)):
        mean, std = (", ".join(f"{v:.4g}" for v in values) for values in (inside.mean, inside.std))
        raise UsageError(
            f"{file} normalizes pixels itself, with mean {mean} and std {std}; other values were given",
            "leave out --mean and --std",
        )


def _from_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingError(f"there is no file {str(path)!r}", "--preprocess takes a preprocess.json of edgekit, or a "
                           "config.json or preprocessor_config.json of timm or transformers; " + _HOW)  # fmt: skip
    if path.suffix.lower() == ".toml":
        return _from_mapping(config.read_toml(path), str(path))
    try:
        found = json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}", _HOW) from error
    if not isinstance(found, Mapping):
        raise DataError(f"{path} holds no object with the fields of a preprocessing", _HOW)
    return _from_mapping(found, str(path))


def _from_mapping(found: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        found = found.get("preprocess", found.get("pretrained_cfg", found))
        if "input_size" in found:
            return _from_timm(found)
        if "image_mean" in found:
            return _from_transformers(found)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{where} is not a preprocessing that edgekit can read: {error}", _HOW) from error
    if isinstance(schema := found.get("schema"), int) and schema > CONTRACT:
        raise DataError(
            f"{where} has a preprocessing contract {schema}; this edgekit knows up to {CONTRACT}", "upgrade"
        )
    found = {key: value for key, value in found.items() if key not in _DESCRIBED}
    for key in found:
        if key not in _FIELDS:
            error_ = unknown("key", str(key), _FIELDS)
            raise DataError(f"{where}: {error_.message}", error_.hint)
    size = found.get("image_size", 224)  # only to check the types of the others
    config.from_table({"image_size": size, "resize_size": size, **found}, Preprocess, where)
    return dict(found)


def _from_timm(found: Mapping[str, Any]) -> dict[str, Any]:
    """Read ``pretrained_cfg``, or the result of ``resolve_data_config``."""
    size = int(found["input_size"][-1])
    mode = found.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise ValueError(f"the crop mode {mode!r} of timm")
    fields: dict[str, Any] = {
        "image_size": size,
        "resize_size": size
        if mode == "squash"
        else max(size, math.floor(size / float(found.get("crop_pct") or 0.875))),
        "resample": _resample(found.get("interpolation", "bilinear")),
        "mean": tuple(map(float, found["mean"])),
        "std": tuple(map(float, found["std"])),
    }
    return {**fields, "resize": "squash"} if mode == "squash" else fields


def _from_transformers(found: Mapping[str, Any]) -> dict[str, Any]:
    """Read a ``preprocessor_config.json`` of an image classifier."""
    size = found["size"]
    target = size if isinstance(size, int) else size.get("height", size.get("shortest_edge"))
    crop = found.get("crop_size") if found.get("do_center_crop") else None
    cut = target if crop is None else crop if isinstance(crop, int) else crop["height"]
    squashed = isinstance(size, Mapping) and "height" in size
    if abs(float(found.get("rescale_factor", 1 / 255)) - 1 / 255) > 1e-6:
        raise ValueError("a rescale_factor other than 1/255")
    if squashed and cut != target:
        raise ValueError("a resize to a square, and then a crop")
    fields = {
        "image_size": int(cut),
        "resize_size": int(target),
        "resample": _resample(found.get("resample", 2)),
        "mean": tuple(map(float, found["image_mean"])),
        "std": tuple(map(float, found["image_std"])),
    }
    return {**fields, "resize": "squash"} if squashed else fields


def _from_steps(steps: Iterable[Any]) -> dict[str, Any]:
    """Read the steps of a ``Compose``.

    Raises:
        DataError: there is a step that edgekit does not do, such as a random one.
    """
    fields: dict[str, Any] = {}
    square = False
    for step in steps:
        name = type(step).__name__
        if name == "Resize":
            square = isinstance(step.size, Sequence) and len(step.size) == 2
            if square and step.size[0] != step.size[1]:
                raise DataError(f"{step} resizes to a rectangle; edgekit's networks take squares", _HOW)
            fields |= {"resize_size": _side(step.size), "resample": _resample(step.interpolation)}
        elif name == "CenterCrop":
            fields["image_size"] = _side(step.size)
        elif name == "Normalize":
            mean, std = (tuple(map(float, value)) for value in (step.mean, step.std))
            fields |= {"mean": mean * 3 if len(mean) == 1 else mean, "std": std * 3 if len(std) == 1 else std}
        elif name not in _IGNORED:
            raise DataError(
                f"the preprocessing has the step {name}, which edgekit does not do",
                "pass the transforms of evaluation: Resize, CenterCrop, ToTensor, Normalize; or " + _HOW,
            )
    if "mean" not in fields:  # values of 0 to 1
        fields |= {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    if "resize_size" not in fields and "image_size" not in fields:
        raise DataError("the preprocessing has neither Resize nor CenterCrop, so its image size is not known", _HOW)
    if "image_size" not in fields or (square and fields["image_size"] == fields["resize_size"]):
        if not square and "image_size" not in fields:
            raise DataError("the preprocessing has no CenterCrop, so images keep their shape", _HOW)
        return {**fields, "image_size": fields["resize_size"], "resize": "squash"}
    if square:
        raise DataError("the preprocessing resizes to a square, and then crops it", _HOW)
    return {"resize_size": fields["image_size"], **fields}


def _side(size: Any) -> int:
    """Return the side of a size: a number, or a sequence of one or of two equal ones."""
    sides = {int(value) for value in (size if isinstance(size, Sequence) else [size])}
    if len(sides) != 1:
        raise DataError(f"the size {tuple(size)} is no square", _HOW)
    return sides.pop()


def _resample(found: Any) -> str:
    """Return the kernel of `RESAMPLES` that a name, a number of Pillow or an ``InterpolationMode`` means."""
    name = _PILLOW.get(found) if isinstance(found, int) else str(getattr(found, "value", found)).lower()
    if name == "random":  # of timm, in training
        name = "bilinear"
    if name not in _PILLOW.values():
        raise DataError(f"images are resized by {found!r}; edgekit has bilinear and bicubic", _HOW)
    return str(name)
