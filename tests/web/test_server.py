"""Who may speak to the server of `edgekit serve`, and what becomes of what they say."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.errors import StorageError
from edgekit.web import certificate, litertjs, server, visits
from edgekit.web.access import Access
from edgekit.web.server import ASSETS, FIT, FOLDER, Asset
from tests.web.webstand import CHROME, ENVIRONMENT, LABELS, Stand, needs_litertjs, offer, standing

LOGITS = np.eye(3, dtype=np.float32)[np.arange(7) % 3]


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    with standing(offer(tmp_path)) as running:
        yield running


# The page and its files


@pytest.mark.parametrize("path", [path for path in ASSETS if not path.startswith("/litert/")])
def test_every_file_of_the_page_is_served_as_what_it_is(stand: Stand, path: str) -> None:
    client = stand.client()
    file = FIT if path == "/fit.js" else FOLDER / (path[1:] or "index.html")
    assert client.get(path) == (200, file.read_bytes())
    assert client.answer.headers["Content-Type"] == ASSETS[path].type
    assert client.answer.headers["Content-Encoding"] is None


@needs_litertjs
def test_litert_js_is_served_compressed_and_as_what_it_is(stand: Stand) -> None:
    client = stand.client()
    for name in litertjs.FILES:
        status, content = client.get(f"/litert/{name}")
        assert (status, content) == (200, litertjs.compressed(name))
        kind = "application/wasm" if name.endswith(".wasm") else "text/javascript; charset=utf-8"
        assert client.answer.headers["Content-Type"] == kind
        assert client.answer.headers["Content-Encoding"] == "gzip"
        assert client.answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert client.answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    ["/../webserver.py", "/litert/../index.html", "//etc/passwd", "/%2e%2e/webserver.py", "/litert/", "/index.html",
     "/README.md", "/app.js/", "/app.js%00", "/http://x/", "/litert\\core.js", "//[", "/api/model/-1", "/api/model",
     "/api/model/", "/api/images", "/api/images/", "/api/images/-1", "/api/job/0", "/api/logits/0"],
)  # fmt: skip
def test_nothing_but_the_table_is_served(stand: Stand, path: str) -> None:
    status, content = stand.guest().get(path)
    assert status in (400, 404)
    assert len(content) < 100


def test_the_page_is_isolated_where_browsers_call_it_secure(stand: Stand) -> None:
    client = stand.client()
    client.get("/")
    assert client.answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert client.answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    client.headers["Host"] = f"192.168.1.5:{stand.port}"
    client.get("/")
    assert "Cross-Origin-Opener-Policy" not in client.answer.headers


def test_every_answer_confines_the_page_also_those_that_refuse(stand: Stand) -> None:
    client = stand.client()
    for method, path in (("GET", "/"), ("GET", "/api/job"), ("GET", "/nothing"), ("BREW", "/")):
        client.ask(method, path)
        headers = client.answer.headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Server"] == "edgekit"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE", "BREW"])
def test_other_methods_are_refused(stand: Stand, method: str) -> None:
    assert stand.guest().ask(method, "/api/job")[0] == 501


# The token


def test_nothing_of_the_run_is_told_without_the_link(stand: Stand) -> None:
    client = stand.client()
    for path in ("/api/job", "/api/model/0", "/api/images/0"):
        assert client.get(path)[0] == 401
    for path in ("begin", "logits/0", "finish", "progress", "failed", "end"):
        assert client.post(f"/api/{path}", {})[0] == 401
    assert not stand.kept


@pytest.mark.parametrize("token", ["", "x", None, 7, ["a"], {"a": 1}, "é", "x" * 3000])
def test_a_wrong_token_lets_nobody_in_and_is_said(stand: Stand, token: Any) -> None:
    assert stand.client().post("/api/enter", {"token": token})[0] == 403
    assert stand.visits == []
    assert "refused a request of 127.0.0.1: this link belongs to another server" in stand.said[0]


def test_the_link_admits_one_browser_which_may_come_again(stand: Stand) -> None:
    first = stand.guest()
    assert stand.client().post("/api/enter", {"token": stand.token}) == (
        403, b"this link is used up: restart edgekit serve, with --devices N for more browsers")  # fmt: skip
    assert first.post("/api/enter", {"token": stand.token})[0] == 204
    assert first.get("/api/job")[0] == 200
    assert len(stand.visits) == 1


def test_the_cookie_is_for_this_server_alone_and_hidden_from_scripts(stand: Stand) -> None:
    client = stand.guest()
    client.post("/api/enter", {"token": stand.token})
    name = client.headers["Cookie"].partition("=")[0]
    assert name == f"edgekit-{stand.port}"
    client.headers["Cookie"] = f"{name}=forged"
    assert client.get("/api/job")[0] == 401
    client.headers["Cookie"] = '{"[bad'
    assert client.get("/api/job")[0] == 401


def test_the_desktop_is_not_flooded_with_refusals(stand: Stand) -> None:
    for _ in range(12):
        stand.client().post("/api/enter", {"token": "x"})
    assert len(stand.said) == 5


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example", "", "[::", "a b"])
def test_a_page_of_another_name_gets_nothing(stand: Stand, host: str) -> None:
    client = stand.guest()
    client.headers["Host"] = host
    assert client.get("/api/job")[0] == 421


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "192.168.1.5:9999", "[::1]:80", "desk.local:80"])
def test_addresses_localhost_and_its_own_name_are_known(tmp_path: Path, host: str) -> None:
    with standing(offer(tmp_path), Access(names=("desk.local",))) as stand:
        client = stand.guest()
        client.headers["Host"] = host
        assert client.get("/api/job")[0] == 200


def test_requests_of_other_sites_are_refused(stand: Stand) -> None:
    client = stand.guest()
    assert client.ask("POST", "/api/end", b"{}", {"Origin": "https://evil.example"})[0] == 403
    assert not stand.over.is_set()
    assert client.ask("POST", "/api/end", b"{}", {"Origin": f"http://127.0.0.1:{stand.port}"})[0] == 204
    assert stand.over.is_set()


# What is sent


def test_a_browser_gets_the_job_its_models_and_its_images(stand: Stand) -> None:
    client = stand.guest()
    job = json.loads(client.get("/api/job")[1])
    assert (job["labels"], job["images"], job["device"]) == (list(LABELS), 7, "web:Android, Chrome 140")
    assert job["limits"] == {"warmup_queries": 2, "warmup_s": 0, "min_queries": 20, "min_s": 0.05, "max_s": 5}
    assert client.get("/api/model/0") == (200, b"no model")
    assert client.get("/api/images/0") == (200, stand.server.offer.images(0).tobytes())
    assert client.get("/api/model/1")[0] == client.get("/api/images/1")[0] == 404


def test_images_are_sent_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "_CHUNK_BYTES", 3 * 32 * 32 * 3)
    with standing(offer(tmp_path)) as stand:
        client = stand.guest()
        parts = [client.get(f"/api/images/{n}")[1] for n in range(3)]
        assert [len(part) for part in parts] == [9216, 9216, 3072]
        assert b"".join(parts) == np.load(tmp_path / "pixels.npy").tobytes()
        client.post("/api/begin", {"model": 0, "mode": "wasm"})
        for number in (2, 0):
            part = LOGITS[3 * number : 3 * number + 3].astype("<f4").tobytes()
            assert client.post(f"/api/logits/{number}", part)[0] == 204
        said = {"latencies_ns": [5] * 9, "environment": ENVIRONMENT}
        assert client.post("/api/finish", said) == (400, b"the logits of 3 images are missing")
        assert client.post("/api/logits/1", LOGITS[3:6].astype("<f4").tobytes())[0] == 204
        assert client.post("/api/finish", said)[0] == 200
    assert (stand.kept[0].logits == LOGITS).all()


def test_a_whole_measurement_is_kept_and_its_figures_are_told(stand: Stand) -> None:
    client = stand.guest(phone="Pixel 8")
    status, answer = client.measured(LOGITS)
    figures = json.loads(answer)
    assert (status, figures["top1"], figures["p50_ms"], figures["p99_ms"]) == (200, 100.0, 1.0, None)
    (result,) = stand.kept
    assert (result.device, result.source, result.runtime) == ("web:Pixel 8, Chrome 140", "host", "litert")
    assert result.latencies_ns.tolist() == [1_000_000] * 20
    assert (result.logits == LOGITS).all()
    said = result.environment.table()
    assert (said["runtime"], said["processor"], said["threads"]) == ("LiteRT.js", "wasm", 1)
    assert (said["user_agent"], said["mode"], said["suite"]) == (CHROME, "wasm", "brief")


def test_a_browser_cannot_say_where_it_is_or_what_it_ran(stand: Stand) -> None:
    stand.guest().measured(LOGITS, source="device", runtime="TensorRT", processor="cpu", user_agent="other")
    said = stand.kept[0].environment.table()
    assert (stand.kept[0].source, said["runtime"], said["user_agent"]) == ("host", "LiteRT.js", CHROME)


def test_results_from_another_address_are_of_a_device() -> None:
    assert visits.source_of("127.0.0.1", "127.0.0.1") == "host"
    assert visits.source_of("192.168.1.4", "192.168.1.4") == "host"
    assert visits.source_of("192.168.1.7", "192.168.1.4") == "device"


def test_modes_are_kept_apart_and_shown_again_when_the_page_is_loaded_anew(stand: Stand) -> None:
    client = stand.guest()
    client.measured(LOGITS)
    client.measured(LOGITS, mode="threads", threads=4)
    client.measured(LOGITS, mode="webgpu")
    assert len({result.device for result in stand.kept}) == 3
    assert [f["mode"] for f in json.loads(client.get("/api/job")[1])["figures"]] == ["wasm", "threads", "webgpu"]
    client.measured(LOGITS)
    assert len(json.loads(client.get("/api/job")[1])["figures"]) == 3
    assert client.measured(LOGITS, mode="wasm", threads=4) == (400, b"the mode wasm has one thread")


def test_two_phones_of_one_kind_do_not_mix(tmp_path: Path) -> None:
    with standing(offer(tmp_path), Access(devices=2)) as stand:
        one, other = stand.guest(), stand.guest()
        one.post("/api/begin", {"model": 0, "mode": "wasm"})
        one.post("/api/logits/0", LOGITS.astype("<f4").tobytes())
        other.measured(1 - LOGITS)
        assert one.post("/api/finish", {"latencies_ns": [7], "environment": ENVIRONMENT})[0] == 200
        second, first = stand.kept
        assert (first.device, second.device) == ("web:Android, Chrome 140", "web:Android, Chrome 140 no. 2")
        assert (first.logits == LOGITS).all()
        assert (second.logits == 1 - LOGITS).all()


def test_a_measurement_that_begins_again_forgets_what_was_not_finished(stand: Stand) -> None:
    client = stand.guest()
    client.post("/api/begin", {"model": 0, "mode": "wasm"})
    client.post("/api/logits/0", LOGITS.astype("<f4").tobytes())
    client.post("/api/begin", {"model": 0, "mode": "wasm"})
    said = {"latencies_ns": [5], "environment": ENVIRONMENT}
    assert client.post("/api/finish", said)[0] == 400
    assert not stand.kept


@pytest.mark.parametrize(
    ("path", "said"),
    [("begin", {"model": 1, "mode": "wasm"}), ("begin", {"model": True, "mode": "wasm"}), ("begin", {"model": 0}),
     ("begin", {"model": 0, "mode": []}), ("logits/0", b""), ("logits/0", b"\x00" * 83), ("logits/1", b"0"),
     ("finish", {}), ("finish", b"[" * 9000), ("progress", {"done": 2, "total": 1}), ("progress", b'{"done": NaN}'),
     ("progress", {"done": -1, "total": 10**30})],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_the_server_goes_on(stand: Stand, path: str, said: Any) -> None:
    client = stand.guest()
    assert client.post(f"/api/{path}", said)[0] == 400
    assert client.measured(LOGITS)[0] == 200


@pytest.mark.parametrize("path", ["logits", "logits/", "logits/-1", "begin/0", "finish/0", "progress/0", "job"])
def test_a_path_with_a_number_too_many_or_too_few_is_no_page(stand: Stand, path: str) -> None:
    client = stand.guest()
    assert client.post(f"/api/{path}", {"model": 0, "mode": "wasm"}) == (404, b"no such page")
    assert client.measured(LOGITS)[0] == 200


def test_logits_before_anything_was_begun_are_refused(stand: Stand) -> None:
    assert stand.guest().post("/api/logits/0", LOGITS.astype("<f4").tobytes()) == (400, b"no measurement has begun")


def test_what_is_too_large_is_refused_before_it_is_read(stand: Stand) -> None:
    client = stand.guest()
    client.post("/api/begin", {"model": 0, "mode": "wasm"})
    for path, most in (("progress", 4_000), ("logits/0", 7 * 3 * 4 + 10**7), ("finish", 16_000_000)):
        assert client.ask("POST", f"/api/{path}", headers={"Content-Length": str(most + 10**9)})[0] == 413
    assert client.ask("POST", "/api/progress", headers={"Content-Length": "9" * 5000})[0] == 413
    for length in ("-1", "x", "1e3", "", "0x9"):
        assert client.ask("POST", "/api/progress", headers={"Content-Length": length})[0] == 411
    assert client.ask("POST", "/api/progress", headers={"Transfer-Encoding": "chunked"})[0] == 411


def test_a_body_of_a_get_is_not_read_as_the_next_request(stand: Stand) -> None:
    hidden = f"GET /style.css HTTP/1.1\r\nHost: localhost:{stand.port}\r\n\r\n"
    request = f"GET / HTTP/1.1\r\nHost: localhost:{stand.port}\r\nContent-Length: {len(hidden)}\r\n\r\n{hidden}"
    with socket.create_connection(("127.0.0.1", stand.port), 10) as connection:
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 200") == 1


def test_noise_instead_of_http_is_refused(stand: Stand) -> None:
    for noise in (b"\x16\x03\x01\x02\x00" * 50 + b"\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70_000):
        with socket.create_connection(("127.0.0.1", stand.port), 10) as connection:
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
            try:
                while connection.recv(65536):
                    pass
            except ConnectionResetError:
                pass
    assert stand.client().get("/")[0] == 200


@pytest.mark.parametrize("limit", ["_MAX_CONNECTIONS", "_MAX_OF_ADDRESS"])
def test_more_connections_than_allowed_are_closed_and_others_served_when_they_end(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(server, limit, 3)
    with contextlib.ExitStack() as held:
        waiting = [held.enter_context(socket.create_connection(("127.0.0.1", stand.port), 10)) for _ in range(6)]
        assert [connection.recv(1) for connection in waiting[3:]] == [b""] * 3
    until = time.monotonic() + 10
    while stand.server._open and time.monotonic() < until:
        time.sleep(0.01)
    assert stand.client().get("/")[0] == 200


def drip(connection: socket.socket, begun: bytes) -> bytes:
    """Send a request and then a byte now and then, until the server closes the connection; return its answer."""
    connection.settimeout(0.05)
    connection.sendall(begun)
    answer = b""
    for _ in range(200):
        with contextlib.suppress(TimeoutError):
            try:
                part = connection.recv(65536)
            except ConnectionResetError:
                return answer
            if not part:
                return answer
            answer += part
        with contextlib.suppress(OSError):
            connection.sendall(b"a")
    raise AssertionError("still open")


@pytest.mark.parametrize(
    ("begun", "answer"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nX: ", b""),
        (b"POST /api/enter HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000\r\n\r\n", b""),
        (b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nX: ", b"HTTP/1.1 200"),
    ],
    ids=["nothing", "head", "body", "second head"],
)
def test_a_client_that_drips_is_cut_off(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, begun: bytes, answer: bytes
) -> None:
    for name in ("_HEAD_S", "_IDLE_S", "_BODY_S"):
        monkeypatch.setattr(server, name, 0.2)
    with socket.create_connection(("127.0.0.1", stand.port), 10) as connection:
        assert drip(connection, begun).startswith(answer)
    assert stand.client().get("/")[0] == 200


def test_a_client_that_reads_slowly_is_cut_off(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_BODY_S", 0.2)
    monkeypatch.setattr(server, "_SLOWEST", 1e9)
    big = Asset("text/plain", "", lambda: bytes(30_000_000))
    monkeypatch.setitem(server.ASSETS, "/icon.svg", big)
    with socket.create_connection(("127.0.0.1", stand.port), 10) as connection:
        connection.sendall(b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until = time.monotonic() + 10
        while stand.server._open and time.monotonic() < until:
            time.sleep(0.02)
        assert not stand.server._open


def test_progress_and_failures_are_heard_with_what_drives_a_terminal_spelled_out(stand: Stand) -> None:
    client = stand.guest()
    client.post("/api/progress", {"done": 1, "total": 7, "text": "\x1b[2Jhalf" + "x" * 900})
    client.post("/api/failed", {"text": "it\nfailed"})
    ((name, done, total, text),) = stand.progress
    assert (name, done, total, len(text)) == ("web:Android, Chrome 140", 1, 7, 200)
    assert text.startswith("\\x1b[2Jhalf")
    assert stand.said == ["web:Android, Chrome 140: it\\nfailed"]


def test_a_result_that_cannot_be_filed_is_an_error_on_both_sides(tmp_path: Path) -> None:
    with standing(offer(tmp_path)) as stand:

        def full(result: object) -> None:
            raise StorageError("the disk is full")

        object.__setattr__(stand.server.callbacks, "keep", full)
        client = stand.guest()
        assert client.measured(LOGITS) == (500, b"the disk is full")
        assert stand.said == ["error: the disk is full"]
        assert json.loads(client.get("/api/job")[1])["figures"] == []


# https


def test_https_is_served_with_a_certificate_that_is_kept(tmp_path: Path, cache: Path) -> None:
    pytest.importorskip("cryptography")
    secure, fingerprint = certificate.context("127.0.0.9")
    path = cache / "certificates" / "127.0.0.9.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with standing(offer(tmp_path), secure=secure) as stand:
        trusting = ssl.create_default_context(cafile=str(path))
        for host in ("localhost", "127.0.0.1"):
            with urllib.request.urlopen(f"https://{host}:{stand.port}/", context=trusting) as answer:
                assert b"edgekit" in answer.read()
                assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        served = ssl.get_server_certificate(("127.0.0.1", stand.port))
        assert len(fingerprint.split(":")) == 32
        assert certificate.fingerprint(served) == fingerprint
    assert certificate.context("127.0.0.9")[1] == fingerprint
    path.write_text("damaged")
    assert certificate.context("127.0.0.9")[1] != fingerprint


def test_a_handshake_that_never_comes_holds_up_nobody(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    secure, _ = certificate.context("127.0.0.1")
    with standing(offer(tmp_path), secure=secure) as stand, socket.create_connection(("127.0.0.1", stand.port)):
        assert ssl.get_server_certificate(("127.0.0.1", stand.port), timeout=10)


def test_cookies_of_https_are_for_https_alone(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    secure, _ = certificate.context("127.0.0.1")
    with standing(offer(tmp_path), secure=secure) as stand:
        body = json.dumps({"token": stand.token}).encode()
        untrusting = ssl._create_unverified_context()
        request = urllib.request.Request(f"https://127.0.0.1:{stand.port}/api/enter", body)
        with urllib.request.urlopen(request, context=untrusting) as answer:
            cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "Secure", "SameSite=Strict"} <= set(cookie.split("; "))
