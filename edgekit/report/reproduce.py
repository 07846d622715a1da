"""How each number is made again: the commands with their options, and what they ran on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.labels import visible
from edgekit.measurements import BenchmarkResult

# Options of run.json that another name has on the command line; the place of training is no option that matters.
_RENAMED = {"arch": "model"}
_BROWSERS = "web:"


@dataclass(frozen=True)
class Provenance:
    """What makes the numbers of one row again. Hashes in full; `versions` in words."""

    artifact: str
    device: str
    commands: tuple[str, ...]
    sha256: str
    weights: str
    versions: str
    measured: str


def training(run: str, meta: Mapping[str, Any]) -> str:
    """The command that trained the run, every option written out."""
    options = meta.get("options")
    words = ["edgekit", "train", str(meta.get("data", {}).get("root", "DATA")), "--name", run]
    for name, value in options.items() if isinstance(options, Mapping) else ():
        flag = "--" + _RENAMED.get(name, str(name)).replace("_", "-")
        if value is True or value is False:
            words.append(flag if value else f"--no-{flag.removeprefix('--')}")
        elif value is not None:
            words += [flag, str(value)]
    return _typed(words)


def recipes(handle: str, results: Sequence[BenchmarkResult]) -> list[Provenance]:
    """One entry per result: export and benchmark; training is the same for all."""
    return [
        Provenance(
            artifact=r.artifact.name,
            device=r.device,
            commands=tuple(_typed(words) for words in (_export(handle, r), _benchmark(handle, r)) if words),
            sha256=r.artifact.sha256,
            weights=r.artifact.parent,
            versions=_versions(r.environment),
            measured=str(r.environment.get("measured", "unknown")),
        )
        for r in results
    ]


def _export(handle: str, result: BenchmarkResult) -> list[str]:
    artifact = result.artifact
    if artifact.name.startswith("baseline/"):
        return []
    words = ["edgekit", "export", handle, "--target", artifact.target, "--precision", artifact.precision]
    if recipe := artifact.details.get("recipe"):
        words += ["--recipe", str(recipe)]
    return words


def _benchmark(handle: str, result: BenchmarkResult) -> list[str]:
    environment = result.environment
    suite = ["--suite", str(environment["suite"])] if environment.get("suite") else []
    if result.device.startswith(_BROWSERS):
        return ["edgekit", "serve", handle, "--artifact", result.artifact.name, *suite]
    words = ["edgekit", "benchmark", handle, "--device", result.device, *suite]
    return [*words, "--threads", str(environment.get("threads", 1))]


def _typed(words: Sequence[str]) -> str:
    return " ".join(shlex.quote(visible(word)) for word in words)


def _versions(environment: Mapping[str, Any]) -> str:
    told = {"python": environment.get("python"), str(environment.get("runtime")): environment.get("version")}
    return ", ".join(f"{name} {value}" for name, value in told.items() if value)
