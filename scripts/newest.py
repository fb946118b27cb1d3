"""The project with the libraries that are installed, newest or not: their versions, then what breaks.

python scripts/newest.py            # after `make test-newest` has installed them
python scripts/newest.py --all      # the whole test suite

Exit code 1 if anything broke.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ("torch", "transformers", "trl", "accelerate", "peft", "datasets", "gymnasium", "numpy")
CONTRACT = (
    *("tests/test_contract.py", "tests/test_architecture.py", "tests/test_trainer.py", "tests/test_config.py"),
    *("tests/test_settings.py", "tests/cli/test_outline.py", "tests/generation"),
)
"""Tests of what the project expects of other libraries."""


def main() -> int:
    """Run the checks; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="the whole test suite in place of the contract tests")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, " + ", ".join(f"{name} {version(name)}" for name in LIBRARIES))
    tests = ["tests"] if options.all else list(CONTRACT)
    with tempfile.TemporaryDirectory() as folder:
        quickstart = ["train", "--config", "quickstart", "--max_steps", "8", "--output_dir", f"{folder}/run"]
        broken = [
            name
            for name, command in (
                ("tests", ["pytest", "-q", "-n", "2", *tests]),
                ("quick start", ["dapo_trl", *quickstart]),
            )
            if not _works(command)
        ]
    print(f"broken: {', '.join(broken)}" if broken else "nothing broke")
    return int(bool(broken))


def _works(command: list[str]) -> bool:
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=os.environ | quiet).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
