"""The job "build": build a TensorRT engine from an ONNX file, on the device that will run it.

The job is a JSON object: ``precision``; ``onnx`` and, for TensorRT from 10.12 on, ``typed_onnx``; for INT8 on a DLA
``plain_onnx`` and ``calibration`` (a TensorRT calibration cache), for versions that drive it with weakly typed networks
only; ``trtexec`` (its path, or ""), ``dla_core``, ``workspace_mb``, ``out``. A folder ``keep`` beside the
job keeps timing caches for the next build. Files in ``out``: ``model.engine``, ``build.log`` and, at last,
``result.json`` (the record of the engine: TensorRT, GPU, flags, ONNX file).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import time
from typing import Any, Dict, NamedTuple, Optional, Tuple

from . import MISFIT, jetson, tensorrt_api, trtexec
from .progress import say
from .tensorrt_api import BuildError, Order

OLDEST = (8, 5)
_DLA_TYPED_SINCE = (11, 0)  # versions from 11.4 that drive a DLA again take strongly typed networks only
_MOST_LOG = 1 << 20
_MOST_LAYERS = 2000
# Fields of an engine's record that must equal those of the device that runs it.
FIT = ("tensorrt", "compute_capability", "machine", "dla_core")


class Builder(NamedTuple):
    """Program that builds engines: ``api`` or ``trtexec``, its version, and facts about the GPU."""

    kind: str
    version: str
    about: Dict[str, str]
    tool: Any


def open_builder(named: str) -> Builder:
    """Return TensorRT's Python API if it can be imported, else trtexec.

    Args:
        named: path of a trtexec to use; "" for none.

    Raises:
        BuildError: neither was found.
    """
    if not named:
        try:
            trt = tensorrt_api.load()
            from . import cudart

            capability = cudart.open_cudart().compute_capability()
            return Builder("api", trt.__version__, {"compute_capability": capability}, trt)
        except ImportError as error:
            missing = str(error)
    program = trtexec.find(named)
    if program is None:
        raise BuildError("no trtexec at {!r}".format(named) if named else "no TensorRT: {}; no trtexec".format(missing))
    return Builder("trtexec", ".".join(map(str, trtexec.version(program))), {}, program)


def choose_source(job: Dict[str, Any], version: Tuple[int, int]) -> Tuple[str, bool]:
    """Return the ONNX file for this version, and whether it needs the calibration cache."""
    if job.get("dla_core") is not None and job["precision"] == "int8" and version < _DLA_TYPED_SINCE:
        if version >= tensorrt_api.STRONGLY_TYPED_SINCE:
            raise BuildError("TensorRT {}.{} runs no INT8 on a DLA".format(*version))
        if not job.get("plain_onnx") or not job.get("calibration"):
            text = "INT8 on the DLA of TensorRT {}.{} needs the FP32 file and a calibration cache: export fp32 and int8"
            raise BuildError(text.format(*version))
        return job["plain_onnx"], True
    typed = version >= tensorrt_api.STRONGLY_TYPED_SINCE
    return (job.get("typed_onnx") or job["onnx"]) if typed else job["onnx"], False


def with_header(cache: bytes, version: str) -> bytes:
    """Return a calibration cache for TensorRT `version`, which rejects those of other versions.

    The first line of 8.5.2 is ``TRT-8502-EntropyCalibration2``, of 10.3.0 ``TRT-100300-EntropyCalibration2``.
    """
    parts = ([int(p) for p in re.findall(r"\d+", version)] + [0, 0])[:3]
    weights = (10_000, 100, 1) if parts[0] >= 10 else (1000, 100, 1)
    number = sum(w * p for w, p in zip(weights, parts))
    return b"TRT-%d-EntropyCalibration2\n" % number + cache.partition(b"\n")[2]


def build(job: Dict[str, Any], base: str) -> Dict[str, Any]:
    """Build the engine of a job; return the contents of result.json.

    Raises:
        BuildError: there is no TensorRT, or it cannot build the model.
    """
    out = os.path.join(base, job["out"])
    builder = open_builder(job.get("trtexec", ""))
    version = tensorrt_api.version_of(builder.version)
    if version < OLDEST:
        raise BuildError("TensorRT {} is too old: 8.5 is the least".format(builder.version))
    source, calibrated = choose_source(job, version)
    with open(os.path.join(base, source), "rb") as file:
        onnx = file.read()
    cache = b""
    if calibrated:
        with open(os.path.join(base, job["calibration"]), "rb") as file:
            cache = with_header(file.read(), builder.version)
    timing = os.path.join(base, "keep", "timing-{}.cache".format(builder.version))
    order = Order(job["precision"], job.get("dla_core"), job.get("workspace_mb"), cache, _read(timing))
    say("building {} with TensorRT {}".format(job["precision"], builder.version))
    begun = time.perf_counter()
    if builder.kind == "api":
        built = tensorrt_api.build(builder.tool, version, onnx, order, say)
    else:
        built = _build_by_trtexec(builder.tool, version, os.path.join(base, source), out, order)
        builder.about.update(trtexec.device("\n".join(built.log)))
    _write(os.path.join(out, "model.engine"), built.engine)
    if built.timing_cache and os.path.isdir(os.path.dirname(timing)):
        _write(timing, built.timing_cache)
    _write(os.path.join(out, "build.log"), "\n".join(built.log).encode("utf-8", "replace")[-_MOST_LOG:])
    record: Dict[str, Any] = dict(jetson.identity(), **builder.about)
    record.update(
        tensorrt=builder.version,
        builder=builder.kind,
        precision=job["precision"],
        flags=built.flags,
        onnx=source,
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        dla_core=job.get("dla_core"),
        engine_sha256=hashlib.sha256(built.engine).hexdigest(),
        seconds=round(time.perf_counter() - begun, 1),
        power_mode=jetson.state().get("power_mode", ""),
        timing_cache="used" if order.timing_cache else "new",
    )
    if job.get("dla_core") is not None:
        record["placement"] = {k: v[:_MOST_LAYERS] for k, v in trtexec.placement(built.log).items()}
    _write(os.path.join(out, "result.json"), json.dumps(record, indent=1).encode())
    return record


def _build_by_trtexec(program: str, version: Tuple[int, int], onnx: str, out: str, order: Order) -> Any:
    engine, timing, calibration = (os.path.join(out, name) for name in ("engine.part", "timing.part", "calibration"))
    command = trtexec.build_command(program, version, onnx, engine, order)
    _write(timing, order.timing_cache)
    if not order.timing_cache:
        os.remove(timing)  # an empty file is not a valid timing cache
    command.append("--timingCacheFile={}".format(timing))
    if order.calibration:
        _write(calibration, order.calibration)
        command.append("--calib={}".format(calibration))
    done = trtexec.run(command)
    if done.returncode != 0 or not os.path.isfile(engine):
        raise BuildError("trtexec failed: {}".format(trtexec.failure(done.stdout)))
    flags = " ".join(trtexec.build_flags(version, order))
    built = tensorrt_api.Built(_read(engine), _read(timing), flags, trtexec.worth_keeping(done.stdout))
    os.remove(engine)
    return built


def check_fit(built: Optional[Dict[str, Any]], here: Dict[str, Any]) -> None:
    """Check that an engine was built for this device.

    Args:
        built: record of the engine, None if it has none. here: the same fields of this device.

    Raises:
        BuildError: a field of `FIT` differs; the message has both values: ``tensorrt 8.5.2, here 10.3.0``.
    """
    here = dict(here, machine=platform.machine())
    differing = [
        "{} {}, here {}".format(name, built[name], here[name])
        for name in FIT
        if built and name in here and name in built and built[name] != here[name]
    ]
    if differing:
        raise BuildError("{}: {}".format(MISFIT, "; ".join(differing)))


def _read(path: str) -> bytes:
    if not os.path.isfile(path):
        return b""
    with open(path, "rb") as file:
        return file.read()


def _write(path: str, content: bytes) -> None:
    """Write a file whole or not at all."""
    with open(path + ".new", "wb") as file:
        file.write(content)
    os.replace(path + ".new", path)
