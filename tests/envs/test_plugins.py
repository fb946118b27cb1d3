"""Installed packages that announce environments: real distributions on the path of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..conftest import ROOT

TASK = """
import gymnasium
from envs import TaskEnv

class Count(TaskEnv):
    num_rows = 50

    def row(self, index):
        return {"prompt": f"What comes after {index + 100}? Say: Answer: <number>", "answer": str(index + 101)}

    def verify(self, row, completion):
        return completion.rpartition("</think>")[2].strip() == f"Answer: {row['answer']}"
"""
REGISTER = 'gymnasium.register("count/Next-v0", "count_task:Count")\n'
LIST = 'import gymnasium, envs; print(sorted(i for i in gymnasium.registry if i.startswith(("count/", "math/A"))))'


@pytest.fixture
def install(tmp_path):
    """Install a distribution: its modules and its metadata in a folder that is put on the path."""

    def install(name: str, entry_point: str, **modules: str) -> Path:
        for module, text in modules.items():
            (tmp_path / f"{module}.py").write_text(text)
        metadata = tmp_path / f"{name.replace('-', '_')}-1.2.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (metadata / "entry_points.txt").write_text(f"[dapo_trl.envs]\n{name} = {entry_point}\n")
        return tmp_path

    return install


def python(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(folder), str(ROOT)])
    (folder / "program.py").write_text(program)
    return subprocess.run(
        [sys.executable, "program.py", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        timeout=120,
    )


def test_a_module_is_imported(install):
    folder = install("count-tasks", "count_task", count_task=TASK + REGISTER)
    done = python(folder, LIST)
    assert (done.stdout, done.stderr) == (
        "['count/Next-v0', 'math/AIME2024-v0', 'math/AIME2025-v0', 'math/Arithmetic-v0']\n",
        "",
    )


@pytest.mark.parametrize("first", ["envs", "count_task"])
def test_a_callable_is_called(install, first):
    text = TASK + "def register():\n    " + REGISTER
    done = python(install("count-tasks", "count_task:register", count_task=text), f"import {first}\n{LIST}")
    if first == "envs":
        assert "count/Next-v0" in done.stdout and done.stderr == ""
    else:  # the function does not exist yet when the module's own import of envs looks for plug-ins
        assert "write `import envs` before `import count_task`" in done.stderr


def test_a_plugin_may_be_imported_before_envs(install):
    folder = install("count-tasks", "count_task", count_task=TASK + REGISTER)
    done = python(folder, f"import count_task\n{LIST}")
    assert "count/Next-v0" in done.stdout and done.stderr == ""


@pytest.mark.parametrize(
    ("entry_point", "text", "error"),
    [
        ("broken", "import no_such_library", r"ModuleNotFoundError: No module named 'no_such_library' (broken.py:1)"),
        ("broken", "raise SystemExit(3)", "SystemExit: 3 (broken.py:1)"),
        ("broken:register", "def register():\n    return 1 / 0", "ZeroDivisionError: division by zero (broken.py:2)"),
        ("broken:register", "", "AttributeError: module 'broken' has no attribute 'register'"),
        ("missing", "", "ModuleNotFoundError: No module named 'missing'"),
    ],
)
def test_a_broken_one_costs_one_warning_and_nothing_else(install, entry_point, text, error):
    install("broken-tasks", entry_point, broken=text)
    folder = install("count-tasks", "count_task", count_task=TASK + REGISTER)
    done = python(folder, LIST)
    assert done.returncode == 0 and "count/Next-v0" in done.stdout and "math/Arithmetic-v0" in done.stdout
    assert done.stderr.count("PluginWarning") == 1 and "Traceback" not in done.stderr
    assert f"broken-tasks 1.2 announces (broken-tasks = {entry_point!r}) are missing: {error}" in done.stderr


WORKERS = """
import gymnasium
from functools import partial
from gymnasium.vector import AsyncVectorEnv

if __name__ == "__main__":
    import envs
    # a worker that is spawned unpickles the spec alone: what makes the environment there must find it by itself
    env = AsyncVectorEnv([partial(gymnasium.make, "envs:count/Next-v0")] * 2, context="spawn")
    prompts, info = env.reset(seed=[1, 2])
    numbers = [int(prompt.split()[3].rstrip("?")) for prompt in prompts]
    print((info["index"] + 100).tolist() == numbers)
    print(env.step([f"Answer: {number + 1}" for number in numbers])[1])
    env.close()
"""


def test_it_is_there_in_spawned_workers(install):
    folder = install("count-tasks", "count_task", count_task=TASK + REGISTER)
    done = python(folder, WORKERS)
    assert done.stdout == "True\n[1. 1.]\n", done.stderr


def test_it_can_be_checked(install):
    folder = install("count-tasks", "count_task", count_task=TASK + REGISTER)
    check = "import envs; print(envs.check_reward_env('count/Next-v0', rows=5, strict=True).ok)"
    done = python(folder, check)
    assert done.stdout == "True\n", done.stderr
