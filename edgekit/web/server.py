"""HTTP server behind ``edgekit serve``: a fixed table of files, a few requests, and limits on all of them.

Files of the page are public. Everything of the run needs the cookie of an admitted browser (`access`).
"""

from __future__ import annotations

import collections
import functools
import http.cookies
import io
import json
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgekit.errors import DataError, EdgekitError
from edgekit.labels import visible
from edgekit.measurements import BenchmarkResult
from edgekit.web import litertjs, visits
from edgekit.web.access import Access, Browser, Refused, is_loopback
from edgekit.web.visits import Offer, Visit

FOLDER = Path(__file__).parent / "static"
FIT = Path(__file__).parent / "fit" / "fit.js"  # the one that kits for browsers have, too
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
}
_PAGE = ("app.js", "camera.js", "draw.js", "measure.js", "style.css", "icon.svg")
# Headers of every response. The policy lets the page load from this server alone, and send to it alone.
HEADERS = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; worker-src 'self'; media-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
# Cross-origin isolation: threads and a fine clock need it. Browsers warn about these headers on insecure origins.
ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
# Limits of a request's body, in bytes: messages and finished measurements. Logits must have their exact size.
_MAX_MESSAGE_BYTES, _MAX_RESULT_BYTES = 4_000, 16_000_000
# Deadlines, in seconds: of the head of a request; between two requests of a connection; of a body or an answer, to
# which the time is added that it takes at the lowest speed, in bytes per second.
_HEAD_S, _IDLE_S, _BODY_S, _SLOWEST = 8.0, 30.0, 10.0, 50_000
_PIECE = 1 << 16
# Connections at the same time, in all and of one address. A browser opens up to 6.
_MAX_CONNECTIONS, _MAX_OF_ADDRESS = 64, 24
_MAX_REFUSALS_LOGGED = 5


@dataclass(frozen=True)
class Asset:
    """A file that the page loads.

    Attributes:
        type: media type. encoding: content encoding, "" for none. read: returns the content.
    """

    type: str
    encoding: str
    read: Callable[[], bytes]


def _own(path: Path) -> Asset:
    return Asset(_TYPES[path.suffix], "", path.read_bytes)


def _litertjs(name: str) -> Asset:
    return Asset(_TYPES[Path(name).suffix], "gzip", functools.partial(litertjs.compressed, name))


# All files that are served, by path.
ASSETS: dict[str, Asset] = {
    "/": _own(FOLDER / "index.html"),
    **{f"/{path.name}": _own(path) for path in (FIT, *(FOLDER / name for name in _PAGE))},
    **{f"/litert/{name}": _litertjs(name) for name in litertjs.FILES},
}


@dataclass(frozen=True)
class Callbacks:
    """Functions that threads of the server call when a browser does something.

    Attributes:
        entered: a browser was admitted; returns the callback for its progress (done, total, text).
        keep: stores a finished measurement. ended: a browser has measured everything.
        log: takes a line about an error or a refused request.
    """

    entered: Callable[[Visit], Callable[[int, int, str], None]]
    keep: Callable[[BenchmarkResult], None]
    ended: Callable[[Visit], None]
    log: Callable[[str], None]


class WebServer(ThreadingHTTPServer):
    """Server that listens from its construction on; `serve_forever` answers requests.

    Args:
        address: host and port; port 0 takes a free one. secure: TLS context, None for plain HTTP.
    """

    daemon_threads = True
    request_queue_size = 64
    block_on_close = False

    def __init__(
        self,
        address: tuple[str, int],
        offer: Offer,
        callbacks: Callbacks,
        access: Access,
        secure: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(address, _Handler)
        self.offer, self.callbacks, self.access, self.secure = offer, callbacks, access, secure
        self._open: collections.Counter[str] = collections.Counter()  # connections by address
        self._counting = threading.Lock()
        self._keeping = threading.Lock()
        self._refusals = 0

    def server_bind(self) -> None:
        """Bind the socket without looking up the server's own name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection; its own thread does the TLS handshake, so that a slow one delays no other."""
        connection, client = super().get_request()
        connection.settimeout(_HEAD_S)
        if self.secure is not None:
            connection = self.secure.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, client

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, or close it if there are too many, in all or of its address."""
        address = client_address[0]
        with self._counting:
            too_many = self._open.total() >= _MAX_CONNECTIONS or self._open[address] >= _MAX_OF_ADDRESS
            if not too_many:
                self._open[address] += 1
        if too_many:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, then make room for another one."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._counting:
                self._open[client_address[0]] -= 1
                self._open += collections.Counter()  # forgets addresses without connections

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error in one line, unless the connection broke."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            text = visible(str(error))[:200]
            self.callbacks.log(f"a request of {client_address[0]} failed: {type(error).__name__}: {text}")

    def keep(self, result: BenchmarkResult) -> None:
        """Store a result, one at a time."""
        with self._keeping:
            self.callbacks.keep(result)

    def log_refusal(self, client: str, reason: str) -> None:
        """Log a refused request; only the first few are logged."""
        self._refusals += 1
        if self._refusals <= _MAX_REFUSALS_LOGGED:
            self.callbacks.log(f"refused a request of {client}: {reason}")


def _route(path: str) -> tuple[str, int | None]:
    """Split ``/api/images/12`` into ``/api/images`` and 12; None if the path does not end with a number."""
    name, _, number = path.rpartition("/")
    return (name, int(number)) if number.isascii() and number.isdecimal() and len(number) < 10 else (path, None)


class _Timely(io.RawIOBase):
    """Bytes of a connection, until a deadline: a client that sends a byte now and then must not hold it for ever."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.deadline = 0.0

    def allow(self, seconds: float) -> None:
        """Set the deadline, in seconds from now."""
        self.deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is there, or wait for it.

        Raises:
            TimeoutError: the deadline has passed.
        """
        self.connection.settimeout(_left(self.deadline))
        return self.connection.recv_into(buffer)


def _left(deadline: float) -> float:
    """Return the seconds until a deadline.

    Raises:
        TimeoutError: it has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WebServer

    def setup(self) -> None:
        """Read with deadlines."""
        super().setup()
        self.rfile.close()
        self._incoming = _Timely(self.connection)
        self.rfile = io.BufferedReader(self._incoming)
        self._wait_s = 0.0  # for the first request of a connection

    def handle_one_request(self) -> None:
        """Serve a request, whose head must come in time."""
        self._incoming.allow(self._wait_s + _HEAD_S)
        self._wait_s = _IDLE_S
        super().handle_one_request()

    def do_GET(self) -> None:
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # its body must not be read as the next request
        self._respond(self._get)

    def do_POST(self) -> None:
        self._respond(self._post)

    def _respond(self, work: Callable[[str], None]) -> None:
        try:
            self._check_origin()
            work(urlsplit(self.path).path)
        except Refused as refusal:
            if refusal.status == HTTPStatus.FORBIDDEN:
                self.server.log_refusal(self.client_address[0], refusal.reason)
            self._refuse(refusal.status, refusal.reason)
        except DataError as error:
            self.server.log_refusal(self.client_address[0], error.message)
            self._refuse(HTTPStatus.BAD_REQUEST, error.message)
        except EdgekitError as error:
            self.server.callbacks.log(f"error: {error.message}")
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, error.message)
        except ValueError:  # urlsplit cannot read the path
            self._refuse(HTTPStatus.BAD_REQUEST, "invalid address")

    def _check_origin(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not self.server.access.is_own_name(hosts[0]):
            raise Refused(
                HTTPStatus.MISDIRECTED_REQUEST, "this server has another name: edgekit serve --address NAME sets it"
            )
        scheme = "http" if self.server.secure is None else "https"
        if self.headers.get("Origin", f"{scheme}://{hosts[0]}") != f"{scheme}://{hosts[0]}":
            raise Refused(HTTPStatus.FORBIDDEN, "the request comes from a page of another site")

    def _get(self, path: str) -> None:
        if path in ASSETS:
            asset = ASSETS[path]
            self._send(asset.read(), asset.type, {"Content-Encoding": asset.encoding} if asset.encoding else {})
            return
        visit, offer = self._browser().visit, self.server.offer
        match _route(path):
            case "/api/job", None:
                self._send_json({**offer.described(), "device": visit.name, "figures": visit.figures})
            case "/api/model", int(number) if number < len(offer.models):
                self._send(offer.models[number][1].read_bytes())
            case "/api/images", int(number) if number < offer.chunks:
                self._send(offer.images(number).tobytes())
            case _:
                raise Refused(HTTPStatus.NOT_FOUND, "no such page")

    def _post(self, path: str) -> None:
        if path == "/api/enter":
            self._enter(self._message())
            return
        browser, offer = self._browser(), self.server.offer
        match _route(path):
            case "/api/progress", None:
                browser.update(*visits.progress(self._message()))
            case "/api/begin", None:
                browser.visit.begin(self._message())
            case "/api/logits", int(number):
                browser.visit.add(number, self._body(4 * offer.chunk * len(offer.labels)))
            case "/api/finish", None:
                result = browser.visit.finish(visits.parse(self._body(_MAX_RESULT_BYTES)))
                self.server.keep(result)
                self._send_json(browser.visit.kept(result))
                return
            case "/api/failed", None:
                self.server.callbacks.log(f"{browser.visit.name}: {visits.text(self._message().get('text'))}")
            case "/api/end", None:
                self._body(_MAX_MESSAGE_BYTES)
                self.server.callbacks.ended(browser.visit)
            case _:
                raise Refused(HTTPStatus.NOT_FOUND, "no such page")
        self._send(b"", status=HTTPStatus.NO_CONTENT)

    def _enter(self, message: dict[str, Any]) -> None:
        """Admit the browser, unless it was before: the link may be opened again."""
        agent, phone = self.headers.get("User-Agent", ""), visits.text(message.get("phone"))
        source = visits.source_of(self.client_address[0], self.connection.getsockname()[0])

        def make_browser(taken: set[str]) -> Browser:
            base = visits.device_name(agent, phone)
            name = next(n for n in (base, *(f"{base} no. {k}" for k in range(2, len(taken) + 3))) if n not in taken)
            visit = Visit(self.server.offer, name, agent, source)
            return Browser(visit, self.server.callbacks.entered(visit))

        try:
            self._browser()
        except Refused:
            value = self.server.access.admit(message.get("token"), make_browser)
        else:
            self._send(b"", status=HTTPStatus.NO_CONTENT)
            return
        secure = "" if self.server.secure is None else "; Secure"
        cookie = f"{self._cookie_name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}"
        self._send(b"", status=HTTPStatus.NO_CONTENT, headers={"Set-Cookie": cookie})

    @property
    def _cookie_name(self) -> str:
        """Name with the port: cookies belong to a host, and two servers on it must not share them."""
        return f"edgekit-{self.server.server_port}"

    def _browser(self) -> Browser:
        try:
            morsel = http.cookies.SimpleCookie(self.headers.get("Cookie", "")).get(self._cookie_name)
        except http.cookies.CookieError:
            morsel = None
        return self.server.access.browser(morsel.value if morsel else "")

    def _is_secure(self) -> bool:
        """Return whether browsers treat the page's origin as secure; the request may not have been read yet."""
        headers = getattr(self, "headers", None)
        return self.server.secure is not None or is_loopback((headers and headers.get("Host")) or "")

    def _message(self) -> dict[str, Any]:
        """Return the body, a short JSON object."""
        return visits.parse(self._body(_MAX_MESSAGE_BYTES))

    def _body(self, limit: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdecimal()):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "the length of the body is missing")
        if len(length) > 12 or int(length) > limit:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {limit} bytes")
        self._incoming.allow(_BODY_S + int(length) / _SLOWEST)
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Refused(HTTPStatus.BAD_REQUEST, "the body is shorter than its length")
        return body

    def _send_json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        """Send an error and close the connection: the rest of the request is not read."""
        self.close_connection = True
        self._send(reason.encode(), "text/plain; charset=utf-8", {"Connection": "close"}, status)

    def _send(
        self,
        body: bytes,
        kind: str = "application/octet-stream",
        headers: dict[str, str] | None = None,
        status: HTTPStatus = HTTPStatus.OK,
    ) -> None:
        deadline = time.monotonic() + _BODY_S + len(body) / _SLOWEST
        self.connection.settimeout(_BODY_S)
        self.send_response(status)
        isolation = ISOLATION if self._is_secure() else {}
        content_type = {} if status == HTTPStatus.NO_CONTENT else {"Content-Type": kind}
        for name, value in {**HEADERS, **isolation, **content_type, **(headers or {})}.items():
            self.send_header(name, value)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        for start in range(0, len(body), _PIECE):
            self.connection.settimeout(_left(deadline))
            self.wfile.write(body[start : start + _PIECE])

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send the errors of http.server with our headers and without its page."""
        self._refuse(HTTPStatus(code), message or "")

    def version_string(self) -> str:
        """Return the Server header, without the version of Python."""
        return "edgekit"

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the desktop shows what browsers do."""
