"""From raw values to judged rows."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgekit.analysis.summary import Parity, parities, summarize, twins
from edgekit.errors import MissingError
from edgekit.measurements import BenchmarkResult
from tests.bench.results import artifact, result

INT8 = artifact("android/model.int8.tflite", "int8", "litert")


def test_a_row_is_judged_against_the_baseline() -> None:
    base, row = summarize([result(INT8, right=20, ms=0.5), result(right=30, ms=2.0)])
    assert base.baseline
    assert (base.drop, base.agreement, base.speedup, base.p_value) == (0.0, 100.0, 1.0, 1.0)
    assert (row.top1, row.drop, row.agreement) == (50.0, 25.0, 75.0)
    assert (row.p50_ms, row.p99_ms, row.speedup) == (0.5, 0.5, 4.0)
    assert row.p_value == pytest.approx(2 / 1024)
    assert row.top1_low < 50 < row.top1_high
    assert (row.size_mb, row.samples, row.queries, row.ran_in) == (4.0, 40, 700, "litert 1.0")


@pytest.mark.parametrize("right", [0, 40])
@pytest.mark.parametrize("samples", [40, 44, 41])
def test_the_interval_holds_the_figure_also_at_its_ends(right: int, samples: int) -> None:
    (row,) = summarize([result(right=samples if right else 0, samples=samples)])
    assert row.top1_low <= row.top1 <= row.top1_high


def test_the_baseline_comes_first_then_targets_with_fp32_first() -> None:
    names = ["jetson/b.int8", "jetson/a.fp16", "android/c.fp32", "jetson/d.fp32"]
    results = [result(artifact(n, n[-4:], "onnxruntime")) for n in names]
    rows = summarize([*results, result()])
    assert [r.artifact for r in rows] == [
        "baseline/pytorch", "android/c.fp32", "jetson/d.fp32", "jetson/a.fp16", "jetson/b.int8"
    ]  # fmt: skip


def test_another_runtime_than_its_own_is_a_stand_in() -> None:
    jetson = artifact("jetson/model.int8.onnx", "int8", "tensorrt")
    rows = summarize([result(), result(INT8), result(jetson, runtime="onnxruntime")])
    assert {r.target: r.stand_in for r in rows} == {"baseline": False, "android": False, "jetson": True}


def test_each_device_has_its_own_baseline() -> None:
    rows = summarize([
        result(ms=2.0), result(INT8, ms=1.0),
        result(ms=10.0, device="board"), result(INT8, ms=1.0, device="board"),
    ])  # fmt: skip
    assert {r.device: r.speedup for r in rows if not r.baseline} == {"local": 2.0, "board": 10.0}


def test_percentiles_that_the_samples_cannot_carry_are_left_out() -> None:
    few = result(INT8, latencies_ns=(1_000_000,) * 100)
    row = summarize([result(), few])[1]
    assert (row.p50_ms, row.p90_ms, row.p99_ms) == (1.0, 1.0, None)
    row = summarize([result(), result(INT8, latencies_ns=())])[1]
    assert (row.p50_ms, row.speedup) == (None, None)


def test_without_a_baseline_there_is_no_judgement() -> None:
    with pytest.raises(MissingError, match="baseline") as caught:
        summarize([result(INT8)])
    assert caught.value.hint == "edgekit benchmark"


@pytest.mark.parametrize("expected", [np.zeros(40, int), np.arange(39) % 3])
def test_results_on_other_images_are_not_compared(expected: np.ndarray) -> None:
    other = result(INT8, logits=np.zeros((len(expected), 3)), expected=expected)
    with pytest.raises(MissingError, match=r"android/model\.int8\.tflite was measured on other images"):
        summarize([result(), other])


@pytest.mark.parametrize(("threads", "speedup"), [(1, 4.0), (2, None)])
def test_a_row_with_other_threads_than_the_baseline_has_no_speedup(threads: int, speedup: float | None) -> None:
    environment = result(INT8).environment.with_values(threads=threads)
    row = summarize([result(ms=2.0), result(INT8, ms=0.5, environment=environment)])[1]
    assert (row.threads, row.speedup) == (threads, speedup)


@pytest.mark.parametrize(("share", "busy"), [(-1.0, False), (0.0, False), (0.9, True)])
def test_a_row_knows_whether_other_work_ran(share: float, busy: bool) -> None:
    environment = result(INT8).environment.with_values(busy_before=share)
    assert [r.busy for r in summarize([result(), result(INT8, environment=environment)])] == [False, busy]


def test_parity_is_between_int8_models_of_different_runtimes_each_once() -> None:
    jetson = artifact("jetson/model.int8.onnx", "int8", "tensorrt", sha256="c" * 64)
    half = artifact("jetson/model.fp16.onnx", "fp16", "tensorrt")
    results = [result(), result(INT8, right=20), result(jetson, right=30), result(half, right=1)]
    wanted = [Parity(INT8.name, jetson.name, 75.0, 40)]
    assert parities(results) == wanted
    assert parities([*results, result(INT8, right=1, device="z board")]) == wanted
    assert parities(results[:2]) == []


def test_what_an_emulator_takes_is_no_latency() -> None:
    (_, row) = summarize([result(), result(INT8, source="emulated", device="qemu")])
    assert (row.p50_ms, row.p90_ms, row.p99_ms, row.speedup) == (None, None, None, None)
    assert row.top1 == 75.0


def test_a_device_is_compared_with_what_this_machine_computes_from_the_same_file() -> None:
    int8 = artifact("jetson/model.int8.onnx", "int8", "tensorrt", sha256="c" * 64)
    here = result(int8, right=30, runtime="onnxruntime")
    there = result(int8, right=29, device="orin", source="device")
    (twin,) = twins([result(), here, there, result(device="orin", source="device")])
    assert (twin.artifact, twin.device, twin.samples) == ("jetson/model.int8.onnx", "orin", 40)
    assert twin.agreement == pytest.approx(97.5)
    assert 0 < twin.cosine < 1


def test_a_browser_of_this_machine_is_compared_with_its_runners_and_never_the_other_way() -> None:
    here, browser = result(INT8), result(INT8, right=20, device="web:Linux, Chrome 140")
    (twin,) = twins([result(), browser, here])
    assert (twin.device, twin.agreement) == ("web:Linux, Chrome 140", 75.0)
    assert twins([result(), browser]) == []


def test_queries_that_were_timed_together_have_a_median_but_no_tail() -> None:
    together = result(INT8, ms=0.5, environment=result(INT8).environment.with_values(timed_together=4))
    row = next(row for row in summarize([result(), together]) if not row.baseline)
    assert (row.p50_ms, row.p90_ms, row.p99_ms) == (0.5, None, None)


def test_a_row_has_the_intervals_of_its_drop_and_of_its_speedup() -> None:
    rng = np.random.default_rng(0)
    slow, fast = ([round(v) for v in 1e6 * ms * (1 + 0.05 * rng.normal(size=700))] for ms in (8, 2))
    base, row = summarize([result(latencies_ns=tuple(slow)), result(INT8, right=28, latencies_ns=tuple(fast))])
    assert (base.drop_low, base.drop_high) == pytest.approx((-8.76, 8.76), abs=0.01)
    assert (base.speedup_low, base.speedup_high) == (1, 1)
    assert row.drop == pytest.approx(5)
    assert row.drop_low < 0 < 5 < row.drop_high < 20
    assert 3.9 < row.speedup_low < row.speedup < row.speedup_high < 4.1
    assert row.latency.queries == 700
    assert row.latency.images_per_s is None


def test_the_speedup_is_per_image_whatever_the_batches() -> None:
    batched = result().environment.with_values(batch=4)
    rows = summarize([result(ms=2.0, environment=batched), result(INT8, ms=2.0)])
    assert [r.speedup for r in rows] == [1.0, 0.25]
    rows = summarize([result(ms=2.0), result(INT8, ms=2.0, environment=batched)])
    assert [r.speedup for r in rows] == [1.0, 4.0]


def test_a_start_up_counts_in_no_figure() -> None:
    rng = np.random.default_rng(1)
    series = 1e6 * (1 + 0.02 * rng.normal(size=700)) * np.where(np.arange(700) < 100, 5, 1)
    row = summarize([result(), result(INT8, latencies_ns=tuple(int(v) for v in series))])[1]
    assert row.latency.warmup >= 100
    assert row.queries == 700
    assert row.p90_ms < 1.1
    assert row.p99_ms is None  # fewer than 662 are left
    assert "started up" in row.latency.flags[0].text


def test_warm_up_queries_take_a_start_up_upon_themselves() -> None:
    level, high = tuple([1_000_000, 1_010_000] * 350), tuple([3_000_000, 3_010_000] * 30)
    row = summarize([result(), result(INT8, latencies_ns=level, warmup_ns=high)])[1]
    assert (row.latency.warmup, row.latency.queries) == (0, 700)


def test_throughput_is_of_the_passes() -> None:
    environment = result().environment.with_values(offline_images=32)
    row = summarize([result(), result(INT8, offline_ns=(16_000_000,) * 10, environment=environment)])[1]
    assert (row.latency.images_per_s, row.latency.images_per_s_low) == (2000, pytest.approx(2000))


def test_an_emulator_says_nothing_of_latency_at_all() -> None:
    (_, row) = summarize([result(), result(INT8, source="emulated", device="qemu", offline_ns=(1,) * 9)])
    assert (row.latency, row.speedup_low, row.speedup_high) == (None, None, None)
    assert row.drop_high is not None


def test_other_baselines_follow_the_reference_and_the_fastest_counts() -> None:
    def desktop(name: str, ms: float, runtime: str, threads: int = 1) -> BenchmarkResult:
        made = result(artifact(f"baseline/{name}", runtime=runtime, target="desktop"), ms=ms)
        return dataclasses.replace(made, environment=made.environment.with_values(threads=threads))

    rows = summarize([
        desktop("openvino", 1.0, "openvino"), result(artifact("android/a.int8", "int8", "litert"), ms=0.5), result(),
        desktop("onnxruntime", 0.5, "onnxruntime", threads=2), desktop("torch-compile", 4.0, "torch"),
    ])  # fmt: skip
    assert [r.artifact for r in rows][:2] == ["baseline/pytorch", "baseline/onnxruntime"]
    assert [r.baseline for r in rows] == [True] * 4 + [False]
    assert not any(r.stand_in for r in rows)
    model = rows[-1]
    assert (model.speedup, model.speedup_best) == (pytest.approx(4.0), pytest.approx(2.0))  # of as many threads


def test_a_limit_is_judged_from_what_the_result_keeps() -> None:
    plain = result(ms=2.0)
    limits = {"macs": 10**6, "bytes_moved": 10**6, "peak_tops": 1.0, "bandwidth_gb_s": 1.0, "peaks_from": "a sheet"}
    [row] = summarize([dataclasses.replace(plain, environment=plain.environment.with_values(**limits))])
    assert row.roofline is not None
    assert (row.roofline.bound, row.roofline.reached) == ("memory", pytest.approx(0.5))
    assert summarize([plain])[0].roofline is None


JETSON = artifact("jetson/model.int8.onnx", "int8", "tensorrt")


def test_a_stand_in_has_neither_a_speedup_nor_a_limit() -> None:
    limits = {"macs": 10**6, "bytes_moved": 10**6, "peak_tops": 1.0, "bandwidth_gb_s": 1.0}
    made = result(JETSON, ms=0.5, runtime="onnxruntime")
    made = dataclasses.replace(made, environment=made.environment.with_values(**limits))
    row = summarize([result(), made])[1]
    assert row.stand_in
    assert (row.speedup, row.speedup_low, row.speedup_high, row.speedup_best) == (None,) * 4
    assert (row.speedup_doubtful, row.roofline) == (False, None)
    assert row.p50_ms == 0.5


@pytest.mark.parametrize(("base", "own", "doubtful"), [(0.0, 0.0, False), (0.9, 0.0, True), (0.0, 0.9, True)])
def test_other_work_on_either_side_makes_a_speedup_doubtful(base: float, own: float, doubtful: bool) -> None:
    first = result(environment=result().environment.with_values(busy_before=base))
    second = result(INT8, environment=result(INT8).environment.with_values(busy_before=own))
    rows = summarize([first, second])
    assert [row.speedup_doubtful for row in rows] == [False, doubtful]


def test_both_speedups_are_of_the_queries_that_count() -> None:
    rng = np.random.default_rng(1)
    series = [1e6 * (1 + 0.02 * rng.normal(size=700)) * np.where(np.arange(700) < 250, 3, 1) for _ in range(2)]
    series = [tuple(int(v) for v in values) for values in series]
    row = summarize([result(latencies_ns=series[0]), result(INT8, latencies_ns=series[1])])[1]
    assert row.latency.warmup >= 250
    assert row.speedup == row.speedup_best == pytest.approx(1, abs=0.02)


def test_without_a_baseline_of_its_own_a_device_is_compared_with_one_of_as_many_threads_then_with_this_machine() -> (
    None
):
    def base(device: str, threads: int, ms: float) -> BenchmarkResult:
        made = result(device=device, ms=ms)
        return dataclasses.replace(made, environment=made.environment.with_values(threads=threads))

    phone = result(INT8, ms=1.0, device="phone")
    bases = [base("a", 4, 8.0), base("local", 2, 2.0), base("z", 1, 5.0)]
    assert summarize([phone, *bases])[-1].speedup == 5.0  # not "a", which only comes first by name
    bases = [base("a", 1, 8.0), base("local", 1, 2.0)]
    assert summarize([phone, *bases])[-1].speedup == 2.0
    assert summarize([phone, *bases, base("phone", 1, 3.0)])[-1].speedup == 3.0


def test_the_best_speedup_is_per_image_of_both_sides() -> None:
    batched = result().environment.with_values(batch=4)
    row = summarize([result(ms=8.0, environment=batched), result(INT8, ms=1.0)])[-1]
    assert row.speedup == row.speedup_best == 2.0


@pytest.mark.parametrize("samples", [10, 100, 270, 1000])
def test_a_loss_of_whole_images_is_exactly_their_share(samples: int) -> None:
    """One wrong answer more of 100 is 1 point, whatever the baseline is."""
    for right in range(samples // 10, samples + 1, 9):
        _, row = summarize([result(right=right, samples=samples), result(INT8, right=right - 1, samples=samples)])
        assert row.drop == 100 / samples
        assert row.top1 == 100 * (right - 1) / samples
        assert row.share_left == (100 * (right - 1) / right)


def test_a_ratio_of_latencies_is_rounded_once() -> None:
    for nanoseconds in range(1_000_001, 1_002_000, 37):
        base, own = (result(of, latencies_ns=(ns,) * 700) for of, ns in ((None, 3 * nanoseconds), (INT8, nanoseconds)))
        assert summarize([base, own])[1].speedup == 3


def test_answers_that_are_no_numbers_are_wrong_and_counted() -> None:
    nan = result(INT8, right=40)
    nan.logits[:13] = np.nan
    _, row = summarize([result(right=40), nan])
    assert (row.top1, row.drop, row.agreement, row.no_answer) == (67.5, 32.5, 67.5, 13)
    nan = result(right=40)
    nan.logits[:, 0] = np.inf
    _, row = summarize([nan, result(INT8)])
    assert (row.no_answer, row.baseline_no_answer, row.share_left) == (0, 40, None)
