"""Records are frozen and checked when they are made."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit import quantization, records
from edgekit.errors import DataError, EdgekitError, UsageError
from edgekit.measurements import BenchmarkResult
from edgekit.quantization import CalibrationRecipe, Range
from edgekit.records import Artifact, DatasetIndex, Preprocess, Sample

ARTIFACT = Artifact("jetson/model.fp32.onnx", "jetson", "fp32", "tensorrt", "NCHW", "a" * 64, "b" * 64)


def test_every_record_is_frozen() -> None:
    nouns = {**vars(records), **vars(quantization)}
    kinds = [v for v in nouns.values() if dataclasses.is_dataclass(v)]
    assert len(kinds) > 15
    assert all(kind.__dataclass_params__.frozen for kind in kinds)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"image_size": 31}, UsageError),
        ({"image_size": 1025, "resize_size": 2000}, UsageError),
        ({"resize_size": 223}, UsageError),
        ({"resample": "nearest"}, UsageError),
        ({"std": (0.1, 0.0, 0.1)}, DataError),
        ({"mean": (0.5, 0.5)}, DataError),
        ({"resize": "stretch"}, UsageError),
        ({"resize": "letterbox"}, DataError),
        ({"background": "red"}, UsageError),
        ({"pixel_range": (5, 5)}, UsageError),
    ],
)
def test_a_preprocess_that_cannot_work_is_refused(change: dict[str, Any], error: type[EdgekitError]) -> None:
    with pytest.raises(error):
        Preprocess(**{"image_size": 224, "resize_size": 256, **change})


def test_a_preprocess_keeps_its_figures_as_floats() -> None:
    kept = Preprocess(224, 224, mean=[0, 0, 0], std=[1, 1, 1])  # type: ignore[arg-type]
    assert kept.mean == (0.0, 0.0, 0.0)
    assert kept == Preprocess(224, 224, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def test_a_preprocess_is_written_with_its_schema_and_without_later_options_that_it_does_not_use() -> None:
    assert list(Preprocess(224, 256).document()) == ["schema", "image_size", "resize_size", "resample", "mean", "std"]
    chosen = Preprocess(64, 64, resize="squash", background="black", pixel_range=(0, 4095))
    added = {"resize": "squash", "background": "#000000", "pixel_range": (0.0, 4095.0)}
    assert chosen.document() == {**Preprocess(64, 64).document(), **added}
    assert Preprocess(**chosen.document()) == chosen


def test_a_run_from_before_the_contract_is_read_and_written_as_it_was() -> None:
    document = {k: v for k, v in Preprocess(224, 256).document().items() if k != "schema"}
    older = Preprocess(**Preprocess.with_schema(document))
    assert older.schema == 0
    assert older == Preprocess(224, 256)
    assert older.document() == document
    assert older.contract() == Preprocess(224, 256).contract()  # what is made of it now is made by this version
    with pytest.raises(DataError, match="up to 1, not 2"):
        Preprocess(224, 256, schema=2)


def test_the_contract_says_every_step_to_the_pixels() -> None:
    assert Preprocess(224, 256).contract() == {
        **Preprocess(224, 256).document(),
        "schema": 1,
        "orientation": "exif",
        "alpha": "over-background",
        "background": "#ffffff",
        "geometry": "centre-box",
        "passes": "horizontal-first",
        "weight_bits": 22,
        "channels": "RGB",
    }
    kinds = {kind: Preprocess(64, 64, resize=kind).contract()["geometry"] for kind in ("crop", "squash", "letterbox")}
    assert kinds == {"crop": "centre-box", "squash": "whole", "letterbox": "bars"}


def test_the_steps_of_a_preprocess_are_described() -> None:
    assert [step.partition(",")[0] for step in Preprocess(224, 256).steps()] == [
        "Decode to RGB with 8 bits a channel. Apply the EXIF orientation. Convert grey",
        "Resize a box in the centre to 224 x 224 pixels",
        "(pixel / 255 - mean) / std",
    ]
    shown = Preprocess(64, 64, "bicubic", resize="letterbox", background="black", pixel_range=(-5, 4095)).steps()
    assert "Put transparent parts over #000000." in shown[0]
    assert "-5 becomes 0 and 4095 becomes 255" in shown[1]
    assert "64 x 64 square of the colour #000000" in shown[2]


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "jetson/../../x", "jetson", "jetson/.x", "jetson/a b", "jetson/é", ""]
)
def test_an_artifact_stays_in_its_run(name: str) -> None:
    with pytest.raises(DataError, match="is no artifact name"):
        dataclasses.replace(ARTIFACT, name=name)


@pytest.mark.parametrize("change", [{"precision": "int4"}, {"layout": "CHWN"}])
def test_an_artifact_of_an_unknown_kind_lists_the_known_ones(change: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        dataclasses.replace(ARTIFACT, **change)
    assert caught.value.hint.endswith(("fp32, fp16, int8, w8, 16x8", "NCHW, NHWC"))


@pytest.mark.parametrize(("low", "high"), [(0.1, 1.0), (-1.0, -0.1), (1.0, -1.0), (float("nan"), 1.0)])
def test_a_quantization_range_contains_zero(low: float, high: float) -> None:
    with pytest.raises(DataError):
        Range(low, high)
    Range(0.0, 0.0)


@pytest.mark.parametrize("samples", [0, -1, 100_001])
def test_a_recipe_asks_for_a_possible_number_of_samples(samples: int) -> None:
    with pytest.raises(UsageError, match="'mine'"):
        CalibrationRecipe("mine", samples)


@pytest.mark.parametrize(
    ("keys", "hint"),
    [
        ({"runtime": "tensorrt", "accelerator": "gpu", "api": "compiled-model"}, 'add runtime = "litert"'),
        ({"runtime": "onnxruntime", "xnnpack": False}, 'add runtime = "litert"'),
        ({"runtime": "litert", "accelerator": "gpu"}, 'add api = "compiled-model"'),
        ({"runtime": "litert", "accelerator": "npu", "api": "compiled-model", "xnnpack": False}, "remove xnnpack"),
        ({"transport": "local", "cpu_mask": "f0"}, "remove it; on this machine: taskset"),
        ({"transport": "ssh", "cool_down_s": 5.0}, "remove it"),
        ({"runtime": "litert", "benchmark_model": "x"}, 'add api = "benchmark-model"'),
        ({"runtime": "litert", "api": "benchmark-model", "python": "python3"}, "remove python"),
    ],
)
def test_a_device_is_run_in_one_way_that_exists(keys: dict[str, Any], hint: str) -> None:
    with pytest.raises(DataError, match="device 'mine': ") as caught:
        records.Device("mine", "rpi", **keys)
    assert caught.value.hint.startswith(hint)


def test_a_litert_device_may_name_its_interface_accelerator_and_delegate() -> None:
    for keys in ({"xnnpack": False}, {"api": "compiled-model", "accelerator": "gpu"}, {"api": "benchmark-model"}):
        records.Device("mine", "rpi", runtime="litert", **keys)


def test_an_index_knows_its_splits_in_order() -> None:
    samples = tuple(Sample(str(i), 0, split, "") for i, split in enumerate(("train", "val", "train")))
    index = DatasetIndex(Path(), ("a", "b"), samples, "")
    assert [s.path for s in index.split("train")] == ["0", "2"]
    assert index.split("test") == ()


@pytest.mark.parametrize(
    ("change", "error"), [({"source": "guessed"}, UsageError), ({"expected": np.zeros(3)}, DataError)]
)
def test_a_result_says_where_it_comes_from_and_answers_every_sample(
    change: dict[str, Any], error: type[EdgekitError]
) -> None:
    fields = {"source": "host", "logits": np.zeros((2, 2)), "expected": np.zeros(2), **change}
    with pytest.raises(error):
        BenchmarkResult(ARTIFACT, "local", "onnxruntime", environment={}, latencies_ns=(), size_bytes=1, **fields)
