"""What ``benchmark_model`` says, read strictly: TensorFlow Lite's program, and LiteRT's, which has its loop.

Formats: tensorflow/lite/tools/benchmark/benchmark_model.cc and benchmark_tflite_model.cc, command_line_flags.cc,
tensorflow/core/util/stats_calculator.h, google-ai-edge/LiteRT litert/tools/benchmark_litert_model.h, and the line
that the runtime logs of each delegate. It keeps no single times and shows the model random numbers: there are no
latency percentiles but its own, and no answers.
"""

from __future__ import annotations

import math
import re

from edgekit.errors import DataError, EdgekitError, UsageError
from edgekit.labels import visible
from edgekit.measurements import Delegation, ProgramFigures, Suite
from edgekit.records import Device

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
# Where LiteRT's program looks for what drives an NPU: in the job's folder.
_LIBRARIES = ("dispatch_library_path", "compiler_plugin_library_path")
_ALIKE = 0.02  # the summary is rounded to hundredths of a millisecond by one, to six digits by the other


def parse_flags(usage: str) -> frozenset[str]:
    """The flags that a program has, by what it prints when one cannot be read.

    Raises:
        DataError: it is no benchmark_model.
    """
    found = frozenset(_FLAG.findall(usage)[:_MOST_FLAGS])
    if not {"graph", "num_runs", "num_threads"} <= found:
        raise DataError(
            f"this is no benchmark_model: {visible(usage.strip())[:_MOST_TEXT] or 'it says nothing'}",
            "benchmark_model = in the device's .toml file names the program",
        )
    return found


def flags(device: Device, suite: Suite, known: frozenset[str], model: str) -> tuple[str, ...]:
    """The command line of one measurement; a program leaves out in silence what it does not know, so nothing is tried.

    Raises:
        UsageError: this program cannot do what the device's file asks for.
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


def parse(said: str, accelerator: str = "cpu") -> ProgramFigures:
    """The figures of a measurement.

    Raises:
        DataError: the output ends early, contradicts itself, or is none of benchmark_model's.
        EdgekitError: a flag was left out, or nothing ran on the accelerator.
    """
    ignored = _UNKNOWN_FLAGS.search(said)
    if ignored:
        raise EdgekitError(f"benchmark_model does not know {visible(ignored[1])[:_MOST_TEXT]}", "take a newer one")
    runs, first, low, high, mean, deviation, spread = _counted(said)
    init, warm_first, warm, average = _summary(said)
    if abs(average - mean) > max(_ALIKE * mean, 10.0):
        raise _broken(f"two averages, {average:g} and {mean:g} us")
    delegates = tuple(
        Delegation(visible(name)[:_MOST_TEXT], int(nodes), int(of) if of else None, int(partitions))
        for nodes, of, name, partitions in _REPLACING.findall(said)
    )
    state = delegation(said, delegates, accelerator)
    if state == "none":
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


def delegation(said: str, delegates: tuple[Delegation, ...], accelerator: str) -> str:
    """How much of the model ran where it should: ``full``, ``partial``, ``none``, or ``unknown``.

    Of the CPU it is XNNPACK's part, which no error follows from. Only what is said counts: where the number of all
    nodes is not, nothing is claimed. Where XNNPACK is said to have taken nodes, and nothing of an accelerator, the
    accelerator took none.
    """
    cpu = accelerator == "cpu"

    def meant(name: str) -> bool:
        return ("xnnpack" in name.lower()) is cpu

    own = [d for d in delegates if meant(d.name)]
    if any(meant(m) for m in _COMPLETELY.findall(said)) or any(d.of == d.nodes > 0 for d in own):
        return "full"
    if any(meant(m) for m in _PARTIALLY.findall(said)) or any(d.nodes > 0 for d in own if d.of is not None):
        return "partial"
    if (
        any(d.nodes == 0 for d in own)
        or any(meant(m) for m in _NOT_AT_ALL.findall(said))
        or "acceleration is unsupported" in said
    ):
        return "unknown" if cpu else "none"
    taken = [d.name for d in delegates if d.nodes > 0] + _COMPLETELY.findall(said) + _PARTIALLY.findall(said)
    return "none" if not cpu and taken and not any(meant(name) for name in taken) else "unknown"


def _counted(said: str) -> tuple[int, float, float, float, float, float, tuple[float, float, float] | None]:
    """Runs, and microseconds: first, least, most, mean, deviation; p5, median and p95 where the program has them."""
    starts = [match.end() for match in _STARTS.finditer(said)]
    if len(starts) != 2:
        raise _broken(f"{len(starts)} measurements where warm-up and measurement are two")
    measured = said[starts[1] :]
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
        raise _broken("no line of counts")
    first, low, high, mean, deviation = values
    inside = [first, mean, *(spread or ())]
    if runs < 1 or low <= 0 or not all(low * 0.999 <= value <= high * 1.001 for value in inside):
        raise _broken("figures that cannot be")
    if spread is not None and not spread[0] <= spread[1] <= spread[2]:
        raise _broken("percentiles that do not rise")
    return runs, first, low, high, mean, deviation, spread


def _summary(said: str) -> tuple[float, float, float, float]:
    """Microseconds: initialization, the first inference, warm-up and inference on average."""
    lines = _TFLITE.findall(said)
    if len(lines) == 1:
        init, first, warm, average = (_finite(text) for text in lines[0])
        return init, first, warm, average
    found = [pattern.findall(said) for pattern in _LITERT]
    if lines or any(len(each) != 1 for each in found):
        raise _broken("no summary at its end")
    init, first, warm, average = (1000 * _finite(each[0]) for each in found)
    return init, first, warm, average


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value > 1e12:
        raise _broken(f"the number {text}")
    return value


def _positive(text: str) -> float:
    value = _finite(text)
    if value <= 0:
        raise _broken(f"the number {text}")
    return value


def _broken(what: str) -> DataError:
    return DataError(f"benchmark_model's output cannot be believed: {what}", "edgekit benchmark again")
