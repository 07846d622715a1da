"""Serve: measure exported models in browsers, and keep what they send."""

from __future__ import annotations

import errno
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import progress, runs
from edgekit.bench import results
from edgekit.errors import MissingError, unknown
from edgekit.measurements import BenchmarkResult
from edgekit.stats import proportions, quantiles
from edgekit.stats.latency import percentiles_ms
from edgekit.web import litertjs
from edgekit.web.access import Access
from edgekit.web.server import Callbacks, WebServer
from edgekit.web.visits import Offer, Visit

if TYPE_CHECKING:
    from edgekit.measurements import Suite
    from edgekit.records import Artifact


def offer_of(opened: runs.Run, wanted: list[str], limits: Suite, scratch: Path) -> Offer:
    """What browsers get of a run.

    Raises:
        MissingError: LiteRT.js is not installed, or the run has no file that a browser can run.
        UsageError: an artifact that is wanted does not exist.
    """
    from edgekit.api.benchmark import test_set
    from edgekit.api.intermediates import Intermediates
    from edgekit.evaluation import evaluate
    from edgekit.web.visits import Offer

    litertjs.check()
    bench = Intermediates(opened)
    checkpoint = bench.checkpoint
    models = _models(opened, checkpoint.sha256, wanted)
    judged = evaluate.load(opened.path, checkpoint.sha256)
    return Offer(
        title=f"{opened.name}, {checkpoint.arch}",
        labels=checkpoint.labels,
        models=models,
        samples=test_set(bench, scratch),
        suite=limits,
        temperature=judged.temperature if judged else None,
    )


def _models(opened: runs.Run, weights: str, wanted: list[str]) -> tuple[tuple[Artifact, Path], ...]:
    """The LiteRT files that were exported, or those of them that are wanted; equal files once.

    Raises:
        UsageError: a file that is wanted cannot be had. MissingError: there is none that a browser can run.
    """
    from edgekit.api.artifacts import current_artifacts
    from edgekit.bench import session

    known = {a.name: a for a in current_artifacts(opened, weights) if a.runtime == "litert"}
    for name in wanted:
        if name not in known:
            raise unknown("LiteRT file", name, sorted(known)) if known else _nothing(opened)
    chosen: dict[str, Artifact] = {}
    for artifact in (known[name] for name in wanted or known):
        if artifact.input == "int8":
            progress.note(f"left out: {artifact.name} (its input is int8, which LiteRT.js does not take)")
        else:
            chosen.setdefault(artifact.sha256, artifact)
    if not chosen:
        raise _nothing(opened)
    files = [(artifact, opened.path / "export" / artifact.name) for artifact in chosen.values()]
    for artifact, path in files:
        session.verify(artifact, path)
    return tuple(files)


def _nothing(opened: runs.Run) -> MissingError:
    return MissingError(
        f"the run {opened.name!r} has no LiteRT file that a browser can run",
        f"edgekit export {opened.handle} --target android",
    )


HERE = "127.0.0.1"
# An address of no network (RFC 5737). Nothing is sent: the kernel only says which of ours would be used.
_ELSEWHERE = ("198.51.100.1", 9)


@dataclass(frozen=True)
class Place:
    """Where the server is.

    Attributes:
        name: its address or name in the link. lan: whether others than this machine may connect.
        ports: the first free one is taken; 0 is any. secure, fingerprint: of https.
    """

    name: str
    lan: bool
    ports: tuple[int, ...]
    secure: ssl.SSLContext | None
    fingerprint: str


def own_address() -> str:
    """This machine's address in its local network.

    Raises:
        MissingError: it is in none.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
            address = str(probe.getsockname()[0])
        except OSError:
            address = HERE
    if ipaddress.ip_address(address).is_loopback:
        raise MissingError("this machine is in no network", "edgekit serve --lan --address ITS-ADDRESS")
    return address


@dataclass(frozen=True)
class Link:
    """The link that browsers open: its URL with the token, where it leads, and how many browsers may use it."""

    url: str
    place: Place
    devices: int


def serve(
    offer: Offer, run: runs.Run, place: Place, devices: int, once: bool, announce: Callable[[Link], None]
) -> list[BenchmarkResult]:
    """Serve until Ctrl-C, or with `once` until the first browser is done.

    Args:
        devices: number of browsers that may use the link. announce: called with the link once the server listens.

    Returns:
        What was kept, in the order in which it came.
    """
    received: list[BenchmarkResult] = []
    over = threading.Event()

    def keep(result: BenchmarkResult) -> None:
        results.save(run.path / "bench", result)
        received.append(result)
        top1 = 100 * proportions.top1(result.logits, result.expected).mean()
        p50 = quantiles.percentile_ms(result.latencies_ns, 50)
        time = "" if p50 is None else f"p50 {p50:.2f} ms, "
        progress.note(f"  {result.artifact.name} on {result.device}: {time}top-1 {top1:.1f} %{_doubts(result)}")

    def ended(visit: Visit) -> None:
        progress.note(f"{visit.name} has sent everything")
        if once:
            over.set()

    with progress.bars() as add:

        def entered(visit: Visit) -> Callable[[int, int, str], None]:
            progress.note(f"{visit.name} is in" + (", a browser of this machine" if visit.source == "host" else ""))
            return add(visit.name)

        access = Access(devices, (place.name,))
        server = _listen(place, offer, Callbacks(entered, keep, ended, progress.note), access)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            scheme = "http" if place.secure is None else "https"
            announce(Link(f"{scheme}://{place.name}:{server.server_port}/#{access.token}", place, access.devices))
            while not over.wait(0.5):  # a wait without end would not hear Ctrl-C everywhere
                pass
        except KeyboardInterrupt:
            progress.note("ended")
        finally:
            server.shutdown()
            server.server_close()
    return received


def _doubts(result: BenchmarkResult) -> str:
    """What a reader must know of these latencies."""
    found = result.environment
    doubts = []
    if not found.is_each_timed:
        doubts.append(f"{found.timed_together} queries timed together, for its clock has steps of "
                      f"{(found.clock_step_ns or 0) / 1e6:g} ms")  # fmt: skip
    if not found.fully_accelerated:
        doubts.append("XNNPACK runs only a part of it there")
    if found.was_hidden:
        doubts.append("the page was in the background: doubtful")
    return "".join(f"; {doubt}" for doubt in doubts)


def _listen(place: Place, offer: Offer, callbacks: Callbacks, access: Access) -> WebServer:
    """A server on the first port that is free.

    Raises:
        MissingError: none is.
    """
    for port in place.ports:
        try:
            return WebServer(("0.0.0.0" if place.lan else HERE, port), offer, callbacks, access, place.secure)  # noqa: S104
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    raise MissingError(f"port {place.ports[0]} cannot be had", "edgekit serve --port 0 takes a free one")


def figures_of(result: BenchmarkResult) -> dict[str, str | float | None]:
    """Return what a browser sent as figures: percent and milliseconds."""
    p50, p90, p99 = percentiles_ms(result.latencies_ns, result.environment.is_each_timed)
    top1 = 100 * float(proportions.top1(result.logits, result.expected).mean())
    return {"artifact": result.artifact.name, "device": result.device, "top1": top1,
            "p50_ms": p50, "p90_ms": p90, "p99_ms": p99}  # fmt: skip
