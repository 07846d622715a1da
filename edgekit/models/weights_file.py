"""Weights in files as trainers leave them: read without running code, unwrapped, under the names of a network."""

from __future__ import annotations

import pickle
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from edgekit.errors import DataError, UsageError, missing_package, raise_if_not_damage
from edgekit.labels import visible

Tensors = dict[str, Any]
# Entries of a checkpoint that hold the weights; averaged ones first, as timm takes them.
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
ENTRIES = (*_AVERAGED, "state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
_WHOLE = "a module that was saved whole"
_MOST_WRAPPED = 4  # levels
_MOST_NAMED = 2
# Modules whose functions no checkpoint needs: a file that calls one of them was made to attack.
_HOSTILE = {
    *(
        "os",
        "posix",
        "nt",
        "subprocess",
        "shutil",
        "socket",
        "sys",
        "runpy",
        "importlib",
        "ctypes",
        "pty",
        "webbrowser",
    ),
    *("builtins.eval", "builtins.exec", "builtins.compile", "builtins.open", "builtins.__import__"),
}
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_HINT = "use a state dict in .pt, .pth or .safetensors: torch.save(model.state_dict(), FILE)"
# Remedy for weights of another network.
FITS = "choose the network that they are of with --model, or use --weights pretrained"


class _Inert:
    """Stands for an object of any class in a checkpoint, such as its arguments; no code of the class runs."""

    def __new__(cls, *ignored: Any, **also: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *ignored: Any, **also: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, without codes that color the terminal; the class if it has no text."""
    lines = _ESCAPES.sub("", str(error)).splitlines()
    return next((line for line in lines if line.strip()), "it ends too early")


def read(path: Path) -> Any:
    """Return the contents of a .pt, .pth, .ckpt or .safetensors file; objects that are no plain values are inert.

    Raises:
        DataError: it is no such file, or damaged. MissingError: it does not exist, or a package is not installed.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol
            return _torch_load(path)
    except ImportError:
        raise missing_package("safetensors", f"reading {path.name}", "litert") from None
    except Exception as error:  # torch.load raises many kinds of errors for damaged files
        raise_if_not_damage(error, path)
        raise DataError(f"{path} is no weights file: {first_line(error)}", _HINT) from error


def _torch_load(path: Path) -> Any:
    """Return the contents of a file of torch; other objects than tensors and plain values are inert."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if not foreign:
            raise
    if hostile := sorted(name for name in foreign if {name, name.partition(".")[0]} & _HOSTILE):
        raise DataError(
            f"{path} is refused: unpickling it would call {visible(hostile[0])}, which no weights file needs; nothing "
            "was run",
            "use a file from a source that you trust, as .safetensors if there is one",
        )
    with torch.serialization.safe_globals([(_Inert, name) for name in foreign]):
        return torch.load(path, map_location="cpu", weights_only=True)


def load(
    path: Path, own: Collection[str], say: Callable[[str], None] = lambda text: None, entry: str | None = None
) -> Tensors:
    """Return the tensors of a weights file, under the names of a network as far as a common prefix hides them.

    Args:
        own: names of the network's tensors. say: called with one sentence if the weights were wrapped.
        entry: entry of the checkpoint that holds the weights; None: averaged ones first.

    Raises:
        DataError: the file holds no tensors by name, or as for `read`. UsageError: there is no such entry.
    """
    return named(read(path), path, own, say, entry)


def named(
    content: Any,
    path: Path,
    own: Collection[str],
    say: Callable[[str], None] = lambda text: None,
    entry: str | None = None,
) -> Tensors:
    """Return what `load` does, from what `read` returned."""
    others: list[str] = []
    if entry is not None:
        content = _entry(content, entry, path)
    state, inside = _unwrap(content, others)
    inside = inside if entry is None else [entry, *inside]
    if state is None:
        raise DataError(f"{path} is no weights file: it holds no tensors by name", _HINT)
    plain = {name.replace("_orig_mod.", ""): value for name, value in state.items()}
    prefix = _prefix(plain, own)
    kept = {name[len(prefix) :]: value for name, value in plain.items() if name.startswith(prefix)}
    keys = [visible(key) for key in inside if key is not _WHOLE]
    taken = [f"the entry {' > '.join(map(repr, keys))}"] if keys and keys != ["state_dict"] else []
    taken += [f"not {' or '.join(repr(visible(key)) for key in others)} beside it"] if others else []
    taken += [_WHOLE] if _WHOLE in inside else []
    taken += [f"without the prefix {visible(prefix)!r}"] if prefix else []
    if len(plain) < len(state) or plain.keys() != state.keys():
        taken += ["without '_orig_mod.'"]
    if left := [name for name in plain if not name.startswith(prefix)]:
        taken += [f"without {len(left)} other tensors ({_named(left)})"]
    if taken:
        say(f"weights of {path.name}: {', '.join(taken)}")
    return kept


def _entry(content: Any, entry: str, path: Path) -> Any:
    """Return one entry of a checkpoint.

    Raises:
        UsageError: it does not have it.
    """
    if isinstance(content, Mapping) and isinstance(content.get(entry), Mapping | _Inert):
        return content[entry]
    held = [k for k, v in content.items() if isinstance(v, Mapping | _Inert)] if isinstance(content, Mapping) else []
    known = ", ".join(visible(str(key)) for key in held) or "none, only tensors"
    raise UsageError(f"{path.name} has no entry {entry!r} with weights", f"its entries: {known}")


def _unwrap(content: Any, others: list[str]) -> tuple[Tensors | None, list[str]]:
    """Return the state dict inside a checkpoint, None if there is none, and the entries that lead to it.

    Args:
        others: filled with the names of entries beside them that hold weights too.
    """
    inside: list[str] = []
    for _ in range(_MOST_WRAPPED):
        if isinstance(content, _Inert):
            return _of_module(content) or None, [*inside, _WHOLE]
        if not isinstance(content, Mapping):
            break
        tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
        held = [k for k, v in content.items() if isinstance(k, str) and isinstance(v, Mapping | _Inert) and v]
        key = next((k for k in ENTRIES if k in held), None)
        if key is None and not tensors:
            sound = [k for k in held if isinstance(content[k], Mapping) and _all_tensors(content[k])]
            key = next((k for k in (sound, held) if len(k) == 1), [None])[0]
        if key is None:
            return (tensors or None) if len(tensors) == len(content) or _is_named(tensors) else None, inside
        others += [k for k in held if k != key and (k in ENTRIES or k.endswith("ema"))]
        inside.append(key)
        content = content[key]
    return None, inside


def holds_module(content: Any) -> bool:
    """Return True if a file holds a module that was saved whole, itself or in one of the `ENTRIES`."""
    held = [content, *(content.get(key) for key in ENTRIES)] if isinstance(content, Mapping) else [content]
    return any(isinstance(each, _Inert) and "_modules" in vars(each) for each in held)


def _all_tensors(values: Mapping[Any, Any]) -> bool:
    return all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in values.items())


def _is_named(tensors: Tensors) -> bool:
    """Return True if most names are those of parameters in modules."""
    return sum("." in name for name in tensors) > len(tensors) / 2


def _of_module(module: _Inert, prefix: str = "", depth: int = 0) -> Tensors:
    """Return the tensors of a module that was saved whole, and of those inside it."""
    found: Tensors = {}
    fields = vars(module)
    for group in ("_parameters", "_buffers"):
        values = fields.get(group)
        for name, value in values.items() if isinstance(values, Mapping) else ():
            if isinstance(value, torch.Tensor):
                found[f"{prefix}{name}"] = value.detach()
    inner = fields.get("_modules")
    for name, value in inner.items() if isinstance(inner, Mapping) and depth < 20 else ():
        if isinstance(value, _Inert):
            found.update(_of_module(value, f"{prefix}{name}.", depth + 1))
    return found


def _prefix(state: Tensors, own: Collection[str]) -> str:
    """Return the prefix, such as ``module.``, without which most names are those of the network; the shortest one."""
    known = set(own)
    hits: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for cut in range(min(len(parts), _MOST_WRAPPED + 1)):
            if ".".join(parts[cut:]) in known:
                hits["".join(f"{part}." for part in parts[:cut])] += 1
    return min(hits, key=lambda prefix: (-hits[prefix], len(prefix)), default="")


def check(missing: list[str], unknown: list[str], arch: str) -> None:
    """Check that a network got all of its tensors, and no others.

    Raises:
        DataError: it did not; the message names two of either kind.
    """
    parts = [
        f"{len(names)} of {whose} are {what} ({_named(names)})"
        for whose, what, names in (("its tensors", "missing", missing), ("the file", "unknown", unknown))
        if names
    ]
    if parts:
        raise DataError(f"these weights do not fit {arch}: {' and '.join(parts)}", FITS)


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(visible(name)[:100] for name in names[:_MOST_NAMED]) + more
