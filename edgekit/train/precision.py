"""Which arithmetic and memory layout trains fastest here: measured once, and remembered."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import platform
import time
import traceback

import torch
from torch import nn

from edgekit import files
from edgekit.errors import DataError, EdgekitError, StorageError, UsageError
from edgekit.train import memory, models, trouble
from edgekit.train.distributed import Team
from edgekit.train.learner import Learner
from edgekit.train.options import TrainOptions

# Another choice than float32 in channels_last must gain this much: it is not worth noise.
WORTH = 1.1
# Below so many images in all, measuring would take longer than it saves.
WORTH_MEASURING = 4000
_ROUNDS = 3


def check(options: TrainOptions, device: torch.device) -> None:
    """Refuse arithmetic that the device does not have.

    Raises:
        UsageError: fp16 without a GPU.
    """
    if options.amp == "fp16" and device.type != "cuda":
        raise UsageError("fp16 training needs a CUDA GPU", "--amp bf16, --amp off, or --amp auto")


def choose(options: TrainOptions, classes: int, images: int, team: Team) -> tuple[TrainOptions, str]:
    """Replace ``amp="auto"`` by what is fastest for this network on this machine.

    The answer is kept on disk, so that the same machine always chooses the same.

    Returns:
        The options, and a sentence that says why.
    """
    plain = dataclasses.replace(options, amp="off")
    if options.caches:
        return plain, "float32: only the head is trained"
    if images * options.epochs < WORTH_MEASURING:
        return plain, "float32: too few images to measure what is faster"
    path = files.cache_dir("speed") / f"{files.sha256_text(_circumstances(options, team))[:24]}.json"
    try:
        times = {str(k): float(v) for k, v in files.load_document(path, 1, "seconds")["seconds"].items()}
        if _name(plain) not in times:
            raise DataError(f"{path} has other measurements")
    except (EdgekitError, AttributeError, TypeError, ValueError):
        times = measure(plain, classes, team)
        if _name(plain) not in times:
            return plain, "float32: no step fitted into memory here"
        with contextlib.suppress(StorageError):  # then it is measured again next time
            files.save_json(path, {"schema": 1, "seconds": times, "circumstances": _circumstances(options, team)})
    base, fastest = _name(plain), min(times, key=lambda name: times[name])
    if times[base] < WORTH * times[fastest]:
        fastest = base
    arithmetic, layout = fastest.split()
    said = ", ".join(f"{name} {options.batch_size / seconds:.0f}" for name, seconds in times.items())
    chosen = dataclasses.replace(options, amp=arithmetic, channels_last=layout == "channels_last")
    return chosen, f"{fastest} (images/s measured on this machine: {said})"


def _name(options: TrainOptions) -> str:
    return f"{options.amp} {'channels_last' if options.channels_last else 'contiguous'}"


def _circumstances(options: TrainOptions, team: Team) -> list[str]:
    """What the answer depends on."""
    processor = torch.cuda.get_device_name(team.device) if team.device.type == "cuda" else cpu_name()
    return [
        *(processor, torch.__version__, str(torch.get_num_threads()), str(team.size)),
        json.dumps([options.arch, options.image_size, options.batch_size, options.frozen, options.ema > 0]),
        str(options.channels_last),
    ]


def cpu_name() -> str:
    """What the processor calls itself."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def measure(options: TrainOptions, classes: int, team: Team) -> dict[str, float]:
    """Seconds of one training step, the best of a few, for each arithmetic and layout that fits into memory."""
    memory.keep_freed_memory()
    preprocess = models.preprocess_for(options.arch, options.image_size)
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
            if not trouble.is_out_of_memory(error):
                raise
            traceback.clear_frames(error.__traceback__)
    return found


def _seconds(learner: Learner, pixels: torch.Tensor, labels: torch.Tensor) -> float:
    learner.begin(1)
    times = []
    for _ in range(1 + _ROUNDS):
        started = time.perf_counter()
        learner.step(pixels, labels, len(labels), 1e-3)  # its losses are read back: the GPU is done too
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
    model = models.build(options.arch, classes, options.image_size, options.hidden).to(device)
    return model.to(memory_format=torch.channels_last) if options.channels_last else model
