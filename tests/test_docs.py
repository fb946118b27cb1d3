"""What the documentation's programs do, and that what it names exists."""

from __future__ import annotations

import dataclasses
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
    assert [env.step(guess)[0] for guess in ("50", "25")] == ["lower\n", "higher\n"]
    assert env.step(env.solution(42))[1:3] == (1.0, True)


@pytest.mark.parametrize("name", re.findall(r"`(math/\w+-v0)`", (ROOT / "docs/environments.md").read_text()))
def test_every_id_is_registered(name):
    assert name in gymnasium.registry


def test_pages_made_from_the_code_are_what_it_says():
    done = run([sys.executable, "scripts/make_docs.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_the_page_on_troubles_names_exists():
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    names = set(re.findall(r"`([a-z]\w*(?:/\w+)?)`", text))
    settings = {field.name for owner in (DAPOConfig, RunConfig) for field in dataclasses.fields(owner)}
    known = settings | set(METRICS) | {"reward", "grad_norm"} | {str(verdict) for verdict in envs.Verdict}
    assert names <= known, names - known
    assert len(names & set(METRICS)) > 8 and len(names & settings) > 12


def test_every_setting_given_a_value_in_the_docs_exists():
    settings = {field.name for owner in (DAPOConfig, RunConfig) for field in dataclasses.fields(owner)}
    for page in ("algorithm", "troubleshooting"):
        for name in re.findall(r"`(\w+): [^`]+`", (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")):
            assert name in settings or name in ("error",), (page, name)


def test_every_function_named_with_an_equation_is_there():
    text = (ROOT / "docs/algorithm.md").read_text(encoding="utf-8")
    names = [name for line in re.findall(r"^## .*$", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", line)]
    assert len(names) >= 5
    for name in names:
        assert callable(getattr(algorithm, name)), name


def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site/algorithm.html").read_text(encoding="utf-8")
    assert "Token-level loss" in page and "../dapo_trl" not in page
    fetched = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?://[^"]+)"', page)
    assert not fetched, "a page fetches something from elsewhere"
