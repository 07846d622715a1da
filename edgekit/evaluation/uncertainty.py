"""Doubt after the fact: dropout injected into a network that was trained without it.

Monte Carlo dropout (Gal & Ghahramani 2016, arXiv:1506.02142) takes the spread of several passes with
dropout for the uncertainty of the weights. Ledda, Fumera & Roli 2023, "Dropout Injection at Test Time
for Post Hoc Uncertainty Quantification in Neural Networks", arXiv:2302.02924, show that dropout may
be injected after training if its rate and the scale of what it gives are fitted on held-out data.

Here dropout acts on the features that enter the head, so the backbone runs once per image. The masks
are the same for all images: S thinned heads, an ensemble. An image's result does not depend on the
images beside it, and what was fitted is what answers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edgekit.evaluation import temperature
from edgekit.scores import DropoutInjection, Tried

RATES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
SAMPLES = 64
# Sampled logits that are held in memory at once: 64 MiB of float32.
_MOST_VALUES = 2**24
# Two numbers are fitted; more images would make them no better, only slower.
_MOST_FITTED = 1000
_GOLDEN = (math.sqrt(5) - 1) / 2
_PRECISION = 0.01  # of log T; the NLL is flat there


@dataclass(frozen=True)
class Doubt:
    """What the sampled heads say of N images, float64.

    Attributes:
        probabilities: (N, classes), the mean of the samples. spread: (N, classes), their standard deviation.
        entropy: (N,), of the mean, in nats: all doubt. `entropy_share` is it over log(classes), 0 to 1.
        mutual_information: (N,), in nats: the part of the entropy on which the samples disagree.
    """

    probabilities: np.ndarray
    spread: np.ndarray
    entropy: np.ndarray
    mutual_information: np.ndarray

    @property
    def entropy_share(self) -> np.ndarray:
        return self.entropy / math.log(self.probabilities.shape[1])


@contextmanager
def features_into(head: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect what enters `head`, float32 (N, ...) on the CPU per batch, while the network runs inside."""
    seen: list[torch.Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().float().cpu()))
    try:
        yield seen
    finally:
        handle.remove()


def fit(
    head: nn.Module, features: torch.Tensor, labels: np.ndarray, samples: int = SAMPLES, seed: int = 0
) -> DropoutInjection:
    """Choose the rate and the scale that give the mean of the samples the least NLL on val.

    Every rate of `RATES` is tried at the scale that suits it best, and compared with temperature
    scaling alone on the same images. Of more than 1000 images, or fewer where there are many
    classes, those at even distances stand for the rest.

    Args:
        head: from features (N, ...) to logits (N, classes); it is not changed.
        features: float32 (N, ...), what enters the head on val. labels: int (N,).
    """
    head = _on_cpu(head)
    classes = int(_logits(head, features[:1]).shape[-1])
    count = min(len(labels), _MOST_FITTED, max(1, _MOST_VALUES // (samples * classes)))
    chosen = np.linspace(0, len(labels) - 1, count).round().astype(np.int64)
    features, labels = features[torch.from_numpy(chosen)], labels[chosen]
    plain = _logits(head, features).numpy()
    scale = temperature.fit_temperature(plain, labels)
    before = _losses(torch.from_numpy(plain)[None], labels, scale)
    tried, losses = [], []
    for rate in RATES:
        sampled = _sample(head, features, rate, samples, seed)
        scale = _best_scale(sampled, labels, near=scale)
        losses.append(_losses(sampled, labels, scale))
        tried.append(Tried(rate, scale, float(losses[-1].mean())))
    best = min(range(len(RATES)), key=lambda n: tried[n].nll)
    gains = before - losses[best]
    error = float(gains.std(ddof=1) / math.sqrt(count)) if count > 1 else 0.0
    return DropoutInjection(
        rate=tried[best].rate,
        scale=tried[best].scale,
        samples=samples,
        seed=seed,
        fitted_on=count,
        nll_before=float(before.mean()),
        nll_after=tried[best].nll,
        gain_error=error,
        helps=bool(count > 1 and gains.mean() > 2 * error),
        tried=tuple(tried),
    )


def doubt(head: nn.Module, features: torch.Tensor, injection: DropoutInjection) -> Doubt:
    """What the fitted ensemble of thinned heads says of features float32 (N, ...)."""
    head = _on_cpu(head)
    classes = int(_logits(head, features[:1]).shape[-1])
    size = max(1, _MOST_VALUES // (injection.samples * classes))
    parts = []
    for batch in features.split(size):
        sampled = _sample(head, batch, injection.rate, injection.samples, injection.seed)
        each = (sampled / injection.scale).softmax(-1)
        mean, spread = each.mean(0, dtype=torch.float64), each.std(0, correction=0)
        entropy = torch.special.entr(mean).sum(-1)
        shared = torch.special.entr(each).sum(-1).mean(0, dtype=torch.float64)
        parts.append((mean, spread, entropy, (entropy - shared).clamp(min=0)))
    return Doubt(*(torch.cat(part).double().numpy() for part in zip(*parts)))


def _on_cpu(head: nn.Module) -> nn.Module:
    return copy.deepcopy(head).cpu().float().eval()


@torch.no_grad()
def _logits(head: nn.Module, features: torch.Tensor) -> torch.Tensor:
    return head(features)


def _sample(head: nn.Module, features: torch.Tensor, rate: float, samples: int, seed: int) -> torch.Tensor:
    """Logits (samples, N, classes). A seed's masks at a higher rate drop what they dropped at a lower one."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(samples, *features.shape[1:], generator=generator)
    masks = (drawn >= rate).float() / (1 - rate)
    return torch.stack([_logits(head, features * mask) for mask in masks])


def _losses(sampled: torch.Tensor, labels: np.ndarray, scale: float) -> np.ndarray:
    """The negative log-likelihood, float64 (N,), of the mean of the samples (S, N, classes)."""
    scaled = sampled / scale
    of_label = scaled[:, torch.arange(len(labels)), torch.from_numpy(labels)] - scaled.logsumexp(-1)
    likelihood = (of_label.double().logsumexp(0) - math.log(len(sampled))).exp()
    return -np.log(np.maximum(likelihood.numpy(), 1e-30))


def _best_scale(sampled: torch.Tensor, labels: np.ndarray, near: float) -> float:
    """The temperature of the samples that gives their mean the least NLL, likely not far from `near`.

    Where all are right, it is the one of `temperature.fit`'s rule.
    """

    def mean(scale: float) -> np.ndarray:
        return (sampled / scale).softmax(-1).mean(0).numpy()

    if len(labels) < 2:
        return 1.0
    if temperature.all_right(mean(near), labels):
        return temperature.fit_confidence(lambda t: float(mean(t).max(1).mean()), len(labels))
    return _least(lambda t: float(_losses(sampled, labels, t).mean()), near)


def _least(function: Callable[[float], float], near: float) -> float:
    """Where a function of the temperature is least: steps downhill from `near`, then golden sections of log T."""
    lowest, highest = math.log(temperature.LOWEST), math.log(temperature.HIGHEST)

    def at(x: float) -> float:
        return function(math.exp(x))

    step = 0.2
    middle = min(max(math.log(near), lowest + step), highest - step)
    for _ in range(20):  # six would do for one valley
        values = at(middle - step), at(middle), at(middle + step)
        if values[1] == min(values):
            break
        step = min(1.5 * step, 1.0)
        moved = middle + (step if values[2] < values[0] else -step)
        moved = min(max(moved, lowest + step), highest - step)
        if moved == middle:  # at a bound
            break
        middle = moved
    low, high = middle - step, middle + step
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    on_left, on_right = at(left), at(right)
    while high - low > _PRECISION:
        if on_left <= on_right:
            high, right, on_right = right, left, on_left
            left = high - _GOLDEN * (high - low)
            on_left = at(left)
        else:
            low, left, on_left = left, right, on_right
            right = low + _GOLDEN * (high - low)
            on_right = at(right)
    return float(np.clip(math.exp((low + high) / 2), temperature.LOWEST, temperature.HIGHEST))
