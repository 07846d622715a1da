"""A phone for a real adb client: the device's side of the adb protocol on the loopback, with real shells behind it.

Stands in for adbd and the USB cable, where there is no phone. Spoken: CNXN, AUTH (never granted), OPEN, OKAY, WRTE,
CLSE and the shell service of both protocols (AOSP packages/modules/adb: protocol.txt, shell_protocol.h). What a shell
runs is real; programs that only Android has are planted by `tests.bench.android_root`.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shlex
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_WAIT_S = 20
_HEADER = struct.Struct("<6I")
_MOST = 256 * 1024
_VERSION = 0x01000001
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)


def require_adb() -> str:
    """The client; without one the test is skipped."""
    found = shutil.which("adb")
    if found is None:
        pytest.skip("no adb here: apt install adb")
    return found


@dataclass
class Client:
    """A real adb client with a server and keys of its own; `program` is what EDGEKIT_ADB takes."""

    folder: Path
    port: int

    @property
    def program(self) -> str:
        return shlex.join(["env", f"HOME={self.folder}", f"ANDROID_ADB_SERVER_PORT={self.port}", "adb"])

    def run(self, *arguments: str) -> str:
        command = [*shlex.split(self.program), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False)
        return done.stdout + done.stderr

    def wait_for(self, phone: Phone, state: str) -> None:
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end:
            if f"{phone.serial}\t{state}" in self.run("devices"):
                return
            time.sleep(0.1)
        raise AssertionError(f"{phone.serial} does not become {state}: {self.run('devices')}")

    def connect(self, phone: Phone, state: str = "device") -> None:
        self.run("connect", phone.serial)
        self.wait_for(phone, state)

    def stop(self) -> None:
        self.run("kill-server")


def client(folder: Path) -> Client:
    """A client whose server is not that of this machine."""
    require_adb()
    folder.mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Client(folder, port)
    made.run("start-server")
    return made


@dataclass
class Phone:
    """A device that adb can connect to.

    Attributes:
        shell: a command to which the line that is to run is added. environment: all that it sees.
        grants: whether it trusts the computer. answers: whether it answers at all. features: that it claims.
        model: as its banner has it. most_bytes: after so many bytes of answers the connection breaks once.
    """

    shell: list[str]
    environment: dict[str, str]
    grants: bool = True
    answers: bool = True
    features: tuple[str, ...] = ("shell_v2", "cmd")
    model: str = "Lab_Phone"
    most_bytes: int | None = None
    port: int = 0
    _listener: socket.socket | None = None
    _links: list[_Link] = field(default_factory=list)

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self.port}"

    def plug_in(self) -> Phone:
        """Begin to listen, on the port of before."""
        self._listener = socket.create_server(("127.0.0.1", self.port), reuse_port=False)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                link = _Link(self, listener.accept()[0])
                self._links.append(link)
                threading.Thread(target=link.serve, daemon=True).start()

    def drop(self) -> None:
        """Break every connection, and take new ones."""
        while self._links:
            self._links.pop().close()

    def unplug(self) -> None:
        """Break every connection, and take none. What runs on the phone runs on."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.drop()


class _Link:
    """One connection from an adb server."""

    def __init__(self, phone: Phone, wire: socket.socket) -> None:
        self.phone, self.wire = phone, wire
        self.streams: dict[int, _Stream] = {}
        self._sending = threading.Lock()
        self._count = 0

    def send(self, command: bytes, one: int, two: int, data: bytes = b"") -> None:
        number = struct.unpack("<I", command)[0]
        with self._sending, contextlib.suppress(OSError):
            check = sum(data) & 0xFFFFFFFF
            self.wire.sendall(_HEADER.pack(number, one, two, len(data), check, number ^ 0xFFFFFFFF) + data)
            self.phone.most_bytes = None if self.phone.most_bytes is None else self.phone.most_bytes - len(data)
        if self.phone.most_bytes is not None and self.phone.most_bytes < 0:
            self.phone.most_bytes = None
            self.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.wire.shutdown(socket.SHUT_RDWR)
        self.wire.close()
        for stream in list(self.streams.values()):
            stream.hang_up()

    def serve(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                number, one, two, size, _, _ = _HEADER.unpack(self._read(_HEADER.size))
                self._handle(struct.pack("<I", number), one, two, self._read(size))
        self.close()

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.wire.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def _handle(self, command: bytes, one: int, two: int, data: bytes) -> None:
        phone = self.phone
        if not phone.answers:
            return
        if command in (b"CNXN", b"AUTH") and not phone.grants:
            self.send(b"AUTH", 1, 0, os.urandom(20))  # a token again: no signature is accepted, no key confirmed
        elif command == b"CNXN":
            words = f"ro.product.name=lab;ro.product.model={phone.model};ro.product.device=lab;"
            self.send(b"CNXN", _VERSION, _MOST, f"device::{words}features={','.join(phone.features)}".encode())
        elif command == b"OPEN":
            self._count += 1
            self.streams[self._count] = _Stream(self, self._count, one)
            threading.Thread(target=self.streams[self._count].serve, args=(data,), daemon=True).start()
        elif two in self.streams:
            stream = self.streams[two]
            if command == b"WRTE":
                stream.received.put(data)
                self.send(b"OKAY", two, one)
            elif command == b"OKAY":
                stream.may_send.set()
            elif command == b"CLSE":
                stream.hang_up()


class _Stream:
    """One service: a shell."""

    def __init__(self, link: _Link, local: int, remote: int) -> None:
        self.link, self.local, self.remote = link, local, remote
        self.received: queue.Queue[bytes | None] = queue.Queue()
        self.may_send = threading.Event()
        self.over = False
        self.process: subprocess.Popen[bytes] | None = None
        self._writing = threading.Lock()

    def hang_up(self) -> None:
        """The other side is gone: the shell gets SIGHUP, as adbd sends it; what has a session of its own lives on."""
        self.over = True
        self.may_send.set()
        self.received.put(None)
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(1)

    def write(self, data: bytes) -> None:
        with self._writing:
            for start in range(0, len(data), _MOST):
                if self.over:
                    return
                self.may_send.clear()
                self.link.send(b"WRTE", self.local, self.remote, data[start : start + _MOST])
                self.may_send.wait()

    def serve(self, service: bytes) -> None:
        name, _, line = service.rstrip(b"\0").decode("utf-8", "surrogateescape").partition(":")
        kind, *options = name.split(",")
        if kind != "shell":
            self.link.send(b"CLSE", 0, self.remote)
            return
        self.link.send(b"OKAY", self.local, self.remote)
        self._shell(line, "v2" in options)
        if not self.over:
            self.link.send(b"CLSE", self.local, self.remote)
        self.link.streams.pop(self.local, None)

    def _shell(self, line: str, second: bool) -> None:
        pipe = subprocess.PIPE
        errors = pipe if second else subprocess.STDOUT
        command = [*self.link.phone.shell, line]
        environment = self.link.phone.environment
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=errors, env=environment, cwd="/", start_new_session=True
        )
        pumps = [threading.Thread(target=self._pump, args=(self.process.stdout, _STDOUT, second), daemon=True)]
        if second:
            pumps.append(threading.Thread(target=self._pump, args=(self.process.stderr, _STDERR, second), daemon=True))
        feeder = threading.Thread(target=self._feed_v2 if second else self._feed, daemon=True)
        for thread in (*pumps, feeder):
            thread.start()
        status = self.process.wait()
        for thread in pumps:
            thread.join(5)
        if second:
            self.write(struct.pack("<BIB", _EXIT, 1, status & 255 if status >= 0 else 128 - status))

    def _pump(self, source: object, number: int, second: bool) -> None:
        read: Callable[[int], bytes] = source.read1  # type: ignore[attr-defined]
        with contextlib.suppress(ValueError, OSError):
            while not self.over and (data := read(32768)):
                self.write(struct.pack("<BI", number, len(data)) + data if second else data)
            if self.over:  # as adbd: what still writes gets SIGPIPE, and does not run on for ever
                source.close()  # type: ignore[attr-defined]

    def _feed(self) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            while (data := self.received.get()) is not None:
                self.process.stdin.write(data)
                self.process.stdin.flush()

    def _feed_v2(self) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        data = b""
        with contextlib.suppress(OSError, ValueError):
            while (part := self.received.get()) is not None:
                data += part
                while len(data) >= 5 and len(data) >= 5 + struct.unpack_from("<I", data, 1)[0]:
                    number, size = struct.unpack_from("<BI", data)
                    if number == _STDIN:
                        self.process.stdin.write(data[5 : 5 + size])
                        self.process.stdin.flush()
                    elif number == _CLOSE_STDIN:
                        self.process.stdin.close()
                    data = data[5 + size :]
