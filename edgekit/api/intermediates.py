"""Intermediate models of one run: float files, calibration, quantized weights; each made once, kept in the run."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import files, progress, runs
from edgekit.config import from_table
from edgekit.data import calibration, dataset, images, location, sources
from edgekit.errors import DataError, EdgekitError, MissingError
from edgekit.labels import visible
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

    from edgekit.models.onnx_module import OnnxModule
    from edgekit.quant.costs import LeftFloat
    from edgekit.quant.naming import Naming
    from edgekit.scores import Evaluation


SCHEMA = 1  # of calibration/<recipe>.json
_BATCH = 16
_MOST_NAMED = 3
# Images without labels that answers are compared on; with fewer others, those of the calibration are taken.
_LEAST_UNLABELLED, MOST_UNLABELLED = 64, 512
_MOST_SCORES = 500_000  # logits that two parameters of score calibration are fitted to
_ignore: Callable[[int, int], None] = lambda done, total: None  # noqa: E731


class Intermediates:
    """Intermediate models of a run, each made once and on demand.

    Files are kept in ``export/common``, calibration tables and quantized weights in ``calibration``.
    """

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
            symmetric: give all targets symmetric activations (``--parity strict``).
            calibration_data: a folder of unlabelled images, used instead of the train split; None: the one that the
                run was imported with, if there is one.
            border: input and output types of LiteRT files.
        """
        self.run = run
        self.calibration_data = calibration_data or imported_with(run)
        self.recipe = recipe or CalibrationRecipe("default")
        self.symmetric = symmetric
        self.border = border or Border()

    @cached_property
    def trained(self) -> tuple[Checkpoint, nn.Module]:
        """The checkpoint and its network.

        Raises:
            DataError: the checkpoint is not the one that run.json names.
        """
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
        return dataset.of_run(self.run)

    @property
    def kept_onnx(self) -> OnnxModule | None:
        """The ONNX file of a run that was imported as it is; None for networks of torch."""
        from edgekit.models.onnx_module import OnnxModule

        model = self.trained[1]
        return model if isinstance(model, OnnxModule) else None

    @cached_property
    def folded(self) -> fx.GraphModule:
        from edgekit.convert import fold

        if self.kept_onnx is not None:
            raise self.kept_onnx.refuse("INT8 and LiteRT")
        return fold.fold(self.trained[1], self.checkpoint.preprocess.image_size)

    @cached_property
    def onnx(self) -> Path:
        """Path of the FP32 ONNX file of batch 1; model.fp32.dynamic.onnx is beside it."""

        if self.kept_onnx is not None:
            return self._copied(self.kept_onnx)

        def make(static: Path, dynamic: Path) -> None:
            from edgekit.convert import onnx

            with progress.working("exporting ONNX"):
                size = self.checkpoint.preprocess.image_size
                onnx.export(self.folded, size, self.checkpoint.sha256, static, dynamic)

        return self.kept(("model.fp32.onnx", "model.fp32.dynamic.onnx"), make)

    def _copied(self, module: OnnxModule) -> Path:
        """Write the ONNX file that the run was imported with: for a batch of 1, and for any if it takes any."""
        from edgekit.models.onnx_module import for_one_image

        names = ("model.fp32.onnx",) if module.one_by_one else ("model.fp32.onnx", "model.fp32.dynamic.onnx")

        def make(static: Path, *dynamic: Path) -> None:
            files.save_bytes(static, for_one_image(module.file))
            for path in dynamic:
                files.save_bytes(path, module.file)

        return self.kept(names, make)

    @cached_property
    def tflite(self) -> Path:
        """Path of the FP32 LiteRT file."""

        def make(path: Path) -> None:
            from edgekit.convert import tflite

            with progress.working("converting to LiteRT"):
                tflite.export(self.folded, self.checkpoint.preprocess.image_size, path)

        return self.kept(("model.fp32.tflite",), make)

    def save_baseline(self, path: Path) -> None:
        """Save the trained network as a torch program, the desktop baseline.

        It is not cached: torch can only load such a file by unpickling it.
        """
        import torch

        size = self.checkpoint.preprocess.image_size
        program = torch.export.export(self.trained[1], (torch.zeros(1, 3, size, size),))
        buffer = io.BytesIO()  # torch's own writer aborts the process on a full disk
        torch.export.save(program, buffer)
        files.save_bytes(path, buffer.getvalue())

    @cached_property
    def calibration_set(self) -> CalibrationSet:
        """The calibration samples; notes name what is doubtful about them."""
        chosen, _ = self._chosen
        for problem in calibration.problems(chosen, self.checkpoint.labels, self.recipe):
            progress.note(f"calibration: {problem}")
        return chosen

    @cached_property
    def _chosen(self) -> tuple[CalibrationSet, list[Path]]:
        """The calibration samples and their files."""
        if self.calibration_data is None:
            if not can_calibrate(self.run):
                raise MissingError(
                    "INT8 needs images to calibrate with, and the run was imported without",
                    f"edgekit export {self.run.handle} --target TARGET --calibration-data DIR   (about "
                    f"{self.recipe.samples} images like those that the network will see, without labels)",
                )
            chosen = calibration.choose(self.data.split("train"), self.recipe)
            return chosen, [self.data.root / sample.path for sample in chosen.samples]
        found = calibration.from_folder(self.calibration_data, self.recipe)
        for skipped in found.skipped[:_MOST_NAMED]:
            progress.note(f"calibration: skipped {skipped}")
        return found.chosen, found.paths

    def _calibration_paths(self, limit: int | None = None) -> list[Path]:
        """Return the first files of the calibration set.

        Raises:
            MissingError, DataError: images of the data set are gone, or have changed since training.
        """
        samples = self.calibration_set.samples[:limit]
        if self.calibration_data is None:
            return self._files(location.take_all(self.run, samples, "the calibration", self.data))
        return self._chosen[1][:limit]

    @cached_property
    def unlabelled(self) -> list[Path]:
        """Images without labels on which answers are compared: of the calibration folder, if possible other ones.

        Raises:
            MissingError, DataError: there is no such folder, or no image can be read.
        """
        assert self.calibration_data is not None
        count = CalibrationRecipe("default").samples
        wider = CalibrationRecipe("default", samples=count + MOST_UNLABELLED)
        paths = calibration.from_folder(self.calibration_data, wider).paths
        others = paths[count:]
        if len(others) >= _LEAST_UNLABELLED:
            return others
        progress.note(
            f"there are only {len(paths)} images in {self.calibration_data}: those of the calibration judge it too"
        )
        return paths[:MOST_UNLABELLED]

    @staticmethod
    def _files(data: DatasetIndex) -> list[Path]:
        return [data.root / sample.path for sample in data.samples]

    def _leave_out_missing(self) -> bool:
        """Leave out images of the calibration set that are missing; return True if there are some."""
        if self.calibration_data is not None:
            return False
        chosen, _ = self._chosen
        found = location.take(self.run, chosen.samples, "the calibration", self.data)
        if len(found.samples) == len(chosen.samples):
            return False
        hashes = {sample.sha256 for sample in found.samples}
        kept = tuple(sample for sample in chosen.samples if sample.sha256 in hashes)
        self._chosen = calibration.set_of(kept), self._files(found)
        self.__dict__.pop("calibration_set")
        return True

    @cached_property
    def table(self) -> CalibrationTable:
        """The calibration table, read from the run if it was made before, which needs no images."""
        return self._kept_table() or (self._leave_out_missing() and self._kept_table()) or self._calibrate()

    def _made_by(self) -> dict[str, Any]:
        recipe = json.loads(json.dumps(dataclasses.asdict(self.recipe)))  # as JSON gives it back: lists, not tuples
        return {"recipe": recipe, "samples": self.calibration_set.fingerprint}

    def _kept_table(self) -> CalibrationTable | None:
        """Return the table in the run; None if there is none of these samples and weights."""
        path = self.table_path
        if not path.is_file():
            return None
        kept, table = load_table(path)
        if kept["made_by"] != self._made_by() or table.parent != self.checkpoint.sha256:
            return None
        progress.note(f"calibration: {path} (used again)")
        return table

    def _calibrate(self) -> CalibrationTable:
        """Make the calibration table, and save it in the run."""
        chosen = self.calibration_set
        from edgekit.quant import calibrate, preflight

        for doubt in preflight.check_weights(self.folded):
            progress.note(f"weights: {doubt}")
        paths = self._calibration_paths()
        with progress.bar("calibrating") as update:
            batches = self._batches(paths, update, lambda text: progress.note(f"calibration: {text}"))
            table = calibrate.calibrate(self.folded, batches, self.recipe, chosen, self.checkpoint.sha256)
        files.save_document(self.table_path, {"schema": SCHEMA, "made_by": self._made_by(), "table": table})
        for doubt in preflight.dead_tensors(table):
            progress.note(f"calibration: {doubt}")
        if self.calibration_data is not None:
            self._compare_with_evaluation(paths)
        progress.note(f"calibration: {len(chosen.samples)} images, {len(table.ranges)} tensors, {table.observer}")
        return table

    def _compare_with_evaluation(self, paths: list[Path]) -> None:
        """Note if foreign calibration images do not look like the val split, or that they cannot be compared.

        Imported runs may have a test split only, or no images to compare with.
        """
        from edgekit.quant import preflight

        if self.run.info.source is not None and self.run.info.data is None:
            return
        split = "val" if self.data.split("val") else "test"
        chosen = calibration.choose(self.data.split(split), self.recipe)  # the split's own order is by class
        try:
            val_paths = self._files(location.take(self.run, chosen.samples, f"the comparison with {split}", self.data))
        except EdgekitError as error:
            progress.note(f"calibration: these images are not compared with those of {split}: {error.message}")
            return
        with progress.working(f"comparing with {split}"):
            ours, val = (preflight.features(self.folded, self._batches(each)) for each in (paths, val_paths))
        found = calibration.compare_likeness(ours, val)
        if found.unlike:
            progress.note(
                f"calibration: these images do not look like those of {split}: their features are {found.distance:.2f} "
                f"variances apart; {found.expected:.2f} is expected by chance"
            )

    @property
    def table_path(self) -> Path:
        """Path ``calibration/<recipe>-<hash>.json``; the hash is of the recipe and of the images."""
        recipe = json.dumps(dataclasses.asdict(self.recipe), sort_keys=True)
        digest = files.sha256_text([recipe, self.calibration_set.fingerprint])
        return self.run.path / "calibration" / f"{self.recipe.name}-{digest[:8]}.json"

    @cached_property
    def quantized(self) -> QuantizedModel:
        """The model that INT8 files hold; its weights are kept beside the table."""
        if "rounding" in self.recipe.steps and "bias" not in self.recipe.steps:
            progress.note(
                'recovery: "rounding" moves the mean of every output; without "bias" it can lose more than it gains'
            )
        return self._recovered(self.table, ".symmetric.npz" if self.symmetric else ".npz", self.symmetric)

    @cached_property
    def weights_only(self) -> QuantizedModel:
        """The model of files with int8 weights and float32 or int16 activations."""
        return self._recovered(dataclasses.replace(self.table, ranges={}), ".weights.npz", False)

    def _recovered(self, table: CalibrationTable, suffix: str, symmetric: bool) -> QuantizedModel:
        """Return the model with the least error when the tensors of `table` are rounded.

        Distillation keeps what it starts from, and its own state, in files of their own until it has ended.
        """
        from edgekit.quant import recover

        steps = tuple(step for step in self.recipe.steps if step != "distill")
        images = functools.cache(
            lambda: self.calibration_images(self.recipe.recovery_samples if self.recipe.steps else 1)
        )

        def solve() -> QuantizedModel:
            scheme, recipe = QuantScheme(symmetric, everywhere=True), dataclasses.replace(self.recipe, steps=steps)
            with progress.bar("recovering accuracy") as update:
                return recover.recover(self.folded, table, recipe, scheme, images(), update)

        if steps == self.recipe.steps or not table.ranges:
            return self._made_once(suffix, symmetric, steps, solve)
        stem = suffix.removesuffix(".npz")
        solved, state = (self.table_path.with_suffix(stem + end) for end in (".solved.npz", ".part.pt"))

        def train() -> QuantizedModel:
            start = self._made_once(f"{stem}.solved.npz", symmetric, steps, solve)
            with progress.bar("distilling") as update:
                return recover.distilled(self.folded, start, images(), self.recipe.distillation, update, state)

        found = self._made_once(suffix, symmetric, self.recipe.steps, train)
        for path in (solved, state):
            path.unlink(missing_ok=True)
        return found

    def _made_once(
        self, suffix: str, symmetric: bool, steps: tuple[str, ...], make: Callable[[], QuantizedModel]
    ) -> QuantizedModel:
        """Return the model that is kept under a suffix beside the table; if there is none, make it and keep it.

        Args:
            steps: those that are tried; with none, the model is made anew each time, which takes no time.
        """
        from edgekit.quant import cache, placement

        path = self.table_path.with_suffix(suffix)
        made_by = {"table": files.sha256_file(self.table_path), "checkpoint": self.checkpoint.sha256}
        if (kept := cache.load(path, made_by)) is None:
            found = make()
            ranges = {name: span for name, span in found.table.ranges.items() if span != self.table.ranges[name]}
            kept = cache.Weights(found.layers, found.rewritten, ranges, found.steps, found.table.symmetric)
            if steps:
                cache.save(path, kept, made_by)
                progress.note(f"recovery: {_steps(found.steps, steps)}")
        table = self.table.with_ranges(kept.ranges, kept.symmetric)
        return placement.quantized_model(self.folded, table, kept.layers, symmetric, kept.steps, kept.rewritten)

    def first_layer(self, rounded: bool, rewritten: dict[str, LayerWeights]) -> LayerWeights | None:
        """Return the weights of a first layer that takes pixels less 255 times their mean; None if it cannot be.

        Args:
            rounded: int8 weights; else those of the float network.
            rewritten: of the quantized model whose file it is for.
        """
        from edgekit.quant import cache, litert_io, placement

        preprocess, exported = self.checkpoint.preprocess, litert_io.exported_first_layer(self.folded)
        if exported is None or not litert_io.begins_with(self.tflite, exported):
            return None
        folded = placement.with_weights(self.folded, rewritten)
        exact = litert_io.float_first_layer(folded, preprocess)
        if not rounded or exact is None:
            return exact
        content = exact.weight.tobytes() + (b"" if exact.bias is None else exact.bias.tobytes())
        digest = hashlib.sha256(content).hexdigest()
        path = self.table_path.with_suffix(f".pixels.{digest[:8]}.npz" if rewritten else ".pixels.npz")
        made_by = {"table": files.sha256_file(self.table_path), "checkpoint": self.checkpoint.sha256, "first": digest}
        if (kept := cache.load(path, made_by)) is not None:
            return next(iter(kept.layers.values()))
        images = self.calibration_images(self.recipe.recovery_samples if self.recipe.steps else 1)
        found = litert_io.quantized_first_layer(folded, preprocess, self.recipe, images)
        if found is not None:
            cache.save(path, cache.Weights({"first": found}), made_by)
        return found

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """The evaluation of these weights; None for a run without."""
        from edgekit.evaluation import evaluate

        return evaluate.load(self.run.path, self.checkpoint.sha256)

    @cached_property
    def score_calibration(self) -> tuple[float, float] | None:
        """Slope and intercept of Platt scaling, fitted on val; None, with a note, for a run without evaluation."""
        from edgekit.evaluation import temperature

        evaluated = self.evaluation
        if evaluated is None or "val" not in evaluated.splits:
            if self.run.info.source is not None:  # which may have no images for it
                return None
            progress.note(
                f"no score calibration in the files: run `edgekit evaluate {self.run.handle}`, then export again"
            )
            return None
        most = max(1, _MOST_SCORES // len(self.checkpoint.labels))
        return temperature.fit_platt(evaluated.raw["val_logits"][:most], evaluated.raw["val_labels"][:most])

    def calibration_images(self, limit: int) -> torch.Tensor:
        """Return the first `limit` images of the calibration set, normalized float32 (N, 3, H, W)."""
        import torch

        return torch.cat(list(self._batches(self._calibration_paths(limit))))

    @cached_property
    def onnx_naming(self) -> Naming:
        """Torch names of the tensors and layers in the ONNX file."""
        from edgekit.convert import onnx

        return self._name(onnx.run_all(self.onnx, self._probe.numpy()))

    @property
    def observed_onnx(self) -> tuple[CalibrationTable | None, dict[str, str] | None]:
        """The calibration table, and ONNX tensor -> its name there; None for an ONNX file that is kept as it is.

        Also None, with a note, for a run that was imported without images.
        """
        if self.calibration_data is None and not can_calibrate(self.run):
            progress.note("fp16: without images nothing tells whether a value overflows; --calibration-data DIR would")
            return None, None
        return (None, None) if self.kept_onnx is not None else (self.table, self.onnx_naming.tensors)

    def left_float(self, model: QuantizedModel, native: QuantScheme, lost: Sequence[str] = ()) -> LeftFloat:
        """Return what computes in floating point in files of `model` for a runtime with the scheme `native`.

        Args:
            lost: layers and products of the placement that the file does not hold as integers.
        """
        from edgekit.quant import costs

        size = self.checkpoint.preprocess.image_size
        return costs.left_float(self.folded, model.placement(native), size, lost)

    @cached_property
    def tflite_naming(self) -> Naming:
        """Torch names of the tensors and layers in the LiteRT file."""
        from edgekit.convert import tflite

        return self._name(tflite.run_all(self.tflite, self._probe.numpy()))

    @cached_property
    def _probe(self) -> torch.Tensor:
        """A random image, normalized float32 (1, 3, H, W), on whose tensors graphs are matched."""
        import torch

        size = self.checkpoint.preprocess.image_size
        return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))

    def _name(self, tensors: dict[str, np.ndarray]) -> Naming:
        from edgekit.quant import calibrate, naming, placement

        reference = calibrate.run_all(self.folded, self._probe)
        trained, affine = placement.trained_weights(self.folded), placement.affine_before(self.folded)
        return naming.name_exported(reference, placement.written_by(self.folded), trained, tensors, affine)

    def _batches(
        self,
        paths: list[Path],
        update: Callable[[int, int], None] = _ignore,
        warn: Callable[[str], None] | None = None,
    ) -> Iterator[torch.Tensor]:
        """Yield normalized batches, float32 (N, 3, H, W), with only one in memory at a time.

        Args:
            update: called with the number of images done and in all. warn: called about images of a single colour.
        """
        import torch

        from edgekit.models.build import normalize

        loaded = images.load_batches(paths, self.checkpoint.preprocess, _BATCH)
        for number, pixels in enumerate(calibration.watched(loaded, paths, warn) if warn else loaded):
            yield normalize(torch.from_numpy(pixels), self.checkpoint.preprocess).contiguous()
            update(number * _BATCH + len(pixels), len(paths))

    def kept(self, names: tuple[str, ...], make: Callable[..., Any]) -> Path:
        """Return the path of the first of some files in ``export/common``, made together unless all are intact.

        Args:
            make: called with one path per name, in a staging folder.
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


def _steps(kept: tuple[str, ...], tried: tuple[str, ...]) -> str:
    """Return the steps that were kept, and those that were not."""
    lost = ", ".join(step for step in tried if step not in kept)
    return f"{', '.join(kept) or 'none'}{f' (without gain here: {lost})' if lost else ''}"


def imported_with(run: runs.Run) -> Path | None:
    """Return the folder of unlabelled images that a run was imported with, if it is still there."""
    given = run.info.calibration_data
    folder = run.path / given if given else None  # an absolute path stays as it is
    return folder if folder is not None and sources.is_there(folder) else None


def can_calibrate(run: runs.Run) -> bool:
    """Return False for a run that was imported with neither a train split nor calibration images."""
    if run.info.source is None or imported_with(run) is not None:
        return True
    return run.info.data is not None and bool(dataset.of_run(run).split("train"))


def load_table(path: Path) -> tuple[dict[str, Any], CalibrationTable]:
    """Return the document in a ``calibration/*.json``, and its table.

    Raises:
        MissingError: there is no such file. DataError: it is damaged: its content has another hash than when it was
            written or, in files of versions that wrote none, a range is wider than the values that were seen.
    """
    hint = f"restore it from a copy; or rename {path.name}, then the next export calibrates again"
    try:
        document = files.load_document(path, SCHEMA, "made_by", "table")
        table = from_table(document["table"], CalibrationTable, str(path))
    except DataError as error:
        raise DataError(error.message, hint) from None
    for name, span in table.ranges.items():
        seen = table.seen.get(name, span)
        if not (
            math.isfinite(span.low) and math.isfinite(span.high) and seen.low <= span.low <= span.high <= seen.high
        ):
            raise DataError(
                f"{path} is damaged: the range of {visible(name)} is [{span.low:.6g}, {span.high:.6g}], but its values "
                f"were in [{seen.low:.6g}, {seen.high:.6g}]",
                hint,
            )
    return document, table


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")
