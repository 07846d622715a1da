"""Layouts of data sets: which folders are classes, and which are splits, by their names and what lies in them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edgekit.errors import DataError
from edgekit.labels import visible
from edgekit.records import SPLITS

LAYOUTS = ("auto", "splits", "classes", "parts")
_WORDS = {
    **dict.fromkeys(("train", "training", "trn", "trainset"), "train"),
    **dict.fromkeys(
        (
            "val",
            "valid",
            "validation",
            "validate",
            "dev",
            "devel",
            "development",
            "eval",
            "evaluation",
            "valset",
            "devset",
            "evalset",
        ),
        "val",
    ),
    **dict.fromkeys(("test", "testing", "tst", "testset", "holdout", "heldout"), "test"),
}
FILLERS = {"set", "data", "dataset", "image", "images", "img", "imgs", "pics", "photos", "split", "folder", "the"}
# Images that nobody has labelled; they are no reading of their own.
_UNLABELLED = {"pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled"}
# Words that also name classes, when no other split stands beside them: valid and invalid, train and bus.
_ALSO_CLASSES = {"train", "training", "trn", "valid", "dev", "eval"}


class AmbiguousError(DataError):
    """A data set can be read in several ways.

    Attributes:
        readings: (what to read, layout, names of the classes it then has), for whoever knows the classes.
    """

    def __init__(self, message: str, hint: str, readings: Sequence[tuple[Path, str, Iterable[str]]]) -> None:
        super().__init__(message, hint)
        self.readings = [(path, layout, frozenset(names)) for path, layout, names in readings]


class Place(NamedTuple):
    """A class folder: `split` is "" without splits; `path` is relative to the data set, with "/"."""

    split: str
    label: str
    path: str


@dataclass
class Layout:
    """Class folders of a data set.

    Attributes:
        present: the splits that have class folders, in the order of `SPLITS`; ("",) if there are none.
        split_folders: (split, folder) of every folder that is taken as a split, also without class folders.
    """

    present: tuple[str, ...]
    places: list[Place] = field(default_factory=list)
    split_folders: list[tuple[str, str]] = field(default_factory=list)

    @property
    def unusual(self) -> list[tuple[str, str]]:
        """Return the (split, folder) whose folder is not named as the split is."""
        return [(split, folder) for split, folder in self.split_folders if split != folder]


class Looker(NamedTuple):
    """Questions about a folder of the data set: its subfolders, and whether there are images in or below it."""

    folders: Callable[[str], list[str]]
    has_loose: Callable[[str], bool]
    has_images: Callable[[str], bool]

    def classes(self, folder: str) -> list[str]:
        """Return the subfolders of a folder that hold images."""
        return [name for name in self.folders(folder) if self.has_images(_below(folder, name))]


def split_of(name: str) -> tuple[str, str]:
    """Return (split, rest) of a folder name such as ``seg_train``, ``Testing`` or ``val2017``; ("", "") if none."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", unicodedata.normalize("NFKC", name))
    words = re.findall(r"[^\W\d_]+", spaced.casefold())
    splits = [word for word in words if word in _WORDS]
    if len(splits) != 1:
        return "", ""
    rest = " ".join(word for word in words if word not in _WORDS and word not in FILLERS)
    return _WORDS[splits[0]], rest


def read(root: Path, look: Looker, asked: str = "auto") -> Layout:
    """Return the layout of the data set at `root`.

    Args:
        asked: "auto", or one of the other `LAYOUTS` to decide what the names leave open.
    Raises:
        DataError: the folders can be read as splits and as classes, or there are splits without labels.
    """
    names = look.folders("")
    flat = Layout(("",), [Place("", name, name) for name in names])
    if asked == "classes":
        return flat
    candidates = candidates_of(names)
    if not candidates:
        return _inside_classes(names, look) or flat
    others = [name for name in names if name not in candidates]
    found: dict[str, list[str]] = {}
    for name, split in candidates.items():
        found.setdefault(split, []).append(name)
    labelled = {name: _class_parent(name, look) for name in candidates}
    train = [name for name in found.get("train", ()) if labelled[name]]
    if not train:
        return _without_train(root, look, flat, candidates, others, labelled, asked)
    holding = {split: [n for n in same if look.has_images(n)] for split, same in found.items()}
    if double := next((same for same in holding.values() if len(same) > 1), None):
        raise DataError(
            f"{_list(double)} in {root} are both names of the {candidates[double[0]]} split",
            "merge the folders, or keep one of them elsewhere",
        )
    _check_beside(root, look, train[0], [n for n in candidates if labelled[n]], others, asked)
    places = [
        Place(candidates[name], label, _below(parent, label))
        for name, parent in labelled.items()
        if parent
        for label in look.folders(parent)
    ]
    present = tuple(split for split in SPLITS if any(place.split == split for place in places))
    shown = [(candidates[name], labelled[name] or name) for name in candidates if holding[candidates[name]]]
    return Layout(present, places, sorted(shown, key=lambda pair: SPLITS.index(pair[0])))


def candidates_of(names: list[str]) -> dict[str, str]:
    """Return folder -> split of the names that may be splits: bare words, or several with the same rest."""
    parts = {name: split_of(name) for name in names}
    bare = {name: split for name, (split, rest) in parts.items() if split and not rest}
    rests: dict[str, dict[str, str]] = {}
    for name, (split, rest) in parts.items():
        if split and rest:
            rests.setdefault(rest, {})[name] = split
    for same in rests.values():
        if len(set(same.values()) | set(bare.values())) > 1:
            bare.update(same)
    return {name: bare[name] for name in names if name in bare}


def _class_parent(folder: str, look: Looker) -> str:
    """Return the folder in which the class folders of a split lie: itself, or the one inside it; "" if none do.

    ``seg_train/seg_train/<class>`` and ``train/images/<class>``: archives are often packed like that.
    """
    inside = look.classes(folder)
    if len(inside) == 1 and not look.has_loose(folder):
        name, within = inside[0], _below(folder, inside[0])
        split, rest = split_of(name)
        outer = split_of(folder.rpartition("/")[2])
        if (split, rest) == outer or name.casefold() in FILLERS:
            return within if look.classes(within) else ""
    return folder if inside else ""


def _check_beside(root: Path, look: Looker, train: str, labelled: list[str], others: list[str], asked: str) -> None:
    """Refuse folders beside the splits that hold classes, or that make classes of all of them."""
    if asked == "splits":
        return
    if classes := [name for name in others if look.classes(name)]:
        raise DataError(
            f"{root} contains {visible(train)} and {_list(classes)}, which is not the name of a split",
            f"rename the folder to one of {', '.join(SPLITS)}, or move it; or say --layout splits (it is not used)",
        )
    loose = [n for n in others if look.has_loose(n) and not _UNLABELLED & set(re.findall(r"[^\W\d_]+", n.casefold()))]
    if loose and len(labelled) == 1:
        raise _both(root, f"{visible(train)} is a split, and {_list(loose)} not used", [train, *loose])


def _without_train(
    root: Path, look: Looker, flat: Layout, candidates: dict[str, str], others: list[str], labelled: dict[str, str],
    asked: str,
) -> Layout:  # fmt: skip
    """Return the layout, or raise, when no training split has class folders."""
    holding = [name for name in candidates if look.has_images(name)]
    classes = [name for name in others if look.has_images(name)]
    if not holding:
        return flat
    if asked == "splits" or not classes:
        if any(labelled[name] for name in holding) and not any(candidates[name] == "train" for name in holding):
            raise DataError(
                f"{_list(holding)} in {root}: splits, but none of them is for training",
                f"add {root / 'train'}/<class>/<image>, or say --layout classes if they are classes",
            )
        unlabelled = [name for name in holding if not labelled[name]]
        raise DataError(
            f"the images in {_list(unlabelled)} of {root} lie in no class folder",
            "move each image into the folder of its class, DATA/train/<class>/<image>, or name them in a table of "
            "path,label; or say --layout classes if "
            f"{_list(holding)} {'are classes' if len(holding) > 1 else 'is a class'}",
        )
    splits = {candidates[name] for name in holding}
    words = {word for name in holding for word in re.findall(r"[^\W\d_]+", name.casefold())}
    if len(splits) == 1 and words & _ALSO_CLASSES and not any(labelled[name] for name in holding):
        return flat  # a train beside a bus is a vehicle
    if splits == {"train"}:
        return flat
    raise _both(root, f"{_list(classes)} are classes, and {_list(holding)} not used for training", holding + classes)


def _inside_classes(names: list[str], look: Looker) -> Layout | None:
    """Return the layout of ``<class>/<split>/<image>``, if every class folder with images has it."""
    places, folders = [], []
    for name in names:
        inside = look.classes(name)
        splits = {part: split_of(part) for part in inside}
        if not inside:
            continue
        if look.has_loose(name) or any(not split or rest for split, rest in splits.values()):
            return None
        if len({split for split, _ in splits.values()}) < len(inside):
            return None
        places += [Place(split, name, _below(name, part)) for part, (split, _) in splits.items()]
        folders += [(split, f"<class>/{part}") for part, (split, _) in splits.items()]
    present = tuple(split for split in SPLITS if any(place.split == split for place in places))
    trained = {place.label for place in places if place.split == "train"}
    if len(present) < 2 or len(trained) < 2 or trained != {place.label for place in places}:
        return None
    return Layout(present, places, sorted(set(folders), key=lambda pair: (SPLITS.index(pair[0]), pair[1])))


def _both(root: Path, as_splits: str, classes: list[str]) -> DataError:
    return DataError(
        f"{root} can be read in two ways: {as_splits}; or {_list(classes)} are all classes",
        "say --layout classes for the second; for the first, move what is not used to another folder, and the class "
        "folders into DATA/train",
    )


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _list(names: list[str]) -> str:
    shown = [visible(name) for name in names[:4]] + ([f"{len(names) - 4} more"] if len(names) > 4 else [])
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
