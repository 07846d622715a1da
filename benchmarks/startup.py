"""Measure the time of ``edgekit --help`` as a ratio to importing typer alone, by medians of alternating runs."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 15
RESULT = Path(__file__).parent / "results" / "startup.json"
COMMANDS = {
    "edgekit_help": [sys.executable, "-m", "edgekit", "--help"],
    "import_typer": [sys.executable, "-c", "import typer"],
}


def seconds(command: list[str]) -> float:
    """Return the wall time of one run of `command`."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Measure, print and record the raw values."""
    raw: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(RUNS + 1):
        for name, command in COMMANDS.items():
            raw[name].append(seconds(command))
    medians = {name: statistics.median(values[1:]) for name, values in raw.items()}
    ratio = medians["edgekit_help"] / medians["import_typer"]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"python": platform.python_version(), "ratio": ratio, "seconds": raw}, indent=1))
    print(f"edgekit --help {medians['edgekit_help']:.3f} s, import typer {medians['import_typer']:.3f} s, {ratio:.2f}x")


if __name__ == "__main__":
    main()
