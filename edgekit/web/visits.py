"""Browsers as devices: what they are given to measure, and what they send. Their messages are untrusted."""

from __future__ import annotations

import dataclasses
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import UNSET, Meta

from edgekit import __version__, files, validation
from edgekit.bench.session import EvaluationSet
from edgekit.environment import Environment
from edgekit.errors import DataError
from edgekit.labels import visible
from edgekit.measurements import BROWSERS, BenchmarkResult, Suite
from edgekit.records import Artifact
from edgekit.stats import proportions
from edgekit.stats.latency import percentiles_ms
from edgekit.web import litertjs

RUNTIME = "LiteRT.js"
# Ways to run a model: on one thread, on several (in a cross-origin isolated page only), on the GPU.
MODES = ("wasm", "threads", "webgpu")
_SUFFIX = {"wasm": "", "threads": ", threads", "webgpu": ", WebGPU"}
_CHUNK_BYTES = 2_000_000
# Fields of the environment that the page shows beside the latencies.
_SHOWN = ("threads", "timed_together", "was_hidden", "fully_accelerated")
_MOST_COUNT, _LONGEST_NS = 10**9, 3_600_000_000_000
_MOST_TEXT, _MOST_NAME = 200, 40
# The first pattern that matches names the browser; browsers that imitate another one stand before it.
_BROWSERS = (
    ("Edge", r"Edg(?:e|A|iOS)?/(\d+)"),
    ("Opera", r"OPR/(\d+)"),
    ("Samsung Internet", r"SamsungBrowser/(\d+)"),
    ("Firefox", r"(?:Firefox|FxiOS)/(\d+)"),
    ("Headless Chrome", r"HeadlessChrome/(\d+)"),
    ("Chrome", r"(?:Chrome|CriOS)/(\d+)"),
    ("Safari", r"Version/(\d+)[\d.]* (?:Mobile/\w+ )?Safari/"),
)
_PLATFORMS = ("iPhone", "iPad", "Android", "Windows", "CrOS", "Macintosh", "Linux")


@dataclass(frozen=True)
class _Begun:
    """Message that begins a measurement."""

    model: Annotated[int, Meta(ge=0)]
    mode: Literal["wasm", "threads", "webgpu"]


@dataclass(frozen=True)
class _Progress:
    """A message about the progress of a measurement."""

    done: Annotated[int, Meta(ge=0, le=_MOST_COUNT)]
    total: Annotated[int, Meta(ge=0, le=_MOST_COUNT)]
    text: Any = None


@dataclass(frozen=True)
class _Circumstances:
    """Circumstances of a measurement, as a browser sends them; other keys are ignored."""

    threads: Annotated[int, Meta(ge=1, le=1024)]
    clock_step_ns: Annotated[int, Meta(ge=1, le=10**10)]
    timed_together: Annotated[int, Meta(ge=1, le=100_000)]
    warmup_queries: Annotated[int, Meta(ge=0, le=10**8)]
    isolated: bool
    secure: bool
    was_hidden: bool
    fully_accelerated: bool
    cores: Annotated[int, Meta(ge=1, le=4096)] | None = None
    memory_gb: Annotated[float, Meta(ge=0, le=4096)] | None = None
    load_ms: Annotated[float, Meta(ge=0, le=86_400_000)] | None = None
    compile_ms: Annotated[float, Meta(ge=0, le=86_400_000)] | None = None
    build: Any = UNSET
    gpu: Any = UNSET

    def environment(self) -> Environment:
        """Return the fields of `Environment`: numbers rounded, texts short and printable."""
        values: dict[str, Any] = {name: value for name, value in vars(self).items() if value is not UNSET}
        for name, value in values.items():
            if isinstance(value, float):
                values[name] = round(value, 3)
            elif name in ("build", "gpu"):
                values[name] = text(value)
        return Environment(**values)


@dataclass(frozen=True)
class _Finished:
    """Message that ends a measurement."""

    latencies_ns: Annotated[list[Annotated[int, Meta(ge=1, le=_LONGEST_NS)]], Meta(min_length=1, max_length=10**6)]
    environment: _Circumstances


@dataclass(frozen=True, eq=False)
class Measurement:
    """A finished measurement of a browser, checked. `latencies_ns`: int64."""

    environment: Environment
    latencies_ns: np.ndarray


def parse(body: bytes) -> dict[str, Any]:
    """Decode a JSON object.

    Raises:
        DataError: it is something else; NaN and infinite numbers are not JSON.
    """
    found: dict[str, Any] = validation.from_json(body, dict[str, Any])
    return found


def progress(message: Mapping[str, Any]) -> tuple[int, int, str]:
    """Check ``{"done": 3, "total": 10, "text": "..."}``.

    Raises:
        DataError: it is something else.
    """
    found: _Progress = validation.convert(message, _Progress)
    if found.done > found.total:
        raise DataError(f"done must be at most {found.total}, got {found.done}")
    return found.done, found.total, text(found.text)


def measurement(message: Mapping[str, Any]) -> Measurement:
    """Check ``{"latencies_ns": [...], "environment": {...}}``.

    Raises:
        DataError: it is not what the page sends.
    """
    found: _Finished = validation.convert(message, _Finished)
    return Measurement(found.environment.environment(), np.array(found.latencies_ns, np.int64))


@dataclass(frozen=True)
class Offer:
    """Models with their files, test images and limits, the same for every browser.

    Attributes:
        title: of the page. temperature: for probabilities from logits; None if it was not fitted.
        mode: of `MODES`, in which the page begins. threads: in the mode threads; 0: the page chooses.
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
        """Number of images that are sent at a time."""
        return max(1, _CHUNK_BYTES // self._pixels[0].nbytes)

    @property
    def chunks(self) -> int:
        """Number of chunks of test images."""
        return -(-len(self._pixels) // self.chunk)

    def images(self, number: int) -> np.ndarray:
        """Return a chunk of the test images, uint8 (n, H, W, 3)."""
        return self._pixels[number * self.chunk : (number + 1) * self.chunk]

    def described(self) -> dict[str, Any]:
        """Return plain values for the page."""
        preprocess, suite = self.samples.preprocess, dataclasses.asdict(self.suite)
        return {
            "title": self.title,
            "labels": self.labels,
            "models": [
                {
                    "name": artifact.name,
                    "precision": artifact.precision,
                    "input": artifact.input,
                    "tensor": {
                        "type": artifact.input,
                        "layout": artifact.layout,
                        "mean": preprocess.mean,
                        "std": preprocess.std,
                    },
                    "bytes": path.stat().st_size,
                }
                for artifact, path in self.models
            ],
            "image_size": preprocess.image_size,
            "resize_size": preprocess.resize_size,
            "picture": preprocess.contract(),
            "deep": preprocess.pixel_range is not None,
            "images": len(self._pixels),
            "chunk": self.chunk,
            "suite": self.suite.name,
            "limits": {key: suite[key] for key in ("warmup_queries", "warmup_s", "min_queries", "min_s", "max_s")},
            "temperature": self.temperature,
            "mode": self.mode,
            "threads": self.threads,
            "runtime": f"{RUNTIME} {litertjs.VERSION}",
        }


@dataclass
class _Pass:
    """A measurement in progress: one model in one mode. `seen`: bool, images whose logits have arrived."""

    model: int
    mode: str
    logits: np.ndarray
    seen: np.ndarray


class Visit:
    """One browser, its finished measurements, and the one in progress."""

    def __init__(self, offer: Offer, name: str, user_agent: str, source: str) -> None:
        self.offer, self.name, self.source = offer, name, source
        self.user_agent = text(user_agent)
        self.figures: list[dict[str, Any]] = []
        self._pass: _Pass | None = None
        self._lock = threading.Lock()

    def begin(self, message: Mapping[str, Any]) -> Artifact:
        """Begin a measurement, by ``{"model": 0, "mode": "wasm"}``; an unfinished one is dropped.

        Raises:
            DataError: there is no such model or mode.
        """
        begun: _Begun = validation.convert(message, _Begun)
        if begun.model >= len(self.offer.models):
            raise DataError(f"model must be less than {len(self.offer.models)}, got {begun.model}")
        samples = len(self.offer.samples.expected)
        empty = np.zeros((samples, len(self.offer.labels)), np.float32)
        with self._lock:
            self._pass = _Pass(begun.model, begun.mode, empty, np.zeros(samples, bool))
        return self.offer.models[begun.model][0]

    def add(self, chunk: int, body: bytes) -> None:
        """Take the logits of a chunk of the test images.

        Raises:
            DataError: no measurement has begun, there is no such chunk, or these are not its logits.
        """
        with self._lock:
            if self._pass is None:
                raise DataError("no measurement has begun")
            if not 0 <= chunk < self.offer.chunks:
                raise DataError(f"there are {self.offer.chunks} chunks")
            part = slice(chunk * self.offer.chunk, (chunk + 1) * self.offer.chunk)
            samples = len(self._pass.seen[part])
            self._pass.logits[part] = logits(body, samples, len(self.offer.labels))
            self._pass.seen[part] = True

    def finish(self, message: Mapping[str, Any]) -> BenchmarkResult:
        """End the measurement, and return its result.

        Raises:
            DataError: logits are missing, or the message is not what the page sends.
        """
        with self._lock:
            begun = self._pass
            if begun is None:
                raise DataError("no measurement has begun")
            if not begun.seen.all():
                raise DataError(f"the logits of {int((~begun.seen).sum())} images are missing")
            found = measurement(message)
            if begun.mode != "threads" and found.environment.threads != 1:
                raise DataError(f"the mode {begun.mode} has one thread")
            self._pass = None
        artifact, path = self.offer.models[begun.model]
        return BenchmarkResult(
            artifact=artifact,
            device=in_mode(self.name, begun.mode),
            runtime="litert",
            source=self.source,
            environment=dataclasses.replace(found.environment, **self._environment(begun.mode)),
            latencies_ns=found.latencies_ns,
            logits=begun.logits,
            expected=self.offer.samples.expected,
            size_bytes=path.stat().st_size,
        )

    def kept(self, result: BenchmarkResult) -> dict[str, Any]:
        """Return the figures of a kept result for the page, which shows them again when it is reloaded."""
        right = proportions.top1(result.logits, result.expected)
        percentiles = percentiles_ms(result.latencies_ns, result.environment.is_each_timed)
        figures = {
            "model": result.artifact.name,
            "mode": result.environment.mode,
            "device": result.device,
            "queries": len(result.latencies_ns),
            "images": len(right),
            "top1": None if int(result.expected.min()) < 0 else round(100 * float(right.mean()), 2),
            **dict(zip(("p50_ms", "p90_ms", "p99_ms"), percentiles)),
            "strip_ms": _strip(result.latencies_ns),
            **{key: getattr(result.environment, key) for key in _SHOWN},
        }
        same = (figures["model"], figures["mode"])
        with self._lock:
            self.figures = [f for f in self.figures if (f["model"], f["mode"]) != same] + [figures]
        return figures

    def _environment(self, mode: str) -> dict[str, Any]:
        """Return the circumstances that the server knows by itself."""
        return {
            "runtime": RUNTIME,
            "version": litertjs.VERSION,
            "processor": "webgpu" if mode == "webgpu" else "wasm",
            "mode": mode,
            "user_agent": self.user_agent,
            "batch": 1,
            "suite": self.offer.suite.name,
            "edgekit": __version__,
            "measured": files.now(),
        }


def _strip(latencies_ns: np.ndarray) -> list[float]:
    """Return at most 600 latencies in ms, at equal distances, in their order."""
    step = max(1, -(-len(latencies_ns) // 600))
    return [round(ns / 1e6, 4) for ns in latencies_ns[::step].tolist()]


def source_of(client: str, server: str) -> str:
    """Return the source of a browser's results: "host" if it runs on the machine that serves it, else "device".

    Args:
        client, server: addresses of both ends of its connection.
    """
    return "host" if client == server or client.startswith("127.") else "device"


def logits(body: bytes, samples: int, classes: int) -> np.ndarray:
    """Read float32 (samples, classes) logits from little-endian bytes.

    Raises:
        DataError: another number of bytes, or values that are not finite.
    """
    if len(body) != samples * classes * 4:
        raise DataError(f"{len(body)} bytes are not {classes} float32 each of {samples} images")
    values = np.frombuffer(body, "<f4").reshape(samples, classes).astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError("logits that are not finite numbers")
    return values


def text(value: Any) -> str:
    """Return any value as short printable text; "" for None."""
    return "" if value is None else visible(str(value)[:_MOST_TEXT])[:_MOST_TEXT]


def device_name(user_agent: str, model: str = "") -> str:
    """Return ``web:<phone or system>, <browser and version>``, in plain characters.

    Args:
        model: of the phone, from the browser's API; the one in user agents is fictitious.
    """
    found = ((name, re.search(pattern, user_agent)) for name, pattern in _BROWSERS)
    browser = next((f"{name} {match[1][:4]}" for name, match in found if match), "browser")
    platform = next((name for name in _PLATFORMS if name in user_agent), "unknown system")
    plain = re.sub(r"[^A-Za-z0-9 ._()+-]", "", model).strip()[:_MOST_NAME]
    return f"{BROWSERS}{plain or platform}, {browser}"


def in_mode(device: str, mode: str) -> str:
    """Return the device name for the results of one mode, which ends in the mode."""
    return device + _SUFFIX[mode]
