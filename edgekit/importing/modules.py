"""Networks that are made by code of the user's: a module in memory, a factory, a module that was pickled whole."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import importlib.util
import inspect
import pickle
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from edgekit import files
from edgekit.errors import DataError, EdgekitError, MissingError, UsageError, is_out_of_memory, raise_if_not_damage
from edgekit.importing import state_dict
from edgekit.importing.network import Network
from edgekit.labels import visible
from edgekit.models import weights_file, zoo
from edgekit.runs import Source

_FACTORY = "edgekit import module.py:build --weights FILE, where build is a function that returns the network"
# Wrappers of a module -> the attribute that holds it.
_WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}


def from_memory(module: nn.Module, name: str | None = None) -> Network:
    """Return a copy of a module, float32 on the CPU in eval mode; the module stays as it is.

    Args:
        name: of the network; None: that of its class.

    Raises:
        DataError: it cannot be copied, or has weights that are not finite or not floating point.
    """
    notes: list[str] = []
    while (inner := _WRAPPERS.get(type(module).__name__)) and isinstance(getattr(module, inner, None), nn.Module):
        notes.append(f"the network inside of {type(module).__name__} is taken")
        module = getattr(module, inner)
    try:
        made = copy.deepcopy(module)
    except Exception as error:  # of the user's classes
        if is_out_of_memory(error):
            raise
        raise DataError(
            f"the network {type(module).__name__} cannot be copied: {visible(weights_file.first_line(error))}",
            "remove what is no parameter from it, such as weight_norm (torch.nn.utils.remove_weight_norm)",
        ) from error
    state = state_dict.in_float32(module.state_dict(), Path(type(module).__name__), notes.append)
    made = made.cpu().float().eval().requires_grad_(False)
    if any(not torch.isfinite(value).all() for value in state.values() if value.is_floating_point()):
        raise DataError("the network has weights that are NaN or infinite")
    return Network(
        made, _free(name or type(module).__name__), Source("module in memory", notes=tuple(notes)), program=True
    )


def _free(name: str) -> str:
    """Return a name for a network of the user's that no network of edgekit's has, and that fits into file names."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.") or "network"
    return f"{plain}-imported" if plain in zoo.MODELS else plain


def from_factory(
    target: str, weights: Path | None, labels: tuple[str, ...] | None = None, entry: str | None = None
) -> Network:
    """Call a factory of the user's, and fill its network with weights.

    Args:
        target: ``module.py:build`` or ``package.module:build``. It is called with ``num_classes=`` if it has such a
            parameter and there are labels.
        weights: file of a state dict; None: the factory loads them.
        entry: as in `weights_file.load`.

    Raises:
        MissingError: there is no such file or function. DataError: the code fails, returns no module, or the weights
            do not fit.
    """
    where, _, function = target.rpartition(":")
    if weights is not None and not weights.is_file():
        raise MissingError(f"there is no weights file {str(weights)!r}", _FACTORY)
    factory = getattr(_module(where), function, None)
    if not callable(factory):
        raise MissingError(f"{where} has no function {function!r}", _FACTORY)
    made = _run(lambda: factory(**_arguments(factory, labels)), f"{target}()")
    if not isinstance(made, nn.Module):
        raise DataError(f"{target}() returned {type(made).__name__}, not a torch.nn.Module", _FACTORY)
    notes: list[str] = []
    if weights is None:
        notes.append(f"no --weights: the weights are those that {target}() gave the network")
        source = Source("factory", target)
    else:
        name = f"the network of {target}"
        state = weights_file.load(weights, list(made.state_dict()), notes.append, entry)
        state_dict.fill(
            made.float(), state_dict.in_float32(state, weights, notes.append), weights, name, (), notes.append
        )
        source = Source(f"state dict for {target}", weights.name, files.sha256_file(weights))
    network = from_memory(made)
    notes += network.source.notes
    return dataclasses.replace(network, source=dataclasses.replace(source, notes=tuple(notes)))


def _arguments(factory: Callable[..., Any], labels: tuple[str, ...] | None) -> dict[str, int]:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return {}
    return {"num_classes": len(labels)} if labels and "num_classes" in parameters else {}


def _module(where: str) -> ModuleType:
    """Import the user's module, from a file or by its name."""
    if not where.endswith(".py"):
        sys.path.insert(0, "")
        try:
            found: ModuleType = _run(lambda: importlib.import_module(where), f"importing {where}")
            return found
        finally:
            sys.path.remove("")
    path = Path(where).resolve()
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise MissingError(f"there is no file {where!r}", _FACTORY)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # for modules beside it
    sys.modules.setdefault(path.stem, module)  # dataclasses look their module up
    try:
        _run(lambda: spec.loader.exec_module(module), f"running {where}")  # type: ignore[union-attr]
    finally:
        sys.path.remove(str(path.parent))
    return module


def _run(code: Callable[[], Any], doing: str) -> Any:
    """Run code of the user's; whatever it raises becomes one error that names the line."""
    try:
        return code()
    except (Exception, SystemExit) as error:
        if isinstance(error, EdgekitError) or is_out_of_memory(error):
            raise
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        line = f", {Path(at.tb_frame.f_code.co_filename).name} line {at.tb_lineno}" if at is not None else ""
        what = f"{type(error).__name__}: {visible(weights_file.first_line(error))}"
        raise DataError(f"{doing} failed: {what}{line}", "edgekit --debug import ... shows the traceback") from error


def from_pickle(path: Path, entry: str | None = None) -> nn.Module | None:
    """Unpickle a file that the user trusts, which runs the code that it names; return the module in it, or None.

    Raises:
        DataError: it cannot be unpickled.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # of the user's code
        raise_if_not_damage(error, path)
        missing = isinstance(error, ImportError | AttributeError | pickle.UnpicklingError)
        raise DataError(
            f"{path} cannot be unpickled: {type(error).__name__}: {visible(weights_file.first_line(error))}",
            "run the command where the code of the network can be imported (PYTHONPATH)" if missing else _FACTORY,
        ) from error
    return _module_in(content, entry)


def _module_in(content: Any, entry: str | None) -> nn.Module | None:
    if isinstance(content, nn.Module):
        return content
    if not isinstance(content, Mapping):
        return None
    if entry is not None and not isinstance(content.get(entry), nn.Module):
        raise UsageError(
            f"the file has no entry {entry!r} with a module", f"its entries: {', '.join(map(str, content))}"
        )
    keys = [entry] if entry is not None else [*weights_file.ENTRIES, *content]
    return next((content[key] for key in keys if isinstance(content.get(key), nn.Module)), None)
