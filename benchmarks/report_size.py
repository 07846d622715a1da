"""Measure the size of the report and the time to make and to load it; writes results/report_size.json.

    python -m benchmarks.report_size [RUN...] [--loads 7]

Measures every RUN, and a synthetic run of 1,000 classes and 50 artifacts with everything that a report can contain.
Headless Chromium loads the page from a file: from the start of the navigation to the end of the load event, and to the
first paint. Times are medians of several loads, each in an empty page.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from edgekit import files, runs
from edgekit.api import report
from edgekit.reporting import html
from edgekit.reporting.material import Material
from tests.reporting import devtools
from tests.reporting.made import big

RESULTS = Path(__file__).parent / "results" / "report_size.json"
MOST_BYTES = 3_000_000
_TIMES = (
    "(() => { const n = performance.getEntriesByType('navigation')[0]; "
    "const p = performance.getEntriesByName('first-contentful-paint')[0]; "
    "return [n.loadEventEnd || n.duration, p ? p.startTime : null, document.querySelectorAll('*').length]; })()"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--loads", type=int, default=7)
    arguments = parser.parse_args()
    found = [measured(path.name, report.collect(runs.open_run(path.parent, path.name)), arguments.loads)
             for path in arguments.runs]  # fmt: skip
    found.append(measured("1,000 classes, 50 artifacts (synthetic)", big(), arguments.loads))
    version = subprocess.run([str(devtools.PROGRAM), "--version"], capture_output=True, text=True, check=True).stdout
    files.save_json(RESULTS, {"measured": files.now(), "browser": version.strip(), "loads": arguments.loads,
                              "pages": found})  # fmt: skip
    too_large = [page["run"] for page in found if page["bytes"] > MOST_BYTES]
    if too_large:
        raise SystemExit(f"over {MOST_BYTES} bytes: {', '.join(too_large)}")


def measured(name: str, material: Material, loads: int) -> dict[str, Any]:
    """Return bytes, seconds to make and milliseconds to load one page."""
    start = time.perf_counter()
    text = html.page(material)
    made = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder, devtools.browser() as tab:
        path = Path(folder) / "report.html"
        path.write_text(text, encoding="utf-8")
        times = [_load(tab, path) for _ in range(loads + 1)][1:]  # the first load starts the renderer
        assert not tab.complaints, tab.complaints
    found = {
        "run": name,
        "classes": len(material.labels),
        "artifacts": len(material.rows),
        "bytes": len(text.encode()),
        "made_s": round(made, 2),
        "elements": times[0][2],
        "load_ms": round(statistics.median(load for load, _, _ in times), 1),
        "load_ms_all": [round(load, 1) for load, _, _ in times],
        "first_paint_ms": round(statistics.median(paint for _, paint, _ in times if paint is not None), 1),
    }
    print(found)
    return found


def _load(tab: devtools.Tab, path: Path) -> tuple[float, float | None, int]:
    tab.call("Page.navigate", url="about:blank")
    tab.show(path)
    deadline = time.monotonic() + 10
    while True:  # the first paint follows the load event
        load, paint, elements = tab.value(_TIMES)
        if paint is not None or time.monotonic() > deadline:
            return load, paint, elements
        time.sleep(0.05)


if __name__ == "__main__":
    main()
