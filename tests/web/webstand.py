"""A running server of `edgekit serve`, and a plain HTTP client in place of a browser."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bench.session import EvaluationSet
from edgekit.errors import MissingError
from edgekit.files import sha256_file
from edgekit.measurements import BenchmarkResult, Suite
from edgekit.records import Artifact, Preprocess
from edgekit.web import litertjs
from edgekit.web.access import Access
from edgekit.web.server import Callbacks, WebServer
from edgekit.web.visits import Offer, Visit


def _missing() -> str:
    try:
        litertjs.check()
    except MissingError as error:
        return f"{error.message}: {error.hint}"
    return ""


needs_litertjs = pytest.mark.skipif(bool(_missing()), reason=_missing())
CHROME = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36"
)
LABELS = ("apple", "banana", "cherry")
# Short limits: browsers are tested, not their speed.
BRIEF = Suite("brief", warmup_queries=2, warmup_s=0, min_queries=20, min_s=0.05, max_s=5)
ENVIRONMENT = {
    "threads": 1, "clock_step_ns": 5000, "timed_together": 1, "warmup_queries": 5, "isolated": True, "secure": True,
    "was_hidden": False, "fully_accelerated": True, "cores": 8, "memory_gb": 8, "gpu": "",
    "build": "compat", "load_ms": 1.5, "compile_ms": 2,
}  # fmt: skip


def artifact(path: Path, precision: str = "fp32", taken: str = "float32") -> Artifact:
    """The record of a .tflite file."""
    digest = sha256_file(path)
    return Artifact(f"android/{path.name}", "android", precision, "litert", "NHWC", digest, "b" * 64, input=taken)


def offer(
    folder: Path, models: tuple[tuple[Artifact, Path], ...] = (), pixels: np.ndarray | None = None, **more: Any
) -> Offer:
    """Some models, or a file of no use; the images that are given, or seven of noise."""
    preprocess = Preprocess(32, 36)
    if pixels is None:
        pixels = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)
    np.save(folder / "pixels.npy", pixels)
    if not models:
        (folder / "model.fp32.tflite").write_bytes(b"no model")
        models = ((artifact(folder / "model.fp32.tflite"), folder / "model.fp32.tflite"),)
    samples = EvaluationSet(folder / "pixels.npy", np.arange(len(pixels)) % len(LABELS), preprocess)
    return Offer("fruit, tiny", LABELS, models, samples, BRIEF, **more)


@dataclass
class Stand:
    """What a server did: results that it kept, who was there, what it said."""

    server: WebServer
    kept: list[BenchmarkResult] = field(default_factory=list)
    visits: list[Visit] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    progress: list[tuple[str, int, int, str]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def port(self) -> int:
        return self.server.server_port

    @property
    def token(self) -> str:
        return self.server.access.token

    def client(self) -> Client:
        return Client(self.port)

    def guest(self, agent: str = CHROME, phone: str = "") -> Client:
        """A client that has entered."""
        client = self.client()
        client.headers["User-Agent"] = agent
        assert client.post("/api/enter", {"token": self.token, "phone": phone}) == (204, b"")
        return client


@contextmanager
def standing(
    served: Offer, access: Access | None = None, address: str = "127.0.0.1", secure: ssl.SSLContext | None = None
) -> Iterator[Stand]:
    """A server on a free port."""
    stand: Stand

    def entered(visit: Visit) -> Any:
        stand.visits.append(visit)
        return lambda done, total, text: stand.progress.append((visit.name, done, total, text))

    callbacks = Callbacks(entered, lambda result: stand.kept.append(result), lambda visit: stand.over.set(),
                lambda text: stand.said.append(text))  # fmt: skip
    server = WebServer((address, 0), served, callbacks, access or Access(), secure)
    stand = Stand(server)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stand
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Client:
    """Speaks HTTP; keeps the cookie that it gets."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.headers = {"Host": f"127.0.0.1:{port}"}
        self.answer: http.client.HTTPResponse

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        length = {} if body is None else {"Content-Length": str(len(body))}
        for name, value in {**self.headers, **length, **(headers or {})}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        self.answer = connection.getresponse()
        content = self.answer.read()
        if cookie := self.answer.headers["Set-Cookie"]:
            self.headers["Cookie"] = cookie.partition(";")[0]
        connection.close()
        return self.answer.status, content

    def get(self, path: str) -> tuple[int, bytes]:
        return self.ask("GET", path)

    def post(self, path: str, value: Any = None) -> tuple[int, bytes]:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return self.ask("POST", path, body)

    def measured(self, logits: np.ndarray, mode: str = "wasm", **environment: Any) -> tuple[int, bytes]:
        """Send a whole measurement of the first model, all in one chunk."""
        assert self.post("/api/begin", {"model": 0, "mode": mode})[0] == 204
        assert self.post("/api/logits/0", logits.astype("<f4").tobytes())[0] == 204
        said = {"latencies_ns": [1_000_000] * 20, "environment": {**ENVIRONMENT, **environment}}
        return self.post("/api/finish", said)
