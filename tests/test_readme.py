"""Every command and every program in the README, run as it stands there (training is cut short by more flags)."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    line
    for language, text in BLOCKS
    if language == "bash"
    for line in text.replace("\\\n", " ").splitlines()
    if line.strip() and not line.startswith("#")
]
PROGRAMS = [text for language, text in BLOCKS if language == "python"]
SHORT = "--max_steps 2 --eval_problems 4 --eval_samples 2 --save_strategy no"
BIN = Path(sys.executable).parent


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A folder with what the README's commands refer to, and its programs under the names they carry."""
    for name in (
        "configs",
        "models",
        "Makefile",
        "pyproject.toml",
        "constraints.txt",
        "tests",
        "dapo_trl",
        "envs",
    ):
        (tmp_path / name).symlink_to(ROOT / name)
    for text in PROGRAMS:
        if named := re.match(r"# (\w+\.py)\n", text):
            (tmp_path / named[1]).write_text(text)
    return tmp_path


def shell(command: list[str], folder: Path) -> subprocess.CompletedProcess:
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, timeout=500)


def test_the_readme_has_commands_and_programs():
    assert len(COMMANDS) >= 5 and len(PROGRAMS) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_command(command, checkout):
    words = shlex.split(command, comments=True)
    if words[0] == "git" or words[0] == "cd":
        pytest.skip("fetching the project is what has just happened")
    if words[0] == "make":
        if not (BIN.parent / ".installed").exists():
            pytest.skip("not running in the environment that the Makefile makes")
        arguments = {"quickstart": SHORT, "test": "tests/monitor/test_console.py -n 0"}[words[1]]
        words += [f"VENV={BIN.parent}", f"ARGS={arguments}", "-o", str(BIN.parent / ".installed")]
    elif "train" in words:
        words += shlex.split(SHORT)
    elif "eval" in words:
        words += ["--problems", "4", "--k", "2"]
    done = shell(words, checkout)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_program(number, checkout):
    (checkout / "program.py").write_text(PROGRAMS[number])
    done = shell([sys.executable, "program.py"], checkout)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


def test_every_path_in_the_annotated_tree_exists():
    (tree,) = (text for language, text in BLOCKS if language == "text" and "dapo_trl/" in text)
    folder, found = "", set()
    for line in tree.splitlines():
        name = line.split()[0] if line.split() else ""
        if not re.fullmatch(r"[\w./-]+", name):
            continue
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            path = ROOT / name
        else:
            path = ROOT / folder / name
        assert path.exists(), path
        assert path not in found, f"{path} is there twice"
        found.add(path)
    assert len(found) > 20


def test_every_test_named_in_the_table_of_techniques_exists():
    names = re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", README)
    assert len(names) >= 4
    for file, name in names:
        assert (ROOT / file).is_file(), file
        assert not name or re.search(rf"(def|class) {name}\b", (ROOT / file).read_text()), (file, name)


def test_every_setting_named_in_the_table_exists():
    from dapo_trl import DAPOConfig

    table = README[README.index("| technique |") :].split("\n\n")[0]
    names = [
        name
        for cell in re.findall(r"^\|[^|]*\|([^|]*)\|", table, flags=re.MULTILINE)
        for name in re.findall(r"`(\w+)`", cell)
    ]
    assert len(names) >= 8
    for name in names:
        assert hasattr(DAPOConfig(use_cpu=True), name), name
