"""A real PostgreSQL of one test session: a private cluster in a folder of its own, on a Unix socket, no network."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

PASSWORD = "s3cr3t p@ss/word"
_WAIT_S = 30
_PLACES = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), Path("/usr/local/bin"), Path("/usr/bin")]


def missing() -> str:
    """Why there can be no server here; "" if there can."""
    if _binaries() is None:
        return "no PostgreSQL server is installed (apt install postgresql)"
    if os.getuid() == 0 and (_user() is None or shutil.which("setpriv") is None):
        return "PostgreSQL does not run as root, and there is no user postgres or no setpriv"
    return ""


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    places = [*([Path(found).parent] if found else []), *_PLACES]
    return next((p for p in places if all(os.access(p / name, os.X_OK) for name in ("initdb", "postgres"))), None)


def _user() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


@dataclass
class Server:
    """A running server whose superuser `edgekit` has `PASSWORD`."""

    folder: Path
    process: subprocess.Popen[bytes]

    def url(self, password: str = PASSWORD, database: str = "postgres") -> str:
        """What a user would give to --db."""
        return f"postgresql://edgekit:{quote(password, safe='')}@/{database}?host={self.folder}"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)  # fast shutdown
        self.process.wait(_WAIT_S)
        shutil.rmtree(self.folder, ignore_errors=True)


def start() -> Server:
    """Make a cluster and start its server; seconds in all."""
    binaries = _binaries()
    assert binaries is not None
    folder = Path(tempfile.mkdtemp(prefix="edgekit-pg-", dir="/tmp"))  # a socket's path must be short
    (folder / "password").write_text(PASSWORD)
    user = _user() if os.getuid() == 0 else None
    become = []
    if user is not None:
        for path in (folder, folder / "password"):
            os.chown(path, user.pw_uid, user.pw_gid)
        become = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--no-new-privs"]
    data = str(folder / "data")
    make = ["initdb", "-D", data, "-U", "edgekit", "-A", "scram-sha-256", f"--pwfile={folder}/password", "-N",
            "--no-instructions", "-E", "UTF8", "--locale=C"]  # fmt: skip
    plain = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}
    subprocess.run(
        [*become, str(binaries / make[0]), *make[1:]], check=True, capture_output=True, cwd=folder, env=plain
    )
    serve = ["-D", data, "-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=20"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [*become, str(binaries / "postgres"), *serve], stdout=log, stderr=log, cwd=folder, env=plain
        )
    until = time.monotonic() + _WAIT_S
    while b"ready to accept connections" not in (folder / "log").read_bytes():
        assert process.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < until, (folder / "log").read_text()
        time.sleep(0.05)
    return Server(folder, process)
