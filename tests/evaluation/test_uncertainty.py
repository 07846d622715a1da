"""Dropout injected at test time: what is fitted, what is sampled, and what is said of it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.errors import DataError
from edgekit.evaluation import metrics, temperature, uncertainty
from edgekit.scores import DropoutInjection

FEATURES, CLASSES = 24, 4


def head(seed: int = 0, classes: int = CLASSES) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(FEATURES, classes)


def split(of: nn.Module, count: int = 120, noise: float = 1.0, seed: int = 1) -> tuple[torch.Tensor, np.ndarray]:
    """Features, and the labels that the head gives them where noise does not mislead it."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, FEATURES, generator=generator)
    with torch.no_grad():
        logits = of(features)
        labels = (logits + noise * torch.randn(logits.shape, generator=generator)).argmax(1)
    return features, labels.numpy()


def injection(**changes: object) -> DropoutInjection:
    fields = {"rate": 0.2, "scale": 1.0, "samples": 16, "seed": 0, "fitted_on": 9, "nll_before": 1.0,
              "nll_after": 1.0, "gain_error": 0.0, "helps": False, "tried": ()}  # fmt: skip
    return DropoutInjection(**{**fields, **changes})  # type: ignore[arg-type]


# Fitting -------------------------------------------------------------------------------------


def test_the_rate_with_the_least_nll_is_taken_and_every_rate_recorded() -> None:
    own = head()
    found = uncertainty.fit(own, *split(own))
    assert [t.rate for t in found.tried] == list(uncertainty.RATES)
    best = min(found.tried, key=lambda t: t.nll)
    assert (found.rate, found.scale, found.nll_after) == (best.rate, best.scale, best.nll)
    assert (found.samples, found.fitted_on) == (64, 120)


def test_what_it_is_compared_with_is_temperature_scaling_alone() -> None:
    own = head()
    features, labels = split(own)
    logits = own(features).detach().numpy()
    want = metrics.nll(metrics.softmax(logits, temperature.fit_temperature(logits, labels)), labels)
    assert uncertainty.fit(own, features, labels).nll_before == pytest.approx(want, rel=1e-5)


def test_the_scale_of_a_rate_is_its_best() -> None:
    own = head()
    features, labels = split(own)
    found = uncertainty.fit(own, features, labels)
    for factor in (0.8, 1.25):
        other = dataclasses.replace(found, scale=found.scale * factor)
        assert metrics.nll(uncertainty.doubt(own, features, other).probabilities, labels) > found.nll_after


def test_the_nll_that_is_recorded_is_that_of_what_answers() -> None:
    own = head()
    features, labels = split(own)
    found = uncertainty.fit(own, features, labels)
    answer = uncertainty.doubt(own, features, found)
    assert metrics.nll(answer.probabilities, labels) == pytest.approx(found.nll_after, rel=1e-5)


def test_labels_that_the_plain_head_explains_best_bring_no_gain_and_it_is_said() -> None:
    own = head()
    generator = torch.Generator().manual_seed(5)
    features = torch.randn(600, FEATURES, generator=generator)
    labels = torch.multinomial(own(features).softmax(1), 1, generator=generator)[:, 0].numpy()
    found = uncertainty.fit(own, features, labels)
    assert not found.helps
    assert found.rate > 0


def test_a_head_that_is_sure_for_one_feature_too_much_is_helped() -> None:
    """One feature of many decides wrongly and with certainty; dropout takes it away in some samples."""
    own = nn.Linear(FEATURES, 2, bias=False)
    with torch.no_grad():
        own.weight.zero_()
        own.weight[0, 0] = 60.0  # the feature that overrules
        own.weight[0, 1:] = 2.0
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(400, FEATURES, generator=generator) * 0.2
    labels = np.where(np.random.default_rng(0).random(400) < 0.7, 0, 1)
    found = uncertainty.fit(own, torch.cat([features[:, :1] * 10, features[:, 1:]], 1), labels)
    assert found.helps == (found.nll_before - found.nll_after > 2 * found.gain_error)
    assert found.nll_after <= found.nll_before


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_handful_of_images_gives_finite_numbers_and_no_claim(count: int) -> None:
    own = head()
    found = uncertainty.fit(own, *split(own, count))
    values = [found.nll_before, found.nll_after, found.gain_error, found.scale]
    assert all(math.isfinite(v) for v in values)
    if count == 1:
        assert not found.helps


def test_images_that_are_all_right_do_not_make_it_certain() -> None:
    own = head()
    features, labels = split(own, noise=0.0)
    features = features[(own(features).detach().topk(2).values.diff() < -0.5)[:, 0]]
    labels = own(features).argmax(1).numpy()
    found = uncertainty.fit(own, features, labels)
    mean = uncertainty.doubt(own, features, found).probabilities.max(1).mean()
    assert 0.9 < mean <= 1 - 0.5 / (len(labels) + 2)


def test_many_classes_are_fitted_on_some_images_at_even_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncertainty, "_MOST_VALUES", 64 * CLASSES * 30)
    own = head()
    assert uncertainty.fit(own, *split(own)).fitted_on == 30


def test_the_head_is_not_changed_and_need_not_be_linear() -> None:
    own = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, CLASSES)).train()
    before = {k: v.clone() for k, v in own.state_dict().items()}
    features, labels = split(own.eval())
    own.train()
    first, second = uncertainty.fit(own, features, labels), uncertainty.fit(own, features, labels)
    assert first == second  # its own dropout is off
    assert own.training
    assert all(torch.equal(before[k], v) for k, v in own.state_dict().items())


@pytest.mark.parametrize("least", [0.001, 0.05, 0.054, 0.3, 1.0, 2.2, 19.0, 50.0])
@pytest.mark.parametrize("near", [0.05, 1.0, 3.6, 20.0])
def test_the_least_nll_is_found_from_anywhere_in_few_steps(least: float, near: float) -> None:
    tried = []

    def bowl(scale: float) -> float:
        tried.append(scale)
        return (math.log(scale) - math.log(least)) ** 2

    found = uncertainty._least(bowl, near)
    assert found == pytest.approx(np.clip(least, temperature.LOWEST, temperature.HIGHEST), rel=0.02)
    assert min(tried) >= temperature.LOWEST * 0.999
    assert max(tried) <= temperature.HIGHEST * 1.001
    assert len(tried) < 60


# Sampling ------------------------------------------------------------------------------------


def test_doubt_has_the_shapes_and_bounds_of_probabilities() -> None:
    own = head()
    features, _ = split(own, 50)
    found = uncertainty.doubt(own, features, injection())
    assert found.probabilities.shape == found.spread.shape == (50, CLASSES)
    assert found.probabilities.sum(1) == pytest.approx(np.ones(50))
    assert (found.spread >= 0).all()
    assert (found.spread <= 0.5).all()
    assert ((found.entropy >= 0) & (found.entropy <= math.log(CLASSES) + 1e-9)).all()
    assert ((found.entropy_share >= 0) & (found.entropy_share <= 1 + 1e-9)).all()
    assert ((found.mutual_information >= 0) & (found.mutual_information <= found.entropy)).all()


def test_samples_by_hand() -> None:
    """Two features, one class each: the four masks of a rate of one half, all equally likely."""
    own = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        own.weight.copy_(torch.eye(2))
    found = uncertainty.doubt(own, torch.tensor([[3.0, 1.0]]), injection(rate=0.5, samples=10_000))
    cases = [metrics.softmax(np.array(z)) for z in ([6.0, 2.0], [6.0, 0.0], [0.0, 2.0], [0.0, 0.0])]
    assert found.probabilities[0] == pytest.approx(np.mean(cases, 0), abs=0.02)
    assert found.spread[0] == pytest.approx(np.std(cases, 0), abs=0.02)
    mean = np.mean(cases, 0)
    entropy = -(mean * np.log(mean)).sum()
    within = np.mean([-(p * np.log(p)).sum() for p in cases])
    assert found.entropy[0] == pytest.approx(entropy, abs=0.02)
    assert found.mutual_information[0] == pytest.approx(entropy - within, abs=0.02)


def test_a_rate_of_nearly_nothing_is_temperature_scaling() -> None:
    own = head()
    features, _ = split(own, 20)
    found = uncertainty.doubt(own, features, injection(rate=1e-9, scale=1.7))
    assert found.probabilities == pytest.approx(metrics.softmax(own(features).detach().numpy(), 1.7), abs=1e-5)
    assert found.spread.max() < 1e-6
    assert found.mutual_information.max() < 1e-6


def test_a_higher_rate_spreads_more() -> None:
    own = head()
    features, _ = split(own, 40)
    spreads = [uncertainty.doubt(own, features, injection(rate=r)).spread.mean() for r in (0.02, 0.1, 0.5)]
    assert spreads == sorted(spreads)
    assert spreads[0] < spreads[2] / 2


def test_an_image_has_the_same_doubt_whatever_lies_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    own = head()
    features, _ = split(own, 33)
    whole = uncertainty.doubt(own, features, injection())
    alone = uncertainty.doubt(own, features[17:18], injection())
    assert alone.spread[0] == pytest.approx(whole.spread[17], abs=1e-6)
    monkeypatch.setattr(uncertainty, "_MOST_VALUES", 16 * CLASSES * 4)
    assert uncertainty.doubt(own, features, injection()).entropy == pytest.approx(whole.entropy, abs=1e-6)


def test_another_seed_gives_other_samples() -> None:
    own = head()
    features, _ = split(own, 5)
    one, two, again = (uncertainty.doubt(own, features, injection(seed=s)).spread for s in (0, 1, 0))
    assert (one == again).all()
    assert not np.allclose(one, two)


def test_features_are_what_enters_the_head_and_the_hook_goes_away() -> None:
    own = head()
    model = nn.Sequential(nn.Flatten(), nn.ReLU(), own)
    images = torch.randn(6, 2, FEATURES // 2)
    with uncertainty.features_into(own) as seen:
        for batch in images.split(4):
            model(batch)
    model(images)
    assert torch.equal(torch.cat(seen), images.flatten(1).relu())
    assert not own._forward_pre_hooks


def test_the_hook_goes_away_also_after_an_error() -> None:
    own = head()
    with pytest.raises(RuntimeError), uncertainty.features_into(own):
        own(torch.zeros(1, FEATURES + 1))
    assert not own._forward_pre_hooks


@pytest.mark.parametrize("change", [{"rate": 0.0}, {"rate": 1.0}, {"scale": 0.0}, {"samples": 0}, {"samples": 10**9},
                                    {"scale": math.nan}])  # fmt: skip
def test_a_record_that_cannot_be_run_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(DataError):
        injection(**change)
