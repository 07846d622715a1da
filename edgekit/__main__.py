"""``python -m edgekit`` is the same program as ``edgekit``."""

from edgekit.cli.app import main

if __name__ == "__main__":
    main()
