"""One of the processes that ``torchrun`` starts in test_distributed.py: the command line, with one more model."""

from __future__ import annotations

import sys

from edgekit.cli.app import run
from edgekit.models import zoo
from tests import nets

if __name__ == "__main__":
    zoo.MODELS["tiny"] = nets.TINY
    sys.exit(run(sys.argv[1:]))
