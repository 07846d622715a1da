"""Chromium without a window, driven over the pipe of its DevTools protocol: pages at any width, light and dark."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-default-apps", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--remote-debugging-pipe", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip
# Chromium reads from 3 and writes to 4.
_PIPES = """
import os, sys
for place, end in enumerate([os.dup(int(number)) for number in sys.argv[1:3]], 3):
    os.dup2(end, place)
    os.set_inheritable(place, True)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Tab:
    """One page. `complaints`: what its console and Chromium's log said; `requests`: every address it asked for."""

    def __init__(self, out: int, back: int) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._out, self._back, self._rest = out, back, b""
        self._numbers = itertools.count(1)
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command and wait for its answer; events that come before it are kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda found: found.get("id") == number)
        assert "error" not in answer, answer
        return answer["result"]

    def show(self, path: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        """Open a file at a width, in CSS pixels, and wait until it is loaded."""
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=path.resolve().as_uri())
        self._until(lambda found: found.get("method") == "Page.loadEventFired")

    def value(self, expression: str, wait: bool = False) -> Any:
        """What a line of JavaScript gives, or the promise that it gives; the page's own policy does not hold for it."""
        given = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=wait)
        return given["result"].get("value")

    def picture(self, whole: bool = False) -> bytes:
        """A PNG of what is seen, or of the whole page."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(found["data"])

    def printed(self) -> bytes:
        """The page as PDF, on A4."""
        found = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
        return base64.b64decode(found["data"])

    def press(self, key: str) -> None:
        """A key, pressed and let go."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={"Tab": 9}[key])

    def _until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while True:
            while b"\0" not in self._rest:
                block = os.read(self._back, 1 << 20)
                assert block, "Chromium ended"
                self._rest += block
            line, _, self._rest = self._rest.partition(b"\0")
            found = json.loads(line)
            self._note(found)
            if wanted(found):
                return found

    def _note(self, found: dict[str, Any]) -> None:
        parameters = found.get("params", {})
        if found.get("method") == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif found.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(parameters))
        elif found.get("method") == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])


@contextmanager
def browser() -> Iterator[Tab]:
    """A browser with one empty page; it is ended afterwards, with all that it started."""
    assert PROGRAM
    to_read, out = os.pipe()
    back, to_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [sys.executable, "-c", _PIPES, str(to_read), str(to_write), PROGRAM, *_OPTIONS]
        process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}"], pass_fds=(to_read, to_write), start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(to_write)
        try:
            yield Tab(out, back)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(out)
            os.close(back)
