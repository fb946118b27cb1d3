"""``python -m dapo_trl`` and ``accelerate launch -m dapo_trl``."""

import sys

from dapo_trl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
