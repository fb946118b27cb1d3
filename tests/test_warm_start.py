"""A command that is started warm finds itself where one that is started cold does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from .conftest import ROOT
from .support.processes import gone
from .support.warm_start import FSDP2_CPU_2, WarmStart

LOOK = """
import json, os, sys
names = ("ACCELERATE_", "FSDP_", "RANK", "LOCAL_", "WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS", "MARK")
found = {name: value for name, value in os.environ.items() if name.startswith(names)}
ours = [name for name in sys.modules if name.split(".")[0] in ("dapo_trl", "envs")]
line = json.dumps([found, sys.argv, os.getcwd(), sys.path[0], __name__, sys.stdin.read(), ours])
os.write(1, line.encode() + b"\\n")
"""

ENDS = {
    "no error": ("import atexit; atexit.register(print, 'at the end'); print('first')", 0, "first\nat the end\n", ""),
    "a status": ("import sys; print('first'); sys.exit(3)", 3, "first\n", ""),
    "a text": ("import sys; sys.exit('a text')", 1, "", "a text\n"),
    "an error": ("1 / 0", 1, "", "ZeroDivisionError: division by zero\n"),
    "a signal": ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL, "", ""),
    "Ctrl-C": ("import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)", -signal.SIGINT, "", ""),
}


@pytest.fixture(scope="module")
def light():
    """A helper that has imported nothing."""
    helper = WarmStart(imports=[])
    yield helper
    helper.close()


@pytest.mark.parametrize(("program", "status", "stdout", "stderr"), ENDS.values(), ids=ENDS)
def test_it_ends_as_its_program_does(light, tmp_path, program, status, stdout, stderr):
    (tmp_path / "program.py").write_text(program)
    done = light.run(str(tmp_path / "program.py"))
    assert (done.returncode, done.stdout) == (status, stdout)
    assert done.stderr.endswith(stderr) and bool(done.stderr) == bool(stderr or "SIGINT" in program)


def test_closing_the_helper_ends_what_runs(tmp_path):
    (tmp_path / "program.py").write_text("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    helper = WarmStart(imports=[])
    command = helper.start(str(tmp_path / "program.py"))
    helper.close()
    assert gone(set(command.pids))


@pytest.mark.slow
@pytest.mark.parametrize("accelerate", [None, FSDP2_CPU_2], ids=["alone", "launched"])
def test_it_starts_as_a_cold_one(warm_start, tmp_path, accelerate):
    program = tmp_path / "look.py"
    program.write_text(LOOK)
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(ROOT / accelerate)] if accelerate else []
    env = {"OMP_NUM_THREADS": "1", "MARK": "here"}
    cold = subprocess.run(
        [sys.executable, *launcher, str(program), "--an", "argument"],
        cwd=tmp_path, env={**os.environ, **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    warm = warm_start.run(str(program), "--an", "argument", accelerate=accelerate, cwd=tmp_path, env=env)
    assert warm.returncode == 0, warm.stderr
    expected, found = (sorted(map(json.loads, output.splitlines()), key=str) for output in (cold.stdout, warm.stdout))
    assert len(found) == (2 if accelerate else 1) and found == expected
