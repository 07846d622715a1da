"""Memory of a training, and explanations for steps that fail: which images, which batch size would fit."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from edgekit.data.memory import give_back_freed_memory
from edgekit.errors import EdgekitError, is_out_of_memory
from edgekit.labels import visible
from edgekit.training.learner import Learner
from edgekit.training.options import TrainOptions

# From glibc's malloc.h. By default every large tensor is mapped, faulted in and unmapped again, in each step.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_MOST_NAMED = 3


def diverged(losses: torch.Tensor, paths: list[Path], where: str, hint: str) -> EdgekitError:
    """Return the error for a batch whose losses (n,) are not all finite; `paths` are its files."""
    bad = [path for path, loss in zip(paths, losses.tolist()) if loss - loss != 0]  # NaN or infinite
    value = next(loss for loss in losses.tolist() if loss - loss != 0)
    if len(bad) == len(paths) > 1:
        what = f"for every image of the batch, such as {_named(bad)}: the weights diverged"
    else:
        what = f"for {_named(bad)}"
    return EdgekitError(f"the loss became {value} at {where} {what}", hint)


def remedy(options: TrainOptions, kept: bool) -> str:
    """Return the hint for a training that diverged; `kept`: whether weights of a best epoch are saved."""
    clip = "" if options.clip else " or --clip 1"
    return f"{'the best weights so far are kept; ' if kept else ''}try --lr {options.peak_lr / 10:g}{clip}"


def _named(paths: list[Path]) -> str:
    more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
    return ", ".join(visible(str(path)) for path in paths[:_MOST_NAMED]) + more


@contextmanager
def explained(learner: Learner) -> Iterator[None]:
    """Replace out-of-memory errors of a step by one that names a batch size that fits.

    Raises:
        EdgekitError: memory ran out.
    """
    failed = False
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the batch that did not fit
        failed = True
    if failed:
        raise _out_of_memory(learner)


@contextmanager
def memory_ran_out() -> Iterator[None]:
    """Replace out-of-memory errors outside of a step, such as while features are computed.

    Raises:
        EdgekitError: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise EdgekitError("out of memory", "use a smaller --batch-size, --image-size or --model") from error


def _out_of_memory(learner: Learner) -> EdgekitError:
    options, size = learner.options, learner.preprocess.image_size
    if options.caches:
        return EdgekitError(
            f"out of memory: a batch of {options.batch_size} features does not fit", "use a smaller --batch-size"
        )
    message = f"out of memory: a batch of {options.batch_size} images of {size} px does not fit"
    fitting = largest_fit(learner, options.batch_size)
    if fitting:
        return EdgekitError(f"{message}; {fitting} would", f"use --batch-size {fitting}")
    return EdgekitError(f"{message}, nor would 2", "use a smaller --image-size or --model, or --strategy head")


def largest_fit(learner: Learner, batch_size: int) -> int:
    """Return the largest of `batch_size` / 2, / 4, ... with which a trial step fits into memory, or 0."""
    share = batch_size // learner.team.size
    while (share := share // 2) >= 1 and (whole := share * learner.team.size) >= 2:
        if _fits(learner, max(2, share)):
            return whole
    return 0


def _fits(learner: Learner, images: int) -> bool:
    """Return True if a step on `images` grey images fits into memory; the weights stay as they are."""
    learner.leave_team()
    learner.optimizer.zero_grad(set_to_none=True)
    gc.collect()
    give_back_freed_memory()  # room for the code that oneDNN generates
    if learner.team.device.type == "cuda":
        torch.cuda.empty_cache()
    size = learner.preprocess.image_size
    try:
        pixels = torch.full((images, size, size, 3), 128, dtype=torch.uint8)
        learner.losses(pixels, torch.zeros(images, dtype=torch.int64)).sum().backward()
    except (RuntimeError, MemoryError) as error:  # oneDNN reports exhausted memory in many ways
        traceback.clear_frames(error.__traceback__)
        return False
    finally:
        learner.optimizer.zero_grad(set_to_none=True)
    return True


def keep_freed_memory() -> bool:
    """Serve large allocations from the heap and never trim it. Returns True if that took effect.

    Only glibc has `mallopt`; elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt and mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def reset_peak() -> None:
    """Reset the peak memory, if the system supports it (Linux: ``/proc/self/clear_refs``, proc(5))."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_mb() -> int:
    """Return the peak resident memory since `reset_peak`, or of the whole process, in megabytes."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return round(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6)
