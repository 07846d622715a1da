"""One job, from its file to its results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgekit.ondevice
from edgekit.ondevice import measure, progress, runner
from edgekit.ondevice.environment import busy_share
from edgekit.ondevice.main import main, run_job

LIMITS = {"warmup_queries": 3, "warmup_s": 0.0, "min_queries": 6, "min_s": 0.0, "max_s": 60.0}


def job_file(folder: Path, images: int = 5, **changes: Any) -> Path:
    """A job for the null runner."""
    np.save(folder / "pixels.npy", np.zeros((images, 8, 8, 3), np.uint8))
    job = {"model": "none", "runtime": "null", "threads": 2, "pixels": "pixels.npy", "mean": [0, 0, 0],
           "std": [1, 1, 1], "layout": "NHWC", "limits": LIMITS, "out": "out", **changes}  # fmt: skip
    path = folder / "job.json"
    path.write_text(json.dumps({k: v for k, v in job.items() if v is not None}))
    return path


def test_a_job_writes_latencies_logits_and_what_decided_them(tmp_path: Path) -> None:
    assert main([str(job_file(tmp_path))]) == 0
    latencies, logits = np.load(tmp_path / "out" / "latencies_ns.npy"), np.load(tmp_path / "out" / "logits.npy")
    assert (latencies.dtype, latencies.shape) == (np.int64, (6,))
    assert (logits.dtype, logits.shape) == (np.float32, (5, 2))
    described = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (described["warmup_queries"], described["threads"], described["processor"]) == (3, 2, "none")
    assert described["peak_rss_mb"] > 0
    assert {"machine", "cpu", "cores", "python", "numpy", "governor", "busy_before"} <= described.keys()


def test_a_job_that_was_killed_goes_on_with_the_latencies_it_had(tmp_path: Path) -> None:
    path = job_file(tmp_path)
    assert run_job(str(path))["resumed"] is False
    np.save(tmp_path / "out" / "latencies.part.npy", np.array([11, 12, 13, 14], np.int64))
    result = run_job(str(path))
    assert result["resumed"] is True
    assert result["warmup_queries"] == 3
    latencies = np.load(tmp_path / "out" / "latencies_ns.npy")
    assert latencies[:4].tolist() == [11, 12, 13, 14]
    assert (latencies.dtype, latencies.shape) == (np.int64, (6,))
    assert json.loads((tmp_path / "out" / "result.json").read_text())["resumed"] is True


@pytest.mark.parametrize("other", ["mode", "runtime", "nothing is known"])
def test_latencies_of_other_circumstances_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    path = job_file(tmp_path)
    monkeypatch.setattr("edgekit.ondevice.jetson.state", lambda: {"power_mode": "15W"})
    run_job(str(path))
    part = tmp_path / "out" / "latencies.part.npy"
    np.save(part, np.array([11, 12, 13, 14], np.int64))
    if other == "mode":
        monkeypatch.setattr("edgekit.ondevice.jetson.state", lambda: {"power_mode": "25W"})
    elif other == "runtime":
        monkeypatch.setattr(runner.NullRunner, "info", lambda _: {"runtime": "null", "version": "1"})
    else:
        part.with_name(part.name + ".json").unlink()
    assert run_job(str(path))["resumed"] is False
    latencies = np.load(tmp_path / "out" / "latencies_ns.npy")
    assert latencies.shape == (6,)
    assert latencies[:4].tolist() != [11, 12, 13, 14]
    assert not part.exists()


def test_a_killed_job_leaves_what_it_has_measured_and_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = iter(range(1000))

    def infer(*_: object) -> None:
        if next(queries) == 3 + 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(measure, "_KEEP_EVERY_NS", 0)
        patch.setattr(progress, "_EVERY_S", 0.0)
        patch.setattr(runner.NullRunner, "infer", infer)
        assert main([str(job_file(tmp_path))]) == 130
    part = np.load(tmp_path / "out" / "latencies.part.npy")
    assert (part.dtype, part.shape) == (np.int64, (4,))
    assert (tmp_path / "progress").read_text() == "latency: 4 queries\n"
    assert not list((tmp_path / "out").glob("*.new"))
    run_job(str(tmp_path / "job.json"))
    assert np.load(tmp_path / "out" / "latencies_ns.npy")[:4].tolist() == part.tolist()


def test_every_sample_is_answered_but_few_are_measured_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(runner.NullRunner, "infer", lambda _, image: seen.append(1) or np.zeros(2, np.float32))
    run_job(str(job_file(tmp_path, images=100)))
    assert len(seen) == 3 + 6 + 100


def test_the_runner_is_closed_also_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(runner.NullRunner, "close", lambda _: closed.append(1))
    assert main([str(job_file(tmp_path))]) == 0
    assert main([str(job_file(tmp_path, limits={}))]) == 1
    assert len(closed) == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"runtime": "nope"}, "ValueError: unknown runtime 'nope'"),
        ({"pixels": "none.npy"}, "FileNotFoundError: "),
        ({"pixels": "job.json"}, "ValueError: "),
        ({"limits": {}}, "KeyError: 'warmup_queries'"),
        ({"out": None}, "KeyError: 'out'"),
        ({"images": 0}, "ZeroDivisionError"),
    ],
)
def test_a_bad_job_is_status_1_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], says: str
) -> None:
    assert main([str(job_file(tmp_path, **changes))]) == 1
    output = capsys.readouterr()
    assert output.err.startswith(says)
    assert output.err.count("\n") == 1
    assert output.out == ""
    assert not (tmp_path / "out" / "result.json").exists()


def test_a_job_file_that_is_none_is_status_1(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{")
    assert main([str(tmp_path / "job.json")]) == 1
    assert main([str(tmp_path / "none.json")]) == 1


@pytest.mark.parametrize("arguments", [[], ["a", "b"]])
def test_wrong_usage_is_status_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("usage: ")


def test_an_interrupted_job_is_status_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner.NullRunner, "infer", interrupt)
    assert main([str(job_file(tmp_path))]) == 130


def test_the_folder_runs_as_a_program_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "ondevice").symlink_to(Path(edgekit.ondevice.__file__).parent)
    command = [sys.executable, "-B", "-m", "ondevice", str(job_file(tmp_path))]
    done = subprocess.run(command, cwd=tmp_path / "sent", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "out" / "result.json").is_file()


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="this system does not tell")
def test_the_share_of_other_work_is_that_of_the_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert -1 <= busy_share(0.05) <= 1
    ticks = iter([(1000, 500), (1100, 580), (7, 7), (7, 7)])
    monkeypatch.setattr("edgekit.ondevice.environment._cpu_times", lambda: next(ticks))
    assert (busy_share(0), busy_share(0)) == (0.2, -1.0)


def test_the_latencies_of_the_warm_up_are_written_too(tmp_path: Path) -> None:
    run_job(str(job_file(tmp_path)))
    warming = np.load(tmp_path / "out" / "warmup_ns.npy")
    assert (warming.dtype, warming.shape) == (np.int64, (3,))
    assert not (tmp_path / "out" / "offline_ns.npy").exists()


def test_a_job_that_goes_on_keeps_the_warm_up_that_came_before_its_first_latencies(tmp_path: Path) -> None:
    path = job_file(tmp_path)
    run_job(str(path))
    np.save(tmp_path / "out" / "warmup_ns.npy", np.array([7, 8], np.int64))
    np.save(tmp_path / "out" / "latencies.part.npy", np.array([11, 12], np.int64))
    assert run_job(str(path))["resumed"] is True
    assert np.load(tmp_path / "out" / "warmup_ns.npy").tolist() == [7, 8]


@pytest.mark.parametrize(("batch", "images"), [(1, 5), (2, 10)])
def test_throughput_is_measured_where_it_is_asked_for(tmp_path: Path, batch: int, images: int) -> None:
    described = run_job(str(job_file(tmp_path, offline_s=0.001, batch=batch)))
    passed = np.load(tmp_path / "out" / "offline_ns.npy")
    assert (passed.dtype, passed.ndim) == (np.int64, 1)
    assert (passed > 0).all()
    assert passed.sum() >= 1_000_000
    assert described["offline_images"] == images


def test_a_runtime_that_batches_by_itself_passes_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(runner.NullRunner, "passes", lambda _, inputs, seconds: asked.append(seconds) or [41, 42])
    assert run_job(str(job_file(tmp_path, offline_s=3.0)))["offline_images"] == 5
    assert (asked, np.load(tmp_path / "out" / "offline_ns.npy").tolist()) == ([3.0], [41, 42])


def test_a_runtime_that_pauses_between_queries_has_no_throughput(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner.NullRunner, "steady", False)
    assert "offline_images" not in run_job(str(job_file(tmp_path, offline_s=0.1)))
    assert not (tmp_path / "out" / "offline_ns.npy").exists()
