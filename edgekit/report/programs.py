"""Figures of programs on devices, as text: a table apart from that of measurements, because they are less."""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.measurements import ProgramResult
from edgekit.report.table import Rows, Table
from edgekit.report.tables import latency, number

COLUMNS = (
    "model", "on", "accelerator", "delegated", "MB", "runs", "mean ms", "std", "min", "max", "median", "init ms",
    "thermal",
)  # fmt: skip
RIGHT = COLUMNS[4:]
NARROW = ("model", "on", "delegated", "mean ms")


def cells(result: ProgramResult) -> list[str]:
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


def table(lines: Sequence[Sequence[str]], results: Sequence[ProgramResult]) -> Table:
    """The lines of `cells`, with their notes."""
    rows = Rows("", tuple(map(tuple, lines)))
    return Table("Times that a program told", COLUMNS, (rows,), len(COLUMNS) - len(RIGHT), notes=tuple(notes(results)))


def delegated(result: ProgramResult) -> str:
    """How much ran on the accelerator, with the nodes where they are known."""
    known = [d for d in result.figures.delegates if d.of]
    nodes = f" ({', '.join(f'{d.nodes} of {d.of} in {d.name}' for d in known)})" if known else ""
    return result.figures.delegation + nodes


def notes(results: Sequence[ProgramResult]) -> list[str]:
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
