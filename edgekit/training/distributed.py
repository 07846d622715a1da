"""Training with several processes: PyTorch's DistributedDataParallel, started by ``torchrun``.

``torchrun --nproc-per-node 2 -m edgekit train ...`` sets RANK, WORLD_SIZE and LOCAL_RANK. Without
them one process trains, and all functions here return at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import nn

from edgekit.errors import DataError, UsageError


def rank() -> int:
    """Return the number of this process, 0 if it is the only one."""
    return int(os.environ.get("RANK", "0"))


@dataclass(frozen=True)
class Team:
    """The processes that train together. Only `rank` 0, the leader, writes files and shows progress."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, items: torch.Tensor) -> torch.Tensor:
        """Return this process's share of a batch or a split: every `size`-th item, starting at `rank`."""
        return items[self.rank :: self.size]

    def gather(self, own: torch.Tensor, total: int) -> torch.Tensor:
        """Return the items of all shares, (total, ...), in the order before `share`."""
        if self.size == 1:
            return own
        most = -(-total // self.size)
        padded = torch.zeros((most, *own.shape[1:]), dtype=own.dtype, device=self.device)
        padded[: len(own)] = own
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        torch.distributed.all_gather(parts, padded)
        return torch.stack(parts, 1).flatten(0, 1)[:total].to(own.device)

    def sum(self, value: float) -> float:
        """Return the sum of a value over all processes."""
        return self.sums([value])[0]

    def sums(self, values: Sequence[float]) -> list[float]:
        """Return the sum of each value over all processes; they are sent together, as float64."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def broadcast(self, content: bytes | None) -> bytes:
        """Return the leader's `content` in every process; the others pass None."""
        if self.size == 1:
            return content or b""
        size = int(self.sum(len(content or b"") if self.leads else 0))
        received = torch.zeros(size, dtype=torch.uint8, device=self.device)
        if self.leads and size:
            received.copy_(torch.frombuffer(bytearray(content or b""), dtype=torch.uint8))
        torch.distributed.broadcast(received, 0)
        return bytes(received.cpu().numpy().tobytes())

    def same(self, what: str, value: str) -> None:
        """Check that every process has the same value.

        Raises:
            DataError: the value differs; `what` names it.
        """
        leaders = self.broadcast(value.encode() if self.leads else None).decode()
        if self.size > 1 and self.sum(float(leaders != value)):
            raise DataError(f"{what} differs between the processes", "give every machine the same copy of the data")

    def wait(self) -> None:
        """Wait until every process has called this."""
        if self.size > 1:
            torch.distributed.barrier()

    def follow(self, model: nn.Module) -> None:
        """Copy the leader's buffers to every process; batch-norm statistics differ between them."""
        if self.size > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def wrap(self, model: nn.Module) -> Any:
        """Return the module to call in training: DDP, which averages gradients, or the model itself."""
        if self.size == 1 or not any(p.requires_grad for p in model.parameters()):
            return model
        from torch.nn.parallel import DistributedDataParallel

        devices = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=devices)


@contextmanager
def join(device: torch.device, batch_size: int) -> Iterator[Team]:
    """Connect to the other processes that torchrun started, with nccl on GPUs and gloo elsewhere.

    Raises:
        UsageError: the batch cannot be divided evenly, or a process has no GPU.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Team(0, 1, device)
        return
    if batch_size % size or batch_size < 2 * size:
        raise UsageError(
            f"a batch of {batch_size} cannot be shared by {size} processes",
            f"use --batch-size {max(2, -(-batch_size // size)) * size}, the number of images over all processes",
        )
    if device.type == "cuda":
        number = int(os.environ.get("LOCAL_RANK", "0"))
        if number >= torch.cuda.device_count():
            raise UsageError(
                f"there is no GPU for process {number}", f"use --nproc-per-node {torch.cuda.device_count()}"
            )
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    # The others wait while the leader decides and evaluates, which may exceed the default of 10 minutes.
    backend = "nccl" if device.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=timedelta(hours=12))
    try:
        yield Team(rank(), size, device)
    finally:
        torch.distributed.destroy_process_group()
