"""The run directory: hashes, JSON, the newest run, and files that are not as they should be."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit import files, runs
from edgekit.errors import DataError, EdgekitError, MissingError, StorageError, UsageError
from edgekit.runs import RunInfo, create_run, open_run

# JSON and hashes -----------------------------------------------------------------------------


def test_json_round_trips_text_paths_and_records(tmp_path: Path) -> None:
    from edgekit.quantization import Range

    path = tmp_path / "a.json"
    files.save_json(path, {"é\ud7ff": [1, None, Path("x/y")], "range": Range(-1.0, 2.0)})
    assert files.load_json(path) == {"é\ud7ff": [1, None, "x/y"], "range": {"low": -1.0, "high": 2.0}}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_is_not_json_is_not_written(tmp_path: Path, value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        files.save_json(tmp_path / "a.json", value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"\xff\xfe", b"not json", b'["\\ud800"]', b"[" * 10**5])
def test_a_damaged_json_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged") as caught:
        files.load_json(path)
    assert str(path) in caught.value.message


def test_a_document_is_not_believed_if_its_content_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.save_document(path, {"schema": 1, "range": (1.5, 2), "name": "\u00e9", "path": Path("x/y")})
    document = files.load_document(path, 1, "range")
    assert document == {"schema": 1, "range": [1.5, 2], "name": "\u00e9", "path": "x/y"}
    path.write_text(path.read_text().replace("1.5", "9.5"))
    with pytest.raises(DataError, match="its values are not those that edgekit wrote"):
        files.load_document(path, 1)
    files.save_json(path, document)  # as versions wrote it that kept no hash
    assert files.load_document(path, 1) == document


def test_a_missing_json_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"a\.json does not exist"):
        files.load_json(tmp_path / "a.json")


def test_hashes_are_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256_file(tmp_path / "abc") == abc
    assert len({files.sha256_text(parts) for parts in (["ab"], ["a", "b"], ["a\n", "b"], [])}) == 4


# Runs ----------------------------------------------------------------------------------------


def make_run(runs: Path, name: str, trained: int | None = None, **meta: Any) -> runs.Run:
    """A run; with `trained`, one whose checkpoint was written at that second."""
    run = create_run(runs, name, RunInfo.from_document(meta))
    if trained is not None:
        (run.path / "checkpoint.pt").touch()
        os.utime(run.path / "checkpoint.pt", (trained, trained))
    return run


def test_a_new_run_records_who_made_it_and_keeps_what_is_saved(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", "a", 1, arch="x").save(status="finished")
    opened = runs.open_run(tmp_path / "runs", "a")
    assert opened == run
    assert {"schema": 1, "arch": "x", "status": "finished"}.items() <= opened.info.plain().items()
    assert opened.name == "a"
    assert opened.info.created.endswith("+00:00")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/tmp/x", ".hidden", "a/.."])
def test_a_run_name_is_one_plain_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not a valid run name"):
        runs.create_run(tmp_path / "runs", name, RunInfo.from_document({}))
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    make_run(tmp_path, "a", arch="first")
    with pytest.raises(UsageError, match="already exists"):
        make_run(tmp_path, "a", arch="second")
    assert runs.open_run(tmp_path, "a").info.arch == "first"


def test_an_unfinished_run_of_that_name_can_be_continued(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for name, status in (("a", "finished"), ("b", "interrupted"), ("c", "training")):
        make_run(tmp_path, name, 1, status=status)
    hints = {}
    for name in ("a", "b", "c", "other"):
        with pytest.raises(UsageError, match="already exists") as caught:
            runs.check_free(tmp_path, name)
        hints[name] = caught.value.hint
    again = "edgekit train --resume {} continues it; or choose another --name"
    own = "choose another --name"
    assert hints == {"a": own, "b": again.format(tmp_path / "b"), "c": again.format(tmp_path / "c"), "other": own}


def test_a_run_is_made_with_its_files_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "save_json", full_at("run.json"))
    with pytest.raises(StorageError, match="the disk is full"):
        runs.create_run(tmp_path / "runs", "a", RunInfo(status="training"), data={"labels": []})
    assert list((tmp_path / "runs").iterdir()) == []
    monkeypatch.undo()
    run = runs.create_run(tmp_path / "runs", "a", RunInfo(status="training"), data={"labels": []})
    assert sorted(p.name for p in run.path.iterdir()) == ["data.json", "run.json"]
    assert oct(run.path.stat().st_mode)[-3:] == "755"
    with pytest.raises(UsageError, match="already exists"):
        runs.create_run(tmp_path / "runs", "a", RunInfo(), data={})


def full_at(name: str) -> Callable[[Path, object], None]:
    """`files.save_json` on a disk that is full when `name` is written."""
    real = files.save_json

    def save(path: Path, value: object) -> None:
        if path.name == name:
            raise StorageError("the disk is full", "free some space")
        real(path, value)

    return save


def test_a_folder_that_a_full_disk_left_with_a_run_json_alone_is_used_again(tmp_path: Path) -> None:
    make_run(tmp_path, "a", status="training", arch="first")
    (tmp_path / "a" / "photo.jpg").write_bytes(b"of the user")
    with pytest.raises(UsageError, match="already exists"):
        make_run(tmp_path, "a", status="training", arch="second")
    (tmp_path / "a" / "photo.jpg").unlink()
    make_run(tmp_path, "a", status="training", arch="second")
    assert runs.open_run(tmp_path, "a").info.arch == "second"


def test_a_free_name_counts_on_from_two(tmp_path: Path) -> None:
    names = [make_run(tmp_path, runs.free_name(tmp_path, "a")).name for _ in range(3)]
    assert names == ["a", "a-2", "a-3"]


def test_without_a_name_the_newest_trained_run_is_opened(tmp_path: Path) -> None:
    for name, trained in (("b", 200), ("c", 100), ("a", None)):
        make_run(tmp_path, name, trained)
    (tmp_path / "d").mkdir()
    assert [p.name for p in runs.list_runs(tmp_path)] == ["b", "c"]
    assert runs.open_run(tmp_path, None).name == "b"


def test_the_newest_finished_run_comes_before_newer_ones_that_are_not(tmp_path: Path) -> None:
    make_run(tmp_path, "old", 1, status="finished")
    make_run(tmp_path, "done", 2, status="finished")
    make_run(tmp_path, "stopped", 3, status="interrupted")
    damaged = make_run(tmp_path, "damaged", 4, status="finished")
    (damaged.path / "run.json").write_text("{")
    make_run(tmp_path, "later", 5, status="finished").save(schema=runs.SCHEMA + 1)
    assert runs.open_run(tmp_path, None).name == "done"


def test_without_a_finished_run_the_newest_is_opened(tmp_path: Path) -> None:
    for name, trained in (("a", 1), ("b", 2)):
        make_run(tmp_path, name, trained, status="interrupted")
    assert runs.open_run(tmp_path, None).name == "b"


def test_a_run_is_called_by_its_name_in_runs_and_by_its_path_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    handles = [make_run(Path(runs), "a", 1).handle for runs in ("runs", "other", str(tmp_path / "third"))]
    assert handles == ["a", "other/a", str(tmp_path / "third" / "a")]
    assert [runs.open_run(Path("runs"), handle).handle for handle in handles] == handles


def test_a_run_with_a_blank_in_its_name_is_quoted_where_it_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = make_run(Path("runs"), "my first run", 1)
    assert (run.handle, run.argument) == ("'my first run'", "my first run")
    assert runs.choose_run("runs", run.argument).path == run.path


def test_a_run_is_opened_by_name_before_path_and_by_path_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = tmp_path / "runs"
    make_run(runs, "a", 1, where="runs")
    make_run(tmp_path, "a", 1, where="here")
    assert open_run(runs, "a").info.extra["where"] == "runs"
    assert open_run(runs, str(tmp_path / "a")).info.extra["where"] == "here"
    assert open_run(runs, "./a").info.extra["where"] == "runs"


@pytest.mark.parametrize("name", ["b", "../etc", "", "a\x1b[31m"])
def test_an_unknown_run_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    make_run(tmp_path / "runs", "a", 1)
    with pytest.raises(EdgekitError) as caught:
        runs.open_run(tmp_path / "runs", name)
    assert isinstance(caught.value, MissingError)
    assert caught.value.hint.endswith("runs: a")


def test_without_any_run_the_next_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no finished run") as caught:
        runs.open_run(tmp_path / "none", None)
    assert caught.value.hint.startswith("edgekit train")


def test_a_run_of_a_newer_edgekit_is_refused_with_both_formats(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", 1).save(schema=runs.SCHEMA + 1, edgekit="9.9")
    with pytest.raises(StorageError, match=rf"edgekit 9\.9 \(format {runs.SCHEMA + 1}\)"):
        runs.open_run(tmp_path, run.name)


@pytest.mark.parametrize("meta", ["[]", "{}", '{"schema": "1"}', "null", "{", ""])
def test_a_damaged_run_file_is_named(tmp_path: Path, meta: str) -> None:
    run = make_run(tmp_path, "a", 1)
    (run.path / "run.json").write_text(meta)
    with pytest.raises(DataError, match=r"run\.json"):
        runs.open_run(tmp_path, "a")


def test_saving_a_run_twice_keeps_both_changes(tmp_path: Path) -> None:
    make_run(tmp_path, "a").save(arch="one").save(val_top1=2.0)
    meta = json.loads((tmp_path / "a" / "run.json").read_text())
    assert (meta["arch"], meta["val_top1"]) == ("one", 2.0)


def test_a_run_that_was_killed_goes_by_the_weights_that_lie_there(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", 1)
    assert run.weights_sha256 == files.sha256_file(run.path / "checkpoint.pt")
    assert run.save(checkpoint_sha256="b" * 64).weights_sha256 == "b" * 64


def test_one_process_at_a_time_trains_in_a_run_and_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    run = runs.create_run(tmp_path, "run", RunInfo.from_document({}))
    left = run.path / ".edgekit-tmp-x1y2z3w4"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    with runs.alone_in(run.path):
        assert not left.exists()
        with pytest.raises(UsageError, match="another process is training run"), runs.alone_in(run.path):
            pass
    with runs.alone_in(run.path):
        pass
    assert sorted(p.name for p in run.path.iterdir()) == ["run.json"]


def test_a_run_that_cannot_be_described_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        runs.create_run(tmp_path, "run", RunInfo.from_document({"lr": float("nan")}))
    assert list(tmp_path.iterdir()) == []
