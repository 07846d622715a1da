"""Made-up material of any size, for tests of the report and for its figures of size."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import runs
from edgekit.analysis.summary import summarize
from edgekit.measurements import BenchmarkResult, Flag, FlagKind, Latency, LayerFigures, Quantile, Roofline, Summary
from edgekit.reporting import changes, html, pictures
from edgekit.reporting.html import MOST_ENTRIES
from edgekit.reporting.material import Material, Picture
from tests.bench.results import artifact, result
from tests.reporting.evaluations import HOSTILE, evaluation

# Name, source, runtime of its files, milliseconds of FP32.
DEVICES = (
    ("local", "host", "litert", 14.0), ("pixel-8", "device", "litert", 9.0), ("rpi-5", "device", "litert", 21.0),
    ("jetson-orin-nano", "device", "tensorrt", 1.9), ("web:Android, Chrome 140", "device", "litert", 33.0),
    ("phone-emulator", "emulated", "litert", 80.0),
    ("لوحة 😀 <b>board</b>\x1b[31m " + "x" * 90, "device", "litert", 12.0),
)  # fmt: skip
_FASTER = {"fp32": 1.0, "fp16": 1.1, "int8": 2.4, "w8": 1.02, "16x8": 1.5}
_SMALLER = {"fp32": 1.0, "fp16": 2.0, "int8": 3.9, "w8": 3.8, "16x8": 3.7}


def meta(**changes: Any) -> dict[str, Any]:
    """A run.json."""
    return {
        "arch": "mobilenet_v2",
        "labels": ["cat", "dog", "owl"],
        "preprocess": {"image_size": 224, "resize_size": 256},
        "data": {"root": "/data", "fingerprint": "f" * 64},
        "checkpoint_sha256": "b" * 64,
        "options": {"lr": 0.001},
        "versions": {"torch": "2.9"},
        "history": [
            {"epoch": 1, "train_loss": 1.5, "val_loss": 1.0, "val_top1": 50.0, "images_per_s": 10.0, "best": True}
        ],
        **changes,
    }


def run(name: str = "run", **changes: Any) -> runs.Run:
    """A run that lies nowhere."""
    return runs.Run(Path("runs") / name, runs.RunInfo.from_document(meta(**changes)))


def big(classes: int = 1000, artifacts: int = 50, images: int = 2000, seed: int = 0) -> Material:
    """So many classes and artifacts, everything measured, judged and drawn, with every name that may do harm."""
    rng = np.random.default_rng(seed)
    labels = [*HOSTILE, *(f"class {n:04} of many" for n in range(classes))][:classes]
    results = _results(rng, classes, artifacts, images)
    found = changes.changes(results)
    wanted = {a.image for _, a in changes.shown_images([c for c in found if c.answers][:MOST_ENTRIES])}
    history = [
        {"epoch": n, "train_loss": 6 / n, "val_loss": 6.5 / n, "val_top1": 80 - 70 / n, "images_per_s": 90.0,
         "best": True, "val_macro_f1": 79 - 70 / n, "lr": 0.001}
        for n in range(1, 31)
    ]  # fmt: skip
    judged = evaluation(labels)
    counts = {split: rng.integers(1, 90, classes).tolist() for split in ("train", "val", "test")}
    drawn = pictures.draw_all(history, None, judged)
    drawn["classes.svg"] = pictures.class_counts(labels, counts)
    return Material(
        run=run("big", labels=labels, history=history),
        rows=[_with_intervals(row, n) for n, row in enumerate(summarize(results))],
        results=results,
        evaluation=judged,
        drawn=drawn,
        changes=found,
        layers={f"{r.artifact.name} on {r.device}": _layers(rng) for r in results[1:6]},
        images={n: Picture(f"{HOSTILE[n % 12]}/{n}.png", _noise(rng)) for n in wanted},
        counts=counts,
    )


def _results(rng: np.random.Generator, classes: int, artifacts: int, images: int) -> list[BenchmarkResult]:
    expected = np.arange(images) % classes
    logits = rng.normal(0, 1, (images, classes)).astype(np.float16)
    right = np.where(rng.random(images) < 0.8, expected, rng.integers(0, classes, images))
    logits[np.arange(images), right] += 6
    base = result(logits=logits, expected=expected, latencies_ns=_times(rng, 20.0))
    made, known = [base], list(_FASTER)
    for n in range(artifacts - 1):
        device, source, runtime, ms = DEVICES[n % len(DEVICES)]
        precision = known[n // len(DEVICES) % len(known)]
        wrong, changed = logits.copy(), rng.choice(images, 2 + n % 40, replace=False)
        wrong[changed, rng.integers(0, classes, len(changed))] += 9
        suffix = "onnx" if runtime == "tensorrt" else "tflite"
        folder = ("android", "jetson", "rpi")[0 if suffix == "tflite" else 1]
        of = artifact(f"{folder}/model.{precision}.v{n}.{suffix}", precision, runtime, sha256=f"{n:064x}",
                      details={"recipe": "default", "observer": "mse"} if precision == "int8" else {})  # fmt: skip
        environment = base.environment.with_values(runtime=runtime, threads=1, suite="standard")
        made.append(
            result(of, device=device, source=source, logits=wrong, expected=expected, environment=environment,
                   latencies_ns=_times(rng, ms / _FASTER[precision]), size_bytes=int(14e6 / _SMALLER[precision]))
        )  # fmt: skip
    return made


def _times(rng: np.random.Generator, ms: float) -> tuple[int, ...]:
    times = ms * (1 + rng.gamma(1.5, 0.03, 1000)) * np.where(rng.random(1000) < 0.01, 1.8, 1.0)
    return tuple(int(t * 1e6) for t in times)


def _with_intervals(row: Summary, n: int) -> Summary:
    """A row as the statistics fill it."""

    def around(percent: float, ms: float | None) -> Quantile:
        if ms is None:
            return Quantile(percent, None, None, None, None)
        return Quantile(percent, ms, 0.98 * ms, 1.03 * ms, 1.05 * ms)

    flags = (Flag(FlagKind.DRIFTS, "drifts by 7 % from its first to its last third"),) if n % 9 == 4 else ()
    quantiles = (around(50, row.p50_ms), around(90, row.p90_ms), around(99, row.p99_ms))
    energy = {"gross_mj": 20.0 + n, "net_mj": 9.0, "rail": "VDD_IN", "idle_mw": 5000.0, "compute_ms": row.p50_ms}
    return dataclasses.replace(
        row,
        latency=Latency(1000, 0, quantiles, "order statistics", 0.05, flags, 55.0, 54.0, 56.0),
        drop_low=row.drop - 0.6,
        drop_high=row.drop + 0.6,
        speedup_low=row.speedup and 0.97 * row.speedup,
        speedup_high=row.speedup and 1.03 * row.speedup,
        speedup_best=row.speedup and 0.7 * row.speedup,
        roofline=Roofline(300_000_000, 9_000_000, 1.2, "memory", 0.4, "a vendor's page"),
        **(energy if row.device.startswith("jetson") else {}),
    )


def _layers(rng: np.random.Generator) -> list[LayerFigures]:
    times = rng.gamma(1, 0.2, 60)
    return [
        LayerFigures(f"features.{n // 3}.layers.{n % 3}", "Conv2d", float(t), float(100 * t / times.sum()),
                     1_000_000 * n, 30.0 + n % 7, 22.0 + n % 5, 25.0 + n % 11, 0.9995)
        for n, t in enumerate(times)
    ]  # fmt: skip


def _noise(rng: np.random.Generator) -> bytes:
    """The JPEG that is hardest to make small."""
    return html.jpeg(rng.integers(0, 256, (96, 96, 3)).astype(np.uint8), 96)
