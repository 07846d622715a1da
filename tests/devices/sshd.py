"""A real OpenSSH server on the loopback as a device, with keys, known hosts and a home of its own."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

SERVER = shutil.which("sshd") or next((p for p in ("/usr/sbin/sshd",) if os.access(p, os.X_OK)), None)
_WAIT_S = 10


@dataclass
class Server:
    """A running sshd. `host` is what a user would type; `ssh` is how OpenSSH finds it (EDGEKIT_SSH)."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    host: str = "board"

    @property
    def ssh(self) -> str:
        return f"ssh -F {shlex.quote(str(self.folder / 'config'))}"

    @property
    def cache(self) -> Path:
        """Where edgekit keeps its files on the device."""
        return self.folder / "home" / ".cache" / "edgekit"

    def sessions(self) -> list[int]:
        """Processes that serve a connection."""
        done = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in done.stdout.split()]

    def drop(self) -> None:
        """Break every connection, as a cable that is pulled does, and take new ones."""
        for pid in self.sessions():
            subprocess.run(["pkill", "-KILL", "-P", str(pid), "sshd"], check=False)
            subprocess.run(["kill", "-KILL", str(pid)], check=False, capture_output=True)

    def stop(self) -> None:
        self.drop()
        self.process.terminate()
        self.process.wait()


def start(folder: Path, **environment: str) -> Server:
    """Start a server whose files lie in `folder`; what it runs sees `environment`."""
    folder.mkdir(mode=0o700)
    home = folder / "home"
    home.mkdir()
    for key in ("host", "id"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    shutil.copy(folder / "id.pub", folder / "authorized_keys")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    seen = {"HOME": home, "XDG_CACHE_HOME": home / ".cache", **environment}
    settings = [
        "ListenAddress 127.0.0.1", f"Port {port}", f"HostKey {folder}/host", "StrictModes no", "UsePAM no",
        f"AuthorizedKeysFile {folder}/authorized_keys", "PasswordAuthentication no", "PidFile none", "UseDNS no",
        "KbdInteractiveAuthentication no", "PermitRootLogin prohibit-password",
        "SetEnv " + " ".join(f'{name}="{value}"' for name, value in seen.items()),
    ]  # fmt: skip
    (folder / "sshd_config").write_text("\n".join(settings) + "\n")
    know(folder, port)
    (folder / "config").write_text(
        f"Host board\n HostName 127.0.0.1\n Port {port}\n IdentityFile {folder}/id\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {folder}/known_hosts\n GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([str(SERVER), "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    _wait(port, process)
    return Server(folder, port, process)


def know(folder: Path, port: int, key: str = "host") -> None:
    """Write the host key of `key` into known_hosts."""
    kind, public = (folder / f"{key}.pub").read_text().split()[:2]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {public}\n")


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("sshd does not answer")
