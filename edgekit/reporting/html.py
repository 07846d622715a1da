"""One self-contained page: no script, nothing fetched, every name escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit import __version__, files
from edgekit.labels import visible
from edgekit.measurements import Summary
from edgekit.reporting import changes, charts, decide, figures, layers, provenance, svg, tables, trained
from edgekit.reporting.changes import KINDS, Change, pictured
from edgekit.reporting.decide import Decision
from edgekit.reporting.material import Material
from edgekit.reporting.privacy import public
from edgekit.scores import Evaluation

_TEMPLATES = Path(__file__).with_name("templates")
# Up to this many classes, their table is unfolded. So many devices have a card, so many models their layers.
_MOST_UNFOLDED, _MOST_CARDS, _MOST_LAYERS = 40, 12, 6
# So many characters fit beside each other on a phone, at least; from so many on a word is broken.
_PHONE, _FOLDED = 36, 44


def page(material: Material) -> str:
    """The report of one run as HTML; sections that have nothing to show say what brings it, or are left out."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    material = public(material)

    jinja = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FileSystemLoader(_TEMPLATES),
        finalize=_visible,
    )
    jinja.globals.update(few=figures.FEW)
    jinja.filters.update(
        kind=_kind, bar=tables.length, short=_short, scrolls=_scrolls, facts=lambda d: _facts(d, material.rows)
    )
    parts = {**_measured(material), **_known(material)}
    sections = [(name, title) for name, title, there in _sections(material, parts) if there]
    return jinja.get_template("page.html.j2").render(
        run=material.run,
        meta=material.run.info.plain(),
        version=__version__,
        now=files.now(),
        sections=sections,
        **parts,
    )


def address(picture: bytes) -> str:
    """A picture as a ``data:`` address; what is no PNG is called JPEG."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _sections(material: Material, parts: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """(name, which is that of its template; title; whether there is anything to show)."""
    drawn = parts["drawn"]
    return [
        ("verdict", "Verdict", True),
        ("pareto", "Accuracy and latency", parts["pareto"]),
        ("figures", "Figures", material.rows),
        ("latency", "Latency", parts["ecdf"]),
        ("size", "Size and energy", material.rows),
        ("changes", "What quantization changed", material.changes),
        ("layers", "Layer by layer", parts["layers"] or material.layers_left),
        ("training", "Training", material.run.info.plain()["history"]),
        ("data", "Data", "classes.svg" in drawn or "samples.png" in drawn),
        ("test", "Test results", True),
        ("reproduce", "How to reproduce", True),
        ("lineage", "Lineage", True),
    ]


def _measured(material: Material) -> dict[str, Any]:
    """What the page says of measurements."""
    from markupsafe import Markup

    rows, results, decisions = material.rows, material.results, material.decisions
    boards = [tables.board_cells(row) for row in rows if tables.is_board(row)]
    said = [tables.program_cells(result) for result in material.programs]
    shown = list(material.layers.items())
    return {
        "rows": rows,
        "decisions": decisions,
        "most_cards": _MOST_CARDS,
        "verdict_rest": figures.verdict(decisions[_MOST_CARDS:]),
        "rule": decide.rule(material.gates),
        # Our own SVG, in which every name is escaped.
        "pareto": Markup(charts.accuracy_latency(rows)) if any(row.p50_ms for row in rows) else "",  # noqa: S704
        "pareto_says": charts.accuracy_latency_text(rows),
        "figures": figures.table(rows) if rows else None,
        "more": figures.more(rows) if rows else None,
        "boards": tables.board_table(boards, rows) if boards else None,
        "programs": tables.program_table(said, material.programs) if said else None,
        "ecdf": Markup(charts.ecdf(results, rows)),  # noqa: S704
        "ecdf_says": charts.distributions_text(results, rows),
        "percentiles": charts.percentiles(results, rows),
        "size": Markup(charts.bars(rows, "size")),  # noqa: S704
        "energy_chart": Markup(charts.bars(rows, "energy")),  # noqa: S704
        "energy": charts.energy_table(rows) if charts.energies(rows) else None,
        "no_energy": list(dict.fromkeys(f"{row.device}: {row.no_energy}" for row in rows if row.no_energy)),
        "changed": changes_section(material, address),
        "no_images": material.no_images,
        "layers": [
            {
                "title": title,
                "every": layers.every(title, found),
                "blocks": layers.table(title, found, material.layer_notes.get(title, ())),
            }
            for title, found in shown[:_MOST_LAYERS]
        ],
        "more_layers": max(0, len(shown) - _MOST_LAYERS),
        "layers_left": material.layers_left,
    }


def _known(material: Material) -> dict[str, Any]:
    """What the page says of training, data and origin."""
    from markupsafe import Markup

    meta, results, evaluation = material.run.info.plain(), material.results, material.evaluation
    # Our own SVG, and data: addresses.
    drawn = {name: Markup(p) if isinstance(p, str) else address(p) for name, p in material.drawn.items()}  # noqa: S704
    return {
        "drawn": drawn,
        "epochs": trained.epochs(meta["history"]),
        "counts": trained.counts(material.labels, material.counts) if material.counts else None,
        "evaluation": evaluation,
        "judged": _judged(evaluation) if evaluation else None,
        "training": provenance.training(material.run.name, meta),
        "commands": provenance.command_rows(material) if results else None,
        "machines": provenance.machines(results) if results else None,
        "hashes": provenance.hashes(results) if results else None,
        "lineage": provenance.lineage(material),
    }


def _judged(evaluation: Evaluation) -> dict[str, Any]:
    """What the page says of the test split."""
    test, labels = evaluation.splits["test"], evaluation.labels
    auroc = (f"{name.replace('_', ' ')} {value:.2f}" for name, value in test.error_auroc.items())
    return {
        "sentences": decide.training_verdicts(evaluation),
        "classes": trained.classes(evaluation),
        "pairs": trained.pairs(evaluation),
        "confusion": trained.confusion(evaluation),
        "calibrations": trained.calibrations(evaluation),
        "reliability": trained.reliability(evaluation),
        "auroc": ", ".join(auroc),
        "unfolded": len(labels) <= _MOST_UNFOLDED,
        "mistakes": [
            {"address": address(jpeg(pixels)), "label": labels[m.label], "said": labels[m.predicted],
             "sure": f"{100 * m.confidence:.0f}", "path": m.path}
            for pixels, m in zip(evaluation.raw["mistake_pixels"], evaluation.mistakes)
        ],
    }  # fmt: skip


def jpeg(pixels: Any, side: int | None = None) -> bytes:
    """uint8 (H, W, 3) pixels as JPEG, scaled down to `side`."""
    from PIL import Image

    image, out = Image.fromarray(pixels), io.BytesIO()
    if side is not None and max(image.size) > side:
        image = image.resize((side, side))
    image.save(out, "JPEG", quality=85 if side is None else 75)
    return out.getvalue()


def _facts(decision: Decision, rows: Sequence[Summary]) -> list[tuple[str, str]]:
    """What a card says in figures; what was not measured is left out."""
    row = decision.chosen
    assert row is not None
    lines = [
        ("top-1", f"{figures.top1(row)} %"),
        ("change", _change(row)),
        ("p50", _ms(figures.percentile(row, 50)) + (f", batch {row.batch}" if row.batch > 1 else "")),
        ("p90", _ms(figures.percentile(row, 90))),
        ("speed", figures.speed(row, rows)),
        ("size", f"{row.size_mb:.1f} MB"),
        ("energy", f"{tables.latency(row.gross_mj)} mJ per image" if row.gross_mj is not None else ""),
    ]
    return [(name, value) for name, value in lines if value]


def _change(row: Summary) -> str:
    interval = "" if row.drop_low is None or row.drop_high is None else (
        f" (drop {row.drop_low:+.1f} to {row.drop_high:+.1f})")  # fmt: skip
    points = f"{abs(row.drop):.1f} points {'worse' if row.drop > 0 else 'better'}" if abs(row.drop) >= 0.05 else "none"
    return f"{points}{interval}, {decide.shown(row)}"


def _ms(text: str) -> str:
    return text if text == figures.FEW else f"{text} ms"


def _kind(t: tables.Table, column: int) -> str:
    """The classes of a cell: figures stand to the right, what is wide is left out on a phone."""
    name = t.columns[column]
    marks = {"n": column >= t.left and name not in t.prose, "wide": name in t.wide, "long": name in t.prose}
    return " ".join(mark for mark, there in marks.items() if there)


def _scrolls(t: tables.Table) -> bool:
    """Whether the table may be wider than a phone: the keyboard must reach it then, and need not else."""
    lines = [t.columns, *t.rows]
    words = (max(len(word) for line in lines for word in _pieces(line[n], n < t.left)) for n in range(len(t.columns)))
    return bool(t.prose) or sum(min(width, _FOLDED) + 2 for width in words) > _PHONE


def _pieces(cell: str, text: bool) -> list[str]:
    """What a line does not break; a figure stands above its interval."""
    return (cell.split() if text else cell.split(" (")) or [""]


def _short(text: object, width: int) -> str:
    return svg.shortened(visible(str(text)), width)


def _visible(value: object) -> object:
    """No control character reaches the page, and no name fills it."""
    return value if type(value) is not str else visible(value)


# What the page says of changed answers: the most changed models, each with its classes, pairs and images.

MOST_ENTRIES = 6
_HEADINGS = dict(zip(KINDS, ("Broke: right before, wrong now", "Repaired: wrong before, right now", "Both wrong")))


def changes_section(material: Material, address: Callable[[bytes], str]) -> dict[str, Any]:
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
                "sentence": changes.sentence(change),
                # Our own SVG, in which every name is escaped.
                "picture": Markup(changes.picture(change, material.labels)),  # noqa: S704
                "classes": changes.class_table(change, material.labels),
                "pairs": changes.pair_table(change, material.labels),
                "images": [(_HEADINGS[kind], shown) for kind, shown in images.items() if shown],
            }
        )
    return {
        "summary": changes.summary_table(material.changes),
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
