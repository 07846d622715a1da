"""Made-up evaluations, for tests of what is shown of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekit.evaluation import metrics
from edgekit.scores import DropoutInjection, Evaluation, Mistake, SplitScores, Tried

# Names that a folder may have and that a picture, a page or a terminal could trip over.
HOSTILE = (
    "$x^2$ _frac{1}", "<script>alert(1)<", "-->&amp;\"'", "{{ 7 * 7 }}", "שלום עולם", "العربية",
    "東京タワーとその周辺の風景", "😀😀 emoji 👩🏽", "x" * 100, "a_b^c%d#e", "e\u0301\u0302 combining", "[bold]red",
)  # fmt: skip


def split(logits: np.ndarray, labels: np.ndarray, temperature: float = 1.0) -> SplitScores:
    """The scores of logits, with the same probabilities for dropout as after temperature."""
    before, after = (metrics.calibration(metrics.softmax(logits, t), labels) for t in (1.0, temperature))
    return SplitScores(metrics.scores(logits, labels), before, after, after, {"confidence": 0.8, "spread": 0.6})


def evaluation(labels: Sequence[str] = ("cat", "dog", "owl"), right: float = 0.7, **more: Any) -> Evaluation:
    """Six images a class on val and on test, of which the share `right` is answered rightly."""
    rng, classes = np.random.default_rng(0), len(labels)
    truth = np.repeat(np.arange(classes), 6)
    logits = rng.normal(0, 1, (len(truth), classes)).astype(np.float32)
    answered = np.where(rng.random(len(truth)) < right, truth, (truth + 1) % classes)
    logits[np.arange(len(truth)), answered] += 4
    wrong = np.flatnonzero(logits.argmax(1) != truth)[:5]
    mistakes = [Mistake(f"{labels[truth[n]]}/{n}.png", int(truth[n]), int(logits[n].argmax()), 0.9) for n in wrong]
    raw = {"val_logits": logits, "test_logits": logits, "val_labels": truth, "test_labels": truth,
           "mistake_pixels": np.full((len(wrong), 32, 32, 3), 90, np.uint8)}  # fmt: skip
    fields = {
        "checkpoint_sha256": "b" * 64,
        "labels": tuple(labels),
        "temperature": 1.5,
        "dropout": DropoutInjection(0.3, 1.4, 64, 0, len(truth), 0.9, 0.88, 0.02, False, (Tried(0.3, 1.4, 0.88),)),
        "splits": {name: split(logits, truth, 1.5) for name in ("val", "test")},
        "mistakes": tuple(mistakes),
        "raw": raw,
        **more,
    }
    return Evaluation(**fields)
