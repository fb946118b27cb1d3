"""The arguments of an environment, with their meaning; and why it cannot be made with others."""

from __future__ import annotations

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec, load_env_creator

from envs import TaskEnv
from envs.description import arguments, misfit

OURS = sorted(
    {str(spec.entry_point) for spec in gymnasium.registry.values() if str(spec.entry_point).startswith("envs.")}
)


class Abstract(TaskEnv):
    """A task without its methods."""

    num_rows = 1


class Needy(Abstract):
    """A task that needs an argument.

    ## Arguments
    - `path`: a file,
      over two lines.
    - `level=1`, `depth=2`: both
    """

    def __init__(self, path: str, level: int = 1, depth: int = 2, *, other: int = 0, **more):
        super().__init__(**more)

    def row(self, index):
        return {"prompt": "?"}

    def verify(self, index, completion):
        return 1.0


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for kind in (Abstract, Needy):
        spec = EnvSpec(id=f"mine/{kind.__name__}-v0", entry_point=kind)  # type: ignore[arg-type]
        monkeypatch.setitem(gymnasium.registry, spec.id, spec)


def test_they_are_read_from_signature_and_docstring():
    assert arguments(Needy) == {
        "path": "path: a file, over two lines.",
        "level": "level=1: both",
        "depth": "depth=2: both",
        "other": "other=0",
    }


@pytest.mark.parametrize("entry_point", OURS)
def test_every_environment_of_the_package_explains_its_arguments(entry_point):
    for name, line in arguments(load_env_creator(entry_point)).items():
        assert name in ("hub", "unchecked", "task") or ": " in line, line


def test_what_does_not_fit():
    assert misfit("mine/Abstract-v0", {}) == "Abstract does not define row, verify"
    assert misfit("some_module:mine/Needy-v0", {"path": "a", "level": 5}) is None
    missing, wrong = misfit("mine/Needy-v0", {}), misfit("math/Arithmetic-v0", {"level": 5})
    assert missing and missing.startswith("missing a required argument: 'path'. Its arguments are path, level, depth, ")
    assert wrong and "'level'. Its arguments are levels, operations, split, correct_reward, wrong_reward; " in wrong
    assert "task" not in (misfit("reasoning_gym/ab-v0", {"nope": 1}) or "").partition("Its arguments are ")[2].split(
        ","
    )
    assert misfit("mine/Unknown-v0", {}) is None


def test_a_default_may_hold_a_colon_and_an_argument_may_be_explained_with_another():
    found = arguments(load_env_creator("envs.math.problem:ProblemEnv"))
    assert found["rows"] == "rows=None: the rows themselves."
    assert found["name"].startswith("name=None: a data set on the Hub")
