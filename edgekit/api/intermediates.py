"""What the quantized files of one run hold: decided once, kept in the run, used again."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import files, progress, runs
from edgekit.config import from_table
from edgekit.data import calibration, dataset, images
from edgekit.errors import DataError
from edgekit.quantization import (
    Border,
    CalibrationRecipe,
    CalibrationSet,
    CalibrationTable,
    LayerWeights,
    QuantizedModel,
    QuantScheme,
)
from edgekit.records import Checkpoint, DatasetIndex

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

    from edgekit.quant.naming import Naming


_MOST_SCORES = 500_000  # for two numbers


def quantized(bench: Intermediates) -> QuantizedModel:
    """The weights for INT8 activations."""
    if "rounding" in bench.recipe.steps and "bias" not in bench.recipe.steps:
        progress.note(
            'recovery: "rounding" moves the mean of every output; without "bias" it can lose more than it gains'
        )
    return _recovered(bench, bench.table, ".symmetric.npz" if bench.symmetric else ".npz", bench.symmetric)


def weights_only(bench: Intermediates) -> QuantizedModel:
    """The weights for float32 activations; 16 bits are as good as these."""
    return _recovered(bench, dataclasses.replace(bench.table, ranges={}), ".weights.npz", False)


def _recovered(bench: Intermediates, table: CalibrationTable, suffix: str, symmetric: bool) -> QuantizedModel:
    """The weights under which the network loses least when the tensors of `table` are rounded."""
    from edgekit.quant import cache, recover

    path = bench.table_path.with_suffix(suffix)
    made_by = {"table": files.sha256_file(bench.table_path), "checkpoint": bench.checkpoint.sha256}
    if (kept := cache.load(path, made_by)) is not None:
        return QuantizedModel(bench.table, kept[0], symmetric, bench.recipe.steps, kept[1])
    images = bench.calibration_images(bench.recipe.recovery_samples if bench.recipe.steps else 1)
    with progress.bar("recovering accuracy") as update:
        scheme = QuantScheme(symmetric, everywhere=True)
        model = recover.recover(bench.folded, table, bench.recipe, scheme, images, update)
    model = dataclasses.replace(model, table=bench.table)
    if bench.recipe.steps:
        cache.save(path, model, made_by)
        progress.note(f"recovery: {', '.join(bench.recipe.steps)} on up to {len(images)} images")
    return model


def first_layer(bench: Intermediates, rounded: bool, rewritten: dict[str, LayerWeights]) -> LayerWeights | None:
    """The first layer on pixels less 255 times their mean, as trained or rounded; None if it cannot normalize.

    Args:
        rewritten: of the quantized model whose file it is for.
    """
    from edgekit.quant import cache, litert_io, placement

    preprocess, trained = bench.checkpoint.preprocess, litert_io.exported(bench.folded)
    if trained is None or not litert_io.begins_with(bench.tflite, trained):
        return None
    folded = placement.with_weights(bench.folded, rewritten)
    exact = litert_io.trained(folded, preprocess)
    if not rounded or exact is None:
        return exact
    digest = hashlib.sha256(exact.weight.tobytes() + (b"" if exact.bias is None else exact.bias.tobytes())).hexdigest()
    path = bench.table_path.with_suffix(f".pixels.{digest[:8]}.npz" if rewritten else ".pixels.npz")
    made_by = {"table": files.sha256_file(bench.table_path), "checkpoint": bench.checkpoint.sha256, "first": digest}
    if (kept := cache.load(path, made_by)) is not None:
        return next(iter(kept[0].values()))
    images = bench.calibration_images(bench.recipe.recovery_samples if bench.recipe.steps else 1)
    decided = litert_io.decided(folded, preprocess, bench.recipe, images)
    if decided is not None:
        cache.save(path, QuantizedModel(bench.table, {"first": decided}), made_by)
    return decided


def score_calibration(bench: Intermediates) -> tuple[float, float] | None:
    """Platt scaling on val; None, and a note, where the run was never evaluated."""
    from edgekit.evaluation import evaluate, temperature

    judged = evaluate.load(bench.run.path, bench.checkpoint.sha256)
    if judged is None:
        progress.note(
            f"no score calibration in the files: it needs edgekit evaluate {bench.run.handle}, then export again"
        )
        return None
    most = max(1, _MOST_SCORES // len(bench.checkpoint.labels))
    return temperature.fit_platt(judged.raw["val_logits"][:most], judged.raw["val_labels"][:most])


# What the exports of one run share, each made once and only when needed.

SCHEMA = 1  # of calibration/<recipe>.json
_BATCH = 16
_MOST_SAID = 3


class Intermediates:
    """The intermediate models of a run. Files are kept in ``export/common`` and used again."""

    def __init__(
        self,
        run: runs.Run,
        recipe: CalibrationRecipe | None = None,
        symmetric: bool = False,
        calibration_data: Path | None = None,
        border: Border | None = None,
    ) -> None:
        """
        Args:
            border: what LiteRT files take and give.
            symmetric: both targets get symmetric activations (``--parity strict``).
            calibration_data: a folder of unlabelled images instead of the train split.
        """
        self.run = run
        self.calibration_data = calibration_data
        self.recipe = recipe or CalibrationRecipe("default")
        self.symmetric = symmetric
        self.border = border or Border()

    @cached_property
    def trained(self) -> tuple[Checkpoint, nn.Module]:
        """The checkpoint, checked against run.json, and its network."""
        from edgekit.models import checkpoints

        checkpoint, model = checkpoints.load(self.run.path / "checkpoint.pt")
        if checkpoint.sha256 != self.run.weights_sha256:
            raise DataError(f"{checkpoint.path} is not the one that this run trained", "restore it, or train again")
        return checkpoint, model

    @property
    def checkpoint(self) -> Checkpoint:
        return self.trained[0]

    @cached_property
    def data(self) -> DatasetIndex:
        return dataset.load_index(self.run.path / "data.json")

    @cached_property
    def folded(self) -> fx.GraphModule:
        from edgekit.convert import fold

        return fold.fold(self.trained[1], self.checkpoint.preprocess.image_size)

    @cached_property
    def onnx(self) -> Path:
        """FP32 ONNX, batch 1; model.fp32.dynamic.onnx lies beside it."""

        def make(static: Path, dynamic: Path) -> None:
            from edgekit.convert import onnx

            with progress.working("exporting ONNX"):
                size = self.checkpoint.preprocess.image_size
                onnx.export(self.folded, size, self.checkpoint.sha256, static, dynamic)

        return self.kept(("model.fp32.onnx", "model.fp32.dynamic.onnx"), make)

    @cached_property
    def tflite(self) -> Path:
        """FP32 LiteRT."""

        def make(path: Path) -> None:
            from edgekit.convert import tflite

            with progress.working("converting to LiteRT"):
                tflite.export(self.folded, self.checkpoint.preprocess.image_size, path)

        return self.kept(("model.fp32.tflite",), make)

    def save_baseline(self, path: Path) -> None:
        """The network as trained, as a torch program: the desktop baseline.

        Made anew each time: torch can only load such a file by unpickling it.
        """
        import torch

        size = self.checkpoint.preprocess.image_size
        program = torch.export.export(self.trained[1], (torch.zeros(1, 3, size, size),))
        buffer = io.BytesIO()  # torch's own writer aborts the process on a full disk
        torch.export.save(program, buffer)
        files.save_bytes(path, buffer.getvalue())

    @cached_property
    def calibration_set(self) -> CalibrationSet:
        """The samples that are shown to the observers; what is doubtful about them is said."""
        chosen, _ = self._chosen
        for problem in calibration.problems(chosen, self.checkpoint.labels, self.recipe):
            progress.note(f"calibration: {problem}")
        return chosen

    @cached_property
    def _chosen(self) -> tuple[CalibrationSet, list[Path]]:
        """The calibration samples and their files."""
        if self.calibration_data is None:
            chosen = calibration.choose(self.data.split("train"), self.recipe)
            return chosen, [self.data.root / sample.path for sample in chosen.samples]
        found = calibration.from_folder(self.calibration_data, self.recipe)
        for passed_over in found.skipped[:_MOST_SAID]:
            progress.note(f"calibration: passed over {passed_over}")
        return found.chosen, found.paths

    def _calibration_paths(self, limit: int | None = None) -> list[Path]:
        """The first files of the calibration set; those of the data set must be as they were indexed."""
        samples = self.calibration_set.samples[:limit]
        if self.calibration_data is None:
            return dataset.check_unchanged(self.data, samples)
        return self._chosen[1][:limit]

    @cached_property
    def table(self) -> CalibrationTable:
        """The one calibration, from the train split; read from the run if it is there already."""
        chosen = self.calibration_set
        recipe = json.loads(json.dumps(dataclasses.asdict(self.recipe)))  # as it is read back: lists, not tuples
        made_by = {"recipe": recipe, "samples": chosen.fingerprint}
        path = self.table_path
        if path.is_file():
            kept = files.load_document(path, SCHEMA, "made_by", "table")
            table = from_table(kept["table"], CalibrationTable, str(path))
            if kept["made_by"] == made_by and table.parent == self.checkpoint.sha256:
                progress.note(f"calibration: {path} (made before, used again)")
                return table
        from edgekit.quant import calibrate, preflight

        preflight.check_operators(self.folded)
        for doubt in preflight.check_weights(self.folded):
            progress.note(f"weights: {doubt}")
        paths = self._calibration_paths()
        with progress.bar("calibrating") as update:
            batches = self._batches(paths, update, lambda text: progress.note(f"calibration: {text}"))
            table = calibrate.calibrate(self.folded, batches, self.recipe, chosen, self.checkpoint.sha256)
        files.save_json(path, {"schema": SCHEMA, "made_by": made_by, "table": table})
        for doubt in preflight.dead_tensors(table):
            progress.note(f"calibration: {doubt}")
        if self.calibration_data is not None:
            self._compare_with_evaluation(paths)
        progress.note(f"calibration: {len(chosen.samples)} images, {len(table.ranges)} tensors, {table.observer}")
        return table

    def _compare_with_evaluation(self, paths: list[Path]) -> None:
        """Say it where foreign calibration images do not look like the val split."""
        from edgekit.data import calibration
        from edgekit.quant import preflight

        ignore: Callable[[int, int], None] = lambda done, total: None  # noqa: E731
        judged_on = calibration.choose(self.data.split("val"), self.recipe)  # the split's own order is by class
        val = dataset.check_unchanged(self.data, judged_on.samples)
        with progress.working("comparing with val"):
            seen, judged = (preflight.features(self.folded, self._batches(files, ignore)) for files in (paths, val))
        found = calibration.compare_likeness(seen, judged)
        if found.unlike:
            progress.note(
                f"calibration: these images do not look like those of val: their features are {found.distance:.2f} "
                f"variances apart, {found.expected:.2f} would be chance"
            )

    @property
    def table_path(self) -> Path:
        """``calibration/<recipe>-<hash>.json``: other recipes of the name, and other images, lie beside it."""
        recipe = json.dumps(dataclasses.asdict(self.recipe), sort_keys=True)
        digest = files.sha256_text([recipe, self.calibration_set.fingerprint])
        return self.run.path / "calibration" / f"{self.recipe.name}-{digest[:8]}.json"

    @cached_property
    def quantized(self) -> QuantizedModel:
        """What every INT8 file holds: decided once, kept beside the table."""
        return quantized(self)

    @cached_property
    def weights_only(self) -> QuantizedModel:
        """What the files hold that have int8 weights and (all but) exact activations."""
        return weights_only(self)

    def first_layer(self, rounded: bool, rewritten: dict[str, LayerWeights]) -> LayerWeights | None:
        """The first layer on pixels less their mean, for files that normalize by themselves; None if it cannot be."""
        return first_layer(self, rounded, rewritten)

    def calibration_images(self, limit: int) -> torch.Tensor:
        """The first `limit` images of the calibration set, normalized float32 (N, 3, H, W)."""
        import torch

        return torch.cat(list(self._batches(self._calibration_paths(limit), lambda done, total: None)))

    @cached_property
    def onnx_naming(self) -> Naming:
        """What the tensors and nodes of the ONNX file are in torch."""
        from edgekit.convert import onnx

        return self._name(onnx.run_all(self.onnx, self._probe.numpy()))

    @property
    def observed_onnx(self) -> tuple[CalibrationTable | None, dict[str, str] | None]:
        """What the tensors of the ONNX file were seen to hold; nothing for networks that are not quantized."""
        from edgekit.models import zoo

        row = zoo.MODELS.get(self.checkpoint.arch)
        return (self.table, self.onnx_naming.tensors) if row is None or row.quantizes else (None, None)

    @cached_property
    def tflite_naming(self) -> Naming:
        """What the tensors and operators of the LiteRT file are in torch."""
        from edgekit.convert import tflite

        return self._name(tflite.run_all(self.tflite, self._probe.numpy()))

    @cached_property
    def _probe(self) -> torch.Tensor:
        """One random image; its tensors tell which name is which."""
        import torch

        size = self.checkpoint.preprocess.image_size
        return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))

    def _name(self, tensors: dict[str, np.ndarray]) -> Naming:
        from edgekit.quant import calibrate, naming, placement

        reference = calibrate.run_all(self.folded, self._probe)
        return naming.naming(reference, placement.written_by(self.folded), placement.trained(self.folded), tensors)

    def _batches(
        self, paths: list[Path], update: Callable[[int, int], None], say: Callable[[str], None] | None = None
    ) -> Iterator[torch.Tensor]:
        """Normalized batches; only one is in memory at a time. `say` hears of images of a single colour."""
        import torch

        from edgekit.models.build import normalize

        loaded = images.load_batches(paths, self.checkpoint.preprocess, _BATCH)
        for number, pixels in enumerate(calibration.watched(loaded, paths, say) if say else loaded):
            yield normalize(torch.from_numpy(pixels), self.checkpoint.preprocess).contiguous()
            update(number * _BATCH + len(pixels), len(paths))

    def kept(self, names: tuple[str, ...], make: Callable[..., Any]) -> Path:
        """Files of ``export/common``, made together unless all are there, whole, and from this checkpoint.

        Args:
            make: called with one path per name, in a staging folder.
        Returns the path of the first.
        """
        common = self.run.path / "export" / "common"
        if not all(self._is_whole(common / name) for name in names):
            with files.staging(common) as folder:
                make(*(folder / name for name in names))
                for name in names:
                    digest = files.sha256_file(folder / name)
                    os.replace(folder / name, common / name)
                    files.save_json(_sidecar(common / name), {"parent": self.checkpoint.sha256, "sha256": digest})
        return common / names[0]

    def _is_whole(self, path: Path) -> bool:
        if not path.is_file() or not _sidecar(path).is_file():
            return False
        return files.load_json(_sidecar(path)) == {"parent": self.checkpoint.sha256, "sha256": files.sha256_file(path)}


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")
