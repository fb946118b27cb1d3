"""One wheel with exactly two packages, which work where nothing else of the project is."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from .conftest import ROOT


def run(*command: str | Path, cwd: Path, **changes) -> subprocess.CompletedProcess:
    """A command that sees nothing of this checkout, even where PYTHONPATH names it."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 or changes.get("may_fail"), done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_two_packages_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"dapo_trl", "envs"}
    in_tree = {
        str(path.relative_to(ROOT)) for package in ("dapo_trl", "envs") for path in (ROOT / package).rglob("*.py")
    }
    in_tree |= {str(path.relative_to(ROOT)) for path in (ROOT / "dapo_trl/report/assets").rglob("*") if path.is_file()}
    in_tree |= {"dapo_trl/report/assets/uplot/LICENSE", "dapo_trl/py.typed", "envs/py.typed"}
    shipped = (
        path for kind in ("configs", "models", "templates") for path in (ROOT / kind).rglob("*") if path.is_file()
    )
    in_tree |= {f"dapo_trl/{path.relative_to(ROOT)}" for path in shipped}
    assert in_tree <= set(names)
    assert not [
        name
        for name in names
        if "__pycache__" in name or "/test_" in name.partition("/templates/")[0] or name.startswith("tests/")
    ]


@pytest.mark.slow
def test_it_installs_in_a_clean_environment_and_both_packages_import(wheel, tmp_path):
    """Dependencies come from this environment's folder: the wheel alone is what is new."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)  # this environment's pip installs into that one
    python = tmp_path / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    site = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    (outside,) = (path for path in map(Path, sys.path) if path.name == "site-packages" and (path / "torch").is_dir())
    (site / "dependencies.pth").write_text(f"{outside}\n")
    code = (
        "import dapo_trl, envs, gymnasium; from dapo_trl import DAPOConfig, DAPOTrainer; "
        "gymnasium.make('math/Arithmetic-v0').reset(seed=0); print(dapo_trl.__file__, envs.__file__)"
    )
    found = run(python, "-c", code, cwd=tmp_path).stdout.split()
    assert all(path.startswith(str(site)) for path in found)
    command = tmp_path / "venv" / "bin" / "dapo-trl"
    assert "train" in run(command, "--help", cwd=tmp_path).stdout
    assert str(site / "dapo_trl" / "configs") in run(command, "configs", cwd=tmp_path).stdout
    run(command, "train", "--config", "quickstart", "--max_steps", "1", "--eval_problems", "0", cwd=tmp_path)
    assert (tmp_path / "runs" / "quickstart" / "report.html").is_file()
    paper = [
        "--config",
        "qwen2.5-32b-paper",
        "--model",
        "qwen2.5-32b.json",
        "--accelerate",
        "multi-node",
        "--devices",
        "128",
    ]
    planned = run(command, "plan", *paper, "--card", "H20", "--prompt_tokens", "200", "--rows", "17398", cwd=tmp_path)
    assert "512 groups x 16 = 8,192 completions, 16 updates" in planned.stdout and "It fits" in planned.stdout
    measure = ["--env", "math/Arithmetic-v0: {split: test}", "--problems", "2", "--k", "2"]
    assert "avg@2" in run(command, "eval", "--model", "runs/quickstart/model", *measure, cwd=tmp_path).stdout
    run(command, "report", "runs/quickstart", "--output", "pages", cwd=tmp_path)
    assert (tmp_path / "pages" / "report.html").is_file()


@pytest.mark.parametrize("kind", ["a package", "a folder without __init__.py", "a module"])
def test_another_envs_is_noticed_with_its_path_and_the_fix(tmp_path, kind):
    if kind == "a module":
        (tmp_path / "envs.py").write_text("x = 1\n")
    else:
        (tmp_path / "envs").mkdir()
        if kind == "a package":
            (tmp_path / "envs" / "__init__.py").write_text("x = 1\n")
    code = f"import sys; sys.path = [{str(tmp_path)!r}, *sys.path]\n"
    if kind == "a folder without __init__.py":  # a namespace package only wins where there is no real one
        code += "import types; found = types.ModuleType('envs'); found.__path__ = [sys.path[0] + '/envs']\n"
        code += "sys.modules['envs'] = found\n"
    done = run(sys.executable, "-c", code + "import dapo_trl", cwd=tmp_path, may_fail=True)
    assert "ImportError" in done.stderr and str(tmp_path) in done.stderr and "Rename that folder" in done.stderr


def test_envs_imports_neither_torch_nor_the_trainer_nor_sympy():
    code = (
        "import sys, envs; print([m for m in ('torch', 'dapo_trl', 'trl', 'sympy', 'math_verify') if m in sys.modules])"
    )
    assert run(sys.executable, "-c", code, cwd=ROOT).stdout.strip() == "[]"


def test_the_trainer_loads_no_command(warm_start, tmp_path):
    """A script that trains pays for no part of the command line."""
    (tmp_path / "program.py").write_text(
        "import sys; from dapo_trl import DAPOTrainer\n"
        "found = {m.split('.')[1] for m in sys.modules if m.startswith('dapo_trl.')}\n"
        "print('trainer' in found, found & {'evaluation', 'plan', 'report', 'run', 'cli'})"
    )
    done = warm_start.run(str(tmp_path / "program.py"))
    assert done.stdout == "True set()\n", done.stderr
