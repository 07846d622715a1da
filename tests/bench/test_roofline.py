"""Limits of a device against a network that is counted by hand."""

from __future__ import annotations

import pytest

from edgekit.bench import roofline
from edgekit.environment import parse
from edgekit.measurements import LayerCost
from edgekit.records import Device

COSTS = [
    LayerCost("a", "conv 3x3", "a", macs=1_000_000, weights=1000, biases=10, read=300, written=500),
    LayerCost("add", "add", "a", read=1000, written=500),
]
ORIN = Device("orin", "jetson", memory_bandwidth_gb_s=100, peak_fp16_tflops=10, peak_int8_tops=20)


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("fp32", 4 * 1000 + 4 * 10 + 4 * 2300),
        ("fp16", 2 * 1000 + 2 * 10 + 2 * 2300),
        ("int8", 1000 + 4 * 10 + 2300),
        ("w8", 1000 + 4 * 10 + 4 * 2300),
        ("16x8", 1000 + 4 * 10 + 2 * 2300),
    ],
)
def test_weights_move_once_and_activations_once_for_each_operation(precision: str, expected: int) -> None:
    assert roofline.bytes_moved(COSTS, precision) == expected


def test_computing_bounds_what_moves_little() -> None:
    environment = roofline.described(COSTS, "int8", ORIN)
    found = roofline.reached(parse(environment), p50_ms=0.001)
    assert found is not None
    assert (found.macs, found.bytes_moved, found.bound) == (1_000_000, 3340, "compute")
    assert found.limit_ms == pytest.approx(2 * 1e6 / 20e12 * 1e3)  # two operations each
    assert found.reached == pytest.approx(0.1)
    assert "orin" in found.source


def test_memory_bounds_what_computes_little() -> None:
    moving = [LayerCost("b", "linear", "b", macs=1000, weights=10**9)]
    found = roofline.reached(parse(roofline.described(moving, "fp16", ORIN)), p50_ms=40.0)
    assert found is not None
    assert (found.bound, found.limit_ms, found.reached) == ("memory", pytest.approx(20.0), pytest.approx(0.5))


def test_a_batch_takes_so_many_times_the_limit_of_one_image() -> None:
    environment = parse(roofline.described(COSTS, "int8", ORIN))
    one, four = roofline.reached(environment, 0.001), roofline.reached(environment, 0.004, batch=4)
    assert one is not None
    assert four is not None
    assert (four.limit_ms, four.reached) == (one.limit_ms, pytest.approx(one.reached))


@pytest.mark.parametrize(
    ("device", "precision", "why"),
    [
        (Device("pixel", "android"), "int8", "the file of pixel has no peak for INT8"),
        (Device("nano", "jetson", memory_bandwidth_gb_s=25, peak_fp16_tflops=0.4), "int8", "no peak for INT8"),
        (ORIN, "fp32", "no peak for FP32"),
        (Device("x", "jetson", peak_int8_tops=1), "int8", "no memory bandwidth"),
        (Device("d", "jetson", dla_core=0, memory_bandwidth_gb_s=1, peak_int8_tops=1), "int8", "ran on a DLA"),
    ],
)
def test_a_device_without_figures_has_no_limit_and_says_why(device: Device, precision: str, why: str) -> None:
    said = roofline.described(COSTS, precision, device)
    assert why in said["no_roofline"]
    assert said["macs"] == 1_000_000
    assert roofline.reached(parse(said), 1.0) is None


def test_nothing_is_claimed_without_costs_or_a_latency() -> None:
    assert roofline.described([], "int8", ORIN) == {}
    assert roofline.reached(parse({}), 1.0) is None
    assert roofline.reached(parse(roofline.described(COSTS, "int8", ORIN)), None) is None


def test_peaks_of_this_machine_are_measured_and_called_so() -> None:
    peaks = roofline.measure(1, seconds=0.01)
    assert 1e-4 < peaks.fp32_tflops < 1e3
    assert 1e-2 < peaks.bandwidth_gb_s < 1e5
    said = roofline.described(COSTS, "fp32", Device("local", "desktop"), peaks)
    assert "measured here in float32 on one thread" in said["peaks_from"]
    found = roofline.reached(parse(said), p50_ms=1e3)
    assert found is not None
    assert found.reached == pytest.approx(found.limit_ms / 1e3)


def test_float32_peaks_say_nothing_of_int8_nor_of_a_device_with_figures() -> None:
    peaks = roofline.Peaks(0.1, 10.0, 1)
    for here in (peaks, None):
        said = roofline.described(COSTS, "int8", Device("local", "desktop"), here)
        assert said["no_roofline"] == "the peak for INT8 of this machine is unknown"
    assert "no_roofline" in roofline.described(COSTS, "fp32", ORIN, peaks)


def test_peaks_know_of_the_work_beside_which_they_were_measured() -> None:
    assert -1 <= roofline.measure(1, seconds=0.01).busy <= 1
    local = Device("local", "desktop")
    said = roofline.described(COSTS, "fp32", local, roofline.Peaks(0.1, 10.0, 1, busy=0.45))
    assert said["peaks_from"].endswith("a copy, while other work took 45 % of the machine")
    assert said["peaks_busy"] == 0.45
    assert (
        "other work" not in roofline.described(COSTS, "fp32", local, roofline.Peaks(0.1, 10.0, 1, 0.05))["peaks_from"]
    )
