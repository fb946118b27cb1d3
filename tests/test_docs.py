"""The documentation's programs work, and the names in it exist."""

from __future__ import annotations

import dataclasses
import pkgutil
import re
import sys
from subprocess import run

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from dapo_trl import DAPOConfig, algorithm
from dapo_trl.monitor.metrics import METRICS
from dapo_trl.run.settings import RunConfig

from .conftest import ROOT

PROGRAMS = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "docs/environments.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)


def test_the_environment_of_many_turns():
    (program,) = (text for text in PROGRAMS if "max_turns" in text)
    names = {"TaskEnv": envs.TaskEnv}
    exec(program, names)
    env = names["Guess"]()
    check_env(env)
    env.reset(options={"index": 42})
    answer = int(env.solution(42))
    assert [env.step(str(guess))[0] for guess in (answer + 1, answer - 1)] == ["lower\n", "higher\n"]
    assert env.step(str(answer))[1:3] == (1.0, True)


@pytest.mark.parametrize("name", re.findall(r"`((?:math|text)/\w+-v0)`", (ROOT / "docs/environments.md").read_text()))
def test_every_id_is_registered(name):
    assert name in gymnasium.registry


def test_pages_made_from_the_code_are_what_it_says(warm_start):
    done = warm_start.run(str(ROOT / "scripts/make_docs.py"), "--check", timeout=300)
    assert done.returncode == 0, done.stderr


def test_every_name_on_the_page_on_troubles_exists():
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`([a-z]\w*(?:/\w+)?)`", text))
    settings = {field.name for owner in (DAPOConfig, RunConfig) for field in dataclasses.fields(owner)}
    known = settings | set(METRICS) | {"reward", "grad_norm"} | {str(verdict) for verdict in envs.Verdict}
    assert names <= known, names - known
    assert len(names & set(METRICS)) > 8 and len(names & settings) > 12


def test_every_setting_given_a_value_in_the_docs_exists():
    settings = {field.name for owner in (DAPOConfig, RunConfig) for field in dataclasses.fields(owner)}
    for page in ("algorithm", "troubleshooting", "training", "extending"):
        for name in re.findall(r"`(\w+): [^`]+`", (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")):
            assert name in settings or name in ("error",), (page, name)


def test_every_function_named_with_an_equation_is_there():
    text = (ROOT / "docs/algorithm.md").read_text(encoding="utf-8")
    names = [name for line in re.findall(r"^## .*$", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", line)]
    assert len(names) >= 5
    for name in names:
        assert callable(getattr(algorithm, name)), name


def test_the_table_of_techniques():
    """Its settings, its functions and its tests exist."""
    text = (ROOT / "docs/algorithm.md").read_text(encoding="utf-8")
    table = text[text.index("| technique |") :].split("\n\n")[0]
    rows = [re.findall(r"`([^`]+)`", line) for line in table.splitlines()[2:]]
    assert len(rows) == 4
    names = {name for row in rows for name in row}
    settings = {name for name in names if re.fullmatch(r"\w+", name)}
    assert len(settings) >= 12 and all(hasattr(DAPOConfig(use_cpu=True), name) for name in settings)
    for name in names - settings:
        if "/" in name:
            file, _, test = name.partition("::")
            assert (ROOT / file).is_file(), name
            assert not test or re.search(rf"(def|class) {test}\b", (ROOT / file).read_text(encoding="utf-8")), name
        else:
            package = name if name.startswith("envs.") else f"dapo_trl.{name}"
            assert callable(pkgutil.resolve_name(package)), name


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_every_path_on_a_page_exists(page):
    """Files of the project are named by their path, in code or as a link."""
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:dapo_trl|envs|tests|scripts|benchmarks|configs)/[\w./-]+\.\w+)", text)
    linked = [(page.parent / target).resolve() for target in re.findall(r"\]\((?!http)([^)#]+)", text)]
    missing = [path for path in (*(ROOT / name for name in named), *linked) if not path.exists()]
    assert not missing


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site/algorithm.html").read_text(encoding="utf-8")
    assert "Token-level loss" in page and "../dapo_trl" not in page
    fetched = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?://[^"]+)"', page)
    assert not fetched, "a page fetches something from elsewhere"
