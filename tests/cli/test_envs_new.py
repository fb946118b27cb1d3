"""``dapo-trl envs new``: every kind of package is sound, tested, installable, and trains."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import pytest

from dapo_trl.cli.envs_new import create
from dapo_trl.errors import ConfigError
from dapo_trl.triage.rows import given_rows

from ..conftest import ROOT

KINDS = ("task", "turns", "rows")


def run(folder: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, filter(None, (path, ROOT)))), "COLUMNS": "200"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture(scope="module")
def own_rows(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("own") / "mine.jsonl"
    rows = [{"prompt": f"What is {place} + {place}?", "answer": 2 * place, "id": place} for place in range(100, 164)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def packages(tmp_path_factory, own_rows) -> dict[str, Path]:
    return {
        kind: create("two-words", kind, tmp_path_factory.mktemp(kind), rows=own_rows if kind == "rows" else None)
        for kind in KINDS
    }


@pytest.fixture(params=KINDS)
def package(request, packages) -> Path:
    return packages[request.param]


@pytest.mark.slow
def test_its_own_tests_pass(package):
    """The strict check of the reward is one of them."""
    done = run(package, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore")
    assert done.returncode == 0 and "passed" in done.stdout and "skipped" not in done.stdout, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(find_spec("envs.judges") is None, reason="envs.judges is not there")
def test_the_tests_of_a_judged_task_pass(tmp_path):
    folder = create("two-words", "judge", tmp_path)
    check_names(folder)
    done = run(folder, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore")
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout


@pytest.mark.slow
def test_the_commands_of_its_readme_work(packages):
    package = packages["task"]
    text = (package / "README.md").read_text()
    commands = re.findall(r"^dapo-trl (envs .*)$", text, re.MULTILINE)
    assert len(commands) == 2 and not re.search(r"my.?task", text, re.IGNORECASE)
    for command in commands:
        done = run(package, "-m", "dapo_trl", *command.split())
        assert done.returncode == 0, done.stdout + done.stderr
    assert "ok" in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_installed_it_is_known_everywhere_with_its_rows(packages, tmp_path):
    command = ("-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(packages["rows"]))
    done = run(tmp_path, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "import envs, gymnasium; print(gymnasium.make('two_words/TwoWords-v0').unwrapped.num_rows > 50)"
    assert run(tmp_path, "-c", code, path=tmp_path / "site").stdout == "True\n"


@pytest.mark.slow
def test_it_trains_as_it_is(packages, warm_start):
    package = packages["turns"]
    short = "--max_steps 2 --steps_per_generation 2 --eval_problems 0 --save_strategy no --group_filter none"
    done = warm_start.run("dapo_trl", "train", "--config", "config.yaml", *short.split(), cwd=package, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (package / "runs" / "two-words" / "metrics.jsonl").read_text().splitlines()]
    assert any("accuracy/sampled" in row for row in rows)


def test_names_are_put_in_everywhere(package):
    check_names(package)


def check_names(package: Path) -> None:
    files = [path for path in package.rglob("*") if path.is_file() and "runs" not in path.parts]
    assert package / "two_words" / "env.py" in files and package / "tests" / "test_two_words.py" in files
    for path in files:
        if path.suffix != ".pyc":
            assert not re.search(r"my.?task", path.read_text(), re.IGNORECASE), path
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    assert project["name"] == "two-words" and project["entry-points"]["dapo_trl.envs"] == {"two-words": "two_words"}


def test_own_rows_are_in_the_package(tmp_path, own_rows):
    folder = create("two-words", "rows", tmp_path, rows=own_rows)
    assert (folder / "two_words" / "data" / "rows.jsonl").read_text() == own_rows.read_text()


def test_its_kept_rows_can_be_trained_on(packages, tmp_path):
    path = packages["rows"] / "two_words" / "data" / "rows.jsonl"
    made = {"__file__": str(path.parents[1] / "env.py"), "__name__": "made"}
    exec((packages["rows"] / "two_words" / "env.py").read_text(), made)
    env = gymnasium.make(gymnasium.envs.registration.EnvSpec("two_words/TwoWords-v0", made["TwoWords"]))
    rows = given_rows(env, [0, 5])
    assert rows is not None and rows[5]["id"] == 105


@pytest.mark.parametrize("name", ["My-Task", "my task", "9lives", "../up", "a--b", "", "class", "json", "envs"])
def test_a_name_that_no_package_can_have_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match="name is") as error:
        create(name, "task", tmp_path)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["true", "none", "warning", "my-task-env", "path", "answer-line", "task-env"])
def test_a_class_hides_no_other_name(name, tmp_path, own_rows):
    hides = name not in ("my-task-env", "answer-line")
    if not hides:
        assert create(name, "rows", tmp_path, rows=own_rows).is_dir()
        return
    with pytest.raises(ConfigError, match="would hide another name"):
        create(name, "rows", tmp_path, rows=own_rows)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "there is no such file"),
        ("[1]\n", "JSON list"),
        ('{"question": "1 + 1", "answer": 2}\n', r"row 0 of .* has no 'prompt' \(columns: question, answer\)"),
        ("", "has no rows"),
        (
            '{"prompt": "1 + 1", "answer": [2, 3]}\n{"prompt": "x", "answer": ["a", "b"]}\n',
            "row 1 of .* can not be read",
        ),
        ('{"prompt": ["1 + 1"], "answer": 2}\n', "'prompt' is a list"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(rows, message, tmp_path):
    file = tmp_path / "rows.jsonl"
    if rows is not None:
        file.write_text(rows)
    with pytest.raises(ConfigError, match=message):
        create("two-words", "rows", tmp_path, rows=file)
    assert not (tmp_path / "two-words").exists()


def test_a_folder_that_exists_is_left_alone(tmp_path):
    (tmp_path / "two-words").mkdir()
    with pytest.raises(ConfigError, match="exists: choose another name"):
        create("two-words", "task", tmp_path)
    assert not list((tmp_path / "two-words").iterdir())


@pytest.mark.slow
def test_the_command_names_its_files_and_what_to_do(tmp_path):
    done = run(tmp_path, "-m", "dapo_trl", "envs", "new", "sums", "--turns")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "sums/sums/env.py" in lines and "dapo-trl envs check sums:sums/Sums-v0 --strict" in lines
    again = run(tmp_path, "-m", "dapo_trl", "envs", "new", "sums")
    assert again.returncode == 2 and again.stderr.startswith("error: ") and again.stderr.count("\n") == 1


def test_the_documentation_shows_what_is_written(tmp_path):
    page = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")
    text = (create("own-task", "task", tmp_path) / "own_task" / "env.py").read_text(encoding="utf-8")
    assert "dapo-trl envs new own-task\n" in page and f"```python\n# own_task/env.py\n{text}```" in page
