"""State dicts of networks whose code edgekit has: read, put under the network's names, and checked tensor by tensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekit import files
from edgekit.config import from_table
from edgekit.errors import DataError, EdgekitError, MissingError, UsageError, is_out_of_memory
from edgekit.importing.network import Network
from edgekit.labels import visible
from edgekit.models import build, checkpoints, structure, weights_file
from edgekit.models.onnx_module import OnnxModule
from edgekit.models.weights_file import Tensors
from edgekit.models.zoo import row
from edgekit.records import Preprocess
from edgekit.runs import Source

_MOST_NAMED = 2
_OTHER = "choose the network that the weights are of with --arch, or the entry that holds them with --entry"
# Two linear layers of a head with a hidden layer: see `build.build`.
_FIRST, _SECOND = "0.weight", "3.weight"


@dataclasses.dataclass
class _Notes:
    """Sentences about a file, collected while it is read."""

    lines: list[str] = dataclasses.field(default_factory=list)

    def __call__(self, line: str) -> None:
        self.lines.append(line)


def read(
    path: Path, arch: str | None, image_size: int | None = None, entry: str | None = None, content: Any = None
) -> Network:
    """Return the network that a weights file holds the tensors of.

    Args:
        arch: name of `zoo.row`; None for a checkpoint of edgekit, which knows it. image_size: in pixels; None: native.
        entry: as in `weights_file.load`. content: of the file, if it was read before.

    Raises:
        MissingError: there is no such file. DataError: it holds no weights, or those of another network.
        UsageError: it does not say the network, or an unknown name.
    """
    if not path.is_file():
        raise MissingError(
            f"there is no file {str(path)!r}", "edgekit import CHECKPOINT --arch NAME --labels labels.txt"
        )
    notes = _Notes()
    content = weights_file.read(path) if content is None else content
    own = _own(content, path, arch)
    if own:
        notes(f"{path.name} is a checkpoint of edgekit: its network, classes and preprocessing are taken from it")
        if content.get("schema") != 1:
            return _whole(path, tuple(notes.lines))
        arch = own["arch"]
        image_size = image_size or own["preprocess"].image_size
    if arch is None:
        raise UsageError(
            f"{path.name} does not say which network its weights are of",
            "--arch NAME (edgekit models lists them); for a network of your own: edgekit import module.py:build "
            "--weights FILE",
        )
    found = row(arch)
    names = _meta(arch, image_size)
    state = weights_file.named(content, path, [*names, *_hidden_names(found.head)], notes, entry)
    state = in_float32(state, path, notes)
    classes, hidden = _head(state, found.head, arch, path)
    model = build.build(arch, classes, image_size, hidden)
    fill(model, state, path, arch, found.aux_heads, notes)
    source = Source("checkpoint of edgekit" if own else "state dict", path.name, files.sha256_file(path))
    network = Network(model.eval(), arch, dataclasses.replace(source, notes=tuple(notes.lines)), False, classes, hidden)
    return dataclasses.replace(network, **{key: own[key] for key in ("preprocess", "labels")}) if own else network


def _whole(path: Path, notes: tuple[str, ...]) -> Network:
    """Return the network of a checkpoint of edgekit that holds the network itself, not only its weights."""
    checkpoint, model = checkpoints.load(path)
    as_is = model.problem if isinstance(model, OnnxModule) else ""
    source = Source("checkpoint of edgekit", path.name, checkpoint.sha256, notes, as_is=as_is)
    network = Network(model, checkpoint.arch, source, program=True, classes=len(checkpoint.labels))
    return dataclasses.replace(network, preprocess=checkpoint.preprocess, labels=checkpoint.labels)


def _own(content: Any, path: Path, arch: str | None) -> dict[str, Any]:
    """Return what a checkpoint of edgekit says about its network; empty for another file."""
    if not isinstance(content, Mapping) or content.get("format") != checkpoints.FORMAT:
        return {}
    try:
        preprocess = from_table(content["preprocess"], Preprocess, str(path))
        own = {"arch": str(content["arch"]), "labels": tuple(map(str, content["labels"])), "preprocess": preprocess}
    except (EdgekitError, KeyError, TypeError) as error:
        raise DataError(f"{path} is a damaged checkpoint of edgekit: {visible(str(error))}", "restore it") from error
    if arch not in (None, own["arch"]):
        raise UsageError(f"{path.name} is a checkpoint of {own['arch']}, not of {arch}", "leave out --arch")
    return own


def _meta(arch: str, image_size: int | None) -> dict[str, torch.Tensor]:
    """Return the names and shapes of a network's tensors, without values."""
    return dict(structure.without_values(lambda: build.build(arch, 2, image_size)).state_dict())


def _hidden_names(head: str) -> list[str]:
    return [f"{head}.{name}" for name in (_FIRST, "0.bias", _SECOND, "3.bias")]


def in_float32(state: Tensors, path: Path, say: Callable[[str], None]) -> Tensors:
    """Return the tensors with those of other precisions converted to float32, and say so.

    Raises:
        DataError: a tensor is quantized or complex, or has values that are not finite.
    """
    converted: dict[str, list[str]] = {}
    found: Tensors = {}
    for name, value in state.items():
        if value.is_quantized or value.is_complex() or value.layout != torch.strided:
            kind = "quantized" if value.is_quantized else str(value.dtype if value.is_complex() else value.layout)
            raise DataError(
                f"{visible(name)} in {path.name} is {kind}; edgekit needs float32 weights",
                "save the state dict of the network before it was quantized",
            )
        if value.is_floating_point():
            if value.dtype != torch.float32:
                converted.setdefault(str(value.dtype).removeprefix("torch."), []).append(name)
            value = value.detach().cpu().float()
            if not bool(torch.isfinite(value).all()):
                raise DataError(
                    f"{visible(name)} in {path.name} has values that are NaN or infinite", "use an earlier checkpoint"
                )
        found[name] = value
    for kind, names in converted.items():
        say(f"{len(names)} of {len(state)} tensors of {path.name} are {kind}; they are converted to float32")
    return found


def _head(state: Tensors, head: str, arch: str, path: Path) -> tuple[int, int]:
    """Return the number of classes, and the width of the hidden layer.

    Raises:
        DataError: the file has no such layer.
    """
    hidden = state.get(f"{head}.{_FIRST}")
    last = f"{head}.{_SECOND.partition('.')[0]}" if hidden is not None else head
    weight = state.get(f"{last}.weight")
    if weight is None or weight.ndim < 2 or (hidden is not None and hidden.ndim != 2):
        own = [name for name, value in state.items() if name.endswith("weight") and value.ndim == 2]
        also = f"; its last matrix is {visible(own[-1])} {tuple(state[own[-1]].shape)}" if own else ""
        raise DataError(f"{path.name} has no classifier {last}.weight of {arch}{also}", _OTHER)
    return int(weight.shape[0]), 0 if hidden is None else int(hidden.shape[0])


def fill(
    model: nn.Module, state: Tensors, path: Path, arch: str, aux: tuple[str, ...], say: Callable[[str], None]
) -> None:
    """Copy tensors into a network; all of its tensors must be there, in their shapes, and no others.

    Args:
        aux: prefixes of auxiliary heads, which only training uses, and which may be missing.

    Raises:
        DataError: they are not; the message names the tensors.
    """
    own = model.state_dict()
    wrong = [k for k in own if k in state and state[k].shape != own[k].shape and not k.startswith(aux)]
    if wrong:
        named = "; ".join(
            f"{visible(k)} is {tuple(state[k].shape)} in the file and {tuple(own[k].shape)} in the network"
            for k in wrong[:_MOST_NAMED]
        )
        more = f"; and {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
        raise DataError(
            f"the weights of {path.name} do not fit {arch}: {named}{more}", _size_hint(wrong, state) or _OTHER
        )
    missing = [k for k in own if k not in state and not k.startswith(aux)]
    # Batch normalization counts its batches for training only, and old checkpoints lack the count.
    missing = [k for k in missing if not k.endswith("num_batches_tracked")]
    unknown = [k for k in state if k not in own and not k.startswith(aux) and not k.endswith("num_batches_tracked")]
    try:
        weights_file.check(missing, unknown, arch)
    except DataError as error:
        raise DataError(error.message, _OTHER) from None
    kept = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    if aux and (lacking := [k for k in own if k.startswith(aux) and k not in kept]):
        named = ", ".join(name.rstrip(".") for name in aux)
        say(f"{path.name} has no auxiliary head {named}, which only training uses; it is zero")
        kept |= {k: torch.zeros_like(own[k]) for k in lacking}
    try:
        build.load_state(model, kept, strict=False)
    except (RuntimeError, ValueError) as error:
        if is_out_of_memory(error):
            raise
        first = visible(weights_file.first_line(error))
        raise DataError(f"the weights of {path.name} do not fit {arch}: {first}", _OTHER) from error


def _size_hint(wrong: list[str], state: Tensors) -> str:
    """Return what to type if position embeddings show that the network was trained at another image size."""
    name = next((k for k in wrong if k.rpartition(".")[2] in ("pos_embedding", "pos_embed")), None)
    patch = next((v for k, v in state.items() if k in ("conv_proj.weight", "patch_embed.proj.weight")), None)
    if name is None or patch is None or patch.ndim != 4 or state[name].ndim != 3:
        return ""
    side = round(max(0, state[name].shape[1] - 1) ** 0.5)  # without the class token
    return f"they were trained on images of another size: --image-size {side * patch.shape[-1]}" if side else ""
