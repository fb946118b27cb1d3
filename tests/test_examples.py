"""The examples: packages, built and installed as a user's would be, and used in processes that know nothing of them;
and projects, folders with a config.yaml that are used where they are."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dapo_trl.settings import find_config

from .conftest import ROOT

EXAMPLES = sorted(path.parent for path in (ROOT / "examples").glob("*/pyproject.toml"))
PROJECTS = sorted(path.parent for path in (ROOT / "examples").glob("*/config.yaml"))
SHORT = (
    "--max_steps 2 --group_filter none --num_generations 2 --per_device_train_batch_size 2 --steps_per_generation 2 "
    "--max_completion_length 24 --lora_rank 0 --eval_problems 2 --eval_samples 1 --use_cpu true --bf16 false "
    "--gradient_checkpointing false --save_strategy no --output_dir run"
)


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


@pytest.fixture(params=PROJECTS, ids=lambda path: path.name)
def project(request, tmp_path) -> Path:
    """A copy of a project's folder."""
    return shutil.copytree(request.param, tmp_path / request.param.name)


def test_there_is_a_project_of_every_kind():
    assert {path.name for path in PROJECTS} == {"own_rows", "word_game", "repair", "judge"}


def test_the_tests_of_a_project_pass(project):
    printed = python(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project)
    assert "passed" in printed and "skipped" not in printed


def test_a_project_names_its_files_and_its_commands_use_them(project):
    text = (project / "README.md").read_text()
    named = {line.split()[0] for line in text.split("```text\n")[1].split("```")[0].splitlines()}
    assert named == {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()} - {"README.md"}
    (command,) = re.findall(r"^dapo-trl train (.*)$", text, re.MULTILINE)
    files = re.match(r"--config (.*?) --", command)[1].split()
    for file in files:
        assert find_config(file).is_file() or (project / file).is_file(), file


@pytest.mark.slow
def test_a_project_trains(project, warm_start, tiny_chat_model):
    stand_in = project / "stand_in.py"
    judge, env = None, {}
    if stand_in.is_file():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        judge = subprocess.Popen([sys.executable, str(stand_in), str(port)])
        env = {"JUDGE_URL": f"http://127.0.0.1:{port}/v1"}
    try:
        words = ["train", "--config", "config.yaml", "--model", tiny_chat_model, *SHORT.split()]
        done = warm_start.run("dapo_trl", *words, cwd=project, env=env, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        if judge is not None:
            judge.kill()
            judge.wait()
    rows = [json.loads(line) for line in (project / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["verdicts/infra_failure"] for row in rows if "verdicts/infra_failure" in row] == [0.0]
