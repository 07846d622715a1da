"""A real web server for release folders, which can be made to misbehave."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_ROOT = re.compile(r"/[0-9]+\.root\.json")


class Site:
    """Serves one folder after another: each check of a client, which begins with a root, sees the next one.

    Attributes:
        tricks: pattern of a path -> what answers instead. requests: paths that were asked for. sent: bytes of bodies.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = list(folders)
        self.tricks: dict[str, Callable[[Handler], None]] = {}
        self.requests: list[str] = []
        self.sent = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.site = self  # type: ignore[attr-defined]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        """Address of the release folder."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def asked(self, path: str) -> None:
        """Note a request; the first one of a check turns to the next folder."""
        is_root = _ROOT.fullmatch(path) is not None
        if is_root and self.requests and not _ROOT.fullmatch(self.requests[-1]) and len(self.folders) > 1:
            self.folders.pop(0)
        self.requests.append(path)


class Handler(BaseHTTPRequestHandler):
    """Answers with the file of a path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer a request."""
        site: Site = self.server.site  # type: ignore[attr-defined]
        site.asked(self.path)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for pattern, trick in site.tricks.items():
                if re.fullmatch(pattern, self.path):
                    trick(self)
                    return
            self.send_file()

    def send_file(self) -> None:
        """Send the file of the path, or 404."""
        site: Site = self.server.site  # type: ignore[attr-defined]
        path = site.folders[0] / self.path.lstrip("/")
        if not path.is_file():
            self.send_whole(404, b"none")
            return
        content = path.read_bytes()
        site.sent += len(content)
        self.send_whole(200, content)

    def send_whole(self, status: int, content: bytes, **headers: str) -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Access-Control-Allow-Origin", "*")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def endless(handler: Handler) -> None:
    """Send bytes for ever, without a length."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    for _ in range(100_000):
        handler.wfile.write(bytes(1 << 16))


def cut(handler: Handler) -> None:
    """Send half of what was announced, and hang up."""
    handler.send_response(200)
    handler.send_header("Content-Length", "60000")
    handler.end_headers()
    handler.wfile.write(bytes(30_000))
    handler.close_connection = True


def stalled(handler: Handler) -> None:
    """Send some bytes, then nothing for long."""
    handler.send_response(200)
    handler.send_header("Content-Length", "60000")
    handler.end_headers()
    handler.wfile.write(b"{")
    handler.wfile.flush()
    time.sleep(20)


def redirected(handler: Handler) -> None:
    """Point to another host: this server under another name."""
    port = handler.server.server_port  # type: ignore[attr-defined]
    handler.send_whole(302, b"", Location=f"http://localhost:{port}/elsewhere{handler.path}")


def failing(handler: Handler) -> None:
    """Answer as a broken server."""
    handler.send_whole(500, b"broken")
