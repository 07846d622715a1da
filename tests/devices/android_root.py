"""What a shell finds on a phone: Android's own shell and tools (mksh, toybox), and doubles of what only Android has.

Doubles, because the real ones exist on a phone only: getprop, dumpsys, cmd. They print what the real ones print, of a
Pixel 8; the text lies in files that a test may change.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROPERTIES = """[ro.build.version.release]: [14]
[ro.build.version.sdk]: [34]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 8]
[ro.board.platform]: [zuma]
[ro.soc.manufacturer]: [Google]
[ro.soc.model]: [Tensor G3]
"""
THERMAL = """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 2
\tkilled: false
\tbroadcasts count: -1
ThermalStatusListeners:
\tcallbacks: 3
\tkilled: false
\tbroadcasts count: -1
Thermal Status: {status}
Cached temperatures:
\tTemperature{{mValue=33.4, mType=3, mName=VIRTUAL-SKIN, mStatus={status}}}
HAL Ready: true
HAL connection:
\tThermalHAL AIDL 2  connected: yes
Current temperatures from HAL:
\tTemperature{{mValue=33.5, mType=3, mName=VIRTUAL-SKIN, mStatus={status}}}
"""
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Dock powered: false
  Max charging current: 500000
  Max charging voltage: 5000000
  Charge counter: 3270000
  status: 2
  health: 2
  present: true
  level: 81
  scale: 100
  voltage: 4352
  temperature: 274
  technology: Li-ion
[EventLogBuffer]
08-11 18:34:14.721  Sending ACTION_BATTERY_CHANGED: level:72, temperature:345
"""
# The thermal status is the first line of a file; a file with several lines loses one with each look.
_DUMPSYS = r"""#!/bin/sh
case $1 in
thermalservice)
    status=$(head -n 1 "$PHONE/thermal")
    [ "$(wc -l <"$PHONE/thermal")" -lt 2 ] || { tail -n +2 "$PHONE/thermal" >"$PHONE/thermal.new"; \
        mv "$PHONE/thermal.new" "$PHONE/thermal"; }
    sed "s/@/$status/" "$PHONE/thermalservice" ;;
battery) cat "$PHONE/battery" ;;
*) echo "Can't find service: $1" >&2; exit 1 ;;
esac
"""
_CMD = r"""#!/bin/sh
[ "$1 $2" = "power set-fixed-performance-mode-enabled" ] || { echo "cmd: Can't find service: $1" >&2; exit 20; }
[ ! -f "$PHONE/no-fixed-mode" ] || { echo "Failed to set FIXED_PERFORMANCE mode" >&2; exit 255; }
echo "$3" >>"$PHONE/fixed"
"""
_GETPROP = '#!/bin/sh\ncat "$PHONE/properties"\n'
# Stands in for benchmark_model: its flags, and the lines that it prints on a phone, by its source and by public logs
# of it. It computes nothing. Files beside the phone's change what it does.
BENCHMARK_MODEL = r"""#!/bin/sh
if [ "$1" = --num_runs=none ]; then
    echo "ERROR: Failed to parse flag 'num_runs' against argv '--num_runs=none'"
    printf 'ERROR: usage: %s <flags>\nFlags:\n' "$0"
    for flag in num_runs=50 min_secs=1 max_secs=150 num_threads=-1 warmup_runs=1 warmup_min_secs=0.5 graph= \
        use_gpu=0 @FLAGS@; do
        printf '\t--%s\tint32\toptional\tsome words\n' "$flag"
    done
    exit 1
fi
graph= gpu=
for argument; do case $argument in --graph=*) graph=${argument#--graph=} ;; --use_[gn]pu=true) gpu=1 ;; esac; done
case $LD_LIBRARY_PATH in "$PWD"*) ls *.so 2>/dev/null >"$PHONE/beside" ;; esac
echo "$@" >>"$PHONE/arguments"
[ -s "$graph" ] || { echo "ERROR: Failed to load model: $graph"; exit 1; }
[ ! -f "$PHONE/slow" ] || sleep "$(cat "$PHONE/slow")"
echo "INFO: STARTING!"
[ ! -f "$PHONE/unknown" ] || echo "WARN: Unconsumed cmdline flags: --num_threads=1"
echo "INFO: Graph: [$graph]"
if [ -n "$gpu" ]; then
    if [ -f "$PHONE/delegates" ]; then cat "$PHONE/delegates"; else
        echo "VERBOSE: Replacing 66 out of 66 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 partitions" \
            "for the whole graph."
        echo "INFO: Explicitly applied GPU delegate, and the model graph will be completely executed by the delegate."
    fi
else
    echo "VERBOSE: Replacing 58 out of 58 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions" \
        "for the whole graph."
fi
echo "INFO: The input model file size (MB): 3.27774"
echo "INFO: Initialized session in 4.478ms."
running() { echo "INFO: Running benchmark for at least $1 seconds but terminate if exceeding 150 seconds."; }
running "1 iterations and at least 0.5"
echo "INFO: count=1055 first=1033 curr=473 min=443 max=1033 avg=465.319 std=18 p5=459 median=463 p95=478"
echo
running "50 iterations and at least 1"
echo "INFO: count=2112 first=463 curr=459 min=442 max=979 avg=464.545 std=13 p5=460 median=462 p95=478"
echo
echo "INFO: Inference timings in us: Init: 4478, First inference: 1033, Warmup (avg): 465.319, Inference (avg): 464.545"
"""


def benchmark_model(path: Path, *flags: str) -> Path:
    """Write the double with more flags than those of every version."""
    script = BENCHMARK_MODEL.replace("@FLAGS@", " ".join(f"{flag}=0" for flag in flags))
    path.write_text(script.replace("#!/bin/sh", f"#!{require_shell()}", 1))
    return path


def require_shell() -> str:
    """Android's shell; without it and toybox the test is skipped."""
    for name in ("mksh", "toybox"):
        if shutil.which(name) is None:
            pytest.skip(f"no {name} here, which is what a phone's shell is made of: apt install mksh toybox")
    return str(shutil.which("mksh"))


def make(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Fill `folder`; returns the shell and all of its environment."""
    shell, binaries = require_shell(), folder / "bin"
    binaries.mkdir(parents=True)
    (folder / "tmp").mkdir()
    toybox = str(shutil.which("toybox"))
    for name in subprocess.run([toybox], capture_output=True, text=True, check=True).stdout.split():
        if "/" not in name:
            (binaries / name).symlink_to(toybox)
    (binaries / "sh").symlink_to(shell)
    for name, script in (("getprop", _GETPROP), ("dumpsys", _DUMPSYS), ("cmd", _CMD)):
        (binaries / name).write_text(script.replace("#!/bin/sh", f"#!{shell}"))
        (binaries / name).chmod(0o755)
    (folder / "properties").write_text(PROPERTIES)
    (folder / "thermalservice").write_text(THERMAL.format(status="@"))
    (folder / "thermal").write_text("0\n")
    (folder / "battery").write_text(BATTERY)
    environment = {"PATH": str(binaries), "TMPDIR": str(folder / "tmp"), "PHONE": str(folder), "EDGEKIT_WATCH_S": "1"}
    return [shell, "-c"], {**environment, "HOME": str(folder), "USER": os.environ.get("USER", "shell")}
