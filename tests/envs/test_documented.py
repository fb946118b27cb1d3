"""Every environment that README and docs show earns its reward as the reward checker wants it."""

import re

import gymnasium
import pytest

import envs

from ..conftest import ROOT

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def environments():
    """Yield (where it is shown, its class) for every task of the documentation."""
    before = dict(gymnasium.registry)
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for block in BLOCK.findall(path.read_text(encoding="utf-8")):
            if re.search(r"^class \w+\((envs\.)?TaskEnv\)", block, re.MULTILINE):
                names = {**vars(envs), "__name__": f"shown_in_{path.stem}"}
                exec(block, names)
                for name in set(gymnasium.registry) - set(before):
                    del gymnasium.registry[name]
                yield from (
                    pytest.param(found, id=f"{path.name}-{found.__name__}")
                    for found in names.values()
                    if isinstance(found, type) and found.__module__ == names["__name__"]
                )


LENIENT = {"generation.md-Sums"}
"""Its reward looks at the last number of an answer alone, for a model that has not learnt any form."""
ELSEWHERE = {"judges.md-Explain"}
"""It needs a server: tests/envs/judges/test_judge.py."""
SHOWN = [shown for shown in environments() if shown.id not in LENIENT | ELSEWHERE]


def test_there_are_some():
    assert {"environments.md-Guess", "environments.md-Doubling"} <= {shown.id for shown in SHOWN}


@pytest.mark.parametrize("env", SHOWN)
def test_it_passes_the_reward_check(env):
    found = envs.check_reward_env(env, rows=12)
    assert {check.name for check in found.not_made} == {"spec"}  # it is given as a class and not by its id
