"""Networks of the table `zoo`: build, stages, initial weights, input normalization."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import fx, nn

from edgekit.errors import DataError, MissingError, UsageError, is_out_of_memory
from edgekit.labels import visible
from edgekit.models import pretrained, weights_file
from edgekit.models.catalog import TIMM
from edgekit.models.model_row import resolve
from edgekit.models.onnx_module import OnnxModule
from edgekit.models.weights_file import Tensors
from edgekit.models.zoo import RANGE, row
from edgekit.records import Preprocess

_HIDDEN_DROPOUT = 0.2
_LEAST_CHANNELS = 8  # of a 1x1 convolution with a stride that is safe in channels_last


def build(arch: str, classes: int, image_size: int | None = None, hidden: int = 0) -> nn.Module:
    """Return a network with random weights that maps float32 (N, 3, H, W) to logits (N, classes).

    Inputs are normalized. In training mode a network with an auxiliary head returns a named tuple
    (logits, aux_logits).

    Args:
        image_size: input size in pixels, None for the native one; used by architectures that are `sized`.
        hidden: width of an additional layer, with ReLU and dropout, before the last one; 0 for none.
    Raises:
        UsageError: a hidden layer for a network whose head is not `ModelRow.simple`.
    """
    found = row(arch)
    if hidden and not found.simple:
        raise UsageError(
            f"the head of {arch} is no single linear layer: it cannot get a hidden one", "leave out --hidden"
        )
    size = {"image_size": image_size or found.preprocess.image_size} if found.sized else {}
    model: nn.Module = resolve(found.builder)(num_classes=classes, **size)
    if hidden:
        features = head_of(model, arch).get_parameter("weight").shape[1]
        layers = nn.Linear(features, hidden), nn.ReLU(), nn.Dropout(_HIDDEN_DROPOUT), nn.Linear(hidden, classes)
        model.set_submodule(found.head, nn.Sequential(*layers))
    return model


def head_of(model: nn.Module, arch: str) -> nn.Module:
    """Return the last layer: the Sequential that `build` creates for ``hidden``, or a Linear if `ModelRow.simple`."""
    return model.get_submodule(row(arch).head)


def linear_head(model: nn.Module, arch: str) -> nn.Module | None:
    """Return the part that maps features (N, F) to the logits; None for a network that ends otherwise.

    Of a network that is kept as a graph, that is the Linear whose output it returns; an ONNX file that is kept as it is
    has none.
    """
    if isinstance(model, OnnxModule):
        return None
    if not isinstance(model, fx.GraphModule):
        if not row(arch).simple:
            return None
        found = head_of(model, arch)
    else:
        (last,) = (node.args[0] for node in model.graph.nodes if node.op == "output")
        if not isinstance(last, fx.Node) or last.op != "call_module":
            return None
        found = model.get_submodule(str(last.target))
    return found if isinstance(found, nn.Linear | nn.Sequential) else None


def stage_modules(model: nn.Module, arch: str) -> list[list[nn.Module]]:
    """Return the modules of the backbone by stage, starting at the input."""
    return [[model.get_submodule(name) for name in names] for names in _stage_names(arch)]


def stage_of(model: nn.Module, arch: str) -> dict[str, int]:
    """Return the stage of every parameter outside the heads; 0 for those in no module of a stage."""
    heads = row(arch).heads
    stages = {name: 0 for name, _ in model.named_parameters() if not name.startswith(heads)}
    for number, names in enumerate(_stage_names(arch)):
        for name in stages:
            if name.startswith(_prefixes(names)):
                stages[name] = number
    return stages


def _prefixes(names: list[str]) -> tuple[str, ...]:
    return tuple(f"{name}." for name in names)


def _stage_names(arch: str) -> list[list[str]]:
    """Return the dotted module names of each stage, with ranges such as ``features.0-2`` expanded."""
    return [[name for entry in stage.split() for name in _expand(entry)] for stage in row(arch).stages]


def _expand(entry: str) -> list[str]:
    found = RANGE.fullmatch(entry)
    if found is None:
        return [entry]
    return [f"{found[1]}{number}" for number in range(int(found[2]), int(found[3]) + 1)]


def check_weights(weights: str, arch: str) -> None:
    """Check that ``--weights`` is a known word or an existing file.

    Raises:
        MissingError: the file does not exist. UsageError: there are no pretrained weights of the network.
    """
    if weights == "pretrained":
        pretrained.check(arch, row(arch))
    if weights not in ("pretrained", "none") and not Path(weights).is_file():
        raise MissingError(f"no weights file {weights!r}", "--weights accepts pretrained, none, or an existing file")


def load_weights(
    model: nn.Module,
    arch: str,
    weights: str,
    say: Callable[[str], None] = lambda text: None,
    image_size: int | None = None,
) -> None:
    """Initialize `model` in place.

    Args:
        weights: ``pretrained`` (ImageNet), ``none`` (random), or the path of a state dict or a checkpoint
            (`weights_file`). Heads stay random if their shapes differ; position embeddings are interpolated
            to the model's image size.
        say: called with one sentence if the weights in a file were wrapped.
        image_size: for which the model was built, None for the native one.
    Raises:
        UsageError: there are no pretrained weights. MissingError: the download failed, or a package or file is missing.
        DataError: the weights belong to a different architecture. StorageError: the file cannot be read or written.
    """
    if weights == "none":
        return
    check_weights(weights, arch)
    own, found = model.state_dict(), row(arch)
    if weights == "pretrained":
        state = pretrained.state(arch, found, image_size)
    else:
        state = weights_file.load(Path(weights), own, say)
        if arch.startswith(TIMM):
            state = pretrained.fitted(found, state, own, image_size)
    heads = found.heads
    for key in [k for k in state if k.startswith(heads)]:
        if key not in own or state[key].shape != own[key].shape:
            del state[key]
    try:
        _interpolate_positions(state, own)
        missing, unexpected = load_state(model, state, strict=False)
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        raise DataError(
            f"these weights do not fit {arch}: {visible(str(error).splitlines()[-1].strip())}", weights_file.FITS
        ) from error
    weights_file.check([k for k in missing if not k.startswith(heads)], unexpected, arch)


def load_state(model: nn.Module, state: Mapping[str, torch.Tensor], strict: bool = True) -> tuple[list[str], list[str]]:
    """Load tensors into a network; return the names of missing and of unexpected ones, which `strict` refuses.

    Versions of modules, which a plain dict of tensors lacks, are the network's own: MNASNet refuses to load without.
    Batch norms keep none, as they then do without the number of batches, which old checkpoints lack.
    """
    versioned = OrderedDict(state)
    versions = model.state_dict()._metadata  # type: ignore[attr-defined]
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._NormBase)}
    own = {name: version for name, version in versions.items() if name not in norms}
    versioned._metadata = getattr(state, "_metadata", own)  # type: ignore[attr-defined]
    found = model.load_state_dict(versioned, strict=strict)
    return list(found.missing_keys), list(found.unexpected_keys)


def _interpolate_positions(state: Tensors, own: Tensors) -> None:
    """Interpolate the position embeddings of a vision transformer, bicubic, to the number of patches in `own`.

    Dosovitskiy et al. 2020, arXiv:2010.11929, section 3.2.
    """
    key = "encoder.pos_embedding"
    if key not in state or key not in own or state[key].shape == own[key].shape:
        return
    from torchvision.models.vision_transformer import interpolate_embeddings

    side = round((own[key].shape[1] - 1) ** 0.5)  # in patches, without the class token
    state[key] = interpolate_embeddings(side, 1, {key: state[key]})[key]


def crashes_in_channels_last(network: nn.Module) -> bool:
    """Return whether torch would end the process in the backward pass of this network on a CPU.

    Seen with torch 2.14: gradients of the weights of a 1x1 convolution with a stride and three or four input
    channels (timm/repvgg_a0, timm/fastvit_t8) are a segmentation fault in channels_last.
    """
    return any(
        isinstance(module, nn.Conv2d)
        and set(module.kernel_size) == {1}
        and max(module.stride) > 1
        and 1 < module.in_channels // module.groups < _LEAST_CHANNELS
        for module in network.modules()
    )


def pick_device(name: str) -> torch.device:
    """Return the device for ``--device``; ``auto`` uses CUDA if a GPU is available.

    Raises:
        UsageError: ``cuda`` without a usable GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("no usable CUDA GPU", "use --device cpu, or find the reason with: edgekit doctor")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")


@torch.inference_mode()
def predict_logits(model: nn.Module, pixels: np.ndarray, preprocess: Preprocess) -> torch.Tensor:
    """Return logits, float32 (N, classes) on the CPU, for pixels uint8 (N, H, W, 3), in eval mode."""
    model.eval()
    device = next(itertools.chain(model.parameters(), model.buffers())).device
    return model(normalize(torch.from_numpy(pixels).to(device), preprocess)).float().cpu()


def normalize(pixels: torch.Tensor, preprocess: Preprocess) -> torch.Tensor:
    """Normalize pixels uint8 (N, H, W, 3) to float32 (N, 3, H, W), channels_last in memory."""
    mean, scale = _normalization(preprocess.mean, preprocess.std, pixels.device)
    return ((pixels.float() - mean) * scale).permute(0, 3, 1, 2)


@cache
def _normalization(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and scale of `normalize`, float32 (3,), cached because a copy to the GPU waits for it."""
    with torch.inference_mode(False):  # training uses the same tensors
        return torch.tensor(mean, device=device) * 255, 1 / (torch.tensor(std, device=device) * 255)
