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
