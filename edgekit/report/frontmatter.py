"""YAML front matter: mappings, lists, text and figures, written so that every reader takes text for text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def dump(value: Mapping[str, object]) -> str:
    """``---``, the mapping in block style, ``---``.

    Text stands in double quotes with everything but printable ASCII escaped (YAML 1.2.2, sections 5.7 and 7.3.1).
    """
    return "\n".join(["---", *_lines(value, ""), "---", ""])


def _lines(value: object, indent: str) -> list[str]:
    lines: list[str] = []
    if isinstance(value, Mapping):
        for key, inner in value.items():
            name = key if key.replace("-", "").replace("_", "").isalnum() else _scalar(str(key))
            lines += _entry(f"{indent}{name}:", inner, indent)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            below = _lines(inner, indent + "  ")
            simple = not isinstance(inner, Mapping)
            first = f"{indent}- {_scalar(inner)}" if simple else f"{indent}- {below[0].lstrip()}"
            lines += [first, *([] if simple else below[1:])]
    return lines


def _entry(start: str, inner: object, indent: str) -> list[str]:
    nested = isinstance(inner, Mapping | Sequence) and not isinstance(inner, str)
    return [start, *_lines(inner, indent + "  ")] if nested else [f"{start} {_scalar(inner)}"]


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    whole = str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # lone surrogates are no text
    return '"' + "".join(map(_escaped, whole)) + '"'


def _escaped(character: str) -> str:
    code = ord(character)
    if character in '"\\':
        return f"\\{character}"
    if 32 <= code < 127:
        return character
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
