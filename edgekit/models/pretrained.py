"""Pretrained weights of torchvision and timm: from a package, a cache folder, or downloaded into it."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import threading
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch

from edgekit.errors import EdgekitError, MissingError, UsageError, from_os_error, is_out_of_memory, out_of_memory
from edgekit.labels import visible
from edgekit.models import catalog, weights_file
from edgekit.models.model_row import ModelRow, resolve
from edgekit.models.weights_file import Tensors, first_line

# Errors of the disk, not of the network, during a download.
_LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
_PATIENCE_S = 5.0
_OTHERS = "--weights FILE (a state dict), or --weights none (random weights)"


def check(arch: str, row: ModelRow) -> None:
    """Check that there are pretrained weights of a network.

    Raises:
        UsageError: there are none.
    """
    if not row.weights:
        raise UsageError(f"there are no pretrained weights of {arch}", f"use {_OTHERS}")


def state(arch: str, row: ModelRow, image_size: int | None = None) -> Tensors:
    """Return the pretrained weights of a network.

    Args:
        image_size: of the network, in pixels; None for the native one. timm interpolates position embeddings to it.
    Raises:
        UsageError: there are none. MissingError: they are in no package or cache, and could not be downloaded.
        StorageError: they could not be written to the cache.
    """
    check(arch, row)
    if arch.startswith(catalog.TIMM):
        return _from_timm(arch, row, image_size)
    source = resolve(row.weights)
    if callable(source):
        if not isinstance(source, type):
            return dict(source())
        source = source.IMAGENET1K_V1  # type: ignore[attr-defined]
    from urllib.error import URLError

    try:
        return dict(source.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:  # RuntimeError: wrong hash
        _raise_if_local(error, f"downloading the ImageNet weights of {arch}")
        raise MissingError(
            f"the ImageNet weights of {arch} could not be downloaded ({error})",
            f"without a network connection, use --model efficientnet_lite0 (its weights are a pip package), {_OTHERS}",
        ) from error


def _from_timm(arch: str, row: ModelRow, image_size: int | None) -> Tensors:
    """Return the weights that timm offers, from the cache of Hugging Face or downloaded into it."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its warnings repeat the error
    try:
        path = _downloaded(arch)
        overlay = {"pretrained_cfg_overlay": {"state_dict": weights_file.load(path, ())}} if path else {}
        return dict(_built(row, image_size, pretrained=True, **overlay).state_dict())
    except Exception as error:  # of timm, huggingface_hub, its HTTP client or urllib
        if isinstance(error, EdgekitError):
            raise
        _raise_if_local(error, f"downloading the weights of {arch}")
        get = f"download {row.weights}" if "://" in row.weights else f"hf download {row.weights}"
        raise MissingError(
            f"the weights of {arch} are not in {_cache()}, and not to be had: {visible(first_line(error))[:200]}",
            f"where there is a network connection: {get}   Then copy the file (model.safetensors) here and use "
            "--weights FILE, or copy the cache. Or use --weights none (random weights)",
        ) from error


def _downloaded(arch: str) -> Path | None:
    """Return the file with the weights of a network of timm; None: timm has a way of its own.

    A file in the cache is taken without asking the network for a newer one.

    Raises:
        OSError: the network cannot be reached, within seconds.
    """
    repository, names = catalog.hub_files(arch)
    if not repository:
        return None
    hub: Any = import_module("huggingface_hub")
    repository, _, revision = repository.partition("@")
    where = {"repo_id": repository, "revision": revision or None}
    for name in names:
        if isinstance(found := hub.try_to_load_from_cache(filename=name, **where), str):
            return Path(found)
    _check_network(hub.constants)
    for name in names:
        try:
            return Path(hub.hf_hub_download(filename=name, **where))
        except hub.errors.LocalEntryNotFoundError:  # of the network
            raise
        except hub.errors.EntryNotFoundError:
            continue
    raise OSError(f"{repository} has no {' or '.join(names)}")


def _check_network(constants: Any) -> None:
    """Check that the address of the hub can be looked up; a resolver without a network may take a minute.

    Raises:
        OSError: it cannot, or huggingface_hub was told to stay offline.
    """
    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    if getproxies():
        return  # which look it up
    host = urlsplit(constants.ENDPOINT).hostname or ""
    found: list[Any] = []

    def look() -> None:
        with contextlib.suppress(OSError):
            found.extend(socket.getaddrinfo(host, 443))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(_PATIENCE_S)
    if not found:
        raise OSError(f"no network connection to {host}")


def fitted(row: ModelRow, given: Tensors, own: Tensors, image_size: int | None = None) -> Tensors:
    """Return the tensors of a file as timm's network `row` has them, if timm can turn them into that.

    timm renames those of files from before it took a network over, and interpolates position embeddings.

    Args:
        own: tensors of the network. image_size: as for `state`.
    """
    body = {name: value for name, value in given.items() if not name.startswith(row.heads)}
    if all(name in own and own[name].shape == value.shape for name, value in body.items()):
        return given
    head = given.get(f"{row.head}.weight")
    classes = {"num_classes": len(head)} if isinstance(head, torch.Tensor) and head.ndim else {}
    overlay = {"state_dict": dict(given), "label_offset": None, **classes}
    try:
        return dict(_built(row, image_size, pretrained=True, pretrained_cfg_overlay=overlay, **classes).state_dict())
    except Exception as error:  # of another network: the caller tells which names do not fit
        if is_out_of_memory(error):
            raise out_of_memory("reading weights") from error
        return given


def _built(row: ModelRow, image_size: int | None, **more: Any) -> Any:
    assert callable(row.builder)
    return row.builder(**({"image_size": image_size} if row.sized and image_size else {}), **more)


def _cache() -> str:
    """Return the folder in which huggingface_hub looks for files."""
    try:
        return str(import_module("huggingface_hub.constants").HF_HUB_CACHE)
    except ImportError:
        return "the Hugging Face cache"


def _raise_if_local(error: Exception, doing: str) -> None:
    """Raise the error of the disk or the memory; return if it is one of the network.

    Raises:
        StorageError: of the disk. EdgekitError: memory ran out.
    """
    if isinstance(error, OSError) and error.errno in _LOCAL:
        raise from_os_error(error, doing) from error
    if is_out_of_memory(error):
        raise out_of_memory(doing) from error
