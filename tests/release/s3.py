"""A real server with the protocol of S3: SeaweedFS, on this machine alone."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import fsspec

KEY, SECRET = "edge", "kit-secret"


def program() -> str | None:
    """Return the path of SeaweedFS; None if it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.is_file() else shutil.which("weed")


class Server:
    """SeaweedFS with a bucket ``models``. environment: for clients."""

    def __init__(self, scratch: Path) -> None:
        weed = program()
        assert weed
        names = ("master", "volume", "filer", "s3")
        free = free_ports(2 * len(names))
        ports = dict(zip(names, free))
        config = scratch / "s3.json"
        identity = {"name": KEY, "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
        config.write_text(json.dumps({"identities": [identity]}))
        (scratch / "data").mkdir()
        options = [f"-{name}.port={port}" for name, port in ports.items()]
        grpc = [f"-{name}.port.grpc={port}" for name, port in zip(names, free[len(names) :])]
        here = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.volumeSizeLimitMB=64", "-volume.max=20"]
        quiet = ["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false"]
        command = [weed, "server", f"-dir={scratch / 'data'}", "-filer", "-s3", f"-s3.config={config}"]
        with open(scratch / "log", "wb") as log:
            self._process = subprocess.Popen([*command, *here, *quiet, *options, *grpc], stdout=log, stderr=log)
        self.environment = {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3']}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.url = "s3://models/public"

    def wait(self) -> None:
        """Wait until files can be written. The environment must be set."""
        end = time.monotonic() + 60
        while True:
            try:
                system, _ = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
                system.mkdir("models")
                system.pipe_file("models/ready", b"1")
                return
            except Exception:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise
                fsspec.filesystem("s3").clear_instance_cache()
                time.sleep(0.3)

    def stop(self) -> None:
        """End the server."""
        self._process.kill()
        self._process.wait()


def free_ports(count: int) -> list[int]:
    """Return ports in a row that nothing uses, below those that outgoing connections get."""
    for first in random.Random(time.monotonic_ns()).sample(range(20_000, 32_000 - count), 100):
        ports = list(range(first, first + count))
        if all(is_free(port) for port in ports):
            return ports
    raise RuntimeError("no ports are free")


def is_free(port: int) -> bool:
    """Return whether a server could listen on a port."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
