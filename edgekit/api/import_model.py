"""Import: make a run of a network that was trained elsewhere."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import files, progress, runs
from edgekit.config import from_table
from edgekit.errors import EdgekitError, MissingError, UsageError, unknown
from edgekit.importing import arrays, class_names, preprocessing
from edgekit.importing.preprocessing import Changes
from edgekit.progress import Callback, reporting
from edgekit.records import DatasetIndex, Preprocess, Sample
from edgekit.runs import DataInfo, Parameters, Run, RunInfo, Source

if TYPE_CHECKING:
    from torch import nn

    from edgekit.importing.network import Network

_PACKAGES = ("torch", "torchvision", "numpy", "pillow")
_HOW = "edgekit import CHECKPOINT --arch NAME --labels labels.txt"


@dataclass(frozen=True)
class ImportOptions:
    """Options of an import.

    Attributes:
        arch: network that a state dict is of; for other networks a name of your choice.
        weights: state dict for a factory. entry: entry of a checkpoint that holds the weights.
        output: output of an .onnx file that holds the scores.
        trust: unpickle a module that was saved whole, which runs the code that the file names.
        labels: names of the classes, a file with them, or "imagenet"; None: those in the file.
        preprocess: what `preprocessing.read` takes; None: that of the pretrained network. changes: to single fields.
        name: of the run. data: labelled images. calibration: unlabelled images. Both: a folder, or what `arrays.save`
            takes. normalized: meaning of floating-point images, as in `arrays.save`.
    """

    arch: str | None = None
    weights: Path | None = None
    entry: str | None = None
    output: str | None = None
    trust: bool = False
    labels: str | Path | Sequence[str] | None = None
    preprocess: Any = None
    changes: Changes = field(default_factory=Changes)
    name: str | None = None
    data: Any = None
    calibration: Any = None
    normalized: bool | None = None


def import_model(
    model: nn.Module | str | Path,
    labels: Sequence[str] | str | Path | None = None,
    preprocess: Any = None,
    *,
    arch: str | None = None,
    weights: str | Path | None = None,
    entry: str | None = None,
    output: str | None = None,
    trust: bool = False,
    name: str | None = None,
    data: Any = None,
    calibration: Any = None,
    normalized: bool | None = None,
    runs_dir: str | Path = "runs",
    progress: Callback | None = None,
    **changes: Any,
) -> Run:
    """Make a run of a network that was trained elsewhere; everything from export on works for it.

    Args:
        model: an ``nn.Module`` in memory, which stays as it is; the path of a state dict (.pth, .pt, .safetensors) of
            the network `arch`; ``"module.py:build"``, a function that returns the network; or an .onnx file.
        labels: names of the classes in the order of the outputs, a file with one a line, or "imagenet".
        preprocess: from an image file to the input: a mapping with the fields of preprocess.json, such a file, a
            configuration of timm, or torchvision transforms. None: that of the pretrained network `arch`.
        arch: the network of a state dict; for a module a name for it.
        weights: state dict for a function that returns the network.
        entry: entry of a checkpoint that holds the weights; by default averaged ones (EMA) if there are some.
        output: name of the output of an .onnx file that holds the scores; by default the only one that can be meant.
        trust: unpickle a module that was saved whole, which runs the code that its file names.
        name: the run's name; by default made of the file and the network.
        data: labelled images for the accuracy: a folder with a folder for each class, ``(images, labels)``, or an
            iterable of such batches, for example a ``DataLoader``.
        calibration: images without labels for INT8: a folder, images, or an iterable of batches.
        normalized: of floating-point images: True if they are (pixel / 255 - mean) / std, False if pixel / 255. They
            are (N, 3, S, S). uint8 images are RGB, (N, H, W, 3); of S x S they count as cropped, others are
            preprocessed as files are. Both are kept in the run as PNG files.
        runs_dir: the folder of the runs.
        progress: called with a `Progress` whenever the state changes.
        changes: single fields of the preprocessing, such as ``image_size=160`` or ``mean=(0.5, 0.5, 0.5)``.

    Returns:
        The run, evaluated if there are labelled images.

    Raises:
        DataError: the weights, labels or images do not fit. UsageError: something is not said, such as the labels.
        MissingError: there is no such file, or a package is not installed.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        ...                           torch.nn.Flatten(), torch.nn.Linear(8, 3))
        >>> run = edgekit.import_model(net, ["apple", "banana", "cherry"], {"image_size": 64, "resize_size": 72},
        ...                            name="mine", data=images, runs_dir="imported")
        >>> run.info.status, str(run.info.source)
        ('imported', 'module in memory')
    """
    known = [f.name for f in dataclasses.fields(Changes)]
    if wrong := [key for key in changes if key not in known]:
        raise unknown("option of import_model", wrong[0], known)
    given = from_table(changes, Changes, "import_model")
    options = ImportOptions(
        arch, None if weights is None else Path(weights), entry, output, trust, labels, preprocess, given, name, data,
        calibration, normalized,
    )  # fmt: skip
    with reporting(progress):
        return import_run(model, options, Path(runs_dir))


def import_run(model: nn.Module | str | Path, options: ImportOptions, runs_dir: Path) -> Run:
    """Read a network, and make a run of it; log what was taken for what."""
    if options.name:
        runs.check_free(runs_dir, options.name)
    labels = None if options.labels is None else class_names.read(options.labels)
    fields = {} if options.preprocess is None else preprocessing.read(options.preprocess)
    size = options.changes.image_size or fields.get("image_size")
    _check_folders(options)
    with progress.working("reading the network"):
        network = read(model, options, labels, size)
    source = dataclasses.replace(network.source, entry=options.entry or "", output=options.output or "")
    network = dataclasses.replace(network, source=source)
    return create(network, labels, fields, options, runs_dir)


def read(
    model: nn.Module | str | Path, options: ImportOptions, labels: tuple[str, ...] | None, size: int | None
) -> Network:
    """Read the network that a user names.

    Args:
        size: the image size that was asked for, in pixels; None: the native one.
    """
    from edgekit.importing import modules, state_dict
    from edgekit.models import weights_file

    if not isinstance(model, str | Path):
        return modules.from_memory(model, options.arch)
    path = Path(model)
    if not path.exists() and ":" in str(model):
        return modules.from_factory(str(model), options.weights, labels, options.entry)
    if options.weights is not None:
        raise UsageError(
            f"--weights goes with a function that makes the network, not with {path.name}",
            f"{_HOW}; for a network of your own: edgekit import module.py:build --weights FILE",
        )
    if not path.is_file():
        raise MissingError(f"there is no file {str(path)!r}", _HOW)
    if path.suffix.lower() == ".onnx":
        from edgekit.importing import onnx_model

        return onnx_model.load(path, size, labels, options.output, options.arch)
    if options.output is not None:
        raise UsageError(f"--output goes with an .onnx file, not with {path.name}", _HOW)
    content = None
    if options.trust:
        module = modules.from_pickle(path, options.entry)
        if module is not None and options.arch is None:
            found = modules.from_memory(module)
            source = Source("module that was pickled whole", path.name, files.sha256_file(path), found.source.notes)
            return dataclasses.replace(found, source=source)
        content = module.state_dict() if module is not None else None
    else:
        content = weights_file.read(path)
        if options.arch is None and weights_file.holds_module(content):
            raise UsageError(
                f"{path.name} holds a module that was pickled whole; unpickling it would run the code that it names",
                "--arch NAME takes only its tensors, for a network that edgekit knows; --trust unpickles it, if you "
                "trust where the file comes from",
            )
    return state_dict.read(path, options.arch, size, options.entry, content)


def create(
    network: Network, labels: tuple[str, ...] | None, fields: dict[str, Any], options: ImportOptions, runs_dir: Path
) -> Run:
    """Make a run of a network: all of it, or nothing.

    Args:
        labels: names of the classes, None for those of `network`. fields: of the preprocessing, as far as they are
            known; those of `network` count where they are not.

    Raises:
        UsageError: labels or the image size are not known. DataError: labels do not fit the network, or images
            cannot be used.
    """
    from edgekit.importing import network as networks
    from edgekit.models import zoo

    native = network.preprocess or (None if network.program else zoo.row(network.arch).preprocess)
    preprocess = preprocessing.complete(fields, options.changes, native, network.arch)
    if network.normalized and native is not None:
        preprocessing.check_normalization(preprocess, native, network.source.file)
    with progress.working("checking the network"):
        network = networks.checked(network, preprocess.image_size)
    outputs = f"{network.source} has {network.classes} outputs"
    labels = labels or network.labels
    if labels is None:
        raise class_names.missing(network.classes, network.source.file or network.arch)
    class_names.check_count(labels, network.classes, outputs)
    for line in network.source.notes:
        progress.note(line)
    origin = _origin(network, {*fields, *options.changes.given()})
    progress.note(f"preprocessing, {origin}: {' '.join(preprocess.steps()[1:])}")
    if network.program and not network.source.as_is:
        network = _as_program(network, preprocess.image_size)
    index = _index(options.data, labels)
    run_name = options.name or runs.free_name(runs_dir, _stem(network))
    run = runs.create_run(runs_dir, run_name, lambda folder: _fill(folder, network, labels, preprocess, index, options))
    progress.note(f"imported {network.arch}, {network.classes} classes: {run.path}")
    return _evaluated(run)


def _origin(network: Network, given: set[str]) -> str:
    """Return where the preprocessing is from, in words; `given`: the fields that the user gave."""
    origin = "of the file" if network.preprocess else "as given" if network.program else "of the pretrained network"
    if given and origin != "as given":
        origin += ", but for what was given"
    missing = [name for name in ("mean", "std") if name not in given]
    whole = network.normalized or network.source.kind == "checkpoint of edgekit"
    if missing and network.program and not whole:
        origin += f", with ImageNet's {' and '.join(missing)}, since none was given"
    return origin


def _as_program(network: Network, image_size: int) -> Network:
    """Return a network with the plain graph of its code, so that the run opens without this code."""
    from edgekit.models import program

    with progress.working("tracing the network"):
        return dataclasses.replace(network, model=program.trace(network.model, image_size))


def _stem(network: Network) -> str:
    stem = Path(network.source.file).stem if network.source.kind == "state dict" else ""
    return f"{stem}-{network.arch}".strip("-").replace("/", "-").lstrip(".") or "imported"


def _check_folders(options: ImportOptions) -> None:
    from edgekit.data import sources

    for what, given in (("--data", options.data), ("--calibration-data", options.calibration)):
        if arrays.is_folder(given):
            sources.check_there(given, f"{str(given)!r} is not a folder", f"{what} takes a folder of images")


def _index(data: Any, labels: tuple[str, ...]) -> DatasetIndex | None:
    """Return the labelled images of a folder; None for images in memory, or none at all."""
    if not arrays.is_folder(data):
        return None
    from edgekit.data import evaluation

    with progress.bar("reading images") as update:
        index = evaluation.index(Path(data), labels, update)
    for line in evaluation.described(index):
        progress.note(line)
    for line in evaluation.losses(index):
        progress.warn(line)
    return index


def _fill(
    folder: Path,
    network: Network,
    labels: tuple[str, ...],
    preprocess: Preprocess,
    index: DatasetIndex | None,
    options: ImportOptions,
) -> RunInfo:
    """Write checkpoint and images into the folder of a new run, and return its run.json."""
    from edgekit.data import dataset, evaluation
    from edgekit.models import checkpoints

    checkpoint = checkpoints.save(
        folder / "checkpoint.pt", network.model, network.arch, labels, preprocess, network.hidden, network.program
    )
    inside = Path(arrays.FOLDER)
    if options.data is not None and index is None:
        samples = _saved(options.data, folder, "test", preprocess, len(labels), options.normalized)
        index = evaluation.of_samples(inside, labels, samples)
    calibration = None
    if arrays.is_folder(options.calibration):
        calibration = str(Path(options.calibration).resolve())
    elif options.calibration is not None:
        _saved(options.calibration, folder, "calibration", preprocess, len(labels), options.normalized)
        calibration = str(inside / "calibration")
    if index is not None:
        files.save_json(folder / dataset.DATA_FILE, index)
    total = sum(p.numel() for p in network.model.parameters())
    return RunInfo(
        status=runs.IMPORTED,
        arch=network.arch,
        labels=labels,
        preprocess=preprocess,
        data=DataInfo(str(index.root), index.fingerprint, len(index.skipped)) if index else None,
        versions={"python": platform.python_version(), **{p: metadata.version(p) for p in _PACKAGES}},
        checkpoint_sha256=checkpoint.sha256,
        parameters=Parameters(total, 0),
        source=dataclasses.replace(network.source, program=network.program),
        calibration_data=calibration,
    )


def _saved(
    given: Any, folder: Path, split: str, preprocess: Preprocess, classes: int, normalized: bool | None
) -> list[Sample]:
    with progress.working(f"keeping {split} images"):
        samples = arrays.save(given, folder, split, preprocess, classes, normalized)
    size = sum(path.stat().st_size for path in (folder / arrays.FOLDER / split).iterdir()) / 1e6
    progress.note(f"{split}: {len(samples)} images are kept in the run ({size:.1f} MB)")
    return samples


def _evaluated(run: Run) -> Run:
    """Evaluate a new run, if it has labelled images, and say what comes next."""
    from edgekit.api.evaluate import evaluate_run

    if run.info.data is not None:
        try:
            evaluate_run(run)
        except EdgekitError as error:  # the network is valid, whatever is wrong with the images
            progress.warn(f"not evaluated: {error.message}")
    as_is = run.info.source is not None and run.info.source.as_is
    progress.note(f"next: edgekit export {run.handle} --target jetson" + ("" if as_is else " --target android"))
    return runs.read_run(run.path)
