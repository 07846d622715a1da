"""What the page says of changed answers: the most changed models, each with its classes, pairs and images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgekit.report import changetables
from edgekit.report.changes import KINDS, Change, pictured
from edgekit.report.material import Material

MOST_ENTRIES = 6
_HEADINGS = dict(zip(KINDS, ("Broke: right before, wrong now", "Repaired: wrong before, right now", "Both wrong")))


def section(material: Material, address: Callable[[bytes], str]) -> dict[str, Any]:
    """The summary, the entries, and how many are left out; ``address`` makes a picture part of the page."""
    from markupsafe import Markup

    moved = [change for change in material.changes if change.answers]
    chosen = pictured(moved[:MOST_ENTRIES])
    entries = []
    for n, change in enumerate(moved[:MOST_ENTRIES]):
        images = {kind: _images(material, change, kind, [a for m, a in chosen if m == n], address) for kind in KINDS}
        entries.append(
            {
                "title": f"{_name(change)}: {len(change.answers)} of {change.samples} answers changed",
                "sentence": changetables.sentence(change),
                # Our own SVG, in which every name is escaped.
                "picture": Markup(changetables.picture(change, material.labels)),  # noqa: S704
                "classes": changetables.classes(change, material.labels),
                "pairs": changetables.pairs(change, material.labels),
                "images": [(_HEADINGS[kind], shown) for kind, shown in images.items() if shown],
            }
        )
    return {
        "summary": changetables.summary(material.changes),
        "entries": entries,
        "left": max(0, len(moved) - MOST_ENTRIES),
    }


def _name(change: Change) -> str:
    return change.names[0] + (f" and {len(change.names) - 1} more" if len(change.names) > 1 else "")


def _images(
    material: Material, change: Change, kind: str, chosen: list[Any], address: Callable[[bytes], str]
) -> list[dict[str, str]]:
    labels = material.labels
    return [
        {
            "address": address(material.images[a.image].jpeg),
            "path": material.images[a.image].path,
            "label": labels[a.label],
            "before": labels[a.before],
            "after": labels[a.after],
            "sure_before": f"{100 * a.sure_before:.0f}",
            "sure": f"{100 * a.sure:.0f}",
        }
        for a in chosen
        if a.kind == kind and a.image in material.images
    ]
