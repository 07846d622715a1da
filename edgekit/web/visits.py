"""What browsers are given to measure, and what each of them has sent so far."""

from __future__ import annotations

import dataclasses
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import __version__, files
from edgekit.bench.session import EvaluationSet
from edgekit.errors import DataError
from edgekit.labels import visible
from edgekit.measurements import BROWSERS, BenchmarkResult, Suite
from edgekit.records import Artifact
from edgekit.stats import proportions
from edgekit.stats.latency import percentiles_ms
from edgekit.web import litertjs

RUNTIME = "LiteRT.js"
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
            "runtime": f"{RUNTIME} {litertjs.VERSION}",
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
        self.user_agent = text(user_agent)
        self.figures: list[dict[str, Any]] = []
        self._pass: _Pass | None = None
        self._lock = threading.Lock()

    def begin(self, said: Mapping[str, Any]) -> Artifact:
        """``{"model": 0, "mode": "wasm"}``: a measurement begins; one that was not finished is forgotten.

        Raises:
            DataError: no such model or mode.
        """
        model = whole(said, "model", 0, len(self.offer.models) - 1)
        samples = len(self.offer.samples.expected)
        empty = np.zeros((samples, len(self.offer.labels)), np.float32)
        with self._lock:
            self._pass = _Pass(model, mode(said), empty, np.zeros(samples, bool))
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
            self._pass.logits[part] = logits(body, samples, len(self.offer.labels))
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
            told = measurement(said)
            if begun.mode != "threads" and told.environment["threads"] != 1:
                raise DataError(f"the mode {begun.mode} has one thread")
            self._pass = None
        artifact, path = self.offer.models[begun.model]
        return BenchmarkResult(
            artifact=artifact,
            device=in_mode(self.name, begun.mode),
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
        right = proportions.top1(result.logits, result.expected)
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
            "version": litertjs.VERSION,
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
    total = whole(said, "total", 0, _MOST_COUNT)
    return whole(said, "done", 0, total), total, text(said.get("text"))


def source_of(client: str, server: str) -> str:
    """What results are labelled with: "host" if a browser runs on the machine that serves it, else "device".

    Args:
        client, server: both ends of its connection.
    """
    return "host" if client == server or client.startswith("127.") else "device"


# What a browser says, believed in nothing: its name, its circumstances, its latencies, its logits.

# How a browser runs a model: on one thread, on several (a cross-origin isolated page only), on the GPU.
MODES = ("wasm", "threads", "webgpu")
_SUFFIX = {"wasm": "", "threads": ", threads", "webgpu": ", WebGPU"}
# Of what a browser says of itself: numbers with their limits, switches, texts. Nothing else is kept.
_NUMBERS = {
    "threads": (1, 1024),
    "cores": (1, 4096),
    "memory_gb": (0, 4096),
    "clock_step_ns": (1, 10_000_000_000),
    "timed_together": (1, 100_000),
    "warmup_queries": (0, 100_000_000),
    "load_ms": (0, 86_400_000),
    "compile_ms": (0, 86_400_000),
}
_WHOLE = ("threads", "cores", "clock_step_ns", "timed_together", "warmup_queries")
_SWITCHES = ("isolated", "secure", "was_hidden", "fully_accelerated")
_TEXTS = ("build", "gpu")
_NEEDED = ("threads", "clock_step_ns", "timed_together", "warmup_queries", *_SWITCHES)
_MOST_LATENCIES, _LONGEST_NS = 1_000_000, 3_600_000_000_000
_MOST_TEXT, _MOST_NAME = 200, 40
# The first that fits names the browser: what imitates another one stands before it.
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
class Said:
    """One finished measurement, as a browser described it and as it was checked."""

    environment: dict[str, Any]
    latencies_ns: tuple[int, ...]


def parse(body: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataError: anything else, also NaN and numbers without end.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"no JSON: {visible(str(error))[:_MOST_TEXT]}") from None
    if not isinstance(value, dict):
        raise DataError("no JSON object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def whole(said: Mapping[str, Any], key: str, least: int, most: int) -> int:
    """The whole number that `said` has under `key`.

    Raises:
        DataError: there is none, or one outside the limits.
    """
    value = said.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise DataError(f"{key} must be a whole number from {least} to {most}")
    return value


def mode(said: Mapping[str, Any]) -> str:
    """Which of `MODES` is meant.

    Raises:
        DataError: none of them.
    """
    value = said.get("mode")
    if value not in MODES:
        raise DataError(f"mode must be one of {', '.join(MODES)}")
    return str(value)


def measurement(said: Mapping[str, Any]) -> Said:
    """``{"latencies_ns": [...], "environment": {...}}``, checked.

    Raises:
        DataError: it is not what the page sends.
    """
    latencies, told = said.get("latencies_ns"), said.get("environment")
    if not isinstance(latencies, list) or not 1 <= len(latencies) <= _MOST_LATENCIES:
        raise DataError(f"latencies_ns must be a list of 1 to {_MOST_LATENCIES} numbers")
    if not all(type(ns) is int and 0 < ns <= _LONGEST_NS for ns in latencies):
        raise DataError("latencies_ns must be whole nanoseconds above zero, of an hour at most")
    if not isinstance(told, dict):
        raise DataError("environment must be an object")
    if missing := [name for name in _NEEDED if name not in told]:
        raise DataError(f"environment lacks {', '.join(missing)}")
    environment: dict[str, Any] = {}
    for name, (least, most) in _NUMBERS.items():
        if told.get(name) is not None:
            environment[name] = _number(told[name], name, least, most)
    for name in _SWITCHES:
        if not isinstance(told[name], bool):
            raise DataError(f"{name} must be true or false")
        environment[name] = told[name]
    for name in _TEXTS:
        if name in told:
            environment[name] = text(told[name])
    if missing := [name for name in _NEEDED if name not in environment]:
        raise DataError(f"environment lacks {', '.join(missing)}")
    return Said(environment, tuple(latencies))


def _number(value: Any, name: str, least: float, most: float) -> int | float:
    kinds = (int,) if name in _WHOLE else (int, float)
    if type(value) not in kinds or not least <= value <= most:
        raise DataError(f"{name} must be a {'whole ' if name in _WHOLE else ''}number from {least} to {most}")
    return value if name in _WHOLE else round(float(value), 3)


def logits(body: bytes, samples: int, classes: int) -> np.ndarray:
    """float32 (samples, classes) from little-endian bytes.

    Raises:
        DataError: another number of bytes, or values that are no numbers.
    """
    if len(body) != samples * classes * 4:
        raise DataError(f"{len(body)} bytes are not {classes} float32 each of {samples} images")
    values = np.frombuffer(body, "<f4").reshape(samples, classes).astype(np.float32)
    if not np.isfinite(values).all():
        raise DataError("logits that are no finite numbers")
    return values


def text(value: Any) -> str:
    """Short printable text, whatever it was; nothing for None."""
    return "" if value is None else visible(str(value)[:_MOST_TEXT])[:_MOST_TEXT]


def device_name(user_agent: str, model: str = "") -> str:
    """``web:<phone or system>, <browser and version>``, of plain characters.

    Args:
        model: of the phone, where the browser tells; what user agents say of it is made up.
    """
    found = ((name, re.search(pattern, user_agent)) for name, pattern in _BROWSERS)
    browser = next((f"{name} {match[1][:4]}" for name, match in found if match), "browser")
    platform = next((name for name in _PLATFORMS if name in user_agent), "unknown system")
    plain = re.sub(r"[^A-Za-z0-9 ._()+-]", "", model).strip()[:_MOST_NAME]
    return f"{BROWSERS}{plain or platform}, {browser}"


def in_mode(device: str, way: str) -> str:
    """The name under which the results of one mode are kept; a suffix tells it from the others."""
    return device + _SUFFIX[way]
