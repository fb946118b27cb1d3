"""What the documentation's programs do."""

from __future__ import annotations

import re
import runpy

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

import envs

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


def test_the_page_of_metrics_is_up_to_date():
    """`python scripts/make_metrics_doc.py` writes it."""
    made = runpy.run_path(str(ROOT / "scripts/make_metrics_doc.py"))["document"]()
    assert (ROOT / "docs/metrics.md").read_text(encoding="utf-8") == made
