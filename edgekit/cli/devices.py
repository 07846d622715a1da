"""``edgekit devices``."""

from __future__ import annotations

import dataclasses

from edgekit import config
from edgekit.cli import show
from edgekit.cli.options import Json
from edgekit.targets import base


def devices(json: Json = False) -> None:
    """List what --target and --device take.

    A .toml file of your own works too: see docs/devices.md for its keys.
    """
    known = config.load_devices()
    if json:
        show.as_json([dataclasses.asdict(device) for device in known])
        return
    rows = [
        [
            device.name,
            device.family,
            device.runtime,
            ", ".join(device.precisions or base.FAMILIES[device.family].precisions),
            "yes" if device.verified else "not verified on hardware",
            device.description,
        ]
        for device in known
    ]
    show.table(["device", "family", "runtime", "precisions", "tried", "description"], rows)
