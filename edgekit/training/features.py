"""Features of a frozen backbone, cached on disk by the content hash of each image.

``<cache>/features/<key>/<sha256>.npy`` are blocks of (SHA-256 of the image, float32 features). The key
covers everything else that determines the values: the weights of the backbone, `Preprocess`, and the
augmented view. An interrupted extraction continues where it stopped; new images are added.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from edgekit import files
from edgekit.data.images import fit, seen_in
from edgekit.data.threads import in_order
from edgekit.errors import DataError
from edgekit.models import build, zoo
from edgekit.models.build import normalize
from edgekit.models.catalog import TIMM
from edgekit.records import Preprocess, Sample
from edgekit.training.augment import augmentation, seed_of

if TYPE_CHECKING:
    from PIL.Image import Image

BLOCK, MOST_BLOCKS = 1024, 64  # least images per file; files per extraction, approximately
SCHEMA = 1  # to be increased when `augmentation` or `_look` changes
Update = Callable[[int, int, str], None]


@dataclass(frozen=True)
class View:
    """One version of every image: number 0 as for evaluation, others augmented."""

    number: int
    augment: str = "none"
    flip: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Backbone:
    """Frozen network with its preprocessing; `key` is a hash of its weights."""

    model: nn.Module
    arch: str
    preprocess: Preprocess
    key: str


def backbone(model: nn.Module, arch: str, preprocess: Preprocess) -> Backbone:
    """Return `model` as a source of features; the key covers all weights except those of the head."""
    packages = ("torch", "torchvision", "pillow", *(["timm"] if arch.startswith(TIMM) else []))
    versions = [metadata.version(p) for p in packages]
    place = next(model.parameters()).device.type
    digest = hashlib.sha256(json.dumps([SCHEMA, arch, preprocess.document(), versions, place]).encode())
    heads = zoo.row(arch).heads
    for name, value in model.state_dict().items():
        if not name.startswith(heads):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return Backbone(model, arch, preprocess, digest.hexdigest())


class Features:
    """Features of samples by number and epoch; rows are read from disk on access."""

    def __init__(self, views: Sequence[Sequence[np.ndarray]], places: Sequence[Sequence[tuple[int, int]]]) -> None:
        self._views = views
        self._places = places

    def rows(self, numbers: Sequence[int], epoch: int) -> torch.Tensor:
        """Return features of samples, float32 (n, F), in the view of `epoch` (counted from 1)."""
        view = (epoch - 1) % len(self._views)
        blocks, places = self._views[view], self._places[view]
        return torch.from_numpy(np.stack([blocks[places[n][0]]["features"][places[n][1]] for n in numbers]))

    def digest(self) -> str:
        """Return the SHA-256 of all rows, in order.

        The last bits of a feature depend on the other images of its batch, so features that were
        computed again may differ. A training is resumed only on the same features.
        """
        digest = hashlib.sha256()
        for blocks, places in zip(self._views, self._places):
            for block, row in places:
                digest.update(blocks[block]["features"][row].tobytes())
        return digest.hexdigest()


def views_of(count: int, augment: str, flip: bool, seed: int) -> list[View]:
    """Return the `count` views that epochs cycle through, or the plain one without augmentation."""
    if augment == "none" and not flip:
        return [View(0)]
    return [View(number, augment, flip, seed) for number in range(1, count + 1)]


def extract(source: Backbone, root: Path, samples: Sequence[Sample], views: Sequence[View], update: Update) -> Features:
    """Return features of `samples` in every view, from the cache or computed.

    Args:
        update: called with (images done, images in all, "features").
    """
    blocks, places = [], []
    for number, view in enumerate(views):
        folder = _folder(source, view)
        known = _read(folder)
        wanted = {s.sha256: s for s in samples}
        missing = [s for s in wanted.values() if s.sha256 not in known[1]]
        before, total = number * len(samples), len(views) * len(samples)
        done = before + len(samples) - len(missing)
        for block in _compute(source, root, missing, view):
            _write(folder, block)
            done += len(block)
            update(done, total, "features")
        if missing:
            known = _read(folder)
        blocks.append(known[0])
        places.append([known[1][s.sha256] for s in samples])
    return Features(blocks, places)


def _folder(source: Backbone, view: View) -> Path:
    key = hashlib.sha256(f"{source.key} {json.dumps(asdict(view))}".encode()).hexdigest()
    return files.cache_dir("features") / key[:32]


def _compute(source: Backbone, root: Path, samples: Sequence[Sample], view: View) -> Iterator[np.ndarray]:
    """Compute features in batches of 32, and yield them in blocks."""
    transform = augmentation(view.augment, view.flip, source.preprocess) if view.number else None
    block: list[np.ndarray] = []
    size = max(BLOCK, len(samples) // MOST_BLOCKS // 32 * 32)

    def look(sample: Sample) -> np.ndarray:
        return _look(root, sample, view, transform, source.preprocess)

    # Augmentation draws from torch's one generator, so it stays on this thread.
    looks = in_order(look, samples) if transform is None else map(look, samples)
    for start in range(0, len(samples), 32):
        part = samples[start : start + 32]
        values = head_inputs(source, np.stack(list(islice(looks, len(part)))))
        rows = np.zeros(len(part), [("sha256", "S64"), ("features", "<f4", values.shape[1])])
        rows["sha256"], rows["features"] = [s.sha256.encode() for s in part], values.numpy()
        block.append(rows)
        if (start + 32) % size == 0:
            yield np.concatenate(block)
            block = []
    if block:
        yield np.concatenate(block)


def _look(root: Path, sample: Sample, view: View, transform: Any, preprocess: Preprocess) -> np.ndarray:
    """Return the pixels of one view of an image; the augmentation depends on its content, not on its path."""
    if files.sha256_file(root / sample.path) != sample.sha256:
        raise DataError(f"{root / sample.path} has changed since it was indexed", "run the same command again")

    def look(image: Image) -> np.ndarray:
        if transform is not None:
            torch.default_generator.manual_seed(seed_of(view.seed, "view", view.number, sample.sha256))
            image = transform(image)
        return np.array(image, np.uint8) if view.augment != "none" else fit(image, preprocess)

    return seen_in(root / sample.path, preprocess, look)


@torch.inference_mode()
def head_inputs(source: Backbone, pixels: np.ndarray) -> torch.Tensor:
    """Return the inputs of the head, float32 (N, F) on the CPU, for pixels uint8 (N, H, W, 3), in eval mode."""
    inputs_of_head: list[torch.Tensor] = []
    hook = build.head_of(source.model, source.arch).register_forward_pre_hook(
        lambda _, inputs: inputs_of_head.append(inputs[0])
    )
    source.model.eval()
    try:
        source.model(normalize(torch.from_numpy(pixels).to(next(source.model.parameters()).device), source.preprocess))
    finally:
        hook.remove()
    return inputs_of_head[0].float().cpu()


def _write(folder: Path, block: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, block, allow_pickle=False)
    content = buffer.getvalue()
    files.save_bytes(folder / f"{hashlib.sha256(content).hexdigest()}.npy", content)


def _read(folder: Path) -> tuple[list[np.ndarray], dict[str, tuple[int, int]]]:
    """Map the blocks of a folder, and return them with (block, row) of each image; remove damaged blocks.

    If an image has several rows, the oldest is used.
    """
    blocks: list[np.ndarray] = []
    places: dict[str, tuple[int, int]] = {}
    for path in sorted(folder.glob("[!.]*.npy"), key=lambda p: (p.stat().st_mtime_ns, p.name)):
        if files.sha256_file(path) != path.stem:
            path.unlink(missing_ok=True)
            continue
        blocks.append(np.load(path, mmap_mode="r", allow_pickle=False))
        for row, digest in enumerate(blocks[-1]["sha256"].tolist()):
            places.setdefault(digest.decode(), (len(blocks) - 1, row))
    return blocks, places
