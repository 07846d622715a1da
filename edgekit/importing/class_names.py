"""Names of the classes of an imported network, in the order of its logits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.errors import DataError, MissingError, UsageError, from_os_error
from edgekit.labels import check_labels, visible

IMAGENET = "imagenet"
_HOW = "labels.txt has the name of one class a line, in the order of the network's outputs"


def read(given: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Return the labels that a user gave: a list, ``"imagenet"``, or a file.

    A text file has one label a line. A JSON file has a list, an object of index -> name, or a configuration of
    transformers with ``id2label``.

    Raises:
        MissingError: there is no such file. DataError: it holds no labels, or labels that cannot be used.
    """
    if isinstance(given, str | Path):
        labels = imagenet() if str(given) == IMAGENET and not Path(given).is_file() else _from_file(Path(given))
    else:
        labels = tuple(given)
        if wrong := [name for name in labels if not isinstance(name, str)]:
            raise UsageError(f"labels must be names, not {wrong[0]!r}", 'labels=["cat", "dog"]')
    check_labels(labels)
    return labels


def _from_file(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise MissingError(f"there is no file {str(path)!r}", _HOW)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text", _HOW) from error
    except OSError as error:
        raise from_os_error(error, f"reading {path}") from error
    if path.suffix.lower() == ".json":
        return _from_json(path, text)
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"{path} is empty", _HOW)
    if "" in lines:
        raise DataError(f"line {lines.index('') + 1} of {path} is empty, so it names no class", _HOW)
    return tuple(lines)


def _from_json(path: Path, text: str) -> tuple[str, ...]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}", _HOW) from error
    if isinstance(found, Mapping):
        found = found.get("id2label", found.get("label_names", found))
    names = _by_index(found) if isinstance(found, Mapping) else found
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f'{path} is neither a list of names nor an object such as {{"0": "cat", "1": "dog"}}', _HOW)
    return tuple(names)


def _by_index(found: Mapping[str, Any]) -> list[Any] | None:
    """Return the names of an object of index -> name, or of name -> index as torchvision's ``class_to_idx``."""
    if found and all(type(value) is int for value in found.values()):
        found = {str(value): key for key, value in found.items()}
    if sorted(found) != sorted(map(str, range(len(found)))):
        return None
    return [found[str(n)] for n in range(len(found))]


def imagenet() -> tuple[str, ...]:
    """Return the names of ImageNet's 1000 classes, as torchvision has them; of equal ones the later is numbered."""
    from torchvision.models import ResNet18_Weights

    seen: set[str] = set()
    names = []
    for number, name in enumerate(ResNet18_Weights.IMAGENET1K_V1.meta["categories"]):
        plain = name.replace("/", " ")
        names.append(f"{plain} ({number})" if plain.casefold() in seen else plain)
        seen.add(plain.casefold())
    return tuple(names)


def check_count(labels: Sequence[str], classes: int, what: str) -> None:
    """Check that there is a label for every output.

    Args:
        what: what has these outputs, for the message, such as "fc.weight (5, 512)".

    Raises:
        DataError: there are more, or fewer.
    """
    if len(labels) != classes:
        ends = f"{visible(labels[0])} ... {visible(labels[-1])}" if labels else "none"
        raise DataError(f"{len(labels)} labels ({ends}) for {classes} classes: {what}", _HOW)


def missing(classes: int, what: str) -> UsageError:
    """Return the error for a network without labels."""
    also = ", or use --labels imagenet if they are ImageNet's" if classes == 1000 else ""
    return UsageError(
        f"{what} has {classes} classes, and nothing names them",
        f"--labels labels.txt: a file with the {classes} names, one a line, in the order of the network's outputs; "
        "torchvision's ImageFolder and most trainers sort the names of the class folders"
        f"{also}",
    )
