"""Chromium without a window: opens a page of a folder, and returns what the page sends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

SENT = "/results"  # where pages send to
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_SECONDS = 180
_MOST_BYTES = 10_000_000
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm"}
_OPTIONS = (
    "--headless=new", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-extensions",
    "--disable-component-update", "--disable-default-apps", "--disable-sync", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


class NoAnswer(Exception):
    """A page sent nothing; the message says why."""


def program() -> str | None:
    """Return the path of Chromium; None where there is none."""
    return next(filter(None, map(shutil.which, _PROGRAMS)), None)


def answer(folder: Path, page: str, mounted: Mapping[str, Path], seconds: float = _SECONDS) -> bytes:
    """Open a page of a folder in Chromium, and return what it sends to `SENT`.

    Args:
        page: with a query. mounted: other folders that are served, by the beginning of the address.

    Raises:
        NoAnswer: it sent nothing in time, or Chromium ended or is not installed.
    """
    chromium = program()
    if chromium is None:
        raise NoAnswer("Chromium is not installed: apt install chromium")
    # As root, Chromium runs only without its sandbox; the page is the kit's own.
    options = [*_OPTIONS, *(["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else [])]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, _serving(folder, mounted) as server:
        address = f"http://127.0.0.1:{server.server_port}/{page}"
        command = [chromium, *options, f"--user-data-dir={scratch}/profile", address]
        with _running(command, Path(scratch) / "log.txt") as process:
            end = time.monotonic() + seconds
            while not server.sent.wait(0.1):
                if process.poll() is not None:
                    last = (Path(scratch) / "log.txt").read_text(errors="replace").strip().splitlines()[-1:]
                    raise NoAnswer(": ".join(["Chromium ended", *last]))
                if time.monotonic() > end:
                    raise NoAnswer(f"Chromium took more than {seconds:g} s")
            return server.body


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program and its children, and end them all."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


@contextmanager
def _serving(folder: Path, mounted: Mapping[str, Path]) -> Iterator[_Server]:
    """Serve a folder on the loopback."""
    server = _Server({"/": folder, **mounted})
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    """Server of folders by the beginning of the address. body: what a page sent; sent: set once it has."""

    daemon_threads = True

    def __init__(self, folders: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folders, self.body, self.sent = folders, b"", threading.Event()

    def server_bind(self) -> None:
        """Bind the socket without looking up the server's own name, which can take seconds."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def file(self, address: str) -> Path | None:
        """Return the file of an address; None where there is none, or it leads out of its folder."""
        start = max((each for each in self.folders if address.startswith(each)), key=len)
        folder = self.folders[start].resolve()
        path = (folder / address.removeprefix(start)).resolve()
        return path if path.is_relative_to(folder) and path.is_file() else None


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        path = self.server.file(unquote(urlsplit(self.path).path))
        body = path.read_bytes() if path else b""
        self.send_response(200 if path else 404)
        self.send_header("Content-Type", _TYPES.get(path.suffix if path else "", "application/octet-stream"))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.path != SENT or length > _MOST_BYTES:
            self.send_error(400)
            return
        self.server.body = self.rfile.read(length)
        self.send_response(204)
        self.end_headers()
        self.server.sent.set()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""
