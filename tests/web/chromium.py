"""A real Chromium without a window, that opens one page and is ended."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# A name that is no localhost: its plain http is no secure origin, as that of a machine in the local network.
ELSEWHERE = "phone.test"
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-default-apps", "--disable-dev-shm-usage", "--enable-logging=stderr",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
    f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)  # fmt: skip
# What LiteRT.js and Chromium say where there is no GPU.
_KNOWN = r"(INFO|WARNING): |No available adapters|Failed to create default WebGPU device"


@dataclass(frozen=True)
class Chromium:
    """Where one browser writes what it does."""

    folder: Path

    @property
    def complaints(self) -> list[str]:
        """What was written to its console, errors and warnings, but for what is known and harmless."""
        log = (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")
        said = re.findall(r':CONSOLE(?::|\()\d+\)?\] "(.*)', log)
        return [line for line in said if not re.match(_KNOWN, line)]

    def asked_by(self, origin: str) -> set[str]:
        """Which origins a page of `origin` asked for anything; to be read when the browser has ended.

        Chromium asks for things of its own, which no page began.
        """
        text = (self.folder / "net.json").read_text(encoding="utf-8", errors="replace")
        try:
            log = json.loads(text)
        except ValueError:  # it was ended while it wrote
            log = json.loads(text.rstrip().rstrip(",") + "]}")
        begun = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
        asked = [event["params"] for event in log["events"] if event["type"] == begun and "params" in event]
        return {"/".join(each["url"].split("/")[:3]) for each in asked if each.get("initiator") == origin}


@contextmanager
def visiting(url: str, folder: Path, *options: str) -> Iterator[Chromium]:
    """A browser that has `url` open."""
    assert PROGRAM
    folder.mkdir()
    own = [f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder / 'net.json'}"]
    with open(folder / "log.txt", "wb") as log:
        command = [PROGRAM, *_OPTIONS, *own, *options, url]
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield Chromium(folder)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
