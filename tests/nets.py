"""Small networks, and every file that edgekit makes of one, for tests."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from PIL import Image
from skimage import data
from torch import fx, nn
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import Bottleneck, ResNet

from edgekit.convert import onnx, tflite
from edgekit.data.images import fit
from edgekit.models.zoo import ModelRow
from edgekit.ondevice.run_tflite import TfliteRunner
from edgekit.quant import calibrate, flatbuffer, fp16, litert, litert_io, placement, qdq, recover
from edgekit.quant import naming as quant_naming
from edgekit.quant.naming import Naming
from edgekit.quantization import (
    LITERT_SCHEME,
    Border,
    CalibrationRecipe,
    CalibrationSet,
    CalibrationTable,
    QuantizedModel,
    Range,
)
from edgekit.records import Preprocess


def random_images(count: int, size: int, seed: int = 0) -> torch.Tensor:
    """Normalized images (N, 3, size, size): noise of one standard deviation around a colour each."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 3, size, size, generator=generator) / 2
    return noise + torch.randn(count, 3, 1, 1, generator=generator)


def photographs(count: int, preprocess: Preprocess, seed: int = 0) -> np.ndarray:
    """Random square crops of three real photographs, uint8 (N, image_size, image_size, 3)."""
    rng = np.random.default_rng(seed)
    sources = [data.chelsea(), data.coffee(), data.astronaut()]
    crops = []
    for number in range(count):
        pixels = sources[number % len(sources)]
        side = rng.integers(min(pixels.shape[:2]) // 2, min(pixels.shape[:2]))
        top, left = (rng.integers(0, length - side) for length in pixels.shape[:2])
        crops.append(fit(Image.fromarray(pixels[top : top + side, left : left + side]), preprocess))
    return np.stack(crops)


@torch.no_grad()
def settle(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Make a random network behave like a trained one: outputs near 1 that do not amplify noise.

    Batch norms get the statistics of `images`, and a bias of 1 that keeps most activations out of
    the flat part; at a bias of 0 deep random networks are chaotic, and any rounding is lost in it.
    A last layer that starts at zero (the vision transformer's) gets random weights.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.1)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.bias)
            module.reset_running_stats()
            module.momentum = None
    model.train()
    for batch in images.split(16):
        model(batch)
    return model.eval()


def observe(folded: fx.GraphModule, images: torch.Tensor, observer: str = "minmax") -> CalibrationTable:
    """A calibration table of `folded` over `images`."""
    recipe = CalibrationRecipe("test", len(images), observer=observer)
    return calibrate.calibrate(folded, images.split(16), recipe, CalibrationSet((), "samples"), "weights")


def table_of(**ranges: tuple[float, float]) -> CalibrationTable:
    """A calibration table written by hand."""
    return CalibrationTable({name: Range(*span) for name, span in ranges.items()}, "minmax", "test", "samples", "w")


def plain(folded: fx.GraphModule, table: CalibrationTable) -> QuantizedModel:
    """`folded` with every weight rounded to nearest."""
    return recover.recover(folded, table, CalibrationRecipe("plain"), LITERT_SCHEME, torch.empty(0))


def naming(folded: fx.GraphModule, tensors: dict[str, np.ndarray], images: torch.Tensor) -> Naming:
    """What the tensors of an exported graph, run on the first of `images`, are in torch."""
    reference = calibrate.run_all(folded, images[:1])
    trained, affine = placement.trained_weights(folded), placement.affine_before(folded)
    return quant_naming.name_exported(reference, placement.written_by(folded), trained, tensors, affine)


def tiny(num_classes: int) -> nn.Module:
    """A network that learns colours in a second, for a row of `MODELS` of its own."""
    features = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(16, num_classes))


TINY = ModelRow("tests.nets:tiny", "none", "5", Preprocess(32, 36), ("0-1",))


def short_resnet50(num_classes: int) -> nn.Module:
    """ResNet-50's blocks, one in each stage."""
    return ResNet(Bottleneck, [1, 1, 1, 1], num_classes)


def short_densenet(num_classes: int) -> nn.Module:
    """DenseNet-121's blocks, fewer and narrower."""
    return DenseNet(16, (2, 3, 2), 32, num_classes=num_classes)


# Networks that hold every block of a longer one.
SHORT = {
    "short_resnet50": ModelRow("tests.nets:short_resnet50", "none", "fc", Preprocess(64, 72)),
    "short_densenet": ModelRow("tests.nets:short_densenet", "none", "classifier", Preprocess(64, 72)),
}


@dataclass(frozen=True)
class Emitted:
    """The folder of every file of one network, which ONNX nodes are to run in INT8, and the table."""

    folder: Path
    int8_nodes: list[str]
    table: CalibrationTable

    def path(self, name: str) -> Path:
        return self.folder / f"model.{name}"


def emit_float_onnx(folded: fx.GraphModule, size: int, folder: Path) -> Path:
    """Write model.{fp32,fp32.dynamic,fp16}.onnx; returns the path of the first."""
    path = folder / "model.fp32.onnx"
    onnx.export(folded, size, "weights", path, folder / "model.fp32.dynamic.onnx")
    half = ir.load(path)
    fp16.to_fp16(half)
    onnx.save(half, folder / "model.fp16.onnx")
    return path


def emit_onnx(folded: fx.GraphModule, size: int, folder: Path, images: torch.Tensor) -> Emitted:
    """Write model.{fp32,fp32.dynamic,fp16,int8,int8.typed,int8.strict}.onnx, calibrated on `images`."""
    table, path = observe(folded, images), emit_float_onnx(folded, size, folder)
    quantized, names = plain(folded, table), naming(folded, onnx.run_all(path, images[:1].numpy()), images)
    strict = ir.load(path)
    qdq.quantize(strict, placement.quantized_model(folded, table, quantized.layers, True), names, everywhere=True)
    onnx.save(strict, folder / "model.int8.strict.onnx")
    integer = ir.load(path)
    nodes = qdq.quantize(integer, quantized, names)
    onnx.save(integer, folder / "model.int8.onnx")
    fp16.to_fp16(integer)
    onnx.save(integer, folder / "model.int8.typed.onnx")
    return Emitted(folder, nodes, table)


def emit_float_tflite(folded: fx.GraphModule, size: int, folder: Path) -> Path:
    """Write model.{fp32,fp16}.tflite; returns the path of the first."""
    path = folder / "model.fp32.tflite"
    tflite.export(folded, size, path)
    with tflite.quiet():
        litert.to_fp16(path, folder / "model.fp16.tflite")
    return path


def emit_tflite(
    folded: fx.GraphModule, size: int, folder: Path, images: torch.Tensor, table: CalibrationTable | None = None
) -> CalibrationTable:
    """Write model.{fp32,fp16,int8}.tflite with `table`, or calibrated on `images`; returns the table."""
    table, path = table or observe(folded, images), emit_float_tflite(folded, size, folder)
    names = naming(folded, tflite.run_all(path, images[:1].numpy()), images)
    with tflite.quiet():
        litert.quantize(path, plain(folded, table), names, folder / "model.int8.tflite")
    return table


def emit_pixel_tflite(
    folded: fx.GraphModule,
    preprocess: Preprocess,
    folder: Path,
    images: torch.Tensor,
    table: CalibrationTable,
    forms: tuple[str, ...],
) -> None:
    """Write ``pixels.<form>.tflite``, which take bytes, beside the files of `emit_tflite`."""
    names = naming(folded, tflite.run_all(folder / "model.fp32.tflite", images[:1].numpy()), images)
    exact = litert_io.float_first_layer(folded, preprocess)
    rounded = litert_io.quantized_first_layer(folded, preprocess, CalibrationRecipe("plain"), images[:0])
    for form in forms:
        path = folder / f"model.{form}.tflite"
        if not path.exists():
            with tflite.quiet():
                litert.quantize(folder / "model.fp32.tflite", plain(folded, table), names, path, form)
        first = exact if form in ("fp32", "fp16") else rounded
        content = litert_io.rewrite(path.read_bytes(), Border("uint8"), preprocess, first)
        (folder / f"pixels.{form}.tflite").write_bytes(content)


def operators(path: Path) -> Counter[str]:
    """How many operators of each kind a .tflite file has."""
    model = flatbuffer.read(path)
    return Counter(flatbuffer.kind(model, operator) for operator in model.subgraphs[0].operators)


def run_pixels(path: Path, shown: np.ndarray) -> np.ndarray:
    """The outputs of a .tflite file that takes bytes, for uint8 (N, H, W, 3)."""
    runner = TfliteRunner(str(path), 1)
    return np.stack([runner.infer(image[None]) for image in shown])


def run_onnx(path: Path, images: torch.Tensor, optimize: bool = True) -> np.ndarray:
    """The outputs of an ONNX file in ONNX Runtime, one image at a time."""
    session = onnx.session(path, optimize)
    return np.concatenate([session.run(None, {"image": image[None].numpy()})[0] for image in images])


def run_tflite(path: Path, images: torch.Tensor) -> np.ndarray:
    """The outputs of a .tflite file in LiteRT, one image at a time."""
    from ai_edge_litert.interpreter import Interpreter

    with tflite.quiet():
        interpreter = Interpreter(str(path))
        interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for image in images:
        interpreter.set_tensor(source["index"], image[None].permute(0, 2, 3, 1).contiguous().numpy())
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(target["index"]))
    return np.concatenate(outputs)


def cosine(got: np.ndarray, want: np.ndarray) -> float:
    """How well two sets of outputs agree: 1 is equal up to a factor. What all images share is left out."""
    got, want = got - got.mean(0), want - want.mean(0)
    return float((got * want).sum() / (np.linalg.norm(got) * np.linalg.norm(want)))


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference over the largest magnitude."""
    return float(np.abs(got - want).max() / np.abs(want).max())
