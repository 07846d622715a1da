"""Options of a training run. ``edgekit train`` has one command-line option for each field."""

from __future__ import annotations

import math
from dataclasses import Field, dataclass, field, fields
from typing import Any

from edgekit.data import values
from edgekit.data.columns import Columns
from edgekit.data.columns import parsed as columns_of
from edgekit.data.division import SPLIT, Division, parse_division
from edgekit.data.layout import LAYOUTS
from edgekit.errors import UsageError, unknown
from edgekit.models import zoo
from edgekit.records import MOST_THREADS, RESIZES, Preprocess

STRATEGIES = ("auto", "head", "partial", "full", "scratch")
AUGMENTS = ("none", "light", "randaugment")
MIXES = ("none", "mixup", "cutmix", "both")
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "plateau", "constant")
IMBALANCES = ("auto", "none", "weights", "focal", "sampling")
MONITORS = ("top1", "macro_f1", "loss")
AMPS = ("auto", "off", "bf16", "fp16")
DEVICES = ("auto", "cpu", "cuda")
# Default peak learning rates of AdamW; SGD with momentum uses ten times as much.
_LR = {"head": 3e-3, "partial": 1e-3, "full": 1e-3, "scratch": 2e-3, "auto": 1e-3}


# Options whose default is the network's own -> attributes of its `Preprocess`; and what that is for most networks.
_OF_THE_MODEL = {"resize": "resize", "background": "background_name"}
_USUAL = {"resize": "crop", "background": "white"}
_TRAINED, _DATA, _OPTIMISATION = "What to train", "Data", "Optimisation"
_REGULARISATION, _SPEED, _OUTPUT = "Regularisation", "Speed", "Output"
# Headings of ``edgekit train --help``, in order.
PANELS = (_TRAINED, _DATA, _OPTIMISATION, _REGULARISATION, _SPEED, _OUTPUT)


def _option(panel: str, default: Any, text: str, known: tuple[str, ...] = ()) -> Any:
    """Define a field that is an option of ``edgekit train``.

    Args:
        panel: heading of the help under which the option is listed, one of `PANELS`.
        text: help, a noun phrase. known: the allowed values, which the help appends to `text`.
    """
    return field(default=default, metadata={"help": text, "known": known, "panel": panel})


def _later(panel: str, default: Any, text: str, known: tuple[str, ...] = ()) -> Any:
    """Define a field as `_option` does, which saved states of earlier versions do not know; see `identity`."""
    return field(default=default, repr=False, metadata={"help": text, "known": known, "panel": panel})


@dataclass(frozen=True)
class TrainOptions:
    """Options of one training run.

    Learning rates are per step, fractions lie between 0 and 1, sizes are in pixels.

    Raises:
        UsageError: a value is unknown or outside its limits, or two options exclude each other.
    """

    arch: str
    strategy: str = _option(_TRAINED, "auto", "Part of the network to train", STRATEGIES)
    epochs: int = _option(_OPTIMISATION, 10, "Number of passes over the training images.")
    batch_size: int = _option(_OPTIMISATION, 32, "Images per step, summed over all processes.")
    image_size: int | None = _option(_DATA, None, "Input size in pixels. Default: the model's own.")
    resize: str | None = _later(
        _DATA,
        None,
        "Way to a square: crop the centre, squash the shape, or letterbox with bars. Default: the model's own",
        RESIZES,
    )
    background: str | None = _later(
        _DATA,
        None,
        "Colour under transparent parts and in letterbox bars: white, black or '#rrggbb'. Default: white, or the "
        "model's own.",
    )
    pixel_range: str | None = _later(
        _DATA,
        None,
        "Values LOW:HIGH that become black and white in files of more than 8 bits a channel. Default: chosen from the "
        "training images.",
    )
    layout: str = _later(
        _DATA,
        "auto",
        "Reading of the folders or archives in DATA, where their names leave it open: as splits, as classes, or as "
        "parts of one data set",
        LAYOUTS,
    )
    skip_empty: bool = _later(_DATA, False, "Classes of which no image can be used are left out.")
    split: str = _later(_DATA, SPLIT, "Percentages of train, val and test, where DATA has no such folders.")
    group_by: str | None = _later(
        _DATA,
        None,
        "Images that stay in one split, such as those of a patient or a video: folder, prefix:SEPARATOR (of the file "
        "name) or FILE.csv:COLUMN. Default: each image for itself.",
    )
    columns: str | None = _later(
        _DATA, None, "Columns of a table of images: path=COLUMN,label=COLUMN,split=COLUMN. Default: by their names."
    )
    weights: str | None = _option(
        _TRAINED, None, "Initial weights: pretrained (ImageNet), none (random), or a file. Default: pretrained."
    )
    optimizer: str = _option(_OPTIMISATION, "adamw", "Optimizer", OPTIMIZERS)
    lr: float | None = _option(
        _OPTIMISATION, None, "Peak learning rate. Default: depends on the strategy and the optimizer."
    )
    weight_decay: float = _option(
        _REGULARISATION, 0.01, "Weight decay of matrices and kernels; biases and norms have none."
    )
    schedule: str = _option(_OPTIMISATION, "cosine", "Learning-rate schedule after the warm-up", SCHEDULES)
    warmup: float = _option(_OPTIMISATION, 0.1, "Fraction of all steps with linear learning-rate warm-up.")
    layer_decay: float = _option(_OPTIMISATION, 1.0, "Learning-rate factor per stage, from head to input.")
    clip: float = _option(_OPTIMISATION, 0.0, "Maximum gradient norm; 0 disables clipping.")
    frozen_stages: int | None = _option(
        _TRAINED, None, "Number of frozen stages, for --strategy partial. Default: half of them."
    )
    unfreeze_every: int = _option(
        _TRAINED, 0, "Epochs between unfreezing one more stage, from head to input; 0 trains all stages at once."
    )
    freeze_bn: bool = _option(_TRAINED, False, "Frozen batch-norm statistics, for small batches or several processes.")
    hidden: int = _option(_TRAINED, 0, "Width of a hidden layer with ReLU in the head; 0 for a linear head.")
    dropout: float | None = _option(
        _REGULARISATION, None, "Dropout rate before and inside the head. Default: the model's own."
    )
    cache_features: bool = _option(
        _SPEED, True, "Backbone features computed once per image and view and then cached, for --strategy head."
    )
    views: int = _option(_SPEED, 4, "Augmented views of each image in the feature cache, for --strategy head.")
    augment: str = _option(_DATA, "light", "Data augmentation; light is random crops and colour jitter", AUGMENTS)
    flip: bool = _option(_DATA, True, "Random horizontal flips. Default: on, except for digits.")
    mix: str = _option(_REGULARISATION, "none", "Mixing of images within a batch", MIXES)
    mix_alpha: float = _option(_REGULARISATION, 0.2, "Alpha of mixup's Beta distribution; cutmix always uses 1.")
    label_smoothing: float = _option(_REGULARISATION, 0.1, "Label smoothing.")
    imbalance: str = _option(_DATA, "auto", "Handling of class imbalance", IMBALANCES)
    focal_gamma: float = _option(_DATA, 2.0, "Gamma of the focal loss, for --imbalance focal.")
    ema: float = _option(
        _REGULARISATION,
        0.0,
        "Decay of an exponential moving average of the weights, typically 0.99 to 0.9999; "
        "the average is what is saved. 0 disables it.",
    )
    monitor: str = _option(_OUTPUT, "top1", "Validation metric that picks the best epoch", MONITORS)
    patience: int = _option(
        _OPTIMISATION, 0, "Epochs without improvement after which training stops; 0 disables early stopping."
    )
    amp: str = _option(_SPEED, "auto", "Training precision; auto measures which is fastest", AMPS)
    channels_last: bool = _option(_SPEED, True, "channels_last memory format; --amp auto also tries contiguous.")
    seed: int = _option(_OPTIMISATION, 0, "Seed of the initial weights, the image order and the augmentation.")
    workers: int | None = _option(
        _SPEED, None, "Processes that decode images. Default: 0 on a CPU, up to 8 with a GPU."
    )
    device: str = _option(_SPEED, "auto", "Device; auto uses CUDA if a GPU is available", DEVICES)

    def __post_init__(self) -> None:
        row = zoo.row(self.arch)
        for name, attribute in _OF_THE_MODEL.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(row.preprocess, attribute))
        for name, noun, known in (
            ("strategy", "strategy", STRATEGIES),
            ("layout", "layout", LAYOUTS),
            ("augment", "augmentation", AUGMENTS),
            ("mix", "image mixing", MIXES),
            ("optimizer", "optimizer", OPTIMIZERS),
            ("schedule", "schedule", SCHEDULES),
            ("resize", "kind of resizing", RESIZES),
            ("imbalance", "handling of class imbalance", IMBALANCES),
            ("monitor", "metric", MONITORS),
            ("amp", "precision", AMPS),
            ("device", "device", DEVICES),
        ):
            if getattr(self, name) not in known:
                raise unknown(noun, getattr(self, name), known)
        _ = self.chosen_columns  # checks their form
        _ = self.division  # checks the shares and the groups
        _ = self.preprocess  # checks the image size, the background and the pixel range
        from edgekit.models import build

        build.check_weights(self.start, self.arch)
        for allowed, message in _limits(self, len(row.stages)):
            if not allowed:
                raise UsageError(message, "edgekit train --help")
        for clash, message, hint in _clashes(self):
            if clash:
                raise UsageError(message, hint)

    @property
    def division(self) -> Division:
        """Return the division of images that lie in no split folders."""
        return parse_division(self.split, self.group_by)

    @property
    def chosen_columns(self) -> Columns:
        """Return the columns of a table of images that are chosen."""
        return columns_of(self.columns)

    @property
    def preprocess(self) -> Preprocess:
        """Return the preprocessing of the images.

        Raises:
            UsageError: the network does not support the image size.
        """
        more = {"background": self.background, "pixel_range": values.parsed(self.pixel_range)}
        return zoo.preprocess_for(self.arch, self.image_size, self.resize, **more)

    @property
    def identity(self) -> str:
        """Return a text that is equal for equal options, also where an earlier version lacked some of them."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if not f.repr}
        later = {f.name: values[f.name] for f in fields(self) if not f.repr and values[f.name] != _usual(f)}
        return repr(self) + (repr(later) if later else "")

    @property
    def start(self) -> str:
        """Return the initial weights: ``pretrained``, ``none`` or a file."""
        return self.weights or ("none" if self.strategy == "scratch" else "pretrained")

    @property
    def peak_lr(self) -> float:
        """Return `lr`, or the default of the strategy and the optimizer."""
        return self.lr or _LR[self.strategy] * (10 if self.optimizer == "sgd" else 1)

    @property
    def caches(self) -> bool:
        """Return whether the head is trained on cached features of the backbone."""
        return self.strategy == "head" and self.cache_features and zoo.row(self.arch).simple

    @property
    def frozen(self) -> int:
        """Return the number of backbone stages that are never trained."""
        stages = len(zoo.row(self.arch).stages)
        if self.strategy == "head":
            return stages
        if self.strategy == "partial":
            return stages // 2 if self.frozen_stages is None else self.frozen_stages
        return 0

    def frozen_in(self, epoch: int) -> int:
        """Return the number of stages that are frozen in `epoch` (counted from 1).

        Gradual unfreezing as in Howard & Ruder 2018, arXiv:1801.06146, section 3.3.
        """
        if not self.unfreeze_every:
            return self.frozen
        unfrozen = (epoch - 1) // self.unfreeze_every
        return max(self.frozen, len(zoo.row(self.arch).stages) - unfrozen)


def _usual(option: Field[Any]) -> Any:
    """Return the value of an option that is not chosen, for most networks."""
    return _USUAL.get(option.name, option.default)


def _limits(o: TrainOptions, stages: int) -> list[tuple[bool, str]]:
    """Return (is satisfied, message) for the limits of every number."""
    floats = {f.name: v for f in fields(o) if isinstance(v := getattr(o, f.name), float)}
    return [
        *(
            (math.isfinite(value), f"--{name.replace('_', '-')} must be a finite number, not {value}")
            for name, value in floats.items()
        ),
        (o.epochs >= 1, "--epochs must be at least 1"),
        (o.batch_size >= 2, "--batch-size must be at least 2: batch norm needs two images"),
        (o.lr is None or 0 < o.lr < 10, "--lr must be greater than 0 and less than 10"),
        (0 <= o.weight_decay < 1, "--weight-decay must be at least 0 and less than 1"),
        (0 <= o.warmup < 1, "--warmup is a fraction of all steps: at least 0 and less than 1"),
        (0 < o.layer_decay <= 1, "--layer-decay must be greater than 0 and at most 1"),
        (o.clip >= 0, "--clip must be 0 or greater"),
        (
            o.frozen_stages is None or 0 < o.frozen_stages < stages,
            f"{o.arch} has {stages} stages: --frozen-stages must be between 1 and {stages - 1}",
        ),
        (o.unfreeze_every >= 0, "--unfreeze-every must be 0 epochs or more"),
        (0 <= o.hidden <= 16384, "--hidden must be between 0 and 16384"),
        (o.dropout is None or 0 <= o.dropout < 1, "--dropout must be at least 0 and less than 1"),
        (1 <= o.views <= 100, "--views must be between 1 and 100"),
        (0 < o.mix_alpha <= 10, "--mix-alpha must be greater than 0 and at most 10"),
        (0 <= o.label_smoothing < 1, "--label-smoothing must be at least 0 and less than 1"),
        (0 <= o.focal_gamma <= 10, "--focal-gamma must be between 0 and 10"),
        (0 <= o.ema < 1, "--ema must be at least 0 and less than 1"),
        (o.patience >= 0, "--patience must be 0 epochs or more"),
        (o.workers is None or 0 <= o.workers <= MOST_THREADS, f"--workers must be between 0 and {MOST_THREADS}"),
        (0 <= o.seed < 2**31, "--seed must be between 0 and 2147483647"),
    ]


def _clashes(o: TrainOptions) -> list[tuple[bool, str, str]]:
    """Return (is violated, message, hint) for options that exclude each other."""
    return [
        (
            o.strategy == "scratch" and o.weights not in (None, "none"),
            f"--strategy scratch starts from random weights, and cannot be combined with --weights {o.weights}",
            "use --strategy full, or leave out --weights",
        ),
        (
            o.strategy in ("head", "partial") and o.weights == "none",
            f"--strategy {o.strategy} keeps some of the initial weights, and --weights none makes these random",
            "use --strategy scratch, or leave out --weights",
        ),
        (
            o.strategy != "partial" and o.frozen_stages is not None,
            "--frozen-stages requires --strategy partial",
            f"use --strategy partial --frozen-stages {o.frozen_stages}",
        ),
        (
            o.unfreeze_every > 0 and o.strategy not in ("partial", "full"),
            f"--unfreeze-every requires --strategy full or partial, not {o.strategy}",
            f"use --strategy full --unfreeze-every {o.unfreeze_every}",
        ),
        (
            o.caches and o.mix != "none",
            f"--mix {o.mix} mixes pixels, and --strategy head trains on cached features",
            "add --no-cache-features, or leave out --mix",
        ),
        (
            o.caches and o.amp in ("bf16", "fp16"),
            f"--amp {o.amp} has no effect when only the head is trained, on cached features",
            "leave out --amp, or add --no-cache-features",
        ),
        (
            o.imbalance == "focal" and o.mix != "none",
            "--imbalance focal needs one label per image, and --mix mixes labels",
            "use --imbalance weights, or leave out --mix",
        ),
    ]
