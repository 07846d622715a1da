"""The files of the page that edgekit serves: a fixed table, nothing else can be asked for."""

from __future__ import annotations

import functools
import http.cookies
import json
import socketserver
import ssl
import sys
import threading
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
from edgekit.web.access import Door, Guest, Refused, is_of_this_machine
from edgekit.web.visits import Offer, Visit

FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
}
_PAGE = ("app.js", "camera.js", "draw.js", "measure.js", "style.css", "icon.svg")


@dataclass(frozen=True)
class Asset:
    """One file that the page loads.

    Attributes:
        type: its media type. encoding: how its content is compressed; "" if it is not.
        read: returns its content.
    """

    type: str
    encoding: str
    read: Callable[[], bytes]


def _own(name: str) -> Asset:
    return Asset(_TYPES[Path(name).suffix], "", (FOLDER / name).read_bytes)


def _litertjs(name: str) -> Asset:
    return Asset(_TYPES[Path(name).suffix], "gzip", functools.partial(litertjs.compressed, name))


# Nothing else in the file system can be asked for.
ASSETS: dict[str, Asset] = {
    "/": _own("index.html"),
    **{f"/{name}": _own(name) for name in _PAGE},
    **{f"/litert/{name}": _litertjs(name) for name in litertjs.FILES},
}
# Of every answer; the policy lets the page load from and speak to this server alone.
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
# These isolate the page, which threads and a fine clock need. On origins that are not secure browsers complain of them.
ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
# The server behind ``edgekit serve``: a fixed table of routes, a token that admits browsers, limits on everything.

# The most that a request may carry, in bytes; logits have the size that they must have.
_MOST_SAID, _MOST_RESULT = 4_000, 16_000_000
_IDLE_S = 30
_MOST_CONNECTIONS = 64
_MOST_REFUSALS_SAID = 5


@dataclass(frozen=True)
class Desk:
    """Who hears what browsers do. Every function is called by a thread of the server.

    Attributes:
        entered: returns what hears the progress of that browser. keep: files a result. ended: all was measured.
    """

    entered: Callable[[Visit], Callable[[int, int, str], None]]
    keep: Callable[[BenchmarkResult], None]
    ended: Callable[[Visit], None]
    say: Callable[[str], None]


class WebServer(ThreadingHTTPServer):
    """Listens when it is made; `serve_forever` answers. `secure` wraps its connections."""

    daemon_threads = True
    request_queue_size = 64
    block_on_close = False

    def __init__(
        self, address: tuple[str, int], offer: Offer, desk: Desk, door: Door, secure: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(address, _Handler)
        self.offer, self.desk, self.door, self.secure = offer, desk, door, secure
        self._free = threading.BoundedSemaphore(_MOST_CONNECTIONS)
        self._keeping = threading.Lock()
        self._refusals = 0

    def server_bind(self) -> None:
        """Without the look-up of its own name, which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def get_request(self) -> tuple[Any, Any]:
        """The next connection; its handshake is left to its own thread, so that nobody holds up the others."""
        connection, client = super().get_request()
        connection.settimeout(_IDLE_S)
        if self.secure is not None:
            connection = self.secure.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, client

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for each connection, and so many at most."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection, then make room for another."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that break off are no errors; what else goes wrong is said in one line."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            self.desk.say(f"answering {client_address[0]} failed: {type(error).__name__}: {visible(str(error))[:200]}")

    def keep(self, result: BenchmarkResult) -> None:
        """File a result, one at a time."""
        with self._keeping:
            self.desk.keep(result)

    def refused(self, client: str, why: str) -> None:
        """Say on the desktop who was turned away; not for ever."""
        self._refusals += 1
        if self._refusals <= _MOST_REFUSALS_SAID:
            self.desk.say(f"turned away: {client} ({why})")


def _route(path: str) -> tuple[str, int | None]:
    """Split ``/api/images/12`` into its name and number; a path without a number is a name alone."""
    name, _, number = path.rpartition("/")
    return (name, int(number)) if number.isascii() and number.isdecimal() and len(number) < 10 else (path, None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_S
    server: WebServer

    def do_GET(self) -> None:
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # its body is not read as the next request
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, work: Callable[[str], None]) -> None:
        try:
            self._check_origin()
            work(urlsplit(self.path).path)
        except Refused as refusal:
            if refusal.status == HTTPStatus.FORBIDDEN:
                self.server.refused(self.client_address[0], refusal.why)
            self._refuse(refusal.status, refusal.why)
        except DataError as error:
            self.server.refused(self.client_address[0], error.message)
            self._refuse(HTTPStatus.BAD_REQUEST, error.message)
        except EdgekitError as error:
            self.server.desk.say(f"error: {error.message}")
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, error.message)
        except ValueError:  # what urlsplit cannot read
            self._refuse(HTTPStatus.BAD_REQUEST, "no such address")

    def _check_origin(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not self.server.door.knows(hosts[0]):
            raise Refused(HTTPStatus.MISDIRECTED_REQUEST, "this server is not called that: edgekit serve --address")
        scheme = "http" if self.server.secure is None else "https"
        if self.headers.get("Origin", f"{scheme}://{hosts[0]}") != f"{scheme}://{hosts[0]}":
            raise Refused(HTTPStatus.FORBIDDEN, "asked by a page of another site")

    def _get(self, path: str) -> None:
        if path in ASSETS:
            asset = ASSETS[path]
            self._send(asset.read(), asset.type, {"Content-Encoding": asset.encoding} if asset.encoding else {})
            return
        guest, offer = self._guest(), self.server.offer
        match _route(path):
            case "/api/job", None:
                self._send_json({**offer.described(), "device": guest.visit.name, "figures": guest.visit.figures})
            case "/api/model", int(number) if number < len(offer.models):
                self._send(offer.models[number][1].read_bytes())
            case "/api/images", int(number) if number < offer.chunks:
                self._send(offer.images(number).tobytes())
            case _:
                raise Refused(HTTPStatus.NOT_FOUND, "no such page")

    def _post(self, path: str) -> None:
        if path == "/api/enter":
            self._enter(visits.parse(self._body(_MOST_SAID)))
            return
        guest = self._guest()
        match _route(path):
            case "/api/progress", None:
                guest.update(*visits.progress(visits.parse(self._body(_MOST_SAID))))
            case "/api/begin", None:
                guest.visit.begin(visits.parse(self._body(_MOST_SAID)))
            case "/api/logits", int(number):
                guest.visit.add(number, self._body(4 * self.server.offer.chunk * len(self.server.offer.labels)))
            case "/api/finish", None:
                result = guest.visit.finish(visits.parse(self._body(_MOST_RESULT)))
                self.server.keep(result)
                self._send_json(guest.visit.kept(result))
                return
            case "/api/failed", None:
                said = visits.text(visits.parse(self._body(_MOST_SAID)).get("text"))
                self.server.desk.say(f"{guest.visit.name}: {said}")
            case "/api/end", None:
                self._body(_MOST_SAID)
                self.server.desk.ended(guest.visit)
            case _:
                raise Refused(HTTPStatus.NOT_FOUND, "no such page")
        self._send(b"", status=HTTPStatus.NO_CONTENT)

    def _enter(self, said: dict[str, Any]) -> None:
        agent, phone = self.headers.get("User-Agent", ""), visits.text(said.get("phone"))
        source = visits.source_of(self.client_address[0], self.connection.getsockname()[0])

        def guest(taken: set[str]) -> Guest:
            base = visits.device_name(agent, phone)
            name = next(n for n in (base, *(f"{base} no. {k}" for k in range(2, len(taken) + 3))) if n not in taken)
            visit = Visit(self.server.offer, name, agent, source)
            return Guest(visit, self.server.desk.entered(visit))

        try:
            self._guest()  # the link again, in a browser that is in
        except Refused:
            key = self.server.door.enter(said.get("token"), guest)
        else:
            self._send(b"", status=HTTPStatus.NO_CONTENT)
            return
        secure = "" if self.server.secure is None else "; Secure"
        cookie = f"{self._cookie}={key}; Path=/; HttpOnly; SameSite=Strict{secure}"
        self._send(b"", status=HTTPStatus.NO_CONTENT, headers={"Set-Cookie": cookie})

    def _is_secure(self) -> bool:
        """Whether browsers call this a secure origin; the request may not have been read yet."""
        headers = getattr(self, "headers", None)
        return self.server.secure is not None or is_of_this_machine((headers and headers.get("Host")) or "")

    @property
    def _cookie(self) -> str:
        """Cookies are of a host: two servers on one must not share them."""
        return f"edgekit-{self.server.server_port}"

    def _guest(self) -> Guest:
        try:
            morsel = http.cookies.SimpleCookie(self.headers.get("Cookie", "")).get(self._cookie)
        except http.cookies.CookieError:
            morsel = None
        return self.server.door.guest(morsel.value if morsel else "")

    def _body(self, most: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not (length.isascii() and length.isdecimal()):
            raise Refused(HTTPStatus.LENGTH_REQUIRED, "say how long the body is")
        if len(length) > 12 or int(length) > most:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {most} bytes")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Refused(HTTPStatus.BAD_REQUEST, "the body ends early")
        return body

    def _send_json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        """Say no, and end the connection: what is left of the request is not read."""
        self.close_connection = True
        self._send(why.encode(), "text/plain; charset=utf-8", {"Connection": "close"}, status)

    def _send(
        self,
        body: bytes,
        kind: str = "application/octet-stream",
        headers: dict[str, str] | None = None,
        status: HTTPStatus = HTTPStatus.OK,
    ) -> None:
        self.send_response(status)
        isolation = ISOLATION if self._is_secure() else {}
        described = {} if status == HTTPStatus.NO_CONTENT else {"Content-Type": kind}
        given = {**HEADERS, **isolation, **described, **(headers or {})}
        for name, value in given.items():
            self.send_header(name, value)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server refuses by itself, with our headers and without its page."""
        self._refuse(HTTPStatus(code), message or "")

    def version_string(self) -> str:
        """Not which Python answers."""
        return "edgekit"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the desktop shows what browsers do."""
