"""Measured results and judged rows, made up, for tests of what is done with them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from edgekit.environment import parse
from edgekit.measurements import (
    BenchmarkResult,
    Delegated,
    Delegation,
    Flag,
    FlagKind,
    ProgramFigures,
    ProgramResult,
    Summary,
)
from edgekit.records import Artifact

CLASSES = 3


def artifact(name: str = "baseline/pytorch", precision: str = "fp32", runtime: str = "torch", **more: Any) -> Artifact:
    """The record of a file that need not exist."""
    fields = {"target": name.split("/")[0], "layout": "NCHW", "sha256": "a" * 64, "parent": "b" * 64, **more}
    return Artifact(name, precision=precision, runtime=runtime, **fields)


def result(
    of: Artifact | None = None, right: int = 30, samples: int = 40, ms: float = 2.0, **more: Any
) -> BenchmarkResult:
    """`samples` answers of which the first `right` are right, and 700 latencies of `ms`."""
    of = of or artifact()
    expected = np.arange(samples) % CLASSES
    answers = np.where(np.arange(samples) < right, expected, (expected + 1) % CLASSES)
    environment = {"runtime": of.runtime, "version": "1.0", "processor": "cpu", "cpu": "a CPU", "threads": 1,
                   "busy_before": 0.01, "peak_rss_mb": 50.0, "measured": "2025-01-01T00:00:00+00:00"}  # fmt: skip
    fields = {
        "device": "local",
        "runtime": of.runtime,
        "source": "host",
        "environment": parse(environment),
        "latencies_ns": (round(ms * 1e6),) * 700,
        "logits": np.eye(CLASSES, dtype=np.float32)[answers],
        "expected": expected,
        "size_bytes": 4_000_000,
        **more,
    }
    return BenchmarkResult(of, **fields)


def flag(text: str, ratio: float = 1.25) -> Flag:
    """A flag of a series by its words."""
    kind = FlagKind.AUTOCORRELATED if text.startswith("autocorrelated") else FlagKind.DRIFTS
    return Flag(kind, text, ratio)


def by_program(of: Artifact | None = None, **more: Any) -> ProgramResult:
    """Figures of benchmark_model on a phone's GPU, where a part of the model ran."""
    figures = ProgramFigures(
        50,
        2.5,
        2.0,
        4.0,
        0.25,
        3.0,
        9.0,
        2.6,
        12.0,
        2.4,
        2.1,
        3.5,
        Delegated.PARTIAL,
        (Delegation("GpuDelegate", 60, 66, 3),),
    )
    environment = {"threads": 4, "accelerator": "gpu", "thermal_status_before": 0, "thermal_status_after": 1}
    fields = {
        "device": "phone", "program": "benchmark_model", "program_sha256": "d" * 64, "source": "device",
        "environment": parse(environment), "figures": figures, "size_bytes": 4_000_000, **more,
    }  # fmt: skip
    return ProgramResult(of or artifact("phone/model.int8.tflite", "int8", "litert"), **fields)


BASELINE_ROW = Summary(
    artifact="baseline/pytorch", target="desktop", precision="fp32", ran_in="torch 2.9", processor="cpu",
    device="local", threads=1, source="host", stand_in=False, baseline=True, busy=False, size_mb=8.9, samples=270,
    top1=97.8, top1_low=95.2, top1_high=99.0, drop=0.0, p_value=1.0, agreement=100.0, queries=700,
    p50_ms=12.0, p90_ms=13.0, p99_ms=14.0, speedup=1.0,
)  # fmt: skip


def row(**changes: Any) -> Summary:
    """An INT8 row, with changes."""
    fields = {"artifact": "android/model.int8.tflite", "target": "android", "precision": "int8", "baseline": False,
              "ran_in": "ai-edge-litert 2.0", "size_mb": 2.4, "p50_ms": 3.0, "p90_ms": 3.2, "p99_ms": 3.5,
              "speedup": 4.0, "agreement": 98.5}  # fmt: skip
    return dataclasses.replace(BASELINE_ROW, **{**fields, **changes})
