"""Processes that decode the images of a training.

Each process has a pipe of its own, which the system closes when the process ends, however it ends: the training
notices at once, and so does the process when the training ends. Pixels lie in anonymous shared memory, which needs no
room in /dev/shm: Docker gives a container 64 MB of it.
"""

from __future__ import annotations

import mmap
import signal
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import torch

from edgekit.errors import EdgekitError
from edgekit.training.augment import Key, TrainImages

AHEAD = 2  # batches that each process decodes before they are needed
# Seconds for the system to say how a process ended.
_ENDING = 5


class WorkerError(EdgekitError):
    """A process that decodes images ended; the training itself can continue from its last step."""


@dataclass(frozen=True)
class _Worker:
    """A process, the pipe to it, and the memory that it writes to: uint8 (AHEAD, n, H, W, 3)."""

    process: BaseProcess
    pipe: Connection
    slots: torch.Tensor


class Workers:
    """Processes that load batches, until `close`."""

    def __init__(self, images: TrainImages, count: int, shape: tuple[int, int, int, int]) -> None:
        """Start `count` processes; `shape` (n, H, W, 3) is that of the largest batch."""
        self._workers: list[_Worker] = []
        self._owing: deque[_Worker] = deque()  # those that were asked, in order, and have not been listened to
        try:
            for _ in range(count):
                self._workers.append(_start(images, (AHEAD, *shape)))
        except OSError as error:
            self.close()
            raise EdgekitError(f"processes that decode images cannot be started: {error}", _FEWER) from error
        except BaseException:
            self.close()
            raise

    def batches(self, wanted: Sequence[list[Key]]) -> Iterator[torch.Tensor]:
        """Yield the pixels of each batch, uint8 (n, H, W, 3), in order.

        Raises:
            DataError: an image cannot be read. WorkerError: a process ended.
        """
        while self._owing:  # of an epoch that was left early
            self._listen()
        count = len(self._workers)
        asked = 0
        for number, keys in enumerate(wanted):
            while asked < min(len(wanted), number + AHEAD * count):
                self._ask(self._workers[asked % count], asked // count % AHEAD, wanted[asked])
                asked += 1
            slots = self._owing[0].slots
            if error := self._listen():
                raise error
            yield slots[number // count % AHEAD, : len(keys)].clone()

    def _ask(self, worker: _Worker, slot: int, keys: list[Key]) -> None:
        try:
            worker.pipe.send((slot, keys))
        except OSError as error:
            raise _ended(worker) from error
        self._owing.append(worker)

    def _listen(self) -> Exception | None:
        """Wait for the oldest answer: None, or the error of a batch that could not be loaded."""
        worker = self._owing[0]
        try:
            answer: Exception | None = worker.pipe.recv()
        except (EOFError, OSError) as error:
            raise _ended(worker) from error
        self._owing.popleft()
        return answer

    def close(self) -> None:
        """End the processes, also those that hang: they hold nothing that could be damaged."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers.clear()
        self._owing.clear()


_FEWER = "close other programs; a new training needs less memory with fewer processes: --workers 0 needs least"


def _start(images: TrainImages, shape: tuple[int, ...]) -> _Worker:
    slots = torch.frombuffer(mmap.mmap(-1, prod(shape)), dtype=torch.uint8).view(shape)
    # Forked, whatever Python's default is: the memory and the images are inherited.
    context = get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(images, slots, theirs, ours), daemon=True)
    # Held back until the process ignores them: one that arrives before would end it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    theirs.close()
    return _Worker(process, ours, slots)


def _work(images: TrainImages, slots: torch.Tensor, pipe: Connection, of_training: Connection) -> None:
    """Load batches until the training closes its end of the pipe or ends."""
    of_training.close()  # otherwise this process would hold it open
    ignore_signals()
    torch.set_num_threads(1)
    try:
        while True:
            slot, keys = pipe.recv()
            pipe.send(_load(images, keys, slots[slot, : len(keys)]))
    except (EOFError, OSError):
        return


def _load(images: TrainImages, keys: list[Key], pixels: torch.Tensor) -> Exception | None:
    """Decode a batch into `pixels`, uint8 (n, H, W, 3). Returns the error if that failed."""
    try:
        images.load(keys, pixels)
    except (EdgekitError, MemoryError) as error:
        return error
    except Exception:
        return RuntimeError(traceback.format_exc())
    return None


def ignore_signals() -> None:
    """Ignore SIGINT and SIGTERM in a process; the training decides when to stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _ended(worker: _Worker) -> WorkerError:
    """Return the error for a process that ended by itself."""
    worker.process.join(_ENDING)
    status = worker.process.exitcode
    if status is None or status >= 0:
        return WorkerError(f"a process that decodes images ended (exit status {status})", _FEWER)
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    why = ": usually because memory ran out" if -status == signal.SIGKILL else ""
    return WorkerError(f"a process that decodes images was killed ({name}){why}", _FEWER)
