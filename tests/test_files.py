"""Files and folders appear whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from edgekit import files
from edgekit.errors import StorageError, UsageError


def fail(error: BaseException) -> Callable[..., Any]:
    def raising(*_: object, **__: object) -> Any:
        raise error

    return raising


def half_write(context: AbstractContextManager[Path], error: BaseException) -> None:
    with context as path:
        (path / "a.txt" if path.is_dir() else path).write_text("half")
        raise error


FULL = OSError(errno.ENOSPC, "No space left on device")
# Files ---------------------------------------------------------------------------------------


def test_a_written_file_is_complete_readable_and_alone(tmp_path: Path) -> None:
    with files.writing(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("whole")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("error", "seen"), [(ValueError(), ValueError), (KeyboardInterrupt(), KeyboardInterrupt), (FULL, StorageError)]
)
@pytest.mark.parametrize("before", [None, "old"])
def test_an_error_while_writing_leaves_the_old_file_or_none(
    tmp_path: Path, error: BaseException, seen: type[BaseException], before: str | None
) -> None:
    path = tmp_path / "a.txt"
    if before:
        path.write_text(before)
    with pytest.raises(seen):
        half_write(files.writing(path), error)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == ({"a.txt": before} if before else {})


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_at_the_last_step_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "a.json"
    files.save_bytes(path, b"1")
    monkeypatch.setattr(os, step, fail(FULL))
    with pytest.raises(StorageError, match=r"the disk is full: failed while writing a\.json"):
        files.save_bytes(path, b"2")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.json": "1"}


def test_nothing_is_renamed_before_it_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    monkeypatch.setattr(os, "fsync", lambda _: steps.append("fsync"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *a: steps.append("replace") or replace(*a))
    files.save_bytes(tmp_path / "a.json", b"1")
    assert steps == ["fsync", "replace"]


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for writing in (files.writing, files.writing_folder, files.staging):
        with pytest.raises(StorageError, match="failed while writing"), writing(tmp_path / "file" / "a"):
            pass


TOO_LARGE = """
import resource, sys
from pathlib import Path
from edgekit import files
from edgekit.errors import StorageError, UsageError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
path = Path(sys.argv[1])
try:
    files.save_bytes(path, bytes(100_000))
except StorageError as error:
    print(error)
"""


def test_a_file_that_the_system_refuses_to_grow_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.save_bytes(path, b"old")
    done = subprocess.run([sys.executable, "-c", TOO_LARGE, path], capture_output=True, text=True, check=True)
    assert "failed while writing a.json" in done.stdout
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.json": "old"}


# Files that the user named -------------------------------------------------------------------


def test_an_output_behind_links_is_written_and_the_links_stay(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "real").chmod(0o600)
    (tmp_path / "second").symlink_to("real")
    (tmp_path / "first").symlink_to("second")
    (tmp_path / "dangling").symlink_to("new")
    files.save_output(tmp_path / "first", b"1")
    files.save_output(tmp_path / "dangling", b"2")
    assert (tmp_path / "real").read_text() == "1"
    assert (tmp_path / "new").read_text() == "2"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in sorted(tmp_path.iterdir()) if p.is_symlink()] == ["dangling", "first", "second"]


def test_an_output_that_is_a_fifo_is_written_into(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.save_output(tmp_path / "link", b"whole")
        assert os.read(reader, 100) == b"whole"
    finally:
        os.close(reader)
    assert (tmp_path / "fifo").is_fifo()
    assert (tmp_path / "link").is_symlink()


def test_an_output_that_is_a_fifo_without_reader_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_READER_S", 0.0)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="nothing reads from the FIFO"):
        files.save_output(tmp_path / "fifo", b"1")
    assert (tmp_path / "fifo").is_fifo()


def test_an_output_that_is_a_device_stays_one(tmp_path: Path) -> None:
    node = tmp_path / "null"
    try:
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        node.write_bytes(b"")
    except PermissionError:
        pytest.skip("only root makes device nodes")
    files.save_output(node, b"gone")
    assert node.is_char_device()
    assert [p.name for p in tmp_path.iterdir()] == ["null"]


def test_an_output_to_a_standard_stream_is_appended(tmp_path: Path) -> None:
    code = "from pathlib import Path; from edgekit import files; files.save_output(Path('/dev/stdout'), b'2')"
    (tmp_path / "log").write_text("1")
    with open(tmp_path / "log", "ab") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
        log.write(b"3")
    assert (tmp_path / "log").read_text() == "123"


def test_an_output_that_is_a_folder_or_a_circle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        files.save_output(tmp_path, b"1")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(StorageError, match=r"failed while writing .*circle"):
        files.save_output(tmp_path / "circle", b"1")


# Folders -------------------------------------------------------------------------------------


def folder_holding(path: Path, text: str) -> Path:
    with files.writing_folder(path) as staging:
        (staging / "a.txt").write_text(text)
    return path


def contents(path: Path) -> dict[str, str]:
    return {str(p.relative_to(path)): p.read_text() for p in path.rglob("*") if p.is_file()}


def test_a_folder_takes_the_place_of_the_old_one_whole(tmp_path: Path) -> None:
    (folder_holding(tmp_path / "f", "old") / "extra").write_text("")
    folder_holding(tmp_path / "f", "new")
    assert contents(tmp_path) == {"f/a.txt": "new"}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [ValueError(), KeyboardInterrupt(), FULL])
def test_an_error_while_filling_a_folder_leaves_the_old_one(tmp_path: Path, error: BaseException) -> None:
    path = folder_holding(tmp_path / "f", "old")
    with pytest.raises((ValueError, KeyboardInterrupt, StorageError)):
        half_write(files.writing_folder(path), error)
    assert contents(tmp_path) == {"f/a.txt": "old"}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), FULL])
@pytest.mark.parametrize("failing", [1, 2])
def test_an_error_while_folders_are_swapped_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, failing: int
) -> None:
    path = folder_holding(tmp_path / "f", "old")
    replace, calls = os.replace, []

    def replace_or_fail(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == failing:
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_or_fail)
    with pytest.raises((KeyboardInterrupt, StorageError)):
        folder_holding(path, "new")
    assert contents(tmp_path) == {"f/a.txt": "old"}
    assert len(list(tmp_path.iterdir())) == 1


# A killed process leaves what no `finally` could clear -----------------------------------------

KILLED = """
import os, sys
from pathlib import Path
from edgekit import files
replace, calls = os.replace, []
def killed(source, target):
    calls.append(source)
    if len(calls) == int(sys.argv[2]):
        os._exit(9)
    replace(source, target)
os.replace = killed
with files.writing_folder(Path(sys.argv[1])) as staging:
    (staging / "a.txt").write_text("new")
"""


@pytest.mark.parametrize("renames", [1, 2])
def test_a_kill_between_the_renames_is_put_right_by_recover(tmp_path: Path, renames: int) -> None:
    path = folder_holding(tmp_path / "f", "old")
    done = subprocess.run([sys.executable, "-c", KILLED, path, str(renames)], check=False)
    assert done.returncode == 9
    assert path.exists() == (renames == 1)
    files.recover(path)
    assert contents(tmp_path) == {"f/a.txt": "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_recover_sweeps_the_staging_of_dead_processes_and_of_no_live_one(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f".f.{ended.pid}.x", f".f.{os.getpid()}.x", ".f.other", f".g.{ended.pid}.x"):
        (tmp_path / name).mkdir()
    files.recover(tmp_path / "f")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [f".f.{os.getpid()}.x", ".f.other", f".g.{ended.pid}.x"]
    )


def test_what_was_staged_is_gone_afterwards_and_the_folder_stays(tmp_path: Path) -> None:
    with files.staging(tmp_path / "f") as folder:
        (folder / "a.txt").write_text("")
        os.replace(folder / "a.txt", tmp_path / "f" / "a.txt")
        (folder / "left").write_text("")
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["a.txt"]


# Locks ---------------------------------------------------------------------------------------


def test_a_lock_is_held_once_and_leaves_no_file(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    with files.locked(lock, "another export is running"):
        with (
            pytest.raises(UsageError, match="another export is running"),
            files.locked(lock, "another export is running"),
        ):
            pass
        assert lock.exists()
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_a_killed_holder_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    with files.locked(tmp_path / ".lock", "taken"):
        pass


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_lock_that_ends_between_opening_and_locking_is_not_held_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_taken: bool
) -> None:
    """The former holder removes its file after it was opened here, and another process may make a new one."""
    lock = tmp_path / ".lock"
    flock = fcntl.flock
    with contextlib.ExitStack() as others:

        def late(file: Any, flags: int) -> None:
            monkeypatch.undo()
            lock.unlink()
            if is_taken:
                flock(others.enter_context(open(lock, "w")), fcntl.LOCK_EX)
            flock(file, flags)

        monkeypatch.setattr(fcntl, "flock", late)
        if is_taken:
            with pytest.raises(UsageError, match="taken"), files.locked(lock, "taken"):
                pass
            assert lock.exists()
        else:
            with files.locked(lock, "taken"), pytest.raises(UsageError, match="taken"), files.locked(lock, "taken"):
                pass


# Cache ---------------------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's temporary folder, of this test alone."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    files._temporary_cache.cache_clear()
    return tmp_path / "tmp"


def test_the_cache_is_in_the_home_folder_unless_it_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("EDGEKIT_CACHE", raising=False)
    assert files.cache_dir("a") == tmp_path / ".cache" / "edgekit" / "a"
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "else where"))
    assert files.cache_dir("a") == tmp_path / "else where" / "a"


def test_without_a_home_folder_the_cache_is_a_folder_of_the_user_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("EDGEKIT_CACHE", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user without HOME and without an entry
    own = temporary / f"edgekit-cache-{os.getuid()}"
    assert [files.cache_dir(part) for part in "aba"] == [own / "a", own / "b", own / "a"]
    assert own.stat().st_mode & 0o777 == 0o700
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "no home folder" in shown
    assert "EDGEKIT_CACHE=FOLDER" in shown


@pytest.mark.parametrize("obstacle", ["a file for the cache", "a file for the part", "read-only"])
def test_a_cache_that_cannot_be_written_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, temporary: Path, obstacle: str
) -> None:
    chosen = tmp_path / "cache"
    if obstacle == "a file for the cache":
        chosen.write_text("")
    else:
        chosen.mkdir()
    if obstacle == "a file for the part":
        (chosen / "a").write_text("")
    if obstacle == "read-only":
        real = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: path != chosen and real(path, mode))
    monkeypatch.setenv("EDGEKIT_CACHE", str(chosen))
    assert files.cache_dir("a").parent == temporary / f"edgekit-cache-{os.getuid()}"


@pytest.mark.parametrize("trap", ["link", "writable by others", "file"])
def test_a_folder_that_somebody_else_laid_out_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, temporary: Path, trap: str
) -> None:
    place = temporary / f"edgekit-cache-{os.getuid()}"
    (tmp_path / "elsewhere").mkdir()
    if trap == "link":
        place.symlink_to(tmp_path / "elsewhere")
    elif trap == "file":
        place.write_text("")
    else:
        place.mkdir()
        place.chmod(0o777)
    monkeypatch.setenv("EDGEKIT_CACHE", "/dev/null/cache")
    found = files.cache_dir("a")
    assert found.parent != place
    assert found.parent.parent == temporary
    assert found.parent.stat().st_mode & 0o777 == 0o700


# Temporary folders ---------------------------------------------------------------------------

HOLD = """
import os, sys, time
from edgekit import files
with getattr(files, sys.argv[1])(*map(files.Path, sys.argv[2:])) as folder:
    (folder / "model").touch()
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["scratch", "staging"])
def test_the_folder_of_a_killed_process_is_removed_by_the_next_and_of_a_live_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(files, "_NEW_S", -1.0)
    place = () if kind == "scratch" else (tmp_path,)
    held = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD, kind, *map(str, place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )
        for _ in range(2)
    ]
    killed, alive = (Path((process.stdout or sys.stdin).readline().strip()) for process in held)
    assert killed.parent == alive.parent == tmp_path
    held[0].kill()
    held[0].wait()
    assert (killed / "model").exists()
    with getattr(files, kind)(*place) as folder:
        assert sorted(tmp_path.iterdir()) == sorted([alive, folder])
        assert (alive / "model").exists()
    held[1].communicate("")
    assert list(tmp_path.iterdir()) == []


HALF = """
import sys
from edgekit import files
with files.writing(files.Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print(temporary, flush=True)
    sys.stdin.read()
"""


def test_the_temporary_file_of_a_killed_process_is_removed_by_the_next_write_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_NEW_S", -1.0)
    held = [
        subprocess.Popen(
            [sys.executable, "-c", HALF, tmp_path / name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("killed.json", "alive.json")
    ]
    killed, alive = (Path((process.stdout or sys.stdin).readline().strip()) for process in held)
    held[0].kill()
    held[0].wait()
    assert killed.read_text() == "half"
    (tmp_path / ".vimrc.backup12").touch()
    (tmp_path / ".edgekit-tmp-afolder0").mkdir()
    files.save_bytes(tmp_path / "other.json", b"whole")
    assert not killed.exists()
    assert alive.read_text() == "half"
    held[1].communicate("")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".edgekit-tmp-afolder0",
        ".vimrc.backup12",
        "alive.json",
        "other.json",
    ]


def test_every_folder_beside_is_recovered(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    for name in (f".jetson.{ended.pid}.abcdefgh", f".pi.{os.getpid()}.abcdefgh", ".android.old", ".mine"):
        (tmp_path / name).mkdir()
    files.recover_all(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["android", f".pi.{os.getpid()}.abcdefgh", ".mine"])


def test_only_own_temporary_folders_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    others = ["edgekit-abcdefgh", "edgekit-tmp-abcdefgh.d", "edgekit-tmp-mine", "xedgekit-tmp-abcdefgh"]
    for name in (*others, "edgekit-tmp-toonew00"):
        (tmp_path / name).mkdir()
    (tmp_path / "edgekit-tmp-plain000").touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "edgekit-tmp-linked00").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "edgekit-tmp-gone0000").mkdir()
    for path in tmp_path.iterdir():
        if path.name != "edgekit-tmp-toonew00":
            os.utime(path, (0, 0), follow_symlinks=False)
    before = {path.name for path in tmp_path.iterdir()}
    with files.scratch():
        pass
    assert before - {path.name for path in tmp_path.iterdir()} == {"edgekit-tmp-gone0000"}
