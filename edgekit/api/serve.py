"""Serve: measure exported models in browsers, and save the results that they send."""

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
from edgekit.measurements import BenchmarkResult, not_finite
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
    """Return what browsers get from a run: models, test images, labels and suite.

    Raises:
        MissingError: LiteRT.js is not installed, or the run has no file that a browser can run.
        UsageError: an artifact that is wanted does not exist.
    """
    from edgekit.api.benchmark import test_set
    from edgekit.api.intermediates import Intermediates
    from edgekit.evaluation import evaluate
    from edgekit.web.visits import Offer

    litertjs.check()
    intermediates = Intermediates(opened)
    checkpoint = intermediates.checkpoint
    models = _models(opened, checkpoint.sha256, wanted)
    judged = evaluate.load(opened.path, checkpoint.sha256)
    samples = test_set(intermediates, scratch)
    if not len(samples.expected):
        raise MissingError(
            "a browser classifies the test images, which are gone",
            f"edgekit serve {opened.handle} --data DIR, the folder where they are now",
        )
    return Offer(
        title=f"{opened.name}, {checkpoint.arch}",
        labels=checkpoint.labels,
        models=models,
        samples=samples,
        suite=limits,
        temperature=judged.temperature if judged else None,
    )


def _models(opened: runs.Run, weights: str, wanted: list[str]) -> tuple[tuple[Artifact, Path], ...]:
    """Return the exported LiteRT models, or those named in `wanted`; identical files once.

    Raises:
        UsageError: there is no such model. MissingError: there is no model that a browser can run.
    """
    from edgekit.api.artifacts import current_artifacts
    from edgekit.bench import session

    known = {a.name: a for a in current_artifacts(opened, weights) if a.runtime == "litert"}
    for name in wanted:
        if name not in known:
            raise unknown("LiteRT file", name, sorted(known)) if known else _nothing(opened)
    chosen: dict[str, Artifact] = {}
    for artifact in (known[name] for name in wanted or known):
        if why := litertjs.refuses(artifact):
            progress.note(f"left out: {artifact.name} ({why})")
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
# An address for documentation (RFC 5737). Nothing is sent to it: the kernel only chooses the local address.
_ELSEWHERE = ("198.51.100.1", 9)


@dataclass(frozen=True)
class Place:
    """Address of the server.

    Attributes:
        name: address or host name in the link. lan: accept connections from other machines.
        ports: the first free one is used; 0 is any. secure, fingerprint: of HTTPS.
    """

    name: str
    lan: bool
    ports: tuple[int, ...]
    secure: ssl.SSLContext | None
    fingerprint: str


def own_address() -> str:
    """Return this machine's address in its local network.

    Raises:
        MissingError: it is not in a network.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_ELSEWHERE)
            address = str(probe.getsockname()[0])
        except OSError:
            address = HERE
    if ipaddress.ip_address(address).is_loopback:
        raise MissingError("this machine is not in a network", "edgekit serve --lan --address ADDRESS")
    return address


@dataclass(frozen=True)
class Link:
    """The link that browsers open: URL with the token, address of the server, and number of browsers allowed."""

    url: str
    place: Place
    devices: int


def serve(
    offer: Offer, run: runs.Run, place: Place, devices: int, once: bool, announce: Callable[[Link], None]
) -> list[BenchmarkResult]:
    """Serve until Ctrl-C, or with `once` until the first browser has sent all results.

    Args:
        devices: number of browsers that may use the link. announce: called with the link once the server listens.

    Returns:
        The saved results, in order of arrival.
    """
    received: list[BenchmarkResult] = []
    over = threading.Event()

    def keep(result: BenchmarkResult) -> None:
        results.save(run.path / "bench", result)
        received.append(result)
        top1 = _top1(result)
        p50 = quantiles.percentile_ms(result.latencies_ns, 50)
        time = "" if p50 is None else f"p50 {p50:.2f} ms, "
        right = "" if top1 is None else f"top-1 {top1:.1f} %"
        progress.note(f"  {result.artifact.name} on {result.device}: {time}{right}{_doubts(result)}")

    def ended(visit: Visit) -> None:
        progress.note(f"{visit.name} has sent all results")
        if once:
            over.set()

    with progress.bars() as add:

        def entered(visit: Visit) -> Callable[[int, int, str], None]:
            progress.note(
                f"{visit.name} is connected" + (", a browser of this machine" if visit.source == "host" else "")
            )
            return add(visit.name)

        access = Access(devices, (place.name,))
        server = _listen(place, offer, Callbacks(entered, keep, ended, progress.note), access)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            scheme = "http" if place.secure is None else "https"
            announce(Link(f"{scheme}://{place.name}:{server.server_port}/#{access.token}", place, access.devices))
            while not over.wait(0.5):  # without a timeout, Ctrl-C does not interrupt it on every system
                pass
        except KeyboardInterrupt:
            progress.note("ended")
        finally:
            server.shutdown()
            server.server_close()
    return received


def _top1(result: BenchmarkResult) -> float | None:
    """Return the accuracy in percent; None for images without labels."""
    if int(result.expected.min()) < 0:
        return None
    return 100 * float(proportions.top1(result.logits, result.expected).mean())


def _doubts(result: BenchmarkResult) -> str:
    """Return reasons to doubt the latencies, as the end of a line."""
    environment = result.environment
    lost = int((proportions.answers(result.logits) == proportions.NO_ANSWER).sum())
    doubts = [f"{not_finite(lost, len(result.expected))}, counted as wrong"] if lost else []
    if not environment.is_each_timed:
        doubts.append(f"{environment.timed_together} queries timed together, because the clock has steps of "
                      f"{(environment.clock_step_ns or 0) / 1e6:g} ms")  # fmt: skip
    if not environment.fully_accelerated:
        doubts.append("XNNPACK runs only a part of the model")
    if environment.was_hidden:
        doubts.append("the page was in the background: not reliable")
    return "".join(f"; {doubt}" for doubt in doubts)


def _listen(place: Place, offer: Offer, callbacks: Callbacks, access: Access) -> WebServer:
    """Return a server on the first free port.

    Raises:
        MissingError: no port is free.
    """
    for port in place.ports:
        try:
            return WebServer(("0.0.0.0" if place.lan else HERE, port), offer, callbacks, access, place.secure)  # noqa: S104
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    raise MissingError(f"port {place.ports[0]} is not available", "edgekit serve --port 0 uses a free port")


def figures_of(result: BenchmarkResult) -> dict[str, str | float | None]:
    """Return a result in percent and milliseconds."""
    p50, p90, p99 = percentiles_ms(result.latencies_ns, result.environment.is_each_timed)
    top1 = _top1(result)
    return {"artifact": result.artifact.name, "device": result.device, "top1": top1,
            "p50_ms": p50, "p90_ms": p90, "p99_ms": p99}  # fmt: skip
