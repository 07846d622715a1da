"""Drawing with matplotlib: SVG in the colours of the page, with text that cannot inject markup."""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from html import escape
from typing import Any

# Paul Tol's bright scheme: distinct for every kind of colour vision, on light and dark backgrounds.
BLUE, YELLOW, RED, GREEN, PURPLE = "#4477aa", "#ccaa22", "#ee6677", "#228833", "#aa3377"
# Placeholder for the text colour of the page.
INK = "#010203"
# Fallbacks for characters that DejaVu Sans lacks, in this order. matplotlib cannot draw colour emoji fonts.
_FAMILIES = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Microsoft YaHei", "PingFang SC", "Hiragino Sans",
    "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji", "Arial Unicode MS",
)  # fmt: skip


@contextmanager
def drawing(width: float, height: float, ink: str = INK) -> Iterator[Any]:
    """Yield an empty matplotlib figure of `width` x `height` inches; save it inside the context.

    Text is never parsed as mathematics, and characters that no font has cause no warning.
    """
    import matplotlib
    from matplotlib.figure import Figure

    style = {"svg.fonttype": "none", "svg.hashsalt": "edgekit", "text.parse_math": False, "axes.axisbelow": True}
    inks = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink)
    fonts = {"font.family": list(_families()), "font.size": 9, "axes.titlesize": 10, "legend.frameon": False}
    settings = {**style, **inks, **fonts, "grid.color": ink, "grid.alpha": 0.25}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield Figure(figsize=(width, height), layout="constrained")


def to_svg(figure: Any, described: str) -> str:
    """Return the figure as an ``<svg>`` element in the colours of the page; `described`: its accessible name."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg = _own_ids(re.sub(r'<g id="[^"]*">', "<g>", svg))
    # The browser has fonts for every script; matplotlib would name its own.
    svg = re.sub(r"(font: [^;\"]*?px|font-family:) '[^;\"]*", r"\1 system-ui, sans-serif", svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(described)}" ', 1)
    return svg.replace(">", f"><title>{escape(described)}</title>", 1)


def _own_ids(svg: str) -> str:
    """Return the element with ids that are unique on the page; equal pictures get equal ids."""
    prefix = "s" + hashlib.sha256(svg.encode()).hexdigest()[:8] + "-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", svg)


def to_png(figure: Any) -> bytes:
    """Return the figure as PNG on white, with 100 pixels per inch."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100, facecolor="white", metadata={"Software": None})
    return out.getvalue()


def standalone(svg: str) -> str:
    """Return the element as a file of its own, dark on white."""
    return svg.replace("<svg ", '<svg style="color: #1c2024; background: #fff" ', 1)


def shortened(text: str, width: int) -> str:
    """Return `text` in at most `width` columns (wide characters take two), with an ellipsis if it was cut."""
    total = 0
    for position, character in enumerate(text):
        columns = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        rest = text[position + 1 :]
        if total + columns > width or (total + columns == width and rest):
            return text[:position].rstrip() + "…"
        total += columns
    return text


@cache
def _families() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _FAMILIES if name in installed))
