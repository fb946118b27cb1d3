"""Python commands without the wait for torch: each runs in a fork of one process that has imported other people's
packages once. The project's own modules are imported by each command anew.

As a script it reads one command a line from standard input, as JSON, and prints its exit code.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "peft", "trl.trainer.grpo_trainer", "matplotlib.pyplot")


class Forked:
    """Runs ``program argument ...``, the program being a Python file; close it by leaving the context."""

    def __enter__(self) -> Forked:
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-P", __file__]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=Path(__file__).parents[2]
        )
        return self

    def __exit__(self, *_: Any) -> None:
        self._process.communicate()

    def run(self, words: list[str], folder: Path) -> tuple[int, str]:
        """The exit code of a command and all that it printed.

        Args:
            words: The program's path and its arguments.
            folder: The folder to run it in.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        output = folder / "output.txt"
        print(json.dumps([words, str(folder), str(output)]), file=self._process.stdin, flush=True)
        code = int(self._process.stdout.readline())
        return code, output.read_text(encoding="utf-8")


def _run(words: list[str], folder: str, output: str) -> int:
    """Become the command; returns its exit code."""
    os.chdir(folder)
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    os.dup2(1, 2)
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).absolute().parent))  # as Python does for a script
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _serve() -> None:
    for name in _PACKAGES:
        importlib.import_module(name)
    importlib.import_module("torch").set_num_threads(1)  # so that there are no threads that a fork would lose
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            sys.exit(_run(*json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    _serve()
