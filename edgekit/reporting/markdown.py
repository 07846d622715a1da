"""The report as Markdown for GitHub, with every name escaped."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgekit import __version__, files
from edgekit.labels import visible
from edgekit.reporting import changes, decide, figures, layers, provenance, svg, tables, trained
from edgekit.reporting.decide import Decision
from edgekit.reporting.material import Material
from edgekit.reporting.privacy import public
from edgekit.reporting.tables import Table

_LONGEST = 200
MOST_REJECTED = 8
MOST_LAYERS = 3


def document(material: Material) -> str:
    """Return the verdict and the tables of a run."""
    material = public(material)
    run, meta = material.run, material.run.info.plain()
    what = f"{meta['arch']}, {len(material.labels)} classes, input {meta['preprocess'].get('image_size')} px"
    parts = [f"# {escape(run.name)}", f"{escape(what)}. edgekit {__version__}, {files.now()}."]
    parts += ["## Recommendation", *decision_blocks(material)]
    if material.evaluation:
        parts.append(bullets(decide.training_verdicts(material.evaluation)))
    if material.rows:
        parts += ["## Figures", table(figures.table(material.rows)), table(figures.more(material.rows))]
    if any(map(tables.is_board, material.rows)):
        parts.append(table(tables.board_table(material.rows)))
    if material.programs:
        parts.append(table(tables.program_table(material.programs)))
    if material.changes:
        parts += ["## What quantization changed", table(changes.summary_table(material.changes))]
        for change in [c for c in material.changes if c.answers][:3]:
            parts += [f"### {escape(change.names[0])}", escape(changes.classes_text(change)),
                      table(changes.class_table(change, material.labels))]  # fmt: skip
    parts += _layers(material)
    if material.evaluation:
        parts += ["## Test results", table(trained.classes(material.evaluation))]
    parts += ["## How to reproduce", block(provenance.training(run.name, meta))]
    parts += commands(material)
    if material.results:
        parts += [table(provenance.machines(material.results)), table(provenance.hashes(material.results))]
    return "\n\n".join([*parts, "## Lineage", pairs(provenance.lineage(material))]) + "\n"


def decision_blocks(material: Material) -> list[str]:
    """Return the table of decisions, and for each device the doubts and the models that were not chosen."""
    decisions = material.decisions
    if not decisions:
        return [f"No measurements yet; run `edgekit benchmark {code(material.run.handle)}`."]
    return [table(figures.verdict(decisions)), *filter(None, map(_rejected, decisions))]


def _layers(material: Material) -> list[str]:
    """Return the tables of blocks of the most important models."""
    parts = []
    for title, found in list(material.layers.items())[:MOST_LAYERS]:
        blocks = layers.block_table(title, found, material.layer_notes.get(title, ()))
        parts += [f"### {escape(title)}", table(blocks)]
    lines = bullets([f"missing: {line}" for line in material.layers_left])
    return ["## Layer by layer", *parts, *filter(None, [lines])] if parts or lines else []


def _rejected(decision: Decision) -> str:
    lines = [*(f"doubtful: {doubt.text}" for doubt in decision.doubts), *decision.cautions]
    lines += [f"not {r.row.artifact}: {r.reason}" for r in decision.rejected[:MOST_REJECTED]]
    left = len(decision.rejected) - MOST_REJECTED
    lines += [f"and {left} more"] if left > 0 else []
    return f"**{escape(decision.title)}**\n\n{bullets(lines)}" if lines else ""


def commands(material: Material) -> list[str]:
    """Return the commands that reproduce the figures, and the options that were not recorded."""
    found = provenance.recipes(material.run.argument, material.results)
    lines = provenance.commands(found)
    unknown = [f"{name}: {why}" for name, why in dict.fromkeys((p.artifact, p.unknown) for p in found if p.unknown)]
    return [block("\n".join(lines)), *filter(None, [bullets(unknown)])] if lines else []


def table(source: Table) -> str:
    """Return a table; if it has groups, their names are its first column."""
    grouped = len(source.groups) > 1 or any(group.title for group in source.groups)
    columns = ("device", *source.columns) if grouped else source.columns
    left = source.left + grouped
    lines = [columns, ["---" if n < left or column in source.prose else "---:" for n, column in enumerate(columns)]]
    for group in source.groups:
        lines += [((group.title, *cells) if grouped else cells) for cells in group.cells]
    text = "\n".join(f"| {' | '.join(map(_inside, line))} |" for line in lines)
    notes = bullets(source.notes)
    return f"{text}\n\n{notes}" if notes else text


def pairs(lines: Sequence[tuple[str, str]]) -> str:
    """Return names and values as a list."""
    return bullets([f"{name}: {value}" for name, value in lines])


def bullets(lines: Sequence[str]) -> str:
    """Return lines as a list."""
    return "\n".join(f"- {escape(line, 2000)}" for line in lines)


def block(text: str, language: str = "sh") -> str:
    """Return text in a code block that it cannot close."""
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def code(text: str) -> str:
    """Return text for an inline code span, also in a table."""
    return visible(text).replace("`", "'").replace("|", "\\|")


def escape(text: str, width: int = _LONGEST) -> str:
    """Return text of one line with everything escaped that Markdown or HTML would interpret."""
    return re.sub(r"^(\s*\d*)([-+.)])(?=\s|$)", r"\1\\\2", _inside(text, width))


def _inside(text: str, width: int = _LONGEST) -> str:
    """Escape text that is not at the start of a line."""
    short = svg.shortened(visible(text), width)
    marked = re.sub(r"([\\`*_{}\[\]<>|~$#])", r"\\\1", short)
    # Entities, mentions and URLs.
    return marked.replace("&", "&amp;").replace("@", "&#64;").replace("://", "&#58;//")
