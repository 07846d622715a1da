"""Choices that ``auto`` stands for: strategy, imbalance and precision, each with the reason in words."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edgekit import files
from edgekit.config import from_table
from edgekit.data.calibration import choose
from edgekit.errors import DataError, EdgekitError, StorageError, UsageError, is_out_of_memory
from edgekit.models import build, zoo
from edgekit.quantization import CalibrationRecipe
from edgekit.records import DatasetIndex, Sample
from edgekit.training import diagnostics, learner
from edgekit.training.distributed import Team
from edgekit.training.features import Update, View, backbone, extract, views_of
from edgekit.training.learner import Learner
from edgekit.training.options import TrainOptions

# Training images per class (the median) from which a data set counts as large.
LARGE = 100
# Skill of the probe (0: guessing, 1: perfect) from which the data count as similar to the pretraining data.
SIMILAR = 0.95
# Learning-rate factor per stage for large, similar data sets: early stages change less.
LAYER_DECAY = 0.7
_PROBED = 2000  # most images of train, and of val, for the probe
# Speed-up that another precision or memory format than the default must reach, to stay above noise.
WORTH = 1.1
# Images times epochs below which measuring would take longer than it saves.
WORTH_MEASURING = 4000
_ROUNDS = 3


@dataclass(frozen=True)
class Probe:
    """Result of a linear classifier on frozen features.

    Attributes:
        top1: on val, percent. chance: top-1 of always guessing the largest class, percent.
    """

    top1: float
    chance: float

    @property
    def skill(self) -> float:
        """Return the accuracy on a scale from guessing (0) to perfect (1)."""
        return max(0.0, (self.top1 - self.chance) / max(1e-9, 100 - self.chance))


def decide(
    data: DatasetIndex, options: TrainOptions, team: Team, update: Update, say: Callable[[str], None]
) -> TrainOptions:
    """Replace every ``auto`` of `options`. The leading process decides for all.

    Args:
        update: receives the progress. say: called with one sentence per decision.
    """
    if team.leads:
        options = _decide(data, options, team, update, say)
    decided = team.broadcast(json.dumps(dataclasses.asdict(options)).encode() if team.leads else None)
    return from_table(json.loads(decided), TrainOptions, "options")


def _decide(
    data: DatasetIndex, options: TrainOptions, team: Team, update: Update, say: Callable[[str], None]
) -> TrainOptions:
    labels = [s.label for s in data.split("train")]
    counts = [Counter(labels)[number] for number in range(len(data.labels))]
    if options.strategy == "auto":
        options, why = choose_strategy(data, options, counts, team, update)
        say(f"strategy: {why}")
    say(f"trained: {_trained(options)}")
    if options.imbalance == "auto":
        name, why = learner.decide_imbalance(counts)
        options = dataclasses.replace(options, imbalance=name)
        say(f"imbalance: {name}; {why}")
    if options.channels_last and crashes_in_channels_last(options, len(data.labels), team.device):
        options = dataclasses.replace(options, channels_last=False)
        say("memory format: contiguous; in channels_last torch crashes on 1x1 convolutions with a stride")
    if options.amp == "auto":
        options, why = choose_precision(options, len(data.labels), len(labels), team)
        say(f"precision: {why}")
    check_amp(options, team.device)
    return dataclasses.replace(options, lr=options.peak_lr)


def _trained(options: TrainOptions) -> str:
    """Describe the part of the network that is trained."""
    stages = len(zoo.row(options.arch).stages)
    if options.strategy == "head":
        views = len(views_of(options.views, options.augment, options.flip, options.seed))
        return "only the head" + (f", on cached features of {views} view(s) of each image" if options.caches else "")
    what = f"all but the first {options.frozen} of {stages} stages" if options.frozen else f"all {stages} stages"
    slowly = f", with {options.layer_decay:g} times the learning rate per stage, from head to input"
    more = f", unfreezing one more stage every {options.unfreeze_every} epochs" if options.unfreeze_every else ""
    return what + (slowly if options.layer_decay != 1 else "") + more


def choose_strategy(
    data: DatasetIndex, options: TrainOptions, counts: list[int], team: Team, update: Update
) -> tuple[TrainOptions, str]:
    """Choose the strategy by the size of the data set and its similarity to the pretraining data.

    The four cases of Yosinski et al. 2014, arXiv:1411.1792, and Stanford's CS231n notes. Small and
    similar: train only the head. Small and different: also the later stages. Large and similar: all
    stages, early ones with lower learning rates. Large and different: all stages. Without initial
    weights: from scratch.

    Args:
        counts: training images per class.
    Returns:
        The options, and the reason in words.
    """
    if options.start == "none":
        return dataclasses.replace(options, strategy="scratch"), "scratch; there are no initial weights"
    typical = float(np.median(counts))
    large = typical >= LARGE
    size = f"{'large' if large else 'small'} ({typical:.0f} training images per class; large from {LARGE})"
    if not zoo.row(options.arch).simple:
        strategy = "full" if large else "partial"
        why = f"{strategy}; the data set is {size}; the head of {options.arch} allows no probe on frozen features"
        return dataclasses.replace(options, strategy=strategy), why
    found = probe(data, options, team, update)
    similar = found.skill >= SIMILAR
    likeness = (
        f"{'similar to' if similar else 'different from'} the pretraining data (a linear probe on frozen features "
        f"gets {found.top1:.1f} % of val right, guessing {found.chance:.1f} %)"
    )
    why = f"{size} and {likeness}"
    if large:
        decay = LAYER_DECAY if similar and options.layer_decay == 1.0 else options.layer_decay
        return dataclasses.replace(options, strategy="full", layer_decay=decay), f"full; the data set is {why}"
    if similar and options.mix == "none":
        return dataclasses.replace(options, strategy="head"), f"head; the data set is {why}"
    because = f"; features cannot be cached with --mix {options.mix}" if similar else ""
    return dataclasses.replace(options, strategy="partial"), f"partial; the data set is {why}{because}"


def probe(data: DatasetIndex, options: TrainOptions, team: Team, update: Update) -> Probe:
    """Fit a linear classifier on features of the initial weights, with at most `_PROBED` images of train."""
    preprocess = options.preprocess
    model = build.build(options.arch, len(data.labels), options.image_size).eval()
    build.load_weights(model, options.arch, options.start, image_size=options.image_size)
    train = choose(data.split("train"), CalibrationRecipe("probe", _PROBED)).samples
    val = choose(data.split("val"), CalibrationRecipe("probe", _PROBED)).samples
    source = backbone(model.to(team.device).to(memory_format=torch.channels_last), options.arch, preprocess)
    (x, y), (val_x, val_y) = (
        (extract(source, data.root, part, [View(0)], update).rows(range(len(part)), 1), _labels(part))
        for part in (train, val)
    )
    top1 = linear_top1(x, y, val_x, val_y, len(data.labels))
    chance = float((val_y == y.bincount().argmax()).float().mean())
    return Probe(100 * top1, 100 * chance)


def _labels(samples: tuple[Sample, ...]) -> torch.Tensor:
    return torch.tensor([s.label for s in samples])


def linear_top1(x: torch.Tensor, y: torch.Tensor, val_x: torch.Tensor, val_y: torch.Tensor, classes: int) -> float:
    """Return top-1 (0 to 1) on val of a logistic regression fitted to features float32 (N, F) and labels (N,)."""
    mean, scale = x.mean(0), x.std(0) + 1e-6
    x, val_x = (x - mean) / scale, (val_x - mean) / scale
    layer = nn.Linear(x.shape[1], classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(layer(x), y) + 1e-3 * layer.weight.pow(2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.inference_mode():
        return float((layer(val_x).argmax(1) == val_y).float().mean())


def crashes_in_channels_last(options: TrainOptions, classes: int, device: torch.device) -> bool:
    """Return whether torch would end the process in the backward pass of this network on this device."""
    if device.type != "cpu" or options.caches:
        return False
    network = build.build(options.arch, classes, options.image_size, options.hidden)
    return build.crashes_in_channels_last(network)


def check_amp(options: TrainOptions, device: torch.device) -> None:
    """Check that the device supports the precision.

    Raises:
        UsageError: fp16 without a GPU.
    """
    if options.amp == "fp16" and device.type != "cuda":
        raise UsageError("--amp fp16 needs a CUDA GPU", "use --amp bf16, --amp off or --amp auto")


def choose_precision(options: TrainOptions, classes: int, images: int, team: Team) -> tuple[TrainOptions, str]:
    """Replace ``amp="auto"`` by the fastest precision and memory format for this network on this machine.

    The measurement is cached on disk, so that the same machine always chooses the same.

    Returns:
        The options, and the reason in words.
    """
    plain = dataclasses.replace(options, amp="off")
    if options.caches:
        return plain, "float32; only the head is trained"
    if images * options.epochs < WORTH_MEASURING:
        return plain, "float32; the training is too short to measure what is faster"
    path = files.cache_dir("speed") / f"{files.sha256_text(_circumstances(options, team))[:24]}.json"
    try:
        times = {str(k): float(v) for k, v in files.load_document(path, 1, "seconds")["seconds"].items()}
        if _name(plain) not in times:
            raise DataError(f"{path} has other measurements")
    except (EdgekitError, AttributeError, TypeError, ValueError):
        times = measure_precisions(plain, classes, team)
        if _name(plain) not in times:
            return plain, "float32; no step fits into memory on this machine"
        with contextlib.suppress(StorageError):  # measured again next time
            files.save_json(path, {"schema": 1, "seconds": times, "circumstances": _circumstances(options, team)})
    base, fastest = _name(plain), min(times, key=lambda name: times[name])
    if times[base] < WORTH * times[fastest]:
        fastest = base
    precision, layout = fastest.split()
    rates = ", ".join(f"{name} {options.batch_size / seconds:.0f}" for name, seconds in times.items())
    chosen = dataclasses.replace(options, amp=precision, channels_last=layout == "channels_last")
    return chosen, f"{fastest} (images/s measured on this machine: {rates})"


def _name(options: TrainOptions) -> str:
    return f"{options.amp} {'channels_last' if options.channels_last else 'contiguous'}"


def _circumstances(options: TrainOptions, team: Team) -> list[str]:
    """Return everything on which the measured speed depends."""
    processor = torch.cuda.get_device_name(team.device) if team.device.type == "cuda" else cpu_name()
    return [
        *(processor, torch.__version__, str(torch.get_num_threads()), str(team.size)),
        json.dumps([options.arch, options.image_size, options.batch_size, options.frozen, options.ema > 0]),
        str(options.channels_last),
    ]


def cpu_name() -> str:
    """Return the model name of the CPU."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def measure_precisions(options: TrainOptions, classes: int, team: Team) -> dict[str, float]:
    """Return seconds of one training step, the best of a few, per precision and memory format that fits."""
    diagnostics.keep_freed_memory()
    preprocess = options.preprocess
    share = max(2, options.batch_size // team.size)
    pixels = torch.randint(0, 256, (share, preprocess.image_size, preprocess.image_size, 3), dtype=torch.uint8)
    labels = torch.arange(share) % classes
    found = {}
    alone = Team(0, 1, team.device)
    for candidate in _candidates(options, team.device):
        try:
            learner = Learner(_fresh(candidate, classes, team.device), preprocess, candidate, alone)
            found[_name(candidate)] = _seconds(learner, pixels, labels)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)
    return found


def _seconds(learner: Learner, pixels: torch.Tensor, labels: torch.Tensor) -> float:
    learner.begin(1)
    times = []
    for _ in range(1 + _ROUNDS):
        started = time.perf_counter()
        learner.step(pixels, labels, len(labels), 1e-3).cpu()  # waits until a GPU has finished the step
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _candidates(options: TrainOptions, device: torch.device) -> list[TrainOptions]:
    names = ["off"]
    if device.type == "cuda":
        names.append("bf16" if torch.cuda.is_bf16_supported() else "fp16")
    elif torch.backends.mkldnn.is_available():
        names.append("bf16")
    layouts = (True, False) if options.channels_last else (False,)
    return [dataclasses.replace(options, amp=n, channels_last=last) for n in names for last in layouts]


def _fresh(options: TrainOptions, classes: int, device: torch.device) -> nn.Module:
    model = build.build(options.arch, classes, options.image_size, options.hidden).to(device)
    return model.to(memory_format=torch.channels_last) if options.channels_last else model
