"""Loss, top-1 and macro F1 on the val split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from edgekit.data.images import load_batches
from edgekit.records import DatasetIndex, Preprocess
from edgekit.training.distributed import Team
from edgekit.training.features import Features
from edgekit.training.learner import Learner
from edgekit.training.options import TrainOptions

# Largest size of the decoded val split that is kept between epochs, in bytes.
KEEP = 256 << 20


@dataclass(frozen=True)
class Measured:
    """Cross-entropy in nats; top-1 and macro F1 in percent, over the classes that occur in val."""

    loss: float
    top1: float
    macro_f1: float


class Validation:
    """The val split. Each process measures its share of the images; all get the result of the whole split."""

    def __init__(self, data: DatasetIndex, preprocess: Preprocess, options: TrainOptions, team: Team) -> None:
        samples = data.split("val")
        self.team = team
        self.preprocess = preprocess
        self.batch_size = options.batch_size
        self.classes = len(data.labels)
        self.labels = torch.tensor([s.label for s in samples])
        self.own = team.share(torch.arange(len(samples))).tolist()
        self.paths = [data.root / samples[number].path for number in self.own]
        self.features: Features | None = None
        self._kept: list[torch.Tensor] | None = None

    def measure(self, learner: Learner) -> Measured:
        """Evaluate the kept weights."""
        own = [learner.logits(inputs) for inputs in self._inputs()]
        mine = torch.cat(own) if own else torch.zeros(0, self.classes)
        logits = self.team.gather(mine, len(self.labels))
        loss = nn.functional.cross_entropy(logits, self.labels).item()
        predicted = logits.argmax(1)
        top1 = (predicted == self.labels).float().mean().item()
        return Measured(loss, 100 * top1, 100 * macro_f1(predicted, self.labels))

    def _inputs(self) -> Iterator[torch.Tensor]:
        if self.features is not None:
            for start in range(0, len(self.own), 1024):
                yield self.features.rows(self.own[start : start + 1024], 1)
            return
        if self._kept is None:
            batches = (torch.from_numpy(p) for p in load_batches(self.paths, self.preprocess, self.batch_size))
            if len(self.own) * 3 * self.preprocess.image_size**2 > KEEP:
                yield from batches
                return
            self._kept = list(batches)
        yield from self._kept


def macro_f1(predicted: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the mean F1, 0 to 1, of the classes that occur in `labels`; both are int64 (N,)."""
    scores = []
    for label in labels.unique():
        correct = ((predicted == label) & (labels == label)).sum().item()
        scores.append(2 * correct / ((predicted == label).sum().item() + (labels == label).sum().item()))
    return sum(scores) / len(scores)
