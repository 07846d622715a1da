"""Table of networks, one row per architecture. Implementations are named by strings and imported on use.

`row` also knows all other classifiers of torchvision, and those of timm with the prefix ``timm/``; see `catalog`.
"""

from __future__ import annotations

import re
from typing import Any

from edgekit.errors import UsageError
from edgekit.models.model_row import ModelRow
from edgekit.records import Preprocess

_IMAGENET = Preprocess(224, 256)
# These weights were trained with transform_input=True, which converts ImageNet's normalization to the
# (x - 0.5) / 0.5 of TensorFlow; with the latter as preprocessing the network needs no conversion.
_INCEPTION = Preprocess(299, 342, "bilinear", (0.5,) * 3, (0.5,) * 3)


def _bicubic(size: int, resize: int) -> Preprocess:
    return Preprocess(size, resize, "bicubic")


def _lite(size: int) -> Preprocess:
    """TensorFlow's EfficientNet-Lite: (pixel - 127) / 128 (tpu/models/official/efficientnet/lite)."""
    return Preprocess(size, size + 32, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3)


def _torchvision(function: str, weights: str, head: str, preprocess: Preprocess, *stages: str, **more: Any) -> ModelRow:
    source = "torchvision.models:"
    return ModelRow(source + function, f"{source}{weights}_Weights", head, preprocess, stages, **more)


def _resnet(depth: int, parameters: float, macs: float) -> ModelRow:
    stages = ("conv1 bn1 layer1", "layer2", "layer3", "layer4")
    return _torchvision(
        f"resnet{depth}", f"ResNet{depth}", "fc", _IMAGENET, *stages, parameters_m=parameters, macs_g=macs
    )


def _mobilenet_v3(size: str, parameters: float, macs: float, *stages: str) -> ModelRow:
    name, weights = f"mobilenet_v3_{size}", f"MobileNet_V3_{size.title()}"
    return _torchvision(name, weights, "classifier.3", _IMAGENET, *stages, parameters_m=parameters, macs_g=macs)


def _efficientnet(number: int, preprocess: Preprocess, parameters: float, macs: float) -> ModelRow:
    stages = ("features.0-1", "features.2", "features.3", "features.4-5", "features.6-8")
    name, weights = f"efficientnet_b{number}", f"EfficientNet_B{number}"
    return _torchvision(name, weights, "classifier.1", preprocess, *stages, parameters_m=parameters, macs_g=macs)


def _efficientnet_lite(number: int, size: int, parameters: float, macs: float, *stages: str) -> ModelRow:
    module = "edgekit.models.efficientnet_lite:"
    builder, weights = f"{module}efficientnet_lite{number}", f"{module}lite{number}_state_dict"
    return ModelRow(
        builder, weights, "classifier.1", _lite(size), stages, sized=True, parameters_m=parameters, macs_g=macs
    )


def _vgg(depth: int, parameters: float, macs: float, *stages: str) -> ModelRow:
    """Return a VGG. On export its first Linear grows with the size (`fold`, rule 5), above 448 px past 2 GB."""
    name, weights, more = f"vgg{depth}", f"VGG{depth}", {"parameters_m": parameters, "macs_g": macs}
    return _torchvision(name, weights, "classifier.6", _IMAGENET, *stages, most_size=448, **more)


_DEEPER_LITE = ("features.0-4", "features.5-7", "features.8-10", "features.11-18", "features.19-26")
MODELS: dict[str, ModelRow] = {
    "resnet18": _resnet(18, 11.69, 1.814),
    "resnet34": _resnet(34, 21.80, 3.664),
    "resnet50": _resnet(50, 25.56, 4.089),
    "resnet101": _resnet(101, 44.55, 7.801),
    "resnet152": _resnet(152, 60.19, 11.514),
    "mobilenet_v2": _torchvision(
        "mobilenet_v2",
        "MobileNet_V2",
        "classifier.1",
        _IMAGENET,
        *("features.0-1", "features.2-3", "features.4-6", "features.7-13", "features.14-18"),
        parameters_m=3.50,
        macs_g=0.301,
    ),
    "mobilenet_v3_small": _mobilenet_v3(
        *("small", 2.54, 0.057),
        *("features.0-1", "features.2-3", "features.4-8", "features.9-12 classifier.0"),
    ),
    "mobilenet_v3_large": _mobilenet_v3(
        *("large", 5.48, 0.217),
        *("features.0-1", "features.2-3", "features.4-6", "features.7-12", "features.13-16 classifier.0"),
    ),
    "efficientnet_b0": _efficientnet(0, _bicubic(224, 256), 5.29, 0.386),
    "efficientnet_b1": _efficientnet(1, _bicubic(240, 256), 7.79, 0.687),
    "efficientnet_b2": _efficientnet(2, _bicubic(288, 288), 9.11, 1.088),
    "efficientnet_b3": _efficientnet(3, _bicubic(300, 320), 12.23, 1.827),
    "efficientnet_b4": _efficientnet(4, _bicubic(380, 384), 19.34, 4.394),
    "efficientnet_lite0": _efficientnet_lite(
        *(0, 224, 4.65, 0.385),
        *("features.0-4", "features.5-6", "features.7-8", "features.9-14", "features.15-22"),
    ),
    "efficientnet_lite1": _efficientnet_lite(1, 240, 5.42, 0.600, *_DEEPER_LITE),
    "efficientnet_lite2": _efficientnet_lite(2, 260, 6.09, 0.860, *_DEEPER_LITE),
    "vgg16": _vgg(
        *(16, 138.36, 15.470),
        *("features.0-4", "features.5-9", "features.10-16", "features.17-23", "features.24-30 classifier.0-3"),
    ),
    "vgg19": _vgg(
        *(19, 143.67, 19.632),
        *("features.0-4", "features.5-9", "features.10-18", "features.19-27", "features.28-36 classifier.0-3"),
    ),
    "inception_v3": ModelRow(
        "edgekit.models.inception:inception_v3",
        "torchvision.models:Inception_V3_Weights",
        "fc",
        _INCEPTION,
        (
            "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3",
            "Conv2d_3b_1x1 Conv2d_4a_3x3",
            "Mixed_5b Mixed_5c Mixed_5d",
            "Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e",
            "Mixed_7a Mixed_7b Mixed_7c",
        ),
        least_size=75,
        aux="AuxLogits",
        parameters_m=23.83,
        macs_g=5.713,
    ),
    "densenet121": _torchvision(
        "densenet121",
        "DenseNet121",
        "classifier",
        _IMAGENET,
        "features.conv0 features.norm0 features.denseblock1 features.transition1",
        *("features.denseblock2 features.transition2", "features.denseblock3 features.transition3"),
        "features.denseblock4 features.norm5",
        parameters_m=7.98,
        macs_g=2.834,
    ),
    "vit_b_16": _torchvision(
        "vit_b_16",
        "ViT_B_16",
        "heads.head",
        _IMAGENET,
        "conv_proj encoder.layers.encoder_layer_0-2",
        *("encoder.layers.encoder_layer_3-5", "encoder.layers.encoder_layer_6-8"),
        "encoder.layers.encoder_layer_9-11 encoder.ln",
        multiple_of=16,
        sized=True,
        parameters_m=86.57,
        macs_g=17.564,
        note="TensorRT >= 8.6",
    ),
    "swin_t": _torchvision(
        "swin_t",
        "Swin_T",
        "head",
        _bicubic(224, 232),
        *("features.0-1", "features.2-3", "features.4-5", "features.6-7 norm"),
        parameters_m=28.29,
        macs_g=4.491,
        note="TensorRT >= 8.6",
    ),
}


def row(arch: str) -> ModelRow:
    """Return the row of a network of the table, of torchvision, or, as ``timm/NAME``, of timm.

    Raises:
        UsageError: the name is unknown; the hint lists similar ones. MissingError: timm is not installed.
    """
    if arch in MODELS:
        return MODELS[arch]
    from edgekit.models import catalog

    if arch.startswith(catalog.TIMM) or catalog.known(arch):
        return catalog.row(arch)
    raise catalog.unknown(arch, MODELS)


RANGE = re.compile(r"(.*\D|)(\d+)-(\d+)")
_STEPS = (2, 4, 7, 8, 14, 16, 28, 32, 56, 64)  # of the sizes that networks take


def preprocess_for(arch: str, image_size: int | None, resize: str | None = None, **more: Any) -> Preprocess:
    """Return the preprocessing of `arch` at `image_size`, None for the native size.

    The ratio of resize and crop stays as in the pretrained preprocessing.

    Args:
        resize: one of `records.RESIZES`, None for that of the pretrained preprocessing. more: other fields of
            `Preprocess` that do not depend on the network.
    Raises:
        UsageError: the network does not support this size; the hint names the nearest one that it does.
    """
    found = row(arch)
    native, step = found.preprocess, found.multiple_of
    size = native.image_size if image_size is None else image_size
    nearest = min(max(-(-found.least_size // step), round(size / step)), found.most_size // step) * step
    if not found.least_size <= size <= found.most_size:
        raise UsageError(
            f"{arch} takes image sizes of {found.least_size} to {found.most_size} px, not {size}",
            f"use --image-size {nearest}",
        )
    if size % step:
        raise UsageError(
            f"{arch} takes image sizes that are multiples of {step}, not {size}", f"use --image-size {nearest}"
        )
    if size != native.image_size and found.accepts and not found.accepts(size):
        raise UsageError(f"{arch} does not take images of {size} px", f"use --image-size {_nearest(found, size)}")
    resize = resize or native.resize
    shorter = max(size, round(size * native.resize_size / native.image_size)) if resize == "crop" else size
    return Preprocess(size, shorter, native.resample, native.mean, native.std, resize, **more)


def _nearest(found: ModelRow, size: int) -> int:
    """Return the size nearest to one that a network does not take, of the usual ones: found by trying."""
    assert found.accepts
    usual = {step * factor for step in _STEPS for factor in (size // step, size // step + 1)}
    possible = [s for s in usual if found.least_size <= s <= found.most_size]
    native = found.preprocess.image_size
    near = sorted(possible, key=lambda other: (abs(other - size), other))
    return next((other for other in near if other == native or found.accepts(other)), native)
