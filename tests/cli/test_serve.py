"""`edgekit serve` from the command line; a plain HTTP client stands in for the browser, but for one real Chromium."""

from __future__ import annotations

import json
import logging
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgekit import files, progress, runs
from edgekit.api import serve
from edgekit.bench import results
from edgekit.cli import serve as serve_command
from edgekit.cli.app import run
from edgekit.errors import MissingError
from tests.bench import results as made_up
from tests.web import chromium
from tests.web.webstand import Client, artifact, needs_litertjs

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("road"), needs_litertjs]
Browser = Callable[[str], None]


def export_android(road: Path, **inputs: str) -> list[str]:
    """Files of no use to LiteRT in ``export/android``, one for each input; returns their names."""
    folder, weights = road / "export" / "android", runs.open_run(road.parent, road.name).weights_sha256
    folder.mkdir(parents=True)
    artifacts = []
    for precision, taken in (inputs or {"fp32": "float32"}).items():
        path = folder / f"model.{precision}.tflite"
        path.write_text(f"no model {precision}")
        artifacts.append({**vars(artifact(path, precision, taken)), "parent": weights})
    files.save_json(folder / "manifest.json", {"schema": 1, "artifacts": artifacts})
    return [a["name"] for a in artifacts]


@pytest.fixture
def browser() -> Iterator[Callable[[Browser], list[str]]]:
    """Lets something open the link as soon as it is printed; the value returns all notes."""
    handlers: list[logging.Handler] = []

    def opening(browse: Browser) -> list[str]:
        notes: list[str] = []

        def noted(text: str) -> None:
            notes.append(text)
            if "Ctrl-C ends" in text:
                link = next(re.findall(r"https?://\S+", each)[0] for each in reversed(notes) if "open" in each)
                threading.Thread(target=browse, args=[link], daemon=True).start()

        handler = logging.Handler()
        handler.emit = lambda record: noted(record.getMessage())  # type: ignore[method-assign]
        progress.log.addHandler(handler)
        handlers.append(handler)
        return notes

    yield opening
    for handler in handlers:
        progress.log.removeHandler(handler)


def enter(link: str) -> Client:
    client = Client(int(re.findall(r":(\d+)/", link)[0]))
    client.headers["User-Agent"] = "Mozilla/5.0 (Linux; Android 10; K) Chrome/140.0.0.0 Mobile"
    assert client.post("/api/enter", {"token": link.partition("#")[2]})[0] == 204
    return client


def send_all(link: str) -> None:
    client = enter(link)
    job = json.loads(client.get("/api/job")[1])
    answers = np.eye(3, dtype=np.float32)[np.zeros(job["images"], int)]
    assert client.measured(answers)[0] == 200
    client.post("/api/end", {})


def interrupt(link: str) -> None:
    signal.raise_signal(signal.SIGINT)


def test_what_a_browser_sends_is_filed_and_printed(
    road: Path, browser: Callable[[Browser], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    export_android(road)
    notes = browser(send_all)
    assert run(["serve", "fruit", "--once", "--port", "0"]) == 0
    (result,) = results.load(road / "bench")
    assert (result.artifact.name, result.device) == ("android/model.fp32.tflite", "web:Android, Chrome 140")
    assert (result.source, result.environment.suite) == ("host", "quick")
    printed = capsys.readouterr().out
    assert re.search(r"android/model.fp32.tflite +web:Android, Chrome 140 +\d+\.\d+ +1.00", printed)
    assert notes[-1] == "next: edgekit benchmark fruit measures the baseline to compare with"
    assert any("is connected, a browser of this machine" in note for note in notes)


def test_beside_a_baseline_it_is_a_row_of_the_table(
    road: Path, browser: Callable[[Browser], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    export_android(road)
    weights = runs.open_run(road.parent, "fruit").weights_sha256
    browser(send_all)
    assert run(["serve", "fruit", "--once", "--port", "0"]) == 0
    expected = results.load(road / "bench")[0].expected
    base = made_up.artifact(parent=weights)
    logits = np.eye(3, dtype=np.float32)[expected]
    results.save(road / "bench", made_up.result(base, expected=expected, logits=logits))
    capsys.readouterr()
    assert run(["serve", "fruit", "--once", "--port", "0", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["device"], row["ran_in"]) for row in rows] == [
        ("local", "torch 1.0"),
        ("web:Android, Chrome 140", "LiteRT.js 2.5.3"),
    ]


def test_ctrl_c_ends_it_and_what_came_in_is_kept(road: Path, browser: Callable[[Browser], list[str]]) -> None:
    export_android(road)

    def send_and_interrupt(link: str) -> None:
        send_all(link)
        interrupt(link)

    notes = browser(send_and_interrupt)
    assert run(["serve", "fruit", "--port", "0"]) == 0
    assert "ended" in notes
    assert len(results.load(road / "bench")) == 1


def test_nobody_came(road: Path, browser: Callable[[Browser], list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    export_android(road)
    notes = browser(interrupt)
    assert run(["serve", "fruit", "--port", "0", "--json"]) == 0
    assert notes[-1] == "no results were received"
    assert json.loads(capsys.readouterr().out) == []


def test_files_that_a_browser_cannot_take_are_named_and_left_out(
    road: Path, browser: Callable[[Browser], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    taken, bytes_too, refused = export_android(road, fp32="float32", fp16="uint8", int8="int8")
    seen: list[str] = []

    def look(link: str) -> None:
        seen.extend(model["name"] for model in json.loads(enter(link).get("/api/job")[1])["models"])
        interrupt(link)

    browser(look)
    assert run(["serve", "fruit", "--port", "0"]) == 0
    assert seen == [taken, bytes_too]
    assert f"left out: {refused} (its input is int8" in capsys.readouterr().err
    assert run(["serve", "fruit", "-a", refused]) == 4
    assert run(["serve", "fruit", "-a", "android/other.tflite"]) == 2
    assert "known: android/model.fp16.tflite" in capsys.readouterr().err


def test_without_a_litert_file_the_export_is_named(road: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "fruit"]) == 4
    assert "hint: edgekit export fruit --target android" in capsys.readouterr().err


def test_a_file_that_changed_is_not_served(road: Path) -> None:
    export_android(road)
    (road / "export" / "android" / "model.fp32.tflite").write_text("changed")
    assert run(["serve", "fruit"]) == 6


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--address", "192.168.1.5"], 2, "add --lan"),
        (["--lan", "--https", "--address", "a b"], 2, "'a b' is no IPv4 address and no host name"),
        (["--mode", "gpu"], 2, "known: wasm, threads, webgpu"),
        (["--suite", "endless"], 2, "known: "),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_read(
    road: Path, options: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", "fruit", *options]) == status
    assert said in capsys.readouterr().err


def test_a_port_that_is_taken_is_an_error_if_it_was_asked_for(road: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_android(road)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["serve", "fruit", "--port", str(port)]) == 4
    assert f"port {port} is not available" in capsys.readouterr().err


def test_https_needs_a_package_that_is_named(
    road: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEKIT_CACHE", str(road / "cache"))
    monkeypatch.setitem(__import__("sys").modules, "cryptography", None)
    assert run(["serve", "fruit", "--https"]) == 4
    assert "--https needs the package 'cryptography'" in capsys.readouterr().err


def test_the_link_for_others_says_what_they_can_do(road: Path, browser: Callable[[Browser], list[str]]) -> None:
    pytest.importorskip("cryptography")
    export_android(road)
    notes = browser(interrupt)
    assert run(["serve", "fruit", "--lan", "--address", "desk.local", "--port", "0"]) == 0
    assert any(note.startswith("open on the phone: http://desk.local:") for note in notes)
    assert any("without --https: one thread" in note for note in notes)
    notes.clear()
    assert run(["serve", "fruit", "--lan", "--address", "desk.local", "--port", "0", "--https"]) == 0
    assert any(note.startswith("open on the phone: https://desk.local:") for note in notes)
    notes.clear()
    assert run(["serve", "fruit", "--lan", "--address", "B\u00fcro.local", "--port", "0", "--https"]) == 0
    assert any(note.startswith("open on the phone: https://xn--bro-hoa.local:") for note in notes)
    assert any(re.search(r"SHA-256 must be\n  ([0-9A-F]{2}:){31}[0-9A-F]{2}$", note) for note in notes)


def test_this_machine_knows_its_address_or_says_that_it_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_ELSEWHERE", ("127.0.0.1", 9))
    with pytest.raises(MissingError, match="not in a network"):
        serve.own_address()


def test_the_code_on_a_terminal_is_black_on_white_and_means_the_link(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import segno

    link = "https://192.168.1.5:8431/#abcdefghijklmnopqrstuv"
    serve_command._print_code(link)
    assert capsys.readouterr().err == ""  # no terminal
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "30")
    serve_command._print_code(link)
    assert "it needs 33 columns" in capsys.readouterr().err
    monkeypatch.setenv("COLUMNS", "80")
    serve_command._print_code(link)
    lines = capsys.readouterr().err.splitlines()
    parts = [re.fullmatch(r"\x1b\[(\S+)m([ ▀▄█]+)\x1b\[0m", line) for line in lines]
    assert {part[1] for part in parts if part} == {"38;5;16;48;5;231"}
    shown = [[int(c in cells) for c in part[2]] for part in parts if part for cells in ("▀█", "▄█")]
    wanted = [list(row) for row in segno.make(link, error="l", micro=False).matrix_iter(border=2)]
    assert shown[: len(wanted)] == wanted


@pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium here: apt install chromium")
def test_a_real_export_goes_through_a_real_browser(
    road: Path, tmp_path: Path, browser: Callable[[Browser], list[str]]
) -> None:
    pytest.importorskip("litert_torch")
    assert run(["export", "fruit", "--target", "android", "--precision", "fp32"]) == 0
    ended = threading.Event()

    def browse(link: str) -> None:
        with chromium.visiting(link.replace("/#", "/?auto=1#"), tmp_path / "browser"):
            ended.wait(120)

    notes = browser(browse)
    assert run(["serve", "fruit", "--once", "--port", "0", "--mode", "threads", "--threads", "2"]) == 0
    ended.set()
    (result,) = results.load(road / "bench")
    assert result.environment.threads == 2
    assert result.environment.build == "threaded"
    assert (result.logits.argmax(1) == result.expected).mean() > 0.6, notes
