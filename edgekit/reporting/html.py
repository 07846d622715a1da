"""The report as one HTML page: self-contained, without a script, with every name escaped."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import __version__, files
from edgekit.labels import visible
from edgekit.measurements import LayerFigures, Summary
from edgekit.reporting import changes, charts, decide, figures, layers, provenance, svg, tables, trained
from edgekit.reporting.changes import AnswerChange, Change, ChangeKind, shown_images
from edgekit.reporting.decide import Decision
from edgekit.reporting.material import Material
from edgekit.reporting.privacy import public
from edgekit.scores import Evaluation

_TEMPLATES = Path(__file__).with_name("templates")
_MOST_UNFOLDED = 40  # classes whose table is open at first
_MOST_CARDS = 12  # devices with a card
_OPEN, _PRINTED = ("verdict", "pareto", "figures"), ("test", "reproduce", "lineage")
_LEAST_TEXT, _USUAL_TEXT = 11, 13  # CSS pixels: of the smallest text of a chart; of its text where there is room
MOST_ENTRIES = 6  # sets of changed answers with tables and images
_PHONE, _FOLDED = 36, 44  # characters that fit beside each other on a phone; longest word that is not broken


@dataclass(frozen=True)
class Section:
    """A section of the page; `name`: its template and anchor; `teaser`: beside the title of a folded one."""

    name: str
    title: str
    teaser: str
    folded: bool
    printed: bool


def page(material: Material) -> str:
    """Return the report of one run as HTML, without the sections that have nothing to show."""
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
        kind=_kind,
        bar=tables.bar_percent,
        short=_short,
        scrolls=_scrolls,
        widths=_widths,
        facts=lambda d: _facts(d, material.rows),
    )
    parts = {**_measurement_values(material), **_run_values(material)}
    teasers = _teasers(material, parts)
    sections = [
        Section(name, title, teasers.get(name, ""), name not in _OPEN, name in _PRINTED)
        for name, title, there in _sections(material, parts)
        if there
    ]
    return jinja.get_template("page.html.j2").render(
        run=material.run,
        meta=material.run.info.plain(),
        version=__version__,
        now=files.now(),
        sections=sections,
        **parts,
    )


def data_url(picture: bytes) -> str:
    """Return a PNG or JPEG as a ``data:`` URL."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _sections(material: Material, parts: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """Return (name of the template, title, true if there is something to show) of every section."""
    drawn = parts["drawn"]
    return [
        ("verdict", "Recommendation", True),
        ("pareto", "Accuracy and latency", parts["pareto"]),
        ("figures", "Figures", material.rows),
        ("latency", "Latency", parts["ecdf"]),
        ("size", "Size and energy", material.rows),
        ("changes", "What quantization changed", material.changes),
        ("layers", "Layer by layer", parts["layers"] or material.layers_left),
        ("training", "Training", material.run.info.epochs),
        ("data", "Data", "classes.svg" in drawn or "samples.png" in drawn),
        ("test", "Test results", True),
        ("reproduce", "How to reproduce", True),
        ("lineage", "Lineage", True),
    ]


def _measurement_values(material: Material) -> dict[str, Any]:
    """Return the values of the templates that come from measurements."""
    from markupsafe import Markup

    rows, results, decisions = material.rows, material.results, material.decisions
    shown = _shown_layers(material)
    return {
        "rows": rows,
        "decisions": decisions,
        "most_cards": _MOST_CARDS,
        "verdict_rest": figures.verdict(decisions[_MOST_CARDS:]),
        "rule": decide.rule(material.gates),
        # SVG of edgekit, in which every name is escaped.
        "pareto": Markup(charts.accuracy_latency(rows)) if any(row.p50_ms for row in rows) else "",  # noqa: S704
        "pareto_text": charts.accuracy_latency_text(rows),
        "figures": figures.table(rows) if rows else None,
        "more": figures.more(rows) if rows else None,
        "boards": tables.board_table(rows) if any(map(tables.is_board, rows)) else None,
        "programs": tables.program_table(material.programs) if material.programs else None,
        "ecdf": Markup(charts.ecdf(results, rows)),  # noqa: S704
        "ecdf_text": charts.ecdf_text(results, rows),
        "percentiles": charts.percentiles(results, rows),
        "size": Markup(charts.size_chart(rows)),  # noqa: S704
        "energy_chart": Markup(charts.energy_chart(rows)),  # noqa: S704
        "energy": charts.energy_table(rows) if charts.energies(rows) else None,
        "no_energy": list(dict.fromkeys(f"{row.device}: {row.no_energy}" for row in rows if row.no_energy)),
        "changed": _changes_section(material),
        "no_images": material.no_images,
        "layers": [
            {
                "title": title,
                "every": layers.layer_table(title, found),
                "blocks": layers.block_table(title, found, material.layer_notes.get(title, ())),
            }
            for title, found in shown
        ],
        "more_layers": len(material.layers) - len(shown),
        "layers_left": material.layers_left,
    }


def _shown_layers(material: Material) -> list[tuple[str, Sequence[LayerFigures]]]:
    """Return the layers of what is shipped, or of the most important file if nothing is, and all from quant debug."""
    chosen = {(d.chosen.artifact, d.chosen.device) for d in material.decisions if d.chosen}
    timed = {
        layers.title(result, charts.row_of(result, material.rows)): (result.artifact.name, result.device) in chosen
        for result in material.results
        if result.layers
    }
    shipped = [title for title in material.layers if timed.get(title)]
    others = [title for title in material.layers if title not in timed]
    names = [*(shipped or list(material.layers)[:1]), *others]
    return [(title, found) for title, found in material.layers.items() if title in names]


def _teasers(material: Material, parts: Mapping[str, Any]) -> dict[str, str]:
    """Return what each folded section has, in a few words."""
    sizes, changed = [row.size_mb for row in material.rows], [len(c.answers) for c in material.changes]
    history, counts = material.run.info.epochs, material.counts
    scores = material.evaluation.splits["test"].scores if material.evaluation else None
    return {
        "latency": "distributions and percentiles",
        "size": f"{min(sizes):.1f} to {max(sizes):.1f} MB" if sizes else "",
        "changes": f"at most {max(changed)} of {material.changes[0].samples} answers" if changed else "",
        "layers": ", ".join(entry["title"] for entry in parts["layers"]),
        "training": f"{len(history)} epochs" if len(history) != 1 else "1 epoch",
        "data": f"{sum(map(sum, counts.values()))} images" if counts else "",
        "test": f"{scores.top1:.1f} % of {scores.samples} images right" if scores else "not evaluated",
        "reproduce": "commands and machines",
        "lineage": "data, weights, options, versions",
    }


def _widths(svg: str) -> str:
    """Return CSS variables of a chart: the width below which its text is not legible, and the greatest useful one."""
    width = float(found.group(1)) if (found := re.search(r'viewBox="0 0 ([0-9.]+) ', svg)) else 0.0
    sizes = [float(size) for size in re.findall(r"font(?:-size)?: ([0-9.]+)px", svg)] or [_USUAL_TEXT]
    return f"--least: {width * _LEAST_TEXT / min(sizes):.0f}px; --most: {width * _USUAL_TEXT / min(sizes):.0f}px"


def _run_values(material: Material) -> dict[str, Any]:
    """Return the values of the templates that come from training, data and origin."""
    from markupsafe import Markup

    meta, results, evaluation = material.run.info.plain(), material.results, material.evaluation
    # SVG of edgekit, and data: URLs.
    drawn = {name: Markup(p) if isinstance(p, str) else data_url(p) for name, p in material.drawn.items()}  # noqa: S704
    return {
        "drawn": drawn,
        "epochs": trained.epochs(meta.get("history") or []),
        "counts": trained.counts(material.labels, material.counts) if material.counts else None,
        "evaluation": evaluation,
        "judged": _test_values(evaluation) if evaluation else None,
        "training": provenance.training(material.run.name, meta),
        "imported": material.run.info.source is not None,
        "commands": provenance.command_rows(material) if results else None,
        "machines": provenance.machines(results) if results else None,
        "hashes": provenance.hashes(results) if results else None,
        "lineage": provenance.lineage(material),
    }


def _test_values(evaluation: Evaluation) -> dict[str, Any]:
    """Return the values of the template of the test split."""
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
            {"address": data_url(jpeg(pixels)), "label": labels[m.label], "said": labels[m.predicted],
             "sure": f"{100 * m.confidence:.0f}", "path": m.path}
            for pixels, m in zip(evaluation.raw["mistake_pixels"], evaluation.mistakes)
        ],
    }  # fmt: skip


def _changes_section(material: Material) -> dict[str, Any]:
    """Return the values of the template of changed answers: a summary, and the most changed sets of answers."""
    from markupsafe import Markup

    changed = [change for change in material.changes if change.answers]
    chosen = shown_images(changed[:MOST_ENTRIES])
    entries = []
    for n, change in enumerate(changed[:MOST_ENTRIES]):
        own = [answer for position, answer in chosen if position == n and answer.image in material.images]
        images = [(kind.text, [_image(material, a) for a in own if a.kind == kind]) for kind in ChangeKind]
        entries.append(
            {
                "title": f"{_name(change)}: {len(change.answers)} of {change.samples} answers changed",
                "sentence": changes.classes_text(change),
                # SVG of edgekit, in which every name is escaped.
                "picture": Markup(changes.picture(change, material.labels)),  # noqa: S704
                "classes": changes.class_table(change, material.labels),
                "pairs": changes.pair_table(change, material.labels),
                "images": [(heading, shown) for heading, shown in images if shown],
            }
        )
    return {
        "summary": changes.summary_table(material.changes),
        "entries": entries,
        "left": max(0, len(changed) - MOST_ENTRIES),
    }


def _name(change: Change) -> str:
    return change.names[0] + (f" and {len(change.names) - 1} more" if len(change.names) > 1 else "")


def _image(material: Material, answer: AnswerChange) -> dict[str, str]:
    picture, labels = material.images[answer.image], material.labels
    return {
        "address": data_url(picture.jpeg),
        "path": picture.path,
        "label": labels[answer.label],
        "before": changes.answer_name(labels, answer.before),
        "after": changes.answer_name(labels, answer.after),
        "sure_before": f"{100 * answer.sure_before:.0f}",
        "sure": f"{100 * answer.sure:.0f}",
    }


def jpeg(pixels: Any, side: int | None = None) -> bytes:
    """Encode pixels, uint8 (H, W, 3), as JPEG, scaled down to `side`."""
    from PIL import Image

    image, out = Image.fromarray(pixels), io.BytesIO()
    if side is not None and max(image.size) > side:
        image = image.resize((side, side))
    image.save(out, "JPEG", quality=85 if side is None else 75)
    return out.getvalue()


def _facts(decision: Decision, rows: Sequence[Summary]) -> list[tuple[str, str]]:
    """Return the figures on a card as (name, value); those that were not measured are left out."""
    row = decision.chosen
    assert row is not None
    lines = [
        *_accuracy_facts(row),
        ("p50", _ms(figures.percentile(row, 50)) + (f", batch {row.batch}" if row.batch > 1 else "")),
        ("p90", _ms(figures.percentile(row, 90))),
        ("speed", figures.speedup_text(row, rows)),
        ("size", f"{row.size_mb:.1f} MB{_smaller(row, rows)}"),
        ("energy", f"{tables.latency(row.gross_mj)} mJ per image" if row.gross_mj is not None else ""),
    ]
    return [(name, value) for name, value in lines if value]


def _accuracy_facts(row: Summary) -> list[tuple[str, str]]:
    if row.top1 is None or row.drop is None:
        return [("same answer as the baseline", f"{figures.top1(row)} % of {row.samples} images without labels")]
    return [("top-1", f"{figures.top1(row)} %; baseline {row.top1 + row.drop:.1f} %"), ("change", _change(row))]


def _smaller(row: Summary, rows: Sequence[Summary]) -> str:
    base = next((r.size_mb for r in rows if r.is_reference), 0.0)
    return f", {base / row.size_mb:.1f} times smaller than the baseline" if base > 1.1 * row.size_mb else ""


def _change(row: Summary) -> str:
    interval = "" if row.drop_low is None or row.drop_high is None else (
        f" (drop {row.drop_low:+.1f} to {row.drop_high:+.1f})")  # fmt: skip
    points = f"{abs(row.loss):.1f} points {'worse' if row.loss > 0 else 'better'}" if abs(row.loss) >= 0.05 else "none"
    return f"{points}{interval}, {decide.significance_text(row)}"


def _ms(text: str) -> str:
    return text if text == figures.FEW else f"{text} ms"


def _kind(t: tables.Table, column: int) -> str:
    """Return the CSS classes of a cell: aligned to the right, or a sentence."""
    name = t.columns[column]
    marks = {"n": column >= t.left and name not in t.prose, "long": name in t.prose}
    return " ".join(mark for mark, there in marks.items() if there)


def _scrolls(t: tables.Table) -> bool:
    """Return whether the table may be wider than a phone, so that it must be reachable by keyboard."""
    lines = [t.columns, *t.rows]
    words = (max(len(word) for line in lines for word in _pieces(line[n], n < t.left)) for n in range(len(t.columns)))
    return bool(t.prose) or sum(min(width, _FOLDED) + 2 for width in words) > _PHONE


def _pieces(cell: str, text: bool) -> list[str]:
    """Return the parts of a cell that are not wrapped; a figure stands above its interval."""
    return (cell.split() if text else cell.split(" (")) or [""]


def _short(text: object, width: int) -> str:
    return svg.shortened(visible(str(text)), width)


def _visible(value: object) -> object:
    """Replace control characters in text."""
    return value if type(value) is not str else visible(value)
