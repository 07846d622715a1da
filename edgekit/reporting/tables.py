"""Judged figures as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgekit.measurements import LEAST_SAMPLES, ProgramResult, Summary

COLUMNS = (
    "model", "ran in", "on", "MB", "top-1 % (95 %)", "drop", "agree %", "p50 ms", "p90 ms", "p99 ms", "x base",
)  # fmt: skip
RIGHT = COLUMNS[3:]
# The baseline that all are compared with; other baselines are compared with it too.
REFERENCE = "baseline/pytorch"
# What is left where there is little room: a terminal of 80 columns, a phone.
NARROW = ("model", "MB", "top-1 % (95 %)", "drop", "p50 ms", "x base")
PHONE = ("model", "top-1 % (95 %)", "drop", "p50 ms")
# Below this p-value a difference in accuracy is called one.
SIGNIFICANT = 0.05


def number(value: float | None, digits: int) -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def latency(value: float | None) -> str:
    """Milliseconds with three significant digits, or a dash."""
    if value is None or value <= 0:
        return number(value, 2)
    return number(value, max(0, 2 - math.floor(math.log10(value))))


def cells(row: Summary) -> list[str]:
    """One line of the table, in the order of `COLUMNS`."""
    compared = not row.baseline or row.artifact != REFERENCE
    return [
        row.artifact,
        row.ran_in + (" (stand-in)" if row.stand_in else ""),
        f"{row.device} x{row.threads}" + (f", batch {row.batch}" if row.batch > 1 else ""),
        number(row.size_mb, 1),
        f"{row.top1:.1f} ({row.top1_low:.1f}-{row.top1_high:.1f})",
        f"{row.drop:+.1f}" + ("*" if row.p_value < SIGNIFICANT else "") if compared else "",
        number(row.agreement, 1) if compared else "",
        latency(row.p50_ms) + ("!" if row.busy else ""),
        latency(row.p90_ms),
        latency(row.p99_ms),
        times(row) if compared and not row.stand_in else "",
    ]


def times(row: Summary) -> str:
    """How many times as fast as the baseline; marked where either of the two was measured on a busy machine."""
    if row.speedup is None or row.stand_in:
        return "-"
    return number(row.speedup, 2) + ("!" if row.speedup_doubtful or row.busy else "")


def reached(row: Summary) -> str:
    """What was reached of the device's limit, and which that is; a dash where that is not known, or of a stand-in."""
    found = row.roofline
    if found is None or row.stand_in:
        return "-"
    percent = "> limit" if found.reached > 1 else f"{100 * found.reached:.0f}"
    return f"{percent}{'!' if row.busy else ''} ({found.bound})"


def fastest_baseline(rows: Sequence[Summary], row: Summary) -> Summary | None:
    """What `Summary.speedup_best` is over: of the row's machine, else of the first baseline's, with its threads."""
    baselines = [r for r in rows if r.baseline]
    here = any(r.device == row.device and r.artifact == REFERENCE for r in baselines)
    device = row.device if here or not baselines else baselines[0].device
    known = [r for r in baselines if r.device == device and r.threads == row.threads and r.p50_ms]
    return min(known, key=lambda r: r.p50_ms or 0.0, default=None)


BOARD_COLUMNS = ("model", "on", "power mode", "rail", "p50 ms", "compute ms", "GPU MHz", "C", "idle W", "mJ", "mJ net")


def is_board(row: Summary) -> bool:
    """Whether a device told more of itself than its latency."""
    return (
        row.compute_ms is not None
        or row.gross_mj is not None
        or not {"power_mode", "thermal_status"}.isdisjoint(row.state)
    )


def board_cells(row: Summary) -> list[str]:
    """One line of the table of boards, in the order of `BOARD_COLUMNS`."""
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
    """What a reader must know to read the table of boards right."""
    shown = [row for row in rows if is_board(row)]
    notes = []
    if any(row.compute_ms is not None for row in shown):
        notes.append("p50: with the transfers in and out; compute: the model alone, by the GPU's own clock, p50")
    if any(row.gross_mj is not None for row in shown):
        notes.append(
            "mJ: of one image, all that the rail carries; net: without the idle power. VDD_IN and POM_5V_IN are the "
            "module's power, VIN that of module and carrier board: not comparable"
        )
    reasons = {row.device: row.no_energy for row in shown if row.no_energy}
    notes += [f"no energy on {device}: {reason}" for device, reason in reasons.items()]
    for row in shown:
        if row.throttling:
            notes.append(f"! {row.artifact} on {row.device} may have been slowed down: {'; '.join(row.throttling)}")
    return notes


def board_table(lines: Sequence[Sequence[str]], rows: Sequence[Summary]) -> Table:
    """The lines of `board_cells`, with their notes."""
    return Table("What the boards told", BOARD_COLUMNS, (Rows("", tuple(map(tuple, lines))),), 4,
                 notes=tuple(board_notes(rows)))  # fmt: skip


def footnotes(rows: Sequence[Summary], columns: Sequence[str] = COLUMNS) -> list[str]:
    """What a reader must know to read a table right that has these columns, by their names without what is behind."""
    shown = {column.partition(" ")[0] for column in columns}
    base = next(row for row in rows if row.baseline)
    where = "the CPU (no CUDA GPU here)" if base.processor == "cpu" else base.processor
    notes = [f"baseline: {base.ran_in} on {where}; batch 1, single stream; {base.samples} test images"]
    per_image = ", per image; a batch's milliseconds are of all its images" if any(r.batch > 1 for r in rows) else ""
    on = "on: device x threads; " if "on" in shown else ""
    notes.append(f"{on}x base: p50 of the baseline over this p50{per_image}")
    star = "; * p < 0.05 (McNemar, paired)" if any(r.p_value < SIGNIFICANT for r in rows if not r.baseline) else ""
    agree = "; agree: same top-1 as the baseline" if "agree" in shown else ""
    notes.append(f"drop: points of top-1 below the baseline{star}{agree}")
    if any(value is not None for row in rows for value in (row.p90_ms, row.p99_ms)):
        notes.append("p90, p99: early-stopping estimates, which are above the true percentile with 99 % confidence")
    return [*notes, *_of_baselines(rows, base), *_of_marks(rows)]


def _of_baselines(rows: Sequence[Summary], base: Summary) -> list[str]:
    fastest = min((row for row in rows if row.baseline and row.p50_ms), key=lambda row: row.p50_ms or 0, default=base)
    if fastest.artifact == base.artifact or fastest.busy or base.busy or not (base.p50_ms and fastest.p50_ms):
        return []
    return [
        f"fastest baseline: {fastest.artifact}, {fastest.precision.upper()}, {base.p50_ms / fastest.p50_ms:.2f} "
        "times as fast as the one that x base is over"
    ]


def _of_marks(rows: Sequence[Summary]) -> list[str]:
    """Only of what is in the table."""
    notes = []
    if any(row.stand_in for row in rows):
        notes.append(
            "stand-in: models for TensorRT, run in ONNX Runtime here; the accuracy tells, the latency does not"
        )
    timed = [row for row in rows if row.source != "emulated"]
    if any(v is None for row in timed for v in (row.p50_ms, row.p90_ms, row.p99_ms)):
        notes.append(f"-: insufficient samples (p90 needs {LEAST_SAMPLES[90]}, p99 needs {LEAST_SAMPLES[99]})")
    if any(row.busy for row in rows):
        notes.append("!: the machine was busy with other work: do not trust these latencies; edgekit benchmark again")
    elif any(row.speedup_doubtful and times(row) != "-" for row in rows):
        notes.append("!: one of the two was measured on a busy machine: do not trust how much faster it is")
    if any(row.ran_in.startswith("LiteRT.js") for row in rows):
        notes.append("LiteRT.js: in a browser, by WebAssembly or WebGPU; an app runs the same file by other code")
    if any(row.source == "emulated" for row in rows):
        notes.append("emulated: the accuracy tells; how long an emulator takes is no latency, and is not shown")
    if all(row.source == "host" for row in rows):
        notes.append("every latency was measured on this machine; none says how fast a phone or a Jetson is")
    return notes


# Figures of programs on devices, as text: a table apart from that of measurements, because they are less.

PROGRAM_COLUMNS = (
    "model", "on", "accelerator", "delegated", "MB", "runs", "mean ms", "std", "min", "max", "median", "init ms",
    "thermal",
)  # fmt: skip
PROGRAM_RIGHT = PROGRAM_COLUMNS[4:]
PROGRAM_NARROW = ("model", "on", "delegated", "mean ms")


def program_cells(result: ProgramResult) -> list[str]:
    """One line of the table, in the order of `COLUMNS`; an emulator's times are none."""
    found = result.figures
    quoted = result.source != "emulated"
    times = (found.mean_ms, found.std_ms, found.min_ms, found.max_ms, found.median_ms, found.init_ms)
    cpus = f" on cores {mask}" if (mask := result.environment.get("cpu_mask")) else ""
    return [
        result.artifact.name,
        f"{result.device} x{result.environment.get('threads', '?')}",
        f"{result.environment.get('accelerator', '?')}{cpus}",
        delegated(result),
        number(result.size_bytes / 1e6, 1),
        str(found.runs),
        *(latency(value) if quoted else "-" for value in times),
        f"{_heat(result, '_before')} > {_heat(result, '_after')}",
    ]


def program_table(lines: Sequence[Sequence[str]], results: Sequence[ProgramResult]) -> Table:
    """The lines of `cells`, with their notes."""
    rows = Rows("", tuple(map(tuple, lines)))
    return Table(
        "Times that a program told",
        PROGRAM_COLUMNS,
        (rows,),
        len(PROGRAM_COLUMNS) - len(PROGRAM_RIGHT),
        notes=tuple(program_notes(results)),
    )


def delegated(result: ProgramResult) -> str:
    """How much ran on the accelerator, with the nodes where they are known."""
    known = [d for d in result.figures.delegates if d.of]
    nodes = f" ({', '.join(f'{d.nodes} of {d.of} in {d.name}' for d in known)})" if known else ""
    return result.figures.delegation + nodes


def program_notes(results: Sequence[ProgramResult]) -> list[str]:
    """What a reader must know to read the table right."""
    hashes = sorted({(result.program, result.program_sha256[:12]) for result in results})
    lines = [
        f"by {' and '.join(f'{name} (sha256 {digest}...)' for name, digest in hashes)}: random numbers for images, "
        "so no accuracy; it keeps no single times, so no p90 and p99, and its figures are not compared with those above"
    ]
    for result in results:
        accelerator = str(result.environment.get("accelerator", "cpu"))
        if accelerator != "cpu" and result.figures.delegation != "full":
            what = "only a part" if result.figures.delegation == "partial" else "an unknown part"
            lines.append(
                f"{result.artifact.name} on {result.device}: {what} of it ran on the {accelerator.upper()}, "
                "the rest on the CPU"
            )
    if any(result.source == "emulated" for result in results):
        lines.append("emulated: how long an emulator takes is no latency, and is not shown")
    return lines


def _heat(result: ProgramResult, when: str) -> str:
    return str(result.environment.get("thermal_status" + when, "?"))


# The noun that pages, Markdown and terminals share: a table of text, with its caption and notes.


@dataclass(frozen=True)
class Rows:
    """Rows that belong together; `title` is empty where there is only one such group."""

    title: str
    cells: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Table:
    """Text in rows and columns. The first cell of a row names it.

    Attributes:
        left: how many leading columns are text; the others are figures and stand to the right.
        wide: columns that are left out where there is little room. bars: the column whose percentages are drawn too.
        prose: columns of sentences, which are folded. notes: what a reader must know to read it right.
        first: so many rows of the first group are shown, the others are folded away; 0: all are shown.
    """

    caption: str
    columns: tuple[str, ...]
    groups: tuple[Rows, ...]
    left: int = 1
    wide: tuple[str, ...] = ()
    bars: str = ""
    prose: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    first: int = 0

    @property
    def rows(self) -> Iterator[tuple[str, ...]]:
        """The rows of all groups."""
        return (row for group in self.groups for row in group.cells)


def plain(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> Table:
    """A table of one group."""
    return Table(caption, tuple(columns), (Rows("", tuple(map(tuple, rows))),), left)


def compact(t: Table) -> Table:
    """The table without the columns in which nothing stands."""
    rows = list(t.rows)
    kept = [n for n in range(len(t.columns)) if n < t.left or any(row[n] not in ("", "-") for row in rows)]
    groups = tuple(Rows(g.title, tuple(tuple(row[n] for n in kept) for row in g.cells)) for g in t.groups)
    return replace(t, columns=tuple(t.columns[n] for n in kept), groups=groups)


def length(t: Table, text: str) -> float:
    """How long the bar of a cell is, in percent of the longest of its column."""
    column = t.columns.index(t.bars)
    longest = max((_figure(row[column]) for row in t.rows), default=0.0)
    return 100 * _figure(text) / longest if longest else 0.0


def _figure(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return 0.0
