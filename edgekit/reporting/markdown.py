"""Markdown that renders on GitHub: names as text, tables with pipes."""

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
    """The verdict and the tables of a run."""
    material = public(material)
    run, meta = material.run, material.run.info.plain()
    what = f"{meta['arch']}, {len(material.labels)} classes, input {meta['preprocess'].get('image_size')} px"
    parts = [f"# {escape(run.name)}", f"{escape(what)}. edgekit {__version__}, {files.now()}."]
    parts += ["## Verdict", *decided(material)]
    if material.evaluation:
        parts.append(bullets(decide.training_verdicts(material.evaluation)))
    if material.rows:
        parts += ["## Figures", table(figures.table(material.rows)), table(figures.more(material.rows))]
    boards = [tables.board_cells(row) for row in material.rows if tables.is_board(row)]
    parts += [table(tables.board_table(boards, material.rows))] if boards else []
    if material.programs:
        lines = [tables.program_cells(result) for result in material.programs]
        parts.append(table(tables.program_table(lines, material.programs)))
    if material.changes:
        parts += ["## What quantization changed", table(changes.summary_table(material.changes))]
        for change in [c for c in material.changes if c.answers][:3]:
            parts += [f"### {escape(change.names[0])}", escape(changes.sentence(change)),
                      table(changes.class_table(change, material.labels))]  # fmt: skip
    parts += _layers(material)
    if material.evaluation:
        parts += ["## Test results", table(trained.classes(material.evaluation))]
    parts += ["## How to reproduce", block(provenance.training(run.name, meta))]
    parts += commands(material)
    if material.results:
        parts += [table(provenance.machines(material.results)), table(provenance.hashes(material.results))]
    return "\n\n".join([*parts, "## Lineage", pairs(provenance.lineage(material))]) + "\n"


def decided(material: Material) -> list[str]:
    """The decisions as a table, and below it what was not chosen and what is doubtful."""
    decisions = material.decisions
    if not decisions:
        return [f"Nothing was measured yet: `edgekit benchmark {code(material.run.handle)}`."]
    return [table(figures.verdict(decisions)), *filter(None, map(_rejected, decisions))]


def _layers(material: Material) -> list[str]:
    """Blocks of the models that matter most: what is chosen, what is in INT8."""
    parts = []
    for title, found in list(material.layers.items())[:MOST_LAYERS]:
        blocks = layers.table(title, found, material.layer_notes.get(title, ()))
        parts += [f"### {escape(title)}", table(blocks)]
    lines = bullets([f"left out: {line}" for line in material.layers_left])
    return ["## Layer by layer", *parts, *filter(None, [lines])] if parts or lines else []


def _rejected(decision: Decision) -> str:
    lines = [*(f"doubtful: {line}" for line in decision.doubts), *decision.cautions]
    lines += [f"not {r.row.artifact}: {r.why}" for r in decision.rejected[:MOST_REJECTED]]
    left = len(decision.rejected) - MOST_REJECTED
    lines += [f"and {left} more"] if left > 0 else []
    return f"**{escape(decision.title)}**\n\n{bullets(lines)}" if lines else ""


def commands(material: Material) -> list[str]:
    """What makes each number again; equal commands once; and what nobody kept of it."""
    found = provenance.recipes(material.run.handle, material.results)
    lines = provenance.commands(found)
    unknown = [f"{name}: {why}" for name, why in dict.fromkeys((p.artifact, p.unknown) for p in found if p.unknown)]
    return [block("\n".join(lines)), *filter(None, [bullets(unknown)])] if lines else []


def table(t: Table) -> str:
    """A table; the groups' names become its first column where there are several groups."""
    grouped = len(t.groups) > 1 or any(group.title for group in t.groups)
    columns = (("device", *t.columns) if grouped else t.columns) if t.groups else t.columns
    left = t.left + grouped
    rule = ["---" if n < left or column in t.prose else "---:" for n, column in enumerate(columns)]
    lines = [columns, rule]
    for group in t.groups:
        lines += [((group.title, *cells) if grouped else cells) for cells in group.cells]
    text = "\n".join(f"| {' | '.join(map(_inside, line))} |" for line in lines)
    notes = bullets(t.notes)
    return f"{text}\n\n{notes}" if notes else text


def pairs(lines: Sequence[tuple[str, str]]) -> str:
    """Names and values as a list."""
    return bullets([f"{name}: {value}" for name, value in lines])


def bullets(lines: Sequence[str]) -> str:
    """Sentences as a list."""
    return "\n".join(f"- {escape(line, 2000)}" for line in lines)


def block(text: str) -> str:
    """Text as it is, in a fence that it cannot close."""
    longest = max((len(ticks) for ticks in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{text}\n{fence}"


def code(text: str) -> str:
    """Text that can stand between two backticks, also in a table."""
    return visible(text).replace("`", "'").replace("|", "\\|")


def escape(text: str, width: int = _LONGEST) -> str:
    """Text of one line that Markdown, and the HTML in it, leave alone."""
    return re.sub(r"^(\s*\d*)([-+.)])(?=\s|$)", r"\1\\\2", _inside(text, width))


def _inside(text: str, width: int = _LONGEST) -> str:
    """Text within a line: what begins a list there is none."""
    short = svg.shortened(visible(text), width)
    marked = re.sub(r"([\\`*_{}\[\]<>|~$#])", r"\\\1", short)
    # An entity, a mention or an address would be read as one.
    return marked.replace("&", "&amp;").replace("@", "&#64;").replace("://", "&#58;//")
