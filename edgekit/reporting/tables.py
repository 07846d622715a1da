"""Tables of text, and the tables of measured figures: cells, legends, footnotes.

`Table` is what pages, Markdown and terminals show. The table of models, that of boards and that of programs have for
each row a function that writes its cells, and functions that write the notes below.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgekit.environment import BoardState
from edgekit.measurements import BROWSERS, LEAST_SAMPLES, Delegated, ProgramResult, Summary, not_finite
from edgekit.stats.proportions import SIGNIFICANT


@dataclass(frozen=True)
class Rows:
    """Rows of one group; `title` is empty where the table has only one group."""

    title: str
    cells: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table of text. The first cell of a row names it.

    Attributes:
        left: number of leading columns that are text; the others are figures, aligned to the right.
        bars: column whose percentages are drawn as bars too; empty: none.
        prose: columns of sentences, which may be wrapped.
        notes: lines below the table.
        first: number of rows of the first group that are visible at first; 0: all.
    """

    caption: str
    columns: tuple[str, ...]
    groups: tuple[Rows, ...]
    left: int = 1
    bars: str = ""
    prose: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    first: int = 0

    @property
    def rows(self) -> Iterator[tuple[str, ...]]:
        """Rows of all groups."""
        return (row for group in self.groups for row in group.cells)


def plain(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> Table:
    """Return a table of one group without a title."""
    return Table(caption, tuple(columns), (Rows("", tuple(map(tuple, rows))),), left)


def compact(table: Table) -> Table:
    """Return the table without the columns of figures that are empty in every row."""
    rows = list(table.rows)
    kept = [n for n in range(len(table.columns)) if n < table.left or any(row[n] not in ("", "-") for row in rows)]
    groups = tuple(Rows(g.title, tuple(tuple(row[n] for n in kept) for row in g.cells)) for g in table.groups)
    return replace(table, columns=tuple(table.columns[n] for n in kept), groups=groups)


def bar_percent(table: Table, cell: str) -> float:
    """Return the length of a cell's bar in percent of the longest bar of its column."""
    column = table.columns.index(table.bars)
    longest = max((_bar_value(row[column]) for row in table.rows), default=0.0)
    return 100 * _bar_value(cell) / longest if longest else 0.0


def _bar_value(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0


def number(value: float | None, digits: int) -> str:
    """Format a figure; a dash stands for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def latency(value: float | None) -> str:
    """Format milliseconds with three significant digits; a dash stands for None."""
    if value is None or value <= 0:
        return number(value, 2)
    return number(value, max(0, 2 - math.floor(math.log10(value))))


def in_browser(row: Summary) -> bool:
    """Return whether a browser measured the row, on whatever machine."""
    return row.device.startswith(BROWSERS) or row.ran_in.startswith("LiteRT.js")


# Models on a terminal: one row an artifact and device.

COLUMNS = (
    "model", "ran in", "on", "MB", "top-1 % (95 %)", "drop", "agree %", "p50 ms", "p90 ms", "p99 ms", "x base",
)  # fmt: skip
RIGHT = COLUMNS[3:]
# The columns of a table of usual width, and of a terminal of 80 columns.
SHORT = ("model", "on", "MB", "top-1 % (95 %)", "drop", "p50 ms", "p90 ms", "x base")
NARROW = ("model", "MB", "top-1 % (95 %)", "drop", "p50 ms", "x base")
# Columns of `SHORT` that a table which is too wide does without, in this order.
_DISPENSABLE = ("p90 ms", "MB")
_GAP = 2  # characters between two columns


def short_columns(rows: Sequence[Summary], width: int = 100) -> tuple[str, ...]:
    """Return the columns of `SHORT`, without as many of the dispensable ones as the table needs to fit in `width`."""
    columns: tuple[str, ...] = SHORT
    for dropped in ("", *_DISPENSABLE):
        columns = tuple(column for column in columns if column != dropped)
        lines = [columns, *lines_of(rows, columns)]
        if sum(max(len(line[n]) for line in lines) + _GAP for n in range(len(columns))) - _GAP <= width:
            break
    return columns


def narrow_columns(rows: Sequence[Summary], width: int = 80) -> tuple[str, ...]:
    """Return the columns for a narrow terminal: `NARROW`, and "on" where only that tells rows apart."""
    if len({row.artifact for row in rows}) == len(rows):
        return NARROW
    columns: tuple[str, ...] = (NARROW[0], "on", *NARROW[1:])
    for dropped in ("MB", "x base"):
        lines = [columns, *lines_of(rows, columns)]
        if sum(max(len(line[n]) for line in lines) + _GAP for n in range(len(columns))) - _GAP <= width:
            break
        columns = tuple(column for column in columns if column != dropped)
    return columns


def lines_of(rows: Sequence[Summary], columns: Sequence[str] = COLUMNS) -> list[list[str]]:
    """Return the cells of some columns of the table of models, a list for each row."""
    positions = [COLUMNS.index(column) for column in columns]
    return [[found[n] for n in positions] for found in map(cells, rows)]


def labelled(rows: Sequence[Summary]) -> bool:
    """Return whether the images have labels, so that the rows have an accuracy; all rows of a run have the same."""
    return not rows or rows[0].top1 is not None


def columns_for(columns: Sequence[str], rows: Sequence[Summary]) -> tuple[str, ...]:
    """Return the titles of columns for these rows: without labels the score is the agreement with the baseline."""
    if labelled(rows):
        return tuple(columns)
    return tuple(column.replace("top-1 %", "same answer %") for column in columns)


def _is_significant(row: Summary) -> bool:
    return row.p_value is not None and row.p_value < SIGNIFICANT


def cells(row: Summary) -> list[str]:
    """Return one line of the table of models, in the order of `COLUMNS`."""
    compared = not row.is_reference
    return [
        row.artifact,
        row.ran_in + (" (stand-in)" if row.stand_in else ""),
        f"{row.device} x{row.threads}" + (f", batch {row.batch}" if row.batch > 1 else ""),
        number(row.size_mb, 1),
        "{:.1f} ({:.1f}-{:.1f})".format(row.score, *row.score_interval),
        f"{row.drop:+.1f}{'*' * _is_significant(row)}" if compared and row.drop is not None else "",
        number(row.agreement, 1) if compared else "",
        ("~" if row.stand_in else "") + latency(row.p50_ms) + ("!" if row.busy else ""),
        latency(row.p90_ms),
        latency(row.p99_ms),
        speedup(row) if compared and not row.stand_in else "",
    ]


def speedup(row: Summary) -> str:
    """Format the speed-up over the baseline, marked with ``!`` if one of the two was measured on a busy machine."""
    if row.speedup is None or row.stand_in:
        return "-"
    return number(row.speedup, 2) + ("!" if row.speedup_doubtful or row.busy else "")


def roofline_percent(row: Summary) -> str:
    """Format the reached percentage of the roofline limit and what bounds it; a dash if it is unknown."""
    found = row.roofline
    if found is None or row.stand_in:
        return "-"
    percent = "> limit" if found.reached > 1 else f"{100 * found.reached:.0f}"
    return f"{percent}{'!' if row.busy else ''} ({found.bound})"


def fastest_baseline(rows: Sequence[Summary], row: Summary) -> Summary | None:
    """Return the baseline that `Summary.speedup_best` refers to: of the same device and number of threads.

    If the device has no baseline, those of the first baseline's device are compared.
    """
    baselines = [r for r in rows if r.baseline]
    own = any(r.device == row.device and r.is_reference for r in baselines)
    device = row.device if own or not baselines else baselines[0].device
    known = [r for r in baselines if r.device == device and r.threads == row.threads and r.p50_ms]
    return min(known, key=lambda r: r.p50_ms or 0.0, default=None)


def legend(rows: Sequence[Summary], columns: Sequence[str] = COLUMNS) -> list[str]:
    """Return one line for each column whose title does not explain itself.

    Args:
        columns: of the table; a title counts without what follows its first blank.
    """
    titles = {column.partition(" ")[0] for column in columns}
    lines = ["on: device x CPU threads"] if "on" in titles else []
    if "drop" in titles and any(row.drop is not None for row in rows):
        lines.append("drop: loss of top-1 against the baseline, in percentage points")
    if "agree" in titles:
        lines.append("agree %: images with the same top-1 as the baseline")
    if "x" in titles:
        lines.append("x base: speed-up, the baseline's p50 over this p50, per image")
    if "p90" in titles and any(value is not None for row in rows for value in (row.p90_ms, row.p99_ms)):
        lines.append("p90, p99: early-stopping estimates, above the true percentile with 99 % confidence")
    return lines


def footnotes(rows: Sequence[Summary], missing: str = "-: insufficient samples") -> list[str]:
    """Return what a reader must know of these rows: the baseline, and the marks that occur in the table.

    Args:
        missing: the cell of a percentile that the samples cannot carry, and its meaning.
    """
    base = next(row for row in rows if row.baseline)
    where = "the CPU (no CUDA GPU here)" if base.processor == "cpu" else base.processor
    kind = "test images" if base.top1 is not None else "images without labels, so without an accuracy"
    notes = [f"baseline: {base.ran_in} on {where}; batch 1, single stream; {base.samples} {kind}"]
    notes += [
        f"{row.artifact} on {row.device}: {not_finite(row.no_answer, row.samples)}, counted as wrong"
        for row in rows
        if row.no_answer
    ]
    if constant := [f"{row.artifact} on {row.device}" for row in rows if row.one_class]:
        more = f" and {len(constant) - 3} more" if len(constant) > 3 else ""
        notes.append(f"warning: the same class for every image, so of no use: {', '.join(constant[:3])}{more}")
    notes += _fastest_note(rows, base)
    if any(map(_is_significant, (row for row in rows if not row.baseline))):
        notes.append("* significant: p < 0.05 (McNemar's test, paired)")
    if any(row.batch > 1 for row in rows):
        notes.append("batch: latencies are of the whole batch, x base is per image")
    if any(row.stand_in for row in rows):
        notes.append(
            "~ stand-in: a TensorRT model, run in ONNX Runtime here; its accuracy is valid, its latency is not"
        )
    timed = [row for row in rows if row.source != "emulated"]
    if any(value is None for row in timed for value in (row.p50_ms, row.p90_ms, row.p99_ms)):
        notes.append(f"{missing}; p90 needs {LEAST_SAMPLES[90]} queries, p99 needs {LEAST_SAMPLES[99]}")
    if any(row.busy for row in rows):
        notes.append("! measured while other programs used the CPU: not reliable; run edgekit benchmark again")
    elif any(row.speedup_doubtful and speedup(row) != "-" for row in rows):
        notes.append("! this model or the baseline was measured while other programs used the CPU: not reliable")
    if any(map(in_browser, rows)):
        notes.append("LiteRT.js: measured in a browser (WebAssembly or WebGPU); in an app the same file runs natively")
    if len(timed) < len(rows):
        notes.append("emulated: the accuracy is valid; an emulator has no meaningful latency, so none is shown")
    if all(row.source == "host" for row in rows):
        notes.append("all latencies were measured on this machine; a phone or a Jetson has others")
    return notes


def _fastest_note(rows: Sequence[Summary], base: Summary) -> list[str]:
    fastest = min((row for row in rows if row.baseline and row.p50_ms), key=lambda row: row.p50_ms or 0, default=base)
    if fastest.artifact == base.artifact or fastest.busy or base.busy or not (base.p50_ms and fastest.p50_ms):
        return []
    times = base.p50_ms / fastest.p50_ms
    return [f"fastest baseline: {fastest.artifact} ({fastest.precision.upper()}), {times:.2f} times as fast"]


# Boards: clocks, temperature and energy, where the device reports them.

BOARD_COLUMNS = ("model", "on", "power mode", "rail", "p50 ms", "compute ms", "GPU MHz", "C", "idle W", "mJ", "mJ net")


def is_board(row: Summary) -> bool:
    """Return whether the device reported more than latencies: compute time, energy, power mode or thermal status."""
    return (
        row.compute_ms is not None
        or row.gross_mj is not None
        or not {"power_mode", "thermal_status"}.isdisjoint(row.state)
    )


def board_cells(row: Summary) -> list[str]:
    """Return one line of the table of boards, in the order of `BOARD_COLUMNS`."""
    clock, locked = row.state.get("gpu_mhz"), row.state.get("clocks_locked") is True
    degrees = row.state.get("temperature_gpu_c", row.state.get("temperature_c"))
    return [
        row.artifact,
        row.device + ("!" if row.throttling else ""),
        str(row.state.get("power_mode", "-")),
        row.rail or "-",
        latency(row.p50_ms),
        latency(row.compute_ms),
        (f"{clock:.0f}" + (" locked" if locked else "")) if _is_number(clock) else "-",
        f"{degrees:.0f}" if _is_number(degrees) else "-",
        number(None if row.idle_mw is None else row.idle_mw / 1000, 2),
        latency(row.gross_mj),
        number(row.net_mj, 2),
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def board_notes(rows: Sequence[Summary]) -> list[str]:
    """Return the notes of the table of boards."""
    shown = [row for row in rows if is_board(row)]
    notes = []
    if any(row.compute_ms is not None for row in shown):
        notes.append("p50: with copying inputs and outputs; compute: p50 of the model alone, by the GPU's clock")
    if any(row.gross_mj is not None for row in shown):
        notes.append(
            "mJ: energy of one image on the rail; net: without the idle power. VDD_IN and POM_5V_IN carry the module, "
            "VIN the module and its carrier board: do not compare them with each other"
        )
    reasons = {row.device: row.no_energy for row in shown if row.no_energy}
    notes += [f"no energy figures for {device}: {reason}" for device, reason in reasons.items()]
    for row in shown:
        if row.throttling:
            notes.append(f"! {row.artifact} on {row.device} may have been throttled: {'; '.join(row.throttling)}")
    return notes


def board_table(rows: Sequence[Summary]) -> Table:
    """Return the table of the rows that boards measured, with its notes."""
    lines = [board_cells(row) for row in rows if is_board(row)]
    found = plain("Clocks, temperature and energy", BOARD_COLUMNS, lines, left=4)
    return replace(found, notes=tuple(board_notes(rows)))


# Programs on devices, such as benchmark_model: times without single values, so a table of its own.

PROGRAM_COLUMNS = (
    "model", "on", "accelerator", "delegated", "MB", "runs", "mean ms", "std", "min", "max", "median", "init ms",
    "thermal",
)  # fmt: skip
PROGRAM_RIGHT = PROGRAM_COLUMNS[4:]
PROGRAM_NARROW = ("model", "on", "delegated", "mean ms")


def program_cells(result: ProgramResult) -> list[str]:
    """Return one line of the table of programs, in the order of `PROGRAM_COLUMNS`; without times of emulators."""
    found = result.figures
    times = (found.mean_ms, found.std_ms, found.min_ms, found.max_ms, found.median_ms, found.init_ms)
    cpus = f" on cores {mask}" if (mask := result.environment.cpu_mask) else ""
    return [
        result.artifact.name,
        f"{result.device} x{result.environment.threads or '?'}",
        f"{result.environment.accelerator or '?'}{cpus}",
        delegated(result),
        number(result.size_bytes / 1e6, 1),
        str(found.runs),
        *("-" if result.source == "emulated" else latency(value) for value in times),
        f"{_thermal_status(result.environment.before)} > {_thermal_status(result.environment.after)}",
    ]


def delegated(result: ProgramResult) -> str:
    """Return how much of the model ran on the accelerator, with the numbers of nodes where they are known."""
    known = [d for d in result.figures.delegates if d.of]
    nodes = f" ({', '.join(f'{d.nodes} of {d.of} in {d.name}' for d in known)})" if known else ""
    return result.figures.delegation.text + nodes


def program_notes(results: Sequence[ProgramResult]) -> list[str]:
    """Return the notes of the table of programs."""
    hashes = sorted({(result.program, result.program_sha256[:12]) for result in results})
    programs = " and ".join(f"{name} (sha256 {digest}...)" for name, digest in hashes)
    lines = [
        f"measured by {programs} with random inputs, so there is no accuracy; it prints no single latencies, so there "
        "are no p90 and p99, and its figures are not compared with those above"
    ]
    for result in results:
        accelerator = result.environment.accelerator or "cpu"
        if accelerator != "cpu" and result.figures.delegation != Delegated.FULL:
            part = "only a part" if result.figures.delegation == Delegated.PARTIAL else "an unknown part"
            lines.append(
                f"{result.artifact.name} on {result.device}: {part} of it ran on the {accelerator.upper()}, "
                "the rest on the CPU"
            )
    if any(result.source == "emulated" for result in results):
        lines.append("emulated: an emulator has no meaningful latency, so none is shown")
    return lines


def program_table(results: Sequence[ProgramResult]) -> Table:
    """Return the table of what programs measured, with its notes."""
    left = len(PROGRAM_COLUMNS) - len(PROGRAM_RIGHT)
    found = plain("Times printed by a program", PROGRAM_COLUMNS, list(map(program_cells, results)), left)
    return replace(found, notes=tuple(program_notes(results)))


def _thermal_status(state: BoardState) -> str:
    return "?" if state.thermal_status is None else str(state.thermal_status)
