"""What goes into a LiteRT file and comes out: bytes give the answers that normalized images give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.convert import tflite
from edgekit.convert.fold import fold
from edgekit.errors import UsageError
from edgekit.models.build import normalize
from edgekit.ondevice.preprocess import prepare
from edgekit.ondevice.run_tflite import TfliteRunner
from edgekit.quant import flatbuffer, litert, litert_io, placement
from edgekit.quantization import Border, CalibrationRecipe
from edgekit.records import Preprocess
from tests import nets

pytestmark = [pytest.mark.xdist_group("litert"), pytest.mark.filterwarnings("ignore")]
SIZE = 32
IMAGENET = Preprocess(SIZE, SIZE)
LITE = Preprocess(SIZE, SIZE, mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
FORMS = ("fp32", "fp16", "int8", "w8", "16x8")
# The largest difference from torch, relative to the largest answer.
ALLOWED = {"fp32": 1e-5, "fp16": 3e-3, "int8": 0.04, "w8": 0.02, "16x8": 0.02}


def network(first: nn.Conv2d) -> nn.Module:
    """A first layer, and enough behind it that every of its outputs counts, those at the border too."""
    head = (nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    made = nn.Sequential(first, *head)
    made(torch.zeros(1, 3, SIZE, SIZE))
    return made.eval()


# What a first layer may look like in LiteRT: padded by an operator of its own, by itself, or not at all.
LAYERS = {
    "padded": lambda: nn.Conv2d(3, 8, 3, 2, 1),
    "wide": lambda: nn.Conv2d(3, 8, 7, 2, 3),
    "same": lambda: nn.Conv2d(3, 8, 3, 1, 1),
    "unpadded": lambda: nn.Conv2d(3, 8, 4, 4),
}


@dataclass(frozen=True)
class Case:
    """A network, its files with normalized input, its first layer on pixels, images and what torch says of them."""

    folder: Path
    preprocess: Preprocess
    first: dict[str, object]
    shown: np.ndarray
    expected: np.ndarray


def make(layer: str, preprocess: Preprocess, folder: Path) -> Case:
    torch.manual_seed(0)
    folder.mkdir()
    shown = nets.photographs(16, preprocess)
    shown[0], shown[1] = 255, 0  # white and black: where padding with anything but the mean shows
    images = normalize(torch.from_numpy(shown), preprocess).contiguous()
    model = network(LAYERS[layer]())
    folded = fold(model, SIZE)
    path, table = nets.emit_float_tflite(folded, SIZE, folder), nets.observe(folded, images)
    names = nets.naming(folded, tflite.run_all(path, images[2:3].numpy()), images[2:])
    for form in litert.FORMS:
        with tflite.quiet():
            litert.quantize(path, nets.plain(folded, table), names, folder / f"model.{form}.tflite", form)
    exact, rounded = (
        litert_io.float_first_layer(folded, preprocess),
        litert_io.quantized_first_layer(folded, preprocess, CalibrationRecipe("nearest"), images[:0]),
    )
    first = {form: exact if form in ("fp32", "fp16") else rounded for form in FORMS}
    return Case(folder, preprocess, first, shown, model(images).detach().numpy())


Cases = Callable[[str, Preprocess], Case]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    """Makes each case once."""
    return cache(lambda layer, preprocess: make(layer, preprocess, tmp_path_factory.mktemp("io") / "case"))


@pytest.fixture(params=[*((name, IMAGENET) for name in LAYERS), ("padded", LITE)], ids=[*LAYERS, "lite"])
def case(request: pytest.FixtureRequest, cases: Cases) -> Case:
    return cases(*request.param)


def written(case: Case, form: str, border: Border) -> Path:
    path = case.folder / f"{form}.{border.input}.{border.output}.tflite"
    content = (case.folder / f"model.{form}.tflite").read_bytes()
    path.write_bytes(litert_io.rewrite(content, border, case.preprocess, case.first[form]))
    return path


def answers(path: Path, case: Case, taken: str) -> np.ndarray:
    """Logits, through the runner that travels to devices."""
    runner = TfliteRunner(str(path), 1)
    feed = {"mean": case.preprocess.mean, "std": case.preprocess.std, "layout": "NHWC", "input": taken}
    assert runner.model.input["dtype"].__name__ == taken
    return np.stack([runner.infer(prepare(image, feed)) for image in case.shown])


def operators(path: Path) -> list[str]:
    model = flatbuffer.read(path)
    return [flatbuffer.kind(model, op) for op in model.subgraphs[0].operators]


@pytest.mark.parametrize("taken", ["uint8", "int8"])
@pytest.mark.parametrize("form", FORMS)
def test_bytes_give_the_answers_of_torch(case: Case, form: str, taken: str) -> None:
    got = answers(written(case, form, Border(taken)), case, taken)
    assert nets.relative_error(got, case.expected) < ALLOWED[form]


@pytest.mark.parametrize("form", FORMS)
def test_both_kinds_of_bytes_are_the_same_image(case: Case, form: str) -> None:
    one, other = (answers(written(case, form, Border(taken)), case, taken) for taken in ("uint8", "int8"))
    assert np.array_equal(one, other)


def test_what_is_normalized_outside_stays_as_it_was(case: Case) -> None:
    before = answers(case.folder / "model.int8.tflite", case, "float32")
    assert np.array_equal(answers(written(case, "int8", Border()), case, "float32"), before)


@pytest.mark.parametrize("given", ["int8", "uint8"])
def test_integer_scores_mean_what_float_scores_say(case: Case, given: str) -> None:
    path = written(case, "int8", Border("uint8", given))
    got, plain = answers(path, case, "uint8"), answers(written(case, "int8", Border("uint8")), case, "uint8")
    assert TfliteRunner(str(path), 1).model.output["dtype"].__name__ == given
    assert got == pytest.approx(plain, abs=1e-5)


def test_pixels_lose_nothing_on_their_way_into_an_int8_file(cases: Cases) -> None:
    """A grid over normalized values has steps of more than one pixel; on pixels the first layer sees each as it is."""
    case = cases("padded", IMAGENET)
    outside = answers(written(case, "int8", Border()), case, "float32")
    inside = answers(written(case, "int8", Border("uint8")), case, "uint8")
    off, less = (np.square(got - case.expected).sum() for got in (outside, inside))
    assert less < off * 1.1


@pytest.mark.parametrize(
    ("layer", "preprocess", "form", "expected"),
    [
        ("padded", LITE, "fp32", ["DEQUANTIZE", "PAD"]),
        ("padded", LITE, "int8", ["DEQUANTIZE", "QUANTIZE", "PAD"]),
        ("padded", IMAGENET, "fp32", ["DEQUANTIZE", "SUB", "PAD"]),
        ("padded", IMAGENET, "int8", ["DEQUANTIZE", "QUANTIZE", "CONCATENATION", "CONCATENATION"]),
        ("same", IMAGENET, "int8", ["DEQUANTIZE", "QUANTIZE", "CONCATENATION", "CONCATENATION"]),
        ("unpadded", IMAGENET, "fp32", ["DEQUANTIZE"]),
        ("unpadded", IMAGENET, "int8", ["DEQUANTIZE", "QUANTIZE"]),
        ("padded", IMAGENET, "16x8", ["DEQUANTIZE", "SUB", "QUANTIZE", "PAD"]),
    ],
)
def test_what_stands_before_the_first_layer(
    layer: str, preprocess: Preprocess, form: str, expected: list[str], cases: Cases
) -> None:
    """The rules of `litert_io`."""
    case = cases(layer, preprocess)
    found = operators(written(case, form, Border("uint8")))
    assert found[: found.index("CONV_2D")] == expected
    if form == "int8":
        full = operators(written(case, form, Border("int8", "int8")))
        assert full[: full.index("CONV_2D")] == expected[2:]
        assert full[-1] == "FULLY_CONNECTED"


def test_the_signature_and_the_tensors_are_called_image_and_scores(cases: Cases) -> None:
    case = cases("padded", IMAGENET)
    for border in (Border(), Border("uint8"), Border("int8", "uint8")):
        interpreter = TfliteRunner(str(written(case, "int8", border)), 1).model.interpreter
        assert interpreter.get_signature_list() == {"serving_default": {"inputs": ["image"], "outputs": ["scores"]}}
        assert interpreter.get_input_details()[0]["name"] == "image"
        assert interpreter.get_output_details()[0]["name"] == "scores"


class Mixed(nn.Module):
    """No convolution reads the image alone."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, 1, 1), nn.Linear(4 * SIZE * SIZE, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head((torch.relu(self.one(x)) + self.other(x)).flatten(1))


@pytest.mark.parametrize("form", ["fp32", "int8"])
def test_a_network_that_does_not_begin_with_a_convolution_normalizes_in_front(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shown = nets.photographs(8, IMAGENET)
    images = normalize(torch.from_numpy(shown), IMAGENET).contiguous()
    model = Mixed().eval()
    folded = fold(model, SIZE)
    assert litert_io.float_first_layer(folded, IMAGENET) is None
    nets.emit_tflite(folded, SIZE, tmp_path, images)
    case = Case(tmp_path, IMAGENET, {form: None}, shown, model(images).detach().numpy())
    path = written(case, form, Border("uint8"))
    assert operators(path)[:3] == ["DEQUANTIZE", "SUB", "MUL"]
    assert nets.relative_error(answers(path, case, "uint8"), case.expected) < ALLOWED[form]


@pytest.mark.parametrize("form", ["fp32", "w8", "16x8"])
def test_integer_scores_out_of_a_file_without_any_are_refused(form: str, cases: Cases) -> None:
    case = cases("unpadded", IMAGENET)
    with pytest.raises(UsageError, match="computes its scores in floating point"):
        written(case, form, Border("float32", "int8"))


@pytest.mark.parametrize("change", [{"input": "float16"}, {"output": "int4"}])
def test_an_unknown_border_lists_the_known_ones(change: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=r"unknown (input|output)"):
        Border(**change)


def emitted(model: nn.Module, preprocess: Preprocess, folder: Path, forms: tuple[str, ...], kept: str = "") -> Case:
    """Files of a network, a layer `kept` in floating point, and its first layer as an export has it."""
    shown = nets.photographs(8, preprocess)
    shown[0], shown[1] = 255, 0
    images = normalize(torch.from_numpy(shown), preprocess).contiguous()
    model = model.eval()
    with torch.no_grad():
        expected = model(images).numpy()
    folded = fold(model, SIZE)
    path, table = nets.emit_float_tflite(folded, SIZE, folder), nets.observe(folded, images)
    names = nets.naming(folded, tflite.run_all(path, images[2:3].numpy()), images[2:])
    quantized = nets.plain(folded, table)
    exact, exported = litert_io.float_first_layer(folded, preprocess), litert_io.exported_first_layer(folded)
    layers = {n: placement.trained_weights(folded)[n] if n == kept else layer for n, layer in quantized.layers.items()}
    for form in set(forms) & set(litert.FORMS):
        with tflite.quiet():
            whole = placement.with_changes(folded, quantized, layers)
            litert.quantize(path, whole, names, folder / f"model.{form}.tflite", form)
    rounded = litert_io.quantized_first_layer(folded, preprocess, CalibrationRecipe("nearest"), images[:0])
    plain = exported is not None and litert_io.begins_with(path, exported)
    of = {form: exact if form in ("fp32", "fp16") or kept else rounded for form in forms}
    return Case(folder, preprocess, of if plain else dict.fromkeys(forms), shown, expected)


def seeded(*layers: nn.Module) -> nn.Module:
    head = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(3))
    head(torch.zeros(1, 3, SIZE, SIZE))
    return head


class Scaled(nn.Module):
    """A first layer whose outputs are scaled: converters fold that into it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8 * 16 * 16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.first(x) * 3).flatten(1))


ODD = Preprocess(SIZE, SIZE, mean=(128 / 255,) * 3, std=(0.5,) * 3)
OUTSIDE = Preprocess(SIZE, SIZE, mean=(1.2, -0.3, 2.0), std=(0.5,) * 3)
# Networks whose first layer is not what it seems, how they normalize, and the forms that are made of them.
STRANGE = {
    "a bias of zeros that two layers share": (
        lambda: seeded(nn.Conv2d(3, 8, 4, 4, bias=False), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False)),
        IMAGENET,
        FORMS,
    ),
    "a factor that is folded into it": (Scaled, IMAGENET, ("fp32", "fp16")),
    "a hard sigmoid behind it": (lambda: seeded(nn.Conv2d(3, 8, 3, 2, 1), nn.Hardsigmoid()), IMAGENET, FORMS),
    "a padding before one that pads": (
        lambda: seeded(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU()),
        IMAGENET,
        ("fp32", "int8"),
    ),
    "groups": (lambda: seeded(nn.Conv2d(3, 9, 3, 2, 1, groups=3), nn.ReLU()), IMAGENET, ("fp32", "int8")),
    "a mean of 128": (lambda: seeded(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()), ODD, FORMS),
    "means that are no colour": (lambda: seeded(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()), OUTSIDE, ("fp32", "int8")),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_a_first_layer_that_is_not_what_it_seems_is_not_harmed(strange: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, preprocess, forms = STRANGE[strange]
    case = emitted(build(), preprocess, tmp_path, forms)
    for form in forms:
        for taken in ("uint8", "int8"):
            got = answers(written(case, form, Border(taken)), case, taken)
            assert nets.relative_error(got, case.expected) < ALLOWED[form], (form, taken)


def test_a_first_layer_that_stays_in_floating_point_does_so_with_its_padding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    case = emitted(seeded(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU()), IMAGENET, tmp_path, ("int8",), kept="0")
    path = written(case, "int8", Border("uint8"))
    assert operators(path)[:4] == ["DEQUANTIZE", "SUB", "PAD", "CONV_2D"]
    assert nets.relative_error(answers(path, case, "uint8"), case.expected) < 0.01


@pytest.mark.parametrize(("activation", "expected"), [(nn.ReLU(), "PAD"), (nn.Identity(), "PADV2")])
def test_a_pool_behind_a_relu_is_padded_with_zeros(activation: nn.Module, expected: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = seeded(nn.Conv2d(3, 8, 4, 4), activation, nn.MaxPool2d(3, 2, 1))
    case = emitted(network, IMAGENET, tmp_path, ("fp32", "int8"))
    for form in ("fp32", "int8"):
        path = written(case, form, Border("uint8"))
        found = operators(path)
        assert found[found.index("MAX_POOL_2D") - 1] == expected
        assert nets.relative_error(answers(path, case, "uint8"), case.expected) < ALLOWED[form]
