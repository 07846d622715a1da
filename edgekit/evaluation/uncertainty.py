"""Uncertainty by dropout that is injected into a network after training.

Monte Carlo dropout (Gal & Ghahramani 2016, arXiv:1506.02142) estimates the uncertainty of the weights by
the spread of several passes with dropout. Ledda, Fumera & Roli 2023, "Dropout Injection at Test Time for
Post Hoc Uncertainty Quantification in Neural Networks", arXiv:2302.02924, inject dropout after training,
and fit its rate and the scale of the logits on held-out data.

Here dropout acts on the inputs of the head, so the backbone runs once per image. All images share the
masks, which define an ensemble of S thinned heads; the result of an image does not depend on others.
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
# Most sampled logits in memory at once: 64 MiB of float32.
_MOST_VALUES = 2**24
# Most images for fitting the two parameters; more take longer without improving them.
_MOST_FITTED = 1000
_GOLDEN = (math.sqrt(5) - 1) / 2
_PRECISION = 0.01  # of log T; the NLL is flat there


@dataclass(frozen=True)
class Doubt:
    """Uncertainty of the predictions for N images, float64.

    Attributes:
        probabilities: mean over the samples, (N, classes). spread: standard deviation, (N, classes).
        entropy: of the mean, (N,), in nats: total uncertainty. entropy_share: the same over log(classes), 0 to 1.
        mutual_information: (N,), in nats: uncertainty of the weights, on which the samples disagree.
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
    """Collect the inputs of `head`, float32 (N, ...) on the CPU per batch, while the network runs inside."""
    seen: list[torch.Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().float().cpu()))
    try:
        yield seen
    finally:
        handle.remove()


def fit(
    head: nn.Module, features: torch.Tensor, labels: np.ndarray, samples: int = SAMPLES, seed: int = 0
) -> DropoutInjection:
    """Fit the dropout rate and the scale of the logits that minimize the NLL of the mean prediction on val.

    Every rate in `RATES` is tried with its best scale, and compared with temperature scaling alone on the
    same images. At most 1000 images, fewer for many classes, at even distances are used.

    Args:
        head: maps features (N, ...) to logits (N, classes); stays unchanged.
        features: inputs of the head on val, float32 (N, ...). labels: int (N,).
        samples: size of the ensemble. seed: of the dropout masks.
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
    """Return predictions and uncertainty of the fitted ensemble for features float32 (N, ...)."""
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
    """Return logits (samples, N, classes). With the same seed, higher rates drop supersets of what lower ones drop."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(samples, *features.shape[1:], generator=generator)
    masks = (drawn >= rate).float() / (1 - rate)
    return torch.stack([_logits(head, features * mask) for mask in masks])


def _losses(sampled: torch.Tensor, labels: np.ndarray, scale: float) -> np.ndarray:
    """Return the negative log-likelihood, float64 (N,), of the mean over samples (S, N, classes)."""
    scaled = sampled / scale
    of_label = scaled[:, torch.arange(len(labels)), torch.from_numpy(labels)] - scaled.logsumexp(-1)
    likelihood = (of_label.double().logsumexp(0) - math.log(len(sampled))).exp()
    return -np.log(np.maximum(likelihood.numpy(), 1e-30))


def _best_scale(sampled: torch.Tensor, labels: np.ndarray, near: float) -> float:
    """Return the temperature that minimizes the NLL of the mean over the samples; the search starts at `near`.

    If every prediction is right, Laplace's rule applies as in `temperature.fit_temperature`.
    """

    def mean(scale: float) -> np.ndarray:
        return (sampled / scale).softmax(-1).mean(0).numpy()

    if len(labels) < 2:
        return 1.0
    if temperature.all_right(mean(near), labels):
        return temperature.fit_confidence(lambda t: float(mean(t).max(1).mean()), len(labels))
    return _least(lambda t: float(_losses(sampled, labels, t).mean()), near)


def _least(function: Callable[[float], float], near: float) -> float:
    """Return the minimum of a function of the temperature: bracketed from `near`, then golden-section search in log T.

    scipy's minimizers start and stop differently, which would change fitted values within the tolerance.
    """
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
