"""``edgekit devices``."""

from __future__ import annotations

import dataclasses

from edgekit import config
from edgekit.cli import show
from edgekit.cli.options import Json
from edgekit.records import Device
from edgekit.targets import base


def devices(json: Json = False) -> None:
    """List what --target and --device take.

    A .toml file of your own works too: see docs/devices.md for its keys.
    """
    known = config.load_devices()
    if json:
        show.as_json([{**dataclasses.asdict(d), "precisions": _precisions(d)} for d in known])
        return
    rows = [
        [
            device.name,
            device.family,
            device.runtime,
            ", ".join(_precisions(device)),
            "yes" if device.verified else "not verified on hardware",
            device.description,
        ]
        for device in known
    ]
    columns = ["device", "family", "runtime", "precisions", "tried", "description"]
    show.table(columns, rows, narrow=["device", "family", "description"])


def _precisions(device: Device) -> tuple[str, ...]:
    return device.precisions or base.FAMILIES[device.family].precisions
