"""Structure of a classifier, found by running it: its heads, its stages, its parameters and multiplications.

The network runs on PyTorch's meta device: shapes are computed, values are not, and weights take no memory.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

Build = Callable[[int], nn.Module]
# No layer inside a network has this width: it is a prime.
_CLASSES = 997
_NAMED = 1000  # classes with which parameters and multiplications are stated
_PARTS = 4  # of a network that keeps its resolution
_CONTAINERS = (nn.Sequential, nn.ModuleList)
_DIGITS = "0123456789"


@dataclass(frozen=True)
class Structure:
    """Structure of a classifier.

    Attributes:
        heads: dotted names of the layers that produce the logits, in the order in which they run.
        aux: dotted names of heads that do not run in evaluation mode.
        simple: whether the output is that of a single Linear on one vector per image.
        stages: as in `ModelRow`. parameters, macs: with 1000 classes, without the auxiliary heads.
    """

    heads: tuple[str, ...]
    aux: tuple[str, ...]
    simple: bool
    stages: tuple[str, ...]
    parameters: int
    macs: int


def examine(build: Build, image_size: int) -> Structure:
    """Run a network on an image of `image_size` pixels, and return its structure.

    Args:
        build: returns the network for a number of classes.
    Raises:
        ValueError: no layer of it produces the classes.
        Exception: whatever the network raises for this image size.
    """
    run = _run(build, image_size)
    modules = dict(run.model.named_modules())
    heads = tuple(name for name in run.positions if _makes_classes(modules[name]))
    if not heads:
        raise ValueError("no Linear or 1x1 convolution produces the classes")
    idle = [name for name, module in modules.items() if _makes_classes(module) and name not in run.finished]
    aux = tuple(dict.fromkeys(_unused(name, run.finished) for name in idle))
    counted = {n: p.numel() for n, p in run.model.named_parameters() if not n.startswith(tuple(f"{a}." for a in aux))}
    in_heads = sum(count for name, count in counted.items() if name.startswith(tuple(f"{h}." for h in heads)))
    return Structure(
        heads,
        aux,
        len(heads) == 1 and run.ends_with == heads[0],
        _stages(run, heads),
        sum(counted.values()) + in_heads * _NAMED // _CLASSES - in_heads,
        run.macs + sum(run.positions[h] * _weights(modules[h]) * (_NAMED - _CLASSES) // _CLASSES for h in heads),
    )


def runs(build: Build, image_size: int) -> bool:
    """Return True if the network takes images of `image_size` pixels."""
    try:
        _run(build, image_size, counts=False)
    except Exception:  # networks report a wrong size in many ways
        return False
    return True


@dataclass
class _Run:
    """Record of one pass in evaluation mode.

    Attributes:
        finished: names of all modules that ran, in the order in which they first finished.
        positions: places per image at which each layer with weights was applied, of those that run once per image.
        ends_with: name of the Linear whose result, from a vector per image, is the network's; or empty.
    """

    model: nn.Module
    finished: dict[str, None] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    ends_with: str = ""
    macs: int = 0


class _NoMemory(TorchFunctionMode):
    """Makes ``torch.empty``, in which layers put their weights, take no memory; what is computed has values."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.empty and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return function(*args, **kwargs)


def without_values(build: Callable[[], nn.Module]) -> nn.Module:
    """Return a network on the meta device, in evaluation mode; no random number of the caller's is used up."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        with _NoMemory():
            model = build()
        return model.eval().to("meta")


def _run(build: Build, image_size: int, counts: bool = True) -> _Run:
    """Run a network on the meta device, or on the CPU if something in it needs values."""
    try:
        return _run_on("meta", lambda: without_values(lambda: build(_CLASSES)), image_size, counts)
    except (NotImplementedError, RuntimeError) as error:
        if "meta" not in str(error).lower():
            raise
    with torch.random.fork_rng(devices=[]):
        return _run_on("cpu", lambda: build(_CLASSES).eval(), image_size, counts)


@torch.no_grad()
def _run_on(device: str, build: Callable[[], nn.Module], image_size: int, counts: bool) -> _Run:
    model = build()
    with torch.device(device), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if not counts:
            model(torch.zeros(1, 3, image_size, image_size))
            return _Run(model)
        once, twice = (_observe(model, torch.zeros(count, 3, image_size, image_size)) for count in (1, 2))
    # A layer on something else than images, such as a table of positions, does as much for one image as for two.
    twice.positions = {n: once.positions[n] for n, p in twice.positions.items() if p == 2 * once.positions.get(n, 0)}
    twice.macs = once.macs
    return twice


def _observe(model: nn.Module, images: torch.Tensor) -> _Run:
    run = _Run(model)
    last: list[tuple[str, bool, Any]] = []

    def see(name: str, module: nn.Module) -> Callable[..., None]:
        channels = _channels(module)

        def hook(_: nn.Module, inputs: Any, output: Any) -> None:
            run.finished.setdefault(name)
            if channels and isinstance(output, torch.Tensor):
                run.positions.setdefault(name, output.numel() // channels)
                last[:] = [(name, isinstance(module, nn.Linear) and inputs[0].ndim == 2, output)]

        return hook

    handles = [module.register_forward_hook(see(name, module)) for name, module in model.named_modules() if name]
    try:
        with FlopCounterMode(display=False) as flops:
            output = model(images)
    finally:
        for handle in handles:
            handle.remove()
    if tuple(getattr(output, "shape", ())) != (len(images), _CLASSES):
        raise ValueError("it does not answer with one row of classes for each image")
    name, is_plain, result = last[0]
    run.ends_with = name if is_plain and result is output else ""
    run.macs = flops.get_total_flops() // 2
    return run


def _channels(module: nn.Module) -> int:
    """Return the number of values per place that a layer with weights gives; 0 for all other modules."""
    if isinstance(module, nn.Conv2d):
        return module.out_channels
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return module.num_features
    if isinstance(module, nn.LayerNorm):
        return math.prod(module.normalized_shape)
    return 0


def _weights(module: nn.Module) -> int:
    return module.get_parameter("weight").numel()


def _makes_classes(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.out_channels == _CLASSES
    return isinstance(module, nn.Linear) and module.out_features == _CLASSES


def _unused(name: str, ran: dict[str, None]) -> str:
    """Return the largest module around an unused layer of which nothing ran."""
    parts = name.split(".")
    for length in range(1, len(parts)):
        outer = ".".join(parts[:length])
        if not any(other == outer or other.startswith(f"{outer}.") for other in ran):
            return outer
    return name


def _stages(run: _Run, heads: tuple[str, ...]) -> tuple[str, ...]:
    """Return the modules of the backbone, divided where the resolution halves, or else in equal parts."""
    order = {name: number for number, name in enumerate(run.finished)}
    modules = dict(run.model.named_modules())
    state = {name for name, module in modules.items() if module.state_dict(keep_vars=True)}
    total = sum(p.numel() for p in run.model.parameters())
    holding = {name for head in heads for name in _above(head)}

    def units(name: str) -> list[str]:
        """Return the modules inside one, in the order in which they run, as far as stages may divide it."""
        if name and name not in holding and not _is_divided(modules[name], total):
            return [name] if name in order else []
        children = [f"{name}.{key}" if name else key for key, _ in modules[name].named_children()]
        # In lists, all of them, so that numbers follow each other; elsewhere such as a shared ReLU is left out.
        wanted = [c for c in children if c not in heads and (c in state or isinstance(modules[name], _CONTAINERS))]
        inside = [unit for child in wanted for unit in units(child)]
        return sorted(inside, key=order.__getitem__)

    found = units("")
    while found and found[-1] not in state:  # such as the dropout in front of the head
        found.pop()
    groups = _by_resolution(run, found)
    if len(groups) == 1:
        groups = _in_parts(found, state)
    return tuple(" ".join(_ranges(_merged(group, run, state))) for group in groups)


def _is_divided(module: nn.Module, total: int) -> bool:
    """Return True if a boundary of stages may lie inside a module: a list of blocks, or most of the network."""
    layers = _layers(module)
    large = sum(p.numel() for p in module.parameters()) > total / 2
    return layers > 1 and (isinstance(module, _CONTAINERS) or large)


def _layers(module: nn.Module) -> int:
    """Return the number of convolutions and linear layers in a module."""
    return sum(isinstance(inner, nn.Conv2d | nn.Linear) for inner in module.modules())


def _above(name: str) -> list[str]:
    """Return the names of the modules that hold a module."""
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _by_resolution(run: _Run, units: list[str]) -> list[list[str]]:
    """Divide units where the number of places falls to a half or less, which is less than the side does."""
    groups: list[list[str]] = [[]]
    layers = [0]  # with weights, in each group
    current = 0
    for unit in units:
        inside = [places for name, places in run.positions.items() if name == unit or name.startswith(f"{unit}.")]
        places = next((p for p in reversed(inside) if p > 1), 0)
        if places and current and places <= current / 2:
            if layers[-1] == 1:  # a stem of one layer belongs to what follows
                layers[-1] = 0
            else:
                groups.append([])
                layers.append(0)
        current = min(current, places) if current and places else current or places
        groups[-1].append(unit)
        layers[-1] += _layers(run.model.get_submodule(unit))
    return groups


def _in_parts(units: list[str], state: set[str]) -> list[list[str]]:
    """Divide units so that the blocks, those of the largest container, are in equal parts."""
    parents = [unit.rpartition(".")[0] for unit in units if unit in state]
    most = max(parents, key=parents.count, default="")
    blocks = [unit for unit in units if unit.rpartition(".")[0] == most and unit in state]
    parts = min(_PARTS, len(blocks))
    starts = [blocks[number * len(blocks) // parts] for number in range(1, parts)]
    groups: list[list[str]] = [[]]
    for unit in units:
        if unit in starts:
            groups.append([])
        groups[-1].append(unit)
    return groups


def _merged(group: list[str], run: _Run, state: set[str]) -> list[str]:
    """Replace all children of a module by the module, where a stage has every one that ran or holds weights."""
    names = list(group)
    while True:
        for parent in dict.fromkeys(name.rpartition(".")[0] for name in names):
            children = [f"{parent}.{key}" for key, _ in run.model.get_submodule(parent).named_children()]
            wanted = {child for child in children if child in state or child in run.finished}
            own = {n for n, _ in run.model.get_submodule(parent).named_parameters(recurse=False)}
            if parent and not own and wanted <= set(names):
                first = next(n for n, name in enumerate(names) if name in wanted)
                names = [*names[:first], parent, *(name for name in names[first:] if name not in wanted)]
                break
        else:
            return names


def _ranges(names: list[str]) -> list[str]:
    """Write successive numbers as ranges: ``features.0 features.1`` as ``features.0-1``."""

    def key(pair: tuple[int, str]) -> tuple[str, int | str]:
        place, name = pair
        before = name.rstrip(_DIGITS)
        return (before, int(name[len(before) :]) - place) if before != name else (name, "")

    found = []
    for _, pairs in groupby(enumerate(names), key):
        run = [name for _, name in pairs]
        found.append(run[0] if len(run) == 1 else f"{run[0]}-{run[-1].removeprefix(run[-1].rstrip(_DIGITS))}")
    return found
