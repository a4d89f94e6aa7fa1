"""``python -m sft_core``: see ``cli``."""

import sys

from sft_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
