"""Build hook: put LiteRT.js, which `npm ci` installs, into wheels and source distributions."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class LiteRtJs(BuildHookInterface):
    """Include the `files` of this hook's table in pyproject.toml; an editable install finds them in the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fail where a file is missing: without them `edgekit serve` would not work."""
        if version == "editable":
            return
        inside = "edgekit/_data/" if self.target_name == "wheel" else ""
        for name in self.config["files"]:
            path = Path(self.root, name)
            if not path.is_file():
                raise FileNotFoundError(f"{path} is missing; run `npm ci` in {self.root}, then build again")
            build_data["force_include"][str(path)] = inside + name
