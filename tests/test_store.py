"""The run directory: whole files or none, the newest run, and files that are not as they should be."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from edgekit import store
from edgekit.errors import DataError, EdgekitError, MissingError, StorageError, UsageError


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
    with store.writing(tmp_path / "new" / "a.txt") as temporary:
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
        half_write(store.writing(path), error)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == ({"a.txt": before} if before else {})


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_at_the_last_step_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "a.json"
    store.save_json(path, 1)
    monkeypatch.setattr(os, step, fail(FULL))
    with pytest.raises(StorageError, match=r"the disk is full: failed while writing a\.json"):
        store.save_json(path, 2)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.json": "1\n"}


def test_nothing_is_renamed_before_it_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    monkeypatch.setattr(os, "fsync", lambda _: steps.append("fsync"))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *a: steps.append("replace") or replace(*a))
    store.save_json(tmp_path / "a.json", 1)
    assert steps == ["fsync", "replace"]


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for writing in (store.writing, store.writing_folder):
        with pytest.raises(StorageError, match="failed while writing"), writing(tmp_path / "file" / "a"):
            pass


TOO_LARGE = """
import resource, sys
from pathlib import Path
from edgekit import store
from edgekit.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
path = Path(sys.argv[1])
try:
    store.save_json(path, "x" * 100_000)
except StorageError as error:
    print(error)
"""


def test_a_file_that_the_system_refuses_to_grow_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    store.save_json(path, "old")
    done = subprocess.run([sys.executable, "-c", TOO_LARGE, path], capture_output=True, text=True, check=True)
    assert "failed while writing a.json" in done.stdout
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"a.json": '"old"\n'}


# Folders -------------------------------------------------------------------------------------


def folder_holding(path: Path, text: str) -> Path:
    with store.writing_folder(path) as staging:
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
        half_write(store.writing_folder(path), error)
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


# JSON and hashes -----------------------------------------------------------------------------


def test_json_round_trips_text_paths_and_records(tmp_path: Path) -> None:
    from edgekit.records import Range

    path = tmp_path / "a.json"
    store.save_json(path, {"é\ud7ff": [1, None, Path("x/y")], "range": Range(-1.0, 2.0)})
    assert store.load_json(path) == {"é\ud7ff": [1, None, "x/y"], "range": {"low": -1.0, "high": 2.0}}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_is_not_json_is_not_written(tmp_path: Path, value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        store.save_json(tmp_path / "a.json", value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"\xff\xfe", b"not json"])
def test_a_damaged_json_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged") as caught:
        store.load_json(path)
    assert str(path) in caught.value.message


def test_a_missing_json_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"a\.json does not exist"):
        store.load_json(tmp_path / "a.json")


def test_hashes_are_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert store.sha256_file(tmp_path / "abc") == abc
    assert len({store.sha256_text(parts) for parts in (["ab"], ["a", "b"], ["a\n", "b"], [])}) == 4


# Runs ----------------------------------------------------------------------------------------


def make_run(runs: Path, name: str, trained: int | None = None, **meta: Any) -> store.Run:
    """A run; with `trained`, one whose checkpoint was written at that second."""
    run = store.create_run(runs, name, meta)
    if trained is not None:
        (run.path / "checkpoint.pt").touch()
        os.utime(run.path / "checkpoint.pt", (trained, trained))
    return run


def test_a_new_run_records_who_made_it_and_keeps_what_is_saved(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "a", 1, arch="x").save(status="finished")
    opened = store.open_run(tmp_path / "runs", "a")
    assert opened == run
    assert {"schema": 1, "arch": "x", "status": "finished"}.items() <= opened.meta.items()
    assert opened.name == "a"
    assert opened.meta["created"].endswith("+00:00")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/tmp/x", ".hidden", "a/.."])
def test_a_run_name_is_one_plain_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no run name"):
        store.create_run(tmp_path / "runs", name, {})
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    make_run(tmp_path, "a", arch="first")
    with pytest.raises(UsageError, match="already exists"):
        make_run(tmp_path, "a", arch="second")
    assert store.open_run(tmp_path, "a").meta["arch"] == "first"


def test_a_free_name_counts_on_from_two(tmp_path: Path) -> None:
    names = [make_run(tmp_path, store.free_name(tmp_path, "a")).name for _ in range(3)]
    assert names == ["a", "a-2", "a-3"]


def test_without_a_name_the_newest_trained_run_is_opened(tmp_path: Path) -> None:
    for name, trained in (("b", 200), ("c", 100), ("a", None)):
        make_run(tmp_path, name, trained)
    (tmp_path / "d").mkdir()
    assert [p.name for p in store.list_runs(tmp_path)] == ["b", "c"]
    assert store.open_run(tmp_path, None).name == "b"


def test_a_run_is_opened_by_name_before_path_and_by_path_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    make_run(runs, "a", 1, where="runs")
    make_run(tmp_path, "a", 1, where="here")
    assert store.open_run(runs, "a").meta["where"] == "runs"
    assert store.open_run(runs, str(tmp_path / "a")).meta["where"] == "here"
    assert store.open_run(runs, "./a").meta["where"] == "runs"


@pytest.mark.parametrize("name", ["b", "../etc", "", "a\x1b[31m"])
def test_an_unknown_run_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    make_run(tmp_path / "runs", "a", 1)
    with pytest.raises(EdgekitError) as caught:
        store.open_run(tmp_path / "runs", name)
    assert isinstance(caught.value, MissingError)
    assert caught.value.hint.endswith("runs: a")


def test_without_any_run_the_next_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no finished run") as caught:
        store.open_run(tmp_path / "none", None)
    assert caught.value.hint.startswith("edgekit train")


def test_a_run_of_a_newer_edgekit_is_refused_with_both_formats(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", 1).save(schema=store.SCHEMA + 1, edgekit="9.9")
    with pytest.raises(StorageError, match=rf"edgekit 9\.9 \(format {store.SCHEMA + 1}\)"):
        store.open_run(tmp_path, run.name)


@pytest.mark.parametrize("meta", ["[]", "{}", '{"schema": "1"}', "null", "{", ""])
def test_a_damaged_run_file_is_named(tmp_path: Path, meta: str) -> None:
    run = make_run(tmp_path, "a", 1)
    (run.path / "run.json").write_text(meta)
    with pytest.raises(DataError, match=r"run\.json"):
        store.open_run(tmp_path, "a")


def test_saving_a_run_twice_keeps_both_changes(tmp_path: Path) -> None:
    make_run(tmp_path, "a").save(one=1).save(two=2)
    meta = json.loads((tmp_path / "a" / "run.json").read_text())
    assert (meta["one"], meta["two"]) == (1, 2)


def test_a_run_that_was_killed_goes_by_the_weights_that_lie_there(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", 1)
    assert run.weights_sha256 == store.sha256_file(run.path / "checkpoint.pt")
    assert run.save(checkpoint_sha256="b" * 64).weights_sha256 == "b" * 64
