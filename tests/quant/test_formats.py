"""Calibration tables in others' formats."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgekit.convert import tflite
from edgekit.convert.fold import fold
from edgekit.errors import EdgekitError, UsageError
from edgekit.quant import affine, calibrate, formats, naming
from edgekit.quantization import LITERT_SCHEME, TENSORRT_SCHEME, Range
from tests import nets
from tests.nets import table_of

TABLE = table_of(image=(-2.0, 12.7), relu=(0.0, 6.0))
# TensorRT -------------------------------------------------------------------------------------


def test_a_cache_is_a_header_and_a_line_per_tensor() -> None:
    cache = formats.tensorrt_cache(TABLE, {"image": "image", "/act/Relu_output_0": "relu", "unknown": "none"})
    assert cache == "TRT-8502-EntropyCalibration2\nimage: 3dcccccd\n/act/Relu_output_0: 3d418306\n"


def test_a_cache_has_the_digits_of_nvidias_own() -> None:
    """``relu46: 3c92aa10`` is 0.0179033577: forums.developer.nvidia.com, topic 109781."""
    table = table_of(relu46=(0.0, 0.0179033577 * 127))
    assert formats.tensorrt_cache(table, {"relu46": "relu46"}).splitlines()[1] == "relu46: 3c92aa10"


@given(low=st.floats(-1e30, 0), high=st.floats(0, 1e30))
@settings(max_examples=50, deadline=None)
def test_a_cache_reads_back_as_the_scales_of_the_int8_file(low: float, high: float) -> None:
    cache = formats.tensorrt_cache(table_of(t=(low, high)), {"t": "t"})
    digits = cache.splitlines()[1].removeprefix("t: ")
    assert len(digits) == 8
    (scale,) = struct.unpack("!f", bytes.fromhex(digits))
    assert scale == affine.activation_grid(Range(low, high), symmetric=True).scale > 0


def test_a_cache_for_another_version() -> None:
    cache = formats.tensorrt_cache(TABLE, {"image": "image"}, version="100300")
    assert cache.startswith("TRT-100300-EntropyCalibration2\n")


@pytest.mark.parametrize(
    ("names", "scheme", "error"),
    [
        ({"image": "image"}, LITERT_SCHEME, UsageError),
        ({"image": "other"}, TENSORRT_SCHEME, EdgekitError),
        ({"a\nb: 00000000": "image"}, TENSORRT_SCHEME, EdgekitError),
    ],
)
def test_what_a_cache_cannot_say_is_refused(names: dict, scheme: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        formats.tensorrt_cache(TABLE, names, scheme)  # type: ignore[arg-type]


# LiteRT ---------------------------------------------------------------------------------------


def test_a_result_holds_the_ends_of_the_grid() -> None:
    result = formats.litert_result({"serving_default": TABLE.ranges["image"]})
    grid = affine.activation_grid(Range(-2.0, 12.7), symmetric=False)
    assert result == {"serving_default": {"min": [[[[grid.low]]]], "max": [[[[grid.high]]]]}}


@pytest.mark.parametrize("scheme", [LITERT_SCHEME, TENSORRT_SCHEME], ids=["asymmetric", "symmetric"])
def test_litert_s_own_reader_and_quantizer_take_it_and_arrive_at_our_scales(
    tmp_path: Path, scheme: object, converted: tuple[Path, object, dict[str, str]]
) -> None:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe
    from ai_edge_quantizer.calibrator import Calibrator
    from ai_edge_quantizer.utils import calibration_utils

    path, table, names = converted
    written = tmp_path / "litert.json"
    written.write_text(
        json.dumps(formats.litert_result({n: table.ranges[t] for n, t in names.items() if t in table.ranges}, scheme))
    )  # type: ignore[arg-type]
    with tflite.quiet():
        calibrator = Calibrator(path.read_bytes(), num_threads=1)
        calibrator.load_model_qsvs(str(written))
        again = tmp_path / "again.json"
        calibrator.save_calibration_result(str(again))
        loaded, _ = calibration_utils.load_calibration_results(str(again))
        q = quantizer.Quantizer(str(path))
        q.load_quantization_recipe(recipe.static_wi8_ai8())
        done = q.quantize(loaded, enable_progress_report=False)
        interpreter = Interpreter(model_content=bytes(done.quantized_model))
    details = {d["name"]: d for d in interpreter.get_tensor_details()}
    checked = 0
    for name, ours in names.items():
        if name in details and details[name]["dtype"] == np.int8:
            grid = affine.activation_grid(table.ranges[ours], scheme.symmetric)  # type: ignore[attr-defined]
            assert details[name]["quantization"] == (pytest.approx(grid.scale, rel=1e-6), grid.zero_point), name
            checked += 1
    assert checked >= 4


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object, dict[str, str]]:
    """A float ``.tflite``, its table, and its tensors' names."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Hardtanh(-2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    folded, images = fold(nn.Sequential(network, nn.Linear(8, 4)).eval(), 16), nets.random_images(8, 16)
    path = tmp_path_factory.mktemp("litert") / "model.tflite"
    tflite.export(folded, 16, path)
    names = naming.name_exported(
        calibrate.run_all(folded, images[:1]), {}, {}, tflite.run_all(path, images[:1].numpy())
    ).tensors
    return path, nets.observe(folded, images), names


# Two tables -----------------------------------------------------------------------------------


def test_equal_tables_do_not_differ() -> None:
    assert formats.diff(TABLE, TABLE) == []


def test_missing_tensors_come_first_then_the_largest_ratio_either_way() -> None:
    before = table_of(same=(-1.0, 1.0), wider=(0.0, 2.0), narrower=(-4.0, 4.0), gone=(0.0, 1.0), moved=(-1.0, 3.0))
    after = table_of(same=(-1.0, 1.0), wider=(0.0, 3.0), narrower=(-1.0, 1.0), new=(0.0, 1.0), moved=(-3.0, 1.0))
    changes = formats.diff(before, after)
    assert [c.tensor for c in changes] == ["gone", "new", "narrower", "wider", "moved"]
    assert [c.ratio for c in changes[2:]] == [0.25, 1.5, 1.0]
    assert (changes[0].before, changes[0].after) == (Range(0.0, 1.0), None)
    assert (changes[1].before, changes[1].after) == (None, Range(0.0, 1.0))


def test_a_range_that_was_a_point_has_an_infinite_ratio() -> None:
    (change,) = formats.diff(table_of(a=(0.0, 0.0)), table_of(a=(0.0, 1.0)))
    assert change.ratio == float("inf")
