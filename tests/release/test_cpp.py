"""What is particular to the client in C++: its parser, its self-test in a process of its own, the Jetson's engine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from edgekit import files
from edgekit.shipping import cpp as kits
from edgekit.shipping import kit
from tests.release.attacks import Folders
from tests.release.clients import Missing, answers, cpp
from tests.release.conftest import command
from tests.release.folders import SECONDS, Publisher, write_app
from tests.release.site import Site
from tests.shipping import test_cpp as shipping

pytestmark = pytest.mark.xdist_group("client-cpp")
BAD = "not JSON as the publisher writes it: "
SCORES = "tensor to scores"


def program(source: Path, made: Path, options: Sequence[str] = ()) -> Path:
    """Build a program; the test is skipped where it cannot be built."""
    try:
        return cpp.built(source, made, options)
    except Missing as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Sequence[bytes]], list[str]]:
    """Reads texts as metadata is read."""
    folder = tmp_path_factory.mktemp("strict")
    reader = program(Path(__file__).parent / "cpp" / "strict.cpp", folder / "strict", ["-O0"])

    def read(kind: str, texts: Sequence[bytes]) -> list[str]:
        paths = [folder / str(number) for number in range(len(texts))]
        for path, text in zip(paths, texts):
            path.write_bytes(text)
        done = subprocess.run([reader, kind, *paths], capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.splitlines()

    return read


JSON = {
    b'{"a":[1,-2,0,true,false,null,"x\\ny","\xc3\xa9\xf0\x9f\x90\x88"],"b":{},"c":[]}': "taken",
    b"999999999999999": "taken",
    b"[" * 31 + b"1" + b"]" * 31: "taken",
    b"[" * 32 + b"1" + b"]" * 32: f"{BAD}too deep",
    b"[" * 1_000_000: f"{BAD}too deep",
    b'{"a":' * 1_000_000: f"{BAD}too deep",
    b"1000000000000000": f"{BAD}a number is too long",
    b"9" * 1_000_000: f"{BAD}a number is too long",
    b"01": f"{BAD}a number begins with 0",
    b"-0": f"{BAD}a number begins with 0",
    b"-": f"{BAD}a value is missing",
    b"1.5": f"{BAD}more after the end",
    b"1e5": f"{BAD}more after the end",
    b"{}{}": f"{BAD}more after the end",
    b"": f"{BAD}a value is missing",
    b"NaN": f"{BAD}a value is missing",
    b"tru": f"{BAD}a value is missing",
    b" 1": f"{BAD}a value is missing",
    b"[1, 2]": f"{BAD}a value is missing",
    b"[1,]": f"{BAD}a value is missing",
    b"[1": f"{BAD}a list does not end",
    b'{"a":1': f"{BAD}an object does not end",
    b'{"a":1,}': f"{BAD}a name is missing",
    b'{"a" :1}': f"{BAD}a colon is missing",
    b"{1:1}": f"{BAD}a name is missing",
    b'{"a":1,"a":1}': f"{BAD}names out of order, or twice",
    b'{"b":1,"a":1}': f"{BAD}names out of order, or twice",
    b'"a': f"{BAD}a text does not end",
    b'"a\\': f"{BAD}a backslash",
    b'"\\u0041"': f"{BAD}a backslash",
    b'"\\""': f"{BAD}a backslash",
    b'"a\nb"': f"{BAD}a control character in a text",
    b'"\x00"': f"{BAD}a control character in a text",
    **{
        b'"' + letter + b'"': f"{BAD}invalid UTF-8"
        for letter in (
            b"\xff", b"\x80", b"\xc3", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xe2\x82",
        )
    },
}  # fmt: skip


def test_only_the_publishers_json_is_read(strict: Callable[[str, Sequence[bytes]], list[str]]) -> None:
    assert dict(zip(JSON, strict("json", [*JSON]))) == JSON


def test_what_this_device_wrote_may_have_spaces_but_no_name_twice(
    strict: Callable[[str, Sequence[bytes]], list[str]],
) -> None:
    texts = [b' {"b" : 1,\n "a": "\\"\\\\" } ', b'{"a":1,"b":2,"a":1}', b"[" * 1_000_000, b'"\\u0041"']
    found = ["taken", f"{BAD}a name twice", f"{BAD}too deep", f"{BAD}a backslash"]
    assert strict("state", texts) == found


def test_a_metadata_file_has_one_form(strict: Callable[[str, Sequence[bytes]], list[str]]) -> None:
    def file(signatures: bytes, signed: bytes = b'{"a":"x\\ny"}') -> bytes:
        return b'{"signatures":[' + signatures + b'],"signed":' + signed + b"}"

    one = b'{"keyid":"' + b"a" * 64 + b'","sig":"00ff"}'
    right = [file(b""), file(one), file(b",".join([one] * 16)), file(one, b"{}")]
    found = ["0 signatures, 11 bytes", "1 signatures, 11 bytes", "16 signatures, 11 bytes", "1 signatures, 2 bytes"]
    assert strict("envelope", right) == found
    wrong = [
        b"", b"{}", file(one)[:-1], b" " + file(one), file(one) + b"\n", file(b",".join([one] * 17)), file(one + b","),
        file(one + one), file(one.replace(b"a" * 64, b"a" * 63)), file(one.replace(b"a", b"A")), file(one, b"[]"),
        file(one.replace(b"00ff", b"00f")), file(one.replace(b"}", b',"x":1}')), file(one, b'{"a":"\\t"}'),
        file(one, b""),
        file(one, b'{"a":"\\'), b'{"signed":{},"signatures":[]}', file(one, b"}"),
    ]  # fmt: skip
    assert {*strict("envelope", wrong)} == {"not a metadata file of edgekit"}


def test_times_are_read(strict: Callable[[str, Sequence[bytes]], list[str]]) -> None:
    from calendar import timegm

    texts = ["1970-01-01T00:00:00Z", "2000-02-29T23:59:59Z", "2026-12-01T06:00:00Z", "2100-03-01T00:00:01Z"]
    wanted = [str(timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))) for text in texts]
    assert strict("time", [text.encode() for text in texts]) == wanted
    wrong = [
        "",
        "2026-12-01",
        "2026-13-01T00:00:00Z",
        "2026-12-01T24:00:00Z",
        "2026-12-01T00:00:00+",
        "2026-12-0xT00:00:00Z",
    ]
    assert strict("time", [text.encode() for text in wrong]) == [f'"{text}" is no time' for text in wrong]


# The self-test, by a `classifier` beside the program.


class Board:
    """A board whose kit is of model 0, with r2 in its channel; its `classifier` is a script."""

    def __init__(self, updates: Path, site: Site, folders: Folders, folder: Path) -> None:
        self.program, self.state = folder / "updates", folder / "state"
        shutil.copy(updates, self.program)
        self.app = write_app(folder / "app", "cpp-litert", site.url, folders.root)

    def classifier(self, text: str) -> None:
        path = self.program.with_name("classifier")
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def arguments(self, *commands: str) -> list[str]:
        fixed = ["--kit", self.app, "--state", self.state, "--now", SECONDS, "--test-seconds", 3]
        return [str(self.program), *map(str, fixed), *commands]

    def run(self, *commands: str) -> list[dict[str, str]]:
        return answers(self.arguments(*commands))

    def kept(self) -> dict[str, object]:
        found: dict[str, object] = json.loads((self.state / "state.json").read_text())
        return found


@pytest.fixture
def board(tmp_path: Path, folders: Folders, client_program: Path) -> Iterator[Board]:
    with Site(folders["old"]) as site:
        yield Board(client_program, site, folders, tmp_path)


@pytest.fixture(scope="module")
def client_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(command("cpp", tmp_path_factory.mktemp("cpp"))[0])


def levels(problems: Sequence[str] = (), checked: int = 14, skipped: str = "", cause: str = "") -> str:
    """The line that a kit's program prints of its golden set."""
    first = {"level": "pixels to tensor", "checked": 5, "problems": [], "cause": "", "skipped": ""}
    scores = {"level": SCORES, "checked": checked, "problems": [*problems], "cause": cause, "skipped": skipped}
    return f"echo building >&2; echo '{json.dumps([first, scores])}'; exit {int(bool(problems))}"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (levels(["noise 9x9: scores differ by 1"]), f"{SCORES}: noise 9x9: scores differ by 1"),
        (levels(["noise 9x9: off"], cause="bgr: red and blue"), f"{SCORES}: bgr: red and blue"),
        ('echo "classifier: TensorRT rejects the model: no such operator" >&2; exit 1',
         "classifier: TensorRT rejects the model: no such operator"),
        ("kill -SEGV $$", "it crashed: signal 11"),
        ("exit 3", "exit status 3"),
        ("echo '[damaged'", "JSON: it is damaged"),
        ("sleep 60 & sleep 60", "it took more than 3 s"),
    ],
    ids=["scores", "cause", "rejected", "crash", "status", "damaged", "hangs"],
)  # fmt: skip
def test_a_release_that_is_wrong_here_is_barred(board: Board, said: str, reason: str) -> None:
    board.classifier(said)
    found, again = board.run("check", "check")
    assert (found["state"], found["reason"]) == ("refused", f"self-test: {reason}")
    assert (again["state"], again["reason"]) == ("current", "r2 failed here before")
    assert board.kept()["barred"] == ["r2"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (levels(checked=0, skipped="CUDA finds no GPU"), "self-test: the model was not run: CUDA finds no GPU"),
        ('echo "classifier: x.engine cannot be written: run it as a user who may" >&2; exit 1',
         "self-test: classifier: x.engine cannot be written: run it as a user who may"),
        ("kill -TERM $$", "stopped"),
    ],
    ids=["no GPU", "no room for the engine", "ended with the service"],
)  # fmt: skip
def test_what_says_nothing_of_the_release_bars_nothing(board: Board, said: str, reason: str) -> None:
    board.classifier(said)
    for _ in range(3):
        found = board.run("check")[0]
        assert (found["state"], found["reason"]) == ("unreachable", reason)
    board.classifier(levels())
    assert board.run("check")[0]["state"] == "updated"


def test_without_the_kits_program_no_release_is_tried(board: Board) -> None:
    found = board.run("check")[0]
    assert found["reason"] == f"self-test: there is no program {board.app}/build/classifier"
    assert board.kept()["barred"] == []
    board.classifier(levels())
    (board.app / "build").mkdir()
    board.program.with_name("classifier").rename(board.app / "build" / "classifier")
    assert board.run("check")[0]["state"] == "updated"


def test_the_model_before_is_used_while_a_release_is_tested(board: Board, tmp_path: Path) -> None:
    board.classifier(
        f'"{board.program}" --kit "{board.app}" --state "{board.state}" start >{tmp_path}/said\n{levels()}'
    )
    assert board.run("check", "start")[1]["release"] == "r2"
    assert json.loads((tmp_path / "said").read_text())["release"] == ""


def test_a_service_that_is_ended_in_the_self_test_can_begin_it_again(board: Board, tmp_path: Path) -> None:
    """Any number of times: it did not crash. Nothing that it started goes on."""
    alive = tmp_path / "alive"
    board.classifier(f"while :; do echo >>{alive}; sleep 0.01; done & sleep 60")
    for end_it in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        running = subprocess.Popen(board.arguments("check"), stdout=subprocess.PIPE, text=True)
        end = time.monotonic() + 60
        while not alive.exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        running.send_signal(end_it)
        said, _ = running.communicate(timeout=10)
        assert json.loads(said)["reason"] == "stopped"
        size = alive.stat().st_size
        time.sleep(0.1)
        assert alive.stat().st_size == size
        alive.unlink()
    board.classifier(levels())
    assert board.run("check")[0]["state"] == "updated"


def test_starts_that_cannot_be_counted_are_of_the_model_before(board: Board, folders: Folders) -> None:
    """The disk is full, or can only be read."""
    board.classifier(levels())
    assert board.run("check")[0]["release"] == "r2"
    limited = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *board.arguments("start", "good")]
    for _ in range(3):  # written to a pipe, which has no limit
        done = subprocess.run(limited, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
        assert json.loads(done.stdout.splitlines()[0])["release"] == ""
    assert board.run("start", "good", "start")[2]["release"] == "r2"
    done = subprocess.run(limited, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    assert json.loads(done.stdout.splitlines()[0])["release"] == "r2"  # it needs no counting any more


def test_a_command_line_that_is_wrong_is_told(board: Board, tmp_path: Path) -> None:
    for words in ([], ["check"], ["--state", "x"], ["--state", "x", "what"], ["--state", "x", "--app", "-1", "check"],
                  ["--state", "x", "check", "--now"], ["--kit", str(tmp_path), "--state", "x", "check"],
                  ["--kit", str(board.app), "--state", "x", "--url", "ftp://x", "check"]):  # fmt: skip
        done = subprocess.run([board.program, *words], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert done.stderr.startswith("updates: ")


# A Jetson, with a stand-in for TensorRT.


@pytest.fixture(scope="module")
def jetson(tmp_path_factory: pytest.TempPathFactory, client_program: Path) -> Path:
    """A folder with the two programs of a kit."""
    folder = tmp_path_factory.mktemp("jetson")
    options = ["-DEDGEKIT_UPDATES", "-O0", *shipping.TENSORRT, *kits.decoders(shipping.COMPILER)]
    program(shipping.SOURCES / "main.cpp", folder / "classifier", options)
    shutil.copy(client_program, folder / "updates")
    return folder


class Jetson:
    """A board with a kit for TensorRT that takes releases of a publisher."""

    def __init__(self, programs: Path, publisher: Publisher, site: Site, folder: Path) -> None:
        self.programs, self.publisher, self.folder = programs, publisher, folder
        self.app, self.state = folder / "app", folder / "state"
        self.kit_of(b"int8 of the kit", self.app)
        settings = {
            "schema": 1,
            "url": site.url,
            "channel": "jetson",
            "kit": "cpp-tensorrt",
            "contract": 1,
            "built": "0",
        }
        files.save_json(self.app / "updates.json", settings)
        (self.app / "root.json").write_bytes(publisher.root)

    def kit_of(self, onnx: bytes, folder: Path) -> Path:
        """Write a kit with an ONNX file. Returns its folder."""
        shipping.tensorrt_kit(folder)
        (folder / "model.int8.onnx").write_bytes(onnx)
        manifest = json.loads((folder / "manifest.json").read_text())
        inside = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        del inside["manifest.json"]
        manifest |= {
            "files": {name: files.sha256_file(path) for name, path in inside.items()},
            "model": "model.int8.onnx",
        }
        files.save_json(folder / "manifest.json", manifest)
        return folder

    def publish(self, onnx: bytes) -> str:
        folder = self.folder / hashlib.sha256(onnx).hexdigest()[:8]
        return self.publisher.releases.add([self.kit_of(onnx, folder)], "jetson")

    def updates(self, *commands: str, **environment: str) -> list[dict[str, str]]:
        fixed = [self.programs / "updates", "--kit", self.app, "--state", self.state, *commands]
        done = subprocess.run(
            fixed, capture_output=True, text=True, timeout=120, check=True, env={**os.environ, **environment}
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    def watch(self, seconds: float = 60, **environment: str) -> str:
        """Run the service until it has answered a picture, or ended. Returns the answer; "" if it ended."""
        watched = self.folder / "watched"
        shutil.rmtree(watched, ignore_errors=True)
        watched.mkdir()
        shutil.copy(self.app / "golden" / "landscape.png", watched / "1.png")
        words = [self.programs / "classifier", "--watch", watched, "--kit", self.app, "--state", self.state]
        running = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
        try:
            end = time.monotonic() + seconds
            while not (watched / "1.png.json").exists() and running.poll() is None:
                assert time.monotonic() < end
                time.sleep(0.02)
        finally:
            running.kill()
            running.wait()
        return (watched / "1.png.json").read_text() if (watched / "1.png.json").exists() else ""


@pytest.fixture
def device(jetson: Path, tmp_path: Path) -> Iterator[Jetson]:
    publisher = Publisher(tmp_path / "publisher")
    with Site(publisher.folder) as site:
        yield Jetson(jetson, publisher, site, tmp_path)


@pytest.mark.slow
def test_an_engine_is_built_and_compared_before_the_switch(device: Jetson) -> None:
    first = device.publish(b"int8 of the first")
    found = device.updates("check")[0]
    assert (found["state"], found["release"]) == ("updated", first), found
    folder = device.state / "releases" / first
    (engine,) = folder.glob("*.engine")
    assert engine.read_bytes().endswith(b"int8 of the first")
    built = engine.stat().st_mtime_ns
    assert "answers" in device.watch()  # with an engine beside the files that were released
    assert json.loads((device.state / "state.json").read_text())["trying"] is False
    assert device.updates("start")[0]["folder"] == str(folder)
    assert engine.stat().st_mtime_ns == built
    program, picture = device.programs / "classifier", folder / "golden" / "landscape.png"
    wanted = shipping.lines(program, "--kit", device.app, picture)
    assert shipping.lines(program, "--kit", folder, picture) == wanted
    assert shipping.levels(program, folder)[SCORES]["checked"] == 14


@pytest.mark.slow
def test_a_model_that_this_tensorrt_rejects_is_not_taken(device: Jetson) -> None:
    first = device.publish(b"int8 of the first")
    assert device.updates("check", "start", "good")[0]["state"] == "updated"
    bad = device.publish(b"bad")
    found = device.updates("check", EDGEKIT_SM="0")[0]
    assert (found["state"], found["reason"]) == (
        "unreachable", "self-test: the model was not run: CUDA finds no GPU here: unknown",
    )  # fmt: skip
    found, started = device.updates("check", "start")
    assert found["reason"] == "self-test: classifier: TensorRT rejects the model: no such operator"
    assert (found["state"], started["release"]) == ("refused", first)
    assert not (device.state / "releases" / bad).exists()


@pytest.mark.slow
def test_a_service_that_does_not_come_up_with_a_release_leaves_it(device: Jetson) -> None:
    """Its TensorRT was replaced after the self-test, and builds nothing from this model."""
    device.publish(b"int8 of the first")
    assert device.updates("check")[0]["state"] == "updated"
    (engine,) = (device.state / "releases").glob("*/*.engine")
    engine.write_bytes(b"of another version")
    assert [bool(device.watch()) for _ in range(3)] == [False, False, True]  # the third is with the kit's own model
    state = json.loads((device.state / "state.json").read_text())
    assert (state["active"], state["barred"]) == ("", [engine.parent.name])


# Services.


@pytest.mark.parametrize("kind", ["cpp", "python"])
def test_units_are_what_systemd_reads(kind: str, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd is not installed")
    for path in (kit.TEMPLATES / f"{kind}-updates").glob("classifier*"):
        text = path.read_text(encoding="utf-8")
        for own in ("/opt/classifier/build/classifier", "/opt/classifier/venv/bin/python3"):
            text = text.replace(f"ExecStart={own} ", f"ExecStart={sys.executable} ")  # a program that is here
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    units = sorted(map(str, tmp_path.glob("classifier*")))
    assert len(units) == 3
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("state", "restarts"), [("updated", True), ("current", False), ("refused", False)])
def test_the_classifier_is_restarted_for_a_new_model_only(state: str, restarts: bool, tmp_path: Path) -> None:
    """The lines of the unit, with a program and a systemctl of this test, in folders of it."""
    text = (kit.TEMPLATES / "cpp-updates" / "classifier-updates.service").read_text(encoding="utf-8")
    said = json.dumps({"did": "check", "state": state, "release": "r2", "reason": "not updated"})
    for name, content in (("updates", f"echo '{said}'"), ("systemctl", f'echo "$@" >{tmp_path}/called')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{content}\n")
        (tmp_path / name).chmod(0o755)
    for line in text.splitlines():
        if line.startswith("Exec"):
            words = line.partition("-c '")[2].removesuffix("'").replace("/run/classifier-updates", str(tmp_path))
            words = words.replace("/opt/classifier/build/updates", str(tmp_path / "updates"))
            environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
            done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=True, env=environment)
            assert done.stdout in ("", f"{said}\n")
    called = tmp_path / "called"
    assert (called.read_text() if called.exists() else "") == (
        "--no-block try-restart classifier.service\n" if restarts else ""
    )
