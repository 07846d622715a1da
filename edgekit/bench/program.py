"""Benchmarks by Google's program ``benchmark_model`` on devices without Python.

The user gets the program from https://developers.google.com/edge/litert/next/benchmark. It is not downloaded, because
no hash is published for it; the hash of the file that ran is kept with the figures. Its output is untrusted, and is
read strictly: that of TensorFlow Lite's program, and of LiteRT's, which has the same measuring loop.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit import __version__, config, environment, files, validation
from edgekit.bench import results
from edgekit.bench.session import as_exported
from edgekit.devices.jobs import Job
from edgekit.devices.transport import Transport
from edgekit.errors import DataError, EdgekitError, MissingError, StorageError, UsageError
from edgekit.files import scratch, sha256_file
from edgekit.labels import visible
from edgekit.measurements import Delegated, Delegation, ProgramFigures, ProgramResult, Suite
from edgekit.records import Artifact, Device

API = "benchmark-model"
SCHEMA = 1
NAME = "benchmark_model"
_WHERE = "https://developers.google.com/edge/litert/next/benchmark"
_MOST_TEXT, _MOST_FLAGS, _MOST_DELEGATES = 100, 400, 16
_NUMBER = r"(\d{1,15}(?:\.\d{1,9})?(?:e[+-]?\d{1,2})?)"
_PREFIX = r"^(?:I tflite +: )?(?:(?:INFO|VERBOSE|WARN|WARNING|ERROR): )?(?:\[[^\]\n]{1,200}\] )?"
_COUNT = re.compile(
    rf"{_PREFIX}count=(\d{{1,12}}) first={_NUMBER} curr={_NUMBER} min={_NUMBER} max={_NUMBER} avg={_NUMBER} "
    rf"std={_NUMBER}"
    rf"(?: p5={_NUMBER} median={_NUMBER} p95={_NUMBER})?\r?$",
    re.MULTILINE,
)
_SAME = re.compile(rf"{_PREFIX}count=(\d{{1,12}}) curr={_NUMBER}(?: ?\(all same\))?\r?$", re.MULTILINE)
_STARTS = re.compile(rf"{_PREFIX}Running benchmark for at least ", re.MULTILINE)
_TFLITE = re.compile(
    rf"{_PREFIX}Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, Warmup \(avg\): {_NUMBER}, "
    rf"Inference \(avg\): {_NUMBER}\r?$",
    re.MULTILINE,
)
_LITERT = (
    re.compile(rf"{_PREFIX}Model initialization: {{1,20}}{_NUMBER} ms\r?$", re.MULTILINE),
    re.compile(rf"{_PREFIX}Warmup \(first\): {{1,20}}{_NUMBER} ms\r?$", re.MULTILINE),
    re.compile(rf"{_PREFIX}Warmup \(avg\): {{1,20}}{_NUMBER} ms \(\d{{1,12}} runs\)\r?$", re.MULTILINE),
    re.compile(rf"{_PREFIX}Inference \(avg\): {{1,20}}{_NUMBER} ms \(\d{{1,12}} runs\)\r?$", re.MULTILINE),
)
_REPLACING = re.compile(
    r"Replacing (\d{1,9}) (?:out of (\d{1,9}) )?node\(s\) with delegate \(([^)\n]{1,80})\) node, yielding (\d{1,9})"
)
_COMPLETELY = re.compile(r"applied (\S{1,80}) delegate, and the model graph will be completely executed")
_PARTIALLY = re.compile(r"applied (\S{1,80}) delegate, and the model graph will be partially executed")
_NOT_AT_ALL = re.compile(r"Though (\S{1,80}) delegate is explicitly applied, the model graph will not be executed")
_UNKNOWN_FLAGS = re.compile(r"Unconsumed cmdline flags: ([^\r\n]{1,500})")
_FLAG = re.compile(r"^\t--([a-z][a-z0-9_]{0,63})=", re.MULTILINE)
# Flags of LiteRT's program for the folder with the libraries of an NPU: that of the job.
_LIBRARIES = ("dispatch_library_path", "compiler_plugin_library_path")
# The summary is rounded to hundredths of a millisecond by one program, to six digits by the other.
_TOLERANCE = 0.02
# $1 is "flags" to print the flags of the program; else all are its arguments. Its output is the error of the job.
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
class _Description:
    """Content of the .json of a result, besides its format."""

    artifact: dict[str, Any]
    device: str
    program: str
    program_sha256: str
    source: str
    environment: dict[str, Any]
    figures: dict[str, Any]
    size_bytes: int


@dataclass(frozen=True)
class Program:
    """File of a program, its hash, and the flags that it accepts."""

    path: Path
    sha256: str
    flags: frozenset[str]


def find(device: Device) -> Path:
    """Return the program of a device: the file, or that in the folder, that its .toml names; else that in the cache.

    Raises:
        MissingError: there is none. UsageError: nothing can be sent to this device.
    """
    if device.transport not in ("adb", "ssh") or device.runtime != "litert":
        raise UsageError(
            f'device {device.name!r} has api = "{API}", which needs the runtime litert and transport adb or ssh',
            "correct its .toml file",
        )
    path = _location(device)
    path = path if device.benchmark_model and not path.is_dir() else path / NAME
    if not path.is_file():
        raise MissingError(
            f"there is no {NAME} to send to {device.name!r}: {path}",
            f"{_WHERE} has builds (android_arm64 for phones); put one there, or name it by {NAME} = in the .toml file",
        )
    return path


def libraries(device: Device) -> list[Path]:
    """Return the libraries beside the program that are sent with it, such as drivers of an NPU.

    Raises:
        As `find`.
    """
    beside = find(device).parent if _location(device).is_dir() else None
    found = sorted(beside.glob("*.so")) if beside else []
    return [path for path in found if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", path.name)]


def _location(device: Device) -> Path:
    """Return the file or the folder of the program."""
    return Path(device.benchmark_model).expanduser() if device.benchmark_model else files.cache_dir(NAME)


def ask(device: Device, transport: Transport) -> Program:
    """Send the program of a device and read which flags it accepts.

    Raises:
        DataError: it is not benchmark_model. EdgekitError: it does not run there.
    """
    output, hashes = _run(device, {}, ("flags",), f"{NAME} on {device.name}", transport)
    return Program(find(device), hashes[NAME], parse_flags(output))


def benchmark(
    artifact: Artifact, path: Path, device: Device, suite: Suite, program: Program, transport: Transport
) -> ProgramResult:
    """Measure one model, with random numbers for images.

    Raises:
        MissingError: the file of the model does not exist. StorageError: it, or the program, has changed.
        EdgekitError: the program failed, or nothing ran on the accelerator. DataError: its output is implausible.
    """
    model = as_exported(artifact, path, device)
    arguments = program_flags(device, suite, program.flags, "model.tflite")
    output, hashes = _run(device, {"model.tflite": model.path}, arguments, f"{artifact.name} in {NAME}", transport)
    if hashes.pop(NAME) != program.sha256:
        raise StorageError(f"{program.path} has changed since its flags were read", "the same command again")
    return ProgramResult(
        artifact=artifact,
        device=device.name,
        program=NAME,
        program_sha256=program.sha256,
        source="emulated" if device.emulated else "device",
        environment=environment.parse(
            {
                **transport.environment,
                "threads": device.threads,
                "accelerator": device.accelerator,
                "xnnpack": device.xnnpack,
                "arguments": " ".join(arguments),
                "libraries": " ".join(f"{name}:{digest[:12]}" for name, digest in hashes.items()),
                "suite": suite.name,
                "edgekit": __version__,
                "measured": files.now(),
            }
        ),
        figures=parse_output(output, device.accelerator),
        size_bytes=model.path.stat().st_size,
    )


def _run(
    device: Device, files: dict[str, Path], arguments: tuple[str, ...], title: str, transport: Transport
) -> tuple[str, dict[str, str]]:
    """Run the program; return its output, and the hashes of it and its libraries by name.

    Raises:
        StorageError: one of these files changed meanwhile.
    """
    with scratch() as work:
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
    """Write a result beside the earlier ones, to ``<device>/benchmark_model/<artifact>@....json``; return its path."""
    home = folder / results.slug(result.device) / NAME
    home.mkdir(parents=True, exist_ok=True)
    fields = result.table()
    digest = files.sha256_text([repr(fields)])
    path = home / f"{results.free_stem(home, result.artifact.name, result.environment.measured, digest)}.json"
    files.save_json(path, {"schema": SCHEMA, "edgekit": __version__, **fields})
    return path


def load(folder: Path) -> list[ProgramResult]:
    """Load the newest result of a program for each artifact on each device below `folder`, sorted.

    Raises:
        DataError: edgekit did not write one of the files.
    """
    return [load_file(path) for path in results.newest(folder.glob(f"*/{NAME}/*.json"))]


def load_file(path: Path) -> ProgramResult:
    """Load one result.

    Raises:
        As `load`.
    """
    names = [field.name for field in dataclasses.fields(ProgramResult)]
    document = files.load_document(path, SCHEMA, *names)
    found: _Description = validation.convert(document, _Description, str(path))
    return ProgramResult(
        artifact=config.from_table(found.artifact, Artifact, f"{path}: artifact"),
        device=found.device,
        program=found.program,
        program_sha256=found.program_sha256,
        source=found.source,
        environment=environment.parse(found.environment, str(path)),
        figures=config.from_table(found.figures, ProgramFigures, f"{path}: figures"),
        size_bytes=found.size_bytes,
    )


def parse_flags(usage: str) -> frozenset[str]:
    """Return the flags of a program, from what it prints for a flag that it cannot read.

    Raises:
        DataError: it is not benchmark_model.
    """
    found = frozenset(_FLAG.findall(usage)[:_MOST_FLAGS])
    if not {"graph", "num_runs", "num_threads"} <= found:
        raise DataError(
            f"this is not benchmark_model: {visible(usage.strip())[:_MOST_TEXT] or 'no output'}",
            "benchmark_model = in the device's .toml file names the program",
        )
    return found


def program_flags(device: Device, suite: Suite, known: frozenset[str], model: str) -> tuple[str, ...]:
    """Return the command line of one measurement, of known flags only: the program ignores others in silence.

    Raises:
        UsageError: the program has no flag for what the device's file asks for.
    """
    wanted = {
        "graph": model,
        "num_threads": str(device.threads),
        "num_runs": str(suite.min_queries),
        "min_secs": f"{suite.min_s:g}",
        "max_secs": f"{suite.max_s:g}",
        "warmup_runs": str(max(1, suite.warmup_queries)),
        "warmup_min_secs": f"{suite.warmup_s:g}",
    }
    if device.accelerator != "cpu":
        wanted[f"use_{device.accelerator}"] = "true"
        wanted.update({name: "." for name in _LIBRARIES if name in known and device.accelerator == "npu"})
    elif "use_xnnpack" in known or not device.xnnpack:
        wanted["use_xnnpack"] = "true" if device.xnnpack else "false"
    missing = [name for name in wanted if name not in known]
    if missing:
        other = "LiteRT's program has --use_npu, TensorFlow Lite's has --use_xnnpack"
        raise UsageError(f"this benchmark_model has no --{', --'.join(missing)}", other)
    return tuple(f"--{name}={value}" for name, value in wanted.items())


def parse_output(output: str, accelerator: str = "cpu") -> ProgramFigures:
    """Read the figures of a measurement.

    Raises:
        DataError: the output ends early, contradicts itself, or is not that of benchmark_model.
        EdgekitError: a flag was ignored, or nothing ran on the accelerator.
    """
    ignored = _UNKNOWN_FLAGS.search(output)
    if ignored:
        raise EdgekitError(f"benchmark_model does not know {visible(ignored[1])[:_MOST_TEXT]}", "take a newer one")
    runs, first, low, high, mean, deviation, spread = _counted(output)
    init, warm_first, warm, average = _summary(output)
    if abs(average - mean) > max(_TOLERANCE * mean, 10.0):
        raise _implausible(f"two averages, {average:g} and {mean:g} us")
    delegates = tuple(
        Delegation(visible(name)[:_MOST_TEXT], int(nodes), int(of) if of else None, int(partitions))
        for nodes, of, name, partitions in _REPLACING.findall(output)
    )
    state = delegation(output, delegates, accelerator)
    if state == Delegated.NONE:
        raise EdgekitError(
            f"nothing of this model ran on the {accelerator.upper()}: the figures would be the CPU's",
            'accelerator = "cpu" in the device\'s .toml file, or a program and a model for its accelerator',
        )
    return ProgramFigures(
        runs=runs,
        mean_ms=mean / 1000,
        min_ms=low / 1000,
        max_ms=high / 1000,
        std_ms=deviation / 1000,
        first_ms=first / 1000,
        warmup_ms=warm / 1000,
        cold_ms=warm_first / 1000,
        init_ms=init / 1000,
        median_ms=None if spread is None else spread[1] / 1000,
        p5_ms=None if spread is None else spread[0] / 1000,
        p95_ms=None if spread is None else spread[2] / 1000,
        delegation=state,
        delegates=delegates[:_MOST_DELEGATES],
    )


def delegation(output: str, delegates: tuple[Delegation, ...], accelerator: str) -> Delegated:
    """Return the part of the model that ran where it should.

    On the CPU that is the part of XNNPACK, whatever its size. Only printed facts count: without the number of all nodes
    the part is unknown. If XNNPACK took nodes and an accelerator is not mentioned, the accelerator took none.
    """
    cpu = accelerator == "cpu"

    def meant(name: str) -> bool:
        return ("xnnpack" in name.lower()) is cpu

    own = [d for d in delegates if meant(d.name)]
    if any(meant(m) for m in _COMPLETELY.findall(output)) or any(d.of == d.nodes > 0 for d in own):
        return Delegated.FULL
    if any(meant(m) for m in _PARTIALLY.findall(output)) or any(d.nodes > 0 for d in own if d.of is not None):
        return Delegated.PARTIAL
    if (
        any(d.nodes == 0 for d in own)
        or any(meant(m) for m in _NOT_AT_ALL.findall(output))
        or "acceleration is unsupported" in output
    ):
        return Delegated.UNKNOWN if cpu else Delegated.NONE
    taken = [d.name for d in delegates if d.nodes > 0] + _COMPLETELY.findall(output) + _PARTIALLY.findall(output)
    by_others = not cpu and bool(taken) and not any(meant(name) for name in taken)
    return Delegated.NONE if by_others else Delegated.UNKNOWN


def _counted(output: str) -> tuple[int, float, float, float, float, float, tuple[float, float, float] | None]:
    """Return runs, and microseconds: first, least, most, mean, deviation; p5, median and p95 where they are printed."""
    starts = [match.end() for match in _STARTS.finditer(output)]
    if len(starts) != 2:
        raise _implausible(f"{len(starts)} measurements instead of warm-up and measurement")
    measured = output[starts[1] :]
    found, same = _COUNT.search(measured), _SAME.search(measured)
    if found is None and same is not None:
        runs, only = int(same[1]), _positive(same[2])
        values = [only, only, only, only, 0.0]
        spread = None
    elif found is not None:
        runs = int(found[1])
        first, _, low, high, mean, deviation = (_finite(found[n]) for n in range(2, 8))
        values = [first, low, high, mean, deviation]
        spread = None if found[8] is None else (_finite(found[8]), _finite(found[9]), _finite(found[10]))
    else:
        raise _implausible("no line of counts")
    first, low, high, mean, deviation = values
    inside = [first, mean, *(spread or ())]
    if runs < 1 or low <= 0 or not all(low * 0.999 <= value <= high * 1.001 for value in inside):
        raise _implausible("figures that contradict each other")
    if spread is not None and not spread[0] <= spread[1] <= spread[2]:
        raise _implausible("percentiles out of order")
    return runs, first, low, high, mean, deviation, spread


def _summary(output: str) -> tuple[float, float, float, float]:
    """Return microseconds: initialization, first inference, mean of the warm-up, mean of the inference."""
    lines = _TFLITE.findall(output)
    if len(lines) == 1:
        init, first, warm, average = (_finite(text) for text in lines[0])
        return init, first, warm, average
    found = [pattern.findall(output) for pattern in _LITERT]
    if lines or any(len(each) != 1 for each in found):
        raise _implausible("no summary at its end")
    init, first, warm, average = (1000 * _finite(each[0]) for each in found)
    return init, first, warm, average


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value > 1e12:
        raise _implausible(f"the number {text}")
    return value


def _positive(text: str) -> float:
    value = _finite(text)
    if value <= 0:
        raise _implausible(f"the number {text}")
    return value


def _implausible(what: str) -> DataError:
    return DataError(f"the output of benchmark_model is implausible: {what}", "edgekit benchmark again")
