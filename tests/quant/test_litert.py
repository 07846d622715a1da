"""The LiteRT emitter: our grids in the file, and channels whose bias would overflow int32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.convert import tflite
from edgekit.convert.fold import fold
from edgekit.errors import EdgekitError
from edgekit.ondevice.run_tflite import TfliteRunner
from edgekit.quant import affine, flatbuffer, litert, placement
from edgekit.quant.naming import Naming
from edgekit.quantization import CalibrationTable, LayerWeights, Range
from tests.nets import emit_tflite, naming, operators, plain, random_images, relative_error, run_tflite, table_of

pytestmark = [pytest.mark.xdist_group("litert"), pytest.mark.filterwarnings("ignore")]
SIZE = 16
INT8 = 9  # of the schema


class Small(nn.Module):
    """A convolution that LiteRT pads in an operator of its own, a depthwise one, a residual, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU6(), nn.Conv2d(16, 16, 1))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(x + self.depthwise(x))


class Gated(nn.Module):
    """A hard sigmoid that scales channels, as in MobileNetV3."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 1)
        self.gate = nn.Sequential(nn.Conv2d(16, 16, 1), nn.Hardsigmoid())
        self.head = nn.Sequential(nn.Conv2d(16, 4, 1), nn.Flatten())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(x * self.gate(x))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module, CalibrationTable]:
    torch.manual_seed(0)
    model, folder = Small().eval(), tmp_path_factory.mktemp("small")
    return folder, model, emit_tflite(fold(model), SIZE, folder, random_images(32, SIZE))


def details(path: Path) -> dict[str, dict]:
    """The tensors of a file by name."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    return {detail["name"]: detail for detail in interpreter.get_tensor_details()}


def naming_of(path: Path, model: nn.Module) -> Naming:
    """What the LiteRT tensors and operators are in torch."""
    probe = random_images(1, SIZE, 9)
    return naming(fold(model), tflite.run_all(path, probe.numpy()), probe)


def names_of(path: Path, model: nn.Module) -> dict[str, str]:
    """LiteRT tensor name -> name in the table."""
    return naming_of(path, model).tensors


def test_activations_carry_our_grids_bit_for_bit(small: tuple) -> None:
    folder, model, table = small
    names, found = names_of(folder / "model.fp32.tflite", model), details(folder / "model.int8.tflite")
    compared = set()
    for name, ours in names.items():
        detail = found.get(name)
        if detail is not None and detail["dtype"] == np.int8:
            grid = affine.activation_grid(table.ranges[ours], symmetric=False)
            assert detail["quantization"] == (grid.scale, grid.zero_point), ours
            compared.add(ours)
    assert {"add", "stem.1", "depthwise.1", "depthwise.2", "head.0"} <= compared


def test_weights_carry_our_scales_bit_for_bit(small: tuple) -> None:
    folder, model, _ = small
    scales = [d["quantization_parameters"]["scales"] for d in details(folder / "model.int8.tflite").values()]
    for weight in (p.detach().numpy() for name, p in model.named_parameters() if name.endswith("weight")):
        assert any(np.array_equal(affine.weight_scales(weight, None, 1.0), s) for s in scales), weight.shape


def test_input_and_output_stay_float32(small: tuple) -> None:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(small[0] / "model.int8.tflite"))
    borders = (*interpreter.get_input_details(), *interpreter.get_output_details())
    assert [detail["dtype"] for detail in borders] == [np.float32, np.float32]


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", 1e-5), ("fp16", 2e-3), ("int8", 0.03)])
def test_files_answer_like_torch(small: tuple, precision: str, allowed: float) -> None:
    folder, model, _ = small
    images = random_images(32, SIZE)
    got = run_tflite(folder / f"model.{precision}.tflite", images)
    assert relative_error(got, model(images).detach().numpy()) < allowed


def test_fp16_file_holds_float16_weights(small: tuple) -> None:
    found = details(small[0] / "model.fp16.tflite").values()
    assert sum(detail["dtype"] == np.float16 for detail in found) >= 4


def test_output_of_a_pad_takes_the_grid_of_its_input(small: tuple) -> None:
    folder, model, table = small
    path = folder / "model.fp32.tflite"
    names = names_of(path, model)
    with tflite.quiet():
        flat = flatbuffer.read(path)
        activations = litert._activations(flat)
    (padded,) = (name for name in activations if name not in names)
    known = {name: table.ranges[names[name]] for name in activations if name in names}
    assert litert._spread(flat, known)[padded] == table.ranges["image"]
    grid = affine.activation_grid(table.ranges["image"], symmetric=False)
    assert details(folder / "model.int8.tflite")[padded]["quantization"] == (grid.scale, grid.zero_point)


def test_what_is_multiplied_by_a_constant_takes_the_range_of_the_product_over_it(tmp_path: Path) -> None:
    """LiteRT's hard sigmoid: relu6(x + 3), which torch has no tensor of, times a sixth."""
    torch.manual_seed(0)
    model = Gated().eval()
    images = random_images(16, SIZE)
    table = emit_tflite(fold(model), SIZE, tmp_path, images)
    found = details(tmp_path / "model.int8.tflite").values()
    wanted = affine.activation_grid(Range(0.0, 6 * table.ranges["gate.1"].high), symmetric=False)
    assert any(np.isclose(detail["quantization"][0], wanted.scale, rtol=1e-5) for detail in found)
    expected = model(images).detach().numpy()
    assert relative_error(run_tflite(tmp_path / "model.int8.tflite", images), expected) < 0.03


def test_operators_around_an_activation_without_a_range_compute_in_floating_point(small: tuple, tmp_path: Path) -> None:
    path, model = small[0] / "model.fp32.tflite", small[1]
    name = next(name for name, ours in names_of(path, model).items() if ours == "add")
    known = naming_of(path, model)
    lacking = replace(known, tensors={n: o for n, o in known.tensors.items() if n != name})
    with tflite.quiet():
        litert.quantize(path, plain(fold(model), small[2]), lacking, tmp_path / "out.tflite")
    types = {found: detail["dtype"] for found, detail in details(tmp_path / "out.tflite").items()}
    assert types[name] == np.float32
    assert np.int8 in types.values()
    images = random_images(32, SIZE)
    assert relative_error(run_tflite(tmp_path / "out.tflite", images), model(images).detach().numpy()) < 0.03


def test_a_network_of_which_nothing_can_be_quantized_is_refused(small: tuple, tmp_path: Path) -> None:
    path, folded = small[0] / "model.fp32.tflite", fold(small[1])
    other = placement.quantized_model(folded, table_of(other=(-1.0, 1.0)), placement.trained_weights(folded))
    with pytest.raises(EdgekitError, match="no operator of this network can compute on int8"):
        litert.quantize(path, other, naming_of(path, small[1]), tmp_path / "out.tflite")
    assert not list(tmp_path.iterdir())


def test_a_layer_without_weights_is_named(small: tuple, tmp_path: Path) -> None:
    path, quantized = small[0] / "model.fp32.tflite", plain(fold(small[1]), small[2])
    few = {name: layer for name, layer in quantized.layers.items() if name != "depthwise.2"}
    lacking = placement.quantized_model(fold(small[1]), small[2], few)
    with pytest.raises(EdgekitError, match="no counterpart among the layers"):
        litert.quantize(path, lacking, naming_of(path, small[1]), tmp_path / "out.tflite")


@pytest.mark.parametrize("kept", [("depthwise.0",), ("stem.0", "depthwise.0"), ("head.2",)])
def test_a_layer_that_stays_in_floating_point_computes_with_its_float_weights(
    small: tuple, tmp_path: Path, kept: tuple[str, ...]
) -> None:
    folder, model, table = small
    quantized = plain(fold(model), table)
    exact = {name: LayerWeights(p.weight.detach().numpy(), p.bias.detach().numpy()) for name, p in named_layers(model)}
    layers = {name: exact[name] if name in kept else layer for name, layer in quantized.layers.items()}
    path, images = tmp_path / "mixed.tflite", random_images(32, SIZE)
    with tflite.quiet():
        naming = naming_of(folder / "model.fp32.tflite", model)
        mixed = placement.quantized_model(fold(model), table, layers)
        litert.quantize(folder / "model.fp32.tflite", mixed, naming, path)
    types = [d["dtype"] for d in details(path).values() if len(d["shape"]) in (2, 4) and "quant" not in d["name"]]
    assert np.float32 in types
    assert relative_error(run_tflite(path, images), model(images).detach().numpy()) < 0.03


class Twice(nn.Module):
    """Two blocks alike: LiteRT's name of the first one's output is part of the second's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Sequential(nn.Conv2d(n, 16, 3, padding=1), nn.ReLU()) for n in (3, 16))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x)))


def test_a_layer_stays_in_floating_point_alone_where_its_name_is_part_of_another(tmp_path: Path) -> None:
    torch.manual_seed(0)
    folded, images = fold(Twice().eval()), random_images(16, SIZE)
    table, source = emit_tflite(folded, SIZE, tmp_path, images), tmp_path / "model.fp32.tflite"
    names = naming(folded, tflite.run_all(source, images[:1].numpy()), images)
    first, second = (next(n for n, layer in names.layers.items() if layer == name) for name in ("first.0", "second.0"))
    assert first in second
    layers = {**plain(folded, table).layers, "first.0": placement.trained_weights(folded)["first.0"]}
    with tflite.quiet():
        litert.quantize(source, placement.quantized_model(folded, table, layers), names, tmp_path / "mixed.tflite")
    written = flatbuffer.read(tmp_path / "mixed.tflite")
    convolutions = [op for op in written.subgraphs[0].operators if flatbuffer.kind(written, op) == "CONV_2D"]
    types = [flatbuffer.tensor(written, op, 1).type for op in convolutions]
    assert types == [flatbuffer.type_of("FLOAT32"), flatbuffer.type_of("INT8")]


class Normed(nn.Module):
    """A layer norm with factors and summands before a Linear, which the converter folds into it."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 16, 4, 4), nn.LayerNorm(16)
        self.wide, self.narrow, self.head = nn.Linear(16, 32, bias), nn.Linear(32, 16), nn.Linear(16, 5)
        nn.init.uniform_(self.norm.weight, 0.2, 3.0)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.narrow(nn.functional.gelu(self.wide(self.norm(x))))
        return self.head(x.mean(1))


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_that_holds_the_end_of_a_layer_norm_gets_its_own_weights_back(tmp_path: Path, bias: bool) -> None:
    torch.manual_seed(0)
    model, images = Normed(bias).eval(), random_images(16, SIZE)
    emit_tflite(fold(model), SIZE, tmp_path, images)
    written = flatbuffer.read(tmp_path / "model.int8.tflite")
    operators_ = [op for op in written.subgraphs[0].operators if flatbuffer.kind(written, op) == "FULLY_CONNECTED"]
    assert [flatbuffer.tensor(written, op, 1).type for op in operators_] == [flatbuffer.type_of("INT8")] * 3
    scales = np.array(flatbuffer.tensor(written, operators_[0], 1).quantization.scale, np.float32)
    assert np.array_equal(scales, affine.weight_scales(model.wide.weight.detach().numpy(), None, 1.0))
    expected = model(images).detach().numpy()
    assert relative_error(run_tflite(tmp_path / "model.int8.tflite", images), expected) < 0.03
    assert relative_error(run_tflite(tmp_path / "model.fp32.tflite", images), expected) < 1e-4


class Shared(nn.Module):
    """A Linear that is read by a Linear and by an addition, as in LeViT: the converter moves its bias into these."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.first = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 16)
        self.wide, self.narrow, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 5)
        nn.init.normal_(self.first.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(nn.functional.hardswish(self.patches(x).flatten(2).transpose(1, 2)))
        x = x + self.narrow(nn.functional.hardswish(self.wide(x)))
        return self.head(x.mean(1))


def test_layers_around_a_tensor_whose_bias_was_moved_compute_in_floating_point(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = Shared().eval(), random_images(16, SIZE)
    folded = fold(model)
    table, source = emit_tflite(folded, SIZE, tmp_path, images), tmp_path / "model.fp32.tflite"
    names = naming(folded, tflite.run_all(source, images[:1].numpy()), images)
    with tflite.quiet():
        lost = litert.quantize(source, plain(folded, table), names, tmp_path / "mixed.tflite")
    assert lost == ["first", "wide"]
    expected = model(images).detach().numpy()
    assert relative_error(run_tflite(tmp_path / "mixed.tflite", images), expected) < 0.03


def named_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def test_strict_parity_has_symmetric_activations(small: tuple, tmp_path: Path) -> None:
    folder, model, table = small
    quantized = placement.quantized_model(fold(model), table, plain(fold(model), table).layers, symmetric=True)
    with tflite.quiet():
        naming = naming_of(folder / "model.fp32.tflite", model)
        litert.quantize(folder / "model.fp32.tflite", quantized, naming, tmp_path / "strict.tflite")
    int8 = [d for d in details(tmp_path / "strict.tflite").values() if d["dtype"] == np.int8]
    assert int8
    assert not any(d["quantization_parameters"]["zero_points"].any() for d in int8)


class NearlyDead(nn.Module):
    """One channel's weights are nearly zero and its bias is large, as in EfficientNet-Lite0."""

    def __init__(self, depthwise: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=8 if depthwise else 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
        self.conv.weight.data[2] = 1e-10
        self.conv.bias.data[2] = 3.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(self.first(x)))


@pytest.mark.parametrize("depthwise", [False, True])
def test_scales_of_nearly_dead_channels_keep_the_int32_bias_from_overflowing(depthwise: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = NearlyDead(depthwise).eval(), random_images(16, SIZE)
    expected = model(images).detach().numpy()
    table = emit_tflite(fold(model), SIZE, tmp_path, images)
    assert relative_error(run_tflite(tmp_path / "model.int8.tflite", images), expected) < 0.03
    quantized, path = plain(fold(model), table), tmp_path / "model.fp32.tflite"
    conv = quantized.layers["conv"]
    tiny = LayerWeights(conv.weight, conv.bias, np.full_like(conv.scales, 1e-12))
    spoilt = placement.quantized_model(fold(model), table, {**quantized.layers, "conv": tiny})
    with pytest.raises(EdgekitError, match="leaves int32"):
        litert.quantize(path, spoilt, naming_of(path, model), tmp_path / "out")


@pytest.mark.parametrize(("form", "held"), [("w8", "FLOAT32"), ("16x8", "INT16")])
def test_other_forms_hold_our_integers_and_compute_more_finely(
    small: tuple, tmp_path: Path, form: str, held: str
) -> None:
    folder, model, table = small
    path, quantized = folder / "model.fp32.tflite", plain(fold(model), table)
    with tflite.quiet():
        litert.quantize(path, quantized, naming_of(path, model), tmp_path / "out.tflite", form)
    written = flatbuffer.read(tmp_path / "out.tflite")
    integers = [bytes(written.buffers[t.buffer].data) for t in written.subgraphs[0].tensors if t.type == INT8]
    for name, layer in quantized.layers.items():
        assert any(sorted(layer.integers.tobytes()) == sorted(found) for found in integers), name
    convolutions = [op for op in written.subgraphs[0].operators if flatbuffer.kind(written, op) == "CONV_2D"]
    assert {flatbuffer.tensor(written, op, 0).type for op in convolutions} == {flatbuffer.type_of(held)}
    images = random_images(32, SIZE)
    assert relative_error(run_tflite(tmp_path / "out.tflite", images), model(images).detach().numpy()) < 0.02


def test_16_bits_cover_what_the_observer_left_out(small: tuple, tmp_path: Path) -> None:
    folder, model, table = small
    path = folder / "model.fp32.tflite"
    narrow = replace(table, ranges={name: Range(span.low / 8, span.high / 8) for name, span in table.ranges.items()})
    with tflite.quiet():
        litert.quantize(path, plain(fold(model), narrow), naming_of(path, model), tmp_path / "out.tflite", "16x8")
    images = random_images(32, SIZE)
    assert relative_error(run_tflite(tmp_path / "out.tflite", images), model(images).detach().numpy()) < 0.02


class Swishing(nn.Module):
    """Hard swishes over large and small values, as in MobileNetV3."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.Hardswish())
        pool = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Sequential(*pool, nn.Linear(16, 12), nn.Hardswish(), nn.Linear(12, 4))
        self.stem[0].weight.data *= 8

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x))


def test_xnnpack_runs_a_hard_swish_of_int8(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, images = Swishing().eval(), random_images(32, SIZE)
    emit_tflite(fold(model), SIZE, tmp_path, images)
    path = tmp_path / "model.int8.tflite"
    around = {"QUANTIZE": 1, "PAD": 1, "CONV_2D": 1, "MEAN": 1, "FULLY_CONNECTED": 2, "DEQUANTIZE": 1}
    assert operators(path) == {**around, "ADD": 2, "MUL": 4}
    assert relative_error(run_tflite(path, images), model(images).detach().numpy()) < 0.03
    said = TfliteRunner(str(path), 1).info()
    assert (said["partitions"], said["delegated_ops"]) == (1, said["ops"])
