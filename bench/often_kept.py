"""The command with a checkpoint after nearly every step, so that a kill meets many of them."""

import sys

from modelyard.cli.main import main
from modelyard.models import loop

loop.CHECKPOINT_SECONDS = 0.2
loop.CHECKPOINT_SHARE = 1.0

if __name__ == "__main__":
    sys.exit(main())
