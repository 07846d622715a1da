"""Checks of class names: safe in file names, terminals and pages, and distinct on every file system."""

from __future__ import annotations

import unicodedata
from collections import Counter

from edgekit.errors import DataError


def visible(text: str) -> str:
    """Return `text` with everything unprintable (line ends, terminal controls) as escape sequences."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def check_label(name: str) -> str:
    """Return `name` if it is safe in a file name, a terminal and (escaped) a page.

    Raises:
        DataError: it is empty, has over 100 characters, a path separator or control characters, or starts with ``..``.
    """
    bad = [c for c in name if c in "/\\" or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    if not name.strip() or len(name) > 100 or bad or name.startswith(".."):
        raise DataError(
            f"the class name {name!r} cannot be used",
            "class names are 1 to 100 printable characters without '/', '\\' or a leading '..'; rename the folder",
        )
    return name


def check_labels(labels: tuple[str, ...]) -> None:
    """Check the class names of one model.

    Raises:
        DataError: there are fewer than two, one is not safe, or two differ only in case or Unicode composition.
    """
    for name in labels:
        check_label(name)
    if len(labels) < 2:
        raise DataError(
            f"only one class found: {labels[0]!r}" if labels else "no classes found",
            "a classifier needs at least two class folders, each with images",
        )
    folded = Counter(unicodedata.normalize("NFC", name).casefold() for name in labels)
    clashes = [n for n in labels if folded[unicodedata.normalize("NFC", n).casefold()] > 1]
    if clashes:
        raise DataError(
            f"class names that differ only in case: {', '.join(map(repr, clashes))}",
            "they would collide on phones, macOS and Windows; rename or merge the folders",
        )


def printable(text: str) -> str:
    """Return `text` of several lines with control characters, which could control the terminal, escaped."""
    return "\n".join(visible(line) for line in text.split("\n"))
