"""Choice of the calibration images, and checks of the choice: number, classes, copies, similarity to val."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgekit import files
from edgekit.data import dataset, listing, sources
from edgekit.data.threads import in_order
from edgekit.errors import DataError
from edgekit.labels import visible
from edgekit.quantization import FEW_SAMPLES, CalibrationRecipe, CalibrationSet
from edgekit.records import Sample

UNLABELLED = -1
SPLIT = "calibration"
_MOST_NAMED = 3
# Excess of the distance over chance, in units of the variance of the evaluation data, from which the images count
# as a different kind. Train and val differ by about 0.1, as a network separates its training images better.
MOST_EXCESS = 0.25
_SPLITS, _LEVEL = 199, 0.01


def choose(samples: Sequence[Sample], recipe: CalibrationRecipe) -> CalibrationSet:
    """Choose `recipe.samples` of `samples`, round robin over shuffled classes.

    The choice depends on the content hashes, the labels and the seed, not on paths or order. If there are
    fewer samples, all are chosen.
    """
    classes: dict[int, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda s: (s.label, s.sha256)):
        classes[sample.label].append(sample)
    rng = random.Random(recipe.seed)  # noqa: S311  a choice, not a secret
    for members in classes.values():
        rng.shuffle(members)
    rounds = max(map(len, classes.values()), default=0)
    dealt = [members[turn] for turn in range(rounds) for members in classes.values() if turn < len(members)]
    return set_of(dealt[: recipe.samples])


class FromFolder(NamedTuple):
    """Unlabelled calibration images: the choice, its files in the same order, and skipped files ("path: reason")."""

    chosen: CalibrationSet
    paths: list[Path]
    skipped: list[str]


def from_folder(folder: Path, recipe: CalibrationRecipe) -> FromFolder:
    """Choose `recipe.samples` of the images at any depth below `folder`; equal files count once.

    Files are listed as in a data set (`listing.find`). All files are hashed, and the choice depends on the
    hashes and the seed. Only chosen files are decoded; one that cannot be decoded is replaced by the next.

    Returns:
        Samples with the label `UNLABELLED` and paths relative to `folder`.
    Raises:
        MissingError: the folder does not exist. DataError: it has no readable image.
    """
    sources.check_there(folder, f"{str(folder)!r} is not a folder", "pass a folder of images to --calibration-data")
    found = sources.find(folder, sources.Reading(labelled=False))
    folder = found.root
    files = [image.path for image in found.files]
    skipped = [f"{_shown(path)}: the folder cannot be listed ({why})" for path, why in found.closed]
    skipped += [
        listing.sentence(left).removeprefix("left out: ") for left in found.counted if left.reason in listing.LOSSES
    ]
    by_hash: dict[str, str] = {}
    for path, digest in zip(files, in_order(lambda path: _digest(folder / path), files)):
        if isinstance(digest, DataError):
            skipped.append(f"{_shown(path)}: {digest.message}")
        else:
            by_hash.setdefault(digest, path)
    order = sorted(by_hash)
    random.Random(recipe.seed).shuffle(order)  # noqa: S311  a choice, not a secret
    samples: list[Sample] = []
    for digest in order:
        if len(samples) == recipe.samples:
            break
        try:
            dataset.read_image(folder, by_hash[digest], lambda image: None)
            samples.append(Sample(by_hash[digest], UNLABELLED, SPLIT, digest))
        except DataError as error:
            skipped.append(f"{_shown(by_hash[digest])}: {error.message}")
    if not samples:
        why = f"; {skipped[0]}" if skipped else ""
        raise DataError(
            f"no readable image below {folder}{why}", f"put about {recipe.samples} images there, in any folders"
        )
    return FromFolder(set_of(samples), [folder / s.path for s in samples], skipped)


def _shown(path: str) -> str:
    return visible(path.removeprefix("./"))


def _digest(path: Path) -> str | DataError:
    try:
        return files.sha256_file(path)
    except OSError as error:
        return DataError(f"cannot be read ({error.strerror or error})")


def set_of(samples: Sequence[Sample]) -> CalibrationSet:
    """Return samples as a calibration set, with the hash of their contents in this order."""
    return CalibrationSet(tuple(samples), files.sha256_text([s.sha256 for s in samples]))


def problems(chosen: CalibrationSet, labels: Sequence[str], recipe: CalibrationRecipe) -> list[str]:
    """Return problems of a calibration set, one sentence each: too few images, copies, missing classes.

    Args:
        labels: classes of the network; unlabelled samples are not checked against them.
    Raises:
        DataError: the set is empty.
    """
    count, different = len(chosen.samples), len({s.sha256 for s in chosen.samples})
    if not count:
        raise DataError("the calibration set is empty", "give the data set more training images")
    found = []
    if different < FEW_SAMPLES:
        found.append(
            f"only {different} different calibration images; with fewer than {FEW_SAMPLES} the ranges are unreliable"
        )
    elif count < recipe.samples:
        found.append(f"only {count} of the {recipe.samples} requested calibration images")
    if different < count:
        found.append(f"{count - different} of the {count} calibration images are copies of others")
    seen = {s.label for s in chosen.samples} - {UNLABELLED}
    missing = [visible(name) for label, name in enumerate(labels) if label not in seen]
    if len(seen) == 1:
        found.append(f"all calibration images are of one class, {visible(labels[min(seen)])!r}")
    elif seen and missing:
        found.append(f"{len(missing)} of {len(labels)} classes have no calibration image: {_first(missing)}")
    return found


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def watched(batches: Iterable[np.ndarray], paths: Sequence[Path], say: Callable[[str], None]) -> Iterator[np.ndarray]:
    """Yield `batches`, and report images of a single colour at the end: their ranges carry no information.

    Args:
        batches: uint8 (N, H, W, 3), the images of `paths` in order.
        say: called with one sentence if there are such images.
    Raises:
        DataError: all images have a single colour.
    """
    constant: list[str] = []
    count = 0
    for pixels in batches:
        flat = (pixels == pixels[:, :1, :1]).all((1, 2, 3))
        constant += [visible(str(paths[count + row])) for row in np.flatnonzero(flat)]
        count += len(pixels)
        yield pixels
    if constant and len(constant) == count:
        raise DataError(
            f"every calibration image has a single colour: {_first(constant)}",
            "calibrate with images like those that the network will classify",
        )
    if constant:
        say(f"{len(constant)} of {count} calibration images have a single colour: {_first(constant)}")


@dataclass(frozen=True)
class Likeness:
    """Distance between the features of two sets of images, in units of the total variance of the evaluation data.

    Attributes:
        expected: mean distance if the images were assigned to the two sets at random.
        unlike: whether the distance is significantly and relevantly larger than that.
    """

    distance: float
    expected: float
    unlike: bool

    @property
    def ratio(self) -> float:
        """Return the distance divided by the expected one."""
        return self.distance / self.expected if self.expected > 0 else 1.0


def compare_likeness(calibration: np.ndarray, evaluation: np.ndarray, seed: int = 0) -> Likeness:
    """Compare the features of two sets of images, float32 (N, D) and (M, D).

    The distance is the Fréchet distance of two normal distributions (Heusel et al. 2017, arXiv:1706.08500,
    equation 6) with diagonal covariances, which few images suffice to estimate. A permutation test with 199
    permutations gives its distribution under chance. `unlike` requires p <= 0.01 and an excess over chance
    greater than `MOST_EXCESS`, because with enough images any difference is significant.

    Raises:
        DataError: a set is empty, or a feature is not finite.
    """
    if not len(calibration) or not len(evaluation):
        raise DataError("no images to compare with the calibration set", "give the data set a val split")
    pooled = np.concatenate([calibration, evaluation]).astype(np.float64)
    if not np.isfinite(pooled).all():
        raise DataError("features of the network are NaN or infinite", "train again with a lower --lr")
    rng = np.random.default_rng(seed)
    members = np.zeros((1 + _SPLITS, len(pooled)))
    members[0, : len(calibration)] = 1
    members[1:] = rng.permuted(np.tile(members[0], (_SPLITS, 1)), axis=1)
    spread = max(float(evaluation.astype(np.float64).var(0).sum()), 1e-12)
    distances = _distances(pooled - pooled.mean(0), members) / spread
    distance, chance = float(distances[0]), distances[1:]
    p_value = (1 + int((chance >= distance).sum())) / (1 + _SPLITS)
    expected = float(chance.mean())
    return Likeness(distance, expected, p_value <= _LEVEL and distance - expected > MOST_EXCESS)


def _distances(features: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return distances (R,) between members (1) and others (0), for features (N, D) and members (R, N)."""
    moments = []
    for part in (members, 1 - members):
        weights = part / part.sum(1, keepdims=True)
        mean = weights @ features
        moments.append((mean, np.sqrt(np.maximum(weights @ features**2 - mean**2, 0))))
    (mean, deviation), (other_mean, other_deviation) = moments
    return ((mean - other_mean) ** 2 + (deviation - other_deviation) ** 2).sum(1)
