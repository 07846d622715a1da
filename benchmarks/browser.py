"""Measure the LiteRT files of runs in headless Chromium, through ``edgekit serve``; writes results/browser.json.

    edgekit export RUN --target android -p fp32 -p fp16 -p int8 -p w8
    python -m benchmarks.browser RUN... [--suite quick]

One thread of WebAssembly on this machine: compare files of one network by their ratios; milliseconds are not those of a
phone. 16x8 is left out, because WebAssembly has only LiteRT's reference kernels for it, which would take minutes.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgekit import runs
from edgekit.bench.results import load
from edgekit.files import load_json, save_json
from edgekit.measurements import BenchmarkResult
from edgekit.ondevice.environment import environment
from edgekit.records import PRECISIONS
from edgekit.stats import proportions, quantiles
from tests.web import chromium

RESULTS = Path(__file__).parent / "results" / "browser.json"
FORMS = PRECISIONS[:4]


def measure(run: str, suite: str, scratch: Path) -> dict[str, BenchmarkResult]:
    """Return the results that the browser sent for one run, by precision."""
    wanted = [word for form in FORMS for word in ("-a", f"android/model.{form}.tflite")]
    command = [sys.executable, "-m", "edgekit", "serve", run, "--once", "--port", "0", "--suite", suite]
    with subprocess.Popen([*command, *wanted], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stdout is not None
        assert serving.stderr is not None
        link = next(found[0] for line in serving.stderr if (found := re.search(r"https?://\S+/#\S+", line)))
        with chromium.visiting(link.replace("/#", "/?auto=1#"), scratch / Path(run).name):
            serving.communicate()
    results = load(runs.open_run(Path("runs"), run).path / "bench")
    return {r.artifact.precision: r for r in results if r.device.startswith("web:") and r.artifact.target == "android"}


def described(result: BenchmarkResult, reference: BenchmarkResult) -> dict[str, Any]:
    """Return the figures of one file, with the agreement with FP32."""
    return {
        "p50_ms": quantiles.percentile_ms(result.latencies_ns, 50),
        "queries": len(result.latencies_ns),
        "fully_accelerated": result.environment.fully_accelerated,
        "top1": 100 * float(proportions.top1(result.logits, result.expected).mean()),
        "agreement": 100 * proportions.agreement(result.logits, reference.logits),
    }


def main() -> None:
    """Measure, print a table and merge it into the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--suite", default="quick")
    options = parser.parse_args()
    found = load_json(RESULTS) if RESULTS.is_file() else {}
    with tempfile.TemporaryDirectory() as scratch:
        for run in options.runs:
            sent = measure(run, options.suite, Path(scratch))
            files = {form: described(sent[form], sent["fp32"]) for form in FORMS}
            print(run, sent["fp32"].device, f"fp32 {files['fp32']['p50_ms']:.2f} ms", end="")
            for form, file in files.items():
                print(f"  {form} {file['p50_ms'] / files['fp32']['p50_ms']:.2f} ({file['top1']:.1f} %)", end="")
            print(flush=True)
            about = {"device": sent["fp32"].device, "environment": environment(), "suite": options.suite}
            found[Path(run).name] = {**about, "files": files}
            save_json(RESULTS, found)


if __name__ == "__main__":
    main()
