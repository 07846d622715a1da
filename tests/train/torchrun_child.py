"""One of the processes that ``torchrun`` starts in test_distributed.py: the command line, with one more model."""

from __future__ import annotations

import sys

from edgekit.cli.app import run
from edgekit.train import models
from tests import nets

if __name__ == "__main__":
    models.MODELS["tiny"] = nets.TINY
    sys.exit(run(sys.argv[1:]))
