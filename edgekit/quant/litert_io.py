"""Input and output of LiteRT files: RGB bytes in, normalized inside the file, and scores out.

The normalization costs almost nothing. Its factors go into the weights of the first layer, which then takes pixels
less 255 times their mean (`pixel_layer`). The means go

1. into the zero point of the input, if all channels have the same whole number of 255ths (EfficientNet-Lite);
2. else, in a file that computes in floating point, into one SUB; padding with zeros after it is right;
3. else, in an INT8 file, into the first layer's bias. The pixels that its padding adds are then written out as the
   means, rounded to whole numbers. All pixels are exact, while a normalized tensor has steps of more than one.

If the image goes into anything other than a convolution that the file holds as trained, a SUB and a MUL are put in
front.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from edgekit.errors import UsageError
from edgekit.quant import flatbuffer, litert, operators, recover
from edgekit.quant.naming import Naming
from edgekit.quantization import Border, CalibrationRecipe, CalibrationTable, Grid, LayerWeights, QuantScheme
from edgekit.records import Preprocess

# The value of a black pixel.
_BLACK = {"uint8": 0, "int8": -128}
_SAME = 0  # Padding.SAME


def rewrite(
    content: bytes,
    border: Border,
    preprocess: Preprocess,
    first: LayerWeights | None = None,
    naming: Naming | None = None,
) -> bytes:
    """Return a LiteRT file with the input and output types of `border` and the signature ``image -> scores``.

    Args:
        content: a file that takes normalized images and has float32 input and output.
        first: weights of its first layer on pixels less 255 times the mean, for a border that takes pixels; with
            scales if the file's first layer has integers.
        naming: torch names of the float file's tensors; tensors are renamed to them, so that profiles are readable.
    Raises:
        UsageError: integer output is wanted of a file that computes its scores in floating point.
    """
    model = flatbuffer.parse(content)
    if naming is not None:
        _name_tensors(model, naming)
    litert.pad_with_zeros(model)
    if border.input != "float32":
        _take_pixels(model, border.input, preprocess, first)
    if border.output != "float32":
        _give_integers(model, border.output)
    _name(model)
    return flatbuffer.serialize(model)


def begins_with(float_path: Path, layer: LayerWeights) -> bool:
    """Return whether a float file begins with this layer as it is, with nothing that follows folded into it."""
    model = flatbuffer.read(float_path)
    found = _first_layer(model, model.subgraphs[0].inputs[0])
    if found is None:
        return False
    weight, bias = flatbuffer.constant(model, found, 1), flatbuffer.constant(model, found, 2)
    wanted = layer.weight.transpose(0, 2, 3, 1).ravel()
    plain = np.zeros(len(layer.weight), np.float32) if layer.bias is None else layer.bias
    return (
        weight is not None
        and bias is not None
        and weight.size == wanted.size
        and np.allclose(weight, wanted, rtol=1e-5, atol=1e-6 * np.abs(wanted).max())
        and np.allclose(bias, plain, rtol=1e-5, atol=1e-6)
    )


def pixel_layer(folded: fx.GraphModule, preprocess: Preprocess) -> nn.Sequential | None:
    """Return a copy of the first convolution, and of a padding before it, that takes pixels less 255 times their mean.

    Returns None if the image goes into something else, or into a grouped convolution.
    """
    (image,) = (node for node in folded.graph.nodes if node.op == "placeholder")
    found: list[nn.Module] = []
    node = image
    while len(node.users) == 1 and not (found and isinstance(found[-1], nn.Conv2d)):
        node = next(iter(node.users))
        module = operators.module_of(folded, node)
        if not isinstance(module, nn.ZeroPad2d | nn.Conv2d):
            break
        found.append(copy.deepcopy(module))
    if not found or not isinstance(found[-1], nn.Conv2d) or found[-1].groups > 1:
        return None
    layer = found[-1]
    with torch.no_grad():
        layer.weight.div_(255 * torch.tensor(preprocess.std)[:, None, None])
        if layer.bias is None:
            layer.bias = nn.Parameter(torch.zeros(layer.out_channels))
    return nn.Sequential(*found).eval()


def exported_first_layer(folded: fx.GraphModule) -> LayerWeights | None:
    """Return the float weights of the first convolution on normalized images; None if `pixel_layer` is None."""
    unchanged = Preprocess(32, 32, mean=(0, 0, 0), std=(1 / 255, 1 / 255, 1 / 255))
    return float_first_layer(folded, unchanged)


def float_first_layer(folded: fx.GraphModule, preprocess: Preprocess) -> LayerWeights | None:
    """Return the float weights of `pixel_layer`."""
    layers = pixel_layer(folded, preprocess)
    if layers is None:
        return None
    layer = layers[-1]
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    return LayerWeights(layer.weight.detach().numpy(), layer.bias.detach().numpy())


def quantized_first_layer(
    folded: fx.GraphModule, preprocess: Preprocess, recipe: CalibrationRecipe, images: torch.Tensor
) -> LayerWeights | None:
    """Return the int8 weights of `pixel_layer`, made by the same recipe as all others; pixels need no rounding.

    Args:
        images: normalized float32 (N, 3, H, W), from the calibration set; only recovery steps use them.
    """
    layers = pixel_layer(folded, preprocess)
    if layers is None:
        return None
    no_ranges = CalibrationTable({}, "", "", "", "")
    pixels = images * (255 * torch.tensor(preprocess.std)[:, None, None])
    scheme = QuantScheme(symmetric=False, everywhere=True)
    (found,) = recover.recover(fx.symbolic_trace(layers), no_ranges, recipe, scheme, pixels).layers.values()
    return found


@dataclass(frozen=True)
class _Means:
    """Destination of the means, by the rules of this module.

    Attributes:
        zero: the byte that stands for zero (rule 1; else 0). in_bias: they go into the first layer's bias.
        in_sub: they go into a SUB. grid: of the integer image inside the file.
    """

    zero: int
    in_bias: bool
    in_sub: bool
    grid: Grid


def _means(center: np.ndarray, in_bytes: bool, pads: bool) -> _Means:
    """Apply the rules of this module; `center` is the mean of each channel in pixels (3,)."""
    whole = bool(np.ptp(center) == 0 and center[0] == round(center[0]))
    zero = round(center[0]) if whole else 0
    in_bias = not whole and (in_bytes or not pads)
    farthest = 255.0 if in_bias else float(np.abs(np.stack([center, 255 - center])).max())
    grid = Grid(1.0, _BLACK["int8"] + zero) if in_bytes else Grid(farthest / 32767, 0)
    return _Means(zero, in_bias, not (whole or in_bias), grid)


def _take_pixels(model: Any, bytes_: str, preprocess: Preprocess, first: LayerWeights | None) -> None:
    """Make the model normalize bytes by itself."""
    graph = model.subgraphs[0]
    image, center = graph.inputs[0], np.asarray(preprocess.mean) * 255
    reader = _reader(model, image)
    quantize = reader if reader is not None and flatbuffer.kind(model, reader) == "QUANTIZE" else None
    inside = image if quantize is None else quantize.outputs[0]
    layer = _first_layer(model, inside)
    if layer is None or first is None or center.min() < 0 or center.max() > 255:
        _widen(model, bytes_, 0, [("SUB", center), ("MUL", 1 / (255 * np.asarray(preprocess.std)))])
        return
    in_bytes = graph.tensors[inside].type == flatbuffer.type_of("INT8")
    means = _means(center, in_bytes, _pads(layer, inside))
    if means.in_bias:
        first = _on_pixels(first, center)
    if quantize is not None:
        for number in {inside, layer.inputs[0]}:
            flatbuffer.set_grid(graph.tensors[number], means.grid)
    litert.write_weights(model, layer, first)
    litert.write_bias(model, layer, first, means.grid.scale)
    if not in_bytes:
        _widen(model, bytes_, means.zero, [("SUB", center)] if means.in_sub else [])
        return
    if means.in_bias and _pads(layer, inside):
        _write_padding_out(model, inside, layer, center)
    if bytes_ == "int8":
        graph.operators.remove(quantize)
        graph.inputs = [inside]
    else:
        assert quantize is not None
        # One QUANTIZE would do, but XNNPACK has none that changes the sign; without it, it takes 3 % of MobileNetV2.
        graph.tensors[image].type = flatbuffer.type_of("UINT8")
        flatbuffer.set_grid(graph.tensors[image], Grid(1.0, means.zero))
        shape = tuple(int(size) for size in graph.tensors[image].shape)
        quantize.inputs = [flatbuffer.add_tensor(model, "pixels", shape, "FLOAT32")]
        position = graph.operators.index(quantize)
        graph.operators.insert(position, flatbuffer.add_operator(model, "DEQUANTIZE", [image], quantize.inputs[0]))


def _pads(layer: Any, inside: int) -> bool:
    """Return whether zeros are put around the image, by the first layer or by an operator before it."""
    return layer.inputs[0] != inside or layer.builtinOptions.padding == _SAME


def _reader(model: Any, number: int) -> Any:
    """Return the operator that reads a tensor, if it is only one."""
    readers = [op for op in model.subgraphs[0].operators if number in op.inputs]
    return readers[0] if len(readers) == 1 else None


def _first_layer(model: Any, inside: int) -> Any:
    """Return the convolution with a bias that reads the image, directly or through zero padding; else None."""
    found = _reader(model, inside)
    if found is not None and flatbuffer.kind(model, found) == "PAD":
        found = _reader(model, found.outputs[0])
    plain = found is not None and flatbuffer.kind(model, found) == "CONV_2D" and len(found.inputs) > 2
    return found if plain else None


def _on_pixels(first: LayerWeights, center: np.ndarray) -> LayerWeights:
    """Return the layer for raw pixels: the means, times the rounded weights, go into its bias."""
    off = (first.weight.astype(np.float64).sum((2, 3)) * center).sum(1)
    return replace(first, bias=((0.0 if first.bias is None else first.bias) - off).astype(np.float32))


def _write_padding_out(model: Any, inside: int, layer: Any, center: np.ndarray) -> None:
    """Replace a PAD and the convolution's own padding by two CONCATENATIONs with constants around the image."""
    graph, options = model.subgraphs[0], layer.builtinOptions
    sides = np.zeros((2, 2), int)
    place = graph.operators.index(layer)
    if layer.inputs[0] != inside:
        pad = _reader(model, inside)
        around = flatbuffer.constant(model, pad, 1, np.int32)
        assert around is not None
        sides += around.reshape(4, 2)[1:3]
        place = graph.operators.index(pad)
        graph.operators.remove(pad)
    if options.padding == _SAME:
        kernel = flatbuffer.tensor(model, layer, 1).shape[1:3]
        sizes = np.asarray(graph.tensors[inside].shape[1:3]) + sides.sum(1)
        strides, dilations = (options.strideH, options.strideW), (options.dilationHFactor, options.dilationWFactor)
        sides += [_same(*each) for each in zip(sizes.tolist(), kernel, strides, dilations)]
        options.padding = 1 - _SAME
    colour = np.rint(center).astype(int) - 128
    rows = _surrounded(model, inside, 1, sides[0], colour)
    columns = _surrounded(model, rows.outputs[0], 2, sides[1], colour)
    graph.operators[place:place] = [rows, columns]
    layer.inputs[0] = columns.outputs[0]


def _same(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return the padding before and after that SAME means, as TensorFlow defines it."""
    missing = max(0, (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size)
    return missing // 2, missing - missing // 2


def _surrounded(model: Any, number: int, axis: int, sides: np.ndarray, colour: np.ndarray) -> Any:
    """Return an operator that puts lines of a colour before and after an int8 image, along an axis."""
    tensors, grid = model.subgraphs[0].tensors, Grid(1.0, -128)
    shape = [int(size) for size in tensors[number].shape]
    parts = []
    for place, count in zip(("before", "behind"), sides.tolist()):
        lines = (*shape[:axis], count, *shape[axis + 1 :])
        name = f"padding {place}, axis {axis}"
        constant = np.broadcast_to(colour, lines)
        parts.append(flatbuffer.add_tensor(model, name, lines, "INT8", grid, constant) if count else -1)
    shape[axis] += int(sides.sum())
    padded = flatbuffer.add_tensor(model, f"padded, axis {axis}", tuple(shape), "INT8", grid)
    inputs = [n for n in (parts[0], number, parts[1]) if n >= 0]
    return flatbuffer.add_operator(model, "CONCATENATION", inputs, padded, axis=axis)


def _widen(model: Any, bytes_: str, zero: int, steps: list[tuple[str, np.ndarray]]) -> None:
    """Make the float image from bytes: a DEQUANTIZE whose zero point is `zero`, then operators with constants."""
    graph = model.subgraphs[0]
    image = graph.inputs[0]
    shape = tuple(int(size) for size in graph.tensors[image].shape)
    given = flatbuffer.add_tensor(model, "image", shape, bytes_.upper(), Grid(1.0, _BLACK[bytes_] + zero))
    graph.inputs = [given]
    tensors = [flatbuffer.add_tensor(model, f"before {name}", shape, "FLOAT32") for name, _ in steps] + [image]
    added = [flatbuffer.add_operator(model, "DEQUANTIZE", [given], tensors[0])]
    for (name, values), source, target in zip(steps, tensors, tensors[1:]):
        lines = (1, 1, *shape[2:])  # XNNPACK is slower with one value per channel than with a line of pixels
        constant = flatbuffer.add_tensor(model, f"{name} by", lines, "FLOAT32", data=np.broadcast_to(values, lines))
        added.append(flatbuffer.add_operator(model, name, [source, constant], target, fusedActivationFunction=0))
    graph.operators[:0] = added


def _give_integers(model: Any, bytes_: str) -> None:
    """Output the scores as the integers that the file computes.

    Raises:
        UsageError: the file computes its scores in another type.
    """
    graph = model.subgraphs[0]
    last = next((op for op in graph.operators if graph.outputs[0] in op.outputs), None)
    inside: Any = None if last is None else graph.tensors[last.inputs[0]]
    if last is None or flatbuffer.kind(model, last) != "DEQUANTIZE" or inside.type != flatbuffer.type_of("INT8"):
        raise UsageError("this file computes its scores in floating point and cannot output integers", "--output float")
    graph.operators.remove(last)
    graph.outputs = [last.inputs[0]]
    if bytes_ == "uint8":
        grid = Grid(float(inside.quantization.scale[0]), int(inside.quantization.zeroPoint[0]) + 128)
        shape = tuple(int(size) for size in inside.shape)
        graph.outputs = [flatbuffer.add_tensor(model, "scores", shape, "UINT8", grid)]
        graph.operators.append(flatbuffer.add_operator(model, "QUANTIZE", [last.inputs[0]], graph.outputs[0]))


def _name_tensors(model: Any, naming: Naming) -> None:
    """Give tensors and constants their torch names, each name once."""
    graph, given = model.subgraphs[0], set()

    def rename(tensor: Any, name: str) -> None:
        if name not in given:
            given.add(name)
            tensor.name = name.encode()

    for op in graph.operators:
        target = graph.tensors[op.outputs[0]]
        known = target.name.decode()
        for index, part in ((1, "weight"), (2, "bias")):
            if known in naming.layers and (held := flatbuffer.tensor(model, op, index)) is not None:
                rename(held, f"{naming.layers[known]}.{part}")
        if known in naming.tensors and op.outputs[0] not in graph.outputs:
            rename(target, naming.tensors[known])


def _name(model: Any) -> None:
    """Name the input ``image`` and the output ``scores``, also in the only signature."""
    graph = model.subgraphs[0]
    (signature,) = model.signatureDefs
    for tensors, mapped, name in (
        (graph.inputs, signature.inputs, b"image"),
        (graph.outputs, signature.outputs, b"scores"),
    ):
        graph.tensors[tensors[0]].name = name
        mapped[0].name, mapped[0].tensorIndex = name, tensors[0]
