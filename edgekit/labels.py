"""Checks of class names: safe in file names, terminals and pages, and distinct on every file system."""

from __future__ import annotations

import unicodedata

from edgekit.errors import DataError

_JOINERS = "\u200c\u200d"  # of Persian and Indic spelling, and of emoji


def visible(text: str) -> str:
    """Return `text` with everything unprintable (line ends, terminal controls) as escape sequences.

    Joiners between letters that are spelled with them stay, as in class names.
    """
    return "".join(c if c.isprintable() or _joins(text, at) else repr(c)[1:-1] for at, c in enumerate(text))


def check_label(name: str) -> str:
    """Return `name` if it is safe in a file name, a terminal and (escaped) a page.

    Joiners (U+200C, U+200D) between letters of other scripts than Latin are ordinary spelling.

    Raises:
        DataError: it is empty, has over 100 characters, a path separator or control characters, or starts with ``..``.
    """
    if why := _problem(name):
        raise DataError(
            f"the class name {name!r} cannot be used: {why}",
            "class names are 1 to 100 printable characters without '/', '\\' or a leading '..'; rename the folder",
        )
    return name


def _problem(name: str) -> str:
    if not name.strip():
        return "it is empty"
    if len(name) > 100:
        return f"it has {len(name)} characters"
    if name.startswith(".."):
        return "it begins with '..'"
    for at, c in enumerate(name):
        if c in "/\\":
            return f"it contains {c!r}"
        if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and not _joins(name, at):
            called = unicodedata.name(c, "a control character")
            return f"it contains U+{ord(c):04X} ({called}), which cannot be seen"
    return ""


def _joins(name: str, at: int) -> bool:
    """Return True for a joiner between characters of a script that is spelled with joiners."""
    return name[at] in _JOINERS and 0 < at < len(name) - 1 and min(name[at - 1], name[at + 1]) > "\u02ff"


def check_labels(labels: tuple[str, ...]) -> None:
    """Check the class names of one model.

    Raises:
        DataError: there are fewer than two, one is not safe, or two differ only in case, in Unicode
            composition, or in what cannot be seen.
    """
    for name in labels:
        check_label(name)
    if len(labels) < 2:
        raise DataError(
            f"only one class found: {labels[0]!r}" if labels else "no classes found",
            "a classifier needs at least two class folders, each with images",
        )
    forms: dict[str, list[str]] = {}
    for name in labels:
        forms.setdefault(_looks(name), []).append(name)
    for clash in forms.values():
        if len(clash) > 1:
            raise DataError(
                f"class names that differ only in {_difference(clash)}: {', '.join(map(repr, clash))}",
                "they would be the same on phones, macOS or Windows, or to the eye; rename or merge the folders",
            )


def _looks(name: str) -> str:
    """Return what names have in common that look alike: without case, composition, joiners and extra blanks."""
    shown = "".join(c for c in unicodedata.normalize("NFC", name) if c not in _JOINERS)
    return unicodedata.normalize("NFC", " ".join(shown.casefold().split()))


def _difference(names: list[str]) -> str:
    """Return in words what is different between names that look alike."""
    composed = [unicodedata.normalize("NFC", name) for name in names]
    if len(set(composed)) == 1:
        return "their Unicode form"
    bare = [" ".join(name.split()) for name in composed]
    if len(set(bare)) == 1:
        return "blanks"
    folded = {name.casefold() for name in bare}
    return "case" if len(folded) == 1 else "characters that cannot be seen"


def printable(text: str) -> str:
    """Return `text` of several lines with control characters, which could control the terminal, escaped."""
    return "\n".join(visible(line) for line in text.split("\n"))
