"""Checkpoints: weights and metadata as plain tensors and values, loaded without unpickling code."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from edgekit import files
from edgekit.config import from_table
from edgekit.errors import DataError, MissingError, StorageError, raise_if_not_damage
from edgekit.labels import visible
from edgekit.models import build, program, weights_file
from edgekit.models.onnx_module import OnnxModule
from edgekit.records import Checkpoint, Preprocess

FORMAT = "edgekit-checkpoint"
SCHEMA = 2  # 1 for a network that edgekit's code builds, 2 for one that the file holds as a program
MOST_HIDDEN = 2**16  # a larger value in a damaged file would exhaust the memory


def save(
    path: Path,
    model: nn.Module,
    arch: str,
    labels: tuple[str, ...],
    preprocess: Preprocess,
    hidden: int = 0,
    as_program: bool = False,
) -> Checkpoint:
    """Save the weights of `model` with the metadata that is needed to rebuild and feed it.

    Args:
        hidden: width of the hidden layer in the head, as in `build.build`.
        as_program: `model` is a plain graph of `program.trace` or an `OnnxModule`, and is saved with its weights.
    """
    # A copy: a tensor of one channel counts as contiguous in either memory format, and the file would tell which.
    state = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in model.state_dict().items()}
    content = {
        "format": FORMAT,
        "schema": 2 if as_program else 1,
        "arch": arch,
        "labels": list(labels),
        "preprocess": preprocess.document(),
        "hidden": hidden,
        "state_dict": state,
    }
    if isinstance(model, OnnxModule):
        content["onnx"] = {"problem": model.problem, "one_by_one": model.one_by_one}
    elif as_program:
        assert isinstance(model, fx.GraphModule)
        content["program"] = program.to_document(model)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    files.save_bytes(path, buffer.getvalue())
    return Checkpoint(path, arch, labels, preprocess, files.sha256_file(path), hidden)


def load(path: Path) -> tuple[Checkpoint, nn.Module]:
    """Load a checkpoint. Returns its metadata, and the network in eval mode on the CPU.

    Raises:
        MissingError: the file does not exist. DataError: the file is not an edgekit checkpoint, or damaged.
        StorageError: the file cannot be read, or a newer edgekit wrote it.
    """
    if not path.is_file():
        raise MissingError(f"{path} does not exist", "edgekit train DATA --model efficientnet_lite0")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or content["format"] != FORMAT:
            raise KeyError("format")
        schema, arch, labels = content["schema"], content["arch"], tuple(content["labels"])
        if not isinstance(schema, int) or not isinstance(arch, str) or not all(isinstance(n, str) for n in labels):
            raise TypeError("its format, network or class names are not what edgekit writes")
    except Exception as error:  # torch.load raises many kinds of errors for damaged files
        raise_if_not_damage(error, path)
        raise _damaged(path, error) from error
    if schema > SCHEMA:
        raise StorageError(f"{path} was written by a newer edgekit (format {schema})", "upgrade edgekit")
    try:
        preprocess = from_table(Preprocess.with_schema(content["preprocess"]), Preprocess, str(path))
        hidden = content.get("hidden", 0)  # absent in older files
        if type(hidden) is not int or not 0 <= hidden <= MOST_HIDDEN:
            raise TypeError(f"the width of the hidden layer is {hidden!r}")
        if schema == 1:
            model = build.build(arch, len(labels), preprocess.image_size, hidden)
            build.load_state(model, content["state_dict"])
        elif (kept := content.get("onnx")) is not None:
            model = _kept_onnx(kept, content["state_dict"])
        else:
            model = program.from_document(content["program"], content["state_dict"])
    except (AssertionError, AttributeError, KeyError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        raise_if_not_damage(error, path)
        raise _damaged(path, error) from error
    return Checkpoint(path, arch, labels, preprocess, files.sha256_file(path), hidden), model.eval()


def _kept_onnx(entry: dict[str, Any], state: dict[str, torch.Tensor]) -> OnnxModule:
    """Return the network of a run that keeps an ONNX file as it is."""
    content, problem = state["content"], entry["problem"]
    if not isinstance(problem, str) or not isinstance(content, torch.Tensor) or content.dtype != torch.uint8:
        raise TypeError("its ONNX file is not what edgekit writes")
    return OnnxModule(content, problem, bool(entry["one_by_one"]))


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} is no edgekit checkpoint, or is damaged: {visible(weights_file.first_line(error))}",
        "restore it from a copy of the run, or train again",
    )
