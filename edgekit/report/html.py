"""One self-contained page: no script, nothing fetched, every name escaped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit import __version__, store
from edgekit.errors import DataError
from edgekit.records import BenchmarkResult, Summary
from edgekit.report import chart, tables, verdict

_TEMPLATE = Path(__file__).with_name("page.html.j2")

# What the page shows of run.json.
_SHOWN = ("arch", "labels", "preprocess", "data", "options", "versions", "history")


def page(run: store.Run, rows: Sequence[Summary], results: Sequence[BenchmarkResult]) -> str:
    """The report of one run as HTML.

    Raises:
        DataError: run.json is damaged.
    """
    if missing := [key for key in _SHOWN if key not in run.meta]:
        raise DataError(f"{run.path / store.RUN_FILE} is damaged: {', '.join(missing)} missing", "restore it")
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        run=run,
        meta=run.meta,
        rows=rows,
        cells=tables.cells,
        columns=tables.COLUMNS,
        phone=tables.PHONE,
        notes=tables.footnotes(rows),
        verdicts=verdict.sentences(rows),
        chart=Markup(chart.accuracy_latency(rows)),  # noqa: S704  our own SVG; its only text is numbers
        results=results,
        version=__version__,
        now=store.now(),
    )
