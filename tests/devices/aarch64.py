"""An aarch64 board without hardware: a Debian root under qemu-user, in namespaces of its own, with a real sshd.

The user namespace has a binfmt_misc of its own (Linux 6.7), so that nothing of this machine is changed. The root
is made once, in ``$EDGEKIT_TEST_CACHE`` (``~/.cache/edgekit-tests``), and read only afterwards: what a board
writes is in its memory, and ends with it. What cannot be had skips the test.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import platform
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO

import pytest

from edgekit import files
from tests.devices import sshd

PYTHON = "/usr/bin/python3"
CPU = "neoverse-n1"  # the default of qemu-user 7.2 computes wrong INT8 products
_LAYOUT = 1  # another number for another root: raise it with every change of what `_make` does
_PACKAGES = (  # what every Debian has, a server, and Python with what ai-edge-litert links to
    "base-files", "bash", "coreutils", "dash", "debianutils", "diffutils", "dpkg", "findutils", "grep", "gzip",
    "hostname", "libc-bin", "libgomp1", "libstdc++6", "mawk", "openssh-server", "openssh-sftp-server", "procps",
    "python3", "sed", "tar", "util-linux",
)  # fmt: skip
_MANYLINUX = ("2_17", "2014", "2_27", "2_28", "2_31", "2_34", "2_35")
_STEP_S, _LOCK_S, _WAIT_S = 150, 500, 10
_TOOLS = ("unshare", "nsenter", "setpriv", "mount", "chroot", "pkill", "ssh", "ssh-keygen")  # to start a board
_MAKING_TOOLS = ("apt-get", "dpkg", "dpkg-deb", "tar")
# An apt of its own beside this machine's: same sources, other lists, no hooks.
_APT = """
#clear APT::Architectures;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; "{here}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::http::Timeout "30";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
"""
_PASSWD = """root:x:0:0:root:/root:/bin/bash
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin
edge:x:1000:1000::/home/edge:/bin/bash
"""
_GROUP = "root:x:0:\nnogroup:x:65534:\nedge:x:1000:\n"
_CORES = 2
# qemu-user 7.2 shows the /proc/cpuinfo of the machine below, on which ai-edge-litert dies.
_CPUINFO = """processor\t: {core}
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0c
CPU revision\t: 1

"""
_FORMAT = (
    r":aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    r":\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:{qemu}:F"
)
# $1: the format, $2: the root, $3: what becomes its /etc/ssh. The init of its namespaces; in the end it is sshd.
_BOOT = """
set -e
umask 022
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
printf %s "$1" >/proc/sys/fs/binfmt_misc/register
mount --bind "$2" "$2"
mount -o remount,bind,ro "$2"
mount --bind "$3" "$2/etc/ssh"
cd "$2"
mount -t proc proc proc
mount --bind etc/cpuinfo proc/cpuinfo
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs run
mkdir run/sshd
mount -t tmpfs -o mode=700,uid=1000,gid=1000 tmpfs home/edge
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero random urandom tty; do
    : >"dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
exec chroot . /usr/sbin/sshd -D -e -f /etc/ssh/sshd_config
"""


@dataclass
class Board:
    """A running board. `host` is what a user would type; `ssh` is how OpenSSH finds it (EDGEKIT_SSH)."""

    folder: Path
    process: subprocess.Popen[bytes]
    host: str = "board"

    @property
    def ssh(self) -> str:
        return f"ssh -F {shlex.quote(str(self.folder / 'config'))}"

    def stop(self) -> None:
        """End the init of its namespaces, which is the only child of `process`: everything in them ends with it."""
        subprocess.run(["pkill", "-KILL", "-P", str(self.process.pid)], check=False)
        self.process.wait(_WAIT_S)


def root() -> Path:
    """The folder of the board's ``root`` and of the ``qemu`` that runs it, made if it is not there yet."""
    _require_namespaces()
    cache = Path(os.environ.get("EDGEKIT_TEST_CACHE") or Path.home() / ".cache" / "edgekit-tests").absolute()
    litert = _version("ai-edge-litert")
    made = cache / f"aarch64-{files.sha256_text([str(_LAYOUT), *_PACKAGES, litert])[:8]}"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "aarch64.lock", "w") as lock:
        _wait_for(lock)
        if not made.is_dir():
            _require_tools(*_MAKING_TOOLS)
            with open(cache / "aarch64.log", "wb") as log, _readable(), files.writing_folder(made) as staging:
                _make(staging, litert, log)
    return made


def start(made: Path, folder: Path) -> Board:
    """Start the board of `root`, with keys of its own in `folder`; it dies with this process."""
    with _readable():
        folder.mkdir(mode=0o755)
        for key in ("host", "id"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        shutil.copy(folder / "id.pub", folder / "authorized_keys")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = [
        "ListenAddress 127.0.0.1", f"Port {port}", "HostKey /etc/ssh/host", "StrictModes no", "UsePAM no",
        "AuthorizedKeysFile /etc/ssh/authorized_keys", "PasswordAuthentication no", "PidFile none", "UseDNS no",
        "KbdInteractiveAuthentication no", "AllowUsers edge", f"SetEnv QEMU_CPU={CPU}",
    ]  # fmt: skip
    (folder / "sshd_config").write_text("\n".join(settings) + "\n")
    sshd.know(folder, port)
    (folder / "config").write_text(
        f"Host board\n HostName 127.0.0.1\n Port {port}\n User edge\n IdentityFile {folder}/id\n IdentitiesOnly yes\n"
        f" UserKnownHostsFile {folder}/known_hosts\n GlobalKnownHostsFile /dev/null\n StrictHostKeyChecking yes\n"
    )
    with _user_namespace() as entered, open(folder / "log", "wb") as log:
        board = Board(folder, _boot(made, folder, entered, log))
        try:
            sshd._wait(port, board.process)
        except BaseException:
            board.stop()
            raise
    return board


@contextmanager
def _readable() -> Iterator[None]:
    """What is made meanwhile can be read by the board's user, whatever umask the tests run under."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _user_namespace() -> Iterator[int]:
    """A process in a user namespace that has the first 65536 users; `unshare` alone maps only one of them."""
    with subprocess.Popen(
        ["unshare", "--user", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as cat:
        assert cat.stdin is not None
        assert cat.stdout is not None
        cat.stdin.write(b"\n")
        cat.stdout.read(1)  # it answers, so it is in there
        for table in ("uid_map", "gid_map"):
            Path(f"/proc/{cat.pid}/{table}").write_text("0 0 65536")
        yield cat.pid


def _boot(made: Path, folder: Path, entered: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """The parent of the board's init: when this process ends, it ends, and then the init."""
    words = _FORMAT.format(qemu=made / "qemu"), str(made / "root"), str(folder)
    return subprocess.Popen(
        [
            "nsenter", f"--user=/proc/{entered}/ns/user", "--setuid=0", "--setgid=0",
            "setpriv", "--pdeathsig", "KILL",
            "unshare", "--mount", "--pid", "--fork", "--kill-child",
            "sh", "-c", _BOOT, "boot", *words,
        ],
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "QEMU_CPU": CPU},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )  # fmt: skip


def _require_namespaces() -> None:
    """Skip where no board can be started."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        pytest.skip("the aarch64 board is emulated on x86-64 Linux only")
    release = re.match(r"(\d+)\.(\d+)", platform.release())
    if release is None or (int(release[1]), int(release[2])) < (6, 7):
        pytest.skip("no aarch64 board: a binfmt_misc per user namespace needs Linux 6.7")
    if os.geteuid() != 0:
        pytest.skip("no aarch64 board: only root can map its users")
    _require_tools(*_TOOLS)
    mount = ["mount", "-t", "binfmt_misc", "binfmt_misc", "/proc/sys/fs/binfmt_misc"]
    if subprocess.run(["unshare", "--user", "--map-root-user", "--mount", *mount], capture_output=True).returncode:
        pytest.skip("no aarch64 board: this system allows no user namespace with a binfmt_misc of its own")


def _require_tools(*names: str) -> None:
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"no aarch64 board: {name} is not installed here")


def _version(package: str) -> str:
    """What is compared runs in one version on both sides."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"no aarch64 board: {package} is not installed here, so that there is nothing to compare with")


def _wait_for(lock: IO[str]) -> None:
    """Take the lock; another worker may be making the root."""
    end = time.monotonic() + _LOCK_S
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                pytest.skip("no aarch64 board: another process has been making it for too long")
            time.sleep(0.2)


def _make(folder: Path, litert: str, log: IO[bytes]) -> None:
    """Fill `folder` with ``root`` and ``qemu``."""
    apt, target = folder / "apt", folder / "root"
    for debian in _download_debian(apt, log):
        if debian.name.startswith("qemu-user-static_"):
            script = 'dpkg-deb --fsys-tarfile "$1" | tar -xO ./usr/bin/qemu-aarch64-static >"$2"'
            subprocess.run(["sh", "-c", script, "sh", str(debian), str(folder / "qemu")], check=True)
            (folder / "qemu").chmod(0o755)
        else:
            subprocess.run(["dpkg-deb", "-x", str(debian), str(target)], check=True)
    shutil.rmtree(apt)
    if not (target / "usr" / "bin" / "python3.11").exists():
        pytest.skip("no aarch64 board: the apt sources of this system are not those of Debian 12")
    for unread in ("doc", "man", "locale", "info"):
        shutil.rmtree(target / "usr" / "share" / unread, ignore_errors=True)
    packages = target / "usr" / "local" / "lib" / "python3.11" / "dist-packages"
    _download_wheels(packages, litert, log)
    for unused in (packages / "ai_edge_litert").glob("*WebGpu*"):
        unused.unlink()
    for name in ("dev", "etc/ssh", "home/edge", "proc", "run", "sys/devices/system/cpu", "tmp"):
        (target / name).mkdir(parents=True, exist_ok=True)
    (target / "etc" / "passwd").write_text(_PASSWD)
    (target / "etc" / "group").write_text(_GROUP)
    (target / "etc" / "cpuinfo").write_text("".join(_CPUINFO.format(core=core) for core in range(_CORES)))
    for name in ("present", "possible"):
        (target / "sys" / "devices" / "system" / "cpu" / name).write_text(f"0-{_CORES - 1}\n")


def _download_debian(apt: Path, log: IO[bytes]) -> list[Path]:
    """The packages of the root, and this machine's qemu."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    here = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True).stdout.strip()
    (apt / "apt.conf").write_text(_APT.format(folder=apt, here=here))
    command = ["apt-get", "--quiet", "--config-file", str(apt / "apt.conf")]
    _download("apt-get", [*command, "update"], log)
    _download("apt-get", [*command, "install", "--yes", "--download-only", *_PACKAGES, f"qemu-user-static:{here}"], log)
    return sorted((apt / "cache" / "archives").glob("*.deb"))


def _download_wheels(target: Path, litert: str, log: IO[bytes]) -> None:
    """ai-edge-litert and numpy, as they are on a board that installed them."""
    if importlib.util.find_spec("pip") is None:
        pytest.skip("no aarch64 board: this Python has no pip")
    wheels = ["--only-binary=:all:", "--implementation=cp", "--python-version=3.11"]
    wheels += [f"--abi={abi}" for abi in ("cp311", "abi3", "none")]
    wheels += [f"--platform=manylinux{'' if tag == '2014' else '_'}{tag}_aarch64" for tag in _MANYLINUX]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", *wheels, "--target", str(target)]
    _download("pip", [*command, f"ai-edge-litert=={litert}", "numpy"], log)


def _download(by: str, command: list[str], log: IO[bytes]) -> None:
    """Run a command that needs a network. What it prints names hosts and folders, so it goes to the log."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=_STEP_S, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"no aarch64 board: {by} took more than {_STEP_S} s to bring its packages")
    if done.returncode != 0:
        pytest.skip(f"no aarch64 board: {by} could not bring its packages (aarch64.log in the cache says why)")
