"""``edgekit history``, ``diff`` and ``check`` over results that lie in runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.bench import program
from edgekit.cli.app import run
from edgekit.stats.latency import LatencySeries
from tests.archive.kept import INT8, make_run, measure
from tests.bench.results import artifact, by_program

FP32 = artifact("android/model.fp32.tflite", "fp32", "litert", sha256="d" * 64)
Out = pytest.CaptureFixture[str]


@pytest.fixture
def digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with one result, in ./runs."""
    monkeypatch.chdir(tmp_path)
    for name in ("EDGEKIT_RUNS_DIR", "EDGEKIT_DB"):
        monkeypatch.delenv(name, raising=False)
    made = make_run(tmp_path / "runs")
    measure(made)
    return made


def listed(capsys: Out, *arguments: str) -> Any:
    capsys.readouterr()
    assert run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def printed(capsys: Out, *arguments: str, status: int = 0) -> str:
    capsys.readouterr()
    assert run(list(arguments)) == status
    said = capsys.readouterr()
    return said.out + said.err


# history ---------------------------------------------------------------------------------------


def test_history_lists_the_newest_first_with_what_changed(digits: Path, capsys: Out) -> None:
    measure(digits, ms=3.0, when="2026-11-27T07:00:00+00:00")
    rows = listed(capsys, "history")
    assert [row["measured"][:10] for row in rows] == ["2026-11-27", "2026-11-26"]
    assert rows[0]["change"]["p50"]["significant"]
    assert rows[0]["change"]["p50"]["value"] == pytest.approx(1.5, rel=0.02)
    assert rows[1]["change"] is None
    assert rows[0]["environment"]["edgekit"] == "0.1.0"
    text = printed(capsys, "history")
    assert "p50 +5" in text
    assert "%*" in text
    assert "all: run digits, model mobilenet_v2, on local x1" in text


def test_a_change_within_chance_has_no_star(digits: Path, capsys: Out) -> None:
    measure(digits, right=31, when="2026-11-27T07:00:00+00:00")
    (cell,) = [line for line in printed(capsys, "history").splitlines() if "2026-11-27" in line]
    assert "top-1 +2.5, p50" in cell
    assert "*" not in cell


def test_a_busy_machine_is_marked(digits: Path, capsys: Out) -> None:
    measure(digits, said={"busy_before": 0.9})
    text = printed(capsys, "history")
    assert re.search(r" (1\.9|2\.0)\d! ", text)
    assert "! measured while other programs used the CPU" in text


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["digits"], 1), (["other"], 1), ([], 2), (["--limit", "1"], 1), (["--since", "2026-11-27"], 1),
        (["--device", "pi"], 1), (["--model", "mobilenet_v2"], 2), (["--artifact", INT8.name], 2),
        (["--device", "nobody's"], 0),
    ],
)  # fmt: skip
def test_history_is_narrowed(digits: Path, capsys: Out, options: list[str], count: int) -> None:
    measure(make_run(digits.parent, "other"), device="pi", when="2026-11-27T07:00:00+00:00")
    assert len(listed(capsys, "history", *options)) == count


def test_a_run_is_named_by_its_path_from_anywhere(
    digits: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir("/")
    assert len(listed(capsys, "history", str(digits))) == 1
    other = make_run(tmp_path / "else where" / "runs@home", "digits2")
    measure(other, right=40)
    (found,) = listed(capsys, "diff", str(digits), str(other))
    assert (found["before"]["run"], found["after"]["run"]) == ("digits", "digits2")


def test_nothing_that_fits_is_status_4(digits: Path, capsys: Out) -> None:
    assert "no measurement matches these options" in printed(capsys, "history", "--device", "x", status=4)
    shutil.rmtree(digits)
    assert "nothing was measured yet" in printed(capsys, "history", status=4)


@pytest.mark.parametrize("name", ["digits/android/model.int8.tflite", "digits@first", "ffffffff"])
def test_history_takes_runs_alone(digits: Path, capsys: Out, name: str) -> None:
    assert "is not a run name" in printed(capsys, "history", name, status=2)


def test_the_limit_is_said_where_it_is_reached(digits: Path, capsys: Out) -> None:
    assert "--limit" not in printed(capsys, "history")
    assert "the newest 1; --limit lists more" in printed(capsys, "history", "--limit", "1")


@pytest.mark.parametrize("date", ["yesterday", "2026-13-01", "\x1b[2J"])
def test_a_date_that_is_none_is_refused(digits: Path, capsys: Out, date: str) -> None:
    text = printed(capsys, "history", "--since", date, status=2)
    assert "--since takes a date" in text
    assert "\x1b" not in text


def test_damaged_results_are_named_and_left_out(digits: Path, capsys: Out) -> None:
    measure(make_run(digits.parent, "broken\x1b[2J")).write_text("{")
    text = printed(capsys, "history")
    assert "left out: " in text
    assert "broken\\x1b[2J" in text
    assert "\x1b[2J" not in text
    assert "2026-11-26 07:00" in text


def test_an_interrupted_measurement_is_not_listed(digits: Path, capsys: Out) -> None:
    next((digits / "bench").rglob("*.json")).rename(digits / "away")  # bench/*/*.npz alone
    measure(digits, device="pi")
    assert {row["device"] for row in listed(capsys, "history")} == {"pi"}


def test_what_a_program_measured_is_listed(digits: Path, capsys: Out) -> None:
    program.save(digits / "bench", by_program())
    text = printed(capsys, "history", "--device", "phone")
    assert "benchmark_model" in text
    assert "2.40" in text


# diff ------------------------------------------------------------------------------------------


def compared(capsys: Out, *arguments: str) -> Any:
    (found,) = listed(capsys, "diff", *arguments)
    return found


def test_diff_of_two_runs_says_what_is_significant(digits: Path, capsys: Out) -> None:
    measure(make_run(digits.parent, "other"), ms=1.0, right=40, said={"edgekit": "0.2.0", "governor": "powersave"})
    found = compared(capsys, "digits", "other")
    assert found["paired"]
    assert (found["top1"]["value"], found["top1"]["significant"]) == (25.0, True)
    assert found["p50"]["value"] == pytest.approx(0.5, rel=0.02)
    assert found["agreement"] == 75.0
    assert found["circumstances"] == {"edgekit": ["0.1.0", "0.2.0"], "governor": [None, "powersave"]}
    text = printed(capsys, "diff", "digits", "other")
    assert "McNemar p = 0.002, the same 40 images): significantly better" in text
    assert "significantly faster" in text
    assert "differs: edgekit: 0.1.0 -> 0.2.0" in text
    assert "differs: governor: not recorded -> powersave" in text


def test_other_images_are_compared_unpaired_and_it_is_said(digits: Path, capsys: Out) -> None:
    measure(make_run(digits.parent, "other", seed="e"), right=40)
    found = compared(capsys, "digits", "other")
    assert (found["paired"], found["agreement"], found["top1"]["method"]) == (False, None, "unpaired")
    assert "unpaired: 40 and 40 images that are not known to be the same" in printed(capsys, "diff", "digits", "other")


def test_one_run_alone_is_compared_with_the_measurement_before(digits: Path, capsys: Out) -> None:
    measure(digits, ms=2.5, when="2026-11-27T07:00:00+00:00")
    measure(digits, ms=4.0, when="2026-11-28T07:00:00+00:00")
    assert compared(capsys, "digits")["p50"]["value"] == pytest.approx(1.6, rel=0.02)
    assert compared(capsys, "digits@first")["p50"]["value"] == pytest.approx(2.0, rel=0.02)
    assert compared(capsys, "digits@2026-11-26")["p50"]["value"] == pytest.approx(2.0, rel=0.02)


def test_results_are_named_by_artifact_and_by_id(digits: Path, capsys: Out) -> None:
    measure(digits, of=FP32, ms=8.0)
    ids = {row["artifact"]: row["id"] for row in listed(capsys, "history")}
    for names in (
        (f"digits/{FP32.name}", f"digits/{INT8.name}"), ("digits/model.fp32.tflite", f"runs/digits/{INT8.name}"),
        (ids[FP32.name], ids[INT8.name]),
    ):  # fmt: skip
        found = compared(capsys, *names)
        assert found["p50"]["value"] == pytest.approx(0.25, rel=0.02)
        assert not found["same_file"]


def test_a_clock_that_went_back_does_not_turn_the_order_around(digits: Path, capsys: Out) -> None:
    measure(digits, ms=4.0, when="2001-01-01T00:00:00+00:00")
    assert compared(capsys, "digits")["p50"]["value"] == pytest.approx(2.0, rel=0.02)


def test_other_measurements_of_a_file_widen_the_interval(digits: Path, capsys: Out) -> None:
    for ms in (2.2, 1.9, 2.1):
        measure(digits, ms=ms)
    found = compared(capsys, "digits")
    assert not found["p50"]["significant"]
    assert "3 repeated measurements lie too far apart" in found["p50"]["why"]
    measure(digits, ms=2.21)
    found = compared(capsys, "digits")
    assert not found["p50"]["significant"]
    assert "4 repeated measurements" in found["p50"]["method"]


def test_after_steady_measurements_a_slower_one_stands_out(digits: Path, capsys: Out) -> None:
    for ms in (2.01, 1.99, 2.0, 2.3):
        measure(digits, ms=ms, when=f"2026-11-26T07:00:00.{ms * 100:.0f}+00:00")
    found = compared(capsys, "digits")
    assert "4 repeated measurements" in found["p50"]["method"]
    assert found["p50"]["significant"]


def test_what_another_version_measured_is_no_repetition(digits: Path, capsys: Out) -> None:
    for ms, version in ((2.01, "0.1.0"), (1.99, "0.1.0"), (3.0, "0.2.0"), (3.01, "0.2.0")):
        measure(digits, ms=ms, said={"edgekit": version})
    found = compared(capsys, "digits@first")["p50"]
    assert found["significant"]
    assert "5 repeated measurements" in found["method"]


def test_a_time_goes_with_an_artifact_and_a_run_may_have_an_at(digits: Path, capsys: Out) -> None:
    for ms in (4.0, 8.0):
        measure(digits, ms=ms, said={"edgekit": f"0.{ms:.0f}"})
    name = f"digits/{INT8.name}"
    for names, ratio in (((name,), 2.0), ((f"{name}@first", f"{name}@previous"), 2.0), ((f"{name}@first",), 4.0)):
        assert compared(capsys, *names)["p50"]["value"] == pytest.approx(ratio, rel=0.02)
    other = make_run(digits.parent, "at@first")
    for ms in (1.0, 3.0):
        measure(other, ms=ms)
    for names, ratio in ((("at@first",), 3.0), (("at@first@first",), 3.0), (("at@first@first", "digits"), 8.0)):
        assert compared(capsys, *names)["p50"]["value"] == pytest.approx(ratio, rel=0.02)
    assert run(["check", f"{name}", "--against", "@first"]) == 7


def test_files_of_one_name_go_together_by_their_target(digits: Path, capsys: Out) -> None:
    measure(digits, of=FP32, ms=8.0)
    for name, ms in (("model.fp32.tflite", 6.0), ("model.int8.tflite", 3.0)):
        measure(digits, of=artifact(f"ios/{name}", "fp32", "litert"), ms=ms)
    found = listed(capsys, "diff", "digits/model.fp32.tflite", "digits/model.int8.tflite")
    assert [(one["before"]["artifact"], one["after"]["artifact"]) for one in found] == [
        (FP32.name, INT8.name),
        ("ios/model.fp32.tflite", "ios/model.int8.tflite"),
    ]
    measure(make_run(digits.parent, "other"), of=artifact("jetson/model.onnx", "int8", "tensorrt"))
    assert "the two sides have no artifact in common" in printed(capsys, "diff", "digits", "other", status=4)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"threads": 4}, "other number of threads (1, 4)"),
        ({"cpu": "another"}, "other CPU (a CPU, another)"),
        ({"cores": 64}, "other number of cores (2, 64)"),
    ],
)
def test_another_machine_is_said(digits: Path, capsys: Out, said: dict[str, object], why: str) -> None:
    measure(digits, said=said)
    assert why in printed(capsys, "diff", "digits")


def test_two_devices_are_compared_by_id_and_it_is_said(digits: Path, capsys: Out) -> None:
    measure(digits, device="pi")
    ids = {row["device"]: row["id"] for row in listed(capsys, "history")}
    assert "other device (local, pi)" in printed(capsys, "diff", ids["local"], ids["pi"])


def test_few_queries_and_emulation_are_not_compared(digits: Path, capsys: Out) -> None:
    measure(digits, latencies_ns=(1_000_000,) * 9)
    text = printed(capsys, "diff", "digits")
    assert re.search(r"p50: \d\.\d+ -> 1 ms, x 0\.\d+: no interval \(too few queries: 700 and 9\)", text)
    assert "p90: insufficient samples (700 and 9 queries)" in text
    assert "p50 x 0.5, no interval" in printed(capsys, "history")
    measure(digits, latencies_ns=(1_000_000,) * 7)
    assert "p50: insufficient samples (9 and 7 queries)" in printed(capsys, "diff", "digits")
    assert "p50 insufficient samples" in printed(capsys, "history")
    measure(digits, source="emulated")
    assert "p50: not compared: local is emulated" in printed(capsys, "diff", "digits")


def test_programs_are_compared_without_chance(digits: Path, capsys: Out) -> None:
    for megabytes in (4, 5):
        program.save(digits / "bench", by_program(size_bytes=megabytes * 1_000_000))
    text = printed(capsys, "diff", "digits", "--device", "phone")
    assert "p50: 2.4 -> 2.4 ms, x 1.000: no interval" in text
    assert "so the significance is unknown" in text


@pytest.mark.parametrize(
    ("names", "status", "said"),
    [
        (["nothing"], 4, "measured runs: digits"),
        (["digits/none"], 4, "measured: android/model.int8.tflite"),
        (["digits@previous"], 4, "no artifact of 'digits' was measured twice"),
        (["digits@1999-01-01", "digits"], 4, "was measured until 1999-01-01"),
        (["digits@noon", "digits"], 2, "'noon' is not a moment"),
        (["digits", "digits"], 2, "are the same measurement"),
        (["ffffffff", "digits"], 4, "no run and no result"),
        (["digits", "digits", "--device", "x"], 4, "has no measurements on 'x'"),
        (["'; DROP TABLE files; --", "digits"], 4, "no run and no result"),
        (["%", "_"], 4, "no run and no result"),
        (["", "digits"], 4, "no run and no result"),
        (["../..", "digits"], 4, "no run and no result"),
        (["digits\x1b[2J"], 4, "'digits\\x1b[2J'"),
    ],
)
def test_names_that_mean_nothing_say_what_exists(
    digits: Path, capsys: Out, names: list[str], status: int, said: str
) -> None:
    text = printed(capsys, "diff", *names, status=status)
    assert said in text
    assert "\x1b" not in text


@pytest.fixture
def namesake(digits: Path, tmp_path: Path) -> Path:
    """A run of the same name in another folder, slower and worse."""
    other = make_run(tmp_path / "else" / "runs")
    for when in ("2026-11-25T07:00:00+00:00", "2026-11-28T07:00:00+00:00"):
        measure(other, ms=8.0, right=10, when=when)
    return other


def test_runs_of_one_name_in_two_folders_are_two(digits: Path, namesake: Path, capsys: Out) -> None:
    assert [row["correct"] for row in listed(capsys, "history", str(namesake))] == [10, 10]
    assert [row["correct"] for row in listed(capsys, "history", "digits")] == [30]
    both = listed(capsys, "history", "digits", "else/runs/digits")
    assert [row["correct"] for row in both] == [10, 30, 10]
    assert both[0]["change"]["p50"]["value"] == pytest.approx(1.0, rel=0.02)
    assert both[1]["change"] is None
    found = compared(capsys, "digits", "else/runs/digits")
    assert found["p50"]["value"] == pytest.approx(4.0, rel=0.02)
    assert "no artifact of 'digits' was measured twice" in printed(capsys, "diff", "digits", status=4)
    assert compared(capsys, str(namesake))["p50"]["value"] == pytest.approx(1.0, rel=0.02)


def test_a_reference_is_of_the_run_that_was_named(digits: Path, namesake: Path, capsys: Out) -> None:
    assert run(["check", "else/runs/digits", "--save-reference", "theirs.json"]) == 0
    assert run(["check", "digits", "--save-reference", "ours.json"]) == 0
    correct = {
        name: json.loads(Path(name).read_text())["results"][0]["correct"] for name in ("theirs.json", "ours.json")
    }
    assert correct == {"theirs.json": 10, "ours.json": 30}
    assert printed(capsys, "check", "digits", "--against", "theirs.json").startswith("pass ")
    assert run(["check", str(namesake), "--against", "digits"]) == 7


def test_a_reference_that_is_still_here_brings_its_repetitions(digits: Path, capsys: Out) -> None:
    for ms in (2.02, 1.97, 2.01, 2.03):
        measure(digits, ms=ms)
    assert run(["check", "digits", "--save-reference", "reference.json"]) == 0
    measure(make_run(digits.parent, "other"), ms=3.0, said={"edgekit": "0.2.0"})
    printed(capsys, "check", "other", "--against", "reference.json", status=7)
    (verdict,) = json.loads(
        printed(capsys, "check", "other", "--against", "reference.json", "--json", status=7).split("error:")[0]
    )
    wide = next(f for f in verdict["figures"] if f["name"] == "p50")
    shutil.rmtree(digits)
    (verdict,) = json.loads(
        printed(capsys, "check", "other", "--against", "reference.json", "--json", status=7).split("error:")[0]
    )
    narrow = next(f for f in verdict["figures"] if f["name"] == "p50")
    assert wide["low"] < narrow["low"] < narrow["high"] < wide["high"]


def test_a_linked_run_has_the_name_of_its_link(digits: Path, namesake: Path, capsys: Out) -> None:
    (digits.parent / "linked").symlink_to(namesake)
    assert [row["correct"] for row in listed(capsys, "history", "linked")] == [10, 10]
    assert {row["run"] for row in listed(capsys, "history", "runs/linked")} == {"linked"}


def test_a_copied_result_is_no_repetition(digits: Path, capsys: Out) -> None:
    for n, ms in enumerate((2.2, 1.9, 2.1)):
        measure(digits, ms=ms, when=f"2026-11-27T07:0{n}:00+00:00")
    before = compared(capsys, "digits")["p50"]
    shutil.copytree(digits, digits.parent / "copy")
    assert compared(capsys, "digits@previous", "copy")["p50"] == before


@pytest.mark.parametrize("date", ["2026-99-99", "2026-02-30", "2026-13", "2026-11-26T25", "2026-11-26T07:61"])
def test_a_date_of_no_calendar_is_refused(digits: Path, capsys: Out, date: str) -> None:
    assert "is not a moment" in printed(capsys, "diff", f"digits@{date}", "digits", status=2)


@pytest.mark.parametrize("date", ["2026-11", "2026-11-26", "2026-11-26T07", "2026-11-26T07:00:00"])
def test_a_date_may_be_short(digits: Path, capsys: Out, date: str) -> None:
    measure(digits, ms=4.0, when="2026-12-26T07:00:00+00:00")
    assert compared(capsys, f"digits@{date}", "digits")["p50"]["value"] == pytest.approx(2.0, rel=0.02)


def drifting(first: float, last: float) -> tuple[int, ...]:
    """700 latencies whose level goes from one to the other, in ms."""
    noise = np.random.default_rng(7).normal(0, 0.03, 700)
    return tuple(int(v) for v in 1e6 * np.linspace(first, last, 700) * np.exp(noise))


def test_a_series_without_an_interval_is_never_called_no_change(digits: Path, capsys: Out) -> None:
    measure(digits, latencies_ns=drifting(1.0, 12.0))
    text = printed(capsys, "history")
    assert "p50 x 3." in text
    assert ", no interval" in text
    assert "no change" not in text
    text = printed(capsys, "diff", "digits")
    assert re.search(r"p50: \d\.\d+ -> 6\.\d+ ms, x 3\.\d+: no interval \(after: drifts \(\+\d+ %\)\)", text)
    text = printed(capsys, "check", "digits", "--against", "@previous")
    assert re.search(r"p50 cannot tell: \+2\d\d\.\d %, x 3\.\d+ \(\S+ -> 6\S+ ms\), no interval: after: drifts", text)


def test_a_bound_that_suffices_fails_a_check(digits: Path, capsys: Out) -> None:
    measure(digits, latencies_ns=drifting(4.0, 12.0))
    text = printed(capsys, "check", "digits", "--against", "@previous", status=7)
    assert re.search(r"p50 worse: \+\d+\.\d % \(at least \+\d+\.\d\), after: drifts", text)
    assert "%*" in printed(capsys, "history")
    text = printed(capsys, "diff", "digits")
    assert re.search(
        r"95 % interval at least 1\.\d+, range of the latencies; after: drifts .*: significantly slower", text
    )


def test_a_start_up_that_was_left_out_is_said(digits: Path, capsys: Out) -> None:
    assert "start-up" not in printed(capsys, "diff", "digits@first", "digits", status=2)
    noise = np.random.default_rng(3).normal(0, 0.02, 700)
    times = 2e6 * np.exp(noise) * np.where(np.arange(700) < 100, 3, 1)
    measure(digits, latencies_ns=tuple(int(v) for v in times))
    cut = 700 - len(LatencySeries(times.astype(np.int64)).settled_ns)
    assert cut > 0
    assert f"left out as start-up: 0 of 700 queries, {cut} of 700" in printed(capsys, "diff", "digits")


def test_p90_is_the_same_in_history_and_diff(digits: Path, capsys: Out) -> None:
    measure(digits, ms=2.5)
    rows = listed(capsys, "history")
    text = printed(capsys, "diff", "digits")
    shown = [f"{row['p90_ms']:.4g}" for row in sorted(rows, key=lambda row: row["p90_ms"])]
    assert f"p90: {shown[0]} -> {shown[1]} ms, early-stopping estimates; p90 of the samples x 1.2" in text


def test_what_only_one_side_has_is_said(digits: Path, capsys: Out) -> None:
    other = make_run(digits.parent, "other")
    measure(other)
    assert "only in" not in printed(capsys, "diff", "digits", "other")
    measure(other, of=FP32)
    for n in range(15):
        measure(digits, device=f"pi{n:02d}")
    text = printed(capsys, "diff", "digits", "other")
    assert "only in digits, and not compared: android/model.int8.tflite on pi00, " in text
    assert "and 3 more" in text
    assert "only in other, and not compared: android/model.fp32.tflite on local" in text


# check -----------------------------------------------------------------------------------------


def test_a_slower_model_fails_with_status_7(digits: Path, capsys: Out) -> None:
    measure(digits, ms=2.3)
    text = printed(capsys, "check", "digits", "--against", "@previous", status=7)
    assert text.startswith("worse         android/model.int8.tflite on local: ")
    assert "p50 worse: +1" in text
    assert (
        "error: significantly worse than the reference, beyond the tolerance: android/model.int8.tflite on local"
        in text
    )


def test_a_busy_machine_cannot_tell_unless_measured_often(digits: Path, capsys: Out) -> None:
    busy = {"busy_before": 0.9}
    measure(digits, ms=2.3, said=busy)
    text = printed(capsys, "check", "digits", "--against", "@previous")
    assert text.startswith("cannot tell ")
    assert "while other work ran, tolerated 5: measure on an idle machine, or four times" in text
    assert "significantly slower, but other work ran" in printed(capsys, "diff", "digits")
    assert re.search(r"p50 \+1\d\.\d %\?", printed(capsys, "history"))
    for ms in (2.31, 2.29, 6.0):
        measure(digits, ms=ms, said=busy)
    assert run(["check", "digits", "--against", "@previous"]) == 7


def test_within_the_tolerance_it_passes(digits: Path, capsys: Out) -> None:
    measure(digits, ms=2.3)
    assert printed(capsys, "check", "--against", "@previous", "--tolerance-p50", "20%").startswith("pass ")
    assert run(["check", "digits", "--against", "@previous", "--tolerance-p50", "20"]) == 0
    assert run(["check", "digits", "--against", "@previous", "--tolerance-p50", "9"]) == 7


def test_a_faster_and_better_model_passes(digits: Path, capsys: Out) -> None:
    measure(digits, ms=1.0, right=40)
    assert printed(capsys, "check", "digits", "--against", "@previous").startswith("pass ")


def test_a_drop_that_chance_can_do_is_not_a_failure_unless_strict(digits: Path, capsys: Out) -> None:
    measure(digits, right=28)
    text = printed(capsys, "check", "digits", "--against", "@previous")
    assert text.startswith("cannot tell ")
    assert "top-1 cannot tell: -5.0 points" in text
    assert "chance alone could do that" in text
    assert run(["check", "digits", "--against", "@previous", "--strict"]) == 7


def test_a_drop_beyond_chance_fails(digits: Path, capsys: Out) -> None:
    measure(digits, right=20)
    assert "top-1 worse: -25.0 points" in printed(capsys, "check", "digits", "--against", "@previous", status=7)
    assert run(["check", "digits", "--against", "@previous", "--tolerance-top1", "30"]) == 0


def test_a_change_of_exactly_the_tolerance_is_tolerated(digits: Path, capsys: Out) -> None:
    fields = {"samples": 100, "latencies_ns": (2_000_000,) * 700}
    measure(digits, right=60, **fields)
    measure(digits, right=53, size_bytes=4_120_000, **{**fields, "latencies_ns": (2_100_000,) * 700})
    tolerances = {"p50": 5, "top1": 7, "size": 3}
    options = [word for name, value in tolerances.items() for word in (f"--tolerance-{name}", str(value))]
    assert printed(capsys, "check", "digits", "--against", "@previous", *options).startswith("pass ")
    for name, value in tolerances.items():
        less = ["--strict", *options, f"--tolerance-{name}", str(value - 0.001)]
        assert not printed(capsys, "check", "digits", "--against", "@previous", *less, status=7).startswith("pass ")


def test_answers_that_are_no_numbers_fail_whatever_is_tolerated(digits: Path, capsys: Out) -> None:
    logits = np.eye(3, dtype=np.float32)[np.arange(40) % 3]
    logits[:3] = np.nan
    measure(digits, logits=logits)
    lost = "3 of 40 answers are NaN or infinite, counted as wrong"
    options = ["--tolerance-top1", "100", "--tolerance-p50", "100"]
    assert f"answers worse: {lost}" in printed(capsys, "check", "digits", "--against", "@previous", *options, status=7)
    assert f"after: {lost}" in printed(capsys, "diff", "digits")
    assert run(["check", "digits", "--save-reference", "reference.json"]) == 0
    measure(digits, right=40)
    assert f"before: {lost}" in printed(capsys, "diff", "digits")
    assert run(["check", "digits", "--against", "reference.json"]) == 0


def test_a_larger_file_fails(digits: Path, capsys: Out) -> None:
    measure(digits, size_bytes=5_000_000)
    assert "size worse: +25.0 %" in printed(capsys, "check", "digits", "--against", "@previous", status=7)


def test_a_regression_that_is_measured_again_and_again_still_fails(digits: Path, capsys: Out) -> None:
    for ms in (2.02, 1.98):
        measure(digits, ms=ms)
    assert run(["check", "digits", "--save-reference", "reference.json"]) == 0
    for ms in (3.0, 3.02, 2.98, 3.01, 3.0):
        measure(digits, ms=ms)
        assert "p50 worse" in printed(capsys, "check", "digits", "--against", "reference.json", status=7)
        assert run(["check", "digits", "--against", "@first"]) == 7


@pytest.mark.parametrize(
    ("key", "values", "why"),
    [
        ("power_mode_before", ("MAXN", "10W"), "other power mode (MAXN, 10W)"),
        ("power_mode_after", ("MAXN", "10W"), "other power mode at the end"),
        ("clocks_locked_before", (True, False), "other clocks locked (True, False)"),
        ("governor", ("performance", "powersave"), "other governor (performance, powersave)"),
        ("timed_together", (1, 4), "other queries timed together (1, 4)"),
        ("timed_together", (None, 4), "other queries timed together (1, 4)"),
    ],
)
def test_latencies_of_another_power_mode_are_not_compared(
    digits: Path, capsys: Out, key: str, values: tuple[object, object], why: str
) -> None:
    for ms, value in zip((2.0, 9.0), values):
        measure(digits, ms=ms, said={} if value is None else {key: value})
    text = printed(capsys, "check", "digits", "--against", "@previous")
    assert f"p50 not compared: {why}" in text
    assert f"p50 not compared: {why}"[:30] in printed(capsys, "history", "--verbose").replace("\n", " ")


def test_few_samples_cannot_tell(digits: Path, capsys: Out) -> None:
    measure(digits, latencies_ns=(9_000_000,) * 9)
    text = printed(capsys, "check", "digits", "--against", "@previous")
    assert re.search(
        r"p50 cannot tell: \+3\d\d\.\d %, x 4\.\d+ \(\S+ -> 9 ms\), no interval: too few queries: 700 and 9", text
    )
    assert run(["check", "digits", "--against", "@previous", "--strict"]) == 7
    measure(digits, latencies_ns=(9_000_000,) * 7)
    assert "p50 cannot tell: insufficient samples" in printed(capsys, "check", "digits", "--against", "@previous")


def test_p90_is_checked_where_it_is_asked(digits: Path, capsys: Out) -> None:
    slow = [2_000_000 + n for n in range(560)] + [4_000_000 + n for n in range(140)]
    measure(digits, latencies_ns=tuple(slow[n * 37 % 700] for n in range(700)))
    assert run(["check", "digits", "--against", "@previous"]) == 0
    assert "p90 worse" in printed(capsys, "check", "--against", "@previous", "--tolerance-p90", "10", status=7)


@pytest.mark.parametrize("said", [{"threads": 4}, {"cpu": "another"}, {"cores": 64}])
def test_latencies_of_other_machines_are_not_compared_and_accuracy_is(
    digits: Path, capsys: Out, said: dict[str, object]
) -> None:
    measure(digits, ms=99.0, said=said)
    text = printed(capsys, "check", "digits", "--against", "@previous")
    assert text.startswith("not compared ")
    assert "p50 not compared: other " in text
    measure(digits, ms=99.0, right=10, said={**said, "cpu": "a third"})
    assert run(["check", "digits", "--against", "@first"]) == 7


def test_another_device_is_not_compared(digits: Path, capsys: Out) -> None:
    measure(make_run(digits.parent, "other"), device="pi")
    text = printed(capsys, "check", "other", "--against", "digits", status=4)
    assert "android/model.int8.tflite on pi: all not compared: not in the reference" in text
    assert "on local: all not compared: in the reference, but not measured now" in text
    assert "could be compared" in text


def test_a_reference_file_can_be_committed(digits: Path, capsys: Out, tmp_path: Path) -> None:
    assert run(["check", "digits", "--save-reference", "reference.json"]) == 0
    assert "nothing was measured since" in printed(capsys, "check", "--against", "reference.json", status=4)
    measure(digits, ms=2.01, when="2026-11-27T07:00:00+00:00")
    assert printed(capsys, "check", "--against", "reference.json").startswith("pass ")
    measure(digits, ms=3.0, when="2026-11-28T07:00:00+00:00")
    shutil.rmtree(tmp_path / "runs" / "digits" / "bench")
    measure(digits, ms=3.0, when="2026-11-28T07:00:00+00:00")
    (verdict,) = json.loads(
        printed(capsys, "check", "--against", "reference.json", "--json", status=7).split("error:")[0]
    )
    assert verdict["state"] == "worse"
    assert {f["name"]: f["state"] for f in verdict["figures"]} == {"top-1": "pass", "p50": "worse", "size": "pass"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: "{", lambda d: "[]", lambda d: "{}", lambda d: {**d, "results": []}, lambda d: {**d, "results": [1]},
        lambda d: {**d, "results": [{**d["results"][0], "threads": "x"}]},
        lambda d: {**d, "results": [{**d["results"][0], "samples": {}}]},
        lambda d: {**d, "results": [{**d["results"][0], "samples": dict.fromkeys(d["results"][0]["samples"], "!")}]},
        lambda d: {**d, "results": [{**d["results"][0], "samples": dict.fromkeys(d["results"][0]["samples"], "AAAA")}]},
        lambda d: {**d, "results": [{**d["results"][0], "correct": 99}]},
        lambda d: {**d, "results": [{**d["results"][0], "batch": 0}]},
        lambda d: {**d, "results": [{**d["results"][0], "p50_ms": "abc"}]},
        lambda d: {**d, "results": [{**d["results"][0], "images": 41}]},
        lambda d: {**d, "results": [{**d["results"][0], "queries": 3}]},
        lambda d: {**d, "results": [{**d["results"][0], "new": 0}]},
        lambda d: {**d, "results": [{k: v for k, v in d["results"][0].items() if k != "device"}]},
    ],
)  # fmt: skip
def test_a_damaged_reference_is_status_3(digits: Path, capsys: Out, damage: Any) -> None:
    assert run(["check", "digits", "--save-reference", "reference.json"]) == 0
    measure(digits)
    path = Path("reference.json")
    content = damage(json.loads(path.read_text()))
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    assert "reference.json" in printed(capsys, "check", "digits", "--against", "reference.json", status=3)


def test_a_reference_of_a_newer_edgekit_is_status_6(digits: Path, capsys: Out) -> None:
    Path("reference.json").write_text('{"schema": 99, "results": [1]}')
    assert "upgrade edgekit" in printed(capsys, "check", "digits", "--against", "reference.json", status=6)


def test_a_reference_that_does_not_exist_names_the_command_that_makes_it(digits: Path, capsys: Out) -> None:
    assert "check --save-reference none.json" in printed(capsys, "check", "--against", "none.json", status=4)


@pytest.mark.parametrize(
    "options",
    [[], ["--against", "x", "--save-reference", "y"], ["--against", "digits", "--tolerance-p50", "much"],
     ["--against", "digits", "--tolerance-top1", "-1"], ["--against", "digits", "--tolerance-p90", "nan"]],
)  # fmt: skip
def test_requests_that_make_no_sense_are_status_2(digits: Path, options: list[str]) -> None:
    assert run(["check", "digits", *options]) == 2


def test_one_artifact_alone_is_checked(digits: Path, capsys: Out) -> None:
    measure(digits, of=FP32)
    measure(digits, ms=9.0)
    measure(digits, of=FP32, right=30)
    assert run(["check", "digits", "--against", "@previous"]) == 7
    assert run(["check", "digits", "--against", "@previous", "--artifact", "model.fp32.tflite"]) == 0
    assert "measured: android/model.fp32.tflite, android" in printed(
        capsys, "check", "digits", "--against", "@previous", "--artifact", "none", status=4
    )
