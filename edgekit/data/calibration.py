"""Which training images the observers are shown: seeded, and balanced over the classes."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence

from edgekit import store
from edgekit.quantization import CalibrationRecipe, CalibrationSet
from edgekit.records import Sample


def choose(samples: Sequence[Sample], recipe: CalibrationRecipe) -> CalibrationSet:
    """Pick `recipe.samples` of `samples`: round robin over shuffled classes.

    The choice depends on the content hashes, the labels and the seed, not on paths or order.
    With fewer samples than asked for, all are taken.
    """
    classes: dict[int, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda s: (s.label, s.sha256)):
        classes[sample.label].append(sample)
    rng = random.Random(recipe.seed)  # noqa: S311  a choice, not a secret
    for members in classes.values():
        rng.shuffle(members)
    rounds = max(map(len, classes.values()), default=0)
    dealt = [members[turn] for turn in range(rounds) for members in classes.values() if turn < len(members)]
    chosen = tuple(dealt[: recipe.samples])
    return CalibrationSet(chosen, store.sha256_text([s.sha256 for s in chosen]))
