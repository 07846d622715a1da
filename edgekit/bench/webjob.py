"""What browsers are given to measure, and what each of them has sent so far."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import __version__, files
from edgekit.bench import metrics, webresults
from edgekit.bench.session import EvaluationSet
from edgekit.bench.summary import percentiles_ms
from edgekit.errors import DataError
from edgekit.measurements import BenchmarkResult, Suite
from edgekit.records import Artifact

RUNTIME, VERSION = "LiteRT.js", "2.5.3"
_CHUNK_BYTES = 2_000_000
# Of the environment, on the page: what a reader must know of the latencies.
_SHOWN = ("threads", "timed_together", "was_hidden", "fully_accelerated")
_MOST_COUNT = 1_000_000_000


@dataclass(frozen=True)
class Offer:
    """What every browser gets: models with their files, test images, limits.

    Attributes:
        title: of the page. temperature: that makes probabilities of logits; None if it was not fitted.
        mode: of `webresults.MODES`, what the page begins with. threads: in the mode threads; 0 lets the page choose.
    """

    title: str
    labels: tuple[str, ...]
    models: tuple[tuple[Artifact, Path], ...]
    samples: EvaluationSet
    suite: Suite
    temperature: float | None = None
    mode: str = "wasm"
    threads: int = 0

    @cached_property
    def _pixels(self) -> np.ndarray:
        return np.load(self.samples.pixels, mmap_mode="r", allow_pickle=False)

    @property
    def chunk(self) -> int:
        """How many images are sent at a time."""
        return max(1, _CHUNK_BYTES // self._pixels[0].nbytes)

    @property
    def chunks(self) -> int:
        """In so many parts the test images are sent."""
        return -(-len(self._pixels) // self.chunk)

    def images(self, number: int) -> np.ndarray:
        """Chunk `number` of the test images, uint8 (n, H, W, 3)."""
        return self._pixels[number * self.chunk : (number + 1) * self.chunk]

    def described(self) -> dict[str, Any]:
        """What the page must know, as plain values."""
        preprocess, suite = self.samples.preprocess, dataclasses.asdict(self.suite)
        return {
            "title": self.title,
            "labels": self.labels,
            "models": [
                {
                    "name": artifact.name,
                    "precision": artifact.precision,
                    "input": artifact.input,
                    "bytes": path.stat().st_size,
                }
                for artifact, path in self.models
            ],
            "image_size": preprocess.image_size,
            "resize_size": preprocess.resize_size,
            "mean": preprocess.mean,
            "std": preprocess.std,
            "images": len(self._pixels),
            "chunk": self.chunk,
            "suite": self.suite.name,
            "limits": {key: suite[key] for key in ("warmup_queries", "warmup_s", "min_queries", "min_s", "max_s")},
            "temperature": self.temperature,
            "mode": self.mode,
            "threads": self.threads,
            "runtime": f"{RUNTIME} {VERSION}",
        }


@dataclass
class _Pass:
    """One model in one mode, being measured; `seen` says of which images the logits are there."""

    model: int
    mode: str
    logits: np.ndarray
    seen: np.ndarray


class Visit:
    """One browser. What it sends of one measurement is kept apart until that is whole, and from other browsers'."""

    def __init__(self, offer: Offer, name: str, user_agent: str, source: str) -> None:
        self.offer, self.name, self.source = offer, name, source
        self.user_agent = webresults.text(user_agent)
        self.figures: list[dict[str, Any]] = []
        self._pass: _Pass | None = None
        self._lock = threading.Lock()

    def begin(self, said: Mapping[str, Any]) -> Artifact:
        """``{"model": 0, "mode": "wasm"}``: a measurement begins; one that was not finished is forgotten.

        Raises:
            DataError: no such model or mode.
        """
        model = webresults.whole(said, "model", 0, len(self.offer.models) - 1)
        samples = len(self.offer.samples.expected)
        empty = np.zeros((samples, len(self.offer.labels)), np.float32)
        with self._lock:
            self._pass = _Pass(model, webresults.mode(said), empty, np.zeros(samples, bool))
        return self.offer.models[model][0]

    def add(self, chunk: int, body: bytes) -> None:
        """The logits of chunk `chunk` of the test images.

        Raises:
            DataError: nothing was begun, no such chunk, or not its logits.
        """
        with self._lock:
            if self._pass is None:
                raise DataError("no measurement has begun")
            if not 0 <= chunk < self.offer.chunks:
                raise DataError(f"there are {self.offer.chunks} chunks")
            part = slice(chunk * self.offer.chunk, (chunk + 1) * self.offer.chunk)
            samples = len(self._pass.seen[part])
            self._pass.logits[part] = webresults.logits(body, samples, len(self.offer.labels))
            self._pass.seen[part] = True

    def finish(self, said: Mapping[str, Any]) -> BenchmarkResult:
        """The measurement that was begun is whole.

        Raises:
            DataError: it is not, or what was sent cannot be true.
        """
        with self._lock:
            begun = self._pass
            if begun is None:
                raise DataError("no measurement has begun")
            if not begun.seen.all():
                raise DataError(f"the logits of {int((~begun.seen).sum())} images are missing")
            told = webresults.measurement(said)
            if begun.mode != "threads" and told.environment["threads"] != 1:
                raise DataError(f"the mode {begun.mode} has one thread")
            self._pass = None
        artifact, path = self.offer.models[begun.model]
        return BenchmarkResult(
            artifact=artifact,
            device=webresults.in_mode(self.name, begun.mode),
            runtime="litert",
            source=self.source,
            environment={**told.environment, **self._environment(begun.mode)},
            latencies_ns=told.latencies_ns,
            logits=begun.logits,
            expected=self.offer.samples.expected,
            size_bytes=path.stat().st_size,
        )

    def kept(self, result: BenchmarkResult) -> dict[str, Any]:
        """The figures of a result that was kept, for the page; they are shown again when it is loaded anew."""
        right = metrics.top1(result.logits, result.expected)
        figures = {
            "model": result.artifact.name,
            "mode": result.environment["mode"],
            "device": result.device,
            "queries": len(result.latencies_ns),
            "images": len(right),
            "top1": round(100 * float(right.mean()), 2),
            **dict(zip(("p50_ms", "p90_ms", "p99_ms"), percentiles_ms(result.latencies_ns, result.environment))),
            "strip_ms": _strip(result.latencies_ns),
            **{key: result.environment[key] for key in _SHOWN},
        }
        same = (figures["model"], figures["mode"])
        with self._lock:
            self.figures = [f for f in self.figures if (f["model"], f["mode"]) != same] + [figures]
        return figures

    def _environment(self, mode: str) -> dict[str, Any]:
        """What the server knows by itself."""
        return {
            "runtime": RUNTIME,
            "version": VERSION,
            "processor": "webgpu" if mode == "webgpu" else "wasm",
            "mode": mode,
            "user_agent": self.user_agent,
            "batch": 1,
            "suite": self.offer.suite.name,
            "edgekit": __version__,
            "measured": files.now(),
        }


def _strip(latencies_ns: tuple[int, ...]) -> list[float]:
    """At most 600 latencies in their order, in ms: of each of as many equal stretches the first."""
    step = max(1, -(-len(latencies_ns) // 600))
    return [round(ns / 1e6, 4) for ns in latencies_ns[::step]]


def progress(said: Mapping[str, Any]) -> tuple[int, int, str]:
    """``{"done": 3, "total": 10, "text": "..."}``, checked.

    Raises:
        DataError: it is something else.
    """
    total = webresults.whole(said, "total", 0, _MOST_COUNT)
    return webresults.whole(said, "done", 0, total), total, webresults.text(said.get("text"))


def source_of(client: str, server: str) -> str:
    """What results are labelled with: "host" if a browser runs on the machine that serves it, else "device".

    Args:
        client, server: both ends of its connection.
    """
    return "host" if client == server or client.startswith("127.") else "device"
