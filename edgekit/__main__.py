"""``edgekit`` and ``python -m edgekit``: the same program."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """The console script; Ctrl-C is quiet also while the program is still being loaded."""
    try:
        from edgekit.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
