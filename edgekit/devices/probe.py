"""Properties of a device, read over ssh by a shell script. The output is untrusted input.

Formats: ``/etc/nv_tegra_release``, ``nvpmodel -q`` (NVIDIA Jetson Linux Developer Guide), ``dpkg-query -W``,
proc(5), and the kernel's sysfs thermal ABI.
"""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any

from edgekit.devices.ssh import Connection
from edgekit.labels import visible
from edgekit.records import Device

_MOST_TEXT, _MOST_MODES = 100, 32
# Package -> its module to import.
RUNTIMES = {
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
    "onnxruntime": "onnxruntime",
    "tensorrt": "tensorrt",
    "numpy": "numpy",
}
_PACKAGES = ("nvidia-jetpack", "tensorrt", "libnvinfer-bin", "libnvinfer10", "libnvinfer8")
# $1: a random mark before each section, $2: a Python, then the names of packages.
_SCRIPT = """
mark=$1 python=$2; shift 2
section() { printf '\\n%s %s\\n' "$mark" "$1"; }
section machine; uname -m
section cores; nproc
section model; head -c 200 /proc/device-tree/model 2>/dev/null
section tegra; head -c 1000 /etc/nv_tegra_release 2>/dev/null
section meminfo; head -c 200 /proc/meminfo
section cuda; head -c 4000 /usr/local/cuda/version.json 2>/dev/null
section packages; command -v dpkg-query >/dev/null && dpkg-query -W "$@" 2>/dev/null
section power; command -v nvpmodel >/dev/null && nvpmodel -q 2>/dev/null | head -c 1000
section thermal; for z in /sys/class/thermal/thermal_zone*; do
    [ -r "$z/temp" ] && printf '%s %s\\n' "$(head -c 50 "$z/type")" "$(head -c 20 "$z/temp" 2>/dev/null)"; done
section free; df -Pk "$cache" | tail -1
section modes; grep -h POWER_MODEL "${NVPMODEL_CONF:-/etc/nvpmodel.conf}" 2>/dev/null | head -c 4000
section gpu; for d in /sys/class/devfreq/*; do
    case $d in *gpu*|*ga10b*|*gv11b*|*gp10b*|*gm20b*)
        cat "$d/cur_freq" "$d/min_freq" "$d/max_freq" 2>/dev/null | tr '\\n' ' '
        break ;; esac; done
section python; limit=; command -v timeout >/dev/null && limit="timeout 60"; $limit "$python" -c '@PYTHON@' 2>/dev/null
exit 0
"""
# For Python 3.6 and newer. Prints JSON: its version, versions of packages, the GPU's compute capability, and the number
# of DLA cores that TensorRT sees. It must not contain single quotes.
PYTHON = """
import ctypes, importlib, json, os, sys
found, gpu, dla = {}, "", None
def version(package):
    try:
        from importlib import metadata
        return metadata.version(package)
    except Exception:
        return ""
for package, name in json.loads(sys.argv[1]).items():
    try:
        module = importlib.import_module(name)
        if getattr(module, "__file__", None) is None:
            continue  # a folder without code, as type stubs leave it
        found[package] = version(package) or getattr(module, "__version__", "unknown")
    except ImportError as error:
        if version(package):
            found[package] = "%s, but it does not import: %s" % (version(package), error)
    except Exception as error:
        found[package] = "does not import: %r" % error
names = ["libcudart.so" + end for end in ("", ".13", ".12", ".11.0")] + ["/usr/local/cuda/lib64/libcudart.so"]
for name in [os.environ.get("EDGEKIT_CUDART") or names[0]] + names:
    try:
        value, parts = ctypes.c_int(), []
        for attribute in (75, 76):
            if ctypes.CDLL(name).cudaDeviceGetAttribute(ctypes.byref(value), attribute, 0) == 0:
                parts.append(str(value.value))
        gpu = ".".join(parts) if len(parts) == 2 else ""
        break
    except Exception:
        pass
try:
    trt = sys.modules["tensorrt"]
    dla = trt.Builder(trt.Logger(trt.Logger.ERROR)).num_DLA_cores
except Exception:
    pass
print(json.dumps([sys.version.split()[0], found, gpu, dla]))"""


@dataclass(frozen=True)
class Probe:
    """State of a device; "" or None where it does not report a value.

    Attributes:
        l4t, jetpack, cuda, tensorrt: versions. memory_gb: total memory.
        power_mode, power_modes: current mode and all modes, by their names in nvpmodel.
        compute_capability: of the GPU. dla_cores: number that TensorRT sees.
        gpu_mhz: current, minimum and maximum clock. temperatures: thermal zone -> degrees Celsius.
        runtimes: package -> version in `python`, or the error of its import.
        free_gb: free disk space where edgekit keeps its files.
    """

    host: str
    machine: str = ""
    model: str = ""
    cores: int | None = None
    memory_gb: float | None = None
    l4t: str = ""
    jetpack: str = ""
    cuda: str = ""
    tensorrt: str = ""
    compute_capability: str = ""
    dla_cores: int | None = None
    power_mode: str = ""
    power_modes: tuple[str, ...] = ()
    gpu_mhz: tuple[float, ...] = ()
    temperatures: dict[str, float] = field(default_factory=dict)
    python: str = ""
    runtimes: dict[str, str] = field(default_factory=dict)
    free_gb: float | None = None

    @property
    def family(self) -> str:
        """Family of the device; an unknown Linux board counts as a Raspberry Pi."""
        return "jetson" if self.l4t or "jetson" in self.model.lower() else "rpi"

    @property
    def runtime(self) -> str:
        """Runtime of its exports."""
        return "tensorrt" if self.family == "jetson" else "litert"


def probe(host: str, python: str = "python3") -> Probe:
    """Read the properties of a host.

    Args:
        python: Python on the host whose packages are listed.

    Raises:
        MissingError: the host cannot be reached, or refuses the login.
    """
    mark = secrets.token_hex(8)
    script = _SCRIPT.replace("@PYTHON@", PYTHON + "' '" + json.dumps(RUNTIMES))
    with Connection(host) as connection:
        output = connection.insist(script, mark, python, *_PACKAGES).decode("utf-8", "replace")
    return parse(host, sections(output, mark))


def sections(output: str, mark: str) -> dict[str, str]:
    """Split an output whose sections begin with a line of `mark` and their name; return name -> text."""
    found = {}
    for part in output.split(f"\n{mark} ")[1:]:
        name, _, text = part.partition("\n")
        found[name.strip()] = text.strip("\n\x00 ")
    return found


def parse(host: str, output: dict[str, str]) -> Probe:
    """Parse the sections of the script's output; values that cannot be parsed are left out."""
    packages = dict(re.findall(r"^([a-z0-9.+-]+)(?::\w+)?\s+(\S+)$", output.get("packages", ""), re.MULTILINE))
    release = re.search(r"# R(\d+) \(release\), REVISION: ([\d.]+)", output.get("tegra", ""))
    memory = re.search(r"MemTotal:\s+(\d{1,15}) kB", output.get("meminfo", ""))
    mode = re.search(r"NV Power Mode: *(\S.*)", output.get("power", ""))
    free = re.search(r"\s\d+\s+\d+\s+(\d{1,15})\s+\d+%", output.get("free", ""))
    python = python_fields(output.get("python", ""))
    modes = re.findall(r"^\s*<\s*POWER_MODEL\s+ID=\d+\s+NAME=([^\s>]+)", output.get("modes", ""), re.MULTILINE)
    clocks = re.fullmatch(r"\s*(\d{1,12}) (\d{1,12}) (\d{1,12})\s*", output.get("gpu", ""))
    nvinfer = (packages[name] for name in _PACKAGES[1:] if name in packages)
    return Probe(
        host=host,
        machine=_text(output.get("machine", "")),
        model=_text(output.get("model", "")),
        cores=int(output["cores"]) if re.fullmatch(r"\d{1,5}", output.get("cores", "")) else None,
        memory_gb=round(int(memory[1]) * 1024 / 1e9, 1) if memory else None,
        l4t=_text(f"{release[1]}.{release[2]}") if release else "",
        jetpack=_text(packages.get("nvidia-jetpack", "").partition("+")[0].partition("-")[0]),
        cuda=_cuda(output.get("cuda", "")),
        tensorrt=_text(next(nvinfer, "").partition("-")[0]),
        power_mode=_text(mode[1]) if mode else "",
        power_modes=tuple(_text(mode) for mode in modes[:_MOST_MODES]),
        gpu_mhz=tuple(int(hertz) / 1e6 for hertz in clocks.groups()) if clocks else (),
        temperatures=_temperatures(output.get("thermal", "")),
        **python,
        free_gb=round(int(free[1]) * 1024 / 1e9, 1) if free else None,
    )


def profile(found: Probe, name: str, when: str) -> Device:
    """Return the device file of a host. `when`: date, for its source."""
    return Device(
        name,
        found.family,
        description=found.model or found.machine,
        transport="ssh",
        runtime=found.runtime,
        host=found.host,
        compute_capability=found.compute_capability,
        dla_cores=found.dla_cores,
        memory_gb=found.memory_gb,
        power_modes=found.power_modes,
        sources=(f"the device itself, {when}",),
    )


def to_toml(device: Device) -> str:
    """Return the text of a device file with the fields that differ from their defaults."""
    given = [f.name for f in dataclasses.fields(device) if f.name != "name" and getattr(device, f.name) != f.default]
    values = {name: getattr(device, name) for name in given}
    # Strings and arrays of JSON are valid TOML.
    lines = (
        f"{k} = {json.dumps(list(v) if isinstance(v, tuple) else v, ensure_ascii=False)}" for k, v in values.items()
    )
    return "\n".join(lines) + "\n"


def _text(value: str) -> str:
    """Return a short printable line."""
    return visible(value.strip("\x00 \n"))[:_MOST_TEXT]


def _cuda(text: str) -> str:
    try:
        return _text(str(json.loads(text)["cuda"]["version"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""


def _temperatures(text: str) -> dict[str, float]:
    """Parse lines of zone and temperature in m°C; implausible ones are left out."""
    found = re.findall(r"^(\S{1,50}) (-?\d{1,7})$", text, re.MULTILINE)
    return {_text(zone): int(value) / 1000 for zone, value in found if -60_000 < int(value) < 200_000}


def python_fields(text: str) -> dict[str, Any]:
    """Parse the output of `PYTHON`; return fields of the probe."""
    try:
        version, found, capability, dla = json.loads(text)
        return {
            "python": _text(str(version)),
            "runtimes": {name: _text(str(found[name])) for name in RUNTIMES if name in found},
            "compute_capability": capability if re.fullmatch(r"\d{1,2}\.\d{1,2}", capability) else "",
            "dla_cores": dla if isinstance(dla, int) and not isinstance(dla, bool) and 0 <= dla < 8 else None,
        }
    except (ValueError, TypeError, RecursionError):
        return {}
