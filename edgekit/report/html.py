"""One self-contained page: no script, nothing fetched, every name escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit import __version__, store
from edgekit.errors import DataError
from edgekit.measurements import BenchmarkResult, ProgramResult, Summary
from edgekit.report import chart, programs, tables, verdict
from edgekit.scores import Evaluation

_TEMPLATE = Path(__file__).with_name("page.html.j2")

# What the page shows of run.json.
_SHOWN = ("arch", "labels", "preprocess", "data", "options", "versions", "history")
# What every entry of the history has.
_EPOCH = ("epoch", "train_loss", "val_loss", "val_top1", "images_per_s", "best")
MOST_PAIRS = 5
# Up to this many classes, their table is unfolded.
_MOST_UNFOLDED = 40


def page(
    run: store.Run,
    rows: Sequence[Summary],
    results: Sequence[BenchmarkResult],
    evaluation: Evaluation | None = None,
    drawn: Mapping[str, str | bytes] | None = None,
    by_programs: Sequence[ProgramResult] = (),
) -> str:
    """The report of one run as HTML; sections that have nothing to show say what brings it.

    Args:
        rows, results: judged and raw measurements; empty where nothing was measured.
        drawn: pictures by file name, from `pictures.draw_all`, and ``samples.png``.
        by_programs: what programs on devices said.
    Raises:
        DataError: run.json is damaged.
    """
    missing = [key for key in _SHOWN if key not in run.meta]
    missing += [f"history: {key}" for key in _EPOCH if any(key not in e for e in run.meta.get("history", ()))]
    if missing:
        raise DataError(f"{run.path / store.RUN_FILE} is damaged: {', '.join(missing)} missing", "restore it")
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    drawn = drawn or {}
    # Our own SVG, in which every name is escaped; and data: addresses.
    shown = {name: Markup(p) if isinstance(p, str) else address(p) for name, p in drawn.items()}  # noqa: S704
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        run=run,
        meta=run.meta,
        rows=rows,
        cells=tables.cells,
        columns=tables.COLUMNS,
        phone=tables.PHONE,
        notes=tables.footnotes(rows) if rows else [],
        boards=[tables.board_cells(row) for row in rows if tables.is_board(row)],
        board_columns=tables.BOARD_COLUMNS,
        board_notes=tables.board_notes(rows),
        programs=[programs.cells(result) for result in by_programs],
        program_columns=programs.COLUMNS,
        program_text=len(programs.COLUMNS) - len(programs.RIGHT),
        program_notes=programs.notes(by_programs) if by_programs else [],
        blocks=[
            {"title": f"{r.artifact.name} on {r.device}", "blocks": tables.blocks(r.layers)}
            for r in results
            if r.layers
        ],
        verdicts=[*verdict.worth(rows), *verdict.sentences(rows)],
        chart=Markup(chart.accuracy_latency(rows)) if rows else "",  # noqa: S704  its only text is numbers
        results=results,
        drawn=shown,
        evaluation=evaluation,
        judged=_judged(evaluation) if evaluation else None,
        version=__version__,
        now=store.now(),
    )


def address(picture: bytes) -> str:
    """A picture as a ``data:`` address; what is no PNG is called JPEG."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _judged(evaluation: Evaluation) -> dict[str, Any]:
    """What the page says of the test split."""
    test, labels = evaluation.splits["test"], evaluation.labels
    confused = sorted(((n, row, column) for row, column, n in test.scores.confusion if row != column), reverse=True)
    pairs = [
        f"{labels[row]} taken for {labels[column]}: {n} of {test.scores.classes[row].support}"
        for n, row, column in confused[:MOST_PAIRS]
    ]
    mistakes = [
        {"picture": address(_jpeg(pixels)), "true": labels[m.label], "said": labels[m.predicted], "of": m}
        for pixels, m in zip(evaluation.raw["mistake_pixels"], evaluation.mistakes)
    ]
    kinds = {"as trained": test.before, "with temperature": test.after, "mean of dropout samples": test.dropout}
    return {
        "test": test,
        "sentences": verdict.trained(evaluation),
        "pairs": pairs,
        "mistakes": mistakes,
        "calibrations": kinds,
        "unfolded": len(labels) <= _MOST_UNFOLDED,
        "number": tables.number,
    }


def _jpeg(pixels: Any) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=85)
    return out.getvalue()
