"""Drawing with matplotlib: SVG that takes the colours of the page, and text that cannot harm it."""

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

# Paul Tol's bright scheme: told apart with every kind of colour vision, on light and on dark.
BLUE, YELLOW, RED, GREEN, PURPLE = "#4477aa", "#ccaa22", "#ee6677", "#228833", "#aa3377"
# Drawn in this colour, shown in the page's text colour.
INK = "#010203"
# Looked for, in this order, for what DejaVu Sans cannot write. Colour emoji fonts cannot be drawn.
_FAMILIES = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Microsoft YaHei", "PingFang SC", "Hiragino Sans",
    "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Emoji", "Arial Unicode MS",
)  # fmt: skip


@contextmanager
def drawing(width: float, height: float, ink: str = INK) -> Iterator[Any]:
    """Yield an empty matplotlib figure of `width` x `height` inches; save it inside the context.

    Text is never read as mathematics, and a character that no font has brings no warning.
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
    """The figure as an ``<svg>`` element in the page's colours; `described` is what it is called there."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg = _own_ids(re.sub(r'<g id="[^"]*">', "<g>", svg))
    # The browser has fonts for every script; matplotlib names those that it measured with.
    svg = re.sub(r"(font: [^;\"]*?px|font-family:) '[^;\"]*", r"\1 system-ui, sans-serif", svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(described)}" ', 1)
    return svg.replace(">", f"><title>{escape(described)}</title>", 1)


def _own_ids(svg: str) -> str:
    """The element with ids that no other picture of a page has; the same picture gets the same ones."""
    prefix = "s" + hashlib.sha256(svg.encode()).hexdigest()[:8] + "-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", svg)


def to_png(figure: Any) -> bytes:
    """The figure as PNG on white, 100 pixels an inch."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100, facecolor="white", metadata={"Software": None})
    return out.getvalue()


def standalone(svg: str) -> str:
    """An SVG file of its own: dark on white, wherever it is opened."""
    return svg.replace("<svg ", '<svg style="color: #1c2024; background: #fff" ', 1)


def shortened(text: str, width: int) -> str:
    """`text` in at most `width` columns (wide characters take two), its end replaced by an ellipsis."""
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
