"""``python -m pyptyx`` is the command line ``pyptyx``."""

import sys

from pyptyx.cli import main

if __name__ == "__main__":
    sys.exit(main())
