"""The example packages, built and installed as a user's would be, and used in processes that know nothing of them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .conftest import ROOT

EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/pyproject.toml"))


@pytest.fixture(scope="module", params=EXAMPLES, ids=lambda path: path.name)
def installed(request, tmp_path_factory) -> tuple[Path, Path]:
    """An example's folder, and one with its wheel unpacked, metadata and all, which is all that an installer does."""
    wheels, site = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("site")
    source = shutil.copytree(request.param, tmp_path_factory.mktemp("source") / request.param.name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = wheels.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return source, site


def python(site: Path, *arguments: str, cwd: Path) -> str:
    path = os.pathsep.join([str(site), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


PROGRAM = """
import sys
import gymnasium
from gymnasium.utils.env_checker import check_env

if __name__ == "__main__":
    import envs
    package = sys.argv[1]
    found = [name for name, spec in gymnasium.registry.items() if str(spec.entry_point).startswith(package + ".")]
    for name in found:
        check_env(gymnasium.make(name).unwrapped)
        envs.check_reward_env(name, rows=8, strict=True)
        vector = gymnasium.make_vec(
            name, num_envs=2, vectorization_mode="async", vector_kwargs={"context": "spawn"}
        )
        _, info = vector.reset(seed=[1, 2])
        task = gymnasium.make(name).unwrapped
        _, rewards, *_ = vector.step([task.solution(int(index)) for index in info["index"]])
        vector.close()
        print(name, rewards.tolist() == [task.correct_reward] * 2)
"""


def test_its_environments_are_sound_wherever_they_are_made(installed, tmp_path):
    source, site = installed
    (tmp_path / "program.py").write_text(PROGRAM)
    lines = python(site, "program.py", source.name, cwd=tmp_path).splitlines()
    assert lines and all(line.endswith(" True") for line in lines)


def test_the_command_line_lists_it(installed, tmp_path):
    source, site = installed
    listed = python(site, "-m", "dapo_trl", "envs", "list", cwd=tmp_path)
    names = re.findall(r"dapo-trl envs check (\S+)", (source / "README.md").read_text())
    assert names and all(name in listed for name in names)


def test_its_own_tests_pass(installed):
    source, site = installed
    printed = python(site, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=source)
    assert "passed" in printed and "skipped" not in printed


def test_its_readme_names_what_is_there(installed):
    source, _ = installed
    tree = (source / "README.md").read_text().split("```text\n")[1].split("```")[0]
    for line in tree.splitlines():
        assert (source / line.split()[0]).is_file(), line
