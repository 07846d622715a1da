"""Benchmark artifacts by a program on the device, ``benchmark_model``, where no Python is; its file is the user's.

Google's builds are at https://developers.google.com/edge/litert/next/benchmark. Nothing is fetched: no hash is
published for them, so the one of the file that ran is kept with the figures.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgekit import __version__, files
from edgekit.bench import benchmodel, places
from edgekit.bench.job import Job
from edgekit.bench.session import as_exported
from edgekit.bench.transport import Transport
from edgekit.config import from_table
from edgekit.errors import MissingError, StorageError, UsageError
from edgekit.files import sha256_file
from edgekit.measurements import ProgramResult, Suite
from edgekit.records import Artifact, Device

API = "benchmark-model"
SCHEMA = 1
NAME = "benchmark_model"
_WHERE = "https://developers.google.com/edge/litert/next/benchmark"
# $1: "flags" for the list of what it takes; else its arguments. What it said of an error is the job's error.
_SCRIPT = """
program=$(readlink benchmark_model) && chmod 700 "$program" && mkdir -p out || exit 1
export LD_LIBRARY_PATH="$PWD${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" ADSP_LIBRARY_PATH="$PWD"
if [ "$1" = flags ]; then "$program" --num_runs=none >out/said.txt 2>&1; exit 0; fi
"$program" "$@" >out/said.txt 2>&1 && exit 0
status=$?
tail -c 2000 out/said.txt
exit $status
"""


@dataclass(frozen=True)
class Program:
    """The file of a program, its hash, and the flags that it takes."""

    path: Path
    sha256: str
    flags: frozenset[str]


def find(device: Device) -> Path:
    """The program of a device: the file that its .toml names, or the one in that folder, else the one in the cache.

    Raises:
        MissingError: neither is there; says where Google has it. UsageError: nothing can be sent to this device.
    """
    if device.transport not in ("adb", "ssh") or device.runtime != "litert":
        raise UsageError(
            f'device {device.name!r} has api = "{API}", which needs the runtime litert and transport adb or ssh',
            "correct its .toml file",
        )
    path = _place(device)
    path = path if device.benchmark_model and not path.is_dir() else path / NAME
    if not path.is_file():
        raise MissingError(
            f"there is no {NAME} to send to {device.name!r}: {path}",
            f"{_WHERE} has builds (android_arm64 for phones); put one there, or name it by {NAME} = in the .toml file",
        )
    return path


def libraries(device: Device) -> list[Path]:
    """What lies beside the program in its folder and goes with it, such as what drives an NPU.

    Raises:
        As `find`.
    """
    beside = find(device).parent if _place(device).is_dir() else None
    found = sorted(beside.glob("*.so")) if beside else []
    return [path for path in found if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", path.name)]


def _place(device: Device) -> Path:
    """The file or the folder that is meant."""
    return Path(device.benchmark_model).expanduser() if device.benchmark_model else files.cache_dir(NAME)


def ask(device: Device, transport: Transport) -> Program:
    """Send the program of a device and ask what it takes.

    Raises:
        DataError: it is no benchmark_model. EdgekitError: it does not run there.
    """
    said, hashes = _run(device, {}, ("flags",), f"{NAME} on {device.name}", transport)
    return Program(find(device), hashes[NAME], benchmodel.parse_flags(said))


def benchmark(
    artifact: Artifact, path: Path, device: Device, suite: Suite, program: Program, transport: Transport
) -> ProgramResult:
    """Measure one model with random numbers for images.

    Raises:
        MissingError: the model's file is gone. StorageError: it, or the program, has changed. EdgekitError: the
        program failed, or nothing ran on the accelerator. DataError: what it says cannot be believed.
    """
    model = as_exported(artifact, path, device)
    arguments = benchmodel.flags(device, suite, program.flags, "model.tflite")
    said, hashes = _run(device, {"model.tflite": model.path}, arguments, f"{artifact.name} in {NAME}", transport)
    if hashes.pop(NAME) != program.sha256:
        raise StorageError(f"{program.path} has changed since it was asked what it takes", "the same command again")
    return ProgramResult(
        artifact=artifact,
        device=device.name,
        program=NAME,
        program_sha256=program.sha256,
        source="emulated" if device.emulated else "device",
        environment={
            **transport.environment,
            "threads": device.threads,
            "accelerator": device.accelerator,
            "xnnpack": device.xnnpack,
            "arguments": " ".join(arguments),
            "libraries": " ".join(f"{name}:{digest[:12]}" for name, digest in hashes.items()),
            "suite": suite.name,
            "edgekit": __version__,
            "measured": files.now(),
        },
        figures=benchmodel.parse(said, device.accelerator),
        size_bytes=model.path.stat().st_size,
    )


def _run(
    device: Device, files: dict[str, Path], arguments: tuple[str, ...], title: str, transport: Transport
) -> tuple[str, dict[str, str]]:
    """What the program prints, and the hashes of it and its libraries, by name.

    Raises:
        StorageError: one of them changed meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-") as name:
        work = Path(name)
        (work / "run.sh").write_text(_SCRIPT, encoding="utf-8")
        own = {NAME: find(device), **{path.name: path for path in libraries(device)}}
        hashes = {each: sha256_file(path) for each, path in own.items()}
        sent = {**files, **own, "run.sh": work / "run.sh"}
        transport.run(Job({"do": "program", "title": title}, sent, ("sh", "run.sh", *arguments)), work / "results")
        changed = [str(path) for each, path in own.items() if sha256_file(path) != hashes[each]]
        if changed:
            raise StorageError(f"changed while it was used: {', '.join(changed)}", "the same command again")
        return (work / "results" / "said.txt").read_text(encoding="utf-8", errors="replace"), hashes


def save(folder: Path, result: ProgramResult) -> Path:
    """Keep a result beside the earlier ones: ``<device>/benchmark_model/<artifact>@....json``. Returns its path."""
    home = folder / places.slug(result.device) / NAME
    home.mkdir(parents=True, exist_ok=True)
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    digest = files.sha256_text([repr(fields)])
    path = home / f"{places.free_stem(home, result.artifact.name, result.environment.get('measured'), digest)}.json"
    files.save_json(path, {"schema": SCHEMA, "edgekit": __version__, **fields})
    return path


def load(folder: Path) -> list[ProgramResult]:
    """The newest result of a program for each artifact on each device below `folder`, sorted.

    Raises:
        DataError: a file that edgekit did not write.
    """
    return [load_file(path) for path in places.newest(folder.glob(f"*/{NAME}/*.json"))]


def load_file(path: Path) -> ProgramResult:
    """The result that a .json holds.

    Raises:
        As `load`.
    """
    names = [field.name for field in dataclasses.fields(ProgramResult)]
    document = files.load_document(path, SCHEMA, *names)
    return from_table({name: document[name] for name in names}, ProgramResult, str(path))
