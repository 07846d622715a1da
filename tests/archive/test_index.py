"""The index of results: only an index, always right, whatever lies in the runs."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgekit import files
from edgekit.archive import database, entry, index
from edgekit.archive.database import Wanted
from edgekit.archive.entry import Entry
from edgekit.bench import program, results
from edgekit.stats.latency import series_of
from tests.archive.kept import INT8, make_run, measure
from tests.bench.results import by_program


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    measure(make_run(tmp_path / "runs"))
    return tmp_path / "runs"


def listed(found: index.Index, wanted: Wanted | None = None) -> list[Entry]:
    with found.engine.connect() as connection:
        return database.find(connection, wanted or Wanted())


def test_an_entry_says_what_the_result_said(runs: Path) -> None:
    path = measure(runs / "digits", right=30, when="2026-11-26T09:00:00+02:00")
    (entry, _) = listed(index.refresh(runs))
    assert (entry.run, entry.model, entry.artifact, entry.device) == ("digits", "mobilenet_v2", INT8.name, "local")
    assert (entry.images, entry.correct, entry.queries, entry.threads, entry.number) == (40, 30, 700, 1, 2)
    assert entry.measured == "2026-11-26T07:00:00+00:00"
    assert entry.sha256 == files.sha256_file(path)
    assert entry.p50_ms == pytest.approx(2.0, rel=0.01)
    assert len(entry.images_sha256) == 64


def test_files_that_did_not_change_are_not_read_again(runs: Path) -> None:
    assert index.refresh(runs).read == 1
    assert index.refresh(runs).read == 0
    measure(runs / "digits", right=3)
    assert index.refresh(runs).read == 1
    assert len(listed(index.refresh(runs))) == 2


def test_a_run_that_changed_is_read_again(runs: Path) -> None:
    index.refresh(runs)
    files.save_json(runs / "digits" / "run.json", {"schema": 1, "arch": "resnet18"})
    assert [entry.model for entry in listed(index.refresh(runs))] == ["resnet18"]


def test_what_was_deleted_is_no_longer_listed(runs: Path) -> None:
    kept = measure(runs / "digits", right=3)
    index.refresh(runs)
    for path in (runs / "digits" / "bench").rglob("*@0001-*"):
        path.unlink()
    assert [entry.sha256 for entry in listed(index.refresh(runs))] == [files.sha256_file(kept)]
    shutil.rmtree(runs / "digits")
    assert listed(index.refresh(runs)) == []


def test_a_copied_run_is_listed_under_both_names(runs: Path) -> None:
    shutil.copytree(runs / "digits", runs / "copy")
    assert sorted(entry.run for entry in listed(index.refresh(runs))) == ["copy", "digits"]
    shutil.rmtree(runs / "copy")
    assert [entry.run for entry in listed(index.refresh(runs))] == ["digits"]


@pytest.mark.parametrize("damage", ["no database", "empty", "cut off", "other tables", "another edgekit", "gone"])
def test_an_index_that_does_not_fit_is_made_again(runs: Path, damage: str) -> None:
    before = listed(index.refresh(runs))
    path = index.place(runs)
    if damage == "no database":
        path.write_bytes(b"not a database" * 999)
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut off":
        path.write_bytes(path.read_bytes()[:5000])
    elif damage == "other tables":
        path.unlink()
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE files (x)")
            connection.execute("CREATE TABLE edgekit_results (y)")
    elif damage == "another edgekit":
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE made_by SET edgekit = '99.0 7'")
            connection.execute("UPDATE edgekit_results SET run = 'wrong'")
    else:
        path.unlink()
    again = index.refresh(runs)
    assert again.read == 1
    assert listed(again) == before
    assert index.refresh(runs).read == 0


def test_flipped_bits_change_no_figure_and_leave_no_error(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    for right in range(3):
        measure(runs / "digits", right=right)
    before = listed(index.refresh(runs))
    path = index.place(runs)
    good, sealed = path.read_bytes(), index.seal(path).read_bytes()
    chance = random.Random(18)
    for _ in range(30):
        bad = bytearray(good)
        for _ in range(chance.choice([1, 1, 2, 5])):
            bad[chance.randrange(100, len(bad))] ^= 1 << chance.randrange(8)
        path.write_bytes(bad)
        index.seal(path).write_bytes(sealed)
        caplog.clear()
        again = index.refresh(runs)
        assert again.read == 4
        assert listed(again) == before
        assert [record.message for record in caplog.records] == [
            "the index of results was damaged, or not finished: it is made again"
        ]


def test_an_index_that_is_whole_is_not_made_again(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    index.refresh(runs)
    measure(runs / "digits", right=3)
    assert [index.refresh(runs).read for _ in range(3)] == [1, 0, 0]
    shutil.rmtree(runs / "digits")
    assert [index.refresh(runs).read for _ in range(2)] == [0, 0]
    assert caplog.records == []


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"schema": 1}', "\0", "[" * 100_000, '{"schema": 99}'])
def test_a_damaged_result_is_named_and_the_others_are_listed(runs: Path, content: str) -> None:
    broken = measure(make_run(runs, "broken"))
    broken.write_text(content)
    found = index.refresh(runs)
    assert len(found.problems) == 1
    assert str(broken) in found.problems[0]
    assert [entry.run for entry in listed(found)] == ["digits"]
    assert len(index.refresh(runs).problems) == 1  # and again, until it is repaired


def changed(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"artifact": []},
        {"artifact": {"name": "../../x"}},
        {"environment": []},
        {"environment": {"timed_together": [1]}},
        {"layers": [1]},
        {"source": "heaven"},
        {"raw_sha256": 7},
        {"device": {"a": 1}, "environment": None},
    ],
)
def test_a_result_of_wrong_values_is_named_or_listed_but_breaks_nothing(runs: Path, changes: dict[str, object]) -> None:
    broken = measure(make_run(runs, "broken"))
    changed(broken, **changes)
    found = index.refresh(runs)
    assert "digits" in [entry.run for entry in listed(found)]
    assert len(found.problems) + len(listed(found)) == 2


@pytest.mark.parametrize("changes", [{"runs": -5}, {"median_ms": -1.0}, {"runs": 2**60}, {"median_ms": 1e300}])
def test_figures_that_cannot_be_are_named_and_the_others_are_listed(runs: Path, changes: dict[str, object]) -> None:
    program.save(runs / "digits" / "bench", by_program())
    path = next((runs / "digits").rglob("benchmark_model/*.json"))
    changed(path, figures={**json.loads(path.read_text())["figures"], **changes})
    found = index.refresh(runs)
    assert len(found.problems) == 1
    assert str(path) in found.problems[0]
    assert [entry.kind for entry in listed(found)] == ["measured"]


def test_raw_values_that_are_gone_are_named_until_they_are_back(runs: Path) -> None:
    raw = next(runs.rglob("*.npz"))
    raw.rename(raw.with_suffix(".away"))
    assert "does not belong" in index.refresh(runs).problems[0]
    raw.with_suffix(".away").rename(raw)
    found = index.refresh(runs)
    assert (found.problems, len(listed(found))) == ((), 1)


HOSTILE = ["x'); DROP TABLE edgekit_results; --", "\x1b[2J\nrm", "a\0b", "ü" * 5000, '"%s" ? :run', "100%_"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_values_and_printable(runs: Path, name: str) -> None:
    path = measure(runs / "digits", device="pi")
    said = {**json.loads(path.read_text())["environment"], "version": name, "cpu": name, name: name}
    changed(path, device=name, environment=said)
    found = index.refresh(runs)
    assert found.problems == ()
    entry = next(e for e in listed(found) if e.device != "local")
    assert len(entry.device) <= 200
    assert all(c.isprintable() for c in entry.device + entry.version + entry.cpu + "".join(entry.environment))
    assert listed(found, Wanted(device=entry.device)) == [entry]


def test_a_name_that_is_no_text_is_damage(runs: Path) -> None:
    path = measure(runs / "digits", device="pi")
    changed(path, device="\ud800")
    found = index.refresh(runs)
    assert [problem.startswith(f"{path} is damaged: ") for problem in found.problems] == [True]
    assert [entry.device for entry in listed(found)] == ["local"]


def test_a_run_called_like_sql_is_a_name(runs: Path) -> None:
    name = "x'; DROP TABLE files; --\n\x1b[31m"
    measure(make_run(runs, name), right=3)
    found = index.refresh(runs)
    (entry,) = listed(found, Wanted(runs=("x'; DROP TABLE files; --\\n\\x1b[31m",)))
    assert entry.correct == 3
    assert index.refresh(runs).read == 0


def test_an_id_is_no_pattern(runs: Path) -> None:
    found = index.refresh(runs)
    (entry,) = listed(found)
    assert listed(found, Wanted(id=entry.id)) == [entry]
    assert listed(found, Wanted(id="%")) == []
    assert listed(found, Wanted(id="_")) == []


def test_results_are_found_by_what_is_asked(runs: Path) -> None:
    measure(runs / "digits", when="2026-11-27T07:00:00+00:00", device="pi")
    found = index.refresh(runs)
    for wanted, count in (
        (Wanted(device="pi"), 1), (Wanted(model="mobilenet_v2"), 2), (Wanted(model="x"), 0), (Wanted(limit=1), 1),
        (Wanted(since="2026-11-27T00:00:00+00:00"), 1), (Wanted(artifact=INT8.name), 2), (Wanted(runs=("y",)), 0),
    ):  # fmt: skip
        assert len(listed(found, wanted)) == count, wanted
    assert listed(found)[0].device == "pi"


def test_a_cache_that_cannot_be_written_is_done_without(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (runs / "file").touch()
    monkeypatch.setenv("EDGEKIT_CACHE", str(runs / "file"))
    assert [len(listed(index.refresh(runs))) for _ in range(2)] == [1, 1]


def test_runs_are_not_written_to(runs: Path) -> None:
    before = sorted(str(path) for path in runs.rglob("*"))
    index.refresh(runs)
    assert sorted(str(path) for path in runs.rglob("*")) == before
    assert not index.place(runs).is_relative_to(runs)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_of_runs_is_indexed(runs: Path) -> None:
    runs.chmod(0o555)
    assert len(listed(index.refresh(runs))) == 1
    runs.chmod(0o755)


def test_an_index_that_another_process_holds_is_waited_for_and_then_done_without(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.refresh(runs)
    monkeypatch.setattr(index, "_WAIT_S", 0.05)
    number = index.place(runs).stat().st_ino
    held = sqlite3.connect(index.place(runs), isolation_level=None)
    held.execute("BEGIN EXCLUSIVE")
    assert len(listed(index.refresh(runs))) == 1
    held.execute("ROLLBACK")
    held.close()
    assert index.refresh(runs).read == 0
    assert index.place(runs).stat().st_ino == number  # it was not thrown away


def test_processes_that_index_at_once_all_see_everything(runs: Path) -> None:
    for right in range(20):
        measure(runs / "digits", right=right)
    code = (
        "import sys; from pathlib import Path; from edgekit.archive import database, index\n"
        "found = index.refresh(Path(sys.argv[1]))\n"
        "with found.engine.connect() as c: print(len(database.find(c, database.Wanted())), found.problems)"
    )
    begun = [
        subprocess.Popen([sys.executable, "-c", code, str(runs)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [process.communicate(timeout=120) for process in begun] == [(b"21 ()\n", b"")] * 3
    assert index.refresh(runs).read == 0


def test_figures_of_a_program_are_listed_without_answers(runs: Path) -> None:
    program.save(runs / "digits" / "bench", by_program())
    entry = next(e for e in listed(index.refresh(runs)) if e.kind == "program")
    assert (entry.device, entry.runtime, entry.p50_ms, entry.top1) == ("phone", "benchmark_model", 2.4, None)


def test_a_device_may_be_called_like_the_program(runs: Path) -> None:
    measure(make_run(runs, "bench"), device=program.NAME)
    program.save(runs / "bench" / "bench", by_program(device="bench"))
    found = index.refresh(runs)
    assert found.problems == ()
    kinds = {entry.device: entry.kind for entry in listed(found, Wanted(runs=("bench",)))}
    assert kinds == {program.NAME: "measured", "bench": "program"}


def test_a_start_up_is_taken_off_as_report_does(runs: Path) -> None:
    noise = np.random.default_rng(3).normal(0, 0.02, 700)
    times = 2e6 * np.exp(noise) * np.where(np.arange(700) < 100, 3, 1)
    path = measure(runs / "digits", latencies_ns=tuple(int(v) for v in times), device="pi")
    result = results.load_file(path)
    shown = series_of(result).figures
    found = index.refresh(runs)
    with found.engine.connect() as connection:
        (entry,) = database.with_samples(connection, database.find(connection, Wanted(device="pi")))
    assert entry.samples is not None
    assert shown.warmup > 0
    assert (entry.queries, entry.warmup) == (shown.queries, shown.warmup)
    assert len(entry.samples.latencies_ns) == shown.queries
    assert entry.p50_ms == shown.quantiles[0].ms
    assert entry.p90_ms == shown.quantiles[1].bound_ms


def test_emulation_has_no_latency(runs: Path) -> None:
    measure(runs / "digits", source="emulated", device="qemu")
    entry = next(e for e in listed(index.refresh(runs)) if e.device == "qemu")
    assert (entry.p50_ms, entry.p90_ms, entry.queries) == (None, None, 700)


def test_images_that_are_not_those_of_the_run_are_not_named(runs: Path) -> None:
    measure(runs / "digits", samples=39, device="pi")
    assert next(e for e in listed(index.refresh(runs)) if e.device == "pi").images_sha256 == ""


def test_a_file_that_would_fill_the_memory_is_not_opened(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "_MOST_RAW", 1000)
    assert "unpacks to more than 1000 bytes" in index.refresh(runs).problems[0]


def test_samples_come_back_and_stretches_cover_the_whole_series(runs: Path) -> None:
    times = np.arange(1, 50_001)
    measure(runs / "digits", latencies_ns=tuple(int(v) for v in times), right=7, device="pi")
    found = index.refresh(runs)
    with found.engine.connect() as connection:
        (entry,) = database.with_samples(connection, database.find(connection, Wanted(device="pi")))
    assert entry.samples is not None
    kept = entry.samples.latencies_ns
    assert (len(kept), kept[0], kept[-1]) == (2048, 1, 50_000)
    assert int((np.diff(kept) == 1).sum()) == 64 * 31
    assert entry.samples.right.sum() == 7
    assert len(entry.samples.answers) == 40


@pytest.mark.parametrize("packed", [{}, {"latencies": b"", "answers": b"", "right": b""}])
def test_samples_that_are_damaged_are_refused(packed: dict[str, bytes]) -> None:
    with pytest.raises(Exception, match="damaged"):
        entry.unpack(packed, 0)


@pytest.mark.parametrize(("latencies", "images"), [(entry.MOST_KEPT + 1, 4), (5, 3), (5, 0)])
def test_a_bomb_of_samples_is_refused(latencies: int, images: int) -> None:
    packed = entry.Samples(np.ones(latencies, np.int64), np.zeros(4, np.int64), np.zeros(4, bool)).packed()
    with pytest.raises(Exception, match="too long"):
        entry.unpack(packed, images)
